//! The reference implementation of [`Extractor`](crate::extract::extractor::Extractor), slow and plain: it defines
//! which lines are faulty and the facts of the others.
//!
//! serde_json decides whether a line is JSON; then the whole document is read into a flat list of values, and the
//! facts are looked up in it, path by path. No kernels, no pieces, no pruning, no recursion. For tests and `verify`,
//! never for an export.

use crate::extract::Validate;
use crate::extract::facts::Content;
use crate::extract::fault::FaultKind;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment;
use crate::fhir::id::{Id, IdRule};
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::limits::{REFERENCE_BYTES_MAX, TOMBSTONES_PER_LINE_MAX};

/// Facts of a line, as owned values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainFacts {
    /// Kind of the line.
    pub content: Content,
    /// Type of the resource, from `resourceType`.
    pub resource_type: ResourceType,
    /// `id`, if it is legal.
    pub id: Option<Id>,
    /// `meta.lastUpdated`: `None` when it is absent or null, `Some(None)` when it is no legal instant.
    pub last_updated: Option<Option<Instant>>,
    /// `meta.versionId`, empty when it is absent.
    pub version_id: String,
    /// As `Facts::references`.
    pub references: Vec<String>,
    /// Whether an identifier, an object or array, stands on a path of references.
    pub has_identifier: bool,
    /// As `Facts::tombstones`.
    pub tombstones: Vec<String>,
}

/// Why the reference implementation refuses a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultFound {
    /// The line is no JSON object in UTF-8.
    Syntax,
    /// The line is a JSON object, but no resource that this crate accepts.
    Kind(FaultKind),
}

/// Whether the reference implementation finds only `Syntax` for a fault of this kind: the line is no JSON object in
/// UTF-8.
pub fn is_syntax(kind: FaultKind) -> bool {
    use FaultKind::*;
    matches!(kind, Utf8 | Bom | Truncated | NotObject | Trailing | Grammar | Scalar | Escape | Control)
}

/// The facts of a line, as by [`Extractor::extract`](crate::extract::extractor::Extractor::extract).
///
/// # Errors
/// [`FaultFound`] when the line is refused.
pub fn extract(line: &[u8], rules: impl Into<LineRules>) -> Result<PlainFacts, FaultFound> {
    let rules = rules.into();
    // 1. The line is a JSON object in UTF-8.
    let text = str::from_utf8(line).map_err(|_| FaultFound::Syntax)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| FaultFound::Syntax)?;
    let document = ParsedLine::read(text);
    let JsonValue::Map(_) = document.values[0] else { return Err(FaultFound::Syntax) };
    let fault = |kind| Err(FaultFound::Kind(kind));
    let checks_surrogates = rules.validate == Validate::Full && rules.lone_surrogates == LoneSurrogates::Fault;
    if checks_surrogates && has_lone_surrogate(text) {
        return fault(FaultKind::LoneSurrogate);
    }

    // 2. Its type. A duplicate resourceType is refused whatever the types are: that key decides for every type.
    let types = document.values_at(&[0], &["resourceType"]);
    let resource_type = match types.last().map(|start_offset| &document.values[*start_offset]) {
        Some(JsonValue::Text(name)) => match ResourceType::parse(name) {
            Some(known) => known,
            None if types.len() > 1 => return fault(FaultKind::DuplicateKey),
            None => return fault(FaultKind::UnknownType),
        },
        _ if types.len() > 1 => return fault(FaultKind::DuplicateKey),
        _ => return fault(FaultKind::NoType),
    };

    // 3. No deciding key occurs twice.
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
    if deciding.iter().any(|path| document.has_duplicate_key(path)) {
        return fault(FaultKind::DuplicateKey);
    }

    // 4. The facts. A value in more than one element of an array of metas counts as a duplicate key.
    let once = |path: &[&str]| -> Result<Option<&JsonValue>, FaultFound> {
        let mut present = document.values_at(&[0], path).into_iter().map(|k| &document.values[k]);
        let first = present.find(|value| !matches!(value, JsonValue::Null));
        match present.any(|value| !matches!(value, JsonValue::Null)) {
            true => Err(FaultFound::Kind(FaultKind::DuplicateKey)),
            false => Ok(first),
        }
    };
    let last_updated_value = once(&["meta", "lastUpdated"])?;
    let last_updated =
        last_updated_value.map(|value| value.text_of().filter(|text| is_looked_at(text)).and_then(Instant::parse));
    let version = once(&["meta", "versionId"])?.and_then(JsonValue::text_of).filter(|text| is_looked_at(text));
    let id_text = document.values_at(&[0], &["id"]).first().and_then(|index| document.values[*index].text_of());
    let id = id_text.filter(|text| rules.ids.allows(text.as_bytes())).and_then(|text| Id::parse(text.as_bytes()));
    let mut facts = PlainFacts {
        content: Content::Resource,
        resource_type,
        id,
        last_updated,
        version_id: version.unwrap_or_default().to_string(),
        references: Vec::new(),
        has_identifier: false,
        tombstones: Vec::new(),
    };
    // 5. A Bundle must be a list of deletions; any other resource has a legal id.
    if resource_type == ResourceType::BUNDLE {
        facts.content = Content::Tombstones;
        facts.tombstones = document.deletions(rules.ids).map_err(FaultFound::Kind)?;
        return Ok(facts);
    }
    match (id_text, id) {
        (None, _) => return fault(FaultKind::NoId),
        (_, None) => return fault(FaultKind::IllegalId),
        _ => {}
    }
    if resource_type != ResourceType::GROUP {
        let mut found: Vec<usize> = Vec::new();
        let owners = rules.compartment_paths.paths_of(resource_type);
        let is_owners =
            |path: &&str| (0..).zip(compartment::PATHS).any(|(i, known)| known == *path && owners >> i & 1 != 0);
        for path in paths.into_iter().filter(is_owners) {
            let mut names: Vec<&str> = path.split('.').collect();
            names.push("reference");
            found.extend(document.values_at(&[0], &names));
            *names.last_mut().expect("the name just pushed") = "identifier";
            let identifiers = document.values_at(&[0], &names);
            let is_container = |i: &usize| matches!(document.values[*i], JsonValue::Map(_) | JsonValue::List(_));
            facts.has_identifier |= identifiers.iter().any(is_container);
        }
        found.sort(); // values are numbered in the order of the text
        let texts = found.into_iter().filter_map(|i| document.values[i].text_of());
        facts.references = texts.filter(|text| is_looked_at(text)).map(String::from).collect();
    }
    Ok(facts)
}

/// Whether a text is short enough to be compared: at most [`REFERENCE_BYTES_MAX`] bytes.
fn is_looked_at(text: &str) -> bool {
    text.len() <= REFERENCE_BYTES_MAX
}

/// A value of a document; containers hold the indices of their members in [`ParsedLine::values`].
#[derive(Debug)]
enum JsonValue {
    Null,
    /// A number, `true` or `false`.
    Other,
    Text(String),
    List(Vec<usize>),
    Map(Vec<(String, usize)>),
}

impl JsonValue {
    /// The text of a string; `None` for other values.
    fn text_of(&self) -> Option<&str> {
        if let JsonValue::Text(text) = self { Some(text) } else { None }
    }
}

/// A document as a flat list of its values, in the order of their first bytes.
struct ParsedLine {
    values: Vec<JsonValue>,
}

impl ParsedLine {
    /// Parses a text that is known to be JSON, so that no error is possible.
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
            let index = values.len();
            match open.last().map(|parent| &mut values[*parent]) {
                Some(JsonValue::Map(entries)) => entries.push((key.take().unwrap_or_default(), index)),
                Some(JsonValue::List(items)) => items.push(index),
                _ => {}
            }
            if matches!(value, JsonValue::Map(_) | JsonValue::List(_)) {
                open.push(index);
            }
            values.push(value);
        }
        ParsedLine { values }
    }

    /// The members of each object among these values and, to any depth, in arrays of them (reading 8), in the order of
    /// the text.
    fn objects_in<'a>(&'a self, from: &[usize]) -> Vec<&'a Vec<(String, usize)>> {
        let mut pending: Vec<usize> = from.iter().rev().copied().collect();
        let mut maps = Vec::new();
        while let Some(i) = pending.pop() {
            match &self.values[i] {
                JsonValue::Map(entries) => maps.push(entries),
                JsonValue::List(items) => pending.extend(items.iter().rev()),
                _ => {}
            }
        }
        maps
    }

    /// Indices of the values at the end of a path of names, from any of these values.
    fn values_at(&self, from: &[usize], path: &[&str]) -> Vec<usize> {
        path.iter().fold(from.to_vec(), |nodes, name| {
            let entries = self.objects_in(&nodes).into_iter().flatten();
            entries.filter(|(key, _)| key == name).map(|(_, value)| *value).collect()
        })
    }

    /// Whether any object on the path has the path's next name more than once.
    fn has_duplicate_key(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('.').collect();
        (0..names.len()).any(|depth| {
            let nodes = self.values_at(&[0], &names[..depth]);
            let count = |map: &&Vec<(String, usize)>| map.iter().filter(|(key, _)| key == names[depth]).count();
            self.objects_in(&nodes).iter().any(|map| count(map) > 1)
        })
    }

    /// The urls of a Bundle of DELETE entries (reading 9), or why it is none.
    fn deletions(&self, ids: IdRule) -> Result<Vec<String>, FaultKind> {
        let mut urls = Vec::new();
        let entries = self.values_at(&[0], &["entry"]);
        let mut has_duplicate = false;
        let mut fault = None;
        for (index, entry) in self.objects_in(&entries).into_iter().enumerate() {
            let part = |name: &str| -> Vec<usize> {
                entry.iter().filter(|(key, _)| key == name).map(|(_, value)| *value).collect()
            };
            let texts = |name: &str| -> Vec<&str> {
                let values = self.values_at(&part("request"), &[name]);
                values.into_iter().filter_map(|value| self.values[value].text_of()).collect()
            };
            let (methods, urls_of_entry) = (texts("method"), texts("url"));
            has_duplicate |= methods.len() > 1 || urls_of_entry.len() > 1;
            let url = urls_of_entry.first().filter(|url| is_looked_at(url));
            let url_of_entry = match url {
                _ if index >= TOMBSTONES_PER_LINE_MAX => Err(FaultKind::BundleTooLong),
                Some(url) if methods.first() == Some(&"DELETE") && part("resource").is_empty() => {
                    match Reference::parse(url) {
                        Some(reference) if reference.version.is_none() && ids.allows(reference.id.as_bytes()) => {
                            Ok(url.to_string())
                        }
                        _ => Err(FaultKind::BundleUrl),
                    }
                }
                _ => Err(FaultKind::Bundle),
            };
            match url_of_entry {
                Ok(url) => urls.push(url),
                Err(kind) => fault = fault.or(Some(kind)),
            }
        }
        let kinds = self.values_at(&[0], &["type"]);
        let is_list = kinds.iter().any(|i| matches!(self.values[*i].text_of(), Some("transaction" | "batch")));
        match fault {
            _ if has_duplicate => Err(FaultKind::DuplicateKey),
            Some(kind) => Err(kind),
            None if !is_list || urls.is_empty() => Err(FaultKind::Bundle),
            None => Ok(urls),
        }
    }
}

/// The text of a string from the bytes between its quotes: escapes are resolved as UTF-16 units, lone surrogates become
/// U+FFFD.
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

/// Whether an escape of a text that is known to be JSON is half of a surrogate pair.
fn has_lone_surrogate(text: &str) -> bool {
    // Backslashes occur in strings only.
    let bytes = text.as_bytes();
    let unit_at = |i: usize| match bytes.get(i..i + 6) {
        Some([b'\\', b'u', digits @ ..]) => {
            str::from_utf8(digits).ok().and_then(|digits| u16::from_str_radix(digits, 16).ok())
        }
        _ => None,
    };
    let mut i = 0;
    while i < bytes.len() {
        i += match (bytes[i], unit_at(i), unit_at(i + 6)) {
            (b'\\', Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff), _) => return true,
            (b'\\', Some(_), _) => 6,
            (b'\\', None, _) => 2,
            _ => 1,
        };
    }
    false
}
