//! Increments on an export, and chains, where something is not as it should be: another question, a damaged record, an export that may
//! not be replaced, a reader that is not to be disturbed.

use crate::run::{self, Run, scratch};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A store of two patients, and a Group file of one of them.
struct Place {
    scratch: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { scratch: scratch() };
        std::fs::create_dir(place.path("store")).unwrap();
        let rows = [
            r#"{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}"#,
            r#"{"resourceType":"Patient","id":"b","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}"#,
            r#"{"resourceType":"Observation","id":"o-a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"subject":{"reference":"Patient/a"}}"#,
            r#"{"resourceType":"Observation","id":"o-b","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"subject":{"reference":"Patient/b"}}"#,
        ];
        std::fs::write(place.path("store/rows.ndjson"), rows.join("\n") + "\n").unwrap();
        place.members(&["a"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn members(&self, ids: &[&str]) {
        let members: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"entity":{{"reference":"Patient/{id}"}}}}"#)).collect();
        let group = format!(
            r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{}]}}"#,
            members.join(",")
        );
        std::fs::write(self.path("group.json"), group).unwrap();
    }

    /// Exports the Group at a second of 2024-02-01 with these arguments, in which `OUT:x` and the like are paths of this place.
    fn export(&self, second: u32, more: &[&str]) -> Run {
        let (store, group) = (self.path("store"), self.path("group.json"));
        let as_of = format!("2024-02-01T00:00:{second:02}Z");
        let mut args = vec!["export", "--store", store.to_str().unwrap(), "--no-sync", "--as-of", &as_of];
        if !more.iter().any(|arg| ["--group", "--all-patients"].contains(arg)) {
            args.extend(["--group", group.to_str().unwrap()]);
        }
        let paths: Vec<String> = more
            .iter()
            .map(|arg| match arg.strip_prefix("AT:") {
                Some(name) => self.path(name).to_str().unwrap().to_string(),
                None => arg.to_string(),
            })
            .collect();
        args.extend(paths.iter().map(String::as_str));
        run::run(&args)
    }

    fn manifest(&self, out: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(out).join("manifest.json")).unwrap()).unwrap()
    }

    fn departed(&self, out: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(out).join("departed.json-lines")).unwrap();
        text.lines().map(str::to_string).collect()
    }
}

/// The own part of a manifest's root extension.
fn own(manifest: &Value) -> &Value {
    &manifest["extension"]["urn:outpour:export:1"]
}

#[track_caller]
fn done(run: &Run) {
    assert_eq!(run.code, 0, "{run:#?}");
}

/// GROUP-11, GROUP-13: joined members bring what the policy says, those who left are listed with their resources.
#[test]
fn who_joined_and_left_is_told() {
    let place = Place::new();
    done(&place.export(1, &["--out", "AT:first", "--baseline"]));
    place.members(&["b"]);
    for (policy, rows) in [("full", 2), ("report", 0), ("ignore", 0)] {
        let out = format!("AT:{policy}");
        done(&place.export(2, &["--out", &out, "--since-manifest", "AT:first/manifest.json", "--new-members", policy]));
        let manifest = place.manifest(policy);
        let count: u64 =
            manifest["output"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum();
        assert_eq!(count, rows, "{policy}");
        assert_eq!(own(&manifest)["newMembers"]["policy"], policy);
        let known = if policy == "ignore" { Value::Null } else { 1.into() };
        assert_eq!([&own(&manifest)["newMembers"]["joined"], &own(&manifest)["newMembers"]["left"]], [&known, &known]);
        let resources = [r#"{"resource":"Observation/o-a"}"#, r#"{"resource":"Patient/a"}"#];
        let mut departed = place.departed(policy);
        let members: Vec<String> = departed.extract_if(.., |line| line.contains("member")).collect();
        departed.sort_unstable();
        assert_eq!(departed, resources);
        let named: &[&str] = if policy == "ignore" { &[] } else { &[r#"{"member":"Patient/a"}"#] };
        assert_eq!(members, named);
        assert!(manifest.get("deleted").is_none(), "GROUP-13: nobody is listed as deleted");
        done(&run::run(&["verify", place.path(policy).to_str().unwrap()]));
        done(&run::run(&["verify", "--ledger", place.path(policy).to_str().unwrap()]));
    }
    // Without the keys of resources only members are told, and a warning says so.
    done(&place.export(3, &["--out", "AT:plain"]));
    place.members(&["a", "b"]);
    let run = place.export(4, &["--out", "AT:after", "--since-manifest", "AT:plain"]);
    done(&run);
    assert!(
        run.stdout.contains("do not belong") || (run.stderr.clone() + &run.stdout).contains("no longer belong"),
        "{run:#?}"
    );
    assert!(place.departed("after").is_empty());
    assert_eq!(own(&place.manifest("after"))["newMembers"]["joined"], 1);
}

/// GROUP-11: without an export that has a list of its patients the entries of the Group tell who joined, by each policy; who has no
/// start is counted in one message. Rows of those who joined are not counted as left out for having come late.
#[test]
fn who_joined_is_asked_of_the_entries() {
    let place = Place::new();
    let group = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[
        {"entity":{"reference":"Patient/a"},"period":{"start":"2024-02-01T00:00:01.500Z"}},{"entity":{"reference":"Patient/b"}}]}"#;
    std::fs::write(place.path("group.json"), group.replace('\n', " ")).unwrap();
    done(&place.export(1, &["--out", "AT:first"]));
    let late = r#"{"resourceType":"Observation","id":"late","meta":{"lastUpdated":"2024-01-02T00:00:00Z"},"subject":{"reference":"Patient/a"}}"#;
    std::fs::write(place.path("store/late.ndjson"), format!("{late}\n")).unwrap();
    let since = ["--since", "2024-02-01T00:00:01Z", "--late", "report"];
    for (policy, rows) in [("full", 3), ("report", 0), ("ignore", 0)] {
        let out = format!("AT:{policy}");
        let run = place.export(2, &[&since[..], &["--out", &out, "--new-members", policy, "-v"]].concat());
        done(&run);
        let manifest = place.manifest(policy);
        let count = |item: &Value| item["count"].as_u64().unwrap();
        assert_eq!(manifest["output"].as_array().unwrap().iter().map(count).sum::<u64>(), rows, "{policy}");
        let said = run.said();
        let expected = match policy {
            "ignore" => Value::Null,
            _ => serde_json::json!({"policy": policy, "joined": 1, "unknown": 1}),
        };
        assert_eq!(own(&manifest)["newMembers"], expected);
        assert_eq!(said.contains("1 patient joined the Group after _since"), policy != "ignore", "{said}");
        assert_eq!(said.contains("When 1 member of 2 joined the Group is not known"), policy != "ignore", "{said}");
        assert_eq!(said.contains("1 resource came to the store"), policy != "full", "{policy}: {said}");
        done(&run::run(&["verify", "--ledger", place.path(policy).to_str().unwrap()]));
    }
    // A resumed run asks the same; the default is to report.
    std::fs::remove_file(place.path("full/manifest.json")).unwrap();
    place
        .export(2, &[&since[..], &["--out", "AT:full", "--resume"]].concat())
        .refused(2, &["--new-members", "full", "report"]);
}

/// An increment asks for what its baseline asked for; each difference is named, and nothing is written.
#[test]
fn another_question_is_refused_by_name() {
    let place = Place::new();
    done(&place.export(1, &["--out", "AT:first", "--baseline"]));
    let other = place.path("other.json");
    std::fs::copy(place.path("group.json"), &other).unwrap();
    let other = other.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--type", "Patient"], &["--type: ", "had all", "has Patient"]),
        (&["--vanished", "delete", "--late", "report"], &["--vanished: ", "--late: "]),
        (&["--group", other], &["--group: ", "group.json", "other.json"]),
        (&["--all-patients"], &["--group: ", "all patients"]),
        (&["--elements", "id"], &["--elements: "]),
    ];
    for (more, needles) in cases {
        let args = [&["--out", "AT:next", "--since-manifest", "AT:first"], more].concat();
        place.export(2, &args).refused(2, needles);
        assert!(!place.path("next").exists());
    }
    std::fs::rename(place.path("store"), place.path("elsewhere")).unwrap();
    std::fs::create_dir(place.path("store")).unwrap();
    std::fs::copy(place.path("elsewhere/rows.ndjson"), place.path("store/rows.ndjson")).unwrap();
    done(&place.export(2, &["--out", "AT:same", "--since-manifest", "AT:first"]));
    let elsewhere = place.path("elsewhere");
    let run =
        place.export(3, &["--out", "AT:next", "--since-manifest", "AT:first", "--store", elsewhere.to_str().unwrap()]);
    assert_eq!(run.code, 2);
    // Files may be cut and coded in another way.
    let more = ["--out", "AT:coded", "--since-manifest", "AT:first", "--compress", "gzip", "--max-file-resources", "1"];
    done(&place.export(4, &more));
}

/// What is read back from a baseline is checked; an increment with its list is not replaced.
#[test]
fn damaged_baselines_are_refused() {
    let place = Place::new();
    done(&place.export(1, &["--out", "AT:first", "--baseline"]));
    place
        .export(2, &["--out", "AT:next", "--since-manifest", "AT:nowhere"])
        .refused(2, &["--since-manifest: ", "nowhere"]);
    done(&place.export(2, &["--out", "AT:next", "--since-manifest", "AT:first"]));
    place.export(3, &["--out", "AT:next", "--force"]).refused(2, &["holds an increment"]);
    for name in ["cohort", "resources", "plan.json"] {
        let path = place.path("first/.outpour-job").join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for wrong in [damaged, bytes[..middle].to_vec()] {
            std::fs::write(&path, wrong).unwrap();
            let run = place.export(3, &["--out", "AT:third", "--since-manifest", "AT:first"]);
            assert_eq!(run.code, 2, "{name}: {run:#?}");
            assert!(run.stderr.contains("--since-manifest: ") && !place.path("third").exists(), "{run:#?}");
        }
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::write(place.path("next/departed.json-lines"), "{\"member\":\"Patient/a\"}\n").unwrap();
    let run = run::run(&["verify", place.path("next").to_str().unwrap()]);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!((run.stdout + &run.stderr).contains("departed.json-lines: its size or digest"));
}

/// The names of the exports of a chain.
fn names(chain: &Path) -> Vec<String> {
    let names = std::fs::read_dir(chain).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("20")).collect();
    names.sort();
    names
}

/// Full exports come as often as was asked, the oldest go with their increments, nobody else's directory does, and nothing goes while
/// the chain is read. A changed question is refused; a chain that was tampered with does not verify and is not applied.
#[test]
fn a_chain_keeps_what_it_is_told_to() {
    let place = Place::new();
    let night = |second| place.export(second, &["--chain", "AT:chain", "--full-every", "2", "--keep", "1"]);
    done(&night(1));
    std::fs::create_dir_all(place.path("chain/2020-01-01T000000Z/.outpour-job")).unwrap();
    std::fs::write(place.path("chain/2020-01-01T000000Z/own.txt"), "mine").unwrap();
    done(&night(2));
    assert_eq!(names(&place.path("chain")).len(), 3);
    let reader = std::fs::File::open(place.path("chain/.outpour-chain/readers.lock")).unwrap();
    reader.lock_shared().unwrap();
    let run = night(3);
    done(&run);
    assert!((run.stdout + &run.stderr).contains("the chain is being read"));
    assert_eq!(names(&place.path("chain")).len(), 4);
    drop(reader);
    done(&night(4));
    assert_eq!(names(&place.path("chain")).len(), 3, "two exports, and what is not of the chain");
    assert_eq!(std::fs::read_to_string(place.path("chain/2020-01-01T000000Z/own.txt")).unwrap(), "mine");
    let latest: Value = serde_json::from_slice(&std::fs::read(place.path("chain/latest.json")).unwrap()).unwrap();
    assert_eq!([&latest["number"], &latest["full"]], [&Value::from(4), &Value::from(3)]);
    assert!(place.path("chain").join(latest["manifest"].as_str().unwrap()).exists());
    place.export(5, &["--chain", "AT:chain", "--type", "Patient"]).refused(2, &["--type: "]);
    place.export(5, &["--chain", "AT:chain", "--keep", "1"]).refused(2, &["--full-every"]);
    // The plan of the next one, which changes nothing.
    let plan = |more: &[&str]| {
        let run = place.export(5, &[&["--chain", "AT:chain", "--plan", "--json"], more].concat());
        done(&run);
        serde_json::from_str::<Value>(&run.stdout).unwrap()["chain"].clone()
    };
    let newest = &latest["directory"];
    assert_eq!(
        plan(&[]),
        serde_json::json!({"number": 5, "full": 3, "before": newest, "interrupted": [], "broken": null})
    );
    assert_eq!(plan(&["--full-every", "2"])["full"], 5);
    place.export(5, &["--chain", "AT:chain", "--plan", "--type", "Patient"]).refused(2, &["--type: "]);
    let run = place.export(5, &["--chain", "AT:other", "--plan"]);
    done(&run);
    assert!(run.stdout.contains("export 1, a full one") && !place.path("other").exists(), "{run:#?}");
    assert_eq!(names(&place.path("chain")).len(), 3, "what was refused leaves nothing");

    let (chain, to) = (place.path("chain"), place.path("current"));
    let apply = || run::run(&["apply", chain.to_str().unwrap(), "--to", to.to_str().unwrap()]);
    let verify = || run::run(&["verify", chain.to_str().unwrap()]);
    done(&verify());
    done(&apply());
    // What was applied is verified by the list of its files.
    let applied = || run::run(&["verify", to.to_str().unwrap()]);
    let run = applied();
    done(&run);
    assert!(run.stdout.contains("The current records as of 2024-02-01T00:00:04.000Z (export 4"), "{run:#?}");
    run::run(&["verify", "--ledger", to.to_str().unwrap()]).refused(2, &["--ledger: ", "current records"]);
    let file = to.join("Patient.00001.ndjson");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&bytes[..], &bytes].concat()).unwrap();
    applied().refused(1, &["state.json says 1 lines, it has 2", "stands in the directory before", "digest"]);
    std::fs::write(&file, bytes).unwrap();
    let full = names(&chain)[1].clone();
    let row = chain.join(&full).join("Patient.00001.ndjson");
    let bytes = std::fs::read(&row).unwrap();
    std::fs::write(&row, String::from_utf8(bytes.clone()).unwrap().replace("2024", "2025")).unwrap();
    apply().refused(3, &["digest"]);
    assert_eq!(verify().code, 1);
    std::fs::write(&row, bytes).unwrap();
    done(&apply());
    std::fs::write(to.join("own.txt"), "mine").unwrap();
    apply().refused(2, &["own.txt"]);
    assert!(to.join("own.txt").exists() && to.join("Patient.00001.ndjson").exists());
    std::fs::remove_dir_all(chain.join(full)).unwrap();
    assert_eq!(verify().code, 1);
    std::fs::remove_file(to.join("own.txt")).unwrap();
    apply().refused(3, &["missing"]);
    // Those of another chain are not replaced.
    done(&place.export(6, &["--chain", "AT:second"]));
    let second = run::run(&["apply", place.path("second").to_str().unwrap(), "--to", to.to_str().unwrap()]);
    second.refused(2, &["holds the records of another chain", "choose another directory"]);
}

/// What cannot be built on is told, and a full export is made in its place; a root that lost its own files, a missing parent and an
/// export of its own are refused. A Group that was emptied is told even by a quiet night.
#[test]
fn broken_chains_begin_anew_and_say_so() {
    let place = Place::new();
    place.members(&["a", "b"]);
    let night = |second| place.export(second, &["--chain", "AT:chain", "--quiet"]);
    let latest =
        || -> Value { serde_json::from_slice(&std::fs::read(place.path("chain/latest.json")).unwrap()).unwrap() };
    let verify = || run::run(&["verify", place.path("chain").to_str().unwrap()]);
    done(&night(1));
    done(&night(2));
    let newest = place.path("chain").join(latest()["directory"].as_str().unwrap());
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |export| std::fs::remove_file(export.join(".outpour-job/resources")).unwrap(),
        |export| std::fs::write(export.join("manifest.json"), "{").unwrap(),
        |export| std::fs::remove_file(export.join("Patient.00001.ndjson")).unwrap(),
        |export| std::fs::remove_file(export.join("manifest.json")).unwrap(),
    ];
    let mut newest = newest;
    for (i, damage) in damages.into_iter().enumerate() {
        damage(&newest);
        let before = latest()["number"].as_u64().unwrap();
        if i < 3 {
            let run = night(3 + 2 * i as u32);
            done(&run);
            assert!(run.stderr.contains("cannot be built on, so this one has everything"), "{i}: {run:#?}");
            assert_eq!([&latest()["number"], &latest()["full"]], [&Value::from(before + 1), &Value::from(before + 1)]);
        } else {
            // Without a manifest the newest is an interrupted one, and is finished.
            done(&night(3 + 2 * i as u32));
        }
        done(&run::run(&["apply", place.path("chain").to_str().unwrap(), "--to", place.path("to").to_str().unwrap()]));
        assert_eq!(std::fs::read_to_string(place.path("to/Patient.00001.ndjson")).unwrap().lines().count(), 2);
        newest = place.path("chain").join(latest()["directory"].as_str().unwrap());
    }
    assert_eq!(verify().code, 1, "the damaged exports are still there");
    // Nobody but one is left: what is much is told.
    place.members(&[]);
    let run = night(20);
    done(&run);
    assert!(run.stderr.contains("2 patients of 2 left"), "{run:#?}");

    std::fs::remove_dir_all(place.path("chain/.outpour-chain")).unwrap();
    night(21).refused(2, &["chain.json", "put it back"]);
    place.export(22, &["--chain", "AT:nowhere/chain"]).refused(2, &["nowhere"]);
    done(&place.export(23, &["--out", "AT:own"]));
    place.export(24, &["--chain", "AT:own"]).refused(2, &["an export of its own"]);
}

/// Records of a patient who leaves while their file is gone, in the same night or since one before, depart like others; those of a
/// patient who stays do not, because a file that is missing may come back.
#[test]
fn nothing_is_kept_of_who_left_with_a_file() {
    for (policy, earlier) in [("delete", false), ("delete", true), ("report", false)] {
        let place = Place::new();
        let row = |id: &str| {
            let meta = r#""meta":{"lastUpdated":"2024-01-01T00:00:00Z"}"#;
            format!(
                "{{\"resourceType\":\"Patient\",\"id\":\"{id}\",{meta}}}\n\
                 {{\"resourceType\":\"Observation\",\"id\":\"o-{id}\",{meta},\"subject\":{{\"reference\":\"Patient/{id}\"}}}}\n"
            )
        };
        std::fs::write(place.path("store/z.ndjson"), row("z") + &row("y")).unwrap();
        place.members(&["a", "y", "z"]);
        let night =
            |second| place.export(second, &["--chain", "AT:chain", "--vanished", policy, "--allow-missing", "100%"]);
        done(&night(1));
        std::fs::remove_file(place.path("store/z.ndjson")).unwrap();
        if earlier {
            assert!(night(2).code <= 1);
        }
        place.members(&["a", "y"]);
        assert!(night(3).code <= 1);
        let (chain, to) = (place.path("chain"), place.path("to"));
        assert_eq!(
            place.departed("chain/latest"),
            [r#"{"member":"Patient/z"}"#, r#"{"resource":"Observation/o-z"}"#, r#"{"resource":"Patient/z"}"#,],
            "{policy} {earlier}"
        );
        done(&run::run(&["apply", chain.to_str().unwrap(), "--to", to.to_str().unwrap()]));
        let files = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
        let rows = files.filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"));
        let kept: String = rows.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert!(!kept.contains("o-z") && kept.contains("o-y"), "{policy} {earlier}: {kept}");
        // A chain that does not hold is told whoever is quiet.
        std::fs::write(chain.join("latest/departed.json-lines"), "").unwrap();
        let told = run::run(&["verify", "--quiet", chain.to_str().unwrap()]);
        assert!(told.code == 1 && told.said().contains("does not hold"), "{told:#?}");
    }
}

/// What dates and first-seen times do not tell, the keys do: rows that came with old dates while the index was lost, and a Provenance
/// whose target moved from somebody who joins. An export that is resumed after a new patient came is still a baseline.
#[test]
fn readers_get_what_they_lack() {
    let place = Place::new();
    let night = |second| place.export(second, &["--chain", "AT:chain", "--vanished", "delete"]);
    let append = |row: &str| {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).open(place.path("store/rows.ndjson")).unwrap();
        writeln!(file, "{row}").unwrap();
    };
    let held = |second| {
        done(&night(second));
        let (chain, to) = (place.path("chain"), place.path("to"));
        done(&run::run(&["apply", chain.to_str().unwrap(), "--to", to.to_str().unwrap()]));
        let latest = chain.join("latest");
        done(&run::run(&["verify", "--ledger", latest.to_str().unwrap()]));
        let files = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
        let rows = files.filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"));
        let mut rows: Vec<String> = rows
            .flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_string).collect::<Vec<_>>())
            .collect();
        rows.sort_unstable();
        // What an export of its own has, nothing else.
        let own = format!("own-{second}");
        done(&place.export(second, &["--out", &format!("AT:{own}"), "--type", "Patient,Observation,Provenance"]));
        let mut expected: Vec<String> = ["Patient", "Observation", "Provenance"]
            .iter()
            .filter_map(|of| std::fs::read_to_string(place.path(&own).join(format!("{of}.00001.ndjson"))).ok())
            .flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>())
            .collect();
        expected.sort_unstable();
        assert_eq!(rows, expected, "second {second}");
        rows.len()
    };
    append(
        r#"{"resourceType":"Provenance","id":"v","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"target":[{"reference":"Observation/o-b"}]}"#,
    );
    assert_eq!(held(1), 2);
    std::fs::remove_dir_all(place.path("store/.outpour")).unwrap();
    append(
        r#"{"resourceType":"Observation","id":"old","meta":{"lastUpdated":"2024-01-02T00:00:00Z"},"subject":{"reference":"Patient/a"}}"#,
    );
    assert_eq!(held(2), 3);
    // o-b moves to a, and b joins: its Provenance comes with it.
    append(
        r#"{"resourceType":"Observation","id":"o-b","meta":{"lastUpdated":"2024-02-01T00:00:02.500Z"},"subject":{"reference":"Patient/a"}}"#,
    );
    place.members(&["a", "b"]);
    assert_eq!(held(3), 6);
    // Interrupted before its manifest, and finished when the store knows one more patient.
    done(&night(4));
    let newest = std::fs::read_link(place.path("chain/latest")).unwrap();
    std::fs::remove_file(place.path("chain").join(newest).join("manifest.json")).unwrap();
    append(r#"{"resourceType":"Patient","id":"c","meta":{"lastUpdated":"2024-02-01T00:00:04.500Z"}}"#);
    let run = night(5);
    done(&run);
    assert!(!run.said().contains("cannot be built on"), "{run:#?}");
    let run = night(6);
    done(&run);
    assert!(!run.said().contains("cannot be built on") && run.said().contains("increment"), "{run:#?}");
    done(&run::run(&["verify", place.path("chain").to_str().unwrap()]));
}
