//! The list of the files of an export that is being replaced.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// File in [`NEXT`](crate::write::journal::NEXT) that lists the files of the export that is being replaced.
pub(crate) const REPLACED: &str = "replaced.json";

/// Contents of the file `replaced.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReplacedFiles {
    /// Names of the files that earlier exports may have put in place.
    pub files: BTreeSet<String>,
    /// Hash of the names: a name lost to damage would leave its file among those of the new export.
    pub sum: String,
}

impl ReplacedFiles {
    /// The list of old files that a replacement of an output directory's export removes, with its hash.
    pub(crate) fn new(files: BTreeSet<String>) -> ReplacedFiles {
        ReplacedFiles { sum: ReplacedFiles::sum_of(&files), files }
    }

    /// Hash (xxh3, 128 bits, hexadecimal) of the list of replaced files of an output directory, as JSON.
    pub(crate) fn sum_of(files: &BTreeSet<String>) -> String {
        let names = serde_json::to_vec(files).expect("names are plain data");
        format!("{:032x}", crate::hash::xxh3_128(&names))
    }
}
