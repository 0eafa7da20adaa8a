//! Instants: nothing panics, and what is read and written again is the same instant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour::Instant;
use outpour::internals::InstantRef;
use outpour::internals::date_time_span;

fuzz_target!(|data: &[u8]| {
    if let Some(at) = InstantRef::parse(data) {
        let text = at.to_owned().to_string();
        // An offset can carry a value out of the years that can be written.
        if let Some(again) = Instant::parse(&text) {
            assert_eq!(again, at.to_owned());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        Instant::parse_instant_or_date(text);
    }
    if let Some((first, after)) = date_time_span(data) {
        assert!(first < after);
    }
});
