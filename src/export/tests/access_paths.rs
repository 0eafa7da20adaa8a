//! Every way of selecting gives the same rows, classes and notices; and a damaged page is found by whoever needs it.

use crate::codec::compression::Compression;
use crate::pack::writer::FrameCoder;
use std::path::Path;

use proptest::prelude::*;

use crate::error::{ExportError, IndexError};
use crate::export::export;
use crate::export::options::{Existing, ExportOptions};
use crate::export::planning::plan;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RowAddress, SegmentId};
use crate::index::meta::{self, IndexMeta};
use crate::index::snapshot::Snapshot;
use crate::index::test_lines::{append, line};
use crate::plan::{Shard, cut_shards};
use crate::policies::{AccessPath, FileBounds, LateArrivals, MissingLastUpdated, PatientStrict};
use crate::progress::Progress;
use crate::request::{ExportRequest, Population};
use crate::select::cohort::Cohort;
use crate::select::selection::Selection;
use crate::store::Store;
use crate::sys::access::Access;
use crate::sys::store_file::StoreFile;

pub(super) fn at(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

/// Everything that a selection says.
pub(super) fn selected(
    snapshot: &Snapshot,
    request: &ExportRequest,
    access_path: AccessPath,
) -> impl PartialEq + std::fmt::Debug {
    let request = request.clone().access_path(access_path);
    let cohort = Cohort::resolve(snapshot, &request).unwrap();
    let selection = Selection::new(snapshot, &cohort, &request).unwrap();
    assert!(selection.ledger.balances(), "{access_path:?}: {:?}", selection.ledger);
    let rows: Vec<Vec<usize>> = selection.rows.iter().map(|rows| rows.iter().collect()).collect();
    let present: Vec<usize> = cohort.members.iter().filter(|member| selection.present.contains(*member)).collect();
    (rows, present, selection.ledger, format!("{:?}", selection.stats))
}

/// A random line; many Observations are in the records of two patients.
fn shared_line() -> impl Strategy<Value = String> {
    (line(), 0..6u32).prop_map(|(line, performer)| match performer {
        0..4 => line.replacen(
            r#""subject":"#,
            &format!(r#""performer":[{{"reference":"Patient/p{performer}"}}],"subject":"#),
            1,
        ),
        _ => line,
    })
}

fn request(people: &Path) -> impl Strategy<Value = ExportRequest> + use<> {
    let people = people.to_path_buf();
    let types = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["Observation"]),
        1 => Just(vec!["Patient", "Provenance"]),
        1 => Just(vec!["Provenance", "Device"]),
    ];
    (0..6u32, types, 0..40u32, 0..40u32, 0..2u32, any::<[bool; 4]>()).prop_map(
        move |(who, types, since, until, base, [late, missing, open, windowed])| {
            let mut request = match who {
                0 => ExportRequest::all_patients(),
                1 => ExportRequest::patients(&people),
                2 => ExportRequest::all_patients().only_patients(["p0", "p1"]),
                3 => ExportRequest::all_patients().only_patients(["p0", "p1", "p2"]).patient_strict(PatientStrict::All),
                4 => ExportRequest::patients(&people).only_patients(["p1", "p3"]).patient_strict(PatientStrict::All),
                _ => ExportRequest::system(),
            };
            request = request.types(types);
            if windowed {
                request = request.since(&format!("2020-01-01T00:00:{since:02}Z"));
            }
            if !open && until > since {
                request = request.until(&format!("2020-01-01T00:00:{until:02}Z"));
            }
            if base == 1 {
                request.fhir_bases.push("https://a.example/r4".to_string());
            }
            request.late = if late { LateArrivals::Include } else { LateArrivals::Report };
            request.missing_last_updated =
                if missing { MissingLastUpdated::Include } else { MissingLastUpdated::Exclude };
            request
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// In a store that grows by several segments a file, some of them late, for T behind everything and within. COMP-05: also
    /// where rows that are in other records, too, are left out.
    #[test]
    fn all_ways_lead_to_the_same_rows(
        rounds in proptest::collection::vec((0..3usize, proptest::collection::vec(shared_line(), 0..90)), 1..5),
        people in proptest::collection::vec(0..5u32, 1..3),
        requests in proptest::collection::vec(request(Path::new("/dev/null")), 8),
        seconds in proptest::collection::vec(0..60u32, 2),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for (round, (file, lines)) in rounds.iter().enumerate() {
            append(&dir.path().join(["b.ndjson", "a.ndjson", "c.ndjson"][*file]), lines);
            store.snapshot(at(&format!("2020-01-01T00:00:{:02}Z", 7 * round + 3))).unwrap();
        }
        let list = dir.path().join("people.txt");
        std::fs::write(&list, people.iter().map(|id| format!("p{id}\n")).collect::<String>()).unwrap();
        for second in seconds {
            let snapshot = store.snapshot(at(&format!("2020-01-01T00:00:{second:02}Z"))).unwrap();
            for mut request in requests.clone() {
                if let Population::Patients(path) = &mut request.population {
                    path.clone_from(&list);
                }
                let rows = selected(&snapshot, &request, AccessPath::Rows);
                for access_path in [AccessPath::Auto, AccessPath::Columns, AccessPath::Postings] {
                    prop_assert_eq!(&rows, &selected(&snapshot, &request, access_path), "{:?} {:?}", access_path, request);
                }
            }
        }
    }
}

/// What [`cut_shards`] does, row by row.
fn cut_by_rows(snapshot: &Snapshot, selection: &Selection, bounds: FileBounds) -> Vec<Shard> {
    let mut done: Vec<Vec<Shard>> = vec![Vec::new(); ResourceType::COUNT];
    for (segment, rows) in snapshot.index().segment_ids().zip(&selection.rows) {
        let columns = snapshot.index().segment(segment).verify_all().unwrap();
        for row in rows.iter() {
            let (resource_type, bytes) = (columns.type_of(row), u64::from(columns.length(row)) + 1);
            let (shards, place) = (&mut done[resource_type.index()], RowAddress::of(segment, row));
            let ordinal = shards.len() as u32 + 1;
            match shards.last_mut() {
                Some(open)
                    if open.bytes + bytes <= bounds.file_bytes
                        && bounds.file_resources.is_none_or(|most| open.rows < most) =>
                {
                    *open = Shard { last: place, rows: open.rows + 1, bytes: open.bytes + bytes, ..open.clone() };
                }
                _ => shards.push(Shard {
                    resource_type,
                    ordinal,
                    first: place,
                    last: place,
                    rows: 1,
                    bytes,
                    growth: 0,
                    rewritten: false,
                }),
            }
        }
    }
    done.concat()
}

/// Rows of a file of one type, most of them with nothing about them that needs a look.
fn even_lines() -> impl Strategy<Value = Vec<String>> {
    let row = (0..40u32, 0..30u32, 0..5u32, 0..80usize).prop_map(|(id, second, patient, filler)| {
        format!(
            r#"{{"resourceType":"Observation","id":"e{id}","meta":{{"lastUpdated":"2020-01-01T00:00:{second:02}Z"}},"subject":{{"reference":"Patient/p{patient}"}},"x":"{}"}}"#,
            "x".repeat(filler)
        )
    });
    let odd = prop_oneof![
        Just(r#"{"resourceType":"Observation","id":"nobody","meta":{"lastUpdated":"2020-01-01T00:00:00Z"}}"#),
        Just(r#"  {"resourceType":"Observation","id":"spaced","subject":{"reference":"Patient/p1"}}"#),
        Just(r#"{"resourceType":"Device","id":"other","patient":{"reference":"Patient/p1"}}"#),
        Just(
            r#"{"resourceType":"Bundle","meta":{"lastUpdated":"2020-01-01T00:00:09Z"},"type":"batch","entry":[{"request":{"method":"DELETE","url":"Observation/e7"}}]}"#
        ),
        Just(""),
    ];
    let odd = proptest::option::weighted(0.3, (any::<proptest::sample::Index>(), odd));
    (proptest::collection::vec(row, 0..120), odd).prop_map(|(mut rows, odd)| {
        if let Some((position, odd)) = odd {
            rows.insert(position.index(rows.len() + 1), odd.to_string());
        }
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Segments that are taken by their headers: the same rows in the same files, of a plain store and of the same packed.
    #[test]
    fn whole_segments_are_their_rows(
        rounds in proptest::collection::vec((0..2usize, even_lines()), 1..5),
        people in proptest::collection::vec(0..5u32, 1..6),
        bounds in proptest::collection::vec((1..40_000u64, proptest::option::of(1..200u64)), 4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed, list) = (dir.path().join("plain"), dir.path().join("packed"), dir.path().join("people.txt"));
        std::fs::create_dir(&plain).unwrap();
        let patients: Vec<String> =
            (0..5).map(|id| format!(r#"{{"resourceType":"Patient","id":"p{id}"}}"#)).collect();
        append(&plain.join("p.ndjson"), &patients);
        std::fs::write(&list, people.iter().map(|id| format!("p{id}\n")).collect::<String>()).unwrap();
        let late = at("2020-01-01T00:01:00Z");
        for (file, lines) in &rounds {
            append(&plain.join(["a.ndjson", "b.ndjson"][*file]), lines);
            Store::open(&plain).unwrap().snapshot(late.clone()).unwrap();
        }
        let coder = [FrameCoder::zstd(1), FrameCoder::gzip(1)][people.len() % 2];
        let options = crate::pack::PackOptions { to: packed.clone(), coder, sync: crate::sys::durability::FileSync::No };
        crate::pack::pack(&Store::open(&plain).unwrap(), late.clone(), &options, &Progress::default()).unwrap();
        for (root, second) in [(&plain, 60), (&plain, 12), (&packed, 60)] {
            let as_of = if second == 60 { late.clone() } else { at(&format!("2020-01-01T00:00:{second:02}Z")) };
            let snapshot = Store::open(root).unwrap().snapshot(as_of).unwrap();
            let whole = [ExportRequest::all_patients(), ExportRequest::system(), ExportRequest::patients(&list)];
            let since = |second: u32| format!("2020-01-01T00:00:{second:02}Z");
            let newer = whole.clone().map(|request| request.since(&since(3))).into_iter();
            let later = whole.clone().map(|request| request.since(&since(second / 2))).into_iter();
            for request in whole.into_iter().chain(newer).chain(later) {
                let rows = selected(&snapshot, &request, AccessPath::Rows);
                for access_path in [AccessPath::Auto, AccessPath::Columns, AccessPath::Postings] {
                    prop_assert_eq!(&rows, &selected(&snapshot, &request, access_path), "{:?} {:?}", access_path, request);
                }
                let cohort = Cohort::resolve(&snapshot, &request).unwrap();
                let selection = Selection::new(&snapshot, &cohort, &request).unwrap();
                for (file_bytes, file_resources) in &bounds {
                    let bounds = FileBounds { file_bytes: *file_bytes, file_resources: *file_resources };
                    let shards = cut_shards(&snapshot, &selection, bounds, &request.elements, None).unwrap();
                    prop_assert_eq!(shards, cut_by_rows(&snapshot, &selection, bounds), "{:?}", bounds);
                }
            }
        }
    }
}

/// Makes the generation trust an index file as it is now, as if a disk had garbled it and kept its times.
fn trust(index: &Path) {
    let name = index.join(meta::FILE);
    let mut generation = IndexMeta::from_bytes(&std::fs::read(&name).unwrap()).unwrap();
    let stamp = |file: &str| StoreFile::open(index.join(file), Access::pread()).unwrap().stamp();
    for file in generation.containers.iter_mut().chain([&mut generation.global]) {
        file.stamp = Some(stamp(&file.name));
    }
    std::fs::write(name, generation.to_bytes()).unwrap();
}

/// A byte is flipped anywhere in the index, behind its back: a plan either does not need that page and is the same, or
/// says that the index is damaged; an export repairs it and writes the same files.
#[test]
fn a_damaged_page_is_found_by_whoever_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let (root, list) = (dir.path().join("store"), dir.path().join("people.txt"));
    std::fs::create_dir(&root).unwrap();
    let lines: Vec<String> = (0..4000)
        .map(|n| {
            format!(
                r#"{{"resourceType":"Observation","id":"o{n}","meta":{{"lastUpdated":"2020-01-01T00:{:02}:00Z"}},"subject":{{"reference":"Patient/p{}"}}}}"#,
                n % 60,
                n / 8
            )
        })
        .collect();
    append(&root.join("a.ndjson"), &lines);
    std::fs::write(&list, "p77\np300\n").unwrap();
    let store = Store::open(&root).unwrap();
    let as_of = at("2021-01-01T00:00:00Z");
    let request = ExportRequest::patients(&list);
    let planned = |request: &ExportRequest| {
        let snapshot = store.snapshot(as_of.clone())?;
        let plan = plan(&snapshot, request)?;
        Ok::<_, ExportError>((plan.shards.clone(), *plan.ledger(), plan.selection.rows.clone()))
    };
    let good = planned(&request).unwrap();
    assert_eq!(good.1.exported, 16);
    let index = store.index_dir();
    trust(&index);
    let generation = IndexMeta::from_bytes(&std::fs::read(index.join(meta::FILE)).unwrap()).unwrap();
    let (mut found, mut passed) = (0, 0);
    let files = [&generation.containers[0].name, &generation.global.name];
    let whole = files.map(|file| std::fs::read(index.join(file)).unwrap());
    for (file, bytes) in files.into_iter().zip(&whole) {
        let path = index.join(file);
        for i in (0..bytes.len()).step_by(if bytes.len() > 100_000 { 1511 } else { 197 }) {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            std::fs::write(&path, damaged).unwrap();
            trust(&index);
            match planned(&request) {
                Ok(plan) => {
                    assert!(plan == good, "byte {i} of {file}");
                    passed += 1;
                }
                Err(ExportError::Index(IndexError::Damaged(_))) => found += 1,
                Err(other) => panic!("byte {i} of {file}: {other}"),
            }
            // An index found damaged when it is opened is repaired there and then, under other names.
            std::fs::write(index.join(meta::FILE), generation.to_bytes()).unwrap();
            files.iter().zip(&whole).for_each(|(file, bytes)| std::fs::write(index.join(file), bytes).unwrap());
            trust(&index);
        }
    }
    assert!(found > 20 && passed > 20, "{found} {passed}");
}

/// The same of a packed store, where a copy of frames reads the places of rows that were not selected, too.
#[test]
fn a_damaged_page_never_spoils_a_copy_of_frames() {
    damage_pages(FrameCoder::zstd(1), Compression::Zstd);
    damage_pages(FrameCoder::gzip(1), Compression::Gzip);
}

/// Damages the pages of the places of rows of a packed store, one after another.
fn damage_pages(coder: FrameCoder, compression: Compression) {
    let dir = tempfile::tempdir().unwrap();
    let (root, packed, list) = (dir.path().join("plain"), dir.path().join("packed"), dir.path().join("people.txt"));
    std::fs::create_dir(&root).unwrap();
    let filler = "x".repeat(200);
    let lines: Vec<String> = (0..8000)
        .map(|n| {
            let (id, owner) = (n, n % 250);
            format!(
                r#"{{"resourceType":"Observation","id":"o{id}","subject":{{"reference":"Patient/p{owner}"}},"x":"{filler}"}}"#
            )
        })
        .collect();
    append(&root.join("a.ndjson"), &lines);
    std::fs::write(&list, "p77\n").unwrap();
    let as_of = at("2021-01-01T00:00:00Z");
    let options = crate::pack::PackOptions { to: packed.clone(), coder, sync: crate::sys::durability::FileSync::No };
    crate::pack::pack(&Store::open(&root).unwrap(), as_of.clone(), &options, &Progress::default()).unwrap();
    let store = Store::open(&packed).unwrap();
    store.snapshot(as_of.clone()).unwrap();
    let index = store.index_dir();
    let known = || IndexMeta::from_bytes(&std::fs::read(index.join(meta::FILE)).unwrap()).unwrap();
    let out = dir.path().join("out");
    let write = |coding| {
        let options = ExportOptions::new(&out)
            .existing(Existing::Force)
            .sync(crate::sys::durability::FileSync::No)
            .clock(&|| Instant::parse("2021-01-01T00:00:00Z").unwrap());
        let mut request = ExportRequest::patients(&list).access_path(AccessPath::Postings);
        request.compression = coding;
        let done = export(&store, &request, as_of.clone(), &options, &Progress::default()).unwrap();
        (done.files.iter().map(|file| (file.count, file.digest.clone())).collect::<Vec<_>>(), done.index.repaired.len())
    };
    let codings = [Compression::None, compression];
    let good = codings.map(|coding| write(coding).0);
    assert_eq!(good[0][0].0, 32);
    // Where the rows' places stand in the index file.
    let bytes = std::fs::read(index.join(&known().containers[0].name)).unwrap();
    let offsets: Vec<u8> = {
        let snapshot = store.snapshot(as_of.clone()).unwrap();
        let segment = snapshot.index().segment(SegmentId(0));
        segment.columns().place.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
    };
    let first = bytes.windows(offsets.len()).position(|window| window == offsets).unwrap();
    let mut repaired = 0;
    for offset in (first..first + offsets.len()).step_by(512) {
        let name = known().containers[0].name.clone();
        let mut bytes = std::fs::read(index.join(&name)).unwrap();
        // Rows that seem to lie before all others.
        bytes[offset..offset + 512].fill(0);
        std::fs::write(index.join(&name), bytes).unwrap();
        trust(&index);
        for (coding, good) in codings.iter().zip(&good) {
            let (files, repairs) = write(*coding);
            assert!(files == *good, "byte {offset}, {coding:?}");
            repaired += repairs;
        }
        // What nobody read is still damaged: repaired now.
        store.verify_and_repair(&Progress::default()).unwrap();
    }
    assert!((2..20).contains(&repaired), "{repaired}");
}

/// The whole way: found, repaired, exported, and told.
#[test]
fn an_export_repairs_what_it_finds_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    std::fs::create_dir(&root).unwrap();
    let lines: Vec<String> = (0..3000)
        .map(|n| {
            format!(r#"{{"resourceType":"Observation","id":"o{n}","subject":{{"reference":"Patient/p{}"}}}}"#, n % 9)
        })
        .collect();
    append(&root.join("a.ndjson"), &lines);
    let store = Store::open(&root).unwrap();
    let as_of = at("2021-01-01T00:00:00Z");
    let lengths: Vec<u8> = {
        let snapshot = store.snapshot(as_of.clone()).unwrap();
        let columns = snapshot.index().segment(SegmentId(0)).columns();
        columns.place.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
    };
    let index = store.index_dir();
    let name = IndexMeta::from_bytes(&std::fs::read(index.join(meta::FILE)).unwrap()).unwrap();
    let path = index.join(&name.containers[0].name);
    let mut bytes = std::fs::read(&path).unwrap();
    // A column that every export reads; what nobody reads is left for who checks all of it.
    let first = bytes.windows(lengths.len()).position(|window| window == lengths).unwrap();
    bytes[first + lengths.len() / 3] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    trust(&index);
    let options = ExportOptions::new(dir.path().join("out"))
        .sync(crate::sys::durability::FileSync::No)
        .clock(&|| Instant::parse("2021-01-01T00:00:00Z").unwrap());
    let request = ExportRequest::all_patients().access_path(AccessPath::Rows);
    let done = export(&store, &request, as_of, &options, &Progress::default()).unwrap();
    assert_eq!(done.ledger.exported, 3000);
    assert_eq!(done.index.repaired.len(), 1, "{:?}", done.index);
    assert!(store.index(&Progress::default()).unwrap().1.repaired.is_empty());
}
