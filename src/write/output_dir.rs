//! Output directory of one run: what it holds before, how the run's files appear in it, and in which order, so that a
//! run that is killed at any moment can be resumed from its journal and ends with the same bytes.
//!
//! Before its plan stands a run may tell its status: in `status.json` of a directory that holds no export, in
//! `.outpour-job/next/status.json` beside one that is to be replaced.
//!
//! A first run writes its plan to `.outpour-job/plan.json`, its files in place, the manifest last. A run that replaces
//! an export leaves that export intact until its own files are written:
//!
//! 1. its plan is written to `.outpour-job/next/plan.json`; until then nothing of the old export is touched;
//! 2. its files are written to `.outpour-job/next/`, their receipts to `next/receipts.jsonlog`, its status to
//!    `next/status.json`;
//! 3. the old manifest is removed;
//! 4. the new status replaces the old one, the old files are removed, the new ones are moved into place;
//! 5. `receipts.jsonlog` is replaced by the new receipts, `plan.json` by the new plan: from here on the run is like a first
//!    one;
//! 6. the rest of `next/` is removed, and the new manifest appears.
//!
//! Without disk space for both exports, step 3 comes before all files are written: the finished ones are moved, the
//! others are written in place. `next/plan.json` tells how far a killed run had come. While it and a manifest exist,
//! the old export is complete and described by `.outpour-job/plan.json`. While it exists without a manifest, steps 4
//! and 5 are repeated, which is safe at any point of them; `next/replaced.json` keeps the names of the old files for
//! that. Foreign files are never touched: a file is removed only if it has the name of an output file and a journal or
//! the manifest of an export in this directory lists it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::{DirectoryContent, JournalError};
use crate::hash::digest::DigestAlgorithm;
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::{Directory, temporary_name};
use crate::sys::disk::disk_space;
use crate::sys::durability::FileSync;
use crate::sys::private_files::private_directory;
use crate::sys::unsynced_entry::is_unsynced;
use crate::write::file_modes::FileModes;
use crate::write::journal::{
    DEPARTED, JOB, JournalFiles, LEGACY_RECEIPTS, MANIFEST, NEXT, PLAN, PlanFile, RECEIPTS, Receipt, STATUS,
    is_as_recorded, line_of, place_of_json_error,
};
use crate::write::manifest::{EXPORT_KEY, Manifest};
use crate::write::output_name::OutputName;
use crate::write::replaced_files::{REPLACED, ReplacedFiles};
use crate::write::status_file::is_unplanned;

/// Longest status document of a run without a plan, in bytes.
const UNPLANNED_STATUS_BYTES_MAX: u64 = 1 << 20;

/// What a run may do with the contents of its output directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeginMode {
    /// Begin only in an empty directory.
    Fresh,
    /// Resume the run of the journal, if there is one.
    Resume,
    /// Begin a new export and replace the one that the journal lists.
    Force,
}

/// An output directory, locked for one run until it is dropped.
pub(crate) struct OutputDirectory {
    root: Arc<Directory>,
    sync: FileSync,
    /// `receipts.jsonlog`, open for appending; `None` until the first receipt.
    receipts: Mutex<Option<File>>,
    /// Whether the directory holds an export that this run is to replace.
    replaces: AtomicBool,
    /// Whether journal and files of this run are in [`NEXT`].
    staged: AtomicBool,
    /// Whether this run has written a plan, or found one; without, a failed run removes its traces.
    planned: AtomicBool,
    /// Whether this run created the directory.
    created: bool,
    /// Lock on the file `lock` of the journal, released when it is closed.
    _lock: File,
}

impl OutputDirectory {
    /// Locks an output directory, creating it if it does not exist.
    ///
    /// # Errors
    /// [`JournalError::Busy`] if another run holds the lock; [`JournalError::Io`] if the directory cannot be created or
    /// opened.
    pub(crate) fn open(path: &Path, sync: FileSync) -> Result<OutputDirectory, JournalError> {
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let created = !path.exists();
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
        let unset = || AtomicBool::new(false);
        Ok(OutputDirectory {
            root,
            sync,
            receipts: Mutex::default(),
            replaces: unset(),
            staged: unset(),
            planned: unset(),
            created,
            _lock: lock,
        })
    }

    /// Absolute path of the output directory.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Directory that files are written to now: the output directory, or [`NEXT`] in it while the old export is kept.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub(crate) fn files(&self) -> io::Result<Arc<Directory>> {
        match self.is_staged() {
            true => self.root.directory(NEXT).map(Arc::new),
            false => Ok(self.root.clone()),
        }
    }

    /// Whether files are written to [`NEXT`] now.
    pub(crate) fn is_staged(&self) -> bool {
        self.staged.load(Relaxed)
    }

    /// The directory of the journal.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn record(&self) -> io::Result<Directory> {
        self.root.directory(JOB)
    }

    /// Path in the output directory of the plan of this run, beside the old export's while that is kept.
    pub(crate) fn plan_path(&self) -> PathBuf {
        self.record_of_run().path(PLAN)
    }

    /// Where in the output directory the journal of its own export lies.
    fn own_record(&self) -> JournalFiles<'_> {
        JournalFiles::new(&self.root, JOB)
    }

    /// Where in the output directory the journal of a run lies that is to replace its export.
    fn next_record(&self) -> JournalFiles<'_> {
        JournalFiles::new(&self.root, NEXT)
    }

    /// Where in the output directory the journal of this run lies: one of the two, by [`OutputDirectory::is_staged`].
    fn record_of_run(&self) -> JournalFiles<'_> {
        if self.is_staged() { self.next_record() } else { self.own_record() }
    }

    /// Wraps an I/O error with the path of an entry of the output directory.
    fn io(&self, name: &str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.root.path().join(name);
        |source| JournalError::Io { path, source }
    }

    /// Whether the output directory has an entry of this name.
    fn exists(&self, name: &str) -> Result<bool, JournalError> {
        Ok(self.root.metadata(name).map_err(self.io(name))?.is_some())
    }

    /// Decides whether a run may begin in the output directory, by what it holds and this mode. Returns the recorded
    /// plan if a run is resumed, else `None`. Writes nothing.
    ///
    /// # Errors
    /// [`JournalError::NotEmpty`] if the mode does not allow what the directory holds, with advice;
    /// [`JournalError::Damaged`] if the plan to resume cannot be read; [`JournalError::Io`].
    pub(crate) fn begin<T: DeserializeOwned>(&self, begin: BeginMode) -> Result<Option<PlanFile<T>>, JournalError> {
        let (own, next) = (self.own_record().is_there()?, self.next_record().is_there()?);
        if own || next {
            // There is a journal of an earlier run: this run must not remove the directory if it fails.
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
            // Its list of what no longer belongs describes the export that stands; another one is not put in its place.
            (BeginMode::Force, true) if self.exists(MANIFEST)? && self.exists(DEPARTED)? => {
                refuse(DirectoryContent::Increment)
            }
            (BeginMode::Force, _) => {
                self.replaces.store(own || next, Relaxed);
                Ok(None)
            }
        }
    }

    /// First name in the directory that is not the journal's, and no status of a run that never had a plan.
    fn foreign_entry(&self) -> Result<Option<String>, JournalError> {
        let names = self.root.names().map_err(self.io(""))?;
        let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
        let has_unplanned = self.has_unplanned_status();
        let has_status = self.exists(STATUS)?;
        // A run that is killed while it writes its first status leaves the temporary file alone.
        let is_ours = |name: &str| match name {
            JOB => true,
            STATUS => has_unplanned,
            name => name == temporary_name(STATUS) && (has_unplanned || !has_status),
        };
        Ok(names.filter(|name| !is_ours(name)).min())
    }

    /// Whether the directory has the status of a run that ended, or was killed, before its plan stood.
    fn has_unplanned_status(&self) -> bool {
        self.root.read(STATUS, UNPLANNED_STATUS_BYTES_MAX).is_ok_and(|bytes| is_unplanned(&bytes))
    }

    /// Where a run tells its status before it has a plan: the output directory if nothing else is told there, or [`NEXT`]
    /// beside an export that is to be replaced. `None` where a finished export or foreign files would be touched.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub(crate) fn place_of_announcement(&self, begin: BeginMode) -> io::Result<Option<Arc<Directory>>> {
        if self.replaces.load(Relaxed) {
            return self.root.make_directory(NEXT).map(|next| Some(Arc::new(next)));
        }
        let has = |name| Ok::<bool, io::Error>(self.root.metadata(name)?.is_some());
        let is_resumed = begin == BeginMode::Resume && self.planned.load(Relaxed);
        Ok(match is_resumed {
            true if self.is_staged() => Some(self.files()?),
            true => (!has(MANIFEST)?).then(|| self.root.clone()),
            false if has(MANIFEST)? || has(STATUS)? && !self.has_unplanned_status() => None,
            false => Some(self.root.clone()),
        })
    }

    /// Removes the directory of the next export if it is empty: a run that is refused has made it for its status.
    pub(crate) fn clear_announcement(&self) {
        self.root.remove_directory(NEXT).ok();
    }

    /// Names of the files that the exports in the output directory may have put in place. A journal that cannot be
    /// read lists none, so their files count as foreign.
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
            // Without a manifest, a replacing run may have begun to move its files into place.
            None => {
                add(self.next_record())?;
                names.extend(self.replaced().map_or(BTreeSet::new(), |replaced| replaced.files));
            }
            Some(_) => {}
        }
        names.retain(|name| OutputName::parse(name).is_some());
        Ok(names.into_iter().collect())
    }

    /// Reads and checks `replaced.json`, the old files of the output directory that are still to be replaced.
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

    /// Writes the plan, after checking that no foreign file of the output directory has the name of one of the planned
    /// `files`.
    ///
    /// # Errors
    /// [`JournalError::Foreign`] names such a file; [`JournalError::Io`]. Until the plan is written, an old export and
    /// its journal are complete.
    pub(crate) fn write_plan<T: Serialize>(&self, job: &T, files: &[String]) -> Result<(), JournalError> {
        let replaces = self.replaces.load(Relaxed);
        let ours = if replaces { self.listed_files()? } else { BTreeSet::new() };
        self.refuse_foreign(files, &ours, replaces)?;
        let mut write = |out: &mut dyn Write| Ok(serde_json::to_writer(out, &PlanFile { files, job })?);
        self.planned.store(true, Relaxed);
        let sync = self.sync == FileSync::Yes;
        if !replaces {
            let plan = self.own_record().name(PLAN);
            return self.root.replace_with(&plan, sync, &mut write).map_err(self.io(&plan));
        }
        // Receipts of an earlier replacing run are removed before this plan is written: they would count for this run.
        let (replaced, plan) = (self.next_record().name(REPLACED), self.next_record().name(PLAN));
        let names = serde_json::to_vec(&ReplacedFiles::new(ours)).expect("names are plain data");
        self.root.make_directory(NEXT).map_err(self.io(NEXT))?;
        for name in [RECEIPTS, LEGACY_RECEIPTS].map(|name| self.next_record().name(name)) {
            self.root.remove_file(&name).map_err(self.io(&name))?;
        }
        self.root.replace(&replaced, &names, sync).map_err(self.io(&replaced))?;
        self.root.replace_with(&plan, sync, &mut write).map_err(self.io(&plan))?;
        self.staged.store(true, Relaxed);
        self.clear_next(&[PLAN, REPLACED]);
        self.sync(&[JOB])
    }

    /// Fails if a file that this run will write exists and is not in `ours`, or if `error` or `deleted` holds another
    /// file with the name of an output file.
    fn refuse_foreign(&self, files: &[String], ours: &BTreeSet<String>, replaces: bool) -> Result<(), JournalError> {
        let foreign = |name: &str| JournalError::Foreign { path: self.root.path().join(name) };
        let own: &[&str] = if replaces { &[] } else { &[MANIFEST, STATUS, DEPARTED] };
        for name in files.iter().map(String::as_str).filter(|name| !ours.contains(*name)).chain(own.iter().copied()) {
            match self.root.metadata(name) {
                Ok(None) => {}
                Ok(Some(_)) if name == STATUS && self.has_unplanned_status() => {}
                Ok(Some(_)) => return Err(foreign(name)),
                // A link or a file has the name of its directory.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(foreign(name)),
                Err(error) => return Err(self.io(name)(error)),
            }
        }
        for (folder, stem) in [("error", "OperationOutcome."), ("deleted", "Bundle.")] {
            let entries = match self.root.directory(folder) {
                Ok(directory) => directory.names().map_err(self.io(folder))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return Err(foreign(folder)),
            };
            let mut entries = entries.iter().map(|name| format!("{folder}/{}", name.to_string_lossy()));
            if let Some(name) = entries.find(|name| name[folder.len() + 1..].starts_with(stem) && !ours.contains(name))
            {
                return Err(foreign(&name));
            }
        }
        Ok(())
    }

    /// Whether the old export is complete and the disk has room for `bytes` beside it.
    ///
    /// # Errors
    /// The directory or the free space of its disk cannot be read.
    pub(crate) fn has_room_beside(&self, bytes: u64) -> Result<bool, JournalError> {
        let free = || Ok(disk_space(self.path()).map_err(self.io(""))?.free);
        Ok(self.exists(MANIFEST)? && free()? >= bytes)
    }

    /// Receipts of the planned files that exist in the output directory as recorded; every file is hashed again.
    ///
    /// # Errors
    /// The journal or a file cannot be read.
    pub(crate) fn finished_files(
        &self,
        algorithm: DigestAlgorithm,
        is_planned: impl Fn(&Receipt) -> bool,
    ) -> Result<Vec<Receipt>, JournalError> {
        let mut finished = self.record_of_run().receipts()?;
        finished.retain(|receipt| is_planned(receipt));
        // A file that was moved into place already is no longer in `next`.
        let (staged, moving) = (self.is_staged(), self.is_staged() && !self.exists(MANIFEST)?);
        let mut present = Vec::with_capacity(finished.len());
        for receipt in finished {
            let staged_name = format!("{NEXT}/{}", receipt.file);
            let name = if !staged || moving && !self.exists(&staged_name)? { &receipt.file } else { &staged_name };
            if self.is_as_recorded_at(name, &receipt, algorithm)? {
                present.push(receipt);
            }
        }
        Ok(present)
    }

    /// Whether the file `name` of the output directory has the size and digest of a receipt; `false` if it does not
    /// exist.
    fn is_as_recorded_at(
        &self,
        name: &str,
        receipt: &Receipt,
        algorithm: DigestAlgorithm,
    ) -> Result<bool, JournalError> {
        match self.root.open_file(name).and_then(|file| is_as_recorded(file, receipt, algorithm)) {
            Ok(as_recorded) => Ok(as_recorded),
            // A link or a directory of this name is none of the run's files.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(false),
            Err(error) => Err(self.io(name)(error)),
        }
    }

    /// Replaces the old export by this run's files: steps 3 to 5 above, and the clearing of step 6. `finished` are the
    /// receipts of all files written so far; the caller writes no file during the call. Does nothing for a run whose
    /// files are in place.
    ///
    /// # Errors
    /// [`JournalError::Foreign`] if a foreign file has appeared under a name that is needed; [`JournalError::Io`]. A
    /// second call, also by a later run, resumes the work.
    pub(crate) fn move_into_place(&self, finished: &[Receipt]) -> Result<(), JournalError> {
        if !self.is_staged() {
            return Ok(());
        }
        let root = &self.root;
        let staged_name = |name: &str| format!("{NEXT}/{name}");
        let old = self.replaced()?.files;
        let (mut staged, mut moved) = (Vec::new(), BTreeSet::new());
        for name in finished.iter().map(|receipt| &receipt.file) {
            match self.exists(&staged_name(name))? {
                true => staged.push(name),
                false => drop(moved.insert(name)),
            }
        }
        for name in staged.iter().filter(|name| !old.contains(**name)) {
            if self.exists(name)? {
                return Err(JournalError::Foreign { path: root.path().join(name) });
            }
        }
        // The names of the new files must be on the disk before the old manifest is removed.
        self.sync(&[&staged_name("deleted"), &staged_name("error"), NEXT, JOB])?;
        // Step 3.
        self.remove(MANIFEST)?;
        self.sync(&[""])?;
        // Step 4. A file that an earlier attempt moved may have the name of an old one; it stays.
        match self.exists(&staged_name(STATUS))? {
            true => root.rename(&staged_name(STATUS), STATUS).map_err(self.io(STATUS))?,
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
            match root.rename_new(&staged_name(name), name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(JournalError::Foreign { path: root.path().join(name) });
                }
                renamed => renamed.map_err(self.io(name))?,
            }
        }
        for folder in ["error", "deleted"] {
            // Fails, as it should, if the folder is not empty.
            root.remove_directory(folder).ok();
        }
        self.sync(&["deleted", "error", ""])?;
        // Step 5.
        let [receipts, legacy, plan] = [RECEIPTS, LEGACY_RECEIPTS, PLAN].map(|name| self.own_record().name(name));
        let lines: Vec<u8> = finished.iter().flat_map(line_of).collect();
        root.replace(&receipts, &lines, self.sync == FileSync::Yes).map_err(self.io(&receipts))?;
        self.remove(&legacy)?;
        root.rename(&self.next_record().name(PLAN), &plan).map_err(self.io(&plan))?;
        self.sync(&[NEXT, JOB])?;
        // Step 6. The next receipt opens `receipts.jsonlog` in its new place.
        *self.receipts.lock().expect("no panic under it") = None;
        self.staged.store(false, Relaxed);
        self.clear_next(&[]);
        Ok(())
    }

    /// Appends the receipt of a finished file of the output directory to the `receipts.jsonlog` of this run.
    ///
    /// # Errors
    /// It cannot be written; the file then counts as unfinished.
    pub(crate) fn append_receipt(&self, receipt: &Receipt) -> io::Result<()> {
        let mut receipts = self.receipts.lock().expect("no panic under it");
        let file = match &mut *receipts {
            Some(file) => file,
            slot => slot.insert(self.record_of_run().open_receipts()?),
        };
        file.write_all(&line_of(receipt))?;
        if self.sync == FileSync::Yes { file.sync_data() } else { Ok(()) }
    }

    /// Publishes the manifest, the last step of a run (MANIFEST-18). `finished` are the receipts of all its files. Before it
    /// appears, files and directories have the permission bits of `modes`.
    ///
    /// # Errors
    /// As [`OutputDirectory::move_into_place`]; [`JournalError::Io`] if the manifest cannot be written;
    /// [`JournalError::Unsynced`] if it stands and only its directory cannot be synced.
    pub(crate) fn publish(
        &self,
        manifest: &Manifest,
        finished: &[Receipt],
        modes: FileModes,
    ) -> Result<(), JournalError> {
        self.move_into_place(finished)?;
        // A run that was killed in step 6 left a part of `next`.
        self.clear_next(&[]);
        if let (Some(mode), true) = (modes.file, self.exists(DEPARTED)?) {
            self.root.set_file_mode(DEPARTED, mode).map_err(self.io(DEPARTED))?;
        }
        modes.set(&self.root, finished).map_err(|(name, source)| self.io(&name)(source))?;
        self.sync(&["deleted", "error", ""])?;
        let mut write = |out: &mut dyn Write| manifest.write_to(out);
        self.root.replace_with_mode(MANIFEST, self.sync == FileSync::Yes, modes.file, &mut write).map_err(|source| {
            match is_unsynced(&source) {
                true => JournalError::Unsynced { path: self.path().to_path_buf(), source },
                false => self.io(MANIFEST)(source),
            }
        })
    }

    /// Removes a file of the output directory. A directory or an entry behind a link is none of the export's and stays.
    fn remove(&self, name: &str) -> Result<(), JournalError> {
        match self.root.remove_file(name) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory) => {
                Err(self.io(name)(error))
            }
            _ => Ok(()),
        }
    }

    /// Syncs these directories, as far as they exist; `""` is the output directory. Does nothing under
    /// [`FileSync::No`].
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

    /// Removes the files of a run from [`NEXT`] in the output directory, except the journal files `kept`. Foreign files
    /// stay. A file that cannot be removed costs only disk space.
    fn clear_next(&self, kept: &[&str]) {
        for folder in ["", "error", "deleted"] {
            let below = if folder.is_empty() { NEXT.to_string() } else { format!("{NEXT}/{folder}") };
            let Ok(directory) = self.root.directory(&below) else { continue };
            for name in directory.names().unwrap_or_default() {
                let Some(name) = name.to_str() else { continue };
                // A temporary file is treated as the file that it was to become.
                let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")).unwrap_or(name);
                let is_record = folder.is_empty()
                    && [PLAN, RECEIPTS, LEGACY_RECEIPTS, REPLACED, STATUS].contains(&of)
                    && !kept.contains(&name);
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

impl Drop for OutputDirectory {
    /// Leaves the directory as it was if the run failed before it had a plan.
    fn drop(&mut self) {
        if !self.planned.load(Relaxed) {
            self.root.remove_file(&format!("{JOB}/lock")).ok();
            self.root.remove_directory(JOB).ok();
            if self.created {
                std::fs::remove_dir(self.path()).ok();
            }
        }
    }
}
