//! The container files that hold segments: those without a segment are dropped, those of which too much is dead and many
//! of one size are copied together.
//!
//! Sizes stay geometric: of each tier (see [`tier_of`]) fewer than [`FAN`] containers remain, so that their number grows
//! with the logarithm of the index, and a byte is copied once for each tier that it passes. What is dead in a container
//! pays for the copy of the rest.

use std::sync::Arc;

use crate::error::IndexError;
use crate::index::compaction::{FAN, tier_of};
use crate::index::dir::IndexDir;
use crate::index::meta::{IndexFile, IndexMeta, SEGMENTS};
use crate::index::segment::reader::Segment;

/// Live bytes of a container below which it is of the lowest tier.
const CONTAINER_BYTES: u64 = 4 << 10;

/// Bytes of a container file, and those of them that are of a segment of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContainerUse {
    /// Bytes of segments of the index.
    pub live: u64,
    /// All bytes.
    pub total: u64,
}

impl ContainerUse {
    /// Whether more than a quarter of a container is dead.
    fn is_worn(self) -> bool {
        self.total.saturating_sub(self.live) > self.total / 4
    }
}

/// Which containers are copied into a new one: worn ones, and [`FAN`] and more of one tier, the copy counted.
pub(crate) fn copied_containers(containers: &[ContainerUse]) -> Vec<bool> {
    let mut copied: Vec<bool> = containers.iter().map(|one| one.is_worn()).collect();
    loop {
        let sum: u64 = containers.iter().zip(&copied).filter(|(_, copied)| **copied).map(|(one, _)| one.live).sum();
        let copy = (sum > 0).then(|| tier_of(sum, CONTAINER_BYTES));
        let stays = |tier: u32| {
            let of_tier = move |i: &usize| tier_of(containers[*i].live, CONTAINER_BYTES) == tier;
            (0..containers.len()).filter(|i| !copied[*i]).filter(of_tier).collect::<Vec<usize>>()
        };
        let is_many = |tier: &u32| {
            let many = stays(*tier).len();
            many > 0 && many + usize::from(copy == Some(*tier)) >= FAN
        };
        let Some(tier) = (0..=tier_of(u64::MAX, CONTAINER_BYTES)).find(is_many) else { return copied };
        stays(tier).into_iter().for_each(|i| copied[i] = true);
    }
}

/// Drops containers without a segment, and copies the segments of some into one. Changes containers and offsets of `meta`
/// and reopens segments.
///
/// # Errors
/// When the new container cannot be written, or a segment is damaged.
pub(crate) fn compact_segment_files(
    dir: &IndexDir,
    meta: &mut IndexMeta,
    segments: &mut [Segment],
) -> Result<(), IndexError> {
    // 1. How much of each container is used.
    let mut containers = vec![ContainerUse { live: 0, total: 0 }; meta.containers.len()];
    for (segment, entry) in segments.iter().zip(&meta.segments) {
        let own = &mut containers[entry.container];
        own.live += segment.head().size;
        own.total = segment.container_bytes();
    }
    let is_used = |i: &usize| containers[*i].total > 0;
    let used: Vec<usize> = (0..containers.len()).filter(is_used).collect();
    let copied = copied_containers(&used.iter().map(|i| containers[*i]).collect::<Vec<_>>());
    let stays: Vec<usize> = used.iter().zip(&copied).filter(|(_, copied)| !**copied).map(|(i, _)| *i).collect();
    let old = std::mem::take(&mut meta.containers);
    meta.containers = stays.iter().map(|i| old[*i].clone()).collect();
    // 2. Copy the segments of the others.
    let mut copy = None;
    let name = format!("{SEGMENTS}{:012}-all", meta.sequence);
    let failed = |source| IndexError::Write { name: name.clone(), source };
    let mut offset = 0;
    let mut moved = Vec::new();
    for (i, (segment, entry)) in segments.iter().zip(&mut meta.segments).enumerate() {
        if let Ok(container) = stays.binary_search(&entry.container) {
            entry.container = container;
            continue;
        }
        let file = match &mut copy {
            Some(file) => file,
            empty => empty.insert(dir.create_blocks(&name).map_err(failed)?),
        };
        // Damage must not be copied: the new file will have a stamp by which it is trusted.
        segment.verify_all()?;
        std::io::Write::write_all(file, segment.bytes()).map_err(failed)?;
        (entry.container, entry.at) = (stays.len(), offset);
        offset += segment.bytes().len() as u64;
        moved.push(i);
    }
    let Some(mut file) = copy else { return Ok(()) };
    std::io::Write::flush(&mut file).map_err(failed)?;
    let bytes = Arc::new(dir.open(&name).map_err(failed)?);
    for i in moved {
        segments[i] = segments[i].moved(bytes.clone(), meta.segments[i].at);
    }
    meta.containers.push(IndexFile::new(name));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes and dies, containers stay few, most of them is alive, and little is copied.
        #[test]
        fn containers_stay_few_and_alive(
            steps in proptest::collection::vec((1..2_000_000u64, 0..100u64, any::<u64>()), 1..300)
        ) {
            let (mut containers, mut copies, mut written): (Vec<ContainerUse>, u64, u64) = Default::default();
            for (bytes, dying, which) in steps {
                // Something new comes, and a part of a container dies.
                containers.push(ContainerUse { live: bytes, total: bytes });
                written += bytes;
                let i = which as usize % containers.len();
                containers[i].live -= containers[i].live * dying / 100;
                containers.retain(|one| one.live > 0);
                let copied = copied_containers(&containers);
                let sum = containers.iter().zip(&copied).filter(|(_, copied)| **copied).map(|(one, _)| one.live).sum();
                let mut kept = copied.iter();
                containers.retain(|_| !kept.next().unwrap());
                if sum > 0 {
                    copies += sum;
                    containers.push(ContainerUse { live: sum, total: sum });
                }
                prop_assert!(!copied_containers(&containers).contains(&true), "{containers:?}");
                let live: u64 = containers.iter().map(|one| one.live).sum();
                let total: u64 = containers.iter().map(|one| one.total).sum();
                prop_assert!(total * 3 <= live * 4, "{live} of {total}");
                let tiers = tier_of(live, CONTAINER_BYTES) as usize + 1;
                prop_assert!(containers.len() < FAN * tiers);
                prop_assert!(copies <= (tiers as u64 + 4) * written, "{copies} {written}");
            }
        }
    }
}
