//! Who asks: the seam between a request and what its sender may do. Providers of credentials stand behind
//! [`Authenticator`]; what a [`Principal`] may see is enforced by the doors, the same on every mount (DIALECT-05).
//!
//! `config` is who may ask, `clients` tells them by the credentials that `given` reads and `secret` checks (`argon2_pool`
//! those of earlier versions), `provider` keeps them up to date, and `rights` is what each may do. No tokens are issued
//! here.

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

use axum::http::HeaderMap;

use crate::fhir::resource_type::ResourceType;
use crate::server::connection::request_tracker::Peer;
use crate::server::error::ApiError;

/// How a request came in: which tenant's data it asks for, and which ways of authorization its mount takes (C-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountAuth<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// Whether bearer tokens are taken.
    pub bearer: bool,
    /// Whether client headers are taken (ONEUP-S07).
    pub client_headers: bool,
}

/// A client, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// Its name: jobs belong to it, limits are counted by it. That of a user is the client's and the patient's.
    pub client: String,
    /// The patient whose record alone a user may export (ONEUP-S01); `None` for the client itself. A mount that serves
    /// users looks at this; no other level is open to them (see [`Principal::may_export`]).
    pub patient: Option<String>,
    /// Types that it may export; all if `None`.
    pub types: Option<Vec<ResourceType>>,
    /// Levels at which it may export: system, Patient, Group.
    pub levels: [bool; 3],
    /// Groups that it may see; all if `None`.
    pub groups: Option<Vec<String>>,
    /// Whether it may make, change and delete Groups.
    pub writes_groups: bool,
}

impl Principal {
    /// Its name for the log: that of the client alone, because no patient's id belongs there.
    pub(crate) fn log_name(&self) -> &str {
        self.client.split('/').next().unwrap_or_default()
    }

    /// Whether it is bound to some Groups, or to one patient.
    pub(crate) fn is_bound_to_groups(&self) -> bool {
        self.groups.is_some() || self.patient.is_some()
    }

    /// Whether it is bound to Groups, a patient or types: then what it gets says nothing of the rest of the store
    /// (reading 24).
    pub(crate) fn is_bound(&self) -> bool {
        self.is_bound_to_groups() || self.types.is_some()
    }
}

/// What a client may name in the Groups that it writes (GROUP-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WritingRights {
    /// Groups that it may list; all if `None`.
    pub groups: Option<Vec<String>>,
    /// Whether it may list any patient, or only members of those Groups that no bound client wrote.
    pub any_patient: bool,
}

impl WritingRights {
    /// The Groups whose members may be listed; `None` for any patient.
    pub(crate) fn patients_of(&self) -> Option<&[String]> {
        self.groups.as_deref().filter(|_| !self.any_patient)
    }
}

/// What becomes of a request's credentials: its sender, or the answer to somebody who is not let in.
pub(crate) type Authentication<'a> = Pin<Box<dyn Future<Output = Result<Principal, ApiError>> + Send + 'a>>;

/// Tells who sends a request.
pub(crate) trait Authenticator: Send + Sync {
    /// The sender. Takes microseconds on an async thread; what takes longer is done elsewhere and waited for, and given up
    /// when this is dropped or `peer`, the sender's end of the connection, has closed.
    fn authenticate<'a>(
        &'a self,
        door: MountAuth<'a>,
        headers: &'a HeaderMap,
        peer: Option<&'a Peer>,
    ) -> Authentication<'a>;

    /// Whether files need a token, as the manifest says (MANIFEST-03).
    fn requires_access_token(&self) -> bool;

    /// What a client may name in Groups of a tenant, under the configuration in force; `None` if it is not configured, or
    /// not for that tenant.
    fn writing_rights(&self, tenant: &str, client: &str) -> Option<WritingRights>;

    /// The rights of the clients bound to Groups that may write a Group of a tenant.
    fn bound_writers(&self, tenant: &str, group: &str) -> Vec<WritingRights>;

    /// Who may ask, for people: `rest.security` of the CapabilityStatement.
    fn describe(&self) -> &'static str {
        "Whoever asks for anything but this description says who it is: by a bearer token in the Authorization header, or, on \
         mounts that take them, by client headers."
    }
}

/// Nobody is asked who they are: for this machine alone. An `Authorization` header is ignored (CLIENT-05).
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnonymousAccess(());

impl AnonymousAccess {
    /// The provider, for a service that listens on loopback.
    ///
    /// # Errors
    /// On any other address (CORE-01).
    pub(crate) fn on(listen: SocketAddr) -> Result<AnonymousAccess, String> {
        match listen.ip().is_loopback() {
            true => Ok(AnonymousAccess(())),
            false => Err(format!("{listen} is no loopback address, and nobody would be asked who they are")),
        }
    }
}

impl Authenticator for AnonymousAccess {
    fn authenticate<'a>(&'a self, _: MountAuth<'a>, _: &'a HeaderMap, _: Option<&'a Peer>) -> Authentication<'a> {
        let client = "anybody".to_string();
        let anybody =
            Principal { client, patient: None, types: None, levels: [true; 3], groups: None, writes_groups: true };
        Box::pin(std::future::ready(Ok(anybody)))
    }

    fn requires_access_token(&self) -> bool {
        false
    }

    fn writing_rights(&self, _: &str, _: &str) -> Option<WritingRights> {
        None
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

    /// CORE-01: without authorization, loopback only.
    #[test]
    fn nobody_is_asked_on_loopback_only() {
        for (address, may) in
            [("127.0.0.1:80", true), ("[::1]:80", true), ("0.0.0.0:80", false), ("10.0.0.1:80", false)]
        {
            assert_eq!(AnonymousAccess::on(address.parse().unwrap()).is_ok(), may, "{address}");
        }
    }

    /// CLIENT-05: whatever is sent, it is anybody; nothing is asked for.
    #[tokio::test]
    async fn a_stray_header_is_ignored() {
        let door = MountAuth { tenant: "default", bearer: true, client_headers: true };
        for token in ["Bearer ", "Bearer a.b", "nonsense"] {
            let headers = HeaderMap::from_iter([(axum::http::header::AUTHORIZATION, token.parse().unwrap())]);
            assert!(!AnonymousAccess(()).requires_access_token());
            assert_eq!(AnonymousAccess(()).authenticate(door, &headers, None).await.unwrap().client, "anybody");
        }
    }
}
