//! Copies runs of rows: neighbouring rows of a plain file in one read, rows of a decoded stream one by one.
//!
//! Which rows a shard takes is decided in `shard`; frames of packed files are copied by `frame_copy`.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::Compression;
use crate::codec::decoder::Decoder;
use crate::error::ExportError;
use crate::ids::FileId;
use crate::index::row_reader::decoder_before;
use crate::index::snapshot::Index;
use crate::limits::READ_BYTES;
use crate::progress::Progress;
use crate::spans::RowSpan;
use crate::store::packed::seek_table::SeekTable;
use crate::store::source_files::SourceFiles;
use crate::sys::store_file::StoreFile;
use crate::write::frame_copy::{FrameCopier, FrameRequest};
use crate::write::shard_output::{FailedWrite, ShardOutput};
use crate::write::sink::Sink;

/// Most bytes of a run, unless it is one row: it stays in the second-level cache between read and write. A run ends
/// earlier where its rows fill a write.
const RUN_BYTES: u64 = 512 << 10;

/// Bytes of the window on a file of several types, from which several outputs take rows.
const WINDOW_BYTES: u64 = 256 << 10;

/// Most bytes between two rows of a run: reading over a gap this short costs less than a second call.
const GAP_BYTES: u64 = 4 << 10;

/// Number of rows whose places are looked up together.
pub(crate) const ROWS_AHEAD: usize = 64;

/// A mixed file is read as a whole if at least one in so many of a segment's rows is wanted.
pub(crate) const DENSE_SHARE: usize = 4;

/// Rows of one plain file, ascending, with gaps of at most [`GAP_BYTES`]; empty when nothing is pending.
#[derive(Default)]
pub(crate) struct CopyRun {
    file: FileId,
    lines: Vec<RowSpan>,
    /// Bytes of its rows in the output, newlines included.
    bytes: u64,
    /// Numbers of the store files that the current output took rows from, in the order of the store.
    used_files: Vec<FileId>,
}

impl CopyRun {
    /// End of the last row in the file.
    fn end(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.start + line.length)
    }
    /// Start of the first row in the file.
    fn start(&self) -> u64 {
        self.lines.first().map_or(0, |line| line.start)
    }
    /// Adds a row of its file.
    #[inline]
    fn push(&mut self, line: RowSpan) {
        self.bytes += line.length + 1;
        self.lines.push(line);
    }
    /// Notes that the output takes rows from a file. Rows come in the order of the store, so that a file comes once.
    fn note_file(&mut self, file: FileId) {
        if self.used_files.last() != Some(&file) {
            self.used_files.push(file);
        }
    }
}

/// Reads rows of store files for one pass over the store.
pub(crate) struct RunReader<'a> {
    files: &'a dyn SourceFiles,
    /// Most bytes between two rows of a run.
    gap_bytes: u64,
    buffer: Vec<u8>,
    /// The compressed file that is being decoded, and its current piece.
    decoding: Option<Decoding<'a>>,
    /// Window on a plain file that several outputs take rows from: file, offset, bytes.
    window: Option<(FileId, u64, Vec<u8>)>,
    /// The plain file that a run was begun of last. Scattered rows are runs of their own, mostly of one file.
    plain: Option<(FileId, &'a StoreFile)>,
}

/// Decoder of a compressed store file, and the piece that it gave last.
struct Decoding<'a> {
    file: FileId,
    decoder: Decoder<'a>,
    /// Uncompressed offset at which decoding began.
    begun: u64,
    piece: Vec<u8>,
    /// Offset of the piece in the uncompressed file.
    piece_start: u64,
}

impl<'a> RunReader<'a> {
    /// A reader that has read nothing.
    pub(crate) fn new(files: &'a dyn SourceFiles) -> RunReader<'a> {
        RunReader { files, gap_bytes: GAP_BYTES, buffer: Vec::new(), decoding: None, window: None, plain: None }
    }

    /// The same with at most so many bytes between two rows of a run, for one of many readers of the same files.
    pub(crate) fn with_gaps(self, gap_bytes: u64) -> RunReader<'a> {
        RunReader { gap_bytes, ..self }
    }

    /// Whether the window holds a row, the byte before it and the line end after it.
    pub(crate) fn holds(&self, line: &RowSpan) -> bool {
        self.window.as_ref().is_some_and(|(file, offset, bytes)| {
            let end = (line.start + line.length + 2).min(offset + bytes.len() as u64);
            *file == line.file && *offset <= line.start.saturating_sub(1) && line.start + line.length < end
        })
    }

    /// Moves the window to the start of a row. A row longer than the window gets none.
    pub(crate) fn load(&mut self, line: &RowSpan) -> Result<(), ExportError> {
        let source = self.files.source(line.file)?;
        let offset = line.start.saturating_sub(1);
        let mut bytes = self.window.take().map(|(.., bytes)| bytes).unwrap_or_default();
        if line.length + 3 <= WINDOW_BYTES {
            bytes.resize((source.len() - offset).min(WINDOW_BYTES) as usize, 0);
            source.pread_into(offset, &mut bytes)?;
            self.window = Some((line.file, offset, bytes));
        }
        Ok(())
    }

    /// Adds a row to an output's run, after writing the run if the row cannot join it. Returns the bytes written by
    /// this call.
    #[inline]
    pub(crate) fn take_row<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        run: &mut CopyRun,
        line: RowSpan,
        failed_write: FailedWrite<'_>,
    ) -> Result<u64, ExportError> {
        // A run has rows of a plain file, so that most rows need no look at theirs.
        let joins_run = !run.lines.is_empty()
            && run.file == line.file
            && line.start > run.end()
            && line.start - run.end() <= self.gap_bytes
            && line.start + line.length - run.start() <= RUN_BYTES
            && run.bytes < output.preferred_len() as u64;
        if !joins_run {
            return self.take_apart(output, run, line, failed_write);
        }
        run.push(line);
        Ok(0)
    }

    /// Takes a row that does not join the run: writes the run, and then begins another, or writes the row if its file is
    /// compressed. Returns the bytes written.
    fn take_apart<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        run: &mut CopyRun,
        line: RowSpan,
        failed_write: FailedWrite<'_>,
    ) -> Result<u64, ExportError> {
        run.note_file(line.file);
        let done = self.flush(output, run, failed_write)?;
        if self.plain.is_none_or(|(file, _)| file != line.file) {
            if self.files.compression(line.file) != Compression::None {
                return Ok(done + self.copy_decoded(output, line, failed_write)?);
            }
            self.plain = Some((line.file, self.files.source(line.file)?));
        }
        run.file = line.file;
        run.push(line);
        Ok(done)
    }

    /// Writes the rows that a shard takes from one segment of a packed file, after the pending run.
    #[allow(clippy::too_many_arguments, reason = "the state of a sweep")]
    pub(crate) fn take_frames<S: Sink>(
        &mut self,
        copier: &mut FrameCopier<'_>,
        index: &Index,
        output: &mut ShardOutput<'_, S>,
        run: &mut CopyRun,
        table: &SeekTable,
        request: &FrameRequest<'_>,
        progress: &Progress,
        failed_write: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        let done = self.flush(output, run, failed_write)?;
        progress.write_done.fetch_add(done, Relaxed);
        run.note_file(index.file_of(request.segment));
        let before = output.source_bytes();
        let mut long =
            |output: &mut ShardOutput<'_, S>, rows: RowSpan| self.copy_decoded(output, rows, failed_write).map(|_| ());
        copier.take_rows(index, output, table, request, failed_write, &mut long)?;
        progress.write_done.fetch_add(output.source_bytes() - before, Relaxed);
        Ok(())
    }

    /// Writes spans of one segment of a packed file, after the pending run.
    #[allow(clippy::too_many_arguments, reason = "the state of a sweep")]
    pub(crate) fn take_packed_spans<S: Sink>(
        &mut self,
        copier: &mut FrameCopier<'_>,
        output: &mut ShardOutput<'_, S>,
        run: &mut CopyRun,
        table: &SeekTable,
        spans: &[RowSpan],
        progress: &Progress,
        failed_write: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        let done = self.flush(output, run, failed_write)?;
        progress.write_done.fetch_add(done, Relaxed);
        let Some(file) = spans.first().map(|span| span.file) else { return Ok(()) };
        run.note_file(file);
        let (source, before) = (self.files.source(file)?, output.source_bytes());
        let mut long =
            |output: &mut ShardOutput<'_, S>, rows: RowSpan| self.copy_decoded(output, rows, failed_write).map(|_| ());
        copier.take_spans(source, output, table, spans, failed_write, &mut long)?;
        progress.write_done.fetch_add(output.source_bytes() - before, Relaxed);
        Ok(())
    }

    /// Writes a run to the output and empties it. Returns the bytes written.
    pub(crate) fn flush<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        run: &mut CopyRun,
        failed_write: FailedWrite<'_>,
    ) -> Result<u64, ExportError> {
        if run.lines.is_empty() {
            return Ok(0);
        }
        let source = match self.plain {
            Some((file, source)) if file == run.file => source,
            _ => self.files.source(run.file)?,
        };
        let (start, end) = (run.start(), run.end());
        if end - start > 8 * READ_BYTES as u64 {
            // A single row, too long to be held: a run of several rows never grows this far.
            copy_long(source, run.lines[0], &mut self.buffer, output, failed_write)?;
        } else {
            let before = start.min(1);
            let behind = (source.len() - end).min(2);
            let offset = start - before;
            let len = (before + (end - start) + behind) as usize;
            let inside = self.window.as_ref().and_then(|(file, from, bytes)| {
                let first = usize::try_from(offset.checked_sub(*from)?).ok()?;
                bytes.get(first..first + len).filter(|_| *file == run.file)
            });
            // Rows are read straight into the write buffer, one byte early: that byte overwrites the newline of the row
            // written last with a newline. It is none at the start of a file, where this cannot be done.
            let place = match inside.is_none() && start > BYTE_ORDER_MARK && output.is_whole() {
                true => output.encoder.reserve(len),
                false => None,
            };
            if let Some(place) = place {
                source.pread_into(offset, &mut place[..len])?;
                run.lines.iter().try_for_each(|line| check_line(source, &place[..len], offset, *line))?;
                let kept = close_gaps(place, offset, &run.lines);
                output.encoder.commit(kept).map_err(|error| failed_write(&output.name, error))?;
            } else {
                let bytes = match inside {
                    Some(bytes) => bytes,
                    None => source.pread(offset, len, &mut self.buffer)?,
                };
                run.lines.iter().try_for_each(|line| check_line(source, bytes, offset, *line))?;
                let torn = |at: u64| ExportError::Torn { path: source.path().to_path_buf(), offset: at };
                for rows in neighbour_ranges(&run.lines) {
                    let first = rows.start;
                    let rows = (rows.start - offset) as usize..(rows.end - offset) as usize;
                    if bytes.get(rows.end) == Some(&b'\n') {
                        output.write_rows(&bytes[rows.start..=rows.end], |at| torn(first + at as u64), failed_write)?;
                        continue;
                    }
                    // The last row ends with the file, or with a carriage return that is no part of it.
                    let last =
                        memchr::memrchr(b'\n', &bytes[rows.clone()]).map_or(rows.start, |at| rows.start + at + 1);
                    output.write_rows(&bytes[rows.start..last], |at| torn(first + at as u64), failed_write)?;
                    output.write_piece(&bytes[last..rows.end], failed_write)?;
                    output.end_row(|| torn(offset + last as u64), failed_write)?;
                }
            }
        }
        run.lines.clear();
        Ok(std::mem::take(&mut run.bytes))
    }

    /// Writes rows of a compressed file, decoding from the last seek point before it unless the decoder is already
    /// nearer.
    fn copy_decoded<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        line: RowSpan,
        failed_write: FailedWrite<'_>,
    ) -> Result<u64, ExportError> {
        let source = self.files.source(line.file)?;
        let restart = self.files.restart_before(line.file, line.start);
        // Each segment of a packed gzip file is proven by itself.
        let is_gzip = self.files.compression(line.file) == Compression::Gzip;
        let is_proven_alone = is_gzip && self.files.packed(line.file).is_some();
        let must_restart = self.decoding.as_ref().is_none_or(|decoding| {
            decoding.file != line.file
                || is_proven_alone && decoding.begun != restart.uncompressed
                || decoding.piece_start > line.start
                || restart.uncompressed > decoding.piece_start + decoding.piece.len() as u64
        });
        if must_restart {
            let (decoder, from) = decoder_before(self.files, source, line.file, line.start)?;
            let (begun, piece_start) = (from.uncompressed, from.uncompressed);
            self.decoding = Some(Decoding { file: line.file, decoder, begun, piece: Vec::new(), piece_start });
        }
        // A row may span several pieces; its bytes must begin with `{` and hold no newline.
        let decoding = self.decoding.as_mut().expect("made above");
        let torn = || ExportError::Torn { path: source.path().to_path_buf(), offset: line.start };
        let (mut position, end) = (line.start, line.start + line.length);
        while position < end {
            let piece_end = decoding.piece_start + decoding.piece.len() as u64;
            if position >= piece_end {
                decoding.piece_start = piece_end;
                match decoding.decoder.piece(|_| {}) {
                    Ok(Some(piece)) => {
                        decoding.piece.clear();
                        decoding.piece.extend_from_slice(piece);
                    }
                    Ok(None) => return Err(torn()),
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            let from = (position - decoding.piece_start) as usize;
            let to = (end.min(piece_end) - decoding.piece_start) as usize;
            let bytes = &decoding.piece[from..to];
            let opens = position > line.start || line.spaced || bytes[0] == b'{';
            let whole = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
            if !opens || whole > 0 && line.rows == 1 {
                return Err(torn());
            }
            if whole > 0 {
                // The first of these rows may have begun in an earlier piece.
                let first = memchr::memchr(b'\n', bytes).unwrap_or(0);
                output.write_piece(&bytes[..first], failed_write)?;
                output.end_row(torn, failed_write)?;
                output.write_rows(&bytes[first + 1..whole], |_| torn(), failed_write)?;
            }
            output.write_piece(&bytes[whole..], failed_write)?;
            position = decoding.piece_start + to as u64;
        }
        output.end_row(torn, failed_write)?;
        Ok(line.length + 1)
    }

    /// Checks that the files that an output took rows from did not change or fail; called before it is committed. The run
    /// then serves the next output.
    pub(crate) fn check(&self, run: &mut CopyRun) -> Result<(), ExportError> {
        run.used_files.drain(..).try_for_each(|file| self.files.source(file)?.check()).map_err(ExportError::from)
    }
}

/// Byte ranges of rows that follow one another directly, without the last line end of each range.
fn neighbour_ranges(lines: &[RowSpan]) -> impl Iterator<Item = Range<u64>> + '_ {
    lines.chunk_by(|a, b| a.start + a.length + 1 == b.start).map(|rows| {
        let last = rows[rows.len() - 1];
        rows[0].start..last.start + last.length
    })
}

/// Moves rows together, each with a newline, to the second byte of the space that they were read into. The space has
/// one byte more than was read; its first byte is at `offset` of the file. Returns the bytes of the rows and newlines.
fn close_gaps(place: &mut [u8], offset: u64, lines: &[RowSpan]) -> usize {
    let mut end = 1;
    for rows in neighbour_ranges(lines) {
        let rows = (rows.start - offset) as usize..(rows.end - offset) as usize;
        let len = rows.len();
        if rows.start != end {
            place.copy_within(rows, end);
        }
        // The byte written here is a line end or was moved already: a row never begins where another one ends.
        place[end + len] = b'\n';
        end += len + 1;
    }
    end - 1
}

/// Checks that a row follows a line end, begins with `{` (or white space, if indexed so) and ends before a line end.
/// `bytes` begin at `position` of the file.
fn check_line(source: &StoreFile, bytes: &[u8], position: u64, line: RowSpan) -> Result<(), ExportError> {
    let first = (line.start - position) as usize;
    let behind = &bytes[first + line.length as usize..];
    let follows = match first.checked_sub(1) {
        Some(before) => bytes[before] == b'\n' || line.start == BYTE_ORDER_MARK && bytes[before] == 0xbf,
        None => line.start == 0,
    };
    let opens = line.spaced || bytes[first] == b'{';
    let ends = matches!(behind, [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..]);
    match follows && opens && ends {
        true => Ok(()),
        false => Err(ExportError::Torn { path: source.path().to_path_buf(), offset: line.start }),
    }
}

/// Writes one row that is too long for a buffer in pieces of [`READ_BYTES`], and its newline.
fn copy_long<S: Sink>(
    source: &StoreFile,
    line: RowSpan,
    buffer: &mut Vec<u8>,
    output: &mut ShardOutput<'_, S>,
    failed_write: FailedWrite<'_>,
) -> Result<(), ExportError> {
    let torn = || ExportError::Torn { path: source.path().to_path_buf(), offset: line.start };
    let end = line.start + line.length;
    let mut position = line.start;
    while position < end {
        let len = (end - position).min(READ_BYTES as u64) as usize;
        let bytes = source.pread(position, len, buffer)?;
        if position == line.start && !line.spaced && bytes.first() != Some(&b'{')
            || memchr::memchr(b'\n', bytes).is_some()
        {
            return Err(torn());
        }
        output.write_piece(bytes, failed_write)?;
        position += len as u64;
    }
    output.end_row(torn, failed_write)
}

/// Length in bytes of the UTF-8 byte order mark that a file may begin with.
pub(crate) const BYTE_ORDER_MARK: u64 = 3;
