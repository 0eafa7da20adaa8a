//! `outpour credential`: `token` and `secret` make a credential and print it for the client, and its
//! hash for the service's configuration. Writes no file and contacts no service.

use serde_json::json;

use crate::cli::access_token::{ask, make_keys};
use crate::cli::args::credential::{CredentialCommand, CredentialSecretArgs, CredentialTokenArgs};
use crate::cli::clock::now;
use crate::cli::credential_output::{CredentialOutput, print_credential, quoted};
use crate::cli::{Exit, fail};
use crate::error::RequestError;
use crate::fhir::id::Id;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::limits::{CLIENT_ID_BYTES_MAX, CREDENTIAL_LIFETIME_DAYS_MAX};
use crate::server::auth::secret::{hash, random_id, random_secret};
use crate::server::auth::secret_hash::SecretHash;

/// Runs `outpour credential token` or `outpour credential secret`.
pub(crate) fn run(command: CredentialCommand) -> Exit {
    let (json, outcome) = match command {
        CredentialCommand::Token(args) => (args.json, token(&args)),
        CredentialCommand::Secret(args) => (args.json, secret(&args)),
        CredentialCommand::Keys(args) => (args.json, make_keys(&args)),
        CredentialCommand::Ask(args) => return ask(&args),
    };
    outcome.unwrap_or_else(|error| fail(Exit::BadRequest, &error, json))
}

/// Makes a bearer token and prints it with its entry for the configuration.
///
/// # Errors
/// If the lifetime cannot be parsed or is out of bounds, or the patient is no FHIR id.
fn token(args: &CredentialTokenArgs) -> Result<Exit, RequestError> {
    let seconds = lifetime_seconds(&args.lifetime)
        .map_err(|reason| RequestError::one(format!("--lifetime: {:?} {reason}", args.lifetime)))?;
    if let Some(patient) = args.patient.as_ref().filter(|patient| Id::parse(patient.as_bytes()).is_none()) {
        return Err(RequestError::one(format!("--patient: {patient:?} is no id; give it without Patient/ before it")));
    }
    let (id, secret) = (random_id(), random_secret());
    let (token, SecretHash(hash)) = (format!("{id}.{secret}"), hash(&secret));
    let expires = seconds.map(|seconds| {
        let seconds = now().ticks.div_euclid(TICKS_PER_SECOND) + seconds;
        Instant::from_unix_millis(seconds * 1000).to_string()
    });
    let mut entry = format!("{{ id = {}, hash = {}", quoted(&id), quoted(&hash));
    for (key, value) in [("expires", &expires), ("patient", &args.patient)] {
        entry += &value.as_ref().map_or(String::new(), |value| format!(", {key} = {}", quoted(value)));
    }
    entry += " },";
    let document = json!({
        "status": "complete", "exitCode": 0, "token": token, "id": id, "hash": hash, "expires": expires,
        "patient": args.patient, "configuration": entry,
    });
    let output = CredentialOutput {
        secret: &token,
        header: "the token, sent as Authorization: Bearer TOKEN",
        place: "`tokens` below [[clients]]",
    };
    Ok(print_credential(args.json, &document, &output, &entry))
}

/// Makes a client secret and prints it with its entry for the configuration.
///
/// # Errors
/// If the client id is empty, too long, or not printable ASCII without spaces.
fn secret(args: &CredentialSecretArgs) -> Result<Exit, RequestError> {
    let id = args.client_id.clone().unwrap_or_else(random_id);
    if !(1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let text = format!("--client-id: give 1 to {CLIENT_ID_BYTES_MAX} characters of ASCII without spaces");
        return Err(RequestError::one(text));
    }
    let secret = random_secret();
    let SecretHash(hash) = hash(&secret);
    let entry = format!("client_id = {}\nclient_secret_hash = {}", quoted(&id), quoted(&hash));
    let document = json!({
        "status": "complete", "exitCode": 0, "clientId": id, "clientSecret": secret, "hash": hash,
        "configuration": entry,
    });
    let header = format!("the secret, sent as client_secret with client_id: {id}");
    let output = CredentialOutput { secret: &secret, header: &header, place: "the client below [[clients]]" };
    Ok(print_credential(args.json, &document, &output, &entry))
}

/// The lifetime of a token, `90m`, `2h`, `30d` or `never`, in seconds; `None` for `never`.
///
/// # Errors
/// The reason, to follow the text: no such form, zero, or more than [`CREDENTIAL_LIFETIME_DAYS_MAX`].
fn lifetime_seconds(text: &str) -> Result<Option<i64>, String> {
    if text == "never" {
        return Ok(None);
    }
    let form = "is no time such as 90m, 2h, 30d or never";
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(form.to_string()),
    };
    let number = &text[..text.len() - 1];
    // `parse` would take a sign.
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<i64>().ok().filter(|_| is_number).and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(0) => Err("is over at once; give at least 1m".to_string()),
        Some(seconds) if seconds <= CREDENTIAL_LIFETIME_DAYS_MAX * 24 * 3600 => Ok(Some(seconds)),
        // A number that does not fit an i64, too, is too long a time and not a wrong form.
        _ if is_number => Err(format!("is more than {CREDENTIAL_LIFETIME_DAYS_MAX}d; give less, or never")),
        _ => Err(form.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ONEUP-S08: the operator chooses the lifetime, in minutes, hours, days or none; anything else is refused.
    #[test]
    fn lifetimes() {
        assert_eq!(lifetime_seconds("2h"), Ok(Some(7200)));
        assert_eq!(lifetime_seconds("90m"), Ok(Some(5400)));
        assert_eq!(lifetime_seconds("30d"), Ok(Some(30 * 86400)));
        assert_eq!(lifetime_seconds("never"), Ok(None));
        for wrong in ["", "h", "2", "-2h", "+2h", "2 h", "2w", "0h", "99999999999999999999d", "36501d", "2é"] {
            assert!(lifetime_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
