//! Tests of the service over HTTP: each starts `outpour serve` as a process on a free port.

mod bodies;
mod client;
mod clock;
mod credentials;
mod floods;
mod formats;
mod full_disk;
mod group_import;
mod group_values;
mod host_header;
mod hostile;
mod job_lifecycle;
mod kick_off;
mod kills;
mod log_form;
mod overviews;
mod pages;
mod paths;
mod polls;
mod queries;
mod records;
mod same_as_command_line;
pub(crate) mod server;
mod spec_rows;
mod tls;
mod vanished;
mod vendors;
