//! Bytes of files: mapped or read, guarded, hashed, decoded, seen as columns. The only home of `unsafe`.
//!
//! Nothing here knows FHIR or JSON. From below: `guard` keeps a shortened file from killing the process; `source` is a
//! store file, `hash` its identity, `decode` its uncompressed bytes, `xxh3` the hash of both; `map` holds files of our own (an index that is
//! read, a column that is filled) and `columns` sees their bytes as integers; `directory` reaches files of our own beneath a directory
//! without following links; `outgoing` is a file on its way to a socket.

pub(crate) mod access;
pub(crate) mod atomic_dir;
pub(crate) mod directory;
pub(crate) mod disk;
pub(crate) mod durability;
pub(crate) mod file_map;
pub(crate) mod interrupt;
pub(crate) mod little_endian;
pub(crate) mod open_file_limit;
pub(crate) mod private_files;
pub(crate) mod regular_file;
pub(crate) mod sendfile;
pub(crate) mod sigbus;
pub(crate) mod store_file;
