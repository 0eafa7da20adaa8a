//! Replays a chain into its current state: of each resource the newest version that an export brought, unless a later one listed
//! it as deleted or departed.
//!
//! The exports are read from the newest to the oldest, so a row is written if nothing newer decided about its resource. What is
//! held is 16 bytes for each resource of an increment, deletion and departure; the full export is streamed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::casts::to_u32;
use crate::chain::applied_state::{AppliedState, STATE};
use crate::chain::exported_lines::{ExportedLine, LinesError, read_lines};
use crate::chain::read_chain::{ReadExport, read_chain, read_deletions, read_departures};
use crate::chain::root::ChainRoot;
use crate::codec::compression::Compression;
use crate::error::{DirectoryContent, ExportError, JournalError, RequestError};
use crate::hash::digest::DigestAlgorithm;
use crate::key_set::resource_key::ResourceKey;
use crate::plan::shard_name;
use crate::policies::FileBounds;
use crate::progress::Progress;
use crate::store::paths::check_outside_store;
use crate::sys::atomic_dir::{AtomicDir, AtomicDirError};
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::write::encode::Encoder;
use crate::write::journal::Receipt;
use crate::write::sink::DirSink;
use rayon::prelude::*;

/// What applying a chain did.
pub(crate) struct ApplyReport {
    /// The description of the new state.
    pub state: AppliedState,
    /// How many exports were read.
    pub exports: usize,
    /// Resources that a later export deleted.
    pub deleted: u64,
    /// Resources that a later export listed as departed.
    pub departed: u64,
}

/// Why a chain cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// An export of the chain, its record or the root.
    #[error(transparent)]
    Chain(#[from] ExportError),
    /// The directory of the state.
    #[error(transparent)]
    Target(#[from] AtomicDirError),
    /// The work was cancelled.
    #[error("stopped on request; nothing was changed")]
    Cancelled,
}

impl From<JournalError> for ApplyError {
    fn from(error: JournalError) -> ApplyError {
        ApplyError::Chain(error.into())
    }
}

/// For each resource that an export took away, the position of the last such export.
type RemovedAt = HashMap<ResourceKey, usize>;

/// Applies the chain below `path` to the directory `to`, which appears or is replaced as a whole.
///
/// # Errors
/// [`ApplyError`]; `to` is as it was then.
pub(crate) fn apply(
    path: &Path,
    to: &Path,
    bounds: FileBounds,
    sync: FileSync,
    progress: &Progress,
) -> Result<ApplyReport, ApplyError> {
    let root = ChainRoot::lock_for_reading(path)?;
    let chain = read_chain(&root)?;
    if AppliedState::of_directory(to)?.is_some_and(|state| state.chain != root.chain()) {
        let (path, holds) = (to.to_path_buf(), DirectoryContent::OtherChain);
        return Err(JournalError::NotEmpty { path, holds }.into());
    }
    let store = chain.last().map(|newest| newest.finished.record.origin.store_absolute.clone()).unwrap_or_default();
    if !store.is_empty() && check_outside_store(Path::new(&store), to).is_err() {
        let text = format!(
            "{} lies inside the store {store}, where exports would read it; choose a directory outside",
            to.display()
        );
        return Err(ApplyError::Chain(RequestError::one(text).into()));
    }
    let (mut removed, mut deleted, mut departed) = (RemovedAt::new(), 0, 0);
    for (position, export) in chain.iter().enumerate() {
        let (gone, left) = (read_deletions(export)?, read_departures(export)?);
        (deleted, departed) = (deleted + gone.len() as u64, departed + left.len() as u64);
        removed.extend(gone.into_iter().chain(left).map(|key| (key, position)));
    }
    let target = AtomicDir::begin_replacing(to, sync)?;
    let out = Directory::open(target.path()).map_err(|error| write_error(target.path(), error))?;
    let run = ApplyRun { chain: &chain, removed: &removed, out: Arc::new(out), bounds, sync, progress };
    let types = of_types(&chain);
    progress.expect_writes(run.bytes_to_read(), types.len() as u64);
    let files: Vec<Vec<Receipt>> = types.par_iter().map(|of_type| run.write_type(of_type)).collect::<Result<_, _>>()?;
    let newest = chain.last().expect("a chain that was read has an export");
    let state = AppliedState {
        chain: root.chain().to_string(),
        number: newest.export.link.number,
        full: newest.export.link.full,
        transaction_time: newest.finished.manifest.transaction_time.clone(),
        files: files.into_iter().flatten().collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&state).expect("plain data");
    bytes.push(b'\n');
    let failed = |error| write_error(&target.path().join(STATE), error);
    run.out.replace(STATE, &bytes, sync == FileSync::Yes).map_err(failed)?;
    target.publish()?;
    Ok(ApplyReport { state, exports: chain.len(), deleted, departed })
}

/// A file of the state that cannot be written.
fn write_error(path: &Path, source: io::Error) -> ApplyError {
    ApplyError::Target(AtomicDirError::Write { path: path.to_path_buf(), source })
}

/// The types of the resources of a chain, by name.
fn of_types(chain: &[ReadExport]) -> Vec<String> {
    let output = chain.iter().flat_map(|export| &export.finished.manifest.output);
    let mut types: Vec<String> = output.map(|item| item.r#type.clone()).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// What all types share while they are written.
struct ApplyRun<'a> {
    chain: &'a [ReadExport],
    removed: &'a RemovedAt,
    out: Arc<Directory>,
    bounds: FileBounds,
    sync: FileSync,
    progress: &'a Progress,
}

impl ApplyRun<'_> {
    /// Bytes of all files of resources, before compression.
    fn bytes_to_read(&self) -> u64 {
        let output = self.chain.iter().flat_map(|export| &export.finished.manifest.output);
        output.filter_map(|item| item.facts()).map(|facts| facts.bytes).sum()
    }

    /// Writes the current resources of one type.
    fn write_type(&self, of_type: &str) -> Result<Vec<Receipt>, ApplyError> {
        let mut files = TypeFiles { run: self, of_type, open: None, rows: 0, done: Vec::new() };
        let mut decided: HashSet<ResourceKey> = HashSet::new();
        for (position, export) in self.chain.iter().enumerate().rev() {
            let items = export.finished.manifest.output.iter().filter(|item| item.r#type == of_type);
            for item in items {
                let mut on_line = |line: ExportedLine<'_>| {
                    if self.progress.is_cancelled() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    let is_removed = self.removed.get(&line.key).is_some_and(|at| *at > position);
                    // Nothing is older than the first export, so nothing asks what it held.
                    let is_newest = if position == 0 { !decided.contains(&line.key) } else { decided.insert(line.key) };
                    if is_newest && !is_removed { files.write(line) } else { Ok(()) }
                };
                match read_lines(&export.directory, item, self.out.path(), &mut on_line) {
                    Ok(()) => {}
                    Err(_) if self.progress.is_cancelled() => return Err(ApplyError::Cancelled),
                    Err(LinesError::File(error)) => return Err(error.into()),
                    Err(LinesError::Caller(error)) => return Err(write_error(self.out.path(), error)),
                }
            }
        }
        files.finish().map_err(|error| write_error(self.out.path(), error))
    }
}

/// The files of one type while they are written, cut by the bounds.
struct TypeFiles<'a> {
    run: &'a ApplyRun<'a>,
    of_type: &'a str,
    open: Option<Encoder<DirSink>>,
    rows: u64,
    done: Vec<Receipt>,
}

impl TypeFiles<'_> {
    /// The name of the next file. How many there will be is not known: numbers have five digits, and more from the 100,000th on.
    fn next_name(&self) -> String {
        let number = to_u32(self.done.len() + 1);
        shard_name(self.of_type, number, number, Compression::None)
    }

    /// Appends a row.
    fn write(&mut self, line: ExportedLine<'_>) -> io::Result<()> {
        let FileBounds { file_bytes, file_resources } = self.run.bounds;
        let len = line.len()?;
        let is_full = self.open.as_ref().is_some_and(|open| open.bytes_in() + len > file_bytes)
            || file_resources.is_some_and(|most| self.rows >= most);
        if is_full {
            self.close()?;
        }
        let name = self.next_name();
        let open = match &mut self.open {
            Some(open) => open,
            slot => {
                let sink = DirSink::within(self.run.out.clone(), self.run.sync);
                slot.insert(Encoder::begin(sink, &name, Compression::None, DigestAlgorithm::Xxh3, 1)?)
            }
        };
        line.copy(&mut |piece| open.write(piece))?;
        self.rows += 1;
        self.run.progress.add_written(len);
        Ok(())
    }

    /// Completes the open file.
    fn close(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.take() {
            let stats = open.finish()?;
            self.done.push(Receipt::new(self.next_name(), self.of_type, self.rows, stats));
            self.rows = 0;
        }
        Ok(())
    }

    /// Completes all files.
    fn finish(mut self) -> io::Result<Vec<Receipt>> {
        self.close()?;
        Ok(self.done)
    }
}
