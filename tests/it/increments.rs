//! Increments add up (CONS-05): a reader that applies the `output` and `deleted` of each increment, with `--since` set
//! to the previous transactionTime, holds exactly the cohort's current rows. Tested over `OUTPOUR_TEST_CHAINS` random
//! histories with late rows, torn last lines, replaced and compressed files, deletions, damaged and removed indexes, and
//! clocks that are set.

use crate::generator::{self, Spelling};
use crate::naive::{self, Request, Who, line::Line};
use crate::random::{Random, each_case, knob};
use crate::run::{self, scratch};
use outpour::{Context, ExportOptions, ExportRequest, FileSync, Instant, Progress, SnapshotTime, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Seconds between two exports of a history.
const ROUND: i64 = 1000;
const GROUP: &str = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,
    "member":[{"entity":{"reference":"Patient/p0"}},{"entity":{"reference":"Patient/p1"}}]}"#;

fn clock(second: i64) -> String {
    format!("2020-01-01T{:02}:{:02}:{:02}.000Z", second / 3600, second / 60 % 60, second % 60)
}

/// A store under random writes, and the state of its writer.
struct History<'a> {
    dir: PathBuf,
    /// Copies of the files before each pack, one directory per pack; the oracle reads them together with the newer
    /// files.
    packed_files: PathBuf,
    packs: u64,
    random: &'a mut Random,
    files: u64,
    versions: u64,
    /// The file with an unfinished last line, and the rest of that line.
    torn: Option<(PathBuf, Vec<u8>)>,
    /// Some line of this round is dated before the previous export.
    late: bool,
}

impl History<'_> {
    /// A new version of a random resource. Its patient never changes; the targets of a Provenance may be written later,
    /// or never.
    fn row(&mut self, second: i64, undated: bool) -> Vec<u8> {
        let number = self.random.below(20);
        let owner = format!("Patient/p{}", number % 3);
        self.versions += 1;
        let last_updated = if undated { String::new() } else { format!(r#""lastUpdated":"{}","#, clock(second)) };
        let meta = format!(
            r#""meta":{{{last_updated}"versionId":"{}"}},"status":"s{}""#,
            self.versions,
            self.random.below(1000)
        );
        // What a row refers to beside its patient changes from version to version.
        let context = [
            "Practitioner/a",
            "Practitioner/b",
            "Organization/c",
            "Organization/d",
            "Device/e",
            "Practitioner?identifier=s|1",
        ];
        let context = format!(r#""x":{{"reference":"{}"}}"#, self.random.pick(&context));
        let row = match number {
            14..18 => {
                let (name, id) =
                    [("Practitioner", "a"), ("Practitioner", "b"), ("Organization", "c"), ("Organization", "d")]
                        [number - 14];
                // What has an identifier has it for good, or its loss would make another one the only one.
                let key = if number < 15 { r#","identifier":[{"system":"s","value":"1"}]"# } else { "" };
                format!(r#"{{"resourceType":"{name}","id":"{id}",{meta},{context}{key}}}"#)
            }
            18 => format!(
                r#"{{"resourceType":"Device","id":"e",{meta},{context},"patient":{{"reference":"Patient/p2"}}}}"#
            ),
            19 => format!(
                r#"{{"resourceType":"Device","id":"f",{meta},{context},"patient":{{"reference":"Patient/p0"}}}}"#
            ),
            0..4 => format!(r#"{{"resourceType":"Patient","id":"p{number}",{meta}}}"#),
            4..9 => format!(
                r#"{{"resourceType":"Observation","id":"o{number}",{meta},"subject":{{"reference":"{owner}"}},{context}}}"#
            ),
            9 | 10 => {
                format!(r#"{{"resourceType":"Condition","id":"o{number}",{meta},"subject":{{"reference":"{owner}"}}}}"#)
            }
            11 => format!(
                r#"{{"resourceType":"Provenance","id":"v11",{meta},"target":[{{"reference":"Observation/o4"}},{{"reference":"Observation/o5"}}]}}"#
            ),
            12 => format!(
                r#"{{"resourceType":"Provenance","id":"v12",{meta},"target":[{{"reference":"Provenance/v11"}},{{"reference":"Observation/o8"}}]}}"#
            ),
            _ => format!(
                r#"{{"resourceType":"Provenance","id":"v13",{meta},"target":[{{"reference":"Condition/o9/_history/1"}},{{"reference":"Patient/p2"}}]}}"#
            ),
        };
        row.into_bytes()
    }

    /// A deletion of a random resource.
    fn tombstone(&mut self, second: i64) -> Vec<u8> {
        let targets = [
            "Patient/p1",
            "Observation/o4",
            "Observation/o6",
            "Observation/o7",
            "Condition/o9",
            "Provenance/v11",
            "Practitioner/a",
            "Organization/c",
            "Organization/d",
        ];
        let (name, id) = self.random.pick(&targets).split_once('/').unwrap();
        let value = generator::tombstone(&[(name.into(), id.into())], Some(clock(second)), self.random);
        String::from_utf8(generator::write(&value, Spelling::Plain, self.random))
            .unwrap()
            .replace(generator::BASE, "")
            .replace("\"/", "\"")
            .into_bytes()
    }

    /// Random lines of this round; some are dated in an earlier round, or in the next.
    fn lines(&mut self, round: i64) -> Vec<Vec<u8>> {
        let count = self.random.below(6);
        (0..count).map(|_| self.line(round)).collect()
    }

    /// A random line of this round.
    fn line(&mut self, round: i64) -> Vec<u8> {
        let begin = (round - 1) * ROUND;
        let second = match self.random.below(10) {
            0 | 1 if round > 1 => {
                self.late = true;
                self.random.below(begin as usize) as i64 + 1
            }
            2 => begin + ROUND + self.random.below(ROUND as usize) as i64, // visible in the next export at the earliest
            3 => begin + ROUND,                                            // exactly at T
            _ => begin + 1 + self.random.below(ROUND as usize) as i64,
        };
        let undated = self.random.one_in(20);
        if undated {
            self.late |= round > 1; // a row without a date is late when it is first seen after an export
        }
        if self.random.one_in(5) { self.tombstone(second) } else { self.row(second, undated) }
    }

    /// One round of writes to the store.
    fn write(&mut self, round: i64) {
        self.late = false;
        if let Some((path, rest)) = self.torn.take() {
            append(&path, &[&rest[..], b"\n"].concat());
            self.late = true;
        }
        for _ in 0..1 + self.random.below(3) {
            let lines = self.lines(round);
            let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
            let plain = self.existing(".ndjson");
            if !plain.is_empty() && self.random.one_in(2) {
                let path = &plain[self.random.below(plain.len())];
                if !std::fs::read(path).unwrap().ends_with(b"\n") {
                    bytes.insert(0, b'\n'); // its last line lacked only the newline
                }
                append(path, &bytes);
            } else {
                self.files += 1;
                let name = format!("{}-{}", self.random.pick(&["m", "a", "z", "d/k"]), self.files);
                let suffix = self.random.pick(&[".ndjson", ".ndjson", ".ndjson", ".ndjson.gz", ".ndjson.zst"]);
                if suffix == ".ndjson" && self.random.one_in(6) {
                    bytes.pop();
                }
                generator::file(&self.dir.join(format!("{name}{suffix}")), &bytes, self.random);
            }
        }
        if self.random.one_in(4) {
            self.replace();
        }
        if self.random.one_in(4) {
            self.tear(round);
        }
    }

    /// Replaces a file by rename, shuffled or compressed under another name: all its rows are new to the index.
    fn replace(&mut self) {
        let files = self.existing(".ndjson");
        let Some(path) = files.get(self.random.below(files.len().max(1))) else { return };
        let bytes = std::fs::read(path).unwrap();
        if self.random.one_in(2) && bytes.ends_with(b"\n") {
            let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            self.random.shuffle(&mut lines);
            let new = path.with_extension("tmp");
            std::fs::write(&new, lines.concat()).unwrap();
            std::fs::rename(&new, path).unwrap();
        } else {
            let packed = PathBuf::from(format!("{}.zst", path.display()));
            generator::file(&packed, &bytes, self.random);
            std::fs::remove_file(path).unwrap();
        }
        self.late = true;
    }

    /// Writes a new file that ends within its last line.
    fn tear(&mut self, round: i64) {
        self.files += 1;
        let path = self.dir.join(format!("torn-{}.ndjson", self.files));
        let mut bytes: Vec<u8> = self.lines(round).iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
        let last = self.row(round * ROUND - 1, false);
        let cut = 1 + self.random.below(last.len() - 1);
        bytes.extend(&last[..cut]);
        std::fs::write(&path, bytes).unwrap();
        self.torn = Some((path, last[cut..].to_vec()));
    }

    /// Packs the store as of some time of this round and puts the packed store in its place, as an operator would. The
    /// index is removed with the old store: only the packed store itself can say which rows were late.
    fn pack(&mut self, round: i64) {
        let as_of = clock((round - 1) * ROUND + 1 + self.random.below(ROUND as usize) as i64);
        let new = self.dir.with_extension("new");
        let run = crate::pack::pack(&self.dir, &new, &["--as-of", &as_of, "--threads", "1", "--level", "1"]);
        assert!(run.code == 0 || run.code == 1, "{run:#?}");
        self.packs += 1;
        // The unfinished line is a faulty line of the packed store now, and is never finished.
        self.torn = None;
        self.keep(&self.packed_files.join(self.packs.to_string()));
        std::fs::remove_dir_all(&self.dir).unwrap();
        std::fs::rename(&new, &self.dir).unwrap();
    }

    /// Copies the files that were not made by a pack to another directory.
    fn keep(&self, to: &Path) {
        for path in self.existing("") {
            let copy = to.join(path.strip_prefix(&self.dir).unwrap());
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(&path, copy).unwrap();
        }
    }

    /// A directory with every line that was ever in the store, for the oracle: the packed ones, and those beside them.
    fn all_lines(&self) -> PathBuf {
        if self.packs == 0 {
            return self.dir.clone();
        }
        let now = self.packed_files.join("now");
        let _ = std::fs::remove_dir_all(&now);
        self.keep(&now);
        if let Some((torn, _)) = &self.torn {
            std::fs::copy(torn, now.join("torn.ndjson")).unwrap();
        }
        self.packed_files.clone()
    }

    /// Files of the store with this suffix, without the torn one and those made by a pack.
    fn existing(&self, suffix: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in [self.dir.clone(), self.dir.join("d")] {
            let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
            files.extend(entries.filter(|path| path.to_str().unwrap().ends_with(suffix) && path.is_file()));
        }
        files.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            !name.starts_with(|first: char| first.is_ascii_uppercase()) && name != "rejected.ndjson"
        });
        files.retain(|path| self.torn.as_ref().is_none_or(|(torn, _)| torn != path));
        files.sort();
        files
    }

    /// Damages or removes the index between two exports. If lines of the round are late, the generation file is spared:
    /// only it says what was seen before. Its note is not.
    fn damage(&mut self) {
        let index = self.dir.join(".outpour");
        let mut files = Vec::new();
        collect(&index, &mut files);
        files.sort();
        match self.random.below(8) {
            0 if !self.late => drop(std::fs::remove_dir_all(&index)),
            1 | 2 if !files.is_empty() => {
                let path = &files[self.random.below(files.len())];
                let is_generation = path.file_name().unwrap() == "generation";
                if is_generation && self.late {
                    return;
                }
                let mut bytes = std::fs::read(path).unwrap();
                match self.random.below(3) {
                    0 => drop(std::fs::remove_file(path)),
                    1 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                    _ => {
                        let i = self.random.below(bytes.len().max(1));
                        if let Some(byte) = bytes.get_mut(i) {
                            *byte ^= 0x41;
                        }
                        std::fs::write(path, bytes).unwrap();
                    }
                }
            }
            _ => {}
        }
    }
}

fn append(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// State of the reader: the current line of each `Type/id`.
type Reader = BTreeMap<String, Vec<u8>>;

fn key(line: &[u8]) -> String {
    match naive::line::read(line) {
        Line::Row(row) => format!("{}/{}", row.resource_type, row.id),
        other => panic!("{other:?}"),
    }
}

/// Compares the state of the reader with the cohort's current rows at T, as the oracle gives them.
fn compare(dir: &Path, as_of: &str, reader: &Reader, round: i64, was_packed: bool) {
    let store = naive::read(dir, &[]);
    let mut request = Request::new(Who::GroupFile(serde_json::from_str(GROUP).unwrap()), as_of);
    request.context = true;
    let answer = naive::export(&store, &request).unwrap();
    let current: Reader = answer.lines.values().flatten().map(|line| (key(line), line.clone())).collect();
    let text = |reader: &Reader| -> BTreeSet<String> {
        reader.values().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    };
    let (held, current) = (text(reader), text(&current));
    let missing: Vec<_> = current.difference(&held).collect();
    // Of context that nothing refers to any more a reader is not told, unless it is deleted and a version that referred to
    // it still stands, which a pack may have dropped.
    let is_unreferred = |line: &&String| {
        let (name, id) =
            key(line.as_bytes()).split_once('/').map(|(name, id)| (name.to_string(), id.to_string())).unwrap();
        let is_context = naive::context::TYPES.contains(&name.as_str());
        is_context
            && (was_packed || !naive::is_ended(&store, &format!("{name}/{id}"), &naive::instant::parse(as_of).unwrap()))
    };
    let surplus: Vec<_> = held.difference(&current).filter(|line| !is_unreferred(line)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "round {round}: missing {missing:#?}, surplus {surplus:#?}");
}

/// One increment: exported lines, deleted `Type/id`, and T.
type Increment = (Vec<Vec<u8>>, Vec<String>, String);

/// Makes an export: store, scratch directory and round to an increment.
type Exporter<'a> = &'a mut dyn FnMut(&Path, &Path, i64) -> Increment;

/// Events of a history other than writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disturbance {
    /// None.
    Undisturbed,
    /// The index is damaged or removed in some rounds.
    Damage,
    /// As `Damage`, and the store is packed in some rounds.
    DamageAndPacks,
}

/// Plays a random history and checks the reader after every export. The store of a failed history is kept.
fn history(random: &mut Random, disturbance: Disturbance, export: Exporter) {
    let scratch = scratch();
    let dir = scratch.path().join("store");
    std::fs::create_dir(&dir).unwrap();
    let rounds = 3 + random.below(3) as i64;
    let packed_files = scratch.path().join("truth");
    let mut history =
        History { dir: dir.clone(), packed_files, packs: 0, random, files: 0, versions: 0, torn: None, late: false };
    let mut reader = Reader::new();
    let step = std::panic::AssertUnwindSafe(|| {
        for round in 1..=rounds {
            history.write(round);
            if round > 1 && disturbance != Disturbance::Undisturbed {
                history.damage();
            }
            if disturbance == Disturbance::DamageAndPacks && history.random.one_in(2) {
                history.pack(round);
                // In some rounds more is written between the pack and the export.
                if history.random.one_in(2) {
                    history.write(round);
                }
            }
            let (lines, deleted, as_of) = export(&dir, scratch.path(), round);
            let deleted: BTreeSet<String> = deleted.into_iter().collect();
            for line in lines {
                let key = key(&line);
                assert!(!deleted.contains(&key), "DELETED-03: {key} is both");
                reader.insert(key, line);
            }
            reader.retain(|key, _| !deleted.contains(key));
            compare(&history.all_lines(), &as_of, &reader, round, history.packs > 0);
        }
    });
    if let Err(panic) = std::panic::catch_unwind(step) {
        let kept = std::env::temp_dir().join(format!("outpour-chain-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&kept);
        let _ = std::fs::rename(scratch.path(), &kept);
        eprintln!("the history is kept in {}", kept.display());
        std::panic::resume_unwind(panic);
    }
}

/// The increments of the binary add up, also over a damaged or removed index.
#[test]
fn increments_add_up() {
    each_case("chain", knob("OUTPOUR_TEST_CHAINS", 1000), |_, random| {
        history(random, Disturbance::Damage, &mut increment_of_binary)
    });
}

/// The increments of the binary add up when the store is packed between exports and newer files are put beside the
/// packed ones. A fifth of `OUTPOUR_TEST_CHAINS` histories.
#[test]
fn increments_over_packs_add_up() {
    let count = knob("OUTPOUR_TEST_CHAINS", 1000) / 5;
    each_case("chain over packs", count, |_, random| {
        history(random, Disturbance::DamageAndPacks, &mut increment_of_binary)
    });
}

/// The increments add up when T is left to a clock that is set back, stands still or jumps ahead between exports: rows
/// that come meanwhile are late by the order of snapshots. The library is given the clock. A fifth of
/// `OUTPOUR_TEST_CHAINS` histories.
#[test]
fn increments_under_a_stepped_clock_add_up() {
    each_case("chain under a stepped clock", knob("OUTPOUR_TEST_CHAINS", 1000) / 5, |_, random| {
        // The clock of each round, in seconds; the rows of a round are dated around the second round * ROUND.
        let mut now = ROUND;
        let clocks: Vec<i64> = (0..8)
            .map(|_| {
                now += match random.below(4) {
                    0 => -(random.below(3 * ROUND as usize) as i64),
                    1 => 0,
                    2 => ROUND,
                    _ => random.below(3 * ROUND as usize) as i64,
                };
                now = now.max(0);
                now
            })
            .collect();
        let mut last: Option<Instant> = None;
        history(random, Disturbance::Undisturbed, &mut |dir, scratch, round| {
            let now: Instant = clock(clocks[round as usize]).parse().unwrap();
            let group = scratch.join("Group.json");
            std::fs::write(&group, GROUP).unwrap();
            let out = scratch.join(format!("out-{round}"));
            let mut request = ExportRequest::group_file(&group).context(Context::Referenced);
            if let Some(last) = &last {
                request = request.since(&last.to_string());
            }
            let (store, options) = (Store::open(dir).unwrap(), ExportOptions::new(&out).sync(FileSync::No));
            let time = SnapshotTime::by_clock(now.clone());
            let done = outpour::export(&store, &request, time, &options, &Progress::default()).unwrap();
            let as_of = done.transaction_time;
            assert!(last.as_ref().is_none_or(|last| as_of > *last) && as_of >= now, "{as_of} after {last:?}");
            last = Some(as_of.clone());
            let export = run::Export::read(&out, run::Bounds::DEFAULT);
            (export.lines().into_values().flatten().collect(), export.deletions(), as_of.to_string())
        });
    });
}

/// The increment of a round by the binary.
fn increment_of_binary(dir: &Path, scratch: &Path, round: i64) -> Increment {
    let group = scratch.join("Group.json");
    std::fs::write(&group, GROUP).unwrap();
    let (as_of, since) = (clock(round * ROUND), clock((round - 1) * ROUND));
    let out = scratch.join(format!("out-{round}"));
    let mut args =
        vec!["--group", group.to_str().unwrap(), "--context", "referenced", "--as-of", &as_of, "--threads", "1"];
    if round > 1 {
        args.extend(["--since", &since]);
    }
    let run = run::export(dir, &out, &args);
    assert!(run.code == 0 || run.code == 1, "round {round}: {run:#?}");
    let export = run::Export::read(&out, run::Bounds::DEFAULT);
    (export.lines().into_values().flatten().collect(), export.deletions(), as_of)
}

/// The increments of the naive oracle, which is given the late lines, add up: this checks the readings, and this test.
#[test]
fn increments_of_the_oracle_add_up() {
    each_case("chain of the twin", knob("OUTPOUR_TEST_CHAINS", 200), |_, random| {
        let mut before: Option<naive::Seen> = None;
        history(random, Disturbance::Undisturbed, &mut |dir, _, round| {
            let store = naive::read(dir, &[]);
            let mut request = Request::new(Who::GroupFile(serde_json::from_str(GROUP).unwrap()), &clock(round * ROUND));
            request.context = true;
            if round > 1 {
                request = request.since(&clock((round - 1) * ROUND));
            }
            let after = naive::seen(dir, &store);
            if let Some(before) = &before {
                request.late = naive::late_lines(&store, before, &after);
            }
            before = Some(after);
            let answer = naive::export(&store, &request).unwrap();
            (answer.lines.into_values().flatten().collect(), answer.deleted, clock(round * ROUND))
        });
    });
}
