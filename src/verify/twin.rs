//! A line read the slow, obvious way: serde_json into a small tree of the keys that decide.
//!
//! It shares nothing with the scanner but the domain (types, ids, references, instants, the table of compartment
//! paths), so that the two can be held against each other. The one thing that it cannot do is to hold a line of
//! gigabytes, or one that nests deciding keys deeper than [`DEPTH_MAX`].

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::extract::{Content, Facts, LastUpdated};
use crate::fhir::{Id, Instant, Reference, ResourceType, compartment};
use crate::limits::{REFERENCE_BYTES_MAX, TOMBSTONES_PER_LINE_MAX};

/// Deepest nesting of deciding keys that is read; the reader recurses.
const DEPTH_MAX: usize = 200;
/// How serde_json hands out a number under `arbitrary_precision`: as an object with this one key.
const NUMBER: &str = "$serde_json::private::Number";

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// White space only.
    Blank,
    /// No resource and no list of deletions; why, for people.
    Faulty(&'static str),
    /// A Bundle of DELETE entries: its instant and their urls.
    Deletions(Option<Instant>, Vec<String>),
    /// A resource.
    Row(Box<Row>),
    /// It nests deciding keys too deeply to be read here.
    Deep,
}

/// What a resource says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `resourceType`.
    pub resource_type: ResourceType,
    /// `id`.
    pub id: Id,
    /// `meta.lastUpdated`, if it is an instant.
    pub updated: Option<Instant>,
    /// Whether there is one that is no instant.
    pub illegal_updated: bool,
    /// Digits of a numeric `meta.versionId` without leading zeros.
    pub version: Option<String>,
    /// References on compartment paths of the type, in no order; none of a Group.
    pub references: Vec<String>,
}

impl Row {
    /// The patients whose compartment it is in by itself, as (base, id), ascending, each once.
    pub fn owners(&self) -> Vec<(&str, Id)> {
        let named = self.parsed().filter(|reference| reference.resource_type == ResourceType::PATIENT);
        let mut owners: Vec<(&str, Id)> = named.map(|reference| (reference.base, reference.id)).collect();
        if self.resource_type == ResourceType::PATIENT {
            owners.push(("", self.id));
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// What a Provenance is about, as (base, type, id), ascending.
    pub fn targets(&self) -> Vec<(&str, ResourceType, Id)> {
        let is_target = self.resource_type == ResourceType::PROVENANCE;
        let all = self.parsed().filter(|_| is_target);
        let mut targets: Vec<_> = all.map(|target| (target.base, target.resource_type, target.id)).collect();
        targets.sort_unstable();
        targets
    }

    fn parsed(&self) -> impl Iterator<Item = Reference<'_>> {
        self.references.iter().filter_map(|text| Reference::parse(text))
    }
}

impl Line {
    /// Reads a line without its newline, one trailing carriage return, and the byte order mark of the file.
    pub fn read(line: &[u8]) -> Line {
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            return Line::Blank;
        }
        let Ok(text) = str::from_utf8(line) else { return Line::Faulty("it is not UTF-8") };
        let text = without_lone_surrogates(text);
        match Tree::read(&text, &TOP) {
            Ok(top) => resource(&text, &top),
            Err(Refused::Deep) => Line::Deep,
            Err(Refused::Invalid) => Line::Faulty("it is no JSON object"),
        }
    }

    /// What the scanner made of a line, in these words.
    pub fn of_facts(facts: &Facts) -> Line {
        let (updated, illegal_updated) = match facts.last_updated() {
            LastUpdated::Missing => (None, false),
            LastUpdated::Illegal => (None, true),
            LastUpdated::At(at) => (Some(at.to_owned()), false),
        };
        match (facts.content, facts.id) {
            (Content::Tombstones, _) => Line::Deletions(updated, facts.tombstones().map(str::to_string).collect()),
            (Content::Resource, None) => Line::Faulty("it has no id"),
            (Content::Resource, Some(id)) => Line::Row(Box::new(Row {
                resource_type: facts.resource_type,
                id,
                updated,
                illegal_updated,
                version: str::from_utf8(facts.version_id()).ok().and_then(digits),
                references: facts.references().map(str::to_string).collect(),
            })),
        }
    }
}

fn resource(text: &str, top: &Tree) -> Line {
    let resource_type = match top.leaves("resourceType").next() {
        Some(Json::Text(name)) => ResourceType::parse(name),
        _ => None,
    };
    let Some(resource_type) = resource_type else { return Line::Faulty("it has no known resourceType") };
    let tree = match Tree::read(text, &WANTS[resource_type.index()]) {
        Ok(tree) => tree,
        Err(Refused::Deep) => return Line::Deep,
        Err(Refused::Invalid) => return Line::Faulty("it is no JSON object"),
    };
    if tree.twice {
        return Line::Faulty("a key that decides stands twice");
    }
    let (mut updated, mut illegal_updated) = (None, false);
    for value in tree.leaves("meta.lastUpdated").filter(|value| !matches!(value, Json::Null)) {
        if let Json::Text(_) = value
            && (updated.is_some() || illegal_updated)
        {
            return Line::Faulty("it has two instants");
        }
        updated = value.text().and_then(Instant::parse);
        illegal_updated = updated.is_none();
    }
    if resource_type == ResourceType::BUNDLE {
        return match deletions(&tree) {
            Some(urls) => Line::Deletions(updated, urls),
            None => Line::Faulty("it is a Bundle that is no list of deletions"),
        };
    }
    let Some(id) = tree.leaves("id").next().and_then(|id| Id::parse(id.text()?.as_bytes())) else {
        return Line::Faulty("it has no legal id");
    };
    let version = tree.leaves("meta.versionId").filter_map(Json::text).last().and_then(digits);
    let texts = |path: String| tree.leaves(&path).filter_map(Json::text).map(str::to_string).collect::<Vec<_>>();
    // A Group's members do not own it (COMP-09); they are read for keys given twice only.
    let paths = owner_paths(resource_type).filter(|_| resource_type != ResourceType::GROUP);
    let references = paths.flat_map(|path| texts(format!("{path}.reference"))).collect();
    Line::Row(Box::new(Row { resource_type, id, updated, illegal_updated, version, references }))
}

/// The urls of a Bundle whose entries are all deletions (reading 9).
fn deletions(tree: &Tree) -> Option<Vec<String>> {
    let is_list = matches!(tree.leaves("type").next()?.text()?, "transaction" | "batch");
    let entries = tree.objects("entry");
    let url = |entry: &&Json| {
        let entry = Tree::of(entry);
        let last = |path| entry.leaves(path).filter_map(Json::text).last();
        let deletes = last("request.method") == Some("DELETE") && entry.leaves("resource").next().is_none();
        let url = last("request.url").filter(|_| deletes)?;
        Reference::parse(url)?.version.is_none().then(|| url.to_string())
    };
    let urls = entries.iter().map(url).collect::<Option<Vec<String>>>()?;
    (is_list && !urls.is_empty() && urls.len() <= TOMBSTONES_PER_LINE_MAX).then_some(urls)
}

/// A number without leading zeros; `None` for anything that does not order as a number.
fn digits(text: &str) -> Option<String> {
    let number = (1..=crate::limits::ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    number.then(|| text.trim_start_matches('0').to_string())
}

/// Paths to the references that decide whose a resource is.
fn owner_paths(resource_type: ResourceType) -> impl Iterator<Item = &'static str> {
    let bits = compartment::paths_of(resource_type);
    compartment::PATHS.iter().enumerate().filter(move |(at, _)| bits >> at & 1 == 1).map(|(_, path)| *path)
}

/// Which keys are read, by nesting.
#[derive(Clone, Default)]
pub struct Want(BTreeMap<&'static str, Want>);

impl Want {
    /// The keys on these paths, joined by dots.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p &'static str>) -> Want {
        let mut all = Want::default();
        paths.into_iter().for_each(|path| all.add(path));
        all
    }

    fn add(&mut self, path: &'static str) {
        path.split('.').fold(self, |at, key| at.0.entry(key).or_default());
    }
}

static TOP: LazyLock<Want> = LazyLock::new(|| Want::of(&["resourceType"]));
static WANTS: LazyLock<Vec<Want>> = LazyLock::new(|| {
    let wants = |resource_type| {
        let mut want = Want::of(&["resourceType", "id", "meta.lastUpdated", "meta.versionId"]);
        for path in owner_paths(resource_type) {
            path.split('.').chain(["reference"]).fold(&mut want, |at, key| at.0.entry(key).or_default());
        }
        if resource_type == ResourceType::BUNDLE {
            ["type", "entry.request.method", "entry.request.url", "entry.resource"].iter().for_each(|p| want.add(p));
        }
        want
    };
    ResourceType::all().map(wants).collect()
});

/// The wanted part of a document.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    root: Cow<'a, Json>,
    /// Whether a wanted key stood twice in one object.
    pub twice: bool,
}

/// A value; `Other` stands for what is there and not looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
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
    pub fn text(&self) -> Option<&str> {
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

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no JSON object.
    Invalid,
    /// It nests wanted keys too deeply.
    Deep,
}

impl<'a> Tree<'a> {
    /// Reads a text, all of whose grammar is checked.
    pub fn read(text: &str, want: &Want) -> Result<Tree<'a>, Refused> {
        let (twice, deep) = (Cell::new(false), Cell::new(false));
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.disable_recursion_limit();
        let seed = Reader { want, twice: &twice, deep: &deep, depth: 0 };
        let root = seed.deserialize(&mut reader).and_then(|root| reader.end().map(|()| root));
        match root {
            _ if deep.get() => Err(Refused::Deep),
            Ok(root @ Json::Map(_)) => Ok(Tree { root: Cow::Owned(root), twice: twice.get() }),
            _ => Err(Refused::Invalid),
        }
    }

    /// A value as a tree of its own.
    pub fn of(root: &'a Json) -> Tree<'a> {
        Tree { root: Cow::Borrowed(root), twice: false }
    }

    /// What stands at a path, arrays on the way and at its end followed (reading 8: other shapes are followed, too).
    pub fn objects(&self, path: &str) -> Vec<&Json> {
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
    pub fn leaves<'s>(&'s self, path: &str) -> impl Iterator<Item = &'s Json> + use<'s, 'a> {
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
struct Reader<'a> {
    want: &'a Want,
    twice: &'a Cell<bool>,
    deep: &'a Cell<bool>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        if self.depth > DEPTH_MAX {
            self.deep.set(true);
            return IgnoredAny::deserialize_from(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

/// Passing a value by without recursion, whatever its depth.
trait PassBy {
    fn deserialize_from<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error>;
}

impl PassBy for IgnoredAny {
    fn deserialize_from<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        <IgnoredAny as serde::Deserialize>::deserialize(deserializer).map(|_| Json::Other)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
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
        while let Some(item) = list.next_element_seed(Reader { depth: self.depth + 1, ..self })? {
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
            entries.push((key, map.next_value_seed(Reader { want, depth: self.depth + 1, ..self })?));
        }
        Ok(if number && keys == 1 { Json::Other } else { Json::Map(entries) })
    }
}

/// serde_json refuses a lone surrogate escape in a string that it hands out, RFC 8259 does not: U+FFFD is put there, as
/// illegal as the original wherever the text decides anything.
pub fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |out: &[u8], at: usize| {
        let digits = out.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0u32, |sum, digit| Some(sum << 4 | (*digit as char).to_digit(16)?))
    };
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while at < out.len() {
        if out[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(&out, at) {
            Some(0xd800..=0xdbff) if matches!(unit(&out, at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                out[at..at + 6].copy_from_slice(b"\\ufffd");
                at += 6;
            }
            _ => at += 2,
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests;
