//! Groups of shards that one pass over the store writes together, because they take rows from the same files.

use std::collections::HashMap;

use crate::codec::compression::Compression;
use crate::ids::{FileId, SegmentId};
use crate::index::snapshot::Snapshot;
use crate::plan::Plan;

/// Groups of shards (numbers in `plan.shards`) that are written together: those that take rows from one compressed file
/// without a seek table, which is decoded once, or from one plain file of several types, which is read once a thread.
/// Every other shard is a group of its own.
pub(crate) fn group_shards(plan: &Plan, snapshot: &Snapshot) -> Vec<Vec<usize>> {
    let index = snapshot.index();
    // 1. Union-find over shards: the smallest number of a set is its root.
    let mut parent: Vec<usize> = (0..plan.shards.len()).collect();
    /// Root of the set of shard `i`; halves the path on the way.
    fn find_root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    let reads_segment = |number: usize, segment: SegmentId| {
        let of_type = plan.shards[number].resource_type.index();
        snapshot.sees_segment(segment) && index.segment(segment).head().has_type(of_type)
    };
    // 2. The one type of the rows that shards take from each file; `None` for files of several types.
    let mut type_of_file: HashMap<FileId, Option<usize>> = HashMap::new();
    for (number, shard) in plan.shards.iter().enumerate() {
        let own = Some(shard.resource_type.index());
        for segment in shard.first.segment.through(shard.last.segment).filter(|segment| reads_segment(number, *segment))
        {
            let known = type_of_file.entry(index.file_of(segment)).or_insert(own);
            *known = known.filter(|_| *known == own);
        }
    }
    // 3. Join the shards that share a file which has to be read front to back.
    let mut first_of_file: HashMap<FileId, usize> = HashMap::new();
    let mut decodes = vec![false; plan.shards.len()];
    for (number, shard) in plan.shards.iter().enumerate() {
        for segment in shard.first.segment.through(shard.last.segment).filter(|segment| reads_segment(number, *segment))
        {
            let file = index.file_of(segment);
            let is_plain = index.compression(file) == Compression::None;
            let is_mixed = is_plain && type_of_file[&file].is_none();
            if is_mixed || !is_plain && index.packed(file).is_none() {
                decodes[number] |= !is_plain;
                let first = *first_of_file.entry(file).or_insert(number);
                let (a, b) = (find_root(&mut parent, first), find_root(&mut parent, number));
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    // 4. Collect the sets in the order of their first shards.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut group_of: HashMap<usize, usize> = HashMap::new();
    for number in 0..plan.shards.len() {
        let root = find_root(&mut parent, number);
        let group = *group_of.entry(root).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(number);
    }
    // 5. A group that decodes stays whole, so that its file is decoded once; reading a plain file once a thread is cheap.
    let threads = rayon::current_num_threads();
    let split = |group: Vec<usize>| match group.iter().any(|shard| decodes[*shard]) {
        true => vec![group],
        false => groups_by_type(plan, group, threads),
    };
    groups.into_iter().flat_map(split).collect()
}

/// Splits a group into at most `parts` groups of about equal bytes; shards of one type stay together.
fn groups_by_type(plan: &Plan, group: Vec<usize>, parts: usize) -> Vec<Vec<usize>> {
    let mut types: Vec<(u64, Vec<usize>)> = Vec::new();
    for shard in group {
        match types.last_mut() {
            Some((bytes, list)) if plan.shards[list[0]].resource_type == plan.shards[shard].resource_type => {
                *bytes += plan.shards[shard].bytes;
                list.push(shard);
            }
            _ => types.push((plan.shards[shard].bytes, vec![shard])),
        }
    }
    types.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut split: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); parts.clamp(1, types.len().max(1))];
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
