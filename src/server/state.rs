//! State that every handler shares: tenants, mounts, authentication.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::group::registry::GroupRegistry;
use crate::job::engine::JobEngine;
use crate::server::auth::{Authenticator, MountAuth};
use crate::server::config::Config;
use crate::server::config::mounts::Authorization;
use crate::server::hosts::AllowedHosts;
use crate::server::mount::Mount;
use crate::server::rate_limit::PollLimiter;

/// A store, and all that the service keeps for it. Nothing of one tenant is ever seen by another (ONEUP-M01).
pub(crate) struct Tenant {
    /// Its name.
    pub name: String,
    /// The job engine.
    pub engine: JobEngine,
    /// The Groups that clients made.
    pub groups: GroupRegistry,
    /// Whether the index has been brought up to date once.
    pub ready: AtomicBool,
}

/// What every handler shares.
pub(crate) struct App {
    /// The configuration in force.
    pub config: Config,
    /// The tenants.
    pub tenants: Arc<Vec<Tenant>>,
    /// Who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// The hosts that it answers under; any where it is asked who sends a request.
    pub hosts: Arc<Option<AllowedHosts>>,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// How often is asked.
    pub polls: PollLimiter,
}

impl App {
    /// The tenant of a mount.
    pub(crate) fn tenant(&self, mount: &Mount) -> &Tenant {
        &self.tenants[mount.tenant]
    }

    /// What a mount takes.
    pub(crate) fn mount_auth<'a>(&'a self, mount: &'a Mount) -> MountAuth<'a> {
        let takes = |method| mount.settings.authorization.contains(&method);
        MountAuth {
            tenant: &self.tenant(mount).name,
            bearer: takes(Authorization::Bearer),
            client_headers: takes(Authorization::ClientHeaders),
        }
    }
}
