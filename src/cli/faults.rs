//! The list of faulty lines that `outpour verify --faults` and `outpour index --faults` print.

use serde_json::json;

use crate::cli::show;
use crate::count_text::counted;
use crate::error::IndexError;
use crate::extract::fault::FaultKind;
use crate::index::fault_places::{FaultPlaces, list_faults};
use crate::index::snapshot::Index;

/// The faulty lines of a store.
pub(crate) struct FaultList(FaultPlaces);

impl FaultList {
    /// The faulty lines that an index knows.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when the index is.
    pub(crate) fn of(index: &Index) -> Result<FaultList, IndexError> {
        list_faults(index).map(FaultList)
    }

    /// Prints the list for people.
    pub(crate) fn print(&self) {
        self.0.places.iter().for_each(|place| show(&place.text));
        for (kind, count) in self.unplaced().filter(|(_, count)| *count > 0) {
            show(&format!(
                "{} of kind {} in parts of files with more than are listed",
                counted(count, "more fault"),
                kind.name()
            ));
        }
        if self.0.places.is_empty() {
            show("No line is faulty.");
        }
        if !self.0.other_data.is_empty() {
            let files = counted(self.0.other_data.len() as u64, "file");
            show(&format!("{files} without any resourceType not read, and not counted as faulty."));
        }
    }

    /// The list as a part of a JSON document.
    pub(crate) fn json(&self) -> serde_json::Value {
        let unplaced: serde_json::Map<String, serde_json::Value> = self
            .unplaced()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| (kind.name().to_string(), count.into()))
            .collect();
        json!({ "places": self.0.places, "unplaced": unplaced })
    }

    /// Kinds of faults, each with the number of those whose places are not known.
    fn unplaced(&self) -> impl Iterator<Item = (FaultKind, u64)> {
        FaultKind::ALL.iter().copied().zip(self.0.unplaced.iter().copied())
    }
}
