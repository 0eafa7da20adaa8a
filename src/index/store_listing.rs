//! The listing of a store at one moment: names, sizes and times of its data files, none opened. A service that accepts
//! an export before it refreshes the index fixes by it which bytes the export covers.

use serde::{Deserialize, Serialize};

use crate::codec::compression::Compression;
use crate::index::meta::IndexMeta;
use crate::store::walk::{Walk, is_earlier_name};
use crate::store::walked_file::WalkedFile;
use crate::sys::store_file::FileStamp;

/// Names and stamps of a store's data files, in store order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreListing {
    files: Vec<(String, FileStamp)>,
}

impl StoreListing {
    /// The listing of a walk.
    pub(crate) fn of(walk: &Walk) -> StoreListing {
        StoreListing { files: walk.files.iter().map(|found| (found.name.clone(), found.stamp)).collect() }
    }

    /// Sum of the file sizes on disk, in bytes (compressed where files are).
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, stamp)| stamp.len).sum()
    }

    /// Whether there is no data file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a file of an index meta is not among these.
    pub(crate) fn lacks_file_of(&self, meta: &IndexMeta) -> bool {
        meta.files.iter().any(|file| self.position_of(&file.name).is_none())
    }

    /// Whether an index meta covers every byte of the listing.
    pub fn is_indexed(&self, meta: &IndexMeta) -> bool {
        // An index of an earlier version does not take all of them.
        let files = self.files.iter().filter(|(name, _)| meta.chosen || is_earlier_name(name));
        files.into_iter().all(|(name, stamp)| {
            // The index may cover later bytes of the same file, too, but must not be of an earlier state or of another file.
            let is_same_file = |known: &FileStamp| (known.inode, known.device) == (stamp.inode, stamp.device);
            let is_later = |known: &FileStamp| {
                known.len >= stamp.len && known.mtime_ns >= stamp.mtime_ns && known.ctime_ns >= stamp.ctime_ns
            };
            let later = |known: FileStamp| is_same_file(&known) && is_later(&known);
            known(meta, name).is_some_and(later)
        })
    }

    /// Cuts a later walk back to this listing: later files are removed, bytes appended to plain files are cut off.
    /// Bytes that are indexed already stay, because segments cannot be divided. Compressed files are read whole.
    pub(crate) fn truncate_to(&self, walk: &mut Walk, known_by: Option<&IndexMeta>) {
        let known = |found: &WalkedFile| known_by.and_then(|meta| known(meta, &found.name));
        walk.files.retain(|found| self.position_of(&found.name).is_some() || known(found).is_some());
        for found in &mut walk.files {
            let listed = self.position_of(&found.name).map_or(0, |i| self.files[i].1.len);
            let len = listed.max(known(found).map_or(0, |known| known.len));
            found.listed_len = Some(len);
            if found.named == Compression::None {
                found.stamp.len = found.stamp.len.min(len);
            }
        }
    }

    /// Index of the file of this name in the listing.
    fn position_of(&self, name: &str) -> Option<usize> {
        self.files.binary_search_by(|(known, _)| known.as_bytes().cmp(name.as_bytes())).ok()
    }
}

/// Stamp of the file of this name in an index meta.
fn known(meta: &IndexMeta, name: &str) -> Option<FileStamp> {
    let i = meta.files.binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes())).ok()?;
    Some(meta.files[i].stamp)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::fhir::instant::Instant;
    use crate::index::test_lines::append;
    use crate::progress::Progress;
    use crate::store::Store;

    fn row(id: usize) -> String {
        format!(r#"{{"resourceType":"Patient","id":"p{id}"}}"#)
    }

    fn as_of() -> Instant {
        Instant::parse("2024-01-01T00:00:00Z").unwrap()
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// CONS-08: what came after a look is not in its snapshot, whatever was indexed before; the next one has it all.
    #[test]
    fn a_snapshot_of_a_view_ends_where_the_view_did() {
        for indexed_before in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (root, twin) = (dir.path().join("store"), dir.path().join("twin"));
            fs::create_dir(&root).unwrap();
            append(&root.join("a.ndjson"), &[row(1), row(2)]);
            let store = Store::open(&root).unwrap();
            assert!(store.latest_published().unwrap().is_none());
            if indexed_before {
                store.index(&Progress::default()).unwrap();
            }
            append(&root.join("a.ndjson"), &[row(3)]);
            append(&root.join("b.ndjson"), &[row(4)]);
            let listing = store.list_files().unwrap();
            copy(&root, &twin);
            append(&root.join("a.ndjson"), &[row(5)]);
            append(&root.join("b.ndjson"), &[row(6), row(7)]);
            append(&root.join("c.ndjson"), &[row(8)]);
            if let Some(index) = store.latest_published().unwrap() {
                assert!(!listing.is_indexed(index.generation()));
            }
            let (snapshot, _) = store.snapshot_of_listing(&listing, as_of(), &Progress::default()).unwrap();
            assert_eq!(snapshot.index().rows(), 4);
            snapshot.index().verify_unchanged().unwrap();
            assert!(listing.is_indexed(store.latest_published().unwrap().unwrap().generation()));
            let then = Store::open(&twin).unwrap().snapshot(as_of()).unwrap();
            let contents = |snapshot: &crate::index::snapshot::Snapshot| {
                snapshot.record().segments.iter().map(|segment| (segment.end, segment.content)).max().unwrap()
            };
            if !indexed_before {
                assert_eq!(contents(&snapshot), contents(&then), "the same bytes as a copy of that moment");
            }
            // The same view again is the same snapshot, and costs no scan; what came since is found by the next look.
            let (again, work) = store.snapshot_of_listing(&listing, as_of(), &Progress::default()).unwrap();
            assert_eq!((again.record(), work.scanned_bytes), (snapshot.record(), 0));
            assert_eq!(store.snapshot(as_of()).unwrap().index().rows(), 8);
            // By now the index holds more: a look of long ago sees it, but nothing is lost.
            assert_eq!(store.snapshot_of_listing(&listing, as_of(), &Progress::default()).unwrap().0.index().rows(), 8);
            assert_eq!(store.latest_published().unwrap().unwrap().rows(), 8);
        }
    }

    /// A line that is being written while one looks is not torn for the next.
    #[test]
    fn a_view_that_ends_within_a_line_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.ndjson");
        append(&file, &[row(1)]);
        let text = row(2);
        let (head, tail) = text.split_at(20);
        fs::write(&file, row(1) + "\n" + head).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let listing = store.list_files().unwrap();
        fs::write(&file, row(1) + "\n" + head + tail + "\n").unwrap();
        let (snapshot, _) = store.snapshot_of_listing(&listing, as_of(), &Progress::default()).unwrap();
        assert_eq!(snapshot.index().rows(), 1);
        assert_eq!(store.snapshot(as_of()).unwrap().index().rows(), 2);
    }
}
