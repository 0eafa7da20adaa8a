//! The front door: the README, then a dozen names. What stands behind them is in [`docs`].
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn, missing_docs)]

pub mod bytes;
#[doc(hidden)]
pub mod cli;
pub mod error;
/// Documents: architecture, what the service is tested by, formats, readings, what the service answers.
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("docs/conformance.md")]
    pub mod conformance {}
    #[doc = include_str!("docs/format.md")]
    pub mod format {}
    #[doc = include_str!("docs/readings.md")]
    pub mod readings {}
    #[doc = include_str!("docs/service.md")]
    pub mod service {}
}
pub mod export;
pub mod extract;
pub mod fhir;
pub mod inspect;
#[cfg(feature = "server")]
pub mod job;
pub mod limits;
pub mod observe;
pub mod pack;
pub mod plan;
pub mod select;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
pub mod synth;
pub mod verify;
mod words;
pub mod write;

pub use export::{Existing, ExportOptions, Exported, FaultsAllowed, export};
pub use plan::{Plan, plan};
pub use select::ExportRequest;
pub use store::{Snapshot, Store, StoreOptions, Watch};
