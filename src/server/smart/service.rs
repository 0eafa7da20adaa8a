//! The parts of token requests that live as long as the service: keys, used assertions, limits.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::fhir::resource_type::ResourceType;
use crate::limits::TLS_FILE_BYTES_MAX;
use crate::server::config::smart::SmartConfig;
use crate::server::rate_limit::RateLimiter;
use crate::server::smart::access_token::{CheckedToken, TokenError, check_token, is_access_token, make_token};
use crate::server::smart::discovery::TOKEN_PATH;
use crate::server::smart::fetch::{FetchOptions, KeySetFetcher, read_authorities};
use crate::server::smart::key_source::KeySource;
use crate::server::smart::replay::{LocalReplayCache, ReplayCache, SharedReplayCache};
use crate::server::smart::scope::ScopeRights;
use crate::server::smart::signing_keys::{KeyAges, SigningKeys};
use crate::sys::durability::FileSync;
use crate::sys::regular_file::read_regular;

/// A client that is registered for token requests.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredClient {
    /// Name of the client, for the log.
    pub name: String,
    /// What its scopes may open.
    pub rights: ScopeRights,
    /// Types that it may export; `None` for all.
    pub types: Option<Vec<ResourceType>>,
    /// Its keys.
    pub keys: Arc<KeySource>,
}

/// Access tokens of this service: made, and checked.
#[derive(Debug)]
pub(crate) struct AccessTokens {
    keys: SigningKeys,
    /// Public URL of the service.
    service: String,
    seconds: u64,
}

impl AccessTokens {
    /// A new token, and the seconds for which it is valid. Blocks, if a key must be made.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn make(&self, client: &str, scope: &str, now: u64) -> std::io::Result<(String, u64)> {
        Ok((make_token(&self.keys, &self.service, client, scope, now, self.seconds)?, self.seconds))
    }

    /// Whether a key is there that may sign at a second of Unix time.
    pub(crate) fn has_key(&self, now: u64) -> bool {
        self.keys.fresh_key(now).is_some()
    }

    /// Whether a bearer token that begins with `first`, up to its first dot, is an access token.
    pub(crate) fn is_one(&self, first: &str) -> bool {
        is_access_token(&self.keys, first)
    }

    /// Checks a token at a second of Unix time.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn check(&self, token: &str, now: u64) -> Result<CheckedToken, TokenError> {
        check_token(&self.keys, &self.service, token, now)
    }
}

/// What a token request needs beside the clients.
pub(crate) struct TokenService {
    /// URL of the token endpoint, which assertions must name.
    pub token_url: String,
    /// The tokens.
    pub tokens: Arc<AccessTokens>,
    /// Assertions that were used.
    pub used: ReplayCache,
    /// Whether they may be used again.
    pub assertion_reuse: bool,
    /// Seconds by which clocks of clients may differ.
    pub clock_skew_seconds: u64,
    /// Fetches key sets.
    pub fetcher: KeySetFetcher,
    /// Requests of one address.
    pub address_requests: RateLimiter<IpAddr>,
    /// Requests of one client.
    pub client_requests: RateLimiter<String>,
    /// Refused requests of one address.
    pub failures: RateLimiter<IpAddr>,
}

impl fmt::Debug for TokenService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenService({})", self.token_url)
    }
}

impl TokenService {
    /// The service of a configuration. `directory` is for its keys and its used assertions; `now` is the current second of
    /// Unix time. Blocks.
    ///
    /// # Errors
    /// A sentence on what cannot be read or made.
    pub(crate) fn open(
        settings: &SmartConfig,
        public_url: &str,
        directory: &Path,
        sync: FileSync,
        now: u64,
    ) -> Result<TokenService, String> {
        let fetcher = KeySetFetcher::new(fetch_options(settings)?)?;
        let ages = KeyAges {
            signs: settings.key_days * 24 * 3600,
            checks_on: settings.token_seconds + settings.clock_skew_seconds,
        };
        let unusable = |what: &Path, error: std::io::Error| {
            format!("{} cannot be used: {error}; make it writable", what.display())
        };
        let keys = SigningKeys::open(directory, sync, ages).map_err(|error| unusable(directory, error))?;
        let shared = &settings.jti_dir;
        let used = match shared.as_os_str().is_empty() {
            true => {
                let own = directory.join("assertions");
                ReplayCache::Local(LocalReplayCache::open(&own, sync, now).map_err(|error| unusable(&own, error))?)
            }
            false => ReplayCache::Shared(SharedReplayCache::open(shared).map_err(|error| unusable(shared, error))?),
        };
        let (rate, burst) = (f64::from(settings.requests_per_second), f64::from(settings.requests_burst));
        let failures = f64::from(settings.failures_per_minute);
        Ok(TokenService {
            token_url: format!("{public_url}{TOKEN_PATH}"),
            tokens: Arc::new(AccessTokens { keys, service: public_url.to_string(), seconds: settings.token_seconds }),
            used,
            assertion_reuse: settings.assertion_reuse,
            clock_skew_seconds: settings.clock_skew_seconds,
            fetcher,
            address_requests: RateLimiter::new(rate, burst),
            client_requests: RateLimiter::new(rate, burst),
            // A client that is being set up fails several times in a row.
            failures: RateLimiter::new(failures / 60.0, failures * 2.0),
        })
    }
}

/// The ways to fetch key sets, with the files that the configuration names.
///
/// # Errors
/// A sentence on a file that cannot be read.
fn fetch_options(settings: &SmartConfig) -> Result<FetchOptions, String> {
    let read = |key: &str, path: &Path| {
        read_regular(path, TLS_FILE_BYTES_MAX)
            .map_err(|error| format!("smart.{key} {}: it cannot be read: {error}", path.display()))
    };
    let mut options = FetchOptions { hosts: settings.jwks_hosts.clone(), ..FetchOptions::default() };
    if !settings.ca_file.as_os_str().is_empty() {
        let pem = read("ca_file", &settings.ca_file)?;
        options.authorities = read_authorities(&pem).ok_or_else(|| {
            format!("smart.ca_file {}: it holds no certificate in PEM form", settings.ca_file.display())
        })?;
    }
    if !settings.proxy_file.as_os_str().is_empty() {
        let text = String::from_utf8(read("proxy_file", &settings.proxy_file)?);
        let unreadable = |_| format!("smart.proxy_file {}: it is no text", settings.proxy_file.display());
        options.proxy = Some(text.map_err(unreadable)?.trim().to_string());
    }
    Ok(options)
}
