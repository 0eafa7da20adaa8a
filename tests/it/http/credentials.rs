//! Authentication and authorization: tokens and client headers of the configuration, access to jobs, files and Groups,
//! the reload of clients, floods of wrong tokens, and the log.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::{Answer, Client};
use super::job_lifecycle::{accepted, bundled, files};
use super::server::Server;
use crate::run::{run, scratch, testdata};

type Header<'a> = (&'a str, &'a str);

/// A credential: its secret, the headers that send it, and its entry for the configuration.
pub(super) struct Credential {
    /// The secret part, which must never be in a log or response.
    pub secret: String,
    pub headers: Vec<(String, String)>,
    /// Entry for the configuration.
    pub entry: String,
}

impl Credential {
    pub(super) fn token(words: &[&str]) -> Credential {
        let made = run(&[&["credential", "token", "--json"][..], words].concat());
        assert_eq!(made.code, 0, "{made:?}");
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let token = made["token"].as_str().unwrap();
        Credential {
            secret: token.split_once('.').unwrap().1.to_string(),
            headers: vec![("Authorization".into(), format!("Bearer {token}"))],
            entry: made["configuration"].as_str().unwrap().to_string(),
        }
    }

    pub(super) fn client_headers(id: &str) -> Credential {
        let made = run(&["credential", "secret", "--client-id", id, "--json"]);
        assert_eq!(made.code, 0, "{made:?}");
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let secret = made["clientSecret"].as_str().unwrap().to_string();
        let client = |name: &str, value: &str| (name.to_string(), value.to_string());
        Credential {
            headers: vec![
                client("client_id", id),
                client("client_secret", &secret),
                client("x-oneup-user-id", "client"),
            ],
            entry: made["configuration"].as_str().unwrap().to_string(),
            secret,
        }
    }

    /// Sends a request with this credential.
    pub(super) fn ask(&self, client: &Client, method: &str, target: &str, more: &[Header<'_>]) -> Answer {
        let mut headers: Vec<Header<'_>> = more.to_vec();
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        client.ask(method, target, &headers, b"")
    }

    pub(super) fn get(&self, client: &Client, target: &str) -> Answer {
        self.ask(client, "GET", target, &[])
    }

    fn kick_off(&self, client: &Client, target: &str) -> Answer {
        self.ask(client, "GET", &format!("/fhir/{target}"), &KICK_OFF)
    }

    /// Polls a job until it has ended; its manifest.
    #[track_caller]
    pub(super) fn manifest(&self, client: &Client, status: &str) -> Value {
        for _ in 0..3000 {
            let answer = self.get(client, status);
            match answer.status {
                202 | 429 => std::thread::sleep(Duration::from_millis(20)),
                200 => return answer.json(),
                _ => panic!("{}", answer.text()),
            }
        }
        panic!("the job did not end");
    }
}

const KICK_OFF: [Header<'static>; 2] = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
/// Id of a patient as a user of the service; patient ids must not be in the log.
const USER: &str = "patient-seven";
const LIMITS: &str =
    "[limits]\npolls_burst = 1000\n[ig]\nauthorization = ['bearer', 'client-headers']\n[log]\nlevel = 'trace'\n";

/// The configuration of a client.
pub(super) fn client(name: &str, more: &str, tokens: &[&Credential]) -> String {
    let tokens: Vec<&str> = tokens.iter().map(|token| token.entry.as_str()).collect();
    format!("[[clients]]\nname = '{name}'\n{more}\ntokens = [\n{}\n]\n", tokens.join("\n"))
}

fn serve(directory: &Path, clients: &str) -> Server {
    std::fs::write(directory.join("serve.toml"), format!("{LIMITS}{clients}")).unwrap();
    bundled(directory, &["--config", "serve.toml"])
}

/// Asserts AUTH-27: no secret, hash or patient id is in the log, at any level.
#[track_caller]
fn nothing_secret_in(log: &str, credentials: &[&Credential]) {
    assert!(credentials.iter().all(|one| !log.contains(&one.secret)), "{log}");
    assert!(
        !log.contains(USER) && !log.contains("argon2id$") && !log.contains("sha256$") && !log.contains("Bearer "),
        "{log}"
    );
}

/// AUTH-23, AUTH-25, AUTH-27, AUTH-28, STATUS-14, FILE-06, DELETE-07, CAP-01, ONEUP-S07: routes that need credentials
/// and routes that do not, and the responses to missing and wrong credentials.
#[test]
fn nobody_gets_in_without_credentials() {
    let scratch = scratch();
    let (right, foreign, user) =
        (Credential::token(&[]), Credential::token(&[]), Credential::token(&["--patient", USER]));
    let mut old = Credential::token(&["--lifetime", "1h"]);
    let expires = old.entry.find("expires = ").unwrap();
    old.entry.replace_range(expires.., &format!("expires = \"2020-01-01T00:00:00Z\", patient = \"{USER}\" }},"));
    let by_client = Credential::client_headers("a-1");
    let more = format!("writes_groups = true\n{}", by_client.entry);
    std::fs::create_dir(scratch.path().join("other")).unwrap();
    let other = "[[tenants]]\nname = 'other'\nstore = { path = 'other' }\ndata = { path = 'other-data' }\n";
    let clients = client("a", &more, &[&right, &old, &user]) + &client("b", "tenants = ['other']", &[&foreign]) + other;
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    for open in ["/health/live", "/fhir/metadata", "/fhir/OperationDefinition/export"] {
        assert_ne!(http.get(open).status, 401, "{open}");
    }
    let token = right.headers[0].1.strip_prefix("Bearer ").unwrap();
    for (method, target) in [
        ("GET", "/fhir/$export"),
        ("GET", "/fhir/%24export"),
        ("GET", "/fhir/Patient/$export"),
        ("GET", "/fhir/Group/ten/$export"),
        ("GET", "/fhir/bulk-status/00000000000000000000000000000000"),
        ("DELETE", "/fhir/bulk-status/00000000000000000000000000000000"),
        ("GET", "/fhir/bulk-files/00000000000000000000000000000000"),
        ("HEAD", "/fhir/bulk-files/00000000000000000000000000000000"),
        ("GET", "/fhir/Group"),
        ("POST", "/fhir/Group"),
        ("GET", "/fhir/Group/ten"),
        ("PUT", "/fhir/Group/ten"),
        ("DELETE", "/fhir/Group/ten"),
        ("GET", "/fhir/Group/no%20id"),
    ] {
        let bare = http.ask(method, target, &KICK_OFF, b"");
        assert_eq!((bare.status, bare.header("www-authenticate")), (401, Some("Bearer realm=\"outpour\"")), "{target}");
        let in_query = http.ask(method, &format!("{target}?access_token={token}"), &KICK_OFF, b"");
        assert_eq!(in_query.status, 401, "AUTH-27: {target}");
        if method != "HEAD" {
            bare.outcome(401, "login");
        }
    }
    let target = "/fhir/$export?_type=Organization";
    let ask = |headers: &[Header<'_>]| http.ask("GET", target, &[&KICK_OFF[..], headers].concat(), b"");
    let id = token.split_once('.').unwrap().0;
    let mut reported: Vec<(String, Vec<u8>)> = Vec::new();
    for wrong in [
        format!("Bearer {id}.{}", foreign.secret),
        format!("Bearer 0000000000000000.{}", right.secret),
        format!("Bearer {id}"),
        format!("Basic {token}"),
        "Bearer".to_string(),
    ] {
        let answer = ask(&[("Authorization", &wrong)]);
        answer.outcome(401, "login");
        reported.push((answer.header("www-authenticate").unwrap().to_string(), answer.body));
    }
    assert!(
        reported[0].0.contains("error=\"invalid_token\"") && reported.iter().all(|other| *other == reported[0]),
        "{reported:?}"
    );
    let late = old.kick_off(&http, "$export");
    assert!(
        late.outcome(401, "expired").contains("fresh") && late.header("www-authenticate").unwrap().contains("invalid")
    );
    foreign.kick_off(&http, "$export").outcome(403, "forbidden");
    user.kick_off(&http, "$export").outcome(403, "forbidden");
    let twice = [right.headers[0].clone(), right.headers[0].clone()];
    ask(&twice.each_ref().map(|(name, value)| (name.as_str(), value.as_str()))).outcome(401, "login");
    let both: Vec<Header<'_>> =
        right.headers.iter().chain(&by_client.headers).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    ask(&both).outcome(401, "login");
    ask(&[("client_id", "a-1"), ("client_secret", &right.secret)]).outcome(401, "login");
    ask(&[("client_id", "a-1")]).outcome(401, "login");
    let first = accepted(&http, &right.kick_off(&http, "$export?_type=Organization"));
    let manifest = by_client.manifest(&http, &first);
    assert_eq!(manifest["requiresAccessToken"], true, "MANIFEST-03");
    let log = server.log();
    nothing_secret_in(&log, &[&right, &foreign, &old, &user, &by_client]);
    for words in
        ["WrongSecret", "Unknown", "Malformed", "Expired", "OtherTenant", "Several", "Missing", &format!("\"{id}\"")]
    {
        assert!(log.lines().any(|line| line.contains("outpour::audit") && line.contains(words)), "{words}: {log}");
    }
    assert!(!log.contains("0000000000000000."), "an id that is not ours is not repeated");
}

/// AUTH-26, ONEUP-S08, KICK-18, STATUS-14, FILE-06, FILE-07, DELETE-07, GROUP-08, AUTH-24, MANIFEST-03: jobs, files and
/// Groups belong to one client, and are open to all of its credentials.
#[test]
fn clients_do_not_see_each_other() {
    let scratch = scratch();
    let words: [&[&str]; 4] = [&[], &["--lifetime", "never"], &[], &["--patient", USER]];
    let [first, fresh, other, user] = words.map(Credential::token);
    let groups = "levels = ['group']\ngroups = ['missing']\nwrites_groups = true";
    let clients = client("a", "", &[&first, &fresh, &user]) + &client("b", groups, &[&other]);
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    let status = accepted(&http, &first.kick_off(&http, "Group/ten/$export?_type=Patient"));
    for stranger in [&other, &user] {
        stranger.get(&http, &status).outcome(404, "not-found");
        stranger.ask(&http, "DELETE", &status, &[]).outcome(404, "not-found");
    }
    http.get(&status).outcome(401, "login");
    let manifest = fresh.manifest(&http, &status);
    assert_eq!(manifest["requiresAccessToken"], true);
    let listed = files(&http, &manifest);
    assert_eq!(listed.len(), 1);
    for (_, path, count) in &listed {
        let file = fresh.get(&http, path);
        assert_eq!((file.status, file.text().lines().count() as u64), (200, *count));
        http.get(path).outcome(401, "login");
        other.get(&http, path).outcome(404, "not-found");
        user.get(&http, path).outcome(404, "not-found");
    }
    for hidden in ["Group/ten", "Group/no-such"] {
        other.get(&http, &format!("/fhir/{hidden}")).outcome(404, "not-found");
        other.kick_off(&http, &format!("{hidden}/$export")).outcome(404, "not-found");
    }
    let found = |answer: Answer| -> Vec<String> {
        let bundle = answer.json();
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        assert_eq!(bundle["total"], entries.len());
        entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(found(other.get(&http, "/fhir/Group")), ["missing"]);
    assert!(found(other.get(&http, "/fhir/Group?_id=ten")).is_empty());
    assert!(found(first.get(&http, "/fhir/Group")).len() > 1);
    user.get(&http, "/fhir/Group").outcome(403, "forbidden");
    other.kick_off(&http, "Patient/$export").outcome(403, "forbidden");
    let write = |who: &Credential, method: &str, target: &str| {
        let id = target.rsplit('/').next().unwrap();
        let mut headers: Vec<Header<'_>> = vec![("Content-Type", "application/fhir+json")];
        headers.extend(who.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let group = format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true}}"#);
        http.ask(method, target, &headers, if method == "DELETE" { b"" } else { group.as_bytes() }).status
    };
    assert_eq!(write(&first, "POST", "/fhir/Group"), 403, "it may not write Groups");
    assert_eq!(write(&other, "POST", "/fhir/Group"), 403, "a new one would not be its own");
    assert_eq!(write(&other, "PUT", "/fhir/Group/ten"), 404);
    assert_eq!(write(&other, "DELETE", "/fhir/Group/ten"), 404);
    assert_eq!(write(&other, "PUT", "/fhir/Group/missing"), 200);
    assert_eq!(write(&other, "DELETE", "/fhir/Group/missing"), 204);
    assert_eq!(fresh.ask(&http, "DELETE", &status, &[]).status, 202);
    nothing_secret_in(&server.log(), &[&first, &fresh, &other, &user]);
}

/// AUTH-22, NETSMART-E02, STATUS-14, FILE-07: the types of a client bound its exports, and access to its jobs when they
/// change. AUTH-27, AUTH-28: clients are reloaded while the service runs; a wrong configuration changes nothing.
#[test]
fn types_and_reload() {
    let scratch = scratch();
    let [all, narrow, late] = [(); 3].map(|()| Credential::token(&[]));
    let types = |types: &str| client("all", "", &[&all]) + &client("narrow", &format!("types = [{types}]"), &[&narrow]);
    let server = serve(scratch.path(), &types("'Patient', 'Condition', 'Organization'"));
    let http = server.client();
    let of = |manifest: &Value| -> Vec<String> { files(&http, manifest).into_iter().map(|(of, ..)| of).collect() };
    let status = accepted(&http, &narrow.kick_off(&http, "Group/ten/$export"));
    let manifest = narrow.manifest(&http, &status);
    assert_eq!(of(&manifest), ["Condition", "Patient"], "AUTH-22");
    let system = accepted(&http, &narrow.kick_off(&http, "$export"));
    assert_eq!(of(&narrow.manifest(&http, &system)), ["Condition", "Organization", "Patient"]);
    let refused = narrow.kick_off(&http, "Group/ten/$export?_type=Patient,Observation");
    assert!(refused.outcome(403, "forbidden").contains("Observation"));
    let all_types = accepted(&http, &all.kick_off(&http, "Group/ten/$export"));
    assert!(of(&all.manifest(&http, &all_types)).len() > 5);

    let write = |text: &str| std::fs::write(scratch.path().join("serve.toml"), text).unwrap();
    let wait = |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what}: {}", server.log());
    };
    write(&format!("{LIMITS}{}{}", types("'Patient'"), client("late", "", &[&late])));
    wait("the new client is let in", &|| late.get(&http, "/fhir/Group").status == 200);
    narrow.get(&http, &status).outcome(403, "forbidden");
    for (of, path, _) in files(&http, &manifest) {
        assert_eq!(narrow.get(&http, &path).status, if of == "Patient" { 200 } else { 403 }, "FILE-07: {of}");
    }

    write(&format!("{LIMITS}[[clients]]\nname = 'x'\ntokens = '{}'", late.secret));
    wait("it is said", &|| server.log().contains("cannot be used"));
    assert_eq!(late.get(&http, "/fhir/Group").status, 200, "the clients from before stay");
    write(&format!("{LIMITS}{}", client("all", "", &[&all])));
    server.hang_up();
    wait("the client is gone", &|| late.get(&http, "/fhir/Group").status == 401);
    assert_eq!(all.get(&http, "/fhir/Group").status, 200);
    write(LIMITS);
    wait("nobody is let in", &|| all.get(&http, "/fhir/Group").status == 401);
    nothing_secret_in(&server.log(), &[&all, &narrow, &late]);
    assert_eq!(server.stop(), Some(0));
}

/// ONEUP-S01, ONEUP-S07, ONEUP-M09, C-14: the same URL exports the own record for a user, and everything for a client;
/// mounts for tokens only refuse client headers.
#[test]
fn one_url_two_populations() {
    let scratch = scratch();
    let patient = "6b12b22d-6dc2-486c-9526-8ac8524f6402";
    let (user, by_client) = (Credential::token(&["--patient", patient]), Credential::client_headers("a-1"));
    let server = serve(scratch.path(), &client("a", &by_client.entry, &[&user]));
    let http = server.client();
    let exported = |who: &Credential| -> u64 {
        let kicked = who.ask(&http, "GET", "/bulk-data/r4/$export?_type=patient", &KICK_OFF);
        let manifest = who.manifest(&http, &accepted(&http, &kicked));
        files(&http, &manifest).iter().map(|(of, _, count)| if of == "Patient" { *count } else { 0 }).sum()
    };
    assert_eq!(exported(&user), 1);
    assert!(exported(&by_client) > 1);
    for tokens_only in ["/uscore/v1/bulk-data/Group/ten/$export", "/v1/default/bulk-export/bulk-data/r4/$export"] {
        let reported = by_client.ask(&http, "GET", tokens_only, &KICK_OFF).outcome(401, "login");
        assert!(reported.contains("only way"), "{reported}");
    }
    let log = server.log();
    nothing_secret_in(&log, &[&user, &by_client]);
    assert!(!log.contains(patient), "{log}");
}

/// CLIENT-05: without clients an `Authorization` header is ignored, and files need none (FILE-08).
#[test]
fn without_clients_no_credentials_are_needed() {
    let scratch = scratch();
    let server = serve(scratch.path(), "");
    let http = server.client();
    let stray = Credential {
        secret: String::new(),
        headers: vec![("Authorization".into(), "Bearer ".into())],
        entry: String::new(),
    };
    let status = accepted(&http, &stray.kick_off(&http, "$export?_type=Organization"));
    let manifest = stray.manifest(&http, &status);
    assert_eq!(manifest["requiresAccessToken"], false);
    for (_, path, _) in files(&http, &manifest) {
        assert_eq!((stray.get(&http, &path).status, http.get(&path).status), (200, 200));
    }
}

/// All problems of the clients in a configuration are reported at once, before anything is opened, and without secrets.
#[test]
fn wrong_clients_are_reported() {
    let scratch = scratch();
    let store = testdata("stores/synthea-r4-100");
    let start = |text: &str| {
        std::fs::write(scratch.path().join("serve.toml"), text).unwrap();
        let words = ["--store", store.to_str().unwrap(), "--data", "data", "--config", "serve.toml"];
        Server::try_start(scratch.path(), &words).err().expect("it does not start")
    };
    let said =
        start("[[clients]]\nname = 'a'\ntypes = ['Patiant']\ngroups = ['g']\ntokens = [{ id = 'x', hash = 's3cret' }]");
    for words in ["client a", "did you mean Patient", "levels = [\"group\"]", "token x", "outpour credential"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    let said = start("[[clients]]\nname = 'a'\ntoken = 's3cret'");
    assert!(said.contains("token") && said.contains("line 3") && !said.contains("s3cret"), "{said}");
}

/// A token and a secret made by an earlier version, with argon2id hashes.
fn earlier_credentials() -> [Credential; 2] {
    let (id, secret) = ("ec00d4c87816402d", "ae905e1fad32385e84e4b07e5815d3ddfdfd5ed1d867d64c73e98ac8f303313d");
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$dp6PKrg/DISNRbv/b5/Wew$Rwpw6vrLcKkChUBZp9t8+ABPGRj9kC5QOVjzhY+Yqr8";
    let token = Credential {
        secret: secret.into(),
        headers: vec![("Authorization".into(), format!("Bearer {id}.{secret}"))],
        entry: format!("{{ id = \"{id}\", hash = \"{hash}\" }},"),
    };
    let secret = "3df7c702923ff72facd371f3d8c32403699d6fdc63550c275e89e8524b067f35";
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$CIBJGiR7azd2DhHqYsGbhw$qL3cByNTxC2Gy5lnPzlcpbHT3kiJqfsE3rOsShfcoGc";
    let by_client = Credential {
        secret: secret.into(),
        headers: vec![("client_id".into(), "old-1".into()), ("client_secret".into(), secret.into())],
        entry: format!("client_id = \"old-1\"\nclient_secret_hash = \"{hash}\""),
    };
    [token, by_client]
}

/// Responses to a flood of wrong tokens, and the longest time of a right one meanwhile.
struct Flood {
    statuses: Vec<u16>,
    right: Duration,
}

/// Sends wrong tokens on many connections, half of which hang up at once, and repeats a right token until all have been
/// answered.
fn flood(server: &Server, right: &Credential, id: &str) -> Flood {
    const THREADS: usize = 48;
    const EACH: usize = 8;
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let statuses = std::sync::Mutex::new(Vec::new());
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ended, statuses) = (&ended, &statuses);
            scope.spawn(move || {
                let http = server.client();
                for n in 0..EACH {
                    // Known and unknown ids.
                    let unknown = format!("{thread:08x}{n:08x}");
                    let bogus = format!("Bearer {}.{}", if n % 2 == 0 { id } else { &unknown }, "0".repeat(64));
                    if thread % 2 == 0 {
                        let answer = http.ask("GET", "/fhir/Group", &[("Authorization", &bogus)], b"");
                        if answer.status == 503 {
                            assert!(answer.header("retry-after").is_some());
                            answer.outcome(503, "throttled");
                        }
                        statuses.lock().unwrap().push(answer.status);
                    } else {
                        let head =
                            format!("GET /fhir/Group HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bogus}\r\n\r\n");
                        std::io::Write::write_all(&mut http.connect(), head.as_bytes()).unwrap();
                    }
                }
                ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let http = server.client();
        while ended.load(std::sync::atomic::Ordering::Relaxed) < THREADS {
            let begun = std::time::Instant::now();
            assert_eq!(right.get(&http, "/fhir/Group?_id=ten").status, 200);
            slowest = slowest.max(begun.elapsed());
        }
    });
    Flood { statuses: statuses.into_inner().unwrap(), right: slowest }
}

/// AUTH-28, CORE-08: if the configuration has no slow hashes, a flood of wrong tokens is refused without one, and does
/// not delay a right token.
#[test]
fn a_flood_of_wrong_tokens_costs_little() {
    let scratch = scratch();
    let right = Credential::token(&[]);
    std::fs::write(scratch.path().join("serve.toml"), client("a", "", &[&right])).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let id = right.headers[0].1.split(['.', ' ']).nth(1).unwrap();
    // The first indexing takes memory of its own.
    server.wait_until_ready();
    let before = server.memory();
    let flood = flood(&server, &right, id);
    assert!(flood.statuses.iter().all(|status| *status == 401), "{:?}", flood.statuses);
    assert!(flood.right < Duration::from_secs(5), "{:?}", flood.right);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    assert_eq!(server.threads("argon2"), 0);
    assert!(!server.log().contains("argon2"), "nothing to warn of");
}

/// AUTH-28, CORE-08: hashes of earlier versions are still accepted. Wrong tokens are checked against them by two
/// threads with bounded memory and queue, for which a right token of the current form does not wait.
#[test]
fn hashes_of_earlier_versions() {
    let scratch = scratch();
    let (right, [token, by_client]) = (Credential::token(&[]), earlier_credentials());
    let clients = client("a", "", &[&right]) + &client("b", &by_client.entry, &[&token]);
    let text = format!("[ig]\nauthorization = ['bearer', 'client-headers']\n{clients}");
    std::fs::write(scratch.path().join("serve.toml"), text).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let http = server.client();
    assert_eq!(right.get(&http, "/fhir/Group").status, 200);
    assert_eq!(server.threads("argon2"), 0, "not for a hash of today");
    for known in [&token, &by_client] {
        assert_eq!((known.get(&http, "/fhir/Group").status, known.get(&http, "/fhir/Group").status), (200, 200));
    }
    assert_eq!(server.threads("argon2"), 2);
    let wrong = [("client_id", "old-1"), ("client_secret", &*token.secret)];
    http.ask("GET", "/fhir/Group", &wrong, b"").outcome(401, "login");
    let before = server.memory();
    let flood = flood(&server, &right, "ec00d4c87816402d");
    assert!(flood.statuses.iter().all(|status| matches!(status, 401 | 503)), "{:?}", flood.statuses);
    assert!(flood.statuses.contains(&401), "{:?}", flood.statuses);
    assert!(flood.right < Duration::from_secs(5), "{:?}", flood.right);
    // At most the memory of the second thread, 19 MiB, is added.
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more");
    assert_eq!(server.threads("argon2"), 2);
    assert_eq!(token.get(&http, "/fhir/Group").status, 200, "it was right before, and is not checked again");
    let log = server.log();
    assert!(log.contains("credentials=2") && log.contains("argon2id hashes of earlier versions"), "{log}");
    nothing_secret_in(&log, &[&right, &token, &by_client]);
}

/// ONEUP-S08: the command prints the credential on standard output, and the entry for the configuration on standard
/// error.
#[test]
fn credentials_are_made() {
    let token = run(&["credential", "token", "--lifetime", "30d", "--patient", "p1"]);
    let (id, secret) = token.stdout.trim_end().split_once('.').unwrap();
    assert!(token.code == 0 && secret.len() == 64 && !token.stderr.contains(secret), "{token:?}");
    for words in [&format!("id = \"{id}\""), "$sha256$v=1$", "expires = \"", "patient = \"p1\"", "[[clients]]"] {
        assert!(token.stderr.contains(words), "{words}: {}", token.stderr);
    }
    let never = run(&["credential", "token", "--lifetime", "never"]);
    assert!(!never.stderr.contains("expires") && never.stdout != token.stdout, "{never:?}");
    let secret = run(&["credential", "secret"]);
    assert!(secret.stdout.trim_end().len() == 64 && secret.stderr.contains("client_secret_hash = "), "{secret:?}");
    run(&["credential", "token", "--lifetime", "soon"]).refused(2, &["--lifetime", "soon", "2h"]);
    run(&["credential", "token", "--patient", "Patient/p"]).refused(2, &["--patient"]);
    run(&["credential", "secret", "--client-id", "a b"]).refused(2, &["--client-id"]);
    let help = run(&["help", "credential"]);
    assert!(help.stdout.contains("[[clients]]") && help.stdout.contains("revokes"), "{help:?}");
}
