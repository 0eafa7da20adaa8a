//! Store files changed by another process at random moments of an export. After a file is truncated or rewritten in
//! place, the export ends with exit code 3 and the file's name, or holds what was there before; it never ends by a
//! signal. A deletion or a replacement by rename changes nothing (CONS-08). By both access kinds, on files of plain,
//! packed and mixed stores; `OUTPOUR_TEST_CUTS` changes of the plain one.

use crate::fixture::plain_store;
use crate::random::{Random, knob};
use crate::run::{command, scratch, snapshot};
use crate::store_forms;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A change of a store file by another process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Truncate,
    Rewrite,
    Delete,
    Replace,
}

/// Runs an export and calls `harm` with `delay` once the plan is written. Exit code, standard error, and time from then
/// to the end.
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

/// Changes a file as `harm` says.
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
    let (packed, mixed) = (scratch.path().join("packed"), scratch.path().join("mixed"));
    store_forms::packed(&store, &packed, crate::golden::AS_OF);
    store_forms::mixed(&store, &mixed, crate::golden::AS_OF);
    let segments = scratch.path().join("segments");
    store_forms::packed_in("gzip", &store, &segments, crate::golden::AS_OF);
    let cuts = knob("OUTPOUR_TEST_CUTS", 100);
    cut_under_runs(&store, "Observation.ndjson", cuts, &mut random);
    cut_under_runs(&packed, "Observation.00001.ndjson.zst", cuts / 4, &mut random);
    cut_under_runs(&segments, "Observation.00001.ndjson.gz", cuts / 4, &mut random);
    cut_under_runs(&mixed, "Observation.00001.ndjson.zst", cuts / 8, &mut random);
    cut_under_runs(&mixed, "later/Observation.ndjson.gz", cuts / 8, &mut random);
}

/// Changes one file of a store under so many exports, by each access kind.
fn cut_under_runs(store: &Path, file: &str, cuts: usize, random: &mut Random) {
    let scratch = scratch();
    let target = store.join(file);
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
            // A new file each time, which the index recognises by its content.
            let _ = std::fs::remove_file(&target);
            std::fs::write(&target, &original).unwrap();
        }
        (ended, files)
    };
    cut(None, "mapped", Duration::ZERO, random); // builds the index
    let ((code, stderr, takes), reference) = cut(None, "mapped", Duration::ZERO, random);
    assert_eq!(code, 0, "{stderr}");
    let mut ends = BTreeMap::new();
    for number in 0..cuts {
        let access = ["mapped", "called"][number % 2];
        let harm = [Harm::Truncate, Harm::Truncate, Harm::Rewrite, Harm::Delete, Harm::Replace][random.below(5)];
        let delay = takes.mul_f64(random.below(1000) as f64 / 1000.0);
        let ((code, stderr, _), files) = cut(Some(harm), access, delay, random);
        let differing: Vec<_> = match (&files, &reference) {
            (Some(files), Some(reference)) => {
                files.iter().filter(|(n, text)| reference.get(*n) != Some(*text)).collect()
            }
            _ => Vec::new(),
        };
        let differing: Vec<&String> = differing.into_iter().map(|(name, _)| name).collect();
        let what = format!(
            "cut {number} of {file}: {harm:?}, {access}, after {delay:?}: exit {code}, {differing:?}: {stderr}"
        );
        assert!(!stderr.contains("panicked"), "{what}");
        match harm {
            Harm::Delete | Harm::Replace => assert!(code == 0 && files == reference, "{what}"),
            Harm::Truncate | Harm::Rewrite if code == 3 => {
                assert!(stderr.contains(file) && files.is_none(), "{what}");
            }
            // A frame of a packed file with a wrong hash is damage, whatever was done to the file: the export restarts
            // without the frame, names it, and holds the rows of all intact frames.
            Harm::Truncate | Harm::Rewrite if code == 1 && file.contains(".00001.") => {
                let files = files.expect("an export with faults is published");
                let reported = files.iter().filter(|(name, _)| name.starts_with("error/"));
                assert!(reported.into_iter().any(|(_, text)| String::from_utf8_lossy(text).contains(file)), "{what}");
                let reference = reference.as_ref().expect("the reference is published");
                assert!(lines(&files).is_subset(&lines(reference)), "{what}");
                // For this index the restored file would be late, and the manifest would say so.
                std::fs::remove_dir_all(&index).unwrap();
                cut(None, access, Duration::ZERO, random);
            }
            Harm::Truncate | Harm::Rewrite => assert!(code == 0 && files == reference, "{what}"),
        }
        *ends.entry((format!("{harm:?}"), access, code)).or_insert(0) += 1;
    }
    println!("{file}: {ends:?}");
}

/// The lines of all data files of an export.
fn lines(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<&[u8]> {
    let data = files.iter().filter(|(name, _)| name.ends_with(".ndjson") && !name.contains('/'));
    data.flat_map(|(_, text)| text.split(|byte| *byte == b'\n')).collect()
}
