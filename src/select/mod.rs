//! Which rows an export takes: the request, the cohort it names, and one pass over the columns of the snapshot.

pub mod bitmap;
pub mod cohort;
pub mod deletions;
pub mod request;
pub mod selection;

pub use cohort::Cohort;
pub use request::{Bounds, ExportRequest, Late, Members, MissingLastUpdated, Population};
pub use selection::{Ledger, Selection};
