//! Exports over HTTP and on the command line write the same bytes for the same snapshot, request and policies.

use std::collections::BTreeMap;

use super::job_lifecycle::{accepted, bundled, ended, files};
use crate::run::{Bounds, Export, decode, run, scratch, testdata};

/// DIALECT-05, CONS-09, FILE-18, MANIFEST-18: files are equal at each level, with and without `_since`, in each
/// compression.
#[test]
fn the_command_line_and_http_write_the_same_files() {
    for (compression, threads) in [("none", "1"), ("gzip", "2"), ("zstd", "2")] {
        let scratch = scratch();
        let config = format!("[files]\ncompress = '{compression}'\nmax_bytes = 100000\n");
        std::fs::write(scratch.path().join("serve.toml"), config).unwrap();
        let server = bundled(scratch.path(), &["--config", "serve.toml"]);
        server.wait_until_ready();
        let client = server.client();
        let base = format!("http://{}/fhir", server.address);
        for (i, (target, words)) in [
            ("Group/ten/$export", "--group ten"),
            (
                "Group/ten/$export?_type=Condition,Patient&_since=2015-01-01T00:00:00Z",
                "--group ten --type Condition --type Patient --since 2015-01-01T00:00:00Z",
            ),
            ("Patient/$export?_type=Encounter", "--all-patients --type Encounter"),
            ("$export?_type=Organization,Practitioner", "--system --type Organization,Practitioner"),
        ]
        .into_iter()
        .enumerate()
        {
            let status = accepted(&client, &server.fhir(target));
            let manifest = ended(&client, &status).json();
            let mut served = BTreeMap::new();
            for (_, path, _) in files(&client, &manifest) {
                let file = client.ask("GET", &path, &[("Accept-Encoding", compression)], b"");
                assert_eq!(file.header("content-encoding").unwrap_or("none"), compression);
                let name = file.header("content-disposition").unwrap().split('"').nth(1).unwrap().to_string();
                assert!(served.insert(name, file.body).is_none());
            }
            let out = scratch.path().join(format!("out{i}"));
            let (store, t) = (testdata("stores/synthea-r4-100"), manifest["transactionTime"].as_str().unwrap());
            let mut all =
                vec!["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--as-of", t];
            let index = scratch.path().join("index");
            all.extend(["--index-dir", index.to_str().unwrap(), "--members", "active", "--fhir-base", &base]);
            all.extend(["--context", "referenced"]);
            all.extend(["--compress", compression, "--max-file-bytes", "100000", "--threads", threads]);
            all.extend(words.split(' '));
            let done = run(&all);
            assert_eq!(done.code, 0, "{done:?}");
            let mut written = BTreeMap::new();
            // The operator is told more by one message: two files beside the data are not read.
            let export = Export::read(&out, Bounds { file_bytes: 100_000, ..Bounds::DEFAULT });
            let told: Vec<String> = export.messages().into_iter().map(|message| message.text).collect();
            let (more, told): (Vec<String>, Vec<String>) =
                told.into_iter().partition(|text| text.contains("2 files of the store not read"));
            assert_eq!(more.len(), 1, "{target}");
            let is_message = |name: &str| name.starts_with("OperationOutcome");
            let name = match compression {
                "gzip" => "m.gz",
                "zstd" => "m.zst",
                _ => "m",
            };
            let texts: String = served
                .iter()
                .filter(|(name, _)| is_message(name))
                .map(|(_, body)| String::from_utf8(decode(name, body)).unwrap())
                .collect();
            assert_eq!(texts.lines().count(), told.len(), "{target}: {texts}");
            served.retain(|name, _| !is_message(name));
            for folder in ["", "deleted"] {
                for entry in std::fs::read_dir(out.join(folder)).into_iter().flatten().flatten() {
                    let name = entry.file_name().into_string().unwrap();
                    if name.contains(".ndjson") {
                        written.insert(name, std::fs::read(entry.path()).unwrap());
                    }
                }
            }
            assert!(!written.is_empty());
            assert_eq!(served.keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>(), "{target} {compression}");
            assert!(served == written, "{target} {compression}");
        }
    }
}
