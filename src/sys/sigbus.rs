//! Turns the SIGBUS of a mapped file that was shortened (or whose disk fails) into an ordinary error.
//!
//! Code that maps a file registers the range here. On a fault in a registered range the handler puts zero pages from
//! the fault to the end of the range, latches the range's `faulted` flag and lets the thread go on: the thread reads
//! zeros, and must check the flag before it relies on them. Faults at other addresses go to the previous SIGBUS
//! handler.
//!
//! A system call on such a page (`write` straight from a map) fails with `EFAULT` without a signal, and no
//! flag is latched: the caller compares the file's length. This module maps no files itself and unmaps nothing.
//!
//! Two locks, never held together: `INSTALLING` while the handler is installed, `SLOTS_FREE` while a range is
//! registered. The handler takes neither.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::sys::access::Access;

/// Most ranges registered at a time; further files are read without a map. Half of the maps that Linux allows a process
/// by default (`vm.max_map_count`), since zero pages split the map of a range in two.
pub(crate) const RANGES_MAX: usize = 1 << 15;

/// One registered range in the table that the handler searches (a seqlock). Its fields change only while `version` is
/// odd.
struct GuardSlot {
    /// Even while the other fields are consistent.
    version: AtomicU32,
    /// First address of the range.
    start: AtomicUsize,
    /// Address behind the range.
    end: AtomicUsize,
    /// Protection of the map, which its zero pages get.
    protection: AtomicI32,
    /// Whether the handler put zero pages into the range.
    faulted: AtomicBool,
}

/// The table of registered ranges; static, because a signal handler may not allocate.
static SLOTS: [GuardSlot; RANGES_MAX] = [const {
    GuardSlot {
        version: AtomicU32::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        protection: AtomicI32::new(0),
        faulted: AtomicBool::new(false),
    }
}; RANGES_MAX];

/// Number of slots that have been used since the process started; the handler searches these.
static SLOTS_USED: AtomicUsize = AtomicUsize::new(0);
/// Indices of used slots that are free again. The handler never takes this lock.
static SLOTS_FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// The state that the handler needs, written before it is installed.
struct GuardInstalled {
    /// The handler of SIGBUS before ours.
    previous: libc::sigaction,
    /// Size of a page, in bytes.
    page_bytes: usize,
}
/// Set once, before the handler can run.
static INSTALLED: OnceLock<GuardInstalled> = OnceLock::new();
/// Held while the handler is installed, so that one thread does it.
static INSTALLING: Mutex<()> = Mutex::new(());
/// Whether the handler is installed.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Installs the SIGBUS handler for this process; later calls only return the access that it makes safe.
///
/// # Errors
/// The system's error when sigaction(2) fails.
pub fn install() -> io::Result<Access> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_installed() {
        // SAFETY: all-zero bytes are a valid `sigaction`, and the calls read and write nothing but these two.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Known before the handler can run, because the handler reads it.
            let page_bytes = rustix::param::page_size();
            let _ = INSTALLED.set(GuardInstalled { previous, page_bytes });
        }
        set_handler()?;
        ACTIVE.store(true, SeqCst);
    }
    Ok(Access::guarded())
}

/// Makes [`on_sigbus`] the process's handler of SIGBUS.
fn set_handler() -> io::Result<()> {
    // SAFETY: `on_sigbus` has the signature of SA_SIGINFO, and does nothing that a handler may not.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        // On the alternate stack, because the previous handler (the standard library's) may be in need of it.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the SIGBUS handler is installed.
pub(crate) fn is_installed() -> bool {
    ACTIVE.load(SeqCst)
}

/// Registration of a mapped range with the SIGBUS handler, until dropped. Drop it *before* the range is unmapped, else
/// another map at the same addresses would be taken for it.
#[derive(Debug)]
pub(crate) struct Registration {
    /// Index of the slot in `SLOTS`.
    slot: usize,
}

impl Registration {
    /// Registers a mapped range; `None` when the handler is not installed or the table is full. `protection` is that
    /// of the map (`PROT_READ`, with `PROT_WRITE` for a writable one).
    pub(crate) fn new(range: &[u8], protection: libc::c_int) -> Option<Registration> {
        if !is_installed() {
            return None;
        }
        let mut free = SLOTS_FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let used = SLOTS_USED.load(SeqCst);
        let slot = match free.pop() {
            Some(slot) => slot,
            None if used < RANGES_MAX => used,
            None => return None,
        };
        let start = range.as_ptr() as usize;
        SLOTS[slot].publish_slot(start, start + range.len(), protection);
        SLOTS_USED.store(used.max(slot + 1), SeqCst);
        Some(Registration { slot })
    }

    /// Whether the handler put zero pages into the range since it was registered.
    pub(crate) fn faulted(&self) -> bool {
        SLOTS[self.slot].faulted.load(SeqCst)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut free = SLOTS_FREE.lock().unwrap_or_else(PoisonError::into_inner);
        SLOTS[self.slot].publish_slot(0, 0, 0);
        free.push(self.slot);
    }
}

impl GuardSlot {
    /// Replaces the slot's range, clears its flag and leaves `version` even. The caller holds `SLOTS_FREE`.
    fn publish_slot(&self, start: usize, end: usize, protection: i32) {
        self.version.fetch_add(1, SeqCst);
        self.start.store(start, SeqCst);
        self.end.store(end, SeqCst);
        self.protection.store(protection, SeqCst);
        self.faulted.store(false, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }

    /// End and protection of the slot's range if it contains the address, else `None`. A slot that changes meanwhile is
    /// another one: the thread that faulted borrows its map, whose registration therefore does not change.
    fn range_of(&self, address: usize) -> Option<(usize, i32)> {
        let version = self.version.load(SeqCst);
        let (start, end) = (self.start.load(SeqCst), self.end.load(SeqCst));
        let protection = self.protection.load(SeqCst);
        let stable = version.is_multiple_of(2) && version == self.version.load(SeqCst);
        (stable && start <= address && address < end).then_some((end, protection))
    }
}

/// The handler of SIGBUS. Async-signal-safe: atomics, `mmap`, `sigaction` and `raise` only; `errno` is preserved.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid `info` to a handler with SA_SIGINFO.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let Some(installed) = INSTALLED.get() else { return };
    // Codes up to zero mark signals sent by a process: they have no address.
    let from_kernel = code > 0;
    if from_kernel {
        for slot in &SLOTS[..SLOTS_USED.load(SeqCst).min(RANGES_MAX)] {
            let Some((end, protection)) = slot.range_of(address) else { continue };
            slot.faulted.store(true, SeqCst);
            if put_zero_pages(address, end, protection, installed.page_bytes) {
                return;
            }
        }
    }
    // SAFETY: `previous` is the handler that the system returned for this signal, called as its flags say.
    unsafe {
        let previous = &installed.previous;
        match previous.sa_sigaction {
            libc::SIG_IGN if !from_kernel => {}
            // A fault repeats when the handler returns, then under the default action; a sent signal is raised again.
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(libc::SIGBUS, &default, std::ptr::null_mut());
                if !from_kernel {
                    libc::raise(libc::SIGBUS);
                }
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
    if !from_kernel {
        // The standard library's handler sets the default action, so that a repeated fault ends the process. A sent
        // signal does not repeat, and the maps still need this handler.
        let _ = set_handler();
    }
}

/// Maps zero pages from the page of `address` to the `end` of its range; whether it succeeded. Pages after one beyond
/// the end of a file are beyond it, too, and one call for all keeps the number of maps and faults small.
fn put_zero_pages(address: usize, end: usize, protection: i32, page_bytes: usize) -> bool {
    let start = address & !(page_bytes - 1);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the range lies in a registered map, which its owner keeps and whose pages may hold any bytes. `errno`
    // belongs to this thread.
    unsafe {
        let errno = *libc::__errno_location();
        let pages = libc::mmap(start as *mut libc::c_void, end - start, protection, flags, -1, 0);
        *libc::__errno_location() = errno;
        pages != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::Mmap;
    use std::os::unix::process::ExitStatusExt;

    fn mapped(bytes: u64) -> (std::fs::File, Mmap) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        // SAFETY: this test wants the file to shrink, and reads it under the guard only.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        (file, map)
    }

    // Two of three ranges lose their file: these two are latched, one of them by several threads at a time.
    #[test]
    fn a_fault_reads_zeros_and_latches_its_own_range() {
        install().unwrap();
        install().unwrap();
        let maps: Vec<_> = (0..3).map(|_| mapped(1 << 20)).collect();
        let ranges: Vec<_> = maps.iter().map(|(_, map)| Registration::new(map, libc::PROT_READ).unwrap()).collect();
        maps[0].0.set_len(0).unwrap();
        maps[1].0.set_len(5000).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let map = &maps[0].1;
                scope.spawn(move || assert!(map[thread * 100_000..].iter().all(|b| *b == 0)));
            }
        });
        assert_eq!(maps[1].1[4999], 0);
        assert!(!ranges[1].faulted());
        assert!(maps[1].1.iter().chain(&maps[2].1[..]).all(|b| *b == 0));
        let faulted: Vec<bool> = ranges.iter().map(Registration::faulted).collect();
        assert_eq!(faulted, [true, true, false]);
    }

    #[test]
    fn a_freed_slot_starts_without_a_fault() {
        install().unwrap();
        for _ in 0..3 {
            let (file, map) = mapped(8192);
            let range = Registration::new(&map, libc::PROT_READ).unwrap();
            assert!(!range.faulted());
            file.set_len(0).unwrap();
            assert_eq!(map[8191], 0);
            assert!(range.faulted());
        }
    }

    // The test binary runs this one test again in a child process, where it faults outside of any range. A signal that
    // was only sent goes to the standard library's handler, which lets it pass; the guard must still work after it.
    #[test]
    fn faults_elsewhere_kill_and_sent_signals_leave_the_guard() {
        const ROLE: &str = "OUTPOUR_GUARD_TEST";
        if std::env::var_os(ROLE).is_some() {
            install().unwrap();
            // SAFETY: sends a signal to this thread only.
            unsafe { libc::raise(libc::SIGBUS) };
            let (file, map) = mapped(4096);
            file.set_len(0).unwrap();
            let range = Registration::new(&map, libc::PROT_READ).unwrap();
            assert_eq!(std::hint::black_box(map[0]), 0);
            drop(range);
            let (file, map) = mapped(4096);
            file.set_len(0).unwrap();
            eprintln!("guarded");
            std::process::exit(std::hint::black_box(map[0]) as i32);
        }
        let name = "sys::sigbus::tests::faults_elsewhere_kill_and_sent_signals_leave_the_guard";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(ROLE, "child").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("guarded"), "{output:?}");
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}
