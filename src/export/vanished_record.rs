//! Vanished resources as the record of an export holds them: a resumed run and a verification go by these, because the
//! index may have learned of others since.

use serde::{Deserialize, Serialize};

use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::index::vanished::{VanishCause, VanishedResource};
use crate::select::vanished::{CountedVanish, VanishedCounts, VanishedSelection};

/// A resource that an export listed as deleted, or counted, because it is gone from the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VanishedRecord {
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// Its logical id.
    pub id: String,
    /// How it came to be gone.
    pub cause: VanishCause,
    /// T of the first snapshot without it, in ticks.
    pub first_missed: i64,
    /// lastUpdated of its last version in ticks, the least value for none.
    pub updated: i64,
    /// Owners of its last version: reference base and id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<(String, String)>,
    /// Whether it is listed as deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

impl VanishedRecord {
    /// The records of a selection.
    pub(crate) fn of(selection: &VanishedSelection) -> Vec<VanishedRecord> {
        let record = |CountedVanish { resource, told }: &CountedVanish| {
            Some(VanishedRecord {
                resource_type: resource.resource_type.name().to_string(),
                id: resource.id.to_string(),
                cause: resource.cause,
                // What no snapshot has missed yet is in no selection.
                first_missed: resource.first_missed?,
                updated: resource.updated,
                owners: resource.owners.iter().map(|(base, id)| (base.clone(), id.to_string())).collect(),
                told: *told,
            })
        };
        selection.resources.iter().filter_map(record).collect()
    }

    /// The resource; `None` if the record is not as outpour writes it.
    pub(crate) fn resource(&self) -> Option<VanishedResource> {
        let may_be_told = match self.cause {
            VanishCause::ReplacedFile => true,
            // Only what is told is recorded.
            VanishCause::Deleted if !self.told => return None,
            VanishCause::Deleted => true,
            _ => false,
        };
        if self.told && !may_be_told {
            return None;
        }
        let owner = |(base, id): &(String, String)| Some((base.clone(), Id::parse(id.as_bytes())?));
        Some(VanishedResource {
            resource_type: ResourceType::parse(&self.resource_type)?,
            id: Id::parse(self.id.as_bytes())?,
            cause: self.cause,
            first_missed: Some(self.first_missed),
            updated: self.updated,
            owners: self.owners.iter().map(owner).collect::<Option<_>>()?,
            returned: false,
        })
    }

    /// Numbers of records by cause.
    pub(crate) fn counts(records: &[VanishedRecord]) -> VanishedCounts {
        let mut counts = VanishedCounts::default();
        records.iter().for_each(|gone| counts.count(gone.cause, gone.told));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told is what is gone from replaced files and what a DELETE entry ended; a record that says otherwise is none of ours.
    #[test]
    fn only_some_causes_are_told() {
        let record = |cause, told| VanishedRecord {
            resource_type: "Patient".into(),
            id: "a".into(),
            cause,
            first_missed: 1,
            updated: 0,
            owners: Vec::new(),
            told,
        };
        for cause in VanishCause::ALL {
            let (told, counted) = (record(cause, true).resource().is_some(), record(cause, false).resource().is_some());
            let may_be_told = matches!(cause, VanishCause::ReplacedFile | VanishCause::Deleted);
            assert_eq!((told, counted), (may_be_told, cause != VanishCause::Deleted), "{cause:?}");
        }
    }
}
