//! A data file: how many lines of which type it holds, and which of them are no resources.

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

/// Shows a data file of this coding. Bundles of deletions are told from resources.
pub(crate) fn show(path: &Path, compression: Compression, report: &mut InspectReport) {
    let source = match StoreFile::open(path, Access::pread()) {
        Ok(source) => source,
        Err(error) => return report.broken(path, error),
    };
    let mut extractor = Extractor::new(Kernel::detect(), Validate::Full);
    let mut types: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut lines, mut open, mut uncompressed) = (0u64, false, 0u64);
    let mut damage = Vec::new();
    let mut end_line = |extractor: &mut Extractor, lines: &mut u64| {
        *lines += 1;
        match extractor.finish() {
            Ok(facts) if facts.content == Content::Tombstones => *types.entry("deletions").or_default() += 1,
            Ok(facts) => *types.entry(facts.resource_type.name()).or_default() += 1,
            // Messages have no id; they are none the worse for it.
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
    let mut part = ReportSection::new("data file", &["type", "lines"]);
    part.fact("bytes", source.len());
    part.fact("uncompressed", uncompressed);
    part.fact("lines", lines);
    match SeekTable::open(&source) {
        Ok(Some(table)) => packed(&mut part, &table),
        Ok(None) => {}
        Err(error) => report.broken(path, error),
    }
    types.iter().for_each(|(name, count)| part.row(vec![name.to_string(), count.to_string()]));
    report.part("a data file", part);
    damage.into_iter().take(crate::inspect::report::ROWS_MAX).for_each(|what| report.broken(path, what));
    if let Some(error) = broken_off {
        report.broken(path, error);
    }
}

/// What the table of a packed file says.
fn packed(part: &mut ReportSection, table: &SeekTable) {
    let instant = |ticks: i64| Instant { ticks, rest: Box::default() }.to_string();
    let known = |ticks: Option<i64>| ticks.map_or("unknown".to_string(), instant);
    let frames = (0..table.frames()).map(|offset| table.frame(offset));
    part.fact("frames", table.frames());
    part.fact("type of the frames", table.resource_type.map_or("unknown", |of| of.name()));
    part.fact("rows of the frames", table.rows());
    part.fact("longest frame", frames.clone().map(|frame| frame.uncompressed_len).max().unwrap_or(0));
    part.fact("packed as of", instant(table.packed_at));
    part.fact("first snapshot of the index packed", known(table.birth));
    part.fact("last snapshot of the index packed", known(table.latest));
    part.fact("first seen", known(table.first_seen));
    part.fact("least lastUpdated", known(frames.clone().map(|frame| frame.least).min().filter(|at| *at != i64::MAX)));
    part.fact(
        "greatest lastUpdated",
        known(frames.map(|frame| frame.greatest).max().filter(|time_ticks| *time_ticks != i64::MIN)),
    );
    part.fact("owners of versions that left", table.left.len());
}
