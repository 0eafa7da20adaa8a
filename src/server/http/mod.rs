//! What requests say in headers and query strings: pure functions, each over what it reads.

pub mod accept;
pub mod dates;
pub mod format;
pub mod list;
pub mod preconditions;
pub mod prefer;
pub mod query;
