//! Stores that once led the engine astray: each is small, and says what must come of it.

use crate::run::{Bounds, Export, export, scratch};
use std::ffi::CString;
use std::io::Write;
use std::path::Path;

/// Ids of the Patients of an export.
fn patients(out: &Path) -> Vec<String> {
    let export = Export::read(out, Bounds::DEFAULT);
    let lines = export.output.iter().filter(|file| file.resource_type == "Patient").flat_map(|file| &file.lines);
    let id =
        |line: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_string();
    lines.map(id).collect()
}

/// A pipe named `manifest.json` in a store is passed by like any other: nobody waits for its other end.
#[test]
fn a_pipe_in_place_of_a_manifest_is_passed_by() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("p.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    let pipe = CString::new(store.join("manifest.json").to_str().unwrap()).unwrap();
    // SAFETY: a C string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let run = export(&store, &out, &["--all-patients"]);
    assert!(run.code < 2, "{run:#?}");
    assert_eq!(patients(&out), ["a"]);
}

/// A Group that is a member directly and at the end of a chain longer than is followed is followed directly, whichever
/// member stands first.
#[test]
fn the_order_of_nested_groups_decides_nothing() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mut text =
        "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"resourceType\":\"Patient\",\"id\":\"b\"}\n".to_string();
    let mut add = |id: &str, members: &[&str]| {
        let members = members.iter().map(|member| format!(r#"{{"entity":{{"reference":"{member}"}}}}"#));
        let members = members.collect::<Vec<_>>().join(",");
        let head = format!(r#""resourceType":"Group","id":"{id}","type":"person","actual":true"#);
        text += &format!("{{{head},\"member\":[{members}]}}\n");
    };
    add("x", &["Patient/a"]);
    for number in 1..16 {
        add(&format!("c{number}"), &[&format!("Group/c{}", number + 1)]);
    }
    add("c16", &["Group/x"]);
    add("first", &["Patient/b", "Group/x", "Group/c1"]);
    add("last", &["Patient/b", "Group/c1", "Group/x"]);
    std::fs::write(store.join("a.ndjson"), text).unwrap();
    for group in ["first", "last"] {
        let out = scratch.path().join(group);
        let run = export(&store, &out, &["--group", group]);
        assert!(run.code < 2, "{run:#?}");
        assert_eq!(patients(&out), ["a", "b"], "{group}");
    }
}

/// Between the runs a member was appended to a compressed file and a torn line was completed: the export is finished with
/// the rows of the first run, or refused by the name of one of these files, never of one that nobody touched.
#[test]
fn a_resumed_run_blames_no_untouched_file() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    let row = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    let member = |id: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(row(id).as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    std::fs::write(store.join("a.ndjson"), row("a")).unwrap();
    std::fs::write(store.join("b.ndjson.gz"), member("b")).unwrap();
    std::fs::write(store.join("c.ndjson"), row("c").trim_end().trim_end_matches('}')).unwrap();
    assert!(export(&store, &out, &["--all-patients"]).code < 2);
    let first = patients(&out);
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    std::fs::write(store.join("b.ndjson.gz"), [member("b"), member("b2")].concat()).unwrap();
    std::fs::write(store.join("c.ndjson"), row("c")).unwrap();
    let resumed = export(&store, &out, &["--all-patients", "--resume"]);
    match resumed.code {
        0 | 1 => assert_eq!(patients(&out), first),
        code => {
            assert_eq!(code, 3, "{resumed:#?}");
            assert!(!resumed.said().contains("a.ndjson"), "{resumed:#?}");
            assert!(resumed.said().contains("b.ndjson.gz") || resumed.said().contains("c.ndjson"), "{resumed:#?}");
        }
    }
}
