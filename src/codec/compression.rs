//! The compressions of NDJSON files in the store and in the output, and the points at which decoding of a compressed
//! file can start.

use crate::named_enum::by_name;

/// Compression of an NDJSON file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Plain NDJSON, uncompressed.
    #[default]
    None,
    /// gzip (RFC 1952): any number of members in a store file, one in an output file.
    Gzip,
    /// zstd (RFC 8878): any number of frames.
    Zstd,
}

impl Compression {
    /// Every compression, in the order of the enum.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

    /// Name of the compression in records, manifests and hashes.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// Suffix of a file's name behind `.ndjson`; empty for [`Compression::None`].
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// Compression by the suffix of a file's name, in lower case only; `None` for a name that no store file has.
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

/// What becomes of rows of a gzip member or zstd frame that is not proven. A member is proven when its checksum and
/// length hold; a frame when its checksum holds or, if it carries none, when it decodes to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnprovenPolicy {
    /// They are one fault, with all that stands behind them in the file.
    #[default]
    Fault,
    /// Lines that end before the first damaged byte are rows, altered or not; what stands behind them is one fault.
    Export,
}

impl UnprovenPolicy {
    /// Every policy, in the order of the enum.
    pub const ALL: [UnprovenPolicy; 2] = [UnprovenPolicy::Fault, UnprovenPolicy::Export];

    /// Name of the policy in records, manifests and configurations.
    pub const fn name(self) -> &'static str {
        match self {
            UnprovenPolicy::Fault => "fault",
            UnprovenPolicy::Export => "export",
        }
    }
}

by_name!(UnprovenPolicy);

/// A point at which decoding can start: the start of a gzip member or a zstd frame. The default is the start of a
/// file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeekPoint {
    /// Offset in the compressed file, in bytes.
    pub compressed: u64,
    /// Uncompressed bytes before the point.
    pub uncompressed: u64,
}
