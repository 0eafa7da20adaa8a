//! The body of a download: the bytes of a stored file, piece by piece as the client takes them.
//!
//! Stored bytes are sent from the memory map of the file ([`sendfile`](crate::sys::sendfile)); pieces that are not in
//! the page cache are read on a blocking thread first. Decoded bytes, and files that cannot be mapped, are read on a
//! blocking thread one piece at a time, one piece ahead of the client. No thread is held while a client is slow.
//! Headers are not known here.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::codec::compression::Compression;
use crate::limits::{DECODED_BYTES, FETCHED_BYTES, SENT_BYTES, ZSTD_WINDOW_LOG_MAX};
use crate::server::connection::request_tracker::Peer;
use crate::server::shares::Share;
use crate::sys::sendfile::OutgoingFile;

/// The bytes of a file or of a range of it. The file stays open until the body ends, so that its deletion does not
/// cut the download.
pub(crate) struct FileBody {
    strategy: ReadStrategy,
    left: u64,
    /// The client's side of the connection, where a body may take long to begin.
    peer: Option<Peer>,
}

/// How the next piece of a body is obtained.
enum ReadStrategy {
    /// From the map, from `at` on. Pieces up to `fetched` are in the page cache, or are being read by `fetching`.
    Mapped { file: Arc<OutgoingFile>, at: u64, fetched: u64, fetching: Option<JoinHandle<io::Result<()>>> },
    /// By a reader that is idle.
    Read(BodyReader),
    /// By a reader that reads the next piece on a blocking thread.
    Reading(JoinHandle<(BodyReader, io::Result<Bytes>)>),
    /// No more: after an error or the last piece.
    Ended,
}

/// Reads a range of a file's bytes, decoded from its compression.
pub(crate) struct BodyReader {
    bytes: Box<dyn Read + Send>,
    /// Decoded bytes before the range that are still to be skipped.
    skip: u64,
    /// Bytes of the range that are still to be read.
    left: u64,
    /// Whether the range ends at the end of the file, where the decoder must end and checks its checksum.
    is_last: bool,
    /// Permit to skip, which is given back once the range begins.
    permit: Option<Share>,
}

/// Decoded bytes that are skipped at a time. A body that is dropped skips no more than that.
const SKIPPED_BYTES: u64 = 8 << 20;

impl BodyReader {
    /// A reader of `range` out of the `len` decoded bytes of `file`, which is compressed with `coding`.
    ///
    /// # Errors
    /// The system's, if the file cannot be positioned or a decoder cannot be made.
    pub(crate) fn new(mut file: File, coding: Compression, range: Range<u64>, len: u64) -> io::Result<BodyReader> {
        let (mut skip, left, is_last) = (range.start, range.end - range.start, range.end == len);
        if coding == Compression::None {
            file.seek(SeekFrom::Start(skip))?;
            skip = 0;
        }
        let bytes: Box<dyn Read + Send> = match coding {
            Compression::None => Box::new(file),
            Compression::Gzip => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(DECODED_BYTES, file)))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(file)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        };
        Ok(BodyReader { bytes, skip, left, is_last, permit: None })
    }

    /// A reader of `range` out of the `len` bytes that `bytes` gives.
    pub(crate) fn of(bytes: Box<dyn Read + Send>, range: Range<u64>, len: u64) -> BodyReader {
        let (skip, left, is_last) = (range.start, range.end - range.start, range.end == len);
        BodyReader { bytes, skip, left, is_last, permit: None }
    }

    /// The same reader with a permit to skip.
    pub(crate) fn with_permit(self, permit: Option<Share>) -> BodyReader {
        BodyReader { permit, ..self }
    }

    /// Reads the next piece, empty while bytes before the range are skipped. Not to be called once the range is read.
    ///
    /// # Errors
    /// The system's and the decoder's; `UnexpectedEof` or `InvalidData` if the file has fewer or more bytes than
    /// recorded.
    pub(crate) fn next(&mut self) -> io::Result<Bytes> {
        let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "it has fewer bytes than were recorded");
        if self.skip > 0 {
            let part = self.skip.min(SKIPPED_BYTES);
            if io::copy(&mut self.bytes.by_ref().take(part), &mut io::sink())? < part {
                return Err(short());
            }
            self.skip -= part;
            return Ok(Bytes::new());
        }
        self.permit = None;
        let len = self.left.min(DECODED_BYTES as u64);
        let mut piece = Vec::with_capacity(len as usize);
        self.bytes.by_ref().take(len).read_to_end(&mut piece)?;
        if (piece.len() as u64) < len {
            return Err(short());
        }
        self.left -= len;
        if self.left == 0 && self.is_last && self.bytes.read(&mut [0])? > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more bytes than were recorded"));
        }
        Ok(piece.into())
    }
}

impl FileBody {
    /// A body that sends a range of the stored bytes of a mapped file.
    pub(crate) fn mapped(file: Arc<OutgoingFile>, range: Range<u64>) -> FileBody {
        let left = range.end - range.start;
        FileBody {
            strategy: ReadStrategy::Mapped { file, at: range.start, fetched: range.start, fetching: None },
            left,
            peer: None,
        }
    }

    /// A body that sends the range of a reader to a client, whose leaving is noticed before the range begins.
    pub(crate) fn read(reader: BodyReader, peer: Option<Peer>) -> FileBody {
        if reader.skip > 0 {
            peer.iter().for_each(Peer::watch);
        }
        FileBody { left: reader.left, strategy: ReadStrategy::Read(reader), peer }
    }

    /// The next piece of the body, never empty.
    ///
    /// # Errors
    /// Those of the map or reader; `UnexpectedEof` after an error.
    fn next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match &mut self.strategy {
            ReadStrategy::Mapped { file, at, fetched, fetching } => {
                let (start, end, stop) = (*at, *at + self.left.min(SENT_BYTES), *at + self.left);
                if end > *fetched && fetching.is_none() && !file.is_cached(start..end) {
                    let (file, stop) = (file.clone(), stop.min(start + FETCHED_BYTES));
                    *fetched = stop;
                    *fetching = Some(spawn_blocking(move || Ok(file.fetch(start..stop)?)));
                }
                if let Some(running) = fetching {
                    let done = ready!(Pin::new(running).poll(context));
                    *fetching = None;
                    done.map_err(io::Error::other)??;
                }
                // Fails if the file shrank: bytes that were read from its map may be wrong. `sendfile(2)` reads no map.
                file.check()?;
                *at = end;
                Poll::Ready(Ok(Bytes::from_owner(file.piece(start..end))))
            }
            ReadStrategy::Read(_) => {
                let ReadStrategy::Read(reader) = std::mem::replace(&mut self.strategy, ReadStrategy::Ended) else {
                    return Poll::Ready(Err(io::ErrorKind::Other.into()));
                };
                self.strategy = read_ahead(reader);
                self.next(context)
            }
            ReadStrategy::Reading(running) => {
                let (reader, piece) = ready!(Pin::new(running).poll(context)).map_err(io::Error::other)?;
                if piece.as_ref().is_ok_and(Bytes::is_empty) {
                    // Whoever has gone away needs no more of the file.
                    if self.peer.as_ref().is_some_and(Peer::has_closed) {
                        self.strategy = ReadStrategy::Ended;
                        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                    }
                    self.strategy = read_ahead(reader);
                    return self.next(context);
                }
                self.strategy = if piece.is_ok() && reader.left > 0 { read_ahead(reader) } else { ReadStrategy::Ended };
                Poll::Ready(piece)
            }
            ReadStrategy::Ended => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Starts to read the next piece on a blocking thread.
fn read_ahead(mut reader: BodyReader) -> ReadStrategy {
    ReadStrategy::Reading(spawn_blocking(move || {
        let piece = reader.next();
        (reader, piece)
    }))
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(self.next(context));
        match piece {
            Ok(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => {
                // The headers are sent: an error cuts the connection, so that the client sees that bytes are missing.
                tracing::error!(%error, "a stored file cannot be sent to its end");
                self.strategy = ReadStrategy::Ended;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
