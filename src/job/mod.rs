//! Jobs: exports that outlive whoever asked for them. States and their transitions, records on the disk, the queue
//! that gives clients their turns, expiry and the reaper. Nothing here knows HTTP, a clock or an async runtime.
//!
//! A job is a record (`<records>/<id>.json`, replaced as a whole and synced before anything is said of it) and a
//! directory (`<files>/<id>/`, with the output directory of an export in `out/`). The record decides: a directory
//! without one is swept away when the service starts, and whatever a crash interrupts is done again from the record. What is
//! read from the disk is checked first (`record_check`), and nothing beneath the two directories is reached through a link.

pub(crate) mod api;
pub(crate) mod engine;
pub(crate) mod fair_queue;
pub(crate) mod indexer;
pub(crate) mod reaper;
pub(crate) mod record;
pub(crate) mod record_check;
pub(crate) mod registry;
pub(crate) mod shared;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod worker;
