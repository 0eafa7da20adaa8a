//! A service of this bench, and the least client of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Clock};

use serde_json::Value;

use super::keys::{ClientKey, assertion_claims, form};

/// Public URL of the service, which assertions name.
const URL: &str = "https://bulk.example.org";

/// An answer without its headers.
pub(crate) struct Answer {
    pub status: u16,
    pub location: String,
    pub body: String,
}

/// A connection that is kept.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Connection(BufReader::with_capacity(64 << 10, stream))
    }

    /// Sends a request; status, Content-Location, and length of the body, which is not read yet.
    fn head(&mut self, request: &[u8]) -> (u16, String, usize) {
        self.0.get_mut().write_all(request).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        let (mut location, mut length) = (String::new(), 0);
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { return (status, location, length) };
            match name {
                "content-length" => length = value.parse().unwrap(),
                "content-location" => location = value.to_string(),
                _ => {}
            }
        }
    }

    /// Sends a request, and reads its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Answer {
        let (status, location, length) = self.head(request);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, location, body: String::from_utf8_lossy(&body).to_string() }
    }
}

/// A file of a finished export.
pub(crate) struct ServedFile {
    pub path: String,
    pub bytes: u64,
}

/// Times in milliseconds.
#[derive(Default)]
pub(crate) struct Spread {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub most: f64,
}

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Spread {
        times.sort_unstable();
        let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        Spread { count: times.len(), p50: ms(at(0.5)), p99: ms(at(0.99)), most: ms(times.last()) }
    }
}

/// A running service, killed when dropped.
pub(crate) struct Service {
    pub address: SocketAddr,
    child: Child,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Service {
    /// Starts a service over the bundled store, for these clients, its limits raised.
    pub(crate) fn start(directory: &Path, clients: &[ClientKey]) -> Service {
        let mut text = format!(
            "listen = '127.0.0.1:0'\npublic_url = '{URL}'\n[smart]\nrequests_per_second = 100000\nrequests_burst = 100000\n\
             token_seconds = 3600\n[limits]\npolls_burst = 100000\npolls_per_second = 100000\n[jobs]\nactive = 100000\n\
             active_per_client = 100000\n[ig]\nfirst_poll_in_progress = false\n[log]\nlevel = 'warn'\n"
        );
        for client in clients {
            text += &format!(
                "[[clients]]\nname = '{0}'\n[clients.smart]\nclient_id = '{0}'\njwks = '{1}'\n",
                client.algorithm,
                client.jwks()
            );
        }
        std::fs::write(directory.join("serve.toml"), text).unwrap();
        let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/stores/synthea-r4-100");
        let mut child = Command::new(env!("CARGO_BIN_EXE_outpour"))
            .args(["serve", "--config", "serve.toml", "--index-dir", "index", "--data", "data", "--store"])
            .arg(store)
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the service did not start");
            if let Some((_, rest)) = line.split_once("outpour serves on http://") {
                break rest.split(';').next().unwrap().parse().unwrap();
            }
        };
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                assert!(!line.contains(" ERROR "), "{line}");
            }
        });
        Service { address, child }
    }

    /// A token request with a new assertion.
    pub(crate) fn token_request(&self, client: &ClientKey) -> Vec<u8> {
        let claims = assertion_claims(client.algorithm, &format!("{URL}/auth/token"));
        let assertion = client.sign(&client.header(), &claims);
        let body = form(&[
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
            ("scope", "system/*.rs"),
        ]);
        let head = format!(
            "POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        (head + &body).into_bytes()
    }

    /// A token of a client.
    pub(crate) fn token(&self, client: &ClientKey) -> String {
        let answer = Connection::open(self.address).ask(&self.token_request(client));
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_string()
    }

    /// A GET below the service with a token.
    fn get(path: &str, token: &str) -> Vec<u8> {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/fhir+json, */*\r\nPrefer: respond-async\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )
        .into_bytes()
    }

    /// Exports Observations; the file of them.
    pub(crate) fn export(&self, token: &str) -> ServedFile {
        let mut connection = Connection::open(self.address);
        let path = |url: &str| url.strip_prefix(URL).unwrap().to_string();
        let accepted = loop {
            let answer = connection.ask(&Service::get("/fhir/$export?_type=Observation", token));
            match answer.status {
                202 => break answer,
                503 => std::thread::sleep(Duration::from_millis(50)),
                _ => panic!("{}", answer.body),
            }
        };
        loop {
            let answer = connection.ask(&Service::get(&path(&accepted.location), token));
            match answer.status {
                200 => {
                    let manifest: Value = serde_json::from_str(&answer.body).unwrap();
                    let path = path(manifest["output"][0]["url"].as_str().unwrap());
                    let (status, _, length) = connection.head(&Service::get(&path, token));
                    assert_eq!(status, 200);
                    return ServedFile { path, bytes: length as u64 };
                }
                202 => std::thread::sleep(Duration::from_millis(20)),
                _ => panic!("{}", answer.body),
            }
        }
    }

    /// Downloads a file again and again until a time, as fast as it comes or so many megabytes a second; the bytes.
    pub(crate) fn download_until(&self, token: &str, file: &ServedFile, end: Clock, paced: Option<u64>) -> u64 {
        let mut connection = Connection::open(self.address);
        let (mut moved, mut piece, begun) = (0, vec![0; 256 << 10], Clock::now());
        while Clock::now() < end {
            let (status, _, mut left) = connection.head(&Service::get(&file.path, token));
            assert_eq!((status, left as u64), (200, file.bytes));
            while left > 0 {
                let read = connection.0.read(&mut piece).unwrap();
                assert!(read > 0 && read <= left);
                left -= read;
                moved += read as u64;
                if let Some(megabytes) = paced {
                    let due = begun + Duration::from_secs_f64(moved as f64 / (megabytes as f64 * 1e6));
                    std::thread::sleep(due.saturating_duration_since(Clock::now()));
                }
            }
        }
        moved
    }

    /// Kick-offs of a Group at a rate, each deleted afterwards; the time of each until its 202, from when it was due.
    pub(crate) fn kick_offs(&self, token: &str, count: usize, begun: Clock, rate: u32) -> Vec<Duration> {
        let mut connection = Connection::open(self.address);
        let mut times = Vec::new();
        for number in 0..count {
            let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Clock::now()));
            let answer = connection.ask(&Service::get("/fhir/Group/one/$export", token));
            times.push(due.elapsed());
            assert_eq!(answer.status, 202, "{}", answer.body);
            let job = answer.location.strip_prefix(URL).unwrap();
            let delete = String::from_utf8(Service::get(job, token)).unwrap().replacen("GET", "DELETE", 1);
            assert_eq!(connection.ask(delete.as_bytes()).status, 202);
        }
        times
    }

    /// User and system time of the service in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / ticks
    }
}
