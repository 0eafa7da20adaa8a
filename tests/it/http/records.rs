//! Foreign records and files in the data directory: the service starts, names the records that it cannot read, serves
//! only files of its jobs, and removes only its own files.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::client::Answer;
use super::job_lifecycle::{accepted, bundled, ended, files};
use crate::run::scratch;

/// Id of the only job in the data directory.
fn only_job(data: &Path) -> String {
    let names = std::fs::read_dir(data.join("jobs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut ids = names.filter_map(|name| name.to_str().unwrap().strip_suffix(".json").map(str::to_string));
    ids.next().expect("a job")
}

/// A response as text, without the port of the service.
fn without_port(answer: &Answer) -> String {
    let mut parts = Vec::new();
    for part in answer.text().split("127.0.0.1:") {
        parts.push(part.trim_start_matches(|character: char| character.is_ascii_digit()).to_string());
    }
    parts.concat()
}

/// FILE-20, STATUS-15, EXPIRE-03: files named by a foreign record are neither served nor removed.
#[test]
fn foreign_records_are_not_trusted() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\npolls_burst = 1000\n").unwrap();
    std::fs::write(scratch.path().join("secret"), "secret\n").unwrap();
    let start = || bundled(scratch.path(), &["--config", "serve.toml"]);
    let (status, good, id) = {
        let server = start();
        server.wait_until_ready();
        let client = server.client();
        let status = accepted(&client, &server.fhir("Group/ten/$export?_type=Patient"));
        let good = ended(&client, &status);
        assert_eq!(good.status, 200);
        let listed: Vec<String> = files(&client, &good.json()).into_iter().map(|(_, path, _)| path).collect();
        (status, (without_port(&good), listed), only_job(&data))
    };
    let (good, listed) = good;
    let place = data.join("jobs").join(format!("{id}.json"));
    let text = std::fs::read_to_string(&place).unwrap();
    // Without a checksum, as written by an earlier version; equal to a record with a forged checksum.
    let unsealed = text.rsplit_once(r#","sum""#).map_or(text.clone(), |(record, _)| format!("{record}}}"));
    let file = |name: &str| unsealed.replace("Patient.00001.ndjson", name);
    let other = "f".repeat(32);
    let cases = [
        (format!("{id}.json"), file("../../../../secret")),
        (format!("{id}.json"), file(scratch.path().join("secret").to_str().unwrap())),
        (format!("{id}.json"), file("manifest.json")),
        (format!("{id}.json"), text.replacen(r#""count":1"#, r#""count":2"#, 1)),
        (format!("{id}.json"), unsealed.replace(r#""accepted":"2"#, r#""accepted":"x"#)),
        (format!("{id}.json"), unsealed.replace(r#""transactionTime":"2"#, r#""transactionTime":"x"#)),
        (format!("{id}.json"), unsealed.replace(r#""state":"complete""#, r#""state":"running""#)),
        (format!("{id}.json"), "\0".repeat(100)),
        // Two records with the same file id: one of them is wrong.
        (format!("{other}.json"), unsealed.replace(&id, &other)),
        // Due for removal.
        ("...json".to_string(), unsealed.replace(&id, "..").replace(r#""expires":"2"#, r#""expires":"1"#)),
    ];
    for (name, content) in cases {
        let changed = data.join("jobs").join(&name);
        std::fs::write(&changed, &content).unwrap();
        let server = start();
        let client = server.client();
        let own = changed == place;
        let stem = name.strip_suffix(".json").unwrap();
        assert!(server.log().contains("cannot be read") && server.log().contains(stem), "{name}: {}", server.log());
        assert!(!server.log().contains("secret"), "{}", server.log());
        match own {
            true => drop(client.get(&status).outcome(404, "not-found")),
            false => assert_eq!(without_port(&ended(&client, &status)), good, "{name}"),
        }
        for path in &listed {
            assert_eq!(client.get(path).status, if own { 404 } else { 200 }, "{name}");
        }
        assert!(data.join("files").join(&id).join("out/Patient.00001.ndjson").is_file(), "{name}");
        drop(server);
        assert_eq!(std::fs::read_to_string(&changed).unwrap(), content, "it is left as it is");
        std::fs::remove_file(&changed).unwrap();
        std::fs::write(&place, &text).unwrap();
    }
    // A record that is valid but odd is answered.
    for (from, to) in [
        (r#""transactionTime":"2"#, r#""transactionTime":"0"#),
        (r#""ended":"2"#, r#""ended":"0"#),
        (r#""ended":"2"#, r#""ended":"9"#),
        (r#""expires":"2"#, r#""expires":"9"#),
        (r#""extension":{"#, r#""extension":{"":null,"x\u0000":[[[{}]]],"#),
        (r#""url":"http"#, r#""url":"\u0000\r\nX: y"#),
    ] {
        let odd = unsealed.replacen(from, to, 1);
        assert_ne!(odd, unsealed, "{from}");
        std::fs::write(&place, odd).unwrap();
        let server = start();
        let client = server.client();
        assert_eq!(ended(&client, &status).status, 200, "{to}");
        for path in &listed {
            assert_eq!(client.get(path).status, 200, "{to}");
        }
        assert!(!server.log().contains("panicked"), "{to}: {}", server.log());
    }
    std::fs::write(&place, &text).unwrap();
    // With the original record restored, the job is served again.
    let server = start();
    assert_eq!(without_port(&ended(&server.client(), &status)), good);
    assert_eq!(std::fs::read_to_string(scratch.path().join("secret")).unwrap(), "secret\n");
}

/// FILE-11: a link, pipe or directory in place of a file, its directory or the job's directory is answered 500 at once,
/// and the target of the link is not sent; a link to the data directory itself is followed.
#[test]
fn links_in_the_data_directory_are_not_followed() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\npolls_burst = 1000\n").unwrap();
    std::fs::create_dir(scratch.path().join("volume")).unwrap();
    symlink(scratch.path().join("volume"), scratch.path().join("data")).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let status = accepted(&client, &server.fhir("Group/ten/$export?_type=Patient"));
    let manifest = ended(&client, &status).json();
    let (_, path, _) = files(&client, &manifest).remove(0);
    let whole = client.get(&path);
    assert_eq!(whole.status, 200);
    let data = scratch.path().join("data");
    let job = data.join("files").join(only_job(&data));
    let (out, file) = (job.join("out"), job.join("out/Patient.00001.ndjson"));
    let outside = scratch.path().join("outside");
    for stands in [&file, &out, &job] {
        std::fs::rename(stands, &outside).unwrap();
        symlink(&outside, stands).unwrap();
        client.get(&path).outcome(500, "exception");
        std::fs::remove_file(stands).unwrap();
        std::fs::rename(&outside, stands).unwrap();
        assert_eq!(client.get(&path).body, whole.body);
    }
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    client.get(&path).outcome(500, "exception");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    client.get(&path).outcome(500, "exception");
    assert!(!client.get(&path).text().contains("data"), "no path of the host");
    client.ask("DELETE", &status, &[], b"").outcome(202, "informational");
    for _ in 0..200 {
        if !job.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the job's directory stays");
}
