//! What can be checked from the source text is a test, not a reminder: layers, module docs, unsafe notes, bans on printing,
//! clocks, opening of whatever stands there, and leftovers, the length of files, and that cited rows of the specification exist.
//!
//! It reads text, not syntax: comments are cut at `//`, and a file's own tests (from `#[cfg(test)]` before its test
//! module on) are held to the unsafe and leftover rules only.

use std::path::{Path, PathBuf};

/// Layers, lowest first. A module may use those of its own layer and below; the rest of the crate's modules
/// (`error`, `limits`, `observe`) may be used from anywhere.
const LAYERS: [&[&str]; 10] = [
    &["fhir", "bytes"],
    &["extract"],
    &["store"],
    &["select", "plan", "write"],
    &["export", "synth", "pack"],
    &["verify"],
    &["inspect"],
    &["job"],
    &["server"],
    &["cli"],
];

/// Lines of a file before its tests.
const LINES_MAX: usize = 600;

/// `unsafe` outside `src/bytes/`, and why it is there.
const UNSAFE_ELSEWHERE: [(&str, &str); 2] = [
    ("src/store/mod.rs", "`open_mapped`: the choice to map is the caller's promise, and travels on as a safe value"),
    ("src/cli/", "the binary makes that choice, after it has installed the fault handler"),
];

/// Clocks, environment and standard streams belong to the doors.
const DOORS: [&str; 3] = ["src/cli/", "src/main.rs", "src/server/"];
const ONLY_IN_DOORS: [&str; 8] =
    ["println!", "eprintln!", "print!(", "eprint!(", "SystemTime::now", "Instant::now()", "std::env", "env::var"];
/// What opens whatever stands under a name, and may wait for it for ever.
const OPENS_ANYTHING: [&str; 4] = ["File::open(", "OpenOptions::new", "fs::read(", "fs::read_to_string("];
/// Where that is right, besides `src/bytes/`, and why.
const OPENS_WHAT_IS_NAMED: [(&str, &str); 4] = [
    ("src/cli/group.rs", "the user names the Group file, which may be a pipe"),
    ("src/select/members.rs", "the user names the list or the Group file, which may be a pipe"),
    ("src/write/new_directory.rs", "a directory, to lock it"),
    ("src/write/sink.rs", "a directory, to sync it"),
];
const LEFTOVERS: [&str; 5] = ["TODO", "FIXME", "XXX", "dbg!(", "todo!("];

/// Tables of the specification and the last number of each, for the rows that comments cite.
const ROWS: [(&str, u32); 26] = [
    ("DIALECT", 6),
    ("CORE", 9),
    ("KICK", 19),
    ("HDR", 11),
    ("PARAM", 9),
    ("FMT", 5),
    ("SINCE", 11),
    ("TYPE", 7),
    ("ELEM", 6),
    ("PATIENT", 6),
    ("ASSOC", 9),
    ("TFILTER", 11),
    ("ORG", 8),
    ("PARTIAL", 9),
    ("GROUP", 14),
    ("COMP", 15),
    ("CONS", 10),
    ("STATUS", 20),
    ("MANIFEST", 19),
    ("FILE", 21),
    ("DELETED", 9),
    ("OUTCOME", 6),
    ("DELETE", 8),
    ("CAP", 13),
    ("CLIENT", 12),
    ("AUTH", 28),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, comments cut off; those of the file's own tests are marked.
    fn lines(&self) -> impl Iterator<Item = (usize, String, bool)> {
        let mut in_tests = false;
        self.text.lines().enumerate().map(move |(number, line)| {
            in_tests |= line.starts_with("#[cfg(test)]");
            (number + 1, line.split("//").next().unwrap().to_string(), in_tests)
        })
    }

    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or("");
        below.split('/').next().unwrap().trim_end_matches(".rs")
    }
}

fn sources(root: &str) -> Vec<Source> {
    fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    visit(&home.join(root), &mut paths);
    paths.sort();
    let load = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(home).unwrap().to_str().unwrap().to_string(),
    };
    paths.into_iter().map(load).collect()
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}\n    {}", found.join("\n    "));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Modules named by `crate::…` in a line, `crate::{a::…, b}` included.
fn modules_used(line: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + 7..];
        let Some(list) = rest.strip_prefix('{') else {
            used.push(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut fresh = true;
        for (at, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                ' ' => {}
                _ if fresh => {
                    used.push(name(&list[at..]));
                    fresh = false;
                }
                _ => {}
            }
            if depth < 0 {
                break;
            }
        }
    }
    used
}

#[test]
fn arrows_point_down() {
    assert_eq!(modules_used("use crate::{a::b, c::{d, e}, f};"), ["a", "c", "f"]);
    let mut upward = Vec::new();
    for source in sources("src") {
        let Some(own) = layer(source.module()) else { continue };
        for (number, line, in_tests) in source.lines() {
            for used in modules_used(&line) {
                if !in_tests && layer(&used).is_some_and(|layer| layer > own) {
                    upward.push(format!("{}:{number} uses crate::{used}", source.path));
                }
            }
        }
    }
    none("layers: cli -> export -> select, plan, write -> store -> extract -> fhir, bytes", upward);
}

#[test]
fn every_file_says_what_it_is() {
    let all = ["src", "tests", "benches"].into_iter().flat_map(sources);
    let silent = all.filter(|source| !source.text.starts_with("//! ")).map(|source| source.path);
    none("a file opens with a `//!` paragraph: what it is, what it is not", silent.collect());
}

#[test]
fn unsafe_stays_home_and_has_its_note() {
    let mut astray = Vec::new();
    let mut bare = Vec::new();
    for source in sources("src") {
        let home = source.path.starts_with("src/bytes/");
        let excused = UNSAFE_ELSEWHERE.iter().any(|(path, _)| source.path.starts_with(path));
        let raw: Vec<&str> = source.text.lines().collect();
        for (number, line, _) in source.lines() {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if !words.into_iter().any(|word| word == "unsafe") || line.contains("unsafe_") {
                continue;
            }
            if !home && !excused {
                astray.push(format!("{}:{number}", source.path));
            }
            // The note stands in the comment right above (or, for a function, in its `# Safety` section).
            let above = raw[..number - 1].iter().rev().take_while(|line| {
                let line = line.trim_start();
                line.starts_with("//")
                    || line.starts_with("#[")
                    || line.ends_with('(')
                    || line.ends_with('=')
                    || line.ends_with('{')
            });
            let noted = raw[number - 1].contains("SAFETY")
                || above.take(30).any(|line| line.contains("SAFETY") || line.contains("# Safety"));
            if !noted {
                bare.push(format!("{}:{number} {}", source.path, line.trim()));
            }
        }
    }
    none("`unsafe` outside src/bytes/", astray);
    none("`unsafe` without a SAFETY note", bare);
}

#[test]
fn only_the_doors_print_and_look_at_the_clock() {
    let mut found = Vec::new();
    for source in sources("src").iter().filter(|source| !DOORS.iter().any(|door| source.path.starts_with(door))) {
        for (number, line, in_tests) in source.lines() {
            for word in ONLY_IN_DOORS.iter().filter(|word| !in_tests && line.contains(**word)) {
                found.push(format!("{}:{number} {word}", source.path));
            }
        }
    }
    none("printing, clocks and the environment belong to src/cli/", found);
}

/// Files are opened by `bytes::regular_file` and `bytes::directory`, which wait for nothing.
#[test]
fn nothing_is_opened_that_may_wait() {
    let all = sources("src");
    // Modules that are there in tests only.
    let of_tests: Vec<String> = all
        .iter()
        .flat_map(|source| source.text.split("#[cfg(test)]\n").skip(1))
        .filter_map(|rest| Some(rest.lines().next()?.rsplit_once("mod ")?.1.strip_suffix(';')?.to_string()))
        .collect();
    assert!(of_tests.len() > 5, "{of_tests:?}");
    let mut found = Vec::new();
    for source in all.iter().filter(|source| !source.path.starts_with("src/bytes/")) {
        let stem = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        let excused = OPENS_WHAT_IS_NAMED.iter().any(|(path, _)| source.path == *path);
        if excused || source.path.contains("/tests/") || of_tests.iter().any(|name| name == stem) {
            continue;
        }
        for (number, line, in_tests) in source.lines() {
            for word in OPENS_ANYTHING.iter().filter(|word| !in_tests && line.contains(**word)) {
                found.push(format!("{}:{number} {word}", source.path));
            }
        }
    }
    none("opened, whatever it is: use bytes::regular_file or bytes::directory, or say above why it may wait", found);
}

#[test]
fn nothing_is_left_over() {
    let mut found = Vec::new();
    for source in ["src", "tests/it", "benches"].into_iter().flat_map(sources) {
        for (number, line) in source.text.lines().enumerate() {
            for word in LEFTOVERS.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{} {word}", source.path, number + 1));
            }
        }
    }
    none("leftovers", found);
}

#[test]
fn files_stay_short() {
    let length = |source: &Source| source.lines().filter(|(_, _, in_tests)| !in_tests).count();
    let all = ["src", "tests"].into_iter().flat_map(sources);
    let long = all.filter(|source| length(source) > LINES_MAX);
    none("files with too many lines", long.map(|source| format!("{} {}", source.path, length(&source))).collect());
}

#[test]
fn cited_rows_exist() {
    let mut found = Vec::new();
    for source in ["src", "tests/it"].into_iter().flat_map(sources) {
        for (line_number, line) in source.text.lines().enumerate() {
            for (table, last) in ROWS {
                for (at, _) in line.match_indices(&format!("{table}-")) {
                    let own_word =
                        at == 0 || !line.as_bytes()[at - 1].is_ascii_alphanumeric() && line.as_bytes()[at - 1] != b'-';
                    let digits: String =
                        line[at + table.len() + 1..].chars().take_while(char::is_ascii_digit).collect();
                    let row = digits.parse().ok().filter(|_| own_word && digits.len() == 2);
                    if row.is_some_and(|row: u32| row == 0 || row > last) {
                        found.push(format!("{}:{} {table}-{digits}", source.path, line_number + 1));
                    }
                }
            }
        }
    }
    none("rows that the specification does not have", found);
}
