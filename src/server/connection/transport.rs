//! Transport of a connection's bytes: a socket, or TLS over one.
//!
//! Pieces of stored files ([`sendfile`](crate::sys::sendfile)) leave a plain socket by `sendfile(2)` without being
//! read. Under TLS they are read right before they are encrypted, so that no bytes are sent that the file does not
//! have. Time-outs are not applied here.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::limits::SEALED_BYTES;
use crate::sys::sendfile::{FileRange, place_of};

/// A byte stream over a socket that can send pieces of files.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// The socket that carries the bytes.
    fn socket(&self) -> &TcpStream;

    /// Sends a prefix of the buffers, some of which may be pieces of stored files; returns its length in bytes.
    fn poll_send(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
}

impl Transport for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn poll_send(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(first) = buffers.iter().position(|buffer| !buffer.is_empty()) else { return Poll::Ready(Ok(0)) };
        let buffers = &buffers[first..];
        if let Some(place) = place_of(&buffers[0]) {
            match ready!(poll_send_file(self, context, &place, buffers[0].len())) {
                // The kernel has no `sendfile(2)` for this file: it is written from its map.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                    return Pin::new(self).poll_write(context, &buffers[0]);
                }
                sent => return Poll::Ready(sent),
            }
        }
        let plain = buffers.iter().position(|buffer| place_of(buffer).is_some()).unwrap_or(buffers.len());
        Pin::new(self).poll_write_vectored(context, &buffers[..plain])
    }
}

/// Plain transport of a piece of a stored file: sends up to `len` bytes of its range on the connection's socket by
/// `sendfile(2)`; returns how many were sent.
fn poll_send_file(
    stream: &TcpStream,
    context: &mut Context<'_>,
    range: &FileRange,
    len: usize,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match stream.try_io(Interest::WRITABLE, || range.send(stream.as_fd(), len)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            sent => return Poll::Ready(sent),
        }
    }
}

thread_local! {
    /// Clear text that is about to be encrypted; its content is used within one call only.
    static CLEAR_TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Transport for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    /// Sends at most one TLS record's clear text, and only when TLS holds nothing from before. Thus TLS takes all of
    /// it, no piece is read twice, and a slow client costs no more memory.
    fn poll_send(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut *self).poll_flush(context))?;
        CLEAR_TEXT.with_borrow_mut(|clear| {
            clear.resize(SEALED_BYTES, 0);
            let mut filled = 0;
            for buffer in buffers {
                let len = buffer.len().min(SEALED_BYTES - filled);
                let room = &mut clear[filled..filled + len];
                match place_of(&buffer[..len]) {
                    Some(place) => place.read(room)?,
                    None => room.copy_from_slice(&buffer[..len]),
                }
                filled += len;
            }
            Pin::new(self).poll_write(context, &clear[..filled])
        })
    }
}
