//! From rows to files: copy, compress, digest, record, publish.
//!
//! `shard` copies rows, `encode` turns them into a file's bytes, `tail` gathers those for `sink`, which puts
//! them somewhere, `record` remembers what is finished, `job_directory` puts a run in the place of the one before, `manifest`
//! says that all is there. Nothing here selects rows or reads a clock.

pub mod copy_run;
pub mod deleted_bundle;
pub mod encode;
pub mod frame_copy;
pub mod generated_files;
pub mod journal;
pub mod manifest;
pub mod operation_outcome;
pub mod output_dir;
pub mod output_name;
pub mod shard;
pub mod shard_groups;
pub mod sink;
pub mod status_file;
pub mod write_buffer;
