//! How store files are read: by `pread`, mapped, or mapped under the fault guard.

/// How store files are read: a choice whose constructors carry the safety argument, so that it can travel as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub(crate) AccessKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessKind {
    Called,
    MappedUnderGuard,
    MappedOnTrust,
}

impl Access {
    /// By `pread`: safe whatever others do to the files, and the library's default.
    pub const fn pread() -> Access {
        Access(AccessKind::Called)
    }

    /// Through maps under the SIGBUS handler, which alone hands this out ([`install`](crate::sys::sigbus::install)).
    pub(crate) const fn guarded() -> Access {
        Access(AccessKind::MappedUnderGuard)
    }

    /// Through maps, whether or not the SIGBUS handler is installed.
    ///
    /// # Safety
    /// The caller promises that nobody shortens a file while a [`Source`] of it lives (its readers would die of
    /// SIGBUS), nor writes into the part that it had when it was opened.
    pub const unsafe fn mapped() -> Access {
        Access(AccessKind::MappedOnTrust)
    }

    /// Whether files are mapped.
    pub fn is_mapped(self) -> bool {
        self.0 != AccessKind::Called
    }
}
