//! Bad input: the exit code, a message that names the problem and its place, and no output.

use crate::run::{self, Bounds, Export, Run, scratch, testdata};
use std::path::Path;

/// Asserts that an export of the bundled store with these arguments is refused, and writes nothing.
#[track_caller]
fn refused(args: &[&str], code: i32, needles: &[&str]) {
    let scratch = scratch();
    let out = scratch.path().join("out");
    let index = scratch.path().join("index");
    let run = run::export(
        &testdata("stores/synthea-r4-100"),
        &out,
        &[args, &["--index-dir", index.to_str().unwrap()]].concat(),
    );
    run.refused(code, needles);
    nothing_written(&out);
}

#[track_caller]
fn nothing_written(out: &Path) {
    let files: Vec<_> = std::fs::read_dir(out).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| name == ".outpour-job"), "{files:?}");
}

fn export(store: &Path, out: &Path, args: &[&str]) -> Run {
    run::export(store, out, args)
}

#[test]
fn a_missing_store() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    let missing = scratch.path().join("no-such-store");
    let run = export(&missing, &out, &["--all-patients"]);
    assert!(run.code == 2 || run.code == 3, "{run:#?}");
    run.refused(run.code, &["no-such-store"]);
    nothing_written(&out);
    let file = scratch.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let run = export(&file, &out, &["--all-patients"]);
    assert!(run.code == 2 || run.code == 3, "{run:#?}");
    run.refused(run.code, &["a-file"]);
}

/// An export of an empty store succeeds, with an empty, valid manifest.
#[test]
fn an_empty_store() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let out = scratch.path().join("out");
    // Without a data file the path may be wrong, or not mounted.
    export(&store, &out, &["--system"]).refused(2, &["no data file"]);
    assert!(!out.join("manifest.json").exists());
    std::fs::write(store.join("Patient.ndjson"), "").unwrap();
    let run = export(&store, &out, &["--system"]);
    assert_eq!(run.code, 0, "{run:#?}");
    let export = Export::read(&out, Bounds::DEFAULT);
    assert_eq!(export.manifest["output"], serde_json::json!([]));
    assert_eq!(export.ledger()["lines"], 0);
}

#[test]
fn no_permission() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient"], 1);
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        println!("skipped: root reads everything");
        return;
    }
    let file = store.join("Patient.ndjson");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o0)).unwrap();
    let out = scratch.path().join("out");
    export(&store, &out, &["--all-patients"]).refused(3, &["Patient.ndjson"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let locked = scratch.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    export(&store, &locked.join("out"), &["--all-patients"]).refused(3, &["locked"]);
}

#[test]
fn an_unknown_group_names_similar_ones() {
    refused(&["--group", "tenn"], 2, &["tenn", "ten"]);
    refused(&["--group", "nestd"], 2, &["nestd", "nested"]);
    refused(&["--group", "no-such-file.json"], 2, &["no-such-file.json"]);
}

/// The error for a malformed Group file names path and line.
#[test]
fn a_malformed_group_file() {
    let scratch = scratch();
    let file = scratch.path().join("broken.json");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "{\n \"resourceType\": \"Group\",\n \"id\" \"x\"\n}\n").unwrap();
    refused(&["--group", name], 2, &["broken.json", "3"]);
    std::fs::write(&file, r#"{"resourceType":"Patient","id":"x"}"#).unwrap();
    refused(&["--group", name], 2, &["broken.json", "Patient"]);
    std::fs::write(&file, "").unwrap();
    refused(&["--group", name], 2, &["broken.json"]);
}

#[test]
fn arguments_that_are_wrong() {
    refused(&["--group", "ten", "--type", "Observatoin"], 2, &["Observatoin", "Observation"]);
    refused(&["--group", "ten", "--since", "last week"], 2, &["--since", "last week"]);
    refused(&["--group", "ten", "--since", "2020-02-30T00:00:00Z"], 2, &["--since", "2020-02-30T00:00:00Z"]);
    refused(&["--group", "ten", "--since", "2020-02-30"], 2, &["--since", "2020-02-30"]);
    refused(&["--group", "ten", "--since", "2999-01-01T00:00:00Z"], 2, &["--since"]);
    refused(&["--group", "ten", "--until", "soon"], 2, &["--until"]);
    refused(&["--group", "ten", "--as-of", "noon"], 2, &["--as-of", "noon"]);
    refused(&["--group", "ten", "--max-file-bytes", "0"], 2, &["--max-file-bytes"]);
    refused(&["--group", "ten", "--max-file-bytes", "ten"], 2, &["--max-file-bytes"]);
    refused(&["--group", "ten", "--max-file-resources", "0"], 2, &["--max-file-resources"]);
    refused(&["--group", "ten", "--compress", "rar"], 2, &["--compress", "rar"]);
    refused(&["--group", "ten", "--threads", "0"], 2, &["--threads"]);
    refused(&["--group", "ten", "--threads", "1025"], 2, &["--threads is 1025", "1 to 1024"]);
    refused(&["--group", "ten", "--threads", "100000000"], 2, &["--threads is 100000000"]);
    refused(&["--group", "ten", "--members", "some"], 2, &["--members", "some"]);
    refused(&["--group", "ten", "--no-such-flag"], 2, &["--no-such-flag"]);
    refused(&["--group", "ten", "--system"], 2, &["--group", "--system"]);
    refused(&[], 2, &["--group", "--all-patients"]);
    refused(&["--group", "ten", "--resume", "--force"], 2, &["--resume", "--force"]);
}

/// All problems of a request are reported at once.
#[test]
fn every_problem_at_once() {
    let wrong = ["--group", "tenn", "--type", "Nope,Observatoin", "--since", "last week", "--until", "tomorrow"];
    let wrong = [&wrong[..], &["--max-file-bytes", "0", "--max-file-resources", "0"]].concat();
    let needles = ["Nope", "Observatoin", "--since", "--until", "--max-file-bytes", "--max-file-resources"];
    refused(&wrong, 2, &needles);
}

#[test]
fn an_output_directory_inside_the_store() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient"], 1);
    for out in [store.clone(), store.join("out"), store.join("a/b")] {
        export(&store, &out, &["--all-patients"]).refused(2, &["store"]);
        nothing_written(&store.join("out"));
    }
}

/// While another process appends, an export holds the rows that were complete at its snapshot, and the increments
/// together hold each row once.
#[test]
fn a_store_that_grows() {
    use std::io::Write;
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let path = store.join("Patient.ndjson");
    let row = |number: usize| {
        format!(
            "{{\"resourceType\":\"Patient\",\"id\":\"p{number}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:00Z\"}}}}\n"
        )
    };
    std::fs::write(&path, (0..1000).map(row).collect::<String>()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut held = std::collections::BTreeSet::new();
    let mut last = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            let mut number = 1000;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for piece in row(number).as_bytes().chunks(7) {
                    file.write_all(piece).unwrap();
                }
                number += 1;
            }
            number
        });
        for round in 0..8 {
            let at = |round: i32| format!("2021-01-0{}T00:00:00.000Z", round + 1);
            let out = scratch.path().join(format!("out-{round}"));
            let (as_of, since) = (at(round), at(round - 1));
            let mut args = vec!["--all-patients", "--as-of", &as_of];
            if round > 0 {
                args.extend(["--since", &since]);
            }
            if round == 7 {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            while round == 7 && !writer.is_finished() {
                std::thread::yield_now();
            }
            let run = export(&store, &out, &args);
            assert!(run.code == 0 || run.code == 1, "{run:#?}");
            for line in Export::read(&out, Bounds::DEFAULT).lines().into_values().flatten() {
                assert!(held.insert(line), "a row is exported once");
            }
        }
        last = writer.join().unwrap();
    });
    assert_eq!(held.len(), last, "every row is exported");
}

/// `--help` names the flags of the contract, `--version` the scanner kernel in use.
#[test]
fn help_teaches_and_version_names_the_kernel() {
    let help = run::run(&["export", "--help"]);
    assert_eq!(help.code, 0);
    for flag in
        ["--store", "--group", "--since", "--max-file-bytes", "--compress", "--resume", "--as-of", "--faults-allowed"]
    {
        assert!(help.stdout.contains(flag), "--help lacks {flag}");
    }
    assert!(!help.stdout.contains("--access"), "a flag for tests is hidden");
    let version = run::run(&["--version"]);
    assert_eq!(version.code, 0);
    assert!(["avx512", "avx2", "scalar"].iter().any(|kernel| version.stdout.contains(kernel)), "{}", version.stdout);
}

/// Messages name files and ids, but no other content of a line (OUTCOME-05).
#[test]
fn messages_hold_no_clinical_content() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let secret = "Zaphod Beeblebrox";
    let lines = [
        format!(r#"{{"resourceType":"Patient","id":"a","name":[{{"text":"{secret}"}}],}}"#),
        format!(r#"{{"resourceType":"Patient","name":[{{"text":"{secret}"}}]}}"#),
        format!(r#"{{"resourceType":"{secret}","id":"a"}}"#),
        format!(r#"{{"resourceType":"Patient","id":"{secret}"}}"#),
        format!(r#"{{"resourceType":"Patient","id":"b","id":"b","name":[{{"text":"{secret}"}}]}}"#),
        format!(r#"{{"resourceType":"Patient","id":"c","meta":{{"lastUpdated":"{secret}"}}}}"#),
        secret.to_string(),
    ];
    std::fs::write(store.join("Patient.ndjson"), lines.join("\n")).unwrap();
    let out = scratch.path().join("out");
    let run = export(&store, &out, &["--system", "--since", "2020-01-01"]);
    assert_eq!(run.code, 1, "{run:#?}");
    let export = Export::read(&out, Bounds::DEFAULT);
    assert!(export.messages().iter().filter(|message| message.severity == "error").count() >= 6);
    for message in export.messages() {
        assert!(!message.text.contains("Zaphod") && !message.text.contains("Beeblebrox"), "{}", message.text);
    }
    assert!(!run.said().contains("Zaphod") && !run.stdout.contains("Zaphod"));
}
