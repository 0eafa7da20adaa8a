//! SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process, so that work ends at its next piece and stays
//! resumable.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a signal has arrived since [`interrupts`] or [`interrupts_and_hangups`] was called.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The handler of the signals: sets the flag and nothing else.
extern "C" fn record_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Relaxed);
}

/// Installs the handler of SIGINT and SIGTERM and returns the flag that it sets. A second signal of the same kind has
/// its default action and ends the process.
pub(crate) fn interrupts() -> &'static AtomicBool {
    [libc::SIGINT, libc::SIGTERM].into_iter().for_each(record);
    &INTERRUPTED
}

/// As [`interrupts`], also for SIGHUP, which the terminal sends when it is closed; unless SIGHUP is ignored, as nohup(1) has it.
pub(crate) fn interrupts_and_hangups() -> &'static AtomicBool {
    if !is_ignored(libc::SIGHUP) {
        record(libc::SIGHUP);
    }
    interrupts()
}

/// Asks a child process to end: sends it SIGTERM. One that has ended is left alone, and its number is not yet another's, because
/// nobody has waited for it: the handle is borrowed.
pub(crate) fn terminate(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        // SAFETY: the call has no pointers; the process is a child that is not waited for, so the number is its own.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    }
}

/// Installs the handler of a signal.
fn record(signal: libc::c_int) {
    // SAFETY: the handler only stores to an atomic, which is async-signal-safe; the action is fully initialised.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = record_signal as *const () as usize;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Whether a signal is ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: without a new action the call only writes the old one, for which there is room.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
