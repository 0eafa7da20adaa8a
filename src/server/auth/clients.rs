//! Clients that the configuration names: who sends a request is told by bearer token or client headers, whose hashes
//! stand there.
//!
//! An unknown id, a wrong secret and what has not the form of a credential get the same answer after the same time, so
//! that nobody can find out ids by asking. Each refusal leaves a line for the audit, which names a client or a token only
//! if it is one of ours, and never a secret.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::config::{AuthConfig, ClientConfig, LevelName, PatientSource, SecretHash, problems};
use super::given::{Given, HeaderNames, Way};
use super::secret::Checker;
use super::{Authenticator, Door, Principal, WritingRights};
use crate::fhir::{Instant, ResourceType};
use crate::server::gate::REQUEST_ID;
use crate::server::outcome::{IssueType, Refusal};

/// Everybody who may ask, looked up by credential.
#[derive(Debug)]
pub struct ClientTable {
    headers: HeaderNames,
    clients: Vec<Client>,
    tokens: HashMap<String, Entry>,
    secrets: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Client {
    principal: Principal,
    tenants: Vec<String>,
    rights: WritingRights,
}

/// What is known of a credential.
#[derive(Debug)]
struct Entry {
    client: usize,
    hash: SecretHash,
    expires: Option<Instant>,
    patient: Option<String>,
}

impl ClientTable {
    /// The clients of a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, one sentence each.
    pub fn new(auth: &AuthConfig, clients: &[ClientConfig]) -> Result<ClientTable, Vec<String>> {
        let problems = problems(auth, clients);
        let Some(headers) = HeaderNames::new(auth).filter(|_| problems.is_empty()) else { return Err(problems) };
        let mut table = ClientTable { headers, clients: Vec::new(), tokens: HashMap::new(), secrets: HashMap::new() };
        for (at, client) in clients.iter().enumerate() {
            let tenants = client.tenants.clone();
            let principal = principal(client);
            let any_patient = client.patients == Some(PatientSource::Any);
            let rights = WritingRights { groups: principal.groups.clone(), any_patient };
            table.clients.push(Client { principal, tenants, rights });
            if !client.client_id.is_empty() {
                let hash = client.client_secret_hash.clone();
                let entry = Entry { client: at, hash, expires: None, patient: None };
                table.secrets.insert(client.client_id.clone(), entry);
            }
            for token in &client.tokens {
                let expires = Instant::parse(&token.expires);
                let patient = Some(token.patient.clone()).filter(|patient| !patient.is_empty());
                table.tokens.insert(token.id.clone(), Entry { client: at, hash: token.hash.clone(), expires, patient });
            }
        }
        Ok(table)
    }

    fn of_tenant(&self, tenant: &str) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.tenants.iter().any(|of| of == tenant))
    }

    fn entry(&self, way: Way, id: &str) -> Option<&Entry> {
        match way {
            Way::Bearer => self.tokens.get(id),
            Way::ClientHeaders => self.secrets.get(id),
        }
    }

    /// Who stands behind a credential that was right.
    fn principal(&self, entry: &Entry) -> Principal {
        let mut principal = self.clients[entry.client].principal.clone();
        if let Some(patient) = &entry.patient {
            // Users of one client never see each other's jobs. No client has such a name: it has a slash.
            principal.client = format!("{}/Patient/{patient}", principal.client);
            principal.patient = Some(patient.clone());
        }
        principal
    }
}

fn principal(client: &ClientConfig) -> Principal {
    let types: Vec<ResourceType> = client.types.iter().filter_map(|name| ResourceType::parse(name)).collect();
    Principal {
        client: client.name.clone(),
        patient: None,
        types: Some(types).filter(|types| !types.is_empty()),
        levels: [LevelName::System, LevelName::Patient, LevelName::Group].map(|level| client.levels.contains(&level)),
        groups: Some(client.groups.clone()).filter(|groups| !groups.is_empty()),
        writes_groups: client.writes_groups,
    }
}

/// The provider of credentials from the configuration. The clients can be replaced at any time.
pub struct StaticClients {
    table: RwLock<Arc<ClientTable>>,
    checker: Checker,
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Missing,
    Several,
    NotTaken(Way),
    Malformed(Way),
    Unknown(Way),
    WrongSecret(Way),
    Expired(Way),
    OtherTenant,
}

impl StaticClients {
    /// The provider for these clients. `key` is random; `clock` tells when tokens expire.
    pub fn new(
        table: ClientTable,
        key: [u8; 32],
        clock: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> StaticClients {
        StaticClients { table: RwLock::new(Arc::new(table)), checker: Checker::new(key), clock: Box::new(clock) }
    }

    /// Takes these clients from the next request on. Jobs and files of a client that goes on under its name stay its own.
    pub fn replace(&self, table: ClientTable) {
        *self.table.write().expect("no panic under it") = Arc::new(table);
    }

    fn table(&self) -> Arc<ClientTable> {
        self.table.read().expect("no panic under it").clone()
    }

    /// Finds the entry of a credential and checks it, in the same time whether or not there is one.
    fn check<'t>(
        &self,
        table: &'t ClientTable,
        door: &Door<'_>,
        given: Given<'_>,
    ) -> Result<&'t Entry, (Reason, Option<&'t Entry>)> {
        let way = match given {
            Given::Nothing => return Err((Reason::Missing, None)),
            Given::Several => return Err((Reason::Several, None)),
            Given::Malformed(way) | Given::Credential { way, .. } => way,
        };
        let taken = match way {
            Way::Bearer => door.bearer,
            Way::ClientHeaders => door.client_headers,
        };
        if !taken {
            return Err((Reason::NotTaken(way), None));
        }
        let (entry, secret) = match given {
            Given::Credential { id, secret, .. } => (table.entry(way, id), secret),
            _ => (None, ""),
        };
        let is_right = self.checker.is_right(entry.map(|entry| &entry.hash), secret);
        let Some(entry) = entry else {
            let unknown = matches!(given, Given::Credential { .. });
            return Err((if unknown { Reason::Unknown(way) } else { Reason::Malformed(way) }, None));
        };
        if !is_right {
            return Err((Reason::WrongSecret(way), Some(entry)));
        }
        if entry.expires.as_ref().is_some_and(|expires| *expires <= (self.clock)()) {
            return Err((Reason::Expired(way), Some(entry)));
        }
        if !table.clients[entry.client].tenants.iter().any(|tenant| tenant == door.tenant) {
            return Err((Reason::OtherTenant, Some(entry)));
        }
        Ok(entry)
    }
}

impl Authenticator for StaticClients {
    fn authenticate(&self, door: &Door<'_>, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let table = self.table();
        let given = Given::of(headers, &table.headers);
        self.check(&table, door, given).map(|entry| table.principal(entry)).map_err(|(reason, entry)| {
            let client = entry.map(|entry| table.clients[entry.client].principal.log_name());
            // An id that is not ours may be a secret that was put in the wrong place.
            let credential = match given {
                Given::Credential { id, .. } if entry.is_some() => Some(id),
                _ => None,
            };
            let request = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
            let tenant = door.tenant;
            tracing::warn!(target: "outpour::audit", request, tenant, client, credential, ?reason, "refused");
            refusal(reason, door)
        })
    }

    fn is_quick(&self, headers: &HeaderMap) -> bool {
        let table = self.table();
        match Given::of(headers, &table.headers) {
            Given::Nothing | Given::Several => true,
            Given::Malformed(_) => false,
            Given::Credential { way, id, secret } => {
                table.entry(way, id).is_some_and(|entry| self.checker.remembers(&entry.hash, secret))
            }
        }
    }

    fn requires_access_token(&self) -> bool {
        true
    }

    fn writing_rights(&self, tenant: &str, client: &str) -> Option<WritingRights> {
        let table = self.table();
        let found = table.of_tenant(tenant).find(|known| known.principal.client == client);
        found.map(|known| known.rights.clone())
    }

    fn bound_writers(&self, tenant: &str, group: &str) -> Vec<WritingRights> {
        let table = self.table();
        let may_write = |known: &&Client| {
            let principal = &known.principal;
            principal.writes_groups && principal.is_bound_to_groups() && principal.sees_group(group)
        };
        table.of_tenant(tenant).filter(may_write).map(|known| known.rights.clone()).collect()
    }
}

/// The answer: 401 with what is taken here (AUTH-23, ONEUP-M09), or 403 (ONEUP-M01).
fn refusal(reason: Reason, door: &Door<'_>) -> Refusal {
    let send = match (door.bearer, door.client_headers) {
        (true, true) => "send Authorization: Bearer and a token, or the client headers",
        (true, false) => "send Authorization: Bearer and a token, which is the only way here",
        (false, _) => "send the client headers, which are the only way here",
    };
    // What RFC 6750 calls it; none when no token was given (section 3.1).
    let (code, text, error) = match reason {
        Reason::Missing => (IssueType::Login, format!("no credentials were sent: {send}"), None),
        Reason::Several => {
            let text = format!("more than one credential was sent, or a header of one twice: send one alone; {send}");
            (IssueType::Login, text, Some("invalid_request"))
        }
        Reason::NotTaken(Way::Bearer) => (IssueType::Login, format!("tokens are not taken here: {send}"), None),
        Reason::NotTaken(Way::ClientHeaders) => {
            (IssueType::Login, format!("client headers are not taken here: {send}"), None)
        }
        Reason::Malformed(Way::Bearer) | Reason::Unknown(Way::Bearer) | Reason::WrongSecret(Way::Bearer) => {
            let text = "the token is none that is known here: look whether it was copied whole, or ask the operator for another";
            (IssueType::Login, text.to_string(), Some("invalid_token"))
        }
        Reason::Malformed(_) | Reason::Unknown(_) | Reason::WrongSecret(_) => {
            let text = "the client headers are none that are known here: the id and the secret must both be there, each \
                        once, and the user, if given, must be client";
            (IssueType::Login, text.to_string(), None)
        }
        Reason::Expired(_) => {
            let text = "the token has expired: send a fresh one; jobs and files of the same client are still there";
            (IssueType::Expired, text.to_string(), Some("invalid_token"))
        }
        Reason::OtherTenant => {
            let text = "this client has no access to this tenant's data";
            return Refusal::new(StatusCode::FORBIDDEN, IssueType::Forbidden, text);
        }
    };
    let challenge = match (door.bearer, error) {
        (true, None) => HeaderValue::from_static("Bearer realm=\"outpour\""),
        (true, Some("invalid_token")) => HeaderValue::from_static("Bearer realm=\"outpour\", error=\"invalid_token\""),
        (true, Some(_)) => HeaderValue::from_static("Bearer realm=\"outpour\", error=\"invalid_request\""),
        // RFC 9110 wants a challenge with every 401; client headers have no scheme of their own.
        (false, _) => HeaderValue::from_static("ClientHeaders realm=\"outpour\""),
    };
    Refusal::new(StatusCode::UNAUTHORIZED, code, text).header(header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests;
