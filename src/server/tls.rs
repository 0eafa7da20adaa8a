//! TLS: certificate and key from two PEM files, which may be replaced while the server runs.
//!
//! TLS 1.2 and 1.3 (CORE-01), HTTP/2 and HTTP/1.1 by ALPN (CORE-09), no client certificates. The cryptography is
//! *ring*'s, whatever other providers are linked in. A handshake uses the certificate in force; established
//! connections are not affected by a reload. Files that cannot be used are an error at the start; later the old
//! certificate stays in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use crate::limits::TLS_FILE_BYTES_MAX;
use crate::sys::regular_file::read_regular;

/// `[tls]`: the files of certificate and key; both or neither are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsFiles {
    /// PEM file of the server's certificate and the intermediate ones up to the root.
    pub certificate: PathBuf,
    /// PEM file of the private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Whether TLS is on: a certificate is configured.
    pub(crate) fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// The problem if only one of the files is configured; `None` otherwise.
    pub(crate) fn tls_problem(&self) -> Option<String> {
        let (given, missing) = match (self.is_on(), !self.key.as_os_str().is_empty()) {
            (true, false) => ("certificate", "key"),
            (false, true) => ("key", "certificate"),
            _ => return None,
        };
        Some(format!("tls.{given} is given, but not tls.{missing}: TLS needs both, plain HTTP neither"))
    }

    /// Paths of certificate and key, to be watched.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }
}

/// The certificate in force, with the files that it is reloaded from.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Loads certificate and key.
    ///
    /// # Errors
    /// A sentence with the file and its problem.
    pub(crate) fn load(files: TlsFiles) -> Result<Arc<Certificate>, String> {
        let current = RwLock::new(Arc::new(read_certified_key(&files)?));
        Ok(Arc::new(Certificate { files, current }))
    }

    /// Loads the files again, for later handshakes.
    ///
    /// # Errors
    /// As [`Certificate::load`]; the old certificate stays in force.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let new = Arc::new(read_certified_key(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The acceptor of TLS connections, which uses the certificate in force.
    ///
    /// # Errors
    /// A sentence, if the cryptography provider lacks a TLS version.
    pub(crate) fn acceptor(self: &Arc<Certificate>) -> Result<TlsAcceptor, String> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| format!("TLS cannot be used: {error}"))?;
        let mut config = config.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Reads and matches certificate and key.
///
/// # Errors
/// A sentence with the file and its problem.
fn read_certified_key(files: &TlsFiles) -> Result<CertifiedKey, String> {
    let wrong = |name: &str, path: &Path, why: String| format!("tls.{name} {}: {why}", path.display());
    let in_certificate = |why| wrong("certificate", &files.certificate, why);
    let in_key = |why| wrong("key", &files.key, why);

    let text = text(&files.certificate).map_err(in_certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| in_certificate(format!("it is no PEM file ({error})")))?;
    if chain.is_empty() {
        return Err(in_certificate("there is no certificate in it: it must have one in PEM".to_string()));
    }
    let key = self::text(&files.key).map_err(in_key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        in_key("there is no private key in it: it must have one in PEM, without a passphrase".to_string())
    })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            in_key(format!("it is not the key of the certificate in {}", files.certificate.display()))
        }
        rustls::Error::InvalidCertificate(why) => in_certificate(format!("the certificate cannot be used: {why}")),
        other => in_key(format!("the key cannot be used: {other}")),
    })
}

/// The content of a PEM file, which must be a regular file of bounded size.
fn text(path: &Path) -> Result<Vec<u8>, String> {
    read_regular(path, TLS_FILE_BYTES_MAX).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Writes a new self-signed certificate for this machine to `certificate.pem` and `key.pem` of a directory.
    pub(crate) fn make(directory: &Path) -> (TlsFiles, CertificateDer<'static>) {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
        let files = TlsFiles { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
        std::fs::write(&files.certificate, cert.pem()).unwrap();
        std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        (files, cert.der().clone())
    }

    /// A client that trusts one certificate.
    pub(crate) fn connector(
        trusted: &CertificateDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// Each problem of the files is reported with the file, and leaves the loaded certificate in force.
    #[test]
    fn what_cannot_be_used_is_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ((files, first), (others, _)) = (make(dir.path()), make(other.path()));
        let certificate = Certificate::load(files.clone()).unwrap();
        let current = || certificate.current.read().unwrap().cert[0].clone();
        let (good, key) = (std::fs::read(&files.certificate).unwrap(), std::fs::read(&files.key).unwrap());
        let long = vec![b'x'; TLS_FILE_BYTES_MAX as usize + 1];
        let nonsense = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
        for (path, bytes, words) in [
            (&files.certificate, Some(b"hello".to_vec()), "there is no certificate in it"),
            (&files.certificate, Some(key.clone()), "there is no certificate in it"),
            (&files.certificate, Some(nonsense), "cannot be used"),
            (&files.certificate, Some(long.clone()), "more than 1048576 bytes"),
            (&files.certificate, None, "No such file"),
            (&files.key, Some(good.clone()), "there is no private key in it"),
            (&files.key, Some(std::fs::read(&others.key).unwrap()), "it is not the key of the certificate"),
            (&files.key, None, "No such file"),
        ] {
            let before = std::fs::read(path).unwrap();
            match bytes {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let error = certificate.reload().unwrap_err();
            assert!(error.contains(words) && error.contains(path.to_str().unwrap()), "{words}: {error}");
            assert!(!error.contains("PRIVATE"), "{error}");
            assert_eq!(Certificate::load(files.clone()).unwrap_err(), error);
            assert_eq!(current(), first);
            std::fs::write(path, before).unwrap();
        }
        let (_, second) = make(dir.path());
        certificate.reload().unwrap();
        assert_eq!(current(), second);
        let pipe = TlsFiles { certificate: "/dev/null".into(), ..files };
        assert!(Certificate::load(pipe).unwrap_err().contains("no regular file"));
    }
}
