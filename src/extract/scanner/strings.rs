//! Strings of the scanner: raw text gathered over pieces, escapes, control characters and UTF-8.

use crate::extract::fault::FaultKind;
use crate::extract::scanner::Scanner;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::simd::{BLOCK, Masks};

impl Scanner {
    /// Appends the raw text of a string from `from` up to the closing quote, or to the end of the piece; whether the
    /// quote was found.
    pub(crate) fn gather_string(&mut self, piece: &[u8], from: usize) -> bool {
        // A backslash at the end of the text gathered so far escapes the first character here.
        let mut escaped = self.text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        for (offset, byte) in piece.iter().enumerate().skip(from) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.add_text(&piece[from..offset]);
                    return true;
                }
                _ => {}
            }
        }
        self.add_text(&piece[from..]);
        false
    }

    /// Appends raw text. Text longer than any that is compared is dropped, except one backslash where its run at the
    /// end is odd, because it escapes the next character.
    fn add_text(&mut self, bytes: &[u8]) {
        if self.text.len() + bytes.len() > 8 * REFERENCE_BYTES_MAX {
            self.too_long = true;
            let slashes = bytes.iter().rev().take_while(|byte| **byte == b'\\').count();
            let before = self.text.iter().rev().take_while(|byte| **byte == b'\\').count();
            let odd = (slashes + if slashes == bytes.len() { before } else { 0 }) % 2 == 1;
            self.text.clear();
            self.text.extend_from_slice(if odd { b"\\" } else { b"" });
            return;
        }
        self.text.extend_from_slice(bytes);
    }

    /// Checks the escapes and control characters in the strings of a batch (RFC 8259, section 7). An error is a fault
    /// and its offset in the piece.
    pub(crate) fn check_strings(
        &mut self,
        piece: &[u8],
        base: usize,
        blocks: usize,
        masks: &Masks,
    ) -> Result<(), (FaultKind, usize)> {
        for block in 0..blocks {
            let offset = base + block * BLOCK;
            if masks.control[block] != 0 {
                return Err((FaultKind::Control, offset + masks.control[block].trailing_zeros() as usize));
            }
            // Digits of an escape that the block before began.
            let mut next = offset;
            while self.hex_left > 0 && next < piece.len() && next < offset + BLOCK {
                let Some(digit) = char::from(piece[next]).to_digit(16) else { return Err((FaultKind::Escape, next)) };
                self.surrogates.unit = self.surrogates.unit << 4 | digit;
                self.hex_left -= 1;
                next += 1;
                if self.hex_left == 0 {
                    self.surrogates.take_unit(self.position + next as u64);
                }
            }
            let mut escaped = masks.escaped[block];
            while escaped != 0 {
                let i = offset + escaped.trailing_zeros() as usize;
                escaped &= escaped - 1;
                match piece[i] {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let end = (base + (block + 1) * BLOCK).min(piece.len());
                        let digits = &piece[i + 1..(i + 5).min(end)];
                        self.surrogates.unit = 0;
                        for (k, byte) in digits.iter().enumerate() {
                            let digit = char::from(*byte).to_digit(16).ok_or((FaultKind::Escape, i + 1 + k))?;
                            self.surrogates.unit = self.surrogates.unit << 4 | digit;
                        }
                        self.hex_left = 4 - digits.len() as u32;
                        if self.hex_left == 0 {
                            self.surrogates.take_unit(self.position + i as u64 + 5);
                        }
                    }
                    _ => return Err((FaultKind::Escape, i)),
                }
            }
        }
        Ok(())
    }

    /// Checks the UTF-8 of a piece, sequences over its ends included.
    pub(crate) fn check_utf8(&mut self, piece: &[u8]) -> Result<(), (FaultKind, usize)> {
        let mut rest = piece;
        if !self.partial.is_empty() {
            let mut joined = std::mem::take(&mut self.partial);
            // At most three more bytes complete a sequence.
            let before = joined.len();
            while let Some((first, more)) = rest.split_first() {
                joined.push(*first);
                rest = more;
                match str::from_utf8(&joined) {
                    Ok(_) => {
                        joined.clear();
                        break;
                    }
                    Err(error) if error.error_len().is_some() || joined.len() >= before + 4 => {
                        return Err((FaultKind::Utf8, 0));
                    }
                    Err(_) => {}
                }
            }
            self.partial = joined;
        }
        if rest.is_empty() || simdutf8::basic::from_utf8(rest).is_ok() {
            return Ok(());
        }
        match str::from_utf8(rest) {
            Err(error) if error.error_len().is_none() => {
                self.partial = rest[error.valid_up_to()..].to_vec();
                Ok(())
            }
            Err(error) => Err((FaultKind::Utf8, piece.len() - rest.len() + error.valid_up_to())),
            Ok(_) => Ok(()),
        }
    }
}
