//! Opens the segments and the global index of an index meta. A file whose size and times are the recorded ones is
//! opened by its header; any other is checked whole, byte by byte. Nothing is repaired here.

use std::sync::Arc;

use rayon::prelude::*;

use crate::index::dir::{IndexBytes, IndexDir};
use crate::index::global::GlobalIndex;
use crate::index::meta::{IndexFile, IndexMeta, SegmentMeta};
use crate::index::segment::reader::Segment;

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
pub(crate) fn open_index(dir: &IndexDir, meta: &IndexMeta, verification: Verification) -> OpenedIndex {
    let trusted = |file: &IndexFile, bytes: &IndexBytes| {
        verification == Verification::Stamps && file.stamp.is_some_and(|stamp| stamp == bytes.stamp())
    };
    let (global, global_trusted) = match dir.open(&meta.global.name) {
        Ok(bytes) if !meta.global.name.is_empty() => {
            let trusted = trusted(&meta.global, &bytes);
            (GlobalIndex::open(bytes, &meta.segments), trusted)
        }
        _ => (Err("it cannot be opened"), false),
    };
    let containers: Vec<Option<(Arc<IndexBytes>, bool)>> = meta
        .containers
        .iter()
        .map(|file| {
            let bytes = Arc::new(dir.open(&file.name).ok()?);
            let trusted = trusted(file, &bytes);
            Some((bytes, trusted))
        })
        .collect();
    let heads = global.as_ref().ok().filter(|_| global_trusted).map(GlobalIndex::heads);
    let open_segment = |(position, entry): (usize, &SegmentMeta)| {
        if entry.at == u64::MAX {
            return Err("it is to be scanned again");
        }
        let (bytes, trusted) = containers[entry.container].as_ref().ok_or("its file cannot be opened")?;
        if let Some(heads) = heads.filter(|_| *trusted) {
            // `GlobalIndex::open` has compared its table of segments with the index meta.
            return Ok(Segment::open_known(bytes.clone(), entry.at, heads[position]));
        }
        let segment = Segment::open(bytes.clone(), entry.at)?;
        let head = segment.head();
        match (head.start, head.end, head.content) == (entry.start, entry.end, entry.content) {
            true => Ok(segment),
            false => Err("it is of other bytes"),
        }
    };
    let all_trusted = heads.is_some() && containers.iter().all(|file| file.as_ref().is_some_and(|file| file.1));
    let segments: Vec<Result<Segment, &'static str>> = match all_trusted {
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
    OpenedIndex { segments, global }
}

/// Which index files are used without reading them whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Files whose size and times are those at their publication; pages are verified as they are read.
    Stamps,
    /// None: every byte is checked when the index is opened.
    Nothing,
}
