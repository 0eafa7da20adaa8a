//! Randomness and clock of the service: ids, request ids, the current instant.

use axum::http::HeaderName;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::fhir::instant::Instant;

/// 128 random bits from the operating system.
///
/// # Panics
/// If the system provides none: a service that cannot make secrets must not go on.
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// An id that cannot be guessed: 128 random bits as 32 hexadecimal digits.
pub(crate) fn new_id() -> String {
    format!("{:032x}", u128::from_le_bytes(random()))
}

/// The clock of the service: now in whole milliseconds, the precision at which a job's T is chosen (CONS-06).
pub(crate) fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Header with the id of a request in the log.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
