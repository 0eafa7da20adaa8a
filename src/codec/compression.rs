//! TODO: module documentation.

/// A place where decoding can start: a member or frame begins here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Restart {
    /// Its offset in the file, in bytes.
    pub compressed: u64,
    /// Uncompressed bytes before it.
    pub uncompressed: u64,
}
