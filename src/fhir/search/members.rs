//! Members of the root of a document, read into a tree: the slow twin of what filters read of a row.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Reads some members of the root of a document.
pub(crate) fn read_members(line: &[u8], members: &BTreeSet<&'static str>) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    MemberSeed(members).deserialize(&mut reader).map(Value::Object)
}

/// Reads some members of the root of a document; of several of one name the last counts.
struct MemberSeed<'a>(&'a BTreeSet<&'static str>);

/// A name, copied only where it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct BorrowedName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for MemberSeed<'_> {
    type Value = Map<String, Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Map<String, Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MemberSeed<'_> {
    type Value = Map<String, Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<String, Value>, A::Error> {
        let mut members = Map::new();
        while let Some(BorrowedName(name)) = map.next_key::<BorrowedName<'de>>()? {
            match self.0.contains(&name[..]) {
                true => drop(members.insert(name.into_owned(), map.next_value()?)),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(members)
    }
}
