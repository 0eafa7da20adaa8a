//! Tests of registry and view: durability across crashes, the version that counts, and searches compared with an oracle
//! that reads every document.

use crate::fhir::reference::Reference;
use crate::group::registry::document::GroupDocument;
use crate::group::registry::query::GroupQuery;
use crate::group::registry::search::{SearchPage, SearchSummary};
use crate::group::registry::view::{GroupLookup, GroupView, Precondition};
use crate::group::rules::{GroupRules, WantedId};
use crate::index::snapshot::Snapshot;
use crate::store::Store;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value as Tree, json};
use tempfile::TempDir;

use super::*;

fn id(text: &str) -> Id {
    Id::parse(text.as_bytes()).unwrap()
}

fn at(second: i64) -> Instant {
    Instant::from_unix_millis(1_700_000_000_000 + second * 1000)
}

fn body(members: &[&str]) -> Vec<u8> {
    let members: Vec<Tree> = members.iter().map(|member| json!({"entity": {"reference": member}})).collect();
    json!({"resourceType": "Group", "type": "person", "actual": true, "name": "Diabetes 2024", "member": members})
        .to_string()
        .into_bytes()
}

fn with_id(name: &str, members: &[&str]) -> Vec<u8> {
    let mut tree: Tree = serde_json::from_slice(&body(members)).unwrap();
    tree["id"] = name.into();
    tree.to_string().into_bytes()
}

fn checked(body: &[u8]) -> GroupDocument<'_> {
    GroupDocument::check(body, WantedId::Ignored, &GroupRules::default()).unwrap()
}

fn registry(directory: &Path) -> GroupRegistry {
    GroupRegistry::open(directory, FileSync::No).unwrap()
}

/// A store of these lines, and its snapshot at a second.
fn store(lines: &[String], second: i64) -> (TempDir, Snapshot) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("all.ndjson"), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    let snapshot = Store::open(directory.path()).unwrap().snapshot(at(second)).unwrap();
    (directory, snapshot)
}

fn store_group(name: &str, second: i64, more: &str) -> String {
    format!(
        r#"{{"resourceType":"Group", "id":"{name}","meta":{{"versionId":"5","lastUpdated":"{}"}},"type":"person","actual":true{more}}}"#,
        at(second)
    )
}

fn bytes_of(found: &GroupLookup) -> Vec<u8> {
    match found {
        GroupLookup::Registered(group) => {
            let mut bytes = vec![0; group.len() as usize];
            group.read_at(0, &mut bytes).unwrap();
            bytes
        }
        GroupLookup::Store(group) => {
            let mut bytes = Vec::new();
            group.stream(0..group.len(), &mut |piece| bytes.extend_from_slice(piece)).unwrap();
            bytes
        }
        GroupLookup::Deleted { .. } | GroupLookup::Unknown => Vec::new(),
    }
}

fn label(found: &GroupLookup) -> String {
    match found {
        GroupLookup::Registered(group) => format!("book {}", group.facts().version),
        GroupLookup::Store(group) => format!("store {}", group.facts().version),
        GroupLookup::Deleted { .. } => "deleted".to_string(),
        GroupLookup::Unknown => "unknown".to_string(),
    }
}

fn ids_of(groups: &GroupView<'_>, parameters: &[(&str, &str)]) -> Vec<String> {
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (query, problems) = GroupQuery::parse(&parameters, groups.bases);
    assert_eq!(problems, []);
    let mut ids = Vec::new();
    let page = SearchPage { after: None, count: 1000, bytes_max: u64::MAX };
    let total = groups
        .search(&query, page, &mut |hit| {
            ids.push(hit.id.to_string());
            Ok(())
        })
        .unwrap();
    assert_eq!((total.total, total.next), (ids.len() as u64, None));
    ids
}

/// GROUP-01: a Group is made, read, changed, read again by another process, deleted; everything but id, versionId and
/// lastUpdated stays as it was written.
#[test]
fn a_group_lives_and_is_there_after_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let text = "{\n \"name\" : \"a \\u00e9 b\",\"resourceType\":\"Group\",\"id\":\"mine\", \"x-number\": 1.50e0,\"meta\":{\"versionId\":\"77\", \
        \"profile\" : [\"p\"]},\n\"type\":\"person\",\"actual\":true,\"x-unknown\":[1.0,{\"a\" : null}]}";
    let line = |version: u64, second: i64| {
        format!(
            r#"{{"resourceType":"Group","id":"g1","meta":{{"versionId":"{version}","lastUpdated":"{}","profile":["p"]}},"name":"a \u00e9 b","x-number":1.50e0,"type":"person","actual":true,"x-unknown":[1.0,{{"a":null}}]}}"#,
            at(second)
        )
    };
    {
        let registry = registry(scratch.path());
        let groups = GroupView::new(&registry, None, &[]);
        let written = groups.create(&id("g1"), &checked(text.as_bytes()), &at(1)).unwrap().unwrap();
        assert_eq!((written.version, written.created), (1, true));
        let group = GroupLookup::Registered(written.group.unwrap());
        assert_eq!(String::from_utf8(bytes_of(&group)).unwrap(), line(1, 1));
        assert!(groups.create(&id("g1"), &checked(text.as_bytes()), &at(1)).unwrap().is_err());
        assert_eq!(bytes_of(&groups.find(&id("g1")).unwrap()), line(1, 1).into_bytes());
        let before = groups.find(&id("g1")).unwrap();
        groups.update(&id("g1"), &checked(text.as_bytes()), &Precondition::Anything, &at(2)).unwrap().unwrap();
        assert_eq!(bytes_of(&before), line(1, 1).into_bytes(), "a reader keeps the version that it found");
        assert!(matches!(GroupRegistry::open(scratch.path(), FileSync::No), Err(GroupsError::Busy { .. })));
    }
    {
        let registry = registry(scratch.path());
        let groups = GroupView::new(&registry, None, &[]);
        let found = groups.find(&id("g1")).unwrap();
        assert_eq!(bytes_of(&found), line(2, 2).into_bytes());
        let GroupLookup::Registered(group) = found else { panic!("it is the book's") };
        let copy = scratch.path().join("copy");
        group.copy_to(&copy, FileSync::No).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), line(2, 2) + "\n");
        assert_eq!(fs::read_to_string(registry.file_of(&id("g1")).unwrap()).unwrap(), line(2, 2) + "\n");
        // A clock that went back makes no version that is older than the one before.
        let written = groups.delete(&id("g1"), &Precondition::Anything, &at(-9)).unwrap().unwrap().unwrap();
        assert_eq!((written.version, written.at), (3, at(2)));
    }
    let registry = registry(scratch.path());
    let groups = GroupView::new(&registry, None, &[]);
    assert!(matches!(groups.find(&id("g1")).unwrap(), GroupLookup::Deleted { version: Some(3), .. }));
    assert_eq!(registry.file_of(&id("g1")), None);
    assert!(matches!(groups.delete(&id("g1"), &Precondition::Anything, &at(5)).unwrap(), Ok(None)));
    assert!(matches!(groups.find(&id("g2")).unwrap(), GroupLookup::Unknown));
    let written = groups.update(&id("g1"), &checked(text.as_bytes()), &Precondition::Nothing, &at(6)).unwrap().unwrap();
    assert_eq!((written.version, written.created), (4, true));
}

/// PRIV-03: files are for their owner only, as all that holds patient ids.
#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("groups");
    let registry = GroupRegistry::open(&directory, FileSync::Yes).unwrap();
    GroupView::new(&registry, None, &[]).create(&id("g"), &checked(&body(&[])), &at(1)).unwrap().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("g.ndjson"))), (0o700, 0o600));
}

/// GROUP-01: a Group of the store and one made through the service are found alike; the later version holds, and of
/// two as old as each other the book's.
#[test]
fn the_later_version_holds() {
    let rows = |second: i64| [store_group("g", second, "")];
    for (book_second, store_second, expected) in
        [(10, 5, "book 1"), (10, 10, "book 1"), (10, 11, "store 5"), (10, 99, "book 1")]
    {
        let scratch = tempfile::tempdir().unwrap();
        let registry = registry(scratch.path());
        GroupView::new(&registry, None, &[]).create(&id("g"), &checked(&body(&[])), &at(book_second)).unwrap().unwrap();
        // A row of second 99 is not there yet at T.
        let (_store, snapshot) = store(&rows(store_second), 50);
        let groups = GroupView::new(&registry, Some(&snapshot), &[]);
        assert_eq!(label(&groups.find(&id("g")).unwrap()), expected, "{store_second}");
        assert_eq!(ids_of(&groups, &[]), ["g"]);
    }
}

/// A Group of the store is changed and deleted through the service until the store brings a later version; a deletion
/// in the store ends a version of the book, too. Store Groups leave byte for byte.
#[test]
fn groups_of_the_store_are_changed_and_deleted() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = registry(scratch.path());
    let row = store_group("g", 5, r#", "name" : "As it is""#);
    let (_first, snapshot) = store(std::slice::from_ref(&row), 50);
    let groups = GroupView::new(&registry, Some(&snapshot), &[]);
    assert_eq!(bytes_of(&groups.find(&id("g")).unwrap()), row.into_bytes());
    let wrong = Precondition::Versions(vec!["4".into()]);
    let right = Precondition::Versions(vec!["5".into()]);
    let document = body(&["Patient/a"]);
    let refused = groups.update(&id("g"), &checked(&document), &wrong, &at(1)).unwrap().unwrap_err();
    assert_eq!(refused.current.as_deref(), Some("5"));
    let written = groups.update(&id("g"), &checked(&document), &right, &at(1)).unwrap().unwrap();
    assert_eq!((written.version, &written.at, written.created), (6, &at(5), false));
    assert_eq!(label(&groups.find(&id("g")).unwrap()), "book 6");
    assert!(groups.delete(&id("g"), &right, &at(7)).unwrap().is_err());
    groups.delete(&id("g"), &Precondition::Something, &at(7)).unwrap().unwrap().unwrap();
    assert_eq!(label(&groups.find(&id("g")).unwrap()), "deleted");
    assert_eq!(ids_of(&groups, &[]), [""; 0]);
    assert!(groups.delete(&id("g"), &Precondition::Something, &at(7)).unwrap().is_err());

    let (_later, snapshot) = store(&[store_group("g", 8, "")], 50);
    let groups = GroupView::new(&registry, Some(&snapshot), &[]);
    assert_eq!(label(&groups.find(&id("g")).unwrap()), "store 5");
    groups.update(&id("g"), &checked(&document), &Precondition::Anything, &at(9)).unwrap().unwrap();
    for (second, expected, listed) in [(8, "book 6", 1), (20, "deleted", 0)] {
        let deletion = format!(
            r#"{{"resourceType":"Bundle","type":"transaction","meta":{{"lastUpdated":"{}"}},"entry":[{{"request":{{"method":"DELETE","url":"Group/g"}}}}]}}"#,
            at(second)
        );
        let (_deleted, snapshot) = store(&[store_group("g", 3, ""), deletion], 50);
        let groups = GroupView::new(&registry, Some(&snapshot), &[]);
        assert_eq!(label(&groups.find(&id("g")).unwrap()), expected);
        assert_eq!(ids_of(&groups, &[]).len(), listed);
        assert_eq!(ids_of(&groups, &[("_id", "g")]).len(), listed);
    }
}

/// A Group survives a crash right after its 201: the directory at each step of a write, opened again, has
/// the version before or the version after, and nothing else is left.
#[test]
fn every_crash_point_leaves_one_version() {
    let scratch = tempfile::tempdir().unwrap();
    let (before, after) = (scratch.path().join("before"), scratch.path().join("after"));
    {
        let registry = registry(&before);
        GroupView::new(&registry, None, &[])
            .create(&id("g"), &checked(&body(&["Patient/a"])), &at(1))
            .unwrap()
            .unwrap();
    }
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    for deletes in [false, true] {
        fs::remove_dir_all(&after).ok();
        copy(&before, &after);
        {
            let registry = registry(&after);
            let groups = GroupView::new(&registry, None, &[]);
            match deletes {
                true => drop(groups.delete(&id("g"), &Precondition::Anything, &at(2)).unwrap().unwrap()),
                false => drop(
                    groups
                        .update(&id("g"), &checked(&body(&["Patient/b"])), &Precondition::Anything, &at(2))
                        .unwrap()
                        .unwrap(),
                ),
            }
        }
        let line = fs::read(after.join("g.ndjson")).unwrap();
        // The temporary file in every length, and the rename done: the only states that a directory has.
        for written in 0..=line.len() + 1 {
            let crashed = tempfile::tempdir().unwrap();
            let renamed = written > line.len();
            copy(if renamed { &after } else { &before }, crashed.path());
            if !renamed {
                fs::write(crashed.path().join(".g.ndjson.part"), &line[..written]).unwrap();
            }
            let registry = registry(crashed.path());
            let found = GroupView::new(&registry, None, &[]).find(&id("g")).unwrap();
            let expected = match (renamed, deletes) {
                (false, _) => "book 1",
                (true, false) => "book 2",
                (true, true) => "deleted",
            };
            assert_eq!(label(&found), expected, "after {written} bytes");
            let mut names: Vec<_> =
                fs::read_dir(crashed.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, [".lock", "g.ndjson"]);
        }
    }
}

/// A damaged file is reported by name, and no Group is dropped silently.
#[test]
fn a_damaged_file_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    {
        let registry = registry(scratch.path());
        let groups = GroupView::new(&registry, None, &[]);
        groups.create(&id("g"), &checked(&body(&["Patient/a"])), &at(1)).unwrap().unwrap();
        groups.create(&id("d"), &checked(&body(&["Patient/a"])), &at(1)).unwrap().unwrap();
        groups.delete(&id("d"), &Precondition::Anything, &at(1)).unwrap().unwrap();
    }
    for name in ["g.ndjson", "d.ndjson"] {
        let path = scratch.path().join(name);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let damaged = damaged_files(scratch.path());
            assert!(
                matches!(&damaged[..], [GroupsError::Damaged { path: of, .. }] if *of == path),
                "{len}: {damaged:?}"
            );
        }
        fs::write(scratch.path().join("other.ndjson"), &whole).unwrap();
        fs::write(&path, &whole).unwrap();
        assert!(matches!(&damaged_files(scratch.path())[..], [GroupsError::Damaged { .. }]));
        fs::remove_file(scratch.path().join("other.ndjson")).unwrap();
    }
    assert!(damaged_files(scratch.path()).is_empty());
}

fn damaged_files(directory: &Path) -> Vec<GroupsError> {
    GroupRegistry::open(directory, FileSync::No).unwrap().damaged_files()
}

/// A version that could not be written is not reported as written, and the version before still counts.
#[test]
fn a_write_that_fails_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("groups");
    let registry = registry(&directory);
    let groups = GroupView::new(&registry, None, &[]);
    groups.create(&id("g"), &checked(&body(&["Patient/a"])), &at(1)).unwrap().unwrap();
    // A directory where the temporary file would go: neither a change nor a deletion can be written.
    fs::create_dir(directory.join(".g.ndjson.part")).unwrap();
    let document = body(&["Patient/b"]);
    let changed = groups.update(&id("g"), &checked(&document), &Precondition::Anything, &at(2));
    assert!(matches!(changed, Err(GroupsError::Io { .. })));
    assert!(matches!(groups.delete(&id("g"), &Precondition::Anything, &at(2)), Err(GroupsError::Io { .. })));
    assert_eq!(label(&groups.find(&id("g")).unwrap()), "book 1");
    fs::create_dir(directory.join(".h.ndjson.part")).unwrap();
    assert!(groups.create(&id("h"), &checked(&document), &at(2)).is_err());
    assert_eq!(ids_of(&groups, &[]), ["g"]);
}

/// Requests for one Group wait for each other: of many updates that expect one version, one is taken.
#[test]
fn one_of_many_writers_wins() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = registry(scratch.path());
    let document = body(&["Patient/a"]);
    GroupView::new(&registry, None, &[]).create(&id("g"), &checked(&document), &at(1)).unwrap().unwrap();
    let taken: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let groups = GroupView::new(&registry, None, &[]);
                    let expected = Precondition::Versions(vec!["1".into()]);
                    usize::from(groups.update(&id("g"), &checked(&document), &expected, &at(2)).unwrap().is_ok())
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(taken, 1);
    assert_eq!(label(&GroupView::new(&registry, None, &[]).find(&id("g")).unwrap()), "book 2");
}

/// Pages hold every match once, in the order of ids, whatever their size; a Group that takes a page past its bytes
/// ends it.
#[test]
fn pages_hold_every_match_once() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = registry(scratch.path());
    let (_store, snapshot) = store(&(0..5).map(|n| store_group(&format!("s{n}"), 5, "")).collect::<Vec<_>>(), 50);
    let groups = GroupView::new(&registry, Some(&snapshot), &[]);
    for n in 0..5 {
        groups.create(&id(&format!("r{n}")), &checked(&body(&["Patient/a"])), &at(1)).unwrap().unwrap();
    }
    let all = ids_of(&groups, &[]);
    assert_eq!(all.len(), 10);
    for (count, bytes_max) in [(1, u64::MAX), (3, u64::MAX), (10, u64::MAX), (100, u64::MAX), (4, 0), (4, 300)] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = SearchPage { after, count, bytes_max };
            let before = seen.len();
            let total = groups
                .search(&GroupQuery::default(), page, &mut |hit| {
                    assert_eq!(hit.len(), bytes_of(&hit.found).len() as u64);
                    seen.push(hit.id.to_string());
                    Ok(())
                })
                .unwrap();
            assert_eq!(total.total, 10);
            assert!(seen.len() > before && seen.len() - before <= count);
            after = total.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, all, "{count} {bytes_max}");
    }
    let page = SearchPage { after: None, count: 0, bytes_max: 0 };
    let total = groups.search(&GroupQuery::default(), page, &mut |_| panic!("none is asked for")).unwrap();
    assert_eq!(total, SearchSummary { total: 10, next: None, damaged: Vec::new() });
}

/// The oracle of a search: reads the whole document, and compares in the plainest way.
fn naive(tree: &Tree, name: &str, value: &str) -> bool {
    let token = |system: &Tree, code: &Tree| {
        let (system, Some(code)) = (system.as_str().unwrap_or(""), code.as_str()) else { return false };
        match value.split_once('|') {
            None => code == value,
            Some((wanted, "")) => system == wanted,
            Some((wanted, rest)) => system == wanted && code == rest,
        }
    };
    let list = |tree: &Tree| tree.as_array().cloned().unwrap_or_default();
    let refers = |reference: &Tree| {
        let Some(parsed) = reference.as_str().and_then(Reference::parse) else { return reference == value };
        let local = format!("{}/{}", parsed.resource_type, parsed.id);
        let ours = parsed.base.is_empty() || parsed.base == "https://us.example/fhir";
        match ours {
            true => [local.clone(), parsed.id.to_string(), format!("https://us.example/fhir/{local}")]
                .contains(&value.to_string()),
            false => format!("{}/{local}", parsed.base) == value,
        }
    };
    match name {
        "_id" => value.split(',').any(|value| tree["id"] == value),
        "name" => tree["name"].as_str().is_some_and(|of| of.to_lowercase().starts_with(&value.to_lowercase())),
        "name:exact" => tree["name"] == value,
        "identifier" => list(&tree["identifier"]).iter().any(|of| token(&of["system"], &of["value"])),
        "code" => list(&tree["code"]["coding"]).iter().any(|of| token(&of["system"], &of["code"])),
        "type" => tree["type"] == value,
        "actual" => tree["actual"].as_bool().is_some_and(|actual| actual.to_string() == value),
        "managing-entity" => refers(&tree["managingEntity"]["reference"]),
        "member" => list(&tree["member"]).iter().any(|member| refers(&member["entity"]["reference"])),
        _ => unreachable!("{name}"),
    }
}

fn group_tree() -> impl Strategy<Value = Tree> {
    let reference = proptest::sample::select(vec![
        "Patient/a",
        "Patient/b",
        "Practitioner/a",
        "https://us.example/fhir/Patient/a",
        "https://b.example/Patient/a",
        "Patient/b/_history/2",
        "urn:uuid:1",
    ]);
    let pair = |value: &'static str| {
        (proptest::sample::select(vec![None, Some("s"), Some("t")]), proptest::sample::select(vec!["v", "w"])).prop_map(
            move |(system, of)| {
                let mut tree = json!({value: of});
                if let Some(system) = system {
                    tree["system"] = system.into();
                }
                tree
            },
        )
    };
    let name = proptest::sample::select(vec![None, Some("Diabetes 2024"), Some("diabetes"), Some("Émile")]);
    (
        name,
        proptest::collection::vec(pair("value"), 0..3),
        proptest::collection::vec(pair("code"), 0..3),
        proptest::collection::vec(reference.clone(), 0..4),
        any::<bool>(),
        proptest::option::of(reference),
    )
        .prop_map(|(name, identifiers, codes, members, person, manager)| {
            let mut tree = json!({
                "resourceType": "Group", "type": if person { "person" } else { "device" }, "actual": true,
                "identifier": identifiers, "code": {"coding": codes},
                "member": members.iter().map(|member| json!({"entity": {"reference": member}})).collect::<Vec<_>>(),
            });
            if let Some(name) = name {
                tree["name"] = name.into();
            }
            if let Some(manager) = manager {
                tree["managingEntity"] = json!({"reference": manager});
            }
            tree
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// GROUP-01: every search finds what reading all documents finds, wherever a Group lies.
    #[test]
    fn searches_find_what_reading_everything_finds(
        trees in proptest::collection::vec((group_tree(), any::<bool>()), 0..8),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let registry = registry(scratch.path());
        let bases = ["https://us.example/fhir/".to_string()];
        let mut trees = trees;
        for (at, (tree, _)) in trees.iter_mut().enumerate() {
            tree["id"] = format!("g{at}").into();
        }
        let rows: Vec<String> = trees.iter().filter(|(_, made)| !made).map(|(tree, _)| tree.to_string()).collect();
        let (_store, snapshot) = store(&rows, 50);
        let groups = GroupView::new(&registry, Some(&snapshot), &bases);
        for (tree, _) in trees.iter().filter(|(_, made)| *made) {
            let name = id(tree["id"].as_str().unwrap());
            groups.create(&name, &checked(tree.to_string().as_bytes()), &at(1)).unwrap().unwrap();
        }
        let questions = [
            ("_id", "g0,g3"), ("_id", "none"), ("name", "dia"), ("name", "éM"), ("name:exact", "diabetes"),
            ("identifier", "v"), ("identifier", "s|v"), ("identifier", "|v"), ("identifier", "s|"),
            ("code", "w"), ("code", "t|w"), ("type", "person"), ("actual", "true"), ("actual", "false"),
            ("managing-entity", "Patient/a"), ("member", "Patient/a"), ("member", "a"), ("member", "b"),
            ("member", "https://us.example/fhir/Patient/b"), ("member", "https://b.example/Patient/a"),
            ("member", "urn:uuid:1"), ("member", "Patient/nobody"),
        ];
        for first in questions {
            for second in [None, Some(("name", "dia")), Some(("member", "Patient/b"))] {
                let criteria: Vec<_> = [Some(first), second].into_iter().flatten().collect();
                let expected: Vec<String> = trees
                    .iter()
                    .filter(|(tree, _)| criteria.iter().all(|(name, value)| naive(tree, name, value)))
                    .map(|(tree, _)| tree["id"].as_str().unwrap().to_string())
                    .collect();
                prop_assert_eq!(ids_of(&groups, &criteria), expected, "{:?}", criteria);
            }
        }
    }

    /// No body is a panic, and an accepted one is read back from the disk as it was checked.
    #[test]
    fn no_body_is_a_panic(cut in 0usize..400, with in "[\\[\\]{}:,\" \\\\a1tn\u{e9}\n]{0,6}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut text = with_id("g", &["Patient/a", "Patient/b"]);
        let cut = cut.min(text.len());
        text.splice(cut..(cut + with.len()).min(text.len()), with.bytes());
        for body in [text, bytes] {
            for wanted in [WantedId::Ignored, WantedId::Same(&id("g"))] {
                if let Ok(document) = GroupDocument::check(&body, wanted, &GroupRules::default()) {
                    let mut line = Vec::new();
                    document.write_version(&id("g"), 1, &at(1), &mut line).unwrap();
                    let tree: Tree = serde_json::from_slice(&line).unwrap();
                    prop_assert_eq!(&tree["id"], "g");
                    prop_assert!(GroupDocument::check(&line, wanted, &GroupRules::default()).is_ok());
                }
            }
        }
    }
}

/// A link, a pipe or a directory in the place of a Group's file is refused by its name, at once.
#[test]
fn what_is_no_file_is_refused_by_name() {
    for kind in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("book/g.ndjson");
        drop(GroupRegistry::open(&dir.path().join("book"), FileSync::No).unwrap());
        match kind {
            0 => std::os::unix::fs::symlink("/etc/passwd", &place).unwrap(),
            1 => crate::sys::test_pipe::make_pipe(&place),
            _ => std::fs::create_dir(&place).unwrap(),
        }
        let damaged = damaged_files(&dir.path().join("book"));
        assert!(matches!(&damaged[..], [GroupsError::Damaged { path, .. }] if *path == place), "{damaged:?}");
        // What has the form of a temporary file and is none of a Group stays.
        std::fs::rename(&place, dir.path().join("book/.no group.ndjson.part")).unwrap();
        drop(GroupRegistry::open(&dir.path().join("book"), FileSync::No).unwrap());
        assert!(dir.path().join("book/.no group.ndjson.part").symlink_metadata().is_ok());
    }
}
