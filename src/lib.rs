//! outpour pours a cohort's records out of a FHIR R4 store as size-bounded NDJSON files with a manifest.

#![deny(unsafe_op_in_unsafe_fn, missing_docs)]

pub mod bytes;
pub mod extract;
pub mod fhir;
pub mod limits;
