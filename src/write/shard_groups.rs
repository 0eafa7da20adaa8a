//! Groups of shards that one pass over the store writes together, because they take rows from the same files.

use std::collections::HashMap;

use crate::codec::compression::Compression;
use crate::ids::{FileId, SegmentId, ShardId};
use crate::index::snapshot::Snapshot;
use crate::plan::Plan;

/// Groups of shards that are written together: those that take rows from one compressed file without a seek table, which
/// is decoded once, or from one plain file of several types, which is read once a thread. Every other shard is a group of
/// its own.
pub(crate) fn group_shards(plan: &Plan, snapshot: &Snapshot) -> Vec<Vec<ShardId>> {
    let (groups, decodes) = joined_groups(plan, snapshot, true);
    // A group that decodes stays whole, so that its file is decoded once; reading a plain file once a thread is cheap.
    let threads = rayon::current_num_threads();
    let split = |group: Vec<ShardId>| match group.iter().any(|shard| decodes[shard.index()]) {
        true => vec![group],
        false => groups_by_type(plan, group, threads),
    };
    groups.into_iter().flat_map(split).collect()
}

/// Groups of shards that must be written together where each group has a reader of its own: those that take rows from one
/// compressed file without a seek table. They do not depend on the number of threads.
pub(crate) fn decoded_groups(plan: &Plan, snapshot: &Snapshot) -> Vec<Vec<ShardId>> {
    joined_groups(plan, snapshot, false).0
}

/// Groups of shards that share a file which is decoded from its start, or with `joins_mixed` a plain file of several types; and
/// which shards take rows from a file that is decoded.
fn joined_groups(plan: &Plan, snapshot: &Snapshot, joins_mixed: bool) -> (Vec<Vec<ShardId>>, Vec<bool>) {
    let index = snapshot.index();
    // 1. Union-find over shards: the smallest number of a set is its root.
    let mut parent: Vec<ShardId> = plan.shard_ids().collect();
    /// Root of the set of a shard; halves the path on the way.
    fn find_root(parent: &mut [ShardId], mut shard: ShardId) -> ShardId {
        while parent[shard.index()] != shard {
            parent[shard.index()] = parent[parent[shard.index()].index()];
            shard = parent[shard.index()];
        }
        shard
    }
    let reads_segment = |shard: ShardId, segment: SegmentId| {
        let of_type = plan.shard(shard).resource_type.index();
        // Of a store of many files most segments have no row of a small export.
        !plan.selection.rows[segment.index()].is_empty() && index.segment(segment).head().has_type(of_type)
    };
    // 2. The one type of the rows that shards take from each file; `None` for files of several types.
    let mut type_of_file: HashMap<FileId, Option<usize>> = HashMap::new();
    for (id, shard) in plan.shard_ids().zip(&plan.shards) {
        let own = Some(shard.resource_type.index());
        for segment in shard.first.segment.through(shard.last.segment).filter(|segment| reads_segment(id, *segment)) {
            let known = type_of_file.entry(index.file_of(segment)).or_insert(own);
            *known = known.filter(|_| *known == own);
        }
    }
    // 3. Join the shards that share a file which has to be read front to back.
    let mut first_of_file: HashMap<FileId, ShardId> = HashMap::new();
    let mut decodes = vec![false; plan.shards.len()];
    for (id, shard) in plan.shard_ids().zip(&plan.shards) {
        for segment in shard.first.segment.through(shard.last.segment).filter(|segment| reads_segment(id, *segment)) {
            let file = index.file_of(segment);
            let is_plain = index.compression(file) == Compression::None;
            let is_mixed = joins_mixed && is_plain && type_of_file[&file].is_none();
            if is_mixed || !is_plain && index.packed(file).is_none() {
                decodes[id.index()] |= !is_plain;
                let first = *first_of_file.entry(file).or_insert(id);
                let (a, b) = (find_root(&mut parent, first), find_root(&mut parent, id));
                parent[a.max(b).index()] = a.min(b);
            }
        }
    }
    // 4. Collect the sets in the order of their first shards.
    let mut groups: Vec<Vec<ShardId>> = Vec::new();
    let mut group_of: HashMap<ShardId, usize> = HashMap::new();
    for id in plan.shard_ids() {
        let root = find_root(&mut parent, id);
        let group = *group_of.entry(root).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(id);
    }
    (groups, decodes)
}

/// Splits a group into at most `parts` groups of about equal bytes; shards of one type stay together.
fn groups_by_type(plan: &Plan, group: Vec<ShardId>, parts: usize) -> Vec<Vec<ShardId>> {
    let mut types: Vec<(u64, Vec<ShardId>)> = Vec::new();
    for shard in group {
        match types.last_mut() {
            Some((bytes, list)) if plan.shard(list[0]).resource_type == plan.shard(shard).resource_type => {
                *bytes += plan.shard(shard).bytes;
                list.push(shard);
            }
            _ => types.push((plan.shard(shard).bytes, vec![shard])),
        }
    }
    types.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut split: Vec<(u64, Vec<ShardId>)> = vec![(0, Vec::new()); parts.clamp(1, types.len().max(1))];
    for (bytes, shards) in types {
        let least = split.iter_mut().min_by_key(|(sum, _)| *sum).expect("there is one at least");
        least.0 += bytes;
        least.1.extend(shards);
    }
    for (_, shards) in &mut split {
        shards.sort_unstable();
    }
    split.into_iter().map(|(_, shards)| shards).filter(|shards| !shards.is_empty()).collect()
}
