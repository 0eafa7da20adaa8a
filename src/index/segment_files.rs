//! The container files that hold segments: containers without a segment are dropped, and many are copied into one.

use std::sync::Arc;

use crate::error::IndexError;
use crate::index::dir::IndexDir;
use crate::index::meta::{IndexFile, IndexMeta};
use crate::index::segment::reader::Segment;

/// Most containers of an index; beyond it a refresh copies all segments into one.
const CONTAINERS_MAX: usize = 24;

/// Drops containers without a segment, and copies all segments into one container when there are more than
/// [`CONTAINERS_MAX`]. Changes containers and offsets of `meta` and reopens `segments`.
///
/// # Errors
/// When the new container cannot be written, or a segment is damaged.
pub(crate) fn compact_segment_files(
    dir: &IndexDir,
    meta: &mut IndexMeta,
    segments: &mut [Segment],
) -> Result<(), IndexError> {
    let mut used: Vec<usize> = meta.segments.iter().map(|segment| segment.container).collect();
    used.sort_unstable();
    used.dedup();
    if used.len() <= CONTAINERS_MAX {
        meta.containers = used.iter().map(|position| meta.containers[*position].clone()).collect();
        for segment in &mut meta.segments {
            segment.container = used.binary_search(&segment.container).expect("collected above");
        }
        return Ok(());
    }
    let name = format!("extents-{:012}-all", meta.sequence);
    let failed = |source| IndexError::Write { name: name.clone(), source };
    let mut file = dir.create_blocks(&name).map_err(failed)?;
    let mut offset = 0;
    for (segment, entry) in segments.iter().zip(&mut meta.segments) {
        // Damage must not be copied: the new file will have a stamp by which it is trusted.
        segment.verify_all()?;
        let bytes = segment.bytes();
        std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
        (entry.container, entry.at) = (0, offset);
        offset += bytes.len() as u64;
    }
    std::io::Write::flush(&mut file).map_err(failed)?;
    let bytes = Arc::new(dir.open(&name).map_err(failed)?);
    for (segment, entry) in segments.iter_mut().zip(&meta.segments) {
        *segment = Segment::open_known(bytes.clone(), entry.at, *segment.head());
    }
    meta.containers = vec![IndexFile::new(name)];
    Ok(())
}
