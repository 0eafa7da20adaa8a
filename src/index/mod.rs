//! The index of a store: columns of every row in segments, the global index over them, and snapshots.
//!
//! `refresh` brings it up to date, `open` opens what is on the disk, `snapshot` is what one export sees, `segment` is the
//! part made from one range of a store file, `global` what only all segments together determine.

pub mod diff;
pub mod dir;
pub mod first_seen;
pub mod global;
pub mod invalidate;
pub mod meta;
pub mod open;
pub mod open_store;
pub mod page_checksums;
pub mod refresh;
pub mod report;
pub mod row_reader;
pub mod segment;
pub mod segment_files;
pub mod snapshot;
pub mod store_files;
pub mod store_listing;
#[cfg(test)]
pub(crate) mod test_lines;
