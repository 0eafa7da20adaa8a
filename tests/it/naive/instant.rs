//! Instants of the naive oracle: the R4 grammar spelled out, with whole seconds and the fraction's digits as text.
//! Shares nothing with `src/fhir/instant.rs`.

/// Seconds since 1970-01-01T00:00:00Z, and the fraction digits without trailing zeros. The derived order is the order
/// in time, because digit strings without trailing zeros compare bytewise as fractions do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant {
    pub seconds: i64,
    pub fraction: String,
}

/// Parses an R4 `instant`; `None` if the text is none. A leap second is the first second of the next minute (reading
/// 1).
pub(crate) fn parse(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let shape = |i: usize, byte: u8| bytes[i] == byte;
    if !(shape(4, b'-') && shape(7, b'-') && shape(10, b'T') && shape(13, b':') && shape(16, b':')) {
        return None;
    }
    let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut fraction = String::new();
    if let Some(after) = rest.strip_prefix('.') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        fraction = after[..digits].trim_end_matches('0').to_string();
        rest = &after[digits..];
    }
    let offset_minutes = if rest == "Z" {
        0
    } else {
        let sign = match rest.bytes().next()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        if rest.len() != 6 || rest.as_bytes()[3] != b':' {
            return None;
        }
        let (hours, minutes) = (number(&rest[1..3])?, number(&rest[4..6])?);
        if minutes > 59 || hours > 14 || (hours == 14 && minutes != 0) {
            return None;
        }
        sign * (hours * 60 + minutes)
    };
    let days = days_before_year(year) + days_before_month(year, month) + day - 1 - days_before_year(1970);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
    Some(Instant { seconds, fraction })
}

/// The first instant of a partial date (`YYYY`, `YYYY-MM`, `YYYY-MM-DD`, or a date with time), and the first one after
/// it. Without an offset it is taken as UTC.
pub(crate) fn span(text: &str) -> Option<(Instant, Instant)> {
    let instant = |text: &str| parse(text);
    match text.len() {
        4 => {
            let year = number(text)?;
            Some((instant(&format!("{text}-01-01T00:00:00Z"))?, instant(&format!("{:04}-01-01T00:00:00Z", year + 1))?))
        }
        7 => {
            let (year, month) = (number(&text[0..4])?, number(&text[5..7])?);
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            Some((
                instant(&format!("{text}-01T00:00:00Z"))?,
                instant(&format!("{next_year:04}-{next_month:02}-01T00:00:00Z"))?,
            ))
        }
        10 => {
            let start = instant(&format!("{text}T00:00:00Z"))?;
            let end = Instant { seconds: start.seconds + 86_400, fraction: String::new() };
            Some((start, end))
        }
        _ => {
            let start = instant(text)?;
            let end = Instant { seconds: start.seconds + 1, fraction: start.fraction.clone() };
            Some((start, end))
        }
    }
}

fn number(digits: &str) -> Option<i64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before_year(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400
}

fn days_before_month(year: i64, month: i64) -> i64 {
    (1..month).map(|earlier| days_in_month(year, earlier)).sum()
}

#[test]
fn instants_of_the_naive_oracle() {
    let seconds = |text: &str| parse(text).unwrap_or_else(|| panic!("{text}")).seconds;
    assert_eq!(seconds("1970-01-01T00:00:00Z"), 0);
    assert_eq!(seconds("2000-03-01T00:00:00Z"), 951_868_800);
    assert_eq!(seconds("2020-06-15T07:00:00-05:00"), seconds("2020-06-15T12:00:00Z"));
    assert_eq!(seconds("2016-12-31T23:59:60Z"), seconds("2017-01-01T00:00:00Z"));
    assert!(parse("2020-06-15T12:00:00.49Z") < parse("2020-06-15T12:00:00.5Z"));
    for bad in ["2021-02-29T12:00:00Z", "2020-06-15T12:00:01+14:30", "0000-06-15T12:00:01Z", "2020-06-15T24:00:00Z"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
