//! Packed stores: exports from them, alone or with newer files beside them, equal the naive oracle over the original
//! store. Also damaged frames and seek tables, full disks, and kills of `pack`.

use crate::comparison::Comparison;
use crate::fixture::plain_store;
use crate::generated;
use crate::generator;
use crate::naive;
use crate::packed_memory::observation;
use crate::random::{Random, each_case, knob};
use crate::run::{self, Export, Run, scratch};
use crate::store_forms::assert_same_content;
use std::collections::BTreeMap;
use std::path::Path;

/// Codings of a packed store.
pub(crate) const CODINGS: [&str; 2] = ["zstd", "gzip"];
/// Name of a file added to a store later, which is last in its order.
const DELTA: &str = "zz-delta.ndjson";

/// Runs `outpour pack` without fsync, with further arguments.
pub(crate) fn pack(store: &Path, to: &Path, more: &[&str]) -> Run {
    let (store, to) = (store.to_str().unwrap(), to.to_str().unwrap());
    let mut args = vec!["pack", "--store", store, "--to", to, "--no-sync", "--progress", "never", "--json"];
    args.extend(more);
    run::run(&args)
}

/// Adds the same random lines to two stores, behind all others of both.
fn delta(stores: [&Path; 2], random: &mut Random) {
    let mut lines = Vec::new();
    for _ in 0..random.below(20) {
        lines.push(generated::line(&generator::IDS, random));
    }
    let text = generator::join(&lines, random);
    for store in stores {
        std::fs::write(store.join(DELTA), &text).unwrap();
    }
}

/// A packed store, with and without newer files beside it, exports what the original store does, and `verify --ledger`
/// confirms the exports. The same after a second pack.
#[test]
fn packed_and_mixed_stores_export_what_the_store_did() {
    each_case("packed", knob("OUTPOUR_TEST_CASES", 120), |case, random| {
        let scratch = scratch();
        let dir = scratch.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        generated::store(&dir, random);
        let comparisons: Vec<Comparison> = (0..3).map(|_| generated::comparison(random)).collect();
        let packed = scratch.path().join("packed");
        let as_of = comparisons.iter().map(|comparison| comparison.as_of.clone()).min().unwrap();
        let index = scratch.path().join("index");
        let codings = [CODINGS[random.below(2)], CODINGS[random.below(2)]];
        let check = std::panic::AssertUnwindSafe(|| {
            let more = ["--as-of", &as_of, "--coding", codings[0], "--index-dir", index.to_str().unwrap()];
            let run = pack(&dir, &packed, &more);
            assert!([0, 1].contains(&run.code), "{run:#?}");
            each_form(&dir, &packed, &comparisons, scratch.path(), codings[1], random);
        });
        if let Err(panic) = std::panic::catch_unwind(check) {
            let kept = std::env::temp_dir().join(format!("outpour-failed-pack-{case}"));
            let _ = std::fs::remove_dir_all(&kept);
            let _ = std::fs::rename(scratch.path(), &kept);
            eprintln!("the store and its exports are kept in {}", kept.display());
            std::panic::resume_unwind(panic);
        }
    });
}

/// Compares each request over the packed store, with and without newer files, with the oracle over the original; and after
/// a second pack, in `coding`.
fn each_form(dir: &Path, packed: &Path, comparisons: &[Comparison], scratch: &Path, coding: &str, random: &mut Random) {
    for form in ["packed", "mixed", "again"] {
        if form == "mixed" {
            delta([dir, packed], random);
        }
        let again = scratch.join("again");
        let store = if form == "again" { &again } else { packed };
        if form == "again" {
            let as_of = comparisons.iter().map(|comparison| comparison.as_of.clone()).min().unwrap();
            let index = scratch.join("index-again");
            let more = ["--as-of", &as_of, "--coding", coding, "--index-dir", index.to_str().unwrap()];
            let run = pack(packed, &again, &more);
            assert!([0, 1].contains(&run.code), "{run:#?}");
        }
        for (number, comparison) in comparisons.iter().enumerate() {
            let out = scratch.join(format!("out-{form}-{number}"));
            let index = scratch.join(format!("index-{form}-{number}"));
            let mut comparison = comparison.clone().with(&["--index-dir", index.to_str().unwrap()]);
            let oracle = comparison.read(dir);
            // The newer files were added after the pack: they are late for the index of the packed store.
            let newer = oracle.entries.iter().filter(|entry| entry.file == DELTA);
            comparison.late = newer.map(|entry| (entry.file.clone(), entry.line)).collect();
            let run = comparison.run(store, &out, scratch);
            let answer = match naive::export(&oracle, &comparison.request()) {
                Ok(answer) => answer,
                Err(why) => {
                    assert_eq!(run.code, 2, "the twin refuses ({why}): {run:#?}");
                    continue;
                }
            };
            assert_eq!(run.code, if answer.faults.is_empty() { 0 } else { 1 }, "{form} {comparison:?}\n{run:#?}");
            assert_same_content(&comparison, &answer, &Export::read(&out, comparison.bounds));
            let verified = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
            assert_eq!(verified.code, 0, "{form} {comparison:?}\n{verified:#?}");
        }
    }
}

/// What is packed in a coding: the bundled store; in gzip, which is slower, some types of it.
fn source(scratch: &Path, coding: &str) -> std::path::PathBuf {
    let some = scratch.join("source");
    match coding {
        "zstd" => return run::testdata("stores/synthea-r4-100"),
        _ if some.is_dir() => {}
        _ => plain_store(&some, &["Patient", "Claim", "Immunization"], 1),
    }
    some
}

/// The bundled store, or some of it, packed in a coding.
fn bundled(scratch: &Path, coding: &str) -> std::path::PathBuf {
    let packed = scratch.join(coding);
    let index = scratch.join("index-of-source");
    let store = source(scratch, coding);
    let more = ["--as-of", crate::golden::AS_OF, "--coding", coding, "--index-dir", index.to_str().unwrap()];
    let run = pack(&store, &packed, &more);
    assert_eq!(run.code, 0, "{run:#?}");
    packed
}

/// Exports the whole store; the export, and its lines by type, sorted.
pub(crate) fn everything(
    store: &Path,
    out: &Path,
    more: &[&str],
    code: i32,
) -> (Export, BTreeMap<String, Vec<Vec<u8>>>) {
    let mut args = vec!["--system", "--as-of", crate::golden::AS_OF];
    args.extend(more);
    let run = run::export(store, out, &args);
    assert_eq!(run.code, code, "{run:#?}");
    let export = Export::read(out, run::Bounds::DEFAULT);
    let mut lines = export.lines();
    lines.values_mut().for_each(|lines| lines.sort());
    (export, lines)
}

/// Flips a bit of a file in place and restores its times, as a failing disk would do.
pub(crate) fn rot(file: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let before = std::fs::metadata(file).unwrap().modified().unwrap();
    let open = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, offset).unwrap();
    open.write_all_at(&[byte[0] ^ 0x04], offset).unwrap();
    open.set_modified(before).unwrap();
}

/// Any zstd or gzip decoder reads a packed file; a store packs to the same bytes on any number of threads; packing a packed
/// store changes nothing but instants in the seek table.
#[test]
fn a_packed_store_is_an_ordinary_one() {
    CODINGS.into_iter().for_each(packs_to_ordinary_files);
}

/// The same for one coding.
fn packs_to_ordinary_files(coding: &str) {
    let scratch = scratch();
    let packed = bundled(scratch.path(), coding);
    let store = source(scratch.path(), coding);
    let index = scratch.path().join("index-of-source");
    for threads in if coding == "gzip" { &["3"][..] } else { &["1", "3"] } {
        let other = scratch.path().join(threads);
        let words = ["--coding", coding, "--threads", threads, "--index-dir", index.to_str().unwrap()];
        assert_eq!(pack(&store, &other, &[&words[..], &["--as-of", crate::golden::AS_OF]].concat()).code, 0);
        assert!(run::snapshot(&other) == run::snapshot(&packed), "{threads} threads give other bytes");
    }
    for entry in std::fs::read_dir(&packed).unwrap() {
        let path = entry.unwrap().path();
        let decoded = crate::joined_gzip::decode_members(&path);
        let name = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_string();
        assert!(decoded.ends_with(b"\n"));
        let kind = format!("\"resourceType\":\"{name}\"");
        let wrong = decoded[..decoded.len() - 1].split(|byte| *byte == b'\n');
        assert!(wrong.into_iter().all(|line| line.windows(kind.len()).any(|part| part == kind.as_bytes())), "{name}");
    }
    let verified = run::run(&["verify", packed.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    let suffix = if coding == "gzip" { "gz" } else { "zst" };
    let shown = run::run(&["inspect", packed.join(format!("Patient.00001.ndjson.{suffix}")).to_str().unwrap()]);
    assert!(shown.code == 0 && shown.said().contains("rows of the frames"), "{shown:#?}");
}

/// `pack` refuses a target that is not empty or lies in the store, and changes neither.
#[test]
fn pack_refuses_targets_that_are_in_use() {
    let scratch = scratch();
    let store = run::testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let index = ["--index-dir", index.to_str().unwrap()];
    let full = scratch.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("notes.txt"), "mine").unwrap();
    pack(&store, &full, &index).refused(2, &["full", "empty"]);
    assert_eq!(run::snapshot(&full).len(), 1);
    pack(&store, &full.join("notes.txt"), &index).refused(2, &["notes.txt"]);
    pack(&store, &store.join("packed"), &index).refused(2, &["inside the store"]);
    assert!(!store.join("packed").exists());
    let mut level = index.to_vec();
    level.extend(["--level", "99"]);
    assert_eq!(pack(&store, &scratch.path().join("new"), &level).code, 2);
    let mut arguments = index.to_vec();
    arguments.extend(["--as-of", "last week"]);
    pack(&store, &scratch.path().join("new"), &arguments).refused(2, &["--as-of", "last week"]);
    let names: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "full" || name == "index"), "{names:?}");
}

/// A pack killed at any moment leaves nothing at its target, and its remains do not disturb the next one.
#[test]
fn a_killed_pack_leaves_nothing() {
    let mut random = Random::new(Random::seed("pack-kill"), 0);
    let scratch = scratch();
    let store = run::testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let target = scratch.path().join("packed");
    let more = ["--as-of", crate::golden::AS_OF, "--index-dir", index.to_str().unwrap()];
    let begun = std::time::Instant::now();
    let whole = scratch.path().join("whole");
    assert_eq!(pack(&store, &whole, &more).code, 0);
    let takes = begun.elapsed();
    let expected = run::snapshot(&whole);
    for number in 0..knob("OUTPOUR_TEST_KILLS", 200) / 10 {
        let mut command = run::command();
        command.args(["pack", "--store", store.to_str().unwrap(), "--to", target.to_str().unwrap(), "--no-sync"]);
        command.args(more).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(takes.mul_f64(random.below(1000) as f64 / 1000.0));
        let _ = child.kill();
        child.wait().unwrap();
        if target.exists() {
            assert!(run::snapshot(&target) == expected, "kill {number}: a directory that is there is whole");
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
    assert_eq!(pack(&store, &target, &more).code, 0);
    assert!(run::snapshot(&target) == expected);
}

/// The remains of a killed pack beside its target are never read as data: not in a store around them, not by `verify`
/// or a pack of that store, and not when they are named as a store themselves.
#[test]
fn remains_of_a_killed_pack_are_no_data() {
    let scratch = scratch();
    let (store, directory) = (run::testdata("stores/synthea-r4-100"), scratch.path().join("place"));
    let (index, target) = (scratch.path().join("index"), directory.join("packed"));
    let partial = directory.join(".packed.outpour-partial");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("own.ndjson"), observation("a", "p", 1)).unwrap();
    let ready = run::run(&["index", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap()]);
    assert_eq!(ready.code, 0);
    let mut command = run::command();
    command.args(["pack", "--store", store.to_str().unwrap(), "--to", target.to_str().unwrap(), "--no-sync"]);
    command.args(["--index-dir", index.to_str().unwrap()]);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Killed as soon as a data file has its final name, which is long before the end.
    let data =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path().extension().is_some_and(|end| end == "zst");
    while !std::fs::read_dir(&partial).is_ok_and(|mut entries| entries.any(data)) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it wrote a file");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.exists() && !target.exists());
    let report = run::run(&["index", "--store", directory.to_str().unwrap(), "--json"]);
    let reported: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((reported["files"].as_u64(), reported["rows"].as_u64()), (Some(1), Some(1)), "{reported}");
    let verified = run::run(&["verify", directory.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    assert_eq!(pack(&directory, &scratch.path().join("other"), &[]).code, 0);
    assert_eq!(
        everything(&scratch.path().join("other"), &scratch.path().join("out"), &[], 0).1["Observation"].len(),
        1
    );
    run::run(&["verify", target.to_str().unwrap()]).refused(2, &["not there"]);
    for command in [vec!["verify", partial.to_str().unwrap()], vec!["index", "--store", partial.to_str().unwrap()]] {
        run::run(&command).refused(2, &["outpour-partial", "under construction"]);
    }
    run::export(&partial, &scratch.path().join("none"), &["--system"]).refused(2, &["under construction"]);
    // The next pack to the same target replaces the remains.
    let more = ["--as-of", crate::golden::AS_OF, "--index-dir", index.to_str().unwrap()];
    assert_eq!(pack(&store, &target, &more).code, 0);
    assert!(!partial.exists());
}

/// A pack to a full disk ends with exit code 3, and leaves nothing at the target or beside it.
#[test]
fn a_pack_that_cannot_be_written_leaves_nothing() {
    let scratch = scratch();
    let store = run::testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let indexed = run::run(&["index", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap()]);
    assert_eq!(indexed.code, 0);
    let directory = scratch.path().join("place");
    std::fs::create_dir(&directory).unwrap();
    let mut command = run::command();
    command.args(["pack", "--store", store.to_str().unwrap(), "--to", directory.join("packed").to_str().unwrap()]);
    command.args(["--index-dir", index.to_str().unwrap(), "--progress", "never"]);
    crate::disk::limit_files(&mut command, 200_000);
    run::finish(&mut command).refused(3, &["packed", "RLIMIT_FSIZE", "200000 bytes"]);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing is left");
}

/// Offset and length in the file of each frame of a packed file.
fn frames(file: &Path) -> Vec<(u64, u64)> {
    let bytes = std::fs::read(file).unwrap();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return crate::joined_gzip::segments(&bytes);
    }
    let (mut offset, mut frames) = (0, Vec::new());
    while offset < bytes.len() {
        let magic = u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap());
        let len = match magic & !0xf {
            0x184d_2a50 => 8 + u32::from_le_bytes(bytes[offset + 4..offset + 8].try_into().unwrap()) as usize,
            _ => {
                let len = zstd::zstd_safe::find_frame_compressed_size(&bytes[offset..]).unwrap();
                frames.push((offset as u64, len as u64));
                len
            }
        };
        offset += len;
    }
    frames
}

/// With a frame damaged before the store is indexed, or under an existing index, the other rows are exported, the frame
/// is named, the exit code is 1, and `verify` finds the damage.
#[test]
fn a_damaged_frame_is_a_fault_and_the_rest_is_exported() {
    let (zstd, gzip) = (("zstd", "zst", "Observation"), ("gzip", "gz", "Claim"));
    for ((coding, suffix, kind), standing, compression) in
        [(zstd, false, "none"), (zstd, true, "zstd"), (zstd, true, "gzip"), (gzip, false, "none"), (gzip, true, "gzip")]
    {
        let scratch = scratch();
        let packed = bundled(scratch.path(), coding);
        let (_, whole) = everything(&packed, &scratch.path().join("whole"), &["--compress", compression], 0);
        if !standing {
            std::fs::remove_dir_all(packed.join(".outpour")).unwrap();
        }
        let file = packed.join(format!("{kind}.00001.ndjson.{suffix}"));
        let places = frames(&file);
        let (offset, len) = places[places.len() / 2];
        rot(&file, offset + len / 2);
        let out = scratch.path().join("out");
        let (export, lines) = everything(&packed, &out, &["--compress", compression], 1);
        let lost = whole[kind].len() - lines[kind].len();
        assert!((1..500).contains(&lost), "{lost} rows are lost");
        assert!(lines[kind].iter().all(|line| whole[kind].binary_search(line).is_ok()));
        for (name, lines) in whole.iter().filter(|(name, _)| *name != kind) {
            assert!(export.lines()[name].len() == lines.len(), "{name}");
        }
        let messages = export.messages();
        let reported = messages.iter().filter(|message| message.severity == "error").collect::<Vec<_>>();
        assert!(
            reported.len() == 1 && reported[0].names_number(offset) && reported[0].names_number(lost as u64),
            "{reported:?}"
        );
        let verified = run::run(&["verify", packed.to_str().unwrap()]);
        assert!(verified.code == 1, "{verified:#?}");
        let named = format!("{}{}", verified.stdout, verified.stderr);
        assert!(named.contains(&format!("{kind}.00001")) && named.contains(&offset.to_string()), "{verified:#?}");
        let ledger = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
        assert_eq!(ledger.code, 0, "{ledger:#?}");
        // The rest of the store can be packed again.
        let again = scratch.path().join("again");
        let run = pack(&packed, &again, &["--as-of", crate::golden::AS_OF]);
        assert_eq!(run.code, 1, "{run:#?}");
        assert!(run.said().contains(&format!("{kind}.00001")) && run.said().contains(&offset.to_string()), "{run:#?}");
        let (_, kept) = everything(&again, &scratch.path().join("out-again"), &[], 0);
        assert!(kept == lines);
    }
}

/// Of a packed file that was cut off or has a damaged seek table, the readable rows are exported, and the damage is
/// reported.
#[test]
fn a_packed_file_without_its_seek_table_is_read() {
    for (coding, suffix) in [("zstd", "zst"), ("gzip", "gz")] {
        damage_the_table(coding, suffix);
    }
}

/// Cuts and damages the table of a packed file of a coding.
fn damage_the_table(coding: &str, suffix: &str) {
    let scratch = scratch();
    let packed = bundled(scratch.path(), coding);
    let (_, whole) = everything(&packed, &scratch.path().join("whole"), &[], 0);
    let file = packed.join(format!("Claim.00001.ndjson.{suffix}"));
    let bytes = std::fs::read(&file).unwrap();
    let places = frames(&file);
    let end = places.last().map(|(i, len)| i + len).unwrap() as usize;
    let middle = places[places.len() / 2];
    for (number, cut) in [
        bytes[..bytes.len() - 1].to_vec(),
        bytes[..end].to_vec(),
        bytes[..(middle.0 + middle.1 / 2) as usize].to_vec(),
        [&bytes[..end + 30], b"x", &bytes[end + 31..]].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        // Replaced by rename, as an incomplete copy would be.
        std::fs::write(packed.join(".new"), &cut).unwrap();
        std::fs::rename(packed.join(".new"), &file).unwrap();
        let out = scratch.path().join(format!("out-{number}"));
        // Without its table and its end a gzip file has no row that is proven.
        let (export, lines) = everything(&packed, &out, &["--allow-missing", "100%"], 1);
        let messages = export.messages();
        let reported = messages.iter().filter(|message| message.severity == "error").collect::<Vec<_>>();
        assert!(reported.len() == 1 && reported[0].text.contains("Claim.00001"), "{reported:?}");
        match number {
            // A gzip member that does not end is not proven, and none of its rows is a row.
            1 | 2 if coding == "gzip" => assert!(!lines.contains_key("Claim")),
            2 => assert!(lines["Claim"].iter().all(|line| whole["Claim"].binary_search(line).is_ok())),
            _ => assert!(lines == whole, "case {number}: every row is there"),
        }
        let verified = run::run(&["verify", packed.to_str().unwrap()]);
        assert!(verified.code == 1 && format!("{verified:?}").contains("Claim.00001"), "{verified:#?}");
        let ledger = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
        assert_eq!(ledger.code, 0, "{ledger:#?}");
    }
}

/// A compressed source that is cut off exactly behind a line has no faulty line, but may lack lines: exit code 1, the
/// file and the byte are named, and the lines before it are packed: those of whole members, or all under `--unproven
/// export`. A source that ends with a complete member and a complete line counts as complete.
#[test]
fn a_source_cut_off_behind_a_line_is_reported() {
    use std::io::Write;
    let whole = observation("a", "p", 1) + &observation("b", "p", 2);
    let rest = observation("c", "p", 3);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(whole.as_bytes()).unwrap();
    gzip.flush().unwrap();
    let gzip_cut = gzip.get_ref().len();
    gzip.write_all(rest.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    zstd.write_all(whole.as_bytes()).unwrap();
    zstd.flush().unwrap();
    let zstd_cut = zstd.get_ref().len();
    zstd.write_all(rest.as_bytes()).unwrap();
    let zstd = zstd.finish().unwrap();
    let members = [whole.as_bytes(), rest.as_bytes()].map(|text| zstd::bulk::compress(text, 3).unwrap());
    let tail = [&members[0][..], &members[1][..members[1].len() - 1]].concat();
    for (name, bytes, policy, rows, torn) in [
        ("o.ndjson.gz", &gzip[..gzip_cut], "export", 2, true),
        ("o.ndjson.zst", &zstd[..zstd_cut], "export", 2, true),
        ("o.ndjson.gz", &gzip[..gzip_cut], "fault", 0, true),
        ("o.ndjson.zst", &zstd[..zstd_cut], "fault", 0, true),
        ("o.ndjson.zst", &tail[..], "fault", 2, true),
        ("o.ndjson.zst", &members[0][..], "fault", 2, false),
    ] {
        let scratch = scratch();
        let (store, packed) = (scratch.path().join("store"), scratch.path().join("packed"));
        std::fs::create_dir(&store).unwrap();
        std::fs::write(store.join(name), bytes).unwrap();
        let by = ["--unproven", policy];
        let (export, before) = everything(&store, &scratch.path().join("before"), &by, i32::from(torn));
        let found = before.get("Observation").map_or(0, |lines| lines.len());
        assert_eq!((found, export.ledger()["faulty"]), (rows, u64::from(torn)), "{name}");
        let run = pack(&store, &packed, &["--as-of", crate::golden::AS_OF]);
        assert_eq!(run.code, i32::from(torn), "{name}: {run:#?}");
        let reported: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(reported["damaged"].as_u64(), Some(u64::from(torn)), "{reported}");
        let prefix = match (policy, rows) {
            ("export", _) => format!("{name}: byte {}: ", whole.len()),
            (_, 0) => format!("{name}: byte 0 to {}, byte 0 of the file: ", whole.len()),
            _ => format!("{name}: byte {} to {}, byte {} of the file: ", whole.len(), whole.len(), members[0].len()),
        };
        assert_eq!(run.said().contains(&prefix), torn, "{prefix} in {}", run.stderr);
        assert_eq!(reported["damage"].as_array().unwrap().len(), usize::from(torn), "{reported}");
        // The packed store has no fault, and does not report the damage again.
        let (_, after) = everything(&packed, &scratch.path().join("after"), &[], 0);
        assert!(after == before, "{name}");
    }
}

/// Packing the hostile stores keeps every line, and every fault a fault.
#[test]
fn packing_hostile_stores_keeps_lines_and_faults() {
    let scratch = scratch();
    let as_of = "2025-01-01T00:00:00.000Z";
    let names = ["store", "compressed", "coverage", "deleted"].into_iter();
    for (name, coding) in names.flat_map(|name| CODINGS.map(|coding| (name, coding))) {
        let store = run::testdata(&format!("hostile/{name}"));
        let packed = scratch.path().join(format!("{name}-{coding}"));
        let index = scratch.path().join(format!("index-{name}"));
        let more = ["--as-of", as_of, "--coding", coding, "--index-dir", index.to_str().unwrap()];
        let run = pack(&store, &packed, &more);
        assert!([0, 1].contains(&run.code), "{run:#?}");
        let reported: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        for (number, since) in [None, Some("2019-06-01"), Some("2020-01-01T00:00:00Z")].into_iter().enumerate() {
            for (level, who) in [naive::Who::System, naive::Who::AllPatients].into_iter().enumerate() {
                let mut comparison = Comparison::new(who, as_of);
                comparison.since = since.map(str::to_string);
                let oracle = comparison.read(&store);
                let answer = naive::export(&oracle, &comparison.request()).unwrap();
                let out = scratch.path().join(format!("out-{name}-{coding}-{number}-{level}"));
                let run = comparison.run(&packed, &out, scratch.path());
                let export = Export::read(&out, comparison.bounds);
                assert_same_content(&comparison, &answer, &export);
                let faulty = export.ledger()["faulty"];
                assert_eq!(run.code, if faulty == 0 { 0 } else { 1 }, "{run:#?}");
                assert_eq!(Some(faulty), reported["rejected"].as_u64(), "{name}");
                let lost = reported["damaged"].as_u64().unwrap();
                assert!(answer.ledger["faulty"] <= faulty + lost, "{name}: {:?} {reported}", answer.ledger);
            }
        }
    }
}

/// DELETED-05: a deletion that comes to a packed store, older than a version that the pack has dropped, ends nothing, however often
/// the store is packed again.
#[test]
fn deletions_between_dropped_versions() {
    let scratch = scratch();
    let dirs = ["store", "packed", "again"].map(|name| scratch.path().join(name));
    let [store, packed, again] = &dirs;
    std::fs::create_dir(store).unwrap();
    let row = |meta: &str, subject: &str| {
        format!(r#"{{"resourceType":"Observation","id":"x","meta":{{{meta}}},"subject":{{"reference":"{subject}"}}}}"#)
    };
    let at = |hour: u32| format!(r#""lastUpdated":"2020-01-02T{hour:02}:00:00Z""#);
    let deletion = |hour: u32| {
        let entry = r#"{"request":{"method":"DELETE","url":"Observation/x"}}"#;
        format!(r#"{{"resourceType":"Bundle","type":"transaction","meta":{{{}}},"entry":[{entry}]}}"#, at(hour))
    };
    let write = |file: &Path, lines: &[String]| std::fs::write(file, lines.join("\n") + "\n").unwrap();
    let patient = |id: &str| format!(r#"{{"resourceType":"Patient","id":"{id}","meta":{{{}}}}}"#, at(1));
    let lines =
        [patient("a"), patient("b"), row(&at(5), "Patient/a"), deletion(7), row(&at(19), "Device/d"), deletion(21)];
    write(&store.join("a.ndjson"), &lines);
    let as_of = ["--as-of", "2020-01-02T22:00:00Z"];
    assert_eq!(pack(store, packed, &as_of).code, 0);
    let delta = [row(r#""versionId":"1""#, "Patient/b"), deletion(10)];
    [store, packed].iter().for_each(|directory| write(&directory.join(DELTA), &delta));
    assert_eq!(pack(packed, again, &as_of).code, 0);
    for directory in [store, packed, again] {
        let out = scratch.path().join("out");
        let words = [&["--all-patients", "--since", "2020-01-02T06:00:00Z", "--force"][..], &as_of].concat();
        let done = run::export(directory, &out, &words);
        assert_eq!(done.code, 0, "{done:#?}");
        assert_eq!(
            Export::read(&out, run::Bounds::DEFAULT).deletions(),
            Vec::<String>::new(),
            "{}",
            directory.display()
        );
    }
}
