//! The front: the README, then the names that an embedder needs. What stands behind them is described in [`docs`].
//!
//! [architecture.md]: docs::architecture
//! [conformance.md]: docs::conformance
//! [consuming.md]: docs::consuming
//! [feeding.md]: docs::feeding
//! [format.md]: docs::format
//! [manners.md]: docs::manners
//! [readings.md]: docs::readings
//! [security.md]: docs::security
//! [service.md]: docs::service
//!
#![doc = include_str!("../README.md")]
// What only the command line and the service use is compiled without them too; their builds say what nothing uses.
#![cfg_attr(not(all(feature = "cli", feature = "server")), allow(dead_code))]

mod associated_data;
mod baseline;
mod byte_size;
mod casts;
mod chain;
#[cfg(feature = "cli")]
mod cli;
mod codec;
mod count_text;
mod error;
mod export;
mod extract;
mod fhir;
mod group;
mod hash;
mod ids;
mod ignorable_part;
mod import;
mod increment;
mod index;
mod inspect;
mod issue;
#[cfg(feature = "server")]
mod job;
mod key_set;
mod limits;
mod named_enum;
mod pack;
mod patient_restriction;
mod plan;
mod policies;
mod progress;
mod request;
mod select;
#[cfg(feature = "server")]
mod server;
mod simd;
mod spans;
mod store;
mod synth;
mod sys;
mod tasks;
mod text_table;
mod verify;
mod write;

/// Documents: architecture, what the service is tested by, how a store is fed and exports are loaded into tables, formats, manners of
/// the command line, readings, exports in tasks, security, what the service answers.
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("docs/conformance.md")]
    pub mod conformance {}
    #[doc = include_str!("docs/consuming.md")]
    pub mod consuming {}
    #[doc = include_str!("docs/feeding.md")]
    pub mod feeding {}
    #[doc = include_str!("docs/format.md")]
    pub mod format {}
    #[doc = include_str!("docs/manners.md")]
    pub mod manners {}
    #[doc = include_str!("docs/readings.md")]
    pub mod readings {}
    #[doc = include_str!("docs/scale.md")]
    pub mod scale {}
    #[doc = include_str!("docs/security.md")]
    pub mod security {}
    #[doc = include_str!("docs/service.md")]
    pub mod service {}
}

pub use crate::codec::compression::{Compression, UnprovenPolicy};
pub use crate::error::{
    CorruptIndex, DirectoryContent, ExportError, IndexError, JournalError, ProblemKind, RequestError, RequestProblem,
};
pub use crate::export::export;
pub use crate::export::options::{Existing, ExportOptions, FaultsAllowed};
pub use crate::export::planning::plan;
pub use crate::export::report::ExportReport;
pub use crate::export::to_sink::export_to_sink;
pub use crate::extract::Validate;
pub use crate::extract::rules::LoneSurrogates;
pub use crate::fhir::compartment::CompartmentPaths;
pub use crate::fhir::elements::selection::{ElementProblem, ElementProblemKind, ElementSelection};
pub use crate::fhir::id::IdRule;
pub use crate::fhir::instant::{Instant, ParseInstantError};
pub use crate::fhir::reference::PatientReferences;
pub use crate::fhir::resource_type::ResourceType;
pub use crate::group::lookup::MembershipRule;
pub use crate::hash::digest::DigestAlgorithm;
pub use crate::index::snapshot::Snapshot;
pub use crate::index::snapshot_time::SnapshotTime;
pub use crate::issue::{Issue, IssueCode, Parameter, Severity};
pub use crate::plan::Plan;
pub use crate::policies::{Context, LateArrivals, MissingLastUpdated, PatientStrict, Vanished};
pub use crate::progress::Progress;
pub use crate::request::{ExportRequest, Population};
pub use crate::store::{Store, StoreOptions};
pub use crate::sys::durability::FileSync;
pub use crate::write::journal::Receipt;
pub use crate::write::manifest::Manifest;
pub use crate::write::sink::{DirSink, MemorySink, Sink};

/// Names that this crate's own tests, benches, fuzz targets and binary use. No promise is made of them.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cli")]
    pub use crate::cli::run_from_arguments;
    pub use crate::extract::extractor::Extractor;
    pub use crate::extract::facts::{Content, ResourceFacts};
    pub use crate::extract::identifiers::IdentifierReader;
    pub use crate::extract::naive;
    pub use crate::fhir::instant::{InstantRef, date_time_span};
    pub use crate::group::reader::{GroupMember, GroupReader};
    pub use crate::import::writer::import_file;
    pub use crate::index::dir::IndexDir;
    pub use crate::index::global::build;
    pub use crate::index::meta::IndexMeta;
    pub use crate::index::segment::layout::{ColumnRanges, MAGIC, VERSION, seal_segment};
    pub use crate::index::segment::reader::Segment;
    pub use crate::policies::AccessPath;
    pub use crate::select::cohort::Cohort;
    pub use crate::select::selection::Selection;
    pub use crate::select::type_filters::{ColumnUse, apply_type_filters};
    pub use crate::simd::Kernel;
    pub use crate::sys::sigbus::install;
    pub use crate::write::reduce::line_reducer::LineReducer;
}
