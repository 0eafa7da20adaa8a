//! Who asks: the seam between a request and what its sender may do. Providers of credentials stand behind
//! [`Authenticator`]; what a [`Principal`] may see is enforced by the doors, the same on every mount (DIALECT-05).

use std::net::SocketAddr;

use axum::http::HeaderMap;

use super::kickoff::Level;
use super::outcome::Refusal;
use crate::fhir::ResourceType;

/// How a request came in: which tenant's data it asks for, and which ways of authorization its mount takes (C-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// Whether bearer tokens are taken.
    pub bearer: bool,
    /// Whether client headers are taken (ONEUP-S07).
    pub client_headers: bool,
}

/// A client, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its name: jobs belong to it, limits are counted by it. That of a user is the client's and the patient's.
    pub client: String,
    /// A user, whose record alone may be exported (ONEUP-S01); the client itself if `None`. A mount that serves users asks
    /// for it. All others see none of [`Principal::may_export`]'s levels open to a user.
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
    /// Whether it may export at a level: never, if it is a user, because a level is about more than one patient.
    pub fn may_export(&self, level: &Level) -> bool {
        match (level, &self.patient) {
            (Level::User(own), patient) => patient.as_ref() == Some(own),
            (_, Some(_)) => false,
            (Level::System, None) => self.levels[0],
            (Level::Patient, None) => self.levels[1],
            (Level::Group(id), None) => self.levels[2] && self.sees_group(id),
        }
    }

    /// Whether it may export a type.
    pub fn may_export_type(&self, of: ResourceType) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&of))
    }

    /// Whether it may see any Group: who may export or write Groups, or exports them as resources of the system. Group
    /// level is enough, whatever its types are, because what a Group gives out depends on who is in it.
    pub fn sees_groups(&self) -> bool {
        let as_resources = self.levels[0] && self.may_export_type(ResourceType::GROUP);
        self.patient.is_none() && (self.levels[2] || self.writes_groups || as_resources)
    }

    /// Whether it may see a Group. One that it may not is answered as if it were not there (KICK-16).
    pub fn sees_group(&self, id: &str) -> bool {
        self.sees_groups() && self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == id))
    }

    /// Whether it may make Groups: a new one would not be among those that it was given by name.
    pub fn makes_groups(&self) -> bool {
        self.writes_groups && self.patient.is_none() && self.groups.is_none()
    }
}

/// Tells who sends a request.
pub trait Authenticator: Send + Sync {
    /// The sender. May take tens of milliseconds of CPU time unless [`Authenticator::is_quick`].
    ///
    /// # Errors
    /// The answer to somebody who is not let in.
    fn authenticate(&self, door: &Door<'_>, headers: &HeaderMap) -> Result<Principal, Refusal>;

    /// Whether the answer needs no slow hash: then it may be asked on an async thread.
    fn is_quick(&self, headers: &HeaderMap) -> bool;

    /// Whether files need a token, as the manifest says (MANIFEST-03).
    fn requires_access_token(&self) -> bool;

    /// Who may ask, for people: `rest.security` of the CapabilityStatement.
    fn describe(&self) -> &'static str {
        "Whoever asks for anything but this description says who it is: by a bearer token in the Authorization header, or, on \
         mounts that take them, by client headers."
    }
}

/// Nobody is asked who they are: for this machine alone. An `Authorization` header is ignored (CLIENT-05).
#[derive(Clone, Copy, Debug)]
pub struct Anybody(());

impl Anybody {
    /// The provider, for a service that listens on loopback.
    ///
    /// # Errors
    /// On any other address (CORE-01).
    pub fn on(listen: SocketAddr) -> Result<Anybody, String> {
        match listen.ip().is_loopback() {
            true => Ok(Anybody(())),
            false => Err(format!("{listen} is no loopback address, and nobody would be asked who they are")),
        }
    }
}

impl Authenticator for Anybody {
    fn authenticate(&self, _: &Door<'_>, _: &HeaderMap) -> Result<Principal, Refusal> {
        let client = "anybody".to_string();
        Ok(Principal { client, patient: None, types: None, levels: [true; 3], groups: None, writes_groups: true })
    }

    fn is_quick(&self, _: &HeaderMap) -> bool {
        true
    }

    fn requires_access_token(&self) -> bool {
        false
    }

    fn describe(&self) -> &'static str {
        "This server runs without authorization, on the loopback interface only: whoever can reach it may read all that it \
         exports. An Authorization header is ignored."
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
            assert_eq!(Anybody::on(address.parse().unwrap()).is_ok(), may, "{address}");
        }
    }

    /// KICK-18: levels and Groups that a client may export.
    #[test]
    fn a_principal_sees_its_own() {
        let door = Door { tenant: "default", bearer: true, client_headers: true };
        let mut principal = Anybody(()).authenticate(&door, &HeaderMap::new()).unwrap();
        assert!(principal.may_export(&Level::Group("a".into())) && principal.may_export(&Level::System));
        principal.groups = Some(vec!["b".into()]);
        principal.levels[0] = false;
        assert!(!principal.may_export(&Level::Group("a".into())) && principal.may_export(&Level::Group("b".into())));
        assert!(!principal.may_export(&Level::System));
    }
}
