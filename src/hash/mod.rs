//! TODO: module documentation.

pub mod content;
pub mod digest;
pub mod xxh3;
