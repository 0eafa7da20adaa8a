//! The words of messages: counts with the right nouns, no colon with nothing behind it, no requirement that is cited.

use crate::messages::{GROUP, PATIENT_A, write_store};
use crate::run::{self, scratch};
use std::path::Path;

/// Words behind a number 1 that must not stand there: plurals, as `1 rows`.
fn wrong_after_one(text: &str) -> Vec<String> {
    let is_plural = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
        word.len() > 3
            && word.ends_with('s')
            && !word.ends_with("ss")
            && word.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let is_wrong = |pair: &[&str]| pair[0] == "1" && (pair[1] == "are" || is_plural(pair[1]));
    let of_line = |line: &str| -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(2).filter(|pair| is_wrong(pair)).map(|pair| pair.join(" ")).collect()
    };
    text.lines().flat_map(of_line).collect()
}

/// Where there is one of everything, no command and no message file says `1 rows`, and nothing ends in a colon.
#[test]
fn one_is_singular_everywhere() {
    assert_eq!(wrong_after_one("1 rows, 2 rows, 1 row of 1 is, 1 class 1 was 11 files"), ["1 rows,"]);
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let store = at("store");
    let entry = |date: &str, url: &str| {
        format!(
            r#"{{"resourceType":"Bundle","type":"batch"{date},"entry":[{{"request":{{"method":"DELETE","url":"{url}"}}}}]}}"#
        )
    };
    let dated = r#","meta":{"lastUpdated":"2024-06-01T00:00:00Z"}"#;
    let lines = [
        PATIENT_A,
        r#"{"resourceType":"Patient","id":"c","meta":{"lastUpdated":"soon"}}"#,
        r#"{"resourceType":"Observation","id":"o","subject":{"reference":"https://other.example/Patient/a"}}"#,
        "{",
        "",
        &entry("", "Patient/x"),
        &entry(dated, "Patient/y"),
        r#"{"resourceType":"Patient","id":"d","meta":{"lastUpdated":"2020-01-01T00:00:00Z"}}"#,
        r#"{"resourceType":"Patient","id":"d","meta":{"lastUpdated":"2020-01-02T00:00:00Z"}}"#,
        GROUP,
    ];
    write_store(Path::new(&store), "a.ndjson", &lines);
    write_store(Path::new(&store), "b.ndjson", &[PATIENT_A, r#"{"resourceType":"Patient","id":"z"}"#]);
    let (out, group) = (at("out"), at("group.json"));
    std::fs::write(&group, GROUP.replace(r#"["#, r#"[{"entity":{"identifier":{"value":"v"}}},"#)).unwrap();
    let one = at("one.json");
    std::fs::write(&one, GROUP).unwrap();
    let mut said = String::new();
    let mut say = |words: &[&str], code: i32| {
        let done = run::run(&[words, &["--progress", "never"]].concat());
        assert_eq!(done.code, code, "{words:?}: {done:#?}");
        said += &done.said();
        for folder in ["error", "deleted"] {
            for entry in std::fs::read_dir(Path::new(&out).join(folder)).into_iter().flatten() {
                said += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
            }
        }
    };
    let export = ["export", "--store", &store, "--out", &out, "--force"];
    let with = |more: &[&'static str]| [&export[..], more].concat();
    say(&with(&["--all-patients", "--as-of", "2024-01-01T00:00:00Z"]), 1);
    // Late, undated, gone and deleted.
    write_store(
        Path::new(&store),
        "c.ndjson",
        &[r#"{"resourceType":"Patient","id":"l","meta":{"lastUpdated":"2019-01-01T00:00:00Z"}}"#],
    );
    write_store(Path::new(&store), "b.ndjson.new", &[PATIENT_A]);
    std::fs::rename(at("store/b.ndjson.new"), at("store/b.ndjson")).unwrap();
    let missing = ["--allow-missing", "100"];
    say(&[&with(&["--all-patients", "--since", "2023-12-31"])[..], &missing].concat(), 1);
    say(
        &[
            &with(&["--all-patients", "--since", "2023-12-31", "--vanished", "delete", "--late", "report"])[..],
            &missing,
        ]
        .concat(),
        1,
    );
    say(
        &[&with(&["--all-patients", "--since", "2023-12-31", "--missing-last-updated", "exclude"])[..], &missing]
            .concat(),
        1,
    );
    say(&[&export[..], &["--group", &group]].concat(), 1);
    say(&[&export[..], &["--group", "g", "--type", "Patient"]].concat(), 1);
    say(&with(&["--system", "--faults-allowed", "0"]), 3);
    say(&with(&["--all-patients", "--plan"]), 0);
    say(&["verify", &out, "--ledger"], 0);
    say(&["verify", &store, "--faults"], 0);
    say(&["index", "--store", &store], 0);
    say(&["pack", "--store", &store, "--to", &at("packed")], 1);
    for words in [
        &["group", "check", &one, "--store", &store][..],
        &["group", "check", &group, "--max-members", "1"],
        &["group", "import", &one, "--store", &store],
    ] {
        said += &run::run(words).said();
    }
    let list = at("list");
    std::fs::write(&list, "?\n?\na\n").unwrap();
    said += &run::run(&[&export[..], &["--patients", &list]].concat()).said();
    // A file of the export that the manifest does not have, and one that is damaged.
    std::fs::write(at("out/stray.ndjson"), "x").unwrap();
    std::fs::write(at("out/Patient.00001.ndjson"), "{}\n").unwrap();
    said += &run::run(&["verify", &out]).said();
    assert_eq!(wrong_after_one(&said), Vec::<String>::new(), "{said}");
    let dangling: Vec<&str> =
        said.lines().filter(|line| line.trim_end().ends_with(": ") || line.ends_with(": ")).collect();
    assert!(dangling.is_empty(), "{dangling:?}");
    for needle in [
        "1 resource came to the store after",
        "1 reference to patients under",
        "1 deletion of resources",
        "1 DELETE entry has",
    ] {
        assert!(said.contains(needle), "{needle}: {said}");
    }
}

/// A store without a line, whose summary has no colon with nothing behind it, and one without a file.
#[test]
fn nothing_ends_in_a_colon() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store, "README.md", &["# data"]);
    let out = scratch.path().join("out");
    let needle = "1 file of other names: README.md: check that it is mounted";
    run::export(&store, &out, &["--all-patients"]).refused(2, &[needle]);
    write_store(&store, "x.ndjson", &[]);
    let done = run::export(&store, &out, &["--all-patients"]);
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(done.said().lines().any(|line| line.trim() == "lines      0"), "{done:#?}");
}

/// No text of the sources that somebody may read cites a row of the specification: who reads it does not have it.
#[test]
fn texts_cite_no_requirements() {
    fn visit(directory: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let lines = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
                found.extend(
                    lines.filter(|(_, line)| cites_row(line)).map(|(i, _)| format!("{}:{}", path.display(), i + 1)),
                );
            }
        }
    }
    // Written in two parts, because a test that names a row is taken to test it.
    let row = |table: &str, number: &str| format!("{table}-{number}");
    assert!(cites_row(&format!(r#"let text = "it is late ({})";"#, row("SINCE", "03"))));
    assert!(cites_row(&format!(r#"as it was ({})";"#, row("ONEUP", "M05"))));
    assert!(!cites_row(&format!("let a = b; // as it must be ({})", row("SINCE", "03"))));
    assert!(!cites_row(&format!(r#"wrong("{}", "x")"#, row("MANIFEST", "15"))));
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether a line has a row of the specification in parentheses before a comment.
fn cites_row(line: &str) -> bool {
    let code = line.split(" // ").next().unwrap();
    code.split('(').skip(1).any(|text| {
        let Some((row, _)) = text.split_once(')') else { return false };
        let Some((table, number)) = row.rsplit_once('-') else { return false };
        let digits = number.trim_start_matches(|c: char| c.is_ascii_uppercase());
        table.len() >= 3
            && table.bytes().all(|byte| byte.is_ascii_uppercase())
            && digits.len() == 2
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}
