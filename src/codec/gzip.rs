//! gzip files as members (RFC 1952): headers, deflate data, checksums, padding.
//!
//! The library inflates; the rest is read here, because only so the start of each member and all that was decoded
//! before an error are known.

use flate2::{Decompress, FlushDecompress, Status};

use crate::codec::input::{DecodeStep, Input};
use crate::limits::READ_BYTES;
use crate::sys::store_file::StoreFileError;

/// Members of a gzip file. Zeros after a member are padding, as gzip has it (tapes, blocks); unlike gzip, which would
/// ignore it, we read another member that follows them. Anything else is damage.
pub(crate) struct Gzip {
    inflate: Decompress,
    place: MemberPart,
    crc: crc32fast::Hasher,
    /// Of the member's bytes, modulo 2^32 as its trailer has it.
    len: u32,
}

enum MemberPart {
    Header,
    Body,
    Trailer,
    Padding,
}

impl Gzip {
    pub(crate) fn new() -> Gzip {
        Gzip { inflate: Decompress::new(false), place: MemberPart::Header, crc: crc32fast::Hasher::new(), len: 0 }
    }

    pub(crate) fn step(
        &mut self,
        input: &mut Input,
        out: &mut [u8],
        filled: &mut usize,
        passed: &mut impl FnMut(u64, usize),
    ) -> Result<DecodeStep, StoreFileError> {
        match self.place {
            MemberPart::Header if input.is_at_end() => return Ok(DecodeStep::End),
            MemberPart::Header => {
                let mut found = gzip_header(input.peek(10)?);
                if let Ok(None) = found {
                    found = gzip_header(input.peek(READ_BYTES)?);
                }
                match found {
                    Ok(Some(len)) => {
                        passed(input.at, *filled);
                        input.at += len as u64;
                        self.inflate.reset(false);
                        (self.crc, self.len) = (crc32fast::Hasher::new(), 0);
                        self.place = MemberPart::Body;
                    }
                    Ok(None) if input.source.len() - input.at < READ_BYTES as u64 => return Ok(DecodeStep::Truncated),
                    Ok(None) => return Ok(DecodeStep::Corrupt("the header of a gzip member has no end".into())),
                    Err(reason) => return Ok(DecodeStep::Corrupt(reason.into())),
                }
            }
            MemberPart::Body => {
                let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
                let result = self.inflate.decompress(input.peek(1)?, &mut out[*filled..], FlushDecompress::None);
                let (taken, made) = (self.inflate.total_in() - taken, self.inflate.total_out() - made);
                let made = &out[*filled..*filled + made as usize];
                self.crc.update(made);
                self.len = self.len.wrapping_add(made.len() as u32);
                *filled += made.len();
                input.at += taken;
                match result {
                    Ok(Status::StreamEnd) => self.place = MemberPart::Trailer,
                    Ok(_) if taken > 0 || !made.is_empty() => {}
                    Ok(_) if input.is_at_end() => return Ok(DecodeStep::Truncated),
                    Ok(_) => return Ok(DecodeStep::Corrupt("its deflate data does not go on".into())),
                    Err(_) => return Ok(DecodeStep::Corrupt("its deflate data is broken".into())),
                }
            }
            MemberPart::Trailer => {
                let Some(&[c0, c1, c2, c3, l0, l1, l2, l3]) = input.peek(8)?.first_chunk() else {
                    return Ok(DecodeStep::Truncated);
                };
                if u32::from_le_bytes([c0, c1, c2, c3]) != self.crc.clone().finalize() {
                    return Ok(DecodeStep::Corrupt("the checksum of a gzip member differs".into()));
                }
                if u32::from_le_bytes([l0, l1, l2, l3]) != self.len {
                    return Ok(DecodeStep::Corrupt("the length of a gzip member differs".into()));
                }
                input.at += 8;
                self.place = MemberPart::Padding;
            }
            MemberPart::Padding => {
                let bytes = input.peek(1)?;
                let (zeros, seen) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
                input.at += zeros as u64;
                if zeros < seen || seen == 0 {
                    self.place = MemberPart::Header;
                }
            }
        }
        Ok(DecodeStep::More)
    }
}

/// Length of the gzip header that `bytes` begin with (RFC 1952, 2.3); `None` when more bytes are needed to tell.
pub(crate) fn gzip_header(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    if bytes.iter().zip(b"\x1f\x8b\x08").any(|(byte, magic)| byte != magic) {
        return Err("no gzip member begins here");
    }
    let Some(head) = bytes.first_chunk::<10>() else { return Ok(None) };
    let flags = head[3];
    if flags & 0xe0 != 0 {
        return Err("the header of a gzip member has unknown flags");
    }
    let mut offset = 10;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = bytes[offset..].first_chunk() else { return Ok(None) };
        offset += 2 + u16::from_le_bytes([low, high]) as usize;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let Some(end) = bytes.get(offset..).and_then(|rest| memchr::memchr(0, rest)) else { return Ok(None) };
            offset += end + 1;
        }
    }
    if flags & CRC != 0 {
        let Some(&[low, high]) = bytes.get(offset..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        if crc32fast::hash(&bytes[..offset]) as u16 != u16::from_le_bytes([low, high]) {
            return Err("the checksum of a gzip header differs");
        }
        offset += 2;
    }
    Ok((offset <= bytes.len()).then_some(offset))
}
