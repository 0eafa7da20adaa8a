//! State that all handlers share: configuration, tenants, mounts, authentication, rate limits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::group::registry::GroupRegistry;
use crate::job::engine::JobEngine;
use crate::server::admission::Admission;
use crate::server::auth::{Authenticator, MountAuth};
use crate::server::config::Config;
use crate::server::config::mounts::Authorization;
use crate::server::hosts::AllowedHosts;
use crate::server::mount::{Mount, UnknownTenantMount};
use crate::server::rate_limit::RateLimiter;
use crate::server::shares::Shares;

/// A store with its jobs and Groups. No request reaches the data of two tenants (ONEUP-M01).
pub(crate) struct Tenant {
    /// Name of the tenant in the configuration; `default` for the one outside `[[tenants]]`.
    pub name: String,
    /// The job engine over the tenant's store.
    pub engine: JobEngine,
    /// Groups that clients created through the service.
    pub groups: GroupRegistry,
    /// Whether the index has been brought up to date once since the start.
    pub ready: AtomicBool,
}

/// The shared state of the service; one per process.
pub(crate) struct App {
    /// Shares of the answers in progress.
    pub admission: Arc<Admission>,
    /// The configuration at the start. Clients that are reloaded later are in `authenticator`.
    pub config: Config,
    /// All tenants, in the order of the configuration; mounts refer to them by position.
    pub tenants: Arc<Vec<Tenant>>,
    /// Authenticates requests and knows the rights of clients.
    pub authenticator: Arc<dyn Authenticator>,
    /// The hosts that a request may name; `None` if requests are authenticated, where any host may be named.
    pub hosts: Arc<Option<AllowedHosts>>,
    /// The enabled mounts, once per tenant they serve; the router refers to them by position.
    pub mounts: Vec<Mount>,
    /// Permits to judge kick-offs, each of which takes a thread that may block.
    pub kick_offs: tokio::sync::Semaphore,
    /// Shares of the work of finding attachments and reading their rows, each of which takes a thread that may block.
    pub attachments: Shares,
    /// The mounts of names that no tenant has; the router refers to them by position.
    pub unknown_tenants: Vec<UnknownTenantMount>,
    /// Rate limit of status polls, by client and job.
    pub polls: RateLimiter<(String, String)>,
    /// Prefix of every advertised URL, without a slash at its end (CORE-05).
    pub public_url: String,
}

impl App {
    /// The tenant whose store a mount exports.
    pub(crate) fn tenant(&self, mount: &Mount) -> &Tenant {
        &self.tenants[mount.tenant]
    }

    /// The tenant and the kinds of credentials that authentication on a mount goes by.
    pub(crate) fn mount_auth<'a>(&'a self, mount: &'a Mount) -> MountAuth<'a> {
        let is_accepted = |method| mount.settings.authorization.contains(&method);
        MountAuth {
            tenant: Some(&self.tenant(mount).name),
            names_tenant: mount.settings.is_for_each_tenant(),
            bearer: is_accepted(Authorization::Bearer),
            client_headers: is_accepted(Authorization::ClientHeaders),
        }
    }
}
