//! Authentication of the clients in the configuration, by bearer token or client headers.
//!
//! An unknown id and a wrong secret get the same answer after the same time, so that ids cannot be found by trial.
//! With SHA-256 hashes that is one hash each. If the configuration holds argon2id hashes of earlier versions for a
//! kind of credential, every wrong credential of that kind waits for one argon2id check; a secret that is right by
//! SHA-256 never does. Each refusal is logged to the audit target; the line names a client or token id only if it is
//! configured, and never a secret.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, RwLock};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::fhir::resource_type::ResourceType;
use crate::issue::IssueCode;
use crate::limits::NAME_BYTES_MAX;
use crate::server::auth::argon2_pool::{Argon2Hash, Argon2Pool, PoolBusy};
use crate::server::auth::credentials::{CredentialKind, Credentials, HeaderNames};
use crate::server::auth::secret::{Sha256Hash, StoredHash};
use crate::server::auth::{
    Authentication, Authenticator, CountedTenants, CountedTenantsFuture, MountAuth, Principal, TokenLimits,
    WritingRights, unknown_tenant,
};
use crate::server::config::auth::{
    AuthConfig, ClientConfig, LevelName, PatientSource, auth_problems, registration_problems,
};
use crate::server::config::smart::SmartConfig;
use crate::server::connection::request_tracker::Peer;
use crate::server::error::ApiError;
use crate::server::ids::REQUEST_ID;
use crate::server::smart::access_token::TokenError;
use crate::server::smart::key_source::KeySource;
use crate::server::smart::scope::ScopeRights;
use crate::server::smart::service::{RegisteredClient, TokenService};

/// The configured clients and their credentials.
#[derive(Debug)]
pub(crate) struct ClientTable {
    headers: HeaderNames,
    clients: Vec<Client>,
    /// Bearer tokens by id.
    tokens: ClientCredentials,
    /// Client headers by client id.
    secrets: ClientCredentials,
    /// Registrations for token requests, by OAuth id.
    registrations: HashMap<String, TokenRegistration>,
}

/// The registration of a client for token requests.
#[derive(Debug)]
struct TokenRegistration {
    /// Position of its client in the table.
    client: usize,
    rights: ScopeRights,
    keys: Arc<KeySource>,
    /// Whether it exports Groups under a scope for Groups alone (AUTH-24).
    requires_group_scope: bool,
}

/// The credentials of one kind, by id.
#[derive(Debug, Default)]
struct ClientCredentials {
    entries: HashMap<String, ClientEntry>,
    /// All argon2id hashes among them.
    argon2: Vec<Arc<Argon2Hash>>,
    /// Random state that selects one of `argon2` for an id without such a hash.
    choice: RandomState,
}

impl ClientCredentials {
    /// Adds the credential of a configured client with this id to the table of clients.
    fn add(&mut self, id: &str, entry: ClientEntry) {
        if let StoredHash::Argon2(hash) = &entry.hash {
            self.argon2.push(hash.clone());
        }
        self.entries.insert(id.to_string(), entry);
    }

    /// An argon2id hash of some configured client, for the check of an id that has none, only to take the same time.
    /// It is the same at each request, since varying times would disclose that the id has no hash of its own. `None` if
    /// no id has an argon2id hash.
    fn decoy_hash(&self, id: &str) -> Option<&Arc<Argon2Hash>> {
        let count = self.argon2.len().max(1);
        self.argon2.get(self.choice.hash_one(id) as usize % count)
    }
}

/// A configured client and its rights.
#[derive(Debug)]
struct Client {
    principal: Principal,
    tenants: Vec<String>,
    rights: WritingRights,
}

/// The stored facts about one credential.
#[derive(Debug)]
struct ClientEntry {
    /// Position of its client in the table.
    client: usize,
    hash: StoredHash,
    /// When a token expires; `None` for never.
    expires: Option<Instant>,
    /// The patient whose record alone a user's token opens; `None` for the client itself.
    patient: Option<String>,
}

impl ClientTable {
    /// The table of the clients in a configuration.
    ///
    /// # Errors
    /// Every problem of the configuration, one sentence each.
    pub(crate) fn new(
        auth: &AuthConfig,
        smart: &SmartConfig,
        clients: &[ClientConfig],
    ) -> Result<ClientTable, Vec<String>> {
        let mut problems = auth_problems(auth, clients);
        problems.extend(registration_problems(smart, clients));
        let Some(headers) = HeaderNames::new(auth).filter(|_| problems.is_empty()) else { return Err(problems) };
        let read = |hash| StoredHash::parse(hash).map_err(|reason| vec![format!("a hash {reason}")]);
        let (tokens, secrets) = (ClientCredentials::default(), ClientCredentials::default());
        let registrations = HashMap::new();
        let mut table = ClientTable { headers, clients: Vec::new(), tokens, secrets, registrations };
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
            if let (Some(registered), Some(id)) = (&client.smart, client.oauth_id()) {
                let keys = KeySource::new(registered.key_place().map_err(|problem| vec![problem])?);
                let (rights, keys) = (registered.scope_rights()?, Arc::new(keys));
                let requires_group_scope = registered.require_group_scope.unwrap_or(smart.require_group_scope);
                let registration = TokenRegistration { client: i, rights, keys, requires_group_scope };
                table.registrations.insert(id.to_string(), registration);
            }
        }
        Ok(table)
    }

    /// Logs which key sets in files cannot be used. Blocks.
    pub(crate) fn warn_of_key_sets(&self) {
        for registration in self.registrations.values() {
            let client = &self.clients[registration.client].principal.client;
            if let Some(problem) = registration.keys.file_problem() {
                tracing::error!(client, problem, "the key set of a client cannot be used: it gets no tokens");
            }
        }
    }

    /// The principal of an access token, whose client is registered now: what its scopes, the scopes of the registration and the
    /// client's own rights have in common. It writes no Groups, since no scope that writes is granted.
    fn principal_of_token(&self, registration: &TokenRegistration, scopes: &ScopeRights) -> Principal {
        let mut principal = self.clients[registration.client].principal.clone();
        principal.writes_groups = false;
        let exported_by = |rights: &ScopeRights, types: Option<Vec<ResourceType>>| match rights.exports_all() {
            true => types,
            false => {
                let types = types.unwrap_or_else(|| ResourceType::all().collect());
                Some(types.into_iter().filter(|of| rights.of(*of).may_export()).collect())
            }
        };
        principal.types = exported_by(&registration.rights, principal.types);
        let types =
            exported_by(scopes, principal.types.clone()).filter(|types| principal.types.as_ref() != Some(types));
        let groups = scopes.of(ResourceType::GROUP).within(registration.rights.of(ResourceType::GROUP));
        principal.token =
            Some(TokenLimits { types, groups, exports_groups_by_scope: registration.requires_group_scope });
        principal
    }

    /// The clients that may access a tenant.
    fn of_tenant(&self, tenant: &str) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.tenants.iter().any(|of| of == tenant))
    }

    /// Number of credentials with a hash of earlier versions.
    pub(crate) fn argon2_count(&self) -> usize {
        self.tokens.argon2.len() + self.secrets.argon2.len()
    }

    /// The credentials of a kind.
    fn credentials(&self, kind: CredentialKind) -> &ClientCredentials {
        match kind {
            CredentialKind::Bearer => &self.tokens,
            CredentialKind::ClientHeaders => &self.secrets,
        }
    }

    /// The principal of a credential that was right: its client, or a user of it.
    fn principal(&self, entry: &ClientEntry) -> Principal {
        let mut principal = self.clients[entry.client].principal.clone();
        if let Some(patient) = &entry.patient {
            // A name of its own keeps the jobs of users apart; no client's name has a slash.
            principal.client = format!("{}/Patient/{patient}", principal.client);
            principal.patient = Some(patient.clone());
        }
        principal
    }
}

/// The principal of a configured client, before it is narrowed to a user.
fn principal(client: &ClientConfig) -> Principal {
    let types: Vec<ResourceType> = client.types.iter().filter_map(|name| ResourceType::parse(name)).collect();
    Principal {
        client: client.name.clone(),
        patient: None,
        types: Some(types).filter(|types| !types.is_empty()),
        levels: [LevelName::System, LevelName::Patient, LevelName::Group].map(|level| client.levels.contains(&level)),
        groups: Some(client.groups.clone()).filter(|groups| !groups.is_empty()),
        writes_groups: client.writes_groups,
        token: None,
    }
}

/// The authenticator of configured clients. The clients can be replaced at any time.
pub(crate) struct StaticClients {
    table: RwLock<Arc<ClientTable>>,
    argon2: Argon2Pool,
    /// What token requests need.
    token_service: Option<TokenService>,
    /// The current time, which expiry of tokens is compared with.
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
}

/// Why a request is rejected; the variant name is in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectionReason {
    Missing,
    Several,
    NotTaken(CredentialKind),
    Malformed(CredentialKind),
    Unknown(CredentialKind),
    WrongSecret(CredentialKind),
    Expired(CredentialKind),
    /// An access token of a client that is registered no more.
    Unregistered,
    OtherTenant,
    Busy,
}

/// A rejected request: why, and the position of its client in the table if the credential is one of a client's.
type Rejection = (RejectionReason, Option<usize>);

/// A request whose credential was right: the position of its client in the table, and its rights.
type CheckedSender = (usize, Principal);

impl StaticClients {
    /// The authenticator of a table. `key` is random, of this process alone; expiry of tokens is compared with
    /// `clock`.
    pub(crate) fn new(
        table: ClientTable,
        key: [u8; 32],
        clock: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> StaticClients {
        StaticClients {
            table: RwLock::new(Arc::new(table)),
            argon2: Argon2Pool::new(key),
            token_service: None,
            clock: Box::new(clock),
        }
    }

    /// The same, for which registered clients get tokens from `service`.
    pub(crate) fn with_tokens(mut self, service: TokenService) -> StaticClients {
        self.token_service = Some(service);
        self
    }

    /// Puts another table in force, from the next request on. A client whose name stays keeps its jobs and files; key sets are
    /// read anew.
    pub(crate) fn replace(&self, table: ClientTable) {
        *self.table.write().expect("no panic under it") = Arc::new(table);
    }

    /// The table in force.
    fn client_table(&self) -> Arc<ClientTable> {
        self.table.read().expect("no panic under it").clone()
    }

    /// Finds the entry of a credential, checks its secret, in the same time for known and unknown ids, and that its client
    /// may ask for the tenant of the mount.
    ///
    /// # Errors
    /// The reason, with the entry if the id is configured.
    async fn check(
        &self,
        table: &ClientTable,
        mount: MountAuth<'_>,
        sent: Credentials<'_>,
        peer: Option<&Peer>,
    ) -> Result<Principal, Rejection> {
        let (client, principal) = self.check_credential(table, mount, sent, peer).await?;
        let tenants = &table.clients[client].tenants;
        match mount.tenant.is_some_and(|name| tenants.iter().any(|tenant| tenant == name)) {
            true => Ok(principal),
            false => Err((RejectionReason::OtherTenant, Some(client))),
        }
    }

    /// As [`StaticClients::check`], whatever the tenant.
    async fn check_credential(
        &self,
        table: &ClientTable,
        mount: MountAuth<'_>,
        sent: Credentials<'_>,
        peer: Option<&Peer>,
    ) -> Result<CheckedSender, Rejection> {
        let kind = match sent {
            Credentials::Nothing => return Err((RejectionReason::Missing, None)),
            Credentials::Several => return Err((RejectionReason::Several, None)),
            Credentials::Malformed(kind) | Credentials::Credential { kind, .. } => kind,
        };
        let is_accepted = match kind {
            CredentialKind::Bearer => mount.bearer,
            CredentialKind::ClientHeaders => mount.client_headers,
        };
        if !is_accepted {
            return Err((RejectionReason::NotTaken(kind), None));
        }
        // The form of a credential is no secret: no time needs to be equalised.
        let Credentials::Credential { id, secret, .. } = sent else {
            return Err((RejectionReason::Malformed(kind), None));
        };
        if let Some(service) =
            self.token_service.as_ref().filter(|of| kind == CredentialKind::Bearer && of.tokens.is_one(id))
        {
            return self.check_access_token(table, service, &format!("{id}.{secret}"));
        }
        let credentials = table.credentials(kind);
        let entry = credentials.entries.get(id);
        let is_right = match self.is_right(credentials, id, entry, secret, peer).await {
            Ok(is_right) => is_right,
            Err(PoolBusy) => return Err((RejectionReason::Busy, None)),
        };
        let Some(entry) = entry else { return Err((RejectionReason::Unknown(kind), None)) };
        if !is_right {
            return Err((RejectionReason::WrongSecret(kind), Some(entry.client)));
        }
        if entry.expires.as_ref().is_some_and(|expires| *expires <= (self.clock)()) {
            return Err((RejectionReason::Expired(kind), Some(entry.client)));
        }
        Ok((entry.client, table.principal(entry)))
    }

    /// Checks an access token, and that its client is still registered.
    ///
    /// # Errors
    /// The reason.
    fn check_access_token(
        &self,
        table: &ClientTable,
        service: &TokenService,
        token: &str,
    ) -> Result<CheckedSender, Rejection> {
        let kind = CredentialKind::Bearer;
        let now = (self.clock)().ticks.div_euclid(TICKS_PER_SECOND);
        let checked = service.tokens.check(token, u64::try_from(now).unwrap_or_default());
        let checked = checked.map_err(|error| match error {
            TokenError::Expired => (RejectionReason::Expired(kind), None),
            TokenError::Unknown => (RejectionReason::WrongSecret(kind), None),
        })?;
        let registration = table.registrations.get(&checked.client_id).ok_or((RejectionReason::Unregistered, None))?;
        let principal = table.principal_of_token(registration, &checked.rights);
        Ok((registration.client, principal))
    }

    /// Logs the rejection of a request.
    fn log_rejection(
        &self,
        table: &ClientTable,
        tenant: Option<&str>,
        headers: &HeaderMap,
        (reason, client): Rejection,
    ) {
        let client = client.map(|client| table.clients[client].principal.log_name());
        // An unknown id may be a secret in the wrong place: it is not logged.
        let credential = match Credentials::of(headers, &table.headers) {
            Credentials::Credential { id, .. } if client.is_some() && id.len() <= NAME_BYTES_MAX => Some(id),
            _ => None,
        };
        let request = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        tracing::warn!(target: "outpour::audit", request, tenant, client, credential, ?reason, "refused");
    }

    /// Whether `secret` is the entry's. Without an entry the result is false after the same work.
    ///
    /// # Errors
    /// If the pool of argon2id checks is busy.
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
        // A match with a decoy is no match with the entry.
        Ok(self.argon2.is_right(hash, secret, peer).await? && argon2.is_some())
    }
}

impl Authenticator for StaticClients {
    fn authenticate<'a>(
        &'a self,
        mount: MountAuth<'a>,
        headers: &'a HeaderMap,
        peer: Option<&'a Peer>,
    ) -> Authentication<'a> {
        Box::pin(async move {
            let table = self.client_table();
            let credentials = Credentials::of(headers, &table.headers);
            let checked = self.check(&table, mount, credentials, peer).await;
            checked.map_err(|rejection| {
                self.log_rejection(&table, mount.tenant, headers, rejection);
                refusal(rejection.0, mount)
            })
        })
    }

    fn counted_tenants<'a>(&'a self, headers: &'a HeaderMap, peer: Option<&'a Peer>) -> CountedTenantsFuture<'a> {
        Box::pin(async move {
            let table = self.client_table();
            let credentials = Credentials::of(headers, &table.headers);
            let mut seen = Vec::new();
            if credentials != Credentials::Nothing {
                let any_kind = MountAuth { tenant: None, names_tenant: false, bearer: true, client_headers: true };
                match self.check_credential(&table, any_kind, credentials, peer).await {
                    Ok((client, principal)) if !principal.is_bound() => {
                        seen.clone_from(&table.clients[client].tenants);
                    }
                    Ok(_) => {}
                    Err(rejection) => self.log_rejection(&table, None, headers, rejection),
                }
            }
            CountedTenants::Named(seen)
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

    fn may_filter_by(&self, tenant: &str, client: &str, searched: ResourceType) -> bool {
        let table = self.client_table();
        let found = table.of_tenant(tenant).find(|known| known.principal.client == client);
        found.is_some_and(|known| known.principal.may_export_type(searched))
    }

    fn token_service(&self) -> Option<&TokenService> {
        self.token_service.as_ref()
    }

    fn gives_tokens(&self) -> bool {
        !self.client_table().registrations.is_empty()
    }

    fn registered_client(&self, oauth_id: &str) -> Option<RegisteredClient> {
        let table = self.client_table();
        let registration = table.registrations.get(oauth_id)?;
        let principal = &table.clients[registration.client].principal;
        Some(RegisteredClient {
            name: principal.client.clone(),
            rights: registration.rights.clone(),
            types: principal.types.clone(),
            keys: registration.keys.clone(),
        })
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

/// The answer to a request that the check of configured clients rejected: 401 with the accepted kinds of credentials
/// (AUTH-23, ONEUP-M09), 404 or 403 for another tenant (ONEUP-M01), 503 if the check could not be made.
fn refusal(reason: RejectionReason, mount: MountAuth<'_>) -> ApiError {
    let send = match (mount.bearer, mount.client_headers) {
        (true, true) => "send Authorization: Bearer and a token, or the client headers",
        (true, false) => "send Authorization: Bearer and a token, which is the only way here",
        (false, _) => "send the client headers, which are the only way here",
    };
    // The error code of RFC 6750; none if no token was sent (section 3.1).
    let (code, text, error) = match reason {
        RejectionReason::Missing => (IssueCode::Login, format!("no credentials were sent: {send}"), None),
        RejectionReason::Several => {
            let text = format!("more than one credential was sent, or a header of one twice: send one alone; {send}");
            (IssueCode::Login, text, Some("invalid_request"))
        }
        RejectionReason::NotTaken(CredentialKind::Bearer) => {
            (IssueCode::Login, format!("tokens are not taken here: {send}"), None)
        }
        RejectionReason::NotTaken(CredentialKind::ClientHeaders) => {
            (IssueCode::Login, format!("client headers are not taken here: {send}"), None)
        }
        RejectionReason::Malformed(CredentialKind::Bearer)
        | RejectionReason::Unknown(CredentialKind::Bearer)
        | RejectionReason::Unregistered
        | RejectionReason::WrongSecret(CredentialKind::Bearer) => {
            let text = "the token is none that is known here: look whether it was copied whole, or ask the operator for another";
            (IssueCode::Login, text.to_string(), Some("invalid_token"))
        }
        RejectionReason::Malformed(_) | RejectionReason::Unknown(_) | RejectionReason::WrongSecret(_) => {
            let text = "the client headers are none that are known here: the id and the secret must both be there, each \
                        once, and the user, if given, must be client";
            (IssueCode::Login, text.to_string(), None)
        }
        RejectionReason::Expired(_) => {
            let text = "the token has expired: send a fresh one; jobs and files of the same client are still there";
            (IssueCode::Expired, text.to_string(), Some("invalid_token"))
        }
        RejectionReason::OtherTenant if mount.names_tenant => return unknown_tenant(),
        RejectionReason::OtherTenant => {
            let text = "this client has no access to this tenant's data";
            return ApiError::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, text);
        }
        RejectionReason::Busy => {
            let text = "too many credentials are being checked: send the same request again, as Retry-After says";
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Throttled, text).retry_after(1);
        }
    };
    let challenge = match (mount.bearer, error) {
        (true, None) => HeaderValue::from_static("Bearer realm=\"outpour\""),
        (true, Some("invalid_token")) => HeaderValue::from_static("Bearer realm=\"outpour\", error=\"invalid_token\""),
        (true, Some(_)) => HeaderValue::from_static("Bearer realm=\"outpour\", error=\"invalid_request\""),
        // RFC 9110 requires a challenge with every 401; client headers have no registered scheme.
        (false, _) => HeaderValue::from_static("ClientHeaders realm=\"outpour\""),
    };
    ApiError::new(StatusCode::UNAUTHORIZED, code, text).header(header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests;
