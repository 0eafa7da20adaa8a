//! What is written by spans is, byte for byte, what is written by a plan.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::access_paths::at;
use crate::codec::compression::Compression;
use crate::error::ExportError;
use crate::export::planning::plan;
use crate::hash::digest::DigestAlgorithm;
use crate::ids::{FileId, ShardId};
use crate::index::snapshot::Snapshot;
use crate::index::test_lines::{append, line};
use crate::pack::writer::FrameCoder;
use crate::plan::Plan;
use crate::policies::FileBounds;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::spans::plan_spans::{spans_of_shard, write_spans};
use crate::spans::span_file::{SpanFacts, SpanFile};
use crate::spans::span_sources::{SpanSourceError, SpanSources};
use crate::store::Store;
use crate::sys::access::Access;
use crate::sys::durability::FileSync;
use crate::sys::regular_file::Links;
use crate::write::encode::Encoder;
use crate::write::frame_recode::Recompressors;
use crate::write::shard::PlannedOutput;
use crate::write::sink::MemorySink;
use crate::write::span_sweep::{SpanOutput, copy_spans};

fn failed(name: &str, source: std::io::Error) -> ExportError {
    ExportError::Write { directory: "memory".into(), name: name.to_string(), source }
}

/// The files of a plan, each written by its rows.
fn by_plan(plan: &Plan, snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let mut sink = MemorySink::default();
    for shard in 0..plan.shards.len() {
        plan.write_shard(shard, snapshot, &mut sink, &Progress::default()).unwrap();
    }
    sink.files()
}

/// The spans of each file of a plan, written and read again.
fn span_files(plan: &Plan, snapshot: &Snapshot) -> Vec<SpanFile> {
    let written = plan.shard_ids().map(|shard| {
        let file = tempfile::tempfile().unwrap();
        let (file, id) = write_spans(plan, snapshot, shard, "plan", file, &|error| failed("spans", error)).unwrap();
        let spans = SpanFile::open(file, Path::new("spans")).unwrap();
        assert_eq!(spans.content_id(), id);
        spans
    });
    written.collect()
}

/// The files of a plan, written by their spans: all in one sweep, or each in its own.
fn by_spans(plan: &Plan, files: &[SpanFile], sources: &SpanSources, together: bool) -> BTreeMap<String, Vec<u8>> {
    let sink = MemorySink::default();
    let numbers: Vec<Vec<FileId>> = files.iter().map(|file| sources.numbers(&file.facts)).collect();
    let output = |i: usize| {
        let shard = plan.shard(ShardId::of(i));
        let source_bytes = plan.source_bytes_of(ShardId::of(i));
        let planned = PlannedOutput { rows: shard.rows, bytes: shard.bytes, source_bytes };
        let resource_type = shard.resource_type;
        SpanOutput { name: plan.file_name(i), resource_type, planned, spans: &files[i], numbers: &numbers[i] }
    };
    let sweep = |shards: Vec<usize>| {
        let outputs: Vec<SpanOutput<'_>> = shards.into_iter().map(output).collect();
        let mut closed = 0;
        copy_spans(
            &outputs,
            sources,
            &plan.request.elements,
            &Recompressors::default(),
            &Progress::default(),
            &mut |i| {
                let (compression, digest) = (plan.request.compression, DigestAlgorithm::None);
                Encoder::begin(sink.clone(), &outputs[i].name, compression, digest, 1)
                    .map_err(|error| failed(&outputs[i].name, error))
            },
            &mut |i, receipt| {
                assert_eq!((&receipt.file, receipt.count), (&outputs[i].name, outputs[i].planned.rows));
                closed += 1;
                Ok(())
            },
            &failed,
        )
        .unwrap();
        assert_eq!(closed, outputs.len());
    };
    match together {
        true => sweep((0..files.len()).collect()),
        false => (0..files.len()).for_each(|i| sweep(vec![i])),
    }
    sink.files()
}

/// Lines of a file: rows of any length, and what is none.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let long = (0..60u32, 0..5u32, 0..3000usize).prop_map(|(id, patient, filler)| {
        let text = "x".repeat(filler);
        format!(
            r#"{{"resourceType":"Condition","id":"c{id}","subject":{{"reference":"Patient/p{patient}"}},"x":"{text}"}}"#
        )
    });
    let spaced = Just(r#"  {"resourceType":"Condition","id":"s","subject":{"reference":"Patient/p1"}}"#.to_string());
    let returned =
        Just("{\"resourceType\":\"Condition\",\"id\":\"r\",\"subject\":{\"reference\":\"Patient/p2\"}}\r".into());
    let blank = Just(String::new());
    proptest::collection::vec(prop_oneof![8 => line(), 8 => long, 1 => spaced, 1 => returned, 1 => blank], 1..120)
}

/// Compresses a file as others do: several gzip members, or one zstd frame.
fn compress(path: &Path, how: Compression) {
    let bytes = std::fs::read(path).unwrap();
    let (suffix, coded) = match how {
        Compression::None => return,
        Compression::Zstd => ("zst", zstd::encode_all(&bytes[..], 1).unwrap()),
        Compression::Gzip => {
            let coded = bytes.chunks(20_000).flat_map(|part| {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut writer, part).unwrap();
                writer.finish().unwrap()
            });
            ("gz", coded.collect())
        }
    };
    std::fs::write(path.with_extension(format!("ndjson.{suffix}")), coded).unwrap();
    std::fs::remove_file(path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// In plain, compressed and packed stores, of everybody and of some, whole and reduced, in each coding and cut anyhow.
    #[test]
    fn spans_give_the_files_of_their_plan(
        files in proptest::collection::vec((lines(), 0..3usize), 1..4),
        people in proptest::collection::vec(0..5u32, 1..4),
        bounds in (200..60_000u64, proptest::option::of(1..60u64)),
        coding in 0..3usize,
        frames in 0..3usize,
        elements in any::<bool>(),
        system in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("plain"), dir.path().join("packed"));
        std::fs::create_dir(&plain).unwrap();
        for (number, (lines, how)) in files.iter().enumerate() {
            let path = plain.join(format!("f{number}.ndjson"));
            append(&path, lines);
            compress(&path, [Compression::None, Compression::Gzip, Compression::Zstd][*how]);
        }
        let codings = [Compression::None, Compression::Gzip, Compression::Zstd];
        let late = at("2020-01-01T00:01:00Z");
        let mut roots = vec![plain.clone()];
        if frames > 0 {
            let coder = [FrameCoder::zstd(1), FrameCoder::gzip(1)][frames - 1];
            let options = crate::pack::PackOptions { to: packed.clone(), coder, sync: FileSync::No };
            if crate::pack::pack(&Store::open(&plain).unwrap(), late.clone(), &options, &Progress::default()).is_ok() {
                roots.push(packed);
            }
        }
        let (file_bytes, file_resources) = bounds;
        let mut request = match system {
            true => ExportRequest::system(),
            false => ExportRequest::patient_ids(people.iter().map(|id| format!("p{id}"))),
        };
        request = request.compression(codings[coding]);
        request.bounds = FileBounds { file_bytes, file_resources };
        if elements {
            request = request.elements(["id", "Observation.status", "Condition.subject"]);
        }
        for root in roots {
            let snapshot = Store::open(&root).unwrap().snapshot(late.clone()).unwrap();
            let plan = plan(&snapshot, &request).unwrap();
            let files = span_files(&plan, &snapshot);
            let facts: Vec<&SpanFacts> = files.iter().map(|file| &file.facts).collect();
            let sources = SpanSources::open(&root, Access::pread(), Links::Refuse, &facts).unwrap();
            let expected = by_plan(&plan, &snapshot);
            for together in [false, true] {
                let found = by_spans(&plan, &files, &sources, together);
                prop_assert!(found == expected, "{} together {together}", root.display());
            }
            sources.verify_unchanged().unwrap();
        }
    }
}

/// Rows that follow one another are one span, up to its bound; a scattered row takes four bytes at most; a store file that is
/// not what it was is refused.
#[test]
fn spans_are_short_and_know_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (root, list) = (dir.path().join("store"), dir.path().join("people.txt"));
    std::fs::create_dir(&root).unwrap();
    let mut seed = 7u64;
    let lines: Vec<String> = (0..60_000)
        .map(|n| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (patient, filler) = ((seed >> 33) % 100, "x".repeat(300 + (seed >> 50) as usize % 900));
            format!(
                r#"{{"resourceType":"Observation","id":"o{n}","subject":{{"reference":"Patient/p{patient}"}},"x":"{filler}"}}"#
            )
        })
        .collect();
    append(&root.join("a.ndjson"), &lines);
    std::fs::write(&list, "p7\n").unwrap();
    let snapshot = Store::open(&root).unwrap().snapshot(at("2021-01-01T00:00:00Z")).unwrap();
    let spans = |request: &ExportRequest| {
        let plan = plan(&snapshot, request).unwrap();
        let mut spans = Vec::new();
        for shard in plan.shard_ids() {
            spans_of_shard(&plan, &snapshot, shard, &mut |span| {
                spans.push(span);
                Ok(())
            })
            .unwrap();
        }
        let bytes = plan.shard_ids().map(|shard| {
            write_spans(&plan, &snapshot, shard, "plan", Vec::new(), &|error| failed("spans", error)).unwrap().0.len()
        });
        (spans, bytes.sum::<usize>(), span_files(&plan, &snapshot))
    };
    let (whole, ..) = spans(&ExportRequest::all_patients());
    assert_eq!(whole.iter().map(|span| u64::from(span.rows)).sum::<u64>(), 60_000);
    assert!(whole.iter().all(|span| span.length <= 256 << 10) && whole.len() < 300, "{}", whole.len());
    let (scattered, bytes, files) = spans(&ExportRequest::patients(&list));
    assert!(scattered.len() > 500, "{}", scattered.len());
    // The facts of the file, its head and its tail are some 500 bytes.
    let each = (bytes - 500) as f64 / scattered.len() as f64;
    assert!(each <= 4.0, "{each} bytes a scattered row");
    let facts: Vec<&SpanFacts> = files.iter().map(|file| &file.facts).collect();
    let open = || SpanSources::open(&root, Access::pread(), Links::Refuse, &facts);
    open().unwrap().verify_unchanged().unwrap();
    append(&root.join("a.ndjson"), &lines[..1]);
    assert!(matches!(open(), Err(SpanSourceError::Changed { .. })));
    std::fs::remove_file(root.join("a.ndjson")).unwrap();
    assert!(matches!(open(), Err(SpanSourceError::Open(_))));
}
