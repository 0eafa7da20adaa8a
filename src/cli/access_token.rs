//! `outpour credential keys` and `outpour credential ask`: make the key pair of a client of SMART Backend Services, and ask a
//! service for an access token with it, as the client does.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::args::credential::{CredentialAskArgs, CredentialKeysArgs};
use crate::cli::clock::now;
use crate::cli::credential_output::{CredentialOutput, print_credential, quoted};
use crate::cli::{Exit, fail, put_error, put_json};
use crate::error::RequestError;
use crate::fhir::instant::TICKS_PER_SECOND;
use crate::limits::{CLIENT_ID_BYTES_MAX, JWKS_BYTES_MAX, NAME_BYTES_MAX, TLS_FILE_BYTES_MAX};
use crate::server::smart::client_keys::ClientKeyPair;
use crate::server::smart::discovery::DISCOVERY_PATH;
use crate::server::smart::fetch::{FetchOptions, is_this_machine, read_authorities, service_agent};
use crate::sys::regular_file::read_argument;

/// Longest time for the answer of a service.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Makes a key pair, and prints it with the registration for the configuration.
///
/// # Errors
/// If the client id is none, or no pair can be made.
pub(crate) fn make_keys(args: &CredentialKeysArgs) -> Result<Exit, RequestError> {
    let id = &args.client_id;
    if !(1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let text = format!("--client-id: give 1 to {CLIENT_ID_BYTES_MAX} characters of ASCII without spaces");
        return Err(RequestError::one(text));
    }
    let pair =
        ClientKeyPair::generate().ok_or_else(|| RequestError::one("no pair of keys can be made here".to_string()))?;
    let (private, public) = (pair.private_set(), pair.public_set());
    // A name may have fewer characters than an id.
    let name: String = id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(NAME_BYTES_MAX)
        .collect();
    let entry = format!(
        "[[clients]]\nname = {}\n\n[clients.smart]\nclient_id = {}\njwks = {}",
        quoted(&name),
        quoted(id),
        quoted(&public)
    );
    let document = json!({
        "status": "complete", "exitCode": 0, "clientId": id, "kid": pair.kid, "privateKeys": private, "publicKeys": public,
        "configuration": entry,
    });
    let output = CredentialOutput {
        secret: &private,
        header: "its private key, as JSON Web Key Set; keep it in a file that it alone can read",
        place: "behind everything else",
    };
    Ok(print_credential(args.json, &document, &output, &entry))
}

/// Asks a service for an access token, and prints it.
pub(crate) fn ask(args: &CredentialAskArgs) -> Exit {
    match ask_service(args) {
        Ok(answer) if args.json => {
            let document = json!({
                "status": "complete", "exitCode": 0, "token": answer["access_token"], "seconds": answer["expires_in"],
                "scope": answer["scope"],
            });
            put_json(&document);
            Exit::Done
        }
        Ok(answer) => {
            if writeln!(std::io::stdout(), "{}", answer["access_token"].as_str().unwrap_or_default()).is_err() {
                return Exit::Failed;
            }
            let scope = answer["scope"].as_str().unwrap_or_default();
            put_error(&format!("The token is valid for {} seconds, and opens {scope}.", answer["expires_in"]));
            Exit::Done
        }
        Err((exit, error)) => fail(exit, &error, args.json),
    }
}

/// Asks a service for an access token; its answer.
///
/// # Errors
/// A wrong request; what cannot be read or reached; what the service refuses, in its words.
fn ask_service(args: &CredentialAskArgs) -> Result<Value, (Exit, RequestError)> {
    let wrong = |text: String| (Exit::BadRequest, RequestError::one(text));
    let failed = |text: String| (Exit::Failed, RequestError::one(text));
    let keys = read_argument(&args.keys, JWKS_BYTES_MAX)
        .map_err(|error| wrong(format!("--keys: {}: {error}", args.keys.display())))?;
    let pair = ClientKeyPair::parse(&keys).map_err(|why| wrong(format!("--keys: {} {why}", args.keys.display())))?;
    let mut options = FetchOptions::default();
    if let Some(path) = &args.ca_file {
        let pem = read_argument(path, TLS_FILE_BYTES_MAX)
            .map_err(|error| wrong(format!("--ca-file: {}: {error}", path.display())))?;
        options.authorities = read_authorities(&pem)
            .ok_or_else(|| wrong(format!("--ca-file: {} holds no certificate in PEM form", path.display())))?;
    }
    let check_transport = |url: &str| match is_safe_url(url) {
        true => Ok(()),
        false => Err(wrong(format!(
            "--service: {url} is asked by plain http, in which everybody on the way sees the token: give https"
        ))),
    };
    check_transport(&args.service)?;
    let agent = service_agent(options, ANSWER_WAIT);
    let place = format!("{}{DISCOVERY_PATH}", args.service.trim_end_matches('/'));
    let described = agent.get(&place).call().and_then(|mut answer| answer.body_mut().read_to_string());
    let described =
        described.map_err(|error| failed(format!("--service: {place} cannot be asked: {}", transport_text(&error))))?;
    let described: Value = serde_json::from_str(&described).unwrap_or_default();
    let Some(token_url) = described["token_endpoint"].as_str() else {
        return Err(failed(format!(
            "--service: {place} does not say where tokens are asked for: give the base of a FHIR service"
        )));
    };
    check_transport(token_url)?;
    let seconds = u64::try_from(now().ticks.div_euclid(TICKS_PER_SECOND)).unwrap_or_default();
    let assertion = pair.assertion(&args.client_id, token_url, seconds);
    let assertion = assertion.ok_or_else(|| failed("no assertion can be signed here".to_string()))?;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
        ("scope", args.scope.as_str()),
    ];
    let answered = agent.post(token_url).send_form(form).and_then(|mut answer| {
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), text))
    });
    let (status, text) = answered.map_err(|error| {
        let text = transport_text(&error);
        failed(format!("{token_url}, which the service names by its public_url, cannot be asked: {text}"))
    })?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    match answer["access_token"].is_string() {
        true => Ok(answer),
        false => {
            let (code, why) =
                (answer["error"].as_str().unwrap_or("no error code"), answer["error_description"].as_str());
            Err(failed(format!(
                "{token_url} answers {status}, {code}: {}",
                why.unwrap_or(
                    "no service is there: look at its public_url, which has no base of a mount such as /fhir in it"
                )
            )))
        }
    }
}

/// Whether what is sent to a URL is seen by nobody on the way: by https, or on this machine.
fn is_safe_url(url: &str) -> bool {
    let parsed = url.parse::<axum::http::Uri>().ok();
    parsed.is_some_and(|uri| uri.scheme_str() == Some("https") || uri.host().is_some_and(is_this_machine))
}

/// Why a service cannot be asked, with what to do where the reason is a certificate.
fn transport_text(error: &ureq::Error) -> String {
    let text = error.to_string();
    let advice = if text.contains("not valid for name") {
        ": it must be made for the host of the URL, by subjectAltName=DNS:name, or IP:address for an address"
    } else if text.contains("CaUsedAsEndEntity") {
        ": its certificate is that of an authority (CA:TRUE) and cannot be a server's; make one with basicConstraints=CA:FALSE"
    } else if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        ": no authority that is known here has made its certificate; give its authority by --ca-file"
    } else if text.contains("InvalidContentType") || text.contains("invalid HTTP version") {
        ": one of the two speaks TLS and the other does not; look at http and https"
    } else {
        ""
    };
    format!("{text}{advice}")
}
