//! Sources imported into stores: against a twin that expands a Bundle in memory, and each form of source and of problem.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fhir::instant::Instant;
use crate::import::sources::list_sources;
use crate::import::writer::{ImportOptions, ImportWriter, SourceReport, SourceState};
use crate::progress::Progress;
use crate::store::Store;
use crate::sys::durability::FileSync;

/// Imports a path into a store.
fn import(store: &Path, source: &Path, partial: bool) -> SourceReport {
    import_as(store, source, partial, None)
}

/// Imports a path into a store, at a time, with new dates if there is one.
fn import_as(store: &Path, source: &Path, partial: bool, stamp: Option<&str>) -> SourceReport {
    let mut sources = Vec::new();
    list_sources(source, &mut sources).unwrap();
    assert_eq!(sources.len(), 1, "{sources:?}");
    let store = Store::open(store).unwrap();
    let now = || Instant::parse(stamp.unwrap_or("2026-01-01T00:00:00Z")).unwrap();
    let stamps = stamp.is_some();
    let options =
        ImportOptions { partial, stamps, bases: &["https://own.example".to_string()], sync: FileSync::No, now: &now };
    let progress = Progress::default();
    ImportWriter::open(&store, options, &progress).unwrap().import(&sources[0], &progress).unwrap()
}

/// Lines of each file that imports made, those of later imports behind.
fn lines(store: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut directories: Vec<_> = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    for directory in directories.iter().filter(|path| path.is_dir()) {
        if directory.file_name().unwrap().to_str().unwrap().starts_with('.') {
            continue;
        }
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            if let Some(name) = name.strip_suffix(".ndjson") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.ends_with('\n'));
                found.entry(name.to_string()).or_default().extend(text.lines().map(str::to_string));
            }
        }
    }
    found
}

/// A store and a place for sources.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        World { dir }
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn import(&self, text: &str, partial: bool) -> SourceReport {
        let path = self.dir.path().join("source.json");
        std::fs::write(&path, text).unwrap();
        import(&self.store(), &path, partial)
    }

    /// Imports a text that is refused, with the one reason, and adds nothing.
    #[track_caller]
    fn refused(&self, text: &str, reason: &str) -> crate::import::problem::ImportProblem {
        let before = lines(&self.store());
        let report = self.import(text, false);
        assert_eq!(report.state, SourceState::Refused, "{text}");
        assert_eq!(report.problems.count, 1, "{:?}", report.problems);
        let problem = report.problems.first[0].clone();
        assert!(problem.reason.contains(reason), "{problem}");
        assert_eq!(lines(&self.store()), before);
        problem
    }
}

/// The rows of a Bundle, by type, the slow and obvious way: every reference is looked up in a map of all fullUrls.
fn expand(bundle: &Value) -> BTreeMap<String, Vec<Value>> {
    let entries = bundle["entry"].as_array().unwrap();
    let id_of = |entry: &Value| {
        let (own, url) = (entry["resource"]["id"].as_str(), entry["fullUrl"].as_str().unwrap_or_default());
        own.map_or_else(|| url.rsplit(['/', ':']).next().unwrap().to_string(), str::to_string)
    };
    let target = |entry: &Value| format!("{}/{}", entry["resource"]["resourceType"].as_str().unwrap(), id_of(entry));
    let known: HashMap<String, String> =
        entries.iter().filter_map(|entry| Some((entry["fullUrl"].as_str()?.to_string(), target(entry)))).collect();
    fn replace(value: &mut Value, name: &str, depth: usize, known: &HashMap<String, String>) {
        match value {
            Value::String(text) if name == "reference" => {
                let (url, version) = match text.split_once("/_history/") {
                    Some((url, version)) => (url.to_string(), format!("/_history/{version}")),
                    None => (text.clone(), String::new()),
                };
                if let Some(target) = known.get(&url).filter(|_| url.contains(':')) {
                    *text = format!("{target}{version}");
                }
            }
            Value::String(text) if ["url", "valueUri"].contains(&name) && text.starts_with("urn:") && depth > 1 => {
                if let Some(target) = known.get(text) {
                    *text = target.clone();
                }
            }
            Value::Object(members) => {
                members.iter_mut().for_each(|(name, value)| replace(value, name, depth + 1, known));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, "", depth, known)),
            _ => {}
        }
    }
    let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in entries {
        let mut resource = entry["resource"].clone();
        resource["id"] = id_of(entry).into();
        replace(&mut resource, "", 0, &known);
        rows.entry(resource["resourceType"].as_str().unwrap().to_string()).or_default().push(resource);
    }
    rows
}

/// A Bundle whose entries refer to one another in every form that is resolved.
fn any_bundle() -> impl Strategy<Value = Value> {
    let entry = (
        0usize..3,
        0u8..3,
        any::<bool>(),
        proptest::collection::vec((0usize..12, 0u8..6), 0..5),
        "[ -~é\\\\\"\n]{0,90}",
    );
    proptest::collection::vec(entry, 1..12).prop_map(|entries| {
        let uuid = |n: usize| format!("7c1e2f00-7ef7-4c4c-8a34-0c0a4e6b1{n:03}");
        let kind = |n: usize| ["Patient", "Observation", "Condition"][n];
        let kinds: Vec<(usize, u8)> = entries.iter().map(|entry| (entry.0, entry.1)).collect();
        let url = |n: usize| match kinds[n].1 {
            0 => format!("urn:uuid:{}", uuid(n)),
            1 => format!("http://other.example/fhir/{}/{}", kind(kinds[n].0), uuid(n)),
            _ => format!("https://own.example/{}/{}", kind(kinds[n].0), uuid(n)),
        };
        let list = entries.iter().enumerate().map(|(n, (type_number, _, has_id, links, text))| {
            let links = links.iter().map(|(to, form)| {
                let to = to % kinds.len();
                match form {
                    0 | 1 => json!({"subject": {"reference": url(to)}}),
                    2 if kinds[to].1 > 0 => json!({"reference": format!("{}/_history/2", url(to))}),
                    3 => json!({"reference": format!("{}/{}", kind(kinds[to].0), uuid(to)), "display": text}),
                    4 => json!({"attachment": {"url": url(to)}, "valueUri": url(to), "value": url(to)}),
                    _ => json!({"reference": "https://else.example/Patient/1", "x": [url(to), 1.50, null, true]}),
                }
            });
            let mut resource =
                json!({"resourceType": kind(*type_number), "note": text, "links": links.collect::<Vec<_>>()});
            if *has_id {
                resource["id"] = uuid(n).into();
            }
            json!({"fullUrl": url(n), "resource": resource, "request": {"method": "POST", "url": kind(*type_number)}})
        });
        json!({"resourceType": "Bundle", "type": "transaction", "entry": list.collect::<Vec<_>>()})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Pretty-printed or not: the rows are those of the twin, on one line each, and the same source again adds none.
    #[test]
    fn a_bundle_becomes_the_rows_of_its_twin(bundle in any_bundle(), pretty: bool) {
        let world = World::new();
        let text = if pretty { serde_json::to_string_pretty(&bundle).unwrap() } else { bundle.to_string() };
        let report = world.import(&text, false);
        prop_assert_eq!(report.state, SourceState::Imported, "{:?}", report.problems);
        let found = lines(&world.store());
        let parsed: BTreeMap<String, Vec<Value>> = found
            .iter()
            .map(|(name, lines)| (name.clone(), lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()))
            .collect();
        prop_assert_eq!(parsed, expand(&bundle));
        prop_assert_eq!(world.import(&text, false).state, SourceState::Known);
        prop_assert_eq!(lines(&world.store()), found);
    }

    /// No text panics, whatever is cut or changed in it, and what is refused adds nothing.
    #[test]
    fn damage_is_told(bundle in any_bundle(), cut in 0.0f64..1.0, change in 0.0f64..1.0, byte: u8, partial: bool) {
        let world = World::new();
        let mut text = serde_json::to_vec_pretty(&bundle).unwrap();
        let at = (change * text.len() as f64) as usize;
        text[at] = byte;
        text.truncate(1 + (cut * text.len() as f64) as usize);
        let path = world.dir.path().join("source.json");
        std::fs::write(&path, &text).unwrap();
        let report = import(&world.store(), &path, partial);
        prop_assert!(report.problems.count > 0 || serde_json::from_slice::<Value>(&text).is_ok() || report.state == SourceState::Empty);
        prop_assert!(partial || report.problems.count == 0 || lines(&world.store()).is_empty());
        for line in lines(&world.store()).values().flatten() {
            prop_assert!(serde_json::from_str::<Value>(line).is_ok(), "{}", line);
        }
    }
}

const UUID: &str = "058c1e2f-7ef7-4c4c-8a34-0c0a4e6b1c11";

/// A transaction of these entries.
fn transaction(entries: &[&str]) -> String {
    format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(",\n"))
}

/// An entry with this resource and request.
fn entry(resource: &str, method: &str, url: &str) -> String {
    format!(r#"{{"resource":{resource},"request":{{"method":"{method}","url":"{url}"}}}}"#)
}

/// Bytes stay as they are: digits of numbers, escapes, order of members; only white space between tokens goes.
#[test]
fn bytes_are_copied() {
    let world = World::new();
    let resource = "{ \"resourceType\" : \"Observation\", \"value\":[ 1.50, 1E+2, -0.0 ],\n\t\"text\" : \"a  b\\u00e9\\n\\/\" , \"id\":\"x\" }";
    assert_eq!(
        world.import(&transaction(&[&entry(resource, "PUT", "Observation/x")]), false).state,
        SourceState::Imported
    );
    let expected = r#"{"resourceType":"Observation","value":[1.50,1E+2,-0.0],"text":"a  b\u00e9\n\/","id":"x"}"#;
    assert_eq!(lines(&world.store())["Observation"], [expected]);
}

/// The forms of a source: NDJSON by content, arrays, values one after another, a single resource, Bundles in lines.
#[test]
fn sources_are_told_apart_by_content() {
    let patient = |id: &str| format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#);
    let bundle =
        format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{}}}]}}"#, patient("b"));
    for (text, expected) in [
        (format!("{}\n{}\n", patient("a"), patient("b")), 2),
        (format!("\n{}\r\n\n{}", patient("a"), patient("b")), 2),
        (format!("[{},\n {}]", patient("a"), patient("c")), 2),
        (format!("[{},\n {}, {}]", patient("a"), bundle, bundle), 3),
        (format!("{}\n{}\n", bundle, patient("c")), 2),
        (format!("{} {}", patient("c"), bundle), 2),
        (patient("a"), 1),
        (format!("\u{feff}{}", patient("a")), 1),
        (bundle.replace("[{", "[ {\n").replace("}]", "}\n ]\n"), 1),
        ("[]".to_string(), 0),
        (String::new(), 0),
        (r#"{"resourceType":"Bundle","type":"searchset","total":0}"#.to_string(), 0),
    ] {
        let world = World::new();
        let report = world.import(&text, false);
        let state = if expected == 0 { SourceState::Empty } else { SourceState::Imported };
        assert_eq!((report.state, report.problems.count), (state, 0), "{text}: {:?}", report.problems);
        assert_eq!(lines(&world.store()).values().map(Vec::len).sum::<usize>(), expected, "{text}");
    }
}

/// Problems name entry and byte, and nothing of the source is taken; with `partial` the rest is.
#[test]
fn problems_have_places() {
    let world = World::new();
    let patient = r#"{"resourceType":"Patient","id":"a"}"#;
    let good = entry(patient, "PUT", "Patient/a");
    let bad = entry(r#"{"resourceType":"Patient","id":"b","x":01}"#, "PUT", "Patient/b");
    let text = transaction(&[&good, &bad]);
    let problem = world.refused(&text, "number");
    assert_eq!((problem.entry, problem.offset as usize), (Some(2), text.find("01").unwrap() + 1));
    let report = world.import(&text, true);
    assert_eq!((report.state, report.problems.count), (SourceState::Imported, 1));
    assert_eq!(lines(&world.store())["Patient"], [patient]);
    let world = World::new();
    let dangling = entry(
        &format!(r#"{{"resourceType":"Condition","id":"c","subject":{{"reference":"urn:uuid:{UUID}"}}}}"#),
        "PUT",
        "Condition/c",
    );
    assert_eq!(world.refused(&transaction(&[&good, &dangling]), "urn:").entry, Some(2));
    let cut = &text[..text.len() - 20];
    assert_eq!(world.refused(cut, "ends inside the Bundle").entry, Some(2));
    assert_eq!(world.import(cut, true).rows.len(), 1);
    let world = World::new();
    world.refused(
        &transaction(&[&entry(patient, "DELETE", "Patient/a")])
            .replace("\"resource\":{\"resourceType\":\"Patient\",\"id\":\"a\"},", ""),
        "no date",
    );
    world.refused(r#"{"resourceType":"Bundle","type":"transaction-response","entry":[]}"#, "answer");
    world.refused(r#"{"resourceType":"Bundle","entry":[]}"#, "no type");
    world.refused(r#"{"resourceType":"Bundle","type":"batch","type":"batch"}"#, "twice");
    world.refused("[1]", "commas");
    world.refused(r#"[{"resourceType":"Patient","id":"a"}"#, "array");
    world.refused(r#"{"resourceType":"Patient","id":"a"} x"#, "no resource begins");
    world.refused("{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"resourceType\":\"Patient\",\n", "ends inside");
    let url =
        |id: &str| format!(r#"{{"fullUrl":"urn:uuid:{UUID}","resource":{{"resourceType":"Patient","id":"{id}"}}}}"#);
    world.refused(&transaction(&[&url("a"), &url("b")]), "earlier entry");
    let newline = entry("{\"resourceType\":\"Patient\",\"id\":\"b\",\"x\":\"a\nb\"}", "PUT", "Patient/b");
    world.refused(&transaction(&[&newline]), "line feed");
    let doubled = entry(r#"{"resourceType":"Patient","id":"b","resourceType":"Group"}"#, "PUT", "Patient/b");
    world.refused(&transaction(&[&doubled]), "twice");
}

/// Deletions are lines that the store reads, dated by entry, Bundle or manifest; a history keeps every version.
#[test]
fn histories_and_deletions() {
    let world = World::new();
    let version = |n: u32| {
        format!(
            r#"{{"fullUrl":"http://x.example/Patient/a","resource":{{"resourceType":"Patient","id":"a","meta":{{"versionId":"{n}","lastUpdated":"2024-01-0{n}T00:00:00Z"}}}},"request":{{"method":"PUT","url":"Patient/a/_history/{n}"}}}}"#
        )
    };
    let deleted = r#"{"fullUrl":"http://x.example/Patient/a","request":{"method":"DELETE","url":"Patient/a"},"response":{"status":"204","lastModified":"2024-01-03T00:00:00Z"}}"#;
    let text =
        format!(r#"{{"resourceType":"Bundle","type":"history","entry":[{deleted},{},{}]}}"#, version(2), version(1));
    let report = world.import(&text, false);
    assert_eq!((report.state, report.deletions), (SourceState::Imported, 1), "{:?}", report.problems);
    let found = lines(&world.store());
    assert_eq!(found["Patient"].len(), 2);
    let bundle: Value = serde_json::from_str(&found["deleted"][0]).unwrap();
    assert!(bundle["meta"]["lastUpdated"].as_str().unwrap().starts_with("2024-01-03T00:00:00"));
    assert_eq!(bundle["entry"][0]["request"]["url"], "Patient/a");
    let snapshot =
        Store::open(world.store()).unwrap().snapshot(Instant::parse("2024-06-01T00:00:00Z").unwrap()).unwrap();
    let id = crate::fhir::id::Id::parse(b"a").unwrap();
    let rows =
        crate::group::lookup::group_rows_of(&snapshot, crate::fhir::resource_type::ResourceType::PATIENT, &id).unwrap();
    let states = rows.iter().map(|row| snapshot.state(*row, snapshot.as_of().as_ref(), &[true], &|_| true).unwrap());
    let current = crate::index::snapshot::RowState::Current;
    assert_eq!((rows.len(), states.filter(|state| *state == current).count()), (2, 0), "it is deleted");
}

/// Conditions and conditional references: the entries of the Bundle first, then the store.
#[test]
fn searches_are_answered() {
    let world = World::new();
    let organization = |id: &str, value: &str| {
        format!(r#"{{"resourceType":"Organization","id":"{id}","identifier":[{{"system":"s","value":"{value}"}}]}}"#)
    };
    let stored = format!("{}\n{}\n{}\n", organization("o1", "1"), organization("o2", "2"), organization("o3", "2"));
    assert_eq!(world.import(&stored, false).state, SourceState::Imported);
    let refers = |value: &str| {
        entry(
            &format!(
                r#"{{"resourceType":"Patient","id":"p","managingOrganization":{{"reference":"Organization?identifier=s|{value}"}}}}"#
            ),
            "PUT",
            "Patient/p",
        )
    };
    let create = |id: &str, value: &str, uuid: &str| {
        format!(
            r#"{{"fullUrl":"urn:uuid:{uuid}","resource":{},"request":{{"method":"POST","url":"Organization","ifNoneExist":"identifier=s|{value}"}}}}"#,
            organization(id, value)
        )
    };
    world.refused(&transaction(&[&refers("none")]), "matches no");
    world.refused(&transaction(&[&refers("2")]), "matches several");
    world.refused(&transaction(&[&refers("1").replace("?identifier", "?name")]), "other than one identifier");
    world.refused(&transaction(&[&create("x", "2", UUID)]), "412");
    world.refused(&transaction(&[&create("x", "2", UUID).replace("identifier=s|2", "name=2")]), "other than one");
    for url in ["Organization?name=x", r"Organization\u003fname=x"] {
        world.refused(&transaction(&[&entry(&organization("x", "9"), "PUT", url)]), "other than one identifier");
    }
    let other = UUID.replace("058c", "158c");
    let linked = entry(
        &format!(
            r#"{{"resourceType":"Patient","id":"q","managingOrganization":{{"reference":"urn:uuid:{UUID}"}},"x":{{"reference":"Organization/mine"}},"y":{{"reference":"urn:uuid:{other}"}}}}"#
        ),
        "PUT",
        "Patient/q",
    );
    // One that the store has, one that is new, and the same again in the Bundle.
    let third = UUID.replace("058c", "258c");
    let again =
        linked.replace(r#"{"resourceType""#, &format!(r#"{{"z":{{"reference":"urn:uuid:{third}"}},"resourceType""#));
    let text = transaction(&[
        &refers("1"),
        &create("mine", "1", UUID),
        &create("new", "9", &other),
        &create("newer", "9", &third),
        &again,
    ]);
    let report = world.import(&text, false);
    assert_eq!((report.state, report.passed_over), (SourceState::Imported, 2), "{:?}", report.problems);
    let found = lines(&world.store());
    assert_eq!(found["Organization"].len(), 4, "only the new one is added");
    let patients: Vec<Value> = found["Patient"].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(patients[0]["managingOrganization"]["reference"], "Organization/o1");
    assert_eq!(patients[1]["managingOrganization"]["reference"], "Organization/o1");
    assert_eq!(patients[1]["x"]["reference"], "Organization/o1");
    assert_eq!(
        (&patients[1]["y"]["reference"], &patients[1]["z"]["reference"]),
        (&json!("Organization/new"), &json!("Organization/new"))
    );
    // A conditional update takes the id of what it matches.
    let bare = r#"{"resourceType":"Organization","name":"changed","identifier":[{"system":"s","value":"1"}]}"#;
    let update = entry(bare, "PUT", "Organization?identifier=s|1");
    assert_eq!(world.import(&transaction(&[&update]), false).state, SourceState::Imported);
    assert!(lines(&world.store())["Organization"][4].starts_with(r#"{"id":"o1","#));
    world.refused(
        &transaction(&[&entry(&organization("else", "1"), "PUT", "Organization?identifier=s|1")]),
        "not that of",
    );
}

/// A source that was taken whole is known with and without `partial`; one that was taken in part is refused without.
#[test]
fn partial_sources_come_once() {
    let patient = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    for partial in [false, true] {
        let world = World::new();
        assert_eq!(world.import(&patient("a"), partial).state, SourceState::Imported);
        assert_eq!(world.import(&patient("a"), !partial).state, SourceState::Known);
    }
    let world = World::new();
    let text = patient("a") + "{\n";
    for (partial, state) in [(true, SourceState::Imported), (true, SourceState::Known), (false, SourceState::Refused)] {
        assert_eq!(world.import(&text, partial).state, state);
    }
    assert_eq!(lines(&world.store())["Patient"].len(), 1);
}

/// The output of an export: its files by the names of their URLs, what it lists as deleted as of its time; one that lacks a
/// file is refused. Compressed files are decoded.
#[test]
fn exports_are_sources() {
    let world = World::new();
    let out = world.dir.path().join("out");
    std::fs::create_dir_all(out.join("deleted")).unwrap();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    std::fs::write(out.join("1.ndjson.gz"), gzip("{\"resourceType\":\"Patient\",\"id\":\"a\"}\n")).unwrap();
    std::fs::write(out.join("not-listed.ndjson"), "{").unwrap();
    std::fs::write(
        out.join("deleted/d.ndjson"),
        transaction(&[r#"{"request":{"method":"DELETE","url":"Patient/b"}}"#]).replace('\n', ""),
    )
    .unwrap();
    let manifest = json!({"transactionTime": "2024-01-01T00:00:00Z", "output": [{"type": "Patient", "url": "https://x.example/f/1.ndjson.gz?sig=1"}], "deleted": [{"type": "Bundle", "url": "https://x.example/f/d.ndjson"}]});
    std::fs::write(out.join("manifest.json"), manifest.to_string()).unwrap();
    let report = import(&world.store(), &out, false);
    assert_eq!((report.state, report.deletions), (SourceState::Imported, 1), "{:?}", report.problems);
    assert_eq!(import(&world.store(), &out, false).state, SourceState::Known);
    assert!(lines(&world.store())["deleted"][0].contains("2024-01-01T00:00:00"));
    std::fs::remove_file(out.join("1.ndjson.gz")).unwrap();
    let report = import(&world.store(), &out, false);
    assert_eq!(report.state, SourceState::Refused);
    assert!(report.problems.first[0].reason.contains("1.ndjson.gz"), "{:?}", report.problems);
    std::fs::write(out.join("1.ndjson.gz"), &gzip("{\"resourceType\":\"Patient\",\"id\":\"a\"}\n")[..20]).unwrap();
    assert_eq!(import(&world.store(), &out, true).state, SourceState::Refused);
}

/// Directories are named in the order of imports though the clock stands still; what a killed import left is removed.
#[test]
fn later_imports_sort_later() {
    let world = World::new();
    let left = world.store().join(".import-20250101T000000.000Z-x.outpour-partial");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("Patient.ndjson"), "{").unwrap();
    let mut names = Vec::new();
    for id in ["c", "b", "a"] {
        names.extend(world.import(&format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#), false).directory);
    }
    assert!(!left.exists() && names.is_sorted() && names.len() == 3, "{names:?}");
    let record = std::fs::read_to_string(world.store().join(&names[0]).join(".outpour-import.json")).unwrap();
    assert!(record.contains("\"Patient\": 1"), "{record}");
}

/// A row that is longer than what is held in memory passes in pieces, its links replaced.
#[test]
fn long_rows_pass() {
    let world = World::new();
    let data = "x".repeat(crate::limits::IMPORT_ROW_HELD_MAX + 10);
    let long = |id: &str| {
        format!(
            r#"{{"fullUrl":"urn:uuid:{UUID}","resource":{{ "resourceType":"Binary",{id}"data":"{data}","by":{{"reference":"urn:uuid:{UUID}"}}}}}}"#
        )
    };
    let small = entry(r#"{"resourceType":"Patient","id":"p"}"#, "PUT", "Patient/p");
    let report = world.import(&transaction(&[&small, &long(""), &small]), false);
    assert_eq!(report.state, SourceState::Imported, "{:?}", report.problems);
    let found = lines(&world.store());
    let expected =
        format!(r#"{{"id":"{UUID}","resourceType":"Binary","data":"{data}","by":{{"reference":"Binary/{UUID}"}}}}"#);
    assert!(found["Binary"] == [expected] && found["Patient"].len() == 2);
    let refused = world.import(&transaction(&[&long(r#""id":1,"#)]), false);
    assert_eq!((refused.state, refused.problems.count), (SourceState::Refused, 1));
}

/// With new dates: what changed is dated after every snapshot, what did not is left out, also when an old version comes back;
/// the next increment has what changed. Deletions are those of what is there.
#[test]
fn changed_rows_get_a_new_date() {
    let world = World::new();
    let path = world.dir.path().join("source.ndjson");
    let stamp = |text: &str, now: &str| {
        std::fs::write(&path, text).unwrap();
        let report = import_as(&world.store(), &path, false, Some(now));
        assert_eq!(report.problems.count, 0, "{:?}", report.problems);
        (report.rows.iter().map(|(_, rows)| rows).sum::<u64>(), report.deletions, report.unchanged, report.state)
    };
    let row = |id: &str, more: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"{more}}}\n");
    let first = row("a", "") + &row("b", r#","meta":{"lastUpdated":"2020-01-01T00:00:00Z"}"#);
    assert_eq!(stamp(&first, "2026-01-01T00:00:00Z"), (2, 0, 0, SourceState::Imported));
    assert_eq!(stamp(&first, "2026-01-02T00:00:00Z"), (0, 0, 2, SourceState::Known));
    let store = Store::open(world.store()).unwrap();
    // A snapshot later than the clock of the next import.
    let snapshot = store.snapshot(Instant::parse("2026-01-05T00:00:00Z").unwrap()).unwrap();
    let changed = row("a", r#","active":true"#) + &row("b", "");
    assert_eq!(stamp(&changed, "2026-01-03T00:00:00Z"), (1, 0, 1, SourceState::Imported));
    let found = lines(&world.store());
    let last: Value = serde_json::from_str(found["Patient"].last().unwrap()).unwrap();
    let date = Instant::parse(last["meta"]["lastUpdated"].as_str().unwrap()).unwrap();
    assert!(date > *snapshot.as_of(), "{last}");
    assert_eq!(stamp(&first, "2026-01-06T00:00:00Z"), (1, 0, 1, SourceState::Imported), "the old version is back");
    let deletion = |id: &str| transaction(&[&format!(r#"{{"request":{{"method":"DELETE","url":"Patient/{id}"}}}}"#)]);
    assert_eq!(stamp(&deletion("a"), "2026-01-07T00:00:00Z"), (0, 1, 0, SourceState::Imported));
    assert_eq!(stamp(&deletion("a"), "2026-01-08T00:00:00Z"), (0, 0, 1, SourceState::Known));
    assert_eq!(stamp(&row("a", ""), "2026-01-09T00:00:00Z"), (1, 0, 0, SourceState::Imported), "it is there again");
    let history = r#"{"resourceType":"Bundle","type":"history","entry":[]}"#;
    std::fs::write(&path, history).unwrap();
    assert!(
        import_as(&world.store(), &path, false, Some("2026-01-09T00:00:00Z")).problems.first[0]
            .reason
            .contains("dates of their own")
    );
}
