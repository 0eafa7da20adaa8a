//! The rules that a Group is held to before it is kept, by every door: R4's, and those that a door adds to them
//! ([`GroupRules`]).
//!
//! A Group comes in pieces and is never held: neither its tree nor its members, of which there may be a million. What
//! is kept is bounded, whatever the text. All problems are told at once, without any content but ids and codes.

pub(crate) mod problem;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;

use std::borrow::Cow;
use std::collections::HashSet;

use crate::extract::fault::Fault;
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::reader::{GroupHead, GroupMember, GroupReader};
use crate::group::rules::problem::{RuleKind, RuleViolation, RuleViolations, unreadable};
use crate::group::rules::tokens::{JsonToken, TokenReader, TokenText};
use crate::limits::{GROUP_ELEMENTS_MAX, ONEUP_GROUP_BYTES_MAX, ONEUP_GROUP_MEMBERS_MAX, ROW_BYTES_MAX};
use crate::simd::Kernel;

/// The id that a document must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WantedId<'a> {
    /// The server gives it one; its own is passed over.
    Ignored,
    /// It must be this one, that of the URL.
    Same(&'a Id),
    /// Any legal one.
    Own,
}

/// Which Groups a door takes; each takes fewer than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GroupContent {
    /// All that R4 allows (<https://hl7.org/fhir/R4/group.html>).
    #[default]
    R4,
    /// Groups of persons or animals that list their members instead of describing them: those that can be exported.
    Exportable,
    /// Groups with at least one member, each of them a reference to a Patient, relative, absolute or versioned
    /// (ONEUP-G06).
    Patients,
}

/// The rules that a door puts on Groups, beside those of R4. By default none (ONEUP-G08): the size of the body that the
/// server takes is the only bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupRules {
    /// Which Groups it takes.
    pub content: GroupContent,
    /// Most members.
    pub members_max: Option<u64>,
    /// Most bytes of the Group without white space between its tokens. It binds only when some member says more than
    /// its `entity.reference`: 10,000 members with UUIDs have some 720 KB, so the documented 400 KB cannot be meant for
    /// them (ONEUP-G04, C-11).
    pub bytes_max: Option<u64>,
}

impl GroupRules {
    /// Those that 1upHealth documents: ONEUP-G02, ONEUP-G03, ONEUP-G06.
    pub(crate) fn oneup() -> GroupRules {
        GroupRules {
            content: GroupContent::Patients,
            members_max: Some(ONEUP_GROUP_MEMBERS_MAX),
            bytes_max: Some(ONEUP_GROUP_BYTES_MAX),
        }
    }
}

/// What was found of a Group that keeps the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedGroup {
    /// What it says of itself.
    pub head: GroupHead,
    /// Its bytes without white space between its tokens.
    pub bytes: u64,
    /// Whether no member says more than its `entity.reference`.
    pub references_only: bool,
}

/// Longest name of an element that a problem repeats, in characters.
const ELEMENT_CHARS_MAX: usize = 64;

/// Holds one Group, in pieces, to rules.
pub(crate) struct GroupCheck<'a> {
    reader: GroupReader<'a>,
    tokens: TokenReader,
    rules: CheckState<'a>,
    position: u64,
    /// Newlines so far, and where the last line begins.
    lines: (u64, u64),
    /// The first fault, and its line and column, in bytes, from 1.
    fault: Option<(Fault, u64, u64)>,
}

impl<'a> GroupCheck<'a> {
    /// A check that tells each member to `on_member`; what it was told of a Group with problems is to be dropped.
    pub(crate) fn new(
        rules: GroupRules,
        id: WantedId<'a>,
        on_member: &'a mut dyn FnMut(&GroupMember<'_>),
    ) -> GroupCheck<'a> {
        let mut reader = GroupReader::new(Kernel::detect(), on_member);
        reader.begin();
        GroupCheck {
            reader,
            tokens: TokenReader::new(),
            rules: CheckState::new(rules, id),
            position: 0,
            lines: (0, 0),
            fault: None,
        }
    }

    /// The next piece of the document, which may be indented over many lines.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.reader.feed(piece);
        self.note_fault(piece);
        if self.fault.is_none() {
            self.tokens.feed(piece, |depth, token| self.rules.token(depth, token));
        }
        self.lines.0 += memchr::memchr_iter(b'\n', piece).count() as u64;
        if let Some(last) = memchr::memrchr(b'\n', piece) {
            self.lines.1 = self.position + last as u64 + 1;
        }
        self.position += piece.len() as u64;
    }

    /// Finds the line and column of a fault while its piece is at hand. A fault may lie some bytes before the piece, in
    /// a character that the last one cut, but not on another line.
    fn note_fault(&mut self, piece: &[u8]) {
        let Some(fault) = self.reader.fault() else { return };
        if self.fault.is_some_and(|(known, ..)| known == fault) {
            return;
        }
        let before = &piece[..piece.len().min(fault.at.saturating_sub(self.position) as usize)];
        let lines = self.lines.0 + memchr::memchr_iter(b'\n', before).count() as u64;
        let begin = memchr::memrchr(b'\n', before).map_or(self.lines.1, |offset| self.position + offset as u64 + 1);
        self.fault = Some((fault, lines + 1, fault.at.saturating_sub(begin) + 1));
    }

    /// The document is over.
    ///
    /// # Errors
    /// Everything that is wrong with it: of what is no JSON the first fault, else at most [`crate::limits::GROUP_PROBLEMS_MAX`] problems
    /// of single elements, one more that counts the others, and those of the Group as a whole.
    pub(crate) fn finish(mut self) -> Result<CheckedGroup, Vec<RuleViolation>> {
        let outcome = self.reader.finish();
        self.note_fault(&[]);
        match (outcome, self.fault) {
            (Ok(head), _) => self.rules.finish(head, self.tokens.bytes()),
            (Err(_), Some((fault, line, column))) => Err(vec![unreadable(fault, line, column)]),
            // What is missing is missing at the end.
            (Err(fault), None) => Err(vec![unreadable(fault, self.lines.0 + 1, self.position - self.lines.1 + 1)]),
        }
    }
}

/// What an element of R4's Group must be (<https://hl7.org/fhir/R4/group.html>). Elements that are not listed are kept
/// unseen: extensions, narrative, what later versions add.
const SHAPES: [(&str, ElementShape); 13] = [
    ("active", ElementShape::Bool),
    ("actual", ElementShape::Bool),
    ("characteristic", ElementShape::Objects),
    ("code", ElementShape::Object),
    ("contained", ElementShape::Objects),
    ("extension", ElementShape::Objects),
    ("identifier", ElementShape::Objects),
    ("managingEntity", ElementShape::Object),
    ("member", ElementShape::Objects),
    ("meta", ElementShape::Object),
    ("name", ElementShape::Text),
    ("quantity", ElementShape::Number),
    ("type", ElementShape::Text),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum ElementShape {
    Bool,
    Number,
    Object,
    Objects,
    Text,
}

impl ElementShape {
    fn name(self) -> &'static str {
        match self {
            ElementShape::Bool => "true or false",
            ElementShape::Number => "a number",
            ElementShape::Object => "an object",
            ElementShape::Objects => "an array of objects",
            ElementShape::Text => "a string that is not empty",
        }
    }

    fn fits(self, token: JsonToken<'_>) -> bool {
        match (self, token) {
            (ElementShape::Bool, JsonToken::Bool(_))
            | (ElementShape::Number, JsonToken::Number)
            | (ElementShape::Object, JsonToken::Object) => true,
            // What stands in it is told one by one where it comes.
            (ElementShape::Objects, JsonToken::Array) => true,
            // A text too long to be looked at is not empty.
            (ElementShape::Text, JsonToken::String(text)) => text.get().is_none_or(|text| !text.trim().is_empty()),
            _ => false,
        }
    }
}

/// A member as it comes by.
#[derive(Clone, Copy, Default)]
struct MemberState {
    /// It is an object: what it holds is looked at.
    is_object: bool,
    field: ElementField,
    /// `entity`: none, no object, or an object.
    entity: Option<bool>,
    entity_field: ElementField,
    has_reference: bool,
    has_identifier: bool,
    /// In `entity.identifier`, if that is an object: whether the next value is its value, and whether it has one.
    identifier_is_object: bool,
    at_value: bool,
    has_value: bool,
}

/// Whose value comes next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ElementField {
    #[default]
    Other,
    Entity,
    Inactive,
    Period,
    Reference,
    Identifier,
}

struct CheckState<'a> {
    rules: GroupRules,
    wanted: WantedId<'a>,
    problems: RuleViolations,
    seen: HashSet<String>,
    /// Element of the Group that is looked at, as a path.
    path: String,
    shape: Option<ElementShape>,
    is_member: bool,
    /// In an array of objects, how many of them have come.
    items: Option<u64>,
    resource_type: Option<String>,
    id: Option<String>,
    /// Inner none: another shape, which has been told.
    group_type: Option<Option<String>>,
    actual: Option<Option<bool>>,
    has_member: bool,
    members: u64,
    member: MemberState,
    references_only: bool,
}

impl<'a> CheckState<'a> {
    fn new(rules: GroupRules, wanted: WantedId<'a>) -> CheckState<'a> {
        CheckState {
            rules,
            wanted,
            problems: RuleViolations::default(),
            seen: HashSet::new(),
            path: String::new(),
            shape: None,
            is_member: false,
            items: None,
            resource_type: None,
            id: None,
            group_type: None,
            actual: None,
            has_member: false,
            members: 0,
            member: MemberState::default(),
            references_only: true,
        }
    }

    fn token(&mut self, depth: usize, token: JsonToken<'_>) {
        let in_member = self.is_member && self.items.is_some() && self.member.is_object;
        match depth {
            1 => self.element(token),
            2 => self.item(token),
            3 if in_member => self.in_member(token),
            4 if in_member && self.member.field == ElementField::Entity => self.in_entity(token),
            5 if in_member && self.member.identifier_is_object => self.in_identifier(token),
            _ => {}
        }
    }

    /// A token of the Group itself.
    fn element(&mut self, token: JsonToken<'_>) {
        match token {
            JsonToken::Key(name) => return self.begin_element(name),
            JsonToken::End => return,
            _ => {}
        }
        let text = |token: JsonToken<'_>| match token {
            // What is too long to be looked at is none of the values that are wanted.
            JsonToken::String(text) => Some(text.get().map_or_else(|| "…".to_string(), Cow::into_owned)),
            _ => None,
        };
        match self.path.strip_prefix("Group.").unwrap_or_default() {
            "resourceType" => self.resource_type = text(token),
            "id" => self.id = Some(text(token).unwrap_or_default()),
            "type" => self.group_type = Some(text(token)),
            "actual" => {
                self.actual = match token {
                    JsonToken::Bool(truth) => Some(Some(truth)),
                    _ => Some(None),
                }
            }
            "member" => self.has_member = true,
            _ => {}
        }
        let Some(shape) = self.shape else { return };
        if !shape.fits(token) {
            let path = &self.path;
            self.problems.push(RuleKind::Structure, path, || format!("{path} must be {}", shape.name()));
        } else if shape == ElementShape::Objects {
            self.items = Some(0);
        }
    }

    fn begin_element(&mut self, name: TokenText<'_>) {
        let name = name.get();
        let shown: String = name.as_deref().unwrap_or("…").chars().take(ELEMENT_CHARS_MAX).collect();
        self.path = format!("Group.{shown}");
        self.items = None;
        self.is_member = name.as_deref() == Some("member");
        self.shape = SHAPES.iter().find(|(known, _)| name.as_deref() == Some(*known)).map(|(_, shape)| *shape);
        let (path, problems) = (&self.path, &mut self.problems);
        match name {
            None => problems.push(RuleKind::Structure, "Group", || "the name of an element is too long".into()),
            Some(name) if self.seen.contains(&*name) => problems.push(RuleKind::Structure, path, || {
                format!("{path} stands twice; parsers disagree on which one holds")
            }),
            Some(_) if self.seen.len() == GROUP_ELEMENTS_MAX => problems.push(RuleKind::Structure, path, || {
                format!("the Group has more than {GROUP_ELEMENTS_MAX} elements, which no Group of R4 has")
            }),
            Some(name) => drop(self.seen.insert(name.into_owned())),
        }
    }

    /// A token of an element of the Group; of interest if that is an array of objects.
    fn item(&mut self, token: JsonToken<'_>) {
        let Some(offset) = self.items else { return };
        if matches!(token, JsonToken::End) {
            return self.items = None;
        }
        self.items = Some(offset + 1);
        let is_object = matches!(token, JsonToken::Object);
        if self.is_member {
            self.members += 1;
            self.member = MemberState { is_object, ..MemberState::default() };
        }
        if !is_object {
            let entity = if self.is_member { " with an entity" } else { "" };
            let path = format!("{}[{offset}]", self.path);
            self.problems.push(RuleKind::Structure, &path, || format!("{path} must be an object{entity}"));
        }
    }

    fn wrong(&mut self, kind: RuleKind, below: &str, what: &str) {
        // Told again and again in a list of a million: without a path when nobody will read it.
        let offset = self.members - 1;
        let path = if self.problems.is_full() { String::new() } else { format!("Group.member[{offset}]{below}") };
        self.problems.push(kind, &path, || format!("{path} {what}"));
    }

    fn in_member(&mut self, token: JsonToken<'_>) {
        match (self.member.field, token) {
            (_, JsonToken::Key(name)) => {
                self.member.field = match name.get().as_deref() {
                    Some("entity") => ElementField::Entity,
                    Some("inactive") => ElementField::Inactive,
                    Some("period") => ElementField::Period,
                    _ => ElementField::Other,
                };
                self.references_only &= self.member.field == ElementField::Entity;
            }
            (_, JsonToken::End) => self.end_member(),
            (ElementField::Entity, token) => self.member.entity = Some(matches!(token, JsonToken::Object)),
            (ElementField::Inactive, JsonToken::Bool(_)) | (ElementField::Period, JsonToken::Object) => {}
            (ElementField::Inactive, _) => self.wrong(RuleKind::Structure, ".inactive", "must be true or false"),
            (ElementField::Period, _) => self.wrong(RuleKind::Structure, ".period", "must be an object"),
            _ => {}
        }
    }

    fn in_entity(&mut self, token: JsonToken<'_>) {
        if self.member.entity != Some(true) {
            return;
        }
        match (self.member.entity_field, token) {
            (_, JsonToken::Key(name)) => {
                self.member.entity_field = match name.get().as_deref() {
                    Some("reference") => ElementField::Reference,
                    Some("identifier") => ElementField::Identifier,
                    _ => ElementField::Other,
                };
                self.references_only &= self.member.entity_field == ElementField::Reference;
                self.member.has_reference |= self.member.entity_field == ElementField::Reference;
                self.member.has_identifier |= self.member.entity_field == ElementField::Identifier;
            }
            (_, JsonToken::End) => self.member.entity_field = ElementField::Other,
            (ElementField::Reference, JsonToken::String(text)) => self.reference(text),
            (ElementField::Reference, _) => self.reference_is_none(),
            (ElementField::Identifier, JsonToken::Object) => self.member.identifier_is_object = true,
            (ElementField::Identifier, _) => self.identifier_is_none(),
            _ => {}
        }
    }

    fn reference(&mut self, text: TokenText<'_>) {
        let Some(text) = text.get() else {
            return self.wrong(RuleKind::Structure, ".entity.reference", "is longer than any that is looked at");
        };
        if text.is_empty() || text.contains(char::is_whitespace) {
            return self.reference_is_none();
        }
        let is_patient = |text| Reference::parse(text).is_some_and(|of| of.resource_type == ResourceType::PATIENT);
        if self.rules.content == GroupContent::Patients && !is_patient(&text) {
            let what = "is no reference to a Patient; only Patients can be members here, such as Patient/123";
            self.wrong(RuleKind::BusinessRule, ".entity.reference", what);
        }
    }

    fn reference_is_none(&mut self) {
        let what = "must be a string without white space, such as Patient/123";
        self.wrong(RuleKind::Structure, ".entity.reference", what);
    }

    fn identifier_is_none(&mut self) {
        self.wrong(RuleKind::Structure, ".entity.identifier", "must be an object with a value");
    }

    fn in_identifier(&mut self, token: JsonToken<'_>) {
        match token {
            JsonToken::Key(name) => self.member.at_value = name.get().as_deref() == Some("value"),
            JsonToken::String(text) if self.member.at_value => {
                self.member.has_value = text.get().is_none_or(|text| !text.is_empty());
            }
            JsonToken::End => {
                self.member.identifier_is_object = false;
                if !self.member.has_value {
                    self.identifier_is_none();
                }
            }
            _ => {}
        }
    }

    /// Each member names an entity, by reference or by identifier.
    fn end_member(&mut self) {
        let MemberState { entity, has_reference, has_identifier, .. } = self.member;
        match entity {
            None => self.wrong(RuleKind::Required, ".entity", "is missing; give a reference or an identifier"),
            Some(false) => {
                let what = "must be an object with a reference or an identifier";
                self.wrong(RuleKind::Structure, ".entity", what);
            }
            Some(true) if !has_reference && !has_identifier => {
                self.wrong(RuleKind::Required, ".entity", "has neither a reference nor an identifier");
            }
            Some(true) if !has_reference && self.rules.content == GroupContent::Patients => {
                let what = "has no reference; members are taken by reference only here, such as Patient/123";
                self.wrong(RuleKind::BusinessRule, ".entity", what);
            }
            Some(true) => {}
        }
        self.member.is_object = false;
    }

    fn finish(mut self, head: GroupHead, bytes: u64) -> Result<CheckedGroup, Vec<RuleViolation>> {
        self.names();
        self.values(&head);
        let problems = &mut self.problems;
        if let Some(max) = self.rules.members_max.filter(|max| self.members > *max) {
            let text = format!("the Group has {} members; at most {max} are taken", self.members);
            problems.push_last(RuleKind::TooLong, "Group.member", text);
        }
        if let Some(max) = self.rules.bytes_max.filter(|max| bytes > *max && !self.references_only) {
            let text = format!(
                "the Group has {bytes} bytes without white space; where members say more than entity.reference at most \
                 {max} are taken: leave the rest out, or make two Groups"
            );
            problems.push_last(RuleKind::TooLong, "Group", text);
        }
        if bytes > ROW_BYTES_MAX {
            let text =
                format!("the Group has {bytes} bytes without white space; no row is longer than {ROW_BYTES_MAX}");
            problems.push_last(RuleKind::TooLong, "Group", text);
        }
        match self.problems.into_violations() {
            none if none.is_empty() => Ok(CheckedGroup { head, bytes, references_only: self.references_only }),
            problems => Err(problems),
        }
    }

    /// What it is, and what it is called.
    fn names(&mut self) {
        let problems = &mut self.problems;
        match self.resource_type.as_deref() {
            Some("Group") => {}
            Some(_) => {
                let text = "resourceType is not Group; only Group resources are kept here";
                problems.push_last(RuleKind::Value, "Group.resourceType", text);
            }
            None => {
                let text = "resourceType is missing; it must be Group";
                problems.push_last(RuleKind::Required, "Group.resourceType", text);
            }
        }
        match (self.wanted, self.id.as_deref()) {
            (WantedId::Ignored, _) => {}
            (WantedId::Same(wanted), Some(own)) if own == wanted.as_str() => {}
            (WantedId::Same(wanted), Some(_)) => {
                let text = format!("Group.id is not the id of the URL, {wanted}; send the Group under its own URL");
                problems.push_last(RuleKind::Value, "Group.id", text);
            }
            (WantedId::Same(wanted), None) => {
                let text = format!("Group.id is missing; an update must have the id of the URL, {wanted}");
                problems.push_last(RuleKind::Required, "Group.id", text);
            }
            (WantedId::Own, Some(own)) if Id::parse(own.as_bytes()).is_some() => {}
            (WantedId::Own, Some(_)) => {
                let text = "Group.id is no legal id; it is 1 to 64 letters, digits, '-' and '.'";
                problems.push_last(RuleKind::Value, "Group.id", text);
            }
            (WantedId::Own, None) => {
                let text = "Group.id is missing; a Group is asked for by its id";
                problems.push_last(RuleKind::Required, "Group.id", text);
            }
        }
    }

    /// What it must say, and what contradicts it.
    fn values(&mut self, head: &GroupHead) {
        const TYPES: [&str; 6] = ["person", "animal", "practitioner", "device", "medication", "substance"];
        let content = self.rules.content;
        // Others have no patients as members.
        let types = if content == GroupContent::R4 { &TYPES[..] } else { &TYPES[..2] };
        let problems = &mut self.problems;
        match &self.group_type {
            Some(Some(code)) if !code.trim().is_empty() && !types.contains(&&**code) => {
                let text = format!("Group.type must be one of {}", types.join(", "));
                problems.push_last(RuleKind::Value, "Group.type", text);
            }
            Some(_) => {}
            None => {
                let text = format!("Group.type is missing; it must be one of {}", types.join(", "));
                problems.push_last(RuleKind::Required, "Group.type", text);
            }
        }
        match self.actual {
            Some(Some(false)) if self.members > 0 => {
                let text = "Group.actual is false, and such a Group has no members (R4, grp-1); give actual true";
                problems.push_last(RuleKind::Invariant, "Group.member", text);
            }
            Some(Some(false)) if content == GroupContent::Patients => {
                let text = "Group.actual is false; a Group that lists its members has true";
                problems.push_last(RuleKind::BusinessRule, "Group.actual", text);
            }
            Some(_) => {}
            None => {
                let text = "Group.actual is missing; give true for a Group that lists its members";
                problems.push_last(RuleKind::Required, "Group.actual", text);
            }
        }
        if content == GroupContent::Patients && self.members == 0 {
            let text = match self.has_member {
                true => "Group.member is empty; list at least one Patient",
                false => "Group.member is missing; list at least one Patient",
            };
            problems.push_last(RuleKind::Required, "Group.member", text);
        }
        let is_described = self.members == 0 || self.actual == Some(Some(false));
        if content >= GroupContent::Exportable && head.has_characteristic && is_described {
            let text = "the Group is defined by characteristics, which are not evaluated; list its members";
            problems.push_last(RuleKind::BusinessRule, "Group.characteristic", text);
        }
        for modifier in &head.modifiers {
            let text = format!(
                "{modifier} changes the meaning of the Group and is not understood here; list the members that it leaves instead"
            );
            problems.push_last(RuleKind::NotSupported, modifier.path, text);
        }
    }
}
