//! The kit that measures other engines works: it runs on the bundled store with engines that need no installation
//! (Python's own `json`; orjson where it is installed), and all answers are equal. The measured times are not looked
//! at.

use crate::run::{scratch, testdata};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn kit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rivals")
}

fn python(words: &[&str]) -> Option<String> {
    let output = Command::new("python3").args(words).env("PYTHONDONTWRITEBYTECODE", "1").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether there is a Python for the kit: version 3.11 is the first that parses all instants of the store.
fn ready() -> bool {
    let ready = python(&["-c", "import sys; assert sys.version_info >= (3, 11)"]).is_some();
    if !ready {
        println!("skipped: there is no python3 of at least 3.11");
    }
    ready
}

/// The bundled store as plain files.
fn plain_store(to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(testdata("stores/synthea-r4-100")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".zst") else { continue };
        let plain = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
        std::fs::write(to.join(name), plain).unwrap();
    }
}

#[test]
fn the_rivals_kit_runs_and_all_answers_are_equal() {
    if !ready() {
        return;
    }
    let scratch = scratch();
    let (store, work) = (scratch.path().join("store"), scratch.path().join("work"));
    plain_store(&store);
    let orjson = python(&["-c", "import orjson"]).is_some();
    let engines = if orjson { "outpour,stdlib,orjson" } else { "outpour,stdlib" };
    let output = Command::new("python3")
        .arg(kit().join("run.py"))
        .args(["--quick", "--jobs", "10", "--threads", "2", "--python", "python3", "--only", engines])
        .args(["--outpour", env!("CARGO_BIN_EXE_outpour"), "--store"])
        .arg(&store)
        .arg("--work")
        .arg(&work)
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reported}");
    let record = |end: &str| {
        let mut files = std::fs::read_dir(work.join("record")).unwrap().map(|entry| entry.unwrap().path());
        std::fs::read_to_string(files.find(|path| path.to_str().unwrap().ends_with(end)).unwrap()).unwrap()
    };
    let run: Value = serde_json::from_str(&record(".json")).unwrap();
    let rows = run["rows"].as_array().unwrap();
    for row in rows {
        assert_eq!(row["words"], "", "{row}");
        assert!(!row["samples"].as_array().unwrap().is_empty(), "{row}");
    }
    for (engine, mode) in [("outpour", "cold"), ("outpour", "warm"), ("Python + json", "cold"), ("cp", "cp")] {
        assert!(rows.iter().any(|row| row["engine"] == engine && row["mode"] == mode), "{engine} {mode}");
    }
    let formulations = run["formulations"].as_array().unwrap();
    assert_eq!(formulations.len(), 3 * (1 + usize::from(orjson)));
    assert!(formulations.iter().all(|formulation| formulation["cpu"].is_f64()), "{formulations:?}");
    assert!(record(".md").contains("## Promises"));
    assert!(record(".svg").trim_end().ends_with("</svg>"));
}

/// The kit's comparison ignores the order of lines and their files, and notices one changed byte.
#[test]
fn the_kit_compares_by_content() {
    if !ready() {
        return;
    }
    let scratch = scratch();
    let answers = [
        ("a", vec![("Patient.ndjson", "{1}\n{2}\n")]),
        ("b", vec![("Patient.00001.ndjson", "{2}\n"), ("Patient.00002.ndjson", "{1}\n"), ("manifest.json", "{}")]),
        ("c", vec![("Patient.ndjson", "{1}\n{3}\n")]),
        ("d", vec![("Patient.ndjson", "{1}\n{2}\n{2}\n")]),
    ];
    let contents = answers.map(|(name, files)| {
        let dir = scratch.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        for (file, text) in files {
            std::fs::write(dir.join(file), text).unwrap();
        }
        python(&[kit().join("compare.py").to_str().unwrap(), dir.to_str().unwrap()]).unwrap()
    });
    assert_eq!(contents[0], contents[1]);
    assert_ne!(contents[0], contents[2]);
    assert_ne!(contents[0], contents[3]);
}
