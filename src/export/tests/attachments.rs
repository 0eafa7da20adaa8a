//! Exports whose URLs of attachments become absolute, beside lines that are changed the slow and obvious way (ATTACH-02,
//! ATTACH-04).

use crate::codec::compression::Compression;
use crate::export::planning::plan;
use crate::export::to_sink::export_to_sink;
use crate::fhir::attachment_url::{AttachmentPath, AttachmentUrls};
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::ids::{RowAddress, ShardId};
use crate::index::row_reader::{row_range, stream_range};
use crate::index::snapshot::Snapshot;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::binaries::{find_binary, version_of_row};
use crate::store::Store;
use crate::verify::reduced_line::reduced_line;
use crate::verify::rewritten_line::rewritten_line;
use crate::write::sink::MemorySink;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::path::Path;

const BASE: &str = "https://files.example/a%20b/";

fn as_of() -> Instant {
    Instant::parse("2024-01-06T12:00:00Z").unwrap()
}

/// A line: a resource with attachments, a Binary in one of its versions, or a deletion of one.
fn line() -> impl Strategy<Value = String> {
    let url = prop::sample::select(vec![
        "Binary/a",
        "Binary/b",
        "Binary/c",
        "Binary\\/a",
        "\\u0042inary/b",
        "Binary/a/_history/1",
        "Binary/b/_history/W2",
        "Binary/c/_history/9",
        "Binary/gone",
        "https://b.example/Binary/a",
        "Binary/",
    ]);
    let version = prop::sample::select(vec!["1", "2", "007", "W2", "b c/d", ""]);
    let member = (prop::sample::select(vec!["url", "url", "u\\u0072l", "reference"]), url)
        .prop_map(|(name, url)| format!(r#"{{"{name}":"{url}","size":1}}"#));
    let id = prop::sample::select(vec!["a", "b", "c"]);
    (0..10u32, id, version, 1..9u32, prop::collection::vec(member, 0..4), 0..3usize).prop_map(
        |(kind, id, version, day, members, long)| {
            let dated = format!(r#""lastUpdated":"2024-01-0{day}T00:00:00Z""#);
            match kind {
                0..5 => format!(
                    r#"{{"resourceType":"DocumentReference","id":"{id}{day}","status":"current","note":"{}","content":[{}],"meta":{{{dated}}}}}"#,
                    "x".repeat(long * 700),
                    members.join(" ,")
                ),
                5..9 => {
                    let version = if version.is_empty() { String::new() } else { format!(r#""versionId":"{version}","#) };
                    format!(r#"{{"resourceType":"Binary","id":"{id}","meta":{{{version}{dated}}},"data":"AAAA"}}"#)
                }
                _ => format!(
                    r#"{{"resourceType":"Bundle","type":"batch","meta":{{{dated}}},"entry":[{{"request":{{"method":"DELETE","url":"Binary/{id}"}}}}]}}"#
                ),
            }
        },
    )
}

/// A store of some files, plain and compressed.
fn write_store(directory: &Path, files: &[Vec<String>]) {
    for (number, lines) in files.iter().enumerate() {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = directory.join(format!("{number}.ndjson{}", if number == 1 { ".gz" } else { "" }));
        if number == 1 {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(text.as_bytes()).unwrap();
            std::fs::write(path, out.finish().unwrap()).unwrap();
        } else {
            std::fs::write(path, text).unwrap();
        }
    }
}

/// The line of a row as the store has it.
fn line_of(snapshot: &Snapshot, row: RowAddress) -> Vec<u8> {
    let (index, mut line) = (snapshot.index(), Vec::new());
    stream_range(index, index.file_of(row.segment), row_range(index, row), &mut |piece| line.extend_from_slice(piece))
        .unwrap();
    line
}

/// The lines that a file of a plan is expected to have, with the number of URLs that change.
fn expected_lines(plan: &Plan, snapshot: &Snapshot, shard: ShardId) -> (Vec<u8>, usize) {
    let urls = AttachmentUrls::new(BASE, AttachmentPath::Plain);
    let ours = vec![true; snapshot.index().bases().len()];
    let mut changed = 0;
    let mut new_url = |found: Reference<'_>| {
        // A version counts if the Binary has a current one.
        let current = find_binary(snapshot, &found.id(), None, &ours).unwrap()?;
        let row = found
            .version
            .map_or(Some(current), |named| find_binary(snapshot, &found.id(), Some(named), &ours).unwrap())?;
        let version = version_of_row(snapshot, row).unwrap();
        changed += 1;
        Some(urls.json_text(found.id, version.as_deref()))
    };
    let mut lines = Vec::new();
    for row in plan.rows_of(snapshot, shard) {
        let line = line_of(snapshot, row);
        let line = reduced_line(&line, plan.shard(shard).resource_type, &plan.request.elements).unwrap_or(line);
        lines.extend(rewritten_line(&line, &mut new_url));
        lines.push(b'\n');
    }
    (lines, changed)
}

/// The bytes of an output file before compression.
fn decoded(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut text = Vec::new();
    match compression {
        Compression::None => text.extend_from_slice(bytes),
        Compression::Gzip => drop(flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap()),
        Compression::Zstd => text = zstd::stream::decode_all(bytes).unwrap(),
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// ATTACH-02, ATTACH-04, FILE-12: random stores, reduced and whole, in every compression: every line is what the slow way
    /// makes of it, no file is longer than planned, and the planned lengths keep the bounds.
    #[test]
    fn exports_are_rewritten_line_by_line(files in prop::collection::vec(prop::collection::vec(line(), 0..12), 1..4), reduced in any::<bool>(), file_bytes in prop::sample::select(vec![700u64, 3000, 1 << 20])) {
        let directory = tempfile::tempdir().unwrap();
        write_store(directory.path(), &files);
        let store = Store::open(directory.path()).unwrap().read_only();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut request = ExportRequest::system().base_url(BASE).compression(compression).file_bytes(file_bytes);
            if reduced {
                request = request.elements(["DocumentReference.content"]);
            }
            let (snapshot, _) = store.snapshot_watched(as_of(), &Progress::default()).unwrap();
            let plan = plan(&snapshot, &request).unwrap();
            let mut sink = MemorySink::default();
            export_to_sink(&store, &request, as_of(), &mut sink, &Progress::default()).unwrap();
            let written = sink.files();
            let mut all = 0;
            for (position, shard) in plan.shard_ids().enumerate() {
                let (expected, changed) = expected_lines(&plan, &snapshot, shard);
                let text = decoded(&written[&plan.file_name(position)], compression);
                prop_assert_eq!(String::from_utf8(text.clone()).unwrap(), String::from_utf8(expected).unwrap());
                let of_shard = plan.shard(shard);
                prop_assert!(of_shard.rewritten || changed == 0);
                prop_assert!(text.len() as u64 <= of_shard.bytes);
                prop_assert!(of_shard.rows == 1 || of_shard.bytes <= file_bytes);
                all += changed as u64;
            }
            // A URL stays, too, that names a version that the store does not have, or that is left out with its element.
            prop_assert!(all <= plan.attachment_counts.relative - plan.attachment_counts.unknown);
        }
    }
}
