//! Imports sources into a store, one after another, each exactly once.
//!
//! The name of a source's directory begins with the time of the import, so that what is imported later is later in the
//! order of the store, and holds a hash of all its bytes, by which a source that comes again is known: nothing of that
//! depends on an index. One import of a store runs at a time.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::hash::{Hasher128, xxh3_128};
use crate::import::documents::{TextLayout, take_text};
use crate::import::output::{ImportDir, ImportRecord, RECORD};
use crate::import::problem::{ImportError, ImportProblem, ProblemLog};
use crate::import::source_run::SourceRun;
use crate::import::sources::{ImportSource, is_named_lines};
use crate::import::stamp::RowStamp;
use crate::import::stored::StoredResources;
use crate::import::text::SourceText;
use crate::index::snapshot_time::next_ticks;
use crate::progress::Progress;
use crate::store::Store;
use crate::sys::atomic_dir::{AtomicDir, PARTIAL_SUFFIX};
use crate::sys::durability::FileSync;
use crate::sys::private_files::{create_private, private_directory};
use crate::sys::regular_file::read_regular;

/// Start of the names of the directories of imported sources.
const PREFIX: &str = "import-";
/// Name of the file that is locked while sources are imported.
const LOCK: &str = ".outpour-import.lock";
/// Version of the record in each directory, and of what a hash covers.
const FORMAT: u32 = 1;
/// Most bytes of the name of a source in that of its directory.
const NAME_BYTES_MAX: usize = 80;
/// Most bytes of a record that is read.
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Time between two looks at a lock that another process holds.
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// How sources are imported.
pub(crate) struct ImportOptions<'a> {
    /// Whether good rows of a source are taken beside bad ones.
    pub partial: bool,
    /// Bases under which URLs are the store's.
    pub bases: &'a [String],
    /// Whether rows that differ from the current version get a new date, and others are left out.
    pub stamps: bool,
    /// Whether what is written is synced to the disk before it appears.
    pub sync: FileSync,
    /// The clock.
    pub now: &'a dyn Fn() -> Instant,
}

/// Makes the directory of a store that is not there yet, if the one above it is.
///
/// # Errors
/// If it is not, or the directory cannot be made.
pub(crate) fn prepare_store(path: &Path) -> Result<(), ImportError> {
    if path.exists() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !above.is_dir() {
        let reason = "is not there, nor is the directory that would hold it; make that, or correct the path";
        return Err(ImportError::Store { path: path.to_path_buf(), reason });
    }
    private_directory(path).map_err(ImportError::write(path))
}

/// What became of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceState {
    /// Its rows are in the store.
    Imported,
    /// They were there already.
    Known,
    /// It has no rows.
    Empty,
    /// It has problems, and was left.
    Refused,
}

impl SourceState {
    /// Name of the state in documents.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            SourceState::Imported => "imported",
            SourceState::Known => "already imported",
            SourceState::Empty => "empty",
            SourceState::Refused => "refused",
        }
    }
}

/// The import of one source.
#[derive(Debug)]
pub(crate) struct SourceReport {
    /// Its path.
    pub source: PathBuf,
    /// What became of it.
    pub state: SourceState,
    /// Name of its directory in the store.
    pub directory: Option<String>,
    /// Rows by type, of one that was imported now.
    pub rows: Vec<(ResourceType, u64)>,
    /// Deletions, of one that was imported now.
    pub deletions: u64,
    /// Entries that are no rows: messages of a search, resources that were there by their condition.
    pub passed_over: u64,
    /// Rows and deletions that were left out because the store is as they say.
    pub unchanged: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What could not be taken.
    pub problems: ProblemLog,
}

impl SourceReport {
    /// The report of a source of which nothing was taken.
    fn of(source: &ImportSource) -> SourceReport {
        SourceReport {
            source: source.path.clone(),
            state: SourceState::Refused,
            directory: None,
            rows: Vec::new(),
            deletions: 0,
            passed_over: 0,
            unchanged: 0,
            bytes: 0,
            problems: ProblemLog::default(),
        }
    }

    /// Adds a problem of a file as a whole.
    fn refuse(&mut self, path: &Path, reason: String) {
        let source = path.display().to_string();
        self.problems.push(ImportProblem { source, document: None, entry: None, offset: 0, reason });
    }
}

/// The imports of a store, which nobody else adds to meanwhile.
pub(crate) struct ImportWriter<'a> {
    store: &'a Store,
    options: ImportOptions<'a>,
    /// Directories by the hash of what they were made of.
    known: HashMap<String, String>,
    /// The time in the name of the last directory.
    last: String,
    _lock: File,
}

impl<'a> ImportWriter<'a> {
    /// Waits for other imports of the store to end, and removes what a killed one left.
    ///
    /// # Errors
    /// If the store cannot be read or written, or the work is cancelled.
    pub(crate) fn open(
        store: &'a Store,
        options: ImportOptions<'a>,
        progress: &Progress,
    ) -> Result<ImportWriter<'a>, ImportError> {
        let path = store.root().join(LOCK);
        let lock = create_private(&path).map_err(ImportError::write(&path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if !progress.is_cancelled() => {
                    progress.waiting.store(true, Relaxed);
                    std::thread::sleep(LOCK_WAIT);
                }
                Err(std::fs::TryLockError::WouldBlock) => return Err(ImportError::Cancelled),
                Err(std::fs::TryLockError::Error(error)) => return Err(ImportError::write(&path)(error)),
            }
        }
        progress.waiting.store(false, Relaxed);
        let mut writer = ImportWriter { store, options, known: HashMap::new(), last: String::new(), _lock: lock };
        let root = store.root();
        for entry in std::fs::read_dir(root).map_err(ImportError::read(root))? {
            let entry = entry.map_err(ImportError::read(root))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(hidden) = name.strip_prefix('.').and_then(|name| name.strip_suffix(PARTIAL_SUFFIX))
                && hidden.starts_with(PREFIX)
            {
                // Begun and not published, it is removed.
                drop(AtomicDir::begin(&root.join(hidden), FileSync::No)?);
            }
            if let Some((time, hash)) = parts_of(&name) {
                writer.last = writer.last.max(time.to_string());
                writer.known.insert(hash.to_string(), name.clone());
            }
        }
        Ok(writer)
    }

    /// Imports one source.
    ///
    /// # Errors
    /// If it cannot be read, the store cannot be read or written, or the work is cancelled. What is wrong with its content is
    /// no error, but in the report.
    pub(crate) fn import(&mut self, source: &ImportSource, progress: &Progress) -> Result<SourceReport, ImportError> {
        let mut report = SourceReport::of(source);
        match self.import_into(&mut report, source, progress) {
            Err(error @ (ImportError::Source(_) | ImportError::Decode(_) | ImportError::Read { .. })) => {
                let mut text = error.to_string();
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                text +=
                    &cause.filter(|cause| !text.contains(cause)).map(|cause| format!(" ({cause})")).unwrap_or_default();
                report.refuse(&source.path, text);
                Ok(report)
            }
            done => done.map(|()| report),
        }
    }

    /// As [`ImportWriter::import`]; fills the report.
    fn import_into(
        &mut self,
        report: &mut SourceReport,
        source: &ImportSource,
        progress: &Progress,
    ) -> Result<(), ImportError> {
        if let Some(fault) = &source.fault {
            report.refuse(&source.path, fault.clone());
            return Ok(());
        }
        // 1. All bytes, and what they hash to.
        let access = self.store.options().access;
        let mut texts = Vec::new();
        let mut hash = self.hasher(source);
        for file in &source.files {
            let text = SourceText::open(file, access, self.store.root(), progress)?;
            hash.update(&(text.bytes().0.len() as u64).to_le_bytes());
            text.add_to(&mut hash, progress)?;
            texts.push((file, text));
        }
        // A source without problems has the same rows with and without `partial`.
        let whole = format!("{:032x}", hash.digest());
        let in_part = format!("{:032x}", xxh3_128(format!("{whole} in part").as_bytes()));
        let (hash, other) = if self.options.partial { (in_part, whole) } else { (whole, in_part) };
        let known = self.known.get(&hash).or_else(|| self.known.get(&other).filter(|name| self.is_whole(name)));
        // With a new date, what changed is told by the rows: an old version may come back.
        if let Some(known) = known.filter(|_| !self.options.stamps) {
            report.state = SourceState::Known;
            report.directory = Some(known.clone());
            return Ok(());
        }
        // 2. Its rows.
        let total: u64 = texts.iter().map(|(_, text)| text.bytes().0.len() as u64).sum();
        progress.begin_writing_again();
        progress.expect_writes(total, 1);
        let name = self.next_name(&hash, &source.path);
        let now = (self.options.now)();
        let latest = self.store.latest_snapshot().map(|latest| latest.ticks);
        let current = Instant { ticks: next_ticks(&now, latest), rest: Box::default() };
        let mut stored = StoredResources::new(self.store, current, self.options.bases);
        let stamp = match self.options.stamps {
            true => {
                let snapshot = stored.snapshot(progress)?;
                Some(RowStamp::choose(self.store, snapshot, self.options.bases, &now, progress)?)
            }
            false => None,
        };
        let kernel = self.store.options().kernel;
        let mut run = SourceRun {
            source: String::new(),
            kernel,
            bases: BaseUrls::new(self.options.bases),
            partial: self.options.partial,
            deleted_at: source.deleted_at.clone(),
            dir: ImportDir::begin(&self.store.root().join(&name), self.options.sync)?,
            problems: ProblemLog::default(),
            passed_over: 0,
            unchanged: 0,
            stamp,
            stored: &mut stored,
            spool: self.store.root(),
            progress,
        };
        for (file, text) in &texts {
            run.source = file.display().to_string();
            let (bytes, base) = text.bytes();
            take_text(&mut run, bytes, base, TextLayout::of(kernel, bytes, is_named_lines(file)))?;
            if !text.is_unchanged()? {
                // Half of one version and half of another are neither: not even its good rows are taken.
                run.refuse(None, None, 0, "the file was changed while it was imported; import it again");
                report.problems = run.problems;
                return Ok(());
            }
        }
        // 3. All of them, or none.
        report.passed_over = run.passed_over;
        let takes_rows = run.takes_rows();
        // Snapshots wait until the rows are in the store.
        let (dir, problems, _stamp) = (run.dir, run.problems, run.stamp);
        report.problems = problems;
        report.unchanged = run.unchanged;
        if dir.is_empty() || !takes_rows {
            report.state = match (report.problems.count, report.unchanged) {
                (0, 0) => SourceState::Empty,
                (0, _) => SourceState::Known,
                _ => SourceState::Refused,
            };
            return Ok(());
        }
        report.rows = dir.rows().collect();
        (report.deletions, report.bytes) = (dir.deletion_count, dir.bytes);
        let rows = report.rows.iter().map(|(resource_type, rows)| (resource_type.name().to_string(), *rows));
        dir.publish(&ImportRecord {
            format: FORMAT,
            source: source.path.display().to_string(),
            hash: hash.clone(),
            rows: rows.collect(),
            deletions: report.deletions,
            problems: report.problems.count,
        })?;
        report.state = SourceState::Imported;
        self.known.insert(hash, name.clone());
        report.directory = Some(name);
        Ok(())
    }

    /// Whether everything in the source of a directory was taken, by its record.
    fn is_whole(&self, name: &str) -> bool {
        let record = read_regular(&self.store.root().join(name).join(RECORD), RECORD_BYTES_MAX);
        let record = record.ok().and_then(|text| serde_json::from_slice::<ImportRecord>(&text).ok());
        record.is_some_and(|record| record.problems == 0)
    }

    /// A hash of what decides the rows of a source beside its bytes.
    fn hasher(&self, source: &ImportSource) -> Hasher128 {
        let mut hash = Hasher128::new();
        let deleted_at = source.deleted_at.as_ref().map(Instant::to_string).unwrap_or_default();
        let options = (FORMAT, self.options.stamps, self.options.bases, deleted_at, source.files.len());
        hash.update(format!("{options:?}").as_bytes());
        hash
    }

    /// The name of the next directory: later than every one before, whatever the clock shows.
    fn next_name(&mut self, hash: &str, source: &Path) -> String {
        let now = (self.options.now)();
        let stamp = |instant: &Instant| instant.to_string().replace(['-', ':'], "");
        let mut time = stamp(&now);
        if time <= self.last {
            time = match instant_of_stamp(&self.last) {
                Some(last) => stamp(&Instant { ticks: last.ticks + TICKS_PER_MILLISECOND, rest: Box::default() }),
                None => time,
            };
        }
        self.last.clone_from(&time);
        let own = source.file_name().unwrap_or_default().to_string_lossy();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let own: String = own.chars().map(|c| if is_plain(c) { c } else { '_' }).take(NAME_BYTES_MAX).collect();
        format!("{PREFIX}{time}-{hash}-{own}")
    }
}

/// Imports one file into a store, unsynced, for benches and fuzz targets. The number of rows; `None` if nothing was taken.
pub fn import_file(store: &Store, path: &Path, now: &Instant) -> Option<u64> {
    let clock = || now.clone();
    let options = ImportOptions { partial: false, stamps: false, bases: &[], sync: FileSync::No, now: &clock };
    let progress = Progress::default();
    let source = crate::import::sources::file_source(path);
    let report = ImportWriter::open(store, options, &progress).ok()?.import(&source, &progress).ok()?;
    (report.state == SourceState::Imported).then(|| report.rows.iter().map(|(_, rows)| rows).sum())
}

/// 100 ns ticks of a millisecond.
const TICKS_PER_MILLISECOND: i64 = 10_000;

/// The time and the hash in the name of a directory of an imported source; `None` of any other name.
fn parts_of(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let (time, hash) = (parts.next()?, parts.next()?);
    parts.next()?;
    let is_hash = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && instant_of_stamp(time).is_some()).then_some((time, hash))
}

/// The instant that stands in a name without hyphens and colons.
fn instant_of_stamp(stamp: &str) -> Option<Instant> {
    if !stamp.is_ascii() || stamp.len() < "20240101T000000Z".len() {
        return None;
    }
    let (day, time) = stamp.split_once('T')?;
    let (year, month, day) = (day.get(..4)?, day.get(4..6)?, day.get(6..8)?);
    let (hour, minute, rest) = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    Instant::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{rest}"))
}
