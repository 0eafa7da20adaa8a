//! From rows to files: copy, compress, digest, record, publish.
//!
//! `shard` copies rows, `encode` turns them into a file's bytes, `tail` gathers those for `sink`, which puts
//! them somewhere, `record` remembers what is finished, `job_directory` puts a run in the place of the one before, `manifest`
//! says that all is there. Nothing here selects rows or reads a clock.

pub(crate) mod copy_run;
pub(crate) mod deleted_bundle;
pub(crate) mod encode;
pub(crate) mod frame_copy;
pub(crate) mod generated_files;
pub(crate) mod journal;
pub(crate) mod manifest;
pub(crate) mod operation_outcome;
pub(crate) mod output_dir;
pub(crate) mod output_name;
pub(crate) mod shard;
pub(crate) mod shard_groups;
pub(crate) mod sink;
pub(crate) mod status_file;
pub(crate) mod write_buffer;
