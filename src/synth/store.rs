//! Writes the synthesised store: chunks of lines are made in parallel and written in order.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

use crate::fhir::resource_type::ResourceType;
use crate::limits::SYNTH_EVENTS_MAX;
use crate::progress::{Phase, Progress};
use crate::synth::event::{Event, EventKind, EventModel};
use crate::synth::rename::{self, renamed};
use crate::synth::seed::{Seed, SeedCut, SeedPatient, SeedRow};
use crate::synth::{Layout, SynthError, SynthOptions, SynthOrder, SynthReport, time};
use crate::sys::atomic_dir::{AtomicDir, AtomicDirError};
use crate::sys::durability::FileSync;
use crate::sys::private_files::create_private;

/// Patients whose rows make one chunk of about 1 MB.
const PATIENTS_PER_CHUNK: u64 = 2;
/// Events whose rows make one chunk of about 1 MB.
const EVENTS_PER_CHUNK: usize = 96;
/// Name of the one file of [`Layout::Mixed`].
const MIXED: &str = "store.ndjson";
/// Id of each Group, and the share of the patients that are its members (at least one patient).
const GROUPS: [(&str, f64); 5] =
    [("one", 0.0), ("percent-1", 0.01), ("percent-10", 0.1), ("percent-50", 0.5), ("all", 1.0)];

/// Writes the files of a synthetic store and publishes its directory. Runs on the current rayon pool.
///
/// # Errors
/// [`SynthError`] if the target is not empty, cannot be written, or the work is cancelled; no store appears.
pub(crate) fn synth(options: &SynthOptions, progress: &Progress) -> Result<SynthReport, SynthError> {
    let directory = AtomicDir::begin(&options.out, options.sync)?;
    let seed = Seed::load();
    let mut maker = StoreMaker {
        model: EventModel { options },
        options,
        progress,
        files: StoreWriter::new(&directory, options),
        report: SynthReport { patients: options.patients, ..SynthReport::default() },
        seed,
    };
    let mean = maker.seed.patients.iter().map(|patient| patient.rows.len() as u64).sum::<u64>() / 100;
    // An estimate for the progress display: rows of the seed have 1,370 bytes on average.
    progress.begin(Phase::Writing);
    progress.write_total.store(options.patients * mean * 1370, Relaxed);
    maker.shared()?;
    maker.groups()?;
    match options.order {
        SynthOrder::Clustered => maker.clustered()?,
        SynthOrder::Arrival => maker.arrival()?,
    }
    let StoreMaker { files, report, .. } = maker;
    files.finish()?;
    directory.publish()?;
    Ok(report)
}

/// A store under construction.
struct StoreMaker<'a> {
    options: &'a SynthOptions,
    model: EventModel<'a>,
    progress: &'a Progress,
    seed: Seed,
    files: StoreWriter,
    report: SynthReport,
}

/// Lines made by one task, by file.
#[derive(Default)]
struct Chunk {
    /// Bytes for each file that has any; the type [`ResourceType::BUNDLE`] stands for the one file of
    /// [`Layout::Mixed`].
    files: Vec<(ResourceType, Vec<u8>)>,
    rows: u64,
    updates: u64,
    deletions: u64,
}

impl Chunk {
    /// Bytes of the chunk for rows of a type.
    fn file(&mut self, resource_type: ResourceType, layout: Layout) -> &mut Vec<u8> {
        let key = if layout == Layout::Mixed { ResourceType::BUNDLE } else { resource_type };
        let index = match self.files.iter().position(|(known, _)| *known == key) {
            Some(i) => i,
            None => {
                self.files.push((key, Vec::new()));
                self.files.len() - 1
            }
        };
        &mut self.files[index].1
    }
}

impl StoreMaker<'_> {
    /// Seed patient that a patient is a copy of.
    fn seed_of(&self, patient: u64) -> &SeedPatient {
        &self.seed.patients[(patient % self.seed.patients.len() as u64) as usize]
    }

    /// Writes the organizations and practitioners, once.
    fn shared(&mut self) -> Result<(), SynthError> {
        let mut chunk = Chunk::default();
        for (number, row) in self.seed.shared.iter().enumerate() {
            let out = chunk.file(row.resource_type, self.options.layout);
            self.put_row(out, u64::MAX, number, row, 1, time::BEGIN);
            chunk.rows += 1;
        }
        self.write(chunk)
    }

    /// Writes the Groups; their members are spread evenly over the patients.
    fn groups(&mut self) -> Result<(), SynthError> {
        for (id, share) in GROUPS {
            let patients = self.options.patients;
            let members = ((patients as f64 * share).round() as u64).clamp(patients.min(1), patients);
            let mut chunk = Chunk { rows: 1, ..Chunk::default() };
            let out = chunk.file(ResourceType::GROUP, self.options.layout);
            out.extend_from_slice(
                format!(
                    r#"{{"resourceType":"Group","id":"{id}","meta":{{"versionId":"1","lastUpdated":"2012-01-01T00:00:00.000Z"}},"type":"person","actual":true,"quantity":{members},"member":["#
                )
                .as_bytes(),
            );
            self.write(chunk)?;
            for from in (0..members).step_by(1 << 16) {
                let mut chunk = Chunk::default();
                let out = chunk.file(ResourceType::GROUP, self.options.layout);
                for member in from..members.min(from + (1 << 16)) {
                    // Patients are divided into as many equal parts as there are members; the middle of each is one.
                    let offset =
                        (u128::from(patients) * (2 * u128::from(member) + 1) / (2 * u128::from(members))) as u64;
                    out.extend_from_slice(if member == 0 { b"" } else { b"," });
                    out.extend_from_slice(br#"{"entity":{"reference":"Patient/"#);
                    rename::put(out, renamed(self.options.seed, offset, self.seed_of(offset).id));
                    out.extend_from_slice(br#""}}"#);
                }
                self.write(chunk)?;
            }
            let mut chunk = Chunk::default();
            chunk.file(ResourceType::GROUP, self.options.layout).extend_from_slice(b"]}\n");
            self.write(chunk)?;
            self.report.groups.push((id.to_string(), members));
        }
        Ok(())
    }

    /// Writes all rows, patient by patient.
    fn clustered(&mut self) -> Result<(), SynthError> {
        let chunks = self.options.patients.div_ceil(PATIENTS_PER_CHUNK);
        self.in_order(chunks as usize, |maker, number| {
            let first = number as u64 * PATIENTS_PER_CHUNK;
            let mut chunk = Chunk::default();
            for patient in first..maker.options.patients.min(first + PATIENTS_PER_CHUNK) {
                let of = maker.seed_of(patient);
                for (number, row) in of.rows.iter().enumerate() {
                    let times = maker.model.row_times(patient, number, row);
                    maker.put_version(&mut chunk, patient, number, 1, times.first);
                    if let Some(ticks) = times.second {
                        maker.put_version(&mut chunk, patient, number, 2, ticks);
                    }
                    if let Some(ticks) = times.deleted {
                        maker.put_deletion(&mut chunk, patient, number, ticks);
                    }
                }
            }
            chunk
        })
    }

    /// Writes all rows in order of arrival. The events of a window of time are held, sorted and written, window by
    /// window.
    fn arrival(&mut self) -> Result<(), SynthError> {
        let visits: u64 = self.seed.patients.iter().map(|patient| patient.visits.len() as u64).sum();
        let rows: u64 = self.seed.patients.iter().map(|patient| patient.rows.len() as u64).sum();
        let later = (rows as f64 * (self.options.updates + self.options.deletions)) as u64;
        let expected = self.options.patients * (visits + later) / self.seed.patients.len() as u64;
        let windows = expected.div_ceil(SYNTH_EVENTS_MAX).max(1) as i64;
        let span = time::END - time::BEGIN;
        for window in 0..windows {
            let border = |n: i64| if n == windows { i64::MAX } else { time::BEGIN + span / windows * n };
            let (from, to) = (border(window), border(window + 1));
            let mut events: Vec<Event> = (0..self.options.patients as u32)
                .into_par_iter()
                .with_min_len(64)
                .fold(Vec::new, |mut all, patient| {
                    let patient = u64::from(patient);
                    self.model.events(patient, self.seed_of(patient), from, to, &mut all);
                    all
                })
                .flatten_iter()
                .collect();
            events.par_sort_unstable();
            let chunks = events.len().div_ceil(EVENTS_PER_CHUNK);
            self.in_order(chunks, |maker, number| {
                let first = number * EVENTS_PER_CHUNK;
                let mut chunk = Chunk::default();
                for event in &events[first..events.len().min(first + EVENTS_PER_CHUNK)] {
                    maker.put_event(&mut chunk, event);
                }
                chunk
            })?;
        }
        Ok(())
    }

    /// Appends the lines of an event to a chunk.
    fn put_event(&self, chunk: &mut Chunk, event: &Event) {
        let patient = u64::from(event.patient);
        match event.kind {
            EventKind::Visit(visit) => {
                let of = self.seed_of(patient);
                for number in &of.visits[visit as usize] {
                    let times = self.model.row_times(patient, *number as usize, &of.rows[*number as usize]);
                    self.put_version(chunk, patient, *number as usize, 1, times.first);
                }
            }
            EventKind::Update(number) => self.put_version(chunk, patient, number as usize, 2, event.ticks),
            EventKind::Deletion(number) => self.put_deletion(chunk, patient, number as usize, event.ticks),
        }
    }

    /// Makes chunks in parallel, a batch at a time, while the batch before is written in order.
    fn in_order(
        &mut self,
        chunks: usize,
        make: impl Fn(&StoreMaker<'_>, usize) -> Chunk + std::marker::Sync,
    ) -> Result<(), SynthError> {
        let at_once = 2 * rayon::current_num_threads();
        let mut ready: Vec<Chunk> = Vec::new();
        for first in (0..chunks).step_by(at_once) {
            // The files leave `self`, which the tasks that make chunks borrow.
            let mut files = std::mem::take(&mut self.files);
            let maker = &*self;
            let (written, next) = rayon::join(
                || ready.iter().try_for_each(|chunk| files.write(chunk, maker.progress)),
                || (first..chunks.min(first + at_once)).into_par_iter().map(|n| make(maker, n)).collect::<Vec<_>>(),
            );
            self.files = files;
            written?;
            ready.iter().for_each(|chunk| self.report.add(chunk));
            ready = next;
        }
        ready.into_iter().try_for_each(|chunk| self.write(chunk))
    }

    /// Writes and counts a chunk.
    fn write(&mut self, chunk: Chunk) -> Result<(), SynthError> {
        self.files.write(&chunk, self.progress)?;
        self.report.add(&chunk);
        Ok(())
    }

    /// Appends version 1 or 2 of a row to a chunk and counts it.
    fn put_version(&self, chunk: &mut Chunk, patient: u64, number: usize, version: u8, ticks: i64) {
        let row = &self.seed_of(patient).rows[number];
        let out = chunk.file(row.resource_type, self.options.layout);
        self.put_row(out, patient, number, row, version, ticks);
        chunk.rows += 1;
        chunk.updates += u64::from(version > 1);
    }

    /// Appends a copy of a seed row with this version and lastUpdated.
    fn put_row(&self, out: &mut Vec<u8>, patient: u64, number: usize, row: &SeedRow, version: u8, ticks: i64) {
        self.seed.put(row, out, |out, cut| match cut {
            SeedCut::Uuid(old) => rename::put(out, renamed(self.options.seed, patient, old)),
            SeedCut::Version => out.push(b'0' + version),
            SeedCut::Updated => self.model.put(out, patient, number, ticks),
        });
    }

    /// Appends a Bundle line that deletes a row to a chunk and counts it.
    fn put_deletion(&self, chunk: &mut Chunk, patient: u64, number: usize, ticks: i64) {
        let row = &self.seed_of(patient).rows[number];
        let out = chunk.file(ResourceType::BUNDLE, self.options.layout);
        out.extend_from_slice(br#"{"resourceType":"Bundle","meta":{"lastUpdated":""#);
        self.model.put(out, patient, number, ticks);
        out.extend_from_slice(br#""},"type":"transaction","entry":[{"request":{"method":"DELETE","url":""#);
        out.extend_from_slice(row.resource_type.name().as_bytes());
        out.push(b'/');
        rename::put(out, renamed(self.options.seed, patient, row.id));
        out.extend_from_slice(b"\"}}]}\n");
        chunk.deletions += 1;
    }
}

impl SynthReport {
    /// Counts the rows and bytes of a chunk that goes into the files of the store.
    fn add(&mut self, chunk: &Chunk) {
        self.rows += chunk.rows;
        self.updates += chunk.updates;
        self.deletions += chunk.deletions;
        self.bytes += chunk.files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    }
}

/// The open files of the new store, by resource type.
#[derive(Default)]
struct StoreWriter {
    directory: PathBuf,
    mixed: bool,
    sync: FileSync,
    open: Vec<(ResourceType, PathBuf, BufWriter<File>)>,
}

impl StoreWriter {
    /// A writer without open files.
    fn new(directory: &AtomicDir, options: &SynthOptions) -> StoreWriter {
        let mixed = options.layout == Layout::Mixed;
        StoreWriter { directory: directory.path().to_path_buf(), mixed, sync: options.sync, open: Vec::new() }
    }

    /// Appends the lines of a chunk to their files, which are created when they are first needed.
    fn write(&mut self, chunk: &Chunk, progress: &Progress) -> Result<(), SynthError> {
        if progress.cancel.load(Relaxed) {
            return Err(SynthError::Cancelled);
        }
        for (resource_type, bytes) in &chunk.files {
            let index = match self.open.iter().position(|(known, ..)| known == resource_type) {
                Some(i) => i,
                None => {
                    let name = if self.mixed { MIXED.to_string() } else { format!("{resource_type}.ndjson") };
                    let path = self.directory.join(name);
                    let file = create_private(&path).map_err(|source| write_error(&path, source))?;
                    self.open.push((*resource_type, path, BufWriter::with_capacity(256 << 10, file)));
                    self.open.len() - 1
                }
            };
            let (_, path, file) = &mut self.open[index];
            file.write_all(bytes).map_err(|source| write_error(path, source))?;
            progress.write_done.fetch_add(bytes.len() as u64, Relaxed);
        }
        Ok(())
    }

    /// Flushes all files and syncs them if the options say so.
    fn finish(self) -> Result<(), SynthError> {
        for (_, path, mut file) in self.open {
            file.flush().map_err(|source| write_error(&path, source))?;
            if self.sync == FileSync::Yes {
                file.get_ref().sync_data().map_err(|source| write_error(&path, source))?;
            }
        }
        Ok(())
    }
}

/// [`SynthError`] for a file that cannot be written.
fn write_error(path: &std::path::Path, source: std::io::Error) -> SynthError {
    AtomicDirError::Write { path: path.to_path_buf(), source }.into()
}
