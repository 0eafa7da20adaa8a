//! Crashes: the binary killed at random moments of an export, then `--resume`: the directory is the one of an undisturbed
//! run, byte for byte; from a plain, a packed and a mixed store. Imports of Groups, killed the same way. `OUTPOUR_TEST_KILLS` kills of the plain one, delays from the printed seed.

use crate::fixture::plain_store;
use crate::forms;
use crate::random::{Random, knob};
use crate::run::{self, command, scratch, snapshot};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn args<'a>(store: &'a str, index: &'a str, out: &'a str, coding: &'a str) -> Vec<&'a str> {
    let mut args = vec!["export", "--store", store, "--index-dir", index, "--out", out, "--all-patients"];
    args.extend([
        "--as-of",
        crate::golden::AS_OF,
        "--max-file-bytes",
        "150kB",
        "--base-url",
        "https://files.example.org/",
    ]);
    args.extend(["--no-sync", "--progress", "never", "--compress", coding]);
    args
}

/// Starts the binary and kills it after a while, unless it is done before.
fn killed(args: &[&str], after: Duration) {
    let mut child = command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_killed_export_resumes_to_the_same_bytes() {
    let mut random = Random::new(Random::seed("crash"), 0);
    let scratch = scratch();
    let store = scratch.path().join("store");
    plain_store(&store, &["Patient", "Observation", "Condition", "Encounter", "Procedure", "Immunization"], 2);
    let (packed, mixed) = (scratch.path().join("packed"), scratch.path().join("mixed"));
    forms::packed(&store, &packed, crate::golden::AS_OF);
    forms::mixed(&store, &mixed, crate::golden::AS_OF);
    let kills = knob("OUTPOUR_TEST_KILLS", 200);
    for (share, coding, store) in [
        (2, "none", &store),
        (4, "gzip", &store),
        (4, "zstd", &store),
        (20, "none", &packed),
        (20, "zstd", &packed),
        (20, "none", &mixed),
        (20, "zstd", &mixed),
    ] {
        let index = store.with_extension("index");
        let (store, index) = (store.to_str().unwrap(), index.to_str().unwrap());
        let reference = scratch.path().join("reference");
        let whole = |out: &Path, more: &[&str]| {
            let mut args = args(store, index, out.to_str().unwrap(), coding);
            args.extend(more);
            let run = run::run(&args);
            assert_eq!(run.code, 0, "{run:#?}");
        };
        whole(&reference, &[]); // builds the index, too
        let expected = snapshot(&reference);
        std::fs::remove_dir_all(&reference).unwrap();
        let begun = Instant::now();
        whole(&reference, &[]);
        let takes = begun.elapsed();
        for number in 0..kills / share {
            let out = scratch.path().join(format!("out-{coding}-{number}"));
            let delay = takes.mul_f64(random.below(1100) as f64 / 1000.0);
            killed(&args(store, index, out.to_str().unwrap(), coding), delay);
            let published = out.join("manifest.json").exists();
            if !published && random.one_in(3) {
                let mut again = args(store, index, out.to_str().unwrap(), coding);
                again.push("--resume");
                killed(&again, takes.mul_f64(random.below(1000) as f64 / 1000.0));
            }
            whole(&out, &["--resume"]);
            let found = snapshot(&out);
            let names = |files: &std::collections::BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&found), names(&expected), "kill {number} of {store}, {coding}, after {delay:?}");
            for (name, bytes) in &found {
                assert!(
                    bytes == &expected[name],
                    "{name} differs: kill {number} of {store}, {coding}, after {delay:?}"
                );
            }
            std::fs::remove_dir_all(&out).unwrap();
        }
        std::fs::remove_dir_all(&reference).unwrap();
    }
}

/// `--resume` finds what a finished run left, and refuses another request, naming what differs.
#[test]
fn resume_refuses_another_request() {
    let scratch = scratch();
    let store = run::testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let out = scratch.path().join("out");
    let index = index.to_str().unwrap();
    let request = ["--group", "one", "--as-of", crate::golden::AS_OF, "--index-dir", index, "--max-file-bytes", "50kB"];
    // The index first: it is larger than the limit that stops the export.
    let ready = run::run(&["index", "--store", store.to_str().unwrap(), "--index-dir", index]);
    assert_eq!(ready.code, 0, "{ready:#?}");
    // Stop in the middle: a limit on the size of files, far below the bound.
    let stopped = crate::disk::limited(&store, &out, &request, 20_000);
    assert_eq!(stopped.code, 3, "{stopped:#?}");
    let mut other = request.to_vec();
    other.extend(["--type", "Patient", "--resume"]);
    run::export(&store, &out, &other).refused(2, &["type"]);
    let mut same = request.to_vec();
    same.push("--resume");
    assert_eq!(run::export(&store, &out, &same).code, 0);
    run::Export::read(&out, run::Bounds { file_bytes: 50_000, ..run::Bounds::DEFAULT });
}

/// ONEUP-G07: an import that is killed at any moment leaves the Group that was there or the new one, whole, and nothing
/// else that is read; the next import works.
#[test]
fn a_killed_import_leaves_the_old_group_or_the_new_one() {
    let mut random = Random::new(Random::seed("import"), 0);
    let scratch = scratch();
    let store = scratch.path().join("store");
    plain_store(&store, &["Patient"], 1);
    let target = store.join("Group.g.ndjson");
    let files = [1, 2].map(|version| {
        let members: Vec<String> = (0..30_000 * version)
            .map(|at| format!("\n  {{\"entity\": {{\"reference\": \"Patient/{version}-{at:032}\"}}}}"))
            .collect();
        let file = scratch.path().join(format!("group-{version}.json"));
        let text = format!(
            r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{}]}}"#,
            members.join(",")
        );
        std::fs::write(&file, &text).unwrap();
        (file, text.replace(['\n', ' '], "") + "\n")
    });
    let import = |at: usize| ["group", "import", files[at].0.to_str().unwrap(), "--store", store.to_str().unwrap()];
    let whole = |at: usize| {
        let run = run::run(&import(at));
        assert_eq!(run.code, 0, "{run:#?}");
        assert!(std::fs::read_to_string(&target).unwrap() == files[at].1, "what was imported is stored");
        let left: Vec<_> = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
    };
    whole(0);
    let begun = Instant::now();
    whole(1);
    let takes = begun.elapsed();
    let (mut old, mut new) = (0, 0);
    let mut stands = 1;
    for number in 0..knob("OUTPOUR_TEST_KILLS", 200) / 5 {
        let next = 1 - stands;
        let delay = takes.mul_f64(random.below(1100) as f64 / 1000.0);
        killed(&import(next), delay);
        let found = std::fs::read_to_string(&target).unwrap();
        let is_new = found == files[next].1;
        assert!(
            is_new || found == files[stands].1,
            "neither the old Group nor the new one: kill {number} after {delay:?}"
        );
        (old, new) = (old + usize::from(!is_new), new + usize::from(is_new));
        stands = if is_new { next } else { stands };
        if random.one_in(4) {
            stands = random.below(2);
            whole(stands);
        }
    }
    whole(1 - stands);
    println!("of the kills {old} left the old Group, {new} the new one");
}

/// Imports of one Group at the same time wait for each other: what stands at the end is one of them, whole.
#[test]
fn imports_of_one_group_wait_for_each_other() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    plain_store(&store, &["Patient"], 1);
    let texts: Vec<String> = (0..6)
        .map(|number| {
            let member = format!(r#"{{"entity":{{"reference":"Patient/{number}"}}}}"#);
            let members = vec![member; 5000 * (number + 1)].join(",");
            format!(r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{members}]}}"#)
        })
        .collect();
    let children: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let file = scratch.path().join(format!("{number}.json"));
            std::fs::write(&file, text).unwrap();
            let mut command = command();
            command.args(["group", "import", file.to_str().unwrap(), "--store", store.to_str().unwrap()]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let found = std::fs::read_to_string(store.join("Group.g.ndjson")).unwrap();
    assert!(texts.iter().any(|text| *text == found.trim_end()), "one of the imports, whole");
}
