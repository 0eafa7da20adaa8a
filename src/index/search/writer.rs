//! Writes sections of search columns to new files beside those that are there, and joins small files.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::index::dir::{IndexLock, PART};
use crate::index::search::column_file::{ColumnFileWriter, SegmentKey};
use crate::index::search::columns::{COLUMN_FILES, ParameterColumn, SearchColumns, file_name, number_of};
use crate::index::segment_files::{ContainerUse, copied_containers};
use crate::index::snapshot::Index;

/// A writer of columns. It has their lock, so there is one at a time.
pub(crate) struct ColumnWriter<'a> {
    columns: &'a SearchColumns,
    /// What the index has: anything else is dropped when files are joined.
    live: HashSet<SegmentKey>,
    files: Vec<NewFile<'a>>,
    _lock: IndexLock,
}

/// The new file of a parameter.
struct NewFile<'a> {
    name: ParameterName,
    parameter: &'a SearchParameter,
    definition: u64,
    /// Name of the file once it is whole.
    file: String,
    writer: Mutex<Option<ColumnFileWriter>>,
    /// Whether it could not be written.
    is_given_up: AtomicBool,
}

impl<'a> ColumnWriter<'a> {
    /// A writer of columns of some parameters; `None` if another process writes columns and `waits` is not set.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub(crate) fn begin(
        index: &'a Index,
        parameters: &[(ParameterName, &'a SearchParameter)],
        waits: bool,
    ) -> io::Result<Option<ColumnWriter<'a>>> {
        let columns = index.search();
        let Some(lock) = columns.dir.lock_columns(waits)? else { return Ok(None) };
        let names = columns.dir.names_with(COLUMN_FILES);
        // Nobody else writes: these are of writers that did not end.
        names.iter().filter(|name| name.ends_with(PART)).for_each(|name| columns.dir.remove(name));
        let next = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0) + 1;
        let of = |(name, parameter): &(ParameterName, &'a SearchParameter)| NewFile {
            name: *name,
            parameter,
            definition: columns.definition(*name, parameter),
            file: file_name(*name, next),
            writer: Mutex::new(None),
            is_given_up: AtomicBool::new(false),
        };
        let live = index.segments().iter().map(|segment| SegmentKey::of(segment.head())).collect();
        Ok(Some(ColumnWriter { columns, live, files: parameters.iter().map(of).collect(), _lock: lock }))
    }

    /// Adds the section of a segment to the column of the parameter of this place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&self, place: usize, key: &SegmentKey, section: &[u8]) -> io::Result<()> {
        let NewFile { definition, file, writer, .. } = &self.files[place];
        let mut writer = writer.lock().expect("no thread panics with the lock");
        let writer = match &mut *writer {
            Some(writer) => writer,
            none => none.insert(self.begin_file(file, *definition)?),
        };
        writer.add(key, section)
    }

    /// As [`ColumnWriter::add`], for one whose columns are not needed: if it cannot be written, nothing of its parameter is.
    pub(crate) fn add_or_give_up(&self, place: usize, key: &SegmentKey, section: &[u8]) {
        let file = &self.files[place];
        if !file.is_given_up.load(Relaxed) && self.add(place, key, section).is_err() {
            file.is_given_up.store(true, Relaxed);
            self.discard(file);
        }
    }

    /// As [`ColumnWriter::finish`]: what cannot be written is given up.
    pub(crate) fn finish_or_give_up(self) {
        for file in &self.files {
            let is_begun = file.writer.lock().expect("no thread panics with the lock").is_some();
            if is_begun && (file.is_given_up.load(Relaxed) || self.finish_file(file).is_err()) {
                self.discard(file);
            }
        }
    }

    /// Removes what was written of a file.
    fn discard(&self, file: &NewFile<'_>) {
        file.writer.lock().expect("no thread panics with the lock").take();
        self.columns.dir.remove(&format!("{}{PART}", file.file));
    }

    /// Begins a file under the name that it has until it is whole.
    fn begin_file(&self, file: &str, definition: u64) -> io::Result<ColumnFileWriter> {
        ColumnFileWriter::begin(self.columns.dir.create(&format!("{file}{PART}"))?, definition)
    }

    /// Gives the new files their names, and joins small files. A parameter without new sections gets a file, too, so that its
    /// column is known.
    ///
    /// # Errors
    /// When a file cannot be written; those that are whole stand.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| self.finish_file(file).inspect_err(|_| self.discard(file)))
    }

    /// Gives the new file of a parameter its name.
    fn finish_file(&self, new: &NewFile<'_>) -> io::Result<()> {
        let NewFile { name, parameter, definition, file, writer, .. } = new;
        let writer = writer.lock().expect("no thread panics with the lock").take();
        let has_files = !self.columns.column(*name, parameter).files.is_empty();
        let writer = match writer {
            Some(writer) => writer,
            None if has_files => return Ok(()),
            None => self.begin_file(file, *definition)?,
        };
        writer.finish()?;
        self.columns.dir.rename(&format!("{file}{PART}"), file)?;
        self.columns.reopen(*name);
        self.join_files(*name, &self.columns.column(*name, parameter), *definition)?;
        self.columns.reopen(*name);
        Ok(())
    }

    /// Copies what is alive of worn and of many small files into one, as segments are, and removes files that are of no use.
    fn join_files(&self, name: ParameterName, column: &ParameterColumn, definition: u64) -> io::Result<()> {
        // 1. What is alive in each file: sections of segments of the index that no newer file has.
        let mut seen = HashSet::new();
        let mut alive: Vec<Vec<SegmentKey>> = Vec::new();
        for (_, file) in column.files.iter().rev() {
            alive.push(file.keys().filter(|key| self.live.contains(key) && seen.insert(**key)).copied().collect());
        }
        alive.reverse();
        let uses: Vec<ContainerUse> =
            column.files.iter().zip(&alive).map(|((_, file), keys)| file.usage(keys)).collect();
        // 2. The copy, under a number that is greater than theirs.
        let copied = copied_containers(&uses);
        let newest = column.files.last().and_then(|(file, _)| number_of(file)).unwrap_or(0);
        let target = file_name(name, newest + 1);
        if copied.contains(&true) {
            let mut writer = self.begin_file(&target, definition)?;
            for (((_, file), keys), _) in column.files.iter().zip(&alive).zip(&copied).filter(|(_, copied)| **copied) {
                for key in keys {
                    if let Some(bytes) = file.section_bytes(key) {
                        writer.add(key, bytes)?;
                    }
                }
            }
            writer.finish()?;
            self.columns.dir.rename(&format!("{target}{PART}"), &target)?;
        }
        // 3. Whatever is of this parameter and neither kept nor the copy: copied files, damaged ones, other definitions.
        let kept: HashSet<&str> = column
            .files
            .iter()
            .zip(&copied)
            .filter(|(_, copied)| !**copied)
            .map(|((file, _), _)| file.as_str())
            .collect();
        for stored in self.columns.stored().into_iter().filter(|stored| stored.name == name) {
            let is_old = |file: &&String| !kept.contains(file.as_str()) && **file != target;
            stored.files.iter().filter(is_old).for_each(|file| self.columns.dir.remove(file));
        }
        Ok(())
    }
}
