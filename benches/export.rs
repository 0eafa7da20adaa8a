//! Selection for a few requests, and a warm export of every patient beside `fs::copy` of the files it makes.
//!
//! Speed of light of a warm export: `write(2)` of its bytes, which the copy does.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::ExportOptions;
use outpour::ExportRequest;
use outpour::FileSync;
use outpour::Instant;
use outpour::Progress;
use outpour::Store;
use outpour::StoreOptions;
use outpour::export;
use outpour::plan;

/// The transactionTime of all snapshots and exports here.
fn as_of() -> Instant {
    Instant::parse("2026-06-01T00:00:00Z").unwrap()
}

/// Plans three requests, then exports a Group and copies the exported files.
fn exports(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("store");
    common::plain_store(&root);
    let access = outpour::internals::install().unwrap();
    let index_dir = scratch.path().join("index");
    let store = Store::open_with(&root, StoreOptions::default().index_dir(index_dir).access(access)).unwrap();
    let snapshot = store.snapshot(as_of()).unwrap();
    let pool = common::one_thread();

    let mut group = c.benchmark_group("select");
    let lines = snapshot.index().rows() as u64;
    group.throughput(Throughput::Elements(lines));
    for (name, request, rows) in [
        ("Group all", ExportRequest::group("all"), 38_066),
        ("Group ten", ExportRequest::group("ten"), 2_940),
        ("Group all since 2019-06-01", ExportRequest::group("all").since("2019-06-01T00:00:00Z"), 3_923),
    ] {
        let planned = || pool.install(|| plan(&snapshot, &request)).unwrap().rows();
        assert_eq!(planned(), rows, "{name}");
        group.bench_function(name, |b| b.iter(planned));
    }
    group.finish();

    let mut group = c.benchmark_group("export");
    let request = ExportRequest::group("all");
    let run = |out: &std::path::Path| {
        let options = ExportOptions::new(out).sync(FileSync::No).clock(&as_of);
        pool.install(|| export(&store, &request, as_of(), &options, &Progress::default())).unwrap()
    };
    let once = scratch.path().join("once");
    let exported = run(&once);
    let bytes: u64 = exported.files.iter().map(|file| file.bytes).sum();
    assert_eq!((exported.files.iter().map(|file| file.count).sum::<u64>(), bytes), (38_066, 51_665_592));
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    let new_directory = || tempfile::tempdir_in(scratch.path()).unwrap();
    group.bench_function("warm, Group all, no sync", |b| {
        b.iter_batched(
            new_directory,
            |directory| {
                assert_eq!(run(&directory.path().join("out")).ledger.exported, 38_066);
                directory
            },
            BatchSize::PerIteration,
        )
    });
    group.bench_function("fs::copy of its files", |b| {
        b.iter_batched(
            new_directory,
            |directory| {
                for file in &exported.files {
                    std::fs::copy(once.join(&file.file), directory.path().join(&file.file)).unwrap();
                }
                directory
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, exports);
criterion_main!(benches);
