//! Groups of the store, looked up and judged: which row is a Group's current version, and whether a Group can stand
//! for a set of patients at all. Members are resolved in `cohort`.

use std::fmt;

use crate::error::{CorruptIndex, ExportError};
use crate::extract::fault::Fault;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::group::reader::{GroupHead, GroupMember, GroupReader, Modifier};
use crate::index::row_reader::{row_range, stream_range};
use crate::index::segment::id_encoding;
use crate::index::segment::layout::{Column, kind};
use crate::index::snapshot::{RowState, Snapshot};
use crate::simd::Kernel;

/// What a snapshot says of a Group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundGroup {
    /// Its current version: segment and row.
    Current(usize, usize),
    /// It has versions, all of them later than the transactionTime.
    Future,
    /// It was deleted.
    Deleted,
    /// No row has its id.
    Unknown,
}

/// Looks a Group up; `ours` says of each reference base of the index whether it is ours.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn find_group(snapshot: &Snapshot, id: &Id, ours: &[bool]) -> Result<FoundGroup, CorruptIndex> {
    let mut found = FoundGroup::Unknown;
    for (segment, row) in group_rows_of(snapshot, ResourceType::GROUP, id)? {
        match snapshot.state(segment, row, snapshot.as_of().as_ref(), ours, &|_| true)? {
            RowState::Current => return Ok(FoundGroup::Current(segment, row)),
            RowState::Future => found = FoundGroup::Future,
            RowState::Deleted => found = FoundGroup::Deleted,
            RowState::Superseded => {}
        }
    }
    Ok(found)
}

/// Why a Group cannot stand for a set of patients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UnusableGroup {
    /// It is of another resource type, or of none.
    NoGroup(Option<ResourceType>),
    /// It groups something else than patients (GROUP-09).
    Type(String),
    /// It is defined by characteristics (GROUP-10).
    Characteristics,
    /// It is not active, and members are taken as active (reading 9).
    Inactive,
    /// It says something that changes its meaning and is not understood here (GROUP-10, reading 22).
    Modified(Modifier),
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
            UnusableGroup::Modified(modifier) => {
                write!(
                    f,
                    "has {modifier}, which changes its meaning and is not understood here; list the members that it leaves instead"
                )
            }
        }
    }
}

/// Everything that keeps a Group from standing for a set of patients.
pub(crate) fn check_usable(head: &GroupHead, members: MembershipRule) -> Vec<UnusableGroup> {
    if head.resource_type != Some(ResourceType::GROUP) {
        return vec![UnusableGroup::NoGroup(head.resource_type)];
    }
    let mut problems = Vec::new();
    if let Some(of) = head.group_type.as_deref()
        && !matches!(of, "person" | "animal")
    {
        problems.push(UnusableGroup::Type(of.to_string()));
    }
    if head.has_characteristic && (head.members == 0 || head.actual == Some(false)) {
        problems.push(UnusableGroup::Characteristics);
    }
    if head.active == Some(false) && members == MembershipRule::Active {
        problems.push(UnusableGroup::Inactive);
    }
    problems.extend(head.modifiers.iter().cloned().map(UnusableGroup::Modified));
    problems
}

/// Whether each reference base of the index is ours: the relative one, and those given (reading 5).
pub(crate) fn our_bases(snapshot: &Snapshot, fhir_bases: &[String]) -> Vec<bool> {
    let is_ours = |base: &String| is_our_base(base, fhir_bases);
    snapshot.index().bases().iter().map(is_ours).collect()
}

/// Whether a reference base is ours; it has no slash at its end.
pub(crate) fn is_our_base(base: &str, fhir_bases: &[String]) -> bool {
    base.is_empty() || fhir_bases.iter().any(|ours| ours.trim_end_matches('/') == base)
}

/// Reads a Group of the store: its members go to `on_member` as they come, what it says of itself is given back. The
/// inner error is what is wrong with its text; members that were given before do not count then.
///
/// # Errors
/// When the row cannot be read.
pub(crate) fn read_group(
    snapshot: &Snapshot,
    (segment, row): (usize, usize),
    on_member: &mut dyn FnMut(&GroupMember<'_>),
) -> Result<Result<GroupHead, Fault>, ExportError> {
    let index = snapshot.index();
    let mut reader = GroupReader::new(Kernel::detect(), on_member);
    reader.begin();
    stream_range(index, index.entry(segment).file, row_range(index, segment, row), &mut |piece| reader.feed(piece))?;
    Ok(reader.finish())
}

/// Every visible row of a resource, in no order. The rows and their ids are proven.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn group_rows_of(
    snapshot: &Snapshot,
    resource_type: ResourceType,
    id: &Id,
) -> Result<Vec<(usize, usize)>, CorruptIndex> {
    let hash = id_encoding::entity_hash(resource_type, id.as_bytes());
    let mut rows = Vec::new();
    for segment_id in snapshot.segments() {
        let segment = &snapshot.index().segments()[segment_id];
        if !segment.head().has_type(resource_type.index()) {
            continue;
        }
        for reference in segment.based_name_of(hash)? {
            let row = (reference & !kind::MASK) as usize;
            if reference & kind::MASK == kind::ROW
                && segment.row(row)?.type_of(row) == resource_type
                && segment.row_id(row)? == *id
            {
                rows.push((segment_id, row));
            }
        }
    }
    Ok(rows)
}

/// Ids of Groups in the store that a person may have meant, nearest first, at most five.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn similar_groups(snapshot: &Snapshot, id: &str) -> Result<Vec<String>, CorruptIndex> {
    let mut near: Vec<(usize, String)> = Vec::new();
    for segment_id in snapshot.segments() {
        let segment = &snapshot.index().segments()[segment_id];
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

/// How `member.inactive` and `member.period` are read (reading 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembershipRule {
    /// Whoever is listed is a member.
    #[default]
    Listed,
    /// R4's meaning: active members whose period covers the transactionTime (GROUP-04).
    Active,
}

impl MembershipRule {
    /// Every value.
    pub const ALL: [MembershipRule; 2] = [MembershipRule::Listed, MembershipRule::Active];

    /// Its word in records, manifests, hashes and configurations.
    pub const fn name(self) -> &'static str {
        match self {
            MembershipRule::Listed => "listed",
            MembershipRule::Active => "active",
        }
    }
}
