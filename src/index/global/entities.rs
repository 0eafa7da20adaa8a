//! Resources and identifiers across segments: the records of each, in order, and what names it.

use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, RecordId, ReferenceId, TargetId};
use crate::index::global::segment_set::SegmentSet;
use crate::index::segment::columns::ReferenceName;
use crate::index::segment::id_encoding::VersionKey;
use crate::index::segment::layout::{BASE_BITS, kind};
use crate::index::segment::radix_sort::sort_by_hash;

/// Hash of (type, id), segment, and reference in it (see [`kind`]).
pub(crate) type OwnerEntry = (u64, u32, u32);

/// A version or a DELETE entry of one resource, with the keys that order its version chain.
#[derive(Clone)]
pub(crate) struct EntityRecord<'a> {
    /// `None` sorts first: a version without lastUpdated is older than any with one (reading 3).
    pub at: Option<InstantRef<'a>>,
    /// At one instant a DELETE entry is older than a version: what was written last is kept.
    pub is_version: bool,
    pub version: VersionKey<'a>,
    /// Number of the record over the store.
    pub number: RecordId,
    /// Segment that holds the record.
    pub segment: u32,
    /// Whether it is a DELETE entry under a base other than the empty one.
    pub foreign: bool,
}

/// One resource with what names it, or one identifier with the conditional references that name it.
pub(crate) struct Entity<'a> {
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// Versions and DELETE entries of the resource, in order; none of an identifier.
    pub records: Vec<EntityRecord<'a>>,
    /// Provenance targets that name the resource.
    pub targets: Vec<TargetId>,
    /// References that name it.
    pub references: Vec<ReferenceId>,
    /// Rows' identifiers of this text, in order; none of a resource.
    pub keys: Vec<RecordId>,
}

/// Calls `visit` for every resource and identifier whose hash two or more `entries` have, with what names it. DELETE entries
/// without an instant end no version and are omitted.
pub(crate) fn each_entity(set: &SegmentSet<'_>, mut entries: Vec<OwnerEntry>, visit: &mut dyn FnMut(&Entity<'_>)) {
    sort_by_hash(&mut entries, &mut Vec::new(), |entry| entry.0);
    let mut found = Entity {
        resource_type: ResourceType::PATIENT,
        records: Vec::new(),
        targets: Vec::new(),
        references: Vec::new(),
        keys: Vec::new(),
    };
    for group in entries.chunk_by(|a, b| a.0 == b.0) {
        if group.len() == 1 {
            continue;
        }
        let entity = |(_, segment, reference): &OwnerEntry| -> (ResourceType, ReferenceName<'_>) {
            let c = &set.columns[*segment as usize];
            let number = (reference & !kind::MASK) as usize;
            let by_id = |(resource_type, id)| (resource_type, ReferenceName::Id(id));
            match reference & kind::MASK {
                kind::TOMBSTONE => by_id(c.tombstone_of(EntryId::of(number))),
                kind::TARGET => by_id(c.target_of(number)),
                kind::REFERENCE => (c.reference_type_of(number), c.reference_name(number)),
                kind::KEY => {
                    let (resource_type, text) = c.key_of(number);
                    (resource_type, ReferenceName::Identifier(text))
                }
                _ => by_id((c.type_of(number), c.id_of(number))),
            }
        };
        let mut keyed: Vec<_> = group.iter().map(|entry| (entity(entry), *entry)).collect();
        keyed.sort_unstable();
        for same in keyed.chunk_by(|a, b| a.0 == b.0) {
            found.resource_type = same[0].0.0;
            found.records.clear();
            found.targets.clear();
            found.references.clear();
            found.keys.clear();
            for (_, entry) in same {
                place_entities(set, *entry, &mut found);
            }
            found.records.sort_unstable_by(|a: &EntityRecord<'_>, b: &EntityRecord<'_>| {
                (a.at, a.is_version, a.version, a.number).cmp(&(b.at, b.is_version, b.version, b.number))
            });
            found.keys.sort_unstable();
            visit(&found);
        }
    }
}

/// Adds an entry to its resource.
fn place_entities<'a>(set: &SegmentSet<'a>, (_, segment, reference): OwnerEntry, found: &mut Entity<'a>) {
    let Entity { records, targets, references, keys, .. } = found;
    let number = (reference & !kind::MASK) as usize;
    let (c, starts) = (&set.columns[segment as usize], &set.starts);
    let i = segment as usize;
    match reference & kind::MASK {
        kind::TARGET => targets.push(TargetId::of(starts.target[i] + number)),
        kind::REFERENCE => references.push(ReferenceId::of(starts.reference[i] + number)),
        kind::KEY => keys.push(RecordId::of(starts.before_keys + starts.key[i] + number)),
        kind::TOMBSTONE => records.extend(c.tombstone_updated(EntryId::of(number)).map(|updated| EntityRecord {
            at: Some(updated),
            is_version: false,
            version: VersionKey::None,
            number: RecordId::of(starts.rows + starts.tombstone[i] + number),
            segment,
            foreign: set.base_numbers[i][(c.tomb_base[number] & BASE_BITS) as usize] != 0,
        })),
        _ => records.push(EntityRecord {
            at: c.updated_of(number),
            is_version: true,
            version: c.version_of(number),
            number: RecordId::of(starts.row[i] + number),
            segment,
            foreign: false,
        }),
    }
}
