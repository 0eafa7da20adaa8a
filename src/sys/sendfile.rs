//! A stored file sent to a socket: its bytes travel as buffers of a map and leave by `sendfile(2)`.
//!
//! The file is mapped, and pieces of the map pass through the HTTP library like any other buffer. Where a buffer
//! reaches a socket, [`place_of`] finds by its address which file and offset it is, and [`FileRange::send`] has the
//! kernel send that range from its page cache: no page of the map is touched, and nothing is copied to user space. A
//! transport that needs the bytes, for encryption, reads them with [`FileRange::read`]; any other sees plain memory.
//!
//! Only finished files of our own are sent, which are never written to again. If one is shortened all the same,
//! `sendfile` and reads reach its end, which is an error here before a wrong byte is sent; a reader of the memory sees
//! zeros under the SIGBUS handler, and [`OutgoingFile::check`] reports it. Without the handler nothing is mapped, and
//! [`OutgoingFile::of_file`] gives `None`.
//!
//! One lock, `MAPS`; no other is taken while it is held.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::sys::access::Access;
use crate::sys::sigbus;
use crate::sys::store_file::{ReadOrder, StoreFile, StoreFileError};

/// Maps of all files that are being sent, by their first address. A map is inserted when it is made and removed right
/// before it is unmapped, so that no address in it leads to another file.
static MAPS: RwLock<BTreeMap<usize, Weak<OutgoingFile>>> = RwLock::new(BTreeMap::new());

/// Error text for a file that ends before its length at open.
const SHORTENED: &str = "a stored file was shortened";

/// A stored file, open and mapped, that is being sent. It stays readable after its name is deleted.
#[derive(Debug)]
pub(crate) struct OutgoingFile {
    source: StoreFile,
}

/// A range of an [`OutgoingFile`], as memory of its map.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    file: Arc<OutgoingFile>,
    /// Byte range of the file; it lies within the map.
    range: Range<usize>,
}

/// A position in an [`OutgoingFile`], found by the address of a buffer.
#[derive(Debug)]
pub(crate) struct FileRange {
    file: Arc<OutgoingFile>,
    /// Offset in the file, in bytes.
    offset: u64,
}

impl OutgoingFile {
    /// Maps an open file for sending; `path` is its name in messages. `None` when it cannot be mapped safely (no
    /// SIGBUS handler, too many maps, or an empty file): the caller then reads it.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub(crate) fn of_file(file: File, path: &Path) -> Result<Option<Arc<OutgoingFile>>, StoreFileError> {
        if !sigbus::is_installed() {
            return Ok(None);
        }
        let source = StoreFile::of_file(file, path, Access::guarded())?;
        let Some(start) = source.map().map(|map| map.as_ptr() as usize) else { return Ok(None) };
        source.advise(ReadOrder::Scan);
        let file = Arc::new(OutgoingFile { source });
        let mut maps = MAPS.write().unwrap_or_else(PoisonError::into_inner);
        maps.insert(start, Arc::downgrade(&file));
        Ok(Some(file))
    }

    /// The descriptor of the file.
    fn file(&self) -> &File {
        self.source.file().expect("a file that was given open is held")
    }

    /// Length of the outgoing file when it was opened, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.source.len()
    }

    /// A range of the outgoing file as a buffer, cut at the end of the file.
    pub(crate) fn piece(self: &Arc<OutgoingFile>, range: Range<u64>) -> Piece {
        let end = range.end.min(self.len());
        // A map has no more bytes than there are addresses.
        Piece { file: self.clone(), range: range.start.min(end) as usize..end as usize }
    }

    /// Whether the outgoing file still has its length, and every byte read from its map was the file's.
    ///
    /// # Errors
    /// As [`StoreFile::check`].
    pub(crate) fn check(&self) -> Result<(), StoreFileError> {
        self.source.check()
    }

    /// Whether the range is in the page cache (mincore(2)), so that sending it does not wait for a disk. `false` when
    /// the system does not say.
    pub(crate) fn is_cached(&self, range: Range<u64>) -> bool {
        let Some(map) = self.source.map() else { return false };
        let page = rustix::param::page_size();
        let end = range.end.min(map.len() as u64) as usize;
        let start = (range.start as usize).min(end) / page * page;
        let mut pages = vec![0u8; (end - start).div_ceil(page)];
        // SAFETY: the pages lie in the map, which begins at a page and is borrowed; there is a byte for each of them.
        let result = unsafe {
            let first = map.as_ptr().add(start) as *mut libc::c_void;
            libc::mincore(first, end - start, pages.as_mut_ptr())
        };
        result == 0 && pages.iter().all(|page| page & 1 == 1)
    }

    /// Reads the range from the disk, so that it is in the page cache when this returns.
    ///
    /// # Errors
    /// As [`StoreFile::pread`].
    pub(crate) fn fetch(&self, range: Range<u64>) -> Result<(), StoreFileError> {
        // Bytes of one read.
        const STEP: u64 = 256 << 10;
        let end = range.end.min(self.len());
        let mut buffer = Vec::new();
        for i in (range.start..end).step_by(STEP as usize) {
            self.source.pread(i, STEP.min(end - i) as usize, &mut buffer)?;
        }
        Ok(())
    }
}

impl Drop for OutgoingFile {
    fn drop(&mut self) {
        if let Some(map) = self.source.map() {
            MAPS.write().unwrap_or_else(PoisonError::into_inner).remove(&(map.as_ptr() as usize));
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.file.source.map().and_then(|map| map.get(self.range.clone())).unwrap_or_default()
    }
}

/// The outgoing file and offset that a buffer maps; `None` for ordinary memory. The borrowed buffer keeps its map
/// alive, so the address cannot belong to another file.
pub(crate) fn place_of(bytes: &[u8]) -> Option<FileRange> {
    let address = bytes.as_ptr() as usize;
    // The lock is released before the upgrade: dropping the last reference to the file takes the lock for writing.
    let nearest = |maps: &BTreeMap<usize, Weak<OutgoingFile>>| {
        Some(maps.range(..=address).next_back()?).map(|(start, file)| (*start, file.clone()))
    };
    let (start, file) = nearest(&MAPS.read().unwrap_or_else(PoisonError::into_inner))?;
    let (offset, file) = ((address - start) as u64, file.upgrade()?);
    (!bytes.is_empty() && offset + bytes.len() as u64 <= file.len()).then_some(FileRange { file, offset })
}

/// Has a socket send full segments only (`TCP_CORK` of tcp(7)), or what it holds and all that follows at once. A failure is ignored: the
/// bytes are the same.
pub(crate) fn set_cork(socket: BorrowedFd<'_>, corked: bool) {
    let value = libc::c_int::from(corked);
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an integer of this function, whose length is given, and the descriptor is open.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CORK, (&raw const value).cast(), len);
    }
}

impl FileRange {
    /// Has the kernel send up to `len` bytes of the file from this offset to a socket (sendfile(2)), and returns how
    /// many it took.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes no bytes now, `UnexpectedEof` when the file was shortened, else the
    /// system's.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
        let mut offset = self.offset;
        match rustix::fs::sendfile(socket, self.file.file(), Some(&mut offset), len)? {
            0 if len > 0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, SHORTENED)),
            sent => Ok(sent),
        }
    }

    /// Reads the file from this offset to fill `buffer`. Unlike the map's bytes, these are known to be the file's, and
    /// no page is mapped for them.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file was shortened, else the system's.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.file.file().read_exact_at(buffer, self.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), SHORTENED),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn stored(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn open(stored: &tempfile::NamedTempFile) -> Option<Arc<OutgoingFile>> {
        OutgoingFile::of_file(stored.reopen().unwrap(), stored.path()).unwrap()
    }

    fn bytes() -> Vec<u8> {
        (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect()
    }

    /// Bytes sent and bytes read equal the map's, at any offset, for the right one of two files.
    /// What a corked socket holds back is sent when it is uncorked.
    #[test]
    fn a_socket_is_corked_and_uncorked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let corked = |socket: &std::net::TcpStream| {
            let (mut value, mut len) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
            // SAFETY: the pointers are to variables of this closure, and the descriptor is open.
            let got = unsafe {
                let value = (&raw mut value).cast();
                libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CORK, value, &mut len)
            };
            assert_eq!(got, 0);
            value
        };
        set_cork(socket.as_fd(), true);
        assert_eq!(corked(&socket), 1);
        socket.write_all(b"held back").unwrap();
        set_cork(socket.as_fd(), false);
        assert_eq!(corked(&socket), 0);
        let mut bytes = [0; 9];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"held back");
    }

    #[test]
    fn memory_and_sendfile_agree() {
        sigbus::install().unwrap();
        let (bytes, other) = (bytes(), vec![7; 50_000]);
        let (one, two) = (stored(&bytes), stored(&other));
        let (one, two) = (open(&one).unwrap(), open(&two).unwrap());
        let (from, mut to) = UnixStream::pair().unwrap();
        for (file, whole, start, len) in [
            (&one, &bytes, 0, 1),
            (&one, &bytes, 4095, 9000),
            (&two, &other, 10, 4000),
            (&one, &bytes, 1_190_000, 10_000),
        ] {
            let piece = file.piece(start..start + len);
            let slice = piece.as_ref();
            assert_eq!(slice, &whole[start as usize..(start + len) as usize]);
            let sent = place_of(slice).unwrap().send(from.as_fd(), slice.len()).unwrap();
            let mut read = vec![0; sent];
            to.read_exact(&mut read).unwrap();
            assert_eq!(&read, &slice[..sent]);
            read.resize(slice.len(), 0);
            place_of(slice).unwrap().read(&mut read).unwrap();
            assert_eq!(&read, slice);
        }
        // A piece is cut at the end. Other memory, and that of a dropped file, belongs to no file.
        assert_eq!(two.piece(49_999..70_000).as_ref(), [7]);
        assert!(two.piece(60_000..70_000).as_ref().is_empty());
        assert!(place_of(&bytes).is_none() && place_of(&[]).is_none());
        let start = one.source.map().unwrap().as_ptr() as usize;
        drop(one);
        assert!(MAPS.read().unwrap().get(&start).is_none_or(|file| file.upgrade().is_some()));
    }

    #[test]
    fn what_was_fetched_is_cached() {
        sigbus::install().unwrap();
        let file = stored(&bytes());
        let outgoing = open(&file).unwrap();
        outgoing.fetch(5000..2_000_000).unwrap();
        assert!(outgoing.is_cached(5000..1_200_000) && outgoing.is_cached(1_200_000..1_200_000));
        assert!(open(&stored(b"")).is_none());
    }

    /// DELETE-06: a name that is gone does not matter; bytes that are gone are an error, never a signal.
    #[test]
    fn a_deleted_file_is_sent_and_a_shortened_one_is_an_error() {
        sigbus::install().unwrap();
        let file = stored(&bytes());
        let writer = file.reopen().unwrap();
        let outgoing = open(&file).unwrap();
        drop(file);
        let (from, _to) = UnixStream::pair().unwrap();
        let piece = outgoing.piece(1_000_000..1_001_000);
        assert_eq!(place_of(piece.as_ref()).unwrap().send(from.as_fd(), 1000).unwrap(), 1000);
        writer.set_len(1 << 16).unwrap();
        let error = place_of(piece.as_ref()).unwrap().send(from.as_fd(), 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = place_of(piece.as_ref()).unwrap().read(&mut [0; 1000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(piece.as_ref().iter().all(|byte| *byte == 0));
        assert!(outgoing.check().is_err());
        assert!(outgoing.fetch(0..1 << 20).is_err());
    }
}
