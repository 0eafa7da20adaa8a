//! The writer of a version of a Group: the second line of its file, written together with the Group.
//!
//! Exports never read that line. A Group without one was written by a version of outpour that recorded no writer.

use serde::{Deserialize, Serialize};

/// The client that wrote a version of a Group, and its scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GroupWriter {
    /// Name of the client.
    pub client: String,
    /// Whether it was bound to Groups when it wrote: then the Group reaches no more patients than the client may
    /// (GROUP-03).
    pub bound_to_groups: bool,
    /// Whether an earlier version under the id was written by an unbound client, or came from the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows_unbound: bool,
}

/// The JSON document of the writer's line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WriterLine {
    writer: GroupWriter,
}

/// Longest line of a writer, in bytes: a client's name has at most [`crate::limits::NAME_BYTES_MAX`].
pub(crate) const WRITER_LINE_BYTES_MAX: usize = 4096;

impl GroupWriter {
    /// The writer's line, with its newline.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(&WriterLine { writer: self.clone() }).expect("plain data");
        line.push(b'\n');
        line
    }

    /// Parses the bytes after the Group's line; `None` if there are none.
    ///
    /// # Errors
    /// What is wrong, if they are not exactly what [`GroupWriter::to_line`] writes.
    pub(crate) fn parse(rest: &[u8]) -> Result<Option<GroupWriter>, String> {
        if rest.is_empty() {
            return Ok(None);
        }
        let line = rest.strip_suffix(b"\n").ok_or("the line of its writer is cut off")?;
        let WriterLine { writer } =
            serde_json::from_slice(line).map_err(|error| format!("the line of its writer: {error}"))?;
        // A JSON parser accepts other forms, too: only the bytes that are written count.
        if writer.to_line() != rest {
            return Err("the line of its writer is not as it was written".to_string());
        }
        Ok(Some(writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read; nothing else is, so that no damage makes a bound writer an unbound one.
    #[test]
    fn only_what_was_written_is_read() {
        for (bound_to_groups, follows_unbound) in [(false, false), (true, false), (true, true)] {
            let writer = GroupWriter { client: "a".into(), bound_to_groups, follows_unbound };
            let line = writer.to_line();
            assert_eq!(GroupWriter::parse(&line), Ok(Some(writer)));
            for offset in 0..line.len() {
                assert!(offset == 0 || GroupWriter::parse(&line[..offset]).is_err());
            }
        }
        assert_eq!(GroupWriter::parse(b""), Ok(None));
        for wrong in [
            r#"{"writer":["a",false]}"#,
            r#"["a"]"#,
            r#"[["a",false]]"#,
            r#"{"writer":{"client":"a","boundToGroups":false,"client":"b"}}"#,
            r#"{"writer":{"client":"a"}}"#,
            r#"{"writer":{"boundToGroups":false,"client":"a"}}"#,
            r#"{"writer": {"client":"a","boundToGroups":false}}"#,
            r#"{"writer":{"client":"a","boundToGroups":false}} "#,
            "{}",
            "",
        ] {
            assert!(GroupWriter::parse(format!("{wrong}\n").as_bytes()).is_err(), "{wrong}");
        }
    }
}
