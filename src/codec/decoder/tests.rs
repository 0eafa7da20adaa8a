//! Decoding against the libraries' own encoders: splits, cuts, damage, and files that change meanwhile.

use super::*;
use crate::codec::gzip::gzip_header;
use crate::sys::access::Access;
use crate::sys::store_file::tests::{accesses, file_of};
use proptest::prelude::*;
use std::io::Write;

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One zstd frame with a checksum.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that compress, but not to nothing.
fn text(len: usize) -> Vec<u8> {
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"{}:,\"abcdefghij\n"[(random >> 60) as usize]
    };
    (0..len).map(|_| next()).collect()
}

struct Decoded {
    bytes: Vec<u8>,
    seek_points: Vec<SeekPoint>,
    error: Option<DecodeError>,
    proven: SeekPoint,
}

fn decode(source: &StoreFile, compression: Compression, from: SeekPoint) -> Decoded {
    let mut decoder = Decoder::new(source, compression, from).unwrap();
    let mut decoded = Decoded { bytes: Vec::new(), seek_points: Vec::new(), error: None, proven: from };
    loop {
        match decoder.piece(|seek_point| decoded.seek_points.push(seek_point)) {
            Ok(Some(piece)) => {
                assert!(!piece.is_empty() && piece.len() <= READ_BYTES);
                decoded.bytes.extend_from_slice(piece);
            }
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(decoder.piece(|_| ()), Err(DecodeError::Stopped { .. })));
                decoded.error = Some(error);
                break;
            }
        }
    }
    assert_eq!(decoder.uncompressed() - from.uncompressed, decoded.bytes.len() as u64);
    decoded.proven = decoder.proven();
    decoded
}

/// Decodes bytes by each access, which must agree.
fn decode_bytes(bytes: &[u8], compression: Compression) -> Decoded {
    let file = file_of(bytes);
    let [a, b] = accesses()
        .map(|access| decode(&StoreFile::open(file.path(), access).unwrap(), compression, SeekPoint::default()));
    assert_eq!((&a.bytes, &a.seek_points, a.proven), (&b.bytes, &b.seek_points, b.proven));
    assert_eq!(a.error.as_ref().map(ToString::to_string), b.error.as_ref().map(ToString::to_string));
    a
}

#[track_caller]
fn check(bytes: &[u8], compression: Compression, expected: &[u8], error: &str) {
    let decoded = decode_bytes(bytes, compression);
    assert!(decoded.bytes == expected, "{} bytes for {}", decoded.bytes.len(), expected.len());
    let found = decoded.error.map(|error| error.to_string()).unwrap_or_default();
    assert!(found.contains(error) && found.is_empty() == error.is_empty(), "{found:?}");
}

#[test]
fn names_tell_the_coding() {
    assert_eq!(Compression::of_file_name("Patient.ndjson"), Some(Compression::None));
    assert_eq!(Compression::of_file_name("Patient.1.ndjson.gz"), Some(Compression::Gzip));
    assert_eq!(Compression::of_file_name("Patient.ndjson.zst"), Some(Compression::Zstd));
    assert_eq!(Compression::of_file_name("Patient.NDJSON"), Some(Compression::None));
    assert_eq!(Compression::of_file_name("Patient.jsonl.GZ"), Some(Compression::Gzip));
    assert_eq!(Compression::of_file_name("é.JsonL.zst"), Some(Compression::Zstd));
    assert!(Compression::is_earlier_name("a.ndjson.gz") && !Compression::is_earlier_name("a.jsonl"));
    for name in ["Patient.json", "Patient.gz", "ndjson", "jsonl", "a.ndjson.bz2", "a.jsonl.gz.gz", "é", ""] {
        assert_eq!(Compression::of_file_name(name), None, "{name}");
    }
}

#[test]
fn empty_files_are_empty() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        check(b"", compression, b"", "");
    }
    check(&gzip(b""), Compression::Gzip, b"", "");
    check(&zstd(b""), Compression::Zstd, b"", "");
}

// Several pieces, each by both accesses, in one member and in many.
#[test]
fn large_files_come_in_pieces() {
    let bytes = text(5 * READ_BYTES + 12345);
    check(&bytes, Compression::None, &bytes, "");
    for (compression, compress) in [(Compression::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Compression::Zstd, zstd)] {
        check(&compress(&bytes), compression, &bytes, "");
        let many: Vec<u8> = bytes.chunks(70_001).flat_map(compress).collect();
        check(&many, compression, &bytes, "");
    }
}

#[test]
fn gzip_headers_and_padding_as_in_the_wild() {
    let full = flate2::GzBuilder::new()
        .filename("name")
        .comment("comment")
        .extra(vec![0; 70])
        .write(Vec::new(), flate2::Compression::best());
    let mut full = { full }.finish().unwrap();
    check(&full, Compression::Gzip, b"", "");
    // A header checksum is part of the format, though common encoders do not write it.
    let head = gzip_header(&full).unwrap().unwrap();
    full[3] |= 2;
    let crc = crc32fast::hash(&full[..head]) as u16;
    full.splice(head..head, crc.to_le_bytes());
    check(&full, Compression::Gzip, b"", "");
    full[head] ^= 1;
    check(&full, Compression::Gzip, b"", "checksum of a gzip header");

    let mut padded = gzip(b"one\n");
    padded.resize(padded.len() + 3000, 0);
    check(&padded, Compression::Gzip, b"one\n", "");
    padded.extend(gzip(b"two\n"));
    check(&padded, Compression::Gzip, b"one\ntwo\n", "");
    padded.extend(b"garbage");
    check(&padded, Compression::Gzip, b"one\ntwo\n", "no gzip member begins here");
    check(b"\0\0", Compression::Gzip, b"", "no gzip member begins here");
    check(b"{}\n", Compression::Gzip, b"", "no gzip member begins here");
}

#[test]
fn damage_is_told_from_truncation() {
    let member = gzip(b"one\n");
    for (back, error) in [(1, "length"), (8, "checksum"), (9, "near byte")] {
        let mut broken = member.clone();
        let i = broken.len() - back;
        broken[i] ^= 0x5a;
        assert!(decode_bytes(&broken, Compression::Gzip).error.unwrap().to_string().contains(error), "{back}");
    }
    let mut frame = zstd(b"one\n");
    let last = frame.len() - 1;
    check(&frame[..last], Compression::Zstd, b"one\n", "middle of its compressed data");
    frame[last] ^= 1;
    check(&frame, Compression::Zstd, b"one\n", "checksum");
    check(b"{}\n{}\n", Compression::Zstd, b"", "no zstd frame begins here");
    check(b"{}\n", Compression::Zstd, b"", "middle");
}

/// A frame without checksum whose header promises more than its blocks hold, the last of them empty, is damaged: the
/// library does not look in that case.
#[test]
fn a_frame_shorter_than_its_header_says_is_damaged() {
    // One segment with its length in one byte; raw blocks, whose headers are the length times 8 and 1 for the last.
    let frame = |promised: u8| [&b"\x28\xb5\x2f\xfd\x20"[..], &[promised, 4 << 3, 0, 0], b"one\n", &[1, 0, 0]].concat();
    check(&frame(4), Compression::Zstd, b"one\n", "");
    check(&frame(5), Compression::Zstd, b"one\n", "ends before the length in its header");
    check(&frame(3), Compression::Zstd, b"", "broken");
    let empty = b"\x28\xb5\x2f\xfd\x20\x01\x01\0\0";
    check(empty, Compression::Zstd, b"", "ends before the length in its header");
    assert_eq!(decode_bytes(&[&zstd(b"a\n")[..], empty].concat(), Compression::Zstd).proven.uncompressed, 2);
}

#[test]
fn skippable_frames_are_skipped_and_must_be_whole() {
    let skip = |len: u32| [&0x184d_2a5e_u32.to_le_bytes()[..], &len.to_le_bytes(), &vec![7; len as usize]].concat();
    let file = [skip(0), zstd(b"a\n"), skip(3_000_000), zstd(b"b\n"), skip(5)].concat();
    check(&file, Compression::Zstd, b"a\nb\n", "");
    check(&file[..file.len() - 1], Compression::Zstd, b"a\nb\n", "middle");
    check(&file[..file.len() - 6], Compression::Zstd, b"a\nb\n", "middle");
    assert_eq!(decode_bytes(&file, Compression::Zstd).seek_points.len(), 2);
}

// A frame that wants a window of 2 GiB is refused before memory is taken for it.
#[test]
fn huge_windows_are_refused() {
    let frame = [&b"\x28\xb5\x2f\xfd"[..], &[0, 21 << 3, 1, 0, 0]].concat();
    check(&frame, Compression::Zstd, b"", "--long=27");
}

// The last of many blocks is broken: those before it are handed out.
#[test]
fn what_stands_before_an_error_is_handed_out() {
    let bytes = text(3 * READ_BYTES);
    for (compression, file) in [(Compression::Gzip, gzip(&bytes)), (Compression::Zstd, zstd(&bytes))] {
        let cut = decode_bytes(&file[..file.len() - 2000], compression);
        assert!(matches!(cut.error, Some(DecodeError::Truncated { .. })));
        let mut broken = file.clone();
        let from = broken.len() - 3000;
        broken[from..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let broken = decode_bytes(&broken, compression);
        assert!(matches!(broken.error, Some(DecodeError::Corrupt { .. })), "{:?}", broken.error);
        for decoded in [cut, broken] {
            let right = decoded.bytes.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
            assert!(right > bytes.len() - 300_000, "{compression:?}: {right} of {}", bytes.len());
        }
    }
}

// The file shrinks between two pieces: the error is the source's, not damage, and not a quiet end in "padding".
#[test]
fn a_file_shortened_meanwhile_is_named() {
    let bytes = text(4 * READ_BYTES);
    let split: Vec<u8> = bytes.chunks(READ_BYTES).flat_map(gzip).collect();
    for (compression, file) in
        [(Compression::None, bytes.clone()), (Compression::Gzip, split), (Compression::Zstd, zstd(&bytes))]
    {
        for access in accesses() {
            let file = file_of(&file);
            let source = StoreFile::open(file.path(), access).unwrap();
            let mut decoder = Decoder::new(&source, compression, SeekPoint::default()).unwrap();
            assert!(decoder.piece(|_| ()).unwrap().is_some());
            file.as_file().set_len(source.len() / 2).unwrap();
            let error = loop {
                match decoder.piece(|_| ()) {
                    Ok(piece) => assert!(piece.is_some(), "{compression:?} {access:?} ended quietly"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, DecodeError::Source(StoreFileError::Truncated { .. })), "{error:?}");
        }
    }
}

#[test]
fn a_restart_beyond_the_end_is_an_error() {
    let file = file_of(b"{}\n");
    let source = StoreFile::open(file.path(), Access::pread()).unwrap();
    assert!(Decoder::new(&source, Compression::Gzip, SeekPoint { compressed: 4, uncompressed: 0 }).is_err());
    assert!(decode(&source, Compression::Zstd, SeekPoint { compressed: 3, uncompressed: 9 }).bytes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Any split decodes to the same bytes; each member but the first is reported, and from each the tail comes.
    #[test]
    fn splits_restarts_and_truncations(
        lens in proptest::collection::vec(prop_oneof![Just(0), 1..5000_usize], 1..8),
        is_gzip: bool,
        cut: proptest::sample::Index,
        flip: (proptest::sample::Index, u8),
    ) {
        let bytes = text(lens.iter().sum());
        let (compression, compress) = if is_gzip { (Compression::Gzip, gzip as fn(&[u8]) -> Vec<u8>) } else { (Compression::Zstd, zstd as _) };
        let (mut file, mut starts, mut done) = (Vec::new(), Vec::new(), 0);
        for len in lens {
            starts.push(SeekPoint { compressed: file.len() as u64, uncompressed: done as u64 });
            file.extend(compress(&bytes[done..done + len]));
            done += len;
        }
        let whole = decode_bytes(&file, compression);
        prop_assert!(whole.error.is_none());
        prop_assert!(whole.bytes == bytes);
        prop_assert_eq!(&whole.seek_points, &starts[1..]);
        let end = SeekPoint { compressed: file.len() as u64, uncompressed: bytes.len() as u64 };
        prop_assert_eq!(whole.proven, end);
        let stored = file_of(&file);
        for access in accesses() {
            let source = StoreFile::open(stored.path(), access).unwrap();
            for (at, start) in starts.iter().enumerate() {
                let tail = decode(&source, compression, *start);
                prop_assert!(tail.bytes == bytes[start.uncompressed as usize..] && tail.error.is_none());
                prop_assert_eq!(&tail.seek_points, &starts[at + 1..]);
            }
        }

        let cut = cut.index(file.len());
        let torn = decode_bytes(&file[..cut], compression);
        prop_assert!(bytes.starts_with(&torn.bytes));
        let unproven = starts.iter().chain([&end]).rfind(|start| start.compressed <= cut as u64);
        prop_assert_eq!(Some(&torn.proven), unproven);
        let between = starts.iter().any(|start| start.compressed == cut as u64);
        match torn.error {
            None => prop_assert!(between),
            Some(error) => prop_assert!(!between && matches!(error, DecodeError::Truncated { .. }), "{error:?}"),
        }

        let at = flip.0.index(file.len());
        file[at] ^= flip.1;
        let flipped = decode_bytes(&file, compression);
        let reached = flipped.proven.uncompressed as usize;
        prop_assert!(flipped.bytes[..reached] == bytes[..reached], "what is proven is what was written");
    }

    // A bit flipped in stored data alters bytes without breaking the format: only the checksum tells, behind them.
    #[test]
    fn a_member_with_a_wrong_checksum_is_not_proven(first in 0..3000_usize, second in 2..3000_usize, flip: proptest::sample::Index) {
        let bytes = text(first + second);
        let stored = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let (mut file, last) = (stored(&bytes[..first]), stored(&bytes[first..]));
        let start = SeekPoint { compressed: file.len() as u64, uncompressed: first as u64 };
        // Ten bytes of header and five of the block stand before the data, eight of checksum and length behind it.
        let at = file.len() + 15 + flip.index(second);
        file.extend(last);
        file[at] ^= 4;
        let decoded = decode_bytes(&file, Compression::Gzip);
        prop_assert_eq!(decoded.bytes.len(), bytes.len());
        prop_assert_eq!(decoded.proven, start);
        let is_corrupt = matches!(decoded.error, Some(DecodeError::Corrupt { .. }));
        prop_assert!(is_corrupt);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, magic in 0..3) {
        let magic: &[u8] = [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b""][magic as usize];
        let bytes = [magic, &bytes].concat();
        decode_bytes(&bytes, Compression::Gzip);
        decode_bytes(&bytes, Compression::Zstd);
    }
}
