//! SMART Backend Services: token requests, what tokens open, and what is refused.

mod endpoint;
mod key_sets;
mod keys;
mod page;
mod replay;
mod rights;
pub(crate) mod signer;

use std::path::Path;

use super::client::{Answer, Client};
use super::job_lifecycle::bundled;
use super::server::Server;

/// Public URL of the services in these tests, which assertions name.
pub(crate) const URL: &str = "https://bulk.example.org";
/// The configuration before the clients.
const SETTINGS: &str = "public_url = 'https://bulk.example.org'\n[limits]\npolls_burst = 1000\n[smart]\nrequests_burst = 10000\n\
                        failures_per_minute = 10000\n";

/// Starts a service over the bundled store with these clients; `more` are further keys of `[smart]`.
pub(crate) fn serve(directory: &Path, more: &str, clients: &str) -> Server {
    std::fs::write(directory.join("serve.toml"), format!("{SETTINGS}{more}\n[log]\nlevel = 'trace'\n{clients}"))
        .unwrap();
    bundled(directory, &["--config", "serve.toml"])
}

/// Sends a request with a token; the path may be a URL of the service.
pub(crate) fn with_token(client: &Client, token: &str, method: &str, target: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Accept", "application/fhir+json, application/json, */*"),
        ("Prefer", "respond-async"),
        ("Authorization", &bearer),
    ];
    client.ask(method, target.strip_prefix(URL).unwrap_or(target), &headers, b"")
}

/// Polls a job until it has ended; the last answer.
#[track_caller]
pub(crate) fn ended(client: &Client, token: &str, status: &str) -> Answer {
    for _ in 0..3000 {
        let answer = with_token(client, token, "GET", status);
        match answer.status {
            202 | 429 => std::thread::sleep(std::time::Duration::from_millis(20)),
            _ => return answer,
        }
    }
    panic!("the job did not end");
}
