//! Selects the authenticator of a configuration, and reloads its clients when the configuration file changes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::fhir::instant::TICKS_PER_SECOND;
use crate::limits::CONFIG_BYTES_MAX;
use crate::server::auth::clients::{ClientTable, StaticClients};
use crate::server::auth::{AnonymousAccess, Authenticator};
use crate::server::config::Config;
use crate::server::config::auth::{AuthConfig, ClientConfig};
use crate::server::config::smart::SmartConfig;
use crate::server::file_watch::{FileWatcher, watch_files};
use crate::server::ids::{now, random};
use crate::server::smart::service::TokenService;
use crate::sys::durability::FileSync;
use crate::sys::regular_file::read_regular;

/// Check of clients against the Groups of the tenants: problems that the configuration alone does not show, one
/// sentence each. Blocks.
pub(crate) type ClientCheck = Arc<dyn Fn(&[ClientConfig]) -> Vec<String> + Send + Sync>;

/// The authenticator in force and the watch on its configuration.
pub(crate) struct Provider {
    /// Authenticates the requests of all mounts.
    pub authenticator: Arc<dyn Authenticator>,
    /// Reloads the clients until it is dropped; `None` without a configuration file.
    pub watcher: Option<FileWatcher>,
}

impl Provider {
    /// The authenticator of the configured clients, or anonymous access if there are none. Problems that `check`
    /// finds with clients that are loaded later are logged. Must be called inside an async runtime.
    ///
    /// # Errors
    /// If the clients are misconfigured, or there are none and `listen` is not a loopback address.
    pub(crate) fn open(
        config: &Config,
        listen: SocketAddr,
        public_url: &str,
        check: ClientCheck,
    ) -> Result<Provider, String> {
        if config.clients.is_empty() {
            let authenticator = Arc::new(AnonymousAccess::on(listen)?);
            tracing::info!("no clients are configured: every program on this machine may do everything");
            let watcher =
                config.file.clone().map(|file| watch_files(vec![file.clone()], move || warn_of_clients(&file)));
            return Ok(Provider { authenticator, watcher });
        }
        let table = ClientTable::new(&config.auth, &config.smart, &config.clients);
        let table = table.map_err(|problems| problems.join("\n"))?;
        warn_of_argon2(&table);
        table.warn_of_key_sets();
        let tenants = config.all_tenants();
        let data = tenants.first().map(|tenant| tenant.data.clone()).unwrap_or_default();
        let sync = if data.sync { FileSync::Yes } else { FileSync::No };
        let seconds = u64::try_from(now().ticks.div_euclid(TICKS_PER_SECOND)).unwrap_or_default();
        let service = TokenService::open(&config.smart, public_url, &data.path.join("smart"), sync, seconds)?;
        if config.smart.assertion_reuse {
            tracing::warn!("smart.assertion_reuse is on: whoever sees an assertion can use it until it expires");
        }
        let mut key = [0; 32];
        key[..16].copy_from_slice(&random());
        key[16..].copy_from_slice(&random());
        let clients = StaticClients::new(table, key, now).with_tokens(service);
        let clients = Arc::new(clients);
        let watcher = config.file.clone().map(|file| {
            let (clients, mut known) = (
                clients.clone(),
                KnownClients { configured: (config.auth.clone(), config.clients.clone()), was_looked_at: false },
            );
            let smart = config.smart.clone();
            watch_files(vec![file.clone()], move || {
                match take_configuration(&file, &mut known, &smart, &clients, &check) {
                    Ok(None) => {}
                    Ok(Some(count)) => {
                        tracing::info!(clients = count, "the clients of the configuration were read anew")
                    }
                    Err(problem) => {
                        tracing::error!(
                            problem,
                            "the configuration cannot be used: the clients stay those from before"
                        );
                    }
                }
            })
        });
        Ok(Provider { authenticator: clients, watcher })
    }
}

/// Reads `[smart]`, `[auth]` and `[[clients]]` from a configuration file that has changed, for the authenticator in force.
///
/// # Errors
/// A sentence with the file and why it cannot be read.
fn read_clients(file: &Path) -> Result<(SmartConfig, AuthConfig, Vec<ClientConfig>), String> {
    let unreadable = |why: String| format!("{} cannot be read: {why}", file.display());
    let text = read_regular(file, CONFIG_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| unreadable("it is no UTF-8".to_string()))?;
    let config = Config::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((config.smart, config.auth, config.clients))
}

/// The clients in force, as they were configured.
struct KnownClients {
    configured: (AuthConfig, Vec<ClientConfig>),
    /// Whether the file has been looked at since the start, when nobody has changed it or sent SIGHUP yet.
    was_looked_at: bool,
}

/// Loads the clients of the configuration file and puts them in force, all or none; `smart` are the settings from the start. Returns their number; `None` if
/// they are unchanged. A file without clients lets nobody in: anonymous access needs a restart.
///
/// # Errors
/// A sentence about an unreadable file or misconfigured clients; those in force stay.
fn take_configuration(
    file: &Path,
    known: &mut KnownClients,
    smart: &SmartConfig,
    clients: &StaticClients,
    check: &ClientCheck,
) -> Result<Option<usize>, String> {
    let (settings, auth, configured) = read_clients(file)?;
    if settings != *smart {
        tracing::warn!("[smart] of the configuration has changed: start the service anew to have it in force");
    }
    let found = (auth, configured);
    let table = ClientTable::new(&found.0, smart, &found.1).map_err(|problems| problems.join("; "))?;
    let is_changed = found != known.configured;
    let is_first = !std::mem::replace(&mut known.was_looked_at, true);
    if is_first && !is_changed {
        return Ok(None);
    }
    if is_changed {
        warn_of_argon2(&table);
    }
    table.warn_of_key_sets();
    // Also when nothing has changed: an operator who sends SIGHUP wants key sets to be read anew.
    clients.replace(table);
    if !is_changed {
        return Ok(None);
    }
    // Problems of `check` are only logged: the new table may have removed clients, and must be in force.
    check(&found.1).into_iter().for_each(|problem| tracing::warn!(problem, "a client is of little use"));
    let count = found.1.len();
    known.configured = found;
    Ok(Some(count))
}

/// Warns that the configuration holds argon2id hashes, whose checks are slow also for wrong secrets.
fn warn_of_argon2(table: &ClientTable) {
    let credentials = table.argon2_count();
    if credentials > 0 {
        tracing::warn!(
            credentials,
            "the configuration holds argon2id hashes of earlier versions, which are checked slowly and two at a time: \
             make new credentials with outpour credential"
        );
    }
}

/// Logs that the configuration names clients now, while this process grants anonymous access until its restart.
fn warn_of_clients(file: &Path) {
    if read_clients(file).is_ok_and(|(_, _, clients)| !clients.is_empty()) {
        tracing::error!("the configuration names clients now, but this service lets in anybody: start it anew");
    }
}
