//! URLs of attachments in rows, made absolute on their way to a file (ATTACH-02).
//!
//! A row is not parsed: its strings are passed over one by one, and everything but the text of a rewritten URL is copied as it
//! stands (ATTACH-04).

#[cfg(test)]
mod tests;
pub(crate) mod url_rewriter;
