//! The progress bar of long work, drawn on a terminal only, and the cancellation of the work by Ctrl-C.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::Thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::args::run::ProgressArg;
use crate::progress::Progress;
use crate::sys::interrupt;

/// Runs `work` with a progress that a second thread draws, and that it cancels after an interrupt.
pub(crate) fn watched<T: Send>(when: ProgressArg, work: impl FnOnce(&Progress) -> T + Send) -> T {
    let progress = Progress::default();
    let done = AtomicBool::new(false);
    let interrupted = interrupt::interrupts();
    let shown = when == ProgressArg::Auto && std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let bar = shown.then(ProgressBar::no_length);
            while !done.load(Relaxed) {
                if interrupted.load(Relaxed) {
                    progress.cancel.store(true, Relaxed);
                }
                if let Some(bar) = &bar {
                    show(bar, &progress);
                }
                std::thread::park_timeout(Duration::from_millis(100));
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

/// Draws the counters of the step under way: writing, merging, waiting or indexing; nothing before the first.
fn show(bar: &ProgressBar, progress: &Progress) {
    let (scan, total) = (progress.scan_done.load(Relaxed), progress.scan_total.load(Relaxed));
    let (written, to_write) = (progress.write_done.load(Relaxed), progress.write_total.load(Relaxed));
    let line = "{msg:<10} {bar:30} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}, {eta} left";
    let (message, done, of) = match () {
        () if to_write > 0 => ("writing", written, to_write),
        () if progress.merging.load(Relaxed) => ("merging", total, total),
        () if progress.waiting.load(Relaxed) => ("waiting for another process that is indexing", 0, 0),
        () if total > 0 => ("indexing", scan, total),
        () => return,
    };
    if of == 0 {
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a fixed template"));
    } else {
        bar.set_style(ProgressStyle::with_template(line).expect("a fixed template"));
        bar.set_length(of);
        bar.set_position(done.min(of));
    }
    bar.set_message(message);
}
