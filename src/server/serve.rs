//! Runs the service of a configuration: opens stores, jobs and Groups, listens, answers, and stops.
//!
//! Requests are handled by `router`; connections are accepted by `connection`.

use crate::group::registry::GroupRegistry;
use crate::job::api::{EngineOptions, JobLimits, OpenError};
use crate::job::engine::JobEngine;
use crate::job::space_account::SpaceAccount;
use crate::server::admin::AdminSockets;
use crate::server::admission::Admission;
use crate::server::auth::provider::Provider;
use crate::server::config::auth::ClientConfig;
use crate::server::config::{Config, TenantConfig};
use crate::server::connection::limits::ConnectionLimits;
use crate::server::group_scope::{WriterCheck, check_writers};
use crate::server::hosts::AllowedHosts;
use crate::server::ids::{now, random};
use crate::server::message_text::HTTP_WORDS;
use crate::server::mount::{Mount, UnknownTenantMount};
use crate::server::proxy::Proxies;
use crate::server::rate_limit::RateLimiter;
use crate::server::router::router;
use crate::server::shares::Shares;
use crate::server::state::{App, Tenant};
use crate::server::tls::Certificate;
use crate::server::{connection, file_watch};
use crate::store::Store;
use crate::store::packed::envelope::coding_of_store;
use crate::sys::allocator::{anonymous_bytes, release_free_memory};
use crate::sys::disk::disk_space;
use crate::sys::durability::FileSync;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::middleware::map_request;
use tokio::net::TcpListener;

/// Longest single wait for the first indexing; the wait is repeated until the index is complete.
const INDEX_WAIT: Duration = Duration::from_secs(3600);

/// Most kick-offs that are judged at a time, out of the 512 threads of the runtime that may block.
const KICK_OFFS_MAX: usize = 64;

/// Attachments that are looked for at a time: each is judged by its client's Groups, and its row read once.
const ATTACHMENTS_MAX: u64 = 32;
/// Those of one client.
const ATTACHMENTS_OF_CLIENT_MAX: u64 = 4;

/// Shortest pause between two looks at whether a store is refused.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause after a look at a store that is refused.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Pause between two looks at the memory of the process.
const MEMORY_PAUSE: Duration = Duration::from_secs(10);

/// Bytes of anonymous memory above the least that the process has had, which are left to the allocator.
const MEMORY_KEPT_BYTES: u64 = 16 << 20;

/// Addresses of a service that accepts requests.
pub(crate) struct ServeInfo {
    /// The bound address and port.
    pub listen: SocketAddr,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// Absolute URLs of the mounts.
    pub bases: Vec<String>,
}

/// Serves the stores of the tenants, given in the order of [`Config::all_tenants`], until `stop` resolves. Then
/// downloads in flight may end within the drain time, and jobs are parked. `begun` is called once the service
/// listens.
///
/// # Errors
/// A sentence that says what cannot be opened, and what to do.
pub(crate) async fn serve(
    config: Config,
    stores: Vec<Store>,
    begun: impl FnOnce(&ServeInfo),
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let started = Instant::now();
    // A terminal that is closed does not end the service, whether or not there are files to be read anew at that signal.
    let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
    // 1. Certificate, proxies and listening socket.
    let certificate = match config.tls.is_on() {
        true => Some(Certificate::load(config.tls.clone())?),
        false => None,
    };
    let tls = certificate.as_ref().map(Certificate::acceptor).transpose()?;
    let proxies = Proxies::parse(&config.trusted_proxies).map_err(|problems| problems.join("; "))?;
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another address with --listen", config.listen)
    })?;
    let listen = listener.local_addr().map_err(|error| error.to_string())?;
    let public_url = config.public_url(listen);
    for (_, mount) in
        config.mounts().into_iter().filter(|(_, mount)| mount.enabled && public_url.ends_with(&mount.base))
    {
        tracing::warn!(
            base = mount.base,
            "public_url ends with the base of a mount, which stands behind it again: leave it out"
        );
    }
    // 2. Tenants and mounts.
    let tenants = config.all_tenants().into_iter().zip(stores);
    let space = Arc::default();
    let tenants: Result<Vec<Tenant>, String> =
        tenants.map(|(of, store)| open_tenant(&config, of, store, &space)).collect();
    let (tenants, mounts) = (Arc::new(tenants?), Mount::all(&config, &public_url));
    // 3. Clients, whose rights are checked against the Groups of the tenants.
    let check = |of: WriterCheck| {
        let (tenants, mounts) = (tenants.clone(), mounts.clone());
        move |clients: &[ClientConfig]| check_writers(of, &tenants, &mounts, clients)
    };
    let (check_at_start, clients) = (check(WriterCheck::Start), config.clients.clone());
    let problems =
        tokio::task::spawn_blocking(move || check_at_start(&clients)).await.map_err(|error| error.to_string())?;
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    let provider = Provider::open(&config, listen, &public_url, Arc::new(check(WriterCheck::Reload)))?;
    let connections = connection_limits(&config);
    let is_anonymous = !provider.authenticator.requires_access_token();
    let app = Arc::new(App {
        admission: Arc::new(Admission::new(connections.connections_max, config.limits.body_bytes, proxies.clone())),
        tenants,
        unknown_tenants: UnknownTenantMount::all(&config, &mounts, &public_url),
        mounts,
        kick_offs: tokio::sync::Semaphore::new(KICK_OFFS_MAX),
        attachments: Shares::bounded(ATTACHMENTS_MAX, ATTACHMENTS_OF_CLIENT_MAX),
        polls: RateLimiter::new(config.limits.polls_per_second.into(), config.limits.polls_burst.into()),
        hosts: Arc::new(is_anonymous.then(|| AllowedHosts::new(&public_url, &config.hosts))),
        authenticator: provider.authenticator,
        public_url,
        config,
    });
    // 4. The first indexing of each tenant, on a thread of its own.
    for tenant_index in 0..app.tenants.len() {
        let indexing = app.clone();
        std::thread::spawn(move || {
            let tenant = &indexing.tenants[tenant_index];
            while !tenant.engine.index_and_wait(INDEX_WAIT) {}
            tenant.ready.store(true, Relaxed);
            let service = Arc::downgrade(&indexing);
            drop(indexing);
            // Until the service has stopped. It is not held while this thread sleeps.
            while let Some(app) = service.upgrade() {
                let pause = look_again(&app.tenants[tenant_index]);
                drop(app);
                std::thread::sleep(pause);
            }
        });
    }
    let renewal = certificate
        .map(|certificate| file_watch::watch_files(app.config.tls.paths(), move || reload_certificate(&certificate)));
    // 5. Answers until `stop`, then parks the jobs.
    let admin = AdminSockets::open(&app, started);
    begun(&ServeInfo { listen, tls: tls.is_some(), bases: app.mounts.iter().map(|mount| mount.url.clone()).collect() });
    // The connections of a proxy are those of many clients.
    let exempt = {
        let proxies = proxies.clone();
        move |address: IpAddr| proxies.trusts(address.to_canonical())
    };
    let service =
        router(app.clone()).layer(map_request(move |request| std::future::ready(proxies.mark_origin(request))));
    let memory = tokio::spawn(release_memory());
    let drained = connection::serve(listener, tls, service, connections, exempt, stop).await;
    if drained.cut > 0 {
        tracing::warn!(cut = drained.cut, "connections were cut: their answers took longer than the drain");
    }
    drop((provider.watcher, renewal, admin));
    memory.abort();
    tokio::task::spawn_blocking(move || app.tenants.iter().for_each(|tenant| tenant.engine.stop())).await.ok();
    Ok(())
}

/// Has the allocator give free memory back, again and again, while the process has more than it once had: after a storm of
/// large bodies, or an export, the allocator would keep it. During one, it is cheaper to keep what is about to be used.
async fn release_memory() {
    let mut least = u64::MAX;
    while let Some(bytes) = anonymous_bytes() {
        least = least.min(bytes);
        tokio::time::sleep(MEMORY_PAUSE).await;
        if bytes > least + MEMORY_KEPT_BYTES && tokio::task::spawn_blocking(release_free_memory).await.is_err() {
            return;
        }
    }
}

/// Looks whether the store of a tenant can be used; if it is refused and can be, looks whether it is whole again. Returns
/// the pause before the next look, several times as long as this one took: what is there of the store may be read anew by
/// each.
fn look_again(tenant: &Tenant) -> Duration {
    if tenant.engine.probe_store().is_some() || tenant.engine.store_refusal().is_none() {
        return LOOK_PAUSE;
    }
    let begun = Instant::now();
    tenant.engine.index_and_wait(INDEX_WAIT);
    LOOK_PAUSE.max((begun.elapsed() * 4).min(LOOK_PAUSE_MAX))
}

/// Opens the job engine and the Group registry of a tenant.
///
/// # Errors
/// A sentence on the directory or file that cannot be opened.
fn open_tenant(
    config: &Config,
    tenant: TenantConfig,
    store: Store,
    space: &Arc<SpaceAccount>,
) -> Result<Tenant, String> {
    let sync = if tenant.data.sync { FileSync::Yes } else { FileSync::No };
    warn_of_other_coding(config, &tenant.name, &store);
    let threads = match config.jobs.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let options = EngineOptions {
        store,
        records: tenant.data.records(),
        files: tenant.data.path.join("files"),
        threads,
        limits: JobLimits {
            active_per_client: config.jobs.active_per_client,
            active: config.jobs.active,
            attempts: config.jobs.attempts,
            remembered_seconds: config.jobs.remembered_seconds,
            failed_seconds: config.jobs.failed_hours.saturating_mul(3600),
            disk_high_water: config.jobs.disk_high_water,
            space_wait_seconds: config.jobs.space_wait_seconds,
            // One client alone has nobody to leave room for.
            client_disk_share: if config.clients.len() < 2 { 100 } else { config.jobs.client_disk_share },
            kept_baselines: config.jobs.kept_baselines,
            faults_allowed: config.faults_allowed(),
        },
        sync,
        disk_space: Box::new(disk_space),
        space: space.clone(),
        clock: Box::new(now),
        random: Box::new(random),
        words: &HTTP_WORDS,
    };
    let engine = JobEngine::open(options).map_err(|error| open_text(&error))?;
    let groups = GroupRegistry::open(&tenant.data.path.join("groups"), sync).map_err(|error| error.to_string())?;
    groups.damaged_files().iter().for_each(|error| tracing::error!(%error, "one Group cannot be served"));
    Ok(Tenant { name: tenant.name, engine, groups, ready: AtomicBool::new(false) })
}

/// Says where a store is packed in another coding than the files of exports: each export compresses its rows again then.
fn warn_of_other_coding(config: &Config, tenant: &str, store: &Store) {
    let Some(coding) = coding_of_store(store.root()) else { return };
    let (packed, files) = (coding.compression().name(), config.files.compress.name());
    if packed != files {
        tracing::warn!(
            tenant,
            packed,
            files,
            "the store is packed in another coding than its exports have: with files.compress = \"{packed}\" they copy \
             its frames instead of coding the rows again"
        );
    }
}

/// Has the running service load a changed certificate for new connections; one that cannot be used leaves the old one
/// in force.
fn reload_certificate(certificate: &Certificate) {
    match certificate.reload() {
        Ok(()) => tracing::info!("new connections get the certificate as it is in the file now"),
        Err(error) => tracing::error!(error, "the certificate stays as it was"),
    }
}

/// The connection limits that the service is started with, from its configuration.
fn connection_limits(config: &Config) -> ConnectionLimits {
    let limits = &config.limits;
    ConnectionLimits {
        connections_max: limits.connections,
        head_bytes_max: limits.head_bytes,
        headers_max: limits.headers,
        head_wait: Duration::from_secs(limits.head_seconds),
        idle_wait: Duration::from_secs(limits.idle_seconds),
        body_wait: Duration::from_secs(limits.body_seconds),
        write_wait: Duration::from_secs(limits.write_seconds),
        drain_wait: Duration::from_secs(limits.drain_seconds),
    }
}

/// Why an engine cannot be opened, and what to change of the command that starts the service.
fn open_text(error: &OpenError) -> String {
    let advice = match error {
        OpenError::Directory { .. } => "; make it writable, or choose another place with --data or --jobs",
        OpenError::Busy { .. } => "; stop it, or choose another --data",
        OpenError::Strangers { .. } => {
            ": give the --data and --jobs that belong together (is a volume not mounted?); to begin anew, take both \
             directories away"
        }
        OpenError::Index { .. } => "; give a writable --index-dir",
        OpenError::Threads(_) => "",
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    use super::*;
    use crate::index::test_lines::append;

    /// The raw answer to a GET.
    fn get(address: SocketAddr, path: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = "Accept: application/fhir+json\r\nPrefer: respond-async\r\nConnection: close";
        write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer in time");
        answer
    }

    /// Polls are answered while every blocking thread is occupied, as kick-offs that wait for the index do.
    #[test]
    fn polls_need_no_thread_that_waits() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        append(&dir.path().join("store/a.ndjson"), &[r#"{"resourceType":"Patient","id":"p"}"#.to_string()]);
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
        config.data.path = dir.path().join("data");
        config.store.path = dir.path().join("store");
        let store = Store::open(&config.store.path).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (begun, listens) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = runtime.spawn(async move {
            serve(config, vec![store], |served| begun.send(served.listen).unwrap(), async {
                stopped.await.unwrap_or_default()
            })
            .await
        });
        let address = listens.recv().unwrap();
        let accepted = get(address, "/fhir/$export");
        let location = accepted.lines().find_map(|line| line.strip_prefix("content-location: ")).expect("a job");
        let path = location.split_once("/fhir").map(|(_, path)| format!("/fhir{path}")).unwrap();

        let (held, release) = mpsc::channel::<()>();
        let waiting = runtime.spawn_blocking(move || release.recv().is_err());
        let answer = get(address, &path);
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        drop(held);
        assert!(runtime.block_on(waiting).unwrap());
        stop.send(()).unwrap();
        runtime.block_on(serving).unwrap().unwrap();
    }
}
