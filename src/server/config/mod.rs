//! The configuration: one TOML file in which every key has a default and unknown keys are errors. Command-line
//! options override the most common keys.
//!
//! Names of keys carry their units. Values are checked in `check`, all at once, before anything is opened.

pub(crate) mod auth;
pub(crate) mod check;
pub(crate) mod credential_path;
pub(crate) mod mounts;
pub(crate) mod presets;
pub(crate) mod smart;

use crate::byte_size::deserialize_size;
use crate::codec::compression::{Compression, UnprovenPolicy};
use crate::export::options::FaultsAllowed;
use crate::extract::rules::LoneSurrogates;
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::hash::digest::DigestAlgorithm;
use crate::named_enum::by_name;
use crate::server::config::auth::{AuthConfig, ClientConfig};
use crate::server::config::credential_path::{credentials_directory, resolve_credentials};
use crate::server::config::mounts::{DEFAULT_TENANT, MountConfig};
use crate::server::config::smart::SmartConfig;
use crate::server::tls::TlsFiles;
use crate::store::{ALLOW_MISSING_DEFAULT, SearchColumnOptions};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The configuration of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Address and port to listen on; port 0 selects a free one.
    pub listen: SocketAddr,
    /// Prefix of every advertised URL, without a slash at its end; empty for `http://`, or `https://` with TLS, and
    /// the address (CORE-05).
    pub public_url: String,
    /// Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted.
    pub trusted_proxies: Vec<String>,
    /// Host names and addresses that unauthenticated requests may name, besides those of this machine and the public
    /// URL.
    pub hosts: Vec<String>,
    /// Files of certificate and key; empty for plain HTTP.
    pub tls: TlsFiles,
    /// The store of the tenant named `default`; without a path there is no such tenant.
    pub store: StoreConfig,
    /// Directories for jobs, files and Groups of the tenant named `default`.
    pub data: DataConfig,
    /// Further tenants. No request reaches the data of two tenants.
    pub tenants: Vec<TenantConfig>,
    /// Limits and timing of jobs.
    pub jobs: JobsConfig,
    /// Size, compression and digest of output files.
    pub files: FilesConfig,
    /// Limits of requests and connections.
    pub limits: LimitsConfig,
    /// The mount of the Bulk Data Access IG.
    #[serde(deserialize_with = "mounts::read_ig")]
    pub ig: MountConfig,
    /// The mount of Netsmart.
    #[serde(deserialize_with = "mounts::read_netsmart")]
    pub netsmart: MountConfig,
    /// The mount of 1upHealth's single-tenant environment.
    #[serde(deserialize_with = "mounts::read_oneup_ste")]
    pub oneup_ste: MountConfig,
    /// The mount of 1upHealth's multi-tenant environment.
    #[serde(deserialize_with = "mounts::read_oneup_mte")]
    pub oneup_mte: MountConfig,
    /// Names of the headers that carry credentials.
    pub auth: AuthConfig,
    /// Tokens for clients that sign assertions.
    pub smart: SmartConfig,
    /// The log, on standard error.
    pub log: LogConfig,
    /// Clients and their credentials; if empty, requests are not authenticated and only loopback may be listened on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientConfig>,
    /// The file that this was read from, to be reloaded when it changes; `None` if there is none.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// `[store]`: the store of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreConfig {
    /// Directory of the store.
    pub path: PathBuf,
    /// Directory of the index, which must be writable; empty for `.outpour` in the store.
    pub index_dir: PathBuf,
    /// Base URLs under which an absolute reference is local, besides those of the tenant's mounts.
    pub fhir_bases: Vec<String>,
    /// What becomes of rows of compressed files that are not proven; `None` for what the index was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unproven: Option<UnprovenPolicy>,
    /// Which ids are legal; `None` for what the index was made with, and so below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdRule>,
    /// What becomes of lines with halves of surrogate pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lone_surrogates: Option<LoneSurrogates>,
    /// Which Patient references are followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patient_references: Option<PatientReferences>,
    /// Which paths make a patient the owner of a row (COMP-15).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compartment_paths: Option<CompartmentPaths>,
    /// Whether symbolic links in the store are followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_symlinks: Option<bool>,
    /// Percent of the resources of the last snapshot that may be gone without a deletion; with more the store counts as
    /// not mounted: the service is not ready, and kick-offs are answered 503.
    pub allow_missing: f64,
    /// Search parameters, as `Observation.category`, whose values are kept in columns of the index once a filter asks for them.
    pub search_columns: Vec<String>,
    /// Search columns beside these that are kept, at most: those that filters asked for last.
    pub other_search_columns: usize,
}

/// `[data]`: where a tenant's jobs, files and Groups are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DataConfig {
    /// Directory of jobs, files and Groups.
    pub path: PathBuf,
    /// Directory of job records, which may be on another volume than the files; empty for `jobs` in `path`.
    pub jobs: PathBuf,
    /// Whether records and files are synced to the disk before a client is informed of them.
    pub sync: bool,
}

/// One entry of `[[tenants]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TenantConfig {
    /// Name of the tenant, the value of `{customer}` in URLs: letters, digits, `-`, `.`, `_`.
    pub name: String,
    /// The store of the tenant.
    pub store: StoreConfig,
    /// Directories for jobs, files and Groups of the tenant.
    pub data: DataConfig,
}

/// `[jobs]`: limits and timing of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobsConfig {
    /// Threads that index and write, at most 1024; 0 for one per processor.
    pub threads: usize,
    /// Jobs of one client that may wait or run; a kick-off beyond is answered 429.
    pub active_per_client: usize,
    /// Jobs of all clients that may wait or run; a kick-off beyond is answered 429.
    pub active: usize,
    /// Attempts at a shard before its job fails.
    pub attempts: u32,
    /// Seconds for which an expired job is answered 410; then it is 404.
    pub remembered_seconds: u64,
    /// Hours for which the files of a failed job are kept, so that another try goes on with them.
    pub failed_hours: u64,
    /// Used share of the disk, in hundredths, from which on a kick-off is answered 507.
    pub disk_high_water: u8,
    /// Seconds for which a job whose files have no room on the disk waits; then it fails.
    pub space_wait_seconds: u64,
    /// Share of the disk, in hundredths, that the files of one client may take where there are several.
    pub client_disk_share: u8,
    /// Exports of a Group by a client whose patients are kept, after their jobs too, for increments on them; 0 for none.
    pub kept_baselines: usize,
    /// A job fails if the store has more faulty lines than this, a number or a share such as `1%`; empty for no
    /// limit.
    pub faults_allowed: String,
    /// Milliseconds that a kick-off waits for the index if it names a Group that the index does not have.
    pub group_wait_milliseconds: u64,
}

/// `[files]`: output files of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FilesConfig {
    /// Largest uncompressed size of a file, as bytes or as a text such as `256MiB`; so are all sizes.
    #[serde(deserialize_with = "deserialize_size")]
    pub max_bytes: u64,
    /// Largest number of resources in a file; 0 for no limit.
    pub max_resources: u64,
    /// Compression of stored files: `none`, `gzip` or `zstd`. A client can always download the identity coding.
    pub compress: Compression,
    /// Digest of files in the manifest: `xxh3`, `sha256` or `none`.
    pub digest: DigestAlgorithm,
}

/// `[limits]`: limits of requests and connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// Largest body of a request, in bytes; a larger one is answered 413.
    #[serde(deserialize_with = "deserialize_size")]
    pub body_bytes: usize,
    /// Sustained polls of one job per second and client; more are answered 429.
    pub polls_per_second: u32,
    /// Polls of one job at once, before `polls_per_second` applies.
    pub polls_burst: u32,
    /// Largest number of open connections.
    pub connections: usize,
    /// Largest request line with headers, in bytes.
    #[serde(deserialize_with = "deserialize_size")]
    pub head_bytes: usize,
    /// Largest number of headers of a request.
    pub headers: usize,
    /// Longest time for the headers of a request to arrive, in seconds.
    pub head_seconds: u64,
    /// Longest silence between two requests, in seconds.
    pub idle_seconds: u64,
    /// Longest pause in the body of a request, in seconds.
    pub body_seconds: u64,
    /// Longest time for the body of a request to arrive as a whole, in seconds.
    pub whole_body_seconds: u64,
    /// Longest time for which a client takes no bytes of an answer, in seconds.
    pub write_seconds: u64,
    /// Time that answers in flight have to end when the service stops, in seconds.
    pub drain_seconds: u64,
}

/// `[log]`: level and format of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// Lowest level that is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// `text` for readers, `json` for programs.
    pub format: LogFormat,
}

/// Format of log lines, see [`LogConfig::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    /// Every value, for parsing.
    pub(crate) const ALL: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];

    /// The word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

by_name!(LogFormat);

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            trusted_proxies: Vec::new(),
            hosts: Vec::new(),
            tls: TlsFiles::default(),
            store: StoreConfig::default(),
            data: DataConfig::default(),
            jobs: JobsConfig::default(),
            files: FilesConfig::default(),
            limits: LimitsConfig::default(),
            tenants: Vec::new(),
            ig: MountConfig::ig(),
            netsmart: MountConfig::netsmart(),
            oneup_ste: MountConfig::oneup_ste(),
            oneup_mte: MountConfig::oneup_mte(),
            auth: AuthConfig::default(),
            smart: SmartConfig::default(),
            log: LogConfig { level: "info".to_string(), format: LogFormat::Text },
            clients: Vec::new(),
            file: None,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        let (path, index_dir) = (PathBuf::new(), PathBuf::new());
        StoreConfig {
            path,
            index_dir,
            fhir_bases: Vec::new(),
            unproven: None,
            ids: None,
            lone_surrogates: None,
            patient_references: None,
            compartment_paths: None,
            follow_symlinks: None,
            allow_missing: ALLOW_MISSING_DEFAULT,
            search_columns: Vec::new(),
            other_search_columns: SearchColumnOptions::default().others_max,
        }
    }
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig { path: PathBuf::new(), jobs: PathBuf::new(), sync: true }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        Config::default().log
    }
}

impl Default for JobsConfig {
    fn default() -> JobsConfig {
        let limits = crate::job::api::JobLimits::default();
        JobsConfig {
            threads: 0,
            active_per_client: limits.active_per_client,
            active: limits.active,
            attempts: limits.attempts,
            remembered_seconds: limits.remembered_seconds,
            failed_hours: limits.failed_seconds / 3600,
            disk_high_water: limits.disk_high_water,
            space_wait_seconds: limits.space_wait_seconds,
            client_disk_share: limits.client_disk_share,
            kept_baselines: limits.kept_baselines,
            faults_allowed: String::new(),
            group_wait_milliseconds: 2000,
        }
    }
}

impl Default for FilesConfig {
    fn default() -> FilesConfig {
        FilesConfig {
            max_bytes: crate::limits::FILE_BYTES_DEFAULT,
            max_resources: 0,
            compress: Compression::None,
            digest: DigestAlgorithm::Xxh3,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        let connections = crate::server::connection::limits::ConnectionLimits::default();
        LimitsConfig {
            body_bytes: 16 << 20,
            polls_per_second: 2,
            polls_burst: 10,
            connections: connections.connections_max,
            head_bytes: connections.head_bytes_max,
            headers: connections.headers_max,
            head_seconds: connections.head_wait.as_secs(),
            idle_seconds: connections.idle_wait.as_secs(),
            body_seconds: connections.body_wait.as_secs(),
            whole_body_seconds: 300,
            write_seconds: connections.write_wait.as_secs(),
            drain_seconds: connections.drain_wait.as_secs(),
        }
    }
}

impl Config {
    /// Reads a configuration from TOML. Values are checked by [`Config::config_problems`].
    ///
    /// # Errors
    /// The first syntax error, unknown key or value of the wrong type, with line and column; every path that names a credential
    /// which is not there.
    pub(crate) fn parse(text: &str) -> Result<Config, String> {
        let mut config: Config = toml::from_str(text).map_err(|error| auth::toml_error(&error, text))?;
        let directory = credentials_directory();
        resolve_credentials(config.credential_paths(), directory.as_deref()).map_err(|problems| problems.join("\n"))?;
        Ok(config)
    }

    /// The paths that may name credentials of the service manager, with their keys.
    fn credential_paths(&mut self) -> Vec<(String, &mut PathBuf)> {
        let mut paths = vec![
            ("tls.certificate".to_string(), &mut self.tls.certificate),
            ("tls.key".to_string(), &mut self.tls.key),
            ("smart.ca_file".to_string(), &mut self.smart.ca_file),
            ("smart.proxy_file".to_string(), &mut self.smart.proxy_file),
        ];
        for client in &mut self.clients {
            if let Some(smart) = &mut client.smart {
                paths.push((format!("client {:?}: smart.jwks_file", client.name), &mut smart.jwks_file));
            }
        }
        paths
    }

    /// The configuration as TOML, with every value.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is plain data")
    }

    /// Prefix of every advertised URL; `listen` is the address that was bound.
    pub(crate) fn public_url(&self, listen: SocketAddr) -> String {
        match self.public_url.trim_end_matches('/') {
            "" if self.tls.is_on() => format!("https://{listen}"),
            "" => format!("http://{listen}"),
            configured => configured.to_string(),
        }
    }

    /// All tenants; `default` is the first if it has a store or there is no other.
    pub(crate) fn all_tenants(&self) -> Vec<TenantConfig> {
        let name = DEFAULT_TENANT.to_string();
        let default = TenantConfig { name, store: self.store.clone(), data: self.data.clone() };
        // Without any tenant, the checks report the missing paths of the default one.
        let has_default = !self.store.path.as_os_str().is_empty() || self.tenants.is_empty();
        has_default.then_some(default).into_iter().chain(self.tenants.iter().cloned()).collect()
    }

    /// The configurations of all mounts, with the names of their tables.
    pub(crate) fn mounts(&self) -> [(&'static str, &MountConfig); 4] {
        [("ig", &self.ig), ("netsmart", &self.netsmart), ("oneup_ste", &self.oneup_ste), ("oneup_mte", &self.oneup_mte)]
    }

    /// The parsed [`JobsConfig::faults_allowed`]; `None` for no limit and for a malformed value.
    pub(crate) fn faults_allowed(&self) -> Option<FaultsAllowed> {
        let text = self.jobs.faults_allowed.trim();
        match text.strip_suffix('%') {
            Some(share) => share.trim().parse().ok().map(FaultsAllowed::Percent),
            None => text.parse().ok().map(FaultsAllowed::Count),
        }
    }
}

impl DataConfig {
    /// Directory of the job records.
    pub(crate) fn records(&self) -> PathBuf {
        match self.jobs.as_os_str().is_empty() {
            true => self.path.join("jobs"),
            false => self.jobs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::mounts::{AcceptedBody, Authorization, HeaderPolicy};

    /// The clients of the documented example are valid once they are uncommented.
    #[test]
    fn the_example_of_clients_is_right() {
        let example = include_str!("../../docs/serve.toml");
        let (_, clients) = example.split_once("\n#[[clients]]").unwrap();
        let clients: Vec<&str> = clients.lines().map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
        let config = Config::parse(&format!("[[clients]]{}", clients.join("\n"))).unwrap();
        assert_eq!(auth::auth_problems(&config.auth, &config.clients), Vec::<String>::new());
        let client = &config.clients[0];
        assert_eq!((client.tokens.len(), client.client_id.as_str(), client.groups.len()), (2, "nightly-1", 1));
        assert_eq!(auth::registration_problems(&config.smart, &config.clients), Vec::<String>::new());
        assert_eq!(client.oauth_id(), Some("nightly-app"));
    }

    /// The words of configurations in use: if this test fails, restore the word.
    #[test]
    fn words_of_configurations_stay_as_they_are() {
        use crate::named_enum::pinned;
        pinned(&[Authorization::Bearer, Authorization::ClientHeaders], &["bearer", "client-headers"]);
        pinned(&[HeaderPolicy::Strict, HeaderPolicy::Assume], &["strict", "assume"]);
        pinned(&[AcceptedBody::Outcome, AcceptedBody::Request], &["outcome", "request"]);
        pinned(&[LogFormat::Text, LogFormat::Json], &["text", "json"]);
        let levels = [auth::LevelName::System, auth::LevelName::Patient, auth::LevelName::Group];
        pinned(&levels, &["system", "patient", "group"]);
        pinned(&crate::server::config::auth::PatientSource::ALL, &["of-groups", "any"]);
    }

    /// The documented example holds every key with its default, and nothing else.
    #[test]
    fn the_example_is_the_default() {
        let example = include_str!("../../docs/serve.toml");
        let mut default = Config::default();
        default.store.path = "/data/fhir".into();
        default.data.path = "/var/lib/outpour".into();
        assert_eq!(Config::parse(example).unwrap(), default);
        assert_eq!(default.config_problems(), Vec::<String>::new());
        let keys = |text: &str| {
            let table: toml::Table = toml::from_str(text).unwrap();
            let mut keys = Vec::new();
            for (name, value) in table {
                match value {
                    toml::Value::Table(inner) => keys.extend(inner.keys().map(|key| format!("{name}.{key}"))),
                    _ => keys.push(name),
                }
            }
            keys.sort();
            keys
        };
        // A key without a default is a comment in the example.
        let commented =
            |key: &String| key != "tenants" && !key.ends_with(".supported_profiles") && !key.ends_with(".presets");
        let known: Vec<String> = keys(&default.to_toml()).into_iter().filter(commented).collect();
        assert_eq!(keys(example), known);
        assert_eq!(Config::parse(&default.to_toml()).unwrap(), default, "what is printed can be read");
    }

    /// Sizes are numbers of bytes or texts with units, in every section that has some; other texts are refused by their place.
    #[test]
    fn sizes_may_be_texts() {
        let text = "[files]\nmax_bytes = '1.5G'\n[limits]\nbody_bytes = '1MB'\nhead_bytes = 8192\n[ig]\ngroup_bytes_max = '400KiB'";
        let config = Config::parse(text).unwrap();
        assert_eq!(
            (config.files.max_bytes, config.limits.body_bytes, config.limits.head_bytes),
            (3 << 29, 1_000_000, 8192)
        );
        assert_eq!(config.ig.group_bytes_max, 400 << 10);
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
        for wrong in ["'256 MX'", "-1", "1.5", "'16383P'"] {
            let found = Config::parse(&format!("[files]\nmax_bytes = {wrong}")).unwrap_err();
            assert!(found.contains("line 2") && found.contains("size"), "{wrong}: {found}");
        }
    }

    /// KICK-13, DIALECT-04: an absent key has its default, also beside keys that are present; each mount has those of
    /// its dialect.
    #[test]
    fn sections_may_be_given_in_part() {
        let config = Config::parse("[data]\npath = 'd'\n[netsmart]\nbase = '/n'\n[[tenants]]\nname = 'b'\n").unwrap();
        assert!(config.data.sync && config.tenants[0].data.sync);
        assert_eq!(config.netsmart, MountConfig { base: "/n".into(), ..MountConfig::netsmart() });
        assert_eq!(config.oneup_mte, MountConfig::oneup_mte());
        assert!(Config::parse("[netsmart]\nbse = '/n'\n").unwrap_err().contains("bse"));
    }

    /// DIALECT-04, ONEUP-M01: no two tenants share a directory; each mount has a tenant and a base of its own.
    #[test]
    fn tenants_and_mounts_are_checked() {
        let base = "store = { path = 's' }\ndata = { path = 'd' }\n[log]\nlevel = 'info'\n";
        let tenant = |name: &str, store: &str, data: &str| {
            format!("[[tenants]]\nname = '{name}'\nstore = {{ path = '{store}' }}\ndata = {{ path = '{data}' }}\n")
        };
        for (more, problems) in [
            (String::new(), &[][..]),
            (tenant("b", "s2", "d2"), &[]),
            (tenant("b", "s", "d2"), &["store.path is that of tenant \"default\""]),
            (tenant("b", "s2", "d"), &["data.path is that of tenant", "data.jobs is that of tenant"]),
            (tenant("b/c", "s2", "d2"), &["a name has"]),
            (tenant("b", "s2", "d2") + &tenant("b", "s3", "d3"), &["stands twice"]),
            ("[netsmart]\nbase = '/fhir/x'\n".into(), &["netsmart.base stands at or below ig.base"]),
            ("[netsmart]\nbase = '/fhir'\n".into(), &["netsmart.base stands at or below ig.base"]),
            ("[ig]\ntenant = 'c'\n".into(), &["ig.tenant \"c\" is no tenant (default)"]),
            ("[ig]\ntenant = 'c'\nenabled = false\n".into(), &[]),
            ("[oneup_ste]\nbase = '/x/{customer}'\nauthorization = []\n".into(), &["oneup_ste.authorization"]),
            ("[ig]\naccepted_body = 'request'\n".into(), &["ig.accepted_body"]),
            ("[jobs]\nthreads = 1024\n".into(), &[]),
            ("[jobs]\nthreads = 1025\n".into(), &["jobs.threads is 1025, more than 1024"]),
            ("[[clients]]\nname = 'c'\ntenants = ['default', 'x']\n".into(), &["\"x\", which is no tenant"]),
            ("[ig]\nsupported_profiles = { Nope = [] }\n".into(), &["Nope"]),
        ] {
            let found = Config::parse(&format!("{base}{more}")).unwrap().config_problems();
            assert_eq!(found.len(), problems.len(), "{more}: {found:?}");
            for (found, problem) in found.iter().zip(problems) {
                assert!(found.contains(problem), "{found}: {problem}");
            }
        }
    }

    /// All problems are reported at once; unknown keys are refused by name. CORE-01: no other address than loopback.
    #[test]
    fn wrong_configurations_are_refused() {
        assert!(Config::parse("lissten = 1").unwrap_err().contains("lissten"));
        assert!(Config::parse("[jobs]\nactive = \"x\"").unwrap_err().contains("line 2"));
        let text = "listen = '0.0.0.0:80'\npublic_url = 'here'\n[store]\nsearch_columns = ['Patient.nope', 'Patient.family']\n[ig]\nbase = 'fhir/'\n[jobs]\nactive = 0\nfaults_allowed = '200%'\n[log]\nlevel = 'loud'";
        let problems = Config::parse(text).unwrap().config_problems();
        for word in
            ["store.path", "data.path", "listen", "public_url", "ig.base", "jobs.active", "faults_allowed", "log.level"]
        {
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
        }
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("store.search_columns: Patient.nope is no search parameter"))
        );
        assert!(problems.iter().any(|problem| problem.contains("Patient.family is a text")));
        assert_eq!(problems.len(), 10);
    }

    /// CORE-01, CORE-05: TLS needs both files; a service that other machines reach needs a public URL.
    #[test]
    fn tls_and_proxies_are_whole() {
        let problems = |text: &str| {
            let mut config = Config::parse(text).unwrap();
            (config.store.path, config.data.path) = ("store".into(), "data".into());
            config.config_problems()
        };
        for (text, words) in [
            ("", &[][..]),
            ("[tls]\ncertificate = 'c'\nkey = 'k'", &[]),
            ("trusted_proxies = ['127.0.0.1', 'fd00::/8']", &[]),
            ("hosts = ['bulk.example.org', '10.0.0.1']", &[]),
            ("hosts = ['http://bulk', '*', 'bulk']", &["\"http://bulk\"", "\"*\""]),
            ("[tls]\ncertificate = 'c'", &["not tls.key"]),
            ("[tls]\nkey = 'k'", &["not tls.certificate"]),
            ("trusted_proxies = ['10.0.0.0/8', 'proxy', '10.0.0.0/40']", &["\"proxy\"", "\"10.0.0.0/40\""]),
            ("listen = '10.0.0.1:80'\ntrusted_proxies = ['10.0.0.2']", &["without authorization", "public_url"]),
            ("listen = '0.0.0.0:80'\n[tls]\ncertificate = 'c'\nkey = 'k'", &["without authorization", "0.0.0.0 is no"]),
            ("listen = '10.0.0.1:80'\n[tls]\ncertificate = 'c'\nkey = 'k'", &["without authorization"]),
        ] {
            let found = problems(text);
            assert_eq!(found.len(), words.len(), "{text}: {found:?}");
            for word in words {
                assert!(found.iter().any(|problem| problem.contains(word)), "{word}: {found:?}");
            }
        }
        let listen = "127.0.0.1:1".parse().unwrap();
        let mut config = Config::default();
        assert_eq!(config.public_url(listen), "http://127.0.0.1:1");
        config.tls = TlsFiles { certificate: "c".into(), key: "k".into() };
        assert_eq!(config.public_url(listen), "https://127.0.0.1:1");
        config.public_url = "https://bulk.example.org/".into();
        assert_eq!(config.public_url(listen), "https://bulk.example.org");
    }
}
