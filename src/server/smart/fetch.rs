//! Fetches key sets of clients over HTTP, from places that a client may not choose freely (AUTH-11).
//!
//! A URL is the operator's, but the names in it are resolved by servers of others, and the answer is a stranger's: so the
//! time and the length of an answer are bounded, redirects stay at the same host, and addresses of private networks are
//! connected to only for hosts that the operator names. A name is resolved once for each connection, and what it resolves to
//! is what is checked and connected to: a name whose addresses change in between gains nothing.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Uri;
use axum::http::uri::Scheme;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::config::Config;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Proxy};

use crate::limits::{JWKS_BYTES_MAX, JWKS_FETCH_SECONDS, JWKS_LIFETIME_SECONDS_MAX, JWKS_REDIRECTS_MAX};

/// How long a set without `Cache-Control` is kept.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);

/// An answer with a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchedSet {
    /// The set, not yet read.
    pub bytes: Vec<u8>,
    /// How long it may be used.
    pub lifetime: Duration,
}

/// The ways in which key sets are fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FetchOptions {
    /// Hosts that may have private addresses; those on loopback may be asked by plain HTTP.
    pub hosts: Vec<String>,
    /// Certificates of authorities that are trusted; those of the system if there are none.
    pub authorities: Vec<CertificateDer<'static>>,
    /// URL of the proxy for all other hosts.
    pub proxy: Option<String>,
}

/// Fetches key sets. Blocks.
#[derive(Clone, Debug)]
pub(crate) struct KeySetFetcher {
    /// For hosts that the operator names, and for all where there is no proxy.
    direct: Agent,
    /// For the others where there is one.
    proxied: Option<Agent>,
    hosts: Arc<Vec<String>>,
}

impl KeySetFetcher {
    /// A fetcher with these options.
    ///
    /// # Errors
    /// A sentence on the proxy.
    pub(crate) fn new(options: FetchOptions) -> Result<KeySetFetcher, String> {
        let tls = tls_settings(options.authorities);
        let proxy = options.proxy.as_deref().map(Proxy::new).transpose();
        let proxy =
            proxy.map_err(|_| "the proxy for key sets is no URL such as http://proxy.example.org:3128".to_string())?;
        let hosts: Arc<Vec<String>> = Arc::new(options.hosts);
        let agent = |proxy: Option<Proxy>| {
            let proxy_host = proxy.as_ref().map(|proxy| proxy.host().to_string());
            let config = agent_settings(tls.clone(), proxy, Duration::from_secs(JWKS_FETCH_SECONDS));
            let resolver =
                GuardedResolver { inner: Box::new(DefaultResolver::default()), hosts: hosts.clone(), proxy_host };
            Agent::with_parts(config, DefaultConnector::default(), resolver)
        };
        Ok(KeySetFetcher { direct: agent(None), proxied: proxy.map(|proxy| agent(Some(proxy))), hosts: hosts.clone() })
    }

    /// The problem with the URL of a key set; `None` if it may be asked.
    pub(crate) fn url_problem(url: &str, hosts: &[String]) -> Option<String> {
        let Ok(uri) = url.parse::<Uri>() else { return Some("is no URL".to_string()) };
        let host = uri.host().unwrap_or_default();
        let is_named = is_named(hosts, host);
        if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Some("has no host, or a name and a password in front of it".to_string());
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_named && is_this_machine(host) => {}
            Some("http") if is_this_machine(host) => {
                return Some(format!(
                    "is asked by plain HTTP; give https, or, since it is on this machine, jwks_hosts = [\"{host}\"] in [smart]"
                ));
            }
            Some("http") => {
                let text = "is asked by plain HTTP, in which everybody on the way can give other keys; give https";
                return Some(text.to_string());
            }
            _ => return Some("is no URL of https".to_string()),
        }
        match literal_address(host) {
            Some(address) if !is_public(address) && !is_named => {
                Some(format!("has a private address; if it is meant, give jwks_hosts = [\"{host}\"] in [smart]"))
            }
            _ => None,
        }
    }

    /// Fetches a set.
    ///
    /// # Errors
    /// The predicate of a sentence about the set, for the log.
    pub(crate) fn fetch(&self, url: &str) -> Result<FetchedSet, String> {
        let deadline = Instant::now() + Duration::from_secs(JWKS_FETCH_SECONDS);
        let mut place: Uri = url.parse().map_err(|_| "has no URL".to_string())?;
        for _ in 0..=JWKS_REDIRECTS_MAX {
            let is_direct = is_named(&self.hosts, place.host().unwrap_or_default());
            let agent = self.proxied.as_ref().filter(|_| !is_direct).unwrap_or(&self.direct);
            let mut response = agent
                .get(&place)
                .config()
                .timeout_global(Some(deadline.saturating_duration_since(Instant::now())))
                .build()
                .call()
                .map_err(|error| format!("cannot be fetched: {error}"))?;
            if response.status().is_redirection() {
                place = self.redirected(&place, response.headers().get("location"))?;
                continue;
            }
            if response.status().as_u16() != 200 {
                return Err(format!("cannot be fetched: the answer is {}", response.status().as_u16()));
            }
            let lines = response.headers().get_all("cache-control").iter().filter_map(|line| line.to_str().ok());
            let lifetime = lifetime(&lines.collect::<Vec<_>>().join(","));
            let mut bytes = Vec::new();
            let body = response.body_mut().as_reader().take(JWKS_BYTES_MAX + 1).read_to_end(&mut bytes);
            body.map_err(|error| format!("cannot be fetched: {error}"))?;
            if bytes.len() as u64 > JWKS_BYTES_MAX {
                return Err(format!("has more than {JWKS_BYTES_MAX} bytes"));
            }
            return Ok(FetchedSet { bytes, lifetime });
        }
        Err(format!("cannot be fetched: it is redirected more than {JWKS_REDIRECTS_MAX} times"))
    }

    /// The place that a redirect names, at the same host (AUTH-11).
    fn redirected(&self, from: &Uri, location: Option<&axum::http::HeaderValue>) -> Result<Uri, String> {
        let text =
            location.and_then(|value| value.to_str().ok()).ok_or("cannot be fetched: a redirect names no place")?;
        let same = |to: &Uri| to.scheme() == from.scheme() && to.authority() == from.authority();
        let to: Uri = match text.strip_prefix('/') {
            Some(rest) if !rest.starts_with('/') => {
                let mut parts = from.clone().into_parts();
                parts.path_and_query = text.parse().ok();
                Uri::from_parts(parts).map_err(|_| "cannot be fetched: a redirect names no place".to_string())?
            }
            _ => text.parse().map_err(|_| "cannot be fetched: a redirect names no place".to_string())?,
        };
        match same(&to) && Self::url_problem(&to.to_string(), &self.hosts).is_none() {
            true => Ok(to),
            false => Err("cannot be fetched: it is redirected to another host, which is not followed".to_string()),
        }
    }
}

/// An agent that asks a service which the user of a command named: any address, no proxy.
pub(crate) fn service_agent(options: FetchOptions, wait: Duration) -> Agent {
    agent_settings(tls_settings(options.authorities), None, wait).new_agent()
}

/// The certificates of a PEM file; `None` if it holds none, or something broken.
pub(crate) fn read_authorities(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|found| !found.is_empty())
}

/// TLS with these authorities, or those of the system if there are none.
fn tls_settings(mut authorities: Vec<CertificateDer<'static>>) -> TlsConfig {
    if authorities.is_empty() {
        // What cannot be read of them is missed when a host is asked.
        authorities = rustls_native_certs::load_native_certs().certs;
    }
    let roots: Vec<Certificate<'static>> =
        authorities.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build()
}

/// Settings of an agent: one answer within a time, redirects and errors left to the caller.
fn agent_settings(tls: TlsConfig, proxy: Option<Proxy>, wait: Duration) -> Config {
    Config::builder()
        .tls_config(tls)
        .proxy(proxy)
        .timeout_global(Some(wait))
        .max_redirects(0)
        .http_status_as_error(false)
        .max_response_header_size(16 << 10)
        .max_idle_connections(0)
        .user_agent(concat!("outpour/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .build()
}

/// How long an answer with this `Cache-Control` may be used (RFC 9111): as long as `max-age` says, but no longer than a bound;
/// not at all with `no-store` or `no-cache`.
fn lifetime(cache_control: &str) -> Duration {
    let most = Duration::from_secs(JWKS_LIFETIME_SECONDS_MAX);
    let mut lifetime = LIFETIME_DEFAULT;
    for directive in cache_control.split(',').map(|one| one.trim().to_ascii_lowercase()) {
        let (name, value) = directive.split_once('=').unwrap_or((&directive, ""));
        match name.trim() {
            "no-store" | "no-cache" => return Duration::ZERO,
            // What cannot be read is no leave to keep it.
            "max-age" => {
                lifetime = Duration::from_secs(value.trim().trim_matches('"').parse().unwrap_or(0));
            }
            _ => {}
        }
    }
    lifetime.min(most)
}

/// Whether an operator named this host.
fn is_named(hosts: &[String], host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    hosts.iter().any(|named| named.eq_ignore_ascii_case(host) || named.eq_ignore_ascii_case(bare))
}

/// Whether a host is this machine, whatever name servers say.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || literal_address(host).is_some_and(|one| one.to_canonical().is_loopback())
}

/// The address that a host is, if it is no name.
fn literal_address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names, and refuses addresses that no key set of a client should stand at.
#[derive(Debug)]
struct GuardedResolver {
    inner: Box<dyn Resolver>,
    /// Hosts that may have private addresses.
    hosts: Arc<Vec<String>>,
    /// The host of the proxy, which the operator chose.
    proxy_host: Option<String>,
}

impl std::fmt::Debug for ResolverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Why a name is not connected to.
struct ResolverError(&'static str);

impl std::fmt::Display for ResolverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ResolverError {}

impl Resolver for GuardedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        if self.proxy_host.as_deref().is_some_and(|proxy| proxy.eq_ignore_ascii_case(host)) {
            return Ok(found);
        }
        let named = is_named(&self.hosts, host);
        let refuse = |why| Err(ureq::Error::Other(Box::new(ResolverError(why))));
        if !named && found.iter().any(|address| !is_public(address.ip())) {
            return refuse("its host has a private address, and is not named in jwks_hosts of [smart]");
        }
        let is_plain = uri.scheme() != Some(&Scheme::HTTPS);
        if is_plain && found.iter().any(|address| !address.ip().to_canonical().is_loopback()) {
            return refuse("plain HTTP is for hosts on this machine alone");
        }
        Ok(found)
    }
}

/// Whether an address is one of the public internet: none of the registries of special purposes
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>),
/// also when it is wrapped in an IPv6 address.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    let embedded = |at: usize| {
        let octets = address.octets();
        is_public_v4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]))
    };
    match (a, b) {
        // NAT64 of addresses that are public, and 6to4.
        (0x64, 0xff9b) if c == 0 => embedded(12),
        (0x2002, _) => embedded(2),
        // Teredo, benchmarks, ORCHID, documentation.
        (0x2001, b) if b < 0x200 || b == 0xdb8 => false,
        (0x3fff, b) if b < 0x1000 => false,
        // Everything that is assigned to the internet.
        (a, _) => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AUTH-11: addresses of private networks in every disguise.
    #[test]
    fn private_addresses_are_known() {
        for (text, public) in [
            ("8.8.8.8", true),
            ("2606:4700::1111", true),
            ("64:ff9b::808:808", true),
            ("2002:808:808::1", true),
            ("127.0.0.1", false),
            ("127.255.0.1", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("198.18.0.1", false),
            ("192.0.0.8", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("::127.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("64:ff9b:1::1", false),
            ("2002:a00:1::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("100::1", false),
        ] {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }

    /// A name whose addresses change at each look: public, private, both.
    #[derive(Debug, Default)]
    struct ChangingName(std::sync::atomic::AtomicUsize);

    impl Resolver for ChangingName {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let look = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut found = self.empty();
            let addresses = [&["8.8.8.8:443"][..], &["10.0.0.1:443"], &["8.8.8.8:443", "127.0.0.1:443"]];
            addresses[look % 3].iter().for_each(|address| found.push(address.parse().unwrap()));
            Ok(found)
        }
    }

    /// AUTH-11: what a name resolves to is checked at each connection, so that one whose addresses change gains nothing; a named
    /// host and the proxy may be where they are, plain HTTP is for this machine.
    #[test]
    fn names_that_change_gain_nothing() {
        let look = |hosts: &[&str], proxy: Option<&str>, url: &str| -> Vec<bool> {
            let hosts = Arc::new(hosts.iter().map(|host| host.to_string()).collect());
            let guarded = GuardedResolver {
                inner: Box::new(ChangingName::default()),
                hosts,
                proxy_host: proxy.map(str::to_string),
            };
            let (uri, config) = (url.parse().unwrap(), Config::builder().build());

            (0..3).map(|_| guarded.resolve(&uri, &config, NextTimeout::default()).is_ok()).collect()
        };
        let url = "https://keys.example.org/jwks";
        assert_eq!(look(&[], None, url), [true, false, false]);
        assert_eq!(look(&["keys.example.org"], None, url), [true, true, true]);
        assert_eq!(look(&["other.example.org"], None, url), [true, false, false]);
        assert_eq!(look(&[], Some("proxy.internal"), "http://proxy.internal:3128"), [true, true, true]);
        assert_eq!(look(&["keys.example.org"], None, "http://keys.example.org/jwks"), [false, false, false]);
    }

    /// AUTH-11: a set is kept as its answer says, within a bound.
    #[test]
    fn lifetimes_are_read() {
        for (text, seconds) in [
            ("", 300),
            ("public", 300),
            ("max-age=60", 60),
            ("public, Max-Age = 60", 60),
            ("max-age=\"60\"", 60),
            ("max-age=x", 0),
            ("max-age=0", 0),
            ("max-age=60, no-store", 0),
            ("No-Cache", 0),
            ("max-age=99999999", JWKS_LIFETIME_SECONDS_MAX),
            ("s-maxage=5", 300),
        ] {
            assert_eq!(lifetime(text).as_secs(), seconds, "{text}");
        }
    }

    /// AUTH-11: which URLs may be registered.
    #[test]
    fn urls_are_checked() {
        let hosts = ["127.0.0.1".to_string(), "::1".to_string(), "keys.internal".to_string()];
        for (url, word) in [
            ("https://keys.example.org/jwks", None),
            ("https://8.8.8.8/jwks", None),
            ("https://127.0.0.1:1/jwks", None),
            ("http://127.0.0.1:1/jwks", None),
            ("http://[::1]:1/jwks", None),
            ("https://Keys.Internal/jwks", None),
            ("http://keys.example.org/jwks", Some("plain HTTP")),
            ("http://keys.internal/jwks", Some("plain HTTP")),
            ("https://10.0.0.1/jwks", Some("private address")),
            ("https://[fd00::1]/jwks", Some("private address")),
            ("https://a:b@keys.example.org/jwks", Some("password")),
            ("file:///etc/passwd", Some("no ")),
            ("ftp://keys.example.org/", Some("no URL of https")),
            ("keys.example.org", Some("no URL of https")),
            ("/jwks", Some("no host")),
            ("", Some("no URL")),
        ] {
            let problem = KeySetFetcher::url_problem(url, &hosts);
            match word {
                None => assert_eq!(problem, None, "{url}"),
                Some(word) => {
                    assert!(problem.as_ref().is_some_and(|problem| problem.contains(word)), "{url}: {problem:?}")
                }
            }
        }
    }
}
