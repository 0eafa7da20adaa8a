//! Lines that come one by one, made durable in the store group by group.
//!
//! Every writer has files of its own, made under names that nobody else had, so that several may append at once. A file is
//! only ever written at its end, by the process that made it: what a killed one left of a line stays the unfinished end
//! of its file, and the next process begins another. A line counts as acknowledged once it, and the name of its file,
//! are on the disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::codec::byte_order_mark::without_mark;
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::import::problem::{ImportError, ImportProblem, ProblemLog};
use crate::limits::{APPEND_GROUP_BYTES, APPEND_LINE_BYTES_MAX};
use crate::simd::Kernel;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;

/// Name of the input in messages.
const INPUT: &str = "standard input";

/// How lines are appended.
pub(crate) struct AppendOptions {
    /// Start of the names of its files, which tells it from every other writer.
    pub name: String,
    /// Bytes from which on a file is followed by another.
    pub rotate: u64,
    /// Whether groups are synced to the disk.
    pub sync: FileSync,
    /// The scanner's kernel.
    pub kernel: Kernel,
}

/// Appends lines to a store.
pub(crate) struct AppendWriter {
    store: Directory,
    options: AppendOptions,
    extractor: Extractor,
    /// The file that is written, and its length.
    file: Option<(File, u64)>,
    /// Number of the last file.
    number: u32,
    /// Whole lines that are not on the disk yet, and their number.
    group: Vec<u8>,
    group_lines: u64,
    /// The start of a line whose end has not come; nothing of it once it is too long.
    rest: Vec<u8>,
    rest_bytes: u64,
    /// Offset of the next byte of the input, and number of the next line.
    offset: u64,
    line: u64,
    /// Lines on the disk.
    pub durable: u64,
    /// Names of the files that were made.
    pub files: Vec<String>,
    /// Lines that are none.
    pub problems: ProblemLog,
}

impl AppendWriter {
    /// A writer to a store, whose directory is there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(store: &Path, options: AppendOptions) -> Result<AppendWriter, ImportError> {
        Ok(AppendWriter {
            store: Directory::open(store).map_err(ImportError::read(store))?,
            extractor: Extractor::new(options.kernel, Validate::Full),
            options,
            file: None,
            number: 0,
            group: Vec::new(),
            group_lines: 0,
            rest: Vec::new(),
            rest_bytes: 0,
            offset: 0,
            line: 1,
            durable: 0,
            files: Vec::new(),
            problems: ProblemLog::default(),
        })
    }

    /// Takes the next bytes of the input. Whole lines are checked; those that are none are problems. What is gathered is
    /// committed once it is enough.
    ///
    /// # Errors
    /// If a group cannot be written.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), ImportError> {
        let mut left = piece;
        while let Some(end) = memchr::memchr(b'\n', left) {
            let (line, behind) = (&left[..end], &left[end + 1..]);
            left = behind;
            match self.rest_bytes {
                0 => self.take(line),
                _ => {
                    self.hold(line);
                    let held = std::mem::take(&mut self.rest);
                    self.take_held(&held);
                }
            }
            if self.group.len() >= APPEND_GROUP_BYTES {
                self.commit()?;
            }
        }
        self.hold(left);
        Ok(())
    }

    /// Whether whole lines wait to be committed.
    pub(crate) fn is_waiting(&self) -> bool {
        self.group_lines > 0
    }

    /// Ends the input: a last line without a line feed is taken if it is whole.
    ///
    /// # Errors
    /// If a group cannot be written.
    pub(crate) fn finish(&mut self) -> Result<(), ImportError> {
        if self.rest_bytes > 0 {
            let held = std::mem::take(&mut self.rest);
            self.take_held(&held);
        }
        self.commit()
    }

    /// Keeps the start of a line until its end comes.
    fn hold(&mut self, start: &[u8]) {
        self.rest_bytes += start.len() as u64;
        match self.rest_bytes > APPEND_LINE_BYTES_MAX as u64 {
            true => self.rest = Vec::new(),
            false => self.rest.extend_from_slice(start),
        }
    }

    /// Checks the line that was kept.
    fn take_held(&mut self, held: &[u8]) {
        let bytes = std::mem::take(&mut self.rest_bytes);
        if bytes == held.len() as u64 {
            return self.take(held);
        }
        let reason =
            format!("the line is longer than {APPEND_LINE_BYTES_MAX} bytes; put its resource into a file of the store");
        self.refuse(0, reason);
        (self.offset, self.line) = (self.offset + bytes + 1, self.line + 1);
    }

    /// Checks a line without its line feed, and adds it to the group if it is one.
    fn take(&mut self, line: &[u8]) {
        let whole = if self.offset == 0 { without_mark(line) } else { line };
        let text = whole.strip_suffix(b"\r").unwrap_or(whole);
        if !text.trim_ascii().is_empty() {
            match self.extractor.extract(text).map(drop) {
                Ok(()) => {
                    self.group.extend_from_slice(whole);
                    self.group.push(b'\n');
                    self.group_lines += 1;
                }
                Err(fault) => self.refuse(fault.at, fault.kind.to_string()),
            }
        }
        (self.offset, self.line) = (self.offset + line.len() as u64 + 1, self.line + 1);
    }

    /// Adds a problem of the current line.
    fn refuse(&mut self, at: u64, reason: String) {
        let (document, offset) = (Some(self.line), self.offset + at);
        self.problems.push(ImportProblem { source: INPUT.to_string(), document, entry: None, offset, reason });
    }

    /// Writes the lines that wait, and syncs them.
    ///
    /// # Errors
    /// If they cannot be written or synced: then it is not known how much of them is, and nothing more can be appended.
    pub(crate) fn commit(&mut self) -> Result<(), ImportError> {
        if self.group_lines == 0 {
            return Ok(());
        }
        let len = self.group.len() as u64;
        if self.file.as_ref().is_some_and(|(_, written)| written + len > self.options.rotate) {
            self.file = None;
        }
        let is_new = self.file.is_none();
        if is_new {
            self.begin_file()?;
        }
        let path = self.path();
        let (file, written) = self.file.as_mut().expect("it was begun");
        if let Err(error) = file.write_all(&self.group) {
            // What was written of the group is not acknowledged: the file ends where the last group did, on a full disk, too.
            file.set_len(*written).ok();
            return Err(ImportError::write(&path)(error));
        }
        *written += len;
        if self.options.sync == FileSync::Yes {
            file.sync_data().map_err(ImportError::write(&path))?;
            if is_new {
                self.store.sync().map_err(ImportError::write(&path))?;
            }
        }
        self.durable += self.group_lines;
        self.group_lines = 0;
        self.group.clear();
        Ok(())
    }

    /// Makes the next file, under a name that nobody has.
    fn begin_file(&mut self) -> Result<(), ImportError> {
        loop {
            self.number += 1;
            let name = format!("{}-{:05}.ndjson", self.options.name, self.number);
            match self.store.create_new(&name) {
                Ok(file) => {
                    self.file = Some((file, 0));
                    self.files.push(name);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ImportError::write(&self.store.path().join(name))(error)),
            }
        }
    }

    /// Path of the current file, for messages.
    fn path(&self) -> PathBuf {
        self.store.path().join(self.files.last().map_or("", String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(rotate: u64) -> AppendOptions {
        AppendOptions { name: "append-1".to_string(), rotate, sync: FileSync::No, kernel: Kernel::detect() }
    }

    fn stored(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let texts = names.iter().map(|path| std::fs::read_to_string(path).unwrap());
        texts.flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()).collect()
    }

    proptest! {
        /// However the input is cut, and wherever files end: good lines are stored in their order, others are problems.
        #[test]
        fn lines_are_stored_or_told(
            lines in proptest::collection::vec(prop_oneof![
                "[a-z]{1,20}".prop_map(|id| format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#)),
                Just(String::new()), Just("{".to_string()), Just(r#"{"resourceType":"Patient"}"#.to_string()),
            ], 0..20),
            cut in 1usize..50, rotate in 0u64..300, ends: bool, commits: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = AppendWriter::open(dir.path(), options(rotate)).unwrap();
            let mut text = lines.join("\n");
            text.push_str(if ends { "\n" } else { "" });
            for piece in text.as_bytes().chunks(cut) {
                writer.feed(piece).unwrap();
                if commits {
                    writer.commit().unwrap();
                }
            }
            writer.finish().unwrap();
            let good: Vec<String> = lines.iter().filter(|line| line.contains("id")).cloned().collect();
            let bad = lines.iter().filter(|line| !line.is_empty() && !line.contains("\"id")).count() as u64;
            prop_assert_eq!(stored(dir.path()), good.iter().filter(|line| line.contains("\"id")).cloned().collect::<Vec<_>>());
            prop_assert_eq!(writer.problems.count, bad);
            for problem in &writer.problems.first {
                let number = problem.document.unwrap() as usize;
                prop_assert!(!lines[number - 1].contains("\"id\""), "{}", problem);
            }
        }
    }

    /// Two writers of one name do not touch each other's files, and a torn end of an earlier one is left as it is.
    #[test]
    fn files_are_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("append-1-00001.ndjson"), "{\"resourceType\":").unwrap();
        let line = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
        let mut writers = [(); 2].map(|()| AppendWriter::open(dir.path(), options(1 << 20)).unwrap());
        for (number, writer) in writers.iter_mut().enumerate() {
            writer.feed(line(&format!("p{number}")).as_bytes()).unwrap();
            writer.finish().unwrap();
            assert_eq!((writer.durable, writer.files.len()), (1, 1));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        let torn = std::fs::read_to_string(dir.path().join("append-1-00001.ndjson")).unwrap();
        assert_eq!(torn, "{\"resourceType\":");
    }
}
