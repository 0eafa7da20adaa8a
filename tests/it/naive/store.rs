//! The store of the naive oracle: every line of every store file in store order, and the lines about each `Type/id`.

use super::instant::Instant;
use super::line::{self, Line, Row};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// A line and its position in the store.
pub(crate) struct Entry {
    /// Path below the store, with `/`.
    pub file: String,
    /// Number of the line in its file, from 1.
    pub line: u64,
    /// Byte offset of the line in the decoded file, behind a byte order mark at the file's start.
    pub offset: u64,
    /// The line as an export writes it, without newline.
    pub bytes: Vec<u8>,
    pub what: Line,
}

/// The lines about one `Type/id`, as indices into the store's entries, in store order.
#[derive(Default)]
pub(crate) struct Entity {
    pub versions: Vec<usize>,
    pub tombstones: Vec<Tombstone>,
}

/// A tombstone with a date; one without a date deletes nothing and is not kept.
pub(crate) struct Tombstone {
    pub index: usize,
    /// Position among the entries of its Bundle.
    pub place: usize,
    pub when: Instant,
}

pub(crate) struct Store {
    pub entries: Vec<Entry>,
    pub entities: HashMap<(String, String), Entity>,
    bases: Vec<String>,
}

impl Store {
    /// Reads a whole store; references are absolute under `bases` or relative.
    pub(crate) fn read(dir: &Path, bases: &[&str]) -> Store {
        let mut files = Vec::new();
        walk(dir, "", &mut files);
        files.sort();
        let mut store = Store {
            entries: Vec::new(),
            entities: HashMap::new(),
            bases: bases.iter().map(|base| base.trim_end_matches('/').to_string()).collect(),
        };
        for file in files {
            store.read_file(dir, &file);
        }
        store
    }

    fn read_file(&mut self, dir: &Path, file: &str) {
        let raw = std::fs::read(dir.join(file)).unwrap();
        let first = self.entries.len();
        // What a file is, its first bytes tell before its name does.
        let is_gzip = raw.starts_with(b"\x1f\x8b\x08");
        let is_zstd = raw.starts_with(b"\x28\xb5\x2f\xfd") || raw.get(1..4) == Some(b"\x2a\x4d\x18");
        let is_text = raw.trim_ascii_start().starts_with(b"{") || raw.starts_with(b"\xef\xbb\xbf");
        let named = if is_text { "" } else { file };
        let (bytes, is_torn) = match (is_gzip, is_zstd) {
            (true, _) => proven_bytes(&raw, true),
            (_, true) => proven_bytes(&raw, false),
            _ if named.ends_with(".gz") || named.ends_with(".zst") => proven_bytes(&raw, named.ends_with(".gz")),
            _ => (raw, false),
        };
        // A byte order mark at the start of the file is not part of a line; a file of nothing else has no line.
        let mut start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let mut number = 0;
        // A line that ends in a member that is not proven belongs to it.
        let lines_end = match bytes.iter().rposition(|byte| *byte == b'\n') {
            _ if !is_torn => bytes.len(),
            Some(newline) => newline + 1,
            None => start,
        };
        while start < lines_end {
            let end = bytes[start..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(bytes.len(), |start_offset| start + start_offset);
            number += 1;
            let line = bytes[start..end].strip_suffix(b"\r").unwrap_or(&bytes[start..end]);
            self.add(Entry {
                file: file.into(),
                line: number,
                offset: start as u64,
                bytes: line.into(),
                what: line::read(line),
            });
            start = end + 1;
        }
        if is_torn {
            let what = Line::Fault("not proven".into());
            let (line, offset) = (number + 1, start as u64);
            self.add(Entry { file: file.into(), line, offset, bytes: bytes[start..].into(), what });
        }
        // A file of nothing but untyped objects holds no FHIR.
        let own = &mut self.entries[first..];
        if own.iter().all(|entry| matches!(entry.what, Line::Untyped | Line::Blank)) {
            let untyped = own.iter_mut().filter(|entry| matches!(entry.what, Line::Untyped));
            untyped.for_each(|entry| entry.what = Line::NotFhir);
        }
    }

    fn add(&mut self, entry: Entry) {
        let index = self.entries.len();
        match &entry.what {
            Line::Row(row) => {
                let key = (row.resource_type.clone(), row.id.clone());
                self.entities.entry(key).or_default().versions.push(index);
            }
            Line::Tombstones { last_updated: Some(instant), urls } => {
                for (place, url) in urls.iter().enumerate() {
                    if let Some(target) = self.local(url) {
                        let tombstone = Tombstone { index, place, when: instant.clone() };
                        self.entities.entry(target).or_default().tombstones.push(tombstone);
                    }
                }
            }
            _ => {}
        }
        self.entries.push(entry);
    }

    /// The resource of the entry at an index, which must hold one.
    pub(crate) fn row(&self, index: usize) -> &Row {
        match &self.entries[index].what {
            Line::Row(row) => row,
            _ => panic!("line {index} is no row"),
        }
    }

    /// A reference without our base URL, or as it is.
    pub(crate) fn relative<'a>(&self, text: &'a str) -> Option<&'a str> {
        let ours = self.bases.iter().find_map(|base| text.strip_prefix(base.as_str())?.strip_prefix('/'));
        ours.or((!text.contains("://") || text.find('?') < text.find("://")).then_some(text))
    }

    /// Type and id of a reference that is relative or under one of our base URLs, without a version; `None` for others.
    pub(crate) fn local(&self, text: &str) -> Option<(String, String)> {
        let ours = self.bases.iter().find_map(|base| text.strip_prefix(base.as_str())?.strip_prefix('/'));
        let parts: Vec<&str> = ours.unwrap_or(text).split('/').collect();
        let (name, id) = match parts[..] {
            [name, id] => (name, id),
            [name, id, "_history", version] if line::is_r4_id(version) => (name, id),
            _ => return None,
        };
        (line::is_type(name) && line::is_id(id)).then(|| (name.to_string(), id.to_string()))
    }

    /// The id of a reference to a Patient of this store; `None` for others.
    pub(crate) fn local_patient(&self, text: &str) -> Option<String> {
        self.local(text).filter(|(name, _)| name == "Patient").map(|(_, id)| id)
    }
}

/// The bytes of the gzip members or zstd frames before the first whose checksum fails, that is cut off, or that is none;
/// and whether there is such a one.
fn proven_bytes(stored: &[u8], is_gzip: bool) -> (Vec<u8>, bool) {
    let (mut bytes, mut rest) = (Vec::new(), stored);
    while !rest.is_empty() {
        let mut member = Vec::new();
        let read = if is_gzip {
            // Bits of the flags that no gzip has: the library passes over them.
            let has_unknown_flags = rest.get(3).is_some_and(|flags| flags & 0xe0 != 0);
            let mut decoder = flate2::bufread::GzDecoder::new(rest);
            let read = decoder.read_to_end(&mut member);
            rest = decoder.into_inner();
            rest = &rest[rest.iter().take_while(|byte| **byte == 0).count()..];
            read.is_ok() && !has_unknown_flags
        } else {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(rest).unwrap().single_frame();
            let read = decoder.read_to_end(&mut member);
            rest = decoder.finish();
            read.is_ok()
        };
        if !read {
            return (bytes, true);
        }
        bytes.extend(member);
    }
    (bytes, false)
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        if name.starts_with('.') || kind.is_symlink() {
            continue;
        }
        let path = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if [".ndjson", ".ndjson.gz", ".ndjson.zst"].iter().any(|suffix| name.ends_with(suffix)) {
            files.push(path);
        }
    }
}
