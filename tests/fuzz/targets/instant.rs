//! Instants and dates: nothing panics, an instant that is formatted and parsed again is the same, and a date spans
//! time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour::Instant;
use outpour::internals::InstantRef;
use outpour::internals::date_time_span;

fuzz_target!(|data: &[u8]| {
    if let Some(parsed) = InstantRef::parse(data) {
        let text = parsed.to_owned().to_string();
        // An offset can carry an instant out of the years that can be formatted.
        if let Some(again) = Instant::parse(&text) {
            assert_eq!(again, parsed.to_owned());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        Instant::parse_instant_or_date(text);
    }
    if let Some((first, after)) = date_time_span(data) {
        assert!(first < after);
    }
});
