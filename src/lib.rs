//! outpour pours a cohort's records out of a FHIR R4 store as size-bounded NDJSON files with a manifest.

#![deny(unsafe_op_in_unsafe_fn, missing_docs)]

pub mod bytes;
#[doc(hidden)]
pub mod cli;
pub mod error;
pub mod export;
pub mod extract;
pub mod fhir;
pub mod inspect;
pub mod limits;
pub mod observe;
pub mod plan;
pub mod select;
pub mod store;
pub mod verify;
pub mod write;

pub use export::{Existing, ExportOptions, Exported, FaultsAllowed, export};
pub use plan::{Plan, plan};
pub use select::ExportRequest;
pub use store::{Snapshot, Store, StoreOptions, Watch};
