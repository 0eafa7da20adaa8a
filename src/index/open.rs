//! Opens the segments and the global index of an index meta. A file whose size and times are the recorded ones is
//! opened by its header; any other is checked whole, byte by byte. A file that is missing or damaged is told from one
//! that cannot be read. Nothing is repaired here.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::IndexError;
use crate::index::dir::{IndexBytes, IndexDir, is_absence, is_no_file_of_ours};
use crate::index::global::GlobalIndex;
use crate::index::meta::{IndexFile, IndexMeta, SegmentMeta};
use crate::index::segment::reader::Segment;

/// Most segments that one thread opens by headers that are known.
const OPENED_ALONE_MAX: usize = 4096;

/// The parts of an index on disk, each opened or with the reason why it cannot be used.
pub(crate) struct OpenedIndex {
    /// Each segment of the index meta, or why it is to be scanned again.
    pub segments: Vec<Result<Segment, &'static str>>,
    /// The global index over them, or why it is to be built again.
    pub global: Result<GlobalIndex, &'static str>,
}

impl OpenedIndex {
    /// All segments and the global index, if every part could be opened.
    ///
    /// # Errors
    /// The reason of the first part that could not be opened.
    pub(crate) fn into_whole(self) -> Result<(Vec<Segment>, GlobalIndex), &'static str> {
        let global = self.global?;
        Ok((self.segments.into_iter().collect::<Result<Vec<_>, _>>()?, global))
    }
}

/// Opens the segments and the global index that an index meta names.
///
/// # Errors
/// [`IndexError::ReadIndex`] when a file is there and cannot be read: that is no damage, and no reason to scan the store
/// again.
pub(crate) fn open_index(
    dir: &IndexDir,
    meta: &IndexMeta,
    verification: Verification,
) -> Result<OpenedIndex, IndexError> {
    let trusted = |file: &IndexFile, bytes: &IndexBytes| {
        verification == Verification::Stamps && file.stamp.is_some_and(|stamp| stamp == bytes.stamp())
    };
    let (global, global_trusted) = match open_file(dir, &meta.global)? {
        Some(bytes) => {
            let trusted = trusted(&meta.global, &bytes);
            (GlobalIndex::open(bytes, &meta.segments), trusted)
        }
        None => (Err("it cannot be opened"), false),
    };
    let open_container = |file: &IndexFile| {
        let bytes = open_file(dir, file)?.map(Arc::new);
        Ok(bytes.map(|bytes| {
            let trusted = trusted(file, &bytes);
            // One that is not is read whole.
            if trusted {
                bytes.expect_scattered_reads();
            }
            (bytes, trusted)
        }))
    };
    let containers: Vec<Option<(Arc<IndexBytes>, bool)>> =
        meta.containers.iter().map(open_container).collect::<Result<_, IndexError>>()?;
    let heads = global.as_ref().ok().filter(|_| global_trusted);
    let open_segment = |(position, entry): (usize, &SegmentMeta)| {
        if entry.at == u64::MAX {
            return Err("it is to be scanned again");
        }
        let (bytes, trusted) = containers[entry.container].as_ref().ok_or("its file cannot be opened")?;
        if let Some(heads) = heads.filter(|_| *trusted) {
            // `GlobalIndex::open` has compared its table of segments with the index meta.
            return Ok(Segment::open_known(bytes.clone(), entry.at, heads.known_header(position)));
        }
        let segment = Segment::open(bytes.clone(), entry.at)?;
        let head = segment.head();
        match (head.start, head.end, head.content) == (entry.start, entry.end, entry.content) {
            true => Ok(segment),
            false => Err("it is of other bytes"),
        }
    };
    let all_trusted = heads.is_some() && containers.iter().all(|file| file.as_ref().is_some_and(|file| file.1));
    // Headers that the global index has are copied, which is worth other threads only if they are many.
    let segments: Vec<Result<Segment, &'static str>> = match all_trusted && meta.segments.len() < OPENED_ALONE_MAX {
        true => meta.segments.iter().enumerate().map(open_segment).collect(),
        false => meta.segments.par_iter().enumerate().map(open_segment).collect(),
    };
    let global = global.and_then(|global| {
        if !global_trusted || !all_trusted {
            let intact: Option<Vec<Segment>> = segments.iter().map(|segment| segment.clone().ok()).collect();
            // Without one of its segments it is built again in any case.
            global.check(&intact.ok_or("an extent is damaged")?)?;
        }
        Ok(global)
    });
    Ok(OpenedIndex { segments, global })
}

/// Maps an index file; `None` when it has no name, is not there, or is no regular file.
///
/// # Errors
/// [`IndexError::ReadIndex`] when it cannot be opened or mapped for another reason.
fn open_file(dir: &IndexDir, file: &IndexFile) -> Result<Option<IndexBytes>, IndexError> {
    if file.name.is_empty() {
        return Ok(None);
    }
    match dir.open(&file.name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absence(&error) || is_no_file_of_ours(&error) => Ok(None),
        Err(source) => Err(IndexError::ReadIndex { name: file.name.clone(), source }),
    }
}

/// Which index files are used without reading them whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Files whose size and times are those at their publication; pages are verified as they are read.
    Stamps,
    /// None: every byte is checked when the index is opened.
    Nothing,
}
