//! Progress of long work: a bar on a terminal, lines in a log, times of the phases; and the cancellation of the work by a
//! signal.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::Thread;
use std::time::{Duration, Instant as Clock};

use indicatif::{ProgressBar, ProgressStyle};

use crate::byte_size::format_bytes;
use crate::cli::args::run::ProgressArg;
use crate::cli::{Verbosity, log_line, verbosity};
use crate::progress::{Phase, PhaseProgress, Progress};
use crate::sys::interrupt;

/// Longest time between two lines of progress.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the work is looked at; times of phases are as exact.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `work` with a progress that a second thread shows, and that it cancels after an interrupt.
pub(crate) fn watched<T: Send>(when: ProgressArg, work: impl FnOnce(&Progress) -> T + Send) -> T {
    let progress = Progress::default();
    let done = AtomicBool::new(false);
    let interrupted = interrupt::interrupts_and_hangups();
    let is_quiet = verbosity() == Verbosity::Quiet;
    let has_bar = when == ProgressArg::Auto && !is_quiet && std::io::stderr().is_terminal();
    let has_lines = when == ProgressArg::Plain && !is_quiet;
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let bar = has_bar.then(ProgressBar::no_length);
            let mut display = PhaseDisplay::new(Clock::now(), has_lines, verbosity() == Verbosity::Verbose);
            loop {
                let ended = done.load(Relaxed);
                if interrupted.load(Relaxed) {
                    progress.cancel.store(true, Relaxed);
                }
                let lines = display.look(Clock::now(), progress.phase(), ended);
                let print = || lines.iter().for_each(|line| log_line(line));
                match &bar {
                    Some(bar) => {
                        bar.suspend(print);
                        draw(bar, &display);
                    }
                    None => print(),
                }
                if ended {
                    break;
                }
                std::thread::park_timeout(LOOK_INTERVAL);
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        // Ends the watcher on a panic of the work too: the scope joins its threads before the panic is passed on.
        let _done = ProgressGuard { done: &done, watcher: watcher.thread() };
        work(&progress)
    })
}

/// Ends the watcher thread when it is dropped.
struct ProgressGuard<'a> {
    /// Checked by the watcher in every round.
    done: &'a AtomicBool,
    /// The watcher, to be woken from its pause.
    watcher: &'a Thread,
}

impl Drop for ProgressGuard<'_> {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        self.watcher.unpark();
    }
}

/// What is known of the phase under way, and what was told of it.
struct PhaseDisplay {
    /// Whether lines of progress are wanted.
    has_lines: bool,
    /// Whether the time of each phase is wanted.
    has_times: bool,
    /// The phase, as it was last looked at.
    now: PhaseProgress,
    /// When the phase began.
    begun: Clock,
    /// When it was last looked at.
    looked: Clock,
    /// When the last line was printed.
    told: Clock,
    /// Tenths of the phase that the last line told.
    tenths: u8,
}

impl PhaseDisplay {
    /// The display of work that begins.
    fn new(now: Clock, has_lines: bool, has_times: bool) -> PhaseDisplay {
        let phase = PhaseProgress::default();
        PhaseDisplay { has_lines, has_times, now: phase, begun: now, looked: now, told: now, tenths: 0 }
    }

    /// Takes note of the phase at a time; `ended` with the work. Returns the lines to print: one for each further tenth, one
    /// when the last is [`LINE_INTERVAL`] ago, and with times one for each phase that is over.
    fn look(&mut self, at: Clock, phase: PhaseProgress, ended: bool) -> Vec<String> {
        self.looked = at;
        let mut lines = Vec::new();
        let is_over = ended || phase.phase != self.now.phase;
        if is_over && self.has_times && self.now.phase != Phase::Starting {
            lines.push(format!("{:<10} took {:.2} s", self.now.phase.name(), (at - self.begun).as_secs_f64()));
        }
        if phase.phase != self.now.phase {
            (self.begun, self.tenths) = (at, 0);
        }
        self.now = phase;
        let tenths = phase.percent().map_or(0, |percent| percent / 10);
        let is_due = tenths > self.tenths || at - self.told >= LINE_INTERVAL;
        if self.has_lines && !ended && is_due {
            (self.told, self.tenths) = (at, tenths);
            lines.push(format!("{:<10} {}", phase.phase.name(), self.figures()));
        }
        lines
    }

    /// How far the phase is, at which rate, and how long it will take; how long it has taken if it has no figures.
    fn figures(&self) -> String {
        let seconds = (self.looked - self.begun).as_secs_f64();
        let Some(percent) = self.now.percent() else { return format!("for {seconds:.0} s") };
        let (done, total) = (self.now.done, self.now.total);
        let rate = done as f64 / seconds.max(1e-3);
        let mut text = format!("{percent:>3} %  {} of {}", format_bytes(done), format_bytes(total));
        if done > 0 {
            let left = (total - done) as f64 / rate;
            text += &format!(", {}/s, {left:.0} s left", format_bytes(rate as u64));
        }
        text
    }
}

/// Draws the phase under way; nothing before the first.
fn draw(bar: &ProgressBar, display: &PhaseDisplay) {
    let PhaseProgress { phase, done, total } = display.now;
    let template = match (phase, total) {
        (Phase::Starting, _) => return,
        (_, 0) => "{spinner} {prefix} {msg}",
        _ => "{prefix:<10} {bar:20} {msg}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("a fixed template"));
    bar.set_length(total);
    bar.set_position(done);
    let name = match phase {
        Phase::Waiting => "waiting for another process that is indexing",
        phase => phase.name(),
    };
    bar.set_prefix(name);
    bar.set_message(display.figures());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line at each further tenth, one when ten seconds were silent, and none without a reason; no control characters.
    #[test]
    fn lines_of_progress_come_by_tenths_and_by_time() {
        let begun = Clock::now();
        let mut display = PhaseDisplay::new(begun, true, true);
        let mut look = |seconds: u64, phase, done, ended| {
            let at = begun + Duration::from_secs(seconds);
            display.look(at, PhaseProgress { phase, done, total: 1_000_000 }, ended)
        };
        assert_eq!(look(1, Phase::Indexing, 99_999, false), [""; 0]);
        assert_eq!(
            look(2, Phase::Indexing, 350_000, false),
            ["indexing    35 %  350.0 kB of 1.0 MB, 350.0 kB/s, 2 s left"]
        );
        assert_eq!(look(3, Phase::Indexing, 399_999, false), [""; 0]);
        assert_eq!(look(12, Phase::Indexing, 399_999, false).len(), 1);
        assert_eq!(look(13, Phase::Indexing, 400_000, false).len(), 1);
        assert_eq!(look(14, Phase::Writing, 0, false), ["indexing   took 13.00 s"]);
        assert_eq!(look(15, Phase::Writing, 1_000_000, false).len(), 1);
        assert_eq!(look(16, Phase::Writing, 1_000_000, true), ["writing    took 2.00 s"]);
        let mut silent = PhaseDisplay::new(begun, false, false);
        let at = begun + Duration::from_secs(60);
        let phase = PhaseProgress { phase: Phase::Writing, done: 9, total: 10 };
        assert!(silent.look(at, phase, false).is_empty() && silent.look(at, phase, true).is_empty());
        assert!(silent.figures().chars().all(|c| !c.is_control()));
    }
}
