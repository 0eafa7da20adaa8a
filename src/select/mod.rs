//! Which rows an export takes: the request, the cohort it names, and the selection, which has two ways to one answer.

pub mod bitmap;
pub mod cohort;
pub mod columns;
pub mod deletions;
pub mod ended;
mod filter;
pub mod groups;
pub mod members;
pub mod nested_groups;
pub mod postings;
pub mod request;
pub mod row_set;
pub mod selection;
pub mod zones;

pub use cohort::Cohort;
pub use request::{Audience, Bounds, ExportRequest, Late, Members, MissingLastUpdated, Population, Way, WriterScope};
pub use selection::{Ledger, Selection};
