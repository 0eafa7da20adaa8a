//! Compressed NDJSON: which compressions there are, and store files decoded from any place where decoding can start.

pub mod compression;
pub mod decoder;
pub mod gzip;
pub mod input;
pub mod zstd;
