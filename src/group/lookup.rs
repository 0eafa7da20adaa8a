//! Looks up Groups in a snapshot: the row of a Group's current version, whether a Group defines a set of patients, and
//! its members, streamed. Members are resolved to patients in `select/members.rs`.

use std::fmt;

use crate::error::{CorruptIndex, ExportError};
use crate::extract::fault::Fault;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::group::member_filter::{FilteredGroups, MemberFilterProblem};
use crate::group::reader::{GroupHead, GroupMember, GroupReader, Modifier};
use crate::ids::RowAddress;
use crate::index::row_reader::{row_range, stream_range};
use crate::index::segment::layout::{Column, kind};
use crate::index::snapshot::{RowState, Snapshot};
use crate::key_set::resource_key::entity_hash;
use crate::simd::Kernel;

/// State at T of the Group of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundGroup {
    /// Its current version.
    Current(RowAddress),
    /// Every version is later than the transactionTime.
    Future,
    /// It was deleted before the transactionTime.
    Deleted,
    /// No row of the snapshot is a Group of this id.
    Unknown,
}

/// The state at T of the Group of an id. `ours` says of each reference base of the index whether it is ours: a deletion
/// under another base deletes nothing.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn find_group(snapshot: &Snapshot, id: &Id, ours: &[bool]) -> Result<FoundGroup, CorruptIndex> {
    let mut found = FoundGroup::Unknown;
    for row in group_rows_of(snapshot, ResourceType::GROUP, id)? {
        match snapshot.state(row, snapshot.as_of().as_ref(), ours, &|_| true)? {
            RowState::Current => return Ok(FoundGroup::Current(row)),
            RowState::Future => found = FoundGroup::Future,
            RowState::Deleted => found = FoundGroup::Deleted,
            RowState::Superseded => {}
        }
    }
    Ok(found)
}

/// A reason why a Group does not define a set of patients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UnusableGroup {
    /// It is a resource of another type, or of none that R4 knows.
    NoGroup(Option<ResourceType>),
    /// Its `type` is neither `person` nor `animal` (GROUP-09).
    Type(String),
    /// It is defined by characteristics instead of members (GROUP-10).
    Characteristics,
    /// Its `active` is false, and only active members count (reading 9).
    Inactive,
    /// It has a modifier that is not understood here (GROUP-10, reading 22).
    Modified(Modifier),
    /// Something is wrong with its filters, or with it as a Group that has some (reading 37).
    Filter(MemberFilterProblem),
}

impl fmt::Display for UnusableGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnusableGroup::NoGroup(found) => {
                let found = found.map_or("no resource", |found| found.name());
                write!(f, "holds {found}, not a Group; give a Group resource")
            }
            UnusableGroup::Type(of) => {
                write!(f, "is a Group of type {of}; only Groups of patients (type person or animal) can be exported")
            }
            UnusableGroup::Characteristics => {
                f.write_str("is defined by characteristics, which are not evaluated here; list its members")
            }
            UnusableGroup::Inactive => f.write_str("has active false, and members are taken as active"),
            UnusableGroup::Filter(problem) => write!(f, "cannot be evaluated: {}", problem.text),
            UnusableGroup::Modified(modifier) => {
                write!(
                    f,
                    "has {modifier}, which changes its meaning and is not understood here; list the members that it leaves instead"
                )
            }
        }
    }
}

/// Every reason why a Group does not define a set of patients; empty if it does.
pub(crate) fn check_usable(head: &GroupHead, members: MembershipRule, filters: FilteredGroups) -> Vec<UnusableGroup> {
    if head.resource_type != Some(ResourceType::GROUP) {
        return vec![UnusableGroup::NoGroup(head.resource_type)];
    }
    let mut problems = Vec::new();
    if let Some(of) = head.group_type.as_deref()
        && !matches!(of, "person" | "animal")
    {
        problems.push(UnusableGroup::Type(of.to_string()));
    }
    let is_filtered = filters == FilteredGroups::Evaluated && !head.filters.is_empty();
    if head.has_characteristic && (head.members == 0 || head.actual == Some(false)) && !is_filtered {
        problems.push(UnusableGroup::Characteristics);
    }
    if head.active == Some(false) && members == MembershipRule::Active {
        problems.push(UnusableGroup::Inactive);
    }
    let is_evaluated = |modifier: &&Modifier| filters == FilteredGroups::Evaluated && modifier.is_member_filter();
    let modifiers = head.modifiers.iter().filter(|modifier| !is_evaluated(modifier));
    problems.extend(modifiers.cloned().map(UnusableGroup::Modified));
    if filters == FilteredGroups::Evaluated {
        problems.extend(head.filter_problems().into_iter().map(UnusableGroup::Filter));
    }
    problems
}

/// Whether each reference base of the index is ours, by its number: the relative one and `fhir_bases` (reading 5).
pub(crate) fn our_bases(snapshot: &Snapshot, fhir_bases: &[String]) -> Vec<bool> {
    let own = BaseUrls::new(fhir_bases);
    snapshot.index().bases().iter().map(|base| own.contains(base)).collect()
}

/// Streams a Group of the store: passes each member to `on_member` and returns its other elements. The inner error is a
/// fault in its text; the caller then drops the members it was passed.
///
/// # Errors
/// If the row cannot be read from the store.
pub(crate) fn read_group(
    snapshot: &Snapshot,
    row: RowAddress,
    on_member: &mut dyn FnMut(&GroupMember<'_>),
) -> Result<Result<GroupHead, Fault>, ExportError> {
    let index = snapshot.index();
    let mut reader = GroupReader::new(Kernel::detect(), on_member);
    reader.begin();
    stream_range(index, index.file_of(row.segment), row_range(index, row), &mut |piece| reader.feed(piece))?;
    Ok(reader.finish())
}

/// Every row of the snapshot that is a version of a resource, in no particular order. Types and ids of
/// the rows are verified.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn group_rows_of(
    snapshot: &Snapshot,
    resource_type: ResourceType,
    id: &Id,
) -> Result<Vec<RowAddress>, CorruptIndex> {
    let hash = entity_hash(resource_type, id.as_bytes());
    let mut rows = Vec::new();
    for segment_id in snapshot.segments() {
        let segment = snapshot.index().segment(segment_id);
        if !segment.head().has_type(resource_type.index()) {
            continue;
        }
        for reference in segment.references_of_hash(hash)? {
            let row = (reference & !kind::MASK) as usize;
            if reference & kind::MASK == kind::ROW
                && segment.row(row)?.type_of(row) == resource_type
                && segment.row_id(row)? == *id
            {
                rows.push(RowAddress::of(segment_id, row));
            }
        }
    }
    Ok(rows)
}

/// Ids of Groups in the snapshot that resemble a mistyped one, nearest first, at most five.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn similar_groups(snapshot: &Snapshot, id: &str) -> Result<Vec<String>, CorruptIndex> {
    let mut near: Vec<(usize, String)> = Vec::new();
    for segment_id in snapshot.segments() {
        let segment = snapshot.index().segment(segment_id);
        if !segment.head().has_type(ResourceType::GROUP.index()) {
            continue;
        }
        let columns = segment.verify_columns(&[Column::Type, Column::Flags, Column::Id, Column::Heap])?;
        for row in 0..columns.rows() {
            if columns.type_of(row) == ResourceType::GROUP {
                let known = columns.id_of(row).to_string();
                let distance = strsim::damerau_levenshtein(&known.to_lowercase(), &id.to_lowercase());
                if distance <= 3.max(id.len() / 3) || known.contains(id) || id.contains(&known) {
                    near.push((distance, known));
                }
            }
        }
    }
    near.sort();
    near.dedup();
    Ok(near.into_iter().take(5).map(|(_, id)| id).collect())
}

/// Whether `member.inactive` and `member.period` decide membership (reading 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembershipRule {
    /// Every listed member counts.
    #[default]
    Listed,
    /// As R4 defines them: only active members whose period covers the transactionTime count (GROUP-04).
    Active,
}

impl MembershipRule {
    /// Both rules, for lookup by name.
    pub const ALL: [MembershipRule; 2] = [MembershipRule::Listed, MembershipRule::Active];

    /// The word, in records, manifests, hashes and configurations, of the rule of membership by which a Group that was
    /// found is judged usable and its members counted.
    pub const fn name(self) -> &'static str {
        match self {
            MembershipRule::Listed => "listed",
            MembershipRule::Active => "active",
        }
    }
}
