//! The data files of a store as one walk found them, each opened when bytes of it are first read. As many as the process may
//! hold stay open; of the others each is opened again when it is read, and must then be the file that it was.
//!
//! A walk takes the stamp of every file; most queries need no more. Between walk and opening a file may change;
//! the caller compares [`StoreFiles::stamp`] with the index meta.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::casts::to_usize;
use crate::codec::compression::{Compression, FIRST_BYTES};
use crate::error::IndexError;
use crate::ids::FileId;
use crate::index::load_ahead::WalkedAhead;
use crate::index::meta::IndexMeta;
use crate::index::snapshot_record::SnapshotRecord;
use crate::index::store_listing::StoreListing;
use crate::limits::LASTING_INDEX_SHARE;
use crate::store::Store;
use crate::store::choices::links_of;
use crate::store::file_name::path_of;
use crate::store::walk::{Walk, WalkRules, is_earlier_name, walk_store, walk_store_by};
use crate::store::walked_file::WalkedFile;
use crate::sys::access::Access;
use crate::sys::held_files::held_files_max;
use crate::sys::regular_file::Links;
use crate::sys::store_file::{FileStamp, StoreFile, StoreFileError};

/// The data files of a store, in store order.
pub(crate) struct StoreFiles {
    root: PathBuf,
    access: Access,
    walked: Walk,
    /// Whether plain files end at the length of the walk, even if they are longer by now.
    truncated: bool,
    /// Whether names decide what files are, as they do for an index of an earlier version.
    by_name: bool,
    /// Compressions that are known without a look at the file.
    known: Vec<Option<Compression>>,
    open: Vec<OnceLock<OpenedStoreFile>>,
    /// Whether an index was made of these files, so that each must be the one that the walk found.
    is_indexed: bool,
    /// How many may still be held open; the process as a whole may hold fewer.
    may_hold: AtomicUsize,
}

/// A file that was opened, and its compression by its first bytes.
struct OpenedStoreFile {
    source: Arc<StoreFile>,
    compression: Compression,
}

/// Whether the names of a store's files decide what they are.
fn goes_by_names(store: &Store, known: Option<&IndexMeta>) -> bool {
    known.is_some_and(|known| !known.chosen) && !store.options().remake
}

/// Walks a store, with links as the index was made with or its caller chose. An index of a version that knew fewer names
/// goes on without files of others.
fn walk_for(store: &Store, known: Option<&IndexMeta>, ahead: Option<WalkedAhead>) -> Result<Walk, IndexError> {
    let choices = &store.options().choices;
    let stands = known.filter(|_| !store.options().remake);
    let links = stands.map_or_else(|| choices.links_of_new_index(), IndexMeta::links);
    let walked = ahead.and_then(|ahead| ahead.with_links(links)).unwrap_or_else(|| walk_store(store, links))?;
    Ok(without_later_names(walked, stands))
}

/// What an index of a version that knew fewer names takes of a walk.
fn without_later_names(mut walked: Walk, stands: Option<&IndexMeta>) -> Walk {
    if stands.is_some_and(|stands| !stands.chosen) {
        let (files, others) = walked.files.into_iter().partition(|found| is_earlier_name(&found.name));
        walked.files = files;
        let others: Vec<WalkedFile> = others;
        walked.ignored.extend(others.into_iter().map(|found| found.name));
        walked.ignored.sort();
    }
    walked
}

impl StoreFiles {
    /// Walks the store for its files as they are now, unless it was walked `ahead`; `known` is the index meta that they are
    /// compared with.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn find(
        store: &Store,
        known: Option<&IndexMeta>,
        ahead: Option<WalkedAhead>,
    ) -> Result<StoreFiles, IndexError> {
        Ok(StoreFiles::of(store, walk_for(store, known, ahead)?, false)
            .compared_with(known, goes_by_names(store, known)))
    }

    /// As [`StoreFiles::find`], for a record: with links as it was made with, and with the files that it names, also if
    /// they are passed over by now.
    ///
    /// # Errors
    /// As [`StoreFiles::find`].
    pub(crate) fn find_for_record(
        store: &Store,
        record: &SnapshotRecord,
        known: &IndexMeta,
    ) -> Result<StoreFiles, IndexError> {
        let links = links_of(record.follow_symlinks);
        let mut walked = without_later_names(walk_store(store, links)?, Some(known));
        let is_found =
            |name: &str| walked.files.binary_search_by(|one| one.name.as_bytes().cmp(name.as_bytes())).is_ok();
        let mut lacking: HashSet<&str> = record.segments.iter().map(|segment| segment.file.as_str()).collect();
        lacking.retain(|name| !is_found(name));
        if !lacking.is_empty() && !walked.rules.ignore.is_absent() {
            let all = walk_store_by(store, WalkRules { links, ..WalkRules::default() })?;
            walked.files.extend(all.files.into_iter().filter(|found| lacking.contains(found.name.as_str())));
            walked.files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        }
        let by_name = goes_by_names(store, Some(known));
        Ok(StoreFiles::of(store, walked, false).compared_with(Some(known), by_name))
    }

    /// As [`StoreFiles::find`], cut back to the bytes of a listing; of later bytes only those already indexed remain.
    ///
    /// # Errors
    /// As [`StoreFiles::find`].
    pub(crate) fn find_within(
        store: &Store,
        listing: &StoreListing,
        known: Option<&IndexMeta>,
        ahead: Option<WalkedAhead>,
    ) -> Result<StoreFiles, IndexError> {
        let mut walked = walk_for(store, known, ahead)?;
        listing.truncate_to(&mut walked, known);
        Ok(StoreFiles::of(store, walked, true).compared_with(known, goes_by_names(store, known)))
    }

    /// The files of an index meta, without a walk over the store.
    pub(crate) fn known_to(store: &Store, meta: &IndexMeta) -> StoreFiles {
        let entries = meta.files.iter().map(|entry| (entry.name.as_str(), entry.stamp, entry.compression));
        let mut files = StoreFiles::of_entries(store, entries, meta.follow_symlinks);
        files.take_compressions(meta);
        // Such an index is kept long, and reads files here and there: jobs are to hold theirs.
        let share = held_files_max() / LASTING_INDEX_SHARE;
        files.may_hold = AtomicUsize::new(share.min(store.options().held_files_max));
        files
    }

    /// Files with these names, stamps and compressions, in store order, without a walk; plain ones end at the length of the stamp.
    pub(crate) fn of_entries<'n>(
        store: &Store,
        entries: impl Iterator<Item = (&'n str, FileStamp, Compression)>,
        follow_symlinks: bool,
    ) -> StoreFiles {
        let (mut files, mut known) = (Vec::new(), Vec::new());
        for (name, stamp, compression) in entries {
            files.push(WalkedFile { name: name.to_string(), named: compression, stamp, listed_len: None });
            known.push(Some(compression));
        }
        let rules = WalkRules { links: links_of(follow_symlinks), ..WalkRules::default() };
        let walked = Walk { files, begun_ns: i64::MIN, rules, ..Walk::default() };
        StoreFiles { known, ..StoreFiles::of(store, walked, true) }
    }

    /// Files of a walk; `truncated` cuts plain files at the length that the walk has.
    fn of(store: &Store, walked: Walk, truncated: bool) -> StoreFiles {
        let open: Vec<_> = walked.files.iter().map(|_| OnceLock::new()).collect();
        let (root, access, known) = (store.root().to_path_buf(), store.options().access, vec![None; open.len()]);
        let may_hold = AtomicUsize::new(store.options().held_files_max);
        StoreFiles { root, access, walked, truncated, by_name: false, known, open, is_indexed: false, may_hold }
    }

    /// The same files, of which those that are untouched since an index meta are what they were then.
    fn compared_with(mut self, known: Option<&IndexMeta>, by_name: bool) -> StoreFiles {
        self.by_name = by_name;
        let entries = known.filter(|known| known.chosen).map_or(&[][..], |known| &known.files);
        for (place, entry) in entries.iter().enumerate() {
            // Mostly the files are the same, and so are their places.
            let is_in_place = self.walked.files.get(place).is_some_and(|found| found.name == entry.name);
            let file = if is_in_place { Some(FileId::of(place)) } else { self.position(&entry.name) };
            if let Some(file) = file
                && entry.settled
                && entry.stamp == self.stamp(file)
            {
                self.known[file.index()] = Some(entry.compression);
            }
        }
        self
    }

    /// Takes the compressions of the files from the index meta that was made of them; from here on they must be those files.
    pub(crate) fn take_compressions(&mut self, meta: &IndexMeta) {
        self.known = meta.files.iter().map(|entry| Some(entry.compression)).collect();
        self.is_indexed = true;
    }

    /// Number of data files.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    /// The data files, in store order.
    pub(crate) fn ids(&self) -> impl ExactSizeIterator<Item = FileId> + use<> {
        (0..self.count()).map(FileId::of)
    }

    /// Path of a file, relative to the store.
    pub(crate) fn name(&self, file: FileId) -> &str {
        &self.walked.files[file.index()].name
    }

    /// Path of a file.
    pub(crate) fn path(&self, file: FileId) -> PathBuf {
        self.root.join(path_of(self.name(file)))
    }

    /// Compression of a file: as an index knows it, else by its first bytes, which are read. That of its name if the file
    /// cannot be read, which [`StoreFiles::source`] tells.
    pub(crate) fn compression(&self, file: FileId) -> Compression {
        let named = self.walked.files[file.index()].named;
        match self.known[file.index()] {
            Some(known) => known,
            None if self.by_name => named,
            None => self.opened(file).map_or(named, |opened| opened.compression),
        }
    }

    /// The file of this name (relative to the store); `None` when there is none.
    pub(crate) fn position(&self, name: &str) -> Option<FileId> {
        let found = self.walked.files.binary_search_by(|found| found.name.as_bytes().cmp(name.as_bytes()));
        found.ok().map(FileId::of)
    }

    /// Size and times of a file: as opened if it was opened, else as the walk found them.
    pub(crate) fn stamp(&self, file: FileId) -> FileStamp {
        self.open[file.index()].get().map_or(self.walked.files[file.index()].stamp, |opened| opened.source.stamp())
    }

    /// Whether the stamp of a file was settled when the walk began, so that the file still having it has not been
    /// written since.
    pub(crate) fn is_settled(&self, file: FileId) -> bool {
        self.stamp(file).is_settled(self.walked.begun_ns)
    }

    /// The file, opened on first use.
    ///
    /// # Errors
    /// As [`StoreFile::open_one_of_many`] and [`StoreFile::read`].
    pub(crate) fn source(&self, file: FileId) -> Result<&StoreFile, StoreFileError> {
        self.opened(file).map(|opened| &*opened.source)
    }

    /// The same to be kept beyond the index.
    ///
    /// # Errors
    /// As [`StoreFiles::source`].
    pub(crate) fn shared_source(&self, file: FileId) -> Result<Arc<StoreFile>, StoreFileError> {
        self.opened(file).map(|opened| opened.source.clone())
    }

    /// The file and its compression, opened on first use.
    fn opened(&self, file: FileId) -> Result<&OpenedStoreFile, StoreFileError> {
        if let Some(opened) = self.open[file.index()].get() {
            return Ok(opened);
        }
        let WalkedFile { named, stamp, listed_len, .. } = self.walked.files[file.index()];
        let path = self.path(file);
        let may_hold = self.may_hold.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        let expected = self.is_indexed.then_some(&stamp);
        let source = StoreFile::open_one_of_many(&path, self.access, self.walked.rules.links, may_hold, expected)
            .map_err(|error| error.of_store(self.count()))?;
        let compression = match self.known[file.index()] {
            Some(known) => known,
            None if self.by_name => named,
            None => {
                let len = source.len().min(FIRST_BYTES as u64);
                // Not by the map: most files that are opened here are read by `pread` alone, and then none is made.
                Compression::of_first_bytes(source.pread(0, to_usize(len), &mut Vec::new())?, named)
            }
        };
        let source = match compression {
            // Bytes appended since the walk are not part of it.
            Compression::None if self.truncated => source.up_to(listed_len.unwrap_or(stamp.len)),
            _ => source,
        };
        // If another thread has opened it meanwhile, its handle is used.
        Ok(self.open[file.index()].get_or_init(|| OpenedStoreFile { source: Arc::new(source), compression }))
    }

    /// The stamp of the file under its path, or under that of a link to it; not cut at any length.
    ///
    /// # Errors
    /// [`StoreFileError::Open`] when there is none.
    pub(crate) fn stamp_now(&self, file: FileId) -> Result<FileStamp, StoreFileError> {
        let path = self.path(file);
        let found = std::fs::metadata(&path).map_err(|source| StoreFileError::Open { path, source })?;
        Ok(FileStamp::of_metadata(&found))
    }

    /// Whether the file under its path has the very stamp that it is known by.
    pub(crate) fn is_current(&self, file: FileId) -> bool {
        self.stamp_now(file).is_ok_and(|stamp| stamp == self.walked.files[file.index()].stamp)
    }

    /// The files that have been opened, with their handles.
    pub(crate) fn opened_files(&self) -> impl Iterator<Item = (FileId, &StoreFile)> {
        self.ids().zip(&self.open).filter_map(|(file, open)| open.get().map(|opened| (file, &*opened.source)))
    }

    /// Whether links were followed, and the hash of the patterns of names that were passed over, as an index meta has them.
    pub(crate) fn walk_rules(&self) -> (bool, u64) {
        (self.walked.rules.links == Links::Follow, self.walked.rules.ignore.hash)
    }

    /// Whether an index meta was made of a walk with the same rules.
    pub(crate) fn has_walk_rules_of(&self, known: &IndexMeta) -> bool {
        self.walk_rules() == (known.follow_symlinks, known.ignore_hash)
    }

    /// Whether a file of an index meta that the walk did not find is not read any more because of `.outpourignore` or
    /// another choice of links, and so is not gone. Another choice of links leaves the file where it was.
    pub(crate) fn is_excluded(&self, name: &str, known: &IndexMeta) -> bool {
        let is_there = || std::fs::metadata(self.root.join(path_of(name))).is_ok_and(|found| found.is_file());
        self.walked.rules.ignore.takes_file(name) || self.walked.rules.links != known.links() && is_there()
    }

    /// The walk, of which only the rules are known where there was none.
    pub(crate) fn walked(&self) -> &Walk {
        &self.walked
    }

    /// Relative paths that the walk ignored.
    pub(crate) fn ignored_names(&self) -> &[String] {
        &self.walked.ignored
    }
}
