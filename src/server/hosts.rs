//! Host check of unauthenticated requests: they must name this machine or a configured host, and no page of another
//! site may have caused them.
//!
//! Without authentication the service listens on loopback only, but every browser of the machine reaches it, and so
//! does any web page that one of them shows. Three attacks are refused here, before any route:
//!
//! - A page whose host name is made to resolve to 127.0.0.1 after it was loaded (DNS rebinding) could read all
//!   answers. The browser still sends the page's own name as `Host`: 421.
//! - A page can make the browser send requests to other sites by images, forms and scripts, though it cannot read the
//!   answers. Browsers mark them in `Origin` and `Sec-Fetch-Site` (<https://www.w3.org/TR/fetch-metadata/>): 403.
//! - Browsers send bodies without a type, like those of forms, to other sites without a preflight: 415. Form types
//!   are refused by the handlers that read bodies.
//!
//! Ports are not compared: tunnels and containers map them, and a name that may resolve here may do so for all ports.
//! With authentication none of this is checked, since pages have no credentials; that a request has one valid `Host`
//! (`http::host`) always is.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::issue::IssueCode;
use crate::server::connection::TargetFragment;
use crate::server::connection::protocol_errors::FRAGMENT_TEXT;
use crate::server::error::ApiError;
use crate::server::http::framing::framing_error;
use crate::server::http::host::{host_error, split_port};
use crate::server::ids::REQUEST_ID;

/// Header in which browsers state the relation between a page's site and the requested one.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Longest host name, in bytes (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Empty frames that may precede the end of an empty body.
const EMPTY_PIECES_MAX: usize = 16;

/// A host of a URL. Names are in lower case and without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostName {
    Name(String),
    Address(IpAddr),
}

impl HostName {
    /// Reads a name or an address, IPv6 in brackets. Address forms that only some programs understand, such as
    /// `127.1`, are rejected.
    fn parse(text: &str) -> Option<HostName> {
        if let Some(address) = text.strip_prefix('[') {
            let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            return Some(HostName::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if let Ok(IpAddr::V4(address)) = name.parse() {
            return Some(HostName::Address(address.into()));
        }
        let is_plain = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        // Browsers read a host whose last label is a number as an IPv4 address or reject it; so does this.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_name = name.len() <= NAME_BYTES_MAX
            && name.split('.').all(is_plain)
            && !last.bytes().all(|byte| byte.is_ascii_digit());
        is_name.then(|| HostName::Name(name.to_ascii_lowercase()))
    }

    /// Reads `host` or `host:port` (RFC 9110, 7.2).
    fn of_authority(text: &str) -> Option<HostName> {
        let (host, port) = split_port(text);
        let is_port = port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
        HostName::parse(host).filter(|_| is_port)
    }

    /// Reads the host of an origin (RFC 6454, 6.2); `None` for `null`.
    fn of_origin(text: &str) -> Option<HostName> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        HostName::of_authority(authority).filter(|_| is_scheme && !scheme.is_empty())
    }

    /// Whether it is this machine by name (RFC 6761, 6.3) or address, regardless of name servers.
    fn is_loopback(&self) -> bool {
        match self {
            HostName::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            HostName::Address(address) => address.is_loopback(),
        }
    }
}

/// The hosts that unauthenticated requests may name: this machine, the host of the public URL, and the configured
/// ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowedHosts(BTreeSet<HostName>);

impl AllowedHosts {
    /// The allowed hosts of a service. Malformed ones are ignored; [`AllowedHosts::problems`] reports them.
    pub(crate) fn new(public_url: &str, hosts: &[String]) -> AllowedHosts {
        let url: Option<Uri> = public_url.parse().ok();
        let own =
            url.as_ref().and_then(Uri::authority).and_then(|authority| HostName::of_authority(authority.as_str()));
        AllowedHosts(own.into_iter().chain(hosts.iter().filter_map(|text| configured_host(text))).collect())
    }

    /// The configured hosts that are malformed, one sentence each.
    pub(crate) fn problems(hosts: &[String]) -> Vec<String> {
        let wrong = hosts.iter().filter(|text| configured_host(text).is_none());
        let problem = |text: &String| {
            format!(
                "hosts holds {text:?}, which is no host: give names or addresses alone, such as bulk.example.org or \
                 10.0.0.1, without a scheme, a port, a path or a wildcard"
            )
        };
        wrong.map(problem).collect()
    }

    /// Whether requests may name this host.
    fn allows(&self, host: &HostName) -> bool {
        host.is_loopback() || self.0.contains(host)
    }

    /// The answer to a request that names another host or comes from a page of another site; `None` if it is allowed.
    fn refusal(&self, uri: &Uri, headers: &HeaderMap) -> Option<ApiError> {
        if !self.names_allowed_host(uri, headers) {
            let text = "Host: without authorization this service answers only under localhost, 127.0.0.1, [::1], the host \
                        of its public URL and the hosts of its configuration; ask under one of these, or have its operator \
                        add this one to hosts";
            let refusal = ApiError::new(StatusCode::MISDIRECTED_REQUEST, IssueCode::Forbidden, text);
            return Some(refusal.at("http.host"));
        }
        let forbidden = |header: HeaderName, text: &str| {
            let refusal = ApiError::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, text);
            Some(refusal.at(format!("http.{header}")))
        };
        let is_own = |origin: &str| HostName::of_origin(origin).is_some_and(|host| self.allows(&host));
        if !headers.get_all(header::ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_own)) {
            let text = "Origin: without authorization this service does not answer pages of other hosts; name the page's \
                        host in hosts of the configuration, or let clients say who they are";
            return forbidden(header::ORIGIN, text);
        }
        let is_foreign = |site: &[u8]| {
            [&b"cross-site"[..], b"same-site"].iter().any(|foreign| site.trim_ascii().eq_ignore_ascii_case(foreign))
        };
        if headers.get_all(SEC_FETCH_SITE).iter().any(|site| is_foreign(site.as_bytes())) {
            let text = "Sec-Fetch-Site: without authorization this service does not answer what a page of another site or \
                        port makes a browser ask; open the URL itself, or use a program that is no browser";
            return forbidden(SEC_FETCH_SITE, text);
        }
        None
    }

    /// Whether a request names an allowed host and no other: in `Host`, in the authority of HTTP/2, or in an
    /// absolute-form target (RFC 9112, 3.2.2).
    fn names_allowed_host(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(header::HOST);
        let given = lines.iter().map(|line| line.to_str().ok().and_then(HostName::of_authority));
        let target = uri.authority().map(|authority| HostName::of_authority(authority.as_str()));
        let hosts: Vec<Option<HostName>> = target.into_iter().chain(given).collect();
        let is_allowed = hosts.first().is_some_and(|host| host.as_ref().is_some_and(|host| self.allows(host)));
        is_allowed && hosts.iter().all(|host| *host == hosts[0]) && lines.iter().count() <= 1
    }
}

/// A host of the configuration; an IPv6 address may be without brackets.
fn configured_host(text: &str) -> Option<HostName> {
    let address = text.parse::<Ipv6Addr>().map(|address| HostName::Address(IpAddr::V6(address).to_canonical()));
    address.ok().or_else(|| HostName::parse(text))
}

/// Middleware: answers requests whose target has a fragment, without one valid `Host`, or in a coding that is not decoded,
/// then those that fail the host check, and logs the latter. `None` in the state disables the check of which host it is.
pub(crate) async fn check_host(
    State(hosts): State<Arc<Option<AllowedHosts>>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let fragment = request
        .extensions()
        .get::<TargetFragment>()
        .map(|TargetFragment| ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Structure, FRAGMENT_TEXT));
    let refusal = fragment.or_else(|| host_error(request.version(), request.headers()));
    if let Some(refusal) = refusal.or_else(|| framing_error(request.headers())) {
        return refusal.into_response();
    }
    let Some(hosts) = hosts.as_ref() else { return next.run(request).await };
    let id = request.headers().get(REQUEST_ID).cloned();
    // The request lives until it is answered: dropping its body earlier would reset an HTTP/2 stream without an answer.
    let refusal = match hosts.refusal(request.uri(), request.headers()) {
        Some(refusal) => Some(refusal),
        None => check_body_type(&mut request).await.err(),
    };
    match refusal {
        None => next.run(request).await,
        Some(refusal) => {
            let request = id.as_ref().and_then(|id| id.to_str().ok());
            let header = refusal.issues[0].expression.as_deref();
            tracing::warn!(target: "outpour::audit", request, header, "refused: it may come from a web page");
            refusal.into_response()
        }
    }
}

/// Part of the check of hosts, against pages of other sites: a body must have a `Content-Type`. An empty body needs
/// none, and is replaced by `Body::empty`.
///
/// # Errors
/// 415 for a body without a type, 400 for one that breaks off.
async fn check_body_type(request: &mut Request) -> Result<(), ApiError> {
    let takes_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let given = request.headers().get(header::CONTENT_TYPE);
    let is_typed = given.is_some_and(|value| !value.as_bytes().trim_ascii().is_empty());
    if !takes_body || is_typed || request.body().is_end_stream() {
        return Ok(());
    }
    let untyped = || {
        let text = "Content-Type: the body does not say what it is; send application/fhir+json with it";
        let refusal = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueCode::NotSupported, text);
        refusal.at("http.content-type")
    };
    if request.body().size_hint().lower() > 0 {
        return Err(untyped());
    }
    for _ in 0..EMPTY_PIECES_MAX {
        match request.body_mut().frame().await {
            None => {
                *request.body_mut() = Body::empty();
                return Ok(());
            }
            Some(Ok(frame)) if frame.data_ref().is_none_or(|bytes| bytes.is_empty()) => {}
            Some(Ok(_)) => break,
            Some(Err(_)) => {
                let text = "the body did not arrive as a whole; send it again";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Incomplete, text));
            }
        }
    }
    Err(untyped())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn hosts() -> AllowedHosts {
        AllowedHosts::new("https://Bulk.example.org:8443", &["other.example.org".into(), "10.0.0.1".into()])
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        lines.iter().map(pair).collect()
    }

    /// Status and header of the refusal; `None` if the request is allowed.
    fn refused(target: &str, lines: &[(&'static str, &str)]) -> Option<(u16, String)> {
        let refusal = hosts().refusal(&target.parse().unwrap(), &headers(lines))?;
        Some((refusal.status.as_u16(), refusal.issues[0].expression.clone().unwrap()))
    }

    /// CORE-01: this machine under each of its names, at any port, and the configured hosts.
    #[test]
    fn hosts_that_are_answered() {
        for host in [
            "localhost",
            "localhost:8080",
            "LocalHost:1",
            "localhost.",
            "localhost.:8080",
            "localhost:",
            "outpour.localhost:8080",
            "127.0.0.1",
            "127.0.0.1:65535",
            "127.8.9.10:8080",
            "[::1]",
            "[::1]:8080",
            "[0:0::0:1]",
            "[::ffff:127.0.0.1]:80",
            "bulk.example.org",
            "bulk.example.org:8443",
            "bulk.example.org:1",
            "BULK.example.ORG.",
            "other.example.org",
            "10.0.0.1:80",
            "[::ffff:10.0.0.1]",
        ] {
            assert_eq!(refused("/fhir/metadata", &[("host", host)]), None, "{host}");
        }
    }

    /// CORE-01: other and malformed hosts are answered 421.
    #[test]
    fn hosts_that_are_not_answered() {
        for host in [
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1.evil.example.:8080",
            "bulk.example.org.evil.example",
            "example.org",
            "x.bulk.example.org",
            "192.168.0.1",
            "10.0.0.2",
            "0.0.0.0:8080",
            "[::]:8080",
            "[::2]",
            "[::1",
            "::1",
            "[::1]x",
            "[::1%25lo]",
            "127.1",
            "127.0.0.01",
            "0x7f.0.0.1",
            "2130706433",
            "localhost:http",
            "localhost:99999",
            "localhost:+80",
            "localhost:80:80",
            "localhost, localhost",
            "localhost evil.example",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost/",
            "localhost..",
            ".localhost",
            "http://localhost",
            "l\u{f6}calhost",
        ] {
            let found = refused("/fhir/metadata", &[("host", host)]);
            assert_eq!(found, Some((421, "http.host".into())), "{host}");
        }
        assert!(refused("/health/live", &[]).is_some(), "no host at all");
        assert!(refused("/", &[("host", "localhost"), ("host", "localhost")]).is_some(), "twice");
        assert!(refused("/", &[("host", "localhost"), ("host", "evil.example")]).is_some());
    }

    /// CORE-09: the authority of HTTP/2, and targets in absolute form.
    #[test]
    fn hosts_of_targets() {
        for (target, host, is_answered) in [
            ("https://localhost:8080/fhir", None, true),
            ("https://localhost:8080/fhir", Some("localhost"), true),
            ("http://bulk.example.org/fhir", Some("bulk.example.org:80"), true),
            ("https://evil.example/fhir", None, false),
            ("http://evil.example/fhir", Some("localhost"), false),
            ("http://localhost/fhir", Some("evil.example"), false),
            ("http://localhost/fhir", Some("127.0.0.1"), false),
            ("http://localhost@evil.example/fhir", Some("localhost"), false),
            ("http://evil.example@localhost/fhir", None, false),
            ("evil.example:443", Some("localhost"), false),
            ("*", Some("localhost"), true),
        ] {
            let lines: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            assert_eq!(refused(target, &lines).is_none(), is_answered, "{target} {host:?}");
        }
    }

    /// CORE-01: pages of other hosts, and requests that they cause.
    #[test]
    fn pages_that_are_not_answered() {
        let ask = |lines: &[(&'static str, &str)]| refused("/", &[&[("host", "localhost:8080")], lines].concat());
        for origin in [
            "http://localhost:8080",
            "http://127.0.0.1:3000",
            "https://[::1]",
            "https://bulk.example.org",
            "HTTP://LOCALHOST",
        ] {
            assert_eq!(ask(&[("origin", origin)]), None, "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "https://localhost.evil.example:8080",
            "https://bulk.example.org.evil.example",
            "localhost",
            "://localhost",
            "http://localhost/",
            "http://localhost http://evil.example",
            "http://evil.example, http://localhost",
            "chrome-extension://abcdefghijklmnop",
            "file://",
            "http://l\u{f6}calhost",
        ] {
            assert_eq!(ask(&[("origin", origin)]), Some((403, "http.origin".into())), "{origin}");
        }
        assert!(ask(&[("origin", "http://localhost"), ("origin", "http://evil.example")]).is_some());
        for site in ["same-origin", "none", "", "something-new"] {
            assert_eq!(ask(&[("sec-fetch-site", site)]), None, "{site}");
        }
        for site in ["cross-site", "same-site", " Cross-Site "] {
            assert_eq!(ask(&[("sec-fetch-site", site)]), Some((403, "http.sec-fetch-site".into())), "{site}");
        }
        assert!(ask(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]).is_some());
        let answered = ask(&[("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")]);
        assert_eq!(answered, None);
    }

    /// Malformed hosts of the configuration are reported in full.
    #[test]
    fn configured_hosts_are_checked() {
        let good =
            ["bulk.example.org", "Bulk", "my_service", "10.0.0.1", "::1", "[fd00::1]", "a.b.", "xn--bcher-kva.example"];
        assert_eq!(AllowedHosts::problems(&good.map(String::from)), Vec::<String>::new());
        let wrong = ["", "*", "*.example.org", "a:80", "http://a", "a/b", "a b", "127.1", "b\u{fc}cher.example", "."];
        let problems = AllowedHosts::problems(&wrong.map(String::from));
        assert_eq!(problems.len(), wrong.len(), "{problems:?}");
        assert!(problems[3].contains("\"a:80\"") && problems[3].contains("without a scheme, a port"));
        let hosts = AllowedHosts::new("not a URL", &["FD00::1".into(), "Bulk.".into()]);
        let asks = |host| hosts.refusal(&"/".parse().unwrap(), &headers(&[("host", host)])).is_none();
        assert!(asks("[fd00::1]:8080") && asks("bulk") && asks("localhost") && !asks("[fd00::2]"));
    }

    fn request(method: &str, content_type: Option<&str>, body: Body) -> Request {
        let builder = Request::builder().method(method).uri("/fhir/Group");
        let builder = content_type.into_iter().fold(builder, |builder, value| builder.header("content-type", value));
        builder.body(body).unwrap()
    }

    /// A body of frames whose length is not announced.
    struct BodyPieces(Vec<&'static str>);

    impl hyper::body::Body for BodyPieces {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Ready(self.0.pop().map(|piece| Ok(hyper::body::Frame::data(piece.into()))))
        }
    }

    fn pieces(pieces: &[&'static str]) -> Body {
        Body::new(BodyPieces(pieces.iter().rev().copied().collect()))
    }

    /// CORE-06: a body must have a type; an empty one needs none, however it is framed.
    #[tokio::test]
    async fn bodies_say_what_they_are() {
        for (method, content_type, body, status) in [
            ("POST", None, Body::from("{}"), Some(415)),
            ("POST", Some(" "), Body::from("{}"), Some(415)),
            ("PUT", None, Body::from("{}"), Some(415)),
            ("PATCH", None, pieces(&["{}"]), Some(415)),
            ("POST", None, pieces(&["", "{}"]), Some(415)),
            ("POST", None, pieces(&[""; 1000]), Some(415)),
            ("POST", Some("application/fhir+json"), Body::from("{}"), None),
            ("POST", Some("text/plain"), pieces(&["{}"]), None),
            ("POST", None, Body::empty(), None),
            ("POST", None, pieces(&[]), None),
            ("PUT", None, pieces(&["", ""]), None),
            ("GET", None, Body::from("{}"), None),
            ("DELETE", None, Body::from("{}"), None),
        ] {
            let reported = format!("{method} {content_type:?} {body:?}");
            let found = check_body_type(&mut request(method, content_type, body)).await;
            assert_eq!(found.as_ref().err().map(|refusal| refusal.status.as_u16()), status, "{reported}");
        }
        let mut kept = request("POST", Some("text/plain"), pieces(&["a", "b"]));
        check_body_type(&mut kept).await.unwrap();
        assert_eq!(kept.into_body().collect().await.unwrap().to_bytes(), "ab");
    }
}
