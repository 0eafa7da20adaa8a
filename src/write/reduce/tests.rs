//! The reducer beside its slow twin and beside serde_json, over odd rows and random ones, in pieces of any size (ELEM-01 to
//! ELEM-05).

use super::line_reducer::LineReducer;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::subsetted::{REDUCTION_BYTES_MAX, SUBSETTED_CODE, SUBSETTED_CODING, SUBSETTED_SYSTEM};
use crate::simd::Kernel;
use crate::verify::reduced_line::reduced_line;
use proptest::prelude::*;
use serde_json::{Value, json};

const X: &str = SUBSETTED_CODING;

fn selection(items: &str) -> ElementSelection {
    let (selection, problems) = ElementSelection::parse(items.split(','));
    assert_eq!(problems, []);
    selection
}

/// The reducer over pieces that end at `cuts`.
fn reduce_pieces(kernel: Kernel, line: &[u8], of_type: &str, items: &str, cuts: &[usize]) -> Option<String> {
    let mut reducer = LineReducer::of(&selection(items), ResourceType::parse(of_type).unwrap(), kernel).unwrap();
    let mut out = Vec::new();
    // A row before it leaves nothing behind.
    reducer.feed(br#"{"meta":{"tag":[{"system":"x"#, &mut Vec::new());
    assert!(!reducer.end_row());
    let mut start = 0;
    for end in cuts.iter().copied().chain([line.len()]) {
        let end = end.clamp(start, line.len());
        reducer.feed(&line[start..end], &mut out);
        start = end;
    }
    reducer.end_row().then(|| String::from_utf8(out).unwrap())
}

/// Reduces a row by every kernel, whole, byte by byte and in two pieces; all give the same, and the twin, too.
#[track_caller]
fn reduce(line: &str, of_type: &str, items: &str) -> String {
    let line = line.as_bytes();
    let every: Vec<usize> = (0..line.len()).collect();
    let known = ResourceType::parse(of_type).unwrap();
    let twin = String::from_utf8(reduced_line(line, known, &selection(items)).unwrap()).unwrap();
    for kernel in Kernel::available() {
        let whole = reduce_pieces(kernel, line, of_type, items, &[]).expect("a whole object");
        assert_eq!(whole, twin, "{}", kernel.name());
        assert_eq!(reduce_pieces(kernel, line, of_type, items, &every).as_ref(), Some(&twin), "{}", kernel.name());
        for cut in (0..line.len()).step_by(1 + line.len() / 300) {
            assert_eq!(reduce_pieces(kernel, line, of_type, items, &[cut]).as_ref(), Some(&twin), "{cut}");
        }
    }
    // What is reduced already stays as it is.
    assert_eq!(reduced_line(twin.as_bytes(), known, &selection(items)).unwrap(), twin.as_bytes());
    twin
}

/// ELEM-02, ELEM-03: what is not listed is left out, what stays keeps its bytes, and the tag comes where it belongs.
#[test]
fn rows_are_reduced_and_tagged() {
    let patient = |line: &str, expected: &str| assert_eq!(reduce(line, "Patient", "birthDate"), expected);
    // Without meta; a primitive keeps its sibling (ELEM-05).
    patient(
        r#"{"resourceType":"Patient","id":"a","name":[{"family":"}"}],"birthDate":"2000","_birthDate":{"id":"x"},"_gender":{}}"#,
        &format!(
            r#"{{"resourceType":"Patient","id":"a","birthDate":"2000","_birthDate":{{"id":"x"}},"meta":{{"tag":[{X}]}}}}"#
        ),
    );
    // Meta without tags, empty, with tags.
    for (meta, expected) in [
        (r#"{}"#, format!(r#"{{"tag":[{X}]}}"#)),
        (r#"{"versionId":"1"}"#, format!(r#"{{"versionId":"1","tag":[{X}]}}"#)),
        (r#"{"tag":[],"versionId":"1"}"#, format!(r#"{{"tag":[{X}],"versionId":"1"}}"#)),
        (r#"{ "tag" : [ {"code":"a"} ] }"#, format!(r#"{{ "tag" : [ {{"code":"a"}} ,{X}] }}"#)),
        (r#"{"tag":[{"code":"SUBSETTED"}]}"#, format!(r#"{{"tag":[{{"code":"SUBSETTED"}},{X}]}}"#)),
    ] {
        patient(&format!(r#"{{"meta":{meta},"active":true,"id":"a"}}"#), &format!(r#"{{"meta":{expected},"id":"a"}}"#));
    }
    // Numbers, escapes and white space inside of members stay; white space between members does not.
    patient(
        " { \"birthDate\" : 1.50E+2 ,\t\"extra\": [1, {\"a\":\"]\"}] , \"id\":\"\\u0061\\\\\" } \r",
        &format!("{{\"birthDate\" : 1.50E+2,\"id\":\"\\u0061\\\\\",\"meta\":{{\"tag\":[{X}]}}}}"),
    );
}

/// ELEM-03: a tag that is there already is not added again, whatever its form.
#[test]
fn no_tag_stands_twice() {
    for coding in [
        X.to_string(),
        format!(r#"{{"code":"SUBSETTED","display":"subsetted","system":"{SUBSETTED_SYSTEM}"}}"#),
        format!(r#"{{ "c\u006fde" : "SUBSET\u0054ED" , "system":"{}"}}"#, SUBSETTED_SYSTEM.replace('/', "\\/")),
        format!(r#"{{"code":"x","code":"SUBSETTED","extension":[{{"code":"y"}}],"system":"{SUBSETTED_SYSTEM}"}}"#),
    ] {
        for tags in [format!("[{coding}]"), format!(r#"[{{"code":"b"}},{coding},null]"#)] {
            let line = format!(r#"{{"meta":{{"tag":{tags}}},"id":"a"}}"#);
            assert_eq!(reduce(&line, "Patient", "id"), line);
        }
    }
    // Not the tag: another system, an object, the tag in another place.
    for coding in [
        r#"{"system":"x","code":"SUBSETTED"}"#.to_string(),
        format!(r#"{{"code":"SUBSETTED","system":{{"system":"{SUBSETTED_SYSTEM}"}}}}"#),
        format!(r#"{{"code":"SUBSETTED","code":1,"system":"{SUBSETTED_SYSTEM}"}}"#),
        format!(r#"{{"system":"{SUBSETTED_SYSTEM}","code":"{}"}}"#, "SUBSETTED".repeat(100)),
        format!(r#"[{X}]"#),
    ] {
        let line = format!(r#"{{"meta":{{"tag":[{coding}],"security":[{X}]}},"id":"a"}}"#);
        let expected = format!(r#"{{"meta":{{"tag":[{coding},{X}],"security":[{X}]}},"id":"a"}}"#);
        assert_eq!(reduce(&line, "Patient", "id"), expected);
    }
}

/// A meta and a tag of other types neither break the row nor lose the tag; what they hold stays where it can.
#[test]
fn odd_meta_is_tagged() {
    for (meta, expected) in [
        ("null", format!(r#"{{"tag":[{X}]}}"#)),
        (r#""te\"xt""#, format!(r#"{{"tag":[{X}]}}"#)),
        ("-1e9", format!(r#"{{"tag":[{X}]}}"#)),
        ("[]", format!(r#"[{{"tag":[{X}]}}]"#)),
        (r#"["a",1]"#, format!(r#"["a",1,{{"tag":[{X}]}}]"#)),
        (r#"[1,{"versionId":"1"},{}]"#, format!(r#"[1,{{"versionId":"1","tag":[{X}]}},{{}}]"#)),
        (r#"{"tag":null,"versionId":"1"}"#, format!(r#"{{"tag":[{X}],"versionId":"1"}}"#)),
        (r#"{"tag":"a]","versionId":"1"}"#, format!(r#"{{"tag":[{X}],"versionId":"1"}}"#)),
        (r#"{"tag":{"code":"a"} }"#, format!(r#"{{"tag":[{{"code":"a"}},{X}] }}"#)),
        (&format!(r#"{{"tag":{X}}}"#), format!(r#"{{"tag":[{X}]}}"#)),
        (r#"{"tag":[],"tag":[1]}"#, format!(r#"{{"tag":[{X}],"tag":[1,{X}]}}"#)),
        (r#"{"t\u0061g":[]}"#, format!(r#"{{"t\u0061g":[{X}]}}"#)),
    ] {
        let line = format!(r#"{{"meta":{meta},"active":true}}"#);
        assert_eq!(reduce(&line, "Patient", "id"), format!(r#"{{"meta":{expected}}}"#));
    }
    assert_eq!(reduce("{}", "Patient", "id"), format!(r#"{{"meta":{{"tag":[{X}]}}}}"#));
}

/// Escaped and equal names, names longer than any element's, lone surrogates, and nesting of any depth.
#[test]
fn hostile_rows_are_reduced() {
    let long = "x".repeat(3000);
    let deep = format!("{}{}", "[{\"a\":".repeat(50_000), "1}]".to_string() + &"}]".repeat(49_999));
    let line = format!(
        r#"{{"\u0069d":"a","id":"b","{long}":1,"{long}\\":"\ud800","\udc00":1,"gender":{deep},"contact":{deep},"_\u0069d":2}}"#
    );
    let expected = format!(r#"{{"\u0069d":"a","id":"b","gender":{deep},"_\u0069d":2,"meta":{{"tag":[{X}]}}}}"#);
    let kernel = Kernel::detect();
    for cuts in [vec![], (0..line.len()).step_by(4099).collect(), (0..line.len()).step_by(61).collect::<Vec<_>>()] {
        assert!(reduce_pieces(kernel, line.as_bytes(), "Patient", "gender", &cuts).as_deref() == Some(&expected));
    }
    let known = ResourceType::parse("Patient").unwrap();
    assert!(reduced_line(line.as_bytes(), known, &selection("gender")).unwrap() == expected.as_bytes());
}

/// What is no whole object is told, and nothing makes the reducer panic or stand still.
#[test]
fn broken_rows_end() {
    for line in ["", "{", "[]", r#"{"id":"a""#, r#"{"id"#, r#"{"meta":{"tag":["#, "{{", r#"{"id":"a\"#] {
        for kernel in Kernel::available() {
            assert_eq!(reduce_pieces(kernel, line.as_bytes(), "Patient", "id", &[]), None, "{line}");
        }
    }
    for line in [
        r#"{"id" "a" 1 ]}"#,
        r#"{"meta":{"tag":[}]}}"#,
        r#"{"meta":[}]}"#,
        r#"{"id",,"meta"}"#,
        r#"{:1,{"a":2},[3]}"#,
        r#"{"a":1"}"#,
        "{}}{",
        "{\\\"}",
    ] {
        for kernel in Kernel::available() {
            reduce_pieces(kernel, line.as_bytes(), "Patient", "id", &[]);
        }
    }
}

/// A JSON value as text, with white space anywhere.
fn value() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-z{}\\[\\],: ]{0,8}".prop_map(|text| format!("\"{text}\"")),
        Just(r#""\\""#.to_string()),
        Just(r#""\"\\\"""#.to_string()),
        Just(r#""\u00e9é\/""#.to_string()),
        "[a-z]{60,70}".prop_map(|text| format!("\"{text}\"")),
    ];
    let leaf = prop_oneof![
        text,
        Just("null".to_string()),
        Just("true".to_string()),
        Just("-0.10e-05".to_string()),
        Just("12345678901234567890123".to_string()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))),
            (prop::collection::vec(("[a-d\"]{0,3}", inner), 0..4), space()).prop_map(|(members, space)| {
                let members: Vec<String> = members
                    .into_iter()
                    .enumerate()
                    .map(|(i, (name, value))| format!("\"{}{i}\"{space}:{value}", name.replace('"', "\\\"")))
                    .collect();
                format!("{{{}{space}}}", members.join(","))
            }),
        ]
    })
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => Just(" ".to_string()), 1 => Just("\t \r ".to_string())]
}

/// A Coding, often the tag.
fn coding() -> impl Strategy<Value = String> {
    let system = prop_oneof![Just(SUBSETTED_SYSTEM.to_string()), Just("x".to_string())];
    let code = prop_oneof![Just(SUBSETTED_CODE), Just("\\u0053UBSETTED"), Just("y")];
    (system, code, any::<bool>(), space()).prop_map(|(system, code, turned, space)| {
        let (a, b) = (format!(r#""system"{space}:"{system}""#), format!(r#""code":{space}"{code}""#));
        if turned { format!("{{{b},{a}{space}}}") } else { format!("{{{space}{a},{b}}}") }
    })
}

/// A `meta`.
fn meta() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => meta_object(),
        1 => value(),
        1 => prop::collection::vec(meta_object(), 0..3).prop_map(|list| format!("[{}]", list.join(" ,"))),
    ]
}

/// A `meta` that is an object.
fn meta_object() -> impl Strategy<Value = String> {
    let tags = prop_oneof![
        4 => prop::collection::vec(prop_oneof![4 => coding(), 1 => value()], 0..3).prop_map(|tags| format!("[{}]", tags.join(","))),
        1 => coding(),
        1 => value(),
    ];
    (prop::option::of(tags), prop::option::of(value()), space()).prop_map(|(tags, other, space)| {
        let members = tags.map(|tags| format!("\"tag\":{space}{tags}")).into_iter();
        let members: Vec<String> = members.chain(other.map(|other| format!("\"security\":{other}"))).collect();
        format!("{{{}{space}}}", members.join(","))
    })
}

/// A row: members with names that are kept, dropped or escaped, each once, in any order.
fn row() -> impl Strategy<Value = String> {
    let names =
        ["id", "\\u0069d2", "birthDate", "_birthDate", "name", "_name", "implicitRules", "x", "deceasedBoolean"];
    let others = prop::sample::subsequence(names.to_vec(), 0..names.len()).prop_shuffle();
    (others, prop::collection::vec(value(), names.len()), prop::option::of((meta(), 0usize..9)), space()).prop_map(
        |(names, values, meta, space)| {
            let mut members: Vec<String> =
                names.iter().zip(values).map(|(name, value)| format!("\"{name}\"{space}:{value}")).collect();
            if let Some((meta, at)) = meta {
                members.insert(at.min(members.len()), format!("\"meta\":{space}{meta}"));
            }
            format!("{space}{{{space}{}{space}}}{space}", members.join(&format!("{space},{space}")))
        },
    )
}

/// What is expected of a row without equal names, by serde_json.
fn reduced_value(row: &str, selection: &ElementSelection) -> Value {
    let row: Value = serde_json::from_str(row).unwrap();
    let kept = selection.kept_names(ResourceType::PATIENT).unwrap();
    let mut reduced = row.as_object().unwrap().clone();
    reduced.retain(|name, _| kept.contains(name.strip_prefix('_').unwrap_or(name)));
    let tag = json!({"system": SUBSETTED_SYSTEM, "code": SUBSETTED_CODE});
    let tag_object = |meta: &mut Value| {
        let tags = meta.as_object_mut().unwrap().entry("tag").or_insert(json!([]));
        match tags {
            Value::Array(_) => {}
            Value::Object(_) => *tags = json!([tags.take()]),
            _ => *tags = json!([]),
        }
        let tags = tags.as_array_mut().unwrap();
        if !tags.iter().any(|coding| coding["system"] == tag["system"] && coding["code"] == tag["code"]) {
            tags.push(tag.clone());
        }
    };
    let meta = reduced.entry("meta").or_insert(json!({}));
    match meta {
        Value::Object(_) => tag_object(meta),
        Value::Array(list) => match list.iter_mut().find(|element| element.is_object()) {
            Some(first) => tag_object(first),
            None => list.push(json!({"tag": [tag]})),
        },
        _ => *meta = json!({"tag": [tag]}),
    }
    Value::Object(reduced)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Random rows in random pieces: the reducer writes the bytes of its twin by every kernel, they are what serde_json expects,
    /// and no more than planned.
    #[test]
    fn the_reducer_equals_its_twins(row in row(), items in prop_oneof![Just("birthDate"), Just("name,deceased"), Just("id")], cuts in prop::collection::vec(0usize..600, 0..6)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let selection = selection(items);
        let twin = reduced_line(row.as_bytes(), ResourceType::PATIENT, &selection).unwrap();
        let twin = String::from_utf8(twin).unwrap();
        for kernel in Kernel::available() {
            let reduced = reduce_pieces(kernel, row.as_bytes(), "Patient", items, &cuts);
            prop_assert_eq!(reduced.as_ref(), Some(&twin), "{}: {}", kernel.name(), &row);
        }
        prop_assert_eq!(serde_json::from_str::<Value>(&twin).unwrap().to_string(), reduced_value(&row, &selection).to_string());
        prop_assert!(twin.len() as u64 <= row.len() as u64 + REDUCTION_BYTES_MAX);
    }

    /// Bytes that are no JSON do not make the reducer panic.
    #[test]
    fn any_bytes_are_survived(bytes in "[\\{\\}\\[\\]:,\"\\\\ a1]{0,80}", cut in 0usize..80) {
        let row = format!("{{\"meta\":{bytes}");
        for text in [&bytes, &row] {
            for kernel in Kernel::available() {
                reduce_pieces(kernel, text.as_bytes(), "Patient", "id", &[cut]);
            }
        }
    }
}
