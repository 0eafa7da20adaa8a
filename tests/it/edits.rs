//! Increments add up over a store whose files are edited as nightly dumps and careless hands edit them: corrections of the
//! same length, in place and by rename, with times set back; files renamed, taken away and brought back; dumps replaced
//! by ones with a row more or a row less; older copies restored; small appends by the dozen; and index files damaged in
//! between.
//!
//! Under `--vanished delete` a reader of the increments ends with exactly the cohort's current rows, but for as many
//! resources as the increments' manifests counted as gone in another way; and no increment holds a row of anybody outside
//! the cohort. Tested over `OUTPOUR_TEST_CHAINS` random histories.

use crate::naive::vanished::{Vanished as Expected, Watch};
use crate::naive::{self, Request, Who, line::Line};
use crate::random::{Random, each_case, knob};
use crate::run::{self, scratch};
use outpour::{ExportOptions, ExportRequest, FileSync, Instant, Progress, SnapshotTime, Store, StoreOptions, Vanished};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Patients of the cohort; `p2` is of nobody's.
const COHORT: [&str; 2] = ["p0", "p1"];

/// T of a round.
fn clock(round: usize) -> String {
    format!("2020-01-{:02}T00:00:00.000Z", round + 1)
}

/// A store under random edits. The truth is on the disk; this only knows where files are.
struct Edited<'a> {
    store: PathBuf,
    /// Files that were taken away.
    aside: PathBuf,
    /// Earlier contents of files, by name.
    copies: Vec<(String, Vec<u8>)>,
    random: &'a mut Random,
    numbers: usize,
    /// The oracle, which looks at the store whenever it is indexed.
    watch: Watch,
}

impl Edited<'_> {
    /// A row of a random resource, dated on some day up to the round's.
    fn row(&mut self, round: usize) -> String {
        self.numbers += 1;
        let (number, day) = (self.random.below(12), 1 + self.random.below(round));
        let meta = format!(
            r#""meta":{{"versionId":"{:05}","lastUpdated":"2020-01-{day:02}T0{}:00:00Z"}}"#,
            self.numbers,
            self.random.below(10)
        );
        let note = format!(r#""note":"{:03}""#, self.random.below(1000));
        if self.random.one_in(12) {
            let name = if number < 3 { format!("Patient/p{number}") } else { format!("Observation/o{number}") };
            return format!(
                r#"{{"resourceType":"Bundle","type":"batch",{meta},"entry":[{{"request":{{"method":"DELETE","url":"{name}"}}}}],{note}}}"#
            );
        }
        let row = match number {
            0..3 => format!(r#"{{"resourceType":"Patient","id":"p{number}",{meta},{note}}}"#),
            _ => format!(
                r#"{{"resourceType":"Observation","id":"o{number}",{meta},"subject":{{"reference":"Patient/p{}"}},{note}}}"#,
                number % 3
            ),
        };
        // Some lines are faulty, until they are corrected.
        if self.random.one_in(20) { row + "," } else { row }
    }

    /// Names of the store's files.
    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.store).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".ndjson"));
        names.sort();
        names
    }

    /// The lines of a file.
    fn lines(&self, name: &str) -> Vec<String> {
        std::fs::read_to_string(self.store.join(name)).unwrap().lines().map(str::to_string).collect()
    }

    /// Writes a file anew, by rename or in place; sometimes with the times that it had.
    fn write(&mut self, name: &str, lines: &[String]) {
        let path = self.store.join(name);
        let before = std::fs::metadata(&path).ok();
        if let Ok(bytes) = std::fs::read(&path) {
            self.copies.push((name.to_string(), bytes));
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let in_place = self.random.one_in(3);
        let target = if in_place { path.clone() } else { self.store.join(".part") };
        std::fs::write(&target, text).unwrap();
        if let Some(before) = before.filter(|_| self.random.one_in(2)) {
            let file = std::fs::File::options().write(true).open(&target).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
        if !in_place {
            std::fs::rename(&target, &path).unwrap();
        }
    }

    /// One random edit.
    fn edit(&mut self, round: usize) {
        let files = self.files();
        if files.len() < 2 || self.random.one_in(5) {
            let lines: Vec<String> = (0..1 + self.random.below(6)).map(|_| self.row(round)).collect();
            let name = format!("{}{}.ndjson", self.random.pick(&["a", "m", "z"]), self.numbers);
            return self.write(&name, &lines);
        }
        let name = files[self.random.below(files.len())].clone();
        let mut lines = self.lines(&name);
        let at = self.random.below(lines.len().max(1));
        match self.random.below(9) {
            // Small appends.
            0 | 1 => {
                for _ in 0..self.random.below(12) {
                    let row = self.row(round);
                    let mut text = std::fs::read(self.store.join(&name)).unwrap();
                    text.extend(row.bytes().chain(*b"\n"));
                    std::fs::write(self.store.join(&name), text).unwrap();
                    if self.random.one_in(3) {
                        self.index();
                    }
                }
            }
            // A correction of the same length.
            2 | 3 if !lines.is_empty() => {
                let (head, _) = lines[at].rsplit_once(r#""note":""#).unwrap();
                lines[at] = format!(r#"{head}"note":"{:03}"}}"#, self.random.below(1000));
                self.write(&name, &lines);
            }
            // A dump with one row more, or one less.
            4 => {
                let row = self.row(round);
                lines.insert(at, row);
                self.write(&name, &lines);
            }
            5 if !lines.is_empty() => {
                lines.remove(at);
                self.write(&name, &lines);
            }
            6 => {
                let to = format!("{}{}.ndjson", self.random.pick(&["b", "n", "y"]), self.numbers);
                std::fs::rename(self.store.join(&name), self.store.join(to)).unwrap();
            }
            // Taken away, or brought back.
            7 => match std::fs::read_dir(&self.aside).unwrap().next() {
                Some(away) => {
                    let away = away.unwrap();
                    std::fs::rename(away.path(), self.store.join(away.file_name())).unwrap();
                }
                None => std::fs::rename(self.store.join(&name), self.aside.join(&name)).unwrap(),
            },
            // An older copy of a file restored.
            _ if !self.copies.is_empty() => {
                let (name, bytes) = self.copies[self.random.below(self.copies.len())].clone();
                let lines: Vec<String> = String::from_utf8(bytes).unwrap().lines().map(str::to_string).collect();
                self.write(&name, &lines);
            }
            _ => {}
        }
    }

    /// Indexes the store between two exports.
    fn index(&mut self) {
        open(&self.store).index(&Progress::default()).unwrap();
        self.watch.look(&self.store, &naive::read(&self.store, &[]));
    }

    /// Damages one of two copies of what cannot be made again, where both are intact: an untouched store looks only at the
    /// first one.
    fn damage(&mut self) {
        let is_second = self.random.one_in(2);
        let files = std::fs::read_dir(self.store.join(".outpour")).unwrap().map(|entry| entry.unwrap().path());
        for path in files.filter(|path| path.extension().is_none()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let kept_twice = ["generation", "times-", "vanished-"].iter().any(|stem| name.starts_with(stem));
            let copy = path.with_file_name(format!("{name}-b"));
            if !kept_twice || name.ends_with("-b") || std::fs::read(&path).unwrap() != std::fs::read(&copy).unwrap() {
                continue;
            }
            let damaged = if is_second { copy } else { path };
            let mut bytes = std::fs::read(&damaged).unwrap();
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1;
            std::fs::write(damaged, bytes).unwrap();
        }
    }
}

/// A store that may lose any share of its resources.
fn open(path: &Path) -> Store {
    Store::open_with(path, StoreOptions::default().allow_missing(100.0).sync(FileSync::No)).unwrap()
}

/// `Type/id` of a line.
fn key(line: &[u8]) -> String {
    match naive::line::read(line) {
        Line::Row(row) => format!("{}/{}", row.resource_type, row.id),
        other => panic!("{other:?}"),
    }
}

/// The cohort's current rows at T, as the oracle gives them.
fn current_rows(store: &Path, round: usize) -> BTreeMap<String, Vec<u8>> {
    let patients = COHORT.map(|id| format!("Patient/{id}")).to_vec();
    let answer =
        naive::export(&naive::read(store, &[]), &Request::new(Who::Patients(patients), &clock(round))).unwrap();
    answer.lines.into_values().flatten().map(|line| (key(&line), line)).collect()
}

/// Exports a store as of a round.
fn export(store: &Path, out: &Path, request: &ExportRequest, round: usize) -> run::Export {
    let as_of: Instant = clock(round).parse().unwrap();
    let options = ExportOptions::new(out).sync(FileSync::No);
    let time = SnapshotTime::at(as_of.clone(), as_of);
    outpour::export(&open(store), request, time, &options, &Progress::default()).unwrap();
    run::Export::read(out, run::Bounds::DEFAULT)
}

/// The increment of a round, and one at system level under a random policy, state of vanished resources what the oracle
/// found.
fn check_vanished(edited: &mut Edited<'_>, increment: &run::Export, round: usize, scratch: &Path) {
    let store = naive::read(&edited.store, &[]);
    let as_of = naive::instant::parse(&clock(round)).unwrap();
    edited.watch.look(&edited.store, &store);
    let check = |export: &run::Export, expected: &Expected, words: &str| {
        let vanished = &export.manifest["extension"]["urn:outpour:export:1"]["vanished"];
        let names = ["told", "replacedFiles", "uncertainFiles", "missingFiles", "olderVersions"];
        let stated = names.map(|name| vanished[name].as_u64().unwrap_or(0));
        let [replaced, uncertain, missing, older] = expected.counted;
        let found = [expected.told.len() as u64, replaced, uncertain, missing, older];
        let more: Vec<i64> = stated.iter().zip(found).map(|(stated, found)| *stated as i64 - found as i64).collect();
        let is_as_found = more.iter().all(|more| *more >= 0) && more.iter().sum::<i64>() <= expected.unjudged as i64;
        assert!(is_as_found, "round {round}, {words}: {stated:?} of {names:?} stated, but found {expected:?}");
        let deleted = BTreeSet::from_iter(export.deletions());
        assert!(expected.told.is_subset(&deleted), "round {round}, {words}: {expected:?}, but {deleted:?} deleted");
        // Any other is ended by a DELETE entry.
        let others = deleted.difference(&expected.told).filter(|name| !naive::is_ended(&store, name, &as_of));
        let others: Vec<&String> = others.collect();
        assert!(others.len() as u64 <= expected.unjudged, "round {round}, {words}: {others:?} deleted");
    };
    if round > 1 {
        check(increment, &edited.watch.answer(&store, Some(&COHORT), &as_of, true, true), "the cohort");
        let (is_increment, delete) = (!edited.random.one_in(3), edited.random.one_in(2));
        let policy = if delete { Vanished::Delete } else { Vanished::Report };
        let mut request = ExportRequest::system().vanished(policy);
        if is_increment {
            request = request.since(&clock(round - 1));
        }
        let all = export(&edited.store, &scratch.join(format!("all-{round}")), &request, round);
        let words = format!("all, increment: {is_increment}, delete: {delete}");
        check(&all, &edited.watch.answer(&store, None, &as_of, is_increment, delete), &words);
    }
    edited.watch.snapshot(&as_of);
}

#[test]
fn increments_over_edited_files_add_up() {
    each_case("edits", knob("OUTPOUR_TEST_CHAINS", 1000) / 2, |_, random| {
        let scratch = scratch();
        let (store, aside) = (scratch.path().join("store"), scratch.path().join("aside"));
        [&store, &aside].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let mut edited =
            Edited { store: store.clone(), aside, copies: Vec::new(), random, numbers: 0, watch: Watch::default() };
        let (mut reader, mut counted) = (BTreeMap::new(), 0);
        for round in 1..=3 + edited.random.below(4) {
            for _ in 0..1 + edited.random.below(3) {
                edited.edit(round);
                if edited.random.one_in(6) {
                    edited.index();
                }
            }
            if round > 1 && edited.random.one_in(4) {
                edited.damage();
            }
            let out = scratch.path().join(format!("out-{round}"));
            let mut request = ExportRequest::patient_ids(COHORT).vanished(Vanished::Delete);
            if round > 1 {
                request = request.since(&clock(round - 1));
            }
            let export = export(&store, &out, &request, round);
            check_vanished(&mut edited, &export, round, scratch.path());
            let current = current_rows(&store, round);
            let deleted: BTreeSet<String> = export.deletions().into_iter().collect();
            for line in export.lines().into_values().flatten() {
                assert_eq!(
                    current.get(&key(&line)),
                    Some(&line),
                    "round {round}: only current rows of the cohort leave"
                );
                assert!(!deleted.contains(&key(&line)), "DELETED-03: {} is both", key(&line));
                reader.insert(key(&line), line);
            }
            reader.retain(|key, _| !deleted.contains(key));
            let vanished = &export.manifest["extension"]["urn:outpour:export:1"]["vanished"];
            let count = |name: &str| vanished[name].as_u64().unwrap_or(0);
            counted += count("uncertainFiles") + count("missingFiles") + count("olderVersions");
            let keys: BTreeSet<&String> = reader.keys().chain(current.keys()).collect();
            let wrong: Vec<_> = keys.into_iter().filter(|key| reader.get(*key) != current.get(*key)).collect();
            let text = |rows: &BTreeMap<String, Vec<u8>>, key: &String| {
                rows.get(key).map(|line| String::from_utf8_lossy(line).into_owned())
            };
            assert!(
                wrong.len() as u64 <= counted,
                "round {round}: {counted} counted, but the reader is wrong in {:#?}",
                wrong.iter().map(|key| (text(&reader, key), text(&current, key))).collect::<Vec<_>>()
            );
        }
    });
}
