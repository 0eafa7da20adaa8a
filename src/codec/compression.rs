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
        fn without<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
            let at = name.len().checked_sub(suffix.len())?;
            let end = name.get(at..)?;
            end.eq_ignore_ascii_case(suffix).then(|| &name[..at])
        }
        Compression::ALL.into_iter().find(|compression| {
            let stem = without(name, compression.suffix());
            stem.is_some_and(|stem| [".ndjson", ".jsonl"].iter().any(|format| without(stem, format).is_some()))
        })
    }

    /// Compression of a store file that begins with these bytes, [`FIRST_BYTES`] of them unless it is shorter. `named` is
    /// that of its name, which decides where the bytes do not tell: the start of a gzip file may be damaged, and a file may
    /// be empty as yet.
    pub(crate) fn of_first_bytes(first: &[u8], named: Compression) -> Compression {
        if first.starts_with(GZIP_MAGIC) {
            return Compression::Gzip;
        }
        if first.starts_with(ZSTD_MAGIC) || is_skippable_frame(first) {
            return Compression::Zstd;
        }
        if is_text(first) { Compression::None } else { named }
    }

    /// What a file of the compression is, in a message.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Compression::None => "plain text",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// Whether a version that knew `.ndjson` in lower case alone took a file of this name.
    pub(crate) fn is_earlier_name(name: &str) -> bool {
        [".ndjson", ".ndjson.gz", ".ndjson.zst"].iter().any(|suffix| name.ends_with(suffix))
    }
}

by_name!(Compression);

/// Number of bytes at the start of a store file from which its compression is found.
pub(crate) const FIRST_BYTES: usize = 64;

/// First bytes of a gzip member (RFC 1952, 2.3.1): its magic, and deflate as the method.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b\x08";

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";

/// Whether bytes begin with a skippable frame of zstd, whose magic has four free bits (RFC 8878, 3.1.2).
fn is_skippable_frame(first: &[u8]) -> bool {
    first.first().is_some_and(|byte| byte & 0xf0 == 0x50) && first[1..].starts_with(b"\x2a\x4d\x18")
}

/// Whether bytes begin as text does that may stand in a file of a store: JSON behind white space, a byte order mark of
/// UTF-8 or UTF-16, a pointer of Git LFS. Neither a gzip member nor a zstd frame begins so.
fn is_text(first: &[u8]) -> bool {
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    let body = first.trim_ascii_start();
    marks.iter().any(|mark| first.starts_with(mark))
        || matches!(body.first(), Some(b'{' | b'['))
        || first.starts_with(LFS_POINTER)
}

/// First bytes of a pointer that Git LFS leaves in the place of a file
/// (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>).
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs";

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
