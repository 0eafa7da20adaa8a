//! Dates of HTTP (RFC 9110, 5.6.7).

use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;

use crate::fhir::Instant;
use crate::fhir::instant::TICKS_PER_SECOND;

/// The time of the system; none before 1970.
pub fn system_time(at: &Instant) -> Option<SystemTime> {
    let seconds = u64::try_from(at.ticks.div_euclid(TICKS_PER_SECOND)).ok()?;
    let nanos = (at.ticks.rem_euclid(TICKS_PER_SECOND) as u32) * 100;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// An instant as an IMF-fixdate (STATUS-07); none for years that it cannot write.
pub fn imf_fixdate(at: &Instant) -> Option<HeaderValue> {
    // The form has four digits for the year; 253,402,300,800 seconds are the year 10000.
    let time = system_time(at).filter(|_| at.ticks / TICKS_PER_SECOND < 253_402_300_800)?;
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// STATUS-07
    #[test]
    fn dates_are_imf_fixdates() {
        let date =
            |text: &str| imf_fixdate(&Instant::parse(text).unwrap()).map(|date| date.to_str().unwrap().to_string());
        assert_eq!(date("2024-02-29T01:30:00.9+02:00").as_deref(), Some("Wed, 28 Feb 2024 23:30:00 GMT"));
        assert_eq!(date("0001-01-01T00:00:00Z"), None);
        assert_eq!(imf_fixdate(&Instant::from_unix_millis(i64::MAX)), None);
        assert!(date("9999-12-31T23:59:59Z").is_some());
    }
}
