//! Reads a Group, its members as they come: a Group of a million members is one line of 72 MB and is never held.

use std::fmt;
use std::sync::LazyLock;

use crate::extract::Validate;
use crate::extract::fault::Fault;
use crate::extract::scanner::{Scanner, Visitor};
use crate::extract::trie::{Node, Trie};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::simd::Kernel;

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
    /// What changes the meaning of the Group or of a member, each once, at most ten of them.
    pub modifiers: Vec<Modifier>,
    /// Number of members.
    pub members: u64,
}

/// Something that changes the meaning of the element that it stands in. R4 forbids to process that element without
/// understanding it (<https://hl7.org/fhir/R4/extensibility.html#modifierExtension>), and none is understood here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modifier {
    /// FHIRPath of the key: `Group.modifierExtension`, say.
    pub path: &'static str,
    /// The URL of the extension, or of the rules; none if it is no string, or a longer one than any that is looked at.
    pub url: Option<String>,
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "{} {url:?}", self.path),
            None => write!(f, "{} without a readable url", self.path),
        }
    }
}

/// Most modifiers of a Group that are kept; one alone decides.
const MODIFIERS_MAX: usize = 10;

/// A member of a Group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMember<'a> {
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

const ROLES: [(&str, GroupElement); 24] = [
    ("resourceType", GroupElement::ResourceType),
    ("id", GroupElement::Id),
    ("type", GroupElement::Type),
    ("actual", GroupElement::Actual),
    ("active", GroupElement::Active),
    ("name", GroupElement::Name),
    ("characteristic", GroupElement::Characteristic),
    ("member", GroupElement::Member),
    ("member.entity.reference", GroupElement::Reference),
    ("member.entity.identifier.system", GroupElement::System),
    ("member.entity.identifier.value", GroupElement::Value),
    ("member.inactive", GroupElement::Inactive),
    ("member.period.start", GroupElement::Start),
    ("member.period.end", GroupElement::End),
    ("implicitRules", GroupElement::ImplicitRules),
    ("modifierExtension", GroupElement::Modifier("Group.modifierExtension")),
    ("modifierExtension.url", GroupElement::ModifierUrl),
    ("characteristic.modifierExtension", GroupElement::Modifier("Group.characteristic.modifierExtension")),
    ("characteristic.modifierExtension.url", GroupElement::ModifierUrl),
    ("member.modifierExtension", GroupElement::Modifier("Group.member.modifierExtension")),
    ("member.modifierExtension.url", GroupElement::ModifierUrl),
    ("member.entity.modifierExtension", GroupElement::Modifier("Group.member.entity.modifierExtension")),
    ("member.entity.modifierExtension.url", GroupElement::ModifierUrl),
    ("extension.url", GroupElement::ExtensionUrl),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupElement {
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
    ImplicitRules,
    /// A modifier extension, by its path.
    Modifier(&'static str),
    ModifierUrl,
    ExtensionUrl,
}

/// The IG's filter of members (COHORT-03). It is a modifier also where it stands in a plain `extension` by mistake:
/// whoever wrote it meant fewer patients than are listed.
const MEMBER_FILTER: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";

static NAMES: LazyLock<(Trie, Vec<GroupElement>)> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let nodes = ROLES.map(|(path, role)| (trie.add(path, 1), role));
    trie.freeze();
    let mut roles = vec![GroupElement::None; trie.len()];
    nodes.into_iter().for_each(|(node, role)| roles[node as usize] = role);
    (trie, roles)
});

/// Reads one Group in pieces.
pub struct GroupReader<'a> {
    scanner: Scanner,
    state: GroupReaderState<'a>,
}

struct GroupReaderState<'a> {
    head: GroupHead,
    on_member: &'a mut dyn FnMut(&GroupMember<'_>),
    reference: Option<String>,
    system: Option<String>,
    value: Option<String>,
    inactive: bool,
    start: Option<String>,
    end: Option<String>,
    /// URL of the modifier extension that is being read.
    url: Option<String>,
    /// A key that decides membership stood twice in one object, and where.
    again: Option<u64>,
}

impl<'a> GroupReader<'a> {
    /// A reader that tells each member to `on_member`.
    pub fn new(kernel: Kernel, on_member: &'a mut dyn FnMut(&GroupMember<'_>)) -> GroupReader<'a> {
        let state = GroupReaderState {
            head: GroupHead::default(),
            on_member,
            reference: None,
            system: None,
            value: None,
            inactive: false,
            start: None,
            end: None,
            url: None,
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
        let again =
            self.state.again.map(|offset| Fault { kind: crate::extract::fault::FaultKind::DuplicateKey, at: offset });
        self.scanner.fault().or(again)
    }

    /// The document is over.
    ///
    /// # Errors
    /// What is wrong with it, at the byte where it was noticed. Members told before stand; the caller drops them.
    pub fn finish(&mut self) -> Result<GroupHead, Fault> {
        self.scanner.finish()?;
        match self.state.again {
            Some(offset) => Err(Fault { kind: crate::extract::fault::FaultKind::DuplicateKey, at: offset }),
            None => Ok(self.state.head.clone()),
        }
    }
}

impl GroupReaderState<'_> {
    fn modify(&mut self, path: &'static str, url: Option<String>) {
        let modifier = Modifier { path, url };
        if self.head.modifiers.len() < MODIFIERS_MAX && !self.head.modifiers.contains(&modifier) {
            self.head.modifiers.push(modifier);
        }
    }
}

impl Visitor for GroupReaderState<'_> {
    fn wants(&self, _: u64) -> bool {
        true
    }

    fn string(&mut self, node: Node, text: Option<&str>) {
        let role = NAMES.1[node as usize];
        if role == GroupElement::ImplicitRules {
            return self.modify("Group.implicitRules", text.map(str::to_string));
        }
        let Some(text) = text else { return };
        let keep = |slot: &mut Option<String>| {
            let mut buffer = slot.take().unwrap_or_default();
            buffer.clear();
            buffer.push_str(text);
            *slot = Some(buffer);
        };
        match role {
            GroupElement::ResourceType => self.head.resource_type = ResourceType::parse(text),
            GroupElement::Id => self.head.id = Id::parse(text.as_bytes()),
            GroupElement::Type => self.head.group_type = Some(text.to_string()),
            GroupElement::Name => self.head.name = Some(text.to_string()),
            GroupElement::Reference => keep(&mut self.reference),
            GroupElement::System => keep(&mut self.system),
            GroupElement::Value => keep(&mut self.value),
            GroupElement::Start => keep(&mut self.start),
            GroupElement::End => keep(&mut self.end),
            GroupElement::ModifierUrl => keep(&mut self.url),
            GroupElement::ExtensionUrl if text == MEMBER_FILTER => {
                self.modify("Group.extension", Some(text.to_string()))
            }
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
            GroupElement::Actual => self.head.actual = truth,
            GroupElement::Active => self.head.active = truth,
            GroupElement::Inactive => self.inactive = truth == Some(true),
            GroupElement::ImplicitRules if first != b'n' => self.modify("Group.implicitRules", None),
            _ => {}
        }
    }

    fn container(&mut self, node: Node) {
        if NAMES.1[node as usize] == GroupElement::ImplicitRules {
            self.modify("Group.implicitRules", None);
        }
    }

    fn scalar_inside(&mut self, node: Node, first: u8) {
        if let GroupElement::Modifier(path) = NAMES.1[node as usize]
            && first != b'n'
        {
            self.modify(path, None);
        }
    }

    fn open_array(&mut self, node: Node) {
        self.head.has_characteristic |= NAMES.1[node as usize] == GroupElement::Characteristic;
    }

    fn open(&mut self, node: Node) {
        match NAMES.1[node as usize] {
            GroupElement::Member => {
                self.reference = None;
                self.system = None;
                self.value = None;
                self.inactive = false;
                self.start = None;
                self.end = None;
            }
            GroupElement::Characteristic => self.head.has_characteristic = true,
            GroupElement::Modifier(_) => self.url = None,
            _ => {}
        }
    }

    fn close(&mut self, node: Node) {
        match NAMES.1[node as usize] {
            GroupElement::Member => {}
            GroupElement::Modifier(path) => {
                let url = self.url.take();
                return self.modify(path, url);
            }
            _ => return,
        }
        self.head.members += 1;
        let identifier = self.value.as_deref().map(|value| (self.system.as_deref().unwrap_or(""), value));
        (self.on_member)(&GroupMember {
            reference: self.reference.as_deref(),
            identifier,
            inactive: self.inactive,
            period_start: self.start.as_deref(),
            period_end: self.end.as_deref(),
        });
    }

    fn duplicate_key(&mut self, _: Node, offset: u64) {
        self.again.get_or_insert(offset);
    }
}
