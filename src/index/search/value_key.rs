//! A word for the values of a row: of dates the span of time itself, else a filter that rules out most searches.

use crate::fhir::search::date_range::{SECOND, TimeSpan};
use crate::fhir::search::value::{ParameterValue, ParameterValues};
use crate::hash::xxh3_64;

/// Picoseconds in a microsecond.
const MICROSECOND: i128 = SECOND / 1_000_000;
/// Microseconds from the start of year 1 to 1970.
const EPOCH: i128 = 62_135_596_800_000_000;
/// Bits of a time that tell how long it is.
const WIDTH_BITS: u32 = 4;
/// Picoseconds that a time of each width stands for: a day, a minute, a second, one to six digits of its fraction, and an
/// instant. The first is that of no time.
const WIDTHS: [i128; 11] = [
    0,
    86_400 * SECOND,
    60 * SECOND,
    SECOND,
    SECOND / 10,
    SECOND / 100,
    SECOND / 1_000,
    SECOND / 10_000,
    SECOND / 100_000,
    MICROSECOND,
    1,
];
/// Bits of a filter that each value sets.
const BITS: u32 = 4;

/// The word of a span of time; `None` for one of another width, outside of the years 1 to 9999, or with more digits.
pub(crate) fn time_key(span: TimeSpan) -> Option<u64> {
    let length = span.end.checked_sub(span.start)?;
    let width = WIDTHS.iter().skip(1).position(|width| *width == length)? + 1;
    let start = span.start.div_euclid(MICROSECOND) + EPOCH;
    let is_whole = span.start.rem_euclid(MICROSECOND) == 0 && (0..1 << (64 - WIDTH_BITS)).contains(&start);
    u64::try_from(start << WIDTH_BITS | width as i128).ok().filter(|_| is_whole)
}

/// The span of time of a word; `None` if it is that of none.
#[inline(always)]
pub(crate) fn time_of_key(key: u64) -> Option<TimeSpan> {
    let width = *WIDTHS.get((key & ((1 << WIDTH_BITS) - 1)) as usize)?;
    let start = (i128::from(key >> WIDTH_BITS) - EPOCH) * MICROSECOND;
    (width > 0).then_some(TimeSpan { start, end: start + width })
}

/// The bits that a value of this key sets in the filter of a row.
pub(crate) fn filter_bits(key: &str) -> u64 {
    let hash = xxh3_64(key.as_bytes());
    (0..BITS).fold(0, |bits, i| bits | 1 << (hash >> (6 * i) & 63))
}

/// The word of the values of a row, and whether it says all of them.
pub(crate) fn value_key(found: &ParameterValues<'_>) -> (u64, bool) {
    if let [ParameterValue::Time(span)] = found.values[..]
        && found.is_present
        && let Some(key) = time_key(span)
    {
        return (key, true);
    }
    let keys = found.values.iter().filter_map(ParameterValue::key);
    (keys.fold(0, |bits, key| bits | filter_bits(key)), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of every width come back; those that do not fit have no word.
    #[test]
    fn times_come_back() {
        for text in [
            "0001-01-01",
            "9999-12-31",
            "2024-05-01T10:00Z",
            "2024-05-01T10:00:59+05:30",
            "1969-12-31T23:59:59.9Z",
            "2024-05-01T10:00:00.123456Z",
        ] {
            let span = TimeSpan::parse(text).unwrap();
            assert_eq!(time_of_key(time_key(span).unwrap()), Some(span), "{text}");
            assert_eq!(time_key(span.instant()).and_then(time_of_key), Some(span.instant()), "{text}");
        }
        for text in ["2024", "2024-05", "2024-05-01T10:00:00.1234567Z", "2016-12-31T23:59:60Z"] {
            assert_eq!(time_key(TimeSpan::parse(text).unwrap()), None, "{text}");
        }
        assert_eq!(time_key(TimeSpan::ALWAYS), None);
        for key in (0..100_000).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).chain([0, u64::MAX]) {
            time_of_key(key);
        }
    }

    /// What a value sets is in the filter of a row that has it.
    #[test]
    fn filters_hold_the_bits_of_their_values() {
        let keys: Vec<String> = (0..1000).map(|i| format!("code-{i}")).collect();
        let token = |code| ParameterValue::Token { system: None, code, is_code: false };
        let row = ParameterValues { is_present: true, values: keys[..5].iter().map(|code| token(code)).collect() };
        let (filter, is_whole) = value_key(&row);
        assert!(!is_whole && keys[..5].iter().all(|key| filter & filter_bits(key) == filter_bits(key)));
        let wrong = keys[5..].iter().filter(|key| filter & filter_bits(key) == filter_bits(key)).count();
        assert!(wrong < 50, "{wrong}");
    }
}
