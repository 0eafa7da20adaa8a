//! Resources that are gone from the store without a deletion, as the index remembers them.
//!
//! An index compares each version of the store with the one before. What is gone cannot be found again later, so it is
//! kept in a small file beside the index meta, written twice, and carried over whatever is built anew. A resource that
//! comes back is forgotten. Whether readers are told of a deletion is the choice of an export
//! ([`Vanished`](crate::policies::Vanished)).

use std::sync::OnceLock;

use crate::error::{CorruptIndex, IndexError};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_64;
use crate::index::dir::{IndexBytes, IndexDir, TwinFile, twin_name};
use crate::index::meta::{self, IndexMeta, MetaReader, MetaWriter};
use crate::named_enum::by_name;

/// Magic bytes at the start of the file.
const MAGIC: &[u8; 8] = b"OUTGONE\x01";

/// How a resource came to be gone, which decides whether it can be told as a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VanishCause {
    /// Its file stands under its path and was replaced whole by one without it, without faults or a cut end.
    ReplacedFile,
    /// Its file was changed in place, or has faults or a cut end: its rows may be among them.
    UncertainFile,
    /// Its file is gone.
    MissingFile,
    /// Its newest version is gone, and an older one still stands: it is not gone, but no longer what readers hold.
    OlderVersion,
    /// Its rows are gone, and a DELETE entry says that it is deleted.
    Deleted,
}

impl VanishCause {
    /// All causes, in the order of their numbers on disk.
    pub(crate) const ALL: [VanishCause; 5] = [
        VanishCause::ReplacedFile,
        VanishCause::UncertainFile,
        VanishCause::MissingFile,
        VanishCause::OlderVersion,
        VanishCause::Deleted,
    ];

    /// Its word, which plans of exports hold.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            VanishCause::ReplacedFile => "replacedFile",
            VanishCause::UncertainFile => "uncertainFile",
            VanishCause::MissingFile => "missingFile",
            VanishCause::OlderVersion => "olderVersion",
            VanishCause::Deleted => "deleted",
        }
    }
}

by_name!(VanishCause);

/// A resource that is gone, or no longer as readers hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VanishedResource {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its logical id.
    pub id: Id,
    /// How it came to be gone.
    pub cause: VanishCause,
    /// T of the first snapshot without it, in ticks; `None` before that snapshot.
    pub first_missed: Option<i64>,
    /// lastUpdated of its last version in ticks, [`NO_INSTANT`](crate::fhir::instant::NO_INSTANT) for none.
    pub updated: i64,
    /// Owners of its last version: reference base and id of each patient.
    pub owners: Vec<(String, Id)>,
    /// Whether a row of it has come since: it is forgotten after the next snapshot, unless it goes again before.
    pub returned: bool,
}

/// Bytes of the file.
pub(crate) fn to_bytes(list: &[VanishedResource]) -> Vec<u8> {
    let mut body = MetaWriter(Vec::with_capacity(list.len() * 96));
    body.number(list.len() as u64);
    for gone in list {
        body.text(gone.resource_type.name());
        body.text(gone.id.as_str());
        body.number(gone.cause as u64);
        body.optional(gone.first_missed);
        body.number(gone.updated as u64);
        body.number(u64::from(gone.returned));
        body.number(gone.owners.len() as u64);
        for (base, id) in &gone.owners {
            body.text(base);
            body.text(id.as_str());
        }
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(xxh3_64(&body.0).to_le_bytes());
    bytes.extend(body.0);
    bytes
}

/// Reads the bytes of the file; `None` when they are damaged.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Vec<VanishedResource>> {
    let body = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = body.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*sum) != xxh3_64(body) {
        return None;
    }
    let mut body = MetaReader(body);
    let id = |body: &mut MetaReader<'_>| Id::parse(body.text()?.as_bytes());
    let list = body.list(|body| {
        let resource_type = ResourceType::parse(&body.text()?)?;
        let id_of_row = id(body)?;
        let cause = *VanishCause::ALL.get(usize::try_from(body.number()?).ok()?)?;
        let (first_missed, updated, returned) = (body.optional()?, body.number()? as i64, body.flag()?);
        let owners = body.list(|body| Some((body.text()?, id(body)?)))?;
        Some(VanishedResource { resource_type, id: id_of_row, cause, first_missed, updated, owners, returned })
    })?;
    body.0.is_empty().then_some(list)
}

/// The vanished resources of an opened index: both copies of their file are mapped when the index is opened, and read on
/// first use.
#[derive(Default)]
pub(crate) struct VanishedFile {
    /// The copies that could be mapped; `None` when the index meta names no file.
    copies: Option<Vec<IndexBytes>>,
    /// T of the first snapshot of the index meta, in ticks, which missed what no earlier one has; `None` before it.
    first: Option<i64>,
    /// What it holds, once it was read; `None` in it when the file is lost or damaged.
    list: OnceLock<Option<Vec<VanishedResource>>>,
}

impl VanishedFile {
    /// The file that an index meta names, mapped.
    pub(crate) fn open(dir: &IndexDir, meta: &IndexMeta) -> VanishedFile {
        if meta.vanished.is_empty() {
            return VanishedFile::default();
        }
        let names = [meta.vanished.clone(), twin_name(&meta.vanished)];
        let copies = names.iter().filter_map(|name| dir.open(name).ok()).collect();
        VanishedFile { copies: Some(copies), first: meta.first, list: OnceLock::new() }
    }

    /// The resources. Those that no snapshot before the index meta has missed were first missed by its first one.
    ///
    /// # Errors
    /// [`CorruptIndex`] if the file is lost or damaged.
    pub(crate) fn list(&self) -> Result<&[VanishedResource], CorruptIndex> {
        let read = || {
            let mut list = match &self.copies {
                Some(copies) => copies.iter().find_map(|bytes| from_bytes(bytes))?,
                None => Vec::new(),
            };
            list.iter_mut().for_each(|gone| gone.first_missed = gone.first_missed.or(self.first));
            Some(list)
        };
        let list = self.list.get_or_init(read).as_deref();
        list.ok_or(CorruptIndex("the list of vanished resources is lost or damaged"))
    }
}

/// The vanished resources of an index meta; `None` when both copies of their file are lost or damaged.
///
/// # Errors
/// [`IndexError::ReadIndex`] when a copy is there and cannot be read.
pub(crate) fn read_vanished(dir: &IndexDir, meta: &IndexMeta) -> Result<Option<Vec<VanishedResource>>, IndexError> {
    if meta.vanished.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let failed = |source| IndexError::ReadIndex { name: meta.vanished.clone(), source };
    match dir.read_either(&meta.vanished, from_bytes).map_err(failed)? {
        TwinFile::Intact { contents, .. } => Ok(Some(contents)),
        TwinFile::Absent | TwinFile::Damaged => Ok(None),
    }
}

/// Writes the vanished resources and names their file in the index meta.
pub(crate) fn write_vanished(
    dir: &IndexDir,
    meta: &mut IndexMeta,
    list: &[VanishedResource],
) -> Result<(), IndexError> {
    meta.vanished = String::new();
    if !list.is_empty() {
        meta.vanished = format!("{}{:012}", meta::VANISHED, meta.sequence);
        dir.write_twice(&meta.vanished, &to_bytes(list), true)
            .map_err(|source| IndexError::Write { name: meta.vanished.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::instant::NO_INSTANT;

    /// What is written is read back; what is cut short or changed anywhere is refused.
    #[test]
    fn vanished_resources_read_back_or_not_at_all() {
        let id = |text: &str| Id::parse(text.as_bytes()).unwrap();
        let gone = |name: &str, cause, first_missed| VanishedResource {
            resource_type: ResourceType::parse("Observation").unwrap(),
            id: id(name),
            cause,
            first_missed,
            updated: NO_INSTANT,
            owners: vec![(String::new(), id("p")), ("https://a.example/fhir".to_string(), id("q"))],
            returned: false,
        };
        let list = vec![
            gone("a", VanishCause::ReplacedFile, None),
            gone("b", VanishCause::OlderVersion, Some(-4)),
            VanishedResource { owners: Vec::new(), updated: 9, ..gone("c", VanishCause::MissingFile, Some(5)) },
            VanishedResource { returned: true, ..gone("d", VanishCause::MissingFile, Some(6)) },
        ];
        let bytes = to_bytes(&list);
        assert_eq!(from_bytes(&bytes), Some(list.clone()));
        for i in 0..bytes.len() {
            assert_eq!(from_bytes(&bytes[..i]), None);
            let mut damaged = bytes.clone();
            damaged[i] ^= 2;
            assert_eq!(from_bytes(&damaged), None, "byte {i}");
        }
        // An opened file fills in what its index meta knows; a damaged or lost one is an error.
        let (dir, mut meta) = (IndexDir::memory(), IndexMeta::empty(crate::extract::Validate::Full));
        assert_eq!(VanishedFile::open(&dir, &meta).list(), Ok(&[][..]));
        (meta.vanished, meta.first) = ("vanished-1".to_string(), Some(7));
        assert!(VanishedFile::open(&dir, &meta).list().is_err());
        dir.write_twice(&meta.vanished, &bytes, false).unwrap();
        let opened = VanishedFile::open(&dir, &meta);
        let times: Vec<Option<i64>> = opened.list().unwrap().iter().map(|gone| gone.first_missed).collect();
        assert_eq!(times, [Some(7), Some(-4), Some(5), Some(6)]);
        dir.write_twice(&meta.vanished, &bytes[1..], false).unwrap();
        assert!(VanishedFile::open(&dir, &meta).list().is_err());
    }
}
