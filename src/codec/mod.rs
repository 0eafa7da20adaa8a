//! Compressed NDJSON files: the compressions, and the decoder of store files from any seek point.
//!
//! `byte_order_mark` concerns texts that are given by hand. `decoder` hands out the uncompressed bytes; `gzip` and `zstd`
//! decode the members and frames of their formats from `input`; `deflate` decodes the segments of packed gzip files.
//! Nothing here encodes or cuts lines.

pub(crate) mod byte_order_mark;
pub(crate) mod compression;
pub(crate) mod decoder;
pub(crate) mod deflate;
pub(crate) mod gzip;
pub(crate) mod input;
pub(crate) mod zstd;
