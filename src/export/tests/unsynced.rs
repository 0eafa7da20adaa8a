//! A directory that cannot be synced after the manifest stands: the export is there, and the error says so.

use crate::error::{ExportError, JournalError};
use crate::export::export;
use crate::export::options::{Existing, ExportOptions};
use crate::export::tests::kills::{AS_OF, World, everything, tree};
use crate::fhir::instant::Instant;
use crate::progress::Progress;
use crate::store::Store;
use crate::sys::directory::tests::failing_syncs;

#[test]
fn an_export_that_cannot_be_synced_stands() {
    let world = World::new();
    let store = Store::open(world.path("store")).unwrap();
    let run = |out: &std::path::Path, existing| {
        let options = ExportOptions::new(out).existing(existing);
        export(&store, &everything(), Instant::parse(AS_OF).unwrap(), &options, &Progress::default())
    };
    let place = |name: &str| {
        let out = world.path(name);
        std::fs::create_dir(&out).unwrap();
        out.canonicalize().unwrap()
    };
    let (whole, out) = (place("whole"), place("out"));
    run(&whole, Existing::Refuse).unwrap();
    // Every sync before the manifest succeeds, the one after its rename fails.
    let manifest = out.join("manifest.json");
    let stands = move || manifest.exists();
    let error = failing_syncs(&out, stands, || run(&out, Existing::Refuse)).unwrap_err();
    assert!(matches!(error, ExportError::Record(JournalError::Unsynced { .. })), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("stands complete under its manifest") && text.contains("loss of power"), "{text}");
    let published = |out: &std::path::Path| {
        let mut files = tree(out);
        files.retain(|name, _| !name.starts_with(crate::write::journal::JOB));
        files
    };
    assert!(published(&out) == published(&whole), "files, manifest and status are those of an export that succeeded");
    // As the advice says: once more, which finds every file finished.
    let resumed = run(&out, Existing::Resume).unwrap();
    assert_eq!(resumed.resumed_files, resumed.manifest.output.len());
    // A sync that fails before the manifest stands is a failure like any other.
    let early = place("early");
    let error = failing_syncs(&early, || true, || run(&early, Existing::Refuse)).unwrap_err();
    assert!(!matches!(error, ExportError::Record(JournalError::Unsynced { .. })), "{error:?}");
    assert!(!early.join("manifest.json").exists());
}
