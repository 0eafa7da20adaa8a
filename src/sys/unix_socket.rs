//! Unix sockets by their names in a directory, which only their owner can reach.
//!
//! The path of a socket has at most 107 bytes (unix(7)), and that of a directory may be longer. So a socket is reached through
//! the descriptor of its directory, as `/proc/self/fd/N/name`; where `/proc` is not mounted, by its path.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::sys::directory::Directory;

/// Name of the socket in the private directory that it is bound in.
const NEW_SOCKET: &str = "s";

/// Listens at a socket of mode 0600. It is bound in a directory that nobody else can enter and then moved to its name, so that it
/// is never open to others, and takes the place of a socket that a killed process left.
///
/// # Errors
/// The system's; `InvalidInput` if the path is too long and `/proc` is not mounted.
pub(crate) fn bind_private(directory: &Directory, name: &str) -> io::Result<UnixListener> {
    let private = format!(".{name}.part");
    directory.remove_tree(&private)?;
    let bound = directory.make_directory(&private).and_then(|inside| {
        let listener = UnixListener::bind(socket_path(&inside, NEW_SOCKET))?;
        std::fs::set_permissions(socket_path(&inside, NEW_SOCKET), std::fs::Permissions::from_mode(0o600))?;
        directory.rename(&format!("{private}/{NEW_SOCKET}"), name)?;
        Ok(listener)
    });
    directory.remove_tree(&private).ok();
    bound
}

/// Connects to a socket in a directory.
///
/// # Errors
/// `NotFound` if there is none, `ConnectionRefused` if nobody listens there any more; else as [`bind_private`].
pub(crate) fn connect(directory: &Directory, name: &str) -> io::Result<UnixStream> {
    UnixStream::connect(socket_path(directory, name))
}

/// A path of a name in an open directory that is short, if the system has one.
fn socket_path(directory: &Directory, name: &str) -> PathBuf {
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    match short.is_dir() {
        true => short.join(name),
        false => directory.path().join(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    /// A socket is only its owner's, in a directory whose path is too long for one; that of a dead process is replaced.
    #[test]
    fn sockets_in_long_paths_are_private() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("d".repeat(150));
        std::fs::create_dir(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        assert_eq!(connect(&directory, "sock").unwrap_err().kind(), io::ErrorKind::NotFound);
        for _ in 0..2 {
            let listener = bind_private(&directory, "sock").unwrap();
            assert_eq!(std::fs::metadata(path.join("sock")).unwrap().mode() & 0o777, 0o600);
            assert_eq!(directory.names().unwrap(), ["sock"]);
            let mut client = connect(&directory, "sock").unwrap();
            listener.accept().unwrap().0.write_all(b"hello").unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
            drop(listener);
            assert_eq!(connect(&directory, "sock").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
