//! Groups whose members filters choose (`member-filter`), over HTTP: who may write them, whom they reach, and who may export them.

use serde_json::Value;

use super::bound::{export, group, put, serve};
use super::{IG, MTE_DEFAULT, NETSMART, STE, ended, kick_off};
use crate::http::credentials::{Credential, client};
use crate::member_filters::MEMBER_FILTER;
use crate::run::scratch;

/// Patients a and b with a Condition x, b and c female; `women` is a Group of the store.
const STORE: &str = r#"{"resourceType":"Patient","id":"a","gender":"male"}
{"resourceType":"Patient","id":"b","gender":"female"}
{"resourceType":"Patient","id":"c","gender":"female"}
{"resourceType":"Condition","id":"1","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/a"}}
{"resourceType":"Condition","id":"2","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/b"}}
{"resourceType":"Group","id":"two","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}},{"entity":{"reference":"Patient/c"}}]}
"#;

/// A Group with filters; `more` are its other elements, after a comma.
fn filtered(id: &str, filters: &[&str], is_actual: bool, more: &str) -> String {
    let filters: Vec<String> = filters
        .iter()
        .map(|text| {
            format!(
                r#"{{"url":"{MEMBER_FILTER}","valueExpression":{{"language":"application/x-fhir-query","expression":"{text}"}}}}"#
            )
        })
        .collect();
    let filters = filters.join(",");
    format!(
        r#"{{"resourceType":"Group","id":"{id}","name":"filtered","type":"person","actual":{is_actual},"modifierExtension":[{filters}]{more}}}"#
    )
}

/// Elements that list these patients.
fn members(ids: &[&str]) -> String {
    let listed: Vec<String> = ids.iter().map(|id| format!(r#"{{"entity":{{"reference":"Patient/{id}"}}}}"#)).collect();
    format!(r#","member":[{}]"#, listed.join(","))
}

/// Answers a kick-off that must be refused.
#[track_caller]
fn refusal(http: &crate::http::client::Client, who: &Credential, target: &str, status: u16, code: &str) -> String {
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    who.ask(http, "GET", target, &headers).outcome(status, code)
}

/// COHORT-02, COHORT-03, COHORT-04, COHORT-06: a Group with filters is created and exported on the mounts of the IG and Netsmart, kept
/// as it was sent; one that cannot be evaluated is 422, every problem at once and with no value, neither in answers nor the log;
/// 1upHealth's mounts go on refusing.
#[test]
fn filtered_groups_are_created_and_exported() {
    let scratch = scratch();
    let full = Credential::token(&[]);
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    let women = filtered("women", &["Patient?gender=female"], false, "");
    std::fs::write(scratch.path().join("store/x.ndjson"), format!("{STORE}{women}\n")).unwrap();
    let extra = "[oneup_ste]\ngroups_writable = true\n";
    let server = serve(scratch.path(), &(extra.to_string() + &client("full", "writes_groups = true", &[&full])));
    let http = server.client();
    let body = filtered("g", &["Patient?gender=female", "Condition?code=x"], false, "");
    assert_eq!(put(&http, &full, "g", &body).status, 201);
    let read = full.get(&http, "/fhir/Group/g").json();
    assert_eq!(read["modifierExtension"], serde_json::from_str::<Value>(&body).unwrap()["modifierExtension"]);
    assert!(!read.to_string().contains("members-refreshed"));
    let among = filtered("m", &["Condition?code=x"], true, &members(&["a", "c"]));
    assert_eq!(put(&http, &full, "m", &among).status, 201);
    for mount in [IG, NETSMART] {
        for (id, patients) in [("g", &["Patient/b"][..]), ("m", &["Patient/a"]), ("women", &["Patient/b", "Patient/c"])]
        {
            assert_eq!(export(&http, &full, &format!("{mount}/Group/{id}/$export")).0, patients, "{mount} {id}");
        }
    }
    for mount in [STE, MTE_DEFAULT] {
        for id in ["g", "women"] {
            let told = refusal(&http, &full, &format!("{mount}/Group/{id}/$export"), 400, "not-supported");
            assert!(told.contains(MEMBER_FILTER), "{told}");
        }
    }
    let mut headers = vec![("Content-Type", "application/fhir+json")];
    headers.extend(full.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let created = |target: &str, body: &str| http.ask("POST", target, &headers, body.as_bytes());
    assert_eq!(created("/fhir/Group", &body).status, 201);
    let told = created(&format!("{STE}/Group"), &among).outcome(422, "not-supported");
    assert!(told.contains(MEMBER_FILTER), "{told}");
    let wrong = filtered(
        "w",
        &["Condition?nope=SECRET&_sort=SECRET", "Organization?name=SECRET"],
        true,
        r#","extension":[{"url":"http://hl7.org/fhir/uv/bulkdata/StructureDefinition/members-refreshed","valueDateTime":"2024-01-01"}]"#,
    );
    for answer in [created("/fhir/Group", &wrong), put(&http, &full, "w", &wrong)] {
        let told = answer.outcome(422, "not-supported");
        for part in ["Condition?nope", "Condition?_sort", "type Organization", "Group.actual", "members-refreshed"] {
            assert!(answer.text().contains(part), "{part} {}", answer.text());
        }
        assert!(!told.contains("SECRET") && !answer.text().contains("SECRET"), "{told}");
    }
    // Whoever comes to meet the filters is in the next export, a version that came after a kick-off not in that one.
    let status = kick_off(&http, &full, &format!("{NETSMART}/Group/women/$export"));
    let done = ended(&http, &full, &status).json();
    assert!(!done.to_string().contains("female"), "{done}");
    let newer =
        r#"{"resourceType":"Patient","id":"a","gender":"female","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}"#;
    std::fs::write(scratch.path().join("store/y.ndjson"), format!("{newer}\n")).unwrap();
    let women = export(&http, &full, "/fhir/Group/women/$export").0;
    assert_eq!(women, ["Patient/a", "Patient/b", "Patient/c"]);
    assert!(!server.log().contains("SECRET") && !server.log().contains("gender"), "{}", server.log());
}

/// COHORT-05, GROUP-03, reading 37: what filters search must be among the types of who writes the Group and of who exports it, by the
/// configuration at kick-off; 403 names the type. A Group without a recorded writer is refused, and finished exports are, once the
/// type is taken away.
#[test]
fn filters_need_the_right_to_their_types() {
    let scratch = scratch();
    let [full, writer, reader, bound] = [(); 4].map(|()| Credential::token(&[]));
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    let store = filtered("ill", &["Condition?code=x"], false, "");
    std::fs::write(scratch.path().join("store/x.ndjson"), format!("{STORE}{store}\n")).unwrap();
    let clients = |types_of_writer: &str| {
        client("full", "writes_groups = true", &[&full])
            + &client("writer", &format!("writes_groups = true\n{types_of_writer}"), &[&writer])
            + &client("reader", "types = ['Patient']", &[&reader])
            + &client("bound", "levels = ['group']\ntypes = ['Patient']\ngroups = ['ill']", &[&bound])
    };
    let server = serve(scratch.path(), &clients("types = ['Patient', 'Condition']"));
    let http = server.client();
    let body = filtered("g", &["Condition?code=x"], false, "");
    assert_eq!(put(&http, &writer, "g", &body).status, 201);
    let told =
        put(&http, &writer, "h", &filtered("h", &["Encounter?status=finished"], false, "")).outcome(403, "forbidden");
    assert!(told.contains("member-filter of Encounter"), "{told}");
    for (id, who) in [("g", &reader), ("ill", &reader), ("ill", &bound)] {
        let told = refusal(&http, who, &format!("/fhir/Group/{id}/$export"), 403, "forbidden");
        assert!(told.contains("member-filter of Condition, which this client may not export"), "{told}");
    }
    assert_eq!(export(&http, &full, "/fhir/Group/g/$export").0, ["Patient/a", "Patient/b"]);
    assert_eq!(put(&http, &full, "own", &filtered("own", &["Patient?gender=female"], false, "")).status, 201);
    assert_eq!(export(&http, &reader, "/fhir/Group/own/$export").0, ["Patient/b", "Patient/c"]);
    let status = kick_off(&http, &writer, &format!("{NETSMART}/Group/g/$export?_type=Patient"));
    assert_eq!(ended(&http, &writer, &status).status, 200);
    server.kill();
    // The writer may export Conditions no more.
    let server = serve(scratch.path(), &clients("types = ['Patient']"));
    let http = server.client();
    let told = refusal(&http, &full, "/fhir/Group/g/$export", 403, "forbidden");
    assert!(told.contains("member-filter of Condition, which its writer may not export"), "{told}");
    let told = writer.get(&http, &status).outcome(403, "forbidden");
    assert!(told.contains("searches Condition"), "{told}");
    server.kill();
    // Nobody knows who wrote it.
    let file = find(scratch.path(), "own");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{}\n", text.lines().next().unwrap())).unwrap();
    let server = serve(scratch.path(), &clients("types = ['Patient']"));
    let told = refusal(&server.client(), &full, "/fhir/Group/own/$export", 403, "forbidden");
    assert!(told.contains("who wrote this version is not recorded"), "{told}");
}

/// The file of a Group of the service.
fn find(directory: &std::path::Path, id: &str) -> std::path::PathBuf {
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => waiting.push(path),
                path if path.file_stem().is_some_and(|stem| stem == id) => return path,
                _ => {}
            }
        }
    }
    panic!("no file of Group/{id}");
}

/// COHORT-05, GROUP-03, reading 37: without members the filters of a bound client's Group choose among the members of its Groups, whoever
/// exports it; where it may name anybody, that is refused. A filtered Group gives a bound client nobody to name.
#[test]
fn a_bound_writers_filters_reach_no_more_than_it() {
    let scratch = scratch();
    let [full, bound, free, third] = [(); 4].map(|()| Credential::token(&[]));
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    let women = filtered("women", &["Patient?gender=female"], false, "");
    std::fs::write(scratch.path().join("store/x.ndjson"), format!("{STORE}{women}\n")).unwrap();
    let of = |groups: &str| format!("levels = ['group']\nwrites_groups = true\n{groups}");
    let clients = client("full", "writes_groups = true", &[&full])
        + &client("bound", &of("groups = ['own1', 'two']"), &[&bound])
        + &client("free", &of("groups = ['own2']\npatients = 'any'"), &[&free])
        + &client("third", &of("groups = ['own3', 'women']"), &[&third]);
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    let any = |id: &str| filtered(id, &["Patient?gender=female"], false, "");
    assert_eq!(put(&http, &bound, "own1", &any("own1")).status, 201);
    for who in [&bound, &full] {
        assert_eq!(export(&http, who, "/fhir/Group/own1/$export").0, ["Patient/c"]);
    }
    assert_eq!(
        put(&http, &bound, "own1", &filtered("own1", &["Condition?code=x"], true, &members(&["a", "b"]))).status,
        200
    );
    assert_eq!(export(&http, &full, "/fhir/Group/own1/$export").0, ["Patient/a"]);
    assert_eq!(put(&http, &free, "own2", &any("own2")).status, 201);
    for who in [&free, &full] {
        let told = refusal(&http, who, "/fhir/Group/own2/$export", 403, "forbidden");
        assert!(told.contains("list the members to choose from"), "{told}");
    }
    let listed = filtered("own2", &["Patient?gender=female"], true, &members(&["a", "b"]));
    assert_eq!(put(&http, &free, "own2", &listed).status, 200);
    assert_eq!(export(&http, &free, "/fhir/Group/own2/$export").0, ["Patient/b"]);
    assert_eq!(put(&http, &third, "own3", &group("own3", &["Patient/b", "Patient/c"])).status, 201);
    assert_eq!(export(&http, &third, "/fhir/Group/own3/$export").0, [""; 0]);
    assert_eq!(put(&http, &full, "own3", &any("own3")).status, 200);
    assert_eq!(
        export(&http, &third, "/fhir/Group/own3/$export").0,
        ["Patient/b", "Patient/c"],
        "an unbound client wrote it"
    );
}
