//! A file of spans: the rows of one output file.
//!
//! ```text
//! head        16 bytes   magic, format version (u32), 0 (u32)
//! blocks                 as `span_block` codes them, one behind the other, of 4,096 spans each but the last
//! directory   48 bytes a block: offset, hash, first row, first byte of the output (u64 each), bytes, spans (u32 each), 0 (u64)
//! facts                  JSON: plan, shard, sums, store files
//! tail        48 bytes   offset of the directory, blocks, bytes of the facts, hash of directory and facts, hash of the head and
//!                        of the tail before this (u64 each), magic
//! ```
//!
//! Numbers are little-endian, hashes xxh3 of 64 bits. It is read as if a stranger had written it: what does not fit is refused,
//! and a span of it lies in a file that its facts name.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::codec::compression::Compression;
use crate::error::JournalError;
use crate::hash::{xxh3_64, xxh3_64_with_seed};
use crate::ids::FileId;
use crate::limits::RECORD_BYTES_MAX;
use crate::spans::RowSpan;
use crate::spans::span_block::{BLOCK_SPANS, decode, encode};
use crate::store::walk::is_store_name;
use crate::sys::store_file::FileStamp;

/// First and last bytes of a file of spans.
pub(crate) const MAGIC: [u8; 8] = *b"outspans";
/// Version of the format.
pub(crate) const SPAN_FORMAT: u32 = 1;
const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 48;
const TAIL_BYTES: usize = 48;
/// Most bytes of a coded block: what zstd makes of bytes that it cannot compress is little longer than they are.
const CODED_BYTES_MAX: u64 = 128 << 10;

/// What a file of spans says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpanFacts {
    /// Name of the plan.
    pub plan_id: String,
    /// Place of the output file in the plan, from 0.
    pub shard: u32,
    /// Number of rows.
    pub rows: u64,
    /// Bytes of the rows as they are in the store, with a newline each.
    pub bytes: u64,
    /// The store files, in the order of the store.
    pub files: Vec<SpanSource>,
}

/// A store file that rows are taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpanSource {
    /// Its name, relative to the store.
    pub name: String,
    /// What it was when the plan was made.
    pub stamp: FileStamp,
    /// Its coding.
    pub compression: Compression,
    /// Whether it is a packed file, whose frames its seek table lists.
    pub packed: bool,
}

/// Where a block is, and what is before it.
#[derive(Clone, Copy)]
struct BlockEntry {
    offset: u64,
    hash: u64,
    /// Rows before it.
    rows: u64,
    /// Bytes of these, with a newline each.
    bytes: u64,
    coded: u32,
    spans: u32,
}

impl BlockEntry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let words = [self.offset, self.hash, self.rows, self.bytes];
        bytes[..32].as_chunks_mut::<8>().0.iter_mut().zip(words).for_each(|(place, word)| *place = word.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.coded.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.spans.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> BlockEntry {
        let long = |at: usize| word_at(bytes, at);
        let short = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        BlockEntry {
            offset: long(0),
            hash: long(8),
            rows: long(16),
            bytes: long(24),
            coded: short(32),
            spans: short(36),
        }
    }
}

/// The little-endian word at a place.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The first bytes of a file of spans.
fn head() -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&SPAN_FORMAT.to_le_bytes());
    head
}

/// Writes a file of spans, which come in the order of the store.
pub(crate) struct SpanWriter<W: Write> {
    out: W,
    offset: u64,
    pending: Vec<RowSpan>,
    blocks: Vec<BlockEntry>,
    /// Store files so far; spans have their places in it.
    files: Vec<FileId>,
    rows: u64,
    bytes: u64,
}

impl<W: Write> SpanWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn begin(mut out: W) -> io::Result<SpanWriter<W>> {
        out.write_all(&head())?;
        let pending = Vec::with_capacity(BLOCK_SPANS);
        let offset = HEAD_BYTES as u64;
        Ok(SpanWriter { out, offset, pending, blocks: Vec::new(), files: Vec::new(), rows: 0, bytes: 0 })
    }

    /// Adds a span, behind all others.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn push(&mut self, span: RowSpan) -> io::Result<()> {
        if self.files.last() != Some(&span.file) {
            self.files.push(span.file);
        }
        self.pending.push(RowSpan { file: FileId::of(self.files.len() - 1), ..span });
        match self.pending.len() == BLOCK_SPANS {
            true => self.write_block(),
            false => Ok(()),
        }
    }

    /// Writes the pending spans.
    fn write_block(&mut self) -> io::Result<()> {
        let coded = encode(&self.pending)?;
        let (offset, rows, bytes) = (self.offset, self.rows, self.bytes);
        let entry = BlockEntry {
            offset,
            hash: xxh3_64(&coded),
            rows,
            bytes,
            coded: coded.len() as u32,
            spans: self.pending.len() as u32,
        };
        self.out.write_all(&coded)?;
        self.offset += coded.len() as u64;
        self.blocks.push(entry);
        for span in self.pending.drain(..) {
            self.rows += u64::from(span.rows);
            self.bytes += span.length + 1;
        }
        Ok(())
    }

    /// Ends the file: the spans of an output file `shard` of a plan. `source` tells what a store file is.
    ///
    /// # Errors
    /// The writer's; those of `source`.
    pub(crate) fn finish(
        mut self,
        plan_id: &str,
        shard: u32,
        source: &dyn Fn(FileId) -> io::Result<SpanSource>,
    ) -> io::Result<(W, SpanFacts, String)> {
        if !self.pending.is_empty() {
            self.write_block()?;
        }
        let files = self.files.iter().map(|file| source(*file)).collect::<io::Result<_>>()?;
        let facts = SpanFacts { plan_id: plan_id.to_string(), shard, rows: self.rows, bytes: self.bytes, files };
        let mut end: Vec<u8> = self.blocks.iter().flat_map(|entry| entry.to_bytes()).collect();
        let directory = end.len();
        serde_json::to_writer(&mut end, &facts)?;
        let mut tail = Vec::with_capacity(TAIL_BYTES);
        let end_hash = xxh3_64(&end);
        for word in [self.offset, self.blocks.len() as u64, (end.len() - directory) as u64, end_hash] {
            tail.extend_from_slice(&word.to_le_bytes());
        }
        tail.extend_from_slice(&hash_of_frame(&head(), &tail).to_le_bytes());
        tail.extend_from_slice(&MAGIC);
        end.extend_from_slice(&tail);
        self.out.write_all(&end)?;
        Ok((self.out, facts, content_id(end_hash, self.rows)))
    }
}

/// Hash of the head and the first part of the tail.
fn hash_of_frame(head: &[u8], tail: &[u8]) -> u64 {
    xxh3_64_with_seed(tail, xxh3_64(head))
}

/// A file of spans, open: what it says of itself; its blocks are read in turn.
pub(crate) struct SpanFile {
    file: File,
    path: PathBuf,
    /// What it says of itself.
    pub(crate) facts: SpanFacts,
    blocks: Vec<BlockEntry>,
    /// Hash of directory and facts; the directory has that of each block.
    end_hash: u64,
}

/// See [`SpanFile::content_id`].
fn content_id(end_hash: u64, rows: u64) -> String {
    format!("{end_hash:016x}-{rows}")
}

impl SpanFile {
    /// Opens a file of spans; `path` is its name in messages.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when it is none, of another version, or not as it was written; [`JournalError::Io`].
    pub(crate) fn open(file: File, path: &Path) -> Result<SpanFile, JournalError> {
        let damaged = |reason: &str| JournalError::Damaged { path: path.to_path_buf(), reason: reason.to_string() };
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let len = file.metadata().map_err(io)?.len();
        let tail_at = len.checked_sub(TAIL_BYTES as u64).filter(|at| *at >= HEAD_BYTES as u64);
        let tail_at = tail_at.ok_or_else(|| damaged("it is too short for a file of spans"))?;
        let (mut first, mut tail) = ([0; HEAD_BYTES], [0; TAIL_BYTES]);
        file.read_exact_at(&mut first, 0).map_err(io)?;
        file.read_exact_at(&mut tail, tail_at).map_err(io)?;
        if first[..8] != MAGIC {
            return Err(damaged("it is no file of spans"));
        }
        if first != head() {
            return Err(damaged("it is a file of spans of another version; plan again with this one"));
        }
        if tail[40..] != MAGIC || word_at(&tail, 32) != hash_of_frame(&first, &tail[..32]) {
            return Err(damaged("its end is not as it was written"));
        }
        let [directory_at, blocks, facts_len] = [0, 8, 16].map(|at| word_at(&tail, at));
        let directory_len = blocks.checked_mul(ENTRY_BYTES as u64);
        let end_len = directory_len.and_then(|len| len.checked_add(facts_len)).unwrap_or(u64::MAX);
        if end_len > RECORD_BYTES_MAX || directory_at.checked_add(end_len) != Some(tail_at) {
            return Err(damaged("its parts do not come to its length"));
        }
        let mut end = vec![0; end_len as usize];
        file.read_exact_at(&mut end, directory_at).map_err(io)?;
        if xxh3_64(&end) != word_at(&tail, 24) {
            return Err(damaged("its directory is not as it was written"));
        }
        let (directory, facts) = end.split_at((end_len - facts_len) as usize);
        let facts: SpanFacts = serde_json::from_slice(facts).map_err(|_| damaged("its facts cannot be read"))?;
        let blocks: Vec<BlockEntry> =
            directory.as_chunks::<ENTRY_BYTES>().0.iter().map(BlockEntry::from_bytes).collect();
        let mut offset = HEAD_BYTES as u64;
        for block in &blocks {
            let is_sound = block.offset == offset
                && u64::from(block.coded) <= CODED_BYTES_MAX
                && (1..=BLOCK_SPANS as u32).contains(&block.spans);
            if !is_sound {
                return Err(damaged("its blocks do not follow one another"));
            }
            offset += u64::from(block.coded);
        }
        // Ascending by name, as the store is: no file comes twice.
        let are_named = facts.files.iter().all(|source| is_store_name(&source.name))
            && facts.files.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes());
        if offset != directory_at || !are_named {
            return Err(damaged("its facts are not as outpour writes them"));
        }
        Ok(SpanFile { file, path: path.to_path_buf(), facts, blocks, end_hash: word_at(&tail, 24) })
    }

    /// A hash of what the file says, blocks included: no other file of spans has it.
    pub(crate) fn content_id(&self) -> String {
        content_id(self.end_hash, self.facts.rows)
    }

    /// Number of spans.
    pub(crate) fn spans(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.spans)).sum()
    }

    /// All spans, in the order of the store; the files of `numbers` stand for those of the facts.
    pub(crate) fn iter<'a>(&'a self, numbers: &'a [FileId]) -> SpanIter<'a> {
        SpanIter { of: self, numbers, next: 0, block: Vec::new().into_iter(), failed: false }
    }

    /// Reads a block and checks it.
    fn read_block(&self, number: usize) -> Result<Vec<RowSpan>, JournalError> {
        let entry = &self.blocks[number];
        let damaged = |reason: &str| JournalError::Damaged { path: self.path.clone(), reason: reason.to_string() };
        let mut coded = vec![0; entry.coded as usize];
        let read = self.file.read_exact_at(&mut coded, entry.offset);
        read.map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        if xxh3_64(&coded) != entry.hash {
            return Err(damaged("a block is not as it was written"));
        }
        let spans = decode(&coded, entry.spans as usize, self.facts.files.len()).map_err(damaged)?;
        let next =
            self.blocks.get(number + 1).map_or((self.facts.rows, self.facts.bytes), |next| (next.rows, next.bytes));
        let sums = spans.iter().try_fold((entry.rows, entry.bytes), |(rows, bytes), span| {
            Some((rows.checked_add(u64::from(span.rows))?, bytes.checked_add(span.length + 1)?))
        });
        match sums == Some(next) && (number > 0 || (entry.rows, entry.bytes) == (0, 0)) {
            true => Ok(spans),
            false => Err(damaged("its spans do not come to its sums")),
        }
    }
}

/// The spans of a file. Ends after an error.
pub(crate) struct SpanIter<'a> {
    of: &'a SpanFile,
    numbers: &'a [FileId],
    next: usize,
    block: std::vec::IntoIter<RowSpan>,
    failed: bool,
}

impl Iterator for SpanIter<'_> {
    type Item = Result<RowSpan, JournalError>;

    fn next(&mut self) -> Option<Result<RowSpan, JournalError>> {
        loop {
            if let Some(span) = self.block.next() {
                let file = self.numbers.get(span.file.index()).copied().unwrap_or(span.file);
                return Some(Ok(RowSpan { file, ..span }));
            }
            if self.failed || self.next == self.of.blocks.len() {
                return None;
            }
            self.next += 1;
            match self.of.read_block(self.next - 1) {
                Ok(spans) => self.block = spans.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    /// A file with these spans, all but the last block of which are full.
    fn written(spans: &[RowSpan]) -> Vec<u8> {
        let mut writer = SpanWriter::begin(Vec::new()).unwrap();
        spans.iter().for_each(|span| writer.push(*span).unwrap());
        let source = |file: FileId| {
            let name = format!("{:05}.ndjson", file.0);
            Ok(SpanSource { name, stamp: FileStamp::default(), compression: Compression::None, packed: false })
        };
        writer.finish("0123", 7, &source).unwrap().0
    }

    fn opened(bytes: &[u8]) -> Result<SpanFile, JournalError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        SpanFile::open(file, Path::new("spans/7"))
    }

    /// What is read of it, up to the first error.
    fn read(bytes: &[u8]) -> Result<Vec<RowSpan>, JournalError> {
        let file = opened(bytes)?;
        let numbers: Vec<FileId> = (0..file.facts.files.len()).map(|i| FileId::of(2 * i)).collect();
        file.iter(&numbers).collect()
    }

    fn spans(count: u32) -> Vec<RowSpan> {
        let span = |i: u32| RowSpan {
            file: FileId(2 * (i / 3000)),
            start: u64::from(i) * 1000,
            length: 500 + u64::from(i % 100),
            rows: 1 + i % 3,
            spaced: i.is_multiple_of(7),
            begins_segment: i.is_multiple_of(1000),
        };
        (0..count).map(span).collect()
    }

    #[test]
    fn files_are_read_as_written() {
        for count in [1, 4096, 4097, 10_000] {
            let spans = spans(count);
            let bytes = written(&spans);
            assert_eq!(read(&bytes).unwrap(), spans, "{count}");
            let file = opened(&bytes).unwrap();
            assert_eq!(file.facts.rows, spans.iter().map(|span| u64::from(span.rows)).sum::<u64>());
            assert_eq!(file.facts.bytes, spans.iter().map(|span| span.length + 1).sum::<u64>());
            assert_eq!(
                (file.spans(), file.facts.shard, file.facts.files.len()),
                (count.into(), 7, (count as usize).div_ceil(3000))
            );
        }
    }

    /// Every byte flipped, every shorter file: refused.
    #[test]
    fn no_other_bytes_are_read() {
        let spans = spans(3100);
        let bytes = written(&spans);
        let step = bytes.len().div_ceil(3000).max(1);
        for at in (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(900)..bytes.len()) {
            let mut other = bytes.clone();
            other[at] ^= 1 << (at % 8);
            assert!(read(&other).is_err(), "byte {at} of {}", bytes.len());
            assert!(read(&bytes[..at]).is_err(), "{at} of {}", bytes.len());
        }
        assert!(read(&[bytes.as_slice(), b"\0"].concat()).is_err());
    }
}
