//! Bytes a second of extraction, beside simd-json's tape over the same lines. The answers are asserted first.
//!
//! Reads `OUTPOUR_BENCH_STORE` (a directory of `.ndjson`, for instance unpacked Synthea output); without it, lines of
//! the same shape are made up, which flatter nobody: they are plain ASCII without white space, as Synthea's are.
//! `full` is what indexing pays by default. The tape needs a mutable copy of each line; that copy is part of its cost.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use outpour::bytes::kernels::Kernel;
use outpour::extract::{Extractor, Validate, naive};
use outpour::fhir::instant::InstantRef;

fn store() -> Vec<u8> {
    let Some(directory) = std::env::var_os("OUTPOUR_BENCH_STORE") else { return made_up() };
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    paths.sort();
    paths.into_iter().flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn made_up() -> Vec<u8> {
    (0..20_000).flat_map(|row| format!(concat!(
        r#"{{"resourceType":"Observation","id":"{0:08x}-8f3a-b1c2-9d4e-5a6b7c8d9e0f","meta":{{"versionId":"1","#,
        r#""lastUpdated":"2021-03-{1:02}T10:20:30.{2:03}+00:00","profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"]}},"#,
        r#""status":"final","category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"laboratory","display":"laboratory"}}]}}],"#,
        r#""code":{{"coding":[{{"system":"http://loinc.org","code":"2339-0","display":"Glucose"}}],"text":"Glucose"}},"subject":{{"reference":"Patient/{3:08x}-1111-2222-3333-444455556666"}},"#,
        r#""encounter":{{"reference":"Encounter/{0:08x}-aaaa-bbbb-cccc-ddddeeeeffff"}},"effectiveDateTime":"2020-01-02T03:04:05-05:00","issued":"2020-01-02T03:04:05.678-05:00","#,
        r#""valueQuantity":{{"value":{2}.35481271395837,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"}}}}"#, "\n"),
        row, row % 28 + 1, row % 1000, row % 617).into_bytes()).collect()
}

fn extract(c: &mut Criterion) {
    let bytes = store();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let total: usize = lines.iter().map(|line| line.len()).sum();
    for line in lines.iter().step_by(37) {
        let expected = naive::extract(line).expect("a benchmark store holds no faults");
        for kernel in Kernel::available() {
            for validate in [Validate::Full, Validate::Structure] {
                let mut extractor = Extractor::new(kernel, validate);
                let facts = extractor.extract(line).expect("the twin takes it");
                assert_eq!(facts.id, expected.id);
                assert!(facts.references().eq(expected.references.iter().map(String::as_str)));
            }
        }
    }

    let mut group = c.benchmark_group("extract");
    group.sample_size(10).throughput(Throughput::Bytes(total as u64));
    for kernel in Kernel::available() {
        for validate in [Validate::Full, Validate::Structure] {
            let name = format!("{}/{validate:?}", kernel.name()).to_lowercase();
            group.bench_function(name, |bencher| {
                let mut extractor = Extractor::new(kernel, validate);
                bencher.iter(|| {
                    lines.iter().map(|line| extractor.extract(line).unwrap().references().count()).sum::<usize>()
                })
            });
        }
    }
    group.bench_function("simd-json/tape", |bencher| {
        let mut copy = Vec::new();
        let mut buffers = simd_json::Buffers::default();
        bencher.iter(|| {
            for line in &lines {
                copy.clear();
                copy.extend_from_slice(line);
                let tape = simd_json::to_tape_with_buffers(&mut copy, &mut buffers).unwrap();
                black_box(tape.0.len());
            }
        })
    });
    group.finish();

    let instants = ["2021-03-04T10:20:30.123+00:00", "2021-03-04T10:20:30Z", "1999-12-31T23:59:60.123456789-05:00"];
    assert!(instants.iter().all(|text| InstantRef::parse(text.as_bytes()).is_some()));
    let mut group = c.benchmark_group("instant");
    group.throughput(Throughput::Elements(instants.len() as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            instants
                .iter()
                .filter_map(|text| InstantRef::parse(black_box(text.as_bytes())))
                .map(|at| at.ticks)
                .sum::<i64>()
        })
    });
    group.finish();
}

criterion_group!(benches, extract);
criterion_main!(benches);
