//! The connection under the HTTP library, which does not wait for ever. How bytes leave, and files, is `transport`'s.
//!
//! A client that does not read, or does not finish its request, is cut after the waits of [`ConnectionLimits`].
//! What the library answers by itself, to requests that it cannot read, has no body: it gets an OperationOutcome here.
//! Under HTTP/2 only the wait for a client that does not read is kept here: the others belong to requests, of which
//! there are many at a time, and bytes that come tell nothing of them.

use crate::server::connection::limits::ConnectionLimits;
use crate::server::connection::protocol_errors;
use crate::server::connection::request_tracker::RequestTracker;
use crate::server::connection::timer::Timer;
use crate::server::connection::transport::Transport;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Instant;

/// Longest time for which a closed connection still takes what the client sends, so that it can read the answer: a
/// socket that is closed with bytes unread resets the connection, and the answer may be lost with it.
const LINGER: Duration = Duration::from_secs(2);

/// Which HTTP the library speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1
    One,
    /// HTTP/2
    Two,
}

/// One client's connection.
pub(crate) struct TimeoutStream<T> {
    stream: T,
    protocol: Protocol,
    flow: Arc<RequestTracker>,
    limits: Arc<ConnectionLimits>,
    /// Since when the headers of a request are being read.
    head_since: Option<Instant>,
    /// When bytes went either way last.
    active: Instant,
    /// Requests that had begun when `head_since` was set or cleared.
    begun: u64,
    reading: Timer,
    writing: Timer,
    flushing: Timer,
    /// An answer that stands for the library's own.
    refusal: Option<RefusalWriter>,
    /// Whether the client has sent its last byte.
    ended: bool,
    /// Whether the connection is being closed.
    lingers: bool,
}

struct RefusalWriter {
    answer: Vec<u8>,
    written: usize,
    /// Length of what it stands for.
    instead_of: usize,
}

impl<T: Transport> TimeoutStream<T> {
    /// The first request counts from `since`.
    pub(crate) fn new(
        stream: T,
        protocol: Protocol,
        since: Instant,
        flow: Arc<RequestTracker>,
        limits: Arc<ConnectionLimits>,
    ) -> TimeoutStream<T> {
        TimeoutStream {
            stream,
            protocol,
            flow,
            limits,
            head_since: Some(since),
            active: since,
            begun: 0,
            reading: Timer::default(),
            writing: Timer::default(),
            flushing: Timer::default(),
            refusal: None,
            ended: false,
            lingers: false,
        }
    }

    /// Cuts the client off at once, whatever the kernel still holds for it.
    fn cut_connection(&mut self, why: &'static str) -> io::Error {
        let _ = self.stream.socket().set_zero_linger();
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// A wait for bytes of a request is over when its time is.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.protocol == Protocol::Two || self.flow.is_answering() {
            return Poll::Pending; // the body of a request has its own wait, and the next request has time
        }
        let deadline = match self.head_since {
            Some(since) => since + self.limits.head_wait,
            None => self.active + self.limits.idle_wait,
        };
        ready!(self.reading.poll(deadline, context));
        if self.head_since.is_some() {
            // As much of it as the socket takes. Nothing else is being written, since nothing is being answered.
            let mut stream = Pin::new(&mut self.stream);
            let _ = stream.as_mut().poll_write(context, &protocol_errors::too_slow(self.limits.head_wait));
            let _ = stream.poll_flush(context);
        }
        // TLS has a word for the end, without which the client may think that something was cut off.
        let _ = Pin::new(&mut self.stream).poll_shutdown(context);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no request came"))
    }

    /// Notes that the client has closed its side of the connection, and has this task woken when it does. None of its bytes
    /// are taken: the end is found behind them only if it has come by then, such as behind TLS's own word for it.
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
            self.flow.close();
        }
    }

    /// What TLS holds back for a client that does not read. A socket holds nothing back.
    fn poll_held<R>(&mut self, done: Poll<io::Result<R>>, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.flushing.clear();
            return done;
        }
        let wait = self.limits.write_wait;
        ready!(self.flushing.poll_first(wait, context));
        Poll::Ready(Err(self.cut_connection("the client does not read")))
    }

    /// The library's own answer, if these buffers are one, is sent with a body.
    fn poll_refuse(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Option<io::Result<usize>>> {
        if self.protocol == Protocol::One && self.refusal.is_none() && !self.flow.is_answering() {
            let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
            if let (Some(head), None) = (filled.next(), filled.next()) {
                let answer = protocol_errors::answer_unparsed(head, &self.limits);
                self.refusal = answer.map(|answer| RefusalWriter { answer, written: 0, instead_of: head.len() });
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
        // Kept, since it tells that the request was not read to its end.
        Poll::Ready((instead_of > 0).then_some(Ok(instead_of)))
    }
}

impl<T: Transport> AsyncRead for TimeoutStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begun = self.flow.requests_begun();
        if begun != self.begun {
            (self.begun, self.head_since) = (begun, None);
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                self.active = Instant::now();
                self.ended = buffer.filled().len() == before;
                if self.head_since.is_none() && !self.flow.is_answering() {
                    self.head_since = Some(self.active);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_silence(context).map(Err),
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
        let sent = match self.poll_refuse(context, buffers) {
            Poll::Ready(None) => self.stream.poll_send(context, buffers),
            Poll::Ready(Some(sent)) => Poll::Ready(sent),
            Poll::Pending => Poll::Pending,
        };
        if sent.is_ready() {
            self.flow.note_bytes_taken();
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
        // The library flushes whenever it has been woken, and reads nothing while a request is being answered.
        if self.protocol == Protocol::One && self.flow.is_watched() {
            self.note_end(context);
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.poll_held(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            let shut = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.poll_held(shut, context))?;
        }
        let is_unread = self.protocol == Protocol::One && self.flow.is_unread();
        if self.refusal.is_none() && !is_unread {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut self.lingers, true) {
            self.reading.clear();
        }
        let mut scratch = [0; 16 << 10];
        while !self.ended && self.reading.poll_first(LINGER, context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            // An error ends the wait as well: there is nobody left to read the answer.
            self.ended = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).is_err()
                || buffer.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}
