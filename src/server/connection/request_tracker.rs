//! State of a connection's requests, shared by the service above the HTTP library and the stream below it.
//!
//! The library does not report whether a request is being answered or its body was read, nor what of its head it passes over. The service records here
//! when it is called and when the body of its answer is dropped; the time-outs of the stream depend on it. The
//! time-out of request bodies is here too. All atomics are relaxed: they are counters and flags of their own, and
//! order no other memory.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Method, Uri};
use tokio::time::{Instant, Sleep};

use crate::server::connection::stream_pace::note_body_poll;

/// The requests of one connection: one at a time under HTTP/1.1, several under HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct RequestTracker {
    /// Requests that have begun.
    begun: AtomicU64,
    /// Requests whose answers have ended.
    ended: AtomicU64,
    /// Times that the client has taken bytes.
    taken: AtomicU64,
    /// Whether the body of the last request may have unread bytes.
    unread: AtomicBool,
    /// Whether the answer in progress needs to know when the client closes its side of the connection.
    watched: AtomicBool,
    /// Whether the client has closed its side of the connection.
    closed: AtomicBool,
    /// What was read since the last request, to tell what the library does not: why it cannot read a request, and whether
    /// a target has a fragment. Under HTTP/1.1 only.
    head: Mutex<Vec<u8>>,
}

impl RequestTracker {
    /// Records that a request has begun; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<RequestTracker>) -> RequestGuard {
        self.begun.fetch_add(1, Relaxed);
        self.watched.store(false, Relaxed);
        RequestGuard { tracker: self.clone() }
    }

    /// Requests begun so far.
    pub(crate) fn requests_begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// Whether a request is being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.begun.load(Relaxed) != self.ended.load(Relaxed)
    }

    /// Records that the client has taken bytes.
    pub(crate) fn note_bytes_taken(&self) {
        self.taken.fetch_add(1, Relaxed);
    }

    /// Keeps bytes that may be of the head of a request, at most so many of one request; `begins` drops those before.
    pub(crate) fn keep_head(&self, bytes: &[u8], begins: bool, most: usize) {
        let mut head = self.lock_head();
        if begins {
            head.clear();
        }
        let room = most.saturating_sub(head.len()).min(bytes.len());
        head.extend_from_slice(&bytes[..room]);
    }

    /// The beginning of a request that no handler was called for, as far as it is kept.
    pub(crate) fn kept_head(&self) -> Vec<u8> {
        self.lock_head().clone()
    }

    /// Drops the head of a request that has begun; whether its target had a fragment, which the library leaves out.
    pub(crate) fn take_fragment(&self, method: &Method, uri: &Uri) -> bool {
        let mut head = self.lock_head();
        let has_fragment = memchr::memchr(b'#', &head).is_some() && {
            let target = format!("{method} {uri}");
            let line = head.trim_ascii_start();
            match line.strip_prefix(target.as_bytes()).and_then(|rest| rest.first()) {
                Some(b'#') => true,
                Some(b' ') => false,
                // The body of a request before stands there as well.
                _ => memchr::memmem::find(&head, format!("\n{target}#").as_bytes()).is_some(),
            }
        };
        // What follows may be a request that was sent at once with this one.
        match memchr::memmem::find(&head, b"\r\n\r\n") {
            Some(end) => drop(head.drain(..end + 4)),
            None => head.clear(),
        }
        if head.is_empty() {
            *head = Vec::new();
        }
        has_fragment
    }

    /// Locks the kept bytes. A poisoned lock is taken all the same: any bytes will do.
    fn lock_head(&self) -> MutexGuard<'_, Vec<u8>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Times that the client has taken bytes; not a number of bytes.
    pub(crate) fn bytes_taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Whether the body of the last request may have unread bytes.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Whether the stream must look for the end of the client's side.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed) && !self.closed.load(Relaxed)
    }

    /// Records that the client has closed its side of the connection.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }
}

/// Request extension: the client's side of the connection, for an expensive answer that is useless once the client is
/// gone.
///
/// Under HTTP/1.1 a client that closes its side may still read, so that by default its request goes on; a handler
/// that uses this may decide otherwise. Under HTTP/2 a client resets its request, which drops the answer: nothing is
/// reported here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer(Arc<RequestTracker>);

impl Peer {
    /// The client of the connection that `tracker` tracks.
    pub(crate) fn new(tracker: Arc<RequestTracker>) -> Peer {
        Peer(tracker)
    }

    /// From now on until this request is answered, records when the client closes its side.
    pub(crate) fn watch(&self) {
        self.0.watched.store(true, Relaxed);
    }

    /// Whether the client was seen to close its side.
    pub(crate) fn has_closed(&self) -> bool {
        self.0.closed.load(Relaxed)
    }

    /// Simulates that the client has closed its side.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// A request in progress, until this is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    tracker: Arc<RequestTracker>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.tracker.ended.fetch_add(1, Relaxed);
    }
}

/// The body of an answer; the request is in progress until this is dropped.
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

/// The body of a request, which fails if no bytes arrive for `wait`.
pub(crate) struct TrackedBody {
    body: Incoming,
    tracker: Arc<RequestTracker>,
    wait: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TrackedBody {
    /// A request body that is tracked by `tracker`.
    pub(crate) fn new(body: Incoming, tracker: Arc<RequestTracker>, wait: Duration) -> TrackedBody {
        tracker.unread.store(!body.is_end_stream(), Relaxed);
        TrackedBody { body, tracker, wait, sleep: None }
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
                    self.tracker.unread.store(false, Relaxed);
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
