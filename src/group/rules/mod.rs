//! Rules that an incoming Group must meet before it is kept: R4's, and those that a caller adds ([`GroupRules`]).
//!
//! A Group is checked in pieces and never held, neither its tree nor its members, of which there may be a million;
//! memory is bounded whatever the text. All violations are reported together, without content other than ids and codes.

pub(crate) mod problem;
pub(crate) mod shapes;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;

use std::borrow::Cow;
use std::collections::HashSet;

use crate::count_text::counted;
use crate::extract::fault::Fault;
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::member_filter::FilteredGroups;
use crate::group::reader::{GroupHead, GroupMember, GroupReader};
use crate::group::rules::problem::{RuleViolation, RuleViolations, unreadable};
use crate::group::rules::shapes::{ElementShape, SHAPES};
use crate::group::rules::tokens::{JsonToken, TokenReader, TokenText};
use crate::group::values::{FoundValue, ValueScan};
use crate::issue::IssueCode;
use crate::limits::{GROUP_ELEMENTS_MAX, ONEUP_GROUP_BYTES_MAX, ONEUP_GROUP_MEMBERS_MAX, ROW_BYTES_MAX};
use crate::simd::Kernel;

/// The id that a Group must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WantedId<'a> {
    /// Any or none: the server assigns an id and ignores its own.
    #[default]
    Ignored,
    /// This one, the id in the URL.
    Same(&'a Id),
    /// Its own, which must be legal.
    Own,
}

/// Which Groups are accepted, by content; each value accepts fewer than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GroupContent {
    /// All Groups that R4 allows (<https://hl7.org/fhir/R4/group.html>).
    #[default]
    R4,
    /// Groups of persons or animals that list their members instead of describing them: those that can be exported.
    Exportable,
    /// Groups with at least one member, each a reference to a Patient, relative, absolute or versioned (ONEUP-G06).
    Patients,
}

/// Rules for Groups beyond those of R4. By default none (ONEUP-G08); the server bounds the size of a body by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupRules {
    /// Which Groups are accepted, by content.
    pub content: GroupContent,
    /// Most members; no bound if `None`.
    pub members_max: Option<u64>,
    /// Most bytes without white space between tokens. Applies only if a member has more than its `entity.reference`:
    /// 10,000 with UUIDs have some 720 KB, so the documented 400 KB cannot be meant for them (ONEUP-G04, C-11).
    pub bytes_max: Option<u64>,
    /// What becomes of a Group that has filters of its members.
    pub filtered: FilteredGroups,
}

impl GroupRules {
    /// The rules that 1upHealth documents: ONEUP-G02, ONEUP-G03, ONEUP-G06.
    pub(crate) fn oneup() -> GroupRules {
        GroupRules {
            content: GroupContent::Patients,
            members_max: Some(ONEUP_GROUP_MEMBERS_MAX),
            bytes_max: Some(ONEUP_GROUP_BYTES_MAX),
            filtered: FilteredGroups::Refused,
        }
    }
}

/// Result of checking a Group that meets the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedGroup {
    /// Its elements other than members.
    pub head: GroupHead,
    /// Its bytes without white space between its tokens.
    pub bytes: u64,
    /// Whether no member has more than its `entity.reference`.
    pub references_only: bool,
}

/// Longest name of an element that a violation repeats, in characters; a longer one is cut.
const ELEMENT_CHARS_MAX: usize = 64;

/// Checks one Group, in pieces, against rules.
pub(crate) struct GroupCheck<'a> {
    reader: GroupReader<'a>,
    tokens: TokenReader,
    values: ValueScan,
    rules: CheckState<'a>,
    /// Byte offset of the next piece.
    position: u64,
    /// Number of newlines so far, and byte offset of the current line.
    lines: (u64, u64),
    /// The first fault, with its line and its column in bytes, both from 1.
    fault: Option<(Fault, u64, u64)>,
}

impl<'a> GroupCheck<'a> {
    /// A check that passes each member to `on_member`; the caller drops the members of a Group with violations.
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
            values: ValueScan::new(),
            rules: CheckState::new(rules, id),
            position: 0,
            lines: (0, 0),
            fault: None,
        }
    }

    /// Reads the next piece of the document, which may be indented over many lines.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.reader.feed(piece);
        self.note_fault(piece);
        if self.fault.is_none() {
            self.tokens.feed(piece, |depth, token| self.rules.token(depth, token));
            let place = PiecePlace { piece, position: self.position, lines: self.lines };
            self.values.feed(piece, &mut |found| self.rules.report_value(found, place.line_and_column(found.at)));
        }
        self.lines.0 += memchr::memchr_iter(b'\n', piece).count() as u64;
        if let Some(last) = memchr::memrchr(b'\n', piece) {
            self.lines.1 = self.position + last as u64 + 1;
        }
        self.position += piece.len() as u64;
    }

    /// Records the line and column of a new fault while its piece is available. A fault may lie some bytes before the
    /// piece, in a character that the piece before cut, but not on another line.
    fn note_fault(&mut self, piece: &[u8]) {
        let Some(fault) = self.reader.fault() else { return };
        if self.fault.is_some_and(|(known, ..)| known == fault) {
            return;
        }
        let place = PiecePlace { piece, position: self.position, lines: self.lines };
        let (line, column) = place.line_and_column(fault.at);
        self.fault = Some((fault, line, column));
    }

    /// Ends the document.
    ///
    /// # Errors
    /// All violations: the first fault of a text that is no JSON object, else at most
    /// [`crate::limits::GROUP_PROBLEMS_MAX`] violations of single elements, one more that counts the others, and those
    /// of the Group as a whole.
    pub(crate) fn finish(mut self) -> Result<CheckedGroup, Vec<RuleViolation>> {
        let outcome = self.reader.finish();
        self.note_fault(&[]);
        match (outcome, self.fault) {
            (Ok(head), _) => self.rules.finish(head, self.tokens.bytes()),
            (Err(_), Some((fault, line, column))) => Err(vec![unreadable(fault, line, column)]),
            // A fault without a position in a piece is one of the end.
            (Err(fault), None) => Err(vec![unreadable(fault, self.lines.0 + 1, self.position - self.lines.1 + 1)]),
        }
    }
}

/// A piece of a document, and where it begins.
struct PiecePlace<'p> {
    piece: &'p [u8],
    /// Offset of the piece, and as [`GroupCheck::lines`] before it.
    position: u64,
    lines: (u64, u64),
}

impl PiecePlace<'_> {
    /// Line and column of an offset in the piece, or of one before it on the line on which the piece begins.
    fn line_and_column(&self, at: u64) -> (u64, u64) {
        let before = &self.piece[..self.piece.len().min(at.saturating_sub(self.position) as usize)];
        let lines = self.lines.0 + memchr::memchr_iter(b'\n', before).count() as u64;
        let begin = memchr::memrchr(b'\n', before).map_or(self.lines.1, |offset| self.position + offset as u64 + 1);
        (lines + 1, at.saturating_sub(begin) + 1)
    }
}

/// State of the member that is being read.
#[derive(Clone, Copy, Default)]
struct MemberState {
    /// Whether the member is an object; others are reported, and their content is not checked.
    is_object: bool,
    field: ElementField,
    /// Whether `entity` is an object; `None` while there is none.
    entity: Option<bool>,
    entity_field: ElementField,
    has_reference: bool,
    has_identifier: bool,
    /// Whether the reader is in `entity.identifier`, an object.
    identifier_is_object: bool,
    /// Whether the next token is the identifier's `value`.
    at_value: bool,
    /// Whether the identifier has a `value` that is not empty.
    has_value: bool,
}

/// Field of a member or its entity whose value comes next.
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

/// Checks the tokens of a Group against the rules.
#[derive(Default)]
struct CheckState<'a> {
    rules: GroupRules,
    wanted: WantedId<'a>,
    problems: RuleViolations,
    /// Names of the Group's elements so far.
    names: HashSet<String>,
    /// FHIRPath of the current element of the Group.
    path: String,
    /// Shape of the current element; `None` if it is not checked.
    shape: Option<ElementShape>,
    is_member: bool,
    /// Number of items read of an array of objects; `None` outside one.
    items: Option<u64>,
    resource_type: Option<String>,
    id: Option<String>,
    /// Inner `None`: a value of another shape, which is already reported.
    group_type: Option<Option<String>>,
    actual: Option<Option<bool>>,
    has_member: bool,
    members: u64,
    member: MemberState,
    references_only: bool,
}

impl<'a> CheckState<'a> {
    /// The state before the first token.
    fn new(rules: GroupRules, wanted: WantedId<'a>) -> CheckState<'a> {
        CheckState { rules, wanted, references_only: true, ..CheckState::default() }
    }

    /// Checks the next token, which lies in `depth` containers.
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

    /// Reports a value that not every JSON reader takes, or that is out of the range of its type.
    fn report_value(&mut self, found: FoundValue<'_>, (line, column): (u64, u64)) {
        let path = found.element.map_or("Group".to_string(), |element| format!("Group.{element}"));
        let place = format!("{path} (line {line}, column {column})");
        self.problems.push(IssueCode::Value, &path, || format!("{place} {}", found.fault.text()));
    }

    /// Checks a token of the Group itself (depth 1): the name of an element, or the start of its value.
    fn element(&mut self, token: JsonToken<'_>) {
        match token {
            JsonToken::Key(name) => return self.begin_element(name),
            JsonToken::End => return,
            _ => {}
        }
        let text = |token: JsonToken<'_>| match token {
            // A text too long to be read is none of the accepted values.
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
            self.problems.push(IssueCode::Structure, path, || format!("{path} must be {}", shape.name()));
        } else if shape == ElementShape::Objects {
            self.items = Some(0);
        }
    }

    /// Begins an element of the Group: its path and shape; reports names that are duplicate, too long or too many.
    fn begin_element(&mut self, name: TokenText<'_>) {
        let name = name.get();
        let shown: String = name.as_deref().unwrap_or("…").chars().take(ELEMENT_CHARS_MAX).collect();
        self.path = format!("Group.{shown}");
        self.items = None;
        self.is_member = name.as_deref() == Some("member");
        self.shape = SHAPES.iter().find(|(known, _)| name.as_deref() == Some(*known)).map(|(_, shape)| *shape);
        let (path, problems) = (&self.path, &mut self.problems);
        match name {
            None => problems.push(IssueCode::Structure, "Group", || "the name of an element is too long".into()),
            Some(name) if self.names.contains(&*name) => problems.push(IssueCode::Structure, path, || {
                format!("{path} stands twice; parsers disagree on which one holds")
            }),
            Some(_) if self.names.len() == GROUP_ELEMENTS_MAX => problems.push(IssueCode::Structure, path, || {
                format!("the Group has more than {GROUP_ELEMENTS_MAX} elements, which no Group of R4 has")
            }),
            Some(name) => drop(self.names.insert(name.into_owned())),
        }
    }

    /// Checks an item of an element of the Group (depth 2), if that is an array of objects.
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
            self.problems.push(IssueCode::Structure, &path, || format!("{path} must be an object{entity}"));
        }
    }

    /// Reports a violation of the current member; `below` is the path below it.
    fn report(&mut self, kind: IssueCode, below: &str, text: &str) {
        // A list of a million members may repeat it a million times: no path is built for one that is only counted.
        let offset = self.members - 1;
        let path = if self.problems.is_full() { String::new() } else { format!("Group.member[{offset}]{below}") };
        self.problems.push(kind, &path, || format!("{path} {text}"));
    }

    /// Checks a token of a member (depth 3).
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
            (ElementField::Inactive, _) => self.report(IssueCode::Structure, ".inactive", "must be true or false"),
            (ElementField::Period, _) => self.report(IssueCode::Structure, ".period", "must be an object"),
            _ => {}
        }
    }

    /// Checks a token of a member's `entity` (depth 4).
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
            (ElementField::Reference, _) => self.report_reference(),
            (ElementField::Identifier, JsonToken::Object) => self.member.identifier_is_object = true,
            (ElementField::Identifier, _) => self.report_identifier(),
            _ => {}
        }
    }

    /// Checks the text of an `entity.reference`.
    fn reference(&mut self, text: TokenText<'_>) {
        let Some(text) = text.get() else {
            return self.report(IssueCode::Structure, ".entity.reference", "is longer than any that is looked at");
        };
        if text.is_empty() || text.contains(char::is_whitespace) {
            return self.report_reference();
        }
        let is_patient = |text| Reference::parse(text).is_some_and(|of| of.resource_type == ResourceType::PATIENT);
        if self.rules.content == GroupContent::Patients && !is_patient(&text) {
            let text = "is no reference to a Patient; only Patients can be members here, such as Patient/123";
            self.report(IssueCode::BusinessRule, ".entity.reference", text);
        }
    }

    /// Reports an `entity.reference` that is no reference.
    fn report_reference(&mut self) {
        let text = "must be a string without white space, such as Patient/123";
        self.report(IssueCode::Structure, ".entity.reference", text);
    }

    /// Reports an `entity.identifier` that is no object or has no value.
    fn report_identifier(&mut self) {
        self.report(IssueCode::Structure, ".entity.identifier", "must be an object with a value");
    }

    /// Checks a token of a member's `entity.identifier` (depth 5).
    fn in_identifier(&mut self, token: JsonToken<'_>) {
        match token {
            JsonToken::Key(name) => self.member.at_value = name.get().as_deref() == Some("value"),
            JsonToken::String(text) if self.member.at_value => {
                self.member.has_value = text.get().is_none_or(|text| !text.is_empty());
            }
            JsonToken::End => {
                self.member.identifier_is_object = false;
                if !self.member.has_value {
                    self.report_identifier();
                }
            }
            _ => {}
        }
    }

    /// Ends a member: it must name an entity, by reference or by identifier.
    fn end_member(&mut self) {
        let MemberState { entity, has_reference, has_identifier, .. } = self.member;
        match entity {
            None => self.report(IssueCode::Required, ".entity", "is missing; give a reference or an identifier"),
            Some(false) => {
                let text = "must be an object with a reference or an identifier";
                self.report(IssueCode::Structure, ".entity", text);
            }
            Some(true) if !has_reference && !has_identifier => {
                self.report(IssueCode::Required, ".entity", "has neither a reference nor an identifier");
            }
            Some(true) if !has_reference && self.rules.content == GroupContent::Patients => {
                let text = "has no reference; members are taken by reference only here, such as Patient/123";
                self.report(IssueCode::BusinessRule, ".entity", text);
            }
            Some(true) => {}
        }
        self.member.is_object = false;
    }

    /// Checks the Group as a whole, after its last token, and returns all violations; `bytes` is its compact size.
    fn finish(mut self, head: GroupHead, bytes: u64) -> Result<CheckedGroup, Vec<RuleViolation>> {
        self.check_names();
        self.check_values(&head);
        let problems = &mut self.problems;
        if let Some(max) = self.rules.members_max.filter(|max| self.members > *max) {
            let text = format!("the Group has {}; at most {max} may be there", counted(self.members, "member"));
            problems.push_last(IssueCode::TooLong, "Group.member", text);
        }
        if let Some(max) = self.rules.bytes_max.filter(|max| bytes > *max && !self.references_only) {
            let text = format!(
                "the Group has {bytes} bytes without white space; where members say more than entity.reference at most \
                 {max} are taken: leave the rest out, or make two Groups"
            );
            problems.push_last(IssueCode::TooLong, "Group", text);
        }
        if bytes > ROW_BYTES_MAX {
            let text = format!("the Group has {bytes} bytes without white space; a row has at most {ROW_BYTES_MAX}");
            problems.push_last(IssueCode::TooLong, "Group", text);
        }
        match self.problems.into_violations() {
            none if none.is_empty() => Ok(CheckedGroup { head, bytes, references_only: self.references_only }),
            problems => Err(problems),
        }
    }

    /// Checks `resourceType` and `id` of the Group.
    fn check_names(&mut self) {
        let problems = &mut self.problems;
        match self.resource_type.as_deref() {
            Some("Group") => {}
            Some(_) => {
                let text = "resourceType is not Group; only Group resources are kept here";
                problems.push_last(IssueCode::Value, "Group.resourceType", text);
            }
            None => {
                let text = "resourceType is missing; it must be Group";
                problems.push_last(IssueCode::Required, "Group.resourceType", text);
            }
        }
        match (self.wanted, self.id.as_deref()) {
            (WantedId::Ignored, _) => {}
            (WantedId::Same(wanted), Some(own)) if own == wanted.as_str() => {}
            (WantedId::Same(wanted), Some(_)) => {
                let text = format!("Group.id is not the id of the URL, {wanted}; send the Group under its own URL");
                problems.push_last(IssueCode::Value, "Group.id", text);
            }
            (WantedId::Same(wanted), None) => {
                let text = format!("Group.id is missing; an update must have the id of the URL, {wanted}");
                problems.push_last(IssueCode::Required, "Group.id", text);
            }
            (WantedId::Own, Some(own)) if Id::parse_r4(own.as_bytes()).is_some() => {}
            (WantedId::Own, Some(_)) => {
                let text = "Group.id is no legal id; it is 1 to 64 letters, digits, '-' and '.'";
                problems.push_last(IssueCode::Value, "Group.id", text);
            }
            (WantedId::Own, None) => {
                let text = "Group.id is missing; a Group is asked for by its id";
                problems.push_last(IssueCode::Required, "Group.id", text);
            }
        }
    }

    /// Checks values of the Group that R4 or the rules require, and contradictions between them.
    fn check_values(&mut self, head: &GroupHead) {
        const TYPES: [&str; 6] = ["person", "animal", "practitioner", "device", "medication", "substance"];
        let content = self.rules.content;
        let is_evaluated = self.rules.filtered == FilteredGroups::Evaluated;
        let is_filtered = is_evaluated && !head.filters.is_empty();
        // Members of other types are no patients.
        let types = if content == GroupContent::R4 { &TYPES[..] } else { &TYPES[..2] };
        let problems = &mut self.problems;
        match &self.group_type {
            Some(Some(code)) if !code.trim().is_empty() && !types.contains(&&**code) => {
                let text = format!("Group.type must be one of {}", types.join(", "));
                problems.push_last(IssueCode::Value, "Group.type", text);
            }
            Some(_) => {}
            None => {
                let text = format!("Group.type is missing; it must be one of {}", types.join(", "));
                problems.push_last(IssueCode::Required, "Group.type", text);
            }
        }
        match self.actual {
            // The problems of a filtered Group are added below.
            _ if is_filtered => {}
            Some(Some(false)) if self.members > 0 => {
                let text = "Group.actual is false, and such a Group has no members (R4, grp-1); give actual true";
                problems.push_last(IssueCode::Invalid, "Group.member", text);
            }
            Some(Some(false)) if content == GroupContent::Patients => {
                let text = "Group.actual is false; a Group that lists its members has true";
                problems.push_last(IssueCode::BusinessRule, "Group.actual", text);
            }
            Some(_) => {}
            None => {
                let text = "Group.actual is missing; give true for a Group that lists its members";
                problems.push_last(IssueCode::Required, "Group.actual", text);
            }
        }
        if content == GroupContent::Patients && self.members == 0 {
            let text = match self.has_member {
                true => "Group.member is empty; list at least one Patient",
                false => "Group.member is missing; list at least one Patient",
            };
            problems.push_last(IssueCode::Required, "Group.member", text);
        }
        let is_described = self.members == 0 || self.actual == Some(Some(false));
        if content >= GroupContent::Exportable && head.has_characteristic && is_described && !is_filtered {
            let text = "the Group is defined by characteristics, which are not evaluated; list its members";
            problems.push_last(IssueCode::BusinessRule, "Group.characteristic", text);
        }
        if is_filtered {
            for problem in head.filter_problems() {
                problems.push_last(problem.kind, &problem.path, problem.text);
            }
            if head.says_refreshed {
                let text =
                    "Group.extension has members-refreshed, but the members are found at each export; leave it out";
                problems.push_last(IssueCode::BusinessRule, "Group.extension", text);
            }
        }
        for modifier in head.modifiers.iter().filter(|of| !is_evaluated || !of.is_member_filter()) {
            let what =
                "changes the meaning of the Group and is not understood here; list the members that it leaves instead";
            problems.push_last(IssueCode::NotSupported, modifier.path, format!("{modifier} {what}"));
        }
    }
}
