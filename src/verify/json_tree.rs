//! Tree of the wanted parts of a JSON text, read by serde_json.
//!
//! For what the facts of a line do not cover: the members of a Group, the identifiers of a Patient, the outermost keys
//! of a line that simd-json cannot read. Values deeper than [`DEPTH_MAX`] are skipped, because the reader recurses.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::limits::REFERENCE_BYTES_MAX;

/// Deepest nesting of wanted keys and arrays that is read.
const DEPTH_MAX: usize = 200;
/// The one key of the object that serde_json makes of a number under `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// Keys to read, by nesting.
#[derive(Clone, Default)]
pub(crate) struct WantedNames(BTreeMap<&'static str, WantedNames>);

impl WantedNames {
    /// The keys on these paths, whose keys are joined by dots.
    pub(crate) fn of<'p>(paths: impl IntoIterator<Item = &'p &'static str>) -> WantedNames {
        let mut all = WantedNames::default();
        paths.into_iter().for_each(|path| all.add(path));
        all
    }

    /// Adds the keys of one path.
    fn add(&mut self, path: &'static str) {
        path.split('.').fold(self, |wanted_names, key| wanted_names.0.entry(key).or_default());
    }
}

/// The wanted part of a document.
#[derive(Clone, Debug)]
pub(crate) struct JsonTree<'a> {
    root: Cow<'a, Json>,
    /// Whether a wanted key occurs twice in one object.
    pub duplicate_key: bool,
}

/// A value of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// The literal `null` of JSON.
    Null,
    /// The literal `true` or `false`.
    Bool(bool),
    /// A number, an object of which no key is wanted, or a value that was skipped.
    Other,
    /// A string, with its escapes resolved.
    Text(String),
    /// An array with its elements.
    List(Vec<Json>),
    /// An object with its wanted keys, in order, duplicates included.
    Map(Vec<(String, Json)>),
}

impl Json {
    /// The string, if it is one of at most [`REFERENCE_BYTES_MAX`] bytes.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) if text.len() <= REFERENCE_BYTES_MAX => Some(text),
            _ => None,
        }
    }

    /// Appends the value, or the elements of nested arrays in order.
    fn flatten_into<'a>(&'a self, out: &mut Vec<&'a Json>) {
        match self {
            Json::List(items) => items.iter().for_each(|item| item.flatten_into(out)),
            other => out.push(other),
        }
    }
}

impl<'a> JsonTree<'a> {
    /// Reads a text and checks its whole grammar; `None` if it is no JSON object.
    pub(crate) fn read(text: &str, want: &WantedNames) -> Option<JsonTree<'a>> {
        let duplicate_key = Cell::new(false);
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.disable_recursion_limit();
        let root = TreeReader { want, duplicate_key: &duplicate_key, depth: 0 }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        let is_object = matches!(root, Json::Map(_));
        is_object.then(|| JsonTree { root: Cow::Owned(root), duplicate_key: duplicate_key.get() })
    }

    /// A tree whose root is a value of another tree.
    pub(crate) fn of(root: &'a Json) -> JsonTree<'a> {
        JsonTree { root: Cow::Borrowed(root), duplicate_key: false }
    }

    /// Values at a path; arrays on the way and at its end are flattened (reading 8: other shapes are followed, too).
    pub(crate) fn objects(&self, path: &str) -> Vec<&Json> {
        let mut level = vec![&*self.root];
        for key in path.split('.') {
            let mut next = Vec::new();
            for value in level {
                children(value, key).for_each(|child| child.flatten_into(&mut next));
            }
            level = next;
        }
        level
    }

    /// Values at the end of a path; arrays on the way are flattened, one at the end is returned as a list.
    pub(crate) fn leaves<'s>(&'s self, path: &str) -> impl Iterator<Item = &'s Json> + use<'s, 'a> {
        let (before, key) = path.rsplit_once('.').unwrap_or(("", path));
        let holders = if before.is_empty() { vec![&*self.root] } else { self.objects(before) };
        holders.into_iter().flat_map(|holder| children(holder, key).collect::<Vec<_>>()).collect::<Vec<_>>().into_iter()
    }
}

/// Values of a key of an object; none if the value is no object.
fn children<'j>(value: &'j Json, key: &str) -> impl Iterator<Item = &'j Json> {
    let entries = if let Json::Map(entries) = value { &entries[..] } else { &[] };
    entries.iter().filter(move |(name, _)| name == key).map(|(_, child)| child)
}

/// Deserialises the wanted keys below one value.
#[derive(Clone, Copy)]
struct TreeReader<'a> {
    want: &'a WantedNames,
    duplicate_key: &'a Cell<bool>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for TreeReader<'_> {
    type Value = Json;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        if self.depth > DEPTH_MAX {
            // serde_json skips ignored values without recursion.
            return <IgnoredAny as serde::Deserialize>::deserialize(deserializer).map(|_| Json::Other);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeReader<'_> {
    type Value = Json;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
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
        while let Some(item) = list.next_element_seed(TreeReader { depth: self.depth + 1, ..self })? {
            items.push(item);
        }
        Ok(Json::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        let (mut keys, mut number) = (0, false);
        while let Some(key) = map.next_key::<String>()? {
            keys += 1;
            number |= key == NUMBER;
            let Some(want) = self.want.0.get(&*key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if entries.iter().any(|(name, _)| *name == key) {
                self.duplicate_key.set(true);
            }
            entries.push((key, map.next_value_seed(TreeReader { want, depth: self.depth + 1, ..self })?));
        }
        Ok(if number && keys == 1 { Json::Other } else { Json::Map(entries) })
    }
}

/// Replaces lone surrogate escapes by U+FFFD. RFC 8259 allows them, serde_json refuses them in a string that it
/// returns; neither form is legal where the text decides anything.
pub(crate) fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |out: &[u8], position: usize| {
        let digits = out.get(position..position + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0u32, |sum, digit| Some(sum << 4 | (*digit as char).to_digit(16)?))
    };
    let mut out = text.as_bytes().to_vec();
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
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}
