//! Clients that the configuration names: who sends a request is told by bearer token or client headers, whose hashes
//! stand there.
//!
//! An unknown id and a wrong secret get the same answer after the same time, so that nobody can find out ids by asking.
//! With hashes of today that is one SHA-256 each. Where the configuration holds argon2id hashes of earlier versions for
//! a way of authorization, whatever is wrong that way waits for one of these; what is right by SHA-256 never does. Each
//! refusal leaves a line for the audit, which names a client or a token only
//! if it is one of ours, and never a secret.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, RwLock};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::server::auth::argon2_pool::{Argon2Hash, Argon2Pool, PoolBusy};
use crate::server::auth::credentials::{CredentialKind, Credentials, HeaderNames};
use crate::server::auth::secret::{Sha256Hash, StoredHash};
use crate::server::auth::{Authentication, Authenticator, MountAuth, Principal, WritingRights};
use crate::server::config::auth::{AuthConfig, ClientConfig, LevelName, PatientSource, auth_problems};
use crate::server::connection::request_tracker::Peer;
use crate::server::error::{ApiError, OutcomeIssueType};
use crate::server::ids::REQUEST_ID;

/// Everybody who may ask, looked up by credential.
#[derive(Debug)]
pub(crate) struct ClientTable {
    headers: HeaderNames,
    clients: Vec<Client>,
    tokens: ClientCredentials,
    secrets: ClientCredentials,
}

/// The credentials of one way, by their ids.
#[derive(Debug, Default)]
struct ClientCredentials {
    entries: HashMap<String, ClientEntry>,
    /// The argon2id hashes among them.
    argon2: Vec<Arc<Argon2Hash>>,
    /// Chooses one of these for an id that has none.
    choice: RandomState,
}

impl ClientCredentials {
    fn add(&mut self, id: &str, entry: ClientEntry) {
        if let StoredHash::Argon2(hash) = &entry.hash {
            self.argon2.push(hash.clone());
        }
        self.entries.insert(id.to_string(), entry);
    }

    /// A hash that a credential with this id, which is not known or has another form of hash, is checked against for the
    /// time that it takes. The same one each time, lest times that differ tell that there is nothing of its own; none
    /// where no id has such a hash.
    fn decoy_hash(&self, id: &str) -> Option<&Arc<Argon2Hash>> {
        let count = self.argon2.len().max(1);
        self.argon2.get(self.choice.hash_one(id) as usize % count)
    }
}

#[derive(Debug)]
struct Client {
    principal: Principal,
    tenants: Vec<String>,
    rights: WritingRights,
}

/// What is known of a credential.
#[derive(Debug)]
struct ClientEntry {
    client: usize,
    hash: StoredHash,
    expires: Option<Instant>,
    patient: Option<String>,
}

impl ClientTable {
    /// The clients of a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, one sentence each.
    pub(crate) fn new(auth: &AuthConfig, clients: &[ClientConfig]) -> Result<ClientTable, Vec<String>> {
        let problems = auth_problems(auth, clients);
        let Some(headers) = HeaderNames::new(auth).filter(|_| problems.is_empty()) else { return Err(problems) };
        let read = |hash| StoredHash::parse(hash).map_err(|reason| vec![format!("a hash {reason}")]);
        let (tokens, secrets) = (ClientCredentials::default(), ClientCredentials::default());
        let mut table = ClientTable { headers, clients: Vec::new(), tokens, secrets };
        for (i, client) in clients.iter().enumerate() {
            let tenants = client.tenants.clone();
            let principal = principal(client);
            let any_patient = client.patients == Some(PatientSource::Any);
            let rights = WritingRights { groups: principal.groups.clone(), any_patient };
            table.clients.push(Client { principal, tenants, rights });
            if !client.client_id.is_empty() {
                let hash = read(&client.client_secret_hash)?;
                table.secrets.add(&client.client_id, ClientEntry { client: i, hash, expires: None, patient: None });
            }
            for token in &client.tokens {
                let hash = read(&token.hash)?;
                let expires = Instant::parse(&token.expires);
                let patient = Some(token.patient.clone()).filter(|patient| !patient.is_empty());
                table.tokens.add(&token.id, ClientEntry { client: i, hash, expires, patient });
            }
        }
        Ok(table)
    }

    fn of_tenant(&self, tenant: &str) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.tenants.iter().any(|of| of == tenant))
    }

    /// How many credentials have a hash of earlier versions.
    pub(crate) fn argon2_count(&self) -> usize {
        self.tokens.argon2.len() + self.secrets.argon2.len()
    }

    fn credentials(&self, way: CredentialKind) -> &ClientCredentials {
        match way {
            CredentialKind::Bearer => &self.tokens,
            CredentialKind::ClientHeaders => &self.secrets,
        }
    }

    /// Who stands behind a credential that was right.
    fn principal(&self, entry: &ClientEntry) -> Principal {
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
pub(crate) struct StaticClients {
    table: RwLock<Arc<ClientTable>>,
    argon2: Argon2Pool,
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectionReason {
    Missing,
    Several,
    NotTaken(CredentialKind),
    Malformed(CredentialKind),
    Unknown(CredentialKind),
    WrongSecret(CredentialKind),
    Expired(CredentialKind),
    OtherTenant,
    Busy,
}

impl StaticClients {
    /// The provider for these clients. `key` is random; `clock` tells when tokens expire.
    pub(crate) fn new(
        table: ClientTable,
        key: [u8; 32],
        clock: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> StaticClients {
        StaticClients { table: RwLock::new(Arc::new(table)), argon2: Argon2Pool::new(key), clock: Box::new(clock) }
    }

    /// Takes these clients from the next request on. Jobs and files of a client that goes on under its name stay its own.
    pub(crate) fn replace(&self, table: ClientTable) {
        *self.table.write().expect("no panic under it") = Arc::new(table);
    }

    fn client_table(&self) -> Arc<ClientTable> {
        self.table.read().expect("no panic under it").clone()
    }

    /// Finds the entry of a credential and checks it, in the same time whether or not there is one.
    async fn check<'t>(
        &self,
        table: &'t ClientTable,
        door: MountAuth<'_>,
        given: Credentials<'_>,
        peer: Option<&Peer>,
    ) -> Result<&'t ClientEntry, (RejectionReason, Option<&'t ClientEntry>)> {
        let way = match given {
            Credentials::Nothing => return Err((RejectionReason::Missing, None)),
            Credentials::Several => return Err((RejectionReason::Several, None)),
            Credentials::Malformed(way) | Credentials::Credential { way, .. } => way,
        };
        let taken = match way {
            CredentialKind::Bearer => door.bearer,
            CredentialKind::ClientHeaders => door.client_headers,
        };
        if !taken {
            return Err((RejectionReason::NotTaken(way), None));
        }
        // Its sender can tell as well that it is none: there is no time to be kept.
        let Credentials::Credential { id, secret, .. } = given else {
            return Err((RejectionReason::Malformed(way), None));
        };
        let credentials = table.credentials(way);
        let entry = credentials.entries.get(id);
        let is_right = match self.is_right(credentials, id, entry, secret, peer).await {
            Ok(is_right) => is_right,
            Err(PoolBusy) => return Err((RejectionReason::Busy, None)),
        };
        let Some(entry) = entry else { return Err((RejectionReason::Unknown(way), None)) };
        if !is_right {
            return Err((RejectionReason::WrongSecret(way), Some(entry)));
        }
        if entry.expires.as_ref().is_some_and(|expires| *expires <= (self.clock)()) {
            return Err((RejectionReason::Expired(way), Some(entry)));
        }
        if !table.clients[entry.client].tenants.iter().any(|tenant| tenant == door.tenant) {
            return Err((RejectionReason::OtherTenant, Some(entry)));
        }
        Ok(entry)
    }

    /// Whether a secret is an entry's. Without an entry it is not, after the same work.
    async fn is_right(
        &self,
        credentials: &ClientCredentials,
        id: &str,
        entry: Option<&ClientEntry>,
        secret: &str,
        peer: Option<&Peer>,
    ) -> Result<bool, PoolBusy> {
        let (sha256, argon2) = match entry.map(|entry| &entry.hash) {
            Some(StoredHash::Sha256(hash)) => (Some(hash), None),
            Some(StoredHash::Argon2(hash)) => (None, Some(hash)),
            None => (None, None),
        };
        if Sha256Hash::is_of(sha256, secret) {
            return Ok(true);
        }
        let Some(hash) = argon2.or_else(|| credentials.decoy_hash(id)) else { return Ok(false) };
        // Whatever a decoy says, the secret is not the entry's.
        Ok(self.argon2.is_right(hash, secret, peer).await? && argon2.is_some())
    }
}

impl Authenticator for StaticClients {
    fn authenticate<'a>(
        &'a self,
        door: MountAuth<'a>,
        headers: &'a HeaderMap,
        peer: Option<&'a Peer>,
    ) -> Authentication<'a> {
        Box::pin(async move {
            let table = self.client_table();
            let given = Credentials::of(headers, &table.headers);
            let checked = self.check(&table, door, given, peer).await;
            checked.map(|entry| table.principal(entry)).map_err(|(reason, entry)| {
                let client = entry.map(|entry| table.clients[entry.client].principal.log_name());
                // An id that is not ours may be a secret that was put in the wrong place.
                let credential = match given {
                    Credentials::Credential { id, .. } if entry.is_some() => Some(id),
                    _ => None,
                };
                let request = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
                let tenant = door.tenant;
                tracing::warn!(target: "outpour::audit", request, tenant, client, credential, ?reason, "refused");
                refusal(reason, door)
            })
        })
    }

    fn requires_access_token(&self) -> bool {
        true
    }

    fn writing_rights(&self, tenant: &str, client: &str) -> Option<WritingRights> {
        let table = self.client_table();
        let found = table.of_tenant(tenant).find(|known| known.principal.client == client);
        found.map(|known| known.rights.clone())
    }

    fn bound_writers(&self, tenant: &str, group: &str) -> Vec<WritingRights> {
        let table = self.client_table();
        let may_write = |known: &&Client| {
            let principal = &known.principal;
            principal.writes_groups && principal.is_bound_to_groups() && principal.sees_group(group)
        };
        table.of_tenant(tenant).filter(may_write).map(|known| known.rights.clone()).collect()
    }
}

/// The answer: 401 with what is taken here (AUTH-23, ONEUP-M09), 403 (ONEUP-M01), or 503 when it was not found out.
fn refusal(reason: RejectionReason, door: MountAuth<'_>) -> ApiError {
    let send = match (door.bearer, door.client_headers) {
        (true, true) => "send Authorization: Bearer and a token, or the client headers",
        (true, false) => "send Authorization: Bearer and a token, which is the only way here",
        (false, _) => "send the client headers, which are the only way here",
    };
    // What RFC 6750 calls it; none when no token was given (section 3.1).
    let (code, text, error) = match reason {
        RejectionReason::Missing => (OutcomeIssueType::Login, format!("no credentials were sent: {send}"), None),
        RejectionReason::Several => {
            let text = format!("more than one credential was sent, or a header of one twice: send one alone; {send}");
            (OutcomeIssueType::Login, text, Some("invalid_request"))
        }
        RejectionReason::NotTaken(CredentialKind::Bearer) => {
            (OutcomeIssueType::Login, format!("tokens are not taken here: {send}"), None)
        }
        RejectionReason::NotTaken(CredentialKind::ClientHeaders) => {
            (OutcomeIssueType::Login, format!("client headers are not taken here: {send}"), None)
        }
        RejectionReason::Malformed(CredentialKind::Bearer)
        | RejectionReason::Unknown(CredentialKind::Bearer)
        | RejectionReason::WrongSecret(CredentialKind::Bearer) => {
            let text = "the token is none that is known here: look whether it was copied whole, or ask the operator for another";
            (OutcomeIssueType::Login, text.to_string(), Some("invalid_token"))
        }
        RejectionReason::Malformed(_) | RejectionReason::Unknown(_) | RejectionReason::WrongSecret(_) => {
            let text = "the client headers are none that are known here: the id and the secret must both be there, each \
                        once, and the user, if given, must be client";
            (OutcomeIssueType::Login, text.to_string(), None)
        }
        RejectionReason::Expired(_) => {
            let text = "the token has expired: send a fresh one; jobs and files of the same client are still there";
            (OutcomeIssueType::Expired, text.to_string(), Some("invalid_token"))
        }
        RejectionReason::OtherTenant => {
            let text = "this client has no access to this tenant's data";
            return ApiError::new(StatusCode::FORBIDDEN, OutcomeIssueType::Forbidden, text);
        }
        RejectionReason::Busy => {
            let text = "too many credentials are being checked: send the same request again, as Retry-After says";
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::Throttled, text).retry_after(1);
        }
    };
    let challenge = match (door.bearer, error) {
        (true, None) => HeaderValue::from_static("Bearer realm=\"outpour\""),
        (true, Some("invalid_token")) => HeaderValue::from_static("Bearer realm=\"outpour\", error=\"invalid_token\""),
        (true, Some(_)) => HeaderValue::from_static("Bearer realm=\"outpour\", error=\"invalid_request\""),
        // RFC 9110 wants a challenge with every 401; client headers have no scheme of their own.
        (false, _) => HeaderValue::from_static("ClientHeaders realm=\"outpour\""),
    };
    ApiError::new(StatusCode::UNAUTHORIZED, code, text).header(header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests;
