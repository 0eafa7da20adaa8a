//! Where the patients are listed to whom an export is restricted.

use std::fmt;
use std::path::PathBuf;

/// A list of patients that restricts an export (PATIENT-01).
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PatientList {
    /// In a file, one id or reference a line.
    File(PathBuf),
    /// Given here, an id or a reference each.
    Ids(Vec<String>),
}

impl PatientList {
    /// The ids or references that were given here; `None` if they are in a file.
    pub(crate) fn into_ids(self) -> Option<Vec<String>> {
        match self {
            PatientList::File(_) => None,
            PatientList::Ids(ids) => Some(ids),
        }
    }
}

/// Patients that were given in memory are not shown, only how many there are.
impl fmt::Debug for PatientList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatientList::File(path) => f.debug_tuple("File").field(path).finish(),
            PatientList::Ids(ids) => write!(f, "Ids({} of them)", ids.len()),
        }
    }
}
