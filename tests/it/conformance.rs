//! Generates and checks `src/docs/conformance.md`, the table of requirements with the tests that cite them. A test
//! cites a row by its id, in the comment above it or in its body. All tests run under `cargo test` and none is ignored,
//! so that the table holds whenever the tests pass.
//!
//! `OUTPOUR_BLESS=1 cargo test --test it conformance` rewrites the page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows that are not fully tested, with the reason. For a row that some test cites, the reason says what is left out.
const NOT_HERE: &[(&str, &str)] = &[
    ("DIALECT-03", "the dialect of STU4 is not built"),
    ("CORE-02", "client certificates are not asked for; a trusted proxy can ask for them"),
    ("C-01", "the dialect of STU4 is not built; the IG's mount speaks STU3"),
    (
        "ONEUP-S03",
        "a store of NDJSON says nothing of shared environments: what is shared is kept in a store of its own",
    ),
    ("KICK-07", "the dialect of STU4 is not built"),
    ("KICK-15", "measured by benches/load, not asserted in a timed test"),
    ("PARAM-02", "the dialect of STU4 is not built"),
    ("PARAM-05", "organizeOutputBy, allowPartialManifests and sizes are not built: they are refused by name"),
    ("FMT-05", "the dialect of STU4 is not built"),
    ("SINCE-11", "the parameter's documentation says what _since looks at; _typeFilter looks at clinical dates"),
    ("STATUS-05", "off, as the row wants: nothing ends a session"),
    ("MANIFEST-11", "organizeOutputBy is not built"),
    ("MANIFEST-12", "organizeOutputBy is not built"),
    ("MANIFEST-13", "allowPartialManifests is not built"),
    ("FILE-09", "signed URLs are not built"),
    ("FILE-21", "files are served by the service itself"),
    ("CAP-08", "the dialect of STU4 is not built"),
    ("COHORT-01", "Groups are created at once; the asynchronous create is not built"),
    (
        "COHORT-07",
        "no scope that writes is granted (AUTH-18): a client writes Groups with a token or a secret of the configuration",
    ),
    ("AUTH-01", "external issuers, introspection and client certificates are not built"),
    ("AUTH-20", "granular scopes are refused"),
    ("PRIV-01", "consents and security labels are not looked at: a client has what its configuration says"),
    ("PRIV-03", "files are not encrypted here: an encrypted disk does that for store, index and files alike"),
    ("PRIV-04", "files are not encrypted"),
];

/// What was run by hand, behind the table.
const SUITES: &str = "
## Public suites and clients

Run by hand against the release build on 2026-11-30, with the bundled store and a DocumentReference with a Binary for each patient.

- smart-on-fhir/bdt at 3a17211, 165 tests, of which 3 are for version 1 alone. Open mode, all levels: 125 of the 126 that apply pass.
  Backend services with `jwksUrl`, ES384 and RS384: 159 of 162; with `smart.assertion_reuse` 161. 4.3 never passes: it looks for a
  `resourceType` inside the manifest's `error` list, whose objects have `type` and `url`. 0.3.15 and 0.3.16 send one assertion five and
  six times, which a strict service refuses (AUTH-07). With Group level alone 81 pass: 3.0.2 and 3.0.3 want the other levels.
- smart-fetch 1.0.3 and cumulus-etl 2.1.1 with a key (ES384 as JSON Web Key Set, RSA as PEM) bring Group `ten` home, each type as the
  command line exports it; both ask for no scope of Group, so with `require_group_scope = false` of the client.
- bulk-data-client 1.2.1 (3be801e) on Node 18, with and without `--post`, without clients and with a key (RS384, ES384): brings a whole Group home, its context and its
  attachments. Its JSON is that of the command line, but for numbers that JavaScript writes anew and for the URLs of attachments,
  which it turns to its own copies.
- @medplum/core 4.5.2, `bulkExport` of a Group: the JSON of the command line.
";

/// A test that cites a row: name of the function, and path of its file.
struct Cited {
    test: String,
    file: String,
}

/// Adds the Rust files below a directory, without this one, sorted by path.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("it/conformance.rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// The digits of a row's number: two, after an optional capital letter. `None` for anything else.
fn digits(number: &str) -> Option<&str> {
    let digits = number.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap_or(number);
    (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// Ids of rows in a text, in order.
fn ids(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
        if let Some((table, number)) = word.rsplit_once('-')
            && digits(number).is_some()
            && !table.is_empty()
            && table.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        {
            found.push(word.to_string());
        }
    }
    found
}

/// Adds the tests of a file under the rows that they cite. A range such as `STATUS-01…03` cites each row in it.
fn tests(file: &str, text: &str, cited: &mut BTreeMap<String, Vec<Cited>>) {
    let lines: Vec<&str> = text.lines().collect();
    for (offset, line) in lines.iter().enumerate() {
        let attribute = line.trim();
        if !matches!(attribute, "#[test]" | "#[tokio::test]") && !attribute.starts_with("#[tokio::test(") {
            continue;
        }
        assert!(!lines[offset + 1].contains("#[ignore"), "{file}:{offset} is ignored");
        let above = lines[..offset].iter().rev().take_while(|line| line.trim_start().starts_with("///"));
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let body = lines[offset..].iter().take_while(|line| **line != closing);
        let name = lines[offset..].iter().find_map(|line| line.trim().trim_start_matches("async ").strip_prefix("fn "));
        let name = name.unwrap().split('(').next().unwrap();
        let mut text = String::new();
        above.chain(body).for_each(|line| text += &format!("{line}\n"));
        for (from, dots) in text.match_indices('…') {
            let first = ids(&text[..from]).pop();
            let last: String = text[from + dots.len()..].chars().take_while(char::is_ascii_digit).collect();
            if let (Some(first), Ok(last)) = (first, last.parse::<u32>()) {
                let (table, number) = first.rsplit_once('-').unwrap();
                let letter = number.trim_end_matches(|c: char| c.is_ascii_digit());
                for number in number[letter.len()..].parse::<u32>().unwrap()..=last {
                    cite(cited, format!("{table}-{letter}{number:02}"), name, file);
                }
            }
        }
        ids(&text).into_iter().for_each(|id| cite(cited, id, name, file));
    }
}

/// Adds a test under a row, once.
fn cite(cited: &mut BTreeMap<String, Vec<Cited>>, id: String, test: &str, file: &str) {
    let list = cited.entry(id).or_default();
    if !list.iter().any(|known| known.test == test && known.file == file) {
        list.push(Cited { test: test.to_string(), file: file.to_string() });
    }
}

/// Every requirement has a test or a reason, and the page is up to date.
#[test]
fn every_row_is_tested_or_has_a_reason() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&home.join("src"), &mut paths);
    sources(&home.join("tests"), &mut paths);
    let mut cited = BTreeMap::new();
    for path in &paths {
        let file = path.strip_prefix(home).unwrap().display().to_string();
        tests(&file, &std::fs::read_to_string(path).unwrap(), &mut cited);
    }
    let rows = std::fs::read_to_string(home.join("testdata/spec/service.tsv")).unwrap();
    let rows: Vec<(&str, &str)> = rows.lines().map(|line| line.split_once('\t').unwrap()).collect();
    let reason = |id: &str| NOT_HERE.iter().find(|(known, _)| *known == id).map(|(_, reason)| *reason);
    let uncovered: Vec<&str> =
        rows.iter().map(|(id, _)| *id).filter(|id| !cited.contains_key(*id) && reason(id).is_none()).collect();
    assert!(uncovered.is_empty(), "rows without a test or a reason: {uncovered:?}");
    let covered = rows.iter().filter(|(id, _)| cited.contains_key(*id)).count();
    let mut page = format!(
        "# What the service is tested by\n\nRequirements of the service, each with the tests that cite it. This page is made from the sources of the \
         tests by\n`OUTPOUR_BLESS=1 cargo test --test it conformance`, and a test checks that it is up to date. {covered} of {} rows have a\ntest; the \
         others say why not.\n\n| row | requirement | tests |\n|---|---|---|\n",
        rows.len()
    );
    for (id, requirement) in rows {
        let mut by: Vec<String> =
            cited.get(id).into_iter().flatten().map(|cited| format!("`{}` ({})", cited.test, cited.file)).collect();
        by.extend(reason(id).map(|reason| format!("*{reason}*")));
        page += &format!("| {id} | {} | {} |\n", requirement.replace('|', "\\|"), by.join("<br>"));
    }
    page += SUITES;
    let path = home.join("src/docs/conformance.md");
    if std::env::var_os("OUTPOUR_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stands == page, "src/docs/conformance.md is out of date: OUTPOUR_BLESS=1 cargo test --test it conformance");
}
