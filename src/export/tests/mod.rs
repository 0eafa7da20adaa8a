//! Tests of whole exports: equal access paths, kills between any two changes of a directory, joined segments, flipped bits
//! in records, what is given and taken in memory, Provenances, attachments, more files than are held open, spans.

pub(super) mod access_paths;
pub(super) mod attachments;
pub(super) mod bit_flips;
pub(super) mod compaction;
pub(super) mod in_memory;
pub(crate) mod kills;
pub(super) mod many_files;
pub(super) mod provenance;
pub(super) mod search_columns;
pub(super) mod spans;
pub(super) mod unsynced;
