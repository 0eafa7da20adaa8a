//! The examples of `src/docs/consuming.md`: the commands, and each block of Python for which the packages that it imports are
//! installed. The SQL example, which needs none, is run after each of three nights, and its table is compared with what `apply` gives.

use crate::run::{scratch, testdata};
use std::path::Path;
use std::process::Command;

/// The blocks of the page in one language, in order.
fn blocks(language: &str) -> Vec<String> {
    let page = include_str!("../../src/docs/consuming.md");
    let parts = page.split("\n```").collect::<Vec<_>>();
    parts
        .iter()
        .filter_map(|part| part.strip_prefix(language))
        .map(|block| block.trim_start().to_string() + "\n")
        .collect()
}

/// Runs a program in a directory; its output. `None` if it is not installed, or lacks a package.
fn run(directory: &Path, program: &str, args: &[&str]) -> Option<String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_outpour")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).current_dir(directory).env("PATH", path).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("ModuleNotFoundError") {
        return None;
    }
    assert!(output.status.success(), "{args:?}\n{errors}{}", String::from_utf8_lossy(&output.stdout));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn examples_read_a_chain() {
    let scratch = scratch();
    let directory = scratch.path();
    std::fs::create_dir(directory.join("store")).unwrap();
    for entry in std::fs::read_dir(testdata("stores/synthea-r4-100")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, directory.join("store").join(path.file_name().unwrap())).unwrap();
        }
    }
    let commands = blocks("sh").remove(0);
    let python = blocks("python");
    let sql = python.iter().find(|block| block.contains("sqlite3")).unwrap();
    for night in 0..3 {
        if night > 0 {
            let entry = |id: &str| format!(r#"{{"request":{{"method":"DELETE","url":"{id}"}}}}"#);
            let patient = std::fs::read_to_string(directory.join("current/Patient.00001.ndjson")).unwrap();
            let patient: serde_json::Value = serde_json::from_str(patient.lines().nth(night).unwrap()).unwrap();
            let gone = format!(
                r#"{{"resourceType":"Bundle","type":"transaction","meta":{{"lastUpdated":"2026-01-0{night}T00:00:00Z"}},"entry":[{}]}}"#,
                entry(&format!("Patient/{}", patient["id"].as_str().unwrap()))
            );
            std::fs::write(directory.join(format!("store/deleted-{night}.ndjson")), gone + "\n").unwrap();
        }
        run(directory, "sh", &["-euc", &commands]).expect("a shell");
        let Some(told) = run(directory, "python3", &["-c", sql]) else {
            println!("skipped: python3 is not installed");
            return;
        };
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(directory.join("current/state.json")).unwrap()).unwrap();
        let held: u64 = state["files"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).sum();
        assert_eq!(told, format!("{held} resources\n"), "night {night}");
    }
    for block in python.iter().filter(|block| !block.contains("sqlite3")) {
        match run(directory, "python3", &["-c", block]) {
            Some(told) if told.contains("patients") => assert_eq!(told, "8 patients\n", "{block}"),
            Some(told) => assert!(told.starts_with("('"), "{told}"),
            None => println!("skipped, because a package is not installed: {}", block.lines().next().unwrap()),
        }
    }
}
