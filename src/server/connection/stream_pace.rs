//! Pace of an HTTP/2 stream: the instant from which on its client has taken no bytes, which the deadline of the
//! stream is counted from.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

tokio::task_local! {
    /// The pace of the stream that the current task answers; unset under HTTP/1.1.
    pub(crate) static PACE: Arc<StreamPace>;
}

/// When the body of a stream last gave bytes, if the HTTP library has not polled it since.
#[derive(Debug, Default)]
pub(crate) struct StreamPace(Mutex<Option<Instant>>);

impl StreamPace {
    /// Records the instant of a piece, or `None` for a poll without one.
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// When the body gave its last bytes; `None` while the library waits for more.
    pub(crate) fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records that the library polled the body of an answer, and whether it `gave` bytes. No effect under HTTP/1.1,
/// where the stream tracks writes.
pub(crate) fn note_body_poll(gave: bool) {
    let _ = PACE.try_with(|pace| pace.set(gave.then(Instant::now)));
}
