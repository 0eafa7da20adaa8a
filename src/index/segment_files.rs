//! The files of an index that hold extents: how many there may be, and how they become one again.

use std::sync::Arc;

use crate::error::IndexError;
use crate::index::dir::IndexDir;
use crate::index::meta::{IndexFile, IndexMeta};
use crate::index::segment::reader::Segment;

/// Containers at which an index run copies all live extents into one.
const CONTAINERS_MAX: usize = 24;

/// Drops containers that no extent lies in, and copies all extents into one when there are many.
///
/// # Errors
/// When the new container cannot be written, or an extent is damaged.
pub(crate) fn compact_segment_files(
    home: &IndexDir,
    generation: &mut IndexMeta,
    extents: &mut [Segment],
) -> Result<(), IndexError> {
    let mut used: Vec<usize> = generation.extents.iter().map(|extent| extent.container).collect();
    used.sort_unstable();
    used.dedup();
    if used.len() <= CONTAINERS_MAX {
        generation.containers = used.iter().map(|position| generation.containers[*position].clone()).collect();
        for extent in &mut generation.extents {
            extent.container = used.binary_search(&extent.container).expect("collected above");
        }
        return Ok(());
    }
    let name = format!("extents-{:012}-all", generation.sequence);
    let failed = |source| IndexError::Write { name: name.clone(), source };
    let mut file = home.create_blocks(&name).map_err(failed)?;
    let mut offset = 0;
    for (extent, entry) in extents.iter().zip(&mut generation.extents) {
        // Damage must not be copied under a fresh stamp.
        extent.verify_all()?;
        let bytes = extent.bytes();
        std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
        (entry.container, entry.at) = (0, offset);
        offset += bytes.len() as u64;
    }
    std::io::Write::flush(&mut file).map_err(failed)?;
    let bytes = Arc::new(home.open(&name).map_err(failed)?);
    for (extent, entry) in extents.iter_mut().zip(&generation.extents) {
        *extent = Segment::open_known(bytes.clone(), entry.at, *extent.head());
    }
    generation.containers = vec![IndexFile::new(name)];
    Ok(())
}
