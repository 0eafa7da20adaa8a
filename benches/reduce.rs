//! Reduction of rows to listed elements, beside a count of newlines and a copy of the same bytes.
//!
//! Speed of light: what is read cannot be read faster than `memchr` does it, nor what stays be copied faster than by a copy.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outpour::internals::{Kernel, LineReducer};
use outpour::{ElementSelection, ResourceType};
use std::hint::black_box;

/// Lines of each type, one text a type.
fn texts_by_type() -> Vec<(ResourceType, Vec<u8>)> {
    let mut texts: Vec<(ResourceType, Vec<u8>)> = ResourceType::all().map(|of_type| (of_type, Vec::new())).collect();
    for line in common::lines().split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"{\"resourceType\":\"").expect("bundled lines begin so");
        let name = &name[..memchr::memchr(b'"', name).expect("a name ends")];
        let of_type = ResourceType::parse(std::str::from_utf8(name).expect("a name is text")).expect("a type of R4");
        texts[of_type.index()].1.extend_from_slice(line);
    }
    texts.retain(|(_, text)| !text.is_empty());
    texts
}

/// Reduces every line; bytes that are left, newlines included.
fn reduce(texts: &[(ResourceType, Vec<u8>)], selection: &ElementSelection, kernel: Kernel, out: &mut Vec<u8>) -> usize {
    let mut left = 0;
    for (of_type, text) in texts {
        let mut reducer = LineReducer::of(selection, *of_type, kernel).expect("every type has an id");
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            reducer.feed(&text[start..end], out);
            assert!(reducer.end_row());
            out.push(b'\n');
            start = end + 1;
            if out.len() > 256 << 10 {
                left += out.len();
                out.clear();
            }
        }
        left += out.len();
        out.clear();
    }
    left
}

/// Reduction by every kernel, to few elements and to many.
fn reduce_lines(c: &mut Criterion) {
    let texts = texts_by_type();
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let mut group = c.benchmark_group("reduce");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10);
    let few = ElementSelection::parse(["id"]).0;
    let many =
        "id,text,subject,patient,code,category,name,address,identifier,contained,extension,component,item,report,value";
    let many = ElementSelection::parse(many.split(',')).0;
    let mut out = Vec::new();
    for (name, selection) in [("mandatory elements", &few), ("many elements", &many)] {
        let left = reduce(&texts, selection, Kernel::Scalar, &mut out);
        assert!(left < bytes);
        println!("{name}: {left} of {bytes} bytes are left");
        for kernel in Kernel::available() {
            assert_eq!(reduce(&texts, selection, kernel, &mut out), left);
            group.bench_function(format!("{}/{name}", kernel.name()), |b| {
                b.iter(|| reduce(black_box(&texts), selection, kernel, &mut out))
            });
        }
    }
    group.bench_function("memchr newlines", |b| {
        b.iter(|| texts.iter().map(|(_, text)| memchr::memchr_iter(b'\n', black_box(text)).count()).sum::<usize>())
    });
    group.bench_function("copy", |b| {
        b.iter(|| {
            for (_, text) in &texts {
                for piece in black_box(text).chunks(256 << 10) {
                    out.clear();
                    out.extend_from_slice(piece);
                }
            }
            out.len()
        })
    });
    group.finish();
}

criterion_group!(benches, reduce_lines);
criterion_main!(benches);
