//! What the service tells the socket below it: whether a request is being answered, and whether its body was read.
//!
//! The HTTP library stands between the two and does not say. The service marks here when it is called and when the body
//! of its answer is gone; the socket's timers follow. The wait for the body of a request is kept here, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::server::connection::stream_pace::note_body_poll;

/// One connection's requests. HTTP/1.1 answers one at a time, HTTP/2 some.
#[derive(Debug, Default)]
pub(crate) struct RequestTracker {
    begun: AtomicU64,
    ended: AtomicU64,
    taken: AtomicU64,
    unread: AtomicBool,
    /// Whether the answer under way wants to know when the client closes its side of the connection.
    watched: AtomicBool,
    closed: AtomicBool,
}

impl RequestTracker {
    /// A request has arrived; it is being answered until what is returned is dropped.
    pub(crate) fn begin(self: &Arc<RequestTracker>) -> RequestGuard {
        self.begun.fetch_add(1, Relaxed);
        self.watched.store(false, Relaxed);
        RequestGuard { flow: self.clone(), permit: None }
    }

    /// Requests begun so far.
    pub(crate) fn requests_begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// Whether a request is being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.begun.load(Relaxed) != self.ended.load(Relaxed)
    }

    /// The client has taken bytes.
    pub(crate) fn note_bytes_taken(&self) {
        self.taken.fetch_add(1, Relaxed);
    }

    /// Times that it has.
    pub(crate) fn bytes_taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Whether some of the last request's body may still be on its way.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Whether the end of what the client sends is to be looked for.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed) && !self.closed.load(Relaxed)
    }

    /// The client has closed its side of the connection.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }
}

/// The client of a request, for an answer that may not be worth its cost once the client has gone. Handlers find it
/// among the request's extensions.
///
/// Over HTTP/1.1 a client that closes its side of the connection may still listen, so that its request goes on. Who asks
/// here may do otherwise. Over HTTP/2 a client resets its request, and the answer is dropped: nothing is told here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer(Arc<RequestTracker>);

impl Peer {
    pub(crate) fn new(flow: Arc<RequestTracker>) -> Peer {
        Peer(flow)
    }

    /// From now on, and until this request is answered, it is noticed when the client closes its side.
    pub(crate) fn watch(&self) {
        self.0.watched.store(true, Relaxed);
    }

    /// Whether that has been noticed.
    pub(crate) fn has_closed(&self) -> bool {
        self.0.closed.load(Relaxed)
    }

    /// As if that had been noticed.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Held while a request is being answered.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    flow: Arc<RequestTracker>,
    permit: Option<OwnedSemaphorePermit>,
}

impl RequestGuard {
    /// Holds a permit as long.
    pub(crate) fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.permit = permit;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.flow.ended.fetch_add(1, Relaxed);
    }
}

/// The body of an answer, which is being given as long as this lives.
pub(crate) struct TrackedResponseBody<B> {
    pub(crate) body: B,
    pub(crate) _answering: RequestGuard,
}

impl<B: Body + Unpin> Body for TrackedResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        note_body_poll(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, whose bytes must not pause for too long.
pub(crate) struct TrackedBody {
    body: Incoming,
    flow: Arc<RequestTracker>,
    wait: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TrackedBody {
    pub(crate) fn new(body: Incoming, flow: Arc<RequestTracker>, wait: Duration) -> TrackedBody {
        flow.unread.store(!body.is_end_stream(), Relaxed);
        TrackedBody { body, flow, wait, sleep: None }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.sleep = None;
                if self.body.is_end_stream() || frame.is_none() {
                    self.flow.unread.store(false, Relaxed);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
            }
            Poll::Pending => {
                let wait = self.wait;
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + wait)));
                ready!(sleep.as_mut().poll(context));
                let silent = "the body of the request did not go on";
                Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, silent))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
