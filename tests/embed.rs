//! A program that embeds the library, with no feature of it: it opens a store, plans, writes to a sink of its own, watches
//! from another thread, and cancels. `cargo test --no-default-features --test embed` compiles and runs it.

use std::error::Error;
use std::io;
use std::path::Path;

use outpour::{
    Compression, ExportError, ExportRequest, Instant, Parameter, Progress, Sink, Store, StoreOptions, export_to_sink,
    plan,
};

/// Keeps whole files, as an object store does.
#[derive(Default)]
struct Bucket {
    files: Vec<(String, Vec<u8>)>,
    open: Option<(String, Vec<u8>)>,
}

impl Sink for Bucket {
    fn begin(&mut self, name: &str) -> io::Result<()> {
        self.open = Some((name.to_string(), Vec::new()));
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().ok_or(io::ErrorKind::NotFound)?.1.extend_from_slice(bytes);
        Ok(())
    }
    fn commit(&mut self) -> io::Result<()> {
        self.files.push(self.open.take().ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
    fn abort(&mut self) {
        self.open = None;
    }
}

/// A store of some patients with an observation each, and one line that is no resource.
fn store(directory: &Path) -> Result<Store, Box<dyn Error>> {
    let mut lines = String::from("{\n");
    for n in 0..100 {
        lines += &format!("{{\"resourceType\":\"Patient\",\"id\":\"p{n}\"}}\n");
        lines += &format!(
            "{{\"resourceType\":\"Observation\",\"id\":\"o{n}\",\"subject\":{{\"reference\":\"Patient/p{n}\"}}}}\n"
        );
    }
    std::fs::write(directory.join("all.ndjson"), lines)?;
    Ok(Store::open_with(directory, StoreOptions::default().index_dir(directory.join("index")))?)
}

#[test]
fn a_program_exports_watches_and_cancels() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let store = store(scratch.path())?;
    let now: Instant = "2026-01-01T00:00:00Z".parse()?;
    let request = ExportRequest::patient_ids(["p1", "Patient/p2", "nobody"]).file_bytes(1 << 20);

    // 1. Everything in one call, watched from this thread while another one works.
    let (mut bucket, progress) = (Bucket::default(), Progress::default());
    let report = std::thread::scope(|threads| {
        let work = threads.spawn(|| export_to_sink(&store, &request, now.clone(), &mut bucket, &progress));
        while !work.is_finished() {
            assert!(progress.write_done() <= progress.write_total() || progress.write_total() == 0);
            std::thread::yield_now();
        }
        work.join().expect("no panic")
    })?;
    let names: Vec<&str> = bucket.files.iter().map(|(name, _)| name.as_str()).collect();
    let shards = ["Observation.00001.ndjson", "Patient.00001.ndjson"];
    assert_eq!(names, [&shards[..], &["error/OperationOutcome.00001.ndjson", "manifest.json"]].concat());
    assert_eq!((report.members_listed, report.members_found, report.ledger.exported), (3, 2, 4));
    assert_eq!((progress.files_done(), progress.files_total()), (2, 2));

    // 2. File by file, as the program schedules them: the same bytes.
    let snapshot = store.snapshot(now.clone())?;
    let plan = plan(&snapshot, &request)?;
    let mut single = Bucket::default();
    let receipt = plan.write_shard(1, &snapshot, &mut single, &Progress::default())?;
    assert_eq!((receipt.file.as_str(), receipt.count), (shards[1], 2));
    assert_eq!(single.files[0], bucket.files[1]);

    // 3. Cancelled: no manifest.
    let (mut bucket, progress) = (Bucket::default(), Progress::default());
    progress.cancel();
    let request = ExportRequest::all_patients().compression(Compression::Gzip);
    let error = export_to_sink(&store, &request, now.clone(), &mut bucket, &progress).unwrap_err();
    assert!(error.is_cancelled() && bucket.files.is_empty(), "{error}");

    // 4. What went wrong can be matched.
    let missing = outpour::plan(&snapshot, &ExportRequest::group("ten")).unwrap_err();
    assert!(missing.is_missing_group(), "{missing}");
    let wrong = ExportRequest::group("ten").types(["Pateint"]).since("yesterday");
    let Err(ExportError::Request(wrong)) = outpour::plan(&snapshot, &wrong) else { panic!("it is refused") };
    let parameters: Vec<_> = wrong.problems.iter().map(|problem| problem.parameter).collect();
    assert_eq!(parameters, [Some(Parameter::Type), Some(Parameter::Since)]);
    Ok(())
}

/// A damaged index is an error of its own for who plans by himself, and is mended by a call.
#[test]
fn a_damaged_index_is_told_apart() -> Result<(), Box<dyn Error>> {
    let error = ExportError::from(outpour::CorruptIndex("a page is not as it was written"));
    assert_eq!(
        error.corrupt_index().map(|damage| damage.to_string()).as_deref(),
        Some("a page is not as it was written")
    );
    let scratch = tempfile::tempdir()?;
    store(scratch.path())?.verify_and_repair(&Progress::default())?;
    Ok(())
}

/// Every public type can be shown, so that a type of the program that holds one can derive it.
#[test]
fn every_type_can_be_shown() {
    fn shown<T: std::fmt::Debug>() {}
    shown::<(outpour::Compression, outpour::CorruptIndex, outpour::DigestAlgorithm, outpour::DirSink)>();
    shown::<(outpour::DirectoryContent, outpour::Existing, ExportError, outpour::ExportOptions<'_>)>();
    shown::<(outpour::ExportReport, ExportRequest, outpour::FaultsAllowed, outpour::FileSync, outpour::IndexError)>();
    shown::<(Instant, outpour::Issue, outpour::IssueCode, outpour::JournalError, outpour::LateArrivals)>();
    shown::<(outpour::Manifest, outpour::MembershipRule, outpour::MemorySink, outpour::MissingLastUpdated)>();
    shown::<(Parameter, outpour::ParseInstantError, outpour::Plan, outpour::Population, outpour::ProblemKind, Progress)>(
    );
    shown::<(outpour::Receipt, outpour::RequestError, outpour::RequestProblem, outpour::ResourceType)>();
    shown::<(outpour::Severity, outpour::Snapshot, Store, StoreOptions, outpour::Validate)>();
}
