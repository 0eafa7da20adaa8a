//! Runs the binary and reads its exports. `Export::read`, by which every test reads an export, checks files and
//! manifest against the MANIFEST and FILE rows of the specification.

use crate::naive::line::{self, Line};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Outcome of a run of the binary.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code; the negative number of the signal if the run was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Everything that the command said, results before messages.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Asserts the exit code, and that each needle is in standard error, or in the report of a command whose work is done.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, needles: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        let told = if code == 1 { self.said() } else { self.stderr.clone() };
        for needle in needles {
            assert!(told.contains(needle), "the message should name {needle:?}: {told}");
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// A command for the binary, without arguments.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outpour"));
    command.stdin(Stdio::null()).env_remove("RUST_BACKTRACE").env("NO_COLOR", "1");
    command
}

/// Runs the binary to its end.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Run {
    finish(command().args(args))
}

/// Runs a prepared command to its end.
pub(crate) fn finish(command: &mut Command) -> Run {
    use std::os::unix::process::ExitStatusExt;
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("the binary starts");
    let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap());
    Run {
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `outpour export --store … --out …` with further arguments, without progress bar and fsync.
pub(crate) fn export(store: &Path, out: &Path, more: &[&str]) -> Run {
    let (store, out) = (store.to_str().unwrap(), out.to_str().unwrap());
    let mut args = vec!["export", "--store", store, "--out", out, "--no-sync", "--progress", "never"];
    args.extend(more);
    run(&args)
}

/// A path below `testdata/`.
pub(crate) fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path)
}

/// A new temporary directory, removed when dropped.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("outpour-it-").tempdir().unwrap()
}

/// Bounds on the files of an export, as requested.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub file_bytes: u64,
    pub file_resources: u64,
}

impl Bounds {
    pub(crate) const DEFAULT: Bounds = Bounds { file_bytes: 256 << 20, file_resources: u64::MAX };
}

/// One file of an export, decoded.
pub(crate) struct File {
    pub name: String,
    pub resource_type: String,
    pub lines: Vec<Vec<u8>>,
}

/// A finished export, read back and checked.
pub(crate) struct Export {
    pub manifest: Value,
    pub output: Vec<File>,
    pub deleted: Vec<File>,
    pub error: Vec<File>,
}

impl Export {
    /// Reads the export in a directory, and checks everything that holds for every export.
    #[track_caller]
    pub(crate) fn read(out: &Path, bounds: Bounds) -> Export {
        let text = std::fs::read(out.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&text).expect("the manifest is JSON");
        check_root(&manifest);
        let mut listed = BTreeSet::new();
        let mut section = |name: &str| -> Vec<File> {
            let items = manifest[name].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| read_item(out, item, bounds, &mut listed)).collect()
        };
        let (output, deleted, error) = (section("output"), section("deleted"), section("error"));
        let export = Export { manifest, output, deleted, error };
        export.check_names(bounds);
        export.check_messages();
        assert_eq!(files_below(out), listed, "files on disk, and files the manifest lists");
        check_status(out, &export);
        export
    }

    /// Lines of each type, shards concatenated.
    pub(crate) fn lines(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut lines: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for file in &self.output {
            lines.entry(file.resource_type.clone()).or_default().extend(file.lines.iter().cloned());
        }
        lines
    }

    /// `Type/id` of every deletion, in order (DELETED-02, DELETED-07).
    pub(crate) fn deletions(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for bundle in self.deleted.iter().flat_map(|file| &file.lines) {
            let bundle: Value = serde_json::from_slice(bundle).unwrap();
            assert_eq!((&bundle["resourceType"], &bundle["type"]), (&"Bundle".into(), &"transaction".into()));
            let entries = bundle["entry"].as_array().unwrap();
            assert!((1..=1000).contains(&entries.len()));
            for entry in entries {
                assert_eq!(entry["request"]["method"], "DELETE");
                urls.push(entry["request"]["url"].as_str().unwrap().to_string());
            }
        }
        urls
    }

    /// Every issue of the error files, with its JSON as text.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        for line in self.error.iter().flat_map(|file| &file.lines) {
            let outcome: Value = serde_json::from_slice(line).unwrap();
            for issue in outcome["issue"].as_array().expect("issues") {
                messages.push(Message {
                    severity: issue["severity"].as_str().unwrap().to_string(),
                    code: issue["code"].as_str().unwrap().to_string(),
                    text: issue.to_string(),
                });
            }
        }
        messages
    }

    /// The ledger of the manifest, by class.
    pub(crate) fn ledger(&self) -> BTreeMap<String, u64> {
        let ledger = &self.manifest["extension"]["urn:outpour:export:1"]["ledger"];
        let classes = ledger.as_object().unwrap_or_else(|| panic!("a ledger in {}", self.manifest["extension"]));
        classes.iter().filter_map(|(class, count)| Some((class.clone(), count.as_u64()?))).collect()
    }

    /// Checks that files are numbered from 00001 within a type, ordered by type name, and filled up to the bounds
    /// (MANIFEST-16, FILE-12).
    fn check_names(&self, bounds: Bounds) {
        for (prefix, files) in [("", &self.output), ("deleted/", &self.deleted), ("error/", &self.error)] {
            let mut previous: Option<&File> = None;
            let mut number = 0;
            for file in files {
                let same_type = previous.filter(|previous| previous.resource_type == file.resource_type);
                number = if same_type.is_some() { number + 1 } else { 1 };
                let expected = format!("{prefix}{}.{number:05}.ndjson", file.resource_type);
                assert!(file.name.starts_with(&expected), "{} where {expected} should be", file.name);
                if let Some(previous) = previous {
                    assert!(previous.resource_type <= file.resource_type, "ordered by type");
                }
                if let Some(before) = same_type.filter(|_| prefix.is_empty()) {
                    let size: usize = before.lines.iter().map(|line| line.len() + 1).sum();
                    let full = (size + file.lines[0].len() + 1) as u64 > bounds.file_bytes
                        || before.lines.len() as u64 == bounds.file_resources;
                    assert!(full, "{} ends before its bound", before.name);
                }
                previous = Some(file);
            }
        }
    }

    fn check_messages(&self) {
        assert!(self.error.iter().all(|file| file.resource_type == "OperationOutcome"));
        assert!(self.deleted.iter().all(|file| file.resource_type == "Bundle"));
        for message in self.messages() {
            assert!(["fatal", "error", "warning", "information"].contains(&message.severity.as_str()), "{message:?}");
            assert!(ISSUE_TYPES.contains(&message.code.as_str()), "CORE-04: {message:?}");
        }
        self.deletions();
    }
}

/// R4's IssueType, whose codes an OperationOutcome must use.
const ISSUE_TYPES: [&str; 31] = [
    "invalid",
    "structure",
    "required",
    "value",
    "invariant",
    "security",
    "login",
    "unknown",
    "expired",
    "forbidden",
    "suppressed",
    "processing",
    "not-supported",
    "duplicate",
    "multiple-matches",
    "not-found",
    "deleted",
    "too-long",
    "code-invalid",
    "extension",
    "too-costly",
    "business-rule",
    "conflict",
    "transient",
    "lock-error",
    "no-store",
    "exception",
    "timeout",
    "incomplete",
    "throttled",
    "informational",
];

/// One issue of the error files.
#[derive(Debug)]
pub(crate) struct Message {
    pub severity: String,
    pub code: String,
    pub text: String,
}

impl Message {
    /// Whether the text has a number by itself, not as part of another number or word.
    pub(crate) fn names_number(&self, number: u64) -> bool {
        self.text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == number.to_string())
    }
}

fn check_root(manifest: &Value) {
    let keys: BTreeSet<&str> = manifest.as_object().unwrap().keys().map(String::as_str).collect();
    let allowed = ["deleted", "error", "extension", "output", "request", "requiresAccessToken", "transactionTime"];
    let wrong: Vec<_> = keys.iter().filter(|key| !allowed.contains(key)).collect();
    assert!(wrong.is_empty(), "MANIFEST-15: {wrong:?}");
    for required in ["error", "extension", "output", "request", "requiresAccessToken", "transactionTime"] {
        assert!(keys.contains(required), "the manifest lacks {required}");
    }
    let time = manifest["transactionTime"].as_str().unwrap();
    assert!(crate::naive::instant::parse(time).is_some(), "MANIFEST-01: {time}");
    assert_eq!(manifest["requiresAccessToken"], Value::Bool(false), "MANIFEST-18");
    assert!(manifest["request"].as_str().unwrap().contains("$export"), "MANIFEST-02");
    assert!(manifest["output"].is_array() && manifest["error"].is_array(), "MANIFEST-04, 09");
    assert!(manifest.get("deleted").is_none_or(|items| items.as_array().is_some_and(|items| !items.is_empty())));
    let extension = manifest["extension"].as_object().expect("MANIFEST-14");
    assert!(extension.keys().all(|key| key.contains(':')), "MANIFEST-14: keys are absolute URLs");
}

fn read_item(out: &Path, item: &Value, bounds: Bounds, listed: &mut BTreeSet<String>) -> File {
    let keys: BTreeSet<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["count", "extension", "type", "url"]), "MANIFEST-15");
    let url = item["url"].as_str().unwrap();
    assert!(url.contains("://"), "MANIFEST-06: {url} is absolute");
    let mut segments = url.rsplit('/');
    let (last, parent) = (segments.next().unwrap(), segments.next().unwrap_or(""));
    let name = if ["error", "deleted"].contains(&parent) && out.join(parent).join(last).exists() {
        format!("{parent}/{last}")
    } else {
        last.to_string()
    };
    assert!(listed.insert(name.clone()), "{name} is listed twice");
    let stored = std::fs::read(out.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bytes = decode(&name, &stored);
    let lines = split_lines(&name, &bytes);
    let resource_type = item["type"].as_str().unwrap().to_string();
    check_types(&name, &resource_type, &lines);
    let extension = &item["extension"]["urn:outpour:file:1"];
    assert_eq!(item["count"].as_u64(), Some(lines.len() as u64), "MANIFEST-07: {name}");
    assert_eq!(extension["bytes"].as_u64(), Some(bytes.len() as u64), "{name}");
    assert_eq!(extension["fileBytes"].as_u64(), Some(stored.len() as u64), "{name}");
    check_digest(&name, &extension["digest"], &stored);
    let within = bytes.len() as u64 <= bounds.file_bytes && lines.len() as u64 <= bounds.file_resources;
    assert!(within || lines.len() == 1, "FILE-12: {name} has {} bytes, {} lines", bytes.len(), lines.len());
    File { name, resource_type, lines }
}

/// Splits a file into lines, and checks FILE-02: no byte order mark, a newline after every line, no blank line, UTF-8.
fn split_lines(name: &str, bytes: &[u8]) -> Vec<Vec<u8>> {
    assert!(!bytes.starts_with(b"\xef\xbb\xbf"), "{name} begins with a byte order mark");
    assert!(std::str::from_utf8(bytes).is_ok(), "{name} is not UTF-8");
    assert_eq!(bytes.last(), Some(&b'\n'), "{name} ends with a newline (and is not empty, MANIFEST-08)");
    let lines: Vec<Vec<u8>> = bytes[..bytes.len() - 1].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    assert!(lines.iter().all(|line| !line.iter().all(u8::is_ascii_whitespace)), "{name} has a blank line");
    lines
}

/// Checks MANIFEST-05 and OUTCOME-02: every line is valid and of the file's type.
fn check_types(name: &str, resource_type: &str, lines: &[Vec<u8>]) {
    // A sample, for speed: exported lines are also compared with the oracle's, which were parsed.
    let step = (lines.len() / 2000).max(1);
    for (number, line) in lines.iter().enumerate().step_by(step) {
        let found = match line::read(line) {
            Line::Row(row) => row.resource_type,
            Line::Tombstones { .. } => "Bundle".into(),
            Line::Fault(_) if ["OperationOutcome"].contains(&resource_type) => type_without_id(line),
            other => panic!("{name} line {}: {other:?}", number + 1),
        };
        assert_eq!(found, resource_type, "{name} line {}", number + 1);
    }
}

/// The type of a line of an error file: the project's OperationOutcomes have no id.
fn type_without_id(line: &[u8]) -> String {
    let value: Value = serde_json::from_slice(line).expect("an OperationOutcome");
    value["resourceType"].as_str().unwrap_or("none").to_string()
}

fn check_digest(name: &str, digest: &Value, stored: &[u8]) {
    if digest.is_null() {
        return;
    }
    let value = digest["value"].as_str().unwrap().to_lowercase();
    let computed = match digest["algorithm"].as_str().unwrap().to_lowercase().replace('-', "") {
        sha if sha == "sha256" => {
            use sha2::Digest;
            hex(&sha2::Sha256::digest(stored))
        }
        xxh if xxh.starts_with("xxh3") => format!("{:032x}", xxhash_rust::xxh3::xxh3_128(stored)),
        other => panic!("{name}: digest {other}"),
    };
    assert_eq!(value, computed, "{name}: MANIFEST-17");
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes a file by its name. Asserts that a gzip file is one member, and a zstd window at most 8 MiB (DESIGN section
/// 3).
pub(crate) fn decode(name: &str, stored: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if name.ends_with(".gz") {
        let mut left = stored;
        flate2::bufread::GzDecoder::new(&mut left).read_to_end(&mut bytes).unwrap();
        assert!(left.is_empty(), "{name} is more than one gzip member");
    } else if name.ends_with(".zst") {
        let mut decoder = zstd::stream::read::Decoder::new(stored).unwrap();
        decoder.window_log_max(23).unwrap();
        decoder.read_to_end(&mut bytes).unwrap();
    } else {
        bytes = stored.to_vec();
    }
    bytes
}

/// Names of the data files on disk: all but the manifest, the status and the journal.
fn files_below(out: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (prefix, dir) in [("", out.to_path_buf()), ("error/", out.join("error")), ("deleted/", out.join("deleted"))] {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let own = ["manifest.json", "status.json"].contains(&name.as_str()) || name.starts_with("foreign");
            if entry.file_type().unwrap().is_file() && !(prefix.is_empty() && own) {
                found.insert(format!("{prefix}{name}"));
            }
        }
    }
    found
}

/// Checks the final state of `status.json` (DESIGN section 8).
fn check_status(out: &Path, export: &Export) {
    let status: Value = serde_json::from_slice(&std::fs::read(out.join("status.json")).expect("status.json")).unwrap();
    for key in ["id", "transactionTime", "request", "requiresAccessToken", "status", "batches", "lastUpdated", "output"]
    {
        assert!(status.get(key).is_some(), "status.json lacks {key}: {status}");
    }
    for key in ["transactionTime", "request", "requiresAccessToken"] {
        assert_eq!(status[key], export.manifest[key], "status.json and manifest.json differ in {key}");
    }
    let files = status["output"].as_array().unwrap().len();
    assert_eq!(files, export.output.len(), "status.json lists every output file once it is done");
}

/// Every file below a directory and its bytes, without the times in `status.json` and without the journal.
pub(crate) fn snapshot(out: &Path) -> BTreeMap<String, Vec<u8>> {
    fn visit(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                if name != ".outpour-job" {
                    visit(&entry.path(), &format!("{name}/"), found);
                }
            } else if name == "status.json" {
                let mut status: Value = serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
                for key in ["lastUpdated", "heartbeat", "pid"] {
                    status.as_object_mut().unwrap().remove(key);
                }
                found.insert(name, status.to_string().into_bytes());
            } else {
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(out, "", &mut found);
    found
}
