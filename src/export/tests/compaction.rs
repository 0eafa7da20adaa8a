//! An index of many small appends answers as one that never joined a segment, and is about as large as a fresh one.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::index::snapshot::Snapshot;
use crate::index::snapshot_record::SnapshotRecord;
use crate::index::test_lines::{append, line};
use crate::index::vanished;
use crate::policies::LateArrivals;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::cohort::Cohort;
use crate::select::deleted::Deletions;
use crate::select::selection::Selection;
use crate::store::{Store, StoreOptions};

/// The instant of a snapshot; lines are dated in the minute before all.
fn at(number: usize) -> Instant {
    Instant::parse(&format!("2020-01-01T{:02}:{:02}:00Z", 1 + number / 60, number % 60)).unwrap()
}

/// A store with an index beside it.
fn opened_store(dir: &Path, index: &str, compaction: bool) -> Store {
    let options = StoreOptions::default().index_dir(dir.join(index)).allow_missing(1e9).compaction(compaction);
    Store::open_with(dir.join("store"), options).unwrap()
}

/// What a request selects, in store order.
#[derive(Debug, PartialEq)]
struct SelectedRecords {
    /// File and range of each row.
    rows: BTreeSet<(String, u64, u32)>,
    deletions: BTreeSet<(ResourceType, Id)>,
    /// All counts.
    counts: String,
}

/// What a request selects of a snapshot.
fn selected(snapshot: &Snapshot, request: &ExportRequest) -> SelectedRecords {
    let cohort = Cohort::resolve(snapshot, request).unwrap();
    let selection = Selection::new(snapshot, &cohort, request).unwrap();
    let index = snapshot.index();
    let mut rows = BTreeSet::new();
    for (segment, selected) in index.segment_ids().zip(&selection.rows) {
        let (entry, columns) = (index.entry(segment), index.segment(segment).columns());
        for row in selected.iter() {
            let [offset, length] = columns.place[row];
            rows.insert((index.file_name(index.file_of(segment)).to_string(), entry.start + u64::from(offset), length));
        }
    }
    let deletions = Deletions::new(snapshot, &cohort, request, &Progress::default()).unwrap();
    let counts = format!("{:?} {:?} {}", selection.ledger, selection.stats, deletions.unknown);
    SelectedRecords { rows, deletions: deletions.listed.into_iter().collect(), counts }
}

/// Asserts that two snapshots of a store select the same for every `_since` of `count` snapshots. Unless `exactly`, the
/// first may select more: of a file that was replaced, a larger segment has more rows that are compared and not kept, and
/// DELETE entries that are new.
#[track_caller]
fn assert_same(one: &Snapshot, other: &Snapshot, count: usize, exactly: bool) {
    for since in (0..count).map(Some).chain([None]) {
        for late in [LateArrivals::Include, LateArrivals::Report] {
            for request in [ExportRequest::system(), ExportRequest::patient_ids(["p1", "p3"]).allow_empty()] {
                let mut request = request.late(late);
                if let Some(since) = since {
                    request = request.since_instant(at(since));
                }
                let (one, other) = (selected(one, &request), selected(other, &request));
                match exactly || since.is_none() {
                    true => assert_eq!(one, other, "since {since:?}"),
                    false => {
                        assert!(one.rows.is_superset(&other.rows), "since {since:?}: {one:?} {other:?}");
                        assert!(one.deletions.is_superset(&other.deletions), "since {since:?}: {one:?} {other:?}");
                    }
                }
            }
        }
    }
}

/// Bytes of the files of an index.
fn index_bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// An Observation of one of a few patients; `padding` makes it longer.
fn observation(number: usize, padding: usize) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"o{number}","meta":{{"lastUpdated":"2020-01-01T00:00:{:02}Z"}},"subject":{{"reference":"Patient/p{}"}},"note":"{}"}}"#,
        number % 60,
        number % 50,
        "x".repeat(padding)
    )
}

/// Appends a line as a gzip member of its own.
fn append_member(path: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let mut member = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    member.write_all(format!("{line}\n").as_bytes()).unwrap();
    member.finish().unwrap();
}

/// After hundreds of appends of one row the index has few segments and containers, is at most twice as large as a fresh
/// one, and selects the same.
#[test]
fn many_small_appends_leave_a_small_index() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let store = opened_store(dir.path(), "index", true);
    const APPENDS: usize = 600;
    let mut snapshots = 0;
    for number in 0..APPENDS {
        append(&dir.path().join("store/a.ndjson"), &[observation(number, number % 7 * 300)]);
        if number % 3 == 0 {
            append_member(&dir.path().join("store/b.ndjson.gz"), &observation(APPENDS + number, 40));
        }
        let segments = match number % 9 {
            0 => {
                snapshots += 1;
                store.snapshot(at(snapshots)).unwrap().index().segment_count()
            }
            _ => store.index(&Progress::default()).unwrap().0.segment_count(),
        };
        assert!(segments <= 20, "{segments} after {number}");
    }
    let fresh = opened_store(dir.path(), "fresh", true).snapshot(at(snapshots + 1)).unwrap();
    let grown = store.snapshot(at(snapshots + 1)).unwrap();
    assert_eq!((grown.index().rows(), grown.index().patients()), (APPENDS + APPENDS / 3, fresh.index().patients()));
    for request in [ExportRequest::system(), ExportRequest::patient_ids(["p1", "p3"])] {
        assert_eq!(selected(&grown, &request), selected(&fresh, &request));
    }
    grown.index().global().check(grown.index().segments()).unwrap();
    let (grown, fresh) = (index_bytes(&dir.path().join("index")), index_bytes(&dir.path().join("fresh")));
    assert!(grown <= 2 * fresh, "{grown} of {fresh} bytes");
}

/// The record of a snapshot is reopened after its segments were joined, in plain and in compressed files.
#[test]
fn a_record_of_joined_segments_is_reopened() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let stores = [opened_store(dir.path(), "joined", true), opened_store(dir.path(), "apart", false)];
    let mut records: Vec<Vec<SnapshotRecord>> = vec![Vec::new(); 2];
    for number in 0..30 {
        append(&dir.path().join("store/a.ndjson"), &[observation(number, 5000)]);
        append_member(&dir.path().join("store/b.ndjson.gz"), &observation(100 + number, 5000));
        for (store, records) in stores.iter().zip(&mut records) {
            records.push(store.snapshot(at(number)).unwrap().record());
        }
    }
    let now = stores.each_ref().map(|store| store.index(&Progress::default()).unwrap().0.segment_count());
    assert!(now[0] < 12 && now[1] == 60, "{now:?}");
    for number in [0, 1, 6, 19, 28] {
        let reopen = |i: usize| {
            let record: &SnapshotRecord = &records[i][number];
            let snapshot = stores[i].reopen_snapshot(record, &Progress::default()).unwrap().0;
            assert_eq!(snapshot.record(), *record);
            snapshot
        };
        let (joined, apart) = (reopen(0), reopen(1));
        assert_eq!(
            joined.segments().map(|segment| joined.index().segment(segment).rows()).sum::<usize>(),
            2 * number + 2
        );
        assert_same(&joined, &apart, number + 1, true);
    }
}

/// What happens to a store between two looks at it.
#[derive(Clone, Debug)]
enum Event {
    /// Lines are appended to a file, each made longer by so much.
    Append(usize, Vec<String>, usize),
    /// A line without its newline is appended.
    Tear(usize),
    /// A newline is appended.
    Newline(usize),
    /// Every second line of a file is left out: in place, or by a new file.
    Replace(usize, bool),
    /// A gzip member is appended.
    Member(String),
    /// A snapshot is taken.
    Snapshot,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2usize, proptest::collection::vec(line(), 1..4), prop_oneof![Just(0), Just(9000), Just(30_000)])
            .prop_map(|(file, lines, padding)| Event::Append(file, lines, padding)),
        1 => (0..2usize).prop_map(Event::Tear),
        1 => (0..2usize).prop_map(Event::Newline),
        2 => line().prop_map(Event::Member),
        3 => Just(Event::Snapshot),
    ]
}

/// Applies an event to the files of a store.
fn happen(dir: &Path, event: &Event) {
    let path = |file: usize| dir.join(["a.ndjson", "b.ndjson"][file]);
    match event {
        Event::Append(file, lines, padding) => {
            let note = format!(r#","note":"{}"}}"#, "x".repeat(*padding));
            let long = |line: &String| match line.strip_suffix('}').filter(|_| *padding > 0) {
                Some(front) => format!("{front}{note}"),
                None => line.clone(),
            };
            append(&path(*file), &lines.iter().map(long).collect::<Vec<_>>());
        }
        Event::Tear(file) => {
            let mut file = OpenOptions::new().create(true).append(true).open(path(*file)).unwrap();
            file.write_all(observation(3, 0).as_bytes()).unwrap();
        }
        Event::Newline(file) => append(&path(*file), &[String::new()]),
        Event::Replace(file, renamed) => {
            let Ok(text) = std::fs::read_to_string(path(*file)) else { return };
            let kept: String = text.split_inclusive('\n').step_by(2).collect();
            if *renamed {
                std::fs::write(dir.join(".new"), kept).unwrap();
                std::fs::rename(dir.join(".new"), path(*file)).unwrap();
            } else {
                std::fs::write(path(*file), kept).unwrap();
            }
        }
        Event::Member(line) => append_member(&dir.join("c.ndjson.gz"), line),
        Event::Snapshot => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// After any history an index that joins segments selects what one that never did selects, under every `_since`, and
    /// remembers the same vanished resources where no file was replaced. Half of the histories replace files.
    #[test]
    fn joined_segments_select_the_same(
        mut events in proptest::collection::vec(event(), 1..40),
        replaced in proptest::collection::vec((any::<prop::sample::Index>(), 0..2usize, any::<bool>()), 0..4),
        replaces in any::<bool>(),
    ) {
        for (place, file, renamed) in replaced.into_iter().filter(|_| replaces) {
            let place = place.index(events.len() + 1);
            events.insert(place, Event::Replace(file, renamed));
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        append(&dir.path().join("store/a.ndjson"), &[observation(0, 0)]);
        let stores = [opened_store(dir.path(), "joined", true), opened_store(dir.path(), "apart", false)];
        let mut snapshots = 0;
        for event in &events {
            happen(&dir.path().join("store"), event);
            let is_snapshot = matches!(event, Event::Snapshot);
            for store in &stores {
                match is_snapshot {
                    true => store.snapshot(at(snapshots)).map(drop).unwrap(),
                    false => store.index(&Progress::default()).map(drop).unwrap(),
                }
            }
            snapshots += usize::from(is_snapshot);
        }
        let [joined, apart] = stores.each_ref().map(|store| store.snapshot(at(snapshots)).unwrap());
        prop_assert!(joined.index().segment_count() <= apart.index().segment_count());
        joined.index().global().check(joined.index().segments()).unwrap();
        prop_assert_eq!(joined.index().rows(), apart.index().rows());
        let is_replaced = events.iter().any(|event| matches!(event, Event::Replace(..)));
        assert_same(&joined, &apart, snapshots + 1, !is_replaced);
        let gone = |index: &str, snapshot: &Snapshot| match &snapshot.index().generation().vanished {
            name if name.is_empty() => Vec::new(),
            name => vanished::from_bytes(&std::fs::read(dir.path().join(index).join(name)).unwrap()).unwrap(),
        };
        // Of versions with equal dates an index that joins counts fewer as lost: it takes more rows of a replaced file as
        // new, and exports them.
        if !is_replaced {
            prop_assert_eq!(gone("joined", &joined), gone("apart", &apart));
        }
    }
}
