//! Generator of random resources, lines and store files, spelled in every way that JSON and NDJSON allow, and in some
//! that they do not. The random numbers are from `random`; whole random stores are put together in `generated`.

use crate::random::Random;
use std::io::Write;
use std::path::Path;

/// Ids that are easily confused: prefixes, cases, the longest legal one.
pub(crate) const IDS: [&str; 9] =
    ["a", "A", "aa", "a.b", "a-b", "1", "12", "m0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", "b"];

/// The base URL of the server in generated stores.
pub(crate) const BASE: &str = "https://fhir.example.org/r4";

/// Generated types, with the elements whose references put a resource into a patient's compartment.
const TYPES: [(&str, &[&str]); 12] = [
    ("Patient", &["link[].other"]),
    ("Observation", &["subject", "performer[]"]),
    ("Condition", &["subject", "asserter"]),
    ("Encounter", &["subject"]),
    ("Device", &["patient"]),
    ("Provenance", &["target[]"]),
    ("Group", &["member[].entity"]),
    ("Practitioner", &[]),
    ("Organization", &[]),
    ("Appointment", &["participant[].actor"]),
    ("Coverage", &["beneficiary", "payor[]"]),
    ("CarePlan", &["subject", "activity[].detail.performer[]"]),
];

/// A JSON value to be written with random white space, key order and escapes. `Raw` is written as it is.
#[derive(Clone)]
pub(crate) enum Json {
    Raw(String),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

/// A string value.
pub(crate) fn text(text: &str) -> Json {
    Json::Text(text.to_string())
}

/// An object, with its keys in this order.
pub(crate) fn map(entries: Vec<(&str, Json)>) -> Json {
    Json::Map(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// How freely a line is spelled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    Plain,
    Wild,
}

/// Writes a value. `Wild` shuffles keys, adds white space and escapes characters that need no escape.
pub(crate) fn write(value: &Json, spelling: Spelling, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    put(value, spelling, random, &mut out);
    out
}

fn put(value: &Json, spelling: Spelling, random: &mut Random, out: &mut Vec<u8>) {
    let wild = spelling == Spelling::Wild;
    let space = |random: &mut Random, out: &mut Vec<u8>| {
        if wild && random.one_in(6) {
            out.extend(random.pick(&[" ", "\t", "  ", "\r", " \t "]).as_bytes());
        }
    };
    match value {
        Json::Raw(raw) => out.extend(raw.as_bytes()),
        Json::Text(text) => put_text(text, wild, random, out),
        Json::List(items) => {
            out.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                space(random, out);
                put(item, spelling, random, out);
                space(random, out);
            }
            out.push(b']');
        }
        Json::Map(entries) => {
            let mut entries: Vec<&(String, Json)> = entries.iter().collect();
            if wild && random.one_in(2) {
                random.shuffle(&mut entries);
            }
            out.push(b'{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                space(random, out);
                put_text(key, wild && random.one_in(4), random, out);
                space(random, out);
                out.push(b':');
                space(random, out);
                put(value, spelling, random, out);
                space(random, out);
            }
            out.push(b'}');
        }
    }
}

fn put_text(text: &str, escape: bool, random: &mut Random, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend([b'\\', character as u8]),
            '\n' => out.extend(b"\\n"),
            '/' if escape && random.one_in(3) => out.extend(b"\\/"),
            _ if escape && random.one_in(9) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let digits = format!("\\u{unit:04x}");
                    out.extend(if random.one_in(2) { digits.as_bytes().to_vec() } else { upper(&digits) });
                }
            }
            _ => out.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn upper(digits: &str) -> Vec<u8> {
    [b"\\u", digits[2..].to_uppercase().as_bytes()].concat()
}

/// An instant within a second of `second` of the year 2020, with any legal precision and offset.
pub(crate) fn instant(second: i64, random: &mut Random) -> String {
    let minutes = if random.one_in(2) { 0 } else { random.below(27 * 60) as i64 - 13 * 60 };
    let local = second + minutes * 60;
    let (day, time) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let (mut month, mut day) = (1 + day.div_euclid(28), 1 + day.rem_euclid(28));
    if month < 1 {
        (month, day) = (1, 1); // Months have 28 days here: every date is legal, and no more is needed.
    }
    let mut out = format!("2020-{month:02}-{day:02}T{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
    if random.one_in(2) {
        let digits = ["0", "5", "500", "000", "123456789", "1234567", "12345678", "50000000000000001", "999999999999"];
        out += &format!(".{}", random.pick(&digits));
    }
    match minutes {
        0 => out += random.pick(&["Z", "+00:00", "-00:00"]),
        _ => {
            out +=
                &format!("{}{:02}:{:02}", if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
        }
    }
    out
}

/// A reference to the resource in any form, or to none, or an illegal one.
pub(crate) fn reference(name: &str, id: &str, random: &mut Random) -> String {
    match random.below(16) {
        0 => format!("{BASE}/{name}/{id}"),
        1 => format!("{name}/{id}/_history/3"),
        2 => format!("{BASE}/{name}/{id}/_history/a.1"),
        3 => random
            .pick(&[
                "https://other.example.net/fhir/Patient/a",
                "urn:uuid:0b7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11",
                "#a",
                "Patient?identifier=x|a",
                "/Patient/a",
                "Patient/a/",
                "patient/a",
                "Patient/a#x",
                "Patient/%61",
                "Patient/a/_history/",
                "Patient/a/_history",
                "Patient/",
                "Patient",
                "",
                "https://fhir.example.org/r4//Patient/a",
                "https://fhir.example.org/r4x/Patient/a",
                "Patient/\u{430}",
                "Practitioner/a",
            ])
            .to_string(),
        _ => format!("{name}/{id}"),
    }
}

/// A random resource. Elements may be missing, of another shape, or given twice.
pub(crate) fn resource(name: &str, id: &str, last_updated: Option<String>, random: &mut Random) -> Json {
    let mut entries = vec![("resourceType", text(name)), ("id", text(id))];
    let mut meta = Vec::new();
    if let Some(last_updated) = last_updated {
        meta.push(("lastUpdated", text(&last_updated)));
    }
    if !random.one_in(4) {
        meta.push((
            "versionId",
            text(random.pick(&["1", "2", "9", "10", "010", "abc", "00000000000000000000000000010", "b"])),
        ));
    }
    if random.one_in(6) {
        meta.push(("tag", Json::List(vec![map(vec![("lastUpdated", text("1999-01-01T00:00:00Z"))])])));
    }
    if !meta.is_empty() || random.one_in(2) {
        entries.push(("meta", map(meta)));
    }
    let paths = TYPES.iter().find(|(one, _)| *one == name).map_or(&[][..], |(_, paths)| paths);
    let mut at_paths = Vec::new();
    for path in paths {
        if !random.one_in(4) {
            at_paths.push(at_path(path, name, random));
        }
    }
    entries.extend(at_paths.iter().map(|(key, value)| (key.as_str(), value.clone())));
    for _ in 0..random.below(3) {
        entries.push(decoy(random));
    }
    if random.one_in(2) {
        entries.push(("x", to_context(random)));
    }
    if matches!(name, "Practitioner" | "Organization" | "Device") && random.one_in(2) {
        let one = |random: &mut Random| {
            map(vec![("system", text(random.pick(&["s", "t"]))), ("value", text(random.pick(&["1", "2"])))])
        };
        entries.push(("identifier", Json::List((0..1 + random.below(2)).map(|_| one(random)).collect())));
    }
    if name == "Provenance" && !random.one_in(3) {
        let recorded =
            random.pick(&["2020-01-01T00:00:00Z", "2019-12-31T23:00:00-01:00", "2020-01-01T00:00:01.5Z", "2020-01-01"]);
        entries.push(("recorded", text(recorded)));
    }
    if random.one_in(40) {
        let twice = entries[random.below(entries.len())].clone();
        entries.push(twice);
    }
    map(entries)
}

fn at_path(path: &str, name: &str, random: &mut Random) -> (String, Json) {
    let mut steps = path.split('.');
    let first = steps.next().unwrap();
    let value = |steps: &[&str], random: &mut Random| nested(steps, name, random);
    let rest: Vec<&str> = steps.collect();
    let key = first.trim_end_matches("[]").to_string();
    let list = first.ends_with("[]") != random.one_in(25); // another shape now and then (reading 8)
    if list {
        let count = random.below(3) + usize::from(random.one_in(2));
        return (key, Json::List((0..count).map(|_| value(&rest, random)).collect()));
    }
    (key, value(&rest, random))
}

fn nested(steps: &[&str], name: &str, random: &mut Random) -> Json {
    if let [first, rest @ ..] = steps {
        let key = first.trim_end_matches("[]");
        let inner = nested(rest, name, random);
        return map(vec![
            ("display", text("x")),
            (key, if first.ends_with("[]") { Json::List(vec![inner]) } else { inner }),
        ]);
    }
    if random.one_in(30) {
        return Json::Raw(
            random
                .pick(&["null", "{}", "[]", "\"Patient/a\"", "{\"reference\":null}", "{\"reference\":[\"Patient/a\"]}"])
                .into(),
        );
    }
    let id = random.pick(&IDS);
    let target = match name {
        // No Provenance has a Group as target: no reading says which compartments it belongs to.
        "Provenance" => {
            random.pick(&["Observation", "Condition", "Provenance", "Patient", "Encounter", "Practitioner"])
        }
        _ => random.pick(&["Patient", "Patient", "Patient", "Patient", "Practitioner"]),
    };
    let mut entries = vec![("reference", text(&reference(target, id, random)))];
    if random.one_in(5) {
        entries.push(("display", text("\"reference\":\"Patient/a\"")));
    }
    if random.one_in(8) {
        entries.push(("identifier", map(vec![("assigner", map(vec![("reference", text("Patient/a"))]))])));
    }
    map(entries)
}

/// References to context in elements that decide nothing else: by id, under our base, by identifier.
fn to_context(random: &mut Random) -> Json {
    let one = |random: &mut Random| {
        let (name, id) = (random.pick(&["Practitioner", "Organization", "Device", "Location"]), random.pick(&IDS));
        let to = match random.below(4) {
            0 => format!("{name}?identifier={}|{}", random.pick(&["s", "t"]), random.pick(&["1", "2"])),
            1 => format!("{BASE}/{name}?identifier=s%7C1"),
            _ => reference(name, id, random),
        };
        map(vec![("valueReference", map(vec![("reference", text(&to))]))])
    };
    Json::List((0..1 + random.below(2)).map(|_| one(random)).collect())
}

/// An element that resembles one that decides, such as an id, a date or a reference elsewhere, but has no effect.
fn decoy(random: &mut Random) -> (&'static str, Json) {
    let raw = |text: &str| Json::Raw(text.to_string());
    match random.below(9) {
        0 => {
            ("contained", raw(r#"[{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"1999-01-01T00:00:00Z"}}]"#))
        }
        1 => (
            "extension",
            raw(
                r#"[{"url":"u","valueReference":{"reference":"Patient/b"}},{"id":"a","subject":{"reference":"Patient/a"}}]"#,
            ),
        ),
        2 => ("note", raw(r#"[{"text":"é😀 \"subject\":{\"reference\":\"Patient/1\"} 患者 \\"},{"text":"\\\"}]}"}]"#)),
        3 => ("valueQuantity", raw(r#"{"value":-0.10,"value":1E+400,"unit":"\ud800 \u0000"}"#)),
        4 => ("_subject", raw(r#"{"reference":"Patient/a"}"#)),
        5 => ("text", Json::Raw(format!("{{\"div\":\"{}\"}}", "x".repeat(random.below(300))))),
        6 => ("deep", Json::Raw(format!("{}1{}", "[".repeat(200), "]".repeat(200)))),
        7 => ("Subject", raw(r#"[true,false,null,[],{},""]"#)),
        _ => ("code", raw(r#"{ "text" : "a\tb" }"#)),
    }
}

/// A Bundle line that deletes the targets.
pub(crate) fn tombstone(targets: &[(String, String)], last_updated: Option<String>, random: &mut Random) -> Json {
    let entry = |(name, id): &(String, String), random: &mut Random| {
        let url = if random.one_in(5) { format!("{BASE}/{name}/{id}") } else { format!("{name}/{id}") };
        map(vec![("request", map(vec![("method", text("DELETE")), ("url", text(&url))]))])
    };
    let entries = targets.iter().map(|target| entry(target, random)).collect();
    let mut parts = vec![("resourceType", text("Bundle"))];
    if !random.one_in(3) {
        parts.push(("id", text("t1")));
    }
    if let Some(last_updated) = last_updated {
        parts.push(("meta", map(vec![("lastUpdated", text(&last_updated))])));
    }
    parts.push(("type", text(random.pick(&["transaction", "transaction", "batch"]))));
    parts.push(("entry", Json::List(entries)));
    map(parts)
}

/// A random type of [`TYPES`], by weight.
pub(crate) fn any_type(random: &mut Random) -> &'static str {
    let weights = [3, 6, 3, 2, 2, 4, 1, 1, 1, 2, 1, 2];
    let mut left = random.below(weights.iter().sum());
    for (index, weight) in weights.iter().enumerate() {
        if left < *weight {
            return TYPES[index].0;
        }
        left -= weight;
    }
    unreachable!()
}

/// A faulty line made from a good one: no resource, or no JSON.
pub(crate) fn faulty(line: &[u8], random: &mut Random) -> Vec<u8> {
    let mut line = line.to_vec();
    match random.below(7) {
        0 => line.truncate(random.below(line.len().max(2) - 1) + 1),
        1 => line.extend(b" x"),
        2 => line.insert(1, 0xff),
        3 => line = b"[]".to_vec(),
        4 => line = b"\xef\xbb\xbf{\"resourceType\":\"Patient\",\"id\":\"a\"}".to_vec(),
        5 => line = br#"{"resourceType":"Patiant","id":"a","subject":{"reference":"Patient/a"}}"#.to_vec(),
        _ => line = br#"{"resourceType":"Observation","id":"a_b","subject":{"reference":"Patient/a"}}"#.to_vec(),
    }
    line
}

/// Joins lines to a file, at random with a byte order mark, carriage returns, blank lines, or no last newline.
pub(crate) fn join(lines: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    if random.one_in(8) {
        out.extend(b"\xef\xbb\xbf");
    }
    let carriage = random.one_in(5);
    for line in lines {
        if random.one_in(15) {
            out.extend(random.pick(&["\n", "  \t\n", "\r\n"]).as_bytes());
        }
        out.extend(line);
        out.extend(if carriage && !random.one_in(4) { &b"\r\n"[..] } else { b"\n" });
    }
    if random.one_in(6) && out.ends_with(b"\n") && !lines.is_empty() {
        out.pop();
    }
    out
}

/// Writes a store file; `.gz` and `.zst` files in several members or frames with random boundaries.
pub(crate) fn file(path: &Path, bytes: &[u8], random: &mut Random) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let name = path.to_str().unwrap();
    let mut stored = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() || stored.is_empty() {
        let take = if random.one_in(2) { rest.len() } else { random.below(rest.len() + 1) };
        let (part, after) = rest.split_at(take);
        rest = after;
        if name.ends_with(".gz") {
            let mut encoder = flate2::write::GzEncoder::new(&mut stored, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        } else if name.ends_with(".zst") {
            stored.extend(zstd::bulk::compress(part, 1).unwrap());
            if random.one_in(3) {
                stored.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'a', b'b', b'c']); // a skippable frame
            }
        } else {
            stored.extend(part);
            if bytes.is_empty() {
                break;
            }
        }
    }
    std::fs::write(path, stored).unwrap();
}
