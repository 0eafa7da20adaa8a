//! The bytes of a stored file as the body of an answer, piece by piece as the client takes them.
//!
//! What goes out as it is stored is sent from the map of the file ([`outgoing`](crate::sys::sendfile)): nothing is read here but
//! what is not in memory yet, on a thread that may wait. What has to be decoded, or cannot be mapped, is read on such a
//! thread a piece at a time, one piece ahead of the client; no thread is held while a client is slow. Nothing here
//! knows headers.

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
use crate::sys::sendfile::OutgoingFile;

/// A file's bytes, whole or a range of them. The file is open from before the headers to the end of the body, so that
/// deleting its name cuts nothing.
pub(crate) struct FileBody {
    way: ReadStrategy,
    left: u64,
}

enum ReadStrategy {
    /// From the map, from `at` on; up to `fetched` nobody asks whether it is in memory.
    Mapped {
        file: Arc<OutgoingFile>,
        at: u64,
        fetched: u64,
        fetching: Option<JoinHandle<io::Result<()>>>,
    },
    /// Read, and perhaps decoded.
    Read(BodyReader),
    Reading(JoinHandle<(BodyReader, io::Result<Bytes>)>),
    /// After an error or the last piece.
    Over,
}

/// Reads a range of a file's decoded bytes.
pub(crate) struct BodyReader {
    bytes: Box<dyn Read + Send>,
    skip: u64,
    left: u64,
    /// Whether the bytes must end behind the range. Only at their end are checksums known to be right.
    ends: bool,
}

impl BodyReader {
    /// A reader of `range` out of the `len` bytes that the file, decoded from `coding`, has.
    ///
    /// # Errors
    /// The system's, when the file or a decoder is not to be had.
    pub(crate) fn new(mut file: File, coding: Compression, range: Range<u64>, len: u64) -> io::Result<BodyReader> {
        let (mut skip, left, ends) = (range.start, range.end - range.start, range.end == len);
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
        Ok(BodyReader { bytes, skip, left, ends })
    }

    /// The next piece, never empty.
    pub(crate) fn next(&mut self) -> io::Result<Bytes> {
        let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "it has fewer bytes than were recorded");
        if self.skip > 0 {
            let skipped = io::copy(&mut self.bytes.by_ref().take(self.skip), &mut io::sink())?;
            self.skip -= skipped;
            if self.skip > 0 {
                return Err(short());
            }
        }
        let len = self.left.min(DECODED_BYTES as u64);
        let mut piece = Vec::with_capacity(len as usize);
        self.bytes.by_ref().take(len).read_to_end(&mut piece)?;
        if (piece.len() as u64) < len {
            return Err(short());
        }
        self.left -= len;
        if self.left == 0 && self.ends && self.bytes.read(&mut [0])? > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more bytes than were recorded"));
        }
        Ok(piece.into())
    }
}

impl FileBody {
    /// Sends a range of a mapped file as it is stored.
    pub(crate) fn mapped(file: Arc<OutgoingFile>, range: Range<u64>) -> FileBody {
        let left = range.end - range.start;
        FileBody { way: ReadStrategy::Mapped { file, at: range.start, fetched: range.start, fetching: None }, left }
    }

    /// Sends what a reader reads.
    pub(crate) fn read(reader: BodyReader) -> FileBody {
        FileBody { left: reader.left, way: ReadStrategy::Read(reader) }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match &mut self.way {
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
                // Of no use to a socket, which the kernel sends the file to, but to whoever has read the piece before.
                file.check()?;
                *at = end;
                Poll::Ready(Ok(Bytes::from_owner(file.piece(start..end))))
            }
            ReadStrategy::Read(_) => {
                let ReadStrategy::Read(reader) = std::mem::replace(&mut self.way, ReadStrategy::Over) else {
                    return Poll::Ready(Err(io::ErrorKind::Other.into()));
                };
                self.way = read_on(reader);
                self.next(context)
            }
            ReadStrategy::Reading(running) => {
                let (reader, piece) = ready!(Pin::new(running).poll(context)).map_err(io::Error::other)?;
                self.way = if piece.is_ok() && reader.left > 0 { read_on(reader) } else { ReadStrategy::Over };
                Poll::Ready(piece)
            }
            ReadStrategy::Over => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn read_on(mut reader: BodyReader) -> ReadStrategy {
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
                // The headers are out: all that is left is to cut the connection, so that the client sees it is short.
                tracing::error!(%error, "a stored file cannot be sent to its end");
                self.way = ReadStrategy::Over;
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
