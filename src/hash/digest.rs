//! Digests of output files, computed while they are written or from a written file (MANIFEST-17).

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::hash::Hasher128;
use crate::named_enum::by_name;

/// Algorithm of the digests in a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DigestAlgorithm {
    /// xxHash3 with 128 bits: detects damage, not malice, at little cost.
    #[default]
    Xxh3,
    /// SHA-256: detects malice, too.
    Sha256,
    /// Output files have no digest.
    None,
}

impl DigestAlgorithm {
    /// Every algorithm, in the order of the enum.
    pub const ALL: [DigestAlgorithm; 3] = [DigestAlgorithm::Xxh3, DigestAlgorithm::Sha256, DigestAlgorithm::None];

    /// Name of the algorithm in records, manifests and hashes.
    pub const fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Xxh3 => "xxh3",
            DigestAlgorithm::Sha256 => "sha256",
            DigestAlgorithm::None => "none",
        }
    }
}

by_name!(DigestAlgorithm);

/// A digest and its algorithm, as in manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The algorithm; never [`DigestAlgorithm::None`] in a digest that was computed.
    pub algorithm: DigestAlgorithm,
    /// The hash in lower-case hexadecimal.
    pub value: String,
}

/// A digest under computation; of [`DigestAlgorithm::None`] it computes nothing.
pub(crate) enum Digester {
    /// 128-bit xxHash3 of the bytes so far.
    Xxh3(Box<Hasher128>),
    /// SHA-256 of the bytes so far.
    Sha256(Box<sha2::Sha256>),
    /// No digest is computed.
    None,
}

impl Digester {
    /// A digest of no bytes.
    pub(crate) fn new(algorithm: DigestAlgorithm) -> Digester {
        match algorithm {
            DigestAlgorithm::Xxh3 => Digester::Xxh3(Box::default()),
            DigestAlgorithm::Sha256 => Digester::Sha256(Box::default()),
            DigestAlgorithm::None => Digester::None,
        }
    }

    /// Adds the next bytes of the file to the digest.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Digester::Xxh3(hash) => hash.update(bytes),
            Digester::Sha256(hash) => hash.update(bytes),
            Digester::None => {}
        }
    }

    /// The digest of all bytes added; `None` for [`DigestAlgorithm::None`].
    pub(crate) fn finish(self) -> Option<Digest> {
        match self {
            Digester::Xxh3(hash) => {
                Some(Digest { algorithm: DigestAlgorithm::Xxh3, value: format!("{:032x}", hash.digest()) })
            }
            Digester::Sha256(hash) => {
                let value = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                Some(Digest { algorithm: DigestAlgorithm::Sha256, value })
            }
            Digester::None => None,
        }
    }
}

impl Digest {
    /// Whether the value has the length and the lower-case digits of its algorithm; `false` for
    /// [`DigestAlgorithm::None`].
    pub fn is_well_formed(&self) -> bool {
        let digits = match self.algorithm {
            DigestAlgorithm::Xxh3 => 32,
            DigestAlgorithm::Sha256 => 64,
            DigestAlgorithm::None => return false,
        };
        self.value.len() == digits && self.value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// Reads an open file from its current position to its end; its length in bytes and its digest. Nothing is read for
/// [`DigestAlgorithm::None`].
///
/// # Errors
/// The system's error when the file cannot be read.
pub(crate) fn digest_file(mut file: File, algorithm: DigestAlgorithm) -> io::Result<(u64, Option<Digest>)> {
    let mut digester = Digester::new(algorithm);
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    if algorithm == DigestAlgorithm::None {
        return Ok((file.metadata()?.len(), None));
    }
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((len, digester.finish())),
            Ok(read) => {
                digester.update(&buffer[..read]);
                len += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: SHA-256 of "abc" (FIPS 180-4, appendix B.1).
    #[test]
    fn sha256_of_abc() {
        let mut digester = Digester::new(DigestAlgorithm::Sha256);
        digester.update(b"a");
        digester.update(b"bc");
        let value = digester.finish().unwrap().value;
        assert_eq!(value, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
