//! What carries a connection's bytes: a socket, or TLS over one.
//!
//! Pieces of a stored file ([`outgoing`](crate::sys::sendfile)) leave a socket by `sendfile(2)`, unread. Under TLS they are read
//! right before they are encrypted, so that nothing is sent that the file does not have. No waits are kept here.

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

/// A connection's bytes, either way.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// The socket at the bottom.
    fn socket(&self) -> &TcpStream;

    /// Sends some of the buffers, pieces of stored files among them; returns how many bytes.
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
                // No call for files of this kind: they are written from the map.
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

fn poll_send_file(
    stream: &TcpStream,
    context: &mut Context<'_>,
    place: &FileRange,
    len: usize,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match stream.try_io(Interest::WRITABLE, || place.send(stream.as_fd(), len)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            sent => return Poll::Ready(sent),
        }
    }
}

thread_local! {
    /// Bytes on their way to being encrypted. Nothing is left in it between two calls.
    static CLEAR: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Transport for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    /// As much as TLS holds at a time, and only when it has nothing left of before: then it takes all of it, no piece is
    /// read twice, and a slow client costs no more memory than that.
    fn poll_send(&mut self, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut *self).poll_flush(context))?;
        CLEAR.with_borrow_mut(|clear| {
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
