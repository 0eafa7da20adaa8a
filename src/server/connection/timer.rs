//! A timer for repeated waits; it is reset instead of created again, and costs nothing while it is cleared.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::Sleep;

/// A deadline that is set and cleared often.
#[derive(Default)]
pub(crate) struct Timer {
    /// The timer of the runtime, made at the first wait.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The deadline that is set; `None` if the timer is cleared.
    deadline: Option<Instant>,
}

impl Timer {
    /// Sets the deadline and polls for it; ready once it has passed.
    pub(crate) fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if self.deadline != Some(deadline) {
            sleep.as_mut().reset(deadline);
            self.deadline = Some(deadline);
        }
        sleep.as_mut().poll(context)
    }

    /// As [`Timer::poll`] with the deadline in force; if there is none, sets one after `wait`.
    pub(crate) fn poll_first(&mut self, wait: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + wait);
        self.poll(deadline, context)
    }

    /// Clears the deadline; the next wait sets another.
    pub(crate) fn clear(&mut self) {
        self.deadline = None;
    }
}
