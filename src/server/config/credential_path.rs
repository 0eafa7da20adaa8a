//! Paths of the configuration that name credentials of the service manager: `credential:NAME` is the file NAME in the
//! directory that systemd makes for `LoadCredential=` (<https://systemd.io/CREDENTIALS/>), so that no key has to be readable by
//! anything but the service.

use std::path::{Path, PathBuf};

/// Beginning of a path that names a credential.
const PREFIX: &str = "credential:";
/// The variable with the directory of the credentials.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Replaces paths that name credentials by those of their files in a directory; each path with its key in the configuration.
///
/// # Errors
/// A sentence on each that names none.
pub(crate) fn resolve_credentials(
    paths: Vec<(String, &mut PathBuf)>,
    directory: Option<&Path>,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for (key, path) in paths {
        let Some(name) = path.to_str().and_then(|text| text.strip_prefix(PREFIX)) else { continue };
        match directory {
            _ if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                problems.push(format!("{key} is {PREFIX}{name}, which names no credential: give a name as LoadCredential= has it, without a path"));
            }
            None => problems.push(format!(
                "{key} names a credential, but {DIRECTORY} is not set: start the service by systemd with LoadCredential={name}:…"
            )),
            Some(directory) => *path = directory.join(name),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The directory of the credentials of this process; `None` if there is none.
pub(crate) fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Config;

    /// A credential is a file of the service manager's directory, and of no other.
    #[test]
    fn credentials_are_found() {
        let text = "[tls]\ncertificate = '/etc/c.pem'\nkey = 'credential:tls.key'\n[smart]\nproxy_file = 'credential:proxy'\n\
                    [[clients]]\nname = 'a'\nsmart = { jwks_file = 'credential:a.jwks' }";
        let read = |text: &str| toml::from_str::<Config>(text).unwrap();
        let mut config = read(text);
        resolve_credentials(config.credential_paths(), Some(Path::new("/run/c"))).unwrap();
        assert_eq!(config.tls.certificate, Path::new("/etc/c.pem"));
        assert_eq!(config.tls.key, Path::new("/run/c/tls.key"));
        assert_eq!(config.smart.proxy_file, Path::new("/run/c/proxy"));
        assert_eq!(config.clients[0].smart.as_ref().unwrap().jwks_file, Path::new("/run/c/a.jwks"));
        let problems = resolve_credentials(read(text).credential_paths(), None).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("tls.key") && problems[0].contains(DIRECTORY));
        for name in ["", "../key", "a/b", ".hidden"] {
            let mut config = read(&format!("[tls]\nkey = 'credential:{name}'"));
            assert_eq!(
                resolve_credentials(config.credential_paths(), Some(Path::new("/run/c"))).unwrap_err().len(),
                1,
                "{name}"
            );
        }
    }
}
