//! `outpour serve`: the engine's HTTP door. Routes, kick-off, status, files, Groups, the CapabilityStatement.
//!
//! Handlers read requests and render answers; what is decided about jobs is decided in [`crate::job`], and the work is
//! done on threads of the engine's own, never on those of the async runtime.

pub mod connection;
pub mod files;
pub mod outcome;
