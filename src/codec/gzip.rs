//! gzip files decoded member by member (RFC 1952): headers, deflate data, checksums, padding.
//!
//! The library inflates deflate data only; headers and trailers are read here, because only then are the start of each
//! member and the bytes decoded before an error known.

use flate2::{Decompress, FlushDecompress, Status};

use crate::codec::input::{DecodeStep, Input};
use crate::limits::READ_BYTES;
use crate::sys::store_file::StoreFileError;

/// Decoder of the members of a gzip file. Zeros after a member are padding, as for gzip (tapes, blocks); unlike gzip,
/// which ignores it, a member that follows padding is read. Other bytes between members are damage.
pub(crate) struct Gzip {
    inflate: Decompress,
    /// Part of the member that the next byte belongs to.
    part: MemberPart,
    /// CRC-32 of the member's uncompressed bytes so far.
    crc: crc32fast::Hasher,
    /// Count of the member's uncompressed bytes so far, modulo 2^32 as in its trailer.
    len: u32,
    /// Whether decoding began inside the member, so that its trailer tells nothing of the bytes decoded.
    from_inside: bool,
}

/// Part of a gzip member, or the padding behind one.
enum MemberPart {
    Header,
    Body,
    Trailer,
    Padding,
}

impl Gzip {
    /// A gzip decoder at the start of a member.
    pub(crate) fn new() -> Gzip {
        let (inflate, crc) = (Decompress::new(false), crc32fast::Hasher::new());
        Gzip { inflate, part: MemberPart::Header, crc, len: 0, from_inside: false }
    }

    /// A gzip decoder at the start of a deflate segment in a member. The checksum and the length of that member are not
    /// looked at.
    pub(crate) fn inside_member() -> Gzip {
        Gzip { part: MemberPart::Body, from_inside: true, ..Gzip::new() }
    }

    /// Whether the checksum and the length of every member so far hold, and no other has begun.
    pub(crate) fn is_between_members(&self) -> bool {
        matches!(self.part, MemberPart::Header | MemberPart::Padding)
    }

    /// Decodes one piece of a gzip file into `out[*filled..]`. Calls `on_seek_point` with the offset and `filled` at
    /// the start of each member.
    pub(crate) fn step(
        &mut self,
        input: &mut Input,
        out: &mut [u8],
        filled: &mut usize,
        on_seek_point: &mut impl FnMut(u64, usize),
    ) -> Result<DecodeStep, StoreFileError> {
        match self.part {
            MemberPart::Header if input.is_at_end() => return Ok(DecodeStep::End),
            MemberPart::Header => {
                // Ten bytes suffice unless the header has optional fields: then a whole window is read.
                let mut header = gzip_header(input.peek(10)?);
                if let Ok(None) = header {
                    header = gzip_header(input.peek(READ_BYTES)?);
                }
                match header {
                    Ok(Some(len)) => {
                        on_seek_point(input.offset, *filled);
                        input.offset += len as u64;
                        self.inflate.reset(false);
                        (self.crc, self.len) = (crc32fast::Hasher::new(), 0);
                        self.from_inside = false;
                        self.part = MemberPart::Body;
                    }
                    Ok(None) if input.source.len() - input.offset < READ_BYTES as u64 => {
                        return Ok(DecodeStep::Truncated);
                    }
                    Ok(None) => return Ok(DecodeStep::Corrupt("the header of a gzip member has no end".into())),
                    Err(reason) => return Ok(DecodeStep::Corrupt(reason.into())),
                }
            }
            MemberPart::Body => {
                let (consumed, produced) = (self.inflate.total_in(), self.inflate.total_out());
                let result = self.inflate.decompress(input.peek(1)?, &mut out[*filled..], FlushDecompress::None);
                let (consumed, produced) = (self.inflate.total_in() - consumed, self.inflate.total_out() - produced);
                let produced = &out[*filled..*filled + produced as usize];
                self.crc.update(produced);
                self.len = self.len.wrapping_add(produced.len() as u32);
                *filled += produced.len();
                input.offset += consumed;
                match result {
                    Ok(Status::StreamEnd) => self.part = MemberPart::Trailer,
                    Ok(_) if consumed > 0 || !produced.is_empty() => {}
                    Ok(_) if input.is_at_end() => return Ok(DecodeStep::Truncated),
                    Ok(_) => return Ok(DecodeStep::Corrupt("its deflate data does not go on".into())),
                    Err(_) => return Ok(DecodeStep::Corrupt("its deflate data is broken".into())),
                }
            }
            MemberPart::Trailer => {
                let Some(&[c0, c1, c2, c3, l0, l1, l2, l3]) = input.peek(8)?.first_chunk() else {
                    return Ok(DecodeStep::Truncated);
                };
                let of_member = !self.from_inside;
                if of_member && u32::from_le_bytes([c0, c1, c2, c3]) != self.crc.clone().finalize() {
                    return Ok(DecodeStep::Corrupt("the checksum of a gzip member differs".into()));
                }
                if of_member && u32::from_le_bytes([l0, l1, l2, l3]) != self.len {
                    return Ok(DecodeStep::Corrupt("the length of a gzip member differs".into()));
                }
                input.offset += 8;
                self.part = MemberPart::Padding;
            }
            MemberPart::Padding => {
                let bytes = input.peek(1)?;
                let (zeros, peeked) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
                input.offset += zeros as u64;
                if zeros < peeked || peeked == 0 {
                    self.part = MemberPart::Header;
                }
            }
        }
        Ok(DecodeStep::More)
    }
}

/// Length in bytes of the gzip header at the start of `bytes` (RFC 1952, 2.3); `None` when more bytes are needed.
pub(crate) fn gzip_header(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    if bytes.iter().zip(b"\x1f\x8b\x08").any(|(byte, magic)| byte != magic) {
        return Err("no gzip member begins here");
    }
    let Some(fixed) = bytes.first_chunk::<10>() else { return Ok(None) };
    let flags = fixed[3];
    if flags & 0xe0 != 0 {
        return Err("the header of a gzip member has unknown flags");
    }
    let mut offset = 10;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = bytes[offset..].first_chunk() else { return Ok(None) };
        offset += 2 + u16::from_le_bytes([low, high]) as usize;
    }
    for field in [NAME, COMMENT] {
        if flags & field != 0 {
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
