//! Rules that can be checked from the source text: layers, circles of files, names, docs, unsafe notes, bans, lengths, rows.
//!
//! It reads text, not syntax: comments are cut at `//`, and a file's own tests are held to the unsafe and leftover rules only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layers, lowest first: a module uses those below it. Every module stands here but `lib.rs` and `main.rs`, which stand above all.
const LAYERS: [&[&str]; 20] = [
    &["associated_data", "byte_size", "casts", "count_text", "ids", "limits", "named_enum", "simd", "sys"],
    &["codec", "fhir", "hash"],
    &["error", "issue", "key_set", "patient_restriction", "progress", "text_table"],
    &["extract"],
    &["store"],
    &["index"],
    &["group"],
    &["baseline", "ignorable_part", "policies"],
    &["increment", "request"],
    &["select"],
    &["plan"],
    &["spans"],
    &["write"],
    &["export", "import", "pack", "synth"],
    &["chain", "tasks"],
    &["verify"],
    &["inspect"],
    &["job"],
    &["server"],
    &["cli"],
];

/// Modules of one layer of which the first uses the second, never the other way.
const BESIDE: [(&str, &str); 5] =
    [("increment", "request"), ("error", "issue"), ("ids", "casts"), ("sys", "limits"), ("sys", "count_text")];

/// Lines of a file before its tests.
const LINES_MAX: usize = 600;
/// `unsafe` outside `src/sys/` and `src/simd/`, and why.
const UNSAFE_ELSEWHERE: [(&str, &str); 2] = [
    ("src/store/mod.rs", "`open_mapped`: the choice to map is the caller's promise, and travels on as a safe value"),
    ("src/cli/", "the binary makes that choice, after it has installed the fault handler"),
];

/// Clocks, environment and standard streams belong to the doors.
const DOORS: [&str; 3] = ["src/cli/", "src/main.rs", "src/server/"];
const ONLY_IN_DOORS: [&str; 8] =
    ["println!", "eprintln!", "print!(", "eprint!(", "SystemTime::now", "Instant::now()", "std::env", "env::var"];
/// What opens whatever stands under a name, and may wait for ever.
const OPENS_ANYTHING: [&str; 4] = ["File::open(", "OpenOptions::new", "fs::read(", "fs::read_to_string("];
/// Where that is right, besides `src/sys/`, and why.
const OPENS_WHAT_IS_NAMED: [(&str, &str); 3] = [
    ("src/cli/group/mod.rs", "the user names the Group file, which may be a pipe"),
    ("src/select/members.rs", "the user names the Group file, which may be a pipe"),
    ("src/select/patient_list.rs", "the user names the list, which may be a pipe"),
];
const LEFTOVERS: [&str; 5] = ["TODO", "FIXME", "XXX", "dbg!(", "todo!("];

/// Tables of the specification and the last number of each, for the rows that comments cite.
const ROWS: [(&str, u32); 27] = [
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
    ("PRIV", 4),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, comments cut off; those of the file's own tests are marked.
    fn lines(&self) -> impl Iterator<Item = (usize, String, bool)> {
        // A module of tests in a file of its own, or a single item for tests, does not end the code.
        let begins = |text: &str| text.strip_prefix("pub(crate) ").unwrap_or(text).starts_with("mod ");
        let parts: Vec<&str> = self.text.lines().collect();
        let inline = |pair: &[&str]| pair[0] == "#[cfg(test)]" && begins(pair[1]) && pair[1].ends_with('{');
        let tests = parts.windows(2).position(inline).unwrap_or(parts.len());
        let cut = move |(i, line): (usize, &str)| (i + 1, line.split("//").next().unwrap().to_string(), i >= tests);
        self.text.lines().enumerate().map(cut)
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

/// Paths from `crate::` or `super::` in code, lists in braces written out: `crate::{a::b, c::{d, e}}` is three.
fn paths_used(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (offset, _) in code.match_indices(start) {
            let before = code[..offset].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                read_path(&code[offset..], &[], &mut found);
            }
        }
    }
    found
}

/// Reads one path, which may end in a list, behind `before`. Returns the bytes read.
fn read_path(text: &str, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut end = 0;
    loop {
        if text[end..].starts_with('{') {
            return end + read_list(&text[end..], &path, found);
        }
        let name: String = text[end..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        end += name.len();
        if !name.is_empty() {
            path.push(name);
            if text[end..].starts_with("::") {
                end += 2;
                continue;
            }
        }
        found.push(path);
        return end;
    }
}

/// Reads `{a, b as c, d::{…}}` behind a path. Returns the bytes read.
fn read_list(text: &str, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut end = 1;
    loop {
        end += text[end..].len() - text[end..].trim_start_matches([' ', '\n', ',']).len();
        if text[end..].is_empty() || text[end..].starts_with('}') {
            return (end + 1).min(text.len());
        }
        end += read_path(&text[end..], before, found);
        // ` as name` and what else stands before the next comma.
        end += text[end..].find([',', '}']).unwrap_or(text[end..].len());
    }
}

/// The module of a file, as its path from the crate's root.
fn module_path(file: &str) -> Vec<String> {
    let below = file.strip_prefix("src/").unwrap().trim_end_matches(".rs");
    below.split('/').filter(|part| !["mod", "lib"].contains(part)).map(str::to_string).collect()
}

/// Modules that are there in tests only.
fn test_modules(all: &[Source]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for source in all {
        for rest in source.text.split("#[cfg(test)]\n").skip(1) {
            let name = rest.lines().next().and_then(|line| line.rsplit_once("mod ")?.1.strip_suffix(';'));
            found.extend(name.map(|name| [module_path(&source.path), vec![name.to_string()]].concat()));
        }
    }
    assert!(found.len() > 5, "{found:?}");
    found
}

/// Files and the files that they use, outside tests: by the longest part of a path that is a file.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let all = sources("src");
    let of_tests = test_modules(&all);
    let files: BTreeMap<Vec<String>, &Source> = all
        .iter()
        .filter(|source| !["src/lib.rs", "src/main.rs"].contains(&source.path.as_str()))
        .map(|source| (module_path(&source.path), source))
        .filter(|(module, _)| !of_tests.iter().any(|test| module.starts_with(test)))
        .collect();
    let mut uses = BTreeMap::new();
    for (module, source) in &files {
        let lines = source.lines().filter(|(_, _, in_tests)| !in_tests);
        let code: String = lines.map(|(_, line, _)| line + "\n").collect();
        let mut used = BTreeSet::new();
        for path in paths_used(&code) {
            let up = path.iter().take_while(|part| *part == "super").count();
            let mut absolute = match up {
                0 => path[1..].to_vec(),
                _ => [&module[..module.len().saturating_sub(up)], &path[up..]].concat(),
            };
            while !absolute.is_empty() && !files.contains_key(&absolute) {
                absolute.pop();
            }
            if !absolute.is_empty() && absolute != *module {
                used.insert(files[&absolute].path.clone());
            }
        }
        uses.insert(source.path.clone(), used);
    }
    uses
}

fn top_module(file: &str) -> &str {
    file.strip_prefix("src/").unwrap().split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn arrows_point_down() {
    let read = |text: &str| paths_used(text).into_iter().map(|path| path.join(" ")).collect::<Vec<_>>();
    assert_eq!(read("use crate::{a::b, c::{d as x, e}, f};"), ["crate a b", "crate c d", "crate c e", "crate f"]);
    assert_eq!(read("x(crate::a::b(1), super::c)"), ["crate a b", "super c"]);
    let mut wrong = Vec::new();
    for (file, used) in uses() {
        let own = top_module(&file);
        let Some(own_layer) = layer(own) else {
            wrong.push(format!("{file}: `{own}` stands in no layer"));
            continue;
        };
        for target in used {
            let other = top_module(&target);
            let Some(other_layer) = layer(other) else { continue };
            let is_beside = other_layer == own_layer && own != other;
            if other_layer > own_layer || is_beside && !BESIDE.contains(&(own, other)) {
                wrong.push(format!("{file} uses {target}"));
            }
        }
    }
    none("a module uses those of the layers below it (LAYERS, BESIDE)", wrong);
}

#[test]
fn files_use_each_other_in_one_direction() {
    let uses = uses();
    let reach = |start: &str| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&String> = uses[start].iter().collect();
        while let Some(file) = open.pop() {
            if reached.insert(file.clone()) {
                open.extend(&uses[file]);
            }
        }
        reached
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = uses.keys().map(|file| (file, reach(file))).collect();
    // Files that reach each other are a circle.
    let mut circles = BTreeSet::new();
    for (file, all) in reached.iter().filter(|(file, all)| all.contains(**file)) {
        let members = uses.keys().filter(|other| all.contains(*other) && reached[other].contains(*file));
        circles.insert(members.map(String::as_str).collect::<Vec<_>>().join(" "));
    }
    none("circles of files", circles.into_iter().collect());
}

/// Names are imported from the file that defines them, so that the arrows above are those of the code.
#[test]
fn only_the_front_reexports() {
    let mut found = Vec::new();
    for source in sources("src").iter().filter(|source| source.path != "src/lib.rs") {
        for (number, line, in_tests) in source.lines() {
            let line = line.trim_start();
            // A macro is exported by its name alone.
            if !in_tests && line.starts_with("pub") && line.contains(" use ") && line.contains("::") {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    none("re-exports outside lib.rs", found);
}

/// Types that are defined outside tests: their names and files. Associated types of traits are not among them.
fn types() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let all = sources("src");
    let of_tests = test_modules(&all);
    for source in all.iter().filter(|source| !of_tests.iter().any(|test| module_path(&source.path).starts_with(test))) {
        for (_, line, in_tests) in source.lines() {
            let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(&line);
            let kind =
                ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|kind| line.strip_prefix(kind));
            let Some(rest) = kind.filter(|_| !in_tests) else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            found.push((name, source.path.clone()));
        }
    }
    found
}

#[test]
fn a_type_name_stands_once() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    types().into_iter().for_each(|(name, file)| files.entry(name).or_default().push(file));
    assert!(files.len() > 300, "{}", files.len());
    let twice = files.iter().filter(|(_, files)| files.len() > 1);
    none("type names that stand twice", twice.map(|(name, files)| format!("{name}: {}", files.join(", "))).collect());
}

/// Participles and pronouns, which say nothing of what a thing is.
const NO_NAMES: [&str; 34] = [
    "again",
    "answered",
    "asked",
    "been",
    "begun",
    "coded",
    "done",
    "ended",
    "forgotten",
    "found",
    "given",
    "gone",
    "keep",
    "known",
    "left",
    "listed",
    "made",
    "noticed",
    "one",
    "part",
    "place",
    "planned",
    "polled",
    "refused",
    "seen",
    "standing",
    "state",
    "taken",
    "told",
    "together",
    "way",
    "what",
    "whose",
    "written",
];

#[test]
fn names_are_nouns() {
    let bad = |name: &str| NO_NAMES.contains(&name.to_lowercase().as_str());
    let types = types().into_iter().filter(|(name, _)| bad(name)).map(|(name, file)| format!("{name} in {file}"));
    let stem = |path: &str| path.rsplit('/').next().unwrap().trim_end_matches(".rs").to_string();
    let all = ["src", "tests", "benches"].into_iter().flat_map(sources);
    // The states of a job, and of the service.
    let files = all.map(|source| source.path).filter(|path| bad(&stem(path)) && stem(path) != "state");
    none("names that are no nouns", types.chain(files).collect());
}

/// A reader of the architecture page finds every file there, and every file there exists.
#[test]
fn every_file_is_in_the_architecture() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/architecture.md")).unwrap();
    let files = page.split("## Files").nth(1).unwrap().split("\n## ").next().unwrap();
    let all = sources("src");
    let of_tests = test_modules(&all);
    let mut missing: BTreeSet<String> = all
        .iter()
        .filter(|source| !["src/lib.rs", "src/main.rs"].contains(&source.path.as_str()))
        .filter(|source| !of_tests.iter().any(|test| module_path(&source.path).starts_with(test)))
        // A `mod.rs` that only declares is no place to look for anything.
        .filter(|source| !source.path.ends_with("/mod.rs") || source.text.contains("\n}\n"))
        .map(|source| source.path.clone())
        .collect();
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    for section in files.split("\n### ").skip(1) {
        let modules = quoted(section.lines().next().unwrap());
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            for name in quoted(row.split('|').nth(1).unwrap()) {
                let places = modules.iter().map(|module| format!("src/{module}/{name}"));
                let found = places.chain([format!("src/{name}")]).any(|path| missing.remove(&path));
                if !found {
                    wrong.push(name);
                }
            }
        }
    }
    none("files of the architecture page that are not there, or named twice", wrong);
    none("files that the architecture page does not name", missing.into_iter().collect());
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
        let home = source.path.starts_with("src/sys/") || source.path.starts_with("src/simd/");
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
    none("`unsafe` outside src/sys/ and src/simd/", astray);
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

/// Whether `word` stands in the line and is not the end of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(offset, _)| !line[..offset].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Files are opened by `sys::regular_file` and `sys::directory`, which wait for nothing.
#[test]
fn nothing_is_opened_that_may_wait() {
    let all = sources("src");
    let of_tests = test_modules(&all);
    let mut found = Vec::new();
    for source in all.iter().filter(|source| !source.path.starts_with("src/sys/")) {
        let module = module_path(&source.path);
        let excused = OPENS_WHAT_IS_NAMED.iter().any(|(path, _)| source.path == *path);
        if excused || of_tests.iter().any(|test| module.starts_with(test)) {
            continue;
        }
        for (number, line, in_tests) in source.lines() {
            for word in OPENS_ANYTHING.iter().filter(|word| !in_tests && has_word(&line, word)) {
                found.push(format!("{}:{number} {word}", source.path));
            }
        }
    }
    none("opened, whatever it is: use sys::regular_file or sys::directory, or say above why it may wait", found);
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
    let long = ["src", "tests"].into_iter().flat_map(sources).filter(|source| length(source) > LINES_MAX);
    none("files with too many lines", long.map(|source| format!("{} {}", source.path, length(&source))).collect());
}

#[test]
fn cited_rows_exist() {
    let mut found = Vec::new();
    for source in ["src", "tests/it"].into_iter().flat_map(sources) {
        for (line_number, line) in source.text.lines().enumerate() {
            for (table, last) in ROWS {
                for (i, _) in line.match_indices(&format!("{table}-")) {
                    let own_word =
                        i == 0 || !line.as_bytes()[i - 1].is_ascii_alphanumeric() && line.as_bytes()[i - 1] != b'-';
                    let digits: String = line[i + table.len() + 1..].chars().take_while(char::is_ascii_digit).collect();
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

/// Names in the `pub use` lines of a text, lists in braces written out, each behind `prefix`.
fn reexports(text: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (offset, start) in text.match_indices("pub use crate::") {
        let mut paths = Vec::new();
        read_path(&text[offset + start.len() - "crate::".len()..], &[], &mut paths);
        names.extend(paths.iter().map(|path| format!("{prefix}{}", path.last().unwrap())));
    }
    names
}

/// The part of lib.rs inside the braces of `pub mod NAME`.
fn front_module<'a>(front: &'a str, name: &str) -> &'a str {
    let start = front.find(&format!("pub mod {name} {{")).unwrap();
    let length = front[start..].find("\n}\n").unwrap();
    &front[start..start + length]
}

/// `tests/public_paths.txt` is the list of what lib.rs makes public: names at the root, documents, and names of `internals`. A
/// new name is added there on purpose, or not at all.
#[test]
fn public_paths_are_those_listed() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let front = std::fs::read_to_string(home.join("src/lib.rs")).unwrap();
    let (documents, internals) = (front_module(&front, "docs"), front_module(&front, "internals"));
    let root = front.replace(documents, "").replace(internals, "");
    let mut names = reexports(&root, "");
    let documented = documents.lines().skip(1).filter_map(|line| line.trim().strip_prefix("pub mod "));
    names.extend(documented.map(|line| format!("docs::{}", line.trim_end_matches(" {}"))));
    names.extend(reexports(internals, "internals::"));
    names.sort();
    let listed = std::fs::read_to_string(home.join("tests/public_paths.txt")).unwrap();
    let listed: Vec<&str> = listed.lines().collect();
    none("in src/lib.rs, not in tests/public_paths.txt", missing_from(&names, &listed));
    none("in tests/public_paths.txt, not in src/lib.rs", missing_from(&listed, &names));
    assert_eq!(names, listed, "both are sorted, and no name stands twice");
}

fn missing_from<A: AsRef<str>, B: AsRef<str>>(names: &[A], others: &[B]) -> Vec<String> {
    let known: BTreeSet<&str> = others.iter().map(AsRef::as_ref).collect();
    names.iter().map(AsRef::as_ref).filter(|name| !known.contains(name)).map(str::to_string).collect()
}

/// `internals` is for tests, benches, fuzz targets and the binary: a name that none of them uses goes.
#[test]
fn every_name_in_internals_is_used() {
    let front = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let users: String = ["tests", "benches"].into_iter().flat_map(sources).map(|source| source.text).collect();
    let users = users + &sources("src").into_iter().find(|source| source.path == "src/main.rs").unwrap().text;
    let used: BTreeSet<String> = users
        .match_indices("outpour::internals::")
        .flat_map(|(offset, _)| {
            let mut paths = Vec::new();
            read_path(&users[offset..], &[], &mut paths);
            paths
        })
        .filter_map(|path| path.get(2).cloned())
        .collect();
    let names = reexports(front_module(&front, "internals"), "");
    assert!(names.len() > 5, "{names:?}");
    none("names in `internals` that nothing uses", names.into_iter().filter(|name| !used.contains(name)).collect());
}
