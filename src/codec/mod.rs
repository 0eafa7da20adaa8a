//! Compressed NDJSON: which compressions there are, and store files decoded from any place where decoding can start.

pub(crate) mod compression;
pub(crate) mod decoder;
pub(crate) mod gzip;
pub(crate) mod input;
pub(crate) mod zstd;
