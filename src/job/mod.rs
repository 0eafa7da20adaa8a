//! Jobs: exports that outlive whoever asked for them. States and their transitions, records on the disk, the queue
//! that gives clients their turns, expiry and the reaper. Nothing here knows HTTP, a clock or an async runtime.
//!
//! A job is a record (`<records>/<id>.json`, replaced as a whole and synced before anything is said of it) and a
//! directory (`<files>/<id>/`, with the output directory of an export in `out/`). The record decides: a directory
//! without one is swept away when the service starts, and whatever a crash interrupts is done again from the record. What is
//! read from the disk is checked first (`record_check`), and nothing beneath the two directories is reached through a link.

pub mod engine;
pub mod groups;
mod indexer;
pub mod record;
mod record_check;
pub mod state;
mod table;
pub mod terms;
mod turns;
mod work;

pub use engine::Engine;
pub use record::{
    Asked, Failure, FileRecord, JobRecord, Kind, Naming, Planned, RecordedScope, Requested, ScopeGroup, Whose,
};
pub use state::State;
pub use terms::{Accepted, EngineOptions, FileView, Found, JobView, Limits, OpenError, Refused, Retried};

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
