//! TLS: certificate and key from two PEM files, which may be replaced while the server runs.
//!
//! TLS 1.2 and 1.3 (CORE-01), HTTP/2 and HTTP/1.1 by ALPN (CORE-09), no client certificates. The cryptography is *ring*'s,
//! whatever other providers are linked in. A handshake takes the certificate in force; a connection keeps what it began
//! with. What cannot be used is never taken: at the start it is an error, later the old certificate stays.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use crate::limits::TLS_FILE_BYTES_MAX;

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and the root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// The certificate in force.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Loads it.
    ///
    /// # Errors
    /// A sentence with the file and what is wrong with it.
    pub fn load(files: TlsFiles) -> Result<Arc<Certificate>, String> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Arc::new(Certificate { files, current }))
    }

    /// Loads it again, for handshakes from now on.
    ///
    /// # Errors
    /// As [`Certificate::load`]; then all stays as it is.
    pub fn reload(&self) -> Result<(), String> {
        let new = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// What shakes hands with this certificate.
    ///
    /// # Errors
    /// A sentence, when the cryptography is not as it must be.
    pub fn acceptor(self: &Arc<Certificate>) -> Result<TlsAcceptor, String> {
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

fn read(files: &TlsFiles) -> Result<CertifiedKey, String> {
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

/// All of a file that is small.
fn text(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        // A pipe that nobody writes to would be waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut text = Vec::new();
        file.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| format!("cannot be read: {error}"))?;
    match text.len() as u64 > TLS_FILE_BYTES_MAX {
        true => Err(format!("it has more than {TLS_FILE_BYTES_MAX} bytes")),
        false => Ok(text),
    }
}
