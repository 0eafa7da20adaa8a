//! `outpour serve`: the engine's HTTP door. Routes, kick-off, status, files, Groups, the CapabilityStatement.
//!
//! Handlers read requests and render answers; what is decided about jobs is decided in [`crate::job`], and the work is
//! done on threads of the engine's own, never on those of the async runtime.

pub mod auth;
pub mod capability;
pub mod config;
pub mod connection;
pub mod dialect;
pub mod error;
pub mod file_watch;
pub mod files;
pub mod group_scope;
pub mod groups;
pub mod handlers;
pub mod hosts;
pub mod http;
pub mod ids;
pub mod kick_off;
pub mod message_text;
pub mod middleware;
pub mod mount;
pub mod parameters;
pub mod proxy;
pub mod rate_limit;
pub mod router;
pub mod routes;
pub mod serve;
pub mod state;
pub mod tls;
