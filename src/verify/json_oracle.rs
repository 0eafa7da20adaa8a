//! Reference reader of exported lines: simd-json, which shares no code with the scanner that accepted them.
//!
//! simd-json has documented limits (numbers beyond `f64` and 64 bits, a depth of 1024, lone surrogates). A line that it
//! refuses is read again by serde_json, without bounds on depth and digits; only a line that both refuse counts as
//! invalid JSON.

use simd_json::{Buffers, Node};

use crate::verify::json_tree::{Json, JsonTree, WantedNames, without_lone_surrogates};

/// Name of a resource as its line states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedResource {
    /// Value of `resourceType`, if it is a string.
    pub resource_type: Option<String>,
    /// Value of `id`, if it is a string.
    pub id: Option<String>,
    /// Whether `resourceType` or `id` occurs twice in the outermost object.
    pub duplicate_key: bool,
}

/// The two readers, with reused buffers.
#[derive(Default)]
pub(crate) struct JsonOracle {
    buffers: Buffers,
    scratch: Vec<u8>,
    /// Lines that simd-json refused and serde_json had to decide.
    pub fallback_lines: u64,
}

impl JsonOracle {
    /// Reads a line; `None` if it is no JSON object.
    pub(crate) fn read(&mut self, line: &[u8]) -> Option<NamedResource> {
        self.scratch.clear();
        self.scratch.extend_from_slice(line);
        if let Ok(tape) = simd_json::to_tape_with_buffers(&mut self.scratch, &mut self.buffers) {
            return outermost_names(&tape.0);
        }
        self.fallback_lines += 1;
        let text = without_lone_surrogates(str::from_utf8(line).ok()?);
        let tree = JsonTree::read(&text, &WantedNames::of(&["resourceType", "id"]))?;
        let of = |key| match tree.leaves(key).next() {
            Some(Json::Text(text)) => Some(text.clone()),
            _ => None,
        };
        Some(NamedResource { resource_type: of("resourceType"), id: of("id"), duplicate_key: tree.duplicate_key })
    }
}

/// `resourceType` and `id` of the outermost object; `None` if the document is no object.
fn outermost_names(tape: &[Node<'_>]) -> Option<NamedResource> {
    let Some(Node::Object { len, .. }) = tape.first() else { return None };
    let mut found = NamedResource::default();
    let (mut seen_type, mut seen_id) = (0, 0);
    let mut i = 1;
    for _ in 0..*len {
        let (key, value) = (tape.get(i)?, tape.get(i + 1)?);
        let text = if let Node::String(text) = value { Some(text.to_string()) } else { None };
        match key {
            Node::String("resourceType") => (found.resource_type, seen_type) = (text, seen_type + 1),
            Node::String("id") => (found.id, seen_id) = (text, seen_id + 1),
            _ => {}
        }
        i += 2 + match value {
            Node::Object { count, .. } | Node::Array { count, .. } => *count,
            _ => 0,
        };
    }
    found.duplicate_key = seen_type > 1 || seen_id > 1;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(resource_type: &str, id: &str) -> NamedResource {
        NamedResource { resource_type: Some(resource_type.into()), id: Some(id.into()), duplicate_key: false }
    }

    /// Only the outermost keys count, whatever is nested between them.
    #[test]
    fn both_readers_find_the_outermost_keys() {
        let mut oracle = JsonOracle::default();
        let line = br#"{"x":{"id":"n","y":[1,{"id":"m"}]},"resourceType":"Patient","z":[[],{}],"id":"a\u0062"}"#;
        assert_eq!(oracle.read(line), Some(named("Patient", "ab")));
        assert_eq!(oracle.fallback_lines, 0);
        // A number beyond f64, a lone surrogate, a depth beyond simd-json's: legal all the same.
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        for value in ["1e400", "123456789012345678901234567890", r#""\ud800""#, &deep] {
            let line = format!(r#"{{"resourceType":"Patient","v":{value},"id":"a"}}"#);
            assert_eq!(oracle.read(line.as_bytes()), Some(named("Patient", "a")), "{}", &line[..60.min(line.len())]);
        }
        assert!(oracle.fallback_lines >= 2);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let mut oracle = JsonOracle::default();
        let wrong: [&[u8]; 8] =
            [b"[]", b"{", b"{} {}", b"1", b"{\"a\":01}", b"{\"a\":\"\x01\"}", b"{\"a\":\"\xff\"}", b"\xef\xbb\xbf{}"];
        for line in wrong {
            assert_eq!(oracle.read(line), None, "{}", String::from_utf8_lossy(line));
        }
        assert!(oracle.read(br#"{"id":"a","id":"a"}"#).unwrap().duplicate_key);
    }
}
