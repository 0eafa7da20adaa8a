//! A data file of a store as a walk finds it, and the stamps of many, taken on several threads.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use crate::codec::compression::Compression;
use crate::limits::{STAT_THREADS_MAX, STATS_PER_THREAD_MIN};
use crate::store::file_name::path_of;
use crate::sys::file_stamps::StampedDirectory;
use crate::sys::store_file::FileStamp;

/// A data file of the store as the walk found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WalkedFile {
    /// Path relative to the store, `/` between its parts, as [`file_name`](crate::store::file_name) spells it; store order is
    /// the bytewise order of these.
    pub name: String,
    /// Compression of its bytes by its name; the bytes themselves may tell another one.
    pub named: Compression,
    /// Size and times at the time of the walk, of the file that a link leads to; a plain file is cut at the length of a
    /// listing, if there is one.
    pub stamp: FileStamp,
    /// Length at which a listing cuts it, in bytes, if it turns out to be plain.
    pub listed_len: Option<u64>,
}

/// Most files whose stamps a thread takes at a time; fewer in tests, whose stores are small.
const FILES_PER_TASK: usize = if cfg!(test) { 3 } else { STATS_PER_THREAD_MIN };

/// Files of a walk whose stamps one thread takes at a time.
struct StampTask<'a> {
    /// Places in the walk, ascending.
    places: &'a [usize],
    /// Place in the walk of the first of `files`.
    first: usize,
    /// The files from there on.
    files: &'a mut [WalkedFile],
}

/// A place in the walk whose file got no stamp: whether something else has its name now, or nothing; or the error.
pub(crate) type Unstamped = (usize, io::Result<bool>);

/// Takes the stamps of the files at these places, ascending, on several threads if they are many; those that got none, by their
/// places.
pub(crate) fn take_stamps(root: &Path, files: &mut [WalkedFile], places: &[usize]) -> Vec<Unstamped> {
    let threads_max = match rayon::current_thread_index() {
        Some(_) => rayon::current_num_threads(),
        // Not a task of a pool: none is made for this.
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let threads = threads_max.min(STAT_THREADS_MAX).min(places.len() / STATS_PER_THREAD_MIN).max(1);
    let mut tasks = Vec::new();
    let (mut rest, mut first) = (files, 0);
    let mut parts = places.chunks(FILES_PER_TASK).peekable();
    while let Some(places) = parts.next() {
        let end = parts.peek().map_or(first + rest.len(), |next| next[0]);
        let (files, behind) = std::mem::take(&mut rest).split_at_mut(end - first);
        tasks.push(StampTask { places, first, files });
        (rest, first) = (behind, end);
    }
    // Each thread takes a task when it is done with one: some may have to wait for a processor.
    let tasks = Mutex::new(tasks.into_iter());
    let work = || -> Vec<Unstamped> {
        let next = || tasks.lock().expect("no panic under it").next();
        std::iter::from_fn(next).flat_map(|task| stamp_files(root, task)).collect()
    };
    let mut unstamped: Vec<Unstamped> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().flat_map(|other| other.join().expect("no panic in a system call"));
        own.into_iter().chain(others).collect()
    });
    unstamped.sort_unstable_by_key(|(place, _)| *place);
    unstamped
}

/// Takes the stamps of some files, each directory opened once; those that got none. Links are not followed.
fn stamp_files(root: &Path, task: StampTask<'_>) -> Vec<Unstamped> {
    let StampTask { places, first, files } = task;
    let mut unstamped = Vec::new();
    // The directory of the file before, by its prefix in the names.
    let mut directory: Option<(String, io::Result<StampedDirectory>)> = None;
    for place in places {
        let file = &mut files[place - first];
        let (prefix, own) = file.name.split_at(file.name.rfind('/').map_or(0, |slash| slash + 1));
        if directory.as_ref().is_none_or(|(known, _)| known != prefix) {
            directory = Some((prefix.to_string(), StampedDirectory::open(&root.join(path_of(prefix)))));
        }
        let Some((_, opened)) = &directory else { unreachable!("set above") };
        let found = match opened {
            // A backslash may begin the spelling of a byte.
            Ok(opened) if own.contains('\\') => opened.stamp(path_of(own).as_os_str()),
            Ok(opened) => opened.stamp(OsStr::new(own)),
            Err(error) => Err(copy_of(error)),
        };
        match found {
            Ok(Some(stamp)) => file.stamp = stamp,
            Ok(None) => unstamped.push((*place, Ok(true))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => unstamped.push((*place, Ok(false))),
            Err(error) => unstamped.push((*place, Err(error))),
        }
    }
    unstamped
}

/// The same error of a system call again.
fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Files in any part of a list get the stamps that their metadata have; what is gone, or something else by now, gets none.
    #[test]
    fn stamps_are_taken_by_places() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/e")).unwrap();
        let names: Vec<String> =
            (0..20).map(|n| format!("{}f{n}.ndjson", ["", "d/", "d/e/", r"d/\x5cx41"][n % 4])).collect();
        names.iter().for_each(|name| std::fs::write(dir.path().join(path_of(name)), name).unwrap());
        let stamp = FileStamp::default();
        let found =
            |name: &String| WalkedFile { name: name.clone(), named: Compression::None, stamp, listed_len: None };
        let mut files: Vec<WalkedFile> = names.iter().map(found).collect();
        let at = |place: usize| dir.path().join(path_of(&names[place]));
        std::fs::remove_file(at(5)).unwrap();
        std::fs::remove_file(at(8)).unwrap();
        symlink(at(0), at(8)).unwrap();
        std::fs::remove_file(at(13)).unwrap();
        std::fs::create_dir(at(13)).unwrap();
        let places: Vec<usize> = (1..20).filter(|place| place % 6 != 0).collect();
        let unstamped = take_stamps(dir.path(), &mut files, &places);
        let unstamped: Vec<(usize, bool)> = unstamped.into_iter().map(|(place, is)| (place, is.unwrap())).collect();
        assert_eq!(unstamped, [(5, false), (8, true), (13, true)]);
        for (place, file) in files.iter().enumerate() {
            let is_stamped = places.contains(&place) && ![5, 8, 13].contains(&place);
            let expected = || FileStamp::of_metadata(&std::fs::symlink_metadata(at(place)).unwrap());
            assert_eq!(file.stamp, if is_stamped { expected() } else { stamp }, "{}", file.name);
        }
        // A directory that is gone is one without files.
        std::fs::remove_dir_all(dir.path().join("d")).unwrap();
        assert!(
            take_stamps(dir.path(), &mut files, &[1])
                .iter()
                .all(|(place, is)| (*place, is.as_ref().ok()) == (1, Some(&false)))
        );
    }
}
