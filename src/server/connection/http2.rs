//! HTTP/2 connections: settings of hyper's connection, idle time-outs, and a deadline for each stream.
//!
//! A stream whose client takes no bytes is reset; the other streams of its connection go on. A connection without
//! requests is closed. Memory per connection is bounded by its streams, and the answers of all connections together by
//! [`admission`](crate::server::admission). Requests that hyper cannot read are answered by hyper, with a status or a reset and no body.

use std::future::Future;
use std::net::SocketAddr;
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
use crate::server::connection::protocol_errors::log_cut;
use crate::server::connection::request_tracker::RequestTracker;
use crate::server::connection::stream_pace::{PACE, StreamPace};
use crate::server::connection::timer::Timer;

/// Flow-control window of a connection: most bytes of request bodies that it holds unread.
const UNREAD_BYTES: u32 = 1 << 20;
/// Flow-control window of a stream: most unread bytes of one request body.
const UNREAD_STREAM_BYTES: u32 = 256 << 10;

/// The settings of HTTP/2 connections of a client under these limits.
pub(crate) fn builder(limits: &ConnectionLimits, client: SocketAddr) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor { wait: limits.write_wait, client });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_connection_window_size(UNREAD_BYTES)
        .initial_stream_window_size(UNREAD_STREAM_BYTES);
    builder
}

/// Resolves when on an HTTP/2 connection no request has begun and none is being answered for `idle_wait`; for
/// `head_wait` since the instant `since` if there was no request at all, as under HTTP/1.1. Other frames of the client,
/// such as pings, do not count.
pub(crate) async fn wait_idle(tracker: &RequestTracker, since: Instant, limits: &ConnectionLimits) {
    let mut last_request = (tracker.requests_begun(), since);
    loop {
        let now = Instant::now();
        if tracker.is_answering() || tracker.requests_begun() != last_request.0 {
            last_request = (tracker.requests_begun(), now);
        }
        let wait = if last_request.0 == 0 { limits.head_wait } else { limits.idle_wait };
        let over = last_request.1 + wait;
        if now >= over {
            return;
        }
        // The wait counts from the end of the last answer, which is noticed by polling eight times per wait.
        tokio::time::sleep((wait / 8).min(over - now).max(Duration::from_millis(1))).await;
    }
}

/// Resolves when no request of an HTTP/2 connection is being answered and the client has taken no bytes for `wait`.
pub(crate) async fn wait_still(tracker: &RequestTracker, wait: Duration) {
    loop {
        let before = tracker.bytes_taken();
        tokio::time::sleep(wait).await;
        if !tracker.is_answering() && tracker.bytes_taken() == before {
            return;
        }
    }
}

/// Spawns the streams of a connection, each with a deadline.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor {
    /// Longest time for which the client of a stream takes no bytes.
    wait: Duration,
    /// Address of the client, for the log.
    client: SocketAddr,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let pace = Arc::<StreamPace>::default();
        let stream = Box::pin(PACE.scope(pace.clone(), stream));
        tokio::spawn(PacedStream { stream, pace, wait: self.wait, client: self.client, timer: Timer::default() });
    }
}

/// The task of a stream. It ends, which resets the stream, when the client takes no bytes for `wait`.
struct PacedStream<F> {
    stream: Pin<Box<F>>,
    pace: Arc<StreamPace>,
    wait: Duration,
    client: SocketAddr,
    timer: Timer,
}

impl<F: Future<Output = ()>> Future for PacedStream<F> {
    type Output = ();

    /// Polls a stream of HTTP/2; ends it when its client has taken no bytes for too long.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = self.pace.since() else { return Poll::Pending };
        let deadline = since + self.wait;
        ready!(self.timer.poll(deadline, context));
        log_cut(self.client, "the client of a stream does not read");
        Poll::Ready(())
    }
}
