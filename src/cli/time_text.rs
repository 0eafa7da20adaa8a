//! Times as people write them on the command line. What clients send is read by `fhir::instant`, which is strict.

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};

/// What a time looks like, for messages.
const TIME_EXAMPLES: &str = "2026-11-29T00:00Z, 2026-11-29T00:00:00+0100, 2026-11-29 (00:00Z of that day), -24h, -7d, -90m, now, today or yesterday";

/// Ticks of a day.
const TICKS_PER_DAY: i64 = 24 * 3600 * TICKS_PER_SECOND;

/// Reads a time: an instant with or without seconds, a space or a `T` behind its date, and its offset as `Z`, `+hh:mm`,
/// `+hhmm` or `+hh`; a date, for 00:00Z of that day; `now`; `today` and `yesterday`, for 00:00Z of that day; or a time
/// before now as `-` with a number and s, m, h, d or w.
///
/// # Errors
/// What is wrong with the text, as a clause that follows it.
pub(crate) fn parse_time(text: &str, now: &Instant) -> Result<Instant, String> {
    let today = now.ticks.div_euclid(TICKS_PER_DAY) * TICKS_PER_DAY;
    let at = |ticks| Instant { ticks, rest: Box::default() };
    let word = text.trim();
    match word.to_ascii_lowercase().as_str() {
        "now" => return Ok(now.clone()),
        "today" => return Ok(at(today)),
        "yesterday" => return Ok(at(today - TICKS_PER_DAY)),
        _ => {}
    }
    let wrong = || format!("is no time such as {TIME_EXAMPLES}");
    if let Some(age) = word.strip_prefix('-') {
        let age = age_ticks(age).ok_or_else(wrong)?;
        let first = Instant::parse_instant_or_date("0001-01-01").expect("a date").ticks;
        let ticks = now.ticks.checked_sub(age).filter(|ticks| *ticks >= first);
        return ticks.map(at).ok_or_else(|| "is before the year 1".to_string());
    }
    let Some(date) = word.get(..10) else { return Err(wrong()) };
    let clock = &word[10..];
    if clock.is_empty() {
        return Instant::parse_instant_or_date(date).ok_or_else(wrong);
    }
    let clock = clock.strip_prefix(['T', 't', ' ']).ok_or_else(wrong)?;
    let Some(start) = clock.find(['Z', 'z', '+', '-']) else {
        let is_time = Instant::parse(&strict(date, clock, "Z")).is_some();
        return Err(if is_time {
            "has no offset from UTC: add Z for UTC, or one such as +01:00".to_string()
        } else {
            wrong()
        });
    };
    Instant::parse(&strict(date, &clock[..start], &clock[start..])).ok_or_else(wrong)
}

/// The text of an R4 instant for the parts of a time.
fn strict(date: &str, clock: &str, offset: &str) -> String {
    let clock = clock.trim_end_matches(' ');
    let seconds = if clock.len() == 5 { ":00" } else { "" };
    let offset = match *offset.as_bytes() {
        [b'z'] => "Z".to_string(),
        [_, b'0'..=b'9', b'0'..=b'9'] => format!("{offset}:00"),
        [_, b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => format!("{}:{}", &offset[..3], &offset[3..]),
        _ => offset.to_string(),
    };
    format!("{date}T{clock}{seconds}{offset}")
}

/// Ticks of an age such as `24h`.
fn age_ticks(text: &str) -> Option<i64> {
    let seconds: i64 = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 24 * 3600,
        b'w' => 7 * 24 * 3600,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    // `parse` would take a sign.
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<i64>().ok().filter(|_| is_number)?;
    number.checked_mul(seconds)?.checked_mul(TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Instant {
        Instant::parse("2026-11-30T13:45:10.123Z").unwrap()
    }

    /// Every documented form; without an offset, with another unit or out of the calendar nothing is taken.
    #[test]
    fn times_are_read_as_documented() {
        for (text, instant) in [
            ("now", "2026-11-30T13:45:10.123Z"),
            ("Today", "2026-11-30T00:00:00Z"),
            ("yesterday", "2026-11-29T00:00:00Z"),
            ("2026-11-29", "2026-11-29T00:00:00Z"),
            ("2026-11-29T00:00Z", "2026-11-29T00:00:00Z"),
            ("2026-11-29t00:00z", "2026-11-29T00:00:00Z"),
            ("2026-11-29 00:00Z", "2026-11-29T00:00:00Z"),
            ("2026-11-29T00:00:00+0000", "2026-11-29T00:00:00Z"),
            ("2026-11-29 01:30:15 +0130", "2026-11-29T00:00:15Z"),
            ("2026-11-29T01:00+01", "2026-11-29T00:00:00Z"),
            ("2026-11-28T23:00-01:00", "2026-11-29T00:00:00Z"),
            ("2026-11-29T00:00:00.12345678901Z", "2026-11-29T00:00:00.12345678901Z"),
            ("-24h", "2026-11-29T13:45:10.123Z"),
            ("-7d", "2026-11-23T13:45:10.123Z"),
            ("-1w", "2026-11-23T13:45:10.123Z"),
            ("-90m", "2026-11-30T12:15:10.123Z"),
            ("-10s", "2026-11-30T13:45:00.123Z"),
        ] {
            assert_eq!(parse_time(text, &now()), Ok(Instant::parse(instant).unwrap()), "{text}");
        }
        for text in ["2026-11-29T00:00", "2026-11-29 00:00:00", "2026-11-29T00:00:00.5"] {
            assert!(parse_time(text, &now()).unwrap_err().contains("no offset"), "{text}");
        }
        for text in [
            "",
            "-",
            "--plan",
            "-24",
            "-h",
            "-+1h",
            "-2y",
            "-1.5h",
            "24h",
            "+24h",
            "2026",
            "2026-11",
            "2026-13-01",
            "2026-11-29Z",
            "2026-11-29T",
            "2026-11-29T0Z",
            "2026-11-29T24:01Z",
            "2026-11-29T00:00ZZ",
            "2026-11-29T00:00+1",
            "tomorrow",
            "20261129T000000Z",
            "2026-11-2é",
            "2026-11-29T00:00+01:00:00",
            "2026-11-29T00:00é",
        ] {
            assert!(parse_time(text, &now()).unwrap_err().contains("is no time such as"), "{text}");
        }
        assert!(parse_time("-99999999w", &now()).is_err() && parse_time("-800000d", &now()).is_err());
    }

    proptest! {
        /// Every way to write an instant gives the instant of its strict text, and no text panics.
        #[test]
        fn every_form_is_the_same_instant(
            days in 0..10_000_i64, minutes in 0..1440_i64, separator in 0..3_usize, offset in 0..5_usize, noise in ".*"
        ) {
            let ticks = days * TICKS_PER_DAY + minutes * 60 * TICKS_PER_SECOND;
            let text = Instant { ticks, rest: Box::default() }.to_string();
            let offset = ["Z", "z", "+0000", " +00:00", "-00"][offset];
            let given = format!("{}{}{}{offset}", &text[..10], ["T", "t", " "][separator], &text[11..16]);
            prop_assert_eq!(parse_time(&given, &now()).unwrap().ticks, ticks);
            prop_assert_eq!(parse_time(&text, &now()).unwrap().ticks, ticks);
            parse_time(&noise, &now()).ok();
            parse_time(&format!("2026-11-29T{noise}"), &now()).ok();
        }
    }
}
