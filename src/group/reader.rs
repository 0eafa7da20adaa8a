//! Streaming reader of a Group for exports: its members, the elements that decide whether it defines a set of patients,
//! and its modifiers.
//!
//! A Group of a million members is one line of 72 MB and is never held. Nothing is judged here: `lookup` decides
//! whether a Group is usable, `rules` whether an incoming one may be kept.

use std::fmt;
use std::sync::LazyLock;

use crate::extract::Validate;
use crate::extract::fault::Fault;
use crate::extract::rules::LoneSurrogates;
use crate::extract::scanner::Scanner;
use crate::extract::scanner::visitor::Visitor;
use crate::extract::trie::{Node, Trie};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::group::member_filter::{
    FILTER_PATH, FilterExtension, MEMBER_FILTER, MEMBERS_REFRESHED, MemberFilterProblem, MemberFilters,
};
use crate::simd::Kernel;

/// The elements of a Group other than its members, as far as exports use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupHead {
    /// `resourceType`, if it is one of R4.
    pub resource_type: Option<ResourceType>,
    /// `id`, if it is legal.
    pub id: Option<Id>,
    /// `Group.type`, if it is a string.
    pub group_type: Option<String>,
    /// `Group.actual`, if it is a boolean.
    pub actual: Option<bool>,
    /// `Group.active`, if it is a boolean.
    pub active: Option<bool>,
    /// `Group.name`, if it is a string.
    pub name: Option<String>,
    /// Whether there is a `characteristic`.
    pub has_characteristic: bool,
    /// Modifiers of the Group or of a member, each once, at most [`MODIFIERS_MAX`].
    pub modifiers: Vec<Modifier>,
    /// Number of members listed, of whatever form.
    pub members: u64,
    /// Whether there is a `member`, of whatever form, empty or not: then nobody else is in the Group.
    pub has_member: bool,
    /// Filters of the members. Each is among the modifiers, too, for those who do not evaluate it.
    pub(crate) filters: MemberFilters,
    /// Whether it says when its members were last found.
    pub(crate) says_refreshed: bool,
}

impl GroupHead {
    /// Everything that is wrong with the filters of the Group, and with the Group as the IG's profile of filtered Groups has it
    /// (COHORT-02). Empty for a Group without filters.
    pub(crate) fn filter_problems(&self) -> Vec<MemberFilterProblem> {
        if self.filters.is_empty() {
            return Vec::new();
        }
        let mut problems = self.filters.parse().err().unwrap_or_default();
        let checks = [
            (
                self.group_type.as_deref() == Some("person"),
                "Group.type",
                "must be person where there is a member-filter",
            ),
            (self.name.is_some(), "Group.name", "is missing; a Group with a member-filter must have one"),
            (
                self.actual == Some(self.has_member),
                "Group.actual",
                "must be true where a Group with a member-filter lists members, else false",
            ),
            (!self.has_characteristic, "Group.characteristic", "must not stand beside a member-filter"),
        ];
        let broken = checks.into_iter().filter(|(holds, ..)| !holds);
        problems.extend(broken.map(|(_, path, text)| MemberFilterProblem::of_profile(path, text)));
        problems
    }
}

/// An element that changes the meaning of its parent: a modifier extension, `implicitRules`, or the IG's member filter.
/// R4 forbids to process that element without understanding it
/// (<https://hl7.org/fhir/R4/extensibility.html#modifierExtension>); only member filters are understood here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modifier {
    /// FHIRPath of the key: `Group.modifierExtension`, say.
    pub path: &'static str,
    /// The URL of the extension or of the rules; `None` if it is no string, or too long to be read.
    pub url: Option<String>,
}

impl Modifier {
    /// Whether it is a filter of members where the IG has it.
    pub(crate) fn is_member_filter(&self) -> bool {
        self.path == FILTER_PATH && self.url.as_deref() == Some(MEMBER_FILTER)
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "{} {url:?}", self.path),
            None => write!(f, "{} without a readable url", self.path),
        }
    }
}

/// Most modifiers of a Group that are kept; one alone makes the Group unusable.
const MODIFIERS_MAX: usize = 10;

/// One member of a Group, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMember<'a> {
    /// Text of `entity.reference`, if it is there.
    pub reference: Option<&'a str>,
    /// `entity.identifier`: system (empty if none) and value.
    pub identifier: Option<(&'a str, &'a str)>,
    /// Whether `inactive` is true.
    pub inactive: bool,
    /// Text of `period.start`, if it is there.
    pub period_start: Option<&'a str>,
    /// Text of `period.end`, if it is there.
    pub period_end: Option<&'a str>,
}

/// Paths of the elements that are read.
const ROLES: [(&str, GroupElement); 26] = [
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
    ("modifierExtension", GroupElement::Modifier(FILTER_PATH)),
    ("modifierExtension.url", GroupElement::ModifierUrl),
    ("modifierExtension.valueExpression.language", GroupElement::FilterLanguage),
    ("modifierExtension.valueExpression.expression", GroupElement::FilterExpression),
    ("characteristic.modifierExtension", GroupElement::Modifier("Group.characteristic.modifierExtension")),
    ("characteristic.modifierExtension.url", GroupElement::ModifierUrl),
    ("member.modifierExtension", GroupElement::Modifier("Group.member.modifierExtension")),
    ("member.modifierExtension.url", GroupElement::ModifierUrl),
    ("member.entity.modifierExtension", GroupElement::Modifier("Group.member.entity.modifierExtension")),
    ("member.entity.modifierExtension.url", GroupElement::ModifierUrl),
    ("extension.url", GroupElement::ExtensionUrl),
];

/// Meaning of a node of the path trie.
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
    FilterLanguage,
    FilterExpression,
    ExtensionUrl,
}

/// The trie of paths, and the meaning of each of its nodes.
static NAMES: LazyLock<(Trie, Vec<GroupElement>)> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let nodes = ROLES.map(|(path, role)| (trie.add(path, 1), role));
    trie.freeze();
    let mut roles = vec![GroupElement::None; trie.len()];
    nodes.into_iter().for_each(|(node, role)| roles[node as usize] = role);
    (trie, roles)
});

/// Reads Groups in pieces, one after another.
pub struct GroupReader<'a> {
    scanner: Scanner,
    state: GroupReaderState<'a>,
}

/// Visitor of the scanner: collects the head, and holds the parts of a member until it closes.
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
    /// The modifier extension that is being read, as a filter.
    filter: FilterExtension,
    /// Number of modifier extensions of the Group that were read.
    modifiers_read: u64,
    /// Byte offset of the first duplicate of a key that decides membership.
    duplicate_key_at: Option<u64>,
}

impl<'a> GroupReader<'a> {
    /// A reader that passes each member to `on_member`, in the order of the document.
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
            filter: FilterExtension::default(),
            modifiers_read: 0,
            duplicate_key_at: None,
        };
        GroupReader { scanner: Scanner::new(kernel, Validate::Full, LoneSurrogates::Pass), state }
    }

    /// Begins a document: drops the elements of the last one.
    pub fn begin(&mut self) {
        self.scanner.begin();
        self.state.head = GroupHead::default();
        self.state.modifiers_read = 0;
        self.state.duplicate_key_at = None;
    }

    /// Reads the next piece of the document, which may be indented over many lines.
    pub fn feed(&mut self, piece: &[u8]) {
        self.scanner.feed(piece, &NAMES.0, &mut self.state);
    }

    /// The first fault so far; `None` if there is none yet, though the end may bring one.
    pub fn fault(&self) -> Option<Fault> {
        let duplicate = self
            .state
            .duplicate_key_at
            .map(|offset| Fault { kind: crate::extract::fault::FaultKind::DuplicateKey, at: offset });
        self.scanner.fault().or(duplicate)
    }

    /// Ends the document and returns its elements other than members.
    ///
    /// # Errors
    /// The first fault, with the byte offset at which it was found; the caller then drops the members it was passed.
    pub fn finish(&mut self) -> Result<GroupHead, Fault> {
        self.scanner.finish()?;
        match self.state.duplicate_key_at {
            Some(offset) => Err(Fault { kind: crate::extract::fault::FaultKind::DuplicateKey, at: offset }),
            None => Ok(self.state.head.clone()),
        }
    }
}

impl GroupReaderState<'_> {
    /// Records a modifier, unless it is known or [`MODIFIERS_MAX`] are.
    fn add_modifier(&mut self, path: &'static str, url: Option<String>) {
        let modifier = Modifier { path, url };
        if self.head.modifiers.len() < MODIFIERS_MAX && !self.head.modifiers.contains(&modifier) {
            self.head.modifiers.push(modifier);
        }
    }
}

impl Visitor for GroupReaderState<'_> {
    /// Every path of the trie is wanted to the end.
    fn wants(&self, _: u64) -> bool {
        true
    }

    /// Stores a text of the head or of the current member; reports `implicitRules` as a modifier.
    fn string(&mut self, node: Node, text: Option<&str>) {
        let role = NAMES.1[node as usize];
        match role {
            GroupElement::ImplicitRules => {
                return self.add_modifier("Group.implicitRules", text.map(str::to_string));
            }
            GroupElement::FilterLanguage => return self.filter.set_language(text),
            GroupElement::FilterExpression => return self.filter.set_expression(text),
            _ => {}
        }
        let Some(text) = text else { return };
        // Reuses the buffer of the slot: a Group may have a million members.
        let store = |slot: &mut Option<String>| {
            let mut buffer = slot.take().unwrap_or_default();
            buffer.clear();
            buffer.push_str(text);
            *slot = Some(buffer);
        };
        match role {
            GroupElement::ResourceType => self.head.resource_type = ResourceType::parse(text),
            GroupElement::Id => self.head.id = Id::parse_r4(text.as_bytes()),
            GroupElement::Type => self.head.group_type = Some(text.to_string()),
            GroupElement::Name => self.head.name = Some(text.to_string()),
            GroupElement::Reference => store(&mut self.reference),
            GroupElement::System => store(&mut self.system),
            GroupElement::Value => store(&mut self.value),
            GroupElement::Start => store(&mut self.start),
            GroupElement::End => store(&mut self.end),
            GroupElement::ModifierUrl => store(&mut self.url),
            GroupElement::ExtensionUrl if text == MEMBER_FILTER => {
                self.add_modifier("Group.extension", Some(text.to_string()))
            }
            GroupElement::ExtensionUrl if text == MEMBERS_REFRESHED => self.head.says_refreshed = true,
            _ => {}
        }
    }

    /// Stores a boolean of the head or of the current member.
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
            GroupElement::ImplicitRules if first != b'n' => self.add_modifier("Group.implicitRules", None),
            GroupElement::FilterLanguage => self.filter.spoil_language(),
            GroupElement::FilterExpression => self.filter.spoil_expression(),
            _ => {}
        }
    }

    /// An object or array as `implicitRules` is a modifier, too.
    fn container(&mut self, node: Node) {
        match NAMES.1[node as usize] {
            GroupElement::ImplicitRules => self.add_modifier("Group.implicitRules", None),
            GroupElement::FilterLanguage => self.filter.spoil_language(),
            GroupElement::FilterExpression => self.filter.spoil_expression(),
            _ => {}
        }
    }

    /// A value in place of a modifier extension is a modifier without URL, unless it is null. Any value in place of members
    /// is a `member`.
    fn scalar_inside(&mut self, node: Node, first: u8) {
        match NAMES.1[node as usize] {
            GroupElement::Modifier(path) if first != b'n' => self.add_modifier(path, None),
            GroupElement::Member => self.head.has_member = true,
            _ => {}
        }
    }

    /// Notes a `characteristic` or a `member`, even an empty one.
    fn open_array(&mut self, node: Node) {
        self.head.has_characteristic |= NAMES.1[node as usize] == GroupElement::Characteristic;
        self.head.has_member |= NAMES.1[node as usize] == GroupElement::Member;
    }

    /// Begins a member, a characteristic or a modifier extension.
    fn open(&mut self, node: Node) {
        match NAMES.1[node as usize] {
            GroupElement::Member => {
                self.head.has_member = true;
                self.reference = None;
                self.system = None;
                self.value = None;
                self.inactive = false;
                self.start = None;
                self.end = None;
            }
            GroupElement::Characteristic => self.head.has_characteristic = true,
            GroupElement::Modifier(_) => {
                self.url = None;
                self.filter = FilterExtension::default();
            }
            _ => {}
        }
    }

    /// Ends a member, which is passed to the callback, or a modifier extension.
    fn close(&mut self, node: Node) {
        match NAMES.1[node as usize] {
            GroupElement::Member => {}
            GroupElement::Modifier(path) => {
                let url = self.url.take();
                if path == FILTER_PATH {
                    if url.as_deref() == Some(MEMBER_FILTER) {
                        self.head.filters.push(std::mem::take(&mut self.filter), self.modifiers_read);
                    }
                    self.modifiers_read += 1;
                }
                return self.add_modifier(path, url);
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

    /// Records the first duplicate key that is read.
    fn duplicate_key(&mut self, _: Node, offset: u64) {
        self.duplicate_key_at.get_or_insert(offset);
    }
}
