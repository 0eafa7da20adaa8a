//! Times between 2012 and 2025, drawn evenly from hashes, in the forms that real servers write.

use crate::fhir::instant::Instant;

/// Number of ticks (100 ns) in a second.
const SECOND: i64 = 10_000_000;
/// 2012-01-01T00:00:00Z in ticks since 1970: start of the period.
pub(crate) const BEGIN: i64 = 1_325_376_000 * SECOND;
/// 2025-01-01T00:00:00Z in ticks since 1970: end of the period.
pub(crate) const END: i64 = 1_735_689_600 * SECOND;

/// Instant, in whole seconds, after which about this share (0 to 1) of the rows was last updated: a `_since` for
/// benchmarks.
pub(crate) fn since_share(share: f64) -> Instant {
    let ticks = END - ((END - BEGIN) as f64 * share.clamp(0.0, 1.0)) as i64;
    Instant { ticks: ticks / SECOND * SECOND, rest: Box::default() }
}

/// Instant in ticks from `from` to before `to`, in proportion to the hash.
pub(crate) fn between(from: i64, to: i64, hash: u64) -> i64 {
    from + ((i128::from(to - from) * i128::from(hash)) >> 64) as i64
}

/// Appends an instant. The hash chooses its form: mostly `Z` and milliseconds, some with an offset, some with whole
/// seconds or seven digits.
pub(crate) fn put(out: &mut Vec<u8>, ticks: i64, hash: u64) {
    use std::io::Write;
    let (offset, zone): (i64, &[u8]) = match hash % 8 {
        0 => (0, b"+00:00"),
        1 => (-5 * 3600, b"-05:00"),
        2 => (2 * 3600, b"+02:00"),
        _ => (0, b"Z"),
    };
    let digits = match hash / 8 % 8 {
        0 => SECOND,
        1 => 1,
        _ => SECOND / 1000,
    };
    // Rounded towards the past, so that no row is later than its place in the order of arrival.
    let ticks = ticks.div_euclid(digits) * digits + offset * SECOND;
    let from = out.len();
    write!(out, "{}", Instant { ticks, rest: Box::default() }).expect("memory takes it");
    if digits == SECOND {
        // Cuts off `.000Z`.
        out.truncate(from + 19);
    } else {
        out.pop();
    }
    out.extend_from_slice(zone);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_legal_and_keep_their_order() {
        let mut text = Vec::new();
        for hash in (0..64u64).map(|n| n | n << 58) {
            let ticks = between(BEGIN, END, hash);
            text.clear();
            put(&mut text, ticks, hash);
            let read = Instant::parse(str::from_utf8(&text).unwrap()).expect("an instant");
            assert!((BEGIN..END).contains(&read.ticks) && ticks - read.ticks < SECOND && read.ticks <= ticks);
        }
        assert_eq!(since_share(0.0).to_string(), "2025-01-01T00:00:00.000Z");
        assert_eq!(since_share(1.0).to_string(), "2012-01-01T00:00:00.000Z");
    }
}
