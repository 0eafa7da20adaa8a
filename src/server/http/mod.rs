//! Parsers of request headers and query strings: pure functions without access to jobs, files or Groups.

pub(crate) mod accept;
pub(crate) mod byte_range;
pub(crate) mod dates;
pub(crate) mod entity_tags;
pub(crate) mod format;
pub(crate) mod framing;
pub(crate) mod host;
pub(crate) mod list;
pub(crate) mod preconditions;
pub(crate) mod prefer;
pub(crate) mod query;
pub(crate) mod weights;
