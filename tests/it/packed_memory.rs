//! What a packed store records about its original store: when rows were first seen, and the owners of purged resources.
//! Small stores with rows of days in January 2020, packed once and twice.

use crate::pack::pack;
use crate::run::{self, Export, scratch};
use std::path::Path;

pub(crate) fn observation(id: &str, patient: &str, day: u32) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{id}","meta":{{"lastUpdated":"2020-01-{day:02}T00:00:00Z"}},"subject":{{"reference":"Patient/{patient}"}}}}"#
    ) + "\n"
}

fn day(day: u32) -> String {
    format!("2020-01-{day:02}T00:00:00.000Z")
}

/// Ids of the Observations, and deletions, in an export of one patient since a day.
fn since(store: &Path, patient: &str, from: u32, as_of: u32) -> (Vec<String>, Vec<String>) {
    let scratch = scratch();
    let list = scratch.path().join("patients");
    std::fs::write(&list, format!("{patient}\n")).unwrap();
    let out = scratch.path().join("out");
    let (from, as_of) = (day(from), day(as_of));
    let run = run::export(store, &out, &["--patients", list.to_str().unwrap(), "--since", &from, "--as-of", &as_of]);
    assert_eq!(run.code, 0, "{run:#?}");
    let export = Export::read(&out, run::Bounds::DEFAULT);
    let ids = export.lines().remove("Observation").unwrap_or_default().into_iter().map(|line| {
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        line["id"].as_str().unwrap().to_string()
    });
    (ids.collect(), export.deletions())
}

/// Late rows stay late in the packed store for every `since` before they were first seen; rows put beside it later are
/// late; no others are.
#[test]
fn late_rows_stay_late() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("a.ndjson"), observation("early", "p", 5)).unwrap();
    assert_eq!(since(&store, "p", 1, 10).0, ["early"]);
    std::fs::write(store.join("b.ndjson"), observation("late", "p", 7) + &observation("new", "p", 15)).unwrap();
    assert_eq!(since(&store, "p", 10, 20).0, ["late", "new"]);
    let packed = scratch.path().join("packed");
    assert_eq!(pack(&store, &packed, &["--as-of", &day(25)]).code, 0);
    let ids = |from, as_of| {
        let mut ids = since(&packed, "p", from, as_of).0;
        ids.sort();
        ids
    };
    assert_eq!(ids(10, 26), ["late", "new"]);
    assert_eq!(ids(20, 26), [""; 0]);
    assert_eq!(ids(1, 26), ["early", "late", "new"]);
    std::fs::write(packed.join("c.ndjson"), observation("later", "p", 8)).unwrap();
    assert_eq!(ids(26, 27), ["later"]);
    // The same after a second pack.
    let again = scratch.path().join("again");
    assert_eq!(pack(&packed, &again, &["--as-of", &day(28)]).code, 0);
    assert_eq!(since(&again, "p", 26, 29).0, ["later"]);
    let mut both = since(&again, "p", 10, 29).0;
    both.sort();
    assert_eq!(both, ["late", "later", "new"]);
    assert_eq!(since(&again, "p", 28, 29).0, [""; 0]);
}

/// A packed store without resources records the time of its pack: rows added later are late.
#[test]
fn an_empty_store_remembers_its_pack() {
    for (text, coding, suffix) in [("", "zstd", "zst"), ("{\n\n", "zstd", "zst"), ("{\n\n", "gzip", "gz")] {
        let scratch = scratch();
        let (store, packed, again) =
            (scratch.path().join("store"), scratch.path().join("packed"), scratch.path().join("again"));
        std::fs::create_dir(&store).unwrap();
        std::fs::write(store.join("a.ndjson"), text).unwrap();
        let code = i32::from(!text.is_empty());
        assert_eq!(pack(&store, &packed, &["--coding", coding, "--as-of", &day(10)]).code, code);
        assert_eq!(pack(&packed, &again, &["--coding", coding, "--as-of", &day(12)]).code, code);
        for packed in [packed, again] {
            let verified = run::run(&["verify", packed.to_str().unwrap()]);
            assert_eq!(verified.code, 0, "{verified:#?}");
            let file = packed.join(format!("Bundle.00001.ndjson.{suffix}"));
            let shown = run::run(&["inspect", file.to_str().unwrap()]);
            assert_eq!(shown.code, 0, "{shown:#?}");
            assert!(crate::joined_gzip::decode_members(&file).is_empty());
            std::fs::write(packed.join("b.ndjson"), observation("late", "p", 3) + &observation("new", "p", 15))
                .unwrap();
            let list = scratch.path().join("patients");
            std::fs::write(&list, "p\n").unwrap();
            let out = scratch.path().join("out");
            let args = ["--patients", list.to_str().unwrap(), "--since", &day(14), "--as-of", &day(20), "--force"];
            assert_eq!(run::export(&packed, &out, &args).code, code);
            assert_eq!(Export::read(&out, run::Bounds::DEFAULT).lines()["Observation"].len(), 2);
        }
    }
}

/// A deletion is listed for the patient that owned the resource after the resource is purged, and a Provenance about it
/// stays in that patient's compartment; also after a second pack.
#[test]
fn deletions_keep_their_owners() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let deletion = |id: &str, day: u32| {
        format!(
            r#"{{"resourceType":"Bundle","type":"transaction","meta":{{"lastUpdated":"2020-01-{day:02}T00:00:00Z"}},"entry":[{{"request":{{"method":"DELETE","url":"Observation/{id}"}}}}]}}"#
        ) + "\n"
    };
    let provenance = r#"{"resourceType":"Provenance","id":"v","meta":{"lastUpdated":"2020-01-09T00:00:00Z"},"target":[{"reference":"Observation/x"}]}"#;
    let lines = [
        observation("x", "p", 3),
        observation("x", "q", 4),
        deletion("x", 6),
        observation("y", "p", 3),
        deletion("y", 4),
        observation("y", "q", 5),
        format!("{provenance}\n"),
        observation("z", "p", 3),
        observation("z", "q", 3),
    ];
    std::fs::write(store.join("all.ndjson"), lines.concat()).unwrap();
    let packed = scratch.path().join("packed");
    let again = scratch.path().join("again");
    let run = pack(&store, &packed, &["--as-of", &day(10)]);
    assert_eq!(run.code, 0, "{run:#?}");
    let reported: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((reported["superseded"].as_u64(), reported["deleted"].as_u64()), (Some(3), Some(1)), "{reported}");
    assert_eq!(pack(&packed, &again, &["--as-of", &day(12)]).code, 0);
    for form in [&store, &packed, &again] {
        assert_eq!(since(form, "p", 2, 20).1, [""; 0], "{form:?}");
        assert_eq!(since(form, "q", 2, 20).1, ["Observation/x"], "{form:?}");
        let mut kept = since(form, "q", 2, 20).0;
        kept.sort();
        assert_eq!(kept, ["y", "z"], "{form:?}");
        for (patient, count) in [("p", 0), ("q", 1)] {
            let list = scratch.path().join("patients");
            std::fs::write(&list, format!("{patient}\n")).unwrap();
            let out = scratch.path().join("out");
            let args = ["--patients", list.to_str().unwrap(), "--as-of", &day(20), "--force"];
            assert_eq!(run::export(form, &out, &args).code, 0);
            let found = Export::read(&out, run::Bounds::DEFAULT).lines().remove("Provenance").unwrap_or_default().len();
            assert_eq!(found, count, "{form:?} {patient}");
            let recounted = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
            assert_eq!(recounted.code, 0, "{form:?} {patient}: {recounted:#?}");
        }
        let verified = run::run(&["verify", form.to_str().unwrap()]);
        assert_eq!(verified.code, 0, "{verified:#?}");
    }
}

/// A second deletion of a purged resource, dated later or (in a late line) earlier, is listed for the prior owner,
/// although only the packed deletion records it. A deletion dated before the resource is not listed.
#[test]
fn a_second_deletion_of_a_purged_record_is_listed() {
    let deletion = |day: u32| {
        format!(
            r#"{{"resourceType":"Bundle","type":"transaction","meta":{{"lastUpdated":"2020-01-{day:02}T00:00:00Z"}},"entry":[{{"request":{{"method":"DELETE","url":"Observation/x"}}}}]}}"#
        ) + "\n"
    };
    for (second, listed) in [(14, true), (4, true), (2, false)] {
        let scratch = scratch();
        let (store, packed, again) =
            (scratch.path().join("store"), scratch.path().join("packed"), scratch.path().join("again"));
        std::fs::create_dir(&store).unwrap();
        std::fs::write(store.join("a.ndjson"), observation("x", "p", 3) + &deletion(6)).unwrap();
        assert_eq!(pack(&store, &packed, &["--as-of", &day(10)]).code, 0);
        for store in [&store, &packed] {
            std::fs::write(store.join("b.ndjson"), deletion(second)).unwrap();
        }
        assert_eq!(pack(&packed, &again, &["--as-of", &day(15)]).code, 0);
        for form in [&packed, &again] {
            let expected: &[&str] = if listed { &["Observation/x"] } else { &[] };
            assert_eq!(since(form, "p", 12, 20).1, expected, "{form:?} {second}");
            assert_eq!(since(form, "q", 12, 20).1, [""; 0], "{form:?} {second}");
        }
    }
}

/// A version was late, was deleted, and is purged: a Provenance about it is new to a reader whose `since` is before the
/// version was first seen, although both are dated earlier.
#[test]
fn provenance_of_a_purged_late_version_is_new() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let provenance = r#"{"resourceType":"Provenance","id":"v","meta":{"lastUpdated":"2020-01-02T00:00:00Z"},"target":[{"reference":"Observation/x"}]}"#;
    let deletion = r#"{"resourceType":"Bundle","type":"transaction","meta":{"lastUpdated":"2020-01-12T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Observation/x"}}]}"#;
    std::fs::write(store.join("a.ndjson"), format!("{provenance}\n")).unwrap();
    assert_eq!(since(&store, "p", 1, 10).0, [""; 0]);
    std::fs::write(store.join("b.ndjson"), observation("x", "p", 5) + deletion + "\n").unwrap();
    let (packed, again) = (scratch.path().join("packed"), scratch.path().join("again"));
    assert_eq!(pack(&store, &packed, &["--as-of", &day(15)]).code, 0);
    assert_eq!(pack(&packed, &again, &["--as-of", &day(16)]).code, 0);
    let list = scratch.path().join("patients");
    std::fs::write(&list, "p\n").unwrap();
    for form in [&store, &packed, &again] {
        for (from, count) in [(10, 1), (15, 0)] {
            let out = scratch.path().join("out");
            let (from, as_of) = (day(from), day(20));
            let args = ["--patients", list.to_str().unwrap(), "--since", &from, "--as-of", &as_of, "--force"];
            assert_eq!(run::export(form, &out, &args).code, 0);
            let found = Export::read(&out, run::Bounds::DEFAULT).lines().remove("Provenance").unwrap_or_default().len();
            assert_eq!(found, count, "{form:?} since {from}");
            let recounted = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
            assert_eq!(recounted.code, 0, "{form:?} since {from}: {recounted:#?}");
        }
        let verified = run::run(&["verify", form.to_str().unwrap()]);
        assert_eq!(verified.code, 0, "{verified:#?}");
    }
}
