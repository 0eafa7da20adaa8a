//! What a search for Groups asks of one, told as it streams by. A Group is never held; nor is it checked beyond what
//! finding its facts needs: rows of a store were when they were indexed, other documents are before they get here.

use std::sync::LazyLock;

use crate::extract::Validate;
use crate::extract::fault::Fault;
use crate::extract::scanner::{Scanner, Visitor};
use crate::extract::trie::{Node, Trie};
use crate::simd::Kernel;

/// Something that a Group says of itself. Text longer than [`crate::limits::REFERENCE_BYTES_MAX`] is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFact<'a> {
    /// `resourceType`.
    ResourceType(&'a str),
    /// `id`.
    Id(&'a str),
    /// `meta.versionId`.
    Version(&'a str),
    /// `meta.lastUpdated`.
    Updated(&'a str),
    /// `name`.
    Name(&'a str),
    /// `type`.
    Type(&'a str),
    /// `actual`.
    Actual(bool),
    /// `managingEntity.reference`.
    ManagingEntity(&'a str),
    /// `identifier`: system (empty if none) and value.
    Identifier(&'a str, &'a str),
    /// `code.coding`: system (empty if none) and code.
    Code(&'a str, &'a str),
    /// `member.entity.reference`.
    Member(&'a str),
}

const ROLES: [(&str, Role); 14] = [
    ("resourceType", Role::ResourceType),
    ("id", Role::Id),
    ("meta.versionId", Role::Version),
    ("meta.lastUpdated", Role::Updated),
    ("name", Role::Name),
    ("type", Role::Type),
    ("actual", Role::Actual),
    ("managingEntity.reference", Role::ManagingEntity),
    ("identifier", Role::Identifier),
    ("identifier.system", Role::System),
    ("identifier.value", Role::Value),
    ("code.coding", Role::Compression),
    ("code.coding.system", Role::System),
    ("code.coding.code", Role::Value),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    None,
    ResourceType,
    Id,
    Version,
    Updated,
    Name,
    Type,
    Actual,
    ManagingEntity,
    Identifier,
    Compression,
    System,
    Value,
    Member,
}

static NAMES: LazyLock<(Trie, Vec<Role>)> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let mut nodes = ROLES.map(|(path, role)| (trie.add(path, 1), role)).to_vec();
    nodes.push((trie.add("member.entity.reference", 1), Role::Member));
    trie.seal();
    let mut roles = vec![Role::None; trie.len()];
    nodes.into_iter().for_each(|(node, role)| roles[node as usize] = role);
    (trie, roles)
});

/// Reads one Group in pieces.
pub struct GroupFactReader<'a> {
    scanner: Scanner,
    state: State<'a>,
}

struct State<'a> {
    on_fact: &'a mut dyn FnMut(GroupFact<'_>),
    system: Option<String>,
    value: Option<String>,
}

impl<'a> GroupFactReader<'a> {
    /// A reader that tells each fact to `on_fact`, in the order of the document.
    pub fn new(kernel: Kernel, on_fact: &'a mut dyn FnMut(GroupFact<'_>)) -> GroupFactReader<'a> {
        let mut scanner = Scanner::new(kernel, Validate::Structure);
        scanner.begin();
        GroupFactReader { scanner, state: State { on_fact, system: None, value: None } }
    }

    /// The next piece of the document.
    pub fn feed(&mut self, piece: &[u8]) {
        self.scanner.feed(piece, &NAMES.0, &mut self.state);
    }

    /// The document is over.
    ///
    /// # Errors
    /// What is wrong with it. Facts told before stand; the caller drops them.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.scanner.finish()
    }
}

impl Visitor for State<'_> {
    fn wants(&self, _: u64) -> bool {
        true
    }

    fn string(&mut self, node: Node, text: Option<&str>) {
        let Some(text) = text else { return };
        let fact = match NAMES.1[node as usize] {
            Role::ResourceType => GroupFact::ResourceType(text),
            Role::Id => GroupFact::Id(text),
            Role::Version => GroupFact::Version(text),
            Role::Updated => GroupFact::Updated(text),
            Role::Name => GroupFact::Name(text),
            Role::Type => GroupFact::Type(text),
            Role::ManagingEntity => GroupFact::ManagingEntity(text),
            Role::Member => GroupFact::Member(text),
            Role::System => return self.system = Some(text.to_string()),
            Role::Value => return self.value = Some(text.to_string()),
            _ => return,
        };
        (self.on_fact)(fact);
    }

    fn scalar(&mut self, node: Node, first: u8) {
        if NAMES.1[node as usize] == Role::Actual && matches!(first, b't' | b'f') {
            (self.on_fact)(GroupFact::Actual(first == b't'));
        }
    }

    fn container(&mut self, _: Node) {}

    fn open(&mut self, node: Node) {
        if matches!(NAMES.1[node as usize], Role::Identifier | Role::Compression) {
            (self.system, self.value) = (None, None);
        }
    }

    fn close(&mut self, node: Node) {
        let role = NAMES.1[node as usize];
        if matches!(role, Role::Identifier | Role::Compression)
            && let Some(value) = self.value.take()
        {
            let system = self.system.as_deref().unwrap_or("");
            (self.on_fact)(match role {
                Role::Identifier => GroupFact::Identifier(system, &value),
                _ => GroupFact::Code(system, &value),
            });
        }
    }

    fn again(&mut self, _: Node, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GROUP-01: what a search asks is told from wherever it stands, and nothing from `contained` or from a member.
    #[test]
    fn facts_are_told_once_and_from_their_own_places() {
        let text = r#"{"resourceType":"Group","member":[{"entity":{"reference":"Patient/a","type":"Patient","identifier":{"value":"no"}}},
            {"entity":{"reference":"Patient/b"},"inactive":true}],"contained":[{"resourceType":"Group","id":"no","name":"no"}],
            "identifier":[{"value":"v1"},{"system":"s","value":"v2"},{"system":"s"}],"code":{"coding":[{"code":"c"}],"text":"no"},
            "managingEntity":{"reference":"Organization/o"},"name":"Caf\u00e9","id":"g","type":"person","actual":true,
            "meta":{"lastUpdated":"2024-01-01T00:00:00Z","versionId":"7"}}"#;
        for cut in [1, 7, 64, text.len()] {
            let mut told = Vec::new();
            let mut on_fact = |fact: GroupFact<'_>| told.push(format!("{fact:?}"));
            let mut reader = GroupFactReader::new(Kernel::detect(), &mut on_fact);
            text.as_bytes().chunks(cut).for_each(|piece| reader.feed(piece));
            reader.finish().unwrap();
            let expected = [
                GroupFact::ResourceType("Group"),
                GroupFact::Member("Patient/a"),
                GroupFact::Member("Patient/b"),
                GroupFact::Identifier("", "v1"),
                GroupFact::Identifier("s", "v2"),
                GroupFact::Code("", "c"),
                GroupFact::ManagingEntity("Organization/o"),
                GroupFact::Name("Café"),
                GroupFact::Id("g"),
                GroupFact::Type("person"),
                GroupFact::Actual(true),
                GroupFact::Updated("2024-01-01T00:00:00Z"),
                GroupFact::Version("7"),
            ];
            assert_eq!(told, expected.map(|fact| format!("{fact:?}")), "pieces of {cut}");
        }
    }
}
