//! What of an index on disk still stands: its extents and what was merged over them, opened by their headers where
//! nobody has touched their files, checked byte by byte where somebody may have.

use std::sync::Arc;

use rayon::prelude::*;

use crate::index::dir::{IndexBytes, IndexDir};
use crate::index::global::GlobalIndex;
use crate::index::meta::{IndexFile, IndexMeta, SegmentMeta};
use crate::index::segment::reader::Segment;

/// An index, as far as it stands.
pub(crate) struct OpenedIndex {
    /// Each extent of the generation, or why it is to be made again.
    pub extents: Vec<Result<Segment, &'static str>>,
    /// What was merged over them, or why it is to be merged again.
    pub merged: Result<GlobalIndex, &'static str>,
}

impl OpenedIndex {
    /// Everything, if everything stands.
    ///
    /// # Errors
    /// The first reason why not.
    pub(crate) fn into_whole(self) -> Result<(Vec<Segment>, GlobalIndex), &'static str> {
        let merged = self.merged?;
        Ok((self.extents.into_iter().collect::<Result<Vec<_>, _>>()?, merged))
    }
}

/// Opens a generation.
pub(crate) fn open_index(home: &IndexDir, generation: &IndexMeta, trust: Verification) -> OpenedIndex {
    let trusted = |file: &IndexFile, bytes: &IndexBytes| {
        trust == Verification::Stamps && file.stamp.is_some_and(|stamp| stamp == bytes.stamp())
    };
    let (merged, merged_trusted) = match home.open(&generation.merged.name) {
        Ok(bytes) if !generation.merged.name.is_empty() => {
            let trusted = trusted(&generation.merged, &bytes);
            (GlobalIndex::open(bytes, &generation.extents), trusted)
        }
        _ => (Err("it cannot be opened"), false),
    };
    let containers: Vec<Option<(Arc<IndexBytes>, bool)>> = generation
        .containers
        .iter()
        .map(|file| {
            let bytes = Arc::new(home.open(&file.name).ok()?);
            let trusted = trusted(file, &bytes);
            Some((bytes, trusted))
        })
        .collect();
    let heads = merged.as_ref().ok().filter(|_| merged_trusted).map(GlobalIndex::heads);
    let one = |(position, entry): (usize, &SegmentMeta)| {
        if entry.at == u64::MAX {
            return Err("it is to be scanned again");
        }
        let (bytes, trusted) = containers[entry.container].as_ref().ok_or("its file cannot be opened")?;
        if let Some(heads) = heads.filter(|_| *trusted) {
            // The table of extents was compared with the generation.
            return Ok(Segment::open_known(bytes.clone(), entry.at, heads[position]));
        }
        let extent = Segment::open(bytes.clone(), entry.at)?;
        let head = extent.head();
        match (head.start, head.end, head.content) == (entry.start, entry.end, entry.content) {
            true => Ok(extent),
            false => Err("it is of other bytes"),
        }
    };
    let all_trusted = heads.is_some() && containers.iter().all(|file| file.as_ref().is_some_and(|file| file.1));
    let extents: Vec<Result<Segment, &'static str>> = match all_trusted {
        true => generation.extents.iter().enumerate().map(one).collect(),
        false => generation.extents.par_iter().enumerate().map(one).collect(),
    };
    let merged = merged.and_then(|merged| {
        if !merged_trusted || !all_trusted {
            let standing: Option<Vec<Segment>> = extents.iter().map(|extent| extent.clone().ok()).collect();
            // With an extent gone it is merged again in any case.
            merged.check(&standing.ok_or("an extent is damaged")?)?;
        }
        Ok(merged)
    });
    OpenedIndex { extents, merged }
}

/// What of an index is believed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Files whose size and times are those at their publication; what is read of them is proven by its seals.
    Stamps,
    /// Nothing: every byte is checked.
    Nothing,
}
