//! Tests of whole exports: equal access paths, kills between any two changes of a directory, flipped bits in records.

mod access_paths;
mod bit_flips;
mod kills;
