//! The path of a request in one form, before anything looks at it.
//!
//! Clients are configured with a base that ends in a slash, or join paths with one slash too many. A repeated slash counts
//! as one and a final one as none, and `%24` is `$` (CORE-07). This is done once, in front of the access log, the rights
//! and the routes, so that no two of them can read a path differently. Nothing else is decoded: `%2F` is no slash, and
//! `..` is a name like any other.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Request extension: the URI as received.
#[derive(Clone)]
pub(crate) struct OriginalUri(pub(crate) Uri);

/// Puts the path of a request into its one form, and keeps the received URI as [`OriginalUri`].
pub(crate) fn normalise_path(mut request: Request) -> Request {
    let received = request.uri().clone();
    if let Some(uri) = normal_path(received.path()).and_then(|path| with_path(&received, &path)) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(OriginalUri(received));
    request
}

/// The normal form of a path; `None` if the path has it already, or is none (`*` of OPTIONS).
fn normal_path(path: &str) -> Option<String> {
    let is_normal = !path.contains("//") && !path.contains("%24") && (path == "/" || !path.ends_with('/'));
    if is_normal || !path.starts_with('/') {
        return None;
    }
    let names = path.split('/').filter(|name| !name.is_empty());
    let normal: String = names.flat_map(|name| ["/", name]).collect();
    Some(if normal.is_empty() { "/".to_string() } else { normal.replace("%24", "$") })
}

/// A URI with another path; `None` if that is not possible.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use proptest::prelude::*;

    use super::*;

    fn normalised(uri: &str) -> String {
        let request = normalise_path(Request::builder().uri(uri).body(Body::empty()).unwrap());
        let OriginalUri(received) = request.extensions().get().unwrap();
        assert_eq!(received.to_string(), uri.parse::<Uri>().unwrap().to_string(), "it is kept as it was");
        request.uri().to_string()
    }

    /// CORE-07: slashes that are repeated or stand at the end do not count; nothing else is changed.
    #[test]
    fn paths_have_one_form() {
        for (received, normal) in [
            ("/fhir/metadata", "/fhir/metadata"),
            ("/fhir/metadata/", "/fhir/metadata"),
            ("//fhir///metadata//", "/fhir/metadata"),
            ("//fhir/Patient/%24export/?_type=a//b/&x=%24", "/fhir/Patient/$export?_type=a//b/&x=%24"),
            ("/", "/"),
            ("//", "/"),
            ("///?a", "/?a"),
            ("/a%2F%2fb%2f", "/a%2F%2fb%2f"),
            ("/a/%2F/b/", "/a/%2F/b"),
            ("/a/..//b/.", "/a/../b/."),
            ("/a/%2e%2E/", "/a/%2e%2E"),
            ("http://localhost//fhir/", "http://localhost/fhir"),
            ("http://localhost", "http://localhost/"),
            ("*", "*"),
        ] {
            assert_eq!(normalised(received), normal, "{received}");
        }
    }

    proptest! {
        /// CORE-07: the form is one: it stays under normalisation, and only slashes and `%24` differ.
        #[test]
        fn the_form_is_final(path in "[a/$%24.-]{0,40}") {
            let path = format!("/{path}");
            let once = normal_path(&path).unwrap_or_else(|| path.clone());
            prop_assert!(!once.contains("//") && (once == "/" || !once.ends_with('/')), "{once}");
            prop_assert!(once.replace('/', "") == path.replace("%24", "$").replace('/', ""));
        }
    }
}
