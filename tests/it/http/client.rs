//! A small HTTP client: one request per connection, without redirects, retries or hidden headers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

/// A client of one service. Every response is searched for content that no client may see ([`Client::check_privacy`]).
#[derive(Clone, Copy)]
pub(crate) struct Client {
    address: SocketAddr,
    /// Paths of directories of the host, which must not be in any response.
    paths: &'static [String],
    /// Ids of jobs, with the credentials that started them.
    jobs: &'static Mutex<BTreeMap<String, String>>,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Parses the bytes of one response; `None` if they are incomplete or none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
            .collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
            body = unchunk(&body)?;
        }
        Some(Answer { status, headers, body })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts that it is an OperationOutcome by CORE-03 and CORE-04, with this status and code; its diagnostics,
    /// joined.
    #[track_caller]
    pub(crate) fn outcome(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/fhir+json"), "{}", self.text());
        let body = self.json();
        assert_eq!(body["resourceType"], "OperationOutcome");
        let issues = body["issue"].as_array().unwrap();
        assert!(issues.iter().any(|issue| issue["code"] == code), "{code}: {body}");
        let reported: Vec<&str> = issues.iter().map(|issue| issue["diagnostics"].as_str().unwrap()).collect();
        assert!(issues.iter().all(|issue| issue["severity"].is_string()), "{body}");
        reported.join("\n")
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.trim(), 16).ok()?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + len)?);
        bytes = bytes.get(end + 4 + len..)?;
    }
}

impl Client {
    /// A client of a service that runs in a directory.
    pub(crate) fn new(address: SocketAddr, directory: &Path) -> Client {
        // Leaked: the processes of tests are short-lived.
        let paths = vec![directory.display().to_string(), env!("CARGO_MANIFEST_DIR").to_string()];
        Client { address, paths: Box::leak(paths.into_boxed_slice()), jobs: Box::leak(Box::default()) }
    }

    /// OUTCOME-05: asserts that no header and no OperationOutcome, alone or in a message file, names a flag of the
    /// command line, a directory of the host, or a job started with other credentials.
    #[track_caller]
    fn check_privacy(&self, requested: &[(&str, &str)], answer: &Answer) {
        let who = requested.iter().filter(|(name, _)| !["Accept", "Prefer", "Content-Type", "Range"].contains(name));
        let who: Vec<String> = who.map(|(name, value)| format!("{name}={value}")).collect();
        let is_job = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let words = |text: &str| -> Vec<String> {
            let text = text.replace('-', "");
            text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_job(word)).map(str::to_string).collect()
        };
        if let Some(location) = answer.header("content-location") {
            let mut jobs = self.jobs.lock().unwrap();
            for id in words(location) {
                jobs.entry(id).or_insert(who.join("\n"));
            }
        }
        let body = answer.text();
        let outcomes =
            body.lines().filter(|line| line.contains("\"resourceType\":\"OperationOutcome\"")).map(str::to_string);
        let headers = answer.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        for text in outcomes.chain(headers) {
            let flag = text
                .match_indices("--")
                .any(|(offset, _)| text[offset + 2..].starts_with(|c: char| c.is_ascii_lowercase()));
            assert!(!flag, "an option of the command line: {text}");
            assert!(self.paths.iter().all(|path| !text.contains(path.as_str())), "a directory of the host: {text}");
            // A job in the Content-Location was started or retried by this request.
            for id in words(&text).into_iter().filter(|_| !text.starts_with("content-location")) {
                let owner = self.jobs.lock().unwrap().get(&id).cloned();
                assert!(owner.is_none_or(|owner| owner == who.join("\n")), "another's job: {text}");
            }
        }
    }

    /// Opens a connection to the service.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request and reads the response; `target` is sent verbatim.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_ask(method, target, headers, body).expect("an answer")
    }

    /// As [`Client::ask`]; `None` if the connection broke.
    pub(crate) fn try_ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        stream.write_all((head + "\r\n").as_bytes()).ok()?;
        stream.write_all(body).ok();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        let answer = Answer::parse(&bytes)?;
        self.check_privacy(headers, &answer);
        Some(answer)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], b"")
    }

    /// The path of a URL, which may have another port if the service was restarted.
    pub(crate) fn path_of<'u>(&self, url: &'u str) -> &'u str {
        let rest = url.strip_prefix("http://").expect("an absolute URL");
        &rest[rest.find('/').expect("a path")..]
    }

    /// The path of a URL of this service.
    #[track_caller]
    pub(crate) fn path<'u>(&self, url: &'u str) -> &'u str {
        url.strip_prefix(&format!("http://{}", self.address)).unwrap_or_else(|| panic!("{url} is of another service"))
    }
}
