//! Clients bound to Groups, types or one patient: the reach of the Groups that they write, and what responses reveal to
//! them.

use std::path::Path;

use serde_json::Value;

use super::{IG, MTE_DEFAULT, NETSMART, STE, ended, kick_off, resources, start};
use crate::http::client::{Answer, Client};
use crate::http::credentials::{Credential, client};
use crate::http::server::Server;
use crate::run::scratch;

const MEMBER_FILTER: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";
const MOUNTS: [&str; 4] = [IG, NETSMART, STE, MTE_DEFAULT];

/// A store with patients a, b and c in the Group `all`, a in `one`, a faulty line, and a reference to another server.
const STORE: &str = r#"{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"b","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"c","meta":{"lastUpdated":"not a time"}}
{"resourceType":"Observation","id":"o-a","subject":{"reference":"Patient/a"}}
{"resourceType":"Observation","id":"o-b","subject":{"reference":"Patient/b"},"performer":[{"reference":"https://secret.example/r4/Patient/a"}]}
{"resourceType":"Observation","id":"o-x","subject":{"reference":"https://secret.example/r4/Patient/x"}}
{"resourceType":"Group","id":"all","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}},{"entity":{"reference":"Patient/b"}},{"entity":{"reference":"Patient/c"}}]}
{"resourceType":"Group","id":"one","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}
{"resourceType":"Group","id":"above","type":"person","actual":true,"member":[{"entity":{"reference":"Group/all"}}]}
{"resourceType":"Patient","id":
"#;

pub(super) fn group(id: &str, members: &[&str]) -> String {
    let members: Vec<String> =
        members.iter().map(|reference| format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#)).collect();
    format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true,"member":[{}]}}"#, members.join(","))
}

pub(super) fn put(http: &Client, who: &Credential, id: &str, body: &str) -> Answer {
    let mut headers = vec![("Content-Type", "application/fhir+json")];
    headers.extend(who.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    http.ask("PUT", &format!("/fhir/Group/{id}"), &headers, body.as_bytes())
}

/// Exported patients, messages, and manifest or list of files of an export.
#[track_caller]
pub(super) fn export(http: &Client, who: &Credential, target: &str) -> (Vec<String>, Vec<String>, Value) {
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    let requested = who.ask(http, "GET", target, &headers);
    assert_eq!(requested.status, 202, "{target}: {}", requested.text());
    let status = http.path(requested.header("content-location").unwrap()).to_string();
    // The first poll on the IG's mount is always answered 202.
    who.get(http, &status);
    let done = ended(http, who, &status);
    assert_eq!(done.status, 200, "{target}: {}", done.text());
    let manifest = done.json();
    let mut found = resources(http, who, &manifest);
    found.retain(|resource| resource.starts_with("Patient/"));
    let mut messages = Vec::new();
    for item in manifest["error"].as_array().into_iter().flatten() {
        let url = item.get("url").or(item.get("file")).unwrap().as_str().unwrap();
        let file = who.get(http, http.path(url));
        assert_eq!(file.status, 200, "{}", file.text());
        for line in file.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            messages.push(line["issue"][0]["diagnostics"].as_str().unwrap().to_string());
        }
    }
    (found, messages, manifest)
}

pub(super) fn serve(directory: &Path, clients: &str) -> Server {
    if !directory.join("store").is_dir() {
        std::fs::create_dir(directory.join("store")).unwrap();
        std::fs::write(directory.join("store/secret-name.ndjson"), STORE).unwrap();
    }
    let toml = format!("[limits]\npolls_burst = 100000\n[files]\nmax_resources = 0\n{clients}");
    std::fs::write(directory.join("serve.toml"), toml).unwrap();
    let server = start(directory);
    let ready = |_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        server.client().get("/health/ready").status == 200
    };
    assert!((0..6000).any(ready), "{}", server.log());
    server
}

/// GROUP-03: a Group written by a bound client reaches only Groups that the client may see and patients of these, by
/// the current configuration, for every client and mount that exports it; one written by an unrestricted client reaches
/// all. Hidden members are reported like unknown ones.
#[test]
fn a_bound_writer_reaches_no_more_than_it_sees() {
    let scratch = scratch();
    let [full, bound, free] = [(); 3].map(|()| Credential::token(&[]));
    let clients = |of_bound: &str| {
        client("full", "writes_groups = true", &[&full])
            + &client("bound", &format!("levels = ['group']\nwrites_groups = true\n{of_bound}"), &[&bound])
            + &client("free", "levels = ['group']\nwrites_groups = true\ngroups = ['own2']\npatients = 'any'", &[&free])
    };
    let server = serve(scratch.path(), &clients("groups = ['own1', 'one']"));
    let http = server.client();
    let own1 = group("own1", &["Group/all", "Group/nowhere", "Patient/a", "Patient/b", "Patient/nobody", "Group/one"]);
    assert_eq!(put(&http, &bound, "own1", &own1).status, 201);
    for mount in MOUNTS {
        for who in [&bound, &full] {
            let (patients, messages, _) = export(&http, who, &format!("{mount}/Group/own1/$export"));
            assert_eq!(patients, ["Patient/a"], "{mount}");
            let of = |needle: &str| -> Vec<String> {
                let found = messages.iter().filter(|message| message.contains(needle));
                found.map(|message| message.replace(needle, "*")).collect()
            };
            assert!(!of("Group/all").is_empty() && of("Group/all") == of("Group/nowhere"), "{mount} {messages:?}");
            assert!(!of("Patient/b").is_empty() && of("Patient/b") == of("Patient/nobody"), "{mount} {messages:?}");
        }
    }
    // A Group of the store that the client may see is followed, and so are the members of that Group.
    assert_eq!(put(&http, &free, "own2", &group("own2", &["Patient/b", "Group/all"])).status, 201);
    assert_eq!(export(&http, &free, "/fhir/Group/own2/$export").0, ["Patient/b"]);
    assert_eq!(put(&http, &full, "own1", &own1).status, 200);
    assert_eq!(export(&http, &bound, "/fhir/Group/own1/$export").0, ["Patient/a", "Patient/b", "Patient/c"]);
    // The members of a Group made by an unrestricted client may be listed, until a bound client writes the Group.
    assert_eq!(put(&http, &full, "one", &group("one", &["Patient/a", "Patient/b"])).status, 200);
    assert_eq!(put(&http, &bound, "own1", &own1).status, 200);
    assert_eq!(export(&http, &bound, "/fhir/Group/own1/$export").0, ["Patient/a", "Patient/b"]);
    assert_eq!(put(&http, &bound, "one", &group("one", &["Patient/c"])).status, 200);
    assert_eq!(export(&http, &bound, "/fhir/Group/own1/$export").0, [""; 0]);
    assert_eq!(export(&http, &bound, "/fhir/Group/one/$export").0, [""; 0]);
    assert_eq!(put(&http, &full, "one", &group("one", &["Patient/a"])).status, 200);
    server.kill();

    // The writer is known after a restart, and the new configuration decides.
    let server = serve(scratch.path(), &clients("groups = ['own1', 'above']"));
    let http = server.client();
    assert_eq!(export(&http, &full, "/fhir/Group/own1/$export").0, ["Patient/a", "Patient/b"], "'above' lists 'all'");
    server.kill();
    let server = serve(scratch.path(), &client("full", "writes_groups = true", &[&full]));
    let http = server.client();
    assert_eq!(export(&http, &full, "/fhir/Group/own1/$export").0, [""; 0], "its writer is no client any more");
    server.kill();

    // A version without a recorded writer reaches no Groups, with advice, and the patients that its possible writers
    // may list.
    let file = scratch.path().join("data/groups/own1.ndjson");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() == 2 && text.contains("bound"), "{text}");
    std::fs::write(&file, format!("{}\n", text.lines().next().unwrap())).unwrap();
    let server = serve(scratch.path(), &clients("groups = ['own1', 'above']"));
    let http = server.client();
    let (patients, messages, _) = export(&http, &full, "/fhir/Group/own1/$export");
    assert_eq!(patients, ["Patient/a", "Patient/b"]);
    assert!(messages.iter().any(|text| text.contains("Group/one") && text.contains("write the Group again")));
    server.kill();
    let server = serve(scratch.path(), &client("full", "writes_groups = true", &[&full]));
    let (patients, messages, _) = export(&server.client(), &full, "/fhir/Group/own1/$export");
    assert_eq!(patients, ["Patient/a", "Patient/b"], "no bound client may have written it");
    assert!(messages.iter().any(|text| text.contains("Group/all") && text.contains("write the Group again")));
}

/// GROUP-03: a configuration with a client that may write Groups but list no members is refused at start.
#[test]
fn a_writer_of_empty_groups_is_refused_at_start() {
    let scratch = scratch();
    let token = Credential::token(&[]);
    let of = |more: &str| client("bound", &format!("levels = ['group']\nwrites_groups = true\n{more}"), &[&token]);
    drop(serve(scratch.path(), &of("groups = ['own1', 'one']")));
    drop(serve(scratch.path(), &of("groups = ['own1']\npatients = 'any'")));
    for wrong in ["groups = ['own1']", "groups = ['own1']\npatients = 'of-groups'"] {
        std::fs::write(scratch.path().join("serve.toml"), of(wrong)).unwrap();
        let words = ["--store", "store", "--data", "data", "--config", "serve.toml"];
        let said = Server::try_start(scratch.path(), &words).err().expect("it does not start");
        assert!(said.contains("client bound") && said.contains("patients = \"any\""), "{said}");
    }
    std::fs::write(scratch.path().join("serve.toml"), client("a", "patients = 'any'", &[&token])).unwrap();
    let words = ["--store", "store", "--data", "data", "--config", "serve.toml"];
    let said = Server::try_start(scratch.path(), &words).err().expect("it does not start");
    assert!(said.contains("patients = \"any\" counts only"), "{said}");
}

/// OUTCOME-05, CONS-10, readings 10 and 24: a client bound to Groups or types gets no file name, fault, base URL or
/// ledger line that is not of its cohort and types; an unrestricted client and the log get them.
#[test]
fn a_bound_client_sees_only_its_own_issues() {
    let scratch = scratch();
    let [full, bound, typed] = [(); 3].map(|()| Credential::token(&[]));
    let user = Credential::token(&["--patient", "a"]);
    let clients = client("full", "", &[&full, &user])
        + &client("bound", "levels = ['group']\ngroups = ['one', 'all']", &[&bound])
        + &client("typed", "types = ['Patient', 'Observation']", &[&typed])
        + "[oneup_ste]\nstrict_dialect = false\n[oneup_mte]\nstrict_dialect = false\n[netsmart]\nstrict_dialect = false\n";
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    let ready = full.get(&http, "/health/ready").json();
    assert_eq!(ready["faultyLines"], 1, "{ready}");
    let mut requested = Vec::new();
    for mount in MOUNTS {
        requested
            .extend([(&bound, format!("{mount}/Group/one/$export")), (&bound, format!("{mount}/Group/all/$export"))]);
        requested.push((&typed, format!("{mount}/Group/all/$export")));
    }
    requested.push((&typed, format!("{IG}/$export")));
    requested.push((&user, format!("{STE}/$export")));
    for (who, target) in &requested {
        let (_, messages, manifest) = export(&http, who, target);
        let report = messages.join("\n");
        for secret in ["secret-name", "at byte", "no instant"] {
            assert!(!report.contains(secret) && !manifest.to_string().contains(secret), "{secret} {target}: {report}");
        }
        assert_eq!(
            report.matches("faulty lines of the store that were passed by: 1;").count(),
            1,
            "{target}: {report}"
        );
        // Patients of other servers are reported only if rows of the cohort refer to them.
        let says_foreign = target.contains("Group/all");
        assert_eq!(
            report.contains("1 reference to patients under the base https://secret.example/r4"),
            says_foreign,
            "{report}"
        );
        assert!(!report.contains("2 references"), "{report}");
        let root = &manifest["extension"]["urn:outpour:export:1"];
        let ledger = root["ledger"].as_object().unwrap_or_else(|| panic!("{target}: {manifest}"));
        let count = |class: &str| ledger[class].as_u64().unwrap();
        assert_eq!(ledger.len(), 3, "{ledger:?}");
        assert_eq!(count("lines"), count("sinceOrUntil") + count("exported"));
        assert!(root["policies"]["fhirBases"].is_null(), "{root}");
        assert!(!manifest.to_string().contains("/v1/default") || target.starts_with(MTE_DEFAULT), "{manifest}");
    }
    let (_, messages, manifest) = export(&http, &full, "/fhir/Group/all/$export");
    let reported = messages.join("\n");
    assert!(reported.contains("secret-name.ndjson: line 10 at byte"), "{reported}");
    assert!(reported.contains("1 reference to patients under the base https://secret.example/r4"), "{reported}");
    let root = &manifest["extension"]["urn:outpour:export:1"];
    assert_eq!((root["ledger"]["lines"].as_u64(), root["ledger"]["faulty"].as_u64()), (Some(10), Some(1)));
    assert!(root["policies"]["fhirBases"].to_string().contains(STE), "{root}");
    let log = server.log();
    assert!(log.contains("secret-name.ndjson: line 10") && log.contains("https://secret.example"), "{log}");
}

/// Files that are not read stand in the log and are counted at readiness; no client is told their names.
#[test]
fn files_that_are_not_read() {
    let scratch = scratch();
    let full = Credential::token(&[]);
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    std::fs::write(scratch.path().join("store/a.ndjson"), STORE).unwrap();
    std::fs::write(scratch.path().join("store/secret-notes.txt"), "notes").unwrap();
    let server = serve(scratch.path(), &client("full", "", &[&full]));
    let http = server.client();
    let ready = full.get(&http, "/health/ready").json();
    assert_eq!(ready["filesNotRead"], 1, "{ready}");
    let (_, messages, manifest) = export(&http, &full, "/fhir/Group/all/$export");
    assert!(!format!("{messages:?} {manifest}").contains("secret-notes"), "{messages:?}");
    assert!(server.log().contains("secret-notes.txt"), "{}", server.log());
}

/// GROUP-10, COHORT-03, readings 22 and 37: a Group with a modifier, or a filter that is none, is not stored (422) and not exported
/// (400), on every mount, nested or not, but read and found. A refusal reveals no hidden Group to a bound client.
#[test]
fn groups_with_modifiers() {
    let scratch = scratch();
    let [full, bound] = [(); 2].map(|()| Credential::token(&[]));
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    let filtered = format!(
        r#"{{"resourceType":"Group","id":"filtered","name":"women","type":"person","actual":true,"modifierExtension":[{{"url":"{MEMBER_FILTER}"}}],"member":[{{"entity":{{"reference":"Patient/a"}}}}]}}"#
    );
    let outer = group("outer", &["Patient/a", "Group/filtered"]);
    std::fs::write(scratch.path().join("store/secret-name.ndjson"), format!("{filtered}\n{outer}\n{STORE}")).unwrap();
    let clients = client("full", "writes_groups = true", &[&full])
        + &client("bound", "levels = ['group']\nwrites_groups = true\ngroups = ['own1', 'one']", &[&bound]);
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    let told_text = put(&http, &full, "mine", &filtered.replace("filtered", "mine")).outcome(422, "not-supported");
    assert!(told_text.contains("(member-filter): its valueExpression.language"), "{told_text}");
    for (id, needle) in [
        (
            "m1",
            r#""member":[{"entity":{"reference":"Patient/a"},"modifierExtension":[{"url":"https://a.example/not"}]}]"#,
        ),
        ("m2", r#""implicitRules":"https://a.example/rules""#),
    ] {
        let body = format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true,{needle}}}"#);
        let report = put(&http, &full, id, &body).outcome(422, "not-supported");
        assert!(report.contains("https://a.example/"), "{report}");
    }
    for mount in MOUNTS {
        for id in ["filtered", "outer"] {
            let target = format!("{mount}/Group/{id}/$export");
            let answer =
                full.ask(&http, "GET", &target, &[("Accept", "application/fhir+json"), ("Prefer", "respond-async")]);
            let reported = answer.outcome(400, "not-supported");
            let is_evaluated = id == "filtered" && [IG, NETSMART].contains(&mount);
            let needle = if is_evaluated { "(member-filter): its valueExpression" } else { MEMBER_FILTER };
            assert!(reported.contains(needle) && reported.contains("Group/filtered"), "{target}: {reported}");
        }
    }
    assert_eq!(full.get(&http, "/fhir/Group/filtered").json()["name"], "women");
    assert_eq!(full.get(&http, "/fhir/Group?name=women").json()["total"], 1);
    assert_eq!(put(&http, &bound, "own1", &group("own1", &["Group/filtered", "Patient/a"])).status, 201);
    assert_eq!(export(&http, &bound, "/fhir/Group/own1/$export").0, ["Patient/a"]);
    assert_eq!(put(&http, &full, "all", &group("all", &["Group/filtered", "Patient/a"])).status, 200);
    let kicked = kick_off_refused(&http, &full, "/fhir/Group/all/$export");
    assert!(kicked.contains("Group/filtered, which Group/all reaches"), "{kicked}");
}

#[track_caller]
fn kick_off_refused(http: &Client, who: &Credential, target: &str) -> String {
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    who.ask(http, "GET", target, &headers).outcome(400, "not-supported")
}

/// OUTCOME-05: messages about a Group made by HTTP, or about a user's record, name the Group and the request, but no
/// file of the host and no job.
#[test]
fn messages_name_groups_not_files() {
    let scratch = scratch();
    let full = Credential::token(&[]);
    let user = Credential::token(&["--patient", "nobody"]);
    let server = serve(scratch.path(), &client("full", "writes_groups = true", &[&full, &user]));
    let http = server.client();
    assert_eq!(put(&http, &full, "g", &group("g", &["Patient/a", "Patient/nobody", "Device/d"])).status, 201);
    let (_, messages, _) = export(&http, &full, "/fhir/Group/g/$export");
    for words in ["Group/g lists Patient/nobody, ", "Group/g lists Device/d, "] {
        assert!(messages.iter().any(|text| text.starts_with(words)), "{messages:?}");
    }
    let status = kick_off(&http, &user, &format!("{STE}/$export"));
    let list = ended(&http, &user, &status).json();
    let url = list["error"][0]["url"].as_str().unwrap();
    let text = user.get(&http, http.path(url)).text();
    assert!(text.contains("the request lists Patient/nobody, "), "{text}");
}

/// GROUP-01, GROUP-03, reading 23: a Group of the store that was changed or deleted by HTTP counts as absent for Groups
/// that list it, and its row is not exported: patients removed from it are not exported through it.
#[test]
fn replaced_store_groups_are_not_followed() {
    let scratch = scratch();
    let [full, bound] = [(); 2].map(|()| Credential::token(&[]));
    let clients = client("full", "writes_groups = true", &[&full])
        + &client(
            "bound",
            "levels = ['group']\nwrites_groups = true\npatients = 'any'\ngroups = ['own1', 'all']",
            &[&bound],
        );
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    assert_eq!(put(&http, &bound, "own1", &group("own1", &["Patient/a", "Group/all"])).status, 201);
    assert_eq!(export(&http, &bound, "/fhir/Group/own1/$export").0, ["Patient/a", "Patient/b", "Patient/c"]);
    assert_eq!(put(&http, &full, "all", &group("all", &["Patient/a"])).status, 200);
    for target in ["/fhir/Group/own1/$export", "/fhir/Group/all/$export"] {
        assert_eq!(export(&http, &bound, target).0, ["Patient/a"], "{target}");
    }
    let (patients, messages, _) = export(&http, &full, "/fhir/Group/above/$export");
    assert_eq!(patients, [""; 0]);
    assert!(messages.iter().any(|text| text.starts_with("Group/above lists Group/all, ")), "{messages:?}");
    let (_, _, manifest) = export(&http, &bound, "/fhir/Group/all/$export?_type=Group,Patient");
    assert_eq!(resources(&http, &bound, &manifest), ["Patient/a"], "the store's row is a former version");
    assert_eq!(full.ask(&http, "DELETE", "/fhir/Group/all", &[]).status, 204);
    assert_eq!(export(&http, &bound, "/fhir/Group/own1/$export").0, ["Patient/a"]);
}

/// AUTH-28, GROUP-03: no Group written by a bound client can keep the service from reloading a configuration, or from
/// starting.
#[test]
fn a_bound_client_does_not_stop_a_configuration() {
    let scratch = scratch();
    let [full, bound, gone] = [(); 3].map(|()| Credential::token(&[]));
    let both = client("full", "writes_groups = true", &[&full])
        + &client("bound", "levels = ['group']\nwrites_groups = true\ngroups = ['one']", &[&bound]);
    let server = serve(scratch.path(), &(both.clone() + &client("gone", "", &[&gone])));
    let http = server.client();
    assert_eq!(put(&http, &bound, "one", &group("one", &["Patient/b"])).status, 200);
    let toml = std::fs::read_to_string(scratch.path().join("serve.toml")).unwrap();
    let without = toml.split("[[clients]]\nname = 'gone'").next().unwrap();
    std::fs::write(scratch.path().join("serve.toml"), without).unwrap();
    server.hang_up();
    let refused = |_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        gone.get(&http, "/fhir/Group/one").status == 401
    };
    assert!((0..1000).any(refused), "{}", server.log());
    assert!(server.log().contains("can name no patient"), "{}", server.log());
    server.kill();
    let server = serve(scratch.path(), &both);
    assert_eq!(export(&server.client(), &bound, "/fhir/Group/one/$export").0, [""; 0]);
    assert_eq!(bound.ask(&server.client(), "DELETE", "/fhir/Group/one", &[]).status, 204);
    server.kill();
    serve(scratch.path(), &both).kill();
}

/// STATUS-14, FILE-07: a client that loses a level or a Group loses access to the status and files of its jobs for
/// them.
#[test]
fn jobs_need_the_permission_to_export() {
    let scratch = scratch();
    let token = Credential::token(&[]);
    let server = serve(scratch.path(), &client("a", "", &[&token]));
    let http = server.client();
    let of = |target: &str| {
        let status = kick_off(&http, &token, target);
        let list = ended(&http, &token, &status).json();
        let url = list["output"][0]["url"].as_str().unwrap();
        (status, http.path(url).to_string())
    };
    let made =
        [of("/bulk-data/r4/$export"), of("/bulk-data/r4/Group/all/$export"), of("/bulk-data/r4/Group/one/$export")];
    server.kill();
    let server = serve(scratch.path(), &client("a", "levels = ['group']\ngroups = ['one']", &[&token]));
    let http = server.client();
    for ((status, file), expected) in made.iter().zip([403, 403, 200]) {
        for path in [status, file] {
            assert_eq!(token.get(&http, path).status, expected, "{path}");
        }
    }
}

/// GROUP-10, reading 22: a Group with a modifier that the export does not reach forbids nothing on any mount; a hidden
/// one is not named to a bound client.
#[test]
fn only_reachable_modifiers_count() {
    let scratch = scratch();
    let [full, bound] = [(); 2].map(|()| Credential::token(&[]));
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    let bad = r#"{"resourceType":"Group","id":"bad","type":"person","actual":true,"implicitRules":"https://a.example/secret-rules","member":[{"entity":{"reference":"Patient/b"}}]}"#;
    let off = r#"{"resourceType":"Group","id":"off","type":"device","actual":true,"member":[{"entity":{"reference":"Group/bad"}}]}"#;
    let left = r#"{"resourceType":"Group","id":"left","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}},{"entity":{"reference":"Group/bad"},"inactive":true},{"entity":{"reference":"Group/off"}}]}"#;
    let (mid, top) = (group("mid", &["Group/bad"]), group("top", &["Patient/a", "Group/mid"]));
    let (low, high) = (
        group("low", &["Patient/ghost", "Group/lowest", "urn:uuid:hidden"]),
        group("high", &["Patient/a", "Group/low", "urn:uuid:shown"]),
    );
    let lines = [bad, off, left, &mid, &top, &low, &high, STORE].join("\n");
    std::fs::write(scratch.path().join("store/secret-name.ndjson"), lines).unwrap();
    let clients = client("full", "", &[&full])
        + &client("bound", "levels = ['group']\ngroups = ['left', 'top', 'high']", &[&bound]);
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    for who in [&full, &bound] {
        assert_eq!(export(&http, who, "/fhir/Group/left/$export").0, ["Patient/a"]);
    }
    let report = kick_off_refused(&http, &full, "/fhir/Group/top/$export");
    assert!(report.contains("Group/bad, which Group/top reaches") && report.contains("secret-rules"), "{report}");
    let reported = kick_off_refused(&http, &bound, "/fhir/Group/top/$export");
    assert!(!reported.contains("Group/bad") && !reported.contains("secret-rules"), "{reported}");
    let messages = export(&http, &bound, "/fhir/Group/high/$export").1.join("\n");
    assert!(messages.contains("a Group below Group/high lists Patient/ghost"), "{messages}");
    assert!(!messages.contains("Group/low") && !messages.contains("hidden"), "{messages}");
    assert!(messages.contains("Group/high has a member, number 3 of its list, whose reference "), "{messages}");
    assert!(messages.contains("urn:uuid:shown"), "{messages}");
    assert!(
        messages.contains("a Group below Group/high has a member, number 3 of its list, whose reference is"),
        "{messages}"
    );
    let messages = export(&http, &full, "/fhir/Group/high/$export").1.join("\n");
    assert!(
        messages.contains("Group/low lists Patient/ghost") && messages.contains("lists Group/lowest"),
        "{messages}"
    );
    assert!(messages.contains("urn:uuid:hidden") && messages.contains("urn:uuid:shown"), "{messages}");
}
