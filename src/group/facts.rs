//! Streaming reader of the elements of a Group that searches use, its members included.
//!
//! A Group is never held, and only its structure is checked: rows of a store were checked in full when they were
//! indexed, other documents before they get here.

use std::sync::LazyLock;

use crate::extract::Validate;
use crate::extract::fault::Fault;
use crate::extract::rules::LoneSurrogates;
use crate::extract::scanner::Scanner;
use crate::extract::scanner::visitor::Visitor;
use crate::extract::trie::{Node, Trie};
use crate::simd::Kernel;

/// One element of a Group that a search may use. An element longer than [`crate::limits::REFERENCE_BYTES_MAX`] is not
/// reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupFact<'a> {
    /// Text of `resourceType`.
    ResourceType(&'a str),
    /// Text of `Group.id`.
    Id(&'a str),
    /// Text of `meta.versionId`.
    Version(&'a str),
    /// Text of `meta.lastUpdated`.
    Updated(&'a str),
    /// Text of `Group.name`.
    Name(&'a str),
    /// Code of `Group.type`.
    Type(&'a str),
    /// Boolean of `Group.actual`.
    Actual(bool),
    /// Text of `managingEntity.reference`.
    ManagingEntity(&'a str),
    /// `identifier`: system (empty if none) and value.
    Identifier(&'a str, &'a str),
    /// `code.coding`: system (empty if none) and code.
    Code(&'a str, &'a str),
    /// Text of one member's `entity.reference`.
    Member(&'a str),
}

/// Paths of the elements that are reported, or that parts of one are read from.
const ROLES: [(&str, FactElement); 14] = [
    ("resourceType", FactElement::ResourceType),
    ("id", FactElement::Id),
    ("meta.versionId", FactElement::Version),
    ("meta.lastUpdated", FactElement::Updated),
    ("name", FactElement::Name),
    ("type", FactElement::Type),
    ("actual", FactElement::Actual),
    ("managingEntity.reference", FactElement::ManagingEntity),
    ("identifier", FactElement::Identifier),
    ("identifier.system", FactElement::System),
    ("identifier.value", FactElement::Value),
    ("code.coding", FactElement::Coding),
    ("code.coding.system", FactElement::System),
    ("code.coding.code", FactElement::Value),
];

/// Meaning of a node of the path trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FactElement {
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
    Coding,
    System,
    Value,
    Member,
}

/// The trie of paths, and the meaning of each of its nodes.
static NAMES: LazyLock<(Trie, Vec<FactElement>)> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let mut nodes = ROLES.map(|(path, role)| (trie.add(path, 1), role)).to_vec();
    nodes.push((trie.add("member.entity.reference", 1), FactElement::Member));
    trie.freeze();
    let mut roles = vec![FactElement::None; trie.len()];
    nodes.into_iter().for_each(|(node, role)| roles[node as usize] = role);
    (trie, roles)
});

/// Reads the searchable elements of one Group in pieces.
pub(crate) struct GroupFactReader<'a> {
    scanner: Scanner,
    state: FactReaderState<'a>,
}

/// Visitor of the scanner: passes facts on, and holds the parts of an identifier or coding until it closes.
struct FactReaderState<'a> {
    on_fact: &'a mut dyn FnMut(GroupFact<'_>),
    system: Option<String>,
    value: Option<String>,
}

impl<'a> GroupFactReader<'a> {
    /// A reader that passes each fact to `on_fact`, in the order of the document.
    pub(crate) fn new(kernel: Kernel, on_fact: &'a mut dyn FnMut(GroupFact<'_>)) -> GroupFactReader<'a> {
        let mut scanner = Scanner::new(kernel, Validate::Structure, LoneSurrogates::Pass);
        scanner.begin();
        GroupFactReader { scanner, state: FactReaderState { on_fact, system: None, value: None } }
    }

    /// Reads the next piece of the document.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.scanner.feed(piece, &NAMES.0, &mut self.state);
    }

    /// Ends the document.
    ///
    /// # Errors
    /// The first fault of its structure; the caller then drops the facts it was passed.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        self.scanner.finish()
    }
}

impl Visitor for FactReaderState<'_> {
    /// Every path of the trie is wanted to the end.
    fn wants(&self, _: u64) -> bool {
        true
    }

    /// Passes on a text, or stores the system or value of the current identifier or coding.
    fn string(&mut self, node: Node, text: Option<&str>) {
        let Some(text) = text else { return };
        let fact = match NAMES.1[node as usize] {
            FactElement::ResourceType => GroupFact::ResourceType(text),
            FactElement::Id => GroupFact::Id(text),
            FactElement::Version => GroupFact::Version(text),
            FactElement::Updated => GroupFact::Updated(text),
            FactElement::Name => GroupFact::Name(text),
            FactElement::Type => GroupFact::Type(text),
            FactElement::ManagingEntity => GroupFact::ManagingEntity(text),
            FactElement::Member => GroupFact::Member(text),
            FactElement::System => return self.system = Some(text.to_string()),
            FactElement::Value => return self.value = Some(text.to_string()),
            _ => return,
        };
        (self.on_fact)(fact);
    }

    /// Passes on `actual`.
    fn scalar(&mut self, node: Node, first: u8) {
        if NAMES.1[node as usize] == FactElement::Actual && matches!(first, b't' | b'f') {
            (self.on_fact)(GroupFact::Actual(first == b't'));
        }
    }

    /// An object or array in place of a scalar is no fact.
    fn container(&mut self, _: Node) {}

    /// Begins an identifier or coding.
    fn open(&mut self, node: Node) {
        if matches!(NAMES.1[node as usize], FactElement::Identifier | FactElement::Coding) {
            (self.system, self.value) = (None, None);
        }
    }

    /// Ends an identifier or coding, and passes it on if it has a value.
    fn close(&mut self, node: Node) {
        let role = NAMES.1[node as usize];
        if matches!(role, FactElement::Identifier | FactElement::Coding)
            && let Some(value) = self.value.take()
        {
            let system = self.system.as_deref().unwrap_or("");
            (self.on_fact)(match role {
                FactElement::Identifier => GroupFact::Identifier(system, &value),
                _ => GroupFact::Code(system, &value),
            });
        }
    }

    /// A duplicate key is no fault here; both facts are passed on.
    fn duplicate_key(&mut self, _: Node, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GROUP-01: each fact is passed on wherever it is in the document, and none from `contained` or from a member's
    /// entity.
    #[test]
    fn facts_are_told_once_and_from_their_own_places() {
        let text = r#"{"resourceType":"Group","member":[{"entity":{"reference":"Patient/a","type":"Patient","identifier":{"value":"no"}}},
            {"entity":{"reference":"Patient/b"},"inactive":true}],"contained":[{"resourceType":"Group","id":"no","name":"no"}],
            "identifier":[{"value":"v1"},{"system":"s","value":"v2"},{"system":"s"}],"code":{"coding":[{"code":"c"}],"text":"no"},
            "managingEntity":{"reference":"Organization/o"},"name":"Caf\u00e9","id":"g","type":"person","actual":true,
            "meta":{"lastUpdated":"2024-01-01T00:00:00Z","versionId":"7"}}"#;
        for cut in [1, 7, 64, text.len()] {
            let mut reported = Vec::new();
            let mut on_fact = |fact: GroupFact<'_>| reported.push(format!("{fact:?}"));
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
            assert_eq!(reported, expected.map(|fact| format!("{fact:?}")), "pieces of {cut}");
        }
    }
}
