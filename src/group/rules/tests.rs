//! Tests of the rules for Groups: R4's, 1upHealth's with their bounds to the byte, and all of them compared with an
//! oracle that walks a tree of serde_json's.

mod filters;

use proptest::prelude::*;
use serde_json::{Value as Tree, json};

use super::*;
use crate::issue::IssueCode;
use crate::limits::GROUP_PROBLEMS_MAX;

fn cut(body: &[u8], piece: usize, id: WantedId<'_>, rules: &GroupRules) -> Result<CheckedGroup, Vec<RuleViolation>> {
    let mut on_member = |_: &GroupMember<'_>| {};
    let mut check = GroupCheck::new(*rules, id, &mut on_member);
    body.chunks(piece).for_each(|piece| check.feed(piece));
    check.finish()
}

/// The same however the text is cut.
fn checked(body: &str, id: WantedId<'_>, rules: &GroupRules) -> Result<CheckedGroup, Vec<RuleViolation>> {
    let whole = cut(body.as_bytes(), usize::MAX, id, rules);
    // Long documents are cut at few places only: each piece has a cost.
    let pieces = if body.len() < 10_000 { &[1, 7, 64][..] } else { &[65_537][..] };
    // In which column an unreadable text is noticed depends on the cut.
    let reported = |found: &Result<CheckedGroup, Vec<RuleViolation>>| match found {
        Err(problems) if problems[0].text.starts_with("line ") => Err(Some(problems[0].kind)),
        Err(_) => Err(None),
        Ok(_) => Ok(()),
    };
    for piece in pieces {
        let found = cut(body.as_bytes(), *piece, id, rules);
        assert!(
            found == whole || reported(&found) == reported(&whole) && reported(&found) != Err(None),
            "pieces of {piece}"
        );
    }
    whole
}

fn problems(body: &str, id: WantedId<'_>, rules: &GroupRules) -> Vec<(IssueCode, String)> {
    let found = checked(body, id, rules).err().unwrap_or_default();
    found.into_iter().map(|problem| (problem.kind, problem.expression.unwrap_or(problem.text))).collect()
}

/// CORE-06: a text that is no JSON is reported with its line and column.
#[test]
fn text_that_is_no_json_is_told_by_place() {
    for (body, expected) in [
        ("", "line 1, column 1"),
        ("[]", "line 1, column 1"),
        ("{\n  \"a\": tru\n}", "line 2, column 11"),
        ("{\"resourceType\":\"Group\"}\n{}", "line 2, column 1"),
        (r#"{"type":"person","type":"person"}"#, "line 1, column "),
    ] {
        let found = problems(body, WantedId::Ignored, &GroupRules::default());
        let [(IssueCode::Structure, text)] = found.as_slice() else { panic!("{body}: {found:?}") };
        assert!(text.starts_with(expected), "{body:?}: {text}");
    }
}

/// A byte order mark is reported as one: who reads a document has passed over the one that it may begin with.
#[test]
fn a_byte_order_mark_is_told() {
    let found = cut("\u{feff}{}".as_bytes(), usize::MAX, WantedId::Ignored, &GroupRules::default()).unwrap_err();
    assert!(
        found[0].text.starts_with("line 1, column 1: a byte order mark stands where only the start of the text may"),
        "{found:?}"
    );
}

/// CORE-04: all problems of a document are reported together, each with its place, none with its content.
#[test]
fn every_problem_is_told_at_once() {
    let id = Id::parse(b"g").unwrap();
    let body = r#"{"resourceType":"Patient","id":"secret-1","actual":"yes","name":"  ","quantity":"5","identifier":{},"note":1,"note":2,
        "member":["secret-2",{},{"entity":"secret-3"},{"entity":{}},{"entity":{"reference":"a b"}},{"entity":{"identifier":{"system":"secret-4"}}},
        {"entity":{"reference":"Patient/a"},"inactive":1,"period":[]},{"entity":{"identifier":{"value":"v"}}}],"extension":[5]}"#;
    let all = [
        (IssueCode::Structure, "Group.actual"),
        (IssueCode::Structure, "Group.name"),
        (IssueCode::Structure, "Group.quantity"),
        (IssueCode::Structure, "Group.identifier"),
        (IssueCode::Structure, "Group.note"),
        (IssueCode::Structure, "Group.member[0]"),
        (IssueCode::Required, "Group.member[1].entity"),
        (IssueCode::Structure, "Group.member[2].entity"),
        (IssueCode::Required, "Group.member[3].entity"),
        (IssueCode::Structure, "Group.member[4].entity.reference"),
        (IssueCode::Structure, "Group.member[5].entity.identifier"),
        (IssueCode::Structure, "Group.member[6].inactive"),
        (IssueCode::Structure, "Group.member[6].period"),
        (IssueCode::Structure, "Group.extension[0]"),
        (IssueCode::Value, "Group.resourceType"),
        (IssueCode::Value, "Group.id"),
        (IssueCode::Required, "Group.type"),
    ];
    let found = problems(body, WantedId::Same(&id), &GroupRules::default());
    assert_eq!(found, all.map(|(kind, path)| (kind, path.to_string())));
    let texts = checked(body, WantedId::Same(&id), &GroupRules::default()).unwrap_err();
    assert!(texts.iter().all(|problem| !problem.text.contains("secret")), "{texts:?}");
}

#[test]
fn what_r4_requires() {
    let limits = GroupRules::default();
    let found = |body: &str| problems(body, WantedId::Ignored, &limits);
    let one = |kind, path: &str| vec![(kind, path.to_string())];
    assert_eq!(found(r#"{"resourceType":"Group","type":"person","actual":true,"member":[]}"#), []);
    assert_eq!(found(r#"{"resourceType":"Group","type":"person"}"#), one(IssueCode::Required, "Group.actual"));
    assert_eq!(found(r#"{"resourceType":"Group","type":"people","actual":true}"#), one(IssueCode::Value, "Group.type"));
    assert_eq!(
        found(
            r#"{"resourceType":"Group","type":"person","actual":false,"member":[{"entity":{"reference":"Patient/a"}}]}"#
        ),
        one(IssueCode::Invalid, "Group.member")
    );
    assert_eq!(
        problems(
            r#"{"resourceType":"Group","type":"person","actual":true}"#,
            WantedId::Same(&Id::parse(b"g").unwrap()),
            &limits
        ),
        one(IssueCode::Required, "Group.id")
    );
}

/// A list with a million wrong members makes a bounded answer.
#[test]
fn problems_are_bounded() {
    let members = vec!["{}"; 5000].join(",");
    let body = format!(r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{members}]}}"#);
    let found = problems(&body, WantedId::Ignored, &GroupRules::default());
    assert_eq!(found.len(), GROUP_PROBLEMS_MAX + 1);
    assert_eq!(found[GROUP_PROBLEMS_MAX].1, "4900 more problems of this Group are not listed");
}

/// The line and column are those of the text, however it was cut.
#[test]
fn places_do_not_depend_on_pieces() {
    let text = "{\n \"resourceType\": \"Group\",\n \"name\": \"é\",\n  \"name\": \"b\", \"x\": [1,\n 02]}\n";
    let found = problems(text, WantedId::Ignored, &GroupRules::default());
    assert!(found[0].1.starts_with("line 5, column 3:"), "{found:?}");
    let bad = [&b"{\n \"name\": \"a\xe2\x82"[..], b"x\"\n}\n"].concat();
    for piece in 1..=bad.len() {
        // Where in the character it is noticed depends on the cut; the line does not.
        let found = cut(&bad, piece, WantedId::Own, &GroupRules::oneup()).unwrap_err();
        assert!(found[0].text.starts_with("line 2, column 1"), "pieces of {piece}: {found:?}");
    }
}

const UUID: &str = "58c297c4-d684-4677-8024-01131d93835e";

/// A Group of so many members, each of which says `more` beside its reference.
fn group(members: usize, more: &str) -> String {
    let list: Vec<String> = (0..members)
        .map(|offset| format!(r#"{{"entity":{{"reference":"Patient/{:08x}{}"}}{more}}}"#, offset, &UUID[8..]))
        .collect();
    format!(r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{}]}}"#, list.join(","))
}

/// The same, padded by the name of the Group to so many bytes.
fn group_of_bytes(bytes: u64, more: &str) -> String {
    let base = group(2000, more);
    let name = "x".repeat(bytes as usize - base.len() - r#","name":"""#.len());
    let padded = base.replacen(r#","actual""#, &format!(r#","name":"{name}","actual""#), 1);
    assert_eq!(padded.len() as u64, bytes);
    padded
}

#[track_caller]
fn too_long(body: &str, rules: &GroupRules, numbers: &[u64]) {
    let found = checked(body, WantedId::Ignored, rules).unwrap_err();
    let [RuleViolation { kind: IssueCode::TooLong, text, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert!(numbers.iter().all(|number| text.contains(&number.to_string())), "{text}");
}

#[track_caller]
fn taken(body: &str, rules: &GroupRules) {
    assert_eq!(problems(body, WantedId::Ignored, rules), []);
}

/// ONEUP-G02: 10,000 members are taken, one more is refused with both numbers; the bound can be moved. ONEUP-G08: R4's
/// rules alone have none.
#[test]
fn members_are_bounded() {
    let oneup = GroupRules::oneup();
    taken(&group(10_000, ""), &oneup);
    too_long(&group(10_001, ""), &oneup, &[10_001, 10_000]);
    taken(&group(10_001, ""), &GroupRules { members_max: Some(10_001), ..oneup });
    too_long(&group(3, ""), &GroupRules { members_max: Some(2), ..oneup }, &[3, 2]);
    taken(&group(50_000, r#","inactive":true"#), &GroupRules::default());
}

/// ONEUP-G03, ONEUP-G04, C-11: 409,600 bytes are taken and one more is not, where a member says more than its
/// reference; 10,000 UUIDs, some 720 KB, are taken. White space does not count.
#[test]
fn bytes_are_bounded_where_members_say_more() {
    let oneup = GroupRules::oneup();
    let more = r#","inactive":false"#;
    taken(&group_of_bytes(409_600, more), &oneup);
    too_long(&group_of_bytes(409_601, more), &oneup, &[409_601, 409_600]);
    taken(&group_of_bytes(409_601, more), &GroupRules { bytes_max: Some(409_601), ..oneup });
    taken(&group_of_bytes(409_601, ""), &oneup);
    let references = group(10_000, "");
    assert!((700_000..740_000).contains(&references.len()), "{}", references.len());
    taken(&references, &oneup);
    let tree: Tree = serde_json::from_str(&group_of_bytes(409_600, more)).unwrap();
    let pretty = serde_json::to_string_pretty(&tree).unwrap() + "\n\t\r\n ";
    assert!(pretty.len() > 450_000, "{}", pretty.len());
    assert_eq!(checked(&pretty, WantedId::Ignored, &oneup).unwrap().bytes, 409_600);
}

/// ONEUP-G04: few or many members, with or without more than a reference; what counts as more.
#[test]
fn what_is_more_than_a_reference() {
    let rules = GroupRules { members_max: Some(3), bytes_max: Some(250), ..GroupRules::oneup() };
    let (plain, more) = (group(3, ""), group(3, r#","inactive":true"#));
    assert!(plain.len() > 250);
    taken(&plain, &rules);
    too_long(&more, &rules, &[more.len() as u64, 250]);
    taken(&group(1, r#","inactive":true"#), &rules);
    let both = problems(&group(4, r#","inactive":true"#), WantedId::Ignored, &rules);
    assert_eq!(both.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [IssueCode::TooLong; 2]);
    // One member of three decides, wherever it says more.
    for with in [
        r#"{"entity":{"reference":"Patient/a"},"period":{"end":"2020"}}"#,
        r#"{"entity":{"reference":"Patient/a"},"extension":[]}"#,
        r#"{"entity":{"reference":"Patient/a"},"id":"x"}"#,
        r#"{"entity":{"reference":"Patient/a"},"_inactive":{}}"#,
        r#"{"entity":{"display":"x","reference":"Patient/a"}}"#,
        r#"{"entity":{"reference":"Patient/a","type":"Patient"}}"#,
        r#"{"entity":{"reference":"Patient/a","_reference":{"id":"x"}}}"#,
        r#"{"entity":{"reference":"Patient/a","identifier":{"value":"x"}}}"#,
    ] {
        let text = plain.replacen("\"member\":[", &format!("\"member\":[{with},"), 1);
        let rules = GroupRules { members_max: Some(4), ..rules };
        too_long(&text, &rules, &[text.len() as u64, 250]);
        assert_eq!(
            checked(&text, WantedId::Ignored, &GroupRules::oneup()).map(|found| found.references_only),
            Ok(false)
        );
    }
    let escaped = plain.replacen("entity", "\\u0065ntity", 1).replacen("reference", "referenc\\u0065", 1);
    assert_eq!(checked(&escaped, WantedId::Ignored, &rules).map(|found| found.references_only), Ok(true));
}

/// ONEUP-G06: every member is a reference to a Patient, in any of R4's forms; another is reported with its path. `type`
/// and `actual` must be there, and so must members.
#[test]
fn members_are_patients() {
    let oneup = GroupRules::oneup();
    let one = |member: &str| {
        format!(
            r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{{"entity":{{"reference":"Patient/a"}}}},{member}]}}"#
        )
    };
    for reference in ["Patient/b", "https://a.example/fhir/Patient/b", "Patient/b/_history/2", "Patient\\/b"] {
        taken(&one(&format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#)), &oneup);
    }
    taken(&one(r#"{"entity":{"reference":"Patient/b","identifier":{"value":"v"}}}"#), &oneup);
    for reference in
        ["Practitioner/b", "Group/b", "urn:uuid:58c297c4-d684-4677-8024-01131d93835e", "b", "Patient/", "#p"]
    {
        let body = one(&format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#));
        let expected = [(IssueCode::BusinessRule, "Group.member[1].entity.reference".to_string())];
        assert_eq!(problems(&body, WantedId::Ignored, &oneup), expected, "{reference}");
        taken(&body, &GroupRules::default());
    }
    let body = one(r#"{"entity":{"identifier":{"value":"v"}}}"#);
    let expected = [(IssueCode::BusinessRule, "Group.member[1].entity".to_string())];
    assert_eq!(problems(&body, WantedId::Ignored, &oneup), expected);
    let member = r#""member":[{"entity":{"reference":"Patient/a"}}]"#;
    for (text, kind, place) in [
        (format!(r#""actual":true,{member}"#), IssueCode::Required, "Group.type"),
        (format!(r#""type":"person",{member}"#), IssueCode::Required, "Group.actual"),
        (format!(r#""type":"practitioner","actual":true,{member}"#), IssueCode::Value, "Group.type"),
        (format!(r#""type":"person","actual":false,{member}"#), IssueCode::Invalid, "Group.member"),
        (r#""type":"person","actual":true"#.to_string(), IssueCode::Required, "Group.member"),
        (r#""type":"person","actual":true,"member":[]"#.to_string(), IssueCode::Required, "Group.member"),
        (r#""type":"animal","actual":true,"member":null"#.to_string(), IssueCode::Structure, "Group.member"),
    ] {
        let found = problems(&format!(r#"{{"resourceType":"Group",{text}}}"#), WantedId::Ignored, &oneup);
        assert_eq!(found[0], (kind, place.to_string()), "{text}");
    }
}

/// A violated bound is reported however many members are wrong.
#[test]
fn a_bound_is_not_hidden_by_other_problems() {
    let found = problems(&group(10_001, "").replace("Patient/", "Device/"), WantedId::Ignored, &GroupRules::oneup());
    assert_eq!(found.len(), GROUP_PROBLEMS_MAX + 2);
    assert!(found.contains(&(IssueCode::TooLong, "Group.member".to_string())));
}

/// Names and number of elements are bounded, so that no text takes more memory than that.
#[test]
fn elements_are_bounded() {
    let many: String = (0..GROUP_ELEMENTS_MAX).map(|offset| format!(r#","e{offset}":0"#)).collect();
    let body = format!(r#"{{"resourceType":"Group","type":"person","actual":true{many}}}"#);
    assert_eq!(problems(&body, WantedId::Ignored, &GroupRules::default()).len(), 3);
    let body = format!(r#"{{"resourceType":"Group","type":"person","actual":true,"{}":0}}"#, "x".repeat(5000));
    assert_eq!(
        problems(&body, WantedId::Ignored, &GroupRules::default()),
        [(IssueCode::Structure, "Group".to_string())]
    );
}

/// What the rules say, by the tree.
fn naive(tree: &Tree, bytes: usize, rules: &GroupRules) -> Vec<(IssueCode, String)> {
    use IssueCode::{BusinessRule, Invalid, NotSupported, Required, Structure, TooLong, Value};
    let mut found = Vec::new();
    let root = tree.as_object().unwrap();
    let patients = rules.content == GroupContent::Patients;
    for (name, value) in root {
        let shape = SHAPES.iter().find(|(known, _)| known == name).map(|(_, shape)| *shape);
        let fits = match shape {
            None => true,
            Some(ElementShape::Bool) => value.is_boolean(),
            Some(ElementShape::Number) => value.is_number(),
            Some(ElementShape::Object) => value.is_object(),
            Some(ElementShape::Objects) => value.is_array(),
            Some(ElementShape::Text) => value.as_str().is_some_and(|text| !text.trim().is_empty()),
        };
        if !fits {
            found.push((Structure, format!("Group.{name}")));
        } else if shape == Some(ElementShape::Objects) {
            for (index, item) in value.as_array().unwrap().iter().enumerate().filter(|(_, item)| !item.is_object()) {
                found.push((Structure, format!("Group.{name}[{index}]")));
                assert!(!item.is_object());
            }
        }
    }
    let none = Vec::new();
    let members = tree["member"].as_array().unwrap_or(&none);
    let mut plain = true;
    for (i, member) in members.iter().enumerate().filter(|(_, member)| member.is_object()) {
        let path = format!("Group.member[{i}]");
        plain &= member.as_object().unwrap().keys().all(|name| name == "entity");
        if member.get("inactive").is_some_and(|value| !value.is_boolean()) {
            found.push((Structure, format!("{path}.inactive")));
        }
        if member.get("period").is_some_and(|value| !value.is_object()) {
            found.push((Structure, format!("{path}.period")));
        }
        let Some(entity) = member.get("entity") else {
            found.push((Required, format!("{path}.entity")));
            continue;
        };
        let Some(fields) = entity.as_object() else {
            found.push((Structure, format!("{path}.entity")));
            continue;
        };
        plain &= fields.keys().all(|name| name == "reference");
        match entity.get("reference").map(|reference| reference.as_str()) {
            Some(Some(text)) if !text.is_empty() && !text.contains(char::is_whitespace) => {
                let parsed = Reference::parse(text);
                if patients && parsed.is_none_or(|parsed| parsed.resource_type != ResourceType::PATIENT) {
                    found.push((BusinessRule, format!("{path}.entity.reference")));
                }
            }
            Some(_) => found.push((Structure, format!("{path}.entity.reference"))),
            None if entity.get("identifier").is_none() => found.push((Required, format!("{path}.entity"))),
            None if patients => found.push((BusinessRule, format!("{path}.entity"))),
            None => {}
        }
        let no_value = |of: &Tree| of["value"].as_str().is_none_or(str::is_empty);
        if entity.get("identifier").is_some_and(no_value) {
            found.push((Structure, format!("{path}.entity.identifier")));
        }
    }
    match tree.get("resourceType").and_then(Tree::as_str) {
        Some("Group") => {}
        Some(_) => found.push((Value, "Group.resourceType".into())),
        None => found.push((Required, "Group.resourceType".into())),
    }
    match tree.get("type") {
        None => found.push((Required, "Group.type".into())),
        Some(Tree::String(code)) if !code.trim().is_empty() => {
            let others = ["practitioner", "device", "medication", "substance"].contains(&&**code);
            if !(matches!(&**code, "person" | "animal") || others && rules.content == GroupContent::R4) {
                found.push((Value, "Group.type".into()));
            }
        }
        Some(_) => {}
    }
    match tree.get("actual") {
        None => found.push((Required, "Group.actual".into())),
        Some(Tree::Bool(false)) if !members.is_empty() => found.push((Invalid, "Group.member".into())),
        Some(Tree::Bool(false)) if patients => found.push((BusinessRule, "Group.actual".into())),
        Some(_) => {}
    }
    if patients && members.is_empty() {
        found.push((Required, "Group.member".into()));
    }
    let is_list = !members.is_empty() && tree["actual"] != false;
    if rules.content != GroupContent::R4
        && tree.get("characteristic").is_some_and(|of| of.is_array() || of.is_object())
        && !is_list
    {
        found.push((BusinessRule, "Group.characteristic".into()));
    }
    for path in naive_modifiers(tree) {
        found.push((NotSupported, path.to_string()));
    }
    if rules.members_max.is_some_and(|max| members.len() as u64 > max) {
        found.push((TooLong, "Group.member".into()));
    }
    if rules.bytes_max.is_some_and(|max| bytes as u64 > max) && !plain {
        found.push((TooLong, "Group".into()));
    }
    found.sort_by_key(|(kind, path)| (path.clone(), *kind as u8));
    found
}

/// What changes the meaning of a Group: the path of each, each path and URL once.
fn naive_modifiers(tree: &Tree) -> Vec<&'static str> {
    fn each(value: &Tree) -> Vec<&Tree> {
        match value {
            Tree::Array(items) => items.iter().flat_map(each).collect(),
            one => vec![one],
        }
    }
    let below = |of: &[&'static str]| {
        let mut position = vec![tree];
        for name in of {
            position = position.into_iter().filter_map(|value| value.get(name)).flat_map(each).collect();
        }
        position.into_iter().cloned().collect::<Vec<Tree>>()
    };
    let mut found = std::collections::BTreeSet::new();
    for (path, names) in [
        ("Group.modifierExtension", &["modifierExtension"][..]),
        ("Group.characteristic.modifierExtension", &["characteristic", "modifierExtension"]),
        ("Group.member.modifierExtension", &["member", "modifierExtension"]),
        ("Group.member.entity.modifierExtension", &["member", "entity", "modifierExtension"]),
    ] {
        let modifiers = below(names).into_iter().filter(|of| !of.is_null());
        found.extend(modifiers.map(|of| (path, of["url"].as_str().map(str::to_string))));
    }
    if let Some(rules) = tree.get("implicitRules").filter(|rules| !rules.is_null()) {
        found.insert(("Group.implicitRules", rules.as_str().map(str::to_string)));
    }
    let filter = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";
    if below(&["extension"]).iter().any(|of| of["url"] == filter) {
        found.insert(("Group.extension", Some(filter.to_string())));
    }
    found.into_iter().map(|(path, _)| path).collect()
}

/// Any value, often one of a kind that does not belong there.
fn stray() -> impl Strategy<Value = Tree> {
    prop_oneof![
        Just(Tree::Null),
        Just(json!(true)),
        Just(json!(7)),
        Just(json!("")),
        Just(json!(" ")),
        Just(json!("text\\\"\u{e9}")),
        Just(json!([])),
        Just(json!([{"value": "deep", "entity": {"reference": 1}}, [[{}]], 3])),
        Just(json!({"value": "v", "reference": "Patient/x", "member": [{"entity": 5}]})),
        Just(json!({})),
    ]
}

fn entity() -> impl Strategy<Value = Tree> {
    let reference = prop_oneof![
        8 => prop_oneof!["Patient/[a-c]", "https://a.example/r/Patient/[a-c](/_history/1)?"].prop_map(Tree::from),
        1 => "(Group|Device|Patient )/[a-c]".prop_map(Tree::from),
        1 => stray(),
    ];
    let identifier = prop_oneof![
        Just(json!({"system": "s", "value": "v"})),
        Just(json!({"system": "s", "assigner": {"value": "v"}})),
        Just(json!({"value": ""})),
        stray(),
    ];
    let more = ("(type|display|extension|_reference)", stray());
    (
        proptest::option::weighted(0.9, reference),
        proptest::option::weighted(0.2, identifier),
        proptest::option::weighted(0.2, more),
    )
        .prop_map(|(reference, identifier, more)| {
            let mut entity = serde_json::Map::new();
            entity.extend(identifier.map(|value| ("identifier".to_string(), value)));
            entity.extend(reference.map(|value| ("reference".to_string(), value)));
            entity.extend(more);
            Tree::Object(entity)
        })
}

fn member() -> impl Strategy<Value = Tree> {
    let entity = proptest::option::weighted(0.95, prop_oneof![9 => entity(), 1 => stray()]);
    let more = (
        "(inactive|period|extension|id|modifierExtension)",
        prop_oneof![Just(json!(true)), Just(json!({})), Just(json!([{"url": "https://a.example/not"}])), stray(),],
    );
    let object = (entity, proptest::collection::vec(more, 0..2)).prop_map(|(entity, more)| {
        let mut member = serde_json::Map::new();
        member.extend(more);
        member.extend(entity.map(|value| ("entity".to_string(), value)));
        Tree::Object(member)
    });
    prop_oneof![19 => object, 1 => stray()]
}

fn document() -> impl Strategy<Value = Tree> {
    let plain = "Patient/[a-c]".prop_map(|reference| json!({"entity": {"reference": reference}}));
    let members = prop_oneof![
        proptest::collection::vec(plain, 0..6).prop_map(Tree::Array),
        proptest::collection::vec(member(), 0..6).prop_map(Tree::Array),
        stray(),
    ];
    let known = proptest::sample::select(SHAPES.map(|(name, _)| name).to_vec()).prop_map(str::to_string);
    let others = ["resourceType", "modifierExtension", "implicitRules", "extension"].map(str::to_string).to_vec();
    let filter = json!([{"url": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter"}, {"url": 7}]);
    let more = (
        prop_oneof![known, "[a-z]{1,3}", proptest::sample::select(others)],
        prop_oneof![4 => stray(), 1 => Just(filter)],
    );
    let group_type = prop_oneof![5 => Just("person"), 1 => Just("animal"), 1 => Just("device"), 1 => Just("people")];
    let root = (
        proptest::option::weighted(0.9, group_type),
        proptest::option::weighted(0.9, proptest::bool::weighted(0.8)),
        proptest::option::weighted(0.9, members),
        proptest::collection::vec(more, 0..3),
    );
    root.prop_map(|(group_type, actual, members, more)| {
        let mut root = serde_json::Map::new();
        root.insert("resourceType".into(), "Group".into());
        root.extend(group_type.map(|code| ("type".to_string(), code.into())));
        root.extend(actual.map(|truth| ("actual".to_string(), truth.into())));
        root.extend(members.map(|members| ("member".to_string(), members)));
        root.extend(more);
        Tree::Object(root)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The streaming check and the oracle find the same problems, under any rules, written either way, in any pieces.
    #[test]
    fn the_twin_finds_the_same(
        document in document(),
        content in proptest::sample::select(vec![GroupContent::R4, GroupContent::Exportable, GroupContent::Patients]),
        members_max in proptest::option::of(0u64..6),
        bytes_max in proptest::option::of(60u64..400),
        piece in 1usize..80,
    ) {
        let rules = GroupRules { content, members_max, bytes_max, filtered: FilteredGroups::Refused };
        let compact = serde_json::to_vec(&document).unwrap();
        let expected = naive(&document, compact.len(), &rules);
        for text in [compact, serde_json::to_vec_pretty(&document).unwrap()] {
            let found = cut(&text, piece, WantedId::Ignored, &rules).err().unwrap_or_default();
            let mut found: Vec<_> = found.into_iter().map(|of| (of.kind, of.expression.unwrap_or(of.text))).collect();
            found.sort_by_key(|(kind, path)| (path.clone(), *kind as u8));
            prop_assert_eq!(&found, &expected);
        }
    }
}

/// The command line asks for a legal id of the Group's own.
#[test]
fn an_id_of_its_own() {
    let found = |more: &str| {
        let body = format!(r#"{{"resourceType":"Group","type":"person","actual":true{more}}}"#);
        problems(&body, WantedId::Own, &GroupRules::default())
    };
    assert_eq!(found(r#","id":"a.b-C""#), []);
    assert_eq!(found(""), [(IssueCode::Required, "Group.id".to_string())]);
    for id in [r#""../a""#, r#""""#, "7"] {
        assert_eq!(found(&format!(r#","id":{id}"#)), [(IssueCode::Value, "Group.id".to_string())], "{id}");
    }
}
