//! The service, asked by HTTP: a real process on a free port.

mod client;
mod credentials;
mod flow;
mod group_import;
mod hostile;
mod kick_off;
mod kills;
mod pages;
mod records;
mod room;
mod rows;
mod same;
pub(crate) mod server;
mod tls;
mod vendors;
