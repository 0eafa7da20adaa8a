//! `outpour import` and `outpour append`: bundled records as Synthea's transactions and back, what comes again, a directory
//! that is watched, kills at any moment.

use crate::fixture::plain_store;
use crate::random::{Random, knob};
use crate::run::{self, command, scratch};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What stands behind the first `start` up to the next quote.
fn between<'a>(row: &'a str, start: &str) -> &'a str {
    let rest = &row[row.find(start).unwrap() + start.len()..];
    &rest[..rest.find('"').unwrap()]
}

/// A row with every reference passed through `replace`.
fn with_references(row: &str, replace: &dyn Fn(&str) -> Option<String>) -> String {
    let mut parts = row.split("\"reference\":\"");
    let mut out = parts.next().unwrap().to_string();
    for part in parts {
        let (reference, rest) = part.split_once('"').unwrap();
        out += &format!("\"reference\":\"{}\"{rest}", replace(reference).unwrap_or_else(|| reference.to_string()));
    }
    out
}

/// White space between the tokens of a text.
fn spread(text: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for c in text.chars() {
        out.push(c);
        if in_string {
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if c == '"' {
            in_string = true;
        } else if "{[,:".contains(c) {
            out += "\n   ";
        }
    }
    out
}

/// Lines of all data files below a directory, by type.
fn lines_below(dir: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            lines_below(&path, found);
        } else {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let new =
                    found.entry(between(line, "\"resourceType\":\"").to_string()).or_default().insert(line.to_string());
                assert!(new, "a line stands twice: {line}");
            }
        }
    }
}

fn lines_of(dir: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    lines_below(dir, &mut found);
    found
}

/// The bundled records of some patients as Synthea writes them: a transaction of organizations and practitioners with
/// `ifNoneExist`, and one a patient, by `urn:uuid:` among its own entries and by identifiers to the others. Imported they are
/// the lines that they were made of, whatever the order, and come once.
#[test]
fn transactions_become_the_rows_they_were_made_of() {
    let scratch = scratch();
    let plain = scratch.path().join("plain");
    plain_store(&plain, &["Patient", "Encounter", "Condition", "Organization", "Practitioner"], 1);
    let read = |name: &str| std::fs::read_to_string(plain.join(format!("{name}.ndjson"))).unwrap();
    let sources = scratch.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut expect = |line: &str| {
        expected.entry(between(line, "\"resourceType\":\"").to_string()).or_default().insert(line.to_string());
    };
    let mut searches: HashMap<String, String> = HashMap::new();
    let entry = |url: &str, resource: &str, more: &str| {
        let name = between(resource, "\"resourceType\":\"");
        format!(r#"{{"fullUrl":"{url}","resource":{resource},"request":{{"method":"POST","url":"{name}"{more}}}}}"#)
    };
    let transaction = |entries: &[String]| {
        spread(&format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(",")))
    };
    // 1. Whom all patients share.
    let mut shared = Vec::new();
    for name in ["Organization", "Practitioner"] {
        for line in read(name).lines() {
            let id = between(line, "\"id\":\"");
            let identifier = &line[line.find("\"identifier\":").unwrap()..];
            let search =
                format!("identifier={}|{}", between(identifier, "\"system\":\""), between(identifier, "\"value\":\""));
            if searches.values().any(|known| *known == format!("{name}?{search}")) {
                continue;
            }
            searches.insert(format!("{name}/{id}"), format!("{name}?{search}"));
            shared.push(entry(&format!("urn:uuid:{id}"), line, &format!(r#","ifNoneExist":"{search}""#)));
            expect(line);
        }
    }
    std::fs::write(sources.join("0-shared.json"), transaction(&shared)).unwrap();
    // 2. A Bundle a patient, without ids where the fullUrl has it.
    let (patients, encounters, conditions) = (read("Patient"), read("Encounter"), read("Condition"));
    let ids: Vec<&str> = patients.lines().map(|line| between(line, "\"id\":\"")).filter(|id| id.len() == 36).collect();
    for id in ids.iter().take(12) {
        let about = format!("\"subject\":{{\"reference\":\"Patient/{id}\"");
        let own = patients.lines().filter(|line| between(line, "\"id\":\"") == *id).take(1);
        let own = own.chain(encounters.lines().chain(conditions.lines()).filter(|line| line.contains(&about)));
        let own: Vec<&str> = own.collect();
        let known: BTreeSet<String> = own
            .iter()
            .map(|line| format!("{}/{}", between(line, "\"resourceType\":\""), between(line, "\"id\":\"")))
            .collect();
        let bundled = own.iter().map(|line| {
            let resource = with_references(line, &|reference| match known.contains(reference) {
                true => Some(format!("urn:uuid:{}", reference.split_once('/')?.1)),
                false => searches.get(reference).cloned(),
            });
            expect(line);
            entry(&format!("urn:uuid:{}", between(line, "\"id\":\"")), &resource, "")
        });
        std::fs::write(sources.join(format!("1-{id}.json")), transaction(&bundled.collect::<Vec<_>>())).unwrap();
    }
    let store = scratch.path().join("store");
    let import = || {
        let words = ["import", sources.to_str().unwrap(), "--store", store.to_str().unwrap()];
        run::run(&[&words[..], &["--no-sync", "--json", "--progress", "never"]].concat())
    };
    let first = import();
    assert_eq!(first.code, 0, "{first:#?}");
    assert_eq!(lines_of(&store), expected);
    let second = import();
    assert_eq!(second.code, 0, "{second:#?}");
    let report: serde_json::Value = serde_json::from_str(&second.stdout).unwrap();
    let states = report["sources"].as_array().unwrap().iter().map(|source| source["state"].as_str().unwrap());
    assert!(states.clone().count() == 13 && states.into_iter().all(|state| state == "already imported"), "{report}");
    assert_eq!(lines_of(&store), expected);
    // An export finds them, and its output is a source again.
    let out = scratch.path().join("out");
    assert_eq!(run::export(&store, &out, &["--all-patients"]).code, 0);
    let copy = scratch.path().join("copy");
    let words = ["import", out.to_str().unwrap(), "--store", copy.to_str().unwrap(), "--no-sync"];
    let run = run::run(&words);
    assert_eq!(run.code, 0, "{run:#?}");
    let copied = lines_of(&copy);
    assert!(copied["Patient"] == expected["Patient"] && copied["Condition"] == expected["Condition"]);
}

/// Wrong requests are refused before anything is made; problems are exit code 1, and other sources are taken.
#[test]
fn codes_and_messages() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let (store, good, bad) = (at("store"), at("good.json"), at("bad.json"));
    std::fs::write(&good, r#"{"resourceType":"Patient","id":"a"}"#).unwrap();
    std::fs::write(
        &bad,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"PATCH","url":"Patient/a"}}]}"#,
    )
    .unwrap();
    let import = |words: &[&str]| run::run(&[&["import", "--progress", "never"], words].concat());
    import(&["--store", &at("no/store"), &good]).refused(2, &["no/store", "nor is the directory"]);
    import(&["--store", &store, &at("none.json")]).refused(2, &["none.json"]);
    import(&["--store", &store]).refused(2, &["SOURCE"]);
    std::fs::create_dir(at("empty")).unwrap();
    import(&["--store", &at("empty"), "--watch", &at("empty")]).refused(2, &["--watch: ", "inside the store"]);
    import(&["--store", &store, &at("empty")]).refused(2, &["no .json or .ndjson file"]);
    assert!(!Path::new(&store).exists());
    import(&["--store", &store, &bad, &good])
        .refused(1, &["bad.json: entry 1, byte 49: a PATCH", "refused for 1 problem", "imported, 1 row"]);
    assert_eq!(lines_of(Path::new(&store)).len(), 1);
    // A Group by such an id could not be asked for.
    let group = at("group.json");
    std::fs::write(&group, r#"{"resourceType":"Group","id":"a_b","type":"person","actual":true}"#).unwrap();
    import(&["--store", &store, &group]).refused(1, &["group.json: ", "the Group's id is not legal: 1 to 64"]);
    assert_eq!(lines_of(Path::new(&store)).len(), 1);
    let again = import(&["--store", &store, &good]);
    assert!(again.code == 0 && again.said().contains("already imported as import-"), "{again:#?}");
    // Private, as everything else.
    use std::os::unix::fs::PermissionsExt;
    let made = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
    for directory in made.filter(|path| path.is_dir()) {
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        assert!(files.into_iter().all(|file| file.permissions().mode() & 0o777 == 0o600));
    }
}

/// A store and sources that are killed in the middle: whatever the moment, each source is there whole or not at all, and the
/// same command takes the rest.
#[test]
fn a_killed_import_takes_whole_sources() {
    let mut random = Random::new(Random::seed("import"), 0);
    let scratch = scratch();
    let sources = scratch.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    for number in 0..4 {
        let row = |n: usize| {
            format!(
                r#"{{"resource":{{"resourceType":"{}","id":"r{number}-{n}"}}}}"#,
                ["Patient", "Group", "Device"][n % 3]
            )
        };
        let rows: Vec<String> = (0..300).map(row).collect();
        let text = format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{}]}}"#, rows.join(","));
        std::fs::write(sources.join(format!("{number}.json")), text).unwrap();
    }
    let import = |store: &Path| ["import".into(), sources.clone(), "--store".into(), store.to_path_buf()];
    let begun = Instant::now();
    let whole = scratch.path().join("whole");
    assert_eq!(run::run(&import(&whole)).code, 0);
    let takes = begun.elapsed();
    for number in 0..knob("OUTPOUR_TEST_KILLS", 200) / 10 {
        let store = scratch.path().join(format!("store-{number}"));
        let mut child = command().args(import(&store)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(takes.mul_f64(random.below(1000) as f64 / 1000.0));
        let _ = child.kill();
        child.wait().unwrap();
        if store.exists() {
            let mut by_source: BTreeMap<String, usize> = BTreeMap::new();
            for line in lines_of(&store).values().flatten() {
                let id = between(line, "\"id\":\"");
                *by_source.entry(id.split_once('-').unwrap().0.to_string()).or_default() += 1;
            }
            assert!(by_source.values().all(|rows| *rows == 300), "kill {number}: {by_source:?}");
        }
        assert_eq!(run::run(&import(&store)).code, 0);
        assert_eq!(lines_of(&store), lines_of(&whole), "kill {number}");
        let left = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_str().unwrap().ends_with(".outpour-partial")));
    }
}

/// Appended lines that were acknowledged are in the store after a kill at any moment, in their order, with nothing between
/// them; the next process begins a file of its own.
#[test]
fn acknowledged_lines_survive_a_kill() {
    let mut random = Random::new(Random::seed("append"), 0);
    let scratch = scratch();
    let store = scratch.path().join("store");
    let mut acknowledged = Vec::new();
    for round in 0..knob("OUTPOUR_TEST_KILLS", 200) / 20 {
        let mut child = command()
            .args(["append", "--ack", "--rotate", "2kB", "--store", store.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            for n in 0.. {
                let line = format!("{{\"resourceType\":\"Patient\",\"id\":\"r{round}-{n}\"}}\n");
                if input.write_all(line.as_bytes()).is_err() {
                    return;
                }
                if n % 10 == 0 {
                    std::thread::sleep(Duration::from_millis(6));
                }
            }
        });
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).last());
        std::thread::sleep(Duration::from_millis(60 + random.below(60) as u64));
        let _ = child.kill();
        child.wait().unwrap();
        writer.join().unwrap();
        let last: u64 = reader.join().unwrap().map_or(0, |line| line.parse().unwrap());
        acknowledged.push(last);
    }
    assert!(acknowledged.iter().any(|lines| *lines > 0), "{acknowledged:?}");
    let mut names: Vec<_> = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for name in &names {
        let text = std::fs::read_to_string(name).unwrap();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let (round, number) = between(line, "\"id\":\"r").split_once('-').unwrap();
            found.entry(round.parse().unwrap()).or_default().push(number.parse().unwrap());
        }
    }
    for (round, last) in acknowledged.iter().enumerate().filter(|(_, last)| **last > 0) {
        let lines = &found[&(round as u64)];
        assert!(
            lines.len() as u64 >= *last && lines.iter().copied().eq(0..lines.len() as u64),
            "round {round}: {last}"
        );
    }
    // A bad line is told and not written, and the store reads all.
    let mut child = command()
        .args(["append", "--json", "--store", store.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = b"{\"resourceType\":\"Patient\",\"id\":\"good\"}\n{\"resourceType\":\n{\"resourceType\":\"Patient\",\"id\":\"last\"}";
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["lines"], &report["problems"][0]["document"]),
        (Some(1), &2.into(), &2.into())
    );
    assert_eq!(run::run(&["index", "--store", store.to_str().unwrap()]).code, 0);
}

/// A watched directory: what has its final name and stands is taken, once, and stays; a signal ends it.
#[test]
fn a_directory_is_watched() {
    let scratch = scratch();
    let (inbox, store) = (scratch.path().join("inbox"), scratch.path().join("store"));
    std::fs::create_dir(&inbox).unwrap();
    let row = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    std::fs::write(inbox.join("a.ndjson"), row("a")).unwrap();
    std::fs::write(inbox.join(".hidden.ndjson"), row("hidden")).unwrap();
    std::fs::write(inbox.join("cut.json"), "{\"resourceType\":").unwrap();
    let mut child = command()
        .args([
            "import",
            "--watch",
            inbox.to_str().unwrap(),
            "--settle",
            "0",
            "--no-sync",
            "--store",
            store.to_str().unwrap(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let wait_for = |rows: usize| {
        let begun = Instant::now();
        while !store.exists() || lines_of(&store).values().map(BTreeSet::len).sum::<usize>() < rows {
            assert!(begun.elapsed() < Duration::from_secs(20), "{rows} rows do not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(1);
    std::fs::write(inbox.join("b.part"), row("b")).unwrap();
    std::fs::rename(inbox.join("b.part"), inbox.join("b.ndjson")).unwrap();
    std::fs::write(inbox.join("cut.tmp"), row("whole")).unwrap();
    std::fs::rename(inbox.join("cut.tmp"), inbox.join("cut.json")).unwrap();
    wait_for(3);
    // SAFETY: the child is ours and was not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let ended = child.wait().unwrap();
    let mut told = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut told).unwrap();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut told).unwrap();
    assert_eq!(ended.code(), Some(0), "{told}");
    assert!(told.contains("cut.json: refused for 1 problem") && told.contains("cut.json: imported, 1 row"), "{told}");
    assert_eq!(std::fs::read_dir(&inbox).unwrap().count(), 4, "nothing is moved");
    assert_eq!(lines_of(&store)["Patient"].len(), 3);
}

/// Memory of an import does not grow with the Bundle: on one thread it stays below the size of a Bundle of 48 MB;
/// `OUTPOUR_TEST_FULL=1`: 5 GB, within 256 MiB and 32 bytes an entry.
#[test]
fn a_bundle_is_not_held() {
    let is_full = knob("OUTPOUR_TEST_FULL", 0) == 1;
    let (size, limit) = if is_full { (5u64 << 30, 240 << 20) } else { (48 << 20, 40 << 20) };
    let scratch = scratch();
    let source = scratch.path().join("bundle.json");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&source).unwrap());
    let filler = "x".repeat(20_000);
    out.write_all(b"{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[").unwrap();
    let rows = size / 20_000;
    for n in 0..rows {
        let (comma, before) = (if n == 0 { "" } else { "," }, n.saturating_sub(1));
        let uuid = |n: u64| format!("urn:uuid:5b1d4c53-9d50-4c4c-8a34-{n:012}");
        let resource = format!(
            r#"{{ "resourceType":"Observation", "note":"{filler}", "hasMember":[{{"reference":"{}"}}] }}"#,
            uuid(before)
        );
        write!(
            out,
            r#"{comma}{{"fullUrl":"{}","resource":{resource},"request":{{"method":"POST","url":"Observation"}}}}"#,
            uuid(n)
        )
        .unwrap();
    }
    out.write_all(b"]}").unwrap();
    out.into_inner().unwrap();
    let store = scratch.path().join("store");
    let words = ["import", source.to_str().unwrap(), "--store", store.to_str().unwrap(), "--no-sync", "--threads", "1"];
    let (code, told, peak) = crate::memory::measured(&words);
    assert_eq!(code, 0, "{told}");
    assert!(peak < limit, "{} MiB in use for {} MiB", peak >> 20, size >> 20);
    let made =
        std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let lines = BufReader::new(std::fs::File::open(made.join("Observation.ndjson")).unwrap()).lines();
    assert_eq!(lines.count() as u64, rows);
}
