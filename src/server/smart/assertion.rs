//! The signed assertion by which a client says who it is (RFC 7523, 3; SMART Backend Services).

use serde::Deserialize;

use crate::limits::{ASSERTION_LIFETIME_SECONDS_MAX, JTI_BYTES_MAX};
use crate::server::smart::jwk::KeyChoiceError;
use crate::server::smart::jws::{CompactToken, SignatureAlgorithm, read_object};

/// Why an assertion is refused; the variant name is in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AssertionError {
    /// It is no signed token in three parts, or its claims are none.
    Malformed,
    /// `typ` is not `JWT`.
    Type,
    /// `alg` is none of those that are taken.
    Algorithm,
    /// `kid` is missing.
    NoKeyId,
    /// `jku` is not the registered URL.
    KeySetUrl,
    /// No client has this id.
    UnknownClient,
    /// `client_id` of the request is another.
    OtherClient,
    /// The key set has no such key.
    Key(KeyChoiceError),
    /// The key set cannot be read for the moment.
    KeySetUnavailable,
    /// The signature is not one by the key.
    Signature,
    /// `iss` and `sub` are not the same.
    Subject,
    /// `aud` does not name the token endpoint.
    Audience,
    /// It has expired.
    Expired,
    /// It lives longer than it may.
    LivesTooLong,
    /// `nbf` or `iat` is later than now.
    NotYetValid,
    /// `jti` is empty or too long.
    NoId,
    /// It was used before.
    Repeated,
}

/// The claims that are looked at.
#[derive(Deserialize)]
struct RawClaims {
    iss: String,
    sub: String,
    aud: AssertionAudience,
    exp: f64,
    jti: String,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

/// One audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum AssertionAudience {
    One(String),
    Several(Vec<String>),
}

/// An assertion whose form is right. Nothing of it is to be believed before its signature is checked.
pub(crate) struct Assertion<'t> {
    /// The token.
    pub token: CompactToken<'t>,
    /// The algorithm of its header.
    pub algorithm: SignatureAlgorithm,
    /// The key id of its header.
    pub kid: String,
    claims: RawClaims,
}

/// What of a verified assertion is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssertionUse {
    /// Its id.
    pub jti: String,
    /// Second of Unix time until which it must not be taken again.
    pub until: u64,
}

impl<'t> Assertion<'t> {
    /// Reads an assertion (AUTH-05, AUTH-08).
    ///
    /// # Errors
    /// Why its form is wrong.
    pub(crate) fn parse(text: &'t str) -> Result<Assertion<'t>, AssertionError> {
        let token = CompactToken::parse(text).map_err(|_| AssertionError::Malformed)?;
        let is_jwt = token.header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
        if !is_jwt {
            return Err(AssertionError::Type);
        }
        let algorithm = SignatureAlgorithm::named(&token.header.alg).ok_or(AssertionError::Algorithm)?;
        let kid = token.header.kid.clone().filter(|kid| !kid.is_empty()).ok_or(AssertionError::NoKeyId)?;
        let claims: RawClaims = read_object(&token.payload).map_err(|()| AssertionError::Malformed)?;
        Ok(Assertion { token, algorithm, kid, claims })
    }

    /// The id of the client that it says it is of.
    pub(crate) fn client(&self) -> &str {
        &self.claims.iss
    }

    /// Checks that a key set URL in its header is the registered one, which is the only one that is ever asked (AUTH-09).
    ///
    /// # Errors
    /// If it is another, or none is registered.
    pub(crate) fn check_key_set_url(&self, registered: Option<&str>) -> Result<(), AssertionError> {
        match &self.token.header.jku {
            Some(url) if registered != Some(url) => Err(AssertionError::KeySetUrl),
            _ => Ok(()),
        }
    }

    /// Checks its claims at a second of Unix time (AUTH-06).
    ///
    /// # Errors
    /// The first that is wrong.
    pub(crate) fn check_claims(&self, token_url: &str, now: u64, skew: u64) -> Result<AssertionUse, AssertionError> {
        let claims = &self.claims;
        if claims.iss != claims.sub {
            return Err(AssertionError::Subject);
        }
        let is_for_us = match &claims.aud {
            AssertionAudience::One(url) => url == token_url,
            AssertionAudience::Several(urls) => urls.iter().any(|url| url == token_url),
        };
        if !is_for_us {
            return Err(AssertionError::Audience);
        }
        // Seconds may have a fraction (RFC 7519, 2).
        let (now, skew) = (now as f64, skew as f64);
        let expires = claims.exp;
        if expires + skew <= now {
            return Err(AssertionError::Expired);
        }
        if expires > now + ASSERTION_LIFETIME_SECONDS_MAX as f64 + skew {
            return Err(AssertionError::LivesTooLong);
        }
        for begins in [claims.nbf, claims.iat].into_iter().flatten() {
            if begins > now + skew {
                return Err(AssertionError::NotYetValid);
            }
        }
        if !(1..=JTI_BYTES_MAX).contains(&claims.jti.len()) {
            return Err(AssertionError::NoId);
        }
        Ok(AssertionUse { jti: claims.jti.clone(), until: (expires + skew).ceil() as u64 + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::smart::jws::encode_part;
    use serde_json::{Value, json};

    const URL: &str = "https://bulk.example.org/auth/token";

    fn token(header: &Value, claims: &Value) -> String {
        format!(
            "{}.{}.{}",
            encode_part(header.to_string().as_bytes()),
            encode_part(claims.to_string().as_bytes()),
            encode_part(b"s")
        )
    }

    fn header() -> Value {
        json!({ "alg": "RS384", "typ": "JWT", "kid": "k" })
    }

    fn claims() -> Value {
        json!({ "iss": "a", "sub": "a", "aud": URL, "exp": 1300, "jti": "1" })
    }

    fn with(mut object: Value, name: &str, value: Value) -> Value {
        match value {
            Value::Null => {
                object.as_object_mut().unwrap().remove(name);
            }
            value => object[name] = value,
        }
        object
    }

    /// AUTH-05, AUTH-08: each part of the header, wrong and right.
    #[test]
    fn headers_are_checked() {
        for (name, value, found) in [
            ("kid", json!("other"), None),
            ("typ", json!("jwt"), None),
            ("x5c", json!(["ignored"]), None),
            ("jwk", json!({ "kty": "oct", "k": "AAAA" }), None),
            ("kid", Value::Null, Some(AssertionError::NoKeyId)),
            ("kid", json!(""), Some(AssertionError::NoKeyId)),
            ("kid", json!(7), Some(AssertionError::Malformed)),
            ("typ", Value::Null, Some(AssertionError::Type)),
            ("typ", json!("at+jwt"), Some(AssertionError::Type)),
            ("alg", Value::Null, Some(AssertionError::Malformed)),
            ("alg", json!("none"), Some(AssertionError::Algorithm)),
            ("alg", json!("None"), Some(AssertionError::Algorithm)),
            ("alg", json!("HS256"), Some(AssertionError::Algorithm)),
            ("alg", json!("HS384"), Some(AssertionError::Algorithm)),
            ("alg", json!("rs384"), Some(AssertionError::Algorithm)),
            ("alg", json!("RS512"), Some(AssertionError::Algorithm)),
            ("crit", json!(["b64"]), Some(AssertionError::Malformed)),
            ("crit", json!([]), Some(AssertionError::Malformed)),
        ] {
            let text = token(&with(header(), name, value.clone()), &claims());
            assert_eq!(Assertion::parse(&text).err(), found, "{name} {value}");
        }
        let doubled = format!(
            "{}.{}.AA",
            encode_part(br#"{"alg":"RS384","typ":"JWT","kid":"k","alg":"ES384"}"#),
            encode_part(claims().to_string().as_bytes())
        );
        for text in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c.d",
            "e30.e30.",
            "=.=.=",
            &token(&json!(["RS384", "k", "JWT", null, null]), &claims()),
            &token(&header(), &json!(["a", "a", URL, 1300, "1", null, null])),
            &doubled,
            &token(&header(), &json!([])),
            &format!("{}\n", token(&header(), &claims())),
        ] {
            assert!(Assertion::parse(text).is_err(), "{text}");
        }
    }

    /// AUTH-06: each claim wrong beside right ones; AUTH-07: how long it is remembered.
    #[test]
    fn claims_are_checked() {
        for (name, value, found) in [
            ("iss", json!("b"), Some(AssertionError::Subject)),
            ("sub", json!("b"), Some(AssertionError::Subject)),
            ("aud", json!([URL, "other"]), None),
            ("aud", json!("https://bulk.example.org/auth/token/"), Some(AssertionError::Audience)),
            ("aud", json!("https://bulk.example.org"), Some(AssertionError::Audience)),
            ("aud", json!([]), Some(AssertionError::Audience)),
            ("exp", json!(1331), Some(AssertionError::LivesTooLong)),
            ("exp", json!(1330), None),
            ("exp", json!(971), None),
            ("exp", json!(970.5), None),
            ("exp", json!(970), Some(AssertionError::Expired)),
            ("exp", json!(-1), Some(AssertionError::Expired)),
            ("exp", json!(1e300), Some(AssertionError::LivesTooLong)),
            ("nbf", json!(1030), None),
            ("nbf", json!(1031), Some(AssertionError::NotYetValid)),
            ("iat", json!(1030), None),
            ("iat", json!(1031), Some(AssertionError::NotYetValid)),
            ("iat", json!(0), None),
            ("jti", json!(""), Some(AssertionError::NoId)),
            ("jti", json!("x".repeat(JTI_BYTES_MAX)), None),
            ("jti", json!("x".repeat(JTI_BYTES_MAX + 1)), Some(AssertionError::NoId)),
        ] {
            let text = token(&header(), &with(claims(), name, value.clone()));
            let found_now = Assertion::parse(&text).unwrap().check_claims(URL, 1000, 30).err();
            assert_eq!(found_now, found, "{name} {value}");
        }
        for (name, value) in [
            ("iss", Value::Null),
            ("sub", Value::Null),
            ("aud", Value::Null),
            ("exp", Value::Null),
            ("jti", Value::Null),
        ] {
            assert!(Assertion::parse(&token(&header(), &with(claims(), name, value))).is_err(), "{name}");
        }
        for (name, value) in [("exp", json!("1300")), ("jti", json!(1)), ("aud", json!(1)), ("iat", json!("x"))] {
            assert!(Assertion::parse(&token(&header(), &with(claims(), name, value))).is_err(), "{name}");
        }
        let text = token(&header(), &claims());
        let used = Assertion::parse(&text).unwrap().check_claims(URL, 1000, 30).unwrap();
        assert_eq!(used, AssertionUse { jti: "1".into(), until: 1331 });
        assert!(used.until > 1330, "as long as it could be taken");
    }

    /// AUTH-09: another key set URL than the registered one is refused, and never asked.
    #[test]
    fn only_the_registered_url_is_taken() {
        let check = |jku: Value, registered| {
            let text = token(&with(header(), "jku", jku), &claims());
            Assertion::parse(&text).unwrap().check_key_set_url(registered)
        };
        let (url, other) = ("https://a.example.org/jwks", "https://a.example.org/jwks/");
        assert_eq!(check(Value::Null, None), Ok(()));
        assert_eq!(check(Value::Null, Some(url)), Ok(()));
        assert_eq!(check(json!(url), Some(url)), Ok(()));
        assert_eq!(check(json!(url), Some(other)), Err(AssertionError::KeySetUrl));
        assert_eq!(check(json!(url), None), Err(AssertionError::KeySetUrl));
    }
}
