//! The files of an index that hold segments: how many there may be, and how they become one again.

use std::sync::Arc;

use crate::error::IndexError;
use crate::index::dir::IndexDir;
use crate::index::meta::{IndexFile, IndexMeta};
use crate::index::segment::reader::Segment;

/// Containers at which an index run copies all live segments into one.
const CONTAINERS_MAX: usize = 24;

/// Drops containers that no segment lies in, and copies all segments into one when there are many.
///
/// # Errors
/// When the new container cannot be written, or a segment is damaged.
pub(crate) fn compact_segment_files(
    home: &IndexDir,
    generation: &mut IndexMeta,
    segments: &mut [Segment],
) -> Result<(), IndexError> {
    let mut used: Vec<usize> = generation.segments.iter().map(|segment| segment.container).collect();
    used.sort_unstable();
    used.dedup();
    if used.len() <= CONTAINERS_MAX {
        generation.containers = used.iter().map(|position| generation.containers[*position].clone()).collect();
        for segment in &mut generation.segments {
            segment.container = used.binary_search(&segment.container).expect("collected above");
        }
        return Ok(());
    }
    let name = format!("extents-{:012}-all", generation.sequence);
    let failed = |source| IndexError::Write { name: name.clone(), source };
    let mut file = home.create_blocks(&name).map_err(failed)?;
    let mut offset = 0;
    for (segment, entry) in segments.iter().zip(&mut generation.segments) {
        // Damage must not be copied under a fresh stamp.
        segment.verify_all()?;
        let bytes = segment.bytes();
        std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
        (entry.container, entry.at) = (0, offset);
        offset += bytes.len() as u64;
    }
    std::io::Write::flush(&mut file).map_err(failed)?;
    let bytes = Arc::new(home.open(&name).map_err(failed)?);
    for (segment, entry) in segments.iter_mut().zip(&generation.segments) {
        *segment = Segment::open_known(bytes.clone(), entry.at, *segment.head());
    }
    generation.containers = vec![IndexFile::new(name)];
    Ok(())
}
