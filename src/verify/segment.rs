//! Compares one segment with the lines that it was made from: a cursor in every column, advanced by each line.
//!
//! Lines come from `segment_lines`, their facts from the reference implementation. The sorted columns are rebuilt and
//! compared at the end.

use std::collections::BTreeMap;

use crate::count_text::counted;
use crate::extract::rules::LineRules;
use crate::fhir::instant::{Instant, NO_INSTANT};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_64;
use crate::ids::{EntryId, SegmentId};
use crate::index::segment::builder::postings;
use crate::index::segment::columns::{Columns, FaultRow, ReferenceName};
use crate::index::segment::id_encoding::{VersionKey, identifier_hash, owner_hash};
use crate::index::segment::layout::{BASE_BITS, SegmentHeader, ZONE_ROWS, flag, kind};
use crate::index::snapshot::Index;
use crate::key_set::resource_key::entity_hash;
use crate::limits::{ROW_BYTES_MAX, SEGMENT_FAULTS_MAX};
use crate::verify::line_counts::LineCounts;
use crate::verify::line_reader::{Body, CutLine};
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::oracle_line::{OracleLine, OracleRow};
use crate::verify::prior_owners::PriorOwners;
use crate::verify::row_references::StatedReferences;

/// Comparison of one segment, with its cursors.
pub(crate) struct SegmentCheck<'a> {
    /// How lines are read.
    rules: LineRules,
    file: &'a str,
    header: SegmentHeader,
    columns: Columns<'a>,
    faults: Vec<FaultRow>,
    /// Start of the segment in the uncompressed file.
    start: u64,
    /// Hash of the segment's bytes by the index meta.
    content: u64,
    /// Lines of the file before the segment.
    lines_before: u64,
    /// Cursor: next row of the index.
    row: usize,
    /// Cursor: next DELETE entry of the index.
    tombstone: usize,
    /// Content that the sorted columns must have; `None` once a row is missing or extra, which makes it unknown.
    sorted: Option<Vec<(u64, u32)>>,
    /// References to Patients by base URL.
    bases: BTreeMap<String, u64>,
    /// Resources without a lastUpdated.
    undated: u64,
    /// Lines by kind, as the reference implementation reads them.
    pub counts: LineCounts,
    /// Resources by type, as the reference implementation reads them.
    pub types: BTreeMap<&'static str, u64>,
    /// Differences between index and lines.
    pub mismatches: Mismatches,
}

impl<'a> SegmentCheck<'a> {
    /// Comparison of a segment that `lines_before` lines of its file precede.
    pub(crate) fn new(index: &'a Index, segment: SegmentId, lines_before: u64) -> SegmentCheck<'a> {
        let entry = index.entry(segment);
        let columns = index.segment(segment).columns();
        SegmentCheck {
            rules: index.generation().rules,
            file: index.file_name(index.file_of(segment)),
            header: *index.segment(segment).head(),
            columns,
            faults: columns.faults().collect(),
            start: entry.start,
            content: entry.content,
            lines_before,
            row: 0,
            tombstone: 0,
            sorted: Some(Vec::new()),
            bases: BTreeMap::new(),
            undated: 0,
            counts: LineCounts::default(),
            types: BTreeMap::new(),
            mismatches: Mismatches::default(),
        }
    }

    /// Compares the next line. `prior_owners` is a cursor before the line's DELETE entries.
    pub(crate) fn check_line(&mut self, cut: CutLine<'_>, prior_owners: &mut PriorOwners<'_>) {
        let position = cut.offset;
        let (line, length, hash) = match cut.body {
            Body::Whole(bytes) => {
                let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                self.check_leading_space(position, bytes);
                self.check_references(position, bytes);
                (OracleLine::read(bytes, self.rules), bytes.len() as u64, xxh3_64(bytes))
            }
            Body::Long(length, hash, line) => {
                self.counts.long += 1;
                (line, length, hash)
            }
            Body::Broken(length) => (OracleLine::Faulty, length, 0),
        };
        let line = if length > ROW_BYTES_MAX { OracleLine::Faulty } else { line };
        match line {
            OracleLine::Blank => self.counts.blank += 1,
            OracleLine::Faulty | OracleLine::Untyped => self.check_fault(position, length),
            OracleLine::Deletions(updated, urls) => self.check_deletions(position, &updated, &urls, prior_owners),
            OracleLine::Row(row) => self.check_resource((position, length, hash), &row),
        }
        self.counts.lines += 1;
    }

    /// Ends the comparison after the last line: header, counts and derived columns. `hash` is that of the bytes read.
    pub(crate) fn finish(&mut self, hash: u64) {
        while let Some(offset) = self.next_row() {
            self.report_line(offset, "the index has a row here, where no resource is");
            self.row += 1;
        }
        if hash != self.content || hash != self.header.content {
            self.report_segment("content", "its bytes are not those that the index was made from".to_string());
        }
        let SegmentHeader { lines, blank, faulty, tombstone_lines, undated, .. } = self.header;
        let counts = self.counts;
        for (name, stated, found) in [
            ("lines", lines, counts.lines),
            ("blank", blank, counts.blank),
            ("faulty", faulty, counts.faulty),
            ("tombstone_lines", tombstone_lines, counts.tombstone),
            ("undated", undated, self.undated),
        ] {
            if stated != found {
                self.report_segment("header", format!("the extent's header says {stated} {name}, the bytes {found}"));
            }
        }
        for resource_type in ResourceType::all() {
            let found = self.types.get(resource_type.name()).copied().unwrap_or(0);
            let stated = self.columns.type_count[resource_type.index()];
            if stated != found {
                self.report_segment(
                    "type_count",
                    format!("the index says {} of {resource_type}, the bytes {found}", counted(stated, "row")),
                );
            }
        }
        let faults: u64 = self.columns.fault_count.iter().sum();
        if faults != counts.faulty || self.faults.len() as u64 != counts.faulty.min(SEGMENT_FAULTS_MAX as u64) {
            self.report_segment(
                "fault_count",
                format!("the index counts {}, the bytes have {}", counted(faults, "fault"), counts.faulty),
            );
        }
        if self.tombstone != self.columns.tomb_type.len() {
            self.report_segment("tombstone_type", "the index has more deletions than the bytes".to_string());
        }
        self.check_dictionary();
    }

    /// Compares the columns that are derived from the rows: sorted hashes, postings, zone map, owner hashes, base
    /// counts.
    fn check_dictionary(&mut self) {
        let columns = self.columns;
        if let Some(mut sorted) = self.sorted.take() {
            sorted.extend((0..columns.reference_type.len()).map(|number| {
                let of_type = columns.reference_type_of(number);
                let hash = match columns.reference_name(number) {
                    ReferenceName::Id(id) => entity_hash(of_type, id.as_bytes()),
                    ReferenceName::Identifier(text) => identifier_hash(of_type, text),
                };
                (hash, number as u32 | kind::REFERENCE)
            }));
            sorted.extend((0..columns.key_row.len()).map(|number| {
                let (of_type, text) = columns.key_of(number);
                (identifier_hash(of_type, text), number as u32 | kind::KEY)
            }));
            sorted.sort_unstable();
            let stated = columns.sorted_hash.iter().copied().zip(columns.sorted_ref.iter().copied());
            if !stated.eq(sorted) {
                self.report_segment("sorted_hash", "the sorted columns are not those of the rows".to_string());
            }
        }
        let (start, rows) = postings(columns.owner_start, columns.owner, columns.owner_hash.len());
        if columns.posting_start != start || columns.posting != rows {
            self.report_segment("posting", "the rows of the owners are not those that the rows name".to_string());
        }
        let multi_owner_rows = (0..columns.rows()).filter(|row| columns.owners_of(*row).len() > 1);
        if !multi_owner_rows.eq(columns.several.iter().map(|row| *row as usize)) {
            self.report_segment("several", "the rows of several owners are others".to_string());
        }
        let greatest = |zone: &[i64]| match zone.contains(&NO_INSTANT) {
            true => Some(i64::MAX),
            false => zone.iter().max().copied(),
        };
        if !columns.last_updated.chunks(ZONE_ROWS).map(greatest).eq(columns.updated_max.iter().copied().map(Some)) {
            self.report_segment("updated_max", "the greatest instants are others".to_string());
        }
        for owner in 0..columns.owner_hash.len() {
            let base = columns.base_text((columns.owner_base[owner] & BASE_BITS) as usize);
            if owner_hash(base.as_bytes(), columns.owner_id_of(owner).as_bytes()) != columns.owner_hash[owner] {
                self.report_segment("owner_hash", format!("owner {owner} has another hash than its name"));
            }
        }
        for base in 0..columns.bases() {
            let text = columns.base_text(base);
            let found = self.bases.get(text).copied().unwrap_or(0);
            if columns.base_count[base] != found {
                let what = format!(
                    "the index counts {} under {text:?}, the bytes {found}",
                    counted(columns.base_count[base], "reference")
                );
                self.report_segment("base_count", what);
            }
        }
    }

    /// Offset of the next row of the index in the uncompressed file; `None` after the last one.
    fn next_row(&self) -> Option<u64> {
        self.columns.place.get(self.row).map(|[offset, _]| self.start + u64::from(*offset))
    }

    /// Adds a mismatch of the current line.
    fn report_line(&mut self, offset: u64, what: impl Into<String>) {
        let line = self.lines_before + self.counts.lines + 1;
        self.mismatches.push(Mismatch::of_line("index", self.file, line, offset, what));
    }

    /// Adds a mismatch of the segment as a whole.
    fn report_segment(&mut self, rule: &'static str, what: String) {
        let what = format!("extent at byte {}: {what}", self.start);
        self.mismatches.push(Mismatch::of_file(rule, self.file, what));
    }

    /// Compares the flag for white space before the `{` of the row at this line.
    fn check_leading_space(&mut self, offset: u64, line: &[u8]) {
        let spaced = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        if self.next_row() == Some(offset) && (self.columns.flags[self.row] & flag::LEADING_SPACE != 0) != spaced {
            self.report_line(offset, "flags: white space before the resource");
        }
    }

    /// Compares the references and identifiers of the row at this line.
    fn check_references(&mut self, offset: u64, line: &[u8]) {
        if self.next_row() != Some(offset) {
            return;
        }
        let stated = StatedReferences::of_columns(&self.columns, self.row);
        if StatedReferences::read(line, self.columns.type_of(self.row), self.rules.ids) != stated {
            self.report_line(offset, "the index differs in references or identifiers");
        }
    }

    /// Compares a faulty line with the next fault of the index.
    fn check_fault(&mut self, position: u64, length: u64) {
        let number = self.counts.faulty as usize;
        self.counts.faulty += 1;
        if number >= SEGMENT_FAULTS_MAX {
            return;
        }
        let offset = (position - self.start).min(u64::from(u32::MAX)) as u32;
        let length = length.min(u64::from(u32::MAX)) as u32;
        match self.faults.get(number) {
            Some(fault) if fault.offset == offset => {
                if fault.length != length || u64::from(fault.line) != self.counts.lines {
                    self.report_line(position, "fault: the index has another length or line number");
                }
            }
            _ => self.report_line(position, "the line is faulty, and the index does not say so"),
        }
        if self.next_row() == Some(position) {
            self.report_line(position, "the line is faulty, and the index has it as a row");
            self.row += 1;
            self.sorted = None;
        }
    }

    /// Compares the DELETE entries of a line with the next ones of the index.
    fn check_deletions(
        &mut self,
        offset: u64,
        updated: &Option<Instant>,
        urls: &[String],
        prior_owners: &mut PriorOwners<'_>,
    ) {
        self.counts.tombstone += 1;
        for reference in urls.iter().filter_map(|url| Reference::parse(url)) {
            let entry = EntryId::of(self.tombstone);
            let hash = entity_hash(reference.resource_type, reference.id.as_bytes());
            self.sorted.iter_mut().for_each(|sorted| sorted.push((hash, entry.0 | kind::TOMBSTONE)));
            if entry.index() >= self.columns.tomb_type.len() {
                return self.report_line(offset, "the index has fewer deletions than the line");
            }
            self.tombstone += 1;
            let base = self.columns.base_text((self.columns.tomb_base[entry.index()] & BASE_BITS) as usize);
            let are_equal = self.columns.tombstone_of(entry) == (reference.resource_type, reference.id())
                && base == reference.base
                && self.columns.tombstone_updated(entry) == updated.as_ref().map(Instant::as_ref);
            if !are_equal {
                self.report_line(offset, "tombstone: the index has another name or instant of a deletion");
            }
            if !prior_owners.same_owners(offset, &self.columns, entry) {
                self.report_line(
                    offset,
                    "tombstone_left: the index has other owners of a version that has left than the table",
                );
            }
        }
    }

    /// Compares a resource with the next row of the index.
    fn check_resource(&mut self, (offset, length, hash): (u64, u64, u64), row: &OracleRow) {
        self.counts.rows += 1;
        *self.types.entry(row.resource_type.name()).or_default() += 1;
        self.undated += u64::from(row.updated.is_none());
        for reference in row.references.iter().filter_map(|text| Reference::parse(text)) {
            if reference.resource_type == ResourceType::PATIENT {
                *self.bases.entry(reference.base.to_string()).or_default() += 1;
            }
        }
        while self.next_row().is_some_and(|stated| stated < offset) {
            self.report_line(offset, "the index has a row before this line, where no resource is");
            self.row += 1;
        }
        if self.next_row() != Some(offset) {
            self.sorted = None;
            return self.report_line(offset, "the line is a resource, and the index has no row for it");
        }
        self.sort_row(row);
        let wrong = self.differing_columns(row, length, hash);
        if !wrong.is_empty() {
            self.report_line(offset, format!("the index differs in {}", wrong.join(", ")));
        }
        self.row += 1;
    }

    /// Adds a row and its targets to the content that the sorted columns must have.
    fn sort_row(&mut self, row: &OracleRow) {
        let number = self.row;
        let Some(sorted) = &mut self.sorted else { return };
        sorted.push((entity_hash(row.resource_type, row.id.as_bytes()), number as u32 | kind::ROW));
        for target in self.columns.targets_of(number) {
            let (resource_type, id) = self.columns.target_of(target);
            sorted.push((entity_hash(resource_type, id.as_bytes()), target as u32 | kind::TARGET));
        }
    }

    /// Names of the columns whose value for the current row differs from the line's facts.
    fn differing_columns(&self, row: &OracleRow, length: u64, hash: u64) -> Vec<&'static str> {
        let columns = self.columns;
        let i = self.row;
        let version = match columns.version_of(i) {
            VersionKey::None => None,
            VersionKey::Small(0) => Some(String::new()),
            VersionKey::Small(number) => Some(number.to_string()),
            VersionKey::Big(_, digits) => Some(String::from_utf8_lossy(digits).into_owned()),
        };
        let base_of = |base: u32| columns.base_text((base & BASE_BITS) as usize);
        let mut owners: Vec<_> = columns
            .owners_of(i)
            .iter()
            .map(|owner| (base_of(columns.owner_base[*owner as usize]), columns.owner_id_of(*owner as usize)))
            .collect();
        // The selection relies on a Patient's first owner being the Patient itself.
        let is_first_owner = row.resource_type != ResourceType::PATIENT || owners.first() == Some(&("", row.id));
        owners.sort_unstable();
        let mut targets: Vec<_> = columns
            .targets_of(i)
            .map(|target| {
                let (resource_type, id) = columns.target_of(target);
                (base_of(columns.target_base[target]), resource_type, id)
            })
            .collect();
        targets.sort_unstable();
        [
            ("place", u64::from(columns.length(i)) == length),
            ("line_hash", columns.line_hash[i] == hash),
            ("type", columns.type_of(i) == row.resource_type),
            ("id", columns.id_of(i) == row.id),
            ("last_updated", columns.updated_of(i) == row.updated.as_ref().map(Instant::as_ref)),
            ("flags", (columns.flags[i] & flag::ILLEGAL_UPDATED != 0) == row.illegal_updated),
            ("version", version == row.version),
            ("owner", is_first_owner && owners == row.owners()),
            ("target", targets == row.targets()),
        ]
        .into_iter()
        .filter(|(_, are_equal)| !are_equal)
        .map(|(name, _)| name)
        .collect()
    }
}
