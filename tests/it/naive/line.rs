//! One line of a store as the naive oracle reads it: blank, faulty, a list of deletions, or a resource.
//!
//! serde_json parses; a visitor keeps only the parts that decide, and refuses those that are given twice (reading 8).
//! The bytes of the line are kept beside what was read.

use super::instant::{self, Instant};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Kind of a line. `Fault` holds a reason, for failure messages only.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Blank,
    Fault(#[expect(dead_code, reason = "read by people who print it")] String),
    /// A whole object without a `resourceType`: a fault, unless all lines of its file are such.
    Untyped,
    /// An untyped line of a file without FHIR.
    NotFhir,
    Tombstones {
        last_updated: Option<Instant>,
        urls: Vec<String>,
    },
    Row(Box<Row>),
}

/// The parts of a resource that decide.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub resource_type: String,
    pub id: String,
    pub last_updated: Option<Instant>,
    /// Digits of a numeric versionId without leading zeros.
    pub version: Option<String>,
    /// Text of each reference on a compartment path of the type (for Provenance: every target).
    pub references: Vec<String>,
    /// Text of each `reference` anywhere, and of a QuestionnaireResponse's `questionnaire` without its version.
    pub mentions: Vec<String>,
    /// Whether it is a Device with a key `patient` anywhere.
    pub names_patient: bool,
    /// Provenance only: when it was recorded, if that is said once.
    pub recorded: Option<Instant>,
    /// Patients and types of context only: (system, value) of its identifiers.
    pub identifiers: Vec<(Option<String>, String)>,
}

impl Row {
    /// Sort key of the versions of one resource; equal keys are ordered by position in the store (reading 3).
    pub(crate) fn age(&self) -> (Option<&Instant>, Option<(usize, &str)>) {
        (self.last_updated.as_ref(), self.version.as_deref().map(|digits| (digits.len(), digits)))
    }
}

static TYPES: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| include_str!("../../../testdata/fhir-r4/resource-types.txt").split_whitespace().collect());

/// Whether R4 has a resource type of this name.
pub(crate) fn is_type(name: &str) -> bool {
    TYPES.contains(name)
}

/// Whether the text is an id that is taken by default (reading 27).
pub(crate) fn is_id(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(is_legal) && text != "." && text != ".."
}

/// Whether the text is an id as R4 allows it.
pub(crate) fn is_r4_id(text: &str) -> bool {
    is_id(text) && text.len() <= 64 && !text.contains(['_', '~'])
}

/// Reads a line (without newline, one trailing carriage return and the byte order mark of the file).
pub(crate) fn read(bytes: &[u8]) -> Line {
    if bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
        return Line::Blank;
    }
    resource(bytes).unwrap_or_else(|why| Line::Fault(why.to_string()))
}

fn resource(bytes: &[u8]) -> Result<Line, Box<dyn std::error::Error>> {
    let text = std::str::from_utf8(bytes)?;
    serde_json::from_str::<IgnoredAny>(text)?; // checks the whole grammar, without recursion
    if without_lone_surrogates(text) != text {
        return Err("half of a surrogate pair".into());
    }

    let mut top = Want::default();
    top.add("resourceType", true);
    let resource_type = match read_wanted(text, &top)?.strings("resourceType").as_slice() {
        [name] if is_type(name) => name.clone(),
        [] => return Ok(Line::Untyped),
        _ => return Err("no known resourceType".into()),
    };
    let tree = read_wanted(text, &wants(&resource_type))?;
    let last_updated =
        tree.child("meta").next().and_then(|meta| instant::parse(meta.child("lastUpdated").next()?.text()?));
    if resource_type == "Bundle" {
        let urls = deletions(text)?;
        return Ok(Line::Tombstones { last_updated, urls });
    }
    let id = match tree.direct("id").and_then(Json::text) {
        Some(id) if is_id(id) => id.to_string(),
        _ => return Err("no legal id".into()),
    };
    let digits = tree.child("meta").next().and_then(|meta| meta.direct("versionId")?.text().map(str::to_string));
    let version = digits
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|digits| digits.trim_start_matches('0').to_string());
    let mut references = Vec::new();
    for path in paths(&resource_type) {
        let mut here = vec![&tree];
        for step in path {
            here = here.into_iter().flat_map(|value| value.child(step)).collect();
        }
        references.extend(here.iter().filter_map(|value| value.direct("reference")?.text()).map(str::to_string));
    }
    let Json::Map(members) = &tree else { unreachable!("an object was read") };
    let identifiers = members
        .iter()
        .filter(|(key, _)| key == "identifier")
        .flat_map(|(_, value)| value.flattened())
        .filter_map(|one| {
            let text = |key| one.direct(key).and_then(Json::text).map(str::to_string);
            Some((text("system"), text("value")?))
        })
        .collect();
    let recorded: Vec<_> = members.iter().filter(|(key, _)| key == "recorded").collect();
    let recorded = match recorded[..] {
        [(_, value)] => value.text().and_then(instant::parse),
        _ => None,
    };
    let (mut mentions, mut names_patient) = (Vec::new(), false);
    for (key, value) in strings(text)? {
        match key.as_str() {
            "reference" => mentions.extend(value),
            "questionnaire" if resource_type == "QuestionnaireResponse" => {
                mentions.extend(value.map(|url| url.split('|').next().unwrap().to_string()));
            }
            "patient" | "_patient" | "subject" | "_subject" => names_patient |= resource_type == "Device",
            _ => {}
        }
    }
    let row =
        Row { resource_type, id, last_updated, version, references, mentions, names_patient, recorded, identifiers };
    Ok(Line::Row(Box::new(row)))
}

/// A key of an object, with its value if that is a string.
type KeyOfText = (String, Option<String>);

/// Every key of every object of a document.
fn strings(text: &str) -> Result<Vec<KeyOfText>, Box<dyn std::error::Error>> {
    let found = RefCell::new(Vec::new());
    let text = without_lone_surrogates(text);
    let mut reader = serde_json::Deserializer::from_str(&text);
    reader.disable_recursion_limit();
    Keys { found: &found, depth: 0 }.deserialize(&mut reader)?;
    Ok(found.into_inner())
}

/// Collects keys and strings; the result is the value if it is a string. What no test nests so deep is passed over, without
/// recursion.
#[derive(Clone, Copy)]
struct Keys<'a> {
    found: &'a RefCell<Vec<KeyOfText>>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Option<String>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        if self.depth > 300 {
            return serde::Deserialize::deserialize(deserializer).map(|_: IgnoredAny| None);
        }
        deserializer.deserialize_any(Keys { depth: self.depth + 1, ..self })
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Option<String>;
    fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Option<String>, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Option<String>, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Option<String>, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Option<String>, E> {
        Ok(None)
    }
    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_string()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<String>, A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            self.found.borrow_mut().push((key, value));
        }
        Ok(None)
    }
}

/// Parses a whole document, for resources of which every part may matter.
pub(crate) fn document(bytes: &[u8]) -> Option<serde_json::Value> {
    let text = without_lone_surrogates(std::str::from_utf8(bytes).ok()?);
    let mut reader = serde_json::Deserializer::from_str(&text);
    reader.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut reader).ok()
}

/// The urls of a Bundle that lists deletions; an error for any other Bundle (reading 9).
fn deletions(text: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let bundle = document(text.as_bytes()).ok_or("no JSON")?;
    if !matches!(bundle["type"].as_str(), Some("transaction" | "batch")) {
        return Err("a Bundle that is no transaction or batch".into());
    }
    let entries = bundle["entry"].as_array().filter(|entries| !entries.is_empty()).ok_or("a Bundle without entries")?;
    let url = |entry: &serde_json::Value| {
        let request = &entry["request"];
        let url = request["url"].as_str().filter(|_| request["method"] == "DELETE")?;
        let mut parts = url.rsplit('/');
        let (id, name) = (parts.next()?, parts.next()?);
        let relative = parts.next().is_none();
        let absolute = url.starts_with("http://") || url.starts_with("https://");
        (is_id(id) && is_type(name) && (relative || absolute)).then(|| url.to_string())
    };
    entries.iter().map(url).collect::<Option<Vec<_>>>().ok_or("an entry that is no DELETE of Type/id".into())
}

/// Element names from the root to a Reference, for each compartment path of a type.
fn paths(resource_type: &str) -> &'static [Vec<String>] {
    static PATHS: LazyLock<BTreeMap<String, Vec<Vec<String>>>> = LazyLock::new(|| {
        let mut paths: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for row in include_str!("../../../testdata/fhir-r4/patient-compartment-paths.csv").lines().skip(1) {
            let columns: Vec<&str> = row.split(',').collect();
            let path: Vec<String> = columns[2].split('.').map(|step| step.replace("[]", "")).collect();
            let of_type = paths.entry(columns[0].to_string()).or_default();
            if !of_type.contains(&path) {
                of_type.push(path);
            }
        }
        paths.insert("Device".into(), vec![vec!["patient".into()]]); // COMP-07
        paths
    });
    PATHS.get(resource_type).map_or(&[], Vec::as_slice)
}

fn wants(resource_type: &str) -> Want {
    let mut top = Want::default();
    top.add("resourceType", true);
    top.add("id", true);
    let meta = top.add("meta", true);
    meta.add("lastUpdated", true);
    meta.add("versionId", false);
    for path in paths(resource_type) {
        path.iter().fold(&mut top, |want, step| want.add(step, true)).add("reference", true);
    }
    if resource_type == "Provenance" {
        top.add("recorded", false);
    }
    if resource_type == "Patient" || super::context::TYPES.contains(&resource_type) {
        let identifier = top.add("identifier", false);
        identifier.add("system", false);
        identifier.add("value", false);
    }
    top
}

/// Replaces lone surrogate escapes, which RFC 8259 allows but serde_json refuses in strings that it returns, by U+FFFD.
/// That is as illegal as the original in every text that decides anything.
fn without_lone_surrogates(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let unit = |out: &[u8], position: usize| {
        let escape = out.get(position..position + 6)?;
        if &escape[..2] != b"\\u" {
            None
        } else {
            u16::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
        }
    };
    let mut offset = 0;
    while offset < out.len() {
        if out[offset] != b'\\' {
            offset += 1;
            continue;
        }
        match unit(&out, offset) {
            Some(0xd800..=0xdbff) if matches!(unit(&out, offset + 6), Some(0xdc00..=0xdfff)) => offset += 12,
            Some(0xd800..=0xdfff) => {
                out[offset..offset + 6].copy_from_slice(b"\\ufffd");
                offset += 6;
            }
            _ => offset += 2,
        }
    }
    String::from_utf8(out).expect("only ASCII was replaced")
}

/// The wanted parts of a document. `Other` is a value whose content does not matter.
#[derive(Debug)]
enum Json {
    Other,
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }
    /// The value of a key of this object, not looking into lists.
    fn direct(&self, key: &str) -> Option<&Json> {
        let Json::Map(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }
    /// The values of a key, through lists of objects and lists of values (reading 8: other shapes are followed, too).
    fn child<'a>(&'a self, key: &str) -> Box<dyn Iterator<Item = &'a Json> + 'a> {
        let values: Vec<&Json> = match self {
            Json::List(items) => items.iter().flat_map(|item| item.child(key)).collect(),
            _ => self.direct(key).into_iter().flat_map(Json::flattened).collect(),
        };
        Box::new(values.into_iter())
    }
    fn flattened(&self) -> Vec<&Json> {
        // A `lastUpdated` that is a list stays one value: an illegal instant rather than several legal ones.
        match self {
            Json::List(items) if items.iter().any(|item| matches!(item, Json::Map(_) | Json::List(_))) => {
                items.iter().flat_map(Json::flattened).collect()
            }
            other => vec![other],
        }
    }
    fn strings(&self, key: &str) -> Vec<String> {
        self.direct(key).and_then(Json::text).map(str::to_string).into_iter().collect()
    }
}

/// Keys to read, by nesting, and which of them must not be given twice.
#[derive(Default)]
struct Want {
    keys: BTreeMap<String, Want>,
    once: bool,
}

impl Want {
    fn add(&mut self, key: &str, once: bool) -> &mut Want {
        let child = self.keys.entry(key.to_string()).or_default();
        child.once |= once;
        child
    }
}

fn read_wanted(text: &str, want: &Want) -> Result<Json, Box<dyn std::error::Error>> {
    let twice = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let tree = Reader { want, twice: &twice }.deserialize(&mut reader)?;
    match tree {
        Json::Map(_) if !twice.get() => Ok(tree),
        Json::Map(_) => Err("a deciding key is given twice".into()),
        _ => Err("no JSON object".into()),
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    want: &'a Want,
    twice: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;
    fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_string()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Json::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(want) = self.want.keys.get(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if want.once && entries.iter().any(|(name, _)| *name == key) {
                self.twice.set(true);
            }
            entries.push((key, map.next_value_seed(Reader { want, twice: self.twice })?));
        }
        Ok(Json::Map(entries))
    }
}
