//! The chain law (CONS-05): a reader who applies each increment's `output` and `deleted`, with `--since` set to the
//! transactionTime before, holds exactly the cohort's current rows. Random histories try to break it: rows that come
//! late, torn last lines, replaced and compressed files, deletions, damaged and removed indexes.
//! `OUTPOUR_TEST_CHAINS` histories.

use crate::forge::{self, Hand};
use crate::naive::{self, Request, Who, line::Line};
use crate::random::{Random, each_case, knob};
use crate::run::{self, scratch};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Seconds between two exports.
const ROUND: i64 = 1000;
const GROUP: &str = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,
    "member":[{"entity":{"reference":"Patient/p0"}},{"entity":{"reference":"Patient/p1"}}]}"#;

fn clock(second: i64) -> String {
    format!("2020-01-01T{:02}:{:02}:{:02}.000Z", second / 3600, second / 60 % 60, second % 60)
}

/// A store that is written to, and what its writer must remember.
struct History<'a> {
    dir: PathBuf,
    /// The files that were packed, as they were, in a directory for each pack: what the twin reads beside the newer ones.
    truth: PathBuf,
    packs: u64,
    random: &'a mut Random,
    files: u64,
    versions: u64,
    /// A file whose last line is torn, and the rest of that line.
    torn: Option<(PathBuf, Vec<u8>)>,
    /// Something of this round is older than the export before it.
    late: bool,
}

impl History<'_> {
    /// A row of some entity. Whose it is never changes; a Provenance's targets may come later, or never.
    fn row(&mut self, second: i64, undated: bool) -> Vec<u8> {
        let number = self.random.below(14);
        let owner = format!("Patient/p{}", number % 3);
        self.versions += 1;
        let place = if undated { String::new() } else { format!(r#""lastUpdated":"{}","#, clock(second)) };
        let meta =
            format!(r#""meta":{{{place}"versionId":"{}"}},"status":"s{}""#, self.versions, self.random.below(1000));
        let row = match number {
            0..4 => format!(r#"{{"resourceType":"Patient","id":"p{number}",{meta}}}"#),
            4..9 => format!(
                r#"{{"resourceType":"Observation","id":"o{number}",{meta},"subject":{{"reference":"{owner}"}}}}"#
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

    fn tombstone(&mut self, second: i64) -> Vec<u8> {
        let targets =
            ["Patient/p1", "Observation/o4", "Observation/o6", "Observation/o7", "Condition/o9", "Provenance/v11"];
        let (name, id) = self.random.pick(&targets).split_once('/').unwrap();
        let value = forge::tombstone(&[(name.into(), id.into())], Some(clock(second)), self.random);
        String::from_utf8(forge::write(&value, Hand::Plain, self.random))
            .unwrap()
            .replace(forge::BASE, "")
            .replace("\"/", "\"")
            .into_bytes()
    }

    /// Lines of this round; some belong to an earlier one, or to the next.
    fn lines(&mut self, round: i64) -> Vec<Vec<u8>> {
        let count = self.random.below(6);
        (0..count).map(|_| self.line(round)).collect()
    }

    fn line(&mut self, round: i64) -> Vec<u8> {
        let begin = (round - 1) * ROUND;
        let second = match self.random.below(10) {
            0 | 1 if round > 1 => {
                self.late = true;
                self.random.below(begin as usize) as i64 + 1
            }
            2 => begin + ROUND + self.random.below(ROUND as usize) as i64, // not before the next export
            3 => begin + ROUND,                                            // at T itself
            _ => begin + 1 + self.random.below(ROUND as usize) as i64,
        };
        let undated = self.random.one_in(20);
        if undated {
            self.late |= round > 1; // it may make an older version current again nowhere, but it is new and has no time
        }
        if self.random.one_in(5) { self.tombstone(second) } else { self.row(second, undated) }
    }

    /// One round of writing.
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
                    bytes.insert(0, b'\n'); // its last line was whole, but for the newline
                }
                append(path, &bytes);
            } else {
                self.files += 1;
                let name = format!("{}-{}", self.random.pick(&["m", "a", "z", "d/k"]), self.files);
                let suffix = self.random.pick(&[".ndjson", ".ndjson", ".ndjson", ".ndjson.gz", ".ndjson.zst"]);
                if suffix == ".ndjson" && self.random.one_in(6) {
                    bytes.pop();
                }
                forge::file(&self.dir.join(format!("{name}{suffix}")), &bytes, self.random);
            }
        }
        if self.random.one_in(4) {
            self.replace();
        }
        if self.random.one_in(4) {
            self.tear(round);
        }
    }

    /// Writes a file again under its own or another name, and moves it into place: all its rows come again.
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
            forge::file(&packed, &bytes, self.random);
            std::fs::remove_file(path).unwrap();
        }
        self.late = true;
    }

    /// Ends a new file inside its last line.
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

    /// Packs the store at some time of this round, not after the next export, and puts the packed one in its place, as an
    /// operator would. The index goes with the old one: the new store has to know by itself what came late.
    fn pack(&mut self, round: i64) {
        let place = clock((round - 1) * ROUND + 1 + self.random.below(ROUND as usize) as i64);
        let new = self.dir.with_extension("new");
        let run = crate::pack::pack(&self.dir, &new, &["--as-of", &place, "--threads", "1", "--level", "1"]);
        assert!(run.code == 0 || run.code == 1, "{run:#?}");
        self.packs += 1;
        // What was torn is a faulty line of the packed store now; nobody will end it.
        self.torn = None;
        self.keep(&self.truth.join(self.packs.to_string()));
        std::fs::remove_dir_all(&self.dir).unwrap();
        std::fs::rename(&new, &self.dir).unwrap();
    }

    /// Copies the files that no pack has made to another directory.
    fn keep(&self, to: &Path) {
        for path in self.existing("") {
            let copy = to.join(path.strip_prefix(&self.dir).unwrap());
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(&path, copy).unwrap();
        }
    }

    /// Every line that ever was in the store, for the twin: those that were packed, and those beside them.
    fn whole(&self) -> PathBuf {
        if self.packs == 0 {
            return self.dir.clone();
        }
        let now = self.truth.join("now");
        let _ = std::fs::remove_dir_all(&now);
        self.keep(&now);
        if let Some((torn, _)) = &self.torn {
            std::fs::copy(torn, now.join("torn.ndjson")).unwrap();
        }
        self.truth.clone()
    }

    /// Files of the store whose names end so, but for the torn one and what a pack has made.
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

    /// Harms the index between two runs; without its memory of what came when it may only be left where nothing is late.
    fn damage(&mut self) {
        let index = self.dir.join(".outpour");
        let mut files = Vec::new();
        collect(&index, &mut files);
        files.sort();
        match self.random.below(8) {
            0 if !self.late => drop(std::fs::remove_dir_all(&index)),
            1 | 2 if !files.is_empty() => {
                let path = &files[self.random.below(files.len())];
                let is_generation = path.file_name().unwrap().to_str().unwrap().contains("generation");
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

/// What the reader holds: the line of each `Type/id`.
type Reader = BTreeMap<String, Vec<u8>>;

fn key(line: &[u8]) -> String {
    match naive::line::read(line) {
        Line::Row(row) => format!("{}/{}", row.resource_type, row.id),
        other => panic!("{other:?}"),
    }
}

/// Compares the reader with the cohort's current rows at T.
fn compare(dir: &Path, place: &str, reader: &Reader, round: i64) {
    let store = naive::read(dir, &[]);
    let request = Request::new(Who::GroupFile(serde_json::from_str(GROUP).unwrap()), place);
    let answer = naive::export(&store, &request).unwrap();
    let current: Reader = answer.lines.values().flatten().map(|line| (key(line), line.clone())).collect();
    let text = |reader: &Reader| -> BTreeSet<String> {
        reader.values().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    };
    let (held, current) = (text(reader), text(&current));
    let missing: Vec<_> = current.difference(&held).collect();
    let surplus: Vec<_> = held.difference(&current).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "round {round}: missing {missing:#?}, surplus {surplus:#?}");
}

/// One increment: what came, and what was deleted.
type Increment = (Vec<Vec<u8>>, Vec<String>);

/// Who exports: (store, scratch directory, round) to an increment.
type Exporter<'a> = &'a mut dyn FnMut(&Path, &Path, i64) -> Increment;

/// What befalls a store beside being written to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fortune {
    /// Nothing.
    Kind,
    /// Its index is damaged, or removed.
    Harm,
    /// The same, and it is packed now and then.
    Packs,
}

fn history(random: &mut Random, fortune: Fortune, export: Exporter) {
    let scratch = scratch();
    let dir = scratch.path().join("store");
    std::fs::create_dir(&dir).unwrap();
    let rounds = 3 + random.below(3) as i64;
    let truth = scratch.path().join("truth");
    let mut history =
        History { dir: dir.clone(), truth, packs: 0, random, files: 0, versions: 0, torn: None, late: false };
    let mut reader = Reader::new();
    let step = std::panic::AssertUnwindSafe(|| {
        for round in 1..=rounds {
            history.write(round);
            if round > 1 && fortune != Fortune::Kind {
                history.damage();
            }
            if fortune == Fortune::Packs && history.random.one_in(2) {
                history.pack(round);
                // Now and then more comes between the pack and the export.
                if history.random.one_in(2) {
                    history.write(round);
                }
            }
            let (lines, deleted) = export(&dir, scratch.path(), round);
            let deleted: BTreeSet<String> = deleted.into_iter().collect();
            for line in lines {
                let key = key(&line);
                assert!(!deleted.contains(&key), "DELETED-03: {key} is both");
                reader.insert(key, line);
            }
            reader.retain(|key, _| !deleted.contains(key));
            compare(&history.whole(), &clock(round * ROUND), &reader, round);
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

/// The binary obeys the law.
#[test]
fn increments_add_up() {
    each_case("chain", knob("OUTPOUR_TEST_CHAINS", 1000), |_, random| history(random, Fortune::Harm, &mut exported));
}

/// So it does when the store is packed on the way, and newer files come beside the packed ones. A fifth of
/// `OUTPOUR_TEST_CHAINS`.
#[test]
fn increments_over_packs_add_up() {
    let count = knob("OUTPOUR_TEST_CHAINS", 1000) / 5;
    each_case("chain over packs", count, |_, random| history(random, Fortune::Packs, &mut exported));
}

fn exported(dir: &Path, scratch: &Path, round: i64) -> Increment {
    let group = scratch.join("Group.json");
    std::fs::write(&group, GROUP).unwrap();
    let (place, since) = (clock(round * ROUND), clock((round - 1) * ROUND));
    let out = scratch.join(format!("out-{round}"));
    let mut args = vec!["--group", group.to_str().unwrap(), "--as-of", &place, "--threads", "1"];
    if round > 1 {
        args.extend(["--since", &since]);
    }
    let run = run::export(dir, &out, &args);
    assert!(run.code == 0 || run.code == 1, "round {round}: {run:#?}");
    let export = run::Export::read(&out, run::Bounds::DEFAULT);
    (export.lines().into_values().flatten().collect(), export.deletions())
}

/// The naive twin, told which lines are late, obeys the law: so the readings and this test do.
#[test]
fn increments_of_the_twin_add_up() {
    each_case("chain of the twin", knob("OUTPOUR_TEST_CHAINS", 200), |_, random| {
        let mut before: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        history(random, Fortune::Kind, &mut |dir, _, round| {
            let store = naive::read(dir, &[]);
            let mut request = Request::new(Who::GroupFile(serde_json::from_str(GROUP).unwrap()), &clock(round * ROUND));
            if round > 1 {
                request = request.since(&clock((round - 1) * ROUND));
            }
            let after = naive::contents(dir, &store);
            if round > 1 {
                request.late = naive::late_lines(&store, &before, &after);
            }
            before = after;
            let answer = naive::export(&store, &request).unwrap();
            (answer.lines.into_values().flatten().collect(), answer.deleted)
        });
    });
}
