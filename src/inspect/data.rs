//! Inspects a data file: number of lines by type, faulty lines, and the seek table of a packed file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::Decoder;
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::extract::facts::Content;
use crate::extract::fault::FaultKind;
use crate::fhir::instant::Instant;
use crate::inspect::report::{InspectReport, ReportSection};
use crate::simd::Kernel;
use crate::store::packed::seek_table::SeekTable;
use crate::sys::access::Access;
use crate::sys::store_file::StoreFile;

/// Adds a data file to the report. Bundles of deletions are counted apart from resources.
pub(crate) fn show(path: &Path, compression: Compression, report: &mut InspectReport) {
    let source = match StoreFile::open(path, Access::pread()) {
        Ok(source) => source,
        Err(error) => return report.broken(path, error),
    };
    // 1. Read the file line by line, and count.
    let mut extractor = Extractor::new(Kernel::detect(), Validate::Full);
    let mut types: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut lines, mut open, mut uncompressed) = (0u64, false, 0u64);
    let mut damage = Vec::new();
    let mut end_line = |extractor: &mut Extractor, lines: &mut u64| {
        *lines += 1;
        match extractor.finish() {
            Ok(facts) if facts.content == Content::Tombstones => *types.entry("deletions").or_default() += 1,
            Ok(facts) => *types.entry(facts.resource_type.name()).or_default() += 1,
            // OperationOutcomes of an `error` file have no id, and that is no fault.
            Err(fault) if fault.kind == FaultKind::NoId => *types.entry("without an id").or_default() += 1,
            Err(fault) => damage.push(format!("line {lines}, byte {} of it: {}", fault.at, fault.kind)),
        }
    };
    let mut decoder = match Decoder::new(&source, compression, SeekPoint::default()) {
        Ok(decoder) => decoder,
        Err(error) => return report.broken(path, error),
    };
    let mut broken_off = None;
    loop {
        let mut piece = match decoder.piece(|_| {}) {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                broken_off = Some(error);
                break;
            }
        };
        uncompressed += piece.len() as u64;
        while !piece.is_empty() {
            if !open {
                extractor.begin();
                open = true;
            }
            let Some(end) = memchr::memchr(b'\n', piece) else {
                extractor.feed(piece);
                break;
            };
            extractor.feed(&piece[..end]);
            end_line(&mut extractor, &mut lines);
            open = false;
            piece = &piece[end + 1..];
        }
    }
    if open {
        end_line(&mut extractor, &mut lines);
    }
    // 2. Report: facts, the seek table of a packed file, lines by type, damage.
    let mut section = ReportSection::new("data file", &["type", "lines"]);
    section.fact("bytes", source.len());
    section.fact("uncompressed", uncompressed);
    section.fact("lines", lines);
    match SeekTable::open(&source) {
        Ok(Some(table)) => packed(&mut section, &table),
        Ok(None) => {}
        Err(error) => report.broken(path, error),
    }
    types.iter().for_each(|(name, count)| section.row(vec![name.to_string(), count.to_string()]));
    report.part("a data file", section);
    damage.into_iter().take(crate::inspect::report::ROWS_MAX).for_each(|what| report.broken(path, what));
    if let Some(error) = broken_off {
        report.broken(path, error);
    }
}

/// Adds the facts of a packed file's seek table.
fn packed(section: &mut ReportSection, table: &SeekTable) {
    let instant = |ticks: i64| Instant { ticks, rest: Box::default() }.to_string();
    let known = |ticks: Option<i64>| ticks.map_or("unknown".to_string(), instant);
    let frames = (0..table.frames()).map(|offset| table.frame(offset));
    section.fact("frames", table.frames());
    section.fact("type of the frames", table.resource_type.map_or("unknown", |of| of.name()));
    section.fact("rows of the frames", table.rows());
    section.fact("longest frame", frames.clone().map(|frame| frame.uncompressed_len).max().unwrap_or(0));
    section.fact("packed as of", instant(table.packed_at));
    section.fact("first snapshot of the index packed", known(table.birth));
    section.fact("last snapshot of the index packed", known(table.latest));
    section.fact("first seen", known(table.first_seen));
    section.fact(
        "least lastUpdated",
        known(frames.clone().map(|frame| frame.least).min().filter(|ticks| *ticks != i64::MAX)),
    );
    section.fact(
        "greatest lastUpdated",
        known(frames.map(|frame| frame.greatest).max().filter(|ticks| *ticks != i64::MIN)),
    );
    section.fact("owners of versions that left", table.left.len());
}
