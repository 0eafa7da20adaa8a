//! Bytes of files: mapped or read, guarded, hashed, decoded, seen as columns. The only home of `unsafe`.
//!
//! Nothing here knows FHIR or JSON. From below: `guard` keeps a shortened file from killing the process; `source` is a
//! store file, `hash` its identity, `decode` its uncompressed bytes, `xxh3` the hash of both; `map` holds files of our own (an index that is
//! read, a column that is filled) and `columns` sees their bytes as integers; `directory` reaches files of our own beneath a directory
//! without following links; `outgoing` is a file on its way to a socket.

pub mod access;
pub mod atomic_dir;
pub mod directory;
pub mod disk;
pub mod durability;
pub mod file_map;
pub mod interrupt;
pub mod little_endian;
pub mod open_file_limit;
pub mod private_files;
pub mod regular_file;
pub mod sendfile;
pub mod sigbus;
pub mod store_file;
