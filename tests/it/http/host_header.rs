//! `Host`: there must be one, and it must be a host, whatever is asked for.

use super::credentials::{Credential, client};
use super::hostile::raw;
use super::job_lifecycle::bundled;
use crate::run::scratch;

/// CORE-09, CLIENT-11: with clients configured, where any host may be named, a request of HTTP/1.1 still names one.
#[test]
fn requests_name_one_host() {
    let scratch = scratch();
    let known = Credential::token(&[]);
    std::fs::write(scratch.path().join("serve.toml"), client("a", "", &[&known])).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let (name, value) = &known.headers[0];
    let ask = |method: &str, path: &str, version: &str, hosts: &[&str]| {
        let hosts: String = hosts.iter().map(|host| format!("Host:{host}\r\n")).collect();
        let head = format!("{method} {path} {version}\r\n{hosts}{name}: {value}\r\nConnection: close\r\n\r\n");
        raw(&server, head.as_bytes(), false).expect("an answer")
    };
    let places = [
        ("GET", "/fhir/metadata", 200),
        ("HEAD", "/fhir/metadata", 200),
        ("GET", "/health/live", 200),
        ("GET", "/fhir/Group?_id=ten", 200),
        ("GET", "//fhir//Group/ten/", 200),
        ("GET", "/uscore/v1/bulk-data/Group/ten", 200),
        ("GET", "/fhir/bulk-files/x", 404),
        ("DELETE", "/fhir/bulk-status/x", 404),
        ("POST", "/v1/default/bulk-export/bulk-data/r4/Group", 403),
        ("OPTIONS", "*", 404),
        ("GET", "/nowhere", 404),
        ("GET", "http://any.example/fhir/metadata", 200),
    ];
    for (method, path, status) in places {
        for host in [" any.example", " any.example:8443 ", "[::1]:8080", " 10.0.0.1"] {
            assert_eq!(ask(method, path, "HTTP/1.1", &[host]).status, status, "{method} {path} {host}");
        }
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            for hosts in
                [&[" a b"][..], &[""], &[" a", " a"], &[" a", " b"], &[" user@a"], &[" a:port"], &[" http://a"]]
            {
                let answer = ask(method, path, version, hosts);
                assert_eq!(answer.status, 400, "{method} {path} {version} {hosts:?}");
                if method != "HEAD" {
                    assert!(answer.outcome(400, "invalid").starts_with("Host: "), "{}", answer.text());
                }
                assert!(answer.header("x-request-id").is_some());
            }
        }
        assert_eq!(ask(method, path, "HTTP/1.1", &[]).status, 400, "{method} {path}");
        assert_eq!(ask(method, path, "HTTP/1.0", &[]).status, status, "{method} {path}");
        assert_eq!(ask(method, path, "HTTP/1.0", &[" a"]).status, status, "{method} {path}");
    }
}
