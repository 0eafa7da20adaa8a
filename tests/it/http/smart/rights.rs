//! What a token opens: kick-offs, status, files and Groups by its scopes, and nothing of other clients, tenants and mounts.

use serde_json::Value;

use super::signer::{Signer, refused};
use super::{URL, ended, serve, with_token};
use crate::http::client::{Answer, Client};
use crate::run::scratch;

/// Kicks off an export with a token; the path of the status.
#[track_caller]
fn kick_off(client: &Client, token: &str, path: &str) -> String {
    let answer = with_token(client, token, "GET", path);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.header("content-location").unwrap().strip_prefix(URL).unwrap().to_string()
}

/// URLs of the files of a manifest, by type.
fn files(manifest: &Answer, list: &str) -> Vec<(String, String)> {
    let manifest = manifest.json();
    let text = |file: &Value, name: &str| file[name].as_str().unwrap().to_string();
    manifest[list].as_array().into_iter().flatten().map(|file| (text(file, "type"), text(file, "url"))).collect()
}

/// Types of the output files of a manifest.
fn types(manifest: &Answer) -> Vec<String> {
    let mut types: Vec<String> = files(manifest, "output").into_iter().map(|(of, _)| of).collect();
    types.dedup();
    types
}

/// AUTH-19, AUTH-21, AUTH-22: without `_type` an export has what the scopes open; a type that they do not open is refused by name,
/// and no job begins. Reading alone, or searching alone, exports nothing.
#[test]
fn scopes_limit_an_export() {
    let scratch = scratch();
    let (all, some) = (Signer::new("all", "ES384"), Signer::new("some", "ES384"));
    let clients = [all.inline(""), some.inline("types = ['Patient', 'Observation', 'Group']")].concat();
    let server = serve(scratch.path(), "", &clients);
    let client = server.client();
    let exported = |signer: &Signer, scope: &str| {
        let token = signer.token(&client, scope);
        let status = kick_off(&client, &token, "/fhir/$export");
        types(&ended(&client, &token, &status))
    };
    let everything = exported(&all, "system/*.rs");
    assert!(everything.len() > 8, "{everything:?}");
    assert_eq!(exported(&all, "system/*.read"), everything);
    assert_eq!(
        exported(&all, "system/Patient.read system/Condition.rs system/Observation.r"),
        ["Condition", "Patient"]
    );
    assert_eq!(exported(&some, "system/*.rs"), ["Group", "Observation", "Patient"], "AUTH-19: the types of its policy");
    let narrow = all.token(&client, "system/Patient.rs system/Observation.r system/Condition.s");
    for query in [
        "_type=Patient,Observation",
        "_type=Condition",
        "_type=Patient&_typeFilter=Condition%3Fcode%3Da",
        "_type=Patient&includeAssociatedData=LatestProvenanceResources",
    ] {
        let answer = with_token(&client, &narrow, "GET", &format!("/fhir/$export?{query}"));
        let status = if query.contains("_typeFilter") { [400, 403] } else { [403, 403] };
        assert!(status.contains(&answer.status), "{query}: {}", answer.text());
    }
    let refusal = with_token(&client, &narrow, "GET", "/fhir/$export?_type=Patient,Observation");
    assert!(refusal.outcome(403, "forbidden").contains("Observation"));
    assert!(refusal.header("www-authenticate").unwrap().contains("insufficient_scope"));
    for scope in ["system/Patient.r", "system/Patient.s"] {
        let token = all.token(&client, scope);
        with_token(&client, &token, "GET", "/fhir/$export").outcome(403, "forbidden");
        with_token(&client, &token, "GET", "/fhir/$export?_type=Patient").outcome(403, "forbidden");
    }
    let text = refused(&some.ask(&client, "system/Condition.rs"), 400, "invalid_scope");
    assert!(text.contains("may be granted"), "{text}");
    let answer = some.ask(&client, "system/Condition.rs system/Patient.rs").json();
    assert_eq!(answer["scope"], "system/Patient.rs", "AUTH-15");
}

/// AUTH-25, AUTH-26, FILE: any token of the client with the scopes of the job polls it and fetches its files; with fewer scopes,
/// only files of the types that they open; messages and deletions go to every token of the client, and to no other client.
#[test]
fn scopes_reach_to_the_file() {
    let scratch = scratch();
    let (signer, other) = (Signer::new("a", "ES384"), Signer::new("b", "ES384"));
    let clients = [signer.inline(""), other.inline("")].concat();
    let server = serve(scratch.path(), "", &clients);
    let client = server.client();
    let first = signer.token(&client, "system/*.rs");
    let status =
        kick_off(&client, &first, "/fhir/$export?_type=Patient,Observation,Encounter&_since=2000-01-01T00:00:00Z");
    let second = signer.token(&client, "system/Observation.rs system/Patient.rs system/Encounter.read");
    let manifest = ended(&client, &second, &status);
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    assert_eq!(manifest.json()["requiresAccessToken"], true);
    let observations = signer.token(&client, "system/Observation.rs");
    let reads_only = signer.token(&client, "system/Observation.r system/Patient.s");
    let foreign = other.token(&client, "system/*.rs");
    assert_eq!(with_token(&client, &observations, "GET", &status).status, 403, "the status of a job needs its scopes");
    assert_eq!(with_token(&client, &foreign, "GET", &status).status, 404);
    for (of, url) in files(&manifest, "output") {
        let path = url.strip_prefix(URL).unwrap();
        assert_eq!(client.get(path).status, 401, "AUTH-25");
        let found = [&first, &second, &observations, &reads_only, &foreign]
            .map(|token| with_token(&client, token, "GET", &url).status);
        let narrow = if of == "Observation" { 200 } else { 403 };
        assert_eq!(found, [200, 200, narrow, 403, 404], "{of}");
    }
    let messages: Vec<_> = files(&manifest, "error").into_iter().chain(files(&manifest, "deleted")).collect();
    for (_, url) in messages {
        assert_eq!(with_token(&client, &observations, "GET", &url).status, 200);
        assert_eq!(with_token(&client, &foreign, "GET", &url).status, 404);
    }
    assert_eq!(with_token(&client, &foreign, "DELETE", &status).status, 404);
    assert_eq!(with_token(&client, &second, "DELETE", &status).status, 202);
}

/// AUTH-24, GROUP-08: a Group is read, searched and exported under a scope for Groups, unless the operator takes that away; it is
/// written under none.
#[test]
fn groups_need_a_scope() {
    let signer = Signer::new("a", "ES384");
    for (required, of_client) in [(true, None), (false, None), (false, Some(true)), (true, Some(false))] {
        let scratch = scratch();
        let more = format!("require_group_scope = {required}");
        let own = of_client.map_or(String::new(), |own| format!("require_group_scope = {own}\n"));
        let config = signer.inline("writes_groups = true") + &own;
        let required = of_client.unwrap_or(required);
        let server = serve(scratch.path(), &more, &config);
        server.wait_until_ready();
        let client = server.client();
        let group = with_token(&client, &signer.token(&client, "system/Group.rs"), "GET", "/fhir/Group").json();
        let id = group["entry"][0]["resource"]["id"].as_str().unwrap().to_string();
        for (scope, read, search, export) in [
            ("system/*.rs", 200, 200, 202),
            ("system/Group.rs system/Patient.rs", 200, 200, 202),
            ("system/Group.r system/Patient.rs", 200, 403, 202),
            ("system/Group.s system/Patient.rs", 403, 200, 403),
            ("system/Patient.rs", 403, 403, 403),
        ] {
            let token = signer.token(&client, scope);
            let found = [
                format!("/fhir/Group/{id}"),
                "/fhir/Group".to_string(),
                format!("/fhir/Group/{id}/$export?_type=Patient"),
            ];
            let found = found.map(|path| with_token(&client, &token, "GET", &path).status);
            // The setting is about exports alone.
            let expected = [read, search, if required { export } else { 202 }];
            assert_eq!(found, expected, "{scope} {required}");
            let group = br#"{"resourceType":"Group","type":"person","actual":true}"#;
            let bearer = format!("Bearer {token}");
            let headers = [
                ("Content-Type", "application/fhir+json"),
                ("Accept", "application/fhir+json"),
                ("Authorization", bearer.as_str()),
            ];
            assert_eq!(client.ask("PUT", "/fhir/Group/new", &headers, group).status, 403, "no scope writes");
        }
    }
}

/// The isolation of clients, tenants, mounts and URLs, with scopes: a token opens its client's tenants on mounts that take bearer
/// tokens, and jobs of its client alone; the policy of a client holds under every scope.
#[test]
fn tokens_cross_nothing() {
    let scratch = scratch();
    let (a, b) = (Signer::new("a", "ES384"), Signer::new("b", "ES256"));
    let second = scratch.path().join("second");
    crate::fixture::plain_store(&second, &["Patient", "Group"], 1);
    let tenant = "[[tenants]]\nname = 'second'\nstore = { path = 'second' }\ndata = { path = 'data-second' }\n";
    let clients = [
        tenant.to_string(),
        a.inline("tenants = ['default']"),
        b.inline("tenants = ['second']\nlevels = ['group', 'patient']\ntypes = ['Patient', 'Group']"),
        "[netsmart]\nauthorization = ['client-headers']\n".to_string(),
    ]
    .concat();
    let server = serve(scratch.path(), "", &clients);
    let client = server.client();
    let tokens = [(&a, "a"), (&b, "b")].map(|(signer, name)| (name, signer.token(&client, "system/*.rs")));
    // Of each client at each base: what a kick-off of patients is answered.
    for (base, path, of_a, of_b) in [
        ("/fhir", "/Patient/$export", 202, 403),
        ("/uscore/v1/bulk-data", "/Group/x", 401, 401),
        ("/bulk-data/r4", "/$export", 202, 403),
        ("/v1/default/bulk-export/bulk-data/r4", "/$export", 202, 404),
        ("/v1/second/bulk-export/bulk-data/r4", "/$export", 404, 202),
        ("/v1/third/bulk-export/bulk-data/r4", "/$export", 404, 404),
    ] {
        for ((name, token), expected) in tokens.iter().zip([of_a, of_b]) {
            let answer = with_token(&client, token, "GET", &format!("{base}{path}?_type=Patient"));
            assert_eq!(answer.status, expected, "{name} {base}: {}", answer.text());
            if answer.status != 202 {
                continue;
            }
            let status = answer.header("content-location").unwrap().to_string();
            let manifest = ended(&client, token, &status);
            assert_eq!(manifest.status, 200, "{base}: {}", manifest.text());
            let (_, foreign) = tokens.iter().find(|(other, _)| other != name).unwrap();
            let refused = with_token(&client, foreign, "GET", &status).status;
            assert!([403, 404].contains(&refused), "{base} {refused}");
        }
    }
    let level = with_token(&client, &tokens[1].1, "GET", "/v1/second/bulk-export/bulk-data/r4/$export?_type=Condition");
    level.outcome(403, "forbidden");
}

/// A client that is removed from the configuration is refused at once, whatever it holds; one whose registration is narrowed gets
/// less at once.
#[test]
fn a_removed_client_is_refused_at_once() {
    let scratch = scratch();
    let (signer, other) = (Signer::new("a", "ES384"), Signer::new("b", "ES384"));
    let server = serve(scratch.path(), "", &[signer.inline(""), other.inline("")].concat());
    let client = server.client();
    let token = signer.token(&client, "system/*.rs");
    let status = kick_off(&client, &token, "/fhir/$export?_type=Patient,Observation");
    let manifest = ended(&client, &token, &status);
    let urls = files(&manifest, "output");
    let settings = std::fs::read_to_string(scratch.path().join("serve.toml")).unwrap();
    let (before, _) = settings.split_once("[[clients]]").unwrap();
    let reload = |clients: &str, times: usize| {
        std::fs::write(scratch.path().join("serve.toml"), format!("{before}{clients}")).unwrap();
        server.hang_up();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while server.log().matches("the clients of the configuration were read anew").count() < times {
            assert!(std::time::Instant::now() < end, "{}", server.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    let narrowed = signer.entry("", &format!("jwks = '{}'\nscopes = ['system/Patient.rs']", signer.jwks()));
    reload(&[narrowed, other.inline("")].concat(), 1);
    for (of, url) in &urls {
        assert_eq!(with_token(&client, &token, "GET", url).status, if of == "Patient" { 200 } else { 403 }, "{of}");
    }
    assert_eq!(signer.ask(&client, "system/*.read").json()["scope"], "system/Patient.read");
    reload(&other.inline(""), 2);
    for (_, url) in &urls {
        assert_eq!(with_token(&client, &token, "GET", url).status, 401);
    }
    refused(&signer.ask(&client, "system/*.rs"), 400, "invalid_client");
    assert_eq!(other.ask(&client, "system/*.rs").status, 200);
}

/// AUTH-26: a download that has begun goes on when its token expires.
#[test]
fn a_token_may_expire_while_a_download_runs() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let server = serve(scratch.path(), "token_seconds = 10", &signer.inline(""));
    let client = server.client();
    let token = signer.token(&client, "system/*.rs");
    let status = kick_off(&client, &token, "/fhir/$export?_type=Observation");
    let manifest = ended(&client, &token, &status);
    let (_, url) = files(&manifest, "output").remove(0);
    let whole = with_token(&client, &token, "GET", &url).body;
    assert!(whole.len() > 4 << 20, "longer than what fits into the sockets");
    let mut stream = client.connect();
    let path = url.strip_prefix(URL).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    let mut received = vec![0; 100_000];
    std::io::Read::read_exact(&mut stream, &mut received).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while with_token(&client, &token, "GET", &status).status != 401 {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let expired = with_token(&client, &token, "GET", &url);
    expired.outcome(401, "expired");
    std::io::Read::read_to_end(&mut stream, &mut received).unwrap();
    assert!(received.ends_with(&whole), "the download went on");
    let fresh = signer.token(&client, "system/*.rs");
    assert_eq!(with_token(&client, &fresh, "GET", &url).body, whole);
}
