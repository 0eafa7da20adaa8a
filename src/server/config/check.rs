//! Checks of a configuration: contradictions, impossible values, and anything that would admit strangers or let one
//! tenant see another.
//!
//! All problems are reported at once, before anything is opened. Nothing on the disk is read.

use crate::export::options::FaultsAllowed;
use crate::index::search::maintenance::read_names;
use crate::limits::THREADS_MAX;
use crate::server::config::mounts::{DEFAULT_TENANT, is_tenant_name};
use crate::server::config::{Config, auth};
use crate::server::hosts::AllowedHosts;
use crate::server::proxy::Proxies;

impl Config {
    /// The problem with an address that other machines reach: the service must authenticate clients and speak TLS,
    /// itself or through a proxy (CORE-01). `None` if it does both.
    fn exposure_problem(&self) -> Option<String> {
        let knows_clients = !self.clients.is_empty();
        let is_secret = self.tls.is_on() || !self.trusted_proxies.is_empty();
        let why = match (knows_clients, is_secret) {
            (true, true) => return None,
            (false, _) => {
                "without authorization (no [[clients]] are configured) the service answers this machine alone: configure \
                 clients, or listen on 127.0.0.1 or ::1, where a proxy that knows its clients may stand before it"
            }
            (true, false) => {
                "without TLS the service answers this machine alone: give tls.certificate and tls.key, or name the \
                 proxies that speak TLS for it in trusted_proxies"
            }
        };
        Some(format!("listen is {}, but {why}", self.listen))
    }

    /// Every problem of the configuration, one sentence each.
    pub(crate) fn config_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        // 1. Addresses, TLS, proxies, hosts.
        if !self.listen.ip().is_loopback() {
            let problem = self.exposure_problem();
            require(problem.is_none(), problem.unwrap_or_default());
            let has_public_url = !self.public_url.is_empty();
            require(
                has_public_url || self.trusted_proxies.is_empty(),
                "public_url is not given, but trusted_proxies are: clients must be told the proxy's URL, which is taken \
                 from no header"
                    .into(),
            );
            require(
                has_public_url || !self.trusted_proxies.is_empty() || !self.listen.ip().is_unspecified(),
                format!("public_url is not given, and {} is no address that clients can be told", self.listen.ip()),
            );
        }
        let problem = self.tls.tls_problem();
        require(problem.is_none(), problem.unwrap_or_default());
        for problem in Proxies::parse(&self.trusted_proxies).err().unwrap_or_default() {
            require(false, problem);
        }
        for problem in AllowedHosts::problems(&self.hosts) {
            require(false, problem);
        }
        let url = self.public_url.as_str();
        require(
            url.is_empty()
                || url.parse::<axum::http::Uri>().is_ok_and(|url| url.scheme().is_some() && url.host().is_some()),
            format!("public_url {url:?} is no absolute URL, such as https://bulk.example.org"),
        );
        require(
            !self.tls.is_on() || !url.starts_with("http:"),
            format!(
                "public_url {url:?} begins with http, but [tls] is on: clients would ask in a way that is not answered"
            ),
        );
        // 2. Numbers and words.
        for (name, value) in [
            ("jobs.active_per_client", self.jobs.active_per_client),
            ("jobs.active", self.jobs.active),
            ("jobs.attempts", self.jobs.attempts as usize),
            ("limits.polls_per_second", self.limits.polls_per_second as usize),
            ("limits.polls_burst", self.limits.polls_burst as usize),
            ("limits.connections", self.limits.connections),
            ("limits.headers", self.limits.headers),
            ("files.max_bytes", self.files.max_bytes as usize),
        ] {
            require(value > 0, format!("{name} is 0; give at least 1"));
        }
        let threads = self.jobs.threads;
        require(threads <= THREADS_MAX, format!("jobs.threads is {threads}, more than {THREADS_MAX}"));
        require(self.limits.head_bytes >= 8192, "limits.head_bytes is less than 8192".into());
        require(self.jobs.disk_high_water <= 100, "jobs.disk_high_water is a share in hundredths, at most 100".into());
        let share = self.jobs.client_disk_share;
        require((1..=100).contains(&share), "jobs.client_disk_share is a share in hundredths, from 1 to 100".into());
        let allowed = self.jobs.faults_allowed.trim();
        let is_share_valid =
            |allowed: FaultsAllowed| !matches!(allowed, FaultsAllowed::Percent(p) if !(0.0..=100.0).contains(&p));
        require(
            allowed.is_empty() || self.faults_allowed().is_some_and(is_share_valid),
            format!("jobs.faults_allowed {allowed:?} is neither a number nor a share such as 1%"),
        );
        require(
            self.log.level.parse::<tracing::Level>().is_ok(),
            format!("log.level {:?} is none of error, warn, info, debug, trace", self.log.level),
        );
        // 3. Tenants, mounts, clients.
        problems.extend(self.tenant_problems());
        problems.extend(self.mount_problems());
        problems.extend(auth::auth_problems(&self.auth, &self.clients));
        problems.extend(self.smart.settings_problems());
        problems.extend(auth::registration_problems(&self.smart, &self.clients));
        let tenants = self.all_tenants();
        for client in &self.clients {
            for name in client.tenants.iter().filter(|name| tenants.iter().all(|tenant| tenant.name != **name)) {
                problems.push(format!("client {:?}: tenants holds {name:?}, which is no tenant", client.name));
            }
        }
        problems
    }

    /// Problems of tenants: names, missing paths, paths that two tenants share.
    fn tenant_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let tenants = self.all_tenants();
        for (position, tenant) in tenants.iter().enumerate() {
            let (name, default) = (&tenant.name, tenant.name == DEFAULT_TENANT && position == 0);
            let key = |key: &str| if default { key.to_string() } else { format!("tenant {name:?}: {key}") };
            if !(0.0..=100.0).contains(&tenant.store.allow_missing) {
                problems.push(key("store.allow_missing is a share in percent, between 0 and 100"));
            }
            if let Err(wrong) = read_names(&tenant.store.search_columns) {
                let texts = wrong.problems.into_iter().map(|problem| problem.text);
                problems.extend(texts.map(|text| key(&format!("store.search_columns: {text}"))));
            }
            if !is_tenant_name(name) {
                problems.push(format!("tenant {name:?}: a name has up to 64 letters, digits, '-', '.' and '_'"));
            }
            if tenants[..position].iter().any(|other| other.name == *name) {
                problems.push(format!("tenant {name:?} stands twice"));
            }
            if tenant.store.path.as_os_str().is_empty() {
                let advice = if default { ": name the store with --store" } else { "" };
                problems.push(key("store.path") + " is not given" + advice);
            }
            if tenant.data.path.as_os_str().is_empty() {
                let advice = if default { ": name a directory for jobs, files and Groups with --data" } else { "" };
                problems.push(key("data.path") + " is not given" + advice);
            }
            for base in tenant.store.fhir_bases.iter().filter(|base| !base.contains("://")) {
                problems.push(key("store.fhir_bases") + &format!(" holds {base:?}, which is no absolute URL"));
            }
            // Tenants with a common directory would find each other's data.
            for other in &tenants[..position] {
                for (what, ours, theirs) in [
                    ("store.path", &tenant.store.path, &other.store.path),
                    ("store.index_dir", &tenant.store.index_dir, &other.store.index_dir),
                    ("data.path", &tenant.data.path, &other.data.path),
                    ("data.jobs", &tenant.data.records(), &other.data.records()),
                ] {
                    if ours == theirs && !ours.as_os_str().is_empty() && *ours != std::path::Path::new("jobs") {
                        problems.push(key(what) + &format!(" is that of tenant {:?}; give each its own", other.name));
                    }
                }
            }
        }
        problems
    }

    /// Problems of mounts: those of each, and bases that overlap.
    fn mount_problems(&self) -> Vec<String> {
        let tenants: Vec<String> = self.all_tenants().into_iter().map(|tenant| tenant.name).collect();
        let mut problems: Vec<String> =
            self.mounts().iter().flat_map(|(name, mount)| mount.mount_settings_problems(name, &tenants)).collect();
        // A mount below another would capture some of its URLs.
        let enabled: Vec<_> = self.mounts().into_iter().filter(|(_, mount)| mount.enabled).collect();
        for (name, mount) in &enabled {
            for (other, above) in enabled.iter().filter(|(other, _)| other != name) {
                let below = format!("{}/", mount.base).starts_with(&format!("{}/", above.base));
                if below && (mount.base != above.base || name > other) {
                    problems.push(format!("{name}.base stands at or below {other}.base; move one of them"));
                }
            }
        }
        if enabled.is_empty() {
            problems.push("every mount is switched off; leave one on".to_string());
        }
        problems
    }
}
