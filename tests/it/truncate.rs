//! A store file that changes under a running export, by another process, at random moments: truncated or rewritten in
//! place it ends in exit 3 with the file's name, or in a run that is consistent with what was there before, and never in a
//! signal; deleted or replaced by rename it changes nothing (CONS-08). On both sources of bytes. `OUTPOUR_TEST_CUTS` cuts.

use crate::fixture::plain_store;
use crate::random::{Random, knob};
use crate::run::{command, scratch, snapshot};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Truncate,
    Rewrite,
    Delete,
    Replace,
}

/// Runs an export and harms the target at some moment after the snapshot is taken. Exit code, standard error, and how
/// long it took from the snapshot on.
fn harmed(args: &[&str], out: &Path, harm: impl FnOnce(Duration) + Send, delay: Duration) -> (i32, String, Duration) {
    use std::os::unix::process::ExitStatusExt;
    let mut child = command().args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !out.join(".outpour-job/plan.json").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let begun = Instant::now();
    harm(delay);
    let status = child.wait().unwrap();
    let takes = begun.elapsed();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.code().unwrap_or_else(|| -status.signal().unwrap()), stderr, takes)
}

fn do_harm(harm: Harm, path: &Path, random: &mut Random) {
    let length = std::fs::metadata(path).unwrap().len();
    match harm {
        Harm::Truncate => {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(length * random.below(100) as u64 / 100).unwrap();
        }
        Harm::Rewrite => {
            let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.seek(SeekFrom::Start(length * random.below(90) as u64 / 100)).unwrap();
            file.write_all(&b"{\"resourceType\":\"Observation\",\"id\":\"z\"}\n".repeat(5000)).unwrap();
        }
        Harm::Delete => std::fs::remove_file(path).unwrap(),
        Harm::Replace => {
            let new = path.with_extension("new");
            std::fs::write(&new, b"{\"resourceType\":\"Observation\",\"id\":\"z\"}\n").unwrap();
            std::fs::rename(new, path).unwrap();
        }
    }
}

#[test]
fn a_store_file_changed_under_a_run_never_kills_it() {
    let mut random = Random::new(Random::seed("truncate"), 0);
    let scratch = scratch();
    let store = scratch.path().join("store");
    plain_store(&store, &["Patient", "Observation", "Condition"], 2);
    let target = store.join("Observation.ndjson");
    let original = std::fs::read(&target).unwrap();
    let index = scratch.path().join("index");
    let arguments = |out: &Path, access: &'static str| -> Vec<String> {
        let mut args = vec!["export", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
        args.extend(["--out", out.to_str().unwrap(), "--all-patients", "--as-of", crate::golden::AS_OF, "--no-sync"]);
        args.extend(["--max-file-bytes", "500kB", "--base-url", "https://files.example.org/", "--progress", "never"]);
        args.extend(["--access", access]);
        args.into_iter().map(str::to_string).collect()
    };
    let cut = |harm: Option<Harm>, access: &'static str, delay: Duration, random: &mut Random| {
        let out = scratch.path().join("out");
        let args = arguments(&out, access);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ended = harmed(
            &args,
            &out,
            |delay| {
                std::thread::sleep(delay);
                if let Some(harm) = harm {
                    do_harm(harm, &target, random);
                }
            },
            delay,
        );
        let files = out.join("manifest.json").exists().then(|| snapshot(&out));
        let _ = std::fs::remove_dir_all(&out);
        if harm.is_some() {
            // A new file each time: the index knows it again by its content.
            let _ = std::fs::remove_file(&target);
            std::fs::write(&target, &original).unwrap();
        }
        (ended, files)
    };
    cut(None, "mapped", Duration::ZERO, &mut random); // builds the index
    let ((code, stderr, takes), reference) = cut(None, "mapped", Duration::ZERO, &mut random);
    assert_eq!(code, 0, "{stderr}");
    let mut ends = std::collections::BTreeMap::new();
    for number in 0..knob("OUTPOUR_TEST_CUTS", 100) {
        let access = ["mapped", "called"][number % 2];
        let harm = [Harm::Truncate, Harm::Truncate, Harm::Rewrite, Harm::Delete, Harm::Replace][random.below(5)];
        let delay = takes.mul_f64(random.below(1000) as f64 / 1000.0);
        let ((code, stderr, _), files) = cut(Some(harm), access, delay, &mut random);
        let what = format!("cut {number}: {harm:?}, {access}, after {delay:?}: exit {code}: {stderr}");
        assert!(!stderr.contains("panicked"), "{what}");
        match harm {
            Harm::Delete | Harm::Replace => assert!(code == 0 && files == reference, "{what}"),
            Harm::Truncate | Harm::Rewrite if code == 3 => {
                assert!(stderr.contains("Observation.ndjson") && files.is_none(), "{what}");
            }
            Harm::Truncate | Harm::Rewrite => assert!(code == 0 && files == reference, "{what}"),
        }
        *ends.entry((format!("{harm:?}"), access, code)).or_insert(0) += 1;
    }
    println!("{ends:?}");
}
