//! The snapshot log (file `generation.note`): the times of the snapshots taken since an index meta was published, in
//! two slots, each with a counter and a checksum.
//!
//! A new log is written over the slot that does not hold the newest one, synced, and then over the other. So a write
//! that is cut off leaves the log before it, and one slot that is damaged later leaves the same log in the other. The
//! slots lie in blocks of their own, since a disk may spoil the block that it writes when its power fails.

use crate::hash::xxh3_64;

/// First eight bytes of a slot.
const MAGIC: [u8; 8] = *b"OUTNOTE\x02";
/// Bytes of a slot: magic, counter, sequence, the two times with a flag each, checksum.
const SLOT_BYTES: usize = 64;
/// Bytes from the start of one slot to that of the next.
const SLOT_STEP: usize = 4096;
/// Bytes of a log as earlier versions wrote it, once, at the start of the file.
const SINGLE_BYTES: usize = 48;
/// Most bytes of the file; an earlier writer's or a damaged one may have more, and is cut.
pub(crate) const NOTE_BYTES_MAX: u64 = (SLOT_STEP + SLOT_BYTES) as u64;

/// The snapshot log: times of the snapshots taken since an index meta was published.
///
/// A lost log costs no row: segments are then first seen by a later snapshot, so that an export since an earlier one
/// takes their rows again. The first snapshot of all is not recorded here: it goes into the index meta and to the disk,
/// because without it late rows could not be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLog {
    /// Sequence of the index meta that it belongs to.
    pub sequence: u64,
    /// T of the first snapshot that held the new segments of the index meta, in ticks; `None` before the first.
    pub first: Option<i64>,
    /// The last T given out, in ticks; `None` before the first.
    pub latest: Option<i64>,
}

/// One of the two places of a log in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoteSlot {
    /// Nothing was ever written.
    Empty,
    /// A log, and its number among all that were written.
    Intact(u64, SnapshotLog),
    /// Bytes that are no log.
    Damaged,
}

/// What the file of the snapshot log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotSlots([NoteSlot; 2]);

/// Reads eight bytes of a slot as a number.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at * 8..)?.first_chunk::<8>()?))
}

/// Reads a flag and a time in ticks.
fn time(bytes: &[u8], at: usize) -> Option<Option<i64>> {
    match (number(bytes, at)?, number(bytes, at + 1)?) {
        (0, _) => Some(None),
        (1, ticks) => Some(Some(ticks.cast_signed())),
        _ => None,
    }
}

/// Reads sequence and times from the number `at` on, which a checksum over all bytes before it follows.
fn log(bytes: &[u8], at: usize) -> Option<SnapshotLog> {
    let log = SnapshotLog { sequence: number(bytes, at)?, first: time(bytes, at + 1)?, latest: time(bytes, at + 3)? };
    (number(bytes, at + 5)? == xxh3_64(&bytes[..(at + 5) * 8])).then_some(log)
}

impl NoteSlot {
    /// Reads the bytes from the start of a slot on, up to the next slot.
    fn from_bytes(bytes: &[u8]) -> NoteSlot {
        if bytes.iter().take(SLOT_BYTES).all(|byte| *byte == 0) {
            return NoteSlot::Empty;
        }
        if bytes.starts_with(&MAGIC) {
            let read = number(bytes, 1).zip(log(bytes, 2));
            return read.map_or(NoteSlot::Damaged, |(counter, log)| NoteSlot::Intact(counter, log));
        }
        // As earlier versions wrote it: older than any log with a counter.
        let single = bytes.get(..SINGLE_BYTES).and_then(|single| log(single, 0));
        single.map_or(NoteSlot::Damaged, |log| NoteSlot::Intact(0, log))
    }

    /// The number of its log; `None` if it has none.
    fn counter(&self) -> Option<u64> {
        match self {
            NoteSlot::Intact(counter, _) => Some(*counter),
            NoteSlot::Empty | NoteSlot::Damaged => None,
        }
    }
}

impl SnapshotSlots {
    /// Reads the bytes of the file `generation.note`, whatever they are; none for a file that is not there.
    pub(crate) fn from_bytes(bytes: &[u8]) -> SnapshotSlots {
        let (first, second) = bytes.split_at(bytes.len().min(SLOT_STEP));
        SnapshotSlots([NoteSlot::from_bytes(first), NoteSlot::from_bytes(second)])
    }

    /// The place of the newest log among the two.
    fn newest_at(&self) -> usize {
        usize::from(self.0[1].counter() > self.0[0].counter())
    }

    /// The newest log that is intact; `None` if none is.
    pub(crate) fn newest(&self) -> Option<SnapshotLog> {
        match self.0[self.newest_at()] {
            NoteSlot::Intact(_, log) => Some(log),
            NoteSlot::Empty | NoteSlot::Damaged => None,
        }
    }

    /// How many of the two slots hold bytes that are no log.
    pub(crate) fn damaged(&self) -> usize {
        self.0.iter().filter(|slot| **slot == NoteSlot::Damaged).count()
    }

    /// The two writes that record a log, in their order: the offset in the file and the bytes of each. The first is to
    /// be synced before the second begins.
    pub(crate) fn writes(&self, log: &SnapshotLog) -> [(u64, Vec<u8>); 2] {
        let newest = self.newest_at();
        let counter = self.0[newest].counter().unwrap_or(0).saturating_add(1);
        let flagged = |time: Option<i64>| [u64::from(time.is_some()), time.unwrap_or_default().cast_unsigned()];
        let mut bytes = MAGIC.to_vec();
        let numbers = [[counter, log.sequence], flagged(log.first), flagged(log.latest)];
        numbers.into_iter().flatten().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        let offset = |slot: usize| (slot * SLOT_STEP) as u64;
        [(offset(1 - newest), bytes.clone()), (offset(newest), bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: i64) -> SnapshotLog {
        SnapshotLog { sequence: 4, first: (n % 2 == 0).then_some(n), latest: Some(n * 10) }
    }

    /// Applies a write to the bytes of a file.
    fn apply(file: &mut Vec<u8>, (offset, bytes): &(u64, Vec<u8>)) {
        let at = usize::try_from(*offset).unwrap();
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The file after so many logs, each written whole.
    fn written(count: i64) -> Vec<u8> {
        let mut file = Vec::new();
        for n in 1..=count {
            let writes = SnapshotSlots::from_bytes(&file).writes(&numbered(n));
            writes.iter().for_each(|write| apply(&mut file, write));
        }
        file
    }

    /// The bytes of a log as earlier versions wrote it.
    fn single(log: &SnapshotLog) -> Vec<u8> {
        let flagged = |time: Option<i64>| [u64::from(time.is_some()), time.unwrap_or_default().cast_unsigned()];
        let numbers = [&[log.sequence][..], &flagged(log.first), &flagged(log.latest)].concat();
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// A byte that flips, anywhere, loses no log: both slots hold the newest one.
    #[test]
    fn a_flipped_byte_loses_nothing() {
        for count in 1..4 {
            let whole = written(count);
            assert_eq!(whole.len() as u64, NOTE_BYTES_MAX);
            for at in 0..whole.len() {
                let mut file = whole.clone();
                file[at] ^= 0x41;
                let slots = SnapshotSlots::from_bytes(&file);
                assert_eq!(slots.newest(), Some(numbered(count)), "byte {at}");
                // And the next log lies in both slots again.
                for write in slots.writes(&numbered(count + 1)) {
                    apply(&mut file, &write);
                }
                let slots = SnapshotSlots::from_bytes(&file);
                assert_eq!((slots.newest(), slots.damaged()), (Some(numbered(count + 1)), 0), "byte {at}");
            }
        }
    }

    /// A write that is cut off, or spoils its slot, leaves the log before it, whichever of the two it is and whatever
    /// happened to the write before.
    #[test]
    fn a_torn_write_leaves_the_log_before() {
        for count in 0..4 {
            let before = written(count);
            let new = numbered(count + 1);
            let [first, second] = SnapshotSlots::from_bytes(&before).writes(&new);
            let old = (count > 0).then(|| numbered(count));
            for torn in 0..first.1.len() {
                for rest in [None, Some(0xff)] {
                    // 1. The first write is torn.
                    let mut file = before.clone();
                    let half = [&first.1[..torn], &vec![rest.unwrap_or(0); first.1.len() - torn]].concat();
                    apply(&mut file, &(first.0, half));
                    let slots = SnapshotSlots::from_bytes(&file);
                    assert_eq!(slots.newest(), old, "{torn}");
                    // 2. The next log is not written over the only one that is left.
                    if old.is_some() {
                        assert_eq!(slots.writes(&new)[0].0, first.0, "{torn}");
                    }
                    // 3. The second write is torn.
                    let mut file = before.clone();
                    apply(&mut file, &first);
                    let half = [&second.1[..torn], &vec![rest.unwrap_or(0); second.1.len() - torn]].concat();
                    apply(&mut file, &(second.0, half));
                    assert_eq!(SnapshotSlots::from_bytes(&file).newest(), Some(new), "{torn}");
                }
            }
        }
    }

    /// A log of an earlier version is read, is older than any of this one, and stays until a new one stands.
    #[test]
    fn a_log_of_an_earlier_version_is_read() {
        let (old, new) = (numbered(2), numbered(3));
        let mut file = single(&old);
        let slots = SnapshotSlots::from_bytes(&file);
        assert_eq!((slots.newest(), slots.damaged()), (Some(old), 0));
        let [first, second] = slots.writes(&new);
        assert_eq!((first.0, second.0), (SLOT_STEP as u64, 0));
        apply(&mut file, &first);
        assert_eq!(SnapshotSlots::from_bytes(&file).newest(), Some(new));
        apply(&mut file, &second);
        assert_eq!(SnapshotSlots::from_bytes(&file), SnapshotSlots([NoteSlot::Intact(1, new); 2]));
        for at in 0..SINGLE_BYTES {
            let mut torn = single(&old);
            torn[at] ^= 1;
            assert_eq!(SnapshotSlots::from_bytes(&torn).newest(), None, "byte {at}");
        }
    }

    /// Any bytes of any length are read without a panic; none at all are no damage.
    #[test]
    fn any_bytes_are_read() {
        assert_eq!(SnapshotSlots::from_bytes(&[]).damaged(), 0);
        for len in (0..200).chain(SLOT_STEP - 2..SLOT_STEP + 80) {
            for fill in [0, 1, 0xff, MAGIC[0]] {
                let slots = SnapshotSlots::from_bytes(&vec![fill; len]);
                assert_eq!(slots.newest(), None, "{len} of {fill}");
            }
            let cut = &written(2)[..len.min(SLOT_STEP + SLOT_BYTES)];
            let kept = (len >= SLOT_BYTES).then(|| numbered(2));
            assert_eq!(SnapshotSlots::from_bytes(cut).newest(), kept, "{len}");
        }
    }
}
