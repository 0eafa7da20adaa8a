//! The global index: relations between segments, as they lie on disk and as queries read them. Patients with their
//! owners in each segment, the next version of each record, the targets of Provenances, and totals of the store.
//!
//! A header with the number of elements of each section, page checksums, then the sections. Opening reads the header
//! and the table of segments; sections are verified as they are read. `build` and `append` write it.
//!
//! Records are numbered over the store: rows first, in store order, then DELETE entries in store order, then identifiers of
//! rows of context in store order. The records of one identifier are related as those of one resource are.

pub(crate) mod append;
pub mod build;
pub(crate) mod edges;
pub(crate) mod entities;
pub(crate) mod segment_set;

use std::ops::Range;
use std::sync::Arc;

use crate::casts::to_usize;
use crate::error::CorruptIndex;
use crate::extract::fault::FaultKind;
use crate::fhir::resource_type::ResourceType;
use crate::ids::RecordId;
use crate::index::dir::IndexBytes;
use crate::index::global::edges::{Edge, Edges};
use crate::index::meta::SegmentMeta;
use crate::index::page_checksums::{PageChecksums, checksum, checksum_count};
use crate::index::segment::layout::{HEAD_WORDS, SegmentHeader};
use crate::index::segment::reader::{KnownHeader, Segment};
use crate::sys::little_endian::view;

/// Magic bytes at the start of a global index file, as a word.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"OUTMERG\x05");
/// Numbers kept for each resource type among the totals: rows, superseded rows, deleted rows.
pub(crate) const TYPE_TOTALS: usize = 3;
/// Words of the totals: those of each type, faults of each kind, DELETE entries under bases other than the empty one.
pub(crate) const TOTALS_WORDS: usize = ResourceType::COUNT * TYPE_TOTALS + FaultKind::ALL.len() + 1;

macro_rules! sections {
    ($($section:ident $width:literal $name:literal;)*) => {
        /// The sections of a global index, in their order on disk.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs)]
        pub enum Section { $($section),* }
        /// Description and bytes of an element of each section.
        pub(crate) const SECTIONS: &[(&str, usize)] = &[$(($name, $width)),*];
        /// All sections in their order.
        pub(crate) const ALL_SECTIONS: [Section; SECTIONS.len()] = [$(Section::$section),*];
    };
}

sections! {
    Heads 8 "header of each extent";
    Totals 8 "rows, superseded and deleted rows of each type; faults of each kind; deletions under other bases";
    BaseCount 8 "references under each base";
    PatientHash 8 "hash of each patient";
    Succession 8 "record and next record of the same resource, where there is one";
    About 8 "first record of a resource and target of a Provenance that names it";
    FirstRecord 8 "later record of a resource that a target or a reference names, and its first record";
    Referrer 8 "first record of a resource and reference that names it";
    PatientBase 4 "base of each patient";
    PatientStart 4 "first owner of each patient";
    Occurrence 4 "owners of each patient";
    OwnerPatient 4 "patient of each owner";
    Ends 4 "version before each deletion";
    TargetHead 4 "first record of each target";
    ReferenceHead 4 "first record of each reference";
    BaseLength 4 "length of each base";
    SegmentBase 4 "bases of each extent";
    BaseText 1 "text of the bases";
}

/// Words of the header before the page checksums: magic, checksum of what follows, number of elements of each section.
pub(crate) const WORDS: usize = 2 + SECTIONS.len();

/// Numbers of elements of the sections, in their order.
pub(crate) type GlobalCounts = [usize; SECTIONS.len()];

/// End of the page checksums and byte ranges of the sections, each padded to 8 bytes; `None` when a sum overflows.
pub(crate) fn ranges(counts: &GlobalCounts) -> Option<(usize, [Range<usize>; SECTIONS.len()])> {
    let mut body = 0usize;
    let mut ranges = [const { 0..0 }; SECTIONS.len()];
    for (i, place) in ranges.iter_mut().enumerate() {
        let len = counts[i].checked_mul(SECTIONS[i].1)?;
        *place = body..body.checked_add(len)?;
        body = place.end.checked_next_multiple_of(8)?;
    }
    let front = WORDS * 8 + checksum_count(body).checked_mul(4)?.checked_next_multiple_of(8)?;
    for place in &mut ranges {
        *place = place.start.checked_add(front)?..place.end.checked_add(front)?;
    }
    Some((front, ranges))
}

/// Checks header and every page of the bytes of a global index file, without its segments.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn verify_bytes(bytes: &[u8]) -> Result<(), &'static str> {
    let (_, _, checksums) = header_bytes(bytes)?;
    checksums.verify_all(bytes).map_err(|damaged| damaged.0)
}

/// Reads a header and checks its checksum: numbers of elements, byte ranges and page checksums of the sections.
fn header_bytes(bytes: &[u8]) -> Result<(GlobalCounts, [Range<usize>; SECTIONS.len()], PageChecksums), &'static str> {
    let (words, _) = bytes.get(..WORDS * 8).ok_or("it is shorter than its header")?.as_chunks::<8>();
    let word = |index: usize| u64::from_le_bytes(words[index]);
    if word(0) != MAGIC {
        return Err("it does not begin with the magic bytes");
    }
    let mut counts = [0; SECTIONS.len()];
    for (i, count) in counts.iter_mut().enumerate() {
        *count = usize::try_from(word(2 + i)).map_err(|_| "its sizes do not fit")?;
    }
    let (front, ranges) = ranges(&counts).ok_or("its sizes do not fit")?;
    let end = ranges[SECTIONS.len() - 1].end.next_multiple_of(8);
    if end != bytes.len() {
        return Err("it is not as long as it says");
    }
    if checksum(&bytes[16..front]) != word(1) {
        return Err("its checksum does not hold");
    }
    Ok((counts, ranges, PageChecksums::new(WORDS * 8, front..end)))
}

/// The global index of an index meta, mapped.
pub struct GlobalIndex {
    bytes: Arc<IndexBytes>,
    counts: GlobalCounts,
    ranges: [Range<usize>; SECTIONS.len()],
    checksums: PageChecksums,
}

/// Numbers over the store of the first row, DELETE entry, target, owner and base of each segment.
pub(crate) struct SegmentOffsets {
    /// First row of each segment.
    pub row: Vec<usize>,
    /// First DELETE entry of each segment, counted from the first of the store.
    pub tombstone: Vec<usize>,
    /// First Provenance target of each segment.
    pub target: Vec<usize>,
    /// First reference of each segment.
    pub reference: Vec<usize>,
    /// First identifier of a row of context of each segment, counted from the first of the store.
    pub key: Vec<usize>,
    /// First owner of each segment.
    pub owner: Vec<usize>,
    /// First reference base of each segment.
    pub base: Vec<usize>,
    /// Number of rows of the store.
    pub rows: usize,
    /// Number of rows and DELETE entries of the store: the number of the first identifier.
    pub before_keys: usize,
}

impl SegmentOffsets {
    /// Sums the counts of the segment headers, in store order.
    pub(crate) fn of<'a>(heads: impl Iterator<Item = &'a SegmentHeader>) -> SegmentOffsets {
        let count = heads.size_hint().0;
        let mut starts: [Vec<usize>; 7] = std::array::from_fn(|_| Vec::with_capacity(count));
        let mut sums = [0; 7];
        for head in heads {
            let counts =
                [head.rows, head.tombstones, head.targets, head.references, head.keys, head.owners, head.bases];
            for ((starts, sum), count) in starts.iter_mut().zip(&mut sums).zip(counts) {
                starts.push(*sum);
                *sum += to_usize(count);
            }
        }
        let [row, tombstone, target, reference, key, owner, base] = starts;
        let [rows, tombstones, ..] = sums;
        SegmentOffsets { row, tombstone, target, reference, key, owner, base, rows, before_keys: rows + tombstones }
    }
}

impl GlobalIndex {
    /// Opens a global index file by its header and its table of segments, which must be those of `entries`.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the caller builds it again.
    pub fn open(bytes: IndexBytes, entries: &[SegmentMeta]) -> Result<GlobalIndex, &'static str> {
        let (counts, ranges, checksums) = header_bytes(&bytes)?;
        let global = GlobalIndex { bytes: Arc::new(bytes), counts, ranges, checksums };
        global.verify(Section::Heads, 0..global.count(Section::Heads)).map_err(|damaged| damaged.0)?;
        if !global.count(Section::Heads).is_multiple_of(HEAD_WORDS) {
            return Err("it belongs to other extents");
        }
        let heads = global.heads();
        let same = |(head, entry): (&SegmentHeader, &SegmentMeta)| {
            (head.start, head.end, head.content) == (entry.start, entry.end, entry.content)
        };
        if heads.len() != entries.len() || !heads.iter().zip(entries).all(same) {
            return Err("it belongs to other extents");
        }
        global.check_sizes()?;
        Ok(global)
    }

    /// Checks the lengths of the sections against one another and the segment headers.
    fn check_sizes(&self) -> Result<(), &'static str> {
        let sum = |count: &dyn Fn(&SegmentHeader) -> u64| {
            self.heads().iter().fold(0u64, |sum, head| sum.saturating_add(count(head)))
        };
        let (patients, bases) = (self.count(Section::PatientHash), self.count(Section::BaseLength));
        let count = |section| self.count(section) as u64;
        let sound = count(Section::Totals) == TOTALS_WORDS as u64
            && count(Section::PatientBase) == patients as u64
            && count(Section::PatientStart) == patients as u64 + 1
            && count(Section::Occurrence) == sum(&|head| head.owners)
            && count(Section::OwnerPatient) == sum(&|head| head.owners)
            && count(Section::Ends) == sum(&|head| head.tombstones)
            && count(Section::TargetHead) == sum(&|head| head.targets)
            && count(Section::ReferenceHead) == sum(&|head| head.references)
            && count(Section::SegmentBase) == sum(&|head| head.bases)
            && count(Section::BaseCount) == bases as u64;
        if sound { Ok(()) } else { Err("its sections differ in length") }
    }

    /// Checks every page, and the relations between sections that later indexing relies on.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self, segments: &[Segment]) -> Result<(), &'static str> {
        if segments.iter().zip(self.heads()).any(|(segment, head)| segment.head() != head) {
            return Err("it belongs to other extents");
        }
        self.checksums.verify_all(&self.bytes).map_err(|damaged| damaged.0)?;
        let all_below = |section, bound: usize| self.words(section).iter().all(|number| (*number as usize) < bound);
        let rows: u64 = self.heads().iter().map(|head| head.rows).sum();
        let keys: u64 = self.heads().iter().map(|head| head.keys).sum();
        let records = to_usize(rows) + self.count(Section::Ends) + to_usize(keys);
        let edges = |section, bound: usize| {
            let edges = Edges::of_words(self.longs(section)).iter();
            edges.clone().all(|edge| edge.from().index() < records && edge.to_record().index() < bound)
                && edges.is_sorted()
        };
        let starts = self.words(Section::PatientStart);
        let sound = self.longs(Section::PatientHash).is_sorted()
            && starts.is_sorted()
            && starts.first() == Some(&0)
            && starts.last().map(|end| *end as usize) == Some(self.count(Section::Occurrence))
            && starts.windows(2).all(|pair| pair[0] < pair[1])
            && all_below(Section::Occurrence, self.count(Section::Occurrence))
            && all_below(Section::OwnerPatient, self.count(Section::PatientHash))
            && all_below(Section::PatientBase, self.count(Section::BaseLength))
            && all_below(Section::SegmentBase, self.count(Section::BaseLength))
            && all_below(Section::Ends, to_usize(rows) + 1)
            && all_below(Section::TargetHead, records + 1)
            && all_below(Section::ReferenceHead, records + 1)
            && edges(Section::Referrer, self.count(Section::ReferenceHead))
            && edges(Section::Succession, records)
            && edges(Section::About, self.count(Section::TargetHead))
            && edges(Section::FirstRecord, records);
        if sound { Ok(()) } else { Err("a number points nowhere") }
    }

    /// Copies of the segment headers, in store order; verified when it was opened.
    pub fn heads(&self) -> &[SegmentHeader] {
        view(&self.bytes[self.ranges[Section::Heads as usize].clone()]).expect("whole headers, aligned")
    }

    /// The header of a segment, by its number, as it lies in the file.
    pub(crate) fn known_header(&self, number: usize) -> KnownHeader {
        let at = self.ranges[Section::Heads as usize].start + number * size_of::<SegmentHeader>();
        KnownHeader { bytes: self.bytes.clone(), at }
    }

    /// Number of elements of a section.
    pub fn count(&self, section: Section) -> usize {
        self.counts[section as usize]
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> &IndexBytes {
        &self.bytes
    }

    /// Verifies the pages that hold a range of elements of a section.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum, or the range exceeds the section.
    pub fn verify(&self, section: Section, elements: Range<usize>) -> Result<(), CorruptIndex> {
        if elements.start > elements.end || elements.end > self.count(section) {
            return Err(CorruptIndex("a number points nowhere"));
        }
        let (start, width) = (self.ranges[section as usize].start, SECTIONS[section as usize].1);
        self.checksums.verify(&self.bytes, start + elements.start * width..start + elements.end * width)
    }

    /// A section of `u32`, unverified: elements on pages that were not verified may be any value.
    pub fn words(&self, section: Section) -> &[u32] {
        view(&self.bytes[self.ranges[section as usize].clone()]).expect("aligned")
    }

    /// A section of `u64`, unverified: elements on pages that were not verified may be any value.
    pub fn longs(&self, section: Section) -> &[u64] {
        view(&self.bytes[self.ranges[section as usize].clone()]).expect("aligned")
    }

    /// A range of a section of `u32`, verified.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn verified_words(&self, section: Section, elements: Range<usize>) -> Result<&[u32], CorruptIndex> {
        self.verify(section, elements.clone())?;
        Ok(&self.words(section)[elements])
    }

    /// A range of a section of `u64`, verified.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn verified_longs(&self, section: Section, elements: Range<usize>) -> Result<&[u64], CorruptIndex> {
        self.verify(section, elements.clone())?;
        Ok(&self.longs(section)[elements])
    }

    /// One element of a section of `u32`, verified.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn word(&self, section: Section, offset: usize) -> Result<u32, CorruptIndex> {
        Ok(self.verified_words(section, offset..offset + 1)?[0])
    }

    /// Index of the first element of an ascending section of `u64` that is not less than `key`.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn lower_bound(&self, section: Section, key: u64) -> Result<usize, CorruptIndex> {
        self.lower_bound_in(section, key, 0..self.longs(section).len())
    }

    /// As [`GlobalIndex::lower_bound`], among a range of elements.
    fn lower_bound_in(&self, section: Section, key: u64, among: Range<usize>) -> Result<usize, CorruptIndex> {
        let longs = self.longs(section);
        let (mut low, mut high) = (among.start, among.end);
        while low < high {
            let middle = low + (high - low) / 2;
            self.verify(section, middle..middle + 1)?;
            match longs[middle] < key {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// The edges of `section` from records with these indices, verified.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub(crate) fn edges(&self, section: Section, records: Range<usize>) -> Result<Edges<'_>, CorruptIndex> {
        if self.count(section) == 0 {
            return Ok(Edges::of_words(&[]));
        }
        let first = self.lower_bound(section, Edge::first_word(records.start))?;
        // The end is near for few records: search it in steps that double.
        let (key, count) = (Edge::first_word(records.end), self.count(section));
        let (mut all_below, mut step) = (first, 1);
        while all_below + step <= count
            && self.verified_longs(section, all_below + step - 1..all_below + step)?[0] < key
        {
            all_below += step;
            step *= 2;
        }
        let end = self.lower_bound_in(section, key, all_below..count.min(all_below + step))?;
        Ok(Edges::of_words(self.verified_longs(section, first..end.max(first))?))
    }

    /// The edges of `section` from one record, verified.
    fn edges_from(&self, section: Section, record: RecordId) -> Result<Edges<'_>, CorruptIndex> {
        self.edges(section, record.index()..record.index() + 1)
    }

    /// The next record of the same resource, by lastUpdated and version; `None` for the last.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn next(&self, record: RecordId) -> Result<Option<RecordId>, CorruptIndex> {
        Ok(self.edges_from(Section::Succession, record)?.first().map(Edge::to_record))
    }

    /// The targets of Provenances that name the resource of a record, by its first record (which stands for the
    /// resource) and the edges to the targets; `None` if no target names it.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub(crate) fn targets_of_resource(&self, record: RecordId) -> Result<Option<(RecordId, Edges<'_>)>, CorruptIndex> {
        let later = self.edges_from(Section::FirstRecord, record)?;
        let first = later.first().map_or(record, Edge::to_record);
        let edges = self.edges_from(Section::About, first)?;
        Ok((!edges.is_empty()).then_some((first, edges)))
    }

    /// The first record of the resource, or of the identifier, that a record is of, if anything names it; else the record.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub(crate) fn first_record(&self, record: RecordId) -> Result<RecordId, CorruptIndex> {
        Ok(self.edges_from(Section::FirstRecord, record)?.first().map_or(record, Edge::to_record))
    }

    /// The references that name the resource, or identifier, of a record; none if no reference names it.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub(crate) fn referrers(&self, record: RecordId) -> Result<Edges<'_>, CorruptIndex> {
        self.edges_from(Section::Referrer, self.first_record(record)?)
    }

    /// The counts of the whole store, verified.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn totals(&self) -> Result<SectionTotals<'_>, CorruptIndex> {
        Ok(SectionTotals(self.verified_longs(Section::Totals, 0..TOTALS_WORDS)?))
    }

    /// The reference bases of the store in order, the empty one first.
    ///
    /// # Errors
    /// As [`GlobalIndex::verify`].
    pub fn bases(&self) -> Result<Vec<String>, CorruptIndex> {
        let lengths = self.verified_words(Section::BaseLength, 0..self.count(Section::BaseLength))?;
        self.verify(Section::BaseText, 0..self.count(Section::BaseText))?;
        let mut text = &self.bytes[self.ranges[Section::BaseText as usize].clone()];
        let mut bases = Vec::with_capacity(lengths.len());
        for len in lengths {
            let (base, rest) =
                text.split_at_checked(*len as usize).ok_or(CorruptIndex("a text lies beyond its heap"))?;
            bases.push(str::from_utf8(base).map_err(|_| CorruptIndex("a text is no text"))?.to_string());
            text = rest;
        }
        Ok(bases)
    }
}

/// Counts over the whole store. They hold for a snapshot that has every segment and whose T is after every instant.
#[derive(Clone, Copy)]
pub struct SectionTotals<'a>(&'a [u64]);

impl SectionTotals<'_> {
    /// Rows of the resource type of this index.
    pub fn rows(&self, index: usize) -> u64 {
        self.0[index * TYPE_TOTALS]
    }

    /// Rows of the resource type of this index that a later version follows.
    pub fn superseded(&self, index: usize) -> u64 {
        self.0[index * TYPE_TOTALS + 1]
    }

    /// Rows of the type of this index that no later version follows, but a DELETE entry with a relative reference.
    pub fn deleted(&self, index: usize) -> u64 {
        self.0[index * TYPE_TOTALS + 2]
    }

    /// Current resources: rows that neither a later version nor a DELETE entry with a relative reference follows.
    pub fn current(&self) -> u64 {
        let of = |index| self.rows(index).saturating_sub(self.superseded(index)).saturating_sub(self.deleted(index));
        (0..ResourceType::COUNT).map(of).sum()
    }

    /// Faulty lines of the fault kind of this index.
    pub fn faults(&self, kind: usize) -> u64 {
        self.0[ResourceType::COUNT * TYPE_TOTALS + kind]
    }

    /// DELETE entries in version chains under bases other than the empty one. If there is any, the counts above depend
    /// on which bases belong to this store.
    pub fn foreign_deletions(&self) -> u64 {
        self.0[TOTALS_WORDS - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document lists the sections in their order, each with the bytes of an element; of heads, those of one
    /// header.
    #[test]
    fn the_format_document_has_the_sections() {
        let document = include_str!("../../docs/format.md");
        let rows = document.lines().skip_while(|line| !line.starts_with("| section |")).skip(2);
        let stated: Vec<String> = rows
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.split(" | ").take(2).collect::<Vec<_>>().join(" | "))
            .collect();
        let expected = ALL_SECTIONS.map(|section| {
            let mut name = String::new();
            for letter in format!("{section:?}").chars() {
                name.push_str(if letter.is_uppercase() && !name.is_empty() { "_" } else { "" });
                name.extend(letter.to_lowercase());
            }
            let width = match section {
                Section::Heads => HEAD_WORDS * 8,
                _ => SECTIONS[section as usize].1,
            };
            format!("| {name} | {width}")
        });
        assert_eq!(stated, expected);
        assert!(document.contains("magic `OUTMERG\\x05`") && MAGIC == u64::from_le_bytes(*b"OUTMERG\x05"));
    }
}
