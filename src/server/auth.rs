//! Who asks: the seam between a request and what its sender may do. Providers of credentials stand behind
//! [`Authenticator`]; what a [`Principal`] may see is enforced by the doors, the same on every mount (DIALECT-05).

use std::net::SocketAddr;

use axum::http::HeaderMap;

use super::kickoff::Level;
use super::outcome::Refusal;
use crate::fhir::ResourceType;

/// A client, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its name: jobs belong to it, limits are counted by it.
    pub client: String,
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
    /// Whether it may export at a level.
    pub fn may_export(&self, level: &Level) -> bool {
        match level {
            Level::System => self.levels[0],
            Level::Patient => self.levels[1],
            Level::Group(id) => self.levels[2] && self.sees_group(id),
        }
    }

    /// Whether it may see a Group. One that it may not is answered as if it were not there (KICK-16).
    pub fn sees_group(&self, id: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == id))
    }
}

/// Tells who sends a request.
pub trait Authenticator: Send + Sync {
    /// The sender.
    ///
    /// # Errors
    /// The answer to somebody who is not let in.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Refusal>;

    /// Whether files need a token, as the manifest says (MANIFEST-03).
    fn requires_access_token(&self) -> bool;
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
    fn authenticate(&self, _: &HeaderMap) -> Result<Principal, Refusal> {
        let client = "anybody".to_string();
        Ok(Principal { client, types: None, levels: [true; 3], groups: None, writes_groups: true })
    }

    fn requires_access_token(&self) -> bool {
        false
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
        let mut principal = Anybody(()).authenticate(&HeaderMap::new()).unwrap();
        assert!(principal.may_export(&Level::Group("a".into())) && principal.may_export(&Level::System));
        principal.groups = Some(vec!["b".into()]);
        principal.levels[0] = false;
        assert!(!principal.may_export(&Level::Group("a".into())) && principal.may_export(&Level::Group("b".into())));
        assert!(!principal.may_export(&Level::System));
    }
}
