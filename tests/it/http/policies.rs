//! Policies of a request over HTTP as on the command line: who must be there, what is left out, what is passed over.

use super::job_lifecycle::{accepted, ended};
use super::post::{HEADERS, lines, messages, parameters, post};
use super::server::Server;
use crate::run::{run, scratch};
use serde_json::Value;

/// PATIENT-05: where a mount is strict, a patient who is not in the Group and one who is not known refuse the kick-off in the
/// same words, all at once; the command line does the same with a flag. Who is read in while the kick-off waits is there.
#[test]
fn strict_mounts_refuse_patients_who_are_not_there() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[ig]\nstrict_patients = true\nfirst_poll_in_progress = false\n")
        .unwrap();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let patient = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    let group = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;
    std::fs::write(store.join("rows.ndjson"), format!("{}{}{group}\n", patient("a"), patient("b"))).unwrap();
    let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start(scratch.path(), &words);
    server.wait_until_ready();
    let client = server.client();
    let of = |ids: &[&str]| {
        let entry = |id: &&str| format!(r#"{{"name":"patient","valueReference":{{"reference":"Patient/{id}"}}}}"#);
        parameters(&ids.iter().map(entry).collect::<Vec<_>>().join(","))
    };
    let jobs = || scratch.path().join("data/jobs").read_dir().unwrap().count();
    let before = jobs();
    for prefer in ["respond-async", "respond-async, handling=lenient"] {
        let headers = [HEADERS[0], ("Prefer", prefer), HEADERS[2]];
        let refused = client.ask("POST", "/fhir/Group/g/$export", &headers, of(&["b", "a", "nobody"]).as_bytes());
        assert_eq!(refused.status, 400);
        let refused = refused.json();
        let issues = refused["issue"].as_array().unwrap();
        let texts: Vec<&str> = issues.iter().map(|issue| issue["diagnostics"].as_str().unwrap()).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[0].replace("Patient/b", "Patient/nobody"), texts[1]);
        assert!(issues.iter().all(|issue| issue["code"] == "not-found" && issue["expression"][0] == "http.patient"));
    }
    assert_eq!(jobs(), before);
    post(&client, "Patient/$export", &of(&["b", "nobody"])).outcome(400, "not-found");
    let manifest = ended(&client, &accepted(&client, &post(&client, "Patient/$export", &of(&["b"])))).json();
    assert_eq!(lines(&client, &manifest)["Patient.00001.ndjson"], patient("b").as_bytes());
    // A Group made through the service.
    let made = client.ask("POST", "/fhir/Group", &HEADERS, group.replace("Patient/a", "Patient/b").as_bytes());
    let id = made.json()["id"].as_str().unwrap().to_string();
    let path = format!("Group/{id}/$export");
    post(&client, &path, &of(&["a"])).outcome(400, "not-found");
    accepted(&client, &post(&client, &path, &of(&["b"])));
    // One who has come since the index was made.
    std::fs::write(store.join("more.ndjson"), patient("c")).unwrap();
    let manifest = ended(&client, &accepted(&client, &post(&client, "Patient/$export", &of(&["c"])))).json();
    assert_eq!(lines(&client, &manifest)["Patient.00001.ndjson"], patient("c").as_bytes());
    let (store, out) = (store.to_str().unwrap(), scratch.path().join("out"));
    let export =
        ["export", "--store", store, "--out", out.to_str().unwrap(), "--group", "g", "--patient", "a,b,nobody"];
    let refused = run(&[&export[..], &["--strict-patients"]].concat());
    refused.refused(2, &["--patient: Patient/b, who", "--patient: Patient/nobody, who"]);
    assert_eq!(run(&export).code, 0);
    run(&["export", "--store", store, "--out", "x", "--all-patients", "--strict-patients"]).refused(2, &["--patient"]);
    assert_eq!(server.stop(), Some(0));
}

/// PATIENT-04, COMP-05: what is in the records of a listed patient and of another is exported, and with `patient_strict = "all"`
/// left out: by rows, Provenances, deletions and associated Provenance; over HTTP as on the command line, by a recount, too.
#[test]
fn rows_of_several_patients_are_exported_or_left_out() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let meta = r#""meta":{"lastUpdated":"2020-01-01T00:00:00Z"}"#;
    let about = |id: &str, targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(|target| format!(r#"{{"reference":"{target}"}}"#)).collect();
        format!(r#"{{"resourceType":"Provenance","id":"{id}",{meta},"target":[{}]}}"#, targets.join(","))
    };
    let coverage = |id: &str, beneficiary: &str, subscriber: &str| {
        let to = |id: &str| format!(r#"{{"reference":"Patient/{id}"}}"#);
        let (beneficiary, subscriber) = (to(beneficiary), to(subscriber));
        format!(
            r#"{{"resourceType":"Coverage","id":"{id}",{meta},"beneficiary":{beneficiary},"subscriber":{subscriber}}}"#
        )
    };
    let deleted = |id: &str| {
        format!(
            r#"{{"resourceType":"Bundle","type":"batch","meta":{{"lastUpdated":"2021-01-01T00:00:00Z"}},"entry":[{{"request":{{"method":"DELETE","url":"Coverage/{id}"}}}}]}}"#
        )
    };
    let rows = [
        format!(r#"{{"resourceType":"Patient","id":"child",{meta}}}"#),
        format!(r#"{{"resourceType":"Patient","id":"parent",{meta}}}"#),
        coverage("own", "child", "child"),
        coverage("shared", "child", "parent"),
        coverage("elsewhere", "child", "http://elsewhere.example/Patient/x").replace("Patient/http", "http"),
        coverage("gone-own", "child", "child"),
        coverage("gone-shared", "child", "parent"),
        about("of-own", &["Coverage/own"]),
        about("of-both", &["Coverage/own", "Patient/parent"]),
        about("of-shared", &["Coverage/shared"]),
        about("of-of-both", &["Provenance/of-both"]),
        deleted("gone-own"),
        deleted("gone-shared"),
    ];
    std::fs::write(store.join("rows.ndjson"), rows.join("\n") + "\n").unwrap();
    let all = [
        "gone-own",
        "gone-shared",
        "child",
        "elsewhere",
        "own",
        "shared",
        "of-both",
        "of-of-both",
        "of-own",
        "of-shared",
    ];
    let strict = ["gone-own", "child", "elsewhere", "own", "of-own"];
    let body = parameters(r#"{"name":"patient","valueReference":{"reference":"Patient/child"}}"#);
    for (word, ids) in [("any", &all[..]), ("all", &strict[..])] {
        let toml = format!("[ig]\nfirst_poll_in_progress = false\npatient_strict = \"{word}\"\n");
        std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
        let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
        let server = Server::start(scratch.path(), &words);
        server.wait_until_ready();
        let client = server.client();
        for since in ["", "&_since=2019-01-01T00:00:00Z&includeAssociatedData=RelevantProvenanceResources"] {
            let path = format!("Patient/$export?_type=Patient,Coverage,Provenance{since}");
            let manifest = ended(&client, &accepted(&client, &post(&client, &path, &body))).json();
            let served = lines(&client, &manifest);
            let text = String::from_utf8(served.values().flatten().copied().collect()).unwrap();
            for id in all {
                // A Provenance of a Provenance is of no exported resource of another type.
                let is_there = ids.contains(&id) && (id != "of-of-both" || since.is_empty());
                let is_there = is_there && (!id.starts_with("gone") || !since.is_empty());
                let is_deleted = text.contains(&format!("\"url\":\"Coverage/{id}\""));
                let is_found = is_deleted || text.contains(&format!("\"id\":\"{id}\""));
                assert_eq!(is_there, is_found, "{word} {since} {id}: {text}");
            }
            let out = scratch.path().join(format!("{word}{}", since.len()));
            let out = out.to_str().unwrap();
            let as_of = manifest["transactionTime"].as_str().unwrap();
            let mut command = vec!["export", "--store", store.to_str().unwrap(), "--out", out, "--all-patients"];
            command.extend(["--patient", "child", "--patient-strict", word, "--as-of", as_of]);
            command.extend(["--type", "Patient,Coverage,Provenance"]);
            if !since.is_empty() {
                command.extend(["--since", "2019-01-01", "--include-associated-data", "RelevantProvenanceResources"]);
            }
            let done = run(&command);
            assert_eq!(done.code, 0, "{done:?}");
            for (name, body) in &served {
                let folder = if name.starts_with("Bundle") { "deleted" } else { "" };
                let path = std::path::Path::new(out).join(folder).join(name);
                assert!(std::fs::read(path).unwrap() == *body, "{word}: {name}");
            }
            let verified = run(&["verify", out, "--ledger"]);
            assert_eq!(verified.code, 0, "{verified:#?}");
        }
        assert_eq!(server.stop(), Some(0));
    }
    run(&["export", "--store", store.to_str().unwrap(), "--out", "x", "--all-patients", "--patient-strict", "all"])
        .refused(2, &["--patient"]);
}

/// HDR-05, HDR-06, HDR-07, TYPE-03, ELEM-05, ASSOC-07: what there is not is refused, or left out under lenient handling with a
/// message each, over HTTP and on the command line in the same words but for the names of parameters.
#[test]
fn lenient_handling_over_http_and_on_the_command_line() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("rows.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\",\"active\":true}\n").unwrap();
    std::fs::write(scratch.path().join("serve.toml"), "[ig]\nfirst_poll_in_progress = false\n").unwrap();
    let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start(scratch.path(), &words);
    server.wait_until_ready();
    let client = server.client();
    let lenient = [HEADERS[0], ("Prefer", "respond-async, handling=lenient")];
    let query = "Patient/$export?_type=Patient,Pateint&_elements=Patient.id,Patient.nmae&includeAssociatedData=Nope";
    let plain = |text: &str| {
        let names = ["--type", "--elements", "--include-associated-data"];
        let known = ["_type", "_elements", "includeAssociatedData"];
        names
            .iter()
            .zip(known)
            .fold(text.to_string(), |text, (flag, name)| text.replace(&format!("{flag}: "), &format!("{name}: ")))
    };
    let (store, out) = (store.to_str().unwrap(), scratch.path().join("out"));
    let out = out.to_str().unwrap();
    let mut command = vec!["export", "--store", store, "--out", out, "--all-patients", "--type", "Patient,Pateint"];
    command.extend(["--elements", "Patient.id,Patient.nmae", "--include-associated-data", "Nope"]);
    // Strict.
    let refused = server.fhir(query).json();
    let mut told: Vec<String> = refused["issue"]
        .as_array()
        .unwrap()
        .iter()
        .map(|issue| issue["diagnostics"].as_str().unwrap().to_string())
        .collect();
    let done = run(&command);
    done.refused(
        2,
        &["--type: \"Pateint\" is no R4 resource type; did you mean Patient", "--elements: ", "\"Nope\" is no set"],
    );
    let mut said: Vec<String> =
        done.said().lines().map(|line| plain(line.trim_start_matches("outpour: error: ").trim())).collect();
    said.retain(|line| told.contains(line));
    told.sort();
    said.sort();
    assert_eq!(told, said);
    assert_eq!(told.len(), 3);
    // Lenient.
    let manifest =
        ended(&client, &accepted(&client, &client.ask("GET", &format!("/fhir/{query}"), &lenient, b""))).json();
    let mut told = messages(&client, &manifest);
    let as_of = manifest["transactionTime"].as_str().unwrap();
    command.extend(["--lenient", "--as-of", as_of]);
    let done = run(&command);
    assert_eq!(done.code, 0, "{done:?}");
    let text = std::fs::read_to_string(scratch.path().join("out/error/OperationOutcome.00001.ndjson")).unwrap();
    let mut said: Vec<String> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["issue"][0]["diagnostics"].as_str().unwrap().to_string()
        })
        .collect();
    assert!(said.iter().any(|text| text == "--type: \"Pateint\" is no R4 resource type, and was left out"), "{said:?}");
    said.iter_mut().for_each(|text| *text = plain(text));
    told.sort();
    said.sort();
    assert_eq!((told.len(), &told), (3, &said));
    let served = lines(&client, &manifest);
    assert!(served["Patient.00001.ndjson"] == std::fs::read(scratch.path().join("out/Patient.00001.ndjson")).unwrap());
    // What it never passes over.
    for wrong in [
        &["--type", "Nope"][..],
        &["--type", "Organization"],
        &["--since", "soon"],
        &["--patient", "a b"],
        &["--elements", "Patient.nmae"],
    ] {
        let export = ["export", "--store", store, "--out", "x", "--all-patients", "--lenient"];
        let refused = run(&[&export[..], wrong].concat());
        refused.refused(2, &[wrong[0]]);
    }
    assert_eq!(server.stop(), Some(0));
}

/// HDR-07, KICK-05, PATIENT-02: the body of a GET, and a parameter whose name is a slip of one that narrows an export, are
/// refused under lenient handling, too; an empty body is none, and a mount without POST takes no notice of bodies.
#[test]
fn what_would_widen_an_export_is_not_passed_over() {
    let scratch = scratch();
    let server = super::job_lifecycle::bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let body = parameters(r#"{"name":"patient","valueReference":{"reference":"Patient/a"}}"#);
    for prefer in ["respond-async", "respond-async, handling=lenient"] {
        let headers = [HEADERS[0], ("Prefer", prefer), HEADERS[2]];
        let refused = client.ask("GET", "/fhir/Group/one/$export", &headers, body.as_bytes());
        let told = refused.outcome(400, "structure");
        assert!(told.contains("GET") && told.contains("POST"), "{told}");
        let slip = body.replace("\"patient\"", "\"patients\"");
        let refused = client.ask("POST", "/fhir/Group/one/$export", &headers, slip.as_bytes());
        assert!(refused.outcome(400, "not-supported").contains("did you mean patient?"));
        let vendor = client.ask("GET", "/uscore/v1/bulk-data/Group/one/$export", &headers, body.as_bytes());
        assert_eq!(vendor.status, 202, "{}", vendor.text());
        // Without an element, or with a preset whose name is a slip, records would be whole.
        let refused = client.ask("GET", "/fhir/Group/one/$export?_elements=Patient.nmae", &headers[..2], b"");
        assert!(refused.outcome(400, "not-supported").contains("nmae"));
    }
    let headers = [HEADERS[0], HEADERS[1], ("Content-Length", "0")];
    accepted(&client, &client.ask("GET", "/fhir/Group/one/$export", &headers, b""));
    assert_eq!(server.stop(), Some(0));
}

/// GROUP-06, PATIENT-04: an export of a Group that is restricted to patients names no other member, not one that is not there
/// either; without the restriction it does.
#[test]
fn restricted_exports_name_no_other_member() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let member = |reference: &str| format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#);
    let members =
        ["Patient/a", "Patient/absent", "Practitioner/doctor", "no reference", "http://elsewhere.example/Patient/z"];
    let members: Vec<String> = members.into_iter().map(member).collect();
    let rows = format!(
        "{{\"resourceType\":\"Patient\",\"id\":\"a\"}}\n{{\"resourceType\":\"Group\",\"id\":\"g\",\"type\":\"person\",\"actual\":true,\"member\":[{}]}}\n",
        members.join(",")
    );
    std::fs::write(store.join("rows.ndjson"), rows).unwrap();
    let names = ["absent", "doctor", "no reference", "elsewhere.example"];
    for (restriction, is_told) in [(&[][..], true), (&["--patient", "a,other"], false)] {
        let out = scratch.path().join(format!("out{is_told}"));
        let command = ["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--group", "g"];
        let done = run(&[&command[..], restriction].concat());
        assert_eq!(done.code, 0, "{done:?}");
        let said = std::fs::read_to_string(out.join("error/OperationOutcome.00001.ndjson")).unwrap() + &done.stderr;
        assert!(names.iter().all(|name| said.contains(name) == is_told), "{said}");
        assert_eq!(said.contains("Patient/other"), !is_told);
    }
}

/// ASSOC-04, ASSOC-09, MANIFEST-02: a preset that a mount declares sets what it says where the request does not; one that is not
/// declared is refused, or passed over with a message; the CapabilityStatement lists those that are.
#[test]
fn presets_set_what_they_say() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let rows = [
        r#"{"resourceType":"Patient","id":"a","active":true,"birthDate":"1970-01-01","generalPractitioner":[{"reference":"Practitioner/d"}]}"#,
        r#"{"resourceType":"Practitioner","id":"d","active":true}"#,
        r#"{"resourceType":"Provenance","id":"v","target":[{"reference":"Patient/a"}],"recorded":"2020-01-01T00:00:00Z"}"#,
    ];
    std::fs::write(store.join("rows.ndjson"), rows.join("\n") + "\n").unwrap();
    let toml = "[ig]\nfirst_poll_in_progress = false\ncontext = \"referenced\"\n[ig.presets._noContext]\n\
                description = \"Nothing from outside\"\ncontext = \"none\"\n[ig.presets._short]\n\
                description = \"Short.\"\nelements = [\"Patient.active\"]\nassociated = [\"RelevantProvenanceResources\"]\n\
                context = \"none\"\n[ig.presets._wide]\ndescription = \"Wide\"\ncontext = \"referenced\"\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start(scratch.path(), &words);
    server.wait_until_ready();
    let client = server.client();
    let exported = |query: &str| {
        let manifest = ended(&client, &accepted(&client, &server.fhir(&format!("Patient/$export{query}")))).json();
        assert_eq!(manifest["request"], format!("http://{}/fhir/Patient/$export{query}", server.address));
        let lines = lines(&client, &manifest);
        let text = String::from_utf8(lines.values().flatten().copied().collect()).unwrap();
        let has = |word: &str| text.contains(word);
        (has("Practitioner\",\"id"), has("\"active\":true"), has("birthDate"), has("\"id\":\"v\""))
    };
    let preset = "?includeAssociatedData=";
    for (query, found) in [
        (String::new(), (true, true, true, true)),
        (format!("{preset}_noContext"), (false, true, true, true)),
        (format!("{preset}_noContext&_type=Patient"), (false, true, true, false)),
        (format!("{preset}_short&_type=Patient"), (false, true, false, true)),
        (format!("{preset}_short,_wide"), (true, true, false, true)),
        (format!("{preset}_short&_elements=Patient.birthDate"), (false, false, true, true)),
        (format!("{preset}_short,LatestProvenanceResources&_type=Patient"), (false, true, false, true)),
    ] {
        assert_eq!(exported(&query), found, "{query}");
    }
    let told = server.fhir(&format!("Patient/$export{preset}_x,_short")).outcome(400, "not-supported");
    assert!(told.contains("\"_x\"") && told.contains("or _noContext or _short"), "{told}");
    let lenient = [HEADERS[0], ("Prefer", "respond-async, handling=lenient")];
    let passed = client.ask("GET", &format!("/fhir/Patient/$export{preset}_x"), &lenient, b"");
    let manifest = ended(&client, &accepted(&client, &passed)).json();
    assert!(messages(&client, &manifest).iter().any(|text| text.starts_with("includeAssociatedData: \"_x\"")));
    let statement = client.get("/fhir/metadata").text();
    for words in ["`_noContext`: Nothing from outside. It adds no supporting types.", "`_short`: Short. It"] {
        assert!(statement.contains(words), "{words}");
    }
    assert_eq!(server.stop(), Some(0));
}
