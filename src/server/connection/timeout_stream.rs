//! The byte stream under the HTTP library, with time-outs. How bytes and files are sent is decided in `transport`.
//!
//! A client that does not read, or does not finish its request, is cut off after the waits of [`ConnectionLimits`].
//! Answers of the library to unreadable requests have no body: they are replaced by OperationOutcomes here. Under
//! HTTP/2 only the time-out of a client that does not read applies here; the others belong to requests, of which a
//! stream of frames shows nothing.

use crate::server::connection::limits::ConnectionLimits;
use crate::server::connection::protocol_errors;
use crate::server::connection::request_tracker::RequestTracker;
use crate::server::connection::timer::Timer;
use crate::server::connection::transport::Transport;
use crate::sys::sendfile::{place_of, set_cork};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Instant;

/// Longest time for which a closed connection still reads what the client sends: a socket that is closed with unread
/// bytes resets the connection, which may destroy the answer.
const LINGER: Duration = Duration::from_secs(2);

/// Version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1: one request at a time.
    One,
    /// HTTP/2: many requests at a time, after a TLS handshake.
    Two,
}

/// The stream of one connection.
pub(crate) struct TimeoutStream<T> {
    stream: T,
    protocol: Protocol,
    /// Address of the other side, for the log.
    client: SocketAddr,
    tracker: Arc<RequestTracker>,
    limits: Arc<ConnectionLimits>,
    /// Start of the headers that are being read; `None` between requests.
    head_since: Option<Instant>,
    /// Last time that bytes moved in either direction.
    active: Instant,
    /// Requests begun when `head_since` was last set or cleared.
    begun: u64,
    /// Time-out of headers and idle time; then of the linger.
    reading: Timer,
    /// Time-out of a blocked write.
    writing: Timer,
    /// Time-out of a blocked flush.
    flushing: Timer,
    /// The answer that replaces one of the library; kept after it is sent.
    refusal: Option<RefusalWriter>,
    /// Whether the socket holds back what is no full segment: from the first piece of a file to the next flush. Without it every
    /// part of a piece that the socket takes is a segment, and wakes the client.
    corked: bool,
    /// Whether the client has sent its last byte.
    ended: bool,
    /// Whether the connection is being closed.
    lingers: bool,
}

/// An answer that replaces one of the library, and its progress.
struct RefusalWriter {
    answer: Vec<u8>,
    written: usize,
    /// Length of the replaced answer, which is reported to the library as written; 0 afterwards.
    instead_of: usize,
}

impl<T: Transport> TimeoutStream<T> {
    /// The stream of a connection that was accepted at `since` from `client`.
    pub(crate) fn new(
        stream: T,
        protocol: Protocol,
        (since, client): (Instant, SocketAddr),
        tracker: Arc<RequestTracker>,
        limits: Arc<ConnectionLimits>,
    ) -> TimeoutStream<T> {
        TimeoutStream {
            stream,
            protocol,
            client,
            tracker,
            limits,
            head_since: Some(since),
            active: since,
            begun: 0,
            reading: Timer::default(),
            writing: Timer::default(),
            flushing: Timer::default(),
            refusal: None,
            corked: false,
            ended: false,
            lingers: false,
        }
    }

    /// Resets the connection at the next close, dropping what the kernel still holds for the client; returns the
    /// error to fail with.
    fn cut_connection(&mut self, why: &'static str) -> io::Error {
        let _ = self.stream.socket().set_zero_linger();
        protocol_errors::log_cut(self.client, why);
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// Ready, with an error, when the client has sent nothing for too long between requests or within headers.
    fn poll_idle_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.protocol == Protocol::Two || self.tracker.is_answering() {
            return Poll::Pending; // request bodies have their own time-out, and the next request may take its time
        }
        let deadline = match self.head_since {
            Some(since) => since + self.limits.head_wait,
            None => self.active + self.limits.idle_wait,
        };
        ready!(self.reading.poll(deadline, context));
        if self.head_since.is_some() {
            // One attempt, as much as the socket takes. No answer is in progress whose bytes this could split.
            let answer = protocol_errors::too_slow(self.limits.head_wait);
            protocol_errors::log_answer(self.client, answer.status, "no headers in time");
            let mut stream = Pin::new(&mut self.stream);
            let _ = stream.as_mut().poll_write(context, &answer.bytes);
            let _ = stream.poll_flush(context);
        }
        // TLS announces the end of the stream; without that a client must suspect truncation.
        let _ = Pin::new(&mut self.stream).poll_shutdown(context);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no request came"))
    }

    /// Records whether the client has closed its side of the connection, and wakes this task when it does. Takes no
    /// bytes: a close behind unread bytes, such as the close alert of TLS, is found only if it has already arrived.
    fn note_end(&mut self, context: &mut Context<'_>) {
        let (socket, mut byte) = (self.stream.socket(), [0]);
        let has_ended = match socket.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => true,
            Poll::Ready(Ok(_)) => match pin!(socket.ready(Interest::READABLE)).poll(context) {
                Poll::Ready(ready) => ready.is_ok_and(|ready| ready.is_read_closed()),
                Poll::Pending => false,
            },
            Poll::Pending => false,
        };
        if has_ended {
            self.tracker.close();
        }
    }

    /// Applies the time-out of a flush or shutdown: TLS may hold bytes for a client that does not read. A plain
    /// socket holds none.
    fn poll_flush_timeout<R>(&mut self, done: Poll<io::Result<R>>, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.flushing.clear();
            return done;
        }
        let wait = self.limits.write_wait;
        ready!(self.flushing.poll_first(wait, context));
        Poll::Ready(Err(self.cut_connection("the client does not read")))
    }

    /// Sends the replacement if `buffers` are the library's own answer, and returns the length that the library
    /// wrote; `None` if the buffers are to be sent as they are.
    fn poll_refusal(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Option<io::Result<usize>>> {
        if self.protocol == Protocol::One && self.refusal.is_none() && !self.tracker.is_answering() {
            let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
            if let (Some(head), None) = (filled.next(), filled.next()) {
                let answer = protocol_errors::answer_unparsed(head, &self.tracker.kept_head(), &self.limits);
                self.refusal = answer.map(|answer| {
                    protocol_errors::log_answer(self.client, answer.status, "the request cannot be read");
                    RefusalWriter { answer: answer.bytes, written: 0, instead_of: head.len() }
                });
            }
        }
        let Some(refusing) = &mut self.refusal else { return Poll::Ready(None) };
        while refusing.written < refusing.answer.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &refusing.answer[refusing.written..])) {
                Ok(written) => refusing.written += written,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        let instead_of = std::mem::take(&mut refusing.instead_of);
        // Kept, since it shows that the request was not read to its end.
        Poll::Ready((instead_of > 0).then_some(Ok(instead_of)))
    }
}

impl<T: Transport> AsyncRead for TimeoutStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begun = self.tracker.requests_begun();
        if begun != self.begun {
            (self.begun, self.head_since) = (begun, None);
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                self.active = Instant::now();
                self.ended = buffer.filled().len() == before;
                let begins = self.head_since.is_none();
                if !self.tracker.is_answering() {
                    let active = self.active;
                    self.head_since.get_or_insert(active);
                    if self.protocol == Protocol::One {
                        self.tracker.keep_head(&buffer.filled()[before..], begins, self.limits.head_bytes_max);
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_idle_timeout(context).map(Err),
        }
    }
}

impl<T: Transport> AsyncWrite for TimeoutStream<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = match self.poll_refusal(context, buffers) {
            Poll::Ready(None) => {
                if !self.corked && buffers.iter().any(|buffer| place_of(buffer).is_some()) {
                    set_cork(self.stream.socket().as_fd(), true);
                    self.corked = true;
                }
                self.stream.poll_send(context, buffers)
            }
            Poll::Ready(Some(sent)) => Poll::Ready(sent),
            Poll::Pending => Poll::Pending,
        };
        if sent.is_ready() {
            self.tracker.note_bytes_taken();
            self.writing.clear();
            self.active = Instant::now();
            return sent;
        }
        let wait = self.limits.write_wait;
        ready!(self.writing.poll_first(wait, context));
        Poll::Ready(Err(self.cut_connection("the client does not read")))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes at every wake-up, but does not read while a request is being answered.
        if self.protocol == Protocol::One && self.tracker.is_watched() {
            self.note_end(context);
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() && std::mem::take(&mut self.corked) {
            set_cork(self.stream.socket().as_fd(), false);
        }
        self.poll_flush_timeout(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            let shut = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.poll_flush_timeout(shut, context))?;
        }
        let is_unread = self.protocol == Protocol::One && self.tracker.is_unread();
        if self.refusal.is_none() && !is_unread {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut self.lingers, true) {
            self.reading.clear();
        }
        let mut scratch = [0; 16 << 10];
        while !self.ended && self.reading.poll_first(LINGER, context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            // After an error there is no reader of the answer, so that the linger ends.
            self.ended = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).is_err()
                || buffer.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}
