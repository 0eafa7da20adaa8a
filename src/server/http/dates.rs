//! Dates of HTTP headers (RFC 9110, 5.6.7).

use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};

/// Seconds from 1970 to the year 10000, the first that an HTTP date cannot write.
const YEAR_10000_SECONDS: u64 = 253_402_300_800;

/// An instant as a system time; `None` before 1970.
pub(crate) fn system_time(instant: &Instant) -> Option<SystemTime> {
    let seconds = u64::try_from(instant.ticks.div_euclid(TICKS_PER_SECOND)).ok()?;
    let nanos = (instant.ticks.rem_euclid(TICKS_PER_SECOND) as u32) * 100;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// An instant as an IMF-fixdate (STATUS-07); `None` before 1970 and from the year 10000 on.
pub(crate) fn imf_fixdate(instant: &Instant) -> Option<HeaderValue> {
    imf_fixdate_of(system_time(instant)?)
}

/// A system time as an IMF-fixdate (STATUS-07), cut to whole seconds; `None` before 1970 and from the year 10000 on,
/// where [`httpdate::fmt_http_date`] would panic.
pub(crate) fn imf_fixdate_of(time: SystemTime) -> Option<HeaderValue> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000_SECONDS).then(|| HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// STATUS-07: dates in the form of an IMF-fixdate.
    #[test]
    fn dates_are_imf_fixdates() {
        let date =
            |text: &str| imf_fixdate(&Instant::parse(text).unwrap()).map(|date| date.to_str().unwrap().to_string());
        assert_eq!(date("2024-02-29T01:30:00.9+02:00").as_deref(), Some("Wed, 28 Feb 2024 23:30:00 GMT"));
        assert_eq!(date("0001-01-01T00:00:00Z"), None);
        assert_eq!(imf_fixdate(&Instant::from_unix_millis(i64::MAX)), None);
        assert!(date("9999-12-31T23:59:59Z").is_some());
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_10000_SECONDS - 1);
        assert_eq!(imf_fixdate_of(last).unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(imf_fixdate_of(last + Duration::from_secs(1)), None);
        assert_eq!(imf_fixdate_of(SystemTime::UNIX_EPOCH - Duration::from_nanos(1)), None);
    }

    proptest! {
        /// STATUS-07: a written date is read back to the second, and no time causes a panic.
        #[test]
        fn dates_are_read_back(seconds in 0..YEAR_10000_SECONDS, nanos in 0..1_000_000_000u32, any in any::<i64>()) {
            let written = imf_fixdate_of(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)).unwrap();
            let read = httpdate::parse_http_date(written.to_str().unwrap()).unwrap();
            prop_assert_eq!(read, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            imf_fixdate(&Instant::from_unix_millis(any));
        }
    }
}
