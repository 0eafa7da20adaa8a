//! TODO: module documentation.

pub mod decoder;
pub mod gzip;
pub mod little_endian;
pub mod zstd;
