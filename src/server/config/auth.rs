//! `[auth]` and `[[clients]]` of the configuration, with all checks of them.
//!
//! The configuration holds hashes of secrets, never secrets; no hash is shown by `Debug` or in a message.

use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::limits::{CLIENT_ID_BYTES_MAX, NAME_BYTES_MAX};
use crate::named_enum::by_name;
use crate::server::auth::ANYBODY;
use crate::server::auth::secret::StoredHash;
use crate::server::auth::secret_hash::SecretHash;
use crate::server::config::smart::{SmartClientConfig, SmartConfig};
use crate::server::smart::fetch::KeySetFetcher;
use crate::server::smart::key_source::KeyPlace;
use std::collections::BTreeSet;

use axum::http::{HeaderName, header};
use serde::{Deserialize, Serialize};

/// `[auth]`: names of the headers that carry credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthConfig {
    /// Name of the header with a client's id (ONEUP-S07).
    pub client_id_header: String,
    /// Name of the header with a client's secret.
    pub client_secret_header: String,
    /// Name of the header with the user that a request is for; only `client` is accepted, which an absent header also
    /// means.
    pub user_header: String,
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            client_id_header: "client_id".to_string(),
            client_secret_header: "client_secret".to_string(),
            user_header: "x-oneup-user-id".to_string(),
        }
    }
}

/// One entry of `[[clients]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientConfig {
    /// Name of the client, which owns its jobs.
    pub name: String,
    /// Tenants whose data it may export.
    #[serde(default = "default_tenants")]
    pub tenants: Vec<String>,
    /// Resource types that it may export; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Levels at which it may export.
    #[serde(default = "all_levels")]
    pub levels: Vec<LevelName>,
    /// Groups that it may see and export; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether it may create, change and delete Groups.
    #[serde(default)]
    pub writes_groups: bool,
    /// Which patients it may list in the Groups that it writes; `of-groups` if absent. Only for a client with
    /// `groups` and `writes_groups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patients: Option<PatientSource>,
    /// Its id in client headers; empty if it does not use them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// Hash of its secret in client headers.
    #[serde(default, skip_serializing_if = "SecretHash::is_empty")]
    pub client_secret_hash: SecretHash,
    /// Bearer tokens of the client and its users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenConfig>,
    /// Its registration for SMART Backend Services; `None` if it has no keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smart: Option<SmartClientConfig>,
}

/// A bearer token of a client or of one of its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenConfig {
    /// Public part of the token.
    pub id: String,
    /// Hash of the secret part.
    pub hash: SecretHash,
    /// Instant from which on the token is rejected; empty for never.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expires: String,
    /// Id of the patient whose record alone the token opens; empty for a token of the client itself (ONEUP-S01).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub patient: String,
}

impl ClientConfig {
    /// Its OAuth id; `None` if it is not registered for SMART.
    pub(crate) fn oauth_id(&self) -> Option<&str> {
        let smart = self.smart.as_ref()?;
        Some(if smart.client_id.is_empty() { &self.name } else { &smart.client_id })
    }
}

/// The patients that a client bound to Groups may list in a Group that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatientSource {
    /// Members of those of its `groups` that no bound client wrote.
    OfGroups,
    /// All patients of the store.
    Any,
}

impl PatientSource {
    /// Every value, for parsing.
    pub(crate) const ALL: [PatientSource; 2] = [PatientSource::OfGroups, PatientSource::Any];

    /// The word for `patients` of a `[[clients]]` entry of the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            PatientSource::OfGroups => "of-groups",
            PatientSource::Any => "any",
        }
    }
}

/// A level of export, as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub(crate) enum LevelName {
    System,
    Patient,
    Group,
}

impl LevelName {
    /// Every value, for parsing.
    pub(crate) const ALL: [LevelName; 3] = [LevelName::System, LevelName::Patient, LevelName::Group];

    /// The word in `levels` of a `[[clients]]` entry of the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            LevelName::System => "system",
            LevelName::Patient => "patient",
            LevelName::Group => "group",
        }
    }
}

by_name!(PatientSource, LevelName);

/// Default of `tenants` of a `[[clients]]` entry: the default tenant.
fn default_tenants() -> Vec<String> {
    vec!["default".to_string()]
}

/// Default of `levels` of a `[[clients]]` entry: every level of export.
fn all_levels() -> Vec<LevelName> {
    vec![LevelName::System, LevelName::Patient, LevelName::Group]
}

/// Whether a name of a client, tenant or token in `[[clients]]` is safe in a log and, followed by a slash, as the owner
/// of a user's jobs.
fn is_plain(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Every problem of `[auth]` and `[[clients]]`, one sentence each. Hashes are not repeated: one may be a secret in
/// the wrong place.
pub(crate) fn auth_problems(auth: &AuthConfig, clients: &[ClientConfig]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut headers = BTreeSet::from([header::AUTHORIZATION.to_string()]);
    for (key, name) in [
        ("client_id_header", &auth.client_id_header),
        ("client_secret_header", &auth.client_secret_header),
        ("user_header", &auth.user_header),
    ] {
        match HeaderName::try_from(name) {
            Err(_) => problems.push(format!("auth.{key} {name:?} is no name of a header")),
            Ok(name) if !headers.insert(name.to_string()) => {
                problems.push(format!("auth.{key} is {name}, which stands for something else already"));
            }
            Ok(_) => {}
        }
    }
    let (mut names, mut token_ids, mut client_ids) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (position, client) in clients.iter().enumerate() {
        let named = match client.name.as_str() {
            name if is_plain(name) => format!("client {name}"),
            name => {
                problems.push(format!(
                    "clients: name {name:?} is none: give 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, '.', '_' and '-'"
                ));
                format!("client number {}", position + 1)
            }
        };
        let mut report_problem = |text: String| problems.push(format!("{named}: {text}"));
        if client.name == ANYBODY {
            report_problem(
                "jobs that were asked for without authorization belong to this name; give the client another one"
                    .into(),
            );
        }
        if !names.insert(&client.name) {
            report_problem("another client has this name; jobs belong to it, so it must be of one client alone".into());
        }
        client_problems(client, &mut report_problem);
        if !client.client_id.is_empty() && !client_ids.insert(&client.client_id) {
            report_problem("another client has its client_id".into());
        }
        for token in &client.tokens {
            token_problems(token, &mut report_problem);
            if !token_ids.insert(&token.id) {
                report_problem(format!("a token with the id {:?} stands elsewhere already", token.id));
            }
        }
    }
    problems
}

/// Reports the problems of one client to `report_problem`, apart from its tokens.
fn client_problems(client: &ClientConfig, report_problem: &mut dyn FnMut(String)) {
    if client.tenants.is_empty() {
        report_problem("tenants is empty, so that it may ask for nobody's data; leave it out for [\"default\"]".into());
    }
    for tenant in client.tenants.iter().filter(|tenant| !is_plain(tenant)) {
        report_problem(format!("tenants holds {tenant:?}, which is no name of a tenant"));
    }
    for name in client.types.iter().filter(|name| ResourceType::parse(name).is_none()) {
        let near = ResourceType::similar(name);
        let advice = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
        report_problem(format!("types holds {name:?}, which is no R4 resource type{advice}"));
    }
    if client.levels.is_empty() {
        report_problem("levels is empty, so that it may export nothing; leave it out for all".into());
    }
    for id in client.groups.iter().filter(|id| Id::parse_r4(id.as_bytes()).is_none()) {
        report_problem(format!("groups holds {id:?}, which is no id"));
    }
    if !client.groups.is_empty() && client.levels.iter().any(|level| *level != LevelName::Group) {
        report_problem(
            "groups are named, but levels are not [\"group\"] alone: at a wider level it would export the records of \
             patients outside its groups; give levels = [\"group\"], or no groups"
                .into(),
        );
    }
    if client.patients == Some(PatientSource::Any) && (client.groups.is_empty() || !client.writes_groups) {
        report_problem(
            "patients = \"any\" counts only for a client that has groups and writes_groups; leave it out".into(),
        );
    }
    let id = client.client_id.as_str();
    if id.len() > CLIENT_ID_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        report_problem(format!(
            "client_id has more than {CLIENT_ID_BYTES_MAX} characters, or others than a header can hold"
        ));
    }
    match (id.is_empty(), client.client_secret_hash.is_empty()) {
        (true, true) => {}
        (false, false) => {
            if let Err(reason) = StoredHash::parse(&client.client_secret_hash) {
                report_problem(format!("client_secret_hash {reason}"));
            }
        }
        _ => report_problem("client_id and client_secret_hash belong together; give both or neither".into()),
    }
}

/// Reports the problems of one token to `report_problem`.
fn token_problems(token: &TokenConfig, report_problem: &mut dyn FnMut(String)) {
    let id = token.id.as_str();
    if !is_plain(id) || id.contains('.') {
        // A malformed id may be a whole token: it is not repeated.
        report_problem(
            "the id of a token is 1 to 64 of A-Z, a-z, 0-9, '_' and '-'; what follows its first dot is secret".into(),
        );
        return;
    }
    if let Err(reason) = StoredHash::parse(&token.hash) {
        report_problem(format!("the hash of the token {id} {reason}"));
    }
    if !token.expires.is_empty() && Instant::parse(&token.expires).is_none() {
        report_problem(format!(
            "the token {id} expires at {:?}, which is no instant such as 2027-01-01T00:00:00Z",
            token.expires
        ));
    }
    if !token.patient.is_empty() && Id::parse(token.patient.as_bytes()).is_none() {
        report_problem(format!("the token {id} is of patient {:?}, which is no id", token.patient));
    }
}

/// Every problem of the registrations of clients, one sentence each.
pub(crate) fn registration_problems(smart: &SmartConfig, clients: &[ClientConfig]) -> Vec<String> {
    let (mut problems, mut ids) = (Vec::new(), BTreeSet::new());
    for client in clients {
        let (Some(registration), Some(id)) = (&client.smart, client.oauth_id()) else { continue };
        let mut report = |text: String| problems.push(format!("client {:?}: {text}", client.name));
        if id.len() > CLIENT_ID_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            report(format!(
                "client_id in [clients.smart] has more than {CLIENT_ID_BYTES_MAX} characters, or others than printable ASCII"
            ));
        }
        if !ids.insert(id) {
            report(format!("another client is registered as {id:?}"));
        }
        match registration.key_place() {
            Ok(KeyPlace::Url(url)) => {
                if let Some(problem) = KeySetFetcher::url_problem(&url, &smart.jwks_hosts) {
                    report(format!("jwks_url in [clients.smart] {problem}"));
                }
            }
            Ok(_) => {}
            Err(problem) => report(problem),
        }
        for problem in registration.scope_rights().err().unwrap_or_default() {
            report(format!("scopes in [clients.smart]: {problem}"));
        }
    }
    problems
}

/// A TOML error of a configuration with `[auth]` and `[[clients]]`, with line and column. The line is not shown, nor a
/// string of the wrong type: either may hold a misplaced secret of a client.
pub(crate) fn toml_error(error: &toml::de::Error, text: &str) -> String {
    let mut message = error.message().to_string();
    while let Some(from) = message.find("string \"") {
        let end = message.rfind('"').filter(|end| *end > from + 7).map_or(message.len(), |end| end + 1);
        message.replace_range(from..end, "a text");
    }
    if message.contains("expected a sequence") {
        message += "; what may stand several times begins in double brackets: [[clients]] before [clients.smart], [[tenants]]; a list stands in [ ]";
    }
    let Some(span) = error.span() else { return message };
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |position| position + 1) + 1;
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Config;

    fn hash() -> String {
        crate::server::auth::secret::hash("right").0
    }

    fn read(text: &str) -> Result<(AuthConfig, Vec<ClientConfig>), String> {
        Config::parse(text).map(|config| (config.auth, config.clients))
    }

    #[track_caller]
    fn wrong(text: &str, words: &[&str]) {
        let text = text.replace("HASH", &hash());
        let (auth, clients) = read(&text).unwrap();
        let problems = auth_problems(&auth, &clients);
        assert_eq!(problems.len(), words.len(), "{problems:?}");
        for word in words {
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
        }
    }

    /// A client as the documentation shows it; absent keys have their defaults.
    #[test]
    fn clients_are_read() {
        let text = "[[clients]]\nname = 'a'\ntokens = [{ id = 'x', hash = 'HASH', expires = '2027-01-01T00:00:00Z', patient = 'p' }]\n\
                    [[clients]]\nname = 'b'\nlevels = ['group']\ngroups = ['g']\nclient_id = 'c'\nclient_secret_hash = 'HASH'\n";
        let (auth, clients) = read(&text.replace("HASH", &hash())).unwrap();
        assert_eq!(auth_problems(&auth, &clients), Vec::<String>::new());
        assert_eq!((&clients[0].tenants, clients[0].levels.len()), (&vec!["default".to_string()], 3));
        let config = Config { clients, ..Config::default() };
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config, "what is printed can be read");
    }

    /// All problems of a client are reported at once. AUTH-24: a wider level would bypass its Groups.
    #[test]
    fn problems_are_told() {
        wrong("[[clients]]\nname = 'anybody'", &["without authorization"]);
        wrong("[[clients]]\nname = 'a b'\n[[clients]]\nname = 'c'\n[[clients]]\nname = 'c'", &["a b", "one client"]);
        wrong("[[clients]]\nname = 'a'\ntypes = ['Patiant']\ntenants = ['x/y', 'z']", &["did you mean Patient", "x/y"]);
        wrong("[[clients]]\nname = 'a'\ntenants = []\nlevels = []", &["tenants is empty", "levels is empty"]);
        wrong("[[clients]]\nname = 'a'\ngroups = ['g']", &["levels = [\"group\"]"]);
        wrong("[[clients]]\nname = 'a'\ngroups = ['g', '?']\nlevels = ['group']", &["is no id"]);
        wrong("[[clients]]\nname = 'a'\nclient_id = 'x'", &["belong together"]);
        wrong("[[clients]]\nname = 'a'\nclient_id = 'x y'\nclient_secret_hash = 'HASH'", &["client_id has"]);
        let both = "client_id = 'x'\nclient_secret_hash = 'HASH'\n";
        wrong(&format!("[[clients]]\nname = 'a'\n{both}[[clients]]\nname = 'b'\n{both}"), &["its client_id"]);
        wrong("[[clients]]\nname = 'a'\ntokens = [{ id = 'x', hash = 'HASH' }, { id = 'x', hash = 'HASH' }]", &["x"]);
        wrong(
            "[[clients]]\nname = 'a'\ntokens = [{ id = 'x', hash = 'HASH', expires = 'soon', patient = '?' }]",
            &["soon", "is no id"],
        );
        wrong("[auth]\nuser_header = 'client_id'\nclient_secret_header = 'a b'", &["stands for", "a b"]);
        wrong("[auth]\nclient_id_header = 'Authorization'", &["authorization"]);
        assert!(read("[[clients]]\nname = 'a'\nlevel = ['group']").unwrap_err().contains("level"));
        assert!(read("[[clients]]\nname = 'a'\nlevels = ['all']").unwrap_err().contains("line 3"));
    }

    /// AUTH-27: misplaced secrets are not repeated, and hashes are never shown.
    #[test]
    fn nothing_secret_is_told() {
        let secret = "5ecre7";
        for text in [
            format!("[[clients]]\nname = 'a'\ntokens = [{{ id = 'x', hash = '{secret}' }}]"),
            format!("[[clients]]\nname = 'a'\ntokens = [{{ id = 'x.{secret}', hash = 'h' }}]"),
            format!("[[clients]]\nname = 'a'\nclient_id = 'x'\nclient_secret_hash = '{secret}'"),
        ] {
            let (auth, clients) = read(&text).unwrap();
            let problems = auth_problems(&auth, &clients);
            assert!(problems.len() == 1 && !problems[0].contains(secret), "{problems:?}");
        }
        for text in [
            format!("[[clients]]\nname = 'a'\ntokens = '{secret}'"),
            format!("[[clients]]\nname = 'a'\nsecret = '{secret}'"),
            format!("[[clients]]\nname = 'a'\ntokens = [{{ id = 'x', hash = '{secret}', secret = '{secret}' }}]"),
            format!("[[clients]]\nname = 'a'\nwrites_groups = \"{secret}\\\"{secret}\""),
            format!("[[clients]]\nname = 'a'\nclient_secret_hash = '{secret}\n"),
        ] {
            let reported = read(&text).unwrap_err();
            assert!(reported.contains("line ") && !reported.contains(secret), "{reported}");
        }
        let text = format!("[[clients]]\nname = 'a'\ntokens = [{{ id = 'x', hash = '{}' }}]", hash());
        assert!(!format!("{:?}", read(&text).unwrap()).contains("sha256"));
    }
}
