//! From a line to its facts, in one pass that also checks the line.
//!
//! `scanner` walks the token starts that a kernel found, checks the grammar and follows the few paths of a `trie`;
//! `lines` does the same for many ordinary lines at a time, several times as fast, and leaves the others to `scanner`;
//! `facts` collects what the index keeps of a resource, `group` the members of a Group, `group_facts` what a search asks
//! of one, `group_rules` what one must keep, `identifiers` what a Patient is known under. `naive` is the slow, obvious twin that defines correct. This
//! module never builds a tree of a document.

pub(crate) mod block;
pub(crate) mod extractor;
pub(crate) mod facts;
pub(crate) mod fault;
pub mod naive;
pub(crate) mod paths;
pub(crate) mod scalar;
pub(crate) mod scanner;
pub(crate) mod skip;
pub(crate) mod stack;
#[cfg(test)]
mod tests;
pub(crate) mod trie;
pub(crate) mod unescape;

use crate::named_enum::by_name;

/// How much of a line is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validate {
    /// The whole grammar of RFC 8259, and UTF-8.
    #[default]
    Full,
    /// UTF-8, string ends, and the grammar and duplicate deciding keys of what is looked at; in values that nothing is
    /// wanted from only that objects and arrays balance, each kind by count; nowhere what stands inside numbers,
    /// literals and escapes. For stores that another system has validated.
    Structure,
}

impl Validate {
    /// Every value.
    pub const ALL: [Validate; 2] = [Validate::Full, Validate::Structure];

    /// Its word in records and manifests, and in the name of a snapshot.
    pub const fn name(self) -> &'static str {
        match self {
            Validate::Full => "full",
            Validate::Structure => "structure",
        }
    }
}

by_name!(Validate);
