//! Copies a JSON text without the white space between its tokens, 64 bytes at a time. Nothing else changes, and no
//! grammar is checked.

use crate::simd::{BLOCK, Kernel, KernelJob, Vector, escaped_characters};

/// Passes the runs of bytes of `text` that are no white space between tokens to `emit`, in their order. `false` if a
/// line feed stands inside a string, where JSON has none: the copy would be two lines.
pub(crate) fn compact(kernel: Kernel, text: &[u8], emit: impl FnMut(&[u8])) -> bool {
    kernel.run(CompactJob { text, emit })
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
        let (mut escaped_next, mut in_string_carry, mut broken) = (false, 0u64, 0u64);
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
            let classes = vector.classes(block);
            let mut escaped = 0;
            if classes.backslash != 0 || escaped_next {
                (escaped, escaped_next) = escaped_characters(classes.backslash, len, escaped_next);
            }
            let in_string = vector.prefix_xor(classes.quote & !escaped) ^ in_string_carry;
            in_string_carry = ((in_string as i64) >> 63) as u64;
            let in_text = if len == BLOCK { u64::MAX } else { (1 << len) - 1 };
            broken |= classes.newline & in_string & in_text;
            let mut space = classes.space & !in_string & in_text;
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
        broken == 0
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
                prop_assert_eq!((out, whole), naive(text.as_bytes()));
            }
        }
    }
}
