//! Inspects the files of an index: segments, the global index over them, the meta file that names both, and the
//! snapshot log.

use std::path::Path;
use std::sync::Arc;

use memchr::memmem;

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::index::dir::twin_name;
use crate::index::global;
use crate::index::meta::{self, IndexMeta};
use crate::index::search::columns::is_column_file;
use crate::index::segment::layout::{self, ALL_COLUMNS, COLUMNS, Column, ColumnRanges, SegmentHeader};
use crate::index::segment::reader::Segment;
use crate::index::snapshot_log::SnapshotSlots;
use crate::inspect::index_file::{file_name, open_index_file};
use crate::inspect::lists::{listed_columns, row_times, vanished_resources};
use crate::inspect::report::{InspectReport, ReportSection};
use crate::inspect::search_columns::search_column;
use crate::limits::GENERATION_BYTES_MAX;
use crate::sys::regular_file::read_regular;
use crate::text_table::grouped;

/// Adds an index directory: its meta file, the files that this names, and the names of other files.
pub(crate) fn inspect_directory(path: &Path, report: &mut InspectReport) {
    // Both copies say the same; the second one names the files where the first one cannot.
    let mut named = index_meta(&path.join(meta::FILE), report);
    let twin = path.join(meta::TWIN);
    if named.is_none() && twin.is_file() {
        named = index_meta(&twin, report);
    } else if twin.is_file()
        && read_regular(&twin, GENERATION_BYTES_MAX).is_ok_and(|b| IndexMeta::from_bytes(&b).is_none())
    {
        report.broken(&twin, "its magic, version, checksum or order does not hold; the other copy is used");
    }
    let mut known: Vec<&str> = vec![meta::FILE, meta::TWIN, "lock", "search.lock", "search-listed"];
    if let Some(named) = &named {
        let containers = named.containers.iter().map(|name| (name, segments as fn(&Path, &mut InspectReport)));
        for (named, show) in containers.chain([(&named.global, global_index as fn(&Path, &mut InspectReport))]) {
            known.push(&named.name);
            let file = path.join(&named.name);
            match file.is_file() {
                true => show(&file, report),
                false => report.broken(&file, "the generation names it, and it is not there"),
            }
        }
    }
    // Both copies of what cannot be made again.
    let lists = named.iter().flat_map(|named| {
        [(&named.times, row_times as fn(&Path, &mut InspectReport)), (&named.vanished, vanished_resources)]
    });
    let mut copies = Vec::new();
    for (name, show) in lists.filter(|(name, _)| !name.is_empty()) {
        for name in [name.clone(), twin_name(name)] {
            let file = path.join(&name);
            match file.is_file() {
                true => show(&file, report),
                false => report.broken(&file, "the generation names it, and it is not there; the other copy is used"),
            }
            copies.push(name);
        }
    }
    known.extend(copies.iter().map(String::as_str));
    let listed = path.join("search-listed");
    if listed.is_file() {
        listed_columns(&listed, report);
    }
    let log_path = path.join(meta::NOTE);
    if log_path.is_file() {
        known.push(meta::NOTE);
        snapshot_log(&log_path, report);
    }
    // Files that the meta file does not name are listed, not opened; search columns are none that it names.
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_column_file(&name) {
            search_column(&path.join(&name), report);
        } else if !known.contains(&name.as_str()) {
            report.unnamed.push(name);
        }
    }
}

/// Adds a file of segments: its segments, the sizes of their columns, and their rows by type. After a broken segment,
/// the next one is searched by its magic bytes.
pub(crate) fn segments(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = open_index_file(path, report).map(Arc::new) else { return };
    // 1. Walk over the segments of the file.
    let mut list = ReportSection::new(
        format!("{}: extents", file_name(path)),
        &["at", "bytes", "from", "to", "lines", "rows", "faulty", "deletions", "checksum"],
    );
    let mut sums: Vec<(u64, u64)> = vec![(0, 0); COLUMNS.len()];
    let mut types = vec![0u64; ResourceType::COUNT];
    let (mut offset, mut count) = (0usize, 0u64);
    while offset < bytes.len() {
        let own = &bytes[offset..];
        let columns = match ColumnRanges::read(own) {
            Ok(columns) => columns,
            Err(reason) => {
                let next = memmem::find(&own[1..], &layout::MAGIC).map_or(bytes.len(), |found| offset + 1 + found);
                report.broken(
                    path,
                    format!("byte {offset}: no extent: {reason}; bytes {offset} to {next} were passed by"),
                );
                offset = next;
                continue;
            }
        };
        let state = match Segment::open(bytes.clone(), offset as u64) {
            Ok(_) => "ok",
            Err(reason) => {
                report.broken(path, format!("byte {offset}: extent: {reason}"));
                if layout::is_intact(own, &columns) { "ok" } else { "broken" }
            }
        };
        count += 1;
        let SegmentHeader { size, start, end, lines, faulty, tombstone_lines, .. } = columns.head;
        let rows = columns.count(Column::Place) as u64;
        let numbers = [offset as u64, size, start, end, lines, rows, faulty, tombstone_lines];
        list.row(numbers.iter().map(|number| grouped(*number)).chain([state.to_string()]).collect());
        for (column, sum) in ALL_COLUMNS.iter().zip(&mut sums) {
            *sum = (sum.0 + columns.count(*column) as u64, sum.1 + columns.column(*column).len() as u64);
        }
        let (counts, _) = own[columns.column(Column::TypeCount)].as_chunks::<8>();
        types.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(u64::from_le_bytes(*count)));
        offset += columns.head.size.max(8) as usize;
    }
    list.fact("bytes", grouped(bytes.len() as u64));
    list.fact("format version", layout::VERSION);
    list.fact("extents", grouped(count));
    report.part("a file of extents", list);
    // 2. Sizes of the columns, over all segments.
    let mut column_table = ReportSection::new("columns", &["column", "elements", "bytes", "each", "per"]);
    for (info, (elements, bytes)) in COLUMNS.iter().zip(sums) {
        let cells = [info.name.to_string(), grouped(elements), grouped(bytes), info.width.to_string(), info.per.into()];
        column_table.row(cells.to_vec());
    }
    report.part("", column_table);
    // 3. Rows by type, over all segments.
    let mut rows = ReportSection::new("rows by type", &["type", "rows"]);
    for (resource_type, count) in ResourceType::all().zip(types).filter(|(_, count)| *count > 0) {
        rows.row(vec![resource_type.to_string(), grouped(count)]);
    }
    report.part("", rows);
}

/// Adds a global index: its sections and the state of its checksum.
pub(crate) fn global_index(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = open_index_file(path, report).map(Arc::new) else { return };
    let mut section =
        ReportSection::new(format!("{}: merged over all extents", file_name(path)), &["section", "elements", "bytes"]);
    section.fact("bytes", grouped(bytes.len() as u64));
    let (words, _) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().take(global::WORDS).map(|word| u64::from_le_bytes(*word)).collect();
    if words.len() == global::WORDS {
        if words[0] != global::MAGIC {
            report.broken(path, "byte 0: it does not begin with the magic bytes");
        }
        for ((title, width), count) in global::SECTIONS.iter().zip(&words[2..]) {
            let size = count.checked_mul(*width as u64).map_or("too many".to_string(), grouped);
            section.row(vec![title.to_string(), grouped(*count), size]);
        }
        let state = global::verify_bytes(&bytes);
        if let Err(reason) = state {
            report.broken(path, reason);
        }
        section.fact("checksum", if state.is_ok() { "ok" } else { "broken" });
    } else {
        report.broken(path, "it is shorter than its header");
    }
    report.part("what was merged over the extents of an index", section);
}

/// Adds the meta file of an index: snapshots, store files, names of the index files. Returns its contents as far as
/// they can be read.
pub(crate) fn index_meta(path: &Path, report: &mut InspectReport) -> Option<IndexMeta> {
    let mut section = ReportSection::new("generation", &["file", "bytes", "extents", "last", "appendable"]);
    let bytes = match read_regular(path, GENERATION_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.broken(path, format!("it cannot be read: {error}"));
            return None;
        }
    };
    let sound = IndexMeta::from_bytes(&bytes);
    if sound.is_none() {
        report.broken(path, "its magic, version, checksum or order does not hold; the index will be made again");
    }
    let body = memchr::memchr(b'\n', &bytes).map_or(&[][..], |newline| &bytes[newline + 1..]);
    let found = sound.or_else(|| {
        let found = IndexMeta::read_body(body);
        if found.is_none() {
            report.broken(path, "what stands behind its first line cannot be read");
        }
        found
    });
    if let Some(found) = &found {
        section.fact("sequence", found.sequence);
        section.fact("validate", found.rules.validate.name());
        section.fact("ids", found.rules.ids.name());
        section.fact("lone surrogates", found.rules.lone_surrogates.name());
        section.fact("patient references", found.rules.patient_references.name());
        section.fact("compartment paths", found.rules.compartment_paths.name());
        section.fact("unproven", found.unproven.name());
        section.fact("symbolic links", if found.follow_symlinks { "followed" } else { "not followed" });
        let patterns = match found.ignore_hash {
            0 => "none".to_string(),
            hash => format!("{hash:016x}"),
        };
        section.fact(".outpourignore", patterns);
        section.fact("first snapshot", instant_text(found.birth));
        section.fact("latest snapshot", instant_text(found.latest));
        section.fact("files", grouped(found.files.len() as u64));
        section.fact("extents", grouped(found.segments.len() as u64));
        let names: Vec<&str> = found.containers.iter().map(|file| file.name.as_str()).collect();
        section.fact("containers", names.join(", "));
        section.fact("merged", &found.global.name);
        let trusted = found.containers.iter().chain([&found.global]).all(|file| file.stamp.is_some());
        section.fact("index files stamped", trusted);
        for (id, file) in found.file_ids().zip(&found.files) {
            let own = || found.segments.iter().filter(|segment| segment.file == id);
            let tail = if own().any(|segment| segment.tail) { "no newline" } else { "whole" };
            let cells =
                [grouped(file.stamp.len), grouped(own().count() as u64), tail.into(), file.appendable.to_string()];
            section.row([file.name.clone()].into_iter().chain(cells).collect());
        }
    }
    report.part("the generation of an index", section);
    found
}

/// An instant in ticks as text; a placeholder for `None`.
fn instant_text(ticks: Option<i64>) -> String {
    ticks.map_or("none yet".to_string(), |ticks| Instant { ticks, rest: Box::default() }.to_string())
}

/// Adds the log of the snapshots taken since the meta file was published.
pub(crate) fn snapshot_log(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new("note of snapshots", &[]);
    let slots = read_regular(path, GENERATION_BYTES_MAX).ok().map(|bytes| SnapshotSlots::from_bytes(&bytes));
    if slots.is_some_and(|slots| slots.damaged() > 0 && slots.newest().is_some()) {
        report.broken(path, "one of its two copies is damaged; the other holds, and the next snapshot writes both");
    }
    match slots.and_then(|slots| slots.newest()) {
        Some(log) => {
            section.fact("of generation", log.sequence);
            section.fact("first snapshot of its new extents", instant_text(log.first));
            section.fact("latest snapshot", instant_text(log.latest));
        }
        None => report.broken(path, "it is torn; what it noted is forgotten, and some rows may be exported again"),
    }
    report.part("the note of an index", section);
}
