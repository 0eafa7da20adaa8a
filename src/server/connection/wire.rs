//! The socket under the HTTP library: sends stored files without reading them, and does not wait for ever.
//!
//! Buffers that are pieces of a stored file leave by `sendfile(2)` ([`crate::bytes::outgoing`]); all else is written as
//! it is. A client that does not read, or does not finish its request, is cut after the waits of [`ConnectionLimits`].
//! What the library answers by itself, to requests that it cannot read, has no body: it gets an OperationOutcome here.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::ConnectionLimits;
use super::flow::Flow;
use super::unread;
use crate::bytes::outgoing::{Place, place_of};

/// Longest time for which a closed connection still takes what the client sends, so that it can read the answer: a
/// socket that is closed with bytes unread resets the connection, and the answer may be lost with it.
const LINGER: Duration = Duration::from_secs(2);

/// One client's socket.
pub(super) struct Wire {
    stream: TcpStream,
    flow: Arc<Flow>,
    limits: Arc<ConnectionLimits>,
    /// Since when the headers of a request are being read.
    head_since: Option<Instant>,
    /// When bytes went either way last.
    active: Instant,
    /// Requests that had begun when `head_since` was set or cleared.
    begun: u64,
    reading: Timer,
    writing: Timer,
    /// An answer that stands for the library's own.
    refusal: Option<Refusing>,
    /// Whether the client has sent its last byte.
    ended: bool,
    /// Whether the connection is being closed.
    lingers: bool,
}

struct Refusing {
    answer: Vec<u8>,
    written: usize,
    /// Length of what it stands for.
    instead_of: usize,
}

/// A deadline that is forgotten and set again, often.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
}

impl Timer {
    fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if self.deadline != Some(deadline) {
            sleep.as_mut().reset(deadline);
            self.deadline = Some(deadline);
        }
        sleep.as_mut().poll(context)
    }

    /// As [`Timer::poll`], of the deadline that was set first since the timer was cleared.
    fn poll_first(&mut self, wait: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + wait);
        self.poll(deadline, context)
    }

    fn clear(&mut self) {
        self.deadline = None;
    }
}

impl Wire {
    pub(super) fn new(stream: TcpStream, flow: Arc<Flow>, limits: Arc<ConnectionLimits>) -> Wire {
        let now = Instant::now();
        Wire {
            stream,
            flow,
            limits,
            head_since: Some(now),
            active: now,
            begun: 0,
            reading: Timer::default(),
            writing: Timer::default(),
            refusal: None,
            ended: false,
            lingers: false,
        }
    }

    /// Cuts the client off at once, whatever the kernel still holds for it.
    fn cut(&mut self, why: &'static str) -> io::Error {
        let _ = self.stream.set_zero_linger();
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// A wait for bytes of a request is over when its time is.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.flow.is_answering() {
            return Poll::Pending; // the body of a request has its own wait, and the next request has time
        }
        let deadline = match self.head_since {
            Some(since) => since + self.limits.head_wait,
            None => self.active + self.limits.idle_wait,
        };
        ready!(self.reading.poll(deadline, context));
        if self.head_since.is_some() {
            // As much of it as the socket takes. Nothing else is being written, since nothing is being answered.
            let _ = self.stream.try_write(&unread::too_slow(self.limits.head_wait));
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no request came"))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(first) = buffers.iter().position(|buffer| !buffer.is_empty()) else { return Poll::Ready(Ok(0)) };
        let buffers = &buffers[first..];
        if let Some(place) = place_of(&buffers[0]) {
            match ready!(self.poll_send_file(context, &place, buffers[0].len())) {
                // No call for files of this kind: they are written from the map.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                    return Pin::new(&mut self.stream).poll_write(context, &buffers[0]);
                }
                sent => return Poll::Ready(sent),
            }
        }
        let plain = buffers.iter().position(|buffer| place_of(buffer).is_some()).unwrap_or(buffers.len());
        Pin::new(&mut self.stream).poll_write_vectored(context, &buffers[..plain])
    }

    fn poll_send_file(&mut self, context: &mut Context<'_>, place: &Place, len: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, || place.send(self.stream.as_fd(), len)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// The library's own answer, if these buffers are one, is sent with a body.
    fn poll_refuse(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Option<io::Result<usize>>> {
        if self.refusal.is_none() && !self.flow.is_answering() {
            let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
            if let (Some(head), None) = (filled.next(), filled.next()) {
                let answer = unread::answer(head, &self.limits);
                self.refusal = answer.map(|answer| Refusing { answer, written: 0, instead_of: head.len() });
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

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begun = self.flow.begun();
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

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = match self.poll_refuse(context, buffers) {
            Poll::Ready(None) => self.poll_send(context, buffers),
            Poll::Ready(Some(sent)) => Poll::Ready(sent),
            Poll::Pending => Poll::Pending,
        };
        if sent.is_ready() {
            self.writing.clear();
            self.active = Instant::now();
            return sent;
        }
        let wait = self.limits.write_wait;
        ready!(self.writing.poll_first(wait, context));
        Poll::Ready(Err(self.cut("the client does not read")))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if self.refusal.is_none() && !self.flow.is_unread() {
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
