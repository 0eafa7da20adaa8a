//! Extraction of facts from lines, and parsing of instants, beside simd-json's tape and a count of newlines over the
//! same bytes.
//!
//! Speed of light: a scan cannot be faster than `memchr` over the same bytes; the tape is the cost of a full parse.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::Validate;
use outpour::internals::Extractor;
use outpour::internals::InstantRef;
use outpour::internals::Kernel;
use outpour::internals::ResourceFacts;
use std::hint::black_box;

/// Ranges of the lines. Found beforehand, so that the benches do not measure the search for newlines.
fn cut(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', text).map(|end| std::mem::replace(&mut start, end + 1)..end).collect()
}

/// Extracts the lines one by one; number of rows and of references.
fn rows(text: &[u8], lines: &[std::ops::Range<usize>], kernel: Kernel, validate: Validate) -> (usize, usize) {
    let mut extractor = Extractor::new(kernel, validate);
    let (mut rows, mut references) = (0, 0);
    for line in lines {
        let facts = extractor.extract(&text[line.clone()]).expect("the bundled store has no faults");
        rows += 1;
        references += facts.references().count();
    }
    (rows, references)
}

/// As [`rows`], with the pass over many lines that an index build uses.
fn rows_many(text: &[u8], kernel: Kernel, validate: Validate) -> (usize, usize) {
    let mut extractor = Extractor::new(kernel, validate);
    let (mut rows, mut references) = (0, 0);
    let end = extractor.extract_lines(text, 0, |_, facts| {
        rows += 1;
        references += facts.references().count();
        true
    });
    assert_eq!(end, text.len(), "every line of the bundled store but Groups is an ordinary one");
    (rows, references)
}

/// Parses the lines with simd-json; number of tape nodes.
fn tape(mut text: Vec<u8>, lines: &[std::ops::Range<usize>]) -> usize {
    let mut buffers = simd_json::Buffers::new(1 << 16);
    let mut nodes = 0;
    for line in lines {
        nodes += simd_json::to_tape_with_buffers(&mut text[line.clone()], &mut buffers).expect("valid").0.len();
    }
    nodes
}

/// Extraction by every kernel and validation, beside simd-json and memchr.
fn extract(c: &mut Criterion) {
    let text = common::lines();
    let lines = cut(&text);
    let is_group = |line: &[u8]| line.starts_with(b"{\"resourceType\":\"Group\"");
    let ordinary: Vec<u8> =
        text.split_inclusive(|b| *b == b'\n').filter(|line| !is_group(line)).flatten().copied().collect();
    let mut group = c.benchmark_group("extract");
    group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
    for kernel in Kernel::available() {
        for validate in [Validate::Full, Validate::Structure] {
            assert_eq!(rows(&text, &lines, kernel, validate).0, 38_483);
            assert_eq!(rows(&text, &lines, kernel, validate), rows(&text, &lines, Kernel::Scalar, Validate::Full));
            group.bench_function(format!("{}/{validate:?}/single lines", kernel.name()), |b| {
                b.iter(|| rows(black_box(&text), &lines, kernel, validate))
            });
            assert_eq!(rows_many(&ordinary, kernel, validate), rows(&ordinary, &cut(&ordinary), kernel, validate));
            group.bench_function(format!("{}/{validate:?}/many lines", kernel.name()), |b| {
                b.iter(|| rows_many(black_box(&ordinary), kernel, validate))
            });
        }
    }
    assert!(tape(text.clone(), &lines) > 38_483);
    group.bench_function("simd-json tape", |b| {
        b.iter_batched(|| text.clone(), |text| tape(text, &lines), BatchSize::LargeInput)
    });
    group.bench_function("memchr newlines", |b| {
        b.iter(|| memchr::memchr_iter(b'\n', black_box(&text)).count());
    });
    group.finish();
}

/// Parses instants of several precisions and offsets.
fn instants(c: &mut Criterion) {
    let texts = [
        "2020-06-15T12:00:00Z",
        "2020-06-15T12:00:00.123Z",
        "2020-06-15T07:00:00.123-05:00",
        "2020-06-15T12:00:00.123456789+00:00",
    ];
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let mut group = c.benchmark_group("instants");
    group.throughput(Throughput::Bytes(bytes as u64));
    assert!(texts.iter().all(|text| InstantRef::parse(text.as_bytes()).is_some()));
    group.bench_function("parse 4", |b| {
        b.iter(|| {
            texts
                .iter()
                .filter_map(|text| InstantRef::parse(black_box(text.as_bytes())))
                .map(|instant| instant.ticks)
                .sum::<i64>()
        })
    });
    group.finish();
}

criterion_group!(benches, extract, instants);
criterion_main!(benches);
