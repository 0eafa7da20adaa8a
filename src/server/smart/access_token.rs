//! Access tokens: made for a client that a token request authenticated, and checked at each use.
//!
//! A token is a JWT (RFC 9068) signed with a key of ours. It names the client and its scopes; whether the client is still
//! registered, and for what, is looked up in the configuration in force at each use. Clients must not look into it.

use std::io;

use serde::{Deserialize, Serialize};

use crate::server::smart::jws::{CompactToken, encode_part, read_object};
use crate::server::smart::scope::ScopeRights;
use crate::server::smart::signing_keys::{SigningKeys, TOKEN_ALGORITHM};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenClaims {
    /// URL of the service.
    pub iss: String,
    /// URL of the service, whose resources it opens.
    pub aud: String,
    /// OAuth id of the client.
    pub sub: String,
    /// The same (RFC 9068, 2.2).
    pub client_id: String,
    /// Granted scopes.
    pub scope: String,
    /// Second of Unix time at which it was made.
    pub iat: u64,
    /// Second of Unix time from which on it is refused.
    pub exp: u64,
    /// Random id.
    pub jti: String,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// It is none of ours, or was changed.
    Unknown,
    /// It was one of ours.
    Expired,
}

/// A token that was checked: the client's OAuth id and what its scopes open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedToken {
    /// OAuth id of the client.
    pub client_id: String,
    /// What the token's scopes open.
    pub rights: ScopeRights,
}

/// A new token for a client. Blocks, if a key must be made.
///
/// # Errors
/// The system's, if there is no key that can sign.
pub(crate) fn make_token(
    keys: &SigningKeys,
    service: &str,
    client: &str,
    scope: &str,
    now: u64,
    seconds: u64,
) -> io::Result<String> {
    let key = keys.signing_key(now)?;
    let claims = TokenClaims {
        iss: service.to_string(),
        aud: service.to_string(),
        sub: client.to_string(),
        client_id: client.to_string(),
        scope: scope.to_string(),
        iat: now,
        exp: now + seconds,
        jti: crate::server::ids::new_id(),
    };
    let payload = encode_part(&serde_json::to_vec(&claims).map_err(io::Error::other)?);
    let message = format!("{}.{payload}", key.header);
    let signature = encode_part(&key.sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

/// Whether a bearer token whose text begins with `first`, up to its first dot, is an access token under one of these keys.
/// Others are tokens of the configuration.
pub(crate) fn is_access_token(keys: &SigningKeys, first: &str) -> bool {
    keys.keys().iter().any(|key| key.header == first)
}

/// Checks a token: its header, which must be exactly one of ours, its signature, its audience and its end.
///
/// # Errors
/// Why it is refused.
pub(crate) fn check_token(
    keys: &SigningKeys,
    service: &str,
    token: &str,
    now: u64,
) -> Result<CheckedToken, TokenError> {
    let keys = keys.keys();
    let header = token.split('.').next().unwrap_or_default();
    let key = keys.iter().find(|key| key.header == header).ok_or(TokenError::Unknown)?;
    let parsed = CompactToken::parse(token).map_err(|_| TokenError::Unknown)?;
    if !parsed.is_signed_by(&key.public, TOKEN_ALGORITHM) {
        return Err(TokenError::Unknown);
    }
    let claims: TokenClaims = read_object(&parsed.payload).map_err(|()| TokenError::Unknown)?;
    if claims.aud != service {
        return Err(TokenError::Unknown);
    }
    if claims.exp <= now {
        return Err(TokenError::Expired);
    }
    let rights = ScopeRights::registered(claims.scope.split(' ')).map_err(|_| TokenError::Unknown)?;
    Ok(CheckedToken { client_id: claims.client_id, rights })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::smart::signing_keys::KeyAges;
    use crate::sys::durability::FileSync;

    const SERVICE: &str = "https://bulk.example.org";

    fn keys(directory: &std::path::Path) -> SigningKeys {
        SigningKeys::open(directory, FileSync::No, KeyAges { signs: 1000, checks_on: 100 }).unwrap()
    }

    /// AUTH-13: a token opens what it says until it expires; any change of it is noticed.
    #[test]
    fn tokens_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path());
        let token = make_token(&keys, SERVICE, "a", "system/Patient.rs", 100, 300).unwrap();
        let checked = check_token(&keys, SERVICE, &token, 399).unwrap();
        assert_eq!(checked.client_id, "a");
        assert!(is_access_token(&keys, token.split('.').next().unwrap()) && !is_access_token(&keys, "e30"));
        assert_eq!(check_token(&keys, SERVICE, &token, 400), Err(TokenError::Expired));
        assert_eq!(check_token(&keys, "https://other.example.org", &token, 399), Err(TokenError::Unknown));
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed == token || check_token(&keys, SERVICE, &changed, 399) == Err(TokenError::Unknown), "{at}");
        }
        for cut in ["", ".", "..", "a.b.c", &token[..token.len() - 1], &format!("{token}.a"), &format!("{token}=")] {
            assert_eq!(check_token(&keys, SERVICE, cut, 399), Err(TokenError::Unknown), "{cut}");
        }
    }

    /// A token outlives the key that signs, and no token is taken under a key of another service.
    #[test]
    fn tokens_outlive_a_change_of_keys() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, theirs) = (keys(dir.path()), keys(other.path()));
        let token = make_token(&ours, SERVICE, "a", "system/*.rs", 1099, 100).unwrap();
        let later = make_token(&ours, SERVICE, "a", "system/*.rs", 2150, 100).unwrap();
        assert_ne!(token.split('.').next(), later.split('.').next());
        assert!(check_token(&ours, SERVICE, &token, 1198).is_ok() && check_token(&ours, SERVICE, &later, 2200).is_ok());
        make_token(&theirs, SERVICE, "a", "system/*.rs", 1099, 100).unwrap();
        assert_eq!(check_token(&theirs, SERVICE, &token, 1100), Err(TokenError::Unknown));
    }
}
