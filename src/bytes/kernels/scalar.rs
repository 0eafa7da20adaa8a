//! The portable kernel: byte by byte, and therefore obviously right.

use super::{BLOCK, Classes, Vector};

/// No vectors.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Vector for Plain {
    fn classes(self, block: &[u8; BLOCK]) -> Classes {
        classes(block)
    }
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor(bits)
    }
}

/// Classes of a block.
fn classes(block: &[u8; BLOCK]) -> Classes {
    let mut found = Classes::default();
    for (at, byte) in block.iter().enumerate() {
        let bit = 1 << at;
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

/// Bit i of the result is the parity of bits 0 to i.
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
