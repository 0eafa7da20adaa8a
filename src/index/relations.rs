//! What the global index says of an opened index: which record follows a row, which version a deletion ends, which
//! resource a target names, and which patients the owners of a segment are.

use std::ops::Range;

use crate::casts::to_usize;
use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::ids::{BaseId, EntryId, OwnerId, OwnerOrd, PatientId, RecordId, ReferenceId, RowAddress, SegmentId};
use crate::index::global::Section;
use crate::index::segment::id_encoding::owner_hash;
use crate::index::snapshot::Index;

/// For each owner of a segment the patient of the dictionary that it is.
#[derive(Clone, Copy)]
pub(crate) struct OwnerPatients<'a>(&'a [u32]);

impl<'a> OwnerPatients<'a> {
    /// The patient that an owner of the segment is.
    #[inline(always)]
    pub(crate) fn patient_of(self, owner: OwnerOrd) -> PatientId {
        PatientId(self.0[owner.index()])
    }

    /// The patients in the order of the owners.
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = PatientId> + 'a {
        self.0.iter().copied().map(PatientId)
    }
}

impl Index {
    /// The rows among `rows` of a segment that have a successor, ascending, each with the record that follows it.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn successions(
        &self,
        segment: SegmentId,
        rows: Range<usize>,
    ) -> Result<impl ExactSizeIterator<Item = (usize, RecordId)> + '_, CorruptIndex> {
        let first = self.starts().row[segment.index()];
        let edges = self.global().edges(Section::Succession, first + rows.start..first + rows.end)?;
        Ok(edges.iter().map(move |edge| (edge.from().index() - first, edge.to_record())))
    }

    /// Whether any DELETE entry of the store has a successor.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn follows_entries(&self) -> Result<bool, CorruptIndex> {
        let (rows, entries) = (self.starts().rows, self.global().count(Section::Ends));
        Ok(!self.global().edges(Section::Succession, rows..rows + entries)?.is_empty())
    }

    /// The version before a DELETE entry of a segment; `None` if there is none.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn version_before(&self, segment: SegmentId, entry: EntryId) -> Result<Option<RecordId>, CorruptIndex> {
        let ended = self.global().word(Section::Ends, self.starts().tombstone[segment.index()] + entry.index())?;
        Ok(ended.checked_sub(1).map(RecordId))
    }

    /// The first record of the resource that a target of a segment names; `None` if the store has no record of it.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn first_record_of_target(&self, segment: SegmentId, target: usize) -> Result<Option<RecordId>, CorruptIndex> {
        let first = self.global().word(Section::TargetHead, self.starts().target[segment.index()] + target)?;
        Ok(first.checked_sub(1).map(RecordId))
    }

    /// For each reference of a segment the first record of its resource, or of its identifier, plus one; 0 for none.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn reference_heads(&self, segment: SegmentId) -> Result<&[u32], CorruptIndex> {
        let (first, count) =
            (self.starts().reference[segment.index()], to_usize(self.segment(segment).head().references));
        self.global().verified_words(Section::ReferenceHead, first..first + count)
    }

    /// As [`Index::reference_heads`], of one reference.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn reference_head(&self, segment: SegmentId, reference: usize) -> Result<u32, CorruptIndex> {
        self.global().word(Section::ReferenceHead, self.starts().reference[segment.index()] + reference)
    }

    /// The segment that holds a reference, and the number of the reference in it.
    pub(crate) fn locate_reference(&self, reference: ReferenceId) -> (SegmentId, usize) {
        let starts = &self.starts().reference;
        let segment = starts.partition_point(|start| *start <= reference.index()) - 1;
        (SegmentId::of(segment), reference.index() - starts[segment])
    }

    /// The row whose identifier a record is; `None` if the record is a row or a DELETE entry.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn row_of_key(&self, record: RecordId) -> Result<Option<RowAddress>, CorruptIndex> {
        let Some(key) = record.index().checked_sub(self.starts().before_keys) else { return Ok(None) };
        let starts = &self.starts().key;
        let segment = starts.partition_point(|start| *start <= key) - 1;
        let row = self.segment(SegmentId::of(segment)).key_row(key - starts[segment])?;
        Ok(Some(RowAddress::of(SegmentId::of(segment), row)))
    }

    /// The records that are the identifiers of a row.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn keys_of_row(&self, row: RowAddress) -> Result<impl Iterator<Item = RecordId> + use<>, CorruptIndex> {
        let first = self.starts().before_keys + self.starts().key[row.segment.index()];
        let own = self.segment(row.segment).keys_of_row(row.row.index())?;
        Ok(own.map(move |key| RecordId::of(first + key)))
    }

    /// The patient of the dictionary with this base and id; `None` if no row names it.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn patient(&self, base: BaseId, id: &Id) -> Result<Option<PatientId>, CorruptIndex> {
        let hash = owner_hash(self.bases()[base.index()].as_bytes(), id.as_bytes());
        let first = self.global().lower_bound(Section::PatientHash, hash)?;
        for i in first..self.patients() {
            if self.global().verified_longs(Section::PatientHash, i..i + 1)?[0] != hash {
                break;
            }
            let patient = PatientId::of(i);
            if self.global().word(Section::PatientBase, i)? == base.0 && self.patient_id(patient)? == *id {
                return Ok(Some(patient));
            }
        }
        Ok(None)
    }

    /// Number of patients of the dictionary: every (base, id) that a reference or a Patient row names.
    pub fn patients(&self) -> usize {
        self.global().count(Section::PatientHash)
    }

    /// Owners that are this patient of the dictionary, one for each segment that names it.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn owners_of_patient(
        &self,
        patient: PatientId,
    ) -> Result<impl ExactSizeIterator<Item = OwnerId> + '_, CorruptIndex> {
        let offset = patient.index();
        let span = self.global().verified_words(Section::PatientStart, offset..offset + 2)?;
        let owners = self.global().verified_words(Section::Occurrence, span[0] as usize..span[1] as usize)?;
        Ok(owners.iter().copied().map(OwnerId))
    }

    /// The patient of the dictionary that an owner of a segment is.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn patient_of_owner(&self, segment: SegmentId, owner: OwnerOrd) -> Result<PatientId, CorruptIndex> {
        let owner = self.owner_of_segment(segment, owner);
        self.global().word(Section::OwnerPatient, owner.index()).map(PatientId)
    }

    /// The patients of the dictionary that the owners of a segment are, in their order.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn patients_of_segment(&self, segment: SegmentId) -> Result<OwnerPatients<'_>, CorruptIndex> {
        let (first, owners) = (self.starts().owner[segment.index()], to_usize(self.segment(segment).head().owners));
        Ok(OwnerPatients(self.global().verified_words(Section::OwnerPatient, first..first + owners)?))
    }

    /// Logical id of a patient of the dictionary.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn patient_id(&self, patient: PatientId) -> Result<Id, CorruptIndex> {
        let first = self.owners_of_patient(patient)?.next().ok_or(CorruptIndex("a patient has no name"))?;
        let (segment, owner) = self.locate_owner(first);
        self.segment(segment).owner_id(owner.index())
    }
}
