//! TODO: module documentation.

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
