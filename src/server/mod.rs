//! `outpour serve`: the engine's HTTP door. Routes, kick-off, status, files, Groups, the CapabilityStatement.
//!
//! Handlers read requests and render answers; what is decided about jobs is decided in [`crate::job`], and the work is
//! done on threads of the engine's own, never on those of the async runtime.

pub mod app;
pub mod auth;
pub mod capability;
pub mod config;
pub mod connection;
pub mod dialect;
pub mod export;
pub mod files;
pub mod forwarded;
pub mod gate;
pub mod group_scope;
pub mod groups;
pub mod hosts;
pub mod http;
pub mod kickoff;
pub mod mount;
pub mod outcome;
pub mod parameters;
pub mod polls;
pub mod reload;
pub mod routes;
mod serve;
pub mod status;
pub mod tls;
pub mod words;

pub use serve::{Served, new_id, random, serve};
