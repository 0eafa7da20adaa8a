//! The mount of Netsmart, against its Group and Group Export pages and their examples.

use serde_json::{Value, json};

use super::{NETSMART, World, ended, exported, keys, kick_off, resources};

/// The headers of every example on Netsmart's pages.
const HEADERS: [(&str, &str); 2] = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];

/// NETSMART-G01, NETSMART-G02, NETSMART-G04, NETSMART-G05, NETSMART-G06, NETSMART-G07, NETSMART-G08, NETSMART-E03,
/// NETSMART-E06, NETSMART-E07, NETSMART-E08, NETSMART-E09, NETSMART-E12, C-09, C-20: the steps of the page, with both
/// forms of the polling URL.
#[test]
fn from_metadata_to_files() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    let metadata = client.get(&format!("{NETSMART}/metadata")).json();
    let resource = |name: &str| {
        let all = metadata["rest"][0]["resource"].as_array().unwrap();
        all.iter().find(|of| of["type"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let operation = resource("Group")["operation"][0].clone();
    assert_eq!(operation["name"], "export");
    for parameter in ["`_outputFormat` (string)", "`_since` (instant)", "`_type` (string)"] {
        assert!(operation["documentation"].as_str().unwrap().contains(parameter), "{operation}");
    }
    assert_eq!(resource("Group")["interaction"], json!([{ "code": "read" }]), "NETSMART-G03");
    assert!(resource("Binary")["interaction"].as_array().unwrap().contains(&json!({ "code": "read" })));

    let group = who.ask(&client, "GET", &format!("{NETSMART}/Group/example-group"), &HEADERS);
    assert_eq!((group.status, group.header("content-type")), (200, Some("application/fhir+json")));
    let known = ["resourceType", "id", "meta", "active", "type", "actual", "name", "quantity", "member"];
    assert_eq!(keys(&group.json()), known);
    assert_eq!(group.json()["quantity"], 150, "passed on, whatever the number of members");
    client.ask("GET", &format!("{NETSMART}/Group/example-group"), &HEADERS, b"").outcome(401, "login");

    let requested = format!("{NETSMART}/Group/example-group/$export");
    let kicked = who.ask(&client, "GET", &requested, &HEADERS);
    let reported = kicked.outcome(202, "informational");
    let location = kicked.header("content-location").unwrap().to_string();
    assert!(reported.contains(&location), "where to look: {reported}");
    let id = location.strip_prefix(&world.url(&format!("{NETSMART}/$export-poll-status?_id="))).expect("its form");
    let forms = [client.path(&location).to_string(), format!("{NETSMART}/$export-poll-status/{id}")];
    let done = ended(&client, who, &forms[0]);
    assert_eq!(who.get(&client, &forms[1]).body, done.body, "both forms");
    let manifest = done.json();
    for field in ["transactionTime", "request", "requiresAccessToken", "output", "error"] {
        assert!(manifest.get(field).is_some(), "{field}");
    }
    assert_eq!(manifest["request"], world.url(&requested));
    assert_eq!(manifest["requiresAccessToken"], true);
    for item in manifest["output"].as_array().unwrap().iter().chain(manifest["error"].as_array().unwrap()) {
        let path = client.path(item["url"].as_str().unwrap());
        let file = path.strip_prefix(&format!("{NETSMART}/Binary/")).unwrap();
        let file = file.strip_suffix("/$binary-access-read").unwrap();
        assert!(file.len() == 32 && file.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let answer = who.get(&client, path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/fhir+ndjson")));
        assert!(answer.header("content-disposition").unwrap().starts_with("attachment"));
        assert!(answer.text().starts_with(&format!(r#"{{"resourceType":{}"#, item["type"])), "no Binary around it");
        assert_eq!(answer.text().lines().count() as u64, item["count"].as_u64().unwrap());
    }
}

/// NETSMART-E09, C-20: while a job runs, both headers state the time of the next poll; NETSMART-E10: it can be
/// cancelled by either form of its URL.
#[test]
fn under_way_and_cancelled() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    // Holding the lock of the index keeps every job waiting.
    let lock = world.scratch.path().join("store/.outpour/lock");
    for form in ["?_id=", "/"] {
        let held = std::fs::File::create(&lock).unwrap();
        held.lock().unwrap();
        let rows = world.scratch.path().join(format!("store/new{}.ndjson", form.len()));
        std::fs::write(rows, format!("{{\"resourceType\":\"Basic\",\"id\":\"b{}\"}}\n", form.len())).unwrap();
        let status = kick_off(&client, who, &format!("{NETSMART}/Group/example-group/$export"));
        let waiting = who.get(&client, &status);
        waiting.outcome(202, "informational");
        assert_eq!(waiting.header("x-retryafter"), Some("1"));
        assert_eq!(waiting.header("retry-after"), waiting.header("x-retryafter"));
        let named = format!("{NETSMART}/$export-poll-status{form}{}", status.split('=').nth(1).unwrap());
        who.ask(&client, "DELETE", &named, &[]).outcome(202, "informational");
        for method in ["GET", "DELETE"] {
            who.ask(&client, method, &named, &[]).outcome(404, "not-found");
        }
    }
    who.get(&client, &format!("{NETSMART}/$export-poll-status")).outcome(400, "required");
    who.get(&client, &format!("{NETSMART}/$export-poll-status?_id=a&_id=b")).outcome(400, "invalid");
    who.get(&client, &format!("{NETSMART}/$export-poll-status?_id=..%2f")).outcome(404, "not-found");
}

/// NETSMART-G04, NETSMART-G11, NETSMART-E01, NETSMART-E02: each parameter alone, and all together; C-10: members by the
/// rules of R4.
#[test]
fn parameters() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    let export = |who, query: &str| exported(&client, who, &format!("{NETSMART}/Group/example-group/$export{query}"));
    let all = export(who, "");
    let observations = ["after-midnight", "late", "midnight", "new-year"].map(|id| format!("Observation/{id}"));
    let rest = ["Condition/c-123", "Encounter/e-123"].map(String::from);
    let mut expected = [&rest[..], &observations, &["Patient/123".to_string()]].concat();
    expected.sort();
    assert_eq!(all, expected, "124 is inactive, 999 no member");
    for format in ["application/fhir+ndjson", "application/ndjson", "ndjson", "application%2Ffhir%2Bndjson"] {
        assert_eq!(export(who, &format!("?_outputFormat={format}")), all, "{format}");
    }
    let late = ["Observation/late"];
    assert_eq!(export(who, "?_since=2024-01-01T00:00:00Z"), late, "after it, not at it");
    assert_eq!(export(who, "?_type=Patient,Observation&_since=2024-01-01T00:00:00Z"), late);
    let seed = "?_type=Patient,Observation&_since=2024-01-01T00:00:00Z&_outputFormat=application/fhir+ndjson";
    assert_eq!(export(who, seed), late);
    assert_eq!(export(who, "?_type=Patient,Observation,Condition").len(), 6);
    let mut narrow = export(&world.narrow, "");
    narrow.dedup_by_key(|row| row.split('/').next().unwrap().to_string());
    assert_eq!(narrow.len(), 2, "NETSMART-E02: only what it is authorized for: {narrow:?}");
    let refused = |query: &str, code: &str| {
        who.get(&client, &format!("{NETSMART}/Group/example-group/$export{query}")).outcome(400, code)
    };
    refused("?_since=2024-01-01", "value");
    refused("?_outputFormat=csv", "not-supported");
    refused("?_until=2024-01-01T00:00:00Z", "not-supported");
}

/// NETSMART-E04: unknown and hidden Groups get the same response; NETSMART-E05, C-15: unknown types, and types outside
/// the compartment.
#[test]
fn refusals() {
    let world = World::new("");
    let client = world.client();
    let ask = |group: &str| world.narrow.ask(&client, "GET", &format!("{NETSMART}/Group/{group}/$export"), &HEADERS);
    let (unknown, foreign) = (ask("nobody-knows"), ask("other-group"));
    assert_eq!(unknown.body, foreign.body);
    let text = unknown.outcome(404, "not-found");
    assert_eq!(foreign.status, 404);
    assert!(!text.contains("other-group"));
    let read = |group: &str| world.narrow.get(&client, &format!("{NETSMART}/Group/{group}"));
    assert_eq!(read("nobody-knows").body, read("other-group").body);
    for wrong in ["Nope", "Patient,Nope", "Organization"] {
        let target = format!("{NETSMART}/Group/example-group/$export?_type={wrong}");
        let reported = world.full.ask(&client, "GET", &target, &HEADERS).outcome(400, "processing");
        assert!(reported.contains("_type"), "{reported}");
    }
    for (method, path) in [("GET", "/Group"), ("POST", "/Group"), ("GET", "/$export"), ("GET", "/Patient/$export")] {
        let answer = world.full.ask(&client, method, &format!("{NETSMART}{path}"), &HEADERS);
        assert!(matches!(answer.status, 404 | 405), "NETSMART-G03: {method} {path} {}", answer.status);
    }
}

/// NETSMART-G10: a small file is sent as a Binary resource if FHIR JSON is accepted.
#[test]
fn files_as_binaries() {
    let world = World::new("[files]\ncompress = 'gzip'\n");
    let (client, who) = (world.client(), &world.full);
    let status = kick_off(&client, who, &format!("{NETSMART}/Group/example-group/$export?_type=Patient"));
    let manifest = ended(&client, who, &status).json();
    let path = client.path(manifest["output"][0]["url"].as_str().unwrap()).to_string();
    let raw = who.get(&client, &path);
    let id = path.strip_suffix("/$binary-access-read").unwrap();
    for accept in ["application/fhir+json", "application/json;q=0.9, */*;q=0.1"] {
        let wrapped = who.ask(&client, "GET", id, &[("Accept", accept)]);
        assert_eq!((wrapped.status, wrapped.header("content-type")), (200, Some("application/fhir+json")));
        let wrapped = wrapped.json();
        assert_eq!(keys(&wrapped), ["resourceType", "id", "contentType", "data"]);
        assert!(id.ends_with(wrapped["id"].as_str().unwrap()));
        assert_eq!(wrapped["data"].as_str().unwrap(), base64(&raw.body));
    }
    for accept in ["application/fhir+ndjson", "*/*", "application/octet-stream"] {
        assert_eq!(who.ask(&client, "GET", id, &[("Accept", accept)]).body, raw.body, "{accept}");
    }
    client.get(id).outcome(401, "login");
    world.rival.get(&client, id).outcome(404, "not-found");
}

/// Base64 with the standard alphabet and padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let three = |chunk: &[u8]| {
        let bits = chunk.iter().chain([&0, &0]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let digit = |offset: usize| {
            if offset <= chunk.len() { alphabet[(bits >> (18 - 6 * offset)) as usize & 63] } else { '=' }
        };
        [digit(0), digit(1), digit(2), digit(3)]
    };
    bytes.chunks(3).flat_map(three).collect()
}

/// NETSMART-G10: a file above the limit for JSON is not sent as a Binary resource.
#[test]
fn large_files_are_no_binaries() {
    let scratch = crate::run::scratch();
    let server = crate::http::job_lifecycle::bundled(scratch.path(), &[]);
    server.wait_until_ready();
    let client = server.client();
    let kicked = client.get(&format!("{NETSMART}/Group/all/$export?_type=Observation"));
    let status = client.path(kicked.header("content-location").unwrap()).to_string();
    let manifest = crate::http::job_lifecycle::ended(&client, &status).json();
    let path = client.path(manifest["output"][0]["url"].as_str().unwrap()).to_string();
    let id = path.strip_suffix("/$binary-access-read").unwrap();
    let reported = client.ask("GET", id, &[("Accept", "application/fhir+json")], b"").outcome(413, "too-long");
    assert!(reported.contains("$binary-access-read"), "{reported}");
    assert_eq!(client.get(id).status, 200, "without FHIR around it");
}

/// NETSMART-E11: a request id that is a UUID is echoed; any other text comes back under the other header.
#[test]
fn request_ids() {
    let world = World::new("");
    let client = world.client();
    let ask = |base: &str, id: &str| {
        let answer = client.ask("GET", &format!("{base}/metadata"), &[("X-Request-ID", id)], b"");
        (answer.header("x-request-id").unwrap().to_string(), answer.header("x-correlation-id").map(String::from))
    };
    let uuid = "0F8FAD5B-d9cb-469f-a165-70867728950e";
    assert_eq!(ask(NETSMART, uuid), (uuid.to_string(), None));
    let (own, correlation) = ask(NETSMART, "my request #1");
    assert_eq!((own.len(), correlation.as_deref()), (36, Some("my request #1")));
    assert_eq!(ask("/fhir", "my-request-1"), ("my-request-1".to_string(), None), "elsewhere any plain name will do");
}

/// NETSMART-G09: the configuration sets the host in advertised URLs. DIALECT-06: with `strict_dialect` only the fields
/// of the pages are sent, and C-09: the other body.
#[test]
fn strict_dialect_and_public_url() {
    let strict = "public_url = 'https://fhirtest.netsmartcloud.com'\n[netsmart]\nstrict_dialect = true\naccepted_body = 'request'\n";
    let scratch = crate::run::scratch();
    std::fs::write(scratch.path().join("serve.toml"), strict).unwrap();
    let server = crate::http::job_lifecycle::bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let kicked = client.ask("GET", &format!("{NETSMART}/Group/ten/$export?_since=2019-01-01T00:00:00Z"), &HEADERS, b"");
    assert_eq!(keys(&kicked.json()), ["transactionTime", "request", "requiresAccessToken"]);
    let location = kicked.header("content-location").unwrap();
    let path = location.strip_prefix("https://fhirtest.netsmartcloud.com").expect("the public URL");
    let done = crate::http::job_lifecycle::ended(&client, path).json();
    assert_eq!(keys(&done), ["transactionTime", "request", "requiresAccessToken", "output", "error"]);
    assert_eq!(done["transactionTime"], kicked.json()["transactionTime"]);
    let items: Vec<&Value> = done["output"].as_array().unwrap().iter().collect();
    assert!(!items.is_empty() && items.iter().all(|item| keys(item) == ["type", "url", "count"]));
}

/// DIALECT-06: without `strict_dialect` the added fields do not collide with those of the pages.
#[test]
fn added_fields_do_not_collide() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    let status = kick_off(&client, who, &format!("{NETSMART}/Group/example-group/$export"));
    let done = ended(&client, who, &status).json();
    assert_eq!(
        keys(&done),
        ["transactionTime", "request", "requiresAccessToken", "output", "error", "extension"],
        "{done}"
    );
    assert!(!resources(&client, who, &done).is_empty());
}
