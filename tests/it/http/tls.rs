//! The service under TLS and behind proxies, with a client by rustls, and with `curl` where it is installed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::client::Answer;
use super::job_lifecycle::bundled;
use super::server::Server;
use crate::run::{scratch, testdata};

/// Writes a new certificate for this machine and its key into a directory.
pub(super) fn write_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(directory.join("new.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::rename(directory.join("new.pem"), directory.join("cert.pem")).unwrap();
}

const CONFIG: &str = "[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\n[limits]\npolls_burst = 1000\n";

/// Starts a service under TLS over the bundled store.
fn start_tls(directory: &Path, more: &str) -> Server {
    write_certificate(directory);
    std::fs::write(directory.join("serve.toml"), format!("{more}{CONFIG}")).unwrap();
    bundled(directory, &["--config", "serve.toml"])
}

/// Opens a connection that trusts the current certificate in `cert.pem`; an error if the handshake fails.
fn connect(directory: &Path, address: SocketAddr) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut session = ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap();
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

/// Sends a GET over HTTP/1.1 under TLS.
fn ask(directory: &Path, server: &Server, path: &str) -> Answer {
    answer(&mut connect(directory, server.address).unwrap(), path)
}

fn answer(stream: &mut (impl Read + Write), path: &str) -> Answer {
    let headers = "Accept: application/fhir+json, */*\r\nPrefer: respond-async\r\nConnection: close";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&bytes).expect("an answer")
}

/// Sends a request with `curl`; `None` if it is not installed.
fn curl(directory: &Path, words: &[&str], url: &str) -> Option<Answer> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--noproxy", "*", "--cacert", "cert.pem"]);
    command.args(words).arg(url).current_dir(directory);
    let done = match command.output() {
        Ok(done) => done,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{error}"),
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(Answer::parse(&done.stdout).expect("an answer"))
}

/// Runs a job from kick-off to its files with `get`, which takes absolute URLs; type and bytes of each file.
fn export_with(base: &str, get: impl Fn(&str) -> Option<Answer>) -> Option<Vec<(String, Vec<u8>)>> {
    let kicked = get(&format!("{base}/fhir/Group/ten/$export?_type=Patient,Observation"))?;
    assert_eq!(kicked.status, 202, "{}", kicked.text());
    let status = kicked.header("content-location").unwrap();
    assert!(status.starts_with(base), "CORE-05: {status}");
    let done = loop {
        let polled = get(status)?;
        if polled.status != 202 {
            break polled;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(done.status, 200, "{}", done.text());
    let manifest: Value = done.json();
    let output = manifest["output"].as_array().unwrap();
    Some(
        output
            .iter()
            .map(|item| {
                let url = item["url"].as_str().unwrap();
                assert!(url.starts_with(base), "CORE-05: {url}");
                let file = get(url).unwrap();
                assert_eq!(file.header("content-length"), Some(&*file.body.len().to_string()));
                (item["type"].as_str().unwrap().to_string(), file.body)
            })
            .collect(),
    )
}

/// CORE-01, CORE-05, CORE-09: a job over TLS, by HTTP/1.1 and HTTP/2, has the same files as without TLS; advertised
/// URLs are https.
#[test]
fn a_job_over_tls_gives_the_same_bytes() {
    let (scratch, plain) = (scratch(), scratch());
    let server = start_tls(scratch.path(), "");
    let base = format!("https://{}", server.address);
    let one = export_with(&base, |url| Some(ask(scratch.path(), &server, url.strip_prefix(&base).unwrap()))).unwrap();
    assert_eq!(one.iter().map(|(of, _)| of.as_str()).collect::<Vec<_>>(), ["Observation", "Patient"]);

    std::fs::write(plain.path().join("serve.toml"), "[limits]\npolls_burst = 1000\n").unwrap();
    let without = bundled(plain.path(), &["--config", "serve.toml"]);
    let client = without.client();
    let base_without = format!("http://{}", without.address);
    let headers = [("Accept", "*/*, application/fhir+json"), ("Prefer", "respond-async")];
    let get = |url: &str| client.try_ask("GET", url.strip_prefix(&base_without).unwrap(), &headers, b"");
    assert!(export_with(&base_without, get).unwrap() == one);

    let headers = ["--header", "Accept: application/fhir+json, */*", "--header", "Prefer: respond-async"];
    for version in ["--http2", "--http1.1"] {
        let get = |url: &str| curl(scratch.path(), &[&headers[..], &[version, "--globoff"]].concat(), url);
        if let Some(two) = export_with(&base, get) {
            assert!(two == one, "{version}");
            let words = ["--write-out", "%{http_version}", "--output", "/dev/null", version];
            let url = format!("{base}/health/live");
            let mut report = Command::new("curl");
            report.args(["-s", "--noproxy", "*", "--cacert", "cert.pem"]).args(words).arg(url);
            let reported = report.current_dir(scratch.path()).output().unwrap().stdout;
            assert_eq!(reported, if version == "--http2" { &b"2"[..] } else { b"1.1" });
        }
    }
    assert_eq!(server.stop(), Some(0));
}

/// CORE-01, CORE-09: without authorization, the host of a request is checked for HTTP/2 as for HTTP/1.1.
#[test]
fn hosts_over_tls() {
    let scratch = scratch();
    let server = start_tls(scratch.path(), "hosts = ['bulk.example.org']\n");
    let url = format!("https://{}/fhir/metadata", server.address);
    for version in ["--http2", "--http1.1"] {
        let ask = |host: &str| curl(scratch.path(), &[version, "--header", &format!("Host: {host}")], &url);
        let Some(own) = ask("bulk.example.org:443") else { return };
        assert_eq!((own.status, ask("localhost").unwrap().status), (200, 200), "{version}");
        for foreign in ["evil.example", "bulk.example.org.evil.example"] {
            ask(foreign).unwrap().outcome(421, "forbidden");
        }
    }
}

/// A certificate replaced while the service runs is used, at once after SIGHUP and after a while without; an unusable
/// one is reported once.
#[test]
fn certificates_are_replaced() {
    let scratch = scratch();
    let directory = scratch.path();
    let server = start_tls(directory, "");
    let mut old = connect(directory, server.address).unwrap();
    let wait_for = |what: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if what() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it did not come to pass:\n{}", server.log());
    };
    write_certificate(directory);
    wait_for(&|| connect(directory, server.address).is_ok());
    assert_eq!(answer(&mut old, "/health/live").status, 200, "a connection keeps its certificate");

    std::fs::copy(directory.join("cert.pem"), directory.join("key.pem")).unwrap();
    let reported = || server.log().matches("the certificate stays as it was").count();
    wait_for(&|| reported() == 1);
    assert!(server.log().contains("key.pem"));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(reported(), 1, "once");
    assert_eq!(ask(directory, &server, "/health/live").status, 200);
    server.hang_up();
    wait_for(&|| reported() == 2);
    write_certificate(directory);
    server.hang_up();
    wait_for(&|| connect(directory, server.address).is_ok());
    assert!(!server.log().contains("PRIVATE KEY"));
}

/// The service does not start with missing files, or a key that does not match the certificate, and names the file.
#[test]
fn unusable_certificates_stop_the_start() {
    let (scratch, elsewhere) = (scratch(), scratch());
    let start = |directory: &Path| {
        std::fs::write(directory.join("serve.toml"), CONFIG).unwrap();
        let store = testdata("stores/synthea-r4-100");
        let words = ["--store", store.to_str().unwrap(), "--index-dir", "index", "--data", "data", "--config"];
        Server::try_start(directory, &[&words[..], &["serve.toml"]].concat()).err().expect("no start")
    };
    let log = start(scratch.path());
    assert!(log.contains("tls.certificate cert.pem") && log.contains("No such file"), "{log}");
    write_certificate(scratch.path());
    write_certificate(elsewhere.path());
    std::fs::copy(elsewhere.path().join("key.pem"), scratch.path().join("key.pem")).unwrap();
    let log = start(scratch.path());
    assert!(log.contains("tls.key key.pem") && log.contains("not the key of the certificate in cert.pem"), "{log}");
}

/// CORE-01, CORE-05: a trusted proxy determines the address of the client and whether the request came by https, and
/// nothing else; headers of other senders are ignored.
#[test]
fn proxies() {
    for trusted in [true, false] {
        let scratch = scratch();
        let text = format!("trusted_proxies = [{}]\n", if trusted { "'127.0.0.0/8'" } else { "'10.0.0.0/8'" });
        std::fs::write(scratch.path().join("serve.toml"), text).unwrap();
        let server = bundled(scratch.path(), &["--config", "serve.toml"]);
        let client = server.client();
        let forwarded = |proto: &'static str| {
            [
                ("Accept", "application/fhir+json"),
                ("Prefer", "respond-async"),
                ("X-Forwarded-For", "203.0.113.9"),
                ("X-Forwarded-Host", "evil.example.org"),
                ("Forwarded", "for=203.0.113.10;host=evil.example.org;proto=http"),
                ("X-Forwarded-Proto", proto),
            ]
        };
        let kicked = client.ask("GET", "/fhir/Group/ten/$export", &forwarded("https"), b"");
        assert_eq!(kicked.status, 202, "{}", kicked.text());
        let status = client.path(kicked.header("content-location").unwrap());
        let done = super::job_lifecycle::ended(&client, status);
        assert!(!done.text().contains("evil") && done.text().contains(&format!("http://{}/", server.address)));
        let refused = client.ask("GET", "/fhir/metadata", &forwarded("http"), b"");
        match trusted {
            true => assert!(refused.outcome(403, "forbidden").contains("https")),
            false => assert_eq!(refused.status, 200),
        }
        assert_eq!(client.ask("GET", "/health/live", &forwarded("http"), b"").status, 200);
        let log = server.log();
        assert_eq!(log.contains("203.0.113.9"), trusted, "{log}");
        assert!(!log.contains("203.0.113.10") && !log.contains("evil"), "{log}");
    }
}
