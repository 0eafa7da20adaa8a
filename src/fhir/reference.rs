//! Literal references, exactly as R4 writes them.

use super::{Id, ResourceType};

/// A literal reference to a resource: `[base/]Type/id[/_history/version]`
/// (<https://hl7.org/fhir/R4/references.html#literal>). What is in no legal form (`urn:uuid:`, `#contained`, queries,
/// fragments, percent escapes, another case) is no reference of ours: `parse` gives `None` (readings 5, COMP-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Absolute base URL without the final slash, exactly as written; empty for a relative reference.
    pub base: &'a str,
    /// Type of the resource referred to.
    pub resource_type: ResourceType,
    /// Its logical id.
    pub id: Id,
    /// Version named by `_history`, if one is.
    pub version: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Reads a reference's text (JSON escapes already resolved).
    pub fn parse(_text: &'a str) -> Option<Reference<'a>> {
        todo!()
    }
}
