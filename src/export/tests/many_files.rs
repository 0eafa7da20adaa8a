//! Exports of stores with more files than are held open: the same bytes, and what becomes of files that are replaced.

use std::collections::BTreeMap;
use std::path::Path;

use crate::codec::compression::Compression;
use crate::error::{ExportError, IndexError};
use crate::export::options::{Clock, Existing, ExportOptions, SnapshotRequest};
use crate::export::prepare::SharedStatus;
use crate::export::run::ExportRun;
use crate::export::tests::kills::{AS_OF, tree};
use crate::fhir::instant::Instant;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::{Store, StoreOptions};
use crate::sys::access::Access;
use crate::sys::durability::FileSync;
use crate::sys::sigbus;
use crate::sys::store_file::StoreFileError;

/// Files of the store, and how many of them are held.
const FILES: usize = 30;
const HELD: usize = 10;

/// The rows of a file.
fn rows(file: usize) -> String {
    let row = |n: usize| format!("{{\"resourceType\":\"Patient\",\"id\":\"p{file}-{n}\",\"active\":true}}\n");
    (0..5).map(row).collect()
}

/// A store of [`FILES`] files, every third compressed, read as `access` says.
fn store_in(root: &Path, held_files_max: usize, access: Access) -> Store {
    for file in 0..FILES {
        let (suffix, bytes) = match file % 3 {
            0 => (".gz", crate::codec::decoder::tests::gzip(rows(file).as_bytes())),
            _ => ("", rows(file).into_bytes()),
        };
        std::fs::write(root.join(format!("f{file:02}.ndjson{suffix}")), bytes).unwrap();
    }
    Store::open_with(root, StoreOptions { held_files_max, access, ..StoreOptions::default() }).unwrap()
}

/// An export of everything, with a look at the run between its plan and its first byte.
fn export(store: &Store, out: &Path, between: &dyn Fn()) -> Result<BTreeMap<String, Vec<u8>>, ExportError> {
    let (at, progress) = (Instant::parse(AS_OF).unwrap(), Progress::default());
    let moment = SnapshotRequest { time: at.into(), view: None };
    let clock: Clock<'_> = &|| Instant::parse(AS_OF).unwrap();
    let options = ExportOptions::new(out).sync(FileSync::No);
    let request = ExportRequest::system().compression(Compression::None);
    let status = SharedStatus::default();
    let run = ExportRun::begin(store, &request, &moment, &options, Existing::Refuse, &progress, &status)?;
    between();
    (0..run.tasks()).try_for_each(|task| run.write(task, clock, &progress))?;
    run.finish(clock, &progress)?;
    let mut files = tree(out);
    files.retain(|name, _| name.ends_with(".ndjson"));
    Ok(files)
}

/// Bytes do not depend on how many files are held, and files that are removed, replaced or appended to under the export do not
/// change what held ones give. Of one that is not held, an append changes nothing, and anything else is an error that names it.
#[test]
fn what_becomes_of_files_that_are_not_held() {
    for access in [Access::pread(), sigbus::install().unwrap()] {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let made = |name: &str, held: usize| {
            std::fs::create_dir(at(name)).unwrap();
            store_in(&at(name), held, access)
        };
        let expected = export(&made("all", FILES), &at("out-all"), &|| {}).unwrap();
        assert_eq!(export(&made("few", HELD), &at("out-few"), &|| {}).unwrap(), expected);
        assert_eq!(export(&made("none", 0), &at("out-none"), &|| {}).unwrap(), expected);

        let replace = |store: &str, file: &str| {
            let (path, new) = (at(store).join(file), at("new"));
            std::fs::copy(&path, &new).unwrap();
            std::fs::rename(new, path).unwrap();
        };
        // The first files are held, so that they may be replaced or removed.
        let store = made("held", HELD);
        let held = export(&store, &at("out-held"), &|| {
            replace("held", "f00.ndjson.gz");
            replace("held", "f01.ndjson");
            std::fs::remove_file(at("held").join("f02.ndjson")).unwrap();
        });
        assert_eq!(held.unwrap(), expected);

        let grown = export(&made("grown", HELD), &at("out-grown"), &|| {
            let path = at("grown").join("f28.ndjson");
            let bytes = [std::fs::read(&path).unwrap(), rows(99).into_bytes()].concat();
            std::fs::write(&path, bytes).unwrap();
        });
        assert_eq!(grown.unwrap(), expected);

        for (name, file, is_removed) in
            [("plain", "f28.ndjson", false), ("gzip", "f27.ndjson.gz", false), ("gone", "f28.ndjson", true)]
        {
            let store = made(name, HELD);
            let error = export(&store, &at(&format!("out-{name}")), &|| match is_removed {
                true => std::fs::remove_file(at(name).join(file)).unwrap(),
                false => replace(name, file),
            })
            .unwrap_err();
            let text = error.to_string();
            assert!(text.contains(file) && text.contains("removed or replaced"), "{text}");
            let is_named = match &error {
                ExportError::Index(IndexError::Source(StoreFileError::Replaced { path, .. })) => path.ends_with(file),
                _ => false,
            };
            assert!(is_named, "{error:?}");
            assert!(!at(&format!("out-{name}")).join("manifest.json").exists());
        }
    }
}
