//! A transaction Bundle taken apart into a store, beside simd-json's tape over the same bytes; one thread each.
//!
//! Speed of light: its bytes are read once, which no count of newlines does faster, and its rows are written.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::internals::{import_file, install};
use outpour::{Instant, Store, StoreOptions};
use std::collections::HashSet;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;

/// Bytes of rows in the Bundle; few where only the answer is checked.
fn bytes_max() -> usize {
    if std::env::args().any(|word| word == "--test") { 4 << 20 } else { usize::MAX }
}

/// The bundled rows as one transaction, each referred to by `urn:uuid:`; indented by two spaces a level or not at all.
fn bundle(indented: bool) -> (Vec<u8>, u64) {
    let lines = common::lines();
    // Groups refer to patients of other servers and to none, and ids of the others are UUIDs.
    let is_taken = |row: &&str| between(row, "\"resourceType\":\"") != "Group" && between(row, "\"id\":\"").len() == 36;
    let all = std::str::from_utf8(&lines).expect("the bundled rows are text");
    let mut bytes = 0;
    let taken: Vec<&str> = all
        .lines()
        .filter(is_taken)
        .take_while(|row| {
            bytes += row.len();
            bytes < bytes_max()
        })
        .collect();
    let ids: HashSet<&str> = taken.iter().map(|row| between(row, "\"id\":\"")).collect();
    let mut text = b"{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[".to_vec();
    let mut rows = 0;
    for row in taken {
        let (name, id) = (between(row, "\"resourceType\":\""), between(row, "\"id\":\""));
        if rows > 0 {
            text.push(b',');
        }
        rows += 1;
        let request = format!(r#""request":{{"method":"POST","url":"{name}"}}"#);
        write!(text, r#"{{"fullUrl":"urn:uuid:{id}","resource":{},{request}}}"#, by_urn(row, &ids)).expect("memory");
    }
    text.extend(b"]}");
    (if indented { indent(&text) } else { text }, rows)
}

/// What stands behind the first `start` up to the next quote.
fn between<'a>(row: &'a str, start: &str) -> &'a str {
    let rest = &row[row.find(start).expect("a bundled row has it") + start.len()..];
    &rest[..rest.find('"').expect("a string ends")]
}

/// A row with its references to these ids by `urn:uuid:`.
fn by_urn(row: &str, ids: &HashSet<&str>) -> String {
    let mut out = String::with_capacity(row.len());
    let mut rest = row;
    while let Some(at) = rest.find("\"reference\":\"") {
        let (before, behind) = rest.split_at(at + "\"reference\":\"".len());
        let end = behind.find('"').expect("a string ends");
        out += before;
        match behind[..end].split_once('/') {
            Some((_, id)) if ids.contains(id) => out += &format!("urn:uuid:{id}"),
            _ => out += &behind[..end],
        }
        rest = &behind[end..];
    }
    out + rest
}

/// A JSON text with each member and element on a line of its own.
fn indent(text: &[u8]) -> Vec<u8> {
    let (mut out, mut depth, mut in_string, mut escaped) = (Vec::with_capacity(2 * text.len()), 0, false, false);
    for byte in text {
        let closes = !in_string && matches!(byte, b'}' | b']');
        depth -= usize::from(closes);
        if closes {
            out.push(b'\n');
            out.extend(std::iter::repeat_n(b' ', 2 * depth));
        }
        out.push(*byte);
        if in_string {
            (in_string, escaped) = (escaped || *byte != b'"', !escaped && *byte == b'\\');
            continue;
        }
        in_string = *byte == b'"';
        if matches!(byte, b'{' | b'[' | b',') {
            depth += usize::from(*byte != b',');
            out.push(b'\n');
            out.extend(std::iter::repeat_n(b' ', 2 * depth));
        } else if *byte == b':' {
            out.push(b' ');
        }
    }
    out
}

/// Imports a file into a new store; number of rows.
fn import(source: &Path, store: &Path) -> u64 {
    std::fs::create_dir(store).expect("a new store");
    let options = StoreOptions::default().access(install().expect("the guard of maps"));
    let store = Store::open_with(store, options).expect("it is there");
    let now = Instant::parse("2026-01-01T00:00:00Z").expect("an instant");
    import_file(&store, source, &now).expect("nothing is wrong with the Bundle")
}

/// Both forms of the Bundle.
fn import_bundles(c: &mut Criterion) {
    let pool = common::one_thread();
    let mut group = c.benchmark_group("import");
    for (name, indented) in [("indented", true), ("without white space", false)] {
        let (text, rows) = bundle(indented);
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("bundle.json");
        std::fs::write(&source, &text).expect("a file");
        let store = dir.path().join("store");
        assert_eq!(pool.install(|| import(&source, &store)), rows);
        let written = std::fs::read_dir(&store).expect("a store").map(|entry| entry.expect("an entry").path());
        let rows_of = written.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).expect("rows"));
        let lines: u64 = rows_of
            .map(|file| std::fs::read(file.expect("a file").path()).expect("rows"))
            .filter(|rows| rows.starts_with(b"{\"resourceType\""))
            .map(|rows| memchr::memchr_iter(b'\n', &rows).count() as u64)
            .sum();
        assert_eq!(lines, rows, "every entry is a line");
        group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
        group.bench_function(format!("{name}/import"), |b| {
            b.iter_batched(
                || std::fs::remove_dir_all(&store).expect("the store of the last round"),
                |()| pool.install(|| import(black_box(&source), &store)),
                BatchSize::PerIteration,
            )
        });
        assert!(!simd_json::to_tape(&mut text.clone()).expect("JSON").0.is_empty());
        group.bench_function(format!("{name}/simd-json tape"), |b| {
            b.iter_batched(
                || text.clone(),
                |mut text| simd_json::to_tape(black_box(&mut text)).expect("JSON").0.len(),
                BatchSize::PerIteration,
            )
        });
    }
    group.finish();
}

criterion_group!(benches, import_bundles);
criterion_main!(benches);
