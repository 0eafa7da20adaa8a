//! The parts of a JSON text that are asked for, as a small tree, by serde_json.
//!
//! For what is looked at beside the facts of a line: the members of a Group, the identifiers of a Patient, the outermost
//! keys of a line that simd-json cannot read. What lies deeper than [`DEPTH_MAX`] is not looked at; the reader recurses.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::limits::REFERENCE_BYTES_MAX;

/// Deepest nesting of wanted keys and arrays of them.
const DEPTH_MAX: usize = 200;
/// How serde_json hands out a number under `arbitrary_precision`: as an object with this one key.
const NUMBER: &str = "$serde_json::private::Number";

/// Which keys are read, by nesting.
#[derive(Clone, Default)]
pub(crate) struct WantedNames(BTreeMap<&'static str, WantedNames>);

impl WantedNames {
    /// The keys on these paths, joined by dots.
    pub(crate) fn of<'p>(paths: impl IntoIterator<Item = &'p &'static str>) -> WantedNames {
        let mut all = WantedNames::default();
        paths.into_iter().for_each(|path| all.add(path));
        all
    }

    fn add(&mut self, path: &'static str) {
        path.split('.').fold(self, |wanted_names, key| wanted_names.0.entry(key).or_default());
    }
}

/// The wanted part of a document.
#[derive(Clone, Debug)]
pub(crate) struct JsonTree<'a> {
    root: Cow<'a, Json>,
    /// Whether a wanted key stood twice in one object.
    pub twice: bool,
}

/// A value; `Other` stands for what is there and not looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, or an object of which no key is wanted.
    Other,
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object: its wanted keys.
    Map(Vec<(String, Json)>),
}

impl Json {
    /// A string of no more than the bytes that are looked at.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) if text.len() <= REFERENCE_BYTES_MAX => Some(text),
            _ => None,
        }
    }

    fn flat<'a>(&'a self, out: &mut Vec<&'a Json>) {
        match self {
            Json::List(items) => items.iter().for_each(|item| item.flat(out)),
            other => out.push(other),
        }
    }
}

impl<'a> JsonTree<'a> {
    /// Reads a text, all of whose grammar is checked; `None` when it is no JSON object.
    pub(crate) fn read(text: &str, want: &WantedNames) -> Option<JsonTree<'a>> {
        let twice = Cell::new(false);
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.disable_recursion_limit();
        let root = TreeReader { want, twice: &twice, depth: 0 }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        let is_object = matches!(root, Json::Map(_));
        is_object.then(|| JsonTree { root: Cow::Owned(root), twice: twice.get() })
    }

    /// A value as a tree of its own.
    pub(crate) fn of(root: &'a Json) -> JsonTree<'a> {
        JsonTree { root: Cow::Borrowed(root), twice: false }
    }

    /// What stands at a path, arrays on the way and at its end followed (reading 8: other shapes are followed, too).
    pub(crate) fn objects(&self, path: &str) -> Vec<&Json> {
        let mut here = vec![&*self.root];
        for key in path.split('.') {
            let mut next = Vec::new();
            for value in here {
                children(value, key).for_each(|child| child.flat(&mut next));
            }
            here = next;
        }
        here
    }

    /// The values at the end of a path, arrays on the way followed; an array at the end is what it is.
    pub(crate) fn leaves<'s>(&'s self, path: &str) -> impl Iterator<Item = &'s Json> + use<'s, 'a> {
        let (before, key) = path.rsplit_once('.').unwrap_or(("", path));
        let holders = if before.is_empty() { vec![&*self.root] } else { self.objects(before) };
        holders.into_iter().flat_map(|holder| children(holder, key).collect::<Vec<_>>()).collect::<Vec<_>>().into_iter()
    }
}

fn children<'j>(value: &'j Json, key: &str) -> impl Iterator<Item = &'j Json> {
    let entries = if let Json::Map(entries) = value { &entries[..] } else { &[] };
    entries.iter().filter(move |(name, _)| name == key).map(|(_, child)| child)
}

#[derive(Clone, Copy)]
struct TreeReader<'a> {
    want: &'a WantedNames,
    twice: &'a Cell<bool>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for TreeReader<'_> {
    type Value = Json;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        if self.depth > DEPTH_MAX {
            // Passed by without recursion, whatever its depth.
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
                self.twice.set(true);
            }
            entries.push((key, map.next_value_seed(TreeReader { want, depth: self.depth + 1, ..self })?));
        }
        Ok(if number && keys == 1 { Json::Other } else { Json::Map(entries) })
    }
}

/// serde_json refuses a lone surrogate escape in a string that it hands out, RFC 8259 does not: U+FFFD is put there, as
/// illegal as the original wherever the text decides anything.
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
