//! SIGINT and SIGTERM set a flag instead of ending the process, so that work ends at its next piece and stays
//! resumable.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether SIGINT or SIGTERM has arrived since [`interrupts`] was called.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The handler of SIGINT and SIGTERM: sets the flag and nothing else.
extern "C" fn record_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Relaxed);
}

/// Installs the handler of SIGINT and SIGTERM and returns the flag that it sets. A second signal of the same kind has
/// its default action and ends the process.
pub(crate) fn interrupts() -> &'static AtomicBool {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe; the action is fully initialised.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = record_signal as *const () as usize;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    &INTERRUPTED
}
