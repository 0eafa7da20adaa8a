//! Bytes of files: mapped or read, guarded, hashed, decoded, seen as columns. The only home of `unsafe`.
//!
//! Nothing here knows FHIR or JSON. From below: `guard` keeps a shortened file from killing the process; `source` is a
//! store file, `hash` its identity, `decode` its uncompressed bytes, `xxh3` the hash of both; `map` holds files of our own (an index that is
//! read, a column that is filled) and `columns` sees their bytes as integers; `directory` reaches files of our own beneath a directory
//! without following links; `outgoing` is a file on its way to a socket.

pub mod columns;
pub mod decode;
pub mod directory;
pub mod disk;
pub mod guard;
pub mod hash;
pub mod kernels;
pub mod map;
pub mod open_files;
pub mod outgoing;
pub mod private;
pub mod regular_file;
pub mod signal;
pub mod source;
pub mod xxh3;
