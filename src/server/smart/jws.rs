//! Signed JSON Web Tokens in the compact form (RFC 7515, RFC 7519): taken apart, and their signatures checked.
//!
//! The cryptography is *ring*'s, as that of TLS. Algorithms are those of this list and no others: `none`, and those in which
//! the verifying key would be a secret, have no name here (AUTH-08).

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::signature;
use serde::{Deserialize, Serialize};

/// A signature algorithm of JWS (RFC 7518, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub(crate) enum SignatureAlgorithm {
    Rs256,
    Rs384,
    Ps384,
    Es256,
    Es384,
}

/// A curve of an elliptic key (RFC 7518, 6.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl SignatureAlgorithm {
    /// Every algorithm, the two that SMART names first.
    pub(crate) const ALL: [SignatureAlgorithm; 5] = [
        SignatureAlgorithm::Rs384,
        SignatureAlgorithm::Es384,
        SignatureAlgorithm::Ps384,
        SignatureAlgorithm::Es256,
        SignatureAlgorithm::Rs256,
    ];

    /// Its name in `alg`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            SignatureAlgorithm::Rs256 => "RS256",
            SignatureAlgorithm::Rs384 => "RS384",
            SignatureAlgorithm::Ps384 => "PS384",
            SignatureAlgorithm::Es256 => "ES256",
            SignatureAlgorithm::Es384 => "ES384",
        }
    }

    /// The algorithm of a name, in the case of the registry.
    pub(crate) fn named(name: &str) -> Option<SignatureAlgorithm> {
        SignatureAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// The key that a signature is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point of a curve.
    Elliptic {
        /// The curve.
        curve: Curve,
        /// `04`, x, y.
        point: Vec<u8>,
    },
}

impl PublicKey {
    /// Whether signatures of an algorithm can be checked with it: no key serves an algorithm of another family or curve.
    pub(crate) fn serves(&self, algorithm: SignatureAlgorithm) -> bool {
        use SignatureAlgorithm::{Es256, Es384, Ps384, Rs256, Rs384};
        match self {
            PublicKey::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Ps384),
            PublicKey::Elliptic { curve: Curve::P256, .. } => algorithm == Es256,
            PublicKey::Elliptic { curve: Curve::P384, .. } => algorithm == Es384,
        }
    }

    /// Whether `signature` is one of `message` by the owner of this key, under an algorithm that the key serves.
    pub(crate) fn has_signed(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        use SignatureAlgorithm::{Es256, Es384, Ps384, Rs256, Rs384};
        match self {
            PublicKey::Rsa { n, e } => {
                let parameters = match algorithm {
                    Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Es256 | Es384 => return false,
                };
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            PublicKey::Elliptic { curve, point } => {
                let parameters = match (curve, algorithm) {
                    (Curve::P256, Es256) => &signature::ECDSA_P256_SHA256_FIXED,
                    (Curve::P384, Es384) => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                signature::UnparsedPublicKey::new(parameters, point).verify(message, signature).is_ok()
            }
        }
    }
}

/// The members of a JOSE header that are looked at. Keys that a header brings along (`jwk`, `x5c`, `x5u`) are never used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct JoseHeader {
    /// Name of the algorithm.
    pub alg: String,
    /// Id of the key; `None` if it is not given.
    #[serde(default)]
    pub kid: Option<String>,
    /// Media type of the token.
    #[serde(default)]
    pub typ: Option<String>,
    /// URL of the key set.
    #[serde(default)]
    pub jku: Option<String>,
    /// Whether there are extensions that must be understood; none is.
    #[serde(default, deserialize_with = "is_given")]
    crit: bool,
}

/// Whether a member is there, whatever its value is.
fn is_given<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(|_| true)
}

/// Reads a JSON object, which alone a header or a set of claims may be: serde would take an array of its values as well.
///
/// # Errors
/// If it is another value, or has not these members.
pub(crate) fn read_object<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, ()> {
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(());
    }
    serde_json::from_slice(json).map_err(|_| ())
}

/// A token in three parts whose signature is not yet checked.
#[derive(Clone, Debug)]
pub(crate) struct CompactToken<'t> {
    /// The header.
    pub header: JoseHeader,
    /// The decoded payload, not to be believed before the signature is checked.
    pub payload: Vec<u8>,
    /// What is signed: header and payload as they were sent.
    message: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> CompactToken<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Why it is no signed token, a predicate that repeats nothing of it.
    pub(crate) fn parse(text: &'t str) -> Result<CompactToken<'t>, &'static str> {
        let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).map_err(|_| "has a part that is not base64url");
        let (message, signature) = text.rsplit_once('.').ok_or("has no three parts")?;
        let (header, payload) =
            message.split_once('.').filter(|(_, payload)| !payload.contains('.')).ok_or("has no three parts")?;
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: JoseHeader = read_object(&header).map_err(|()| "has a header that is none")?;
        if header.crit {
            return Err("has critical extensions in its header, of which none is known here");
        }
        Ok(CompactToken { header, payload, message: message.as_bytes(), signature })
    }

    /// Whether the owner of `key` signed it under `algorithm`.
    pub(crate) fn is_signed_by(&self, key: &PublicKey, algorithm: SignatureAlgorithm) -> bool {
        key.has_signed(algorithm, self.message, &self.signature)
    }
}

/// The beginning of a compact token: its header, encoded.
pub(crate) fn encode_part(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}
