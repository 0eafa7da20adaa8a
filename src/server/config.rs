//! The configuration: one TOML file, every key with a default, none that is not known. The command line may stand in for
//! the most common keys.
//!
//! Units stand in the names. What contradicts itself or the machine is told before anything is opened, all at once.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::export::FaultsAllowed;
use crate::select::{Late, Members, MissingLastUpdated};
use crate::write::digest::DigestAlgorithm;
use crate::write::encode::Coding;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What every advertised URL begins with, without a slash at its end; empty for `http://` and the address (CORE-05).
    pub public_url: String,
    /// The store.
    pub store: StoreConfig,
    /// Where the service keeps what is its own.
    pub data: DataConfig,
    /// Jobs.
    pub jobs: JobsConfig,
    /// Files of an export.
    pub files: FilesConfig,
    /// Bounds of what clients may ask.
    pub limits: LimitsConfig,
    /// Groups that clients make.
    pub groups: GroupsConfig,
    /// The door of the Bulk Data IG.
    pub ig: IgConfig,
    /// The log, on standard error.
    pub log: LogConfig,
}

/// `[store]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Directory of the store.
    pub path: PathBuf,
    /// Where its index lies; empty for `.outpour` in the store. It must be writable.
    pub index_dir: PathBuf,
    /// Bases under which absolute references are ours, besides the base that the service itself stands under.
    pub fhir_bases: Vec<String>,
}

/// `[data]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Directory of jobs, files and Groups.
    pub path: PathBuf,
    /// Where the records of jobs lie, if not in `jobs` there: they may be on another volume than the files.
    pub jobs: PathBuf,
    /// Whether records and files are on the disk before anybody is told of them.
    pub sync: bool,
}

/// `[jobs]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Threads that index and write; 0 for one a processor.
    pub threads: usize,
    /// Jobs of one client that may wait or run; one more is answered 429.
    pub active_per_client: usize,
    /// Jobs of all clients that may wait or run.
    pub active: usize,
    /// Times that a shard is tried before its job fails.
    pub attempts: u32,
    /// How long files are kept, in seconds; 0 for ever.
    pub keep_seconds: u64,
    /// How long an expired job is answered 410 before it is 404, in seconds.
    pub remembered_seconds: u64,
    /// Share of the disk, in hundredths, from which on a kick-off is answered 507.
    pub disk_high_water: u8,
    /// More faulty lines in the store than this, a number or a share such as `1%`, fail a job; empty for no limit.
    pub faults_allowed: String,
    /// How long a kick-off waits for the index when it names a Group that the index does not know, in milliseconds.
    pub group_wait_milliseconds: u64,
}

/// `[files]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    /// Most uncompressed bytes of a file.
    pub max_bytes: u64,
    /// Most resources of a file; 0 for no limit.
    pub max_resources: u64,
    /// How files are stored: `none`, `gzip` or `zstd`. Clients may always ask for identity.
    pub compress: Coding,
    /// The digest in the manifest: `xxh3`, `sha256` or `none`.
    pub digest: DigestAlgorithm,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Most bytes of the body of a request; more are 413.
    pub body_bytes: usize,
    /// Polls of one job a second that a client may keep up; more are 429.
    pub polls_per_second: u32,
    /// Polls of one job at once before that holds.
    pub polls_burst: u32,
    /// Most connections at a time.
    pub connections: usize,
    /// Most bytes of a request line and its headers.
    pub head_bytes: usize,
    /// Most headers of a request.
    pub headers: usize,
    /// Longest time for the headers of a request, in seconds.
    pub head_seconds: u64,
    /// Longest silence between two requests, in seconds.
    pub idle_seconds: u64,
    /// Longest pause in the body of a request, in seconds.
    pub body_seconds: u64,
    /// Longest time for which a client takes no bytes of an answer, in seconds.
    pub write_seconds: u64,
    /// Time that answers in flight have to end when the service stops, in seconds.
    pub drain_seconds: u64,
}

/// `[groups]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupsConfig {
    /// Whether clients may make, change and delete Groups.
    pub writable: bool,
    /// Most members of a Group that a client sends.
    pub max_members: usize,
}

/// `[ig]`: the mount that speaks the Bulk Data Access IG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IgConfig {
    /// Path of its base, with a slash in front.
    pub base: String,
    /// `strict` refuses a kick-off without `Accept` or `Prefer` headers, `assume` takes them as given (HDR-01, HDR-03).
    pub header_policy: HeaderPolicy,
    /// `active` reads Group members as R4 does, `listed` takes all (GROUP-04).
    pub members: Members,
    /// Rows that reached the store late: `include` or `report`.
    pub late: Late,
    /// Rows without `meta.lastUpdated` under `_since` and `_until`: `include` or `exclude`.
    pub missing_last_updated: MissingLastUpdated,
    /// How far in the future `_since` and `_until` may lie, in seconds, because clocks differ (SINCE-03).
    pub clock_skew_seconds: u64,
    /// Whether `$export` of the whole system is on.
    pub system_level: bool,
    /// Whether `Patient/$export` is on.
    pub patient_level: bool,
    /// Whether the first poll of a job is always answered 202, as a public test suite expects (CLIENT-12).
    pub first_poll_in_progress: bool,
}

/// See [`IgConfig::header_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum HeaderPolicy {
    Strict,
    Assume,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
}

/// See [`LogConfig::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            store: StoreConfig::default(),
            data: DataConfig { sync: true, ..DataConfig::default() },
            jobs: JobsConfig::default(),
            files: FilesConfig::default(),
            limits: LimitsConfig::default(),
            groups: GroupsConfig { writable: true, max_members: 1_000_000 },
            ig: IgConfig::default(),
            log: LogConfig { level: "info".to_string(), format: LogFormat::Text },
        }
    }
}

impl Default for GroupsConfig {
    fn default() -> GroupsConfig {
        Config::default().groups
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        Config::default().log
    }
}

impl Default for JobsConfig {
    fn default() -> JobsConfig {
        let limits = crate::job::Limits::default();
        JobsConfig {
            threads: 0,
            active_per_client: limits.active_per_client,
            active: limits.active,
            attempts: limits.attempts,
            keep_seconds: 7 * 24 * 3600,
            remembered_seconds: limits.remembered_seconds,
            disk_high_water: limits.disk_high_water,
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
            compress: Coding::None,
            digest: DigestAlgorithm::Xxh3,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        let connections = super::connection::ConnectionLimits::default();
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
            write_seconds: connections.write_wait.as_secs(),
            drain_seconds: connections.drain_wait.as_secs(),
        }
    }
}

impl Default for IgConfig {
    fn default() -> IgConfig {
        IgConfig {
            base: "/fhir".to_string(),
            header_policy: HeaderPolicy::Strict,
            members: Members::Active,
            late: Late::Include,
            missing_last_updated: MissingLastUpdated::Include,
            clock_skew_seconds: 60,
            system_level: true,
            patient_level: true,
            first_poll_in_progress: true,
        }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The configuration as a file would hold it, every value visible.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is plain data")
    }

    /// What every advertised URL begins with; `listen` is the address that was really bound.
    pub fn public_url(&self, listen: SocketAddr) -> String {
        match self.public_url.trim_end_matches('/') {
            "" => format!("http://{listen}"),
            given => given.to_string(),
        }
    }

    /// Where the records of jobs lie.
    pub fn records(&self) -> PathBuf {
        match self.data.jobs.as_os_str().is_empty() {
            true => self.data.path.join("jobs"),
            false => self.data.jobs.clone(),
        }
    }

    /// See [`JobsConfig::faults_allowed`].
    pub fn faults_allowed(&self) -> Option<FaultsAllowed> {
        let text = self.jobs.faults_allowed.trim();
        match text.strip_suffix('%') {
            Some(share) => share.trim().parse().ok().map(FaultsAllowed::Percent),
            None => text.parse().ok().map(FaultsAllowed::Count),
        }
    }

    /// Everything that is wrong with it, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        must(!self.store.path.as_os_str().is_empty(), "store.path is not given: name the store with --store".into());
        must(
            !self.data.path.as_os_str().is_empty(),
            "data.path is not given: name a directory for jobs, files and Groups with --data".into(),
        );
        must(
            self.listen.ip().is_loopback(),
            format!(
                "listen is {}, but without authorization the service answers this machine alone: listen on 127.0.0.1 \
                 or ::1, and let a proxy that knows its clients stand before it",
                self.listen
            ),
        );
        let url = self.public_url.as_str();
        must(
            url.is_empty()
                || url.parse::<axum::http::Uri>().is_ok_and(|url| url.scheme().is_some() && url.host().is_some()),
            format!("public_url {url:?} is no absolute URL, such as https://bulk.example.org"),
        );
        let base = self.ig.base.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        must(
            base.len() > 1
                && base.starts_with('/')
                && !base.ends_with('/')
                && !base.contains("//")
                && base.chars().all(plain),
            format!("ig.base {base:?} is no path such as /fhir"),
        );
        must(!base.starts_with("/health"), "ig.base stands where /health is".into());
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
            must(value > 0, format!("{name} is 0; give at least 1"));
        }
        must(self.limits.head_bytes >= 8192, "limits.head_bytes is less than 8192".into());
        must(self.jobs.disk_high_water <= 100, "jobs.disk_high_water is a share in hundredths, at most 100".into());
        let allowed = self.jobs.faults_allowed.trim();
        let share =
            |allowed: FaultsAllowed| !matches!(allowed, FaultsAllowed::Percent(p) if !(0.0..=100.0).contains(&p));
        must(
            allowed.is_empty() || self.faults_allowed().is_some_and(share),
            format!("jobs.faults_allowed {allowed:?} is neither a number nor a share such as 1%"),
        );
        must(
            self.log.level.parse::<tracing::Level>().is_ok(),
            format!("log.level {:?} is none of error, warn, info, debug, trace", self.log.level),
        );
        for base in &self.store.fhir_bases {
            must(base.contains("://"), format!("store.fhir_bases holds {base:?}, which is no absolute URL"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented example holds every key with its default, and nothing else.
    #[test]
    fn the_example_is_the_default() {
        let example = include_str!("../docs/serve.toml");
        let mut default = Config::default();
        default.store.path = "/data/fhir".into();
        default.data.path = "/var/lib/outpour".into();
        assert_eq!(Config::parse(example).unwrap(), default);
        assert_eq!(default.problems(), Vec::<String>::new());
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
        assert_eq!(keys(example), keys(&default.to_toml()));
        assert_eq!(Config::parse(&default.to_toml()).unwrap(), default, "what is printed can be read");
    }

    /// Every problem is told at once; unknown keys are refused by name. CORE-01: no other address than loopback.
    #[test]
    fn wrong_configurations_are_refused() {
        assert!(Config::parse("lissten = 1").unwrap_err().contains("lissten"));
        assert!(Config::parse("[jobs]\nactive = \"x\"").unwrap_err().contains("line 2"));
        let text = "listen = '0.0.0.0:80'\npublic_url = 'here'\n[ig]\nbase = 'fhir/'\n[jobs]\nactive = 0\nfaults_allowed = '200%'\n[log]\nlevel = 'loud'";
        let problems = Config::parse(text).unwrap().problems();
        for word in
            ["store.path", "data.path", "listen", "public_url", "ig.base", "jobs.active", "faults_allowed", "log.level"]
        {
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
        }
        assert_eq!(problems.len(), 8);
    }
}
