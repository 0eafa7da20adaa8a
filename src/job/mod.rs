//! Jobs: exports that outlive the request that started them. States and their transitions, records on disk, the fair
//! queue over clients, expiry and the reaper. Nothing here knows HTTP or an async runtime; the clock and the source of
//! random bytes are handed in by `EngineOptions`.
//!
//! A job is a record (`<records>/<id>.json`, replaced whole and synced before a response reports it) and a directory
//! (`<files>/<id>/`, with the output directory of an export in `out/`). The record decides: a directory without one is
//! removed when the service starts, and work that a crash interrupts is redone from the record. Records read from disk
//! are checked first (`record_check`), and nothing beneath the two directories is reached through a link. The patients of finished
//! exports of Groups stay in `<files>/baselines/` after their jobs (`baselines`).

pub(crate) mod administration;
pub(crate) mod api;
pub(crate) mod baselines;
pub(crate) mod engine;
pub(crate) mod fair_queue;
pub(crate) mod indexer;
pub(crate) mod job_end;
pub(crate) mod overview;
pub(crate) mod reaper;
pub(crate) mod record;
pub(crate) mod record_check;
pub(crate) mod record_directory;
pub(crate) mod registry;
pub(crate) mod service_mark;
pub(crate) mod shared;
pub(crate) mod space;
pub(crate) mod space_account;
pub(crate) mod state;
pub(crate) mod store_state;
#[cfg(test)]
mod tests;
pub(crate) mod worker;
