//! HTTP/2: many requests on one connection, under the same waits as one.
//!
//! A stream whose client takes no bytes is reset; the others on its connection go on. A connection on which nothing is
//! asked is closed. What is held for a connection is bounded by its streams, the requests of all connections together by
//! a number of permits, so that a client gains no more by HTTP/2 than by as many connections.
//! The library's own answers, to requests that it cannot read, are statuses or resets without a body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;

use crate::limits::STREAMS_MAX;
use crate::server::connection::limits::ConnectionLimits;
use crate::server::connection::request_tracker::RequestTracker;
use crate::server::connection::stream_pace::{PACE, StreamPace};
use crate::server::connection::timer::Timer;

/// Most bytes of bodies of requests that a connection holds unread; HTTP/2's name for it is the window.
const UNREAD_BYTES: u32 = 1 << 20;
/// Most bytes of one body among them.
const UNREAD_STREAM_BYTES: u32 = 256 << 10;

/// A reader and writer of HTTP/2 within bounds.
pub(crate) fn builder(limits: &ConnectionLimits) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor { wait: limits.write_wait });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_connection_window_size(UNREAD_BYTES)
        .initial_stream_window_size(UNREAD_STREAM_BYTES);
    builder
}

/// Ends when nothing has been asked or answered for too long: the first request has as long as that of an HTTP/1.1
/// connection. What else the client sends, such as pings, does not count.
pub(crate) async fn wait_idle(flow: &RequestTracker, since: Instant, limits: &ConnectionLimits) {
    let mut last = (flow.requests_begun(), since);
    loop {
        let now = Instant::now();
        if flow.is_answering() || flow.requests_begun() != last.0 {
            last = (flow.requests_begun(), now);
        }
        let wait = if last.0 == 0 { limits.head_wait } else { limits.idle_wait };
        let over = last.1 + wait;
        if now >= over {
            return;
        }
        // An answer may end at any time, from when on the wait counts: it is looked a few times in between.
        tokio::time::sleep((wait / 8).min(over - now).max(Duration::from_millis(1))).await;
    }
}

/// Ends when nothing is being answered, and the client has taken nothing for as long as `wait`.
pub(crate) async fn wait_still(flow: &RequestTracker, wait: Duration) {
    loop {
        let before = flow.bytes_taken();
        tokio::time::sleep(wait).await;
        if !flow.is_answering() && flow.bytes_taken() == before {
            return;
        }
    }
}

/// Runs the streams of a connection.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor {
    wait: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let pace = Arc::<StreamPace>::default();
        let stream = Box::pin(PACE.scope(pace.clone(), stream));
        tokio::spawn(PacedStream { stream, pace, wait: self.wait, timer: Timer::default() });
    }
}

/// A stream that ends when its client takes too long to take bytes: what is dropped is reset.
struct PacedStream<F> {
    stream: Pin<Box<F>>,
    pace: Arc<StreamPace>,
    wait: Duration,
    timer: Timer,
}

impl<F: Future<Output = ()>> Future for PacedStream<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = self.pace.since() else { return Poll::Pending };
        let deadline = since + self.wait;
        ready!(self.timer.poll(deadline, context));
        tracing::debug!("a stream was reset: its client does not read");
        Poll::Ready(())
    }
}
