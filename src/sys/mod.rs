//! The operating system: files mapped or read, directories, disk space, signals. One of the two homes of `unsafe`.
//!
//! Nothing here knows FHIR, JSON, compression or the layout of an index. From below: `sigbus` turns the fault of a
//! shortened map into an error; `access` selects between maps and `pread`; `held_files` bounds how many files of the user's
//! store are held open; `store_file` is one of them, `file_stamps` looks at many without
//! opening them, `regular_file` opens files that others may have replaced; `file_map` maps index files, `little_endian` views their
//! bytes as integers; `directory`, `atomic_dir`, `durability` and `private_files` make, replace and sync files of our
//! own; `disk` reserves space and `process_limits` names the limits of the process; `sendfile` sends a stored file to
//! a socket, and `unix_socket` has sockets of our own; `interrupt` handles SIGINT and SIGTERM; `allocator` gives free memory back.

pub(crate) mod access;
pub(crate) mod allocator;
pub(crate) mod atomic_dir;
pub(crate) mod directory;
pub(crate) mod disk;
pub(crate) mod durability;
pub(crate) mod file_map;
pub(crate) mod file_stamps;
pub(crate) mod held_files;
pub(crate) mod interrupt;
pub(crate) mod little_endian;
pub(crate) mod parent_death;
pub(crate) mod private_files;
pub(crate) mod process_limits;
pub(crate) mod read_ahead;
pub(crate) mod regular_file;
pub(crate) mod sendfile;
pub(crate) mod sigbus;
pub(crate) mod store_file;
#[cfg(test)]
pub(crate) mod test_pipe;
pub(crate) mod unix_socket;
pub(crate) mod unsynced_entry;
