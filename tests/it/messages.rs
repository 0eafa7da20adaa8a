//! What messages say to somebody who does not know the code: files as editors write them, advice that can be followed,
//! places that can be looked up.

use crate::run::{self, Bounds, Export, Run, scratch};
use serde_json::Value;
use std::path::Path;

/// A store of one file with these lines.
pub(crate) fn write_store(directory: &Path, name: &str, lines: &[&str]) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

pub(crate) const PATIENT_A: &str = r#"{"resourceType":"Patient","id":"a"}"#;
const PATIENT_B: &str = r#"{"resourceType":"Patient","id":"b"}"#;
pub(crate) const GROUP: &str = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;

/// A gzip member of a text.
fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Runs the binary with this text on its standard input.
fn run_with_input(args: &[&str], input: &[u8]) -> Run {
    use std::io::Write;
    let mut command = run::command();
    command.args(args).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // A command that refuses its input early closes the pipe.
    child.stdin.take().unwrap().write_all(input).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A Group document and a list of patients may begin with a byte order mark, from a file as from a pipe; the ledger is
/// recounted from the same file.
#[test]
fn a_byte_order_mark_begins_a_group_or_a_list() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let store = scratch.path().join("store");
    write_store(&store, "x.ndjson", &[PATIENT_A, PATIENT_B]);
    std::fs::write(at("group.json"), format!("\u{feff}{GROUP}")).unwrap();
    std::fs::write(at("list"), "\u{feff}a\r\n").unwrap();
    for (number, words) in [["--group", &at("group.json")], ["--patients", &at("list")]].iter().enumerate() {
        let out = scratch.path().join(format!("out{number}"));
        let done = run::export(&store, &out, words);
        assert_eq!(done.code, 0, "{done:#?}");
        assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1);
        let verified = run::run(&["verify", "--ledger", "--progress", "never", out.to_str().unwrap()]);
        assert_eq!(verified.code, 0, "{verified:#?}");
        // An interrupted export goes on with the same file, and not with one that lost its mark.
        assert_eq!(run::export(&store, &out, &[&words[..], &["--resume"]].concat()).code, 0);
    }
    let piped = |input: &[u8]| {
        let out = at("piped");
        let words = ["export", "--store", store.to_str().unwrap(), "--out", &out, "--force", "--patients", "-"];
        run_with_input(&words, input)
    };
    assert_eq!(piped("\u{feff}Patient/a\n".as_bytes()).code, 0);
    assert_eq!(Export::read(Path::new(&at("piped")), Bounds::DEFAULT).lines()["Patient"].len(), 1);
    piped("\u{feff}".as_bytes()).refused(2, &["names nobody"]);
    let needle = "line 2 begins with a byte order mark, which only the start of a file may have; remove it";
    piped("a\n\u{feff}b\n".as_bytes()).refused(2, &[needle]);
    piped("\u{feff}\u{feff}a\n".as_bytes()).refused(2, &["line 1 begins with a byte order mark"]);

    let (store, group) = (store.to_str().unwrap(), at("group.json"));
    let checked = run::run(&["group", "check", &group, "--store", store]);
    assert_eq!(checked.code, 0, "{checked:#?}");
    let imported = run::run(&["group", "import", &group, "--store", store]);
    assert_eq!(imported.code, 0, "{imported:#?}");
    let stored = std::fs::read_to_string(Path::new(store).join("Group.g.ndjson")).unwrap();
    assert_eq!(stored, format!("{GROUP}\n"));
}

/// A second mark, and one that is not at the start, are refused with their place.
#[test]
fn other_byte_order_marks_are_refused() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store, "x.ndjson", &[PATIENT_A]);
    let file = scratch.path().join("group.json");
    let name = file.to_str().unwrap();
    for (text, place, position) in [
        (
            format!("\u{feff}\u{feff}{GROUP}"),
            "line 1, byte 3: a byte order mark stands where",
            "line 1, column 1: a byte order mark",
        ),
        (format!("\u{feff}\n\u{feff}{GROUP}"), "line 2, byte 4: ", "line 2, column 1: "),
        ("\u{feff}{\"id\" \"x\"}".to_string(), "line 1, byte 9: ", "line 1, column 7: "),
    ] {
        std::fs::write(&file, text).unwrap();
        run::export(&store, &scratch.path().join("out"), &["--group", name]).refused(2, &[place]);
        run::run(&["group", "check", name]).refused(2, &[position]);
        run::run(&["group", "import", name, "--store", store.to_str().unwrap()]).refused(2, &[position]);
    }
    // In a string it is a character like any other.
    std::fs::write(&file, GROUP.replace("\"type\"", "\"name\":\"\u{feff}\",\"type\"")).unwrap();
    assert_eq!(run::export(&store, &scratch.path().join("out"), &["--group", name]).code, 0);
}

/// The texts of an export's messages.
fn messages(out: &Path) -> Vec<String> {
    Export::read(out, Bounds::DEFAULT).messages().into_iter().map(|message| message.text).collect()
}

/// Advice on a base that is not ours can be followed: it names an option that changes something, or says that none does.
/// References with two slashes before the type stay another server's, whatever is given.
#[test]
fn advice_on_bases_does_not_loop() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let observation = |id: &str, base: &str| {
        format!(r#"{{"resourceType":"Observation","id":"{id}","subject":{{"reference":"{base}/Patient/a"}}}}"#)
    };
    let (slashed, plain) =
        (observation("slashed", "https://ehr.example.org/fhir/"), observation("plain", "https://ehr.example.org/fhir"));
    write_store(&store, "x.ndjson", &[PATIENT_A, &slashed, &plain]);
    let group = GROUP.replace("Patient/a", "https://ehr.example.org/fhir//Patient/a");
    let file = scratch.path().join("group.json");
    std::fs::write(&file, group).unwrap();
    let out = scratch.path().join("out");
    let export = |words: &[&str]| {
        let done = run::export(&store, &out, &[words, &["--force"]].concat());
        assert_eq!(done.code, 0, "{done:#?}");
        let rows = Export::read(&out, Bounds::DEFAULT).ledger()["exported"];
        let texts = messages(&out);
        let advised =
            texts.iter().filter(|text| text.contains("give --fhir-base https://ehr.example.org/fhir\"")).count();
        let told = texts.iter().filter(|text| text.contains("write these references with a single slash")).count();
        let looped = texts.iter().any(|text| text.contains("--fhir-base https://ehr.example.org/fhir/"));
        assert!(!looped, "{texts:?}");
        (rows, advised, told)
    };
    assert_eq!(export(&["--all-patients"]), (1, 1, 1));
    for base in ["https://ehr.example.org/fhir", "https://ehr.example.org/fhir/", "https://ehr.example.org/fhir//"] {
        assert_eq!(export(&["--all-patients", "--fhir-base", base]), (2, 0, 1), "{base}");
        // The member is under that base as well.
        let listed = ["--group", file.to_str().unwrap(), "--fhir-base", base];
        assert_eq!(export(&listed), (0, 0, 2), "{base}");
        let checked = run::run(&["group", "check", listed[1], "--store", store.to_str().unwrap(), "--fhir-base", base]);
        assert!(checked.code == 0 && checked.said().contains("with a single slash"), "{checked:#?}");
    }
}

/// A member that names nobody is told by its number and its reference, a wrong line of a list by its number.
#[test]
fn bad_members_are_named() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let member = |text: &str| format!(r#"{{"entity":{{"reference":"{text}"}}}}"#);
    let long = format!("urn:{}", "x".repeat(3000));
    let members = [
        member("Patient/a"),
        member("urn:uuid:6c5d9ca9"),
        r#"{"inactive":false}"#.to_string(),
        member("https://other.example/Patient/a"),
        r#"{"entity":{"identifier":{"system":"urn:mrn","value":"secret"}}}"#.to_string(),
        member(&long),
    ];
    let group = |id: &str, members: &[String]| {
        let list = members.join(",");
        format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true,"member":[{list}]}}"#)
    };
    let (inner, outer) = (group("inner", &members), group("outer", &[member("Patient/a"), member("Group/inner")]));
    write_store(&store, "x.ndjson", &[PATIENT_A, &inner, &outer]);
    let file = scratch.path().join("group.json");
    std::fs::write(&file, &inner).unwrap();
    let out = scratch.path().join("out");
    // By id, from a file, and nested, where a member keeps its number in its own Group.
    for asked in ["inner", file.to_str().unwrap(), "outer"] {
        assert_eq!(run::export(&store, &out, &["--group", asked, "--force"]).code, 0);
        let texts = messages(&out).join("\n");
        for needle in [
            r#"Group/inner has a member, number 2 of its list, whose reference \"urn:uuid:6c5d9ca9\" is in no form"#,
            "Group/inner has a member, number 3 of its list, with neither a reference nor an identifier",
            "Group/inner lists a member, number 4 of its list, under the base https://other.example, which is not ours",
            "Group/inner lists a member, number 5 of its list, by an identifier of system",
            &format!(r#"number 6 of its list, whose reference \"{}\" (cut here) is in no form"#, &long[..100]),
        ] {
            assert!(texts.contains(needle), "{asked}: {needle}: {texts}");
        }
        assert!(!texts.contains("secret") && !texts.contains(&long[..101]), "{texts}");
    }

    let list = scratch.path().join("list");
    let refused = |text: &str, needles: &[&str]| {
        std::fs::write(&list, text).unwrap();
        run::export(&store, &out, &["--patients", list.to_str().unwrap(), "--force"]).refused(2, needles);
    };
    let what = "neither a patient id nor a reference such as Patient/123";
    refused("a\nb c\n", &[&format!("line 2 is {what}")]);
    refused("Group/x\n\na\n?", &[&format!("lines 1 and 4 are {what}")]);
    refused(&"?\n".repeat(5), &[&format!("lines 1, 2, 3, 4 and 5 are {what}")]);
    refused(&"?\n".repeat(7), &[&format!("lines 1, 2, 3, 4, 5 and 2 more are {what}")]);
    let marked = "line 3 begins with a byte order mark, which only the start of a file may have; remove it";
    refused("a\n?\n\u{feff}a\n", &[&format!("line 2 is {what}"), marked]);
    // A line of a list has no number but its own.
    std::fs::write(&list, "https://other.example/Patient/a").unwrap();
    assert_eq!(run::export(&store, &out, &["--patients", list.to_str().unwrap(), "--force"]).code, 0);
    let texts = messages(&out).join("\n");
    assert!(texts.contains("line 1 of the list of patients lists a member under the base"), "{texts}");
}

/// `--group Group/g` is the Group of the store, even where the working directory has such a path.
#[test]
fn a_reference_to_a_group_is_no_path() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store, "x.ndjson", &[PATIENT_A, PATIENT_B, GROUP]);
    std::fs::create_dir(scratch.path().join("Group")).unwrap();
    std::fs::write(scratch.path().join("Group/g"), GROUP.replace("Patient/a", "Patient/b")).unwrap();
    let export = |group: &str| {
        let mut command = run::command();
        command.current_dir(scratch.path()).args(["export", "--store", "store", "--out", "out", "--force"]);
        run::finish(command.args(["--group", group]))
    };
    for (group, patient) in [("Group/g", PATIENT_A), ("g", PATIENT_A), ("./Group/g", PATIENT_B)] {
        let done = export(group);
        assert_eq!(done.code, 0, "{done:#?}");
        let lines = Export::read(&scratch.path().join("out"), Bounds::DEFAULT).lines();
        assert_eq!(lines["Patient"], [patient.as_bytes().to_vec()], "{group}");
    }
    export("Group/gg").refused(2, &["Group/gg is not in the store", "similar ids: g"]);
    let help = run::run(&["export", "--help"]);
    assert!(help.stdout.contains("Group/ID") && help.stdout.contains("./Group/ten"), "{}", help.stdout);
}

/// The list of faults that a command prints as JSON: its places, and the numbers of those without.
fn fault_list(words: &[&str]) -> (Vec<Value>, Value) {
    let done = run::run(words);
    assert!(done.code == 0 && !done.said().contains("Zaphod") && !done.stdout.contains("Zaphod"), "{done:#?}");
    let document: Value = serde_json::from_str(&done.stdout).unwrap();
    let list = &document["faultList"];
    let places = list["places"].as_array().unwrap().clone();
    assert!(
        places.iter().take(10).all(|place| done.said().contains(place["text"].as_str().unwrap())),
        "{}",
        done.stderr
    );
    (places, list["unplaced"].clone())
}

/// `verify --faults` and `index --faults` list the faulty lines of plain, compressed, damaged and packed stores as the
/// messages of an export do, and the export says so.
#[test]
fn faults_are_listed() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let store = scratch.path().join("store");
    let bad = r#"{"resourceType":"Patient","name":"Zaphod"}"#;
    write_store(&store, "plain.ndjson", &[PATIENT_A, bad, "{\"Zaphod\""]);
    let text = format!("{PATIENT_B}\n{bad}\n");
    std::fs::write(store.join("b.ndjson.gz"), gzip(text.as_bytes())).unwrap();
    let zstd = |text: String| zstd::encode_all(text.as_bytes(), 1).unwrap();
    std::fs::write(store.join("c.ndjson.zst"), zstd(text.replace(r#""b""#, r#""c""#))).unwrap();
    let whole = gzip(text.replace(r#""b""#, r#""d""#).as_bytes());
    std::fs::write(store.join("d.ndjson.gz"), &whole[..whole.len() - 4]).unwrap();
    let (store, out) = (at("store"), at("out"));
    let done = run::export(Path::new(&store), Path::new(&out), &["--system"]);
    assert_eq!(done.code, 1, "{done:#?}");
    let command = format!("`outpour verify --faults {store}` lists them");
    assert!(done.said().contains(&command), "{done:#?}");
    let (index, again) = (at("index"), at("again"));
    let elsewhere = run::export(Path::new(&store), Path::new(&again), &["--system", "--index-dir", &index]);
    let command = format!("`outpour verify --faults {store} --index-dir {index}` lists them");
    assert!(elsewhere.said().contains(&command), "{elsewhere:#?}");
    let told = messages(Path::new(&out));
    let (places, unplaced) = fault_list(&["verify", &store, "--faults", "--json"]);
    assert_eq!((places.len(), told.len(), unplaced), (5, 5, serde_json::json!({})));
    for place in &places {
        let text = serde_json::to_string(&place["text"]).unwrap();
        assert!(told.iter().any(|message| message.contains(&text)), "{text}: {told:?}");
    }
    let keys =
        |place: &Value| (place["file"].clone(), place["line"].clone(), place["byte"].clone(), place["kind"].clone());
    let expected = [
        ("b.ndjson.gz", 2, PATIENT_B.len() + 1, "no-id"),
        ("c.ndjson.zst", 2, PATIENT_B.len() + 1, "no-id"),
        ("d.ndjson.gz", 1, 0, "unproven"),
        ("plain.ndjson", 2, PATIENT_A.len() + 1, "no-id"),
        ("plain.ndjson", 3, PATIENT_A.len() + bad.len() + 2, "truncated"),
    ];
    let expected = expected.map(|(file, line, byte, kind)| (file.into(), line.into(), byte.into(), kind.into()));
    assert_eq!(places.iter().map(keys).collect::<Vec<_>>(), expected);
    assert_eq!(fault_list(&["index", "--store", &store, "--faults", "--json"]).0, places);
    // What is not asked for is not there.
    assert!(!run::run(&["verify", &store, "--json"]).stdout.contains("faultList"));

    let packed = at("packed");
    assert_eq!(run::run(&["pack", "--store", &store, "--to", &packed]).code, 1);
    let (of_packed, _) = fault_list(&["verify", &packed, "--faults", "--json"]);
    assert!(!of_packed.is_empty() && of_packed.iter().all(|place| place["file"] == "rejected.ndjson"), "{of_packed:?}");

    let refused = run::export(Path::new(&store), Path::new(&at("other")), &["--system", "--faults-allowed", "4"]);
    refused.refused(3, &["5 of 8 lines are faulty", "`outpour verify --faults STORE` lists them"]);
    assert_eq!(run::export(Path::new(&store), Path::new(&at("other")), &["--system", "--faults-allowed", "5"]).code, 1);
    run::run(&["verify", &out, "--faults"]).refused(2, &["--faults", "give the store"]);

    let clean = at("clean");
    write_store(Path::new(&clean), "x.ndjson", &[PATIENT_A]);
    let done = run::run(&["verify", &clean, "--faults"]);
    assert!(done.code == 0 && done.said().contains("No line is faulty."), "{done:#?}");
    assert_eq!(fault_list(&["index", "--store", &clean, "--faults", "--json"]).0, Vec::<Value>::new());
}

/// The index keeps the places of so many faults of an extent; the others are told by number.
#[test]
fn faults_beyond_the_bound_are_counted() {
    let scratch = scratch();
    for more in [0, 1] {
        let store = scratch.path().join(format!("store{more}"));
        write_store(&store, "x.ndjson", &vec!["5"; (1 << 14) + more]);
        let (places, unplaced) = fault_list(&["verify", store.to_str().unwrap(), "--faults", "--json"]);
        assert_eq!(places.len(), 1 << 14);
        let expected = if more == 0 { serde_json::json!({}) } else { serde_json::json!({ "not-object": 1 }) };
        assert_eq!(unplaced, expected);
    }
}

/// A resumed export that asks for something else is told both values, and a word for one that was not given.
#[test]
fn a_difference_from_nothing_is_told_by_a_word() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store, "x.ndjson", &[PATIENT_A]);
    for (then, now, needle) in [
        (&[][..], &["--type", "Patient"][..], "--type differs (all then, Patient now)"),
        (&["--type", "Patient"], &[], "--type differs (Patient then, all now)"),
        (&[], &["--since", "2020-01-01"], "--since differs (none then, 2020-01-01T00:00:00"),
        (&["--max-file-resources", "7"], &[], "--max-file-resources differs (7 then, no bound now)"),
        (&[], &["--vanished", "delete"], "--vanished differs (report then, delete now)"),
    ] {
        let out = scratch.path().join("out");
        let first = run::export(&store, &out, &[&["--all-patients", "--force"], then].concat());
        assert_eq!(first.code, 0, "{first:#?}");
        run::export(&store, &out, &[&["--all-patients", "--resume"], now].concat()).refused(2, &[needle]);
    }
}

/// Resources whose current version only the name of a file decides are counted in one warning, for those who may have the
/// whole store; what a date, a number or the place in one file decides is not among them.
#[test]
fn versions_that_only_file_names_tell_apart_are_counted() {
    let patient = |id: &str, meta: &str| format!(r#"{{"resourceType":"Patient","id":"{id}"{meta}}}"#);
    let version = |number: u32| format!(r#","meta":{{"versionId":"{number}"}}"#);
    let dated = |date: &str| format!(r#","meta":{{"lastUpdated":"{date}T00:00:00Z"}}"#);
    let big = r#","meta":{"versionId":"1234567890123456789012"}"#;
    let deleted = r#"{"resourceType":"Bundle","type":"transaction","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Patient/p"}}]}"#;
    // The files' lines about one patient, in the order of their names, and whether the name decides.
    let cases: Vec<(Vec<Vec<String>>, bool)> = vec![
        (vec![vec![patient("p", "")], vec![patient("p", "")]], true),
        (vec![vec![patient("p", "")], vec![patient("p", "")], vec![patient("p", "")]], true),
        (vec![vec![patient("p", ""), patient("p", "")], vec![patient("p", ""), patient("p", "")]], true),
        (vec![vec![patient("p", &version(3))], vec![patient("p", &version(3))]], true),
        (vec![vec![patient("p", big)], vec![patient("p", big)]], true),
        (vec![vec![patient("p", &version(1)), patient("p", "")], vec![patient("p", &version(1))]], true),
        (vec![vec![patient("p", r#","meta":{"lastUpdated":"soon"}"#)], vec![patient("p", "")]], true),
        (vec![vec![patient("p", "")], vec![patient("p", "")], vec![patient("p", &dated("2999-01-01"))]], true),
        (vec![vec![patient("p", "")], vec![]], false),
        (vec![vec![patient("p", ""), patient("p", "")], vec![]], false),
        (vec![vec![patient("p", &version(1))], vec![patient("p", &version(2))]], false),
        (vec![vec![patient("p", &version(2))], vec![patient("p", &version(1))]], false),
        (vec![vec![patient("p", "")], vec![patient("p", &dated("2020-01-01"))]], false),
        (vec![vec![patient("p", "")], vec![patient("p", "")], vec![patient("p", &dated("2020-01-01"))]], false),
        (vec![vec![patient("p", &dated("2020-01-01"))], vec![patient("p", &dated("2020-01-01"))]], false),
        (vec![vec![patient("p", "")], vec![patient("p", "")], vec![deleted.to_string()]], false),
    ];
    for (number, (files, counts)) in cases.iter().enumerate() {
        for ending in ["", ".gz", ".zst"] {
            let scratch = scratch();
            let store = scratch.path().join("store");
            std::fs::create_dir(&store).unwrap();
            for (i, lines) in files.iter().enumerate() {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                let stored = match ending {
                    ".gz" => gzip(text.as_bytes()),
                    ".zst" => zstd::encode_all(text.as_bytes(), 1).unwrap(),
                    _ => text.into_bytes(),
                };
                std::fs::write(store.join(format!("{i}.ndjson{ending}")), stored).unwrap();
            }
            let out = scratch.path().join("out");
            let needle =
                "1 resource has versions in several files that no meta.lastUpdated and no versionId tells apart";
            let index = scratch.path().join("index");
            for words in [&["--all-patients"][..], &["--all-patients", "--index-dir", index.to_str().unwrap()]] {
                let done = run::export(&store, &out, &[words, &["--force"]].concat());
                assert_eq!(done.code, 0, "{done:#?}");
                let told = messages(&out).iter().filter(|text| text.contains(needle)).count();
                assert_eq!(
                    (told, done.said().contains(needle)),
                    (usize::from(*counts), *counts),
                    "case {number}{ending}"
                );
            }
        }
    }
}

/// Several such resources are told by one warning.
#[test]
fn the_warning_of_file_names_is_one() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store, "Patient.10.ndjson", &[PATIENT_A, PATIENT_B]);
    write_store(&store, "Patient.9.ndjson", &[PATIENT_A, PATIENT_B]);
    let out = scratch.path().join("out");
    let done = run::export(&store, &out, &["--all-patients"]);
    let needle = "2 resources have versions in several files";
    assert!(done.code == 0 && done.said().contains(needle), "{done:#?}");
    assert_eq!(messages(&out).iter().filter(|text| text.contains(needle)).count(), 1);
}

/// A zstd frame whose window is larger than is taken is told as that, whatever becomes of the rows before it; one of the
/// largest window that is taken is read.
#[test]
fn too_large_windows_are_told_as_such() {
    use std::io::Write;
    let frame = |line: &str, window: u8| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut frame = encoder.finish().unwrap();
        assert_eq!(frame[4] & 0x20, 0, "a header with a window");
        frame[5] = window;
        frame
    };
    for (window, needs) in [(0x88, None), (0x89, Some("144 MiB")), (0x90, Some("256 MiB")), (0xa8, Some("2048 MiB"))] {
        for unproven in ["fault", "export"] {
            let scratch = scratch();
            let store = scratch.path().join("store");
            std::fs::create_dir(&store).unwrap();
            let first = frame(PATIENT_A, 0x50);
            std::fs::write(store.join("x.ndjson.zst"), [&first[..], &frame(PATIENT_B, window)].concat()).unwrap();
            let out = scratch.path().join("out");
            let done = run::export(&store, &out, &["--all-patients", "--unproven", unproven]);
            let Some(needs) = needs else {
                assert_eq!(done.code, 0, "{done:#?}");
                assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 2);
                continue;
            };
            assert_eq!(done.code, 1, "{done:#?}");
            assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1);
            let place = format!("from byte {} of the file: a zstd frame needs a window of {needs}, ", first.len());
            let advice = "more than the 128 MiB that are taken; compress it again with --long=27 or less";
            let texts = messages(&out).join("\n");
            assert!(texts.contains(&(place + advice)) && !texts.contains("damaged"), "{texts}");
            let (places, _) = fault_list(&["verify", store.to_str().unwrap(), "--faults", "--json"]);
            assert!(places.len() == 1 && places[0]["text"].as_str().unwrap().contains(advice), "{places:?}");
            let shown = run::run(&["inspect", store.join("x.ndjson.zst").to_str().unwrap()]);
            assert!(shown.stdout.contains("--long=27") || shown.said().contains("--long=27"), "{shown:#?}");
        }
    }
}

/// A Group with a member filter that is none, or by mistake in a plain extension, is refused by name at every command.
#[test]
fn a_member_filter_is_refused_by_name() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let filter = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";
    write_store(&store, "x.ndjson", &[PATIENT_A, PATIENT_B]);
    let file = scratch.path().join("group.json");
    for element in ["modifierExtension", "extension"] {
        let group = GROUP.replace(r#""member""#, &format!(r#""{element}":[{{"url":"{filter}"}}],"member""#));
        std::fs::write(&file, &group).unwrap();
        let (name, store) = (file.to_str().unwrap(), store.to_str().unwrap());
        let told = [if element == "extension" { filter } else { "Group.modifierExtension[0] (member-filter)" }];
        run::export(Path::new(store), &scratch.path().join("out"), &["--group", name]).refused(2, &told);
        run::run(&["group", "check", name]).refused(2, &told);
        run::run(&["group", "import", name, "--store", store]).refused(2, &told);
    }
}
