//! Tests of whole exports: equal access paths, kills between any two changes of a directory, flipped bits in records.

pub mod access_paths;
pub mod bit_flips;
pub mod kills;
