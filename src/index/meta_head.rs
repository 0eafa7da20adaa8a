//! The first numbers of the index meta: its generation, the last T, and whether links are followed. They are read without the
//! files and segments behind them, of which there may be many.

use crate::index::meta::MetaReader;
use crate::index::segment::layout;

/// Bytes of an index meta that hold its first line and its [`MetaHead`], and more.
pub(crate) const HEAD_BYTES: usize = 256;

/// The first numbers of an index meta, as far as they are used without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetaHead {
    /// As [`IndexMeta::sequence`](crate::index::meta::IndexMeta::sequence).
    pub sequence: u64,
    /// As [`IndexMeta::follow_symlinks`](crate::index::meta::IndexMeta::follow_symlinks).
    pub follow_symlinks: bool,
    /// As [`IndexMeta::latest`](crate::index::meta::IndexMeta::latest).
    pub latest: Option<i64>,
}

impl MetaHead {
    /// What the first [`HEAD_BYTES`] of an index meta say, or all of them; `None` when they are no such bytes of this version.
    /// Their checksum is not looked at, because it is one of the whole file.
    pub(crate) fn of_front(bytes: &[u8]) -> Option<MetaHead> {
        let newline = memchr::memchr(b'\n', bytes)?;
        let (line, body) = bytes.split_at(newline);
        let checksum = line.strip_prefix(format!("outpour-index {} ", layout::VERSION).as_bytes())?;
        (checksum.len() == 16).then_some(())?;
        let mut body = MetaReader(&body[1..]);
        let sequence = body.number()?;
        // Six numbers of rules and choices come before that of links, and one after it.
        (0..6).try_for_each(|_| body.number().map(drop))?;
        let follow_symlinks = body.flag()?;
        body.number()?;
        let (_birth, latest) = (body.optional()?, body.optional()?);
        Some(MetaHead { sequence, follow_symlinks, latest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::Validate;
    use crate::index::meta::IndexMeta;

    /// The head says what the whole says, of all of its bytes or of the first alone.
    #[test]
    fn a_head_is_that_of_the_whole() {
        for (follow_symlinks, birth, latest) in [(false, None, None), (true, Some(-7), Some(12)), (true, Some(3), None)]
        {
            let root = "/stores/".repeat(40);
            let meta =
                IndexMeta { sequence: 9, follow_symlinks, birth, latest, root, ..IndexMeta::empty(Validate::Full) };
            let bytes = meta.to_bytes();
            let whole = IndexMeta::from_bytes(&bytes).unwrap();
            let head =
                MetaHead { sequence: whole.sequence, follow_symlinks: whole.follow_symlinks, latest: whole.latest };
            assert_eq!(MetaHead::of_front(&bytes), Some(head));
            assert_eq!(MetaHead::of_front(&bytes[..HEAD_BYTES]), Some(head));
            assert_eq!(MetaHead::of_front(&bytes[..100]), None);
        }
        assert_eq!(MetaHead::of_front(b"outpour-index 5 0123456789abcdef\n"), None);
    }
}
