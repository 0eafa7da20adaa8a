//! Credentials as commands print them: the secret part once, on standard output, and what is for the configuration.

use std::io::Write;

use crate::cli::{Exit, put_error, put_json};

/// A new credential and the texts that are printed around it.
pub(crate) struct CredentialOutput<'a> {
    /// The token or secret; printed once and kept nowhere.
    pub secret: &'a str,
    /// How the client sends it.
    pub header: &'a str,
    /// Where in the configuration its entry goes.
    pub place: &'a str,
}

/// Prints a credential: with `json` the document alone, else the secret on standard output and the rest for people.
pub(crate) fn print_credential(
    json: bool,
    document: &serde_json::Value,
    output: &CredentialOutput<'_>,
    entry: &str,
) -> Exit {
    if json {
        put_json(document);
        return Exit::Done;
    }
    put_error(&format!("# On standard output is what the client gets, this once: {}.", output.header));
    if writeln!(std::io::stdout(), "{}", output.secret).is_err() {
        // The secret is lost: an entry for its hash would be of no use.
        return Exit::Failed;
    }
    put_error(&format!("# This is for the configuration of the service, {}:", output.place));
    put_error(entry);
    Exit::Done
}

/// A text as a quoted TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
