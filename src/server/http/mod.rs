//! What requests say in headers and query strings: pure functions, each over what it reads.

pub(crate) mod accept;
pub(crate) mod dates;
pub(crate) mod format;
pub(crate) mod list;
pub(crate) mod preconditions;
pub(crate) mod prefer;
pub(crate) mod query;
