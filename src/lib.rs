//! The front door: the README, then a dozen names. What stands behind them is in [`docs`].
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn)]

#[doc(hidden)]
pub mod cli;
pub mod codec;
pub mod error;
pub mod export;
pub mod extract;
pub mod fhir;
pub mod group;
pub mod hash;
pub mod index;
pub mod inspect;
pub mod issue;
#[cfg(feature = "server")]
pub mod job;
pub mod limits;
pub mod named_enum;
pub mod pack;
pub mod plan;
pub mod progress;
pub mod request;
pub mod select;
#[cfg(feature = "server")]
pub mod server;
pub mod simd;
pub mod store;
pub mod synth;
pub mod sys;
pub mod text_table;
pub mod verify;
pub mod write;

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

pub use crate::export::export;
pub use crate::export::options::{Existing, ExportOptions, FaultsAllowed};
pub use crate::export::planning::plan;
pub use crate::export::report::ExportReport;
pub use crate::index::snapshot::Snapshot;
pub use crate::plan::Plan;
pub use crate::progress::Progress;
pub use crate::request::ExportRequest;
pub use crate::store::{Store, StoreOptions};
