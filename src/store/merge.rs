//! What only the whole store can tell, merged over all extents: the patient dictionary, the succession of versions,
//! and where Provenance targets lead.
//!
//! Every extent keeps its keys sorted by hash, and hashes spread evenly, so the merge goes through the hash space in
//! partitions: a slice of each extent, sorted together, in parallel, in memory bounded by the partition and not by the
//! store. Results go to their places in one mapped file. Ids are compared, never only their hashes.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::extent::{Columns, Extent};
use super::index_file::{Home, IndexBytes};
use super::key::Version;
use super::layout::{BASE_BITS, kind};
use crate::bytes::columns::{atomics_u32, u32s, u64s};
use crate::fhir::instant::InstantRef;
use crate::fhir::{Id, ResourceType};

/// First word of a merged file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"OUTMERG\x01");
/// Records that one partition aims at.
const PARTITION_RECORDS: usize = 1 << 17;
/// Words of its header: magic, checksum of what follows, then patients, owners, records, tombstones and targets.
pub const WORDS: usize = 8;

/// Sizes that place every section of a merged file; all follow from the extents but the number of patients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    patients: usize,
    owners: usize,
    records: usize,
    tombstones: usize,
    targets: usize,
}

impl Sizes {
    fn of(extents: &[Extent], patients: usize) -> Sizes {
        let sum = |count: &dyn Fn(&Columns<'_>) -> usize| extents.iter().map(|e| count(&e.columns())).sum::<usize>();
        let tombstones = sum(&|c| c.tomb_type.len());
        Sizes {
            patients,
            owners: sum(&|c| c.owner_hash.len()),
            records: sum(&|c| c.offset.len()) + tombstones,
            tombstones,
            targets: sum(&|c| c.target_row.len()),
        }
    }

    /// Lengths of the `u32` sections in their order, behind the `u64` hashes of the patients.
    fn words(&self) -> [usize; 7] {
        [self.patients, self.patients, self.patients, self.owners, self.records, self.tombstones, self.targets]
    }

    fn bytes(&self) -> u64 {
        (WORDS * 8 + self.patients * 8 + self.words().iter().sum::<usize>() * 4) as u64
    }

    /// The `u32` sections: extent, place in the extent and base of each patient; global number of each extent's
    /// owners; successor of each record; version before each tombstone; first record of each target.
    fn split<'a, T>(&self, mut all: &'a [T]) -> [&'a [T]; 7] {
        self.words().map(|len| {
            let (section, rest) = all.split_at(len);
            all = rest;
            section
        })
    }
}

/// The merged facts of a generation, mapped.
///
/// Records are numbered over the store: rows first, in store order, then DELETE entries in store order.
pub struct Merged {
    bytes: IndexBytes,
    sizes: Sizes,
}

/// The sections of a merged file.
#[derive(Clone, Copy)]
pub struct Sections<'a> {
    /// Hash of each patient, ascending.
    pub patient_hash: &'a [u64],
    /// The extent that names the patient.
    pub patient_extent: &'a [u32],
    /// Its place in that extent's owner dictionary.
    pub patient_owner: &'a [u32],
    /// Its reference base, as a number among [`global_bases`].
    pub patient_base: &'a [u32],
    /// Number of the patient for each owner of each extent, extents one after another.
    pub owner_patient: &'a [u32],
    /// For each record the next one of the same resource, plus one; 0 for none.
    pub next: &'a [u32],
    /// For each DELETE entry the last version before it, plus one; 0 for none.
    pub ends: &'a [u32],
    /// For each Provenance target the oldest record of that resource, plus one; 0 for none.
    pub target_head: &'a [u32],
}

/// The reference bases of all extents in order, the empty one first, and for each extent the numbers of its own.
pub fn global_bases(extents: &[Extent]) -> (Vec<String>, Vec<Vec<u32>>) {
    let mut all: Vec<String> = vec![String::new()];
    for extent in extents {
        let columns = extent.columns();
        all.extend((0..columns.bases()).map(|base| columns.base_text(base).to_string()));
        all.sort_unstable();
        all.dedup();
    }
    let of = |extent: &Extent| {
        let columns = extent.columns();
        let number = |base| all.binary_search_by(|known| known.as_str().cmp(columns.base_text(base)));
        (0..columns.bases()).map(|base| number(base).expect("collected above") as u32).collect()
    };
    let own = extents.iter().map(of).collect();
    (all, own)
}

/// Numbers of the first row, DELETE entry, target and owner of each extent.
pub struct Bases {
    /// First row.
    pub row: Vec<usize>,
    /// First DELETE entry, counted from the first of the store.
    pub tombstone: Vec<usize>,
    /// First target.
    pub target: Vec<usize>,
    /// First owner.
    pub owner: Vec<usize>,
    /// Rows of the store.
    pub rows: usize,
}

impl Bases {
    /// Counts through the extents.
    pub fn of(extents: &[Extent]) -> Bases {
        let starts = |count: &dyn Fn(&Columns<'_>) -> usize| {
            let mut sum = 0;
            let starts: Vec<usize> = extents
                .iter()
                .map(|e| {
                    let start = sum;
                    sum += count(&e.columns());
                    start
                })
                .collect();
            (starts, sum)
        };
        let (row, rows) = starts(&|c| c.offset.len());
        Bases {
            row,
            rows,
            tombstone: starts(&|c| c.tomb_type.len()).0,
            target: starts(&|c| c.target_row.len()).0,
            owner: starts(&|c| c.owner_hash.len()).0,
        }
    }
}

impl Merged {
    /// Merges the extents (in store order) into the file `name`.
    ///
    /// # Errors
    /// When the file cannot be made or filled.
    pub fn build(extents: &[Extent], home: &Home, name: &str) -> std::io::Result<()> {
        let columns: Vec<Columns<'_>> = extents.iter().map(Extent::columns).collect();
        let (_, base_numbers) = global_bases(extents);
        let bases = Bases::of(extents);
        let partitions = |total: usize| total.div_ceil(PARTITION_RECORDS).next_power_of_two().trailing_zeros();

        // Patients are counted first, so that the file has its size before anything is put into it.
        let bits = partitions(columns.iter().map(|c| c.owner_hash.len()).sum());
        let counts: Vec<usize> = (0..1u64 << bits)
            .into_par_iter()
            .map(|part| {
                let mut patients = 0;
                each_patient(&columns, &base_numbers, part, bits, |_, first| patients += usize::from(first));
                patients
            })
            .collect();
        let sizes = Sizes::of(extents, counts.iter().sum());
        let mut file = home.create_sized(name, sizes.bytes())?;
        {
            let words = file.u64s_mut();
            let head = [sizes.patients, sizes.owners, sizes.records, sizes.tombstones, sizes.targets];
            words[0] = MAGIC;
            for (slot, value) in words[2..].iter_mut().zip(head) {
                *slot = value as u64;
            }
        }
        {
            let all = atomics_u32(file.u32s_mut());
            let hashes = &all[WORDS * 2..][..sizes.patients * 2];
            let sections = sizes.split(&all[WORDS * 2 + sizes.patients * 2..]);
            let [patient_extent, patient_owner, patient_base, owner_patient, next, ends, target_head] = sections;
            let put = |section: &[AtomicU32], at: usize, value: u32| section[at].store(value, Relaxed);
            counts.par_iter().enumerate().for_each(|(part, _)| {
                let mut patient = counts[..part].iter().sum::<usize>();
                each_patient(&columns, &base_numbers, part as u64, bits, |owner, first| {
                    if first {
                        put(hashes, patient * 2, owner.hash as u32);
                        put(hashes, patient * 2 + 1, (owner.hash >> 32) as u32);
                        put(patient_extent, patient, owner.extent);
                        put(patient_owner, patient, owner.owner);
                        put(patient_base, patient, owner.base);
                        patient += 1;
                    }
                    put(owner_patient, bases.owner[owner.extent as usize] + owner.owner as usize, patient as u32 - 1);
                });
            });
            let bits = partitions(columns.iter().map(|c| c.sorted_hash.len()).sum());
            (0..1u64 << bits).into_par_iter().for_each(|part| {
                each_entity(&columns, &bases, part, bits, |records, targets| {
                    for pair in records.windows(2) {
                        put(next, pair[0].number as usize, pair[1].number + 1);
                    }
                    let mut version = 0;
                    for record in records {
                        match record.is_version {
                            true => version = record.number + 1,
                            false => put(ends, record.number as usize - bases.rows, version),
                        }
                    }
                    let head = records.first().map_or(0, |record| record.number + 1);
                    targets.iter().for_each(|target| put(target_head, *target as usize, head));
                });
            });
        }
        let checksum = xxh3_64(&file.bytes_mut()[16..]);
        file.u64s_mut()[1] = checksum;
        Ok(file.finish(false)?)
    }

    /// Opens a merged file and checks it against the extents it was made from.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the caller merges again.
    pub fn open(extents: &[Extent], home: &Home, name: &str) -> Result<Merged, &'static str> {
        let bytes = home.open(name).map_err(|_| "it cannot be opened")?;
        let words = bytes.get(..WORDS * 8).and_then(u64s).ok_or("it is shorter than its header")?;
        let sizes = Sizes::of(extents, usize::try_from(words[2]).map_err(|_| "its sizes do not fit")?);
        let head = [sizes.patients, sizes.owners, sizes.records, sizes.tombstones, sizes.targets];
        if words[0] != MAGIC || head.iter().zip(&words[2..]).any(|(size, word)| *size as u64 != *word) {
            return Err("it belongs to other extents");
        }
        if sizes.patients > bytes.len() || sizes.bytes() != bytes.len() as u64 {
            return Err("it is not as long as it says");
        }
        if xxh3_64(&bytes[16..]) != words[1] {
            return Err("its checksum does not hold");
        }
        let merged = Merged { bytes, sizes };
        merged.check(extents)?;
        Ok(merged)
    }

    /// The relations that later indexing relies on.
    fn check(&self, extents: &[Extent]) -> Result<(), &'static str> {
        let sections = self.sections();
        let below = |section: &[u32], bound: usize| section.iter().all(|at| (*at as usize) < bound);
        let named = sections.patient_extent.iter().zip(sections.patient_owner).all(|(extent, owner)| {
            extents.get(*extent as usize).is_some_and(|extent| (*owner as usize) < extent.columns().owner_hash.len())
        });
        let sound = named
            && sections.patient_hash.is_sorted()
            && below(sections.owner_patient, self.sizes.patients)
            && below(sections.next, self.sizes.records + 1)
            && below(sections.ends, self.sizes.records - self.sizes.tombstones + 1)
            && below(sections.target_head, self.sizes.records + 1);
        if sound { Ok(()) } else { Err("a number points nowhere") }
    }

    /// The sections.
    pub fn sections(&self) -> Sections<'_> {
        let hash = u64s(&self.bytes[WORDS * 8..][..self.sizes.patients * 8]).expect("aligned");
        let rest = u32s(&self.bytes[WORDS * 8 + self.sizes.patients * 8..]).expect("aligned");
        let [patient_extent, patient_owner, patient_base, owner_patient, next, ends, target_head] =
            self.sizes.split(rest);
        Sections {
            patient_hash: hash,
            patient_extent,
            patient_owner,
            patient_base,
            owner_patient,
            next,
            ends,
            target_head,
        }
    }
}

/// An owner as the merge sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OwnerRef {
    hash: u64,
    extent: u32,
    owner: u32,
    base: u32,
}

/// The hashes of partition `part` out of `1 << bits`, as an inclusive range.
fn hash_range(part: u64, bits: u32) -> (u64, u64) {
    if bits == 0 {
        return (0, u64::MAX);
    }
    let low = part << (64 - bits);
    (low, low | (u64::MAX >> bits))
}

fn slice_of(hashes: &[u64], (low, high): (u64, u64)) -> std::ops::Range<usize> {
    hashes.partition_point(|hash| *hash < low)..hashes.partition_point(|hash| *hash <= high)
}

/// Calls `visit` for every owner of every extent in a partition, those of one patient together; the flag is set for
/// the first of a patient.
fn each_patient(
    columns: &[Columns<'_>],
    base_numbers: &[Vec<u32>],
    part: u64,
    bits: u32,
    mut visit: impl FnMut(OwnerRef, bool),
) {
    let range = hash_range(part, bits);
    let mut owners: Vec<OwnerRef> = Vec::new();
    for (extent, c) in columns.iter().enumerate() {
        for owner in slice_of(c.owner_hash, range) {
            let base = base_numbers[extent][(c.owner_base[owner] & BASE_BITS) as usize];
            owners.push(OwnerRef { hash: c.owner_hash[owner], extent: extent as u32, owner: owner as u32, base });
        }
    }
    owners.sort_unstable();
    let id = |owner: &OwnerRef| columns[owner.extent as usize].owner_id_of(owner.owner as usize);
    for group in owners.chunk_by_mut(|a, b| a.hash == b.hash) {
        // Equal hashes are nearly always equal patients; then nothing moves.
        group.sort_by_key(|owner| (owner.base, id(owner)));
        let mut last: Option<(u32, Id)> = None;
        for owner in group.iter() {
            let key = (owner.base, id(owner));
            visit(*owner, last != Some(key));
            last = Some(key);
        }
    }
}

/// Hash of (type, id), extent, and what it is there.
type Entry = (u64, u32, u32);

/// A version or a DELETE entry of one resource, as its succession orders it.
struct Record<'a> {
    /// `None` sorts first: a version without lastUpdated is older than any with one (reading 3).
    at: Option<InstantRef<'a>>,
    /// At one instant a DELETE entry is older than a version: what was written last is kept.
    is_version: bool,
    version: Version<'a>,
    number: u32,
}

/// Calls `visit` for every resource of a partition that has a succession or is a target, with its records in order
/// and the numbers of the targets that lead to it. DELETE entries without an instant end nothing and are left out.
fn each_entity(
    columns: &[Columns<'_>],
    bases: &Bases,
    part: u64,
    bits: u32,
    mut visit: impl FnMut(&[Record<'_>], &[u32]),
) {
    let range = hash_range(part, bits);
    let mut entries: Vec<Entry> = Vec::new();
    for (extent, c) in columns.iter().enumerate() {
        for at in slice_of(c.sorted_hash, range) {
            entries.push((c.sorted_hash[at], extent as u32, c.sorted_ref[at]));
        }
    }
    entries.sort_unstable();
    for group in entries.chunk_by(|a, b| a.0 == b.0) {
        if group.len() == 1 {
            continue;
        }
        let entity = |(_, extent, reference): &Entry| -> (ResourceType, Id) {
            let c = &columns[*extent as usize];
            let number = (reference & !kind::MASK) as usize;
            match reference & kind::MASK {
                kind::TOMBSTONE => c.tombstone_of(number),
                kind::TARGET => c.target_of(number),
                _ => (c.type_of(number), c.id_of(number)),
            }
        };
        let mut keyed: Vec<((ResourceType, Id), Entry)> = group.iter().map(|e| (entity(e), *e)).collect();
        keyed.sort_unstable();
        for same in keyed.chunk_by(|a, b| a.0 == b.0) {
            let mut records = Vec::new();
            let mut targets = Vec::new();
            for (_, (_, extent, reference)) in same {
                let (extent, number) = (*extent as usize, (reference & !kind::MASK) as usize);
                let c = &columns[extent];
                match reference & kind::MASK {
                    kind::TARGET => targets.push((bases.target[extent] + number) as u32),
                    kind::TOMBSTONE => records.extend(c.tombstone_updated(number).map(|at| Record {
                        at: Some(at),
                        is_version: false,
                        version: Version::None,
                        number: (bases.rows + bases.tombstone[extent] + number) as u32,
                    })),
                    _ => records.push(Record {
                        at: c.updated_of(number),
                        is_version: true,
                        version: c.version_of(number),
                        number: (bases.row[extent] + number) as u32,
                    }),
                }
            }
            records.sort_unstable_by(|a, b| {
                (a.at, a.is_version, a.version, a.number).cmp(&(b.at, b.is_version, b.version, b.number))
            });
            visit(&records, &targets);
        }
    }
}
