//! TODO: module documentation.

pub mod compression;
pub mod decoder;
pub mod gzip;
pub mod input;
pub mod zstd;
