//! An output directory, locked for one run: what it holds before, how the run's files come into it, and in which order, so
//! that a run that is killed at any moment is finished from its record to the same bytes.
//!
//! A first run writes its plan to `.outpour-job/plan.json`, its files in place, the manifest last. A run that replaces
//! an export leaves that whole until it is sure of itself:
//!
//! 1. its plan stands, in `.outpour-job/next/plan.json`; until then nothing of the old export is touched;
//! 2. its files are written to `.outpour-job/next/`, their receipts to `next/done.ndjson`, its status to `next/status.json`;
//! 3. the old manifest is removed;
//! 4. the old status gives way to the new one, the old files are removed, the new ones are moved into place;
//! 5. `done.ndjson` is replaced by the new receipts, `plan.json` by the new plan: from here on it is a run like any other;
//! 6. what is left of `next/` is removed, and the new manifest appears.
//!
//! Without room for both exports step 3 comes before all files are written: those that are finished are moved, the others
//! are written in place. `next/plan.json` tells which step a killed run had come to. While it and a manifest stand, the old
//! export is whole, and described by `.outpour-job/plan.json`; while it stands without a manifest, steps 4 and 5 are done
//! again, each of which may be done twice. `next/replaced.json` keeps the names of the old files for that. Foreign files are
//! never touched: what is removed has the name of an output file and is named by a record or the manifest of an export here.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::error::{DirectoryContent, JournalError};
use crate::hash::digest::DigestAlgorithm;
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::{Directory, temporary_name};
use crate::sys::disk::disk_space;
use crate::sys::durability::FileSync;
use crate::sys::private_files::private_directory;
use crate::write::journal::{
    DONE, JOB, JournalFiles, MANIFEST, NEXT, PLAN, PlanFile, Receipt, STATUS, is_as_recorded, line_of,
    place_of_json_error,
};
use crate::write::manifest::{EXPORT_KEY, Manifest};
use crate::write::output_name::OutputName;

/// Names of the files of the export that is being replaced, in [`NEXT`].
const REPLACED: &str = "replaced.json";

/// `replaced.json`.
#[derive(Serialize, Deserialize)]
struct ReplacedFiles {
    /// Names of the files that earlier exports may have put in place.
    files: BTreeSet<String>,
    /// A hash of them: a file whose name is lost would stay beside those of another export.
    sum: String,
}

impl ReplacedFiles {
    fn new(files: BTreeSet<String>) -> ReplacedFiles {
        ReplacedFiles { sum: ReplacedFiles::sum_of(&files), files }
    }

    fn sum_of(files: &BTreeSet<String>) -> String {
        let names = serde_json::to_vec(files).expect("names are plain data");
        format!("{:032x}", crate::hash::xxh3_128(&names))
    }
}

/// How to begin in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeginMode {
    /// Only if it is empty.
    Fresh,
    /// Go on with the record, if there is one.
    Resume,
    /// Begin anew, and replace what the record lists.
    Force,
}

/// An output directory, locked for one run.
pub(crate) struct ExportJournal {
    root: Arc<Directory>,
    sync: FileSync,
    done: Mutex<Option<File>>,
    /// Whether the directory holds an export that this run is to replace.
    replaces: AtomicBool,
    /// Whether record and files of this run lie in [`NEXT`].
    staged: AtomicBool,
    /// Whether this run has left a plan; before that, a failure leaves nothing behind.
    planned: AtomicBool,
    made: bool,
    _lock: File,
}

impl ExportJournal {
    /// Locks an output directory, making it if it is not there.
    ///
    /// # Errors
    /// [`JournalError::Busy`] when another run has it, [`JournalError::Io`].
    pub(crate) fn open(path: &Path, sync: FileSync) -> Result<ExportJournal, JournalError> {
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let made = !path.exists();
        private_directory(path).map_err(io)?;
        let path = path.canonicalize().map_err(io)?;
        let failed = |source| JournalError::Io { path: path.join(JOB), source };
        let root = Arc::new(Directory::open(&path).map_err(io)?);
        let lock = root.make_directory(JOB).and_then(|job| job.create("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::Busy { path }),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let no = || AtomicBool::new(false);
        Ok(ExportJournal {
            root,
            sync,
            done: Mutex::default(),
            replaces: no(),
            staged: no(),
            planned: no(),
            made,
            _lock: lock,
        })
    }

    /// The directory, absolute.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Where files are written now: the directory itself, or [`NEXT`] in it while the old export stands.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn files(&self) -> io::Result<Arc<Directory>> {
        match self.is_staged() {
            true => self.root.directory(NEXT).map(Arc::new),
            false => Ok(self.root.clone()),
        }
    }

    /// Whether files are written to [`NEXT`].
    pub(crate) fn is_staged(&self) -> bool {
        self.staged.load(Relaxed)
    }

    /// The plan that is gone on with.
    pub(crate) fn plan_path(&self) -> PathBuf {
        self.record_of_run().path(PLAN)
    }

    fn own_record(&self) -> JournalFiles<'_> {
        JournalFiles::new(&self.root, JOB)
    }

    fn next_record(&self) -> JournalFiles<'_> {
        JournalFiles::new(&self.root, NEXT)
    }

    fn record_of_run(&self) -> JournalFiles<'_> {
        if self.is_staged() { self.next_record() } else { self.own_record() }
    }

    fn io(&self, name: &str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.root.path().join(name);
        |source| JournalError::Io { path, source }
    }

    fn exists(&self, name: &str) -> Result<bool, JournalError> {
        Ok(self.root.metadata(name).map_err(self.io(name))?.is_some())
    }

    /// Decides what to do with what the directory holds; the recorded plan if there is one to go on with. Changes nothing.
    ///
    /// # Errors
    /// When that is not what `begin` allows.
    pub(crate) fn begin<T: DeserializeOwned>(&self, begin: BeginMode) -> Result<Option<PlanFile<T>>, JournalError> {
        let (own, next) = (self.own_record().is_there()?, self.next_record().is_there()?);
        if own || next {
            // From here on the directory is ours to keep.
            self.planned.store(true, Relaxed);
        }
        let refuse = |holds| Err(JournalError::NotEmpty { path: self.path().into(), holds });
        match (begin, own || next) {
            (BeginMode::Fresh, true) if next => refuse(DirectoryContent::Replacement),
            (BeginMode::Fresh, true) if self.exists(MANIFEST)? => refuse(DirectoryContent::Finished),
            (BeginMode::Fresh, true) => refuse(DirectoryContent::Interrupted),
            (BeginMode::Fresh | BeginMode::Resume, false) => match self.foreign_entry()? {
                Some(name) => refuse(DirectoryContent::Foreign(name)),
                None => Ok(None),
            },
            (BeginMode::Resume, true) => {
                self.staged.store(next, Relaxed);
                self.record_of_run().plan().map(Some)
            }
            (BeginMode::Force, _) => {
                self.replaces.store(own || next, Relaxed);
                Ok(None)
            }
        }
    }

    /// The first name in the directory that is not the record's.
    fn foreign_entry(&self) -> Result<Option<String>, JournalError> {
        let names = self.root.names().map_err(self.io(""))?;
        let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
        Ok(names.filter(|name| name != JOB).min())
    }

    /// The files that the exports in the directory may have put in place. What a record that cannot be read would list
    /// is not known, and so not ours.
    fn listed_files(&self) -> Result<BTreeSet<String>, JournalError> {
        let mut names: Vec<String> = Vec::new();
        let mut add = |record: JournalFiles<'_>| -> Result<(), JournalError> {
            names.extend(record.plan::<IgnoredAny>().map_or(Vec::new(), |plan| plan.files));
            names.extend(record.receipts()?.into_iter().map(|receipt| receipt.file));
            Ok(())
        };
        add(self.own_record())?;
        let manifest = self.root.read(MANIFEST, RECORD_BYTES_MAX).ok();
        match manifest.map(|bytes| Manifest::from_bytes(&bytes)) {
            Some(Ok(manifest)) if manifest.extension.contains_key(EXPORT_KEY) => {
                let items = manifest.output.iter().chain(&manifest.deleted).chain(&manifest.error);
                names.extend(items.map(|item| item.file_name().to_string()));
            }
            // Without a manifest a run that was to replace an export may have begun to move its files.
            None => {
                add(self.next_record())?;
                names.extend(self.replaced().map_or(BTreeSet::new(), |replaced| replaced.files));
            }
            Some(_) => {}
        }
        names.retain(|name| OutputName::parse(name).is_some());
        Ok(names.into_iter().collect())
    }

    /// The names that `replaced.json` keeps.
    fn replaced(&self) -> Result<ReplacedFiles, JournalError> {
        let name = self.next_record().name(REPLACED);
        let damaged = |reason| JournalError::Damaged { path: self.root.path().join(&name), reason };
        let replaced: ReplacedFiles = match self.root.read(&name, RECORD_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(place_of_json_error(&error)))?,
            Err(error) => return Err(damaged(error.to_string())),
        };
        let is_sound = replaced.sum == ReplacedFiles::sum_of(&replaced.files)
            && replaced.files.iter().all(|name| OutputName::parse(name).is_some());
        if is_sound { Ok(replaced) } else { Err(damaged("it is not as it was written".to_string())) }
    }

    /// Writes the plan, after a look that no foreign file has the name of a file to come. `files` are their names.
    ///
    /// # Errors
    /// [`JournalError::Foreign`], [`JournalError::Io`]; until the plan stands an old export is whole, and its record is.
    pub(crate) fn write_plan<T: Serialize>(&self, job: &T, files: &[String]) -> Result<(), JournalError> {
        let replaces = self.replaces.load(Relaxed);
        let ours = if replaces { self.listed_files()? } else { BTreeSet::new() };
        self.refuse_foreign(files, &ours, replaces)?;
        let bytes = serde_json::to_vec(&PlanFile { files: files.to_vec(), job }).expect("a plan is plain data");
        self.planned.store(true, Relaxed);
        let sync = self.sync == FileSync::Yes;
        if !replaces {
            let plan = self.own_record().name(PLAN);
            return self.root.replace(&plan, &bytes, sync).map_err(self.io(&plan));
        }
        // Receipts of an earlier run are gone before this plan stands: its files would be taken for ours.
        let (done, replaced, plan) =
            (self.next_record().name(DONE), self.next_record().name(REPLACED), self.next_record().name(PLAN));
        let names = serde_json::to_vec(&ReplacedFiles::new(ours)).expect("names are plain data");
        self.root.make_directory(NEXT).map_err(self.io(NEXT))?;
        self.root.remove_file(&done).map_err(self.io(&done))?;
        self.root.replace(&replaced, &names, sync).map_err(self.io(&replaced))?;
        self.root.replace(&plan, &bytes, sync).map_err(self.io(&plan))?;
        self.staged.store(true, Relaxed);
        self.clear_next(&[PLAN, REPLACED]);
        self.sync(&[JOB])
    }

    fn refuse_foreign(&self, files: &[String], ours: &BTreeSet<String>, replaces: bool) -> Result<(), JournalError> {
        let foreign = |name: &str| JournalError::Foreign { path: self.root.path().join(name) };
        let own: &[&str] = if replaces { &[] } else { &[MANIFEST, STATUS] };
        for name in files.iter().map(String::as_str).filter(|name| !ours.contains(*name)).chain(own.iter().copied()) {
            match self.root.metadata(name) {
                Ok(None) => {}
                Ok(Some(_)) => return Err(foreign(name)),
                // A link or a file stands where its directory would.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(foreign(name)),
                Err(error) => return Err(self.io(name)(error)),
            }
        }
        for (folder, stem) in [("error", "OperationOutcome."), ("deleted", "Bundle.")] {
            let taken = match self.root.directory(folder) {
                Ok(directory) => directory.names().map_err(self.io(folder))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return Err(foreign(folder)),
            };
            let mut taken = taken.iter().map(|name| format!("{folder}/{}", name.to_string_lossy()));
            if let Some(name) = taken.find(|name| name[folder.len() + 1..].starts_with(stem) && !ours.contains(name)) {
                return Err(foreign(&name));
            }
        }
        Ok(())
    }

    /// Whether the old export stands, whole, and the disk has room for so many bytes beside it.
    ///
    /// # Errors
    /// When the directory or its disk cannot be asked.
    pub(crate) fn has_room_beside(&self, bytes: u64) -> Result<bool, JournalError> {
        let free = || Ok(disk_space(self.path()).map_err(self.io(""))?.free);
        Ok(self.exists(MANIFEST)? && free()? >= bytes)
    }

    /// Receipts of the files that are planned and really there as recorded: every one is hashed again.
    ///
    /// # Errors
    /// When the record or a file cannot be read.
    pub(crate) fn finished_files(
        &self,
        algorithm: DigestAlgorithm,
        is_planned: impl Fn(&Receipt) -> bool,
    ) -> Result<Vec<Receipt>, JournalError> {
        let mut finished = self.record_of_run().receipts()?;
        finished.retain(|receipt| is_planned(receipt));
        // What has been moved into place already is not in `next` any more.
        let (staged, moving) = (self.is_staged(), self.is_staged() && !self.exists(MANIFEST)?);
        let mut there = Vec::with_capacity(finished.len());
        for receipt in finished {
            let in_next = format!("{NEXT}/{}", receipt.file);
            let name = if !staged || moving && !self.exists(&in_next)? { &receipt.file } else { &in_next };
            if self.is_as_recorded_at(name, &receipt, algorithm)? {
                there.push(receipt);
            }
        }
        Ok(there)
    }

    fn is_as_recorded_at(
        &self,
        name: &str,
        receipt: &Receipt,
        algorithm: DigestAlgorithm,
    ) -> Result<bool, JournalError> {
        match self.root.open_file(name).and_then(|file| is_as_recorded(file, receipt, algorithm)) {
            Ok(as_recorded) => Ok(as_recorded),
            // Something else that stands there is none of the run's files.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(false),
            Err(error) => Err(self.io(name)(error)),
        }
    }

    /// Puts the run in the place of the old export: steps 3 to 5 and the clearing of step 6 above. `finished` are the
    /// receipts of all its files that are written; whoever calls it writes no file meanwhile. Does nothing for a run that is
    /// in its place.
    ///
    /// # Errors
    /// [`JournalError::Foreign`] when something of somebody else's has come where a file is to go, [`JournalError::Io`]; then
    /// calling it again goes on, by a later run, too.
    pub(crate) fn move_into_place(&self, finished: &[Receipt]) -> Result<(), JournalError> {
        if !self.is_staged() {
            return Ok(());
        }
        let root = &self.root;
        let in_next = |name: &str| format!("{NEXT}/{name}");
        let old = self.replaced()?.files;
        let (mut staged, mut moved) = (Vec::new(), BTreeSet::new());
        for name in finished.iter().map(|receipt| &receipt.file) {
            match self.exists(&in_next(name))? {
                true => staged.push(name),
                false => drop(moved.insert(name)),
            }
        }
        for name in staged.iter().filter(|name| !old.contains(**name)) {
            if self.exists(name)? {
                return Err(JournalError::Foreign { path: root.path().join(name) });
            }
        }
        // What is moved must be found again by its name, whatever happens.
        self.sync(&[&in_next("deleted"), &in_next("error"), NEXT, JOB])?;
        self.remove(MANIFEST)?;
        self.sync(&[""])?;
        match self.exists(&in_next(STATUS))? {
            true => root.rename(&in_next(STATUS), STATUS).map_err(self.io(STATUS))?,
            false => self.remove(STATUS)?,
        }
        for name in old.iter().filter(|name| !moved.contains(name)) {
            self.remove(&temporary_name(name))?;
            self.remove(name)?;
        }
        for name in staged {
            if let Some((folder, _)) = name.split_once('/') {
                root.make_directory(folder).map_err(self.io(folder))?;
            }
            match root.rename_new(&in_next(name), name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(JournalError::Foreign { path: root.path().join(name) });
                }
                renamed => renamed.map_err(self.io(name))?,
            }
        }
        for folder in ["error", "deleted"] {
            // Gone only if nothing is in it.
            root.remove_directory(folder).ok();
        }
        self.sync(&["deleted", "error", ""])?;
        let (done, plan) = (self.own_record().name(DONE), self.own_record().name(PLAN));
        let receipts: Vec<u8> = finished.iter().flat_map(line_of).collect();
        root.replace(&done, &receipts, self.sync == FileSync::Yes).map_err(self.io(&done))?;
        root.rename(&self.next_record().name(PLAN), &plan).map_err(self.io(&plan))?;
        self.sync(&[NEXT, JOB])?;
        *self.done.lock().expect("no panic under it") = None;
        self.staged.store(false, Relaxed);
        self.clear_next(&[]);
        Ok(())
    }

    /// Adds a receipt.
    ///
    /// # Errors
    /// When it cannot be written: the file then counts as unfinished.
    pub(crate) fn append_receipt(&self, receipt: &Receipt) -> io::Result<()> {
        let mut done = self.done.lock().expect("no panic under it");
        let file = match &mut *done {
            Some(file) => file,
            slot => slot.insert(self.record_of_run().open_done()?),
        };
        file.write_all(&line_of(receipt))?;
        if self.sync == FileSync::Yes { file.sync_data() } else { Ok(()) }
    }

    /// Publishes the manifest: the last thing a run does (MANIFEST-18). `finished` are the receipts of all its files.
    ///
    /// # Errors
    /// As [`ExportJournal::move_into_place`]; when the manifest cannot be written or made to last.
    pub(crate) fn publish(&self, manifest: &[u8], finished: &[Receipt]) -> Result<(), JournalError> {
        self.move_into_place(finished)?;
        // What a run that was killed right after it was moved has left.
        self.clear_next(&[]);
        self.sync(&["deleted", "error", ""])?;
        self.root.replace(MANIFEST, manifest, self.sync == FileSync::Yes).map_err(self.io(MANIFEST))
    }

    /// Removes a file; what cannot be one of ours (a directory, something behind a link) stays.
    fn remove(&self, name: &str) -> Result<(), JournalError> {
        match self.root.remove_file(name) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory) => {
                Err(self.io(name)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the entries of these directories last, those that are there; `""` is the output directory.
    fn sync(&self, folders: &[&str]) -> Result<(), JournalError> {
        if self.sync == FileSync::No {
            return Ok(());
        }
        for folder in folders {
            let synced = match *folder {
                "" => self.root.sync(),
                folder => self.root.directory(folder).and_then(|directory| directory.sync()),
            };
            match synced {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                    return Err(self.io(folder)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what a run has left in [`NEXT`], but for these files of its record; nothing that is not of a run. What cannot
    /// be removed costs space, nothing else.
    fn clear_next(&self, kept: &[&str]) {
        for folder in ["", "error", "deleted"] {
            let below = if folder.is_empty() { NEXT.to_string() } else { format!("{NEXT}/{folder}") };
            let Ok(directory) = self.root.directory(&below) else { continue };
            for name in directory.names().unwrap_or_default() {
                let Some(name) = name.to_str() else { continue };
                // A temporary file goes as its file does.
                let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")).unwrap_or(name);
                let is_record =
                    folder.is_empty() && [PLAN, DONE, REPLACED, STATUS].contains(&of) && !kept.contains(&name);
                let full = if folder.is_empty() { of.to_string() } else { format!("{folder}/{of}") };
                if is_record || OutputName::parse(&full).is_some() {
                    directory.remove_file(name).ok();
                }
            }
            if !folder.is_empty() {
                self.root.remove_directory(&below).ok();
            }
        }
        if kept.is_empty() {
            self.root.remove_directory(NEXT).ok();
        }
    }
}

impl Drop for ExportJournal {
    /// A run that failed before it had a plan leaves the directory as it found it.
    fn drop(&mut self) {
        if !self.planned.load(Relaxed) {
            self.root.remove_file(&format!("{JOB}/lock")).ok();
            self.root.remove_directory(JOB).ok();
            if self.made {
                std::fs::remove_dir(self.path()).ok();
            }
        }
    }
}
