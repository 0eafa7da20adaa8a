//! The compressions of NDJSON files, of the store and of the output, and where decoding of a compressed file can start.

use crate::named_enum::by_name;

/// How an NDJSON file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952): any number of members in a store file, one in an output file.
    Gzip,
    /// zstd (RFC 8878): any number of frames.
    Zstd,
}

impl Compression {
    /// Every value.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

    /// Its word in records, manifests and hashes.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// The end of a file's name behind `.ndjson`.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// By the end of a file's name, exactly in lower case; `None` when it is no store file.
    pub fn of_file_name(name: &str) -> Option<Compression> {
        match name {
            _ if name.ends_with(".ndjson") => Some(Compression::None),
            _ if name.ends_with(".ndjson.gz") => Some(Compression::Gzip),
            _ if name.ends_with(".ndjson.zst") => Some(Compression::Zstd),
            _ => None,
        }
    }
}

by_name!(Compression);

/// A place where decoding can start: a gzip member or a zstd frame begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeekPoint {
    /// Its offset in the file, in bytes.
    pub compressed: u64,
    /// Uncompressed bytes before it.
    pub uncompressed: u64,
}
