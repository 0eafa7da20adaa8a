//! Sources of records taken into a store: Bundles, resources, NDJSON and the output of exports, each as one new directory
//! of rows by type that appears whole or not at all.
//!
//! ```text
//! list sources → hash → outline → links → rows, in parallel → files → one rename
//! ```
//! `outline` finds the entries of a Bundle, `entry` says what each means, `targets`, `searches` and `links` where its
//! references lead, `rows` what the bytes become, `output` where they go. `append` writes lines that come one by one.

pub(crate) mod append;
pub(crate) mod bundle;
pub(crate) mod compact;
pub(crate) mod documents;
pub(crate) mod entry;
pub(crate) mod links;
pub(crate) mod members;
pub(crate) mod outline;
pub(crate) mod output;
pub(crate) mod problem;
pub(crate) mod rows;
pub(crate) mod searches;
pub(crate) mod source_run;
pub(crate) mod sources;
pub(crate) mod stamp;
pub(crate) mod stored;
pub(crate) mod targets;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod writer;
