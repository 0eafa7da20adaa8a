//! Origin of a request: the client's address, and whether the connection was secure, directly or through trusted
//! proxies.
//!
//! `X-Forwarded-For` and `X-Forwarded-Proto` are read only from trusted peers, for the client's address in the log
//! and to refuse requests that reached the proxy by plain HTTP (CORE-01). `X-Forwarded-Host` is never read:
//! advertised URLs are built from the configuration (CORE-05). Neither is `Forwarded` (RFC 7239): a proxy writes one
//! of the two, and passes on a client's own text in the other.

use std::net::IpAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode};
use ipnet::IpNet;

use crate::issue::IssueCode;
use crate::server::connection::OverTls;
use crate::server::error::ApiError;

/// Networks of proxies whose forwarded headers are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies(Vec<IpNet>);

/// Request extension: the origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestOrigin {
    /// The client's address, as far back as trusted proxies report.
    pub client: IpAddr,
    /// Whether that address is the one of a trusted proxy, which has not said whom it asks for: then it is of many clients.
    pub is_proxy: bool,
    /// Whether the request may be answered.
    arrival: Arrival,
}

/// Security of a request's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// By TLS, from this machine, or through a trusted proxy.
    Allowed,
    /// By plain HTTP from another machine that is no trusted proxy.
    Plain,
    /// By plain HTTP to a trusted proxy.
    PlainToProxy,
}

impl Proxies {
    /// Reads addresses, and networks such as `10.0.0.0/8`.
    ///
    /// # Errors
    /// One sentence for each text that is neither.
    pub(crate) fn parse(texts: &[String]) -> Result<Proxies, Vec<String>> {
        let (mut nets, mut problems) = (Vec::new(), Vec::new());
        for text in texts {
            match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => nets.push(net),
                Err(_) => problems.push(format!(
                    "trusted_proxies holds {text:?}, which is neither an address nor a network such as 10.0.0.0/8"
                )),
            }
        }
        if problems.is_empty() { Ok(Proxies(nets)) } else { Err(problems) }
    }

    /// Whether an address is a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Adds the [`RequestOrigin`] of a request to its extensions.
    pub(crate) fn mark_origin(&self, mut request: Request) -> Request {
        let extensions = request.extensions();
        let peer = extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|peer| peer.0.ip());
        let tls = extensions.get::<OverTls>().is_some_and(|tls| tls.0);
        if let Some(peer) = peer {
            let origin = self.origin(peer, tls, request.headers());
            request.extensions_mut().insert(origin);
        }
        request
    }

    /// The origin of a request from the peer address `peer`.
    fn origin(&self, peer: IpAddr, tls: bool, headers: &HeaderMap) -> RequestOrigin {
        // A dual-stack socket reports an IPv4 peer as a mapped IPv6 address.
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            let arrival = if tls || peer.is_loopback() { Arrival::Allowed } else { Arrival::Plain };
            return RequestOrigin { client: peer, is_proxy: false, arrival };
        }
        // Each trusted proxy vouches for the entry before it; entries before the first untrusted one may be forged.
        let mut client = peer;
        for before in list(headers, "x-forwarded-for").rev() {
            let Some(address) = address(before) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        // The first entry is about the client's connection; those between proxies are up to the operator. A client that
        // forges `https` only weakens its own connection.
        let plain = list(headers, "x-forwarded-proto").next().is_some_and(|first| first.eq_ignore_ascii_case("http"));
        let arrival = if plain { Arrival::PlainToProxy } else { Arrival::Allowed };
        RequestOrigin { client, is_proxy: self.trusts(client), arrival }
    }
}

impl RequestOrigin {
    /// Whether what the request holds was sent over a secure connection.
    pub(crate) fn is_secure(&self) -> bool {
        self.arrival == Arrival::Allowed
    }

    /// 403 for a request by plain HTTP where TLS is required (CORE-01); `None` if it may be answered. Health probes
    /// may always.
    pub(crate) fn insecure_error(&self, path: &str) -> Option<ApiError> {
        let reason = match self.arrival {
            _ if path.starts_with("/health/") => return None,
            Arrival::Allowed => return None,
            Arrival::Plain => {
                "this service is asked by https, or through a proxy that it trusts; this request came by http"
            }
            Arrival::PlainToProxy => "this service is asked by https; this request came to its proxy by http",
        };
        Some(ApiError::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, reason))
    }
}

/// The items of a list that proxies extend, such as `X-Forwarded-For`, over all lines of the header.
fn list<'h>(headers: &'h HeaderMap, name: &str) -> impl DoubleEndedIterator<Item = &'h str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).collect();
    let items: Vec<&str> = lines.into_iter().flat_map(|line| line.split(',')).map(str::trim).collect();
    items.into_iter()
}

/// An address with or without a port, as proxies write them.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn origin(peer: &str, tls: bool, lines: &[(&'static str, &'static str)]) -> (String, Arrival) {
        let proxies = ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"].map(String::from);
        let found = Proxies::parse(&proxies).unwrap().origin(peer.parse().unwrap(), tls, &headers(lines));
        (found.client.to_string(), found.arrival)
    }

    /// CORE-05: forwarded headers are read from trusted proxies only, back to the first untrusted address.
    #[test]
    fn only_trusted_proxies_are_believed() {
        let chain = ("x-forwarded-for", "1.1.1.1, 8.8.8.8, 10.1.1.1");
        assert_eq!(origin("10.2.2.2", false, &[chain]).0, "8.8.8.8");
        assert_eq!(origin("::ffff:10.2.2.2", false, &[chain]).0, "8.8.8.8");
        assert_eq!(origin("11.2.2.2", true, &[chain]).0, "11.2.2.2");
        assert_eq!(origin("127.0.0.1", false, &[]).0, "127.0.0.1");
        let lines = [("x-forwarded-for", "8.8.8.8"), ("x-forwarded-for", "[2001:db8::1]:443")];
        assert_eq!(origin("127.0.0.1", false, &lines).0, "8.8.8.8");
        assert_eq!(origin("127.0.0.1", false, &[("x-forwarded-for", "8.8.4.4:1234")]).0, "8.8.4.4");
        assert_eq!(origin("127.0.0.1", false, &[("x-forwarded-for", "8.8.8.8, unknown")]).0, "127.0.0.1");
    }

    /// CORE-01: plain HTTP is for this machine and for trusted proxies, which must have received the request by
    /// HTTPS.
    #[test]
    fn plain_requests_are_refused() {
        let (https, http) = (("x-forwarded-proto", "https"), ("x-forwarded-proto", "HTTP, https"));
        for (peer, tls, line, arrival) in [
            ("10.1.1.1", false, Some(https), Arrival::Allowed),
            ("10.1.1.1", false, None, Arrival::Allowed),
            ("10.1.1.1", false, Some(http), Arrival::PlainToProxy),
            ("10.1.1.1", true, Some(http), Arrival::PlainToProxy),
            ("8.8.8.8", false, Some(https), Arrival::Plain),
            ("8.8.8.8", true, Some(http), Arrival::Allowed),
            ("::1", false, Some(http), Arrival::Allowed),
        ] {
            let lines: Vec<_> = line.into_iter().collect();
            let (client, found) = origin(peer, tls, &lines);
            assert_eq!(found, arrival, "{peer} {tls} {line:?}");
            let origin = RequestOrigin { client: client.parse().unwrap(), is_proxy: false, arrival };
            assert_eq!(origin.insecure_error("/fhir/metadata").is_some(), arrival != Arrival::Allowed);
            assert!(origin.insecure_error("/health/live").is_none());
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        let texts = ["10.0.0.0/8", "10.0.0.0/33", "proxy", "::1", ""].map(String::from);
        let problems = Proxies::parse(&texts).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("10.0.0.0/33") && problems[1].contains("proxy"));
    }
}
