//! A block of a file of spans: up to 4,096 spans as columns of bytes, compressed.
//!
//! Offsets are differences to the end of the span before; the first one of a block is absolute, so that a block is read by
//! itself. Each number is split into its bytes, and the bytes of one place of all numbers stand together: the high ones are
//! nearly all zero, and zstd takes next to nothing for them.

use std::ops::Range;

use crate::ids::FileId;
use crate::spans::RowSpan;

/// Most spans of a block.
pub(crate) const BLOCK_SPANS: usize = 4096;
/// Bytes of a span before compression: file 4, offset 8, length 5, rows 4, flags 1.
const SPAN_BYTES: usize = 22;
/// Level of zstd: numbers are hardly repeated, so what finds repetitions finds little.
const LEVEL: i32 = 1;
/// Flag of a row with white space before its `{`.
const SPACED: u8 = 1;
/// Flag of the first span of a segment.
const BEGINS_SEGMENT: u8 = 2;

/// Places of the columns in the bytes of a span: file, offset, length, rows, flags.
const COLUMNS: [Range<usize>; 5] = [0..4, 4..12, 12..17, 17..21, 21..22];

/// Codes spans. Their lengths must fit into 40 bits.
pub(crate) fn encode(spans: &[RowSpan]) -> std::io::Result<Vec<u8>> {
    let count = spans.len();
    let mut bytes = vec![0; SPAN_BYTES * count];
    let mut before: Option<&RowSpan> = None;
    for (i, span) in spans.iter().enumerate() {
        let flags = u8::from(span.spaced) * SPACED + u8::from(span.begins_segment) * BEGINS_SEGMENT;
        // Of another file the offset is absolute.
        let from = before.filter(|before| before.file == span.file).map_or(0, end_of);
        let numbers = [
            u64::from(span.file.0),
            span.start.wrapping_sub(from),
            span.length,
            u64::from(span.rows),
            u64::from(flags),
        ];
        for (column, number) in COLUMNS.iter().zip(numbers) {
            let places = column.clone().zip(number.to_le_bytes());
            places.for_each(|(place, byte)| bytes[place * count + i] = byte);
        }
        before = Some(span);
    }
    zstd::bulk::compress(&bytes, LEVEL)
}

/// Reads `count` spans of `files` files.
///
/// # Errors
/// A clause that says what is wrong: the bytes are not such a block.
pub(crate) fn decode(bytes: &[u8], count: usize, files: usize) -> Result<Vec<RowSpan>, &'static str> {
    if count == 0 || count > BLOCK_SPANS {
        return Err("a block of spans has none or too many");
    }
    let planes = zstd::bulk::decompress(bytes, SPAN_BYTES * count).map_err(|_| "a block of spans cannot be decoded")?;
    if planes.len() != SPAN_BYTES * count {
        return Err("a block of spans has another length than it states");
    }
    let mut spans: Vec<RowSpan> = Vec::with_capacity(count);
    for i in 0..count {
        let [file, offset, length, rows, flags] = COLUMNS.map(|column| {
            let places = column.enumerate();
            places.fold(0, |number, (at, place)| number | u64::from(planes[place * count + i]) << (8 * at))
        });
        let file = FileId(u32::try_from(file).unwrap_or(u32::MAX));
        let from = spans.last().filter(|before| before.file == file).map(end_of);
        let start = from.unwrap_or(0).checked_add(offset).ok_or("a span lies behind every file")?;
        // A row has a byte, and a newline stands between it and the next one.
        let is_ascending = from.is_none_or(|from| start > from);
        let is_sound = file.index() < files
            && length > 0
            && length <= u64::from(u32::MAX) + SPAN_JOINED_MAX
            && rows > 0
            && length >= 2 * rows - 1
            && start <= i64::MAX as u64 - length
            && flags <= u64::from(SPACED | BEGINS_SEGMENT);
        if !is_ascending || !is_sound {
            return Err("a span is none");
        }
        let is = |flag: u8| flags & u64::from(flag) != 0;
        let (spaced, begins_segment) = (is(SPACED), is(BEGINS_SEGMENT));
        spans.push(RowSpan { file, start, length, rows: rows as u32, spaced, begins_segment });
    }
    Ok(spans)
}

/// Most bytes of a span of several rows: one read, and one write, of a copier.
pub(crate) const SPAN_JOINED_MAX: u64 = 256 << 10;

/// Where a span ends, in uncompressed bytes of its file.
pub(crate) fn end_of(span: &RowSpan) -> u64 {
    span.start + span.length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Spans as a plan gives them: files ascend, spans of one do not touch one another.
    fn spans() -> impl Strategy<Value = Vec<RowSpan>> {
        let one = (0..5u32, 0..400_000u64, 1..70_000u64, any::<bool>(), any::<bool>(), any::<u16>());
        proptest::collection::vec(one, 1..300).prop_map(|steps| {
            let (mut file, mut position) = (0, 0);
            let mut made = Vec::new();
            for (step, gap, length, spaced, begins_segment, rows) in steps {
                if step == 0 {
                    (file, position) = (file + 1, 0);
                }
                let start = position + gap + 1;
                let rows = (u64::from(rows) % length.div_ceil(2) + 1) as u32;
                made.push(RowSpan { file: FileId(file), start, length, rows, spaced, begins_segment });
                position = start + length;
            }
            made
        })
    }

    proptest! {
        /// What is written is read; of one byte too few or a wrong number nothing is.
        #[test]
        fn blocks_are_read_as_written(spans in spans()) {
            let bytes = encode(&spans).unwrap();
            let files = spans.last().unwrap().file.index() + 1;
            prop_assert_eq!(&decode(&bytes, spans.len(), files).unwrap(), &spans);
            prop_assert!(decode(&bytes, spans.len() + 1, files).is_err());
            prop_assert!(decode(&bytes, spans.len(), files - 1).is_err());
            prop_assert!(decode(&bytes[..bytes.len() - 1], spans.len(), files).is_err());
        }

        /// No bytes make it fail otherwise than by an error, or give spans that are none.
        #[test]
        fn any_bytes_are_refused_or_sound(planes in proptest::collection::vec(any::<u8>(), SPAN_BYTES * 3)) {
            let bytes = zstd::bulk::compress(&planes, 1).unwrap();
            if let Ok(spans) = decode(&bytes, 3, 2) {
                prop_assert!(spans.iter().all(|span| span.rows > 0 && span.length > 0 && span.file.index() < 2));
            }
        }
    }
}
