//! Building an index from scratch with one and two threads, from a mapped store in the page cache; and opening one.
//!
//! Speed of light: the scanner's bytes per second (see `extract`) times the threads.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::Progress;
use outpour::Store;
use outpour::StoreOptions;

/// Builds an index into a new directory each time, then opens an up-to-date one.
fn index(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("store");
    let bytes = common::plain_store(&root);
    let access = outpour::internals::install().unwrap();
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        group.bench_function(format!("build, threads {threads}"), |b| {
            b.iter_batched(
                || tempfile::tempdir_in(scratch.path()).unwrap(),
                |directory| {
                    let options = StoreOptions::default().index_dir(directory.path()).access(access);
                    let store = Store::open_with(&root, options).unwrap();
                    let (index, work) = pool.install(|| store.index(&Progress::default())).unwrap();
                    assert_eq!((index.rows(), work.scanned_bytes), (38_483, bytes));
                    directory
                },
                BatchSize::PerIteration,
            )
        });
    }
    let home = scratch.path().join("index");
    let options = StoreOptions::default().index_dir(home).access(access);
    let store = Store::open_with(&root, options).unwrap();
    store.index(&Progress::default()).unwrap();
    group.bench_function("open, up to date", |b| {
        b.iter(|| {
            let (index, work) = store.index(&Progress::default()).unwrap();
            assert_eq!((index.rows(), work.scanned_bytes), (38_483, 0));
        })
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
