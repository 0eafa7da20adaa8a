//! Chains of exports: a full one and increments on it, each in a directory of its own below one root, so that a reader who
//! applies them in turn holds the current records (CONS-05).
//!
//! ```text
//! ROOT/2026-11-29T010000Z/     a full export
//! ROOT/2026-11-30T010000Z/     an increment: new and changed resources, deletions, departures
//! ROOT/latest.json             the newest finished one; `latest` is a link to it
//! ROOT/.outpour-chain/         the chain's own id, and its locks
//! ```
//!
//! A run finishes an interrupted export first. `root` holds the directory, `run` the steps of a night, `apply` replays a chain.

pub(crate) mod applied_state;
pub(crate) mod apply;
pub(crate) mod exported_lines;
pub(crate) mod read_chain;
pub(crate) mod retention;
pub(crate) mod root;
pub(crate) mod run;
