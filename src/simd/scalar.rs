//! The portable kernel: byte by byte, and therefore obviously correct. The reference implementation of the others.

use crate::simd::{BLOCK, BlockMarks, Classes, HALF, Vector, WINDOW};

/// The scalar kernel's block operations.
#[derive(Clone, Copy)]
pub(crate) struct ScalarVector;

impl Vector for ScalarVector {
    fn classes(self, block: &[u8; BLOCK]) -> Classes {
        classes(block)
    }
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor(bits)
    }
    fn marks(self, block: &[u8; BLOCK]) -> BlockMarks {
        marks(block)
    }
    fn differing(self, a: &[u8; HALF], b: &[u8; HALF]) -> u32 {
        (0..HALF).fold(0, |bits, i| bits | u32::from(a[i] != b[i]) << i)
    }
    fn mention_letters(self, window: &[u8; WINDOW]) -> u64 {
        let has_letters = |i: usize| matches!(window[i + 3..i + 6], [b'f' | b'n', _, b'r']);
        (0..BLOCK).fold(0, |bits, i| bits | u64::from(has_letters(i)) << i)
    }
}

/// Classes of a block, byte by byte.
fn classes(block: &[u8; BLOCK]) -> Classes {
    let mut found = Classes::default();
    for (i, byte) in block.iter().enumerate() {
        let bit = 1 << i;
        match byte {
            b'\\' => found.backslash |= bit,
            b'"' => found.quote |= bit,
            b'{' | b'[' => found.open |= bit,
            b'}' | b']' => found.close |= bit,
            b':' => found.colon |= bit,
            b',' => found.comma |= bit,
            b' ' | b'\t' | b'\n' | b'\r' => found.space |= bit,
            _ => {}
        }
        if *byte == b'\n' {
            found.newline |= bit;
        }
        if *byte & 0x20 != 0 {
            found.curly |= bit;
        }
        if *byte < 0x20 {
            found.control |= bit;
        }
        if *byte >= 0x80 {
            found.high |= bit;
        }
    }
    found
}

/// Marks of a block, byte by byte.
fn marks(block: &[u8; BLOCK]) -> BlockMarks {
    let found = classes(block);
    let bits_where =
        |is: fn(&u8) -> bool| block.iter().enumerate().fold(0, |bits, (i, byte)| bits | u64::from(is(byte)) << i);
    BlockMarks {
        backslash: found.backslash,
        quote: found.quote,
        punctuation: found.punctuation(),
        space: found.space,
        control: found.control,
        high: found.high,
        digit: bits_where(u8::is_ascii_digit),
        zero: bits_where(|byte| *byte == b'0'),
        dot: bits_where(|byte| *byte == b'.'),
    }
}

/// Bit i of the result is the parity of bits 0 to i, by doubling shifts.
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
