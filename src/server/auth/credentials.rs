//! Credentials of a request, parsed from its headers. Whether they are right is checked in `clients`.
//!
//! The query is never read (AUTH-27). A request whose headers allow two interpretations has no credential.

use axum::http::{HeaderMap, HeaderName, header};

use crate::limits::{ACCESS_TOKEN_BYTES_MAX, CREDENTIAL_BYTES_MAX};
use crate::server::config::auth::AuthConfig;

/// A kind of credentials; the variant name is in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialKind {
    /// A bearer token: `Authorization: Bearer {id}.{secret}`.
    Bearer,
    /// Headers with id and secret of a client (ONEUP-S07).
    ClientHeaders,
}

/// The credentials in the headers of a request. Not `Debug`, since that would show secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials<'a> {
    /// No header with credentials.
    Nothing,
    /// More than one credential, or a header of one twice: the sender is ambiguous.
    Several,
    /// One credential that is not well-formed.
    Malformed(CredentialKind),
    /// One well-formed credential, not yet checked.
    Credential {
        /// The kind of the credential.
        kind: CredentialKind,
        /// Public part: token id or client id.
        id: &'a str,
        /// Secret part of the credential.
        secret: &'a str,
    },
}

/// Configured names of the client headers.
#[derive(Clone, Debug)]
pub(crate) struct HeaderNames {
    id: HeaderName,
    secret: HeaderName,
    user: HeaderName,
}

impl HeaderNames {
    /// The configured names; `None` if one of them is no legal header name.
    pub(crate) fn new(auth: &AuthConfig) -> Option<HeaderNames> {
        let name = |name: &String| HeaderName::try_from(name).ok();
        Some(HeaderNames {
            id: name(&auth.client_id_header)?,
            secret: name(&auth.client_secret_header)?,
            user: name(&auth.user_header)?,
        })
    }
}

impl<'a> Credentials<'a> {
    /// Reads the credentials in the headers of a request.
    pub(crate) fn of(headers: &'a HeaderMap, names: &HeaderNames) -> Credentials<'a> {
        let values_of = |name: &HeaderName| headers.get_all(name).iter().collect::<Vec<_>>();
        let tokens = values_of(&header::AUTHORIZATION);
        let (ids, secrets, users) = (values_of(&names.id), values_of(&names.secret), values_of(&names.user));
        let has_client_headers = !ids.is_empty() || !secrets.is_empty() || !users.is_empty();
        let is_unambiguous = [&tokens, &ids, &secrets, &users].iter().all(|values| values.len() <= 1);
        if !is_unambiguous || (has_client_headers && !tokens.is_empty()) {
            return Credentials::Several;
        }
        let text_within = |values: &[&'a axum::http::HeaderValue], bytes_max: usize| {
            let text = values.first()?.to_str().ok()?.trim();
            (1..=bytes_max).contains(&text.len()).then_some(text)
        };
        let text = |values: &[&'a axum::http::HeaderValue]| text_within(values, CREDENTIAL_BYTES_MAX);
        if has_client_headers {
            // Client headers authenticate the client alone; a user needs a token.
            let for_itself = users.is_empty() || text(&users).is_some_and(|user| user.eq_ignore_ascii_case("client"));
            return match (text(&ids), text(&secrets)) {
                (Some(id), Some(secret)) if for_itself => {
                    Credentials::Credential { kind: CredentialKind::ClientHeaders, id, secret }
                }
                _ => Credentials::Malformed(CredentialKind::ClientHeaders),
            };
        }
        if tokens.is_empty() {
            return Credentials::Nothing;
        }
        let token = text_within(&tokens, ACCESS_TOKEN_BYTES_MAX).and_then(|value| value.split_once(' '));
        let token = token.and_then(|(scheme, token)| {
            let (id, secret) = token.trim_start().split_once('.')?;
            // Access tokens have three parts, and a scope for each type at most; others are short.
            let is_short = tokens.iter().all(|value| value.len() <= CREDENTIAL_BYTES_MAX) || secret.contains('.');
            let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
            (is_short && scheme.eq_ignore_ascii_case("bearer") && is_plain(id) && is_plain(secret))
                .then_some((id, secret))
        });
        match token {
            Some((id, secret)) => Credentials::Credential { kind: CredentialKind::Bearer, id, secret },
            None => Credentials::Malformed(CredentialKind::Bearer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The credentials of a request with these headers, as a text.
    fn read(given: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        match Credentials::of(&headers, &HeaderNames::new(&AuthConfig::default()).unwrap()) {
            Credentials::Nothing => "nothing".into(),
            Credentials::Several => "several".into(),
            Credentials::Malformed(kind) => format!("malformed {kind:?}"),
            Credentials::Credential { kind, id, secret } => format!("{kind:?} {id} {secret}"),
        }
    }

    /// AUTH-23, ONEUP-S07: each kind by itself; ambiguous headers are no credential.
    #[test]
    fn credentials_are_read() {
        assert_eq!(read(&[("accept", "a")]), "nothing");
        assert_eq!(read(&[("authorization", "Bearer id.secret")]), "Bearer id secret");
        assert_eq!(read(&[("authorization", "bearer   id.se.cret ")]), "Bearer id se.cret");
        let long = format!("Bearer id.{}", "x".repeat(CREDENTIAL_BYTES_MAX));
        for token in ["", "Bearer", "Bearer ", "Bearer id", "Bearer id.", "Bearer .secret", "Basic id.secret", &long] {
            assert_eq!(read(&[("authorization", token)]), "malformed Bearer", "{token}");
        }
        assert_eq!(read(&[("authorization", "Bearer a.b c")]), "malformed Bearer");
        assert_eq!(read(&[("authorization", "Bearer a.b"), ("authorization", "Bearer a.b")]), "several");

        let (id, secret) = (("client_id", "me"), ("client_secret", "s"));
        assert_eq!(read(&[id, secret]), "ClientHeaders me s");
        assert_eq!(read(&[id, secret, ("x-oneup-user-id", "client")]), "ClientHeaders me s");
        for given in [&[id][..], &[secret], &[("x-oneup-user-id", "client")], &[id, secret, ("x-oneup-user-id", "7")]] {
            assert_eq!(read(given), "malformed ClientHeaders", "{given:?}");
        }
        assert_eq!(read(&[id, id, secret]), "several");
        assert_eq!(read(&[id, secret, ("authorization", "Bearer a.b")]), "several");
    }
}
