//! Filters: the first one on a type, which passes over its lines, beside simd-json's tape of the same lines; and the same one from
//! search columns.
//!
//! Speed of light: of the first filter, `memchr` over its lines; from columns, a pass over a byte or two a row.
//!
//! `OUTPOUR_BENCH_ROWS` Observations in the synthetic store for columns, 400 per patient; 200,000 by default.

use std::io::Write;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::ExportRequest;
use outpour::Instant;
use outpour::Progress;
use outpour::Snapshot;
use outpour::Store;
use outpour::StoreOptions;
use outpour::internals::{Cohort, ColumnUse, Selection, apply_type_filters};

mod common;

/// Filters of which one is by token, one by date, one by number.
const FILTERS: [&str; 3] =
    ["Observation?category=laboratory", "Observation?date=ge2015", "Observation?value-quantity=gt100"];
/// The T of all snapshots.
const T: &str = "2026-06-01T00:00:00Z";

/// Rows of the synthetic store, by `OUTPOUR_BENCH_ROWS`.
fn rows() -> usize {
    std::env::var("OUTPOUR_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(200_000)
}

/// A mapped store with its snapshot.
fn opened(root: &Path) -> (Store, Snapshot) {
    let access = outpour::internals::install().unwrap();
    let store = Store::open_with(root, StoreOptions::default().access(access)).unwrap();
    let snapshot = store.snapshot(Instant::parse(T).unwrap()).unwrap();
    (store, snapshot)
}

/// A request for Observations, its cohort, and its rows before the filter.
fn unfiltered(snapshot: &Snapshot, filter: &str) -> (ExportRequest, Cohort, Selection) {
    let request = ExportRequest::system().types(["Observation"]).type_filters([filter]);
    let cohort = Cohort::resolve(snapshot, &request).unwrap();
    let selection = Selection::new(snapshot, &cohort, &request).unwrap();
    (request, cohort, selection)
}

/// Applies the filter of a request, and returns how many rows are left.
fn apply(snapshot: &Snapshot, (request, cohort, mut selection): (ExportRequest, Cohort, Selection)) -> u64 {
    let progress = Progress::default();
    apply_type_filters(snapshot, &cohort, &request, &mut selection, ColumnUse::Existing, &progress).unwrap();
    selection.ledger.exported
}

/// The first filter on Observations, on one thread, beside the tape.
fn first_filter(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    common::plain_store(scratch.path());
    let text = std::fs::read(scratch.path().join("Observation.ndjson")).unwrap();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (_, snapshot) = opened(scratch.path());
    let mut group = c.benchmark_group("first filter");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("memchr", |b| b.iter(|| memchr::memchr_iter(b'\n', &text).count()));
    group.bench_function("simd-json's tape", |b| {
        let (mut buffers, mut line) = (simd_json::Buffers::default(), Vec::new());
        b.iter(|| {
            for text in &lines {
                line.clear();
                line.extend_from_slice(text);
                std::hint::black_box(simd_json::to_tape_with_buffers(&mut line, &mut buffers).unwrap());
            }
        });
    });
    let pool = common::one_thread();
    for filter in FILTERS {
        let by_parser = parsed(&lines, filter);
        assert_eq!(pool.install(|| apply(&snapshot, unfiltered(&snapshot, filter))), by_parser, "{filter}");
        group.bench_function(filter, |b| {
            let setup = || unfiltered(&snapshot, filter);
            b.iter_batched(setup, |asked| pool.install(|| apply(&snapshot, asked)), BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// How many lines a filter finds, by a parser and by hand.
fn parsed(lines: &[&[u8]], filter: &str) -> u64 {
    let is_met = |line: &&&[u8]| {
        let row: serde_json::Value = serde_json::from_slice(line).unwrap();
        match filter {
            f if f == FILTERS[0] => row["category"].as_array().is_some_and(|all| {
                let codings = all.iter().filter_map(|one| one["coding"].as_array()).flatten();
                codings.into_iter().any(|coding| coding["code"] == "laboratory")
            }),
            f if f == FILTERS[1] => row["effectiveDateTime"].as_str().is_some_and(|date| date[..4] >= *"2015"),
            _ => row["valueQuantity"]["value"].as_f64().is_some_and(|value| value > 100.0),
        }
    };
    lines.iter().filter(is_met).count() as u64
}

/// Writes Observations in patient order, with tokens and dates.
fn write_store(root: &Path, rows: usize) {
    std::fs::create_dir_all(root).unwrap();
    let file = std::fs::File::create(root.join("Observation.ndjson")).unwrap();
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    for row in 0..rows {
        let scattered = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let category = ["laboratory", "vital-signs", "survey"][scattered % 3];
        // The rows of a visit share a date, as Synthea's do.
        let visit = (row / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (year, month, day, second) = (2000 + visit % 24, 1 + visit / 7 % 12, 1 + visit / 11 % 28, visit / 13 % 60);
        writeln!(
            out,
            r#"{{"resourceType":"Observation","id":"o{row}","category":[{{"coding":[{{"code":"{category}"}}]}}],"code":{{"coding":[{{"code":"c{}"}}]}},"subject":{{"reference":"Patient/p{}"}},"effectiveDateTime":"{year}-{month:02}-{day:02}T10:00:{second:02}Z"}}"#,
            scattered / 3 % 200,
            row / 400,
        )
        .unwrap();
    }
}

/// Filters that search columns decide.
fn from_columns(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    write_store(scratch.path(), rows());
    let (store, before) = opened(scratch.path());
    let filters = [FILTERS[0], FILTERS[1], "Observation?code=c7&date=ge2015&category=survey"];
    let expected = filters.map(|filter| apply(&before, unfiltered(&before, filter)));
    let names = ["Observation.category", "Observation.code", "Observation.date"];
    store.keep_search_columns(&names, &Progress::default()).unwrap();
    let snapshot = store.snapshot(Instant::parse(T).unwrap()).unwrap();
    let mut group = c.benchmark_group("from columns");
    group.throughput(Throughput::Elements(rows() as u64));
    for (filter, expected) in filters.into_iter().zip(expected) {
        assert_eq!(apply(&snapshot, unfiltered(&snapshot, filter)), expected, "{filter}");
        let setup = || unfiltered(&snapshot, filter);
        group.bench_function(filter, |b| {
            b.iter_batched(setup, |asked| apply(&snapshot, asked), BatchSize::LargeInput);
        });
        let pool = common::one_thread();
        group.bench_function(format!("{filter}, one thread"), |b| {
            b.iter_batched(setup, |asked| pool.install(|| apply(&snapshot, asked)), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, first_filter, from_columns);
criterion_main!(benches);
