//! Copies a JSON text without the white space between its tokens, 64 bytes at a time. Nothing else changes, and no
//! grammar is checked.

use crate::simd::{BLOCK, Kernel, KernelJob, Vector, escaped_characters};

/// Passes the runs of bytes of `text` that are no white space between tokens to `emit`, in their order. `false` if a
/// line feed stands inside a string, where JSON has none: the copy would be two lines.
pub(crate) fn compact(kernel: Kernel, text: &[u8], emit: impl FnMut(&[u8])) -> bool {
    kernel.run(CompactJob { text, emit })
}

/// Puts the bytes of `text` that are no white space between tokens to the front of `out`, which is made longer as needed, and
/// returns their number and what [`compact`] returns. The bytes behind them are unspecified.
pub(crate) fn compact_to_front(kernel: Kernel, text: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
    // Each block is written as a whole, however few of its bytes stay.
    if out.len() < text.len() + BLOCK {
        out.resize(text.len() + BLOCK, 0);
    }
    kernel.run(CompressJob { text, out })
}

/// The white space between tokens, block by block.
#[derive(Default)]
struct SpaceFinder {
    /// Whether the next character is escaped.
    escaped_next: bool,
    /// All ones inside a string, else 0.
    in_string: u64,
    /// Line feeds inside strings.
    broken: u64,
}

impl SpaceFinder {
    /// The white space of the next block, of which `len` bytes are of the text.
    #[inline(always)]
    fn next<V: Vector>(&mut self, vector: V, block: &[u8; BLOCK], len: usize) -> u64 {
        let classes = vector.classes(block);
        let mut escaped = 0;
        if classes.backslash != 0 || self.escaped_next {
            (escaped, self.escaped_next) = escaped_characters(classes.backslash, len, self.escaped_next);
        }
        let in_string = vector.prefix_xor(classes.quote & !escaped) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        let in_text = in_text(len);
        self.broken |= classes.newline & in_string & in_text;
        classes.space & !in_string & in_text
    }
}

/// The first `len` bytes of a block.
#[inline(always)]
fn in_text(len: usize) -> u64 {
    if len == BLOCK { u64::MAX } else { (1 << len) - 1 }
}

/// A text on its way through [`compact_to_front`].
struct CompressJob<'a> {
    text: &'a [u8],
    out: &'a mut [u8],
}

impl KernelJob for CompressJob<'_> {
    type Output = (usize, bool);
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> (usize, bool) {
        let CompressJob { text, out } = self;
        let mut spaces = SpaceFinder::default();
        let (blocks, tail) = text.as_chunks::<BLOCK>();
        let mut written = 0;
        let mut put = |block: &[u8; BLOCK], kept: u64| {
            let slot = out[written..].first_chunk_mut::<BLOCK>().expect("room for a block behind each byte");
            written += match kept {
                u64::MAX => {
                    *slot = *block;
                    BLOCK
                }
                kept => vector.compress(block, kept, slot),
            };
        };
        for block in blocks {
            put(block, !spaces.next(vector, block, BLOCK));
        }
        if !tail.is_empty() {
            let mut block = [b'"'; BLOCK];
            block[..tail.len()].copy_from_slice(tail);
            put(&block, !spaces.next(vector, &block, tail.len()) & in_text(tail.len()));
        }
        (written, spaces.broken == 0)
    }
}

/// A text on its way through [`compact`].
struct CompactJob<'a, F> {
    text: &'a [u8],
    emit: F,
}

impl<F: FnMut(&[u8])> KernelJob for CompactJob<'_, F> {
    type Output = bool;
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> bool {
        let CompactJob { text, mut emit } = self;
        let (mut run_start, mut at) = (0, 0);
        let mut spaces = SpaceFinder::default();
        while at < text.len() {
            let rest = &text[at..];
            let mut padded = [b'"'; BLOCK];
            let (block, len) = match rest.first_chunk() {
                Some(block) => (block, BLOCK),
                None => {
                    padded[..rest.len()].copy_from_slice(rest);
                    (&padded, rest.len())
                }
            };
            let mut space = spaces.next(vector, block, len);
            while space != 0 {
                let from = space.trailing_zeros();
                let count = (!(space >> from)).trailing_zeros();
                let position = at + from as usize;
                if position > run_start {
                    emit(&text[run_start..position]);
                }
                run_start = position + count as usize;
                space = if from + count >= 64 { 0 } else { space & (u64::MAX << (from + count)) };
            }
            at += BLOCK;
        }
        if run_start < text.len() {
            emit(&text[run_start..]);
        }
        spaces.broken == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same byte by byte.
    fn naive(text: &[u8]) -> (Vec<u8>, bool) {
        let (mut out, mut in_string, mut escaped, mut whole) = (Vec::new(), false, false, true);
        for byte in text {
            if in_string {
                whole &= *byte != b'\n';
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
            } else if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                continue;
            } else {
                in_string = *byte == b'"';
            }
            out.push(*byte);
        }
        (out, whole)
    }

    proptest! {
        /// Every kernel drops what a walk byte by byte drops, in texts that begin as JSON does.
        #[test]
        fn white_space_between_tokens_goes(text in "(\"([a-z \\n]|\\\\[\"\\\\n])*\"|[ \\n\\t\\r]{0,70}|[{}:,0-9é]){0,40}") {
            for kernel in Kernel::available() {
                let mut out = Vec::new();
                let whole = compact(kernel, text.as_bytes(), |run| out.extend_from_slice(run));
                prop_assert_eq!(&(out, whole), &naive(text.as_bytes()));
                // Also into memory that held something else.
                let mut front = vec![b'x'; 70];
                let (len, whole) = compact_to_front(kernel, text.as_bytes(), &mut front);
                prop_assert_eq!((front[..len].to_vec(), whole), naive(text.as_bytes()));
            }
        }
    }
}
