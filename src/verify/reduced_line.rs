//! What `_elements` leaves of a line, found the slow and obvious way: members are cut out one by one, names are read by
//! serde_json. The reference implementation of the reducer that exports use, with which it shares no code but the table of
//! elements (ELEM-01 to ELEM-05).

use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::subsetted::{SUBSETTED_CODE, SUBSETTED_CODING, SUBSETTED_SYSTEM};
use std::ops::Range;

/// A member of an object, as places in its text.
struct Member {
    /// The name, escapes resolved; empty if it is no Unicode text.
    name: String,
    /// From the opening quote of the name to the end of the value.
    whole: Range<usize>,
    value: Range<usize>,
}

/// The line as an export with this selection writes it; `None` if the type is not reduced or the line is no JSON object.
pub(crate) fn reduced_line(line: &[u8], of_type: ResourceType, selection: &ElementSelection) -> Option<Vec<u8>> {
    let kept = selection.kept_names(of_type)?;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut has_meta = false;
    for member in members(line)? {
        let text = &line[member.whole.clone()];
        if member.name == "meta" {
            has_meta = true;
            let head = &line[member.whole.start..member.value.start];
            parts.push([head, &tagged_meta(&line[member.value])?].concat());
        } else if kept.contains(member.name.strip_prefix('_').unwrap_or(&member.name)) {
            parts.push(text.to_vec());
        }
    }
    if !has_meta {
        parts.push(format!("\"meta\":{{\"tag\":[{SUBSETTED_CODING}]}}").into_bytes());
    }
    Some([&b"{"[..], &parts.join(&b','), b"}"].concat())
}

/// A `meta` with the tag.
fn tagged_meta(meta: &[u8]) -> Option<Vec<u8>> {
    let only_tag = format!("{{\"tag\":[{SUBSETTED_CODING}]}}");
    Some(match meta[0] {
        b'{' => {
            let members = members(meta)?;
            let tags: Vec<&Member> = members.iter().filter(|member| member.name == "tag").collect();
            let mut meta = meta.to_vec();
            if tags.is_empty() {
                append(&mut meta, !members.is_empty(), &format!("\"tag\":[{SUBSETTED_CODING}]"));
            }
            // From the last on, so that the places of those before it hold.
            for tag in tags.into_iter().rev() {
                let tagged = tagged_tags(&meta[tag.value.clone()])?;
                meta.splice(tag.value.clone(), tagged);
            }
            meta
        }
        b'[' => {
            let elements = elements(meta)?;
            let mut meta = meta.to_vec();
            match elements.iter().find(|element| meta[element.start] == b'{') {
                Some(first) => {
                    let tagged = tagged_meta(&meta[first.clone()])?;
                    meta.splice(first.clone(), tagged);
                }
                None => append(&mut meta, !elements.is_empty(), &only_tag),
            }
            meta
        }
        _ => only_tag.into_bytes(),
    })
}

/// A `tag` with the tag among its elements.
fn tagged_tags(tags: &[u8]) -> Option<Vec<u8>> {
    let tags = match tags[0] {
        b'[' => tags.to_vec(),
        b'{' => [&b"["[..], tags, b"]"].concat(),
        _ => return Some(format!("[{SUBSETTED_CODING}]").into_bytes()),
    };
    let elements = elements(&tags)?;
    let mut tagged = tags.clone();
    if !elements.iter().any(|element| is_subsetted(&tags[element.clone()])) {
        append(&mut tagged, !elements.is_empty(), SUBSETTED_CODING);
    }
    Some(tagged)
}

/// Adds a text before the bracket that ends a container.
fn append(container: &mut Vec<u8>, has_others: bool, text: &str) {
    let end = container.pop().expect("a container ends with a bracket");
    if has_others {
        container.push(b',');
    }
    container.extend_from_slice(text.as_bytes());
    container.push(end);
}

/// Whether a Coding has the system and the code of the tag; of equal names the last one counts.
fn is_subsetted(coding: &[u8]) -> bool {
    let (mut system, mut code) = (String::new(), String::new());
    let text = |value: Range<usize>| serde_json::from_slice(&coding[value]).unwrap_or_default();
    for member in members(coding).unwrap_or_default() {
        match &*member.name {
            "system" => system = text(member.value),
            "code" => code = text(member.value),
            _ => {}
        }
    }
    system == SUBSETTED_SYSTEM && code == SUBSETTED_CODE
}

/// The members of an object; `None` if the text does not begin with one.
fn members(object: &[u8]) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    let mut at = blank_end(object, 0);
    if object.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        at = blank_end(object, at + 1);
        if object.get(at) == Some(&b'}') && members.is_empty() {
            return Some(members);
        }
        let name = at..value_end(object, at)?;
        let colon = blank_end(object, name.end);
        if object.get(colon) != Some(&b':') {
            return None;
        }
        let start = blank_end(object, colon + 1);
        let value = start..value_end(object, start)?;
        at = blank_end(object, value.end);
        let whole = name.start..value.end;
        members.push(Member { name: serde_json::from_slice(&object[name]).unwrap_or_default(), whole, value });
        match object.get(at)? {
            b',' => {}
            b'}' => return Some(members),
            _ => return None,
        }
    }
}

/// The elements of an array; `None` if the text does not begin with one.
fn elements(array: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut elements = Vec::new();
    let mut at = blank_end(array, 0);
    if array.get(at) != Some(&b'[') {
        return None;
    }
    loop {
        at = blank_end(array, at + 1);
        if array.get(at) == Some(&b']') && elements.is_empty() {
            return Some(elements);
        }
        let element = at..value_end(array, at)?;
        at = blank_end(array, element.end);
        elements.push(element);
        match array.get(at)? {
            b',' => {}
            b']' => return Some(elements),
            _ => return None,
        }
    }
}

/// The next place that is no white space.
fn blank_end(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the value that begins at a place; `None` if it does not end.
fn value_end(text: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut at) = (0usize, false, start);
    loop {
        let byte = *text.get(at)?;
        at += 1;
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => continue,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        let next = text.get(at);
        let ends = match byte {
            b'"' | b'}' | b']' => true,
            _ => matches!(next, Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')),
        };
        if depth == 0 && !in_string && ends {
            return Some(at);
        }
    }
}
