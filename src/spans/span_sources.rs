//! The store files of spans: opened by name, and compared with what they were when the plan was made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::codec::compression::{Compression, SeekPoint};
use crate::ids::FileId;
use crate::spans::span_file::{SpanFacts, SpanSource};
use crate::store::file_name::path_of;
use crate::store::packed::seek_table::{SeekTable, TableError};
use crate::store::source_files::SourceFiles;
use crate::sys::access::Access;
use crate::sys::regular_file::Links;
use crate::sys::store_file::{FileStamp, StoreFile, StoreFileError};

/// Why the store files of spans cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpanSourceError {
    /// A file is another one, or has other bytes, than when the plan was made.
    #[error("{} is not what it was when the plan was made; make a new plan", path.display())]
    Changed {
        /// The store file.
        path: PathBuf,
    },
    /// Two files of spans say different things of one store file.
    #[error("two files of spans are not of one plan: they disagree on {}; make a new plan", path.display())]
    Disagree {
        /// The store file.
        path: PathBuf,
    },
    /// A file cannot be opened.
    #[error(transparent)]
    Open(#[from] StoreFileError),
}

/// Store files of the spans of one or several output files, open.
pub(crate) struct SpanSources {
    /// In the order of the store, which is that of their names.
    files: Vec<SpanSourceFile>,
}

/// A store file and what is read of it.
struct SpanSourceFile {
    known: SpanSource,
    source: StoreFile,
    /// Its seek table, once it was needed; `None` if it has none that can be used.
    table: OnceLock<Option<Box<SeekTable>>>,
}

impl SpanSources {
    /// Opens the store files of these spans below `root`.
    ///
    /// # Errors
    /// [`SpanSourceError`]: one of them is missing, or not what it was.
    pub(crate) fn open(
        root: &Path,
        access: Access,
        links: Links,
        facts: &[&SpanFacts],
    ) -> Result<SpanSources, SpanSourceError> {
        let mut known: Vec<&SpanSource> = facts.iter().flat_map(|facts| &facts.files).collect();
        known.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        known.dedup();
        if let Some(pair) = known.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(SpanSourceError::Disagree { path: root.join(path_of(&pair[0].name)) });
        }
        let open = |known: &SpanSource| {
            let path = root.join(path_of(&known.name));
            let source = StoreFile::open_one_of_many(&path, access, links, true, None)?;
            let file = SpanSourceFile { known: known.clone(), source, table: OnceLock::new() };
            match is_same(&known.stamp, &file.source.stamp()) && known.packed == file.table().is_some() {
                true => Ok(file),
                false => Err(SpanSourceError::Changed { path }),
            }
        };
        Ok(SpanSources { files: known.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The numbers of the files that `facts` names, in its order.
    pub(crate) fn numbers(&self, facts: &SpanFacts) -> Vec<FileId> {
        let place = |source: &SpanSource| {
            let found = self.files.binary_search_by(|file| file.known.name.as_bytes().cmp(source.name.as_bytes()));
            FileId::of(found.unwrap_or(self.files.len()))
        };
        facts.files.iter().map(place).collect()
    }

    /// Looks whether the files are still what they were, by their names.
    ///
    /// # Errors
    /// As [`SpanSources::open`].
    pub(crate) fn verify_unchanged(&self) -> Result<(), SpanSourceError> {
        self.files.iter().try_for_each(|file| {
            let path = file.source.path();
            let changed = || SpanSourceError::Changed { path: path.to_path_buf() };
            let now = std::fs::metadata(path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => changed(),
                _ => StoreFileError::Open { path: path.to_path_buf(), source }.into(),
            })?;
            match is_same(&file.known.stamp, &FileStamp::of_metadata(&now)) {
                true => Ok(()),
                false => Err(changed()),
            }
        })
    }
}

impl SpanSourceFile {
    /// The seek table of a file that is compressed and has one.
    fn table(&self) -> Option<&SeekTable> {
        if self.known.compression == Compression::None {
            return None;
        }
        let open = || SeekTable::open(&self.source).map_err(|_: TableError| ()).ok().flatten().map(Box::new);
        self.table.get_or_init(open).as_deref()
    }
}

/// Whether two stamps are of the same bytes of one file. The device is passed over: a shared file system has another number on
/// each machine.
fn is_same(a: &FileStamp, b: &FileStamp) -> bool {
    FileStamp { device: 0, ..*a } == FileStamp { device: 0, ..*b }
}

impl SourceFiles for SpanSources {
    fn source(&self, file: FileId) -> Result<&StoreFile, StoreFileError> {
        match self.files.get(file.index()) {
            Some(file) => Ok(&file.source),
            None => Err(StoreFileError::Replaced { path: PathBuf::new(), held_max: 0 }),
        }
    }

    fn compression(&self, file: FileId) -> Compression {
        self.files.get(file.index()).map_or(Compression::None, |file| file.known.compression)
    }

    fn packed(&self, file: FileId) -> Option<&SeekTable> {
        self.files.get(file.index())?.table()
    }

    fn restart_before(&self, file: FileId, offset: u64) -> SeekPoint {
        let start = SeekPoint { compressed: 0, uncompressed: 0 };
        let Some(table) = self.packed(file) else { return start };
        let frame = table.frame_at(offset);
        match frame < table.frames() {
            true => {
                let frame = table.frame(frame);
                SeekPoint { compressed: frame.compressed, uncompressed: frame.uncompressed }
            }
            false => start,
        }
    }
}
