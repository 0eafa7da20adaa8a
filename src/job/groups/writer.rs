//! Who wrote a version of a Group: the second line of its file, in one piece with the Group, which it follows.
//!
//! Exports never see that line. A version without one was kept by a version of outpour that recorded no writer.

use serde::{Deserialize, Serialize};

/// The client that wrote a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupWriter {
    /// Its name.
    pub client: String,
    /// Whether it was bound to Groups when it wrote: then the Group reaches no more than it may (GROUP-03).
    pub bound_to_groups: bool,
}

/// The line, as a document of its own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    writer: GroupWriter,
}

/// Longest line of a writer, in bytes: a client's name has at most [`crate::limits::NAME_BYTES_MAX`].
pub const WRITER_LINE_BYTES_MAX: usize = 4096;

impl GroupWriter {
    /// The line, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(&Line { writer: self.clone() }).expect("plain data");
        line.push(b'\n');
        line
    }

    /// Reads what follows the Group's line: nothing, or a writer's.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(rest: &[u8]) -> Result<Option<GroupWriter>, String> {
        if rest.is_empty() {
            return Ok(None);
        }
        let line = rest.strip_suffix(b"\n").ok_or("the line of its writer is cut off")?;
        let line: Line = serde_json::from_slice(line).map_err(|error| format!("the line of its writer: {error}"))?;
        Ok(Some(line.writer))
    }
}
