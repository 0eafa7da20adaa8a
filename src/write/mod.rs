//! From rows to files: copy, compress, digest, record, publish.
//!
//! `shard` copies rows, `encode` turns them into a file's bytes, `tail` gathers those for `sink`, which puts
//! them somewhere, `record` remembers what is finished, `job_directory` puts a run in the place of the one before, `manifest`
//! says that all is there. Nothing here selects rows or reads a clock.

pub mod deleted;
pub mod digest;
pub mod encode;
pub mod frames;
pub mod generated;
mod job_directory;
pub mod manifest;
pub mod new_directory;
pub mod outcome;
pub mod output_name;
pub mod record;
pub mod shard;
pub mod sink;
pub mod status;
pub mod tail;
pub mod together;

use encode::Coding;

/// Name of the `ordinal`th file of a stem: `Patient.00001.ndjson`, with the coding's suffix. No
/// patient, group or client id stands in a name (FILE-20).
pub fn shard_name(stem: &str, ordinal: u32, coding: Coding) -> String {
    format!("{stem}.{ordinal:05}.ndjson{}", coding.suffix())
}
