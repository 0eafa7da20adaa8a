//! A timer that is set anew for each wait and costs nothing while there is none.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::Sleep;

/// A deadline that is forgotten and set again, often.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
}

impl Timer {
    pub(crate) fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if self.deadline != Some(deadline) {
            sleep.as_mut().reset(deadline);
            self.deadline = Some(deadline);
        }
        sleep.as_mut().poll(context)
    }

    /// As [`Timer::poll`], of the deadline that was set first since the timer was cleared.
    pub(crate) fn poll_first(&mut self, wait: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + wait);
        self.poll(deadline, context)
    }

    pub(crate) fn clear(&mut self) {
        self.deadline = None;
    }
}
