//! The Groups of a store at one moment, as a list. Members are counted, not resolved.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::ExportError;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{FoundGroup, find_group, our_bases, read_group};
use crate::index::segment::layout::Column;
use crate::index::snapshot::Snapshot;

/// A current Group of a store. Its fields are keys of a JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListedGroup {
    /// Its id.
    pub id: String,
    /// `Group.name`.
    pub name: Option<String>,
    /// `Group.type`.
    pub r#type: Option<String>,
    /// `Group.active`.
    pub active: Option<bool>,
    /// Members that it lists, of whatever form.
    pub members: u64,
    /// Its `meta.lastUpdated`.
    pub last_updated: Option<String>,
    /// Name of its store file.
    pub file: String,
}

/// The current Groups of a snapshot, by id. Each is read once, as a stream.
///
/// # Errors
/// [`ExportError::Index`] if the index is damaged or the store cannot be read.
pub(crate) fn list_groups(snapshot: &Snapshot) -> Result<Vec<ListedGroup>, ExportError> {
    let index = snapshot.index();
    let mut ids: BTreeSet<Box<[u8]>> = BTreeSet::new();
    for segment in snapshot.segments().map(|segment| index.segment(segment)) {
        if !segment.head().has_type(ResourceType::GROUP.index()) {
            continue;
        }
        let columns = segment.verify_columns(&[Column::Type, Column::Flags, Column::Id, Column::Heap])?;
        let rows = (0..columns.rows()).filter(|row| columns.type_of(*row) == ResourceType::GROUP);
        ids.extend(rows.map(|row| Box::from(columns.id_of(row).as_bytes())));
    }
    let ours = our_bases(snapshot, &[]);
    let mut groups = Vec::new();
    for id in ids.iter().filter_map(|id| Id::parse(id)) {
        let FoundGroup::Current(address) = find_group(snapshot, &id, &ours)? else { continue };
        let (segment, row) = address.parts();
        let updated = index.segment(segment).updated(row)?.map(|instant| instant.to_owned().to_string());
        // A row was checked when it was indexed; one that has changed since is listed by what the index knows.
        let head = read_group(snapshot, address, &mut |_| {})?.unwrap_or_default();
        groups.push(ListedGroup {
            id: id.to_string(),
            name: head.name,
            r#type: head.group_type,
            active: head.active,
            members: head.members,
            last_updated: updated,
            file: index.file_name(index.file_of(segment)).to_string(),
        });
    }
    Ok(groups)
}
