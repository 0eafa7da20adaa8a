//! What of an index on disk still stands: its segments and what was merged over them, opened by their headers where
//! nobody has touched their files, checked byte by byte where somebody may have.

use std::sync::Arc;

use rayon::prelude::*;

use crate::index::dir::{IndexBytes, IndexDir};
use crate::index::global::GlobalIndex;
use crate::index::meta::{IndexFile, IndexMeta, SegmentMeta};
use crate::index::segment::reader::Segment;

/// An index, as far as it stands.
pub(crate) struct OpenedIndex {
    /// Each segment of the generation, or why it is to be made again.
    pub segments: Vec<Result<Segment, &'static str>>,
    /// What was merged over them, or why it is to be merged again.
    pub global: Result<GlobalIndex, &'static str>,
}

impl OpenedIndex {
    /// Everything, if everything stands.
    ///
    /// # Errors
    /// The first reason why not.
    pub(crate) fn into_whole(self) -> Result<(Vec<Segment>, GlobalIndex), &'static str> {
        let global = self.global?;
        Ok((self.segments.into_iter().collect::<Result<Vec<_>, _>>()?, global))
    }
}

/// Opens a generation.
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
            // The table of segments was compared with the generation.
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
            // With a segment gone it is merged again in any case.
            global.check(&intact.ok_or("an extent is damaged")?)?;
        }
        Ok(global)
    });
    OpenedIndex { segments, global }
}

/// What of an index is believed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Files whose size and times are those at their publication; what is read of them is proven by its seals.
    Stamps,
    /// Nothing: every byte is checked.
    Nothing,
}
