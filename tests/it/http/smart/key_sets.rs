//! Key sets in files and at URLs: kept, read anew, and fetched from no place but the registered one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::serve;
use super::signer::{Signer, ask_with, form, refused};
use crate::run::scratch;

/// How a host of key sets answers.
type Answering = dyn FnMut(&str, &mut TcpStream) + Send;

/// A host of key sets on this machine, with the targets that it was asked for.
struct KeyHost {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    answering: Arc<Mutex<Box<Answering>>>,
}

impl KeyHost {
    fn start(answering: impl FnMut(&str, &mut TcpStream) + Send + 'static) -> KeyHost {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answering: Arc<Mutex<Box<Answering>>> = Arc::new(Mutex::new(Box::new(answering)));
        let (log, answer) = (asked.clone(), answering.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_string();
                let target = head.split(' ').nth(1).unwrap_or_default().to_string();
                assert!(head.to_ascii_lowercase().contains("accept: application/json"), "AUTH-11: {head}");
                log.lock().unwrap().push(target.clone());
                (answer.lock().unwrap())(&target, &mut stream);
            }
        });
        KeyHost { url, asked, answering }
    }

    /// Changes how it answers.
    fn change(&self, answering: impl FnMut(&str, &mut TcpStream) + Send + 'static) {
        *self.answering.lock().unwrap() = Box::new(answering);
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Sends an answer.
fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).ok();
    stream.write_all(body.as_bytes()).ok();
}

/// An answering that sends a set.
fn sends(set: String, headers: &'static str) -> impl FnMut(&str, &mut TcpStream) + Send + 'static {
    move |_, stream| send(stream, "200 OK", headers, &set)
}

const HOSTS: &str = "jwks_hosts = ['127.0.0.1']";

/// AUTH-09, AUTH-10, AUTH-11: a set at a URL is kept as long as it says; a key that is not in it has it read once more, and forged
/// key ids do so no more often than now and then; `jku` is the registered URL or nothing.
#[test]
fn a_set_at_a_url_is_kept_and_read_anew() {
    let scratch = scratch();
    let (old, new) = (Signer::new("a", "ES384"), Signer::new("a", "ES384"));
    let host = KeyHost::start(sends(old.jwks(), "Cache-Control: max-age=3600\r\n"));
    let url = format!("{}/jwks.json", host.url);
    let server = serve(scratch.path(), HOSTS, &old.entry("", &format!("jwks_url = '{url}'")));
    let client = server.client();
    for _ in 0..3 {
        assert_eq!(old.ask(&client, "system/*.rs").status, 200);
    }
    assert_eq!(host.count(), 1, "it is kept");
    let with_url = |signer: &Signer, url: &str| {
        let mut header = signer.header();
        header["jku"] = json!(url);
        signer.sign(&header, &signer.claims())
    };
    assert_eq!(ask_with(&client, &with_url(&old, &url), "system/*.rs").status, 200);
    let foreign = KeyHost::start(sends(new.jwks(), ""));
    refused(
        &ask_with(&client, &with_url(&new, &format!("{}/jwks.json", foreign.url)), "system/*.rs"),
        400,
        "invalid_client",
    );
    refused(&ask_with(&client, &with_url(&old, &format!("{url}?")), "system/*.rs"), 400, "invalid_client");
    assert_eq!(foreign.count(), 0, "AUTH-09: another jku is never asked");
    // The client changes its key.
    host.change(sends(new.jwks(), "Cache-Control: max-age=3600\r\n"));
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(new.ask(&client, "system/*.rs").status, 200);
    assert_eq!(host.count(), 2);
    refused(&old.ask(&client, "system/*.rs"), 400, "invalid_client");
    let forged = Signer::new("a", "ES384");
    for _ in 0..20 {
        refused(&forged.ask(&client, "system/*.rs"), 400, "invalid_client");
    }
    assert!(host.count() <= 3, "{}", host.count());
}

/// AUTH-11: what may not be kept is fetched again.
#[test]
fn a_set_that_may_not_be_kept_is_fetched_again() {
    let scratch = scratch();
    let signer = Signer::new("a", "RS384");
    let host = KeyHost::start(sends(signer.jwks(), "Cache-Control: no-store\r\n"));
    let server = serve(scratch.path(), HOSTS, &signer.entry("", &format!("jwks_url = '{}/'", host.url)));
    assert_eq!(signer.ask(&server.client(), "system/*.rs").status, 200);
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(signer.ask(&server.client(), "system/*.rs").status, 200);
    assert_eq!(host.count(), 2);
}

/// AUTH-11: broken, long, endless, slow and redirected answers give no token, within bounds; the same host may redirect to
/// itself; afterwards a right answer gives one.
#[test]
fn hostile_hosts_give_no_token() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let other = KeyHost::start(sends(signer.jwks(), ""));
    let host = KeyHost::start(|_, _| {});
    let server = serve(scratch.path(), HOSTS, &signer.entry("", &format!("jwks_url = '{}/jwks'", host.url)));
    let client = server.client();
    let set = signer.jwks();
    let redirect = |location: String| {
        move |_: &str, stream: &mut TcpStream| send(stream, "302 Found", &format!("Location: {location}\r\n"), "")
    };
    let long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "y".repeat(300 << 10));
    let private = set.replace("\"kty\"", "\"d\":\"AAAA\",\"kty\"");
    let cases: Vec<(&str, Box<Answering>)> = vec![
        ("nothing", Box::new(|_, _| {})),
        ("an error", Box::new(|_, stream| send(stream, "500 Oh", "", "no"))),
        ("no set", Box::new(|_, stream| send(stream, "200 OK", "", "[]"))),
        ("a private key", Box::new(move |_, stream| send(stream, "200 OK", "", &private))),
        ("a long set", Box::new(move |_, stream| send(stream, "200 OK", "", &long))),
        (
            "an endless set",
            Box::new(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[").ok();
                while stream.write_all(&[b' '; 4096]).is_ok() {}
            }),
        ),
        (
            "endless headers",
            Box::new(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").ok();
                while stream.write_all(b"X-Header: value\r\n").is_ok() {}
            }),
        ),
        ("another host", Box::new(redirect(format!("{}/jwks", other.url)))),
        ("another host by //", Box::new(redirect(other.url.trim_start_matches("http:").to_string()))),
        ("a file", Box::new(redirect("file:///etc/passwd".to_string()))),
        ("a circle", Box::new(redirect("/jwks".to_string()))),
    ];
    for (what, answering) in cases {
        *host.answering.lock().unwrap() = answering;
        std::thread::sleep(Duration::from_millis(1100));
        let begun = Instant::now();
        refused(&signer.ask(&client, "system/*.rs"), 503, "temporarily_unavailable");
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}");
    }
    assert_eq!(other.count(), 0);
    // A slow host: the request is answered when its time is over, and others are answered meanwhile.
    host.change(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    std::thread::sleep(Duration::from_millis(1100));
    let begun = Instant::now();
    refused(&signer.ask(&client, "system/*.rs"), 503, "temporarily_unavailable");
    assert!((Duration::from_secs(5)..Duration::from_secs(20)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    host.change(move |target, stream| match target {
        "/jwks" => send(stream, "302 Found", "Location: /elsewhere\r\n", ""),
        _ => send(stream, "200 OK", "", &set),
    });
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(signer.ask(&client, "system/*.rs").status, 200);
    let log = server.log();
    assert!(log.contains("the key set of a client cannot be used"), "{log}");
}

/// AUTH-11: private addresses and plain HTTP only where the operator says so.
#[test]
fn private_addresses_are_refused() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let host = KeyHost::start(sends(signer.jwks(), ""));
    let port = host.url.rsplit_once(':').unwrap().1;
    for (smart, url, word) in [
        ("", format!("{}/jwks", host.url), "plain HTTP"),
        ("", "https://169.254.169.254/latest/meta-data".to_string(), "private address"),
        ("jwks_hosts = ['keys.example.org']", "http://keys.example.org/jwks".to_string(), "plain HTTP"),
    ] {
        let settings = format!(
            "public_url = 'https://bulk.example.org'\n[smart]\n{smart}\n{}",
            signer.entry("", &format!("jwks_url = '{url}'"))
        );
        std::fs::write(scratch.path().join("serve.toml"), settings).unwrap();
        let store = crate::run::testdata("stores/synthea-r4-100");
        let words =
            ["--config", "serve.toml", "--store", store.to_str().unwrap(), "--index-dir", "index", "--data", "data"];
        let log = super::Server::try_start(scratch.path(), &words).err().expect("refused at the start");
        assert!(log.contains(word), "{url}: {log}");
    }
    // A name that resolves to this machine is refused when it is asked, whatever the URL looks like.
    let server = serve(scratch.path(), "", &signer.entry("", &format!("jwks_url = 'https://localhost:{port}/jwks'")));
    refused(&signer.ask(&server.client(), "system/*.rs"), 503, "temporarily_unavailable");
    server.wait_for_log("private address");
    assert_eq!(host.count(), 0);
}

/// AUTH-10: a set in a file, which is read anew when a key is missing in it; one that is not there is said at the start.
#[test]
fn a_set_in_a_file_is_read() {
    let scratch = scratch();
    let (old, new) = (Signer::new("a", "ES384"), Signer::new("a", "PS384"));
    let path = scratch.path().join("a.jwks");
    std::fs::write(&path, old.jwks()).unwrap();
    let server = serve(scratch.path(), "", &old.entry("", &format!("jwks_file = '{}'", path.display())));
    assert_eq!(old.ask(&server.client(), "system/*.rs").status, 200);
    std::fs::write(&path, new.jwks()).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(new.ask(&server.client(), "system/*.rs").status, 200);
    refused(&old.ask(&server.client(), "system/*.rs"), 400, "invalid_client");
    drop(server);
    std::fs::remove_file(&path).unwrap();
    let server = serve(scratch.path(), "", &old.entry("", &format!("jwks_file = '{}'", path.display())));
    server.wait_for_log("the key set of a client cannot be used");
    refused(&old.ask(&server.client(), "system/*.rs"), 503, "temporarily_unavailable");
    std::fs::write(&path, old.jwks()).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(old.ask(&server.client(), "system/*.rs").status, 200);
}

/// A stranger who knows the id of a client does not keep it from its tokens: by forged key ids while the host of its keys hangs, by
/// hanging up while the set is fetched; what a reading finds is kept though nobody waits for it any more.
#[test]
fn strangers_do_not_lock_a_client_out() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let set = signer.jwks();
    let slow = move |wait: u64| {
        let set = set.clone();
        move |_: &str, stream: &mut TcpStream| {
            std::thread::sleep(Duration::from_millis(wait));
            send(stream, "200 OK", "Cache-Control: max-age=3600\r\n", &set);
        }
    };
    let host = KeyHost::start(slow(700));
    let server = serve(scratch.path(), HOSTS, &signer.entry("", &format!("jwks_url = '{}/jwks'", host.url)));
    let client = server.client();
    let forged = Signer::new("a", "ES384");
    let hang_up = |assertion: &str| {
        let body = form(&[
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
            ("scope", "system/*.rs"),
        ]);
        let mut stream = client.connect();
        let head = format!(
            "POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
    };
    // Nothing is kept yet: one hangs up, and the next one waits for the same reading.
    hang_up(&forged.assertion());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(signer.ask(&client, "system/*.rs").status, 200);
    assert_eq!(host.count(), 1);
    // The set is kept, its host hangs, and forged ids have it asked: whoever has a known key does not wait.
    host.change(slow(8000));
    std::thread::sleep(Duration::from_millis(1100));
    for _ in 0..20 {
        hang_up(&forged.assertion());
    }
    let begun = Instant::now();
    assert_eq!(signer.ask(&client, "system/*.rs").status, 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(host.count() <= 2);
}

/// SIGHUP has key sets read anew, so that a key that was taken out is refused at once.
#[test]
fn a_hang_up_forgets_key_sets() {
    let scratch = scratch();
    let (old, new) = (Signer::new("a", "ES384"), Signer::new("a", "ES384"));
    let path = scratch.path().join("a.jwks");
    std::fs::write(&path, old.jwks()).unwrap();
    let server = serve(scratch.path(), "", &old.entry("", &format!("jwks_file = '{}'", path.display())));
    assert_eq!(old.ask(&server.client(), "system/*.rs").status, 200);
    std::fs::write(&path, new.jwks()).unwrap();
    assert_eq!(old.ask(&server.client(), "system/*.rs").status, 200, "it is kept for a minute");
    server.hang_up();
    let end = Instant::now() + Duration::from_secs(20);
    while old.ask(&server.client(), "system/*.rs").status == 200 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(new.ask(&server.client(), "system/*.rs").status, 200);
}
