//! Reads a line of NDJSON to the facts of its resource, in one pass that also validates the line.
//!
//! `extractor` is the entry. `scanner` walks the token starts that a kernel found, checks the grammar and follows the
//! few `paths` of a `trie`; `block` does the same for many ordinary lines at a time, several times as fast, and leaves
//! the others to `scanner`; `facts` is the result and `fault` the reason of a refusal. `naive` is the slow reference
//! implementation, `rules` what a caller may choose. `scalar`, `skip`, `stack` and `unescape` are the scanner's automata. No tree of a document is
//! built, and no file is read.

pub(crate) mod block;
pub(crate) mod extractor;
pub(crate) mod facts;
pub(crate) mod fault;
pub(crate) mod identifiers;
pub(crate) mod line_references;
pub mod naive;
pub(crate) mod paths;
pub(crate) mod root_members;
pub(crate) mod rules;
pub(crate) mod scalar;
pub(crate) mod scanner;
pub(crate) mod skip;
pub(crate) mod stack;
#[cfg(test)]
mod tests;
pub(crate) mod trie;
pub(crate) mod unescape;

use crate::named_enum::by_name;

/// How much of a line is validated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validate {
    /// The whole grammar of RFC 8259, and UTF-8.
    #[default]
    Full,
    /// UTF-8, string ends, and on followed paths the grammar and duplicate deciding keys. In skipped values only that
    /// objects and arrays balance, each kind by count. Numbers, literals and escapes are not checked anywhere. For
    /// stores that another system has validated.
    Structure,
}

impl Validate {
    /// Every mode, in the order of the enum.
    pub const ALL: [Validate; 2] = [Validate::Full, Validate::Structure];

    /// Name of the mode in records and manifests, and in the name of a snapshot.
    pub const fn name(self) -> &'static str {
        match self {
            Validate::Full => "full",
            Validate::Structure => "structure",
        }
    }
}

by_name!(Validate);
