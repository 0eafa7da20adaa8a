//! The UTF-8 byte order mark that a text given by hand may begin with: some editors and shells write one. RFC 8259,
//! section 8.1, lets readers pass over it.
//!
//! Lines of store files are cut by `index::segment::line_splitter`, which treats the mark by itself.

use std::io::{self, Chain, Cursor, Read};

/// The mark in UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a source gives behind its mark, or all of it.
pub(crate) type UnmarkedSource<R> = Chain<Cursor<Vec<u8>>, R>;

/// A text without a mark at its start.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// A source without a mark at its start, however short its first pieces are, and the mark if there was one.
///
/// # Errors
/// If the first bytes cannot be read.
pub(crate) fn skip_mark<R: Read>(mut source: R) -> io::Result<(&'static [u8], UnmarkedSource<R>)> {
    let mut start = Vec::new();
    (&mut source).take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
    let mark = if start == BYTE_ORDER_MARK { BYTE_ORDER_MARK } else { &[] };
    start.drain(..mark.len());
    Ok((mark, Cursor::new(start).chain(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives a byte a call.
    struct SingleBytes<'a>(&'a [u8]);

    impl Read for SingleBytes<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }

    /// One mark at the start goes, whole ones only, and nothing else.
    #[test]
    fn one_mark_at_the_start_is_skipped() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"", b""),
            (b"\xef\xbb\xbf", b""),
            (b"\xef\xbb\xbf{}", b"{}"),
            (b"\xef\xbb\xbf\xef\xbb\xbf{}", b"\xef\xbb\xbf{}"),
            (b"\xef\xbb", b"\xef\xbb"),
            (b"\xef\xbb{}", b"\xef\xbb{}"),
            (b" \xef\xbb\xbf{}", b" \xef\xbb\xbf{}"),
        ];
        for (text, rest) in cases {
            let mut read = Vec::new();
            let (mark, mut source) = skip_mark(SingleBytes(text)).unwrap();
            source.read_to_end(&mut read).unwrap();
            assert_eq!((read.as_slice(), without_mark(text)), (rest, rest));
            assert_eq!(mark.len(), text.len() - rest.len());
        }
    }
}
