//! The HTTP service of `outpour serve`: routes, kick-off, status, files, Groups, the CapabilityStatement.
//!
//! Handlers read requests and render answers. Jobs are run by [`crate::job`] on threads of its own, never on those of
//! the async runtime.

pub(crate) mod admin;
pub(crate) mod admission;
pub(crate) mod attachments;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod blocking;
pub(crate) mod capability;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod file_watch;
pub(crate) mod files;
pub(crate) mod group_scope;
pub(crate) mod groups;
pub(crate) mod handlers;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod http;
pub(crate) mod ids;
pub(crate) mod kick_off;
pub(crate) mod message_text;
pub(crate) mod middleware;
pub(crate) mod mount;
pub(crate) mod operation_body;
pub(crate) mod overview;
pub(crate) mod parameters;
pub(crate) mod proxy;
pub(crate) mod rate_limit;
pub(crate) mod request_body;
pub(crate) mod request_path;
pub(crate) mod router;
pub(crate) mod routes;
pub(crate) mod serve;
pub(crate) mod shares;
pub(crate) mod smart;
pub(crate) mod state;
pub(crate) mod tls;
pub(crate) mod unknown_tenants;
