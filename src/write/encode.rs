//! Encoder of one output file: compression (none, gzip or zstd), byte counts and digest.
//!
//! Compressed files are made of blocks of 1 MiB of input, compressed in parallel and written in order, so their bytes
//! do not depend on the number of threads. A gzip file is one member: its blocks end with sync flushes and are
//! concatenated, as pigz does, because many clients read only the first member of several. A zstd file has one frame a
//! block. Rows are opaque bytes here.

use std::io;

use rayon::prelude::*;

use crate::codec::compression::Compression;
use crate::codec::deflate::LAST_BLOCK;
use crate::hash::digest::{Digest, DigestAlgorithm, Digester};
use crate::limits::{BLOCK_BYTES, GATHER_BYTES};
use crate::write::deflate::SegmentDeflater;
use crate::write::sink::Sink;
use crate::write::write_buffer::WriteBuffer;

/// Level of gzip output: gzip's own default.
const GZIP_LEVEL: u32 = 6;
/// Level of zstd output: zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// A gzip header without name and time, so that the same rows give the same bytes (RFC 1952; OS 255: unknown).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Sizes and digest of a finished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStats {
    /// Bytes of the rows before compression.
    pub bytes: u64,
    /// Bytes of the file on disk.
    pub file_bytes: u64,
    /// Digest of the file's bytes on disk; `None` when the request wants none.
    pub digest: Option<Digest>,
}

/// Rows whose compressed bytes are appended to a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompressedRows {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// CRC-32 of these bytes; not looked at in a zstd file.
    pub crc: u32,
}

impl CompressedRows {
    /// These rows and, behind them, others.
    pub(crate) fn then(self, next: CompressedRows) -> CompressedRows {
        let mut crc = self.hasher();
        crc.combine(&next.hasher());
        CompressedRows { bytes: self.bytes + next.bytes, crc: crc.finalize() }
    }

    /// The state of the checksum behind the rows.
    fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial_len(self.crc, self.bytes)
    }
}

/// Encodes one output file and passes its bytes to a sink.
pub(crate) struct Encoder<S: Sink> {
    sink: S,
    compression: Compression,
    digester: Digester,
    bytes: u64,
    file_bytes: u64,
    crc: crc32fast::Hasher,
    /// Input that waits to be compressed in whole blocks; empty for files that are not compressed.
    gathered: Vec<u8>,
    /// Bytes of `gathered` at which its blocks are compressed.
    gather_max: usize,
    buffer: WriteBuffer,
}

impl<S: Sink> Encoder<S> {
    /// Begins a file `name`. At most `blocks` blocks of 1 MiB are held to be compressed in parallel.
    ///
    /// # Errors
    /// The sink cannot begin the file, or refuses the gzip header.
    pub(crate) fn begin(
        mut sink: S,
        name: &str,
        compression: Compression,
        digest: DigestAlgorithm,
        blocks: usize,
    ) -> io::Result<Encoder<S>> {
        sink.begin(name)?;
        let mut encoder = Encoder {
            sink,
            compression,
            digester: Digester::new(digest),
            bytes: 0,
            file_bytes: 0,
            crc: crc32fast::Hasher::new(),
            gathered: Vec::new(),
            gather_max: BLOCK_BYTES * blocks.max(1),
            buffer: WriteBuffer::default(),
        };
        if compression == Compression::Gzip {
            encoder.write_raw(&GZIP_HEADER)?;
        }
        Ok(encoder)
    }

    /// Appends uncompressed bytes of rows.
    ///
    /// # Errors
    /// The sink fails, or the compressor does.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.compression == Compression::None {
            return self.write_raw(bytes);
        }
        while !bytes.is_empty() {
            let take = bytes.len().min(self.gather_max - self.gathered.len());
            let (now, later) = bytes.split_at(take);
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == self.gather_max {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Compression of the file.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// Uncompressed bytes appended so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes
    }

    /// Number of row bytes to append next that fills a write: the room in the write buffer of an uncompressed file,
    /// [`GATHER_BYTES`] for a compressed one.
    pub(crate) fn preferred_len(&self) -> usize {
        if self.compression == Compression::None { self.buffer.room() } else { GATHER_BYTES }
    }

    /// Space for the next `len` bytes of an uncompressed file, see [`WriteBuffer::uninit`]; [`Encoder::commit`] then
    /// states how many of them were filled. `None` for a compressed file, whose rows go through [`Encoder::write`].
    pub(crate) fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        (self.compression == Compression::None).then(|| self.buffer.uninit(len))
    }

    /// Appends the first `len` bytes of rows that were put into the reserved space.
    ///
    /// # Errors
    /// The sink fails.
    pub(crate) fn commit(&mut self, len: usize) -> io::Result<()> {
        debug_assert_eq!(self.compression, Compression::None, "others have no place");
        self.bytes += len as u64;
        self.buffer.take_bytes(len);
        self.send_full_buffers()
    }

    /// As [`Encoder::reserve`] for bytes that are compressed already, without the byte before them;
    /// [`Encoder::commit_raw`] follows.
    ///
    /// # Errors
    /// The rows gathered before cannot be compressed or written.
    pub(crate) fn reserve_raw(&mut self, len: usize) -> io::Result<&mut [u8]> {
        self.flush()?;
        Ok(&mut self.buffer.uninit(len)[1..])
    }

    /// Appends the first `len` bytes of the space of [`Encoder::reserve_raw`]: whole zstd frames, or deflate segments, of
    /// `rows`.
    ///
    /// # Errors
    /// The sink fails.
    pub(crate) fn commit_raw(&mut self, len: usize, rows: CompressedRows) -> io::Result<()> {
        self.add_compressed(rows);
        self.buffer.take_bytes(len);
        self.send_full_buffers()
    }

    /// Appends compressed bytes: whole zstd frames or deflate segments, or a part of one whose rest follows. They count
    /// as `rows`.
    ///
    /// # Errors
    /// The sink fails.
    pub(crate) fn append_frame(&mut self, compressed: &[u8], rows: CompressedRows) -> io::Result<()> {
        self.flush()?;
        self.add_compressed(rows);
        self.write_raw(compressed)
    }

    /// Counts rows whose compressed bytes are appended.
    fn add_compressed(&mut self, rows: CompressedRows) {
        debug_assert_ne!(self.compression, Compression::None, "only compressed rows can be joined");
        self.bytes += rows.bytes;
        if self.compression == Compression::Gzip {
            self.crc.combine(&rows.hasher());
        }
    }

    /// Ends the compressed stream, writes the rest of the buffer and commits the file.
    ///
    /// # Errors
    /// The sink or the compressor fails; the file then does not exist under its name.
    pub(crate) fn finish(mut self) -> io::Result<FileStats> {
        self.flush()?;
        match self.compression {
            Compression::Gzip => {
                // The deflate stream that the sync flushes left open.
                self.write_raw(&LAST_BLOCK)?;
                let crc = std::mem::take(&mut self.crc).finalize();
                self.write_raw(&crc.to_le_bytes())?;
                self.write_raw(&(self.bytes as u32).to_le_bytes())?;
            }
            // A zstd file without rows has one empty frame: zero bytes are no zstd stream.
            Compression::Zstd if self.bytes == 0 => {
                let empty = zstd_frame(&[])?;
                self.write_raw(&empty)?;
            }
            _ => {}
        }
        let Encoder { sink, buffer, digester, file_bytes, .. } = &mut self;
        if !buffer.is_empty() {
            send(sink, digester, file_bytes, buffer.bytes())?;
        }
        self.sink.commit()?;
        let digester = std::mem::replace(&mut self.digester, Digester::None);
        Ok(FileStats { bytes: self.bytes, file_bytes: self.file_bytes, digest: digester.finish() })
    }

    /// Compresses the gathered input, block by block in parallel, and writes the blocks in order.
    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        match self.compression {
            Compression::None => unreachable!("nothing is gathered to be coded"),
            Compression::Gzip => {
                let block = |block: &[u8]| -> io::Result<(Vec<u8>, crc32fast::Hasher)> {
                    let mut crc = crc32fast::Hasher::new();
                    crc.update(block);
                    let mut coded = Vec::new();
                    SegmentDeflater::new(GZIP_LEVEL).segment(block, &mut coded)?;
                    Ok((coded, crc))
                };
                let coded: Vec<_> = gathered.par_chunks(BLOCK_BYTES).map(block).collect::<io::Result<_>>()?;
                for (coded, crc) in coded {
                    self.write_raw(&coded)?;
                    self.crc.combine(&crc);
                }
            }
            Compression::Zstd => {
                let coded: Vec<_> = gathered.par_chunks(BLOCK_BYTES).map(zstd_frame).collect::<io::Result<_>>()?;
                for coded in coded {
                    self.write_raw(&coded)?;
                }
            }
        }
        // The allocation is used again.
        self.gathered = gathered;
        self.gathered.clear();
        Ok(())
    }

    /// Appends bytes of the file as they are to go to the disk.
    fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for bytes in bytes.chunks(GATHER_BYTES) {
            if self.buffer.is_empty() && bytes.len() == GATHER_BYTES {
                // A full write of its own is sent without a copy.
                send(&mut self.sink, &mut self.digester, &mut self.file_bytes, bytes)?;
                continue;
            }
            self.buffer.extend(bytes);
            self.send_full_buffers()?;
        }
        Ok(())
    }

    /// Sends the write buffer to the sink when it is full.
    fn send_full_buffers(&mut self) -> io::Result<()> {
        if self.buffer.room() == 0 {
            send(&mut self.sink, &mut self.digester, &mut self.file_bytes, self.buffer.bytes())?;
            self.buffer.clear_sent();
        }
        Ok(())
    }
}

/// Digests, counts and writes bytes of the file.
fn send(sink: &mut impl Sink, digester: &mut Digester, file_bytes: &mut u64, bytes: &[u8]) -> io::Result<()> {
    digester.update(bytes);
    *file_bytes += bytes.len() as u64;
    sink.write(bytes)
}

/// A zstd compressor whose frames state their content size and carry a checksum.
///
/// # Errors
/// No memory for it, or a level that zstd does not know.
pub(crate) fn zstd_compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

/// One zstd frame of a block, at [`ZSTD_LEVEL`].
fn zstd_frame(input: &[u8]) -> io::Result<Vec<u8>> {
    zstd_compressor(ZSTD_LEVEL)?.compress(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::sink::MemorySink;
    use std::io::Read;

    fn encode(rows: &[Vec<u8>], compression: Compression, blocks: usize, threads: usize) -> (Vec<u8>, FileStats) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let sink = MemorySink::default();
            let mut encoder = Encoder::begin(sink.clone(), "f", compression, DigestAlgorithm::Xxh3, blocks).unwrap();
            rows.iter().for_each(|row| encoder.write(row).unwrap());
            let sums = encoder.finish().unwrap();
            (sink.files().remove("f").unwrap(), sums)
        })
    }

    fn rows() -> Vec<Vec<u8>> {
        let mut seed = 7u64;
        let mut rows = Vec::new();
        for n in 0..3000usize {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let len = match n % 500 {
                7 => 700_000,
                // Most of a write, behind a few rows that are not written yet.
                12 => 180_000,
                _ => (seed >> 40) as usize % 3000,
            };
            rows.push(
                (0..len)
                    .map(|offset| {
                        b"{\"id\":123456789}"[(offset + n) % 16].wrapping_add((seed >> (offset % 60)) as u8 & 1)
                    })
                    .collect(),
            );
        }
        rows
    }

    /// A run that is long enough to go straight to the file still follows the bytes gathered before it.
    #[test]
    fn runs_of_every_length_keep_their_order() {
        for first in [1, 100, GATHER_BYTES / 2 - 1, GATHER_BYTES / 2, GATHER_BYTES] {
            for second in
                [1, GATHER_BYTES / 2 - 1, GATHER_BYTES / 2, GATHER_BYTES - first.min(GATHER_BYTES), GATHER_BYTES]
            {
                let rows = [vec![b'a'; first], vec![b'b'; second], vec![b'c'; 10]];
                assert!(encode(&rows, Compression::None, 1, 1).0 == rows.concat(), "{first} and {second} bytes");
            }
        }
    }

    /// Every compression decodes to its input, gzip as one member, and gives the same bytes on any number of threads.
    #[test]
    fn files_decode_to_their_rows_whatever_the_threads() {
        let rows = rows();
        let plain = rows.concat();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (file, sums) = encode(&rows, compression, 2, 2);
            assert_eq!((sums.bytes, sums.file_bytes), (plain.len() as u64, file.len() as u64));
            let mut decoded = Vec::new();
            match compression {
                Compression::None => decoded = file.clone(),
                // GzDecoder, unlike MultiGzDecoder, stops after the first member.
                Compression::Gzip => {
                    flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut decoded).unwrap();
                }
                Compression::Zstd => decoded = zstd::decode_all(&file[..]).unwrap(),
            }
            assert!(decoded == plain, "{compression:?}");
            for (blocks, threads) in [(1, 1), (7, 7)] {
                assert!(encode(&rows, compression, blocks, threads).0 == file, "{compression:?} {blocks} {threads}");
            }
        }
    }

    #[test]
    fn an_empty_file_is_valid() {
        let (file, _) = encode(&[], Compression::Gzip, 1, 1);
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut decoded).unwrap();
        assert!(decoded.is_empty());
        assert!(zstd::decode_all(&encode(&[], Compression::Zstd, 1, 1).0[..]).unwrap().is_empty());
    }
}
