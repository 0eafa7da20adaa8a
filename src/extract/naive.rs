//! The slow, obvious twin of [`Extractor`](crate::extract::extractor::Extractor): it defines which lines are faulty and what the others say.
//!
//! serde_json decides what is JSON; then the whole document is read into a flat list of values and the facts are looked
//! up in it, path by path. No kernels, no pieces, no pruning, no recursion. For tests and `verify`, never for an export.

use crate::extract::facts::Content;
use crate::extract::fault::FaultKind;
use crate::fhir::compartment;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::limits::{REFERENCE_BYTES_MAX, TOMBSTONES_PER_LINE_MAX};

/// What a line says, by value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainFacts {
    /// Kind of line.
    pub content: Content,
    /// `resourceType`.
    pub resource_type: ResourceType,
    /// `id`, if it is legal.
    pub id: Option<Id>,
    /// `meta.lastUpdated`: `None` when missing, `Some(None)` when it is no instant.
    pub last_updated: Option<Option<Instant>>,
    /// `meta.versionId`, empty when there is none.
    pub version_id: String,
    /// As `Facts::references`.
    pub references: Vec<String>,
    /// As `Facts::tombstones`.
    pub tombstones: Vec<String>,
}

/// Why a line is faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultFound {
    /// It is no JSON object in UTF-8.
    Syntax,
    /// It is one, but not what this project takes.
    Kind(FaultKind),
}

/// Whether a fault of this kind says that the line is no JSON object.
pub fn is_syntax(kind: FaultKind) -> bool {
    use FaultKind::*;
    matches!(kind, Utf8 | Bom | Truncated | NotObject | Trailing | Grammar | Scalar | Escape | Control)
}

/// Reads a line as [`Extractor::extract`](crate::extract::extractor::Extractor::extract) does.
///
/// # Errors
/// Why it is faulty.
pub fn extract(line: &[u8]) -> Result<PlainFacts, FaultFound> {
    let text = str::from_utf8(line).map_err(|_| FaultFound::Syntax)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| FaultFound::Syntax)?;
    let document = ParsedLine::read(text);
    let JsonValue::Map(_) = document.values[0] else { return Err(FaultFound::Syntax) };
    let wrong = |kind| Err(FaultFound::Kind(kind));

    // The type of a twice given resourceType does not matter: that key decides for every type.
    let types = document.child_at(&[0], &["resourceType"]);
    let resource_type = match types.last().map(|start_offset| &document.values[*start_offset]) {
        Some(JsonValue::Text(name)) => match ResourceType::parse(name) {
            Some(known) => known,
            None if types.len() > 1 => return wrong(FaultKind::DuplicateKey),
            None => return wrong(FaultKind::UnknownType),
        },
        _ if types.len() > 1 => return wrong(FaultKind::DuplicateKey),
        _ => return wrong(FaultKind::NoType),
    };

    let mut deciding: Vec<String> =
        ["resourceType", "id", "meta.lastUpdated", "meta.versionId"].map(String::from).to_vec();
    let paths: Vec<&str> = (0..compartment::PATHS.len())
        .filter(|offset| compartment::paths_of(resource_type) >> offset & 1 != 0)
        .map(|position| compartment::PATHS[position])
        .collect();
    deciding.extend(paths.iter().map(|path| format!("{path}.reference")));
    if resource_type == ResourceType::BUNDLE {
        deciding.extend(["type", "entry.request.method", "entry.request.url", "entry.resource"].map(String::from));
    }
    if deciding.iter().any(|path| document.has_twice(path)) {
        return wrong(FaultKind::DuplicateKey);
    }

    // An array of several metas that say different things is as if the key stood twice.
    let once = |path: &[&str]| -> Result<Option<&JsonValue>, FaultFound> {
        let mut said = document.child_at(&[0], path).into_iter().map(|k| &document.values[k]);
        let first = said.find(|value| !matches!(value, JsonValue::Null));
        match said.any(|value| !matches!(value, JsonValue::Null)) {
            true => Err(FaultFound::Kind(FaultKind::DuplicateKey)),
            false => Ok(first),
        }
    };
    let updated = once(&["meta", "lastUpdated"])?;
    let last_updated = updated.map(|value| value.text_of().filter(|text| is_looked_at(text)).and_then(Instant::parse));
    let version = once(&["meta", "versionId"])?.and_then(JsonValue::text_of).filter(|text| is_looked_at(text));
    let id_text = document.child_at(&[0], &["id"]).first().and_then(|index| document.values[*index].text_of());
    let id = id_text.and_then(|text| Id::parse(text.as_bytes()));
    let mut facts = PlainFacts {
        content: Content::Resource,
        resource_type,
        id,
        last_updated,
        version_id: version.unwrap_or_default().to_string(),
        references: Vec::new(),
        tombstones: Vec::new(),
    };
    if resource_type == ResourceType::BUNDLE {
        facts.content = Content::Tombstones;
        facts.tombstones = document.deletions().map_err(FaultFound::Kind)?;
        return Ok(facts);
    }
    match (id_text, id) {
        (None, _) => return wrong(FaultKind::NoId),
        (_, None) => return wrong(FaultKind::IllegalId),
        _ => {}
    }
    if resource_type != ResourceType::GROUP {
        let mut found: Vec<usize> = Vec::new();
        for path in paths {
            let mut names: Vec<&str> = path.split('.').collect();
            names.push("reference");
            found.extend(document.child_at(&[0], &names));
        }
        found.sort(); // values are numbered in the order of the text
        let texts = found.into_iter().filter_map(|i| document.values[i].text_of());
        facts.references = texts.filter(|text| is_looked_at(text)).map(String::from).collect();
    }
    Ok(facts)
}

fn is_looked_at(text: &str) -> bool {
    text.len() <= REFERENCE_BYTES_MAX
}

#[derive(Debug)]
enum JsonValue {
    Null,
    Other,
    Text(String),
    List(Vec<usize>),
    Map(Vec<(String, usize)>),
}

impl JsonValue {
    fn text_of(&self) -> Option<&str> {
        if let JsonValue::Text(text) = self { Some(text) } else { None }
    }
}

/// All values of a document in the order of their first bytes; containers name their parts by number.
struct ParsedLine {
    values: Vec<JsonValue>,
}

impl ParsedLine {
    /// Reads a text that is known to be JSON, so every byte is where it may be.
    fn read(text: &str) -> ParsedLine {
        let bytes = text.as_bytes();
        let mut values: Vec<JsonValue> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut key: Option<String> = None;
        let mut i = 0;
        while i < bytes.len() {
            let start = i;
            i += 1;
            let value = match bytes[start] {
                b'{' => JsonValue::Map(Vec::new()),
                b'[' => JsonValue::List(Vec::new()),
                b'}' | b']' => {
                    open.pop();
                    continue;
                }
                b'"' => {
                    while bytes[i] != b'"' {
                        i += if bytes[i] == b'\\' { 2 } else { 1 };
                    }
                    i += 1;
                    let string = decode(&text[start + 1..i - 1]);
                    let in_map = open.last().is_some_and(|map| matches!(values[*map], JsonValue::Map(_)));
                    if in_map && key.is_none() {
                        key = Some(string);
                        continue;
                    }
                    JsonValue::Text(string)
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => continue,
                first => {
                    while i < bytes.len() && !b",:]} \t\r\n".contains(&bytes[i]) {
                        i += 1;
                    }
                    if first == b'n' { JsonValue::Null } else { JsonValue::Other }
                }
            };
            let number = values.len();
            match open.last().map(|parent| &mut values[*parent]) {
                Some(JsonValue::Map(entries)) => entries.push((key.take().unwrap_or_default(), number)),
                Some(JsonValue::List(items)) => items.push(number),
                _ => {}
            }
            if matches!(value, JsonValue::Map(_) | JsonValue::List(_)) {
                open.push(number);
            }
            values.push(value);
        }
        ParsedLine { values }
    }

    /// The objects among these values and, to any depth, in arrays of them (reading 8), in order.
    fn parse_members<'a>(&'a self, from: &[usize]) -> Vec<&'a Vec<(String, usize)>> {
        let mut left: Vec<usize> = from.iter().rev().copied().collect();
        let mut maps = Vec::new();
        while let Some(i) = left.pop() {
            match &self.values[i] {
                JsonValue::Map(entries) => maps.push(entries),
                JsonValue::List(items) => left.extend(items.iter().rev()),
                _ => {}
            }
        }
        maps
    }

    /// The values at the end of a path of names.
    fn child_at(&self, from: &[usize], path: &[&str]) -> Vec<usize> {
        path.iter().fold(from.to_vec(), |here, name| {
            let entries = self.parse_members(&here).into_iter().flatten();
            entries.filter(|(key, _)| key == name).map(|(_, value)| *value).collect()
        })
    }

    /// Whether any object on the path has the path's next name twice.
    fn has_twice(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('.').collect();
        (0..names.len()).any(|depth| {
            let here = self.child_at(&[0], &names[..depth]);
            let count = |map: &&Vec<(String, usize)>| map.iter().filter(|(key, _)| key == names[depth]).count();
            self.parse_members(&here).iter().any(|map| count(map) > 1)
        })
    }

    /// The urls of a Bundle of DELETE entries (reading 9).
    fn deletions(&self) -> Result<Vec<String>, FaultKind> {
        let mut urls = Vec::new();
        let entries = self.child_at(&[0], &["entry"]);
        let mut again = false;
        let mut wrong = None;
        for (index, entry) in self.parse_members(&entries).into_iter().enumerate() {
            let part = |name: &str| -> Vec<usize> {
                entry.iter().filter(|(key, _)| key == name).map(|(_, value)| *value).collect()
            };
            let texts = |name: &str| -> Vec<&str> {
                let values = self.child_at(&part("request"), &[name]);
                values.into_iter().filter_map(|value| self.values[value].text_of()).collect()
            };
            let (methods, mentioned) = (texts("method"), texts("url"));
            again |= methods.len() > 1 || mentioned.len() > 1;
            let url = mentioned.first().filter(|url| is_looked_at(url));
            let one = match url {
                _ if index >= TOMBSTONES_PER_LINE_MAX => Err(FaultKind::BundleTooLong),
                Some(url) if methods.first() == Some(&"DELETE") && part("resource").is_empty() => {
                    match Reference::parse(url) {
                        Some(reference) if reference.version.is_none() => Ok(url.to_string()),
                        _ => Err(FaultKind::BundleUrl),
                    }
                }
                _ => Err(FaultKind::Bundle),
            };
            match one {
                Ok(url) => urls.push(url),
                Err(kind) => wrong = wrong.or(Some(kind)),
            }
        }
        let kinds = self.child_at(&[0], &["type"]);
        let is_list = kinds.iter().any(|i| matches!(self.values[*i].text_of(), Some("transaction" | "batch")));
        match wrong {
            _ if again => Err(FaultKind::DuplicateKey),
            Some(kind) => Err(kind),
            None if !is_list || urls.is_empty() => Err(FaultKind::Bundle),
            None => Ok(urls),
        }
    }
}

/// A string without its quotes, escapes resolved as UTF-16 units; lone surrogates become U+FFFD.
fn decode(raw: &str) -> String {
    let mut units: Vec<u16> = Vec::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let plain = match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('u')) => {
                let digits: String = chars.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&digits, 16).unwrap_or(0xfffd));
                continue;
            }
            (_, Some('b')) => '\u{8}',
            (_, Some('f')) => '\u{c}',
            (_, Some('n')) => '\n',
            (_, Some('r')) => '\r',
            (_, Some('t')) => '\t',
            (_, Some(plain)) => plain,
            (c, None) => c,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}
