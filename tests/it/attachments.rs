//! URLs of attachments in exports by the command line: from every form of a store, into every compression, verified line by
//! line; and what is said of those that stay (ATTACH-01, ATTACH-02, ATTACH-04).

use crate::run::{self, Bounds, Export, scratch};
use crate::store_forms;
use serde_json::Value;
use std::path::{Path, PathBuf};

const AS_OF: &str = "2024-06-01T00:00:00Z";
const BASE: &str = "https://files.example.org/fhir";

/// A store of patients with documents, of which some have an attachment in another place or none, and their Binaries.
fn write_store(directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    let meta = |version: usize| format!(r#""meta":{{"versionId":"{version}","lastUpdated":"2024-01-01T00:00:00Z"}}"#);
    let (mut patients, mut documents, mut binaries) = (String::new(), String::new(), String::new());
    for n in 0..120usize {
        let photo = if n % 40 == 0 { format!(r#","photo":[{{"url":"Binary/p{n}"}}]"#) } else { String::new() };
        patients += &format!("{{\"resourceType\":\"Patient\",\"id\":\"{n}\",{}{photo},\"active\":true}}\n", meta(1));
        let url = match n % 5 {
            0 => r#""data":"AAAA""#.to_string(),
            1 => format!(r#""url":"Binary\/b{n}""#),
            2 => format!(r#""url":"Binary/b{n}/_history/{n}""#),
            _ => format!(r#""url" : "Binary/b{n}""#),
        };
        let attachment = format!(r#"{{"contentType":"text/plain",{url},"title":"Binary/b{n}"}}"#);
        documents += &format!(
            "{{\"resourceType\":\"DocumentReference\",\"id\":\"d{n}\",{},\"subject\":{{\"reference\":\"Patient/{n}\"}},\"content\":[{{\"attachment\":{attachment}}}]}}\n",
            meta(1)
        );
        // Three are not there.
        if n % 50 != 3 {
            binaries += &format!("{{\"resourceType\":\"Binary\",\"id\":\"b{n}\",{},\"data\":\"AAAA\"}}\n", meta(n));
        }
        if n % 40 == 0 {
            binaries += &format!("{{\"resourceType\":\"Binary\",\"id\":\"p{n}\",\"data\":\"AAAA\"}}\n");
        }
    }
    std::fs::write(directory.join("Binary.ndjson"), binaries).unwrap();
    std::fs::write(directory.join("DocumentReference.ndjson"), documents).unwrap();
    std::fs::write(directory.join("Patient.ndjson"), patients).unwrap();
}

/// Plain files, packed, and packed in part with plain, gzip and zstd files beside.
fn forms(scratch: &Path) -> Vec<PathBuf> {
    let [plain, packed, mixed] = ["plain", "packed", "mixed"].map(|name| scratch.join(name));
    write_store(&plain);
    store_forms::packed(&plain, &packed, AS_OF);
    store_forms::mixed(&plain, &mixed, AS_OF);
    vec![plain, packed, mixed]
}

/// A line with its URLs made absolute, by serde_json's text: the members keep their order.
fn expected(line: &[u8]) -> String {
    let mut resource: Value = serde_json::from_slice(line).unwrap();
    let id = resource["id"].as_str().unwrap().trim_start_matches('d').to_string();
    let n: usize = id.parse().unwrap();
    if let Some(photo) = resource.pointer_mut("/photo/0/url") {
        *photo = format!("{BASE}/attachment/p{n}").into();
    }
    if let Some(url) = resource.pointer_mut("/content/0/attachment/url").filter(|_| n % 50 != 3) {
        *url = format!("{BASE}/attachment/b{n}?v={n}").into();
    }
    serde_json::to_string(&resource).unwrap()
}

fn compact(line: &[u8]) -> String {
    serde_json::from_slice::<Value>(line).unwrap().to_string()
}

/// ATTACH-01, ATTACH-02, ATTACH-04, FILE-12: every form of the store and every compression, alone and with `--elements`; `verify` finds
/// the same lines, and a file that was changed.
#[test]
fn urls_become_absolute_below_the_base() {
    let scratch = scratch();
    for (f, form) in forms(scratch.path()).iter().enumerate() {
        let index = scratch.path().join(format!("index-{f}"));
        let own = ["--index-dir", index.to_str().unwrap(), "--as-of", AS_OF, "--force", "--system"];
        let export = |name: &str, more: &[&str]| {
            let out = scratch.path().join(name);
            let run = run::export(form, &out, &[&own[..], more].concat());
            assert!(run.code <= 1, "{run:#?}");
            (Export::read(&out, Bounds { file_resources: 50, ..Bounds::DEFAULT }), out)
        };
        let bounds = ["--max-file-resources", "50"];
        let (plain, _) = export("plain-out", &bounds);
        for compression in ["none", "gzip", "zstd"] {
            for elements in [None, Some("DocumentReference.content,Patient.photo")] {
                let mut more = [&bounds[..], &["--base-url", BASE, "--compress", compression]].concat();
                more.extend(elements.iter().flat_map(|list| ["--elements", list]));
                let (absolute, out) = export("absolute-out", &more);
                let (before, after) = (plain.lines(), absolute.lines());
                assert!(before.keys().eq(after.keys()));
                for of_type in ["DocumentReference", "Patient"] {
                    assert_eq!(before[of_type].len(), after[of_type].len());
                    for (line, found) in before[of_type].iter().zip(&after[of_type]) {
                        let row: Value = serde_json::from_slice(found).unwrap();
                        if let Some(of_row) = row.pointer("/content/0/attachment") {
                            let has_content = of_row["url"].is_string() != of_row["data"].is_string();
                            assert!(of_row["contentType"].is_string() && has_content, "ATTACH-01");
                        }
                        if elements.is_none() {
                            assert_eq!(expected(line), compact(found));
                        } else {
                            let url = |text: &str| {
                                let value: Value = serde_json::from_str(text).unwrap();
                                [
                                    value.pointer("/photo/0/url").cloned(),
                                    value.pointer("/content/0/attachment/url").cloned(),
                                ]
                            };
                            assert_eq!(url(&expected(line)), url(&compact(found)));
                            assert!(compact(found).contains("SUBSETTED"));
                        }
                    }
                }
                assert!(elements.is_some() || before["Binary"] == after["Binary"], "others stay, byte for byte");
                let warned = absolute.messages().iter().any(|message| message.text.contains("3 attachment URLs"));
                assert!(warned, "{:?}", absolute.messages());
                let verify =
                    |out: &Path| run::run(&["verify", out.to_str().unwrap(), "--progress", "never", "--ledger"]);
                let verified = verify(&out);
                assert_eq!(verified.code, 0, "{verified:#?}");
            }
        }
        // The same bytes from one thread and from several.
        let threads = |n: &str| {
            let out = scratch.path().join("threads");
            let more = ["--base-url", BASE, "--compress", "zstd", "--max-file-bytes", "20kB", "--threads", n];
            assert!(run::export(form, &out, &[&own[..], &more].concat()).code <= 1);
            run::snapshot(&out)
        };
        assert!(threads("1") == threads("3"));
    }
}

/// ATTACH-02: without a base nothing changes, and one message has the count; `verify` takes the record of either.
#[test]
fn without_a_base_urls_stay_and_are_counted() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store);
    let out = scratch.path().join("out");
    let filter = ["--all-patients", "--type", "DocumentReference", "--as-of", AS_OF];
    let run = run::export(&store, &out, &filter);
    assert_eq!(run.code, 0, "{run:#?}");
    let export = Export::read(&out, Bounds::DEFAULT);
    let stored = std::fs::read(store.join("DocumentReference.ndjson")).unwrap();
    let lines: Vec<Vec<u8>> =
        stored.split_inclusive(|byte| *byte == b'\n').map(|line| line.trim_ascii_end().to_vec()).collect();
    assert!(export.lines()["DocumentReference"] == lines);
    let told: Vec<String> = export
        .messages()
        .iter()
        .map(|message| message.text.clone())
        .filter(|text| text.contains("attachment"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("96 attachment URLs of exported resources are relative") && told[0].contains("--base-url"),
        "{told:?}"
    );
    let verified = run::run(&["verify", out.to_str().unwrap(), "--progress", "never", "--ledger"]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    // Of a store without attachments nothing is said, and the plan states what a run would write at most.
    let quiet = scratch.path().join("quiet");
    assert_eq!(run::export(&store, &quiet, &["--all-patients", "--type", "Observation", "--as-of", AS_OF]).code, 0);
    assert!(!quiet.join("error").exists());
}

/// ATTACH-02, CLI-04: a run that is taken up again has the same bytes, and another base is refused by its name.
#[test]
fn a_run_is_resumed_with_its_base() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    write_store(&store);
    let out = scratch.path().join("out");
    let request = ["--system", "--as-of", AS_OF, "--max-file-resources", "30", "--base-url", BASE];
    assert!(run::export(&store, &out, &request).code <= 1);
    let whole = run::snapshot(&out);
    // As a run leaves it that was stopped: without manifest, and without the last files.
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let journal = out.join(".outpour-job");
    let finished = std::fs::read_dir(&journal).unwrap().flatten().map(|entry| entry.path());
    let list = finished
        .into_iter()
        .find(|path| {
            !path.ends_with("plan.json")
                && path.metadata().unwrap().len() > 0
                && path.extension().is_some_and(|of| of != "lock")
        })
        .unwrap();
    let text = std::fs::read_to_string(&list).unwrap();
    let half: Vec<&str> = text.split_inclusive('\n').take(6).collect();
    std::fs::write(&list, half.concat()).unwrap();
    let other = [&request[..6], &["--base-url", "https://other.example.org/", "--resume"]].concat();
    run::export(&store, &out, &other).refused(2, &["--base-url"]);
    let run = run::export(&store, &out, &[&request[..], &["--resume"]].concat());
    assert!(run.code <= 1, "{run:#?}");
    let again = run::snapshot(&out);
    for (name, bytes) in whole.iter().filter(|(name, _)| name.ends_with(".ndjson")) {
        assert!(again[name] == *bytes, "{name}");
    }
}
