//! Clients that take all they can get: others are answered all the same, at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::Answer;
use super::credentials::{Credential, client};
use super::job_lifecycle::bundled;
use super::server::Server;
use super::tls::write_certificate;
use crate::run::scratch;

/// Address of the client that takes all it can get, and of another.
const GREEDY: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";

/// Longest time after which the other client is answered.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A connection from an address of this machine.
fn connect(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(format!("{from}:0").parse().unwrap())?;
        socket.connect(to).await
    })?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Sends a GET from an address over HTTP/1.1.
fn get(from: &str, server: &Server, path: &str) -> Answer {
    try_get(from, server, path).unwrap()
}

/// As [`get`], where the connection may be refused.
fn try_get(from: &str, server: &Server, path: &str) -> std::io::Result<Answer> {
    let mut stream = connect(from, server.address)?;
    let headers = "Host: localhost\r\nAccept: application/fhir+json\r\nConnection: close";
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Answer::parse(&bytes).ok_or_else(|| std::io::Error::other("no answer"))
}

/// An HTTP/2 connection, frame by frame (RFC 9113).
struct Http2(StreamOwned<ClientConnection, TcpStream>);

impl Http2 {
    /// A connection whose streams begin with a window of so many bytes.
    fn open(directory: &Path, from: &str, to: SocketAddr, window: u32) -> Http2 {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let session = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
        let mut stream = StreamOwned::new(session, connect(from, to).unwrap());
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut connection = Http2(stream);
        // SETTINGS_INITIAL_WINDOW_SIZE.
        connection.send(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        connection
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).unwrap();
        self.0.flush().unwrap();
    }

    /// Sends a GET; header fields are not compressed (RFC 7541).
    fn request(&mut self, stream: u32, path: &str) {
        let literal = |name: u8, value: &str| [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
        let block = [vec![0x82, 0x87], literal(0x04, path), literal(0x01, "localhost")].concat();
        self.send(1, 0x4 | 0x1, stream, &block);
    }

    /// The status of the next answer.
    fn status(&mut self) -> u16 {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).unwrap();
            match (head[3], payload.first()) {
                (1, Some(0x88)) => return 200,
                // A status that has no number of its own: a literal of three digits, as text or as Huffman code.
                (1, Some(_)) => return 0,
                (4, _) if head[4] & 1 == 0 => self.send(4, 1, 0, &[]),
                _ => {}
            }
        }
    }
}

/// Streams whose client takes no bytes hold no more than its share: others are answered over HTTP/2, and its own health
/// probes, too.
#[test]
fn streams_without_a_window() {
    let scratch = scratch();
    write_certificate(scratch.path());
    let config = "[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\n[limits]\nconnections = 256\n";
    std::fs::write(scratch.path().join("serve.toml"), config).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let open = |from: &str, window: u32| Http2::open(scratch.path(), from, server.address, window);
    let mut greedy: Vec<Http2> = Vec::new();
    for _ in 0..4 {
        let mut connection = open(GREEDY, 0);
        (0..100).for_each(|n| connection.request(2 * n + 1, "/fhir/metadata"));
        greedy.push(connection);
    }
    // Its streams are in progress once each connection has had an answer to the last of them.
    for connection in &mut greedy {
        for _ in 0..100 {
            connection.status();
        }
    }
    let begun = Instant::now();
    let mut other = open(OTHER, 1 << 20);
    other.request(1, "/fhir/metadata");
    assert_eq!(other.status(), 200);
    let mut probe = open(GREEDY, 1 << 20);
    probe.request(1, "/health/live");
    assert_eq!(probe.status(), 200);
    probe.request(3, "/fhir/metadata");
    assert_ne!(probe.status(), 200, "it has its share");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // What it lets go is free again.
    drop(greedy);
    let end = Instant::now() + Duration::from_secs(20);
    let mut stream = 5;
    loop {
        probe.request(stream, "/fhir/metadata");
        match probe.status() {
            200 => break,
            _ => assert!(Instant::now() < end, "{}", server.log()),
        }
        stream += 2;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Connections of one address take no more than its share: those of others are accepted at once, and the log says so.
#[test]
fn connections_of_one_address() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\nconnections = 256\n").unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let greedy: Vec<TcpStream> = (0..400).filter_map(|_| connect(GREEDY, server.address).ok()).collect();
    let begun = Instant::now();
    assert_eq!(get(OTHER, &server, "/fhir/metadata").status, 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    server.wait_for_log("connections were refused");
    drop(greedy);
    let end = Instant::now() + Duration::from_secs(20);
    // The last of those that were dropped may still count.
    while !try_get(GREEDY, &server, "/fhir/metadata").is_ok_and(|answer| answer.status == 200) {
        assert!(Instant::now() < end, "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kick-offs that wait for the index take no thread from other requests.
#[test]
fn kick_offs_of_unknown_groups() {
    let scratch = scratch();
    let index = scratch.path().join("index");
    std::fs::create_dir(&index).unwrap();
    let config = "[jobs]\ngroup_wait_milliseconds = 20000\n[limits]\nconnections = 4096\n";
    std::fs::write(scratch.path().join("serve.toml"), config).unwrap();
    let write = |name: &str| {
        let line = format!("{{\"resourceType\":\"Patient\",\"id\":\"{name}\"}}\n");
        std::fs::write(scratch.path().join(format!("store/{name}.ndjson")), line).unwrap();
    };
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    write("a");
    let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start(scratch.path(), &words);
    server.wait_until_ready();
    let group =
        r#"{"resourceType":"Group","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;
    let headers = [("Content-Type", "application/fhir+json"), ("Accept", "application/fhir+json")];
    let made = server.client().ask("POST", "/fhir/Group", &headers, group.as_bytes());
    let id = made.json()["id"].as_str().unwrap().to_string();
    // The index is being written by another process, and the store has a file that it lacks.
    let lock = std::fs::File::open(index.join("lock")).unwrap();
    lock.lock().unwrap();
    write("new");
    let waiting: Vec<TcpStream> = (0..700)
        .map(|number| {
            let mut stream = connect(GREEDY, server.address).unwrap();
            let headers = "Host: localhost\r\nAccept: application/fhir+json\r\nPrefer: respond-async";
            write!(stream, "GET /fhir/Group/none{number}/$export HTTP/1.1\r\n{headers}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    let begun = Instant::now();
    assert_eq!(get(OTHER, &server, &format!("/fhir/Group/{id}")).status, 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // Once the index has caught up, each hears that there is no such Group.
    drop(lock);
    for mut stream in waiting.into_iter().take(20) {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head[9..], b"404");
    }
}

/// A Group that may not be written is not read: it takes no memory, and its client is refused at once.
#[test]
fn bodies_of_requests() {
    let scratch = scratch();
    let token = Credential::token(&[]);
    std::fs::write(scratch.path().join("serve.toml"), client("reader", "levels = ['group']", &[&token])).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let before = server.memory();
    let length = 16 << 20;
    let send = |credential: &str| {
        let mut stream = connect(GREEDY, server.address).unwrap();
        let head = format!(
            "POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/fhir+json\r\n\
             Content-Length: {length}\r\n{credential}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    // 1. No credential, and one without the right: refused before the body.
    for (credential, status) in
        [(String::new(), b"401"), (format!("{}: {}\r\n", token.headers[0].0, token.headers[0].1), b"403")]
    {
        let mut streams: Vec<TcpStream> = (0..80).map(|_| send(&credential)).collect();
        for stream in &mut streams {
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head[9..], status);
        }
        assert!(server.memory() < before + (64 << 20), "{} before {before}", server.memory());
    }
}

/// A large Group takes little memory from its first byte to its answer: its body and its new version are files.
#[test]
fn a_large_group_is_not_held_in_memory() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\nbody_bytes = 100000000\n").unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let members = 400_000;
    let listed = (0..members).map(|n| {
        let name = format!("{n:012x}");
        format!(r#"{{"entity":{{"reference":"Patient/7e5a0d1c-4b3f-4c2a-9d8e-{name}"}}}}"#)
    });
    let listed: Vec<String> = listed.collect();
    let body = format!(r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{}]}}"#, listed.join(" , "));
    assert!(body.len() > 28_000_000);
    let (before, most) = (server.memory(), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                most.fetch_max(server.memory(), Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let json = [("Content-Type", "application/fhir+json")];
        let made = client.ask("POST", "/fhir/Group", &json, body.as_bytes());
        assert_eq!(made.status, 201);
        assert!(
            made.body.ends_with(format!("{}]}}", listed.join(",")).as_bytes()),
            "it is written without white space"
        );
        let place = client.path(made.header("location").unwrap()).to_string();
        assert_eq!(client.get(&place).body, made.body);
        done.store(true, Relaxed);
    });
    let most = most.load(Relaxed);
    assert!(most < before + (24 << 20), "{most} before {before}");
    let groups = scratch.path().join("data/groups");
    let left: Vec<_> = groups.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the Group and the lock: {left:?}");
    // One that is cut off is refused as a short one is.
    let json = [("Content-Type", "application/fhir+json")];
    client.ask("POST", "/fhir/Group", &json, &body.as_bytes()[..body.len() - 1]).outcome(400, "structure");
    assert_eq!(server.stop(), Some(0));
}

/// A body that does not arrive in time is 408, whatever comes of it; those of one address take no more room than its share,
/// and next to no memory.
#[test]
fn bodies_that_never_end() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\nbody_seconds = 60\nwhole_body_seconds = 15\n")
        .unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let before = server.memory();
    let head = format!(
        "POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n",
        16 << 20
    );
    let piece = vec![b' '; 2 << 20];
    let begun = Instant::now();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..36 {
        let mut stream = connect(GREEDY, server.address).unwrap();
        // One that is refused may be closed before it was sent as a whole.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&piece));
        streams.push(stream);
    }
    assert!(server.memory() < before + (32 << 20), "{} before {before}", server.memory());
    let mut statuses = Vec::new();
    for stream in &mut streams {
        let mut head = [0; 12];
        // A connection that was reset had its answer, which the reset may have overtaken.
        let status =
            stream.read_exact(&mut head).map_or(503, |()| (head[9] - b'0') as u16 * 100 + u16::from(head[11] - b'0'));
        statuses.push(status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 408).count(), 32, "{statuses:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    drop(streams);
    // What they took is given back.
    let end = Instant::now() + Duration::from_secs(60);
    while server.memory() > before + (50 << 20) {
        assert!(Instant::now() < end, "{} before {before}", server.memory());
        std::thread::sleep(Duration::from_millis(200));
    }
}
