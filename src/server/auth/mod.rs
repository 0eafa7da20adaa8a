//! Authentication: the sender of a request and the sender's rights.
//!
//! Providers of credentials implement [`Authenticator`]. The rights of a [`Principal`] are checked in `permissions`,
//! the same on every mount (DIALECT-05). `credentials` parses headers, `clients` authenticates the configured
//! clients, `secret` and `argon2_pool` check hashes, `provider` selects the authenticator and reloads its clients. Access
//! tokens are made and checked in `smart`.

pub(crate) mod argon2_pool;
pub(crate) mod clients;
pub(crate) mod credentials;
pub(crate) mod permissions;
pub(crate) mod provider;
pub(crate) mod secret;
pub(crate) mod secret_hash;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use axum::http::{HeaderMap, StatusCode};

use crate::fhir::resource_type::ResourceType;
use crate::group::registry::writer::GroupWriter;
use crate::issue::IssueCode;
use crate::server::connection::request_tracker::Peer;
use crate::server::error::ApiError;
use crate::server::smart::scope::TypeRights;
use crate::server::smart::service::{RegisteredClient, TokenService};

/// The tenant of a mount, and the kinds of credentials that the mount accepts (C-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountAuth<'a> {
    /// Name of the tenant whose data the mount serves; `None` under a name that no tenant has, where nobody may do
    /// anything.
    pub tenant: Option<&'a str>,
    /// Whether the tenant's name stands in the URL: then a client is told of a tenant that it may not ask for what it is
    /// told of one that is not there (ONEUP-M01).
    pub names_tenant: bool,
    /// Whether bearer tokens are accepted.
    pub bearer: bool,
    /// Whether client headers are accepted (ONEUP-S07).
    pub client_headers: bool,
}

/// 404 with the same words for a tenant that is not there and for one that the client may not ask for (ONEUP-M01).
pub(crate) fn unknown_tenant() -> ApiError {
    let text = "this tenant is not known here, or not to this client: look at its name in the URL";
    ApiError::new(StatusCode::NOT_FOUND, IssueCode::NotFound, text)
}

/// The tenants whose counts of jobs, faults and files the sender of a health probe may see: all without authorization;
/// else those of a client that is not bound to Groups, types or a patient (reading 24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CountedTenants {
    /// Every tenant.
    All,
    /// These.
    Named(Vec<String>),
}

impl CountedTenants {
    /// Whether the counts of a tenant may be seen.
    pub(crate) fn has(&self, tenant: &str) -> bool {
        match self {
            CountedTenants::All => true,
            CountedTenants::Named(names) => names.iter().any(|name| name == tenant),
        }
    }

    /// Whether no counts may be seen.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, CountedTenants::Named(names) if names.is_empty())
    }
}

/// Name of the principal where there are no clients; no client of the configuration may have it, whose jobs would be
/// everybody's otherwise.
pub(crate) const ANYBODY: &str = "anybody";

/// An authenticated sender and its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// Name that owns jobs and that limits are counted by: the client's, for a user followed by the patient.
    pub client: String,
    /// The patient whose record alone a user may export (ONEUP-S01); `None` for the client itself. No other level is
    /// open to a user (see [`Principal::may_export`]).
    pub patient: Option<String>,
    /// Types that it may export; `None` for all.
    pub types: Option<Vec<ResourceType>>,
    /// Whether it may export at system, Patient and Group level, in this order.
    pub levels: [bool; 3],
    /// Groups that it may see; `None` for all.
    pub groups: Option<Vec<String>>,
    /// Whether it may create, change and delete Groups.
    pub writes_groups: bool,
    /// What the access token of this request opens less than all that; `None` for other credentials.
    pub token: Option<TokenLimits>,
}

/// What the scopes of an access token leave of the rights of its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenLimits {
    /// Types that it may export, of those of the client; `None` for as many as the client.
    pub types: Option<Vec<ResourceType>>,
    /// Rights to Groups as resources.
    pub groups: TypeRights,
    /// Whether the export of a Group needs the right to read Groups (AUTH-24).
    pub exports_groups_by_scope: bool,
}

impl Principal {
    /// A client that may do everything.
    pub(crate) fn unrestricted(client: &str) -> Principal {
        Principal {
            client: client.to_string(),
            patient: None,
            types: None,
            levels: [true; 3],
            groups: None,
            writes_groups: true,
            token: None,
        }
    }

    /// Name for the log: the client's alone, since no patient's id may be logged.
    pub(crate) fn log_name(&self) -> &str {
        self.client.split('/').next().unwrap_or_default()
    }

    /// The client as the writer of versions of Groups.
    pub(crate) fn as_writer(&self) -> GroupWriter {
        let bound_to_groups = self.is_bound_to_groups();
        GroupWriter { client: self.client.clone(), bound_to_groups, follows_unbound: false }
    }

    /// Whether it is restricted to some Groups, or to one patient.
    pub(crate) fn is_bound_to_groups(&self) -> bool {
        self.groups.is_some() || self.patient.is_some()
    }

    /// Types that this request may export, by the rights of the client and the scopes of its token; `None` for all.
    pub(crate) fn exportable(&self) -> Option<&[ResourceType]> {
        let by_token = self.token.as_ref().and_then(|token| token.types.as_deref());
        by_token.or(self.types.as_deref())
    }

    /// Whether it is restricted to Groups, a patient or types. If so, no answer may disclose facts about the rest of
    /// the store (reading 24). Scopes of a token do not restrict it: another token of the same client may have more.
    pub(crate) fn is_bound(&self) -> bool {
        self.is_bound_to_groups() || self.types.is_some()
    }
}

/// The Groups and patients that a client may list in the Groups that it writes (GROUP-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WritingRights {
    /// Groups that it may list; `None` for all.
    pub groups: Option<Vec<String>>,
    /// Whether it may list any patient; else only members of `groups` that no bound client wrote.
    pub any_patient: bool,
}

impl WritingRights {
    /// The Groups whose members the sender of a request may list in a Group that it writes; `None` for any patient.
    pub(crate) fn patients_of(&self) -> Option<&[String]> {
        self.groups.as_deref().filter(|_| !self.any_patient)
    }
}

/// The result of authentication: the principal, or the answer to a rejected request.
pub(crate) type Authentication<'a> = Pin<Box<dyn Future<Output = Result<Principal, ApiError>> + Send + 'a>>;

/// The result of authenticating a health probe.
pub(crate) type CountedTenantsFuture<'a> = Pin<Box<dyn Future<Output = CountedTenants> + Send + 'a>>;

/// Authenticates the senders of requests.
pub(crate) trait Authenticator: Send + Sync {
    /// The principal of a request. Takes microseconds on an async thread; slow checks run elsewhere, and are given up
    /// when the future is dropped or the connection `peer` has closed.
    fn authenticate<'a>(
        &'a self,
        mount: MountAuth<'a>,
        headers: &'a HeaderMap,
        peer: Option<&'a Peer>,
    ) -> Authentication<'a>;

    /// The tenants whose counts the sender of a health probe may see. A probe without credentials, or with wrong ones, is
    /// answered as well.
    fn counted_tenants<'a>(&'a self, headers: &'a HeaderMap, peer: Option<&'a Peer>) -> CountedTenantsFuture<'a>;

    /// Whether the download of files needs credentials, as the manifest states (MANIFEST-03).
    fn requires_access_token(&self) -> bool;

    /// The writing rights of a client in a tenant, under the configuration in force; `None` if it is not configured
    /// for that tenant.
    fn writing_rights(&self, tenant: &str, client: &str) -> Option<WritingRights>;

    /// Whether a client may export a type in a tenant, under the configuration in force, so that a filter of a Group that it
    /// wrote may search it (COHORT-05). One that is not configured for the tenant may not.
    fn may_filter_by(&self, tenant: &str, client: &str, searched: ResourceType) -> bool;

    /// The rights of all clients bound to Groups that may write the Group `group` of a tenant.
    fn bound_writers(&self, tenant: &str, group: &str) -> Vec<WritingRights>;

    /// What token requests need beside the client; `None` if there are no clients.
    fn token_service(&self) -> Option<&TokenService> {
        None
    }

    /// Whether any client is registered for token requests, under the configuration in force.
    fn gives_tokens(&self) -> bool {
        false
    }

    /// The client that is registered for token requests under an OAuth id, under the configuration in force.
    fn registered_client(&self, _oauth_id: &str) -> Option<RegisteredClient> {
        None
    }

    /// Description of the authentication for readers: `rest.security` of the CapabilityStatement.
    fn describe(&self) -> &'static str {
        "Whoever asks for anything but this description says who it is: by a bearer token in the Authorization header, which a \
         registered client gets from the token endpoint and others from the operator, or, on mounts that take them, by client \
         headers."
    }
}

/// The authenticator that accepts every request, for services on loopback only. An `Authorization` header is ignored
/// (CLIENT-05).
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnonymousAccess(());

impl AnonymousAccess {
    /// Anonymous access for a service that listens on `listen`.
    ///
    /// # Errors
    /// If the address is not a loopback address (CORE-01).
    pub(crate) fn on(listen: SocketAddr) -> Result<AnonymousAccess, String> {
        match listen.ip().is_loopback() {
            true => Ok(AnonymousAccess(())),
            false => Err(format!("{listen} is no loopback address, and nobody would be asked who they are")),
        }
    }
}

impl Authenticator for AnonymousAccess {
    fn authenticate<'a>(&'a self, mount: MountAuth<'a>, _: &'a HeaderMap, _: Option<&'a Peer>) -> Authentication<'a> {
        let anybody = Principal::unrestricted(ANYBODY);
        Box::pin(std::future::ready(mount.tenant.map(|_| anybody).ok_or_else(unknown_tenant)))
    }

    fn counted_tenants<'a>(&'a self, _: &'a HeaderMap, _: Option<&'a Peer>) -> CountedTenantsFuture<'a> {
        Box::pin(std::future::ready(CountedTenants::All))
    }

    fn requires_access_token(&self) -> bool {
        false
    }

    fn writing_rights(&self, _: &str, _: &str) -> Option<WritingRights> {
        None
    }

    fn may_filter_by(&self, _: &str, _: &str, _: ResourceType) -> bool {
        true
    }

    fn bound_writers(&self, _: &str, _: &str) -> Vec<WritingRights> {
        Vec::new()
    }

    fn describe(&self) -> &'static str {
        "This server runs without authorization, on the loopback interface only: every program on its machine may read all \
         that it exports, web pages of other hosts nothing. An Authorization header is ignored."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CORE-01: anonymous access on loopback only.
    #[test]
    fn nobody_is_asked_on_loopback_only() {
        for (address, may) in
            [("127.0.0.1:80", true), ("[::1]:80", true), ("0.0.0.0:80", false), ("10.0.0.1:80", false)]
        {
            assert_eq!(AnonymousAccess::on(address.parse().unwrap()).is_ok(), may, "{address}");
        }
    }

    /// CLIENT-05: every request is accepted, with or without credentials.
    #[tokio::test]
    async fn a_stray_header_is_ignored() {
        let mount = MountAuth { tenant: Some("default"), names_tenant: false, bearer: true, client_headers: true };
        for token in ["Bearer ", "Bearer a.b", "nonsense"] {
            let headers = HeaderMap::from_iter([(axum::http::header::AUTHORIZATION, token.parse().unwrap())]);
            assert!(!AnonymousAccess(()).requires_access_token());
            assert_eq!(AnonymousAccess(()).authenticate(mount, &headers, None).await.unwrap().client, ANYBODY);
        }
    }
}
