//! When the body of an HTTP/2 stream last gave bytes that the client has not taken: what a stream's deadline is counted from.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

tokio::task_local! {
    /// The pace of the stream that the current task answers; unset under HTTP/1.1.
    pub(crate) static PACE: Arc<StreamPace>;
}

/// The instant at which a stream's body gave bytes to the HTTP library that has not asked for more since.
#[derive(Debug, Default)]
pub(crate) struct StreamPace(Mutex<Option<Instant>>);

impl StreamPace {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// That instant; `None` while the library asks for more.
    pub(crate) fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that the library asked the body of an answer for bytes, and whether it `gave` some. Does nothing under HTTP/1.1,
/// where the socket knows.
pub(crate) fn note_body_poll(gave: bool) {
    let _ = PACE.try_with(|pace| pace.set(gave.then(Instant::now)));
}
