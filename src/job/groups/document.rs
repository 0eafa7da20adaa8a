//! A Group as a client sends it: checked, and made the line that is kept.
//!
//! No tree is built of it, because a Group may have a million members. Of what the client wrote only `id`,
//! `meta.versionId` and `meta.lastUpdated` are replaced and white space between tokens dropped; every other token stays
//! byte for byte: digits of decimals, escapes, elements that R4 does not know, the order of keys.

use std::borrow::Cow;
use std::collections::HashSet;

use super::json::{Kind, Value, push_compact};
use crate::bytes::kernels::Kernel;
use crate::extract::group::{GroupReader, Member};
use crate::extract::{Fault, FaultKind};
use crate::fhir::{Id, Instant};
use crate::limits::GROUP_PROBLEMS_MAX;

/// What kind of thing is wrong with a document or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It cannot be read as what it should be.
    Structure,
    /// Something that must be there is not.
    Required,
    /// A value is not among those allowed.
    Value,
    /// Two elements contradict each other.
    Invariant,
    /// It is larger than allowed.
    TooLong,
    /// It is not known or not done here.
    NotSupported,
}

/// Something wrong with a document or a question, without any of its content but ids and codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// The element or parameter, as a FHIRPath where it is an element.
    pub expression: Option<String>,
    /// What is wrong, and what to do.
    pub text: String,
}

/// The id that a document must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedId<'a> {
    /// The server gives it one; its own is passed over.
    Ignored,
    /// It must be this one, that of the URL.
    Same(&'a Id),
}

/// What a door allows. Without a bound, the size of the body that the server takes is the only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Most bytes of the Group without white space between its tokens.
    pub bytes_max: Option<u64>,
    /// Most members.
    pub members_max: Option<u64>,
}

/// Longest name of an element that a problem repeats, in characters.
const ELEMENT_CHARS_MAX: usize = 64;

/// A Group that may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    root: Value<'a>,
}

impl<'a> Document<'a> {
    /// Checks a body.
    ///
    /// # Errors
    /// Everything that is wrong with it, at most [`GROUP_PROBLEMS_MAX`] problems and one more that counts the others.
    pub fn check(body: &'a [u8], id: WantedId<'_>, limits: &DocumentLimits) -> Result<Document<'a>, Vec<Problem>> {
        let mut problems = Problems::default();
        if let Err(fault) = read(body) {
            let (line, column) = place(body, fault.at);
            let text = match fault.kind {
                FaultKind::DuplicateKey => {
                    "a key stands twice in one object; parsers disagree on which one holds".to_string()
                }
                FaultKind::NotObject => "the body is no JSON object; send one Group resource".to_string(),
                FaultKind::Trailing => "something follows the Group; send one Group resource".to_string(),
                FaultKind::Truncated => "the body ends inside its resource; send it as a whole".to_string(),
                FaultKind::Utf8 => "the body is not UTF-8; convert it".to_string(),
                FaultKind::Bom => "the body begins with a byte order mark; remove it".to_string(),
                kind => kind.to_string(),
            };
            problems.push(ProblemKind::Structure, None, || format!("body: line {line}, column {column}: {text}"));
            return Err(problems.all());
        }
        let root = Value::of(body);
        check_root(root, id, limits, &mut problems);
        if let Some(max) = limits.bytes_max {
            let mut compact = Vec::new();
            push_compact(root.bytes(), &mut compact);
            if compact.len() as u64 > max {
                let text =
                    || format!("the Group has {} bytes without white space; at most {max} are taken", compact.len());
                problems.push(ProblemKind::TooLong, Some("Group"), text);
            }
        }
        match problems.all() {
            none if none.is_empty() => Ok(Document { root }),
            problems => Err(problems),
        }
    }

    /// The line that is kept, without its newline.
    pub fn stamp(&self, id: &Id, version: u64, at: &Instant) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.root.bytes().len() + 128);
        line.extend_from_slice(
            format!(r#"{{"resourceType":"Group","id":"{id}","meta":{{"versionId":"{version}","lastUpdated":"{at}""#)
                .as_bytes(),
        );
        for (_, meta) in self.root.members().filter(|(member, _)| member.name() == "meta") {
            // What says more of the two values replaced goes with them.
            push_others(meta, &["versionId", "lastUpdated", "_versionId", "_lastUpdated"], &mut line);
        }
        line.push(b'}');
        push_others(self.root, &["resourceType", "id", "meta"], &mut line);
        line.push(b'}');
        line
    }
}

/// Appends the members of an object but for those replaced.
fn push_others(object: Value<'_>, replaced: &[&str], line: &mut Vec<u8>) {
    for (member, value) in object.members().filter(|(member, _)| !replaced.contains(&&*member.name())) {
        line.push(b',');
        line.extend_from_slice(member.bytes());
        line.push(b':');
        push_compact(value.bytes(), line);
    }
}

/// The full grammar, UTF-8, and keys that decide membership given once: as a Group is read when it is exported.
fn read(body: &[u8]) -> Result<(), Fault> {
    let mut on_member = |_: &Member<'_>| {};
    let mut reader = GroupReader::new(Kernel::detect(), &mut on_member);
    reader.begin();
    reader.feed(body);
    reader.finish().map(drop)
}

/// Line and column (in bytes), both from 1, of an offset.
fn place(body: &[u8], offset: u64) -> (usize, usize) {
    let before = &body[..body.len().min(offset as usize)];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    (memchr::memchr_iter(b'\n', before).count() + 1, before.len() - line_start + 1)
}

#[derive(Default)]
struct Problems {
    kept: Vec<Problem>,
    more: usize,
}

impl Problems {
    fn push(&mut self, kind: ProblemKind, expression: Option<&str>, text: impl FnOnce() -> String) {
        if self.kept.len() == GROUP_PROBLEMS_MAX {
            self.more += 1;
            return;
        }
        self.kept.push(Problem { kind, expression: expression.map(str::to_string), text: text() });
    }

    fn all(mut self) -> Vec<Problem> {
        if self.more > 0 {
            let text = format!("{} more problems of this Group are not listed", self.more);
            self.kept.push(Problem { kind: ProblemKind::Structure, expression: None, text });
        }
        self.kept
    }
}

/// What an element of R4's Group must be (<https://hl7.org/fhir/R4/group.html>). Elements that are not listed are kept
/// unseen: extensions, narrative, what later versions add.
const SHAPES: [(&str, Shape); 13] = [
    ("active", Shape::Bool),
    ("actual", Shape::Bool),
    ("characteristic", Shape::Objects),
    ("code", Shape::Object),
    ("contained", Shape::Objects),
    ("extension", Shape::Objects),
    ("identifier", Shape::Objects),
    ("managingEntity", Shape::Object),
    ("member", Shape::Objects),
    ("meta", Shape::Object),
    ("name", Shape::Text),
    ("quantity", Shape::Number),
    ("type", Shape::Text),
];

#[derive(Clone, Copy)]
enum Shape {
    Bool,
    Number,
    Object,
    Objects,
    Text,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Bool => "true or false",
            Shape::Number => "a number",
            Shape::Object => "an object",
            Shape::Objects => "an array of objects",
            Shape::Text => "a string that is not empty",
        }
    }

    fn fits(self, value: Value<'_>) -> bool {
        match self {
            Shape::Bool => matches!(value.kind(), Kind::Bool(_)),
            Shape::Number => value.kind() == Kind::Number,
            Shape::Object => value.kind() == Kind::Object,
            // What stands in it is told one by one where it is looked at.
            Shape::Objects => value.kind() == Kind::Array,
            Shape::Text => value.text().is_some_and(|text| !text.trim().is_empty()),
        }
    }
}

fn check_root(root: Value<'_>, id: WantedId<'_>, limits: &DocumentLimits, problems: &mut Problems) {
    let mut seen: HashSet<Cow<'_, str>> = HashSet::new();
    let (mut resource_type, mut own_id, mut group_type, mut actual, mut members) = (None, None, None, None, 0u64);
    for (member, value) in root.members() {
        let name = member.name();
        // A key of any length may stand there.
        let path = format!("Group.{}", name.chars().take(ELEMENT_CHARS_MAX).collect::<String>());
        match &*name {
            "resourceType" => resource_type = value.text(),
            "id" => own_id = Some(value.text().unwrap_or_default()),
            "type" => group_type = Some(value.text()),
            "actual" => actual = Some(value.kind()),
            _ => {}
        }
        if let Some((_, shape)) = SHAPES.iter().find(|(known, _)| *known == name) {
            if !shape.fits(value) {
                problems.push(ProblemKind::Structure, Some(&path), || format!("{path} must be {}", shape.name()));
            } else if name == "member" {
                members = check_members(value, problems);
            } else if let Shape::Objects = shape {
                for (at, _) in value.elements().enumerate().filter(|(_, element)| element.kind() != Kind::Object) {
                    let path = format!("{path}[{at}]");
                    problems.push(ProblemKind::Structure, Some(&path), || format!("{path} must be an object"));
                }
            }
        }
        if !seen.insert(name) {
            problems.push(ProblemKind::Structure, Some(&path), || {
                format!("{path} stands twice; parsers disagree on which one holds")
            });
        }
    }
    match resource_type.as_deref() {
        Some("Group") => {}
        Some(_) => problems.push(ProblemKind::Value, Some("Group.resourceType"), || {
            "resourceType is not Group; only Group resources are kept here".into()
        }),
        None => problems.push(ProblemKind::Required, Some("Group.resourceType"), || {
            "resourceType is missing; it must be Group".into()
        }),
    }
    if let WantedId::Same(wanted) = id {
        match own_id {
            Some(own) if own == wanted.as_str() => {}
            Some(_) => problems.push(ProblemKind::Value, Some("Group.id"), || {
                format!("Group.id is not the id of the URL, {wanted}; send the Group under its own URL")
            }),
            None => problems.push(ProblemKind::Required, Some("Group.id"), || {
                format!("Group.id is missing; an update must have the id of the URL, {wanted}")
            }),
        }
    }
    const TYPES: [&str; 6] = ["person", "animal", "practitioner", "device", "medication", "substance"];
    match group_type {
        Some(Some(code)) if !code.trim().is_empty() && !TYPES.contains(&&*code) => {
            problems.push(ProblemKind::Value, Some("Group.type"), || {
                format!("Group.type must be one of {}", TYPES.join(", "))
            });
        }
        // Another shape has been told.
        Some(_) => {}
        None => problems.push(ProblemKind::Required, Some("Group.type"), || {
            format!("Group.type is missing; it must be one of {}", TYPES.join(", "))
        }),
    }
    match actual {
        Some(Kind::Bool(false)) if members > 0 => {
            problems.push(ProblemKind::Invariant, Some("Group.member"), || {
                "Group.actual is false, and such a Group has no members (R4, grp-1); give actual true".into()
            });
        }
        Some(_) => {}
        None => problems.push(ProblemKind::Required, Some("Group.actual"), || {
            "Group.actual is missing; give true for a Group that lists its members".into()
        }),
    }
    if let Some(max) = limits.members_max.filter(|max| members > *max) {
        problems.push(ProblemKind::TooLong, Some("Group.member"), || {
            format!("the Group has {members} members; at most {max} are taken")
        });
    }
}

/// Each member names an entity, by reference or by identifier. Their number.
fn check_members(list: Value<'_>, problems: &mut Problems) -> u64 {
    let mut count = 0u64;
    for (at, member) in list.elements().enumerate() {
        count += 1;
        let mut wrong = |kind, below: &str, what: &str| {
            let path = format!("Group.member[{at}]{below}");
            problems.push(kind, Some(&path), || format!("{path} {what}"));
        };
        if member.kind() != Kind::Object {
            wrong(ProblemKind::Structure, "", "must be an object with an entity");
            continue;
        }
        let mut entity = None;
        for (name, value) in member.members() {
            match (&*name.name(), value.kind()) {
                ("entity", Kind::Object) => entity = Some(Some(value)),
                ("entity", _) => entity = Some(None),
                ("inactive", Kind::Bool(_)) | ("period", Kind::Object) => {}
                ("inactive", _) => wrong(ProblemKind::Structure, ".inactive", "must be true or false"),
                ("period", _) => wrong(ProblemKind::Structure, ".period", "must be an object"),
                _ => {}
            }
        }
        let Some(entity) = entity else {
            wrong(ProblemKind::Required, ".entity", "is missing; give a reference or an identifier");
            continue;
        };
        let Some(entity) = entity else {
            wrong(ProblemKind::Structure, ".entity", "must be an object with a reference or an identifier");
            continue;
        };
        let mut named = false;
        for (name, value) in entity.members() {
            match &*name.name() {
                "reference" => {
                    named = true;
                    let fits = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
                    if !value.text().is_some_and(|text| fits(&text)) {
                        let what = "must be a string without white space, such as Patient/123";
                        wrong(ProblemKind::Structure, ".entity.reference", what);
                    }
                }
                "identifier" => {
                    named = true;
                    let has = |(name, of): (super::json::Member<'_>, Value<'_>)| {
                        name.name() == "value" && of.text().is_some_and(|text| !text.is_empty())
                    };
                    if !value.members().any(has) {
                        wrong(ProblemKind::Structure, ".entity.identifier", "must be an object with a value");
                    }
                }
                _ => {}
            }
        }
        if !named {
            wrong(ProblemKind::Required, ".entity", "has neither a reference nor an identifier");
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(body: &str, id: WantedId<'_>, limits: &DocumentLimits) -> Vec<(ProblemKind, String)> {
        let found = Document::check(body.as_bytes(), id, limits).err().unwrap_or_default();
        found.into_iter().map(|problem| (problem.kind, problem.expression.unwrap_or(problem.text))).collect()
    }

    /// CORE-06: what is no JSON is told with its line and column.
    #[test]
    fn text_that_is_no_json_is_told_by_place() {
        for (body, expected) in [
            ("", "body: line 1, column 1"),
            ("[]", "body: line 1, column 1"),
            ("{\n  \"a\": tru\n}", "body: line 2, column 11"),
            ("{\"resourceType\":\"Group\"}\n{}", "body: line 2, column 1"),
            ("\u{feff}{}", "body: line 1, column 1"),
            (r#"{"type":"person","type":"person"}"#, "body: line 1, column "),
        ] {
            let found = problems(body, WantedId::Ignored, &DocumentLimits::default());
            let [(ProblemKind::Structure, text)] = found.as_slice() else { panic!("{body}: {found:?}") };
            assert!(text.starts_with(expected), "{body:?}: {text}");
        }
    }

    /// CORE-04: every problem of a document is told at once, each with its place, none with its content.
    #[test]
    fn every_problem_is_told_at_once() {
        let id = Id::parse(b"g").unwrap();
        let body = r#"{"resourceType":"Patient","id":"secret-1","actual":"yes","name":"  ","quantity":"5","identifier":{},"note":1,"note":2,
            "member":["secret-2",{},{"entity":"secret-3"},{"entity":{}},{"entity":{"reference":"a b"}},{"entity":{"identifier":{"system":"secret-4"}}},
            {"entity":{"reference":"Patient/a"},"inactive":1,"period":[]},{"entity":{"identifier":{"value":"v"}}}],"extension":[5]}"#;
        let all = [
            (ProblemKind::Structure, "Group.actual"),
            (ProblemKind::Structure, "Group.name"),
            (ProblemKind::Structure, "Group.quantity"),
            (ProblemKind::Structure, "Group.identifier"),
            (ProblemKind::Structure, "Group.note"),
            (ProblemKind::Structure, "Group.member[0]"),
            (ProblemKind::Required, "Group.member[1].entity"),
            (ProblemKind::Structure, "Group.member[2].entity"),
            (ProblemKind::Required, "Group.member[3].entity"),
            (ProblemKind::Structure, "Group.member[4].entity.reference"),
            (ProblemKind::Structure, "Group.member[5].entity.identifier"),
            (ProblemKind::Structure, "Group.member[6].inactive"),
            (ProblemKind::Structure, "Group.member[6].period"),
            (ProblemKind::Structure, "Group.extension[0]"),
            (ProblemKind::Value, "Group.resourceType"),
            (ProblemKind::Value, "Group.id"),
            (ProblemKind::Required, "Group.type"),
        ];
        let found = problems(body, WantedId::Same(&id), &DocumentLimits::default());
        assert_eq!(found, all.map(|(kind, path)| (kind, path.to_string())));
        let texts = Document::check(body.as_bytes(), WantedId::Same(&id), &DocumentLimits::default()).unwrap_err();
        assert!(texts.iter().all(|problem| !problem.text.contains("secret")), "{texts:?}");
    }

    #[test]
    fn what_r4_requires() {
        let limits = DocumentLimits::default();
        let found = |body: &str| problems(body, WantedId::Ignored, &limits);
        let one = |kind, path: &str| vec![(kind, path.to_string())];
        assert_eq!(found(r#"{"resourceType":"Group","type":"person","actual":true,"member":[]}"#), []);
        assert_eq!(found(r#"{"resourceType":"Group","type":"person"}"#), one(ProblemKind::Required, "Group.actual"));
        assert_eq!(
            found(r#"{"resourceType":"Group","type":"people","actual":true}"#),
            one(ProblemKind::Value, "Group.type")
        );
        assert_eq!(
            found(
                r#"{"resourceType":"Group","type":"person","actual":false,"member":[{"entity":{"reference":"Patient/a"}}]}"#
            ),
            one(ProblemKind::Invariant, "Group.member")
        );
        assert_eq!(
            problems(
                r#"{"resourceType":"Group","type":"person","actual":true}"#,
                WantedId::Same(&Id::parse(b"g").unwrap()),
                &limits
            ),
            one(ProblemKind::Required, "Group.id")
        );
    }

    /// Limits are the door's: bytes are counted without white space, members one by one, both exactly.
    #[test]
    fn limits_hold_to_the_byte() {
        let body = r#"{ "resourceType":"Group", "type":"person", "actual":true, "member":[{"entity":{"reference":"Patient/a"}}]}"#;
        let bytes = body.replace(' ', "").len() as u64;
        let limits = |bytes: u64, members: u64| DocumentLimits { bytes_max: Some(bytes), members_max: Some(members) };
        let found = |limits| problems(body, WantedId::Ignored, &limits);
        assert_eq!(found(limits(bytes, 1)), []);
        assert_eq!(found(limits(bytes - 1, 1)), [(ProblemKind::TooLong, "Group".to_string())]);
        assert_eq!(found(limits(bytes, 0)), [(ProblemKind::TooLong, "Group.member".to_string())]);
    }

    /// A list with a million wrong members makes a bounded answer.
    #[test]
    fn problems_are_bounded() {
        let members = vec!["{}"; 5000].join(",");
        let body = format!(r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{members}]}}"#);
        let found = problems(&body, WantedId::Ignored, &DocumentLimits::default());
        assert_eq!(found.len(), GROUP_PROBLEMS_MAX + 1);
        assert_eq!(found[GROUP_PROBLEMS_MAX].1, "4900 more problems of this Group are not listed");
    }
}
