//! What a line becomes whose attachment URLs are made absolute, found the slow and obvious way: the line is walked as a whole,
//! with the names of all open containers, and strings are read by serde_json. The reference implementation of the rewriter
//! that exports use (ATTACH-02, ATTACH-04).

use crate::fhir::attachment_url::named_binary;
use crate::fhir::reference::Reference;

/// Names of elements that have a `url` which is none of an attachment.
const KEEPERS: [&str; 4] = ["extension", "modifierExtension", "request", "link"];

/// An open container of the walk.
struct OpenContainer {
    is_object: bool,
    /// Name of the member that it is the value of; an array gives its name to the objects in it.
    name: Option<String>,
}

/// The line with each attachment URL replaced for which `new_url` gives a text; what stands between quotes is given and
/// taken.
pub(crate) fn rewritten_line(line: &[u8], mut new_url: impl FnMut(Reference<'_>) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut open: Vec<OpenContainer> = Vec::new();
    let mut name: Option<String> = None;
    let mut at = 0;
    while at < line.len() {
        let start = at;
        at += 1;
        match line[start] {
            b'{' | b'[' => {
                let in_array = open.last().filter(|outer| !outer.is_object).and_then(|outer| outer.name.clone());
                let is_object = line[start] == b'{';
                let name = name.take().or(if is_object { in_array } else { None });
                open.push(OpenContainer { is_object, name });
            }
            b'}' | b']' => {
                open.pop();
                name = None;
            }
            b',' => name = None,
            b'"' => {
                while line.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if line[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(line.len());
                let text: Option<String> = serde_json::from_slice(&line[start..at]).ok();
                let colon = line[at..].iter().position(|byte| !byte.is_ascii_whitespace());
                let is_name = colon.is_some_and(|colon| line[at + colon] == b':');
                let is_kept = open.last().and_then(|of| of.name.as_deref()).is_some_and(|of| KEEPERS.contains(&of));
                let is_url = !is_name && name.as_deref() == Some("url") && !is_kept;
                let new = text.as_deref().filter(|_| is_url).and_then(named_binary).and_then(&mut new_url);
                name = text.filter(|_| is_name);
                if let Some(new) = new {
                    out.extend_from_slice(format!("\"{new}\"").as_bytes());
                    continue;
                }
            }
            _ => {}
        }
        out.extend_from_slice(&line[start..at]);
    }
    out
}

/// Whether a line has a URL of an attachment.
pub(crate) fn has_attachments(line: &[u8]) -> bool {
    let mut has_any = false;
    rewritten_line(line, |_| {
        has_any = true;
        None
    });
    has_any
}

/// `meta.versionId` of a row, as far as it stands in the beginning of the row that is given; `None` if it does not.
pub(crate) fn stated_version(head: &[u8]) -> Option<String> {
    let (mut path, mut name, mut at) = (Vec::new(), String::new(), 0);
    let mut version = None;
    while at < head.len() {
        let start = at;
        at += 1;
        match head[start] {
            b'{' | b'[' => path.push(std::mem::take(&mut name)),
            b'}' | b']' => drop(path.pop()),
            b',' => name.clear(),
            b'"' => {
                while *head.get(at)? != b'"' {
                    at += if head[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                let text: String = serde_json::from_slice(&head[start..at]).unwrap_or_default();
                match head[at..].iter().find(|byte| !byte.is_ascii_whitespace()) {
                    Some(b':') => name = text,
                    _ if path == ["", "meta"] && name == "versionId" => version = Some(text),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    version.filter(|text| !text.is_empty())
}
