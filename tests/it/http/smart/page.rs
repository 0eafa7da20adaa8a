//! The page on security, followed: keys made, the client registered, a token asked for, an export kicked off.

use serde_json::Value;

use super::{ended, with_token};
use crate::http::job_lifecycle::bundled;
use crate::run::{run, scratch};

/// What `outpour credential keys` prints registers the client that has the other half; `outpour credential ask` gets a token with it,
/// which opens an export; wrong files and services are told, and nothing secret is.
#[test]
fn the_page_can_be_followed() {
    let scratch = scratch();
    let made = run(&["credential", "keys", "--client-id", "nightly-app"]);
    assert_eq!(made.code, 0, "{made:?}");
    let keys = scratch.path().join("nightly.private.jwks");
    std::fs::write(&keys, &made.stdout).unwrap();
    let at = made.stderr.find("[[clients]]").unwrap();
    let registration = &made.stderr[at..];
    assert!(!registration.contains("\"d\""), "the public half alone");
    std::fs::write(scratch.path().join("serve.toml"), registration).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let service = format!("http://{}/fhir", server.address);
    let keys = keys.to_str().unwrap();
    let ask = |service: &str, client: &str, keys: &str, more: &[&str]| {
        run(&[&["credential", "ask", "--service", service, "--client-id", client, "--keys", keys][..], more].concat())
    };
    let asked = ask(&service, "nightly-app", keys, &[]);
    assert!(asked.code == 0 && asked.said().contains("300 seconds, and opens system/*.rs"), "{asked:?}");
    let client = server.client();
    let accepted = with_token(&client, asked.stdout.trim(), "GET", "/fhir/$export?_type=Patient");
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let status = client.path(accepted.header("content-location").unwrap()).to_string();
    assert_eq!(ended(&client, asked.stdout.trim(), &status).status, 200);
    let json = ask(&service, "nightly-app", keys, &["--scope", "system/Patient.read", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["scope"], &json["seconds"]), (&Value::from("system/Patient.read"), &Value::from(300)));
    ask(&service, "nobody", keys, &[]).refused(3, &["invalid_client", "cannot be authenticated"]);
    ask(&service, "nightly-app", keys, &["--scope", "system/Patiant.rs"])
        .refused(3, &["invalid_scope", "no resource type"]);
    ask(&format!("http://{}/nowhere", server.address), "nightly-app", keys, &[])
        .refused(3, &["--service", "does not say"]);
    ask("http://127.0.0.1:1/fhir", "nightly-app", keys, &[]).refused(3, &["--service", "cannot be asked"]);
    let store = crate::run::testdata("stores/synthea-r4-100/README.md");
    ask(&service, "nightly-app", store.to_str().unwrap(), &[]).refused(2, &["--keys", "no JSON"]);
    ask(&service, "nightly-app", "missing.jwks", &[]).refused(2, &["--keys", "missing.jwks"]);
    run(&["credential", "keys", "--client-id", "a b"]).refused(2, &["--client-id"]);
    server.wait_for_log("reason=UnknownClient");
}

/// Every answer has headers that keep browsers from running, framing and guessing; with an https URL, also one that keeps them to it.
#[test]
fn answers_have_security_headers() {
    for (settings, transport) in [("", None), ("public_url = 'https://bulk.example.org'\n", Some("max-age=31536000"))] {
        let scratch = scratch();
        std::fs::write(scratch.path().join("serve.toml"), settings).unwrap();
        let server = bundled(scratch.path(), &["--config", "serve.toml"]);
        for path in
            ["/", "/fhir/metadata", "/fhir/nothing", "/health/live", "/auth/token", "/.well-known/smart-configuration"]
        {
            let answer = server.client().get(path);
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"), "{path}");
            assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
            assert!(answer.header("cache-control").is_some(), "{path}");
            assert_eq!(answer.header("strict-transport-security"), transport, "{path}");
        }
    }
}
