//! The extractor against the reference implementation: every kernel, complete lines and lines in pieces, hostile lines
//! and generated ones.

use proptest::prelude::*;

use crate::extract::Validate;
use crate::extract::block::row::Row;
use crate::extract::extractor::Extractor;
use crate::extract::facts::{Content, Facts, LastUpdated, ResourceFacts};
use crate::extract::fault::Fault;
use crate::extract::line_references::marks_of;
use crate::extract::naive::{self, FaultFound, PlainFacts};
use crate::extract::rules::LineRules;
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::Id;
use crate::simd::Kernel;

fn plain(facts: &Facts) -> PlainFacts {
    PlainFacts {
        content: facts.content,
        resource_type: facts.resource_type,
        id: facts.id,
        last_updated: match facts.last_updated() {
            LastUpdated::Missing => None,
            LastUpdated::Illegal => Some(None),
            LastUpdated::At(instant) => Some(Some(instant.to_owned())),
        },
        version_id: String::from_utf8(facts.version_id().to_vec()).unwrap(),
        references: facts.references().map(String::from).collect(),
        has_identifier: facts.has_identifier(),
        tombstones: facts.tombstones().map(String::from).collect(),
    }
}

fn plain_row(row: &Row<'_>) -> PlainFacts {
    PlainFacts {
        content: Content::Resource,
        resource_type: row.resource_type(),
        id: Id::parse(row.id()),
        last_updated: match row.last_updated() {
            LastUpdated::Missing => None,
            LastUpdated::Illegal => Some(None),
            LastUpdated::At(instant) => Some(Some(instant.to_owned())),
        },
        version_id: String::from_utf8(row.version_id().to_vec()).unwrap(),
        references: row.references().map(String::from).collect(),
        has_identifier: row.has_identifier(),
        tombstones: Vec::new(),
    }
}

fn outcome(found: Result<&Facts, Fault>) -> Result<PlainFacts, FaultFound> {
    found
        .map(plain)
        .map_err(|fault| if naive::is_syntax(fault.kind) { FaultFound::Syntax } else { FaultFound::Kind(fault.kind) })
}

/// Compares every way to read the line with the reference implementation; `cuts` are lengths of pieces, in a cycle.
fn check(line: &[u8], cuts: &[usize]) {
    for compartment_paths in CompartmentPaths::ALL {
        check_by(LineRules { compartment_paths, ..Validate::Full.into() }, line, cuts);
    }
}

/// The same by some rules.
fn check_by(rules: LineRules, line: &[u8], cuts: &[usize]) {
    let expected = naive::extract(line, rules);
    let shown = || String::from_utf8_lossy(&line[..line.len().min(2000)]).into_owned();
    for kernel in Kernel::available() {
        let mut extractor = Extractor::new(kernel, rules);
        let fault = extractor.extract(line).map(|_| ());
        assert_eq!(outcome(extractor.extract(line)), expected, "{} {fault:?}: {}", kernel.name(), shown());
        extractor.begin();
        let mut rest = line;
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
            extractor.feed(piece);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(outcome(extractor.finish()), expected, "{} in pieces of {cuts:?}: {}", kernel.name(), shown());
        if expected.is_ok() {
            let mut extractor = Extractor::new(kernel, LineRules { validate: Validate::Structure, ..rules });
            assert_eq!(outcome(extractor.extract(line)), expected, "{} structure: {}", kernel.name(), shown());
        }
    }
    // simd-json refuses lone surrogates, which RFC 8259 allows, and numbers that fit no u64, i64 or f64.
    let limits = line.windows(2).any(|pair| pair == b"\\u")
        || line.windows(15).any(|run| run.iter().all(|b| b"0123456789.eE+-".contains(b)))
        || line.windows(2).any(|pair| matches!(pair, [b'e' | b'E', b'0'..=b'9' | b'+' | b'-']));
    let deep = line.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() > 500;
    if !limits && !deep && !line.is_empty() {
        let refuses = simd_json::to_tape(&mut line.to_vec()).is_err();
        // A root that is no object is refused here only.
        let expected = expected == Err(FaultFound::Syntax) && !is_other_root(line);
        assert_eq!(refuses, expected, "simd-json: {}", shown());
    }
}

fn is_other_root(line: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|value| !value.is_object())
}

/// Each line of the hostile stores, whole and cut in every small size.
#[test]
fn hostile_lines_are_read_as_the_twin_reads_them() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hostile");
    let mut lines = 0;
    let mut left = vec![root];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "ndjson") {
            let bytes = std::fs::read(&path).unwrap();
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                lines += 1;
                check(line, &[1]);
                check(line, &[63, 1, 65, 128, 7]);
            }
        }
    }
    assert!(lines > 700, "only {lines} lines under testdata/hostile");
}

/// Nesting has no bound, and brackets deeper than a word of the stack must still match.
#[test]
fn depth_has_no_bound() {
    for depth in [1, 63, 64, 65, 128, 129, 10_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for key in ["x", "subject"] {
                let inner = if open == "[" { "" } else { "1" };
                let (opens, closes) = (open.repeat(depth), close.repeat(depth));
                let head = r#"{"resourceType":"Observation","id":"a","#;
                check(format!(r#"{head}"{key}":{opens}{inner}{closes}}}"#).as_bytes(), &[1000]);
                check(format!(r#"{head}"{key}":{opens}{inner}{}}}"#, &closes[1..]).as_bytes(), &[64]);
                check(format!(r#"{head}"{key}":{opens}{inner}{}}}}}"#, &closes[1..]).as_bytes(), &[64]);
            }
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "resourceType",
        "id",
        "meta",
        "lastUpdated",
        "versionId",
        "subject",
        "performer",
        "actor",
        "reference",
        "entry",
        "request",
        "method",
        "url",
        "type",
        "resource",
        "link",
        "other",
        "target",
        "contained",
        "patient",
        "member",
        "entity",
        "activity",
        "detail",
        "x",
        "",
    ]);
    (known, any::<prop::sample::Index>(), 0..10u8).prop_map(|(name, position, escape)| {
        if escape > 0 || name.is_empty() {
            return format!("\"{name}\"");
        }
        let offset = position.index(name.len());
        format!("\"{}\\u{:04x}{}\"", &name[..offset], name.as_bytes()[offset], &name[offset + 1..])
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "Observation", "Bundle", "Provenance", "Group", "Procedure", "Patient", "Nothing", "a", "a-1", "a_1", "1",
            "2021-01-01T00:00:00Z", "2021-01-01T00:00:00.123456789Z", "2021-01-01", "Patient/a", "Patient/a/_history/1",
            "http://x.org/Patient/b", "urn:uuid:1", "DELETE", "PUT", "transaction", "batch", "Pat\\u0069ent\\/a",
            "\\ud83d\\ude00", "\\ud800", "\\udc00\\ud800x", "\\\\", "\\\"", "{\\\"id\\\":1}", "é€😀", "\u{2028}", "",
        ]).prop_map(String::from),
        1 => "[a-z\\\\\"{}:, \u{7f}-\u{ff}]{0,80}".prop_map(|raw| serde_json::to_string(&raw).unwrap().trim_matches('"').replace('"', "\\\"").replace("\\\\\"", "\\\"")),
    ]
    .prop_map(|text| format!("\"{text}\""))
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => text(),
        2 => prop::sample::select(vec!["null", "true", "false", "0", "-0", "12", "-1.5", "1e5", "1E-7", "123456789012345678901234567890", "1e999"]).prop_map(String::from),
        1 => "[-+0-9.eEtrufalsn]{1,6}",
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\t "), 1 => Just("\r\n")]
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((key(), space(), space(), value, space()), 0..6).prop_map(|members| {
        let members: Vec<String> =
            members.into_iter().map(|(key, a, b, value, c)| format!("{a}{key}{b}:{c}{value}{a}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            3 => object(inner.clone()),
            2 => (prop::collection::vec(inner, 0..4), space()).prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(","))),
        ]
    })
}

/// Lines that are mostly resources or Bundles, their members in any order.
fn line() -> impl Strategy<Value = String> {
    let reference =
        || (text(), key(), scalar()).prop_map(|(text, key, other)| format!(r#"{{"reference":{text},{key}:{other}}}"#));
    let any_reference = move || {
        prop_oneof![
            3 => reference(),
            1 => prop::collection::vec(reference(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            1 => reference().prop_map(|one| format!("[[{one}],null,\"Patient/a\"]")),
        ]
    };
    let entry = (text(), text()).prop_map(|(a, b)| format!(r#"{{"request":{{"method":{a},"url":{b}}}}}"#));
    let entries = prop::collection::vec(
        prop_oneof![6 => Just(r#"{"request":{"method":"DELETE","url":"Patient/a"}}"#.to_string()), 1 => entry, 1 => value()],
        0..3,
    ).prop_map(|all| format!("[{}]", all.join(",")));
    let member = prop_oneof![
        3 => prop::sample::select(vec!["subject", "patient", "target", "performer"]).prop_flat_map(move |name| any_reference().prop_map(move |r| format!("\"{name}\":{r}"))),
        2 => text().prop_map(|text| format!(r#""meta":{{"lastUpdated":{text}}}"#)),
        2 => entries.prop_map(|all| format!("\"type\":\"batch\",\"entry\":{all}")),
        3 => (key(), value()).prop_map(|(key, value)| format!("{key}:{value}")),
    ];
    let types = prop::sample::select(vec!["Observation", "Bundle", "Provenance", "Group", "Procedure", "Device"]);
    (types, prop::collection::vec(member, 0..4), any::<prop::sample::Index>(), any::<prop::sample::Index>(), space())
        .prop_map(|(name, mut members, a, b, space)| {
            members.insert(a.index(members.len() + 1), format!("\"resourceType\":{space}\"{name}\""));
            members.insert(b.index(members.len() + 1), "\"id\":\"a\"".to_string());
            format!("{space}{{{}}}{space}", members.join(","))
        })
}

/// Damage to a line: cut, a byte replaced, a byte doubled or dropped.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(b"{}[]:,\"\\ \t\n\r0-.eutn\x00\x1f".to_vec()), any::<u8>()];
    (prop_oneof![line(), value()], prop::collection::vec((0..4u8, any::<prop::sample::Index>(), byte), 0..3)).prop_map(
        |(line, damages)| {
            let mut line = line.into_bytes();
            for (how, position, byte) in damages {
                if line.is_empty() {
                    break;
                }
                let i = position.index(line.len());
                match how {
                    0 => line.truncate(i),
                    1 => line[i] = byte,
                    2 => line.insert(i, byte),
                    _ => drop(line.remove(i)),
                }
            }
            line
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn lines_are_read_as_the_twin_reads_them(line in line(), cuts in prop::collection::vec(1..200usize, 1..4)) {
        check(line.as_bytes(), &cuts);
    }

    #[test]
    fn damaged_lines_are_read_as_the_twin_reads_them(line in damaged(), cuts in prop::collection::vec(1..100usize, 1..4)) {
        if !line.trim_ascii().is_empty() {
            check(&line, &cuts);
        }
    }

    #[test]
    fn any_bytes_are_read_as_the_twin_reads_them(line in prop::collection::vec(any::<u8>(), 1..200), cuts in prop::collection::vec(1..9usize, 1..4)) {
        if !line.trim_ascii().is_empty() {
            check(&line, &cuts);
        }
    }
}

/// Rules of each kind that the pass over many lines knows.
const SOME_RULES: [LineRules; 3] = {
    let full = LineRules::without_choices(Validate::Full);
    [
        full,
        LineRules::without_choices(Validate::Structure),
        LineRules { compartment_paths: CompartmentPaths::Primary, ..full },
    ]
};

/// Reads a text of whole lines with the pass over many, lines that it leaves by themselves.
fn read_many(kernel: Kernel, rules: LineRules, text: &[u8]) -> Vec<Result<PlainFacts, FaultFound>> {
    let mut extractor = Extractor::new(kernel, rules);
    let (mut all, mut offset) = (Vec::new(), 0);
    while offset < text.len() {
        let mut stopped = false;
        offset = extractor.extract_lines(text, offset, |range, facts| {
            assert!(matches!(&text[range.end..], [b'\n', ..] | [b'\r', b'\n', ..]));
            if let Some(mentions) = facts.mentions {
                let line = &text[range.start..];
                assert_eq!(mentions, marks_of(line, range.len()), "{}", String::from_utf8_lossy(&line[..range.len()]));
            }
            all.push(Ok(plain_row(facts)));
            // Stopping now and then changes nothing.
            stopped = all.len() % 3 == 0;
            !stopped
        });
        if !stopped && offset < text.len() {
            let end = offset + text[offset..].iter().position(|byte| *byte == b'\n').unwrap();
            let line = &text[offset..end];
            all.push(outcome(extractor.extract(line.strip_suffix(b"\r").unwrap_or(line))));
            offset = end + 1;
        }
    }
    all
}

fn read_singly(kernel: Kernel, rules: LineRules, text: &[u8]) -> Vec<Result<PlainFacts, FaultFound>> {
    let mut extractor = Extractor::new(kernel, rules);
    let lines = text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
    lines.map(|line| outcome(extractor.extract(line.strip_suffix(b"\r").unwrap_or(line)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    /// Many lines at a time yield the facts of each line by itself, whatever lines are among them.
    #[test]
    fn many_lines_are_read_as_single_ones(lines in prop::collection::vec(prop_oneof![2 => line().prop_map(String::into_bytes), 1 => damaged()], 1..6), ends in prop::sample::select(vec!["\n", "\r\n", "\n\n"])) {
        let mut text = Vec::new();
        for line in &lines {
            text.extend_from_slice(line);
            text.extend_from_slice(ends.as_bytes());
        }
        for kernel in Kernel::available() {
            for rules in SOME_RULES {
                let shown = String::from_utf8_lossy(&text);
                prop_assert_eq!(read_many(kernel, rules, &text), read_singly(kernel, rules, &text), "{} {:?}: {}", kernel.name(), rules, shown);
            }
        }
    }
}

/// A line again and again, so that its shape is known, then with damage here and there that mostly leaves the shape.
fn alike() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => prop::sample::select(b"abcdeP0123456789.-\"\\".to_vec()),
        1 => prop::sample::select(b"{}[]:, \t\x00\x1f\xff\xc3".to_vec())
    ];
    let damages = prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), byte), 1..3);
    (line(), prop::collection::vec(damages, 1..12)).prop_map(|(line, all)| {
        let line: Vec<u8> = line.bytes().filter(|byte| *byte != b'\n').collect();
        let mut text = [&line[..], b"\n"].concat().repeat(3);
        for damages in all {
            let mut line = line.clone();
            for (insert, position, byte) in damages {
                let i = position.index(line.len());
                if insert { line.insert(i, byte) } else { line[i] = byte }
            }
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        text.extend_from_slice(&line);
        text.push(b'\n');
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    /// A line that is nearly one whose shape is known is read as by itself.
    #[test]
    fn lines_that_look_alike_are_read_as_single_ones(text in alike()) {
        for kernel in Kernel::available() {
            for rules in SOME_RULES {
                let shown = String::from_utf8_lossy(&text);
                prop_assert_eq!(read_many(kernel, rules, &text), read_singly(kernel, rules, &text), "{} {:?}: {}", kernel.name(), rules, shown);
            }
        }
    }
}

/// The pass over many lines is not a way around them: ordinary lines really take it.
#[test]
fn ordinary_lines_are_not_left_to_the_scanner() {
    let mut text = Vec::new();
    for n in 0..200 {
        let filler = r#"{"coding":[{"system":"http://x","code":"1","display":"é \"quoted\" \u00e9"}],"n":[1,2.5e3,[],{},true,null]}"#;
        text.extend_from_slice(
            format!("{{\"resourceType\":\"Observation\",\"id\":\"{n}\",\"meta\":{{\"versionId\":\"1\",\"lastUpdated\":\"2020-01-01T00:00:00Z\"}},\"code\":{filler},\"subject\": {{\"reference\":\"Patient/{n}\"}}}}\n").as_bytes(),
        );
    }
    for kernel in Kernel::available() {
        for validate in [Validate::Full, Validate::Structure] {
            let (mut rows, mut marked) = (0, 0);
            let end = Extractor::new(kernel, validate).extract_lines(&text, 0, |_, facts| {
                rows += 1;
                marked += facts.mentions.map_or(0, <[u16]>::len);
                facts.references().count() == 1
            });
            assert_eq!((end, rows), (text.len(), 200), "{} {validate:?}", kernel.name());
            // The first lines are walked, until their shape is learned.
            assert!(marked > 190, "{} {validate:?}: {marked}", kernel.name());
        }
    }
}

/// What an export would refuse is never called tombstones.
#[test]
fn a_list_of_deletions_is_told_from_other_bundles() {
    let list =
        br#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"DELETE","url":"Patient/a"}}]}"#;
    let mut extractor = Extractor::new(Kernel::detect(), Validate::Full);
    let facts = extractor.extract(list).unwrap();
    assert_eq!((facts.content, facts.tombstones().collect::<Vec<_>>()), (Content::Tombstones, vec!["Patient/a"]));
}
