//! Response bodies made of text and Groups, which may be of any size.
//!
//! A large Group is never held in memory: its pieces are read on blocking threads as the client takes them. A slow
//! client holds a file open, but no thread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::group::registry::store_groups::StoreGroup;
use crate::group::registry::view::GroupLookup;
use crate::group::registry::{GroupsError, RegisteredGroup};
use crate::limits::{GROUP_DECODED_PIECE_BYTES, GROUP_PIECE_BYTES};

/// A part of a body.
#[derive(Clone)]
pub(crate) enum BodyPart {
    /// Text, or a small Group.
    Bytes(Bytes),
    /// A Group of the registry.
    Registered(RegisteredGroup),
    /// A Group of the store.
    Store(StoreGroup),
}

impl BodyPart {
    /// A Group as a part of a body, read at once if it is at most [`GROUP_PIECE_BYTES`] long; `None` if the lookup
    /// found no Group. Blocks.
    ///
    /// # Errors
    /// If the Group cannot be read.
    pub(crate) fn of(found: GroupLookup) -> Result<Option<BodyPart>, GroupsError> {
        let part = match found {
            GroupLookup::Registered(group) => BodyPart::Registered(group),
            GroupLookup::Store(group) => BodyPart::Store(group),
            GroupLookup::Deleted { .. } | GroupLookup::Unknown => return Ok(None),
        };
        match part.len() <= GROUP_PIECE_BYTES as u64 {
            true => part.read(0).map(|bytes| Some(BodyPart::Bytes(bytes))),
            false => Ok(Some(part)),
        }
    }

    /// Length of the part in bytes.
    fn len(&self) -> u64 {
        match self {
            BodyPart::Bytes(bytes) => bytes.len() as u64,
            BodyPart::Registered(group) => group.len(),
            BodyPart::Store(group) => group.len(),
        }
    }

    /// The bytes of the part from `offset` on, at most one piece. Blocks.
    ///
    /// # Errors
    /// If the Group cannot be read.
    fn read(&self, offset: u64) -> Result<Bytes, GroupsError> {
        let piece = match self {
            BodyPart::Store(group) if group.is_compressed() => GROUP_DECODED_PIECE_BYTES,
            _ => GROUP_PIECE_BYTES,
        };
        let end = self.len().min(offset + piece as u64);
        match self {
            BodyPart::Bytes(bytes) => Ok(bytes.slice(offset as usize..end as usize)),
            BodyPart::Registered(group) => {
                let mut bytes = vec![0; (end - offset) as usize];
                group.read_at(offset, &mut bytes)?;
                Ok(bytes.into())
            }
            BodyPart::Store(group) => {
                let mut bytes = Vec::with_capacity((end - offset) as usize);
                group.stream(offset..end, &mut |piece| bytes.extend_from_slice(piece))?;
                Ok(bytes.into())
            }
        }
    }
}

/// A body that is the concatenation of parts, with its length known in advance.
pub(crate) struct PartsBody {
    parts: VecDeque<BodyPart>,
    /// Offset in the first part of the next byte to send.
    offset: u64,
    /// Bytes of all parts that are still to be sent.
    left: u64,
    /// The read of the next piece; `None` if none is under way.
    reading: Option<JoinHandle<Result<Bytes, GroupsError>>>,
}

impl PartsBody {
    /// A body of these parts; empty ones are dropped.
    pub(crate) fn new(parts: impl IntoIterator<Item = BodyPart>) -> PartsBody {
        let parts: VecDeque<BodyPart> = parts.into_iter().filter(|part| part.len() > 0).collect();
        let left = parts.iter().map(BodyPart::len).sum();
        PartsBody { parts, offset: 0, left, reading: None }
    }

    /// Bytes of the parts that are held in memory.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.parts.iter().filter(|part| matches!(part, BodyPart::Bytes(_))).map(BodyPart::len).sum()
    }

    /// Advances the body past `bytes` and makes them a frame.
    fn note_sent(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.offset += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        if self.parts.front().is_some_and(|part| part.len() <= self.offset) {
            self.parts.pop_front();
            self.offset = 0;
        }
        Frame::data(bytes)
    }
}

impl Body for PartsBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + std::marker::Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                return Poll::Ready(Some(match read {
                    Ok(Ok(bytes)) if !bytes.is_empty() => Ok(self.note_sent(bytes)),
                    // An error breaks the body off; a short body would contradict its announced length.
                    Ok(Ok(_)) => Err("a Group has fewer bytes than it had".into()),
                    Ok(Err(error)) => Err(error.into()),
                    Err(error) => Err(error.into()),
                }));
            }
            match self.parts.front() {
                None => return Poll::Ready(None),
                Some(BodyPart::Bytes(bytes)) => {
                    let bytes = bytes.clone();
                    return Poll::Ready(Some(Ok(self.note_sent(bytes))));
                }
                Some(part) => {
                    let (part, offset) = (part.clone(), self.offset);
                    self.reading = Some(tokio::task::spawn_blocking(move || part.read(offset)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
