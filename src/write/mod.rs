//! Output files: copy, compress, digest, journal, publish.
//!
//! `shard` and `shard_groups` decide which shards one pass over the store writes; `copy_run`, `frame_copy` and
//! `frame_recode` copy the bytes of rows, which `read_ahead` has asked for, to a `shard_output`, `row_changes` changes them
//! on the way: `reduce` where elements are listed, `rewrite` where URLs become absolute; `encode` compresses (gzip by
//! `deflate`) and digests them, `write_buffer` gathers them into long writes for a `sink`. `journal` defines the files that record a run,
//! `output_dir` the order in which its files appear and replace those of an earlier export, `manifest` the document that
//! is published last. Nothing here selects rows or reads a clock.

pub(crate) mod copy_run;
pub(crate) mod deflate;
pub(crate) mod deleted_bundle;
pub(crate) mod encode;
pub(crate) mod file_modes;
pub(crate) mod frame_copy;
pub(crate) mod frame_recode;
pub(crate) mod generated_files;
pub(crate) mod journal;
pub(crate) mod manifest;
pub(crate) mod operation_outcome;
pub(crate) mod output_dir;
pub(crate) mod output_name;
pub(crate) mod read_ahead;
pub(crate) mod reduce;
pub(crate) mod replaced_files;
pub(crate) mod rewrite;
pub(crate) mod row_changes;
pub(crate) mod shard;
pub(crate) mod shard_groups;
pub(crate) mod shard_output;
pub(crate) mod sink;
pub(crate) mod span_read_ahead;
pub(crate) mod span_sweep;
pub(crate) mod status_file;
pub(crate) mod write_buffer;
