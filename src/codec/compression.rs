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

    /// Compression by the suffix of a file's name, `.ndjson` or `.jsonl` with `.gz`, `.zst` or nothing behind, in any case;
    /// `None` for a name that no store file has.
    pub fn of_file_name(name: &str) -> Option<Compression> {
        let without = |suffix: &str| {
            let at = name.len().checked_sub(suffix.len())?;
            let end = name.get(at..)?;
            end.eq_ignore_ascii_case(suffix).then(|| &name[..at])
        };
        let of = |compression: Compression| {
            let ends = |format: &str| without(&format!("{format}{}", compression.suffix())).is_some();
            ends(".ndjson") || ends(".jsonl")
        };
        Compression::ALL.into_iter().find(|compression| of(*compression))
    }

    /// Whether a version that knew `.ndjson` in lower case alone took a file of this name.
    pub(crate) fn is_earlier_name(name: &str) -> bool {
        [".ndjson", ".ndjson.gz", ".ndjson.zst"].iter().any(|suffix| name.ends_with(suffix))
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
