//! `outpour synth`: the same bytes on any number of threads, references with the targets of the seed, the requested
//! shares of updates and deletions, exports that pass a recount of the ledger, and no partial store after a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::run::{command, export, finish, run, scratch, snapshot, testdata};

const PATIENTS: u64 = 130;

fn synth(out: &Path, more: &[&str]) -> serde_json::Value {
    let mut command = command();
    command.args(["synth", "--out", out.to_str().unwrap(), "--no-sync", "--json", "--progress", "never"]);
    let done = finish(command.args(["--patients", &PATIENTS.to_string()]).args(more));
    assert_eq!(done.code, 0, "{}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

fn lines(store: &Path) -> Vec<(String, serde_json::Value)> {
    let mut all = Vec::new();
    for (name, bytes) in snapshot(store) {
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            all.push((name.clone(), serde_json::from_slice(line).unwrap()));
        }
    }
    all
}

fn sorted_lines(store: &Path) -> Vec<Vec<u8>> {
    let files = snapshot(store);
    let mut all: Vec<Vec<u8>> =
        files.values().flat_map(|bytes| bytes.split(|byte| *byte == b'\n')).map(<[u8]>::to_vec).collect();
    all.retain(|line| !line.is_empty());
    all.sort();
    all
}

/// Adds every relative reference of a JSON value.
fn references(value: &serde_json::Value, all: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            if let Some(serde_json::Value::String(text)) = members.get("reference") {
                all.push(text.clone());
            }
            members.values().for_each(|value| references(value, all));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| references(value, all)),
        _ => {}
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let one = synth(&at("one"), &["--threads", "1"]);
    let four = synth(&at("four"), &["--threads", "4"]);
    assert!(snapshot(&at("one")) == snapshot(&at("four")));
    assert_eq!((&one["rows"], &one["bytes"]), (&four["rows"], &four["bytes"]));
    synth(&at("arrival-one"), &["--threads", "1", "--order", "arrival"]);
    synth(&at("arrival-four"), &["--threads", "4", "--order", "arrival"]);
    assert!(snapshot(&at("arrival-one")) == snapshot(&at("arrival-four")));
    synth(&at("mixed"), &["--layout", "mixed", "--order", "arrival"]);
    assert_eq!(snapshot(&at("mixed")).len(), 1);
    let expected = sorted_lines(&at("one"));
    assert!(sorted_lines(&at("arrival-one")) == expected, "order changes nothing but the order");
    assert!(sorted_lines(&at("mixed")) == expected, "nor does the layout");
    synth(&at("other"), &["--seed", "2"]);
    assert!(sorted_lines(&at("other")) != expected);
}

#[test]
fn references_have_the_targets_of_the_seed() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let said = synth(&store, &["--updates", "10%", "--deletions", "5%"]);
    let lines = lines(&store);
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    let (mut deleted, mut dangling, mut all) = (BTreeSet::new(), 0, 0);
    for (_, line) in &lines {
        let name = format!("{}/{}", line["resourceType"].as_str().unwrap(), line["id"].as_str().unwrap_or_default());
        match line["entry"][0]["request"]["url"].as_str() {
            Some(url) => assert!(deleted.insert(url.to_string())),
            None => *versions.entry(name).or_default() += 1,
        }
    }
    for (name, line) in lines.iter().filter(|(_, line)| line["entry"].is_null()) {
        let mut found = Vec::new();
        references(line, &mut found);
        for reference in found.iter().filter(|text| !text.starts_with('#')) {
            all += 1;
            dangling += usize::from(!versions.contains_key(reference));
            assert!(reference.contains('/'), "{name}: {reference}");
        }
    }
    assert!(all > 100_000 && dangling == 0, "{dangling} of {all} references lead nowhere");
    assert!(deleted.iter().all(|url| versions.contains_key(url)), "only what was there is deleted");
    let patients = versions.keys().filter(|name| name.starts_with("Patient/")).count() as u64;
    assert_eq!((patients, said["patients"].as_u64().unwrap()), (PATIENTS, PATIENTS));
    let rows = versions.values().sum::<u64>();
    assert_eq!((said["rows"].as_u64().unwrap(), said["deletions"].as_u64().unwrap()), (rows, deleted.len() as u64));
    let share = |count: u64| count as f64 / versions.len() as f64;
    assert!((share(rows - versions.len() as u64) - 0.10).abs() < 0.01, "updates");
    assert!((share(deleted.len() as u64) - 0.05).abs() < 0.01, "deletions");
}

/// In order of arrival the lines of each file ascend in time, except among the rows of one visit, which are seconds
/// apart; the share of rows after each printed instant is as stated.
#[test]
fn arrival_is_by_time_and_the_shares_after_an_instant_hold() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let said = synth(&store, &["--order", "arrival", "--updates", "0%", "--deletions", "0%"]);
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut ticks = Vec::new();
    for (file, line) in lines(&store) {
        let text = line["meta"]["lastUpdated"].as_str().unwrap();
        let time_ticks = outpour::Instant::parse(text).unwrap().ticks;
        let before = last.insert(file.clone(), time_ticks).unwrap_or(i64::MIN);
        assert!(before <= time_ticks.saturating_add(120 * 10_000_000), "{file}: {text}");
        ticks.push(time_ticks);
    }
    for (number, share) in [0.1, 0.01].into_iter().enumerate() {
        let since = said["since"][number]["instant"].as_str().unwrap();
        let since = outpour::Instant::parse(since).unwrap().ticks;
        let later = ticks.iter().filter(|ticks| **ticks > since).count() as f64 / ticks.len() as f64;
        assert!((later - share).abs() < 0.3 * share, "{later} of the rows are after the instant for {share}");
    }
}

#[test]
fn exports_of_synthetic_groups_pass_a_recount() {
    let scratch = scratch();
    for order in ["clustered", "arrival"] {
        let store = scratch.path().join(order);
        let said = synth(&store, &["--order", order, "--layout", "mixed"]);
        for group in said["groups"].as_array().unwrap() {
            let out = scratch.path().join(format!("{order}-{}", group["id"].as_str().unwrap()));
            let since = said["since"][0]["instant"].as_str().unwrap();
            let done = export(&store, &out, &["--group", group["id"].as_str().unwrap(), "--since", since]);
            assert_eq!(done.code, 0, "{}", done.stderr);
            let verified = run(&["verify", out.to_str().unwrap(), "--ledger"]);
            assert_eq!(verified.code, 0, "{}", verified.stderr);
        }
        assert_eq!(said["groups"][4]["members"].as_u64().unwrap(), PATIENTS);
        assert_eq!(said["groups"][1]["members"].as_u64().unwrap(), PATIENTS / 100);
    }
}

#[test]
fn a_taken_place_a_wrong_share_and_a_full_disk_are_refused() {
    let scratch = scratch();
    let taken = testdata("stores/synthea-r4-100");
    run(&["synth", "--out", taken.to_str().unwrap(), "--patients", "1"]).refused(2, &["is not empty"]);
    let out = scratch.path().join("out");
    let wrong = ["--patients", "1", "--updates", "many", "--deletions", "101%"];
    let mut args = vec!["synth", "--out", out.to_str().unwrap()];
    args.extend(wrong);
    run(&args).refused(2, &["--updates", "--deletions"]);
    let mut command = command();
    command.args(["synth", "--out", out.to_str().unwrap(), "--patients", "100", "--progress", "never"]);
    crate::disk::limit_files(&mut command, 1_000_000);
    finish(&mut command).refused(3, &["make room"]);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left of it");
}

/// Patients are streamed: memory does not grow with their number.
#[test]
fn memory_stays_bounded() {
    let scratch = scratch();
    let full = crate::random::knob("OUTPOUR_TEST_FULL", 0) == 1;
    let patients = if full { "20000" } else { "600" };
    for order in ["clustered", "arrival"] {
        let out = scratch.path().join(order);
        let mut args = vec!["synth", "--out", out.to_str().unwrap(), "--patients", patients, "--order", order];
        args.extend(["--no-sync", "--progress", "never"]);
        let (code, stderr, peak) = crate::memory::measured(&args);
        println!("{order}: peak {} MiB", peak >> 20);
        assert_eq!(code, 0, "{stderr}");
        assert!(peak < 200 << 20, "{order}: {} MiB in use", peak >> 20);
        std::fs::remove_dir_all(&out).unwrap();
    }
}
