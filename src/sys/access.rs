//! Selects how the bytes of a store file are read: by `pread`, through a map under the SIGBUS guard, or through a map
//! that the caller vouches for. Reads nothing itself.

/// Access mode of a store file: `pread`, a guarded map, or a map that the caller vouches for. Only the constructors
/// make one, and each documents the condition of its safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub(crate) AccessKind);

/// The three access modes behind [`Access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessKind {
    /// `pread`.
    Called,
    /// A map registered with the SIGBUS handler; `pread` when the handler's table is full.
    MappedUnderGuard,
    /// A map, registered with the SIGBUS handler only if that is installed.
    MappedOnTrust,
}

impl Access {
    /// Access by `pread`: safe whatever other processes do to the files. The library's default.
    pub const fn pread() -> Access {
        Access(AccessKind::Called)
    }

    /// Access through maps under the SIGBUS handler. Only [`install`](crate::sys::sigbus::install) hands it out.
    pub(crate) const fn guarded() -> Access {
        Access(AccessKind::MappedUnderGuard)
    }

    /// Access through maps, whether or not the SIGBUS handler is installed.
    ///
    /// # Safety
    /// The caller promises that no process shortens a file while a `StoreFile` of it lives (without the handler its
    /// readers would die of SIGBUS), or writes to the bytes that the file had when it was opened.
    pub const unsafe fn mapped() -> Access {
        Access(AccessKind::MappedOnTrust)
    }

    /// Whether files are mapped in this mode, if the guard has room for them.
    pub fn is_mapped(self) -> bool {
        self.0 != AccessKind::Called
    }
}
