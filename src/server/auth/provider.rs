//! Which provider of credentials a configuration asks for, and its clients brought up to date while the service runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::limits::CONFIG_BYTES_MAX;
use crate::server::auth::clients::{ClientTable, StaticClients};
use crate::server::auth::{AnonymousAccess, Authenticator};
use crate::server::config::Config;
use crate::server::config::auth::{AuthConfig, ClientConfig};
use crate::server::file_watch::{FileWatcher, watch_files};
use crate::server::ids::{now, random};
use crate::sys::regular_file::read_regular;

/// What is wrong with clients beside what their configuration shows by itself, one sentence each. Blocks.
pub(crate) type ClientCheck = Arc<dyn Fn(&[ClientConfig]) -> Vec<String> + Send + Sync>;

/// A provider in force.
pub(crate) struct Provider {
    /// Who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// Keeps the clients up to date until it is dropped; none without a configuration file.
    pub watcher: Option<FileWatcher>,
}

impl Provider {
    /// The clients of the configuration, or anybody on this machine when it names none. Of clients that come later the log
    /// says what `check` finds. Runs inside an async runtime.
    ///
    /// # Errors
    /// When what is configured cannot be, such as anybody on another address than loopback.
    pub(crate) fn open(config: &Config, listen: SocketAddr, check: ClientCheck) -> Result<Provider, String> {
        if config.clients.is_empty() {
            let authenticator = Arc::new(AnonymousAccess::on(listen)?);
            let watcher =
                config.file.clone().map(|file| watch_files(vec![file.clone()], move || warn_of_clients(&file)));
            return Ok(Provider { authenticator, watcher });
        }
        let table = ClientTable::new(&config.auth, &config.clients).map_err(|problems| problems.join("\n"))?;
        note_argon2(&table);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&random());
        key[16..].copy_from_slice(&random());
        let clients = Arc::new(StaticClients::new(table, key, now));
        let watcher = config.file.clone().map(|file| {
            let (clients, mut known) = (clients.clone(), (config.auth.clone(), config.clients.clone()));
            watch_files(vec![file.clone()], move || match take_configuration(&file, &mut known, &clients, &check) {
                Ok(None) => {}
                Ok(Some(count)) => tracing::info!(clients = count, "the clients of the configuration were read anew"),
                Err(problem) => {
                    tracing::error!(problem, "the configuration cannot be used: the clients stay those from before");
                }
            })
        });
        Ok(Provider { authenticator: clients, watcher })
    }
}

fn read(file: &Path) -> Result<(AuthConfig, Vec<ClientConfig>), String> {
    let unreadable = |why: String| format!("{} cannot be read: {why}", file.display());
    let text = read_regular(file, CONFIG_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| unreadable("it is no UTF-8".to_string()))?;
    let config = Config::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((config.auth, config.clients))
}

/// Takes what the file says now, as a whole or not at all; the number of clients, if they are others than before. Without
/// any, nobody is let in: to let in anybody takes a restart.
fn take_configuration(
    file: &Path,
    known: &mut (AuthConfig, Vec<ClientConfig>),
    clients: &StaticClients,
    check: &ClientCheck,
) -> Result<Option<usize>, String> {
    let found = read(file)?;
    if found == *known {
        return Ok(None);
    }
    let table = ClientTable::new(&found.0, &found.1).map_err(|problems| problems.join("; "))?;
    note_argon2(&table);
    clients.replace(table);
    // What is in force by now is not put off by a client that can do less than its configuration says: others may have been
    // taken out.
    check(&found.1).into_iter().for_each(|problem| tracing::warn!(problem, "a client is of little use"));
    let count = found.1.len();
    *known = found;
    Ok(Some(count))
}

/// Hashes of earlier versions cost the service dear, also for those who only guess.
fn note_argon2(table: &ClientTable) {
    let credentials = table.argon2_count();
    if credentials > 0 {
        tracing::warn!(
            credentials,
            "the configuration holds argon2id hashes of earlier versions, which are checked slowly and two at a time: \
             make new credentials with outpour credential"
        );
    }
}

/// What was started for anybody asks nobody until it is started anew.
fn warn_of_clients(file: &Path) {
    if read(file).is_ok_and(|(_, clients)| !clients.is_empty()) {
        tracing::error!("the configuration names clients now, but this service lets in anybody: start it anew");
    }
}
