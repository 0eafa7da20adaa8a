//! The index of a store: columns of every row in segments, the global index over them, and snapshots.
//!
//! `refresh` brings the index up to date: `diff` compares the store with the index meta, `segment` scans the ranges
//! that are missing, `global` computes relations between segments. `open` opens the files on disk, `snapshot` holds the
//! opened index and the view of one export. Nothing here knows requests, output files or HTTP.

#![deny(clippy::cast_possible_truncation)]

pub(crate) mod compaction;
pub(crate) mod content_check;
pub(crate) mod diff;
pub(crate) mod dir;
pub(crate) mod fault_places;
pub(crate) mod file_form;
pub(crate) mod first_seen;
pub(crate) mod global;
pub(crate) mod inherited_times;
pub(crate) mod invalidate;
pub(crate) mod legacy_files;
pub(crate) mod legacy_meta;
pub(crate) mod load;
pub(crate) mod load_ahead;
pub(crate) mod meta;
pub(crate) mod meta_head;
pub(crate) mod open;
pub(crate) mod open_store;
pub(crate) mod other_data;
pub(crate) mod page_checksums;
pub(crate) mod presence;
pub(crate) mod read_ahead;
pub(crate) mod refresh;
pub(crate) mod relations;
pub(crate) mod reopen;
pub(crate) mod replaced_rows;
pub(crate) mod report;
pub(crate) mod row_lines;
pub(crate) mod row_reader;
pub(crate) mod row_times;
pub(crate) mod scan_plan;
pub(crate) mod search;
pub(crate) mod segment;
pub(crate) mod segment_files;
pub(crate) mod snapshot;
pub(crate) mod snapshot_log;
pub(crate) mod snapshot_record;
pub(crate) mod snapshot_time;
pub(crate) mod store_files;
pub(crate) mod store_listing;
#[cfg(test)]
pub(crate) mod test_lines;
pub(crate) mod vanished;
