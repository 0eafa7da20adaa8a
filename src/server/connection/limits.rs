//! Limits of connections, with their defaults.

use std::time::Duration;

/// Limits of a server's connections: the first for all of them, the others for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// Most connections open at a time; further ones wait in the kernel's queue until one is closed. Each takes one
    /// file descriptor, and two more during a download.
    pub connections_max: usize,
    /// Most bytes of a request line with its headers; more are answered 431.
    pub head_bytes_max: usize,
    /// Most headers of a request; more are answered 431.
    pub headers_max: usize,
    /// Longest time from the first byte of a request (for the first request: from the connection) to the end of its
    /// headers; then 408.
    pub head_wait: Duration,
    /// Longest silence between two requests; then the connection is closed.
    pub idle_wait: Duration,
    /// Longest pause in the body of a request; then reading it fails.
    pub body_wait: Duration,
    /// Longest time for which the kernel takes no bytes of an answer; then the connection is cut. The kernel takes
    /// bytes when about a third of its send buffer (up to some MiB) is free, so that 60 s demand about 25 kB a
    /// second.
    pub write_wait: Duration,
    /// Time that answers in flight have to end when the server stops.
    pub drain_wait: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            connections_max: 2048,
            head_bytes_max: 64 << 10,
            headers_max: 100,
            head_wait: Duration::from_secs(15),
            idle_wait: Duration::from_secs(75),
            body_wait: Duration::from_secs(30),
            write_wait: Duration::from_secs(60),
            drain_wait: Duration::from_secs(30),
        }
    }
}
