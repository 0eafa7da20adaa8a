//! The token endpoint itself: its description, its parameters, the assertions that it takes and refuses.

use serde_json::{Value, json};

use super::signer::{Signer, TOKEN, ask_with, encode, form, fresh_jti, now, post, refused};
use super::{URL, serve, with_token};
use crate::run::scratch;

/// AUTH-02, AUTH-03, CAP-10, CLIENT-03: the description, at the root and below each base, whatever is accepted and without credentials;
/// also in open mode, in which the endpoint knows no clients.
#[test]
fn the_endpoint_is_described() {
    let signer = Signer::new("a", "ES384");
    for clients in [signer.inline(""), String::new()] {
        let scratch = scratch();
        let server = serve(scratch.path(), "", &clients);
        for base in [
            "",
            "/fhir",
            "/uscore/v1/bulk-data",
            "/bulk-data/r4",
            "/v1/default/bulk-export/bulk-data/r4",
            "/v1/nobody/bulk-export/bulk-data/r4",
        ] {
            let path = format!("{base}/.well-known/smart-configuration");
            let answer = server.client().ask("GET", &path, &[("Accept", "text/html")], b"");
            assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
            let body = answer.json();
            assert_eq!(body["token_endpoint"], format!("{URL}{TOKEN}"));
            let has = |name: &str, value: &str| body[name].as_array().unwrap().contains(&json!(value));
            for (name, value) in [
                ("grant_types_supported", "client_credentials"),
                ("capabilities", "client-confidential-asymmetric"),
                ("capabilities", "permission-v1"),
                ("capabilities", "permission-v2"),
                ("code_challenge_methods_supported", "S256"),
                ("token_endpoint_auth_methods_supported", "private_key_jwt"),
                ("token_endpoint_auth_signing_alg_values_supported", "RS384"),
                ("token_endpoint_auth_signing_alg_values_supported", "ES384"),
                ("scopes_supported", "system/*.rs"),
            ] {
                assert!(has(name, value), "{name} {value}");
            }
            assert!(!has("code_challenge_methods_supported", "plain"));
        }
        let metadata = server.fhir("metadata").json();
        let security = &metadata["rest"][0]["security"];
        assert_eq!(security["extension"][0]["extension"][0]["valueUri"], format!("{URL}{TOKEN}"));
        assert_eq!(security["service"].is_array(), !clients.is_empty());
        let answer = signer.ask(&server.client(), "system/*.rs");
        match clients.is_empty() {
            true => assert!(refused(&answer, 400, "invalid_client").is_ascii()),
            false => assert_eq!(answer.status, 200, "{}", answer.text()),
        }
    }
}

/// AUTH-01, AUTH-08, AUTH-10, AUTH-13, AUTH-14, CLIENT-10: every algorithm that is offered gets a token, which opens an export.
#[test]
fn every_algorithm_gets_a_token() {
    let scratch = scratch();
    let mut signers =
        ["RS384", "ES384", "PS384", "ES256", "RS256"].map(|alg| Signer::new(&format!("client-{alg}"), alg));
    // A kid may be any text, such as the thumbprint of the key (RFC 7638).
    signers[0].key.kid = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_string();
    let clients: String = signers.iter().map(|signer| signer.inline("")).collect();
    let server = serve(scratch.path(), "", &clients);
    let client = server.client();
    for signer in &signers {
        let answer = signer.ask(&client, "system/*.read");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
        let mut body = answer.json();
        let token = body["access_token"].take();
        assert_eq!(
            body,
            json!({"access_token": null, "token_type": "bearer", "expires_in": 300, "scope": "system/*.read"})
        );
        let found = with_token(&client, token.as_str().unwrap(), "GET", "/fhir/Group");
        assert_eq!(found.status, 200, "{}", found.text());
        let unknown = with_token(&client, &format!("{}x", token.as_str().unwrap()), "GET", "/fhir/Group");
        assert_eq!(unknown.status, 401);
        assert!(unknown.header("www-authenticate").unwrap().contains("invalid_token"));
    }
    let log = server.log();
    for signer in &signers {
        assert!(log.contains(&format!("client=\"{}\"", signer.client_id)), "AUTH-28: {log}");
    }
}

/// AUTH-04, AUTH-12: each parameter missing, empty, wrong and doubled; other bodies; every problem at once; OAuth's JSON whatever
/// is accepted, also for methods.
#[test]
fn parameters_are_checked() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let server = serve(scratch.path(), "", &signer.inline(""));
    let client = server.client();
    let assertion = signer.assertion();
    let right = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
        ("scope", "system/*.rs"),
    ];
    for at in 0..right.len() {
        let (name, _) = right[at];
        let without: Vec<_> = right.iter().copied().filter(|(known, _)| *known != name).collect();
        let text = refused(&post(&client, &without), 400, "invalid_request");
        assert!(text.contains(name), "{text}");
        let changed = |value| [&without[..], &[(name, value)]].concat();
        let code = if name == "scope" { "invalid_scope" } else { "invalid_request" };
        refused(&post(&client, &changed("")), 400, code);
        let code = match name {
            "grant_type" => "unsupported_grant_type",
            "scope" => "invalid_scope",
            "client_assertion" => "invalid_client",
            _ => "invalid_request",
        };
        refused(&post(&client, &changed("x")), 400, code);
        let doubled = [&right[..], &right[at..=at]].concat();
        let text = refused(&post(&client, &doubled), 400, "invalid_request");
        assert!(text.contains(name) && text.contains("more than once"), "{text}");
    }
    let all = refused(
        &post(&client, &[("grant_type", "password"), ("client_secret", "5ecre7")]),
        400,
        "unsupported_grant_type",
    );
    for name in ["grant_type", "client_assertion_type", "client_assertion", "scope", "client_secret"] {
        assert!(all.contains(name) && !all.contains("5ecre7") && !all.contains("password"), "{all}");
    }
    let other = refused(&post(&client, &[&right[..], &[("client_id", "b")]].concat()), 400, "invalid_client");
    assert!(other.contains("cannot be authenticated"));
    let body = form(&right);
    for (types, body) in [
        (vec![("Content-Type", "application/json")], b"".as_slice()),
        (vec![("Content-Type", "application/json")], body.as_bytes()),
        (vec![], body.as_bytes()),
        (vec![("Content-Type", "text/plain")], body.as_bytes()),
        (vec![("Content-Type", "application/x-www-form-urlencoded"), ("Content-Encoding", "gzip")], body.as_bytes()),
        (vec![("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", "Basic YTpi")], body.as_bytes()),
        (vec![("Content-Type", "application/x-www-form-urlencoded")], b"scope=%zz".as_slice()),
        (vec![("Content-Type", "application/x-www-form-urlencoded")], b"scope=\xff".as_slice()),
    ] {
        refused(&client.ask("POST", TOKEN, &types, body), 400, "invalid_request");
    }
    // What would begin a header or a line of the log is refused, and repeated nowhere.
    for at in 0..right.len() {
        let (name, value) = right[at];
        let injected = format!("{value}\r\nX-Injected: 1");
        let mut pairs = right.to_vec();
        pairs[at] = (name, injected.as_str());
        let answer = post(&client, &pairs);
        let text = refused(&answer, 400, "invalid_request");
        assert!(answer.header("x-injected").is_none() && text.contains("control character"), "{text}");
    }
    let form_type = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/fhir+json")];
    let in_url = client.ask("POST", &format!("{TOKEN}?{body}"), &form_type, body.as_bytes());
    refused(&in_url, 400, "invalid_request");
    let long = format!("{body}&x={}", "y".repeat(40_000));
    refused(&client.ask("POST", TOKEN, &form_type, long.as_bytes()), 413, "invalid_request");
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = client.ask(method, TOKEN, &[], b"");
        refused(&answer, 405, "invalid_request");
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
    }
    let head = client.ask("HEAD", TOKEN, &[], b"");
    assert_eq!((head.status, head.body.len()), (405, 0));
    // Nothing of this has used the assertion up.
    let charset = [("Content-Type", "Application/X-WWW-Form-urlencoded; charset=UTF-8")];
    let answer = client.ask("POST", TOKEN, &charset, [&body, "&client_id=a"].concat().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// AUTH-05…09, AUTH-12: each refused assertion beside its accepted twin. All refusals have the same words; the reason stands in
/// the log, and nothing of an assertion does.
#[test]
fn assertions_are_checked() {
    let scratch = scratch();
    let (signer, other) = (Signer::new("a", "RS384"), Signer::new("b", "ES384"));
    let server = serve(scratch.path(), "", &[signer.inline(""), other.inline("")].concat());
    let client = server.client();
    let with = |mut object: Value, name: &str, value: Value| {
        object[name] = value;
        object
    };
    let claim = |name: &str, value: Value| signer.sign(&signer.header(), &with(signer.claims(), name, value));
    let header = |name: &str, value: Value| signer.sign(&with(signer.header(), name, value), &signer.claims());
    let unsigned = |alg: &str| {
        let parts = [json!({"alg": alg, "typ": "JWT", "kid": signer.key.kid}), signer.claims()]
            .map(|part| encode(part.to_string().as_bytes()));
        parts.join(".")
    };
    // A HMAC under the public key, which a confused server would take as a secret.
    let hmac = {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA384, signer.jwks().as_bytes());
        let message = unsigned("HS384");
        format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
    };
    let changed = {
        let text = signer.assertion();
        let (message, signature) = text.rsplit_once('.').unwrap();
        let (head, _) = message.split_once('.').unwrap();
        format!("{head}.{}.{signature}", encode(signer.claims().to_string().as_bytes()))
    };
    for (what, assertion, reason) in [
        ("alg none", format!("{}.", unsigned("none")), "Algorithm"),
        ("alg none with a signature", format!("{}.AAAA", unsigned("None")), "Algorithm"),
        ("a HMAC under the public key", hmac, "Algorithm"),
        ("another algorithm of the same family", header("alg", json!("PS384")), "Key(OtherKind)"),
        ("an algorithm of another family", header("alg", json!("ES384")), "Key(OtherKind)"),
        ("no kid", header("kid", Value::Null), "NoKeyId"),
        ("an unknown kid", header("kid", json!("none")), "Key(NoKey)"),
        ("another client's kid", header("kid", json!(other.key.kid)), "Key(NoKey)"),
        ("another typ", header("typ", json!("at+jwt")), "Type"),
        ("jku where none is registered", header("jku", json!("https://a.example.org/jwks")), "KeySetUrl"),
        (
            "a key of its own",
            other.sign(&with(with(signer.header(), "jwk", other.key.jwk()), "alg", json!("RS384")), &signer.claims()),
            "Signature",
        ),
        ("another client's signature", other.sign(&signer.header(), &signer.claims()), "Signature"),
        ("another client's claims", signer.sign(&signer.header(), &other.claims()), "Key(NoKey)"),
        ("changed claims", changed, "Signature"),
        ("an unknown client", claim("iss", json!("nobody")), "UnknownClient"),
        ("another subject", claim("sub", json!("b")), "Subject"),
        ("the root as audience", claim("aud", json!(URL)), "Audience"),
        ("a slash behind the audience", claim("aud", json!(format!("{URL}{TOKEN}/"))), "Audience"),
        ("a past end", claim("exp", json!(now() - 31)), "Expired"),
        ("a far end", claim("exp", json!(now() + 400)), "LivesTooLong"),
        ("a later beginning", claim("nbf", json!(now() + 60)), "NotYetValid"),
        ("a later issue", claim("iat", json!(now() + 60)), "NotYetValid"),
        ("no id", claim("jti", json!("")), "NoId"),
        ("three words", "a.b.c".to_string(), "Malformed"),
    ] {
        let text = refused(&ask_with(&client, &assertion, "system/*.rs"), 400, "invalid_client");
        assert!(text.contains("cannot be authenticated"), "{what}: {text}");
        server.wait_for_log(&format!("reason={reason}"));
        assert!(assertion.len() < 20 || !server.log().contains(&assertion[assertion.len() - 20..]), "{what}");
    }
    for (what, assertion) in [
        ("as it should be", signer.assertion()),
        ("several audiences", claim("aud", json!(["other", format!("{URL}{TOKEN}")]))),
        ("a skewed clock behind", claim("exp", json!(now() - 20))),
        ("a skewed clock ahead", claim("exp", json!(now() + 320))),
        ("a skewed beginning", claim("nbf", json!(now() + 20))),
        ("seconds with a fraction", claim("exp", json!(now() as f64 + 100.5))),
        ("a key in the header, unused", header("jwk", other.key.jwk())),
    ] {
        let answer = ask_with(&client, &assertion, "system/*.rs");
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    }
}

/// AUTH-28, Hygiene: a burst is answered 429 with the time to wait, of all requests and of refused ones; other addresses and
/// health probes are not affected.
#[test]
fn bursts_are_limited() {
    let signer = Signer::new("a", "ES256");
    let start = |directory: &std::path::Path, smart: &str| {
        let text =
            format!("public_url = '{URL}'\ntrusted_proxies = ['127.0.0.1']\n[smart]\n{smart}\n{}", signer.inline(""));
        std::fs::write(directory.join("serve.toml"), text).unwrap();
        super::bundled(directory, &["--config", "serve.toml"])
    };
    let from = |client: &super::Client, address: &str, assertion: &str| {
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Forwarded-For", address),
            ("X-Forwarded-Proto", "https"),
        ];
        let body = form(&[
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
            ("scope", "system/*.rs"),
        ]);
        client.ask("POST", TOKEN, &headers, body.as_bytes())
    };
    // Refused ones: two minutes' share at once, then none, also with a right assertion.
    let scratch = scratch();
    let server = start(scratch.path(), "failures_per_minute = 3\n");
    for _ in 0..6 {
        refused(&from(&server.client(), "203.0.113.1", "a.b.c"), 400, "invalid_client");
    }
    let answer = from(&server.client(), "203.0.113.1", &signer.assertion());
    refused(&answer, 429, "temporarily_unavailable");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(from(&server.client(), "203.0.113.2", &signer.assertion()).status, 200);
    drop(server);
    // All requests of an address, and of a client from any address.
    let scratch = crate::run::scratch();
    let server = start(scratch.path(), "requests_per_second = 1\nrequests_burst = 3\n");
    let client = server.client();
    let taken = (0..10).map(|_| from(&client, "203.0.113.1", &signer.assertion()).status).collect::<Vec<_>>();
    assert!(taken[..3].iter().all(|status| *status == 200) && taken[4..].contains(&429), "{taken:?}");
    let elsewhere = (0..4).map(|host| from(&client, &format!("203.0.113.{}", host + 10), &signer.assertion()).status);
    assert!(elsewhere.into_iter().any(|status| status == 429), "the client has a limit wherever it asks from");
    assert_eq!(client.get("/health/live").status, 200);
}

/// AUTH-27: tokens and assertions are never in the log, at any level, and no token is read from a query.
#[test]
fn nothing_secret_is_logged() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let server = serve(scratch.path(), "", &signer.inline(""));
    let client = server.client();
    let assertion = signer.assertion();
    let token = ask_with(&client, &assertion, "system/*.rs").json()["access_token"].as_str().unwrap().to_string();
    assert_eq!(with_token(&client, &token, "GET", "/fhir/Group").status, 200);
    let in_query =
        client.ask("GET", &format!("/fhir/Group?access_token={token}"), &[("Accept", "application/fhir+json")], b"");
    assert_eq!(in_query.status, 401);
    ask_with(&client, &assertion, "system/*.rs");
    ask_with(&client, &format!("x{}", fresh_jti()), "system/*.rs");
    let changed = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(with_token(&client, &changed, "GET", "/fhir/Group").status, 401);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let log = server.log();
    for secret in [&assertion, &token, &changed] {
        for part in secret.split('.') {
            assert!(!log.contains(part), "{log}");
        }
    }
}
