//! Flags of `outpour credential`.

use std::path::PathBuf;

/// `outpour credential`
#[derive(clap::Subcommand, Debug)]
pub(crate) enum CredentialCommand {
    /// Make a bearer token, and the line of the configuration that lets it in
    Token(CredentialTokenArgs),
    /// Make a secret for client headers, and the lines of the configuration that let it in
    Secret(CredentialSecretArgs),
    /// Make the key pair of a client of SMART Backend Services, and the lines of the configuration that register it
    Keys(CredentialKeysArgs),
    /// Ask a service for an access token with the private key of a client
    Ask(CredentialAskArgs),
}

/// `outpour credential keys`
#[derive(clap::Args, Debug)]
pub(crate) struct CredentialKeysArgs {
    /// OAuth id of the client
    #[arg(long, value_name = "ID")]
    pub client_id: String,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// `outpour credential ask`
#[derive(clap::Args, Debug)]
#[command(override_usage = "\
outpour credential ask --service <URL> --client-id <ID> --keys <FILE> \\
         [OPTIONS]")]
pub(crate) struct CredentialAskArgs {
    /// Base of the service, such as https://bulk.example.org/fhir
    #[arg(long, value_name = "URL")]
    pub service: String,
    /// OAuth id of the client
    #[arg(long, value_name = "ID")]
    pub client_id: String,
    /// File with the private key, as `outpour credential keys` makes it
    #[arg(long, value_name = "FILE")]
    pub keys: PathBuf,
    /// Scopes to ask for, with spaces between them
    #[arg(long, value_name = "SCOPES", default_value = "system/*.rs")]
    pub scope: String,
    /// PEM file of the authority that the service has its certificate from [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// `outpour credential token`
#[derive(clap::Args, Debug)]
pub(crate) struct CredentialTokenArgs {
    /// How long it is taken: a number and m, h or d, or never
    #[arg(long, value_name = "TIME", default_value = "2h")]
    pub lifetime: String,
    /// Make it a user's: it opens the record of this patient alone
    #[arg(long, value_name = "ID")]
    pub patient: Option<String>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// `outpour credential secret`
#[derive(clap::Args, Debug)]
pub(crate) struct CredentialSecretArgs {
    /// Id that the client sends beside it [default: a random one]
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}
