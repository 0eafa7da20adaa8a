//! The root directory of a chain: its id, its lock, its exports and `latest.json`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{ExportError, JournalError};
use crate::export::chain_link::ChainLink;
use crate::export::plan_record::PlanRecord;
use crate::fhir::instant::Instant;
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::sys::private_files::private_directory;
use crate::write::file_modes::FileModes;
use crate::write::journal::{DEPARTED, JOB, MANIFEST, PLAN, STATUS};
use crate::write::output_name::OutputName;

/// Directory of the chain's own files, inside the root.
const OWN: &str = ".outpour-chain";
/// File with the chain's id.
pub(crate) const IDENTITY: &str = ".outpour-chain/chain.json";
/// Locked by the process that exports.
const LOCK: &str = ".outpour-chain/lock";
/// Locked by the processes that read exports, together, and by the one that removes some, alone.
const READERS: &str = ".outpour-chain/readers.lock";
/// Directory of exports on their way out.
const REMOVED: &str = ".outpour-chain/removed";
/// Names the newest finished export.
pub(crate) const LATEST: &str = "latest.json";
/// A link to the newest finished export.
const LATEST_LINK: &str = "latest";

/// Contents of [`IDENTITY`].
#[derive(Serialize, Deserialize)]
struct Identity {
    chain: String,
}

/// A root directory, locked for export or for reading until it is dropped.
pub(crate) struct ChainRoot {
    directory: Directory,
    /// The chain's own id.
    chain: String,
    _lock: File,
}

/// An export of the chain.
#[derive(Clone, Debug)]
pub(crate) struct ChainExport {
    /// Name of its directory in the root.
    pub name: String,
    /// Its place in the chain.
    pub link: ChainLink,
    /// Name of its plan.
    pub plan_id: String,
    /// Name of the plan that it builds on; `None` for a full export.
    pub baseline: Option<String>,
    /// Whether it is finished.
    pub finished: bool,
}

impl ChainRoot {
    /// Locks a root for export, and makes it if it is not there. `seed` makes the id of a new chain, and is never the same twice.
    ///
    /// # Errors
    /// [`JournalError::Busy`] if another process exports into it, [`JournalError::Damaged`], [`JournalError::Io`].
    pub(crate) fn lock_for_export(path: &Path, seed: &str) -> Result<ChainRoot, JournalError> {
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let damaged = |reason: &str| JournalError::Damaged { path: path.join(IDENTITY), reason: reason.to_string() };
        if !path.exists() {
            // A mistyped or unmounted place above it gets no chain.
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::metadata(above).map_err(io)?;
        }
        private_directory(path).map_err(io)?;
        let directory = Directory::open(&path.canonicalize().map_err(io)?).map_err(io)?;
        if directory.metadata(MANIFEST).map_err(io)?.is_some() {
            return Err(damaged("the directory holds an export of its own; name another one for a chain"));
        }
        directory.make_directory(OWN).map_err(io)?;
        let lock = directory.create(LOCK).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path: path.to_path_buf() }),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        if directory.metadata(IDENTITY).map_err(io)?.is_none() {
            if directory.metadata(LATEST).map_err(io)?.is_some() {
                return Err(damaged(
                    "it is not there, but the exports of a chain are: put it back from a copy, or name an empty directory for a \
                     new chain",
                ));
            }
            let chain = format!("{:032x}", crate::hash::xxh3_128(seed.as_bytes()));
            let bytes = serde_json::to_vec(&Identity { chain }).expect("plain data");
            directory.replace(IDENTITY, &bytes, true).map_err(io)?;
        }
        ChainRoot::of(directory, lock)
    }

    /// Whether a directory is the root of a chain.
    pub(crate) fn is_root(path: &Path) -> bool {
        path.join(IDENTITY).is_file()
    }

    /// Opens a root for reading: none of its exports is removed meanwhile.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if it is none, [`JournalError::Io`].
    pub(crate) fn lock_for_reading(path: &Path) -> Result<ChainRoot, JournalError> {
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let directory = Directory::open(path).map_err(io)?;
        if directory.metadata(IDENTITY).map_err(io)?.is_none() {
            let reason = "it is not there, so this is no root of a chain".to_string();
            return Err(JournalError::Damaged { path: path.join(IDENTITY), reason });
        }
        // Where nothing can be written nothing is removed either, and no lock is needed.
        let lock = match directory.create(READERS).or_else(|_| directory.open_file(READERS)) {
            Ok(lock) => lock,
            Err(_) => directory.open_file(IDENTITY).map_err(io)?,
        };
        lock.lock_shared().map_err(io)?;
        ChainRoot::of(directory, lock)
    }

    /// Reads the chain's id.
    fn of(directory: Directory, lock: File) -> Result<ChainRoot, JournalError> {
        let damaged =
            |reason: &str| JournalError::Damaged { path: directory.path().join(IDENTITY), reason: reason.to_string() };
        let bytes = directory.read(IDENTITY, RECORD_BYTES_MAX).map_err(|error| damaged(&error.to_string()))?;
        let Identity { chain } =
            serde_json::from_slice(&bytes).map_err(|_| damaged("it is not as outpour writes it"))?;
        let is_id = chain.len() == 32 && chain.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(damaged("it holds no id of a chain"));
        }
        Ok(ChainRoot { directory, chain, _lock: lock })
    }

    /// The path of the root.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The path of an export of the chain.
    pub(crate) fn export_path(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The chain's own id.
    pub(crate) fn chain(&self) -> &str {
        &self.chain
    }

    /// The exports whose record names this chain, by number. Other directories are none of its business.
    ///
    /// # Errors
    /// [`JournalError`] if a directory cannot be read, or two exports have one number.
    pub(crate) fn exports(&self) -> Result<Vec<ChainExport>, JournalError> {
        let io = |source| JournalError::Io { path: self.path().to_path_buf(), source };
        let mut exports = Vec::new();
        for name in self.directory.names().map_err(io)? {
            let Some(name) = name.to_str().filter(|name| is_export_name(name)) else { continue };
            let plan = match self.directory.read(&format!("{name}/{JOB}/{PLAN}"), RECORD_BYTES_MAX) {
                Ok(plan) => plan,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => continue,
                Err(error) => return Err(io(error)),
            };
            let record = PlanRecord::from_bytes(&plan).map_err(|reason| JournalError::Damaged {
                path: self.export_path(name).join(JOB).join(PLAN),
                reason: format!("{reason}; move the directory out of the chain"),
            })?;
            let Some(link) = record.chain.clone().filter(|link| link.chain == self.chain) else { continue };
            let finished = self.directory.metadata(&format!("{name}/{MANIFEST}")).map_err(io)?.is_some();
            let (plan_id, baseline) = (record.plan_id.clone(), record.baseline_plan().map(str::to_string));
            exports.push(ChainExport { name: name.to_string(), link, plan_id, baseline, finished });
        }
        exports.sort_by(|a, b| (a.link.number, &a.name).cmp(&(b.link.number, &b.name)));
        if let Some([a, b]) = exports.windows(2).find(|pair| pair[0].link.number == pair[1].link.number) {
            let reason = format!("{} and {} have one number in the chain; move one of them away", a.name, b.name);
            return Err(JournalError::Damaged { path: self.path().to_path_buf(), reason });
        }
        Ok(exports)
    }

    /// The greatest number that `latest.json` or an export has; 0 if there is none. A number is never given twice: a reader that took an
    /// export which is gone now would pass over the next one of its number.
    ///
    /// # Errors
    /// As [`ChainRoot::exports`].
    pub(crate) fn last_number(&self) -> Result<u64, JournalError> {
        let latest = self.directory.read(LATEST, RECORD_BYTES_MAX).ok();
        let latest = latest.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let named = latest.and_then(|latest| latest["number"].as_u64()).unwrap_or(0);
        Ok(self.exports()?.last().map_or(0, |last| last.link.number).max(named))
    }

    /// A name for an export that begins now, which is not in use: date and time in UTC.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn new_name(&self, now: &Instant) -> Result<String, JournalError> {
        let text = now.to_string().replace(':', "");
        let second = text.split(['.', 'Z']).next().unwrap_or_default();
        for again in 1u32.. {
            let name = if again == 1 { format!("{second}Z") } else { format!("{second}Z-{again}") };
            self.clear_traces(&name);
            let io = |source| JournalError::Io { path: self.export_path(&name), source };
            if self.directory.metadata(&name).map_err(io)?.is_none() {
                return Ok(name);
            }
        }
        unreachable!("a directory has fewer entries than there are numbers")
    }

    /// Removes what exports left that were killed before they had a plan: nothing but empty directories and the files of a run
    /// without a plan are touched.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn clear_unplanned(&self) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: self.path().to_path_buf(), source };
        for name in self.directory.names().map_err(io)? {
            if let Some(name) = name.to_str().filter(|name| is_export_name(name)) {
                self.clear_traces(name);
            }
        }
        Ok(())
    }

    /// As [`ChainRoot::clear_unplanned`], of one name.
    fn clear_traces(&self, name: &str) {
        let has = |file: &str| !matches!(self.directory.metadata(&format!("{name}/{file}")), Ok(None));
        if has(&format!("{JOB}/{PLAN}")) || has(MANIFEST) {
            return;
        }
        let traces = [format!("{JOB}/lock"), format!("{JOB}/.{PLAN}.part"), STATUS.into(), format!(".{STATUS}.part")];
        // What else there is makes that the directories stay.
        traces.iter().for_each(|file| drop(self.directory.remove_file(&format!("{name}/{file}"))));
        self.directory.remove_directory(&format!("{name}/{JOB}")).ok();
        self.directory.remove_directory(name).ok();
    }

    /// Says in `latest.json` which export is the newest, and leads the link `latest` to it where links can be made. The root and the
    /// document get the permission bits of `modes`.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn publish_latest(
        &self,
        export: &ChainExport,
        transaction_time: &str,
        modes: FileModes,
    ) -> Result<(), JournalError> {
        let document = json!({
            "chain": self.chain,
            "directory": export.name,
            "manifest": format!("{}/{MANIFEST}", export.name),
            "transactionTime": transaction_time,
            "number": export.link.number,
            "full": export.link.full,
        });
        let mut bytes = serde_json::to_vec_pretty(&document).expect("plain data");
        bytes.push(b'\n');
        let io = |source| JournalError::Io { path: self.path().join(LATEST), source };
        let mut write = |out: &mut dyn io::Write| out.write_all(&bytes);
        self.directory.replace_with_mode(LATEST, true, modes.file, &mut write).map_err(io)?;
        if let Some(mode) = modes.directory {
            self.directory.set_mode(mode).map_err(io)?;
        }
        let is_link = |found: &std::fs::Metadata| found.file_type().is_symlink();
        if self.directory.metadata(LATEST_LINK).ok().flatten().as_ref().is_none_or(is_link) {
            self.directory.replace_link(LATEST_LINK, &export.name).ok();
        }
        Ok(())
    }

    /// Moves an export of the chain out of it and deletes it. One that holds anything that is not of an export is kept beside the
    /// others under another name, which is returned.
    ///
    /// # Errors
    /// [`JournalError::Io`] if it cannot be moved or deleted; [`ChainRoot::empty_removed`] deletes the rest in a later run.
    pub(crate) fn remove(&self, export: &ChainExport) -> Result<Option<PathBuf>, JournalError> {
        let io = |source| JournalError::Io { path: self.export_path(&export.name), source };
        if self.holds_foreign_files(&export.name).map_err(io)? {
            let aside = format!("set-aside-{}", export.name);
            self.directory.rename_new(&export.name, &aside).map_err(io)?;
            return Ok(Some(self.export_path(&aside)));
        }
        self.directory.make_directory(REMOVED).map_err(io)?;
        let aside = format!("{REMOVED}/{}", export.name);
        self.directory.remove_tree(&aside).map_err(io)?;
        self.directory.rename(&export.name, &aside).map_err(io)?;
        self.directory.remove_tree(&aside).map_err(io)?;
        Ok(None)
    }

    /// Whether the directory of an export holds a name that no export gives.
    fn holds_foreign_files(&self, export: &str) -> io::Result<bool> {
        let own = [MANIFEST, STATUS, DEPARTED];
        for folder in ["", "deleted/", "error/"] {
            let path = format!("{export}/{folder}");
            let entries = match self.directory.directory(path.trim_end_matches('/')) {
                Ok(directory) => directory.names()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for name in entries {
                let Some(name) = name.to_str() else { return Ok(true) };
                let is_folder = folder.is_empty() && [JOB, "deleted", "error"].contains(&name);
                // A temporary file is that which it was to become.
                let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")).unwrap_or(name);
                let is_output = OutputName::parse(&format!("{folder}{of}")).is_some();
                let is_own = folder.is_empty() && own.contains(&of);
                if !(is_folder || is_output || is_own) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Deletes what a removal that was killed has left.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn empty_removed(&self) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: self.path().join(REMOVED), source };
        self.directory.remove_tree(REMOVED).map_err(io)
    }

    /// The lock of those who remove exports; `None` while somebody reads them.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn try_lock_out_readers(&self) -> Result<Option<File>, JournalError> {
        let io = |source| JournalError::Io { path: self.path().join(READERS), source };
        let lock = self.directory.create(READERS).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

/// Whether a name has the form of those that [`ChainRoot::new_name`] gives: `2026-11-30T010000Z`, maybe with a number.
fn is_export_name(name: &str) -> bool {
    let (time, again) = name.split_once("Z-").map_or((name.strip_suffix('Z'), None), |(time, n)| (Some(time), Some(n)));
    let has_form = |time: &str| {
        time.len() == 17
            && time.bytes().enumerate().all(|(i, byte)| match i {
                4 | 7 => byte == b'-',
                10 => byte == b'T',
                _ => byte.is_ascii_digit(),
            })
    };
    time.is_some_and(has_form)
        && again.is_none_or(|again| again.bytes().all(|b| b.is_ascii_digit()) && !again.is_empty())
}

/// A failure of a chain's own files, as one of an export.
impl ChainRoot {
    /// The exports that are finished, by number.
    ///
    /// # Errors
    /// As [`ChainRoot::exports`].
    pub(crate) fn finished(&self) -> Result<Vec<ChainExport>, ExportError> {
        Ok(self.exports()?.into_iter().filter(|export| export.finished).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only names of the form of [`ChainRoot::new_name`] count as exports.
    #[test]
    fn names_of_exports_have_one_form() {
        for (name, is_one) in [
            ("2026-11-30T010000Z", true),
            ("2026-11-30T010000Z-2", true),
            ("2026-11-30T010000Z-", false),
            ("2026-11-30T01:00:00Z", false),
            ("2026-11-30T010000", false),
            ("2026-11-30", false),
            ("latest", false),
            (".outpour-chain", false),
        ] {
            assert_eq!(is_export_name(name), is_one, "{name}");
        }
    }

    /// One process exports at a time; a new root gets an id that it keeps, and names that are free.
    #[test]
    fn a_root_is_locked_and_keeps_its_id() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("chain");
        assert!(matches!(ChainRoot::lock_for_reading(&path), Err(JournalError::Io { .. })));
        let root = ChainRoot::lock_for_export(&path, "a").unwrap();
        assert!(matches!(ChainRoot::lock_for_export(&path, "b"), Err(JournalError::Busy { .. })));
        let now = Instant::parse("2026-11-30T01:02:03.5Z").unwrap();
        assert_eq!(root.new_name(&now).unwrap(), "2026-11-30T010203Z");
        std::fs::create_dir_all(path.join("2026-11-30T010203Z/own")).unwrap();
        std::fs::create_dir_all(path.join("2026-11-30T010203Z-2/.outpour-job")).unwrap();
        std::fs::write(path.join("2026-11-30T010203Z-2/.outpour-job/lock"), "").unwrap();
        // A trace of a run without a plan makes room; what is anybody's own stays.
        assert_eq!(root.new_name(&now).unwrap(), "2026-11-30T010203Z-2");
        assert!(path.join("2026-11-30T010203Z/own").is_dir());
        let chain = root.chain().to_string();
        drop(root);
        let reader = ChainRoot::lock_for_reading(&path).unwrap();
        let writer = ChainRoot::lock_for_export(&path, "c").unwrap();
        assert_eq!((reader.chain(), writer.chain()), (&*chain, &*chain));
        assert!(writer.try_lock_out_readers().unwrap().is_none());
        drop(reader);
        assert!(writer.try_lock_out_readers().unwrap().is_some());
        std::fs::write(path.join(IDENTITY), "{}").unwrap();
        drop(writer);
        assert!(matches!(ChainRoot::lock_for_export(&path, "c"), Err(JournalError::Damaged { .. })));
    }
}
