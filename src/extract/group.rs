//! Reads a Group, its members as they come: a Group of a million members is one line of 72 MB and is never held.

use std::sync::LazyLock;

use super::Validate;
use super::fault::Fault;
use super::scanner::{Scanner, Visitor};
use super::trie::{Node, Trie};
use crate::bytes::kernels::Kernel;
use crate::fhir::{Id, ResourceType};

/// What a Group says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupHead {
    /// `resourceType`, if it is one of R4.
    pub resource_type: Option<ResourceType>,
    /// `id`, if it is legal.
    pub id: Option<Id>,
    /// `type`.
    pub group_type: Option<String>,
    /// `actual`.
    pub actual: Option<bool>,
    /// `active`.
    pub active: Option<bool>,
    /// `name`.
    pub name: Option<String>,
    /// Whether there is a `characteristic`.
    pub has_characteristic: bool,
    /// Number of members.
    pub members: u64,
}

/// A member of a Group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// `entity.reference`.
    pub reference: Option<&'a str>,
    /// `entity.identifier`: system (empty if none) and value.
    pub identifier: Option<(&'a str, &'a str)>,
    /// `inactive`.
    pub inactive: bool,
    /// `period.start`.
    pub period_start: Option<&'a str>,
    /// `period.end`.
    pub period_end: Option<&'a str>,
}

const ROLES: [(&str, Role); 14] = [
    ("resourceType", Role::ResourceType),
    ("id", Role::Id),
    ("type", Role::Type),
    ("actual", Role::Actual),
    ("active", Role::Active),
    ("name", Role::Name),
    ("characteristic", Role::Characteristic),
    ("member", Role::Member),
    ("member.entity.reference", Role::Reference),
    ("member.entity.identifier.system", Role::System),
    ("member.entity.identifier.value", Role::Value),
    ("member.inactive", Role::Inactive),
    ("member.period.start", Role::Start),
    ("member.period.end", Role::End),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    None,
    ResourceType,
    Id,
    Type,
    Actual,
    Active,
    Name,
    Characteristic,
    Member,
    Reference,
    System,
    Value,
    Inactive,
    Start,
    End,
}

static NAMES: LazyLock<(Trie, Vec<Role>)> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let nodes = ROLES.map(|(path, role)| (trie.add(path, 1), role));
    trie.seal();
    let mut roles = vec![Role::None; trie.len()];
    nodes.into_iter().for_each(|(node, role)| roles[node as usize] = role);
    (trie, roles)
});

/// Reads one Group in pieces.
pub struct GroupReader<'a> {
    scanner: Scanner,
    state: State<'a>,
}

struct State<'a> {
    head: GroupHead,
    on_member: &'a mut dyn FnMut(&Member<'_>),
    reference: Option<String>,
    system: Option<String>,
    value: Option<String>,
    inactive: bool,
    start: Option<String>,
    end: Option<String>,
    /// A key that decides membership stood twice in one object, and where.
    again: Option<u64>,
}

impl<'a> GroupReader<'a> {
    /// A reader that tells each member to `on_member`.
    pub fn new(kernel: Kernel, on_member: &'a mut dyn FnMut(&Member<'_>)) -> GroupReader<'a> {
        let state = State {
            head: GroupHead::default(),
            on_member,
            reference: None,
            system: None,
            value: None,
            inactive: false,
            start: None,
            end: None,
            again: None,
        };
        GroupReader { scanner: Scanner::new(kernel, Validate::Full), state }
    }

    /// Begins.
    pub fn begin(&mut self) {
        self.scanner.begin();
        self.state.head = GroupHead::default();
        self.state.again = None;
    }

    /// The next piece of the document, which may be indented over many lines.
    pub fn feed(&mut self, piece: &[u8]) {
        self.scanner.feed(piece, &NAMES.0, &mut self.state);
    }

    /// What was found to be wrong so far; the end may show more.
    pub fn fault(&self) -> Option<Fault> {
        let again = self.state.again.map(|at| Fault { kind: super::FaultKind::DuplicateKey, at });
        self.scanner.fault().or(again)
    }

    /// The document is over.
    ///
    /// # Errors
    /// What is wrong with it, at the byte where it was noticed. Members told before stand; the caller drops them.
    pub fn finish(&mut self) -> Result<GroupHead, Fault> {
        self.scanner.finish()?;
        match self.state.again {
            Some(at) => Err(Fault { kind: super::FaultKind::DuplicateKey, at }),
            None => Ok(self.state.head.clone()),
        }
    }
}

impl Visitor for State<'_> {
    fn wants(&self, _: u64) -> bool {
        true
    }

    fn string(&mut self, node: Node, text: Option<&str>) {
        let Some(text) = text else { return };
        let keep = |slot: &mut Option<String>| {
            let mut buffer = slot.take().unwrap_or_default();
            buffer.clear();
            buffer.push_str(text);
            *slot = Some(buffer);
        };
        match NAMES.1[node as usize] {
            Role::ResourceType => self.head.resource_type = ResourceType::parse(text),
            Role::Id => self.head.id = Id::parse(text.as_bytes()),
            Role::Type => self.head.group_type = Some(text.to_string()),
            Role::Name => self.head.name = Some(text.to_string()),
            Role::Reference => keep(&mut self.reference),
            Role::System => keep(&mut self.system),
            Role::Value => keep(&mut self.value),
            Role::Start => keep(&mut self.start),
            Role::End => keep(&mut self.end),
            _ => {}
        }
    }

    fn scalar(&mut self, node: Node, first: u8) {
        let truth = match first {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        };
        match NAMES.1[node as usize] {
            Role::Actual => self.head.actual = truth,
            Role::Active => self.head.active = truth,
            Role::Inactive => self.inactive = truth == Some(true),
            _ => {}
        }
    }

    fn container(&mut self, node: Node) {
        if NAMES.1[node as usize] == Role::Characteristic {
            self.head.has_characteristic = true;
        }
    }

    fn open(&mut self, node: Node) {
        if NAMES.1[node as usize] == Role::Member {
            self.reference = None;
            self.system = None;
            self.value = None;
            self.inactive = false;
            self.start = None;
            self.end = None;
        }
    }

    fn close(&mut self, node: Node) {
        if NAMES.1[node as usize] != Role::Member {
            return;
        }
        self.head.members += 1;
        let identifier = self.value.as_deref().map(|value| (self.system.as_deref().unwrap_or(""), value));
        (self.on_member)(&Member {
            reference: self.reference.as_deref(),
            identifier,
            inactive: self.inactive,
            period_start: self.start.as_deref(),
            period_end: self.end.as_deref(),
        });
    }

    fn again(&mut self, _: Node, at: u64) {
        self.again.get_or_insert(at);
    }
}
