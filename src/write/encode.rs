//! From the bytes of rows to the bytes of a file: none, gzip or zstd, counted and digested on the way.
//!
//! Compressed files are made of blocks of 1 MiB of input, compressed in parallel and written in order, so their bytes
//! do not depend on the number of threads. A gzip file is one member: its blocks end with sync flushes and are simply
//! joined, as pigz does, because many clients read only the first member of several. A zstd file is a frame a block.

use std::io;

use flate2::{Compress, FlushCompress, Status};
use rayon::prelude::*;

use crate::codec::compression::Compression;
use crate::hash::digest::{Digest, DigestAlgorithm, Digester};
use crate::limits::{BLOCK_BYTES, GATHER_BYTES};
use crate::write::sink::Sink;
use crate::write::write_buffer::WriteBuffer;

/// Level of gzip output: the trade most tools make.
const GZIP_LEVEL: u32 = 6;
/// Level of zstd output.
const ZSTD_LEVEL: i32 = 3;
/// A gzip header without name and time, so that the same rows give the same bytes (RFC 1952; OS 255: unknown).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// What a finished file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStats {
    /// Bytes before coding.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Digest over the file.
    pub digest: Option<Digest>,
}

/// Writes one output file.
pub(crate) struct Encoder<S: Sink> {
    sink: S,
    compression: Compression,
    digester: Digester,
    bytes: u64,
    file_bytes: u64,
    crc: crc32fast::Hasher,
    /// Input gathered to be coded in whole blocks.
    gathered: Vec<u8>,
    gather_max: usize,
    tail: WriteBuffer,
}

impl<S: Sink> Encoder<S> {
    /// Begins a file. At most `blocks` blocks are held to be compressed together.
    ///
    /// # Errors
    /// When the sink cannot begin it.
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
            tail: WriteBuffer::default(),
        };
        if compression == Compression::Gzip {
            encoder.write_raw(&GZIP_HEADER)?;
        }
        Ok(encoder)
    }

    /// Appends bytes of rows.
    ///
    /// # Errors
    /// When the sink fails.
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

    /// How the file is coded.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// Uncompressed bytes so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes
    }

    /// Bytes that a reader of rows does well to bring next, which complete a write.
    pub(crate) fn preferred_len(&self) -> usize {
        if self.compression == Compression::None { self.tail.room() } else { GATHER_BYTES }
    }

    /// Where the next bytes of the file go when rows are not coded, see [`WriteBuffer::reserve`]; then [`Encoder::commit`] tells
    /// how many there are.
    pub(crate) fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        (self.compression == Compression::None).then(|| self.tail.uninit(len))
    }

    /// Appends so many bytes of rows that have been put in the place.
    ///
    /// # Errors
    /// When the sink fails.
    pub(crate) fn commit(&mut self, len: usize) -> io::Result<()> {
        debug_assert_eq!(self.compression, Compression::None, "others have no place");
        self.bytes += len as u64;
        self.tail.take_bytes(len);
        self.send_full_buffers()
    }

    /// As [`Encoder::reserve`] for bytes that are coded already, and nothing before it; then [`Encoder::commit_raw`].
    ///
    /// # Errors
    /// When the sink fails.
    pub(crate) fn reserve_raw(&mut self, len: usize) -> io::Result<&mut [u8]> {
        self.flush()?;
        Ok(&mut self.tail.uninit(len)[1..])
    }

    /// As [`Encoder::append_frame`], of so many bytes that have been put in the place.
    ///
    /// # Errors
    /// When the sink fails.
    pub(crate) fn commit_raw(&mut self, len: usize, uncompressed: u64) -> io::Result<()> {
        debug_assert_eq!(self.compression, Compression::Zstd, "only its frames can be joined");
        self.bytes += uncompressed;
        self.tail.take_bytes(len);
        self.send_full_buffers()
    }

    /// Appends bytes that are coded already: whole frames of a zstd file, or a part of one that is followed by the
    /// rest. They stand for so many uncompressed ones.
    ///
    /// # Errors
    /// When the sink fails.
    pub(crate) fn append_frame(&mut self, coded: &[u8], uncompressed: u64) -> io::Result<()> {
        debug_assert_eq!(self.compression, Compression::Zstd, "only its frames can be joined");
        self.flush()?;
        self.bytes += uncompressed;
        self.write_raw(coded)
    }

    /// Finishes the file and commits it.
    ///
    /// # Errors
    /// When the sink fails; then the file is not there.
    pub(crate) fn finish(mut self) -> io::Result<FileStats> {
        self.flush()?;
        match self.compression {
            Compression::Gzip => {
                // An empty final block ends the deflate stream that the sync flushes left open.
                let end = deflate(&[], FlushCompress::Finish)?;
                self.write_raw(&end)?;
                let crc = std::mem::take(&mut self.crc).finalize();
                self.write_raw(&crc.to_le_bytes())?;
                self.write_raw(&(self.bytes as u32).to_le_bytes())?;
            }
            Compression::Zstd if self.bytes == 0 => {
                let empty = zstd_frame(&[])?;
                self.write_raw(&empty)?;
            }
            _ => {}
        }
        let Encoder { sink, tail, digester, file_bytes, .. } = &mut self;
        if !tail.is_empty() {
            send(sink, digester, file_bytes, tail.bytes())?;
        }
        self.sink.commit()?;
        let digester = std::mem::replace(&mut self.digester, Digester::None);
        Ok(FileStats { bytes: self.bytes, file_bytes: self.file_bytes, digest: digester.finish() })
    }

    /// Codes what was gathered and hands it to the sink.
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
                    Ok((deflate(block, FlushCompress::Sync)?, crc))
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
        self.gathered = gathered;
        self.gathered.clear();
        Ok(())
    }

    fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for bytes in bytes.chunks(GATHER_BYTES) {
            if self.tail.is_empty() && bytes.len() == GATHER_BYTES {
                // What makes a write by itself need not be gathered.
                send(&mut self.sink, &mut self.digester, &mut self.file_bytes, bytes)?;
                continue;
            }
            self.tail.extend(bytes);
            self.send_full_buffers()?;
        }
        Ok(())
    }

    fn send_full_buffers(&mut self) -> io::Result<()> {
        if self.tail.room() == 0 {
            send(&mut self.sink, &mut self.digester, &mut self.file_bytes, self.tail.bytes())?;
            self.tail.clear_sent();
        }
        Ok(())
    }
}

fn send(sink: &mut impl Sink, digester: &mut Digester, file_bytes: &mut u64, bytes: &[u8]) -> io::Result<()> {
    digester.update(bytes);
    *file_bytes += bytes.len() as u64;
    sink.write(bytes)
}

/// Raw deflate of one block, ended as asked.
fn deflate(input: &[u8], flush: FlushCompress) -> io::Result<Vec<u8>> {
    let mut deflater = Compress::new(flate2::Compression::new(GZIP_LEVEL), false);
    let mut out = Vec::with_capacity(input.len() / 4 + 1024);
    loop {
        let consumed = deflater.total_in() as usize;
        let status = deflater.compress_vec(&input[consumed..], &mut out, flush).map_err(io::Error::other)?;
        let all = deflater.total_in() as usize == input.len();
        // Room left in the output after a flush means that the flush is complete.
        let complete = status == Status::StreamEnd || flush == FlushCompress::Sync && all && out.len() < out.capacity();
        if complete {
            return Ok(out);
        }
        out.reserve(out.capacity().max(4096));
    }
}

/// A compressor of frames as this project writes them: with their size and a checksum.
///
/// # Errors
/// When there is no memory for it.
pub(crate) fn zstd_compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

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

    /// A run that is long enough to go straight to the file still goes behind what was gathered, however little that is.
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

    /// Every coding gives back what went in, as one gzip member, and the same bytes on any number of threads.
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
