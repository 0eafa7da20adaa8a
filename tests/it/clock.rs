//! The transactionTime and the clock: what is planned leaves no trace, a time to come none that lasts, and a clock that
//! was set back breaks no chain of increments.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use outpour::{Instant, SnapshotTime, Store};
use serde_json::Value;

use crate::run::{self, Bounds, Export, Run, scratch, snapshot};

const FUTURE: &str = "2235-01-01T00:00:00Z";

/// Writes a file of the store with one Observation, dated long ago.
fn observation(store: &Path, id: &str) {
    let line = format!(
        "{{\"resourceType\":\"Observation\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:00Z\"}}}}\n"
    );
    std::fs::create_dir_all(store).unwrap();
    std::fs::write(store.join(format!("{id}.ndjson")), line).unwrap();
}

/// The ids of an export of everything, and its T.
#[track_caller]
fn exported(store: &Path, out: &Path, more: &[&str]) -> (BTreeSet<String>, String) {
    let run = run::export(store, out, &[&["--system", "--force"], more].concat());
    assert_eq!(run.code, 0, "{run:#?}");
    let export = Export::read(out, Bounds::DEFAULT);
    let id = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).unwrap()["id"].as_str().unwrap().to_string();
    let ids = export.lines().values().flatten().map(id).collect();
    (ids, export.manifest["transactionTime"].as_str().unwrap().to_string())
}

fn plan(store: &Path, more: &[&str]) -> Run {
    run::run(&[&["export", "--store", store.to_str().unwrap(), "--system", "--plan", "--json"], more].concat())
}

fn ids(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

/// The system clock, so many seconds later.
fn in_seconds(seconds: u64) -> Instant {
    Instant::from(SystemTime::now() + Duration::from_secs(seconds))
}

/// Plans, `verify` and `group check` leave every byte beside the store as it is, with an index and without, whatever T
/// they are asked for; exports after them find late rows as if nothing had been planned.
#[test]
fn a_plan_notes_nothing() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    observation(&store, "a");
    let group = scratch.path().join("Group.json");
    std::fs::write(&group, r#"{"resourceType":"Group","id":"g","type":"person","actual":true}"#).unwrap();
    let look = || {
        let before = snapshot(&store);
        plan(&store, &["--as-of", FUTURE]).refused(2, &[FUTURE, "--allow-future"]);
        for more in [&[][..], &["--as-of", FUTURE, "--allow-future"], &["--as-of", "2021-01-01T00:00:00Z"]] {
            let run = plan(&store, more);
            assert_eq!(run.code, 0, "{run:#?}");
        }
        let store_arg = store.to_str().unwrap();
        assert_eq!(run::run(&["group", "check", group.to_str().unwrap(), "--store", store_arg]).code, 0);
        run::run(&["verify", store_arg]);
        assert!(before == snapshot(&store), "something was written");
    };
    look();
    let (_, t) = exported(&store, &out, &[]);
    look();
    observation(&store, "b");
    look();
    let (increment, next) = exported(&store, &out, &["--since", &t]);
    assert_eq!(increment, ids(&["b"]));
    assert_eq!(exported(&store, &out, &["--since", &next]).0, ids(&[]));
}

/// A T beyond the clock is refused unless it is allowed; allowed, it moves neither the next T nor first-seen times.
#[test]
fn a_time_to_come_leaves_no_trace() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    observation(&store, "a");
    let pack = |name: &str, more: &[&str]| crate::pack::pack(&store, &scratch.path().join(name), more);
    for index in ["none", "one"] {
        run::export(&store, &out, &["--system", "--force", "--as-of", FUTURE]).refused(2, &[FUTURE, "--allow-future"]);
        pack(index, &["--as-of", FUTURE]).refused(2, &[FUTURE, "--allow-future"]);
        assert!(index == "one" || !store.join(".outpour").exists(), "what is refused makes no index");
        exported(&store, &out, &[]);
    }
    run::export(&store, &out, &["--system", "--force", "--allow-future"]).refused(2, &["--as-of"]);
    let future = ["--as-of", FUTURE, "--allow-future"];
    let (_, first) = exported(&store, &out, &[]);
    observation(&store, "b");
    let (all, t) = exported(&store, &out, &future);
    assert_eq!((all, &*t), (ids(&["a", "b"]), "2235-01-01T00:00:00.000Z"));
    assert_eq!(pack("packed", &future).code, 0);
    observation(&store, "c");
    let (late, second) = exported(&store, &out, &["--since", &first]);
    assert!(second.as_str() < "2235", "{second}");
    assert_eq!(late, ids(&["b", "c"]));
    // They are late once, not for ever.
    assert_eq!(exported(&store, &out, &["--since", &second]).0, ids(&[]));
}

/// The first snapshot of all may be of a time to come: the index is not born later than now.
#[test]
fn a_first_snapshot_of_a_time_to_come() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    observation(&store, "a");
    exported(&store, &out, &["--as-of", FUTURE, "--allow-future"]);
    let (_, t) = exported(&store, &out, &[]);
    observation(&store, "b");
    assert_eq!(exported(&store, &out, &["--since", &t]).0, ids(&["b"]));
}

/// A clock that was set back by an hour: the export says so, T goes on, its reader may send it back, and what came
/// meanwhile is late.
#[test]
fn a_clock_set_back_breaks_no_chain() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    observation(&store, "a");
    // The clock was an hour ahead when this snapshot was taken.
    let ahead = Store::open(&store).unwrap().snapshot(in_seconds(3600)).unwrap().as_of().to_string();
    observation(&store, "b");
    let run = run::export(&store, &out, &["--system", "--since", &ahead]);
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(run.said().contains("was it set back?") && run.said().contains(&ahead), "{}", run.stderr);
    let (late, t) = exported(&store, &out, &["--since", &ahead]);
    assert_eq!(late, ids(&["b"]));
    assert!(t > ahead, "{t}");
    assert!(plan(&store, &["--since", &t]).said().contains("was it set back?"));
    assert_eq!(exported(&store, &out, &["--since", &t]).0, ids(&[]));
    // The last T may be asked for again; what is later than it and the clock may not.
    assert_eq!(exported(&store, &out, &["--as-of", &t]).0, ids(&["a", "b"]));
    let later = in_seconds(7200).to_string();
    run::export(&store, &out, &["--system", "--force", "--since", &later]).refused(2, &["--since", &later]);
    run::export(&store, &out, &["--system", "--force", "--as-of", &later]).refused(2, &["--as-of", &later]);
}

/// A few seconds behind are said to nobody.
#[test]
fn a_small_step_is_not_said() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    observation(&store, "a");
    Store::open(&store).unwrap().snapshot(in_seconds(100)).unwrap();
    let run = run::export(&store, &out, &["--system"]);
    assert!(run.code == 0 && !run.said().contains("clock"), "{run:#?}");
}

/// Snapshots taken at once under a clock that stands still have different T's, while the store grows and while it does
/// not; what each holds is late to the readers of those that do not hold it.
#[test]
fn snapshots_at_once_have_different_times() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    observation(&store, "a");
    let now: Instant = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut given = BTreeSet::new();
    for round in 0..5 {
        if round % 2 == 1 {
            observation(&store, &format!("r{round}"));
        }
        let take = || Store::open(&store).unwrap().snapshot(SnapshotTime::by_clock(now.clone())).unwrap();
        let taken: Vec<Instant> = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..8).map(|_| threads.spawn(|| take().as_of().clone())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let before = given.last().cloned();
        assert!(taken.iter().all(|t| before.as_ref().is_none_or(|before| t > before)), "{taken:?}");
        given.extend(taken);
    }
    assert_eq!(given.len(), 40, "{given:?}");
}

/// The note of snapshots loses a byte: the last T stands all the same.
#[test]
fn a_damaged_note_forgets_no_time() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    observation(&store, "a");
    let take = |now: &str| {
        let now: Instant = now.parse().unwrap();
        Store::open(&store).unwrap().snapshot(SnapshotTime::by_clock(now)).unwrap().as_of().clone()
    };
    take("2026-01-01T00:00:00Z");
    // The first goes into the index meta; so does one taken while the index files are too young to have stamps.
    let note = store.join(".outpour/generation.note");
    let mut last = take("2026-01-02T00:00:00Z");
    while !note.exists() {
        std::thread::sleep(Duration::from_millis(20));
        last = take("2026-01-02T00:00:00Z");
    }
    let whole = std::fs::read(&note).unwrap();
    for at in (0..64).chain(4096..4160) {
        let mut bytes = std::fs::read(&note).unwrap();
        assert_eq!(bytes.len(), whole.len());
        bytes[at] ^= 0x10;
        std::fs::write(&note, bytes).unwrap();
        let next = take("2026-01-01T00:00:00Z");
        assert!(next > last, "byte {at}: {next} after {last}");
        last = next;
    }
    // Cut off, as a copy of the half of it.
    std::fs::write(&note, &std::fs::read(&note).unwrap()[..64]).unwrap();
    assert!(take("2026-01-01T00:00:00Z") > last);
}
