//! Attacks by web pages, through a browser on this machine, on a service without authorization: foreign host names that
//! resolve to this machine, cross-site requests, and bodies without a type.

use std::io::Write;
use std::path::Path;

use super::client::{Answer, Client};
use super::credentials::{Credential, client};
use super::hostile::raw;
use super::job_lifecycle::{accepted, bundled, ended};
use super::server::Server;
use crate::run::scratch;

/// A path of each mount, paths of no mount, and an unknown path.
const PLACES: [&str; 10] = [
    "/health/live",
    "/health/ready",
    "/fhir/metadata",
    "/fhir/$export",
    "/fhir/Group",
    "/uscore/v1/bulk-data/Group/ten/$export",
    "/bulk-data/r4/$export",
    "/v1/default/bulk-export/bulk-data/r4/$export",
    "/v1/nobody/bulk-export/bulk-data/r4/$export",
    "/nowhere",
];

/// Sends a request line and header lines verbatim, and reads the response.
fn ask(server: &Server, line: &str, head: &[&str]) -> Answer {
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    raw(server, format!("{line} HTTP/1.1\r\n{head}Connection: close\r\n\r\n").as_bytes(), false).expect("an answer")
}

fn jobs(directory: &Path) -> usize {
    let jobs = std::fs::read_dir(directory.join("data/jobs")).into_iter().flatten().flatten();
    jobs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
}

/// A Group, as a page would send it.
const GROUP: &str =
    r#"{"resourceType":"Group","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/x"}}]}"#;

/// CORE-01: a request with a foreign host name is answered 421 on every path, and starts nothing.
#[test]
fn foreign_host_names_are_refused() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &[]);
    let kick_off = ["Accept: application/fhir+json", "Prefer: respond-async"];
    let port = server.address.port();
    for place in PLACES {
        for host in ["evil.example", &format!("evil.example:{port}"), "127.0.0.1.evil.example", "0.0.0.0", "127.1"] {
            let answer = ask(&server, &format!("GET {place}"), &[&[&*format!("Host: {host}")], &kick_off[..]].concat());
            let reported = answer.outcome(421, "forbidden");
            assert!(reported.starts_with("Host: ") && !reported.contains("evil"), "{place} {host}: {reported}");
            assert!(answer.header("x-request-id").is_some());
        }
        for none in [&[][..], &["Host:"], &["Host: a b"], &["Host: localhost", "Host: localhost"]] {
            ask(&server, &format!("GET {place}"), &[none, &kick_off[..]].concat()).outcome(400, "invalid");
        }
        let url = format!("GET http://evil.example{place}");
        ask(&server, &url, &["Host: localhost"]).outcome(421, "forbidden");
        ask(&server, &format!("GET http://localhost{place}"), &["Host: evil.example"]).outcome(421, "forbidden");
        for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "EXPORT", "TRACE"] {
            assert_eq!(
                ask(&server, &format!("{method} {place}"), &["Host: evil.example"]).status,
                421,
                "{method} {place}"
            );
        }
    }
    let old = raw(&server, b"GET /health/live HTTP/1.0\r\n\r\n", false).unwrap();
    assert_eq!(old.status, 421, "HTTP/1.0 names no host");
    for host in ["localhost", "LOCALHOST.:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8080", "a.localhost"] {
        let host = format!("Host: {host}");
        assert_eq!(ask(&server, "GET /health/live", &[&host]).status, 200, "{host}");
        ask(&server, "GET /nowhere", &[&host]).outcome(404, "not-found");
    }
    assert_eq!(ask(&server, "GET http://localhost/health/live", &["Host: localhost:80"]).status, 200);
    assert_eq!(jobs(scratch.path()), 0);
    let log = server.log();
    assert!(log.contains("outpour::audit") && log.contains("http.host") && !log.contains("evil"), "{log}");
}

/// CORE-01: requests that a page of another site makes a browser send (images, forms, scripts) are refused, and start
/// nothing.
#[test]
fn cross_site_requests_are_refused() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &[]);
    let foreign = [
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: null",
        "Origin: http://evil.example",
        "Origin: https://localhost.evil.example",
        "Origin:",
    ];
    for place in PLACES {
        for head in foreign {
            let reported = ask(&server, &format!("GET {place}"), &["Host: localhost", head]).outcome(403, "forbidden");
            assert!(
                reported.starts_with(head.split(':').next().unwrap()) && !reported.contains("evil"),
                "{place}: {reported}"
            );
        }
    }
    let typed = "Content-Type: application/fhir+json";
    let head = format!("Content-Length: {}", GROUP.len());
    for head in [[foreign[0], &head], [foreign[3], &head]] {
        let request =
            format!("POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\n{typed}\r\n{}\r\n\r\n{GROUP}", head.join("\r\n"));
        raw(&server, request.as_bytes(), true).unwrap().outcome(403, "forbidden");
    }
    assert_eq!(jobs(scratch.path()), 0);
    for own in ["Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin", "Origin: http://localhost:3000"] {
        assert_eq!(ask(&server, "GET /fhir/metadata", &["Host: localhost", own]).status, 200, "{own}");
    }
    let image = ask(&server, "GET /bulk-data/r4/$export?_type=Organization", &["Host: localhost"]);
    assert_eq!(image.status, 202, "the same, by a program that is no browser");
    assert_eq!(jobs(scratch.path()), 1);
}

/// CORE-06: a body without a Content-Type, which browsers can send to other sites, is refused; a request without a body
/// is not.
#[test]
fn bodies_without_a_type() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &[]);
    let http = server.client();
    for (method, place) in
        [("POST", "/fhir/Group"), ("PUT", "/fhir/Group/made"), ("POST", "/nowhere"), ("POST", "/fhir/$export")]
    {
        http.ask(method, place, &[], GROUP.as_bytes()).outcome(415, "not-supported");
        http.ask(method, place, &[("Content-Type", "")], GROUP.as_bytes()).outcome(415, "not-supported");
        let chunked = format!(
            "{method} {place} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{GROUP}\r\n0\r\n\r\n",
            GROUP.len()
        );
        raw(&server, chunked.as_bytes(), false).unwrap().outcome(415, "not-supported");
        // Without bytes there is no body: the route answers.
        for framing in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "\r\n"] {
            let empty = format!("{method} {place} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}");
            let answer = raw(&server, empty.as_bytes(), false).unwrap();
            assert!(matches!(answer.status, 400 | 404 | 405), "{method} {place} {framing:?}: {}", answer.status);
        }
    }
    for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        http.ask("POST", "/fhir/Group", &[("Content-Type", form)], GROUP.as_bytes()).outcome(415, "not-supported");
    }
    let expects = format!(
        "POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        GROUP.len()
    );
    raw(&server, expects.as_bytes(), false).unwrap().outcome(415, "not-supported");
    // An incomplete chunk ends with the connection.
    let mut half = http.connect();
    half.write_all(b"POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    drop(half);
    assert!(http.get("/fhir/Group?_id=made").text().contains("\"total\":0"));
    let json = [("Content-Type", "application/fhir+json")];
    assert_eq!(http.ask("POST", "/fhir/Group", &json, GROUP.as_bytes()).status, 201);
}

/// CORE-05: the host of the public URL and those of the configuration are accepted like this machine's, for all
/// requests of a job. With authorization any host is accepted.
#[test]
fn hosts_of_the_configuration() {
    let directory = scratch();
    let toml = "public_url = 'https://Bulk.example.org:8443/'\nhosts = ['other.example.org', 'fd00::1']\n";
    std::fs::write(directory.path().join("serve.toml"), toml).unwrap();
    let server = bundled(directory.path(), &["--config", "serve.toml"]);
    for host in ["bulk.example.org", "bulk.example.org:8443", "other.example.org:80", "[fd00::1]", "localhost"] {
        let origin = format!("Origin: https://{host}");
        let answer = ask(&server, "GET /fhir/metadata", &[&format!("Host: {host}"), &origin]);
        assert_eq!(answer.status, 200, "{host}");
    }
    for host in ["example.org", "x.bulk.example.org", "[fd00::2]", "evil.example"] {
        ask(&server, "GET /fhir/metadata", &[&format!("Host: {host}")]).outcome(421, "forbidden");
    }
    server.wait_until_ready();
    let kick_off = ["Host: other.example.org", "Accept: application/fhir+json", "Prefer: respond-async"];
    let kicked = ask(&server, "GET /fhir/Group/ten/$export?_type=Patient", &kick_off);
    let status = kicked.header("content-location").unwrap().strip_prefix("https://Bulk.example.org:8443").unwrap();
    assert_eq!(ended(&server.client(), status).status, 200);

    let directory = scratch();
    let token = Credential::token(&[]);
    std::fs::write(directory.path().join("serve.toml"), client("a", "writes_groups = true", &[&token])).unwrap();
    let server = bundled(directory.path(), &["--config", "serve.toml"]);
    let token = format!("{}: {}", token.headers[0].0, token.headers[0].1);
    for head in
        [["Host: any.example", "Origin: https://app.example"], ["Host: any.example", "Sec-Fetch-Site: cross-site"]]
    {
        assert_eq!(ask(&server, "GET /fhir/metadata", &head).status, 200);
        ask(&server, "GET /fhir/Group", &head).outcome(401, "login");
        assert_eq!(ask(&server, "GET /fhir/Group", &[&head[..], &[&*token]].concat()).status, 200);
    }
    let (name, value) = token.split_once(": ").unwrap();
    let made = server.client().ask("POST", "/fhir/Group", &[(name, value)], GROUP.as_bytes());
    assert_eq!(made.status, 201, "a body without a type: no page has the token");
}

/// An invalid host in the configuration is reported before anything is opened.
#[test]
fn wrong_hosts_are_reported() {
    let directory = scratch();
    std::fs::create_dir(directory.path().join("store")).unwrap();
    std::fs::write(directory.path().join("serve.toml"), "hosts = ['https://bulk.example.org/', '*']").unwrap();
    let words = ["--store", "store", "--data", "data", "--config", "serve.toml"];
    let said = Server::try_start(directory.path(), &words).err().expect("it does not start");
    assert!(
        said.contains("\"https://bulk.example.org/\"") && said.contains("\"*\"") && said.contains("hosts"),
        "{said}"
    );
}

/// Requests of programs on this machine, to 127.0.0.1 and a port as in README, are accepted.
#[test]
fn requests_of_local_programs_are_accepted() {
    let directory = scratch();
    let server = bundled(directory.path(), &[]);
    server.wait_until_ready();
    let http: Client = server.client();
    let status = accepted(&http, &server.fhir("Group/ten/$export?_type=Patient"));
    assert_eq!(ended(&http, &status).status, 200);
}
