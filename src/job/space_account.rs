//! What jobs have reserved on the disk for their files, and how small files get by compression, as measured. In memory
//! alone: after a restart every unfinished job is planned, and reserves, anew.

use crate::codec::compression::Compression;
use crate::job::registry::{Job, RunPhase};
use crate::write::journal::Receipt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A compressed file is taken to be one of so many parts of its lines as long as none has been written.
const COMPRESSED_PARTS: u64 = 2;
/// An estimate from measured files is increased by one of so many parts, because files differ.
const ESTIMATE_MARGIN_PARTS: u64 = 10;

/// How small files get by each compression, as measured over files that were written.
#[derive(Default)]
pub(crate) struct MeasuredCompression {
    /// For each of [`Compression::ALL`], bytes before and after compression.
    totals: [(u128, u128); Compression::ALL.len()],
}

impl MeasuredCompression {
    /// Takes in a file.
    pub(crate) fn add(&mut self, compression: Compression, bytes: u64, file_bytes: u64) {
        let total = &mut self.totals[compression as usize];
        *total = (total.0 + u128::from(bytes), total.1 + u128::from(file_bytes));
    }

    /// Whether nothing is known yet of how small files get.
    pub(crate) fn is_guess(&self, compression: Compression) -> bool {
        compression != Compression::None && self.totals[compression as usize].0 == 0
    }

    /// About how long files of so many bytes of lines become, rather too long than too short.
    pub(crate) fn estimate(&self, compression: Compression, bytes: u64) -> u64 {
        match self.totals[compression as usize] {
            _ if compression == Compression::None => bytes,
            (0, _) => bytes / COMPRESSED_PARTS,
            (before, after) => {
                let exact = u128::from(bytes).saturating_mul(after) / before;
                u64::try_from(exact + exact / u128::from(ESTIMATE_MARGIN_PARTS)).unwrap_or(u64::MAX)
            }
        }
    }
}

/// What jobs of all engines of a process have reserved. Engines whose files lie on one disk share one account.
#[derive(Default)]
pub(crate) struct SpaceAccount {
    /// Held while a job is admitted, so that two jobs never reserve the same room.
    reservations: Mutex<SpaceReservations>,
}

/// The part of an account that changes.
#[derive(Default)]
pub(crate) struct SpaceReservations {
    /// Jobs that were admitted and may still be written, each with the device of its files.
    pub(crate) admitted: Vec<(u64, Weak<Job>)>,
    /// How small files get.
    pub(crate) measured: MeasuredCompression,
}

impl SpaceAccount {
    /// Takes in what finished files show about compression.
    pub(crate) fn measure<'a>(&self, compression: Compression, receipts: impl IntoIterator<Item = &'a Receipt>) {
        let mut reservations = self.reservations();
        for receipt in receipts {
            reservations.measured.add(compression, receipt.bytes, receipt.file_bytes);
        }
    }

    /// The lock is taken all the same if a thread panicked under it: every value in it stands by itself.
    pub(crate) fn reservations(&self) -> MutexGuard<'_, SpaceReservations> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpaceReservations {
    /// Bytes that the files of other jobs on a device will still take.
    pub(crate) fn reserved(&self, device: u64, but: &Arc<Job>) -> u64 {
        let others = self.admitted.iter().filter(|(other, _)| *other == device);
        let others = others.filter_map(|(_, job)| job.upgrade()).filter(|job| !Arc::ptr_eq(job, but));
        let written =
            others.filter(|job| matches!(&*job.phase.lock().expect("no panic under it"), RunPhase::Writing { .. }));
        written
            .filter_map(|job| bytes_left(&job))
            .map(|(compression, left)| self.measured.estimate(compression, left))
            .sum()
    }
}

/// Bytes of lines that a job in memory has still to write, and their compression; `None` unless it is planned.
pub(crate) fn bytes_left(job: &Job) -> Option<(Compression, u64)> {
    let phase = job.phase.lock().expect("no panic under it");
    let (RunPhase::Writing { run, .. } | RunPhase::AwaitingSpace { run, .. }) = &*phase else { return None };
    let done = job.progress.write_done.load(Relaxed);
    Some((run.plan().request.compression, run.bytes_to_write().min(run.plan().bytes().saturating_sub(done))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain files are as long as their lines; compressed ones half as long until one has been measured, then a tenth more
    /// than measured.
    #[test]
    fn compressed_files_are_estimated_by_measured_ones() {
        let mut measured = MeasuredCompression::default();
        assert_eq!(measured.estimate(Compression::None, 1000), 1000);
        assert_eq!(measured.estimate(Compression::Zstd, 1000), 500);
        measured.add(Compression::Zstd, 10_000, 1000);
        measured.add(Compression::Zstd, 30_000, 3000);
        assert_eq!(measured.estimate(Compression::Zstd, 1000), 110);
        assert_eq!(measured.estimate(Compression::Gzip, 1000), 500);
        assert_eq!(measured.estimate(Compression::None, 1000), 1000);
        measured.add(Compression::Zstd, u64::MAX, u64::MAX);
        assert_eq!(measured.estimate(Compression::Zstd, u64::MAX), u64::MAX);
    }
}
