//! Dates and times of any precision as the span of time that they stand for (R4 search, dates).

/// Picoseconds in a second: a fraction of a second counts to its twelfth digit.
pub(crate) const SECOND: i128 = 1_000_000_000_000;
/// Digits of a fraction of a second that count.
const FRACTION_DIGITS: usize = 12;

/// A span of time from its first moment to the one behind its last, in picoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeSpan {
    /// The first moment.
    pub start: i128,
    /// The moment behind the last.
    pub end: i128,
}

impl TimeSpan {
    /// All of time.
    pub(crate) const ALWAYS: TimeSpan = TimeSpan { start: i128::MIN, end: i128::MAX };

    /// Reads `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, and a time of day to the minute, the second or a fraction with `Z` or an offset,
    /// or neither, which is UTC. `None` for anything else, and for days that do not exist.
    pub(crate) fn parse(text: &str) -> Option<TimeSpan> {
        if !text.is_ascii() {
            return None;
        }
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let mut parts = date.split('-');
        let year = number(parts.next()?, 4)?;
        let month = parts.next().map(|part| number(part, 2)).map_or(Some(None), |month| month.map(Some))?;
        let day = parts.next().map(|part| number(part, 2)).map_or(Some(None), |day| day.map(Some))?;
        if parts.next().is_some() || year == 0 {
            return None;
        }
        let days = |from: i128, to: i128| TimeSpan { start: from * 86_400 * SECOND, end: to * 86_400 * SECOND };
        match (month, day, time) {
            (None, None, None) => Some(days(days_before(year, 1), days_before(year + 1, 1))),
            (Some(month @ 1..=12), None, None) => Some(days(days_before(year, month), days_before(year, month + 1))),
            (Some(month @ 1..=12), Some(day), _) => {
                let (first, next) = (days_before(year, month), days_before(year, month + 1));
                let number = first + day - 1;
                if day == 0 || number >= next {
                    return None;
                }
                let Some(time) = time else { return Some(days(number, number + 1)) };
                let (start, length) = read_time(time)?;
                let start = number * 86_400 * SECOND + start;
                Some(TimeSpan { start, end: start + length })
            }
            _ => None,
        }
    }

    /// The moment at which a span of a second or less begins: an instant is a fixed point in time, however many digits it is
    /// written with (R4 search, dates). A longer span, of a date that stands in the place of an instant, stays.
    pub(crate) fn instant(self) -> TimeSpan {
        match self.end - self.start <= SECOND {
            true => TimeSpan { start: self.start, end: self.start + 1 },
            false => self,
        }
    }

    /// Whether the other span lies in this one.
    pub(crate) fn contains(self, other: TimeSpan) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether both have a moment in common.
    pub(crate) fn overlaps(self, other: TimeSpan) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// This span and as much to either side.
    pub(crate) fn widened(self, by: i128) -> TimeSpan {
        TimeSpan { start: self.start.saturating_sub(by), end: self.end.saturating_add(by) }
    }
}

/// A number of this many digits.
fn number(text: &str, digits: usize) -> Option<i128> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days from 1970-01-01 to the first of a month; month 13 is the next January.
fn days_before(year: i128, month: i128) -> i128 {
    let (year, month) = if month > 12 { (year + 1, month - 12) } else { (year, month) };
    // Years begin in March, so that the leap day is the last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 - 719_468
}

/// The start of a time of day, its offset taken off, and how long it stands for.
fn read_time(text: &str) -> Option<(i128, i128)> {
    let zone = text.find(['Z', '+', '-']).unwrap_or(text.len());
    let (time, zone) = text.split_at(zone);
    let offset = match zone {
        "" | "Z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
            if hours * 60 + minutes > 14 * 60 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if zone.starts_with('-') { -60 } else { 60 }
        }
    };
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (second, fraction) = match parts.next() {
        None => (None, ""),
        Some(text) => match text.split_once('.') {
            None => (Some(number(text, 2)?), ""),
            Some((_, "")) => return None,
            Some((second, fraction)) => (Some(number(second, 2)?), fraction),
        },
    };
    // R4 allows a leap second.
    if hour > 23 || minute > 59 || second.is_some_and(|second| second > 60) {
        return None;
    }
    let minute_start = (hour * 3600 + minute * 60 - offset) * SECOND;
    if second == Some(60) {
        // It is the last moment of its minute, so that it lies in the day that it is written with.
        return fraction.bytes().all(|byte| byte.is_ascii_digit()).then_some((minute_start + 60 * SECOND - 1, 1));
    }
    let start = minute_start + second.unwrap_or(0) * SECOND;
    if second.is_none() {
        return Some((start, 60 * SECOND));
    }
    let told = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unit = 10i128.pow(u32::try_from(FRACTION_DIGITS - told.len()).ok()?);
    let part = if told.is_empty() { 0 } else { told.parse::<i128>().ok()? };
    Some((start + part * unit, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::instant::Instant;
    use proptest::prelude::*;

    fn span(text: &str) -> TimeSpan {
        TimeSpan::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// Spans of each precision begin and end where the next one does.
    #[test]
    fn spans_meet() {
        for (text, next) in [
            ("1999", "2000"),
            ("2000-02", "2000-03"),
            ("2000-02-28", "2000-02-29"),
            ("2000-02-29", "2000-03-01"),
            ("1900-02-28", "1900-03-01"),
            ("2000-12-31", "2001-01-01"),
            ("2000-01-01T23:59Z", "2000-01-02T00:00Z"),
            ("2000-01-01T00:00:59Z", "2000-01-01T00:01:00Z"),
            ("2000-01-01T00:00:00.1Z", "2000-01-01T00:00:00.2Z"),
            ("2000-01-01T00:00:00.999999Z", "2000-01-01T00:00:01.000000Z"),
        ] {
            assert_eq!(span(text).end, span(next).start, "{text}");
        }
        assert_eq!(span("2000-01-01T05:30:00+05:30"), span("2000-01-01T00:00:00Z"));
        assert_eq!(span("2000-01-01T00:00:00"), span("2000-01-01T00:00:00Z"));
        let leap = span("2016-12-31T23:59:60Z");
        assert!(span("2016-12-31").contains(leap) && span("2016-12-31T23:59").contains(leap));
        for wrong in [
            "",
            "200",
            "0000",
            "2000-13",
            "2000-00",
            "2000-02-30",
            "1900-02-29",
            "2000-1-1",
            "2000-01-01T",
            "2000-01-01T24:00Z",
            "2000-01-01T00Z",
            "2000-01-01T00:00:61Z",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00+5:00",
            "2000-01T00:00Z",
            "2000-01-01-01",
            "2000-01-01T00:00:00+15:00",
            "2000-01-01T00:00:00-14:01",
            "２000",
        ] {
            assert!(TimeSpan::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        /// A whole instant begins where the reader of `lastUpdated` says.
        #[test]
        fn instants_are_read_alike(text in "[0-2][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,7})?(Z|[+-]0[0-9]:[0-5][0-9])") {
            let (read, expected) = (TimeSpan::parse(&text), Instant::parse(&text));
            prop_assert_eq!(read.map(|span| span.start), expected.map(|instant| i128::from(instant.ticks) * 100_000), "{}", text);
        }
    }
}
