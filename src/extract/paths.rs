//! The element paths that extraction follows, and the role of each: owners, ids, versions, deletions.

use std::sync::LazyLock;

use crate::extract::trie::{Node, Trie};
use crate::fhir::compartment::{self, CompartmentPaths};
use crate::fhir::resource_type::ResourceType;

/// Path bit of the elements that decide for a resource of any type.
pub(crate) const ALWAYS: u64 = 1 << 62;

/// Element paths whose references make owners of this resource type, by a rule, one bit each. A Group has none: it is never
/// exported by compartment, and its members may be millions (COMP-09). All paths of R4 are followed, and decide which lines are
/// faulty, whatever the rule.
pub(crate) fn owner_paths(resource_type: ResourceType, rule: CompartmentPaths) -> u64 {
    if resource_type == ResourceType::GROUP { 0 } else { rule.paths_of(resource_type) }
}

/// The followed paths and the role of each node.
pub(crate) struct ElementPaths {
    /// Names of the followed elements.
    pub(crate) trie: Trie,
    /// Role of each node of `trie`, by its index.
    pub(crate) roles: Vec<ElementRole>,
}

/// Role of the element at a followed path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementRole {
    None,
    ResourceType,
    Id,
    LastUpdated,
    VersionId,
    Reference,
    /// An identifier beside a reference, or in its place.
    Identifier,
    BundleType,
    Entry,
    Method,
    Url,
    Resource,
}

/// The paths that extraction follows: the deciding elements, those of a Bundle, and all compartment paths.
pub(crate) static NAMES: LazyLock<ElementPaths> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let mut roles = Vec::new();
    let mut role = |node: Node, role| {
        roles.resize(roles.len().max(node as usize + 1), ElementRole::None);
        roles[node as usize] = role;
    };
    role(trie.add("resourceType", ALWAYS), ElementRole::ResourceType);
    role(trie.add("id", ALWAYS), ElementRole::Id);
    role(trie.add("meta.lastUpdated", ALWAYS), ElementRole::LastUpdated);
    role(trie.add("meta.versionId", ALWAYS), ElementRole::VersionId);
    role(trie.add("type", BUNDLE), ElementRole::BundleType);
    role(trie.add("entry", BUNDLE), ElementRole::Entry);
    role(trie.add("entry.request.method", BUNDLE), ElementRole::Method);
    role(trie.add("entry.request.url", BUNDLE), ElementRole::Url);
    role(trie.add("entry.resource", BUNDLE), ElementRole::Resource);
    for (i, path) in compartment::PATHS.iter().enumerate() {
        let node = trie.add(path, 1 << i);
        role(trie.add_below(node, "reference", 1 << i), ElementRole::Reference);
        role(trie.add_below(node, "identifier", 1 << i), ElementRole::Identifier);
    }
    trie.freeze();
    let nodes = trie.len();
    roles.resize(nodes, ElementRole::None);
    ElementPaths { trie, roles }
});

/// Path bit of the elements that decide for a Bundle only.
pub(crate) const BUNDLE: u64 = 1 << 63;
