//! Instants with every fraction digit, and the partial dates of a Period.
//!
//! This module is no calendar library: it knows the proleptic Gregorian calendar of the years 0001 to 9999, offsets
//! and R4's leap second `60`, nothing of time zones. Reading happens once a line of a store of any size, so the first
//! nineteen characters are checked and converted eight at a time; the tests hold the obvious twin of it.

use std::cmp::Ordering;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks of 100 ns in a second.
pub(crate) const TICKS_PER_SECOND: i64 = 10_000_000;

/// A FHIR instant: 100 ns ticks since 1970-01-01T00:00:00Z (years 0001 to 9999), and whatever fraction digits stand
/// beyond the seventh, trailing zeros dropped. Comparison is exact (SINCE-02).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instant {
    /// 100 ns ticks since the Unix epoch, towards the past of the instant.
    pub ticks: i64,
    /// ASCII digits beyond the seventh fraction digit, no trailing zero; empty nearly always.
    pub rest: Box<[u8]>,
}

/// An instant whose further digits are borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstantRef<'a> {
    /// As in [`Instant::ticks`].
    pub ticks: i64,
    /// As in [`Instant::rest`].
    pub rest: &'a [u8],
}

impl<'a> InstantRef<'a> {
    /// Reads the text of an R4 `instant` (`YYYY-MM-DDThh:mm:ss[.f+](Z|(+|-)hh:mm)`), `None` when it is not one.
    ///
    /// A second of 60 is the first second of the next minute, its fraction kept. An offset may carry the value a few
    /// hours out of the years 0001 to 9999.
    #[inline]
    pub fn parse(text: &'a [u8]) -> Option<InstantRef<'a>> {
        if text.len() < 20 {
            return None;
        }
        let days = days(&text[..10])?;
        let seconds = days * 86_400 + seconds_of_day(&text[10..19])?;
        let (fraction, rest, zone) = match text[19] {
            b'.' => fraction(&text[20..])?,
            _ => (0, &text[..0], &text[19..]),
        };
        Some(InstantRef { ticks: (seconds - offset(zone)?) * TICKS_PER_SECOND + fraction, rest })
    }
    /// An owned copy.
    pub fn to_owned(self) -> Instant {
        Instant { ticks: self.ticks, rest: self.rest.into() }
    }
}

impl PartialOrd for InstantRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for InstantRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Trailing zeros are dropped, so digit strings order bytewise as fractions do.
        self.ticks.cmp(&other.ticks).then_with(|| self.rest.cmp(other.rest))
    }
}
impl PartialOrd for Instant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Instant {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl Instant {
    /// Reads the text of an R4 `instant`.
    pub fn parse(text: &str) -> Option<Instant> {
        InstantRef::parse(text.as_bytes()).map(InstantRef::to_owned)
    }
    /// `YYYY-MM-DD` as 00:00:00Z of that day (reading 1), or an instant.
    pub fn parse_instant_or_date(text: &str) -> Option<Instant> {
        match text.len() {
            10 => days(text.as_bytes()).map(|days| Instant::at_second(days * 86_400)),
            _ => Instant::parse(text),
        }
    }
    /// The instant that many milliseconds after the Unix epoch (at most what ticks can hold, some 29,000 years).
    pub fn from_unix_millis(millis: i64) -> Instant {
        Instant { ticks: millis.saturating_mul(TICKS_PER_SECOND / 1000), rest: Box::default() }
    }
    /// The instant at a whole second since 1970.
    fn at_second(seconds: i64) -> Instant {
        Instant { ticks: seconds * TICKS_PER_SECOND, rest: Box::default() }
    }
    /// A borrowed view.
    pub fn as_ref(&self) -> InstantRef<'_> {
        InstantRef { ticks: self.ticks, rest: &self.rest }
    }
}

/// A text is no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no instant such as 2024-05-01T00:00:00Z (with seconds and offset)")]
pub struct ParseInstantError {
    /// The text.
    pub text: String,
}

/// The text of an R4 `instant`, as by [`Instant::parse`].
///
/// ```
/// # use outpour::Instant;
/// let time: Instant = "2024-05-01T02:00:00+02:00".parse()?;
/// assert_eq!(time.to_string(), "2024-05-01T00:00:00.000Z");
/// assert!("2024-05-01".parse::<Instant>().unwrap_err().to_string().contains("no instant"));
/// # Ok::<(), outpour::ParseInstantError>(())
/// ```
impl FromStr for Instant {
    type Err = ParseInstantError;

    fn from_str(text: &str) -> Result<Instant, ParseInstantError> {
        Instant::parse(text).ok_or_else(|| ParseInstantError { text: text.to_string() })
    }
}

/// Exact to the nanosecond; a time outside the years 0001 to 9999 is taken as the first or last instant of these.
impl From<SystemTime> for Instant {
    fn from(time: SystemTime) -> Instant {
        let nanoseconds = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        // 0001-01-01T00:00:00Z and the nanosecond before 10000-01-01T00:00:00Z.
        let nanoseconds = nanoseconds.clamp(-62_135_596_800_000_000_000, 253_402_300_799_999_999_999);
        let digits = format!("{:02}", nanoseconds.rem_euclid(100));
        Instant { ticks: nanoseconds.div_euclid(100) as i64, rest: digits.trim_end_matches('0').as_bytes().into() }
    }
}

/// `YYYY-MM-DDThh:mm:ss.fffZ` with at least three fraction digits and as many more as the value has. What an offset
/// has carried past the year 9999 or before 0001 is written with the year it has.
impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, fraction) = (self.ticks.div_euclid(TICKS_PER_SECOND), self.ticks.rem_euclid(TICKS_PER_SECOND));
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if !self.rest.is_empty() {
            let rest = str::from_utf8(&self.rest).unwrap_or_default();
            return write!(f, ".{fraction:07}{rest}Z");
        }
        let (mut digits, mut width) = (fraction, 7);
        while width > 3 && digits % 10 == 0 {
            (digits, width) = (digits / 10, width - 1);
        }
        write!(f, ".{digits:0width$}Z")
    }
}

/// The first instant and the first instant after an R4 `dateTime` of any precision (`2015`, `2015-02`, `2015-02-07`,
/// or with a time and offset), as a Period's bounds are read
/// (<https://hl7.org/fhir/R4/datatypes.html#Period>). A date without a time is read in UTC. A time spans one unit of
/// its last digit: a second, or a part of it.
pub fn date_time_span(text: &[u8]) -> Option<(Instant, Instant)> {
    let day_span = |first: &[u8; 10], until: i64| {
        let first = days(first)?;
        Some((Instant::at_second(first * 86_400), Instant::at_second((first + until) * 86_400)))
    };
    let mut day = *b"0000-01-01";
    match text.len() {
        4 => {
            day[..4].copy_from_slice(text);
            days(&day)?;
            day_span(&day, if is_leap(decimal(text)) { 366 } else { 365 })
        }
        7 => {
            day[..7].copy_from_slice(text);
            days(&day)?;
            day_span(&day, days_of_month(decimal(&text[..4]), decimal(&text[5..7])) as i64)
        }
        10 => {
            day.copy_from_slice(text);
            day_span(&day, 1)
        }
        _ => {
            let first = InstantRef::parse(text)?.to_owned();
            let after = next_of_same_precision(&first, text);
            Some((first, after))
        }
    }
}

/// `first` plus one unit of the last digit in its `text`.
fn next_of_same_precision(first: &Instant, text: &[u8]) -> Instant {
    let width = match text[19] {
        b'.' => text[20..].iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    };
    if width <= 7 {
        return Instant { ticks: first.ticks + 10_i64.pow(7 - width as u32), rest: Box::default() };
    }
    let mut rest = first.rest.to_vec();
    rest.resize(width - 7, b'0');
    // Carry, dropping the zeros that the carry leaves behind.
    while rest.pop_if(|digit| *digit == b'9').is_some() {}
    match rest.last_mut() {
        Some(digit) => *digit += 1,
        None => return Instant { ticks: first.ticks + 1, rest: Box::default() },
    }
    Instant { ticks: first.ticks, rest: rest.into() }
}

/// Days from the Unix epoch to a `YYYY-MM-DD`, if that is a day of the years 0001 to 9999. `text` has ten bytes.
#[inline]
fn days(text: &[u8]) -> Option<i64> {
    // "YYYY-MM-" and "YY-MM-DD" hold all the characters, some of them twice.
    let head = pairs(ticks_word(text, 0), *b"0000-00-")?;
    let tail = pairs(ticks_word(text, 2), *b"00-00-00")?;
    let year = pair(head, 0) * 100 + pair(head, 2);
    let (month, day) = (pair(head, 5), pair(tail, 6));
    if year == 0 || month.wrapping_sub(1) > 11 || day.wrapping_sub(1) >= days_of_month(year, month) {
        return None;
    }
    // Counting years from March puts the leap day last, and 719,468 days lie between 0000-03-01 and the epoch
    // (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(days as i64 - 719_468)
}

/// Seconds of a `Thh:mm:ss`, 60 allowed as a second. `text` has nine bytes.
#[inline]
fn seconds_of_day(text: &[u8]) -> Option<i64> {
    let values = pairs(ticks_word(text, 1), *b"00:00:00")?;
    let (hour, minute, second) = (pair(values, 0), pair(values, 3), pair(values, 6));
    (text[0] == b'T' && hour < 24 && minute < 60 && second <= 60).then_some((hour * 3600 + minute * 60 + second) as i64)
}

/// Reads the digits after the point: ticks, the digits beyond the seventh without trailing zeros, what follows.
#[inline]
fn fraction(text: &[u8]) -> Option<(i64, &[u8], &[u8])> {
    let (mut ticks, mut unit, mut offset) = (0, TICKS_PER_SECOND, 0);
    while let Some(digit) = text.get(offset).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        unit /= 10; // zero from the eighth digit on
        ticks += unit * digit as i64;
        offset += 1;
    }
    if offset == 0 {
        return None;
    }
    let mut rest = &text[offset.min(7)..offset];
    while let [more @ .., b'0'] = rest {
        rest = more;
    }
    Some((ticks, rest, &text[offset..]))
}

/// Seconds that a zone is ahead of UTC: `Z`, or `+hh:mm`, `-hh:mm` up to 14:00.
#[inline]
fn offset(zone: &[u8]) -> Option<i64> {
    if zone == b"Z" {
        return Some(0);
    }
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = zone else { return None };
    let value = pairs(u64::from_le_bytes([h1, h2, b':', m1, m2, b'0', b'0', b'0']), *b"00:00000")?;
    let minutes = pair(value, 0) * 60 + pair(value, 3);
    if pair(value, 3) > 59 || minutes > 14 * 60 {
        return None;
    }
    let seconds = minutes as i64 * 60;
    Some(if sign == b'-' { -seconds } else { seconds })
}

/// Eight bytes of `text` from `at`, the first one lowest.
#[inline]
fn ticks_word(text: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(text[offset..offset + 8].try_into().expect("eight bytes"))
}

/// The value of every two neighbouring digits of `word`, at the place of the first of them; `None` unless each byte
/// is a digit where `pattern` has `0` and equal to the pattern elsewhere.
#[inline]
fn pairs(word: u64, pattern: [u8; 8]) -> Option<u64> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Added to a byte, these set its high bit when it is more than 9, or more than 0. A carry into the next byte
    // needs a byte with its high bit set, which is refused all the same.
    let mut excess = [0x7f; 8];
    let mut i = 0;
    while i < 8 {
        if pattern[i] == b'0' {
            excess[i] = 0x76;
        }
        i += 1;
    }
    let values = word ^ u64::from_le_bytes(pattern);
    if (values | values.wrapping_add(u64::from_le_bytes(excess))) & HIGH != 0 {
        return None;
    }
    Some(values * 10 + (values >> 8)) // at most 99 in each byte: no carry
}

/// The value of the two digits at `at`.
#[inline]
fn pair(pairs: u64, offset: u32) -> u32 {
    (pairs >> (8 * offset)) as u8 as u32
}

/// The value of decimal digits of an instant.
fn decimal(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |value, digit| value * 10 + (digit - b'0') as u32)
}

#[inline]
/// Whether a year of the Gregorian calendar has 366 days.
fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// `month` is 1 to 12.
#[inline]
fn days_of_month(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + is_leap(year) as u32,
        _ => 30 + ((month ^ (month >> 3)) & 1), // the long months are odd until July, then even
    }
}

/// Year, month and day of a number of days since the Unix epoch (Hinnant, civil_from_days).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, date)
}

/// `last_updated` of a row without one.
pub(crate) const NO_INSTANT: i64 = i64::MIN;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Legal instants up to 2020-06-15T12:00:00Z, after that up to 12:00:00.5Z, and later.
    const BEFORE: &str = "\
        2020-06-15T12:00:00Z 2020-06-15T12:00:00.0Z 2020-06-15T12:00:00.000Z 2020-06-15T12:00:00.000000000Z
        2020-06-15T11:59:59.999999999Z 2020-06-15T12:00:00+00:00 2020-06-15T12:00:00-00:00
        2020-06-15T07:00:00-05:00 2020-06-15T17:30:00+05:30 2020-06-16T02:00:00+14:00
        2020-06-14T22:00:00-14:00 2020-06-15T23:00:00+14:00 2020-06-16T01:00:00+14:00 2020-06-15T11:59:60Z
        2016-12-31T23:59:60Z 2016-12-31T18:59:60-05:00 0001-01-01T00:00:00Z 0001-01-01T00:00:00+14:00
        1582-10-10T00:00:00Z 1969-12-31T23:59:59.999Z 1970-01-01T00:00:00Z 2020-02-29T23:59:59Z
        2000-02-29T00:00:00Z";
    const BETWEEN: &str = "\
        2020-06-15T12:00:00.1Z 2020-06-15T12:00:00.12Z 2020-06-15T12:00:00.123Z 2020-06-15T12:00:00.1234Z
        2020-06-15T12:00:00.12345Z 2020-06-15T12:00:00.123456Z 2020-06-15T12:00:00.1234567Z
        2020-06-15T12:00:00.12345678Z 2020-06-15T12:00:00.123456789Z 2020-06-15T12:00:00.000000001Z
        2020-06-15T12:00:00.001Z 2020-06-15T12:00:00.499999999Z 2020-06-15T12:00:00.5Z 2020-06-15T12:00:00.50Z
        2020-06-15T12:00:00.500000000Z 2020-06-15T07:00:00.001-05:00 2020-06-15T07:00:00.500-05:00
        2020-06-15T12:00:00.000000000000000000000000000001Z 2020-06-15T11:59:60.5Z";
    const AFTER: &str = "\
        2020-06-15T12:00:00.500000001Z 2020-06-15T12:00:00.51Z 2020-06-15T12:00:00.9Z 2020-06-15T12:00:01Z
        2020-06-15T12:00:01.0Z 2020-06-15T12:00:01-00:00 2020-06-15T07:00:00.501-05:00
        2020-06-15T17:45:00.6+05:45 2020-06-15T21:30:01+09:30 2020-06-16T02:00:01+14:00
        2020-06-14T22:00:01-14:00 2020-06-16T01:59:59+13:59 2020-06-15T01:00:00-12:00
        2020-06-14T23:00:00-14:00 2020-06-15T00:30:00-12:00 2020-06-15T12:00:60Z 2020-06-30T23:59:60Z
        2020-12-31T23:59:60.999Z 2038-01-19T03:14:08Z 2262-04-12T00:00:00Z 9999-12-31T23:59:59.999999999Z
        9999-12-31T23:59:60-14:00 2024-02-29T00:00:00Z 2020-06-15T12:00:00.5000000000001Z";
    const ILLEGAL: &[&str] = &[
        "2020-06-15",
        "2020-06",
        "2021",
        "2020-06-15T12:01Z",
        "2020-06-15T12:00:01",
        "2020-06-15 12:00:01Z",
        "2020-06-15t12:00:01z",
        "2020-06-15T12:00:01z",
        "2020-06-15T12:00:01,5Z",
        "2020-06-15T12:00:01.Z",
        "2020-06-15T24:00:00Z",
        "2020-06-31T12:00:00Z",
        "2021-02-29T12:00:00Z",
        "1900-02-29T12:00:00Z",
        "2020-13-01T12:00:00Z",
        "2020-00-10T12:00:00Z",
        "2020-06-15T12:60:00Z",
        "2020-06-15T12:00:61Z",
        "2020-06-15T12:00:01+15:00",
        "2020-06-15T12:00:01+14:30",
        "2020-06-15T12:00:01+5:00",
        "2020-06-15T12:00:01+0500",
        "2020-06-15T12:00:01+05",
        "2020-06-15T12:00:01 +05:00",
        "20200-06-15T12:00:01Z",
        "-2020-06-15T12:00:01Z",
        "0000-06-15T12:00:01Z",
        "",
        " 2020-06-15T12:00:01Z",
        "2020-06-15T12:00:01Z ",
        "20200615T120001Z",
        "2020-W25-1T12:00:01Z",
        "Mon, 15 Jun 2020 12:00:01 GMT",
        "1592222401",
        "2020-06-15T12:00:01Z\u{0}",
        "\u{ff12}\u{ff10}\u{ff12}\u{ff10}-06-15T12:00:01Z",
        "2020-06-15T12:00:01Z/2021",
    ];

    fn at(text: &str) -> Instant {
        Instant::parse(text).unwrap_or_else(|| panic!("{text} is legal"))
    }

    #[test]
    fn legal_instants_order_as_instants() {
        let (since, half) = (at("2020-06-15T12:00:00Z"), at("2020-06-15T14:00:00.5+02:00"));
        for text in BEFORE.split_whitespace() {
            assert!(at(text) <= since, "{text}");
        }
        for text in BETWEEN.split_whitespace() {
            assert!(since < at(text) && at(text) <= half, "{text}");
        }
        for text in AFTER.split_whitespace() {
            assert!(half < at(text), "{text}");
        }
        for text in [BEFORE, BETWEEN, AFTER].into_iter().flat_map(str::split_whitespace) {
            assert_eq!(oracle(text), Instant::parse(text), "{text}");
        }
    }

    #[test]
    fn illegal_instants_are_none() {
        for text in ILLEGAL {
            assert_eq!(Instant::parse(text), None, "{text:?}");
            assert_eq!(oracle(text), None, "{text:?}");
        }
        // Bytes whose neighbours could carry into them.
        for byte in 0..=255u8 {
            for place in 0..24 {
                let mut text = *b"2020-06-15T12:00:01.234Z";
                if text[place] != byte {
                    text[place] = byte;
                    let legal = str::from_utf8(&text).ok().and_then(oracle);
                    assert_eq!(InstantRef::parse(&text).map(InstantRef::to_owned), legal, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn leap_second_is_the_next_minute_and_keeps_its_fraction() {
        assert_eq!(at("2020-06-15T12:00:60.5Z"), at("2020-06-15T12:01:00.5Z"));
        assert_eq!(at("2016-12-31T18:59:60-05:00"), at("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn digits_beyond_the_seventh_are_kept() {
        let instant = at("1969-12-31T23:59:59.00000001230000Z");
        assert_eq!((instant.ticks, &*instant.rest), (-10_000_000, &b"123"[..]));
        assert_eq!(instant.to_string(), "1969-12-31T23:59:59.0000000123Z");
        assert!(at("2020-01-01T00:00:00.00000009Z") < at("2020-01-01T00:00:00.000000091Z"));
    }

    #[test]
    fn display_has_at_least_milliseconds() {
        for (text, shown) in [
            ("2020-06-15T14:00:00+02:00", "2020-06-15T12:00:00.000Z"),
            ("2020-06-15T12:00:00.1204500Z", "2020-06-15T12:00:00.12045Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.9999999999Z", "9999-12-31T23:59:59.9999999999Z"),
            ("0001-01-01T00:00:00+14:00", "0000-12-31T10:00:00.000Z"),
        ] {
            assert_eq!(at(text).to_string(), shown);
        }
        assert_eq!(Instant::from_unix_millis(-1).to_string(), "1969-12-31T23:59:59.999Z");
        let _ = (Instant::from_unix_millis(i64::MIN).to_string(), Instant::from_unix_millis(i64::MAX).to_string());
    }

    #[test]
    fn a_date_is_its_first_instant() {
        assert_eq!(Instant::parse_instant_or_date("2020-02-29"), Some(at("2020-02-29T00:00:00Z")));
        assert_eq!(Instant::parse_instant_or_date("2020-02-29T01:00:00+01:00"), Some(at("2020-02-29T00:00:00Z")));
        for text in ["2021-02-29", "2020", "2020-02", "0000-01-01", "2020-02-29 ", "2020-02-2é", ""] {
            assert_eq!(Instant::parse_instant_or_date(text), None, "{text}");
        }
    }

    #[test]
    fn spans_of_date_times() {
        for (text, first, after) in [
            ("2015", "2015-01-01T00:00:00Z", "2016-01-01T00:00:00Z"),
            ("2016", "2016-01-01T00:00:00Z", "2017-01-01T00:00:00Z"),
            ("2016-02", "2016-02-01T00:00:00Z", "2016-03-01T00:00:00Z"),
            ("2015-12", "2015-12-01T00:00:00Z", "2016-01-01T00:00:00Z"),
            ("2015-02-28", "2015-02-28T00:00:00Z", "2015-03-01T00:00:00Z"),
            ("2015-02-07T13:28:17-05:00", "2015-02-07T18:28:17Z", "2015-02-07T18:28:18Z"),
            ("2015-02-07T13:28:17.90Z", "2015-02-07T13:28:17.9Z", "2015-02-07T13:28:17.91Z"),
            ("2015-02-07T13:28:17.999999999Z", "2015-02-07T13:28:17.999999999Z", "2015-02-07T13:28:18Z"),
            ("2015-02-07T13:28:17.000000009Z", "2015-02-07T13:28:17.000000009Z", "2015-02-07T13:28:17.00000001Z"),
            ("2015-02-07T13:28:17.000000000Z", "2015-02-07T13:28:17Z", "2015-02-07T13:28:17.000000001Z"),
        ] {
            assert_eq!(date_time_span(text.as_bytes()), Some((at(first), at(after))), "{text}");
        }
        let (_, after) = date_time_span(b"9999").expect("a year");
        assert_eq!(after.to_string(), "10000-01-01T00:00:00.000Z");
        for text in ["", "0000", "20", "2015-13", "2015-2", "2015-02-30", "2015-02-07T13:28Z", "201５", "2015-1a"] {
            assert_eq!(date_time_span(text.as_bytes()), None, "{text}");
        }
    }

    /// The obvious reading of the definition, which defines correct.
    fn oracle(text: &str) -> Option<Instant> {
        fn number(text: &str, width: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
            let digits = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().expect("digits")).filter(|value| range.contains(value))
        }
        let (date, time) = text.split_once('T')?;
        let [year, month, day] = date.split('-').collect::<Vec<_>>().try_into().ok()?;
        let (year, month) = (number(year, 4, 1..=9999)?, number(month, 2, 1..=12)?);
        let leap = |year| year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
        let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let day = number(day, 2, 1..=lengths[month as usize - 1])?;
        let days = (1..year).map(|year| if leap(year) { 366 } else { 365 }).sum::<i64>()
            + lengths[..month as usize - 1].iter().sum::<i64>()
            + day
            - 1
            - 719_162; // days from 0001-01-01 to 1970-01-01

        let zone = time.find(['Z', '+', '-'])?;
        let (time, zone) = time.split_at(zone);
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = time.split(':').collect::<Vec<_>>().try_into().ok()?;
        let seconds = number(hour, 2, 0..=23)? * 3600 + number(minute, 2, 0..=59)? * 60 + number(second, 2, 0..=60)?;
        if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut fraction = fraction.trim_end_matches('0').to_string();
        while fraction.len() < 7 {
            fraction.push('0');
        }
        let ahead = match zone.split_at(1) {
            ("Z", "") => 0,
            (sign @ ("+" | "-"), zone) => {
                let (hours, minutes) = zone.split_once(':')?;
                let minutes = number(hours, 2, 0..=14)? * 60 + number(minutes, 2, 0..=59)?;
                let minutes = Some(minutes).filter(|minutes| *minutes <= 840)?;
                if sign == "-" { -minutes } else { minutes }
            }
            _ => return None,
        };
        let ticks = (days * 86_400 + seconds - ahead * 60) * TICKS_PER_SECOND + fraction[..7].parse::<i64>().ok()?;
        Some(Instant { ticks, rest: fraction.as_bytes()[7..].into() })
    }

    proptest! {
        #[test]
        fn agrees_with_the_obvious_twin(
            text in "[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,12})?(Z|[+-][01][0-9]:[0-6][0-9])",
        ) {
            prop_assert_eq!(Instant::parse(&text), oracle(&text));
        }

        #[test]
        fn one_changed_character_is_judged_alike(
            text in "20[0-9]{2}-0[1-9]-[0-2][1-8]T1[0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]0[0-9]:[0-5][0-9])",
            place in any::<proptest::sample::Index>(),
            other in any::<char>(),
        ) {
            let mut chars: Vec<char> = text.chars().collect();
            let place = place.index(chars.len());
            chars[place] = other;
            let text: String = chars.into_iter().collect();
            prop_assert_eq!(Instant::parse(&text), oracle(&text));
        }

        #[test]
        fn display_reads_back(seconds in -62_135_596_800_i64..253_402_300_800, fraction in "[0-9]{0,20}") {
            let digits = format!("{fraction:0<7}");
            let instant = Instant {
                ticks: seconds * TICKS_PER_SECOND + digits[..7].parse::<i64>().unwrap(),
                rest: digits[7..].trim_end_matches('0').as_bytes().into(),
            };
            prop_assert_eq!(Instant::parse(&instant.to_string()), Some(instant));
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in any::<Vec<u8>>()) {
            let _ = (InstantRef::parse(&text), date_time_span(&text));
        }
    }

    /// A clock's times come through exactly, before the epoch and at both ends of the calendar too.
    #[test]
    fn system_times_become_instants() {
        let check = |seconds: i64, nanoseconds: u32, text: &str| {
            let whole = std::time::Duration::from_secs(seconds.unsigned_abs());
            let time = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
            let instant = Instant::from(time + std::time::Duration::from_nanos(nanoseconds.into()));
            assert_eq!(instant.to_string(), text);
            assert_eq!(text.parse::<Instant>(), Ok(instant), "what is written is read again");
        };
        check(0, 0, "1970-01-01T00:00:00.000Z");
        check(1_714_521_600, 123_456_789, "2024-05-01T00:00:00.123456789Z");
        check(1_714_521_600, 123_456_700, "2024-05-01T00:00:00.1234567Z");
        check(-1, 999_999_990, "1969-12-31T23:59:59.99999999Z");
        check(-62_135_596_801, 0, "0001-01-01T00:00:00.000Z");
        check(253_402_300_800, 0, "9999-12-31T23:59:59.999999999Z");
    }
}
