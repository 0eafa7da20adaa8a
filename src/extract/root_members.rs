//! Finds the values of some members of the root of a row, without a look into any other: ends of strings and of nested
//! values, 64 bytes at a time.
//!
//! A row is one that an index took, so brackets and strings close. A row that has a member twice is left to a parser, which takes the
//! last one, but reads all.

use std::ops::Range;

use crate::extract::unescape::unescape;
use crate::simd::block_cursor::{BlockCursor, StringCarry};
use crate::simd::{Kernel, KernelJob, Vector};

/// Most bytes of a name that is compared, escapes as they stand; no name of R4 is near it.
const NAME_BYTES_MAX: usize = 512;

/// Finds members of some names.
pub(crate) struct RootMembers {
    kernel: Kernel,
    names: Vec<&'static str>,
}

impl RootMembers {
    /// Finds members of these names.
    pub(crate) fn new(names: impl IntoIterator<Item = &'static str>, kernel: Kernel) -> RootMembers {
        RootMembers { kernel, names: names.into_iter().collect() }
    }

    /// The names, in the order of the ranges that [`RootMembers::find`] gives.
    pub(crate) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Puts for each name the range of its value in the line into `values`, an empty one if there is none. `false` if the line
    /// is no object that could be read to its end, or has one of them twice.
    pub(crate) fn find(&self, line: &[u8], values: &mut Vec<Range<usize>>) -> bool {
        values.clear();
        values.resize(self.names.len(), 0..0);
        self.kernel.run(FindMembers { names: &self.names, line, values })
    }
}

/// Appends an object of some members to `out`: names, and where their values stand in the line. Those with an empty range are
/// left out.
pub(crate) fn write_object<'a>(
    line: &[u8],
    members: impl Iterator<Item = (&'a str, &'a Range<usize>)>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    let start = out.len();
    for (name, range) in members.filter(|(_, range)| !range.is_empty()) {
        if out.len() > start {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(&line[range.clone()]);
    }
    out.push(b'}');
}

/// A line whose members are to be found.
struct FindMembers<'a> {
    names: &'a [&'static str],
    line: &'a [u8],
    values: &'a mut [Range<usize>],
}

impl KernelJob for FindMembers<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> bool {
        let FindMembers { names, line, values } = self;
        let mut cursor = BlockCursor::new(vector, line, StringCarry::default());
        if !pass_to(&mut cursor, b'{') {
            return false;
        }
        loop {
            // 1. The name of a member, or the end.
            match cursor.byte() {
                Some(b'"') => cursor.at += 1,
                Some(b'}') => return true,
                Some(b',' | b' ' | b'\t' | b'\n' | b'\r') => {
                    cursor.at += 1;
                    continue;
                }
                _ => return false,
            }
            let from = cursor.at;
            if !cursor.find_quote() {
                return false;
            }
            let name = &line[from..cursor.at];
            cursor.at += 1;
            // 2. Its value.
            if !pass_to(&mut cursor, b':') {
                return false;
            }
            while matches!(cursor.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                cursor.at += 1;
            }
            let from = cursor.at;
            if !pass_value(&mut cursor, line) {
                return false;
            }
            if let Some(number) = number_of(names, name) {
                if !values[number].is_empty() {
                    return false;
                }
                values[number] = from..cursor.at;
            }
        }
    }
}

/// Moves behind a byte that only white space may stand before. `false` if another one does.
#[inline(always)]
pub(crate) fn pass_to<V: Vector>(cursor: &mut BlockCursor<'_, V>, wanted: u8) -> bool {
    while let Some(byte) = cursor.byte() {
        cursor.at += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            byte => return byte == wanted,
        }
    }
    false
}

/// Moves behind the value that begins here. `false` if it does not end in the line.
#[inline(always)]
pub(crate) fn pass_value<V: Vector>(cursor: &mut BlockCursor<'_, V>, line: &[u8]) -> bool {
    match cursor.byte() {
        Some(b'{' | b'[') => {
            cursor.at += 1;
            cursor.leave_containers(&mut 1)
        }
        Some(b'"') => {
            cursor.at += 1;
            let ends = cursor.find_quote();
            cursor.at += usize::from(ends);
            ends
        }
        Some(_) => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let length = line[cursor.at..].iter().position(ends);
            cursor.at += length.unwrap_or_default();
            length.is_some_and(|length| length > 0)
        }
        None => false,
    }
}

/// The number of the name that has this text between its quotes, escapes as they stand.
#[inline(always)]
pub(crate) fn number_of(names: &[&'static str], raw: &[u8]) -> Option<usize> {
    if memchr::memchr(b'\\', raw).is_some() {
        return number_of_escaped(names, raw);
    }
    names.iter().position(|name| name.as_bytes() == raw)
}

/// The same of a name with escapes.
#[cold]
fn number_of_escaped(names: &[&'static str], raw: &[u8]) -> Option<usize> {
    let mut name = String::new();
    let is_read = raw.len() <= NAME_BYTES_MAX && unescape(raw, &mut name);
    names.iter().position(|known| is_read && *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    const NAMES: [&str; 3] = ["a", "code", "Ünï"];

    /// The members of a line by a parser.
    fn by_parser(line: &[u8]) -> Map<String, Value> {
        let Value::Object(mut all) = serde_json::from_slice(line).unwrap() else { panic!("no object") };
        all.retain(|name, _| NAMES.contains(&&name[..]));
        all
    }

    /// The members of a line as they are found.
    fn found(line: &[u8], kernel: Kernel) -> Option<Map<String, Value>> {
        let (members, mut values, mut object) = (RootMembers::new(NAMES, kernel), Vec::new(), Vec::new());
        if !members.find(line, &mut values) {
            return None;
        }
        write_object(line, members.names().iter().copied().zip(&values), &mut object);
        Some(by_parser(&object))
    }

    /// Escaped names, white space anywhere, values of every form; and what is no whole object.
    #[test]
    fn members_are_found_as_a_parser_finds_them() {
        for line in [
            r#"{"a":1,"code":{"a":[2,"}"]},"b":"a"}"#,
            r#"  { "b" : 1 , "\u0061" : "\"two\\" , "code":null }"#,
            "{\"\u{dc}n\\u00ef\":[{}],\"a\":-1.5e3}",
            r#"{"b":"\\\"","a":true}"#,
            "{}",
        ] {
            for kernel in Kernel::available() {
                assert_eq!(found(line.as_bytes(), kernel), Some(by_parser(line.as_bytes())), "{line}");
            }
        }
        for line in [
            r#"{"a":[],"\u0061":{}}"#,
            "",
            "[]",
            "{",
            r#"{"a"#,
            r#"{"a":"#,
            r#"{"a":1"#,
            r#"{"a" 1}"#,
            r#"{"a":"x}"#,
            r#"{"a":[1}"#,
            "{1}",
            r#"{"a":}"#,
        ] {
            for kernel in Kernel::available() {
                assert_eq!(found(line.as_bytes(), kernel), None, "{line}");
            }
        }
    }

    /// JSON values, nested a little, with texts of all that could mislead.
    fn any_value() -> impl Strategy<Value = Value> {
        let text = "[ -~\\\\\"{}\\[\\]:,é\u{1}]{0,80}".prop_map(Value::from);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let name = prop_oneof![Just("a".to_string()), Just("code".to_string()), "[a-c\"\\\\]{0,9}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((name, inner), 0..5).prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever stands beside and within them, members are those of a parser; with every kernel.
        #[test]
        fn random_documents_are_read_alike(
            members in proptest::collection::vec((prop_oneof!["a", "code", "Ünï", "x[\"\\\\]?"], any_value()), 0..8),
            space in "[ \t]{0,3}",
        ) {
            let member = |(name, value): &(String, Value)| {
                format!("{space}{}{space}:{space}{value}{space}", Value::from(name.clone()))
            };
            let times = |name: &str| members.iter().filter(|(own, _)| own == name).count();
            let has_twice = NAMES.iter().any(|name| times(name) > 1);
            let line = format!("{space}{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","));
            for kernel in Kernel::available() {
                let expected = Some(by_parser(line.as_bytes())).filter(|_| !has_twice);
                prop_assert_eq!(found(line.as_bytes(), kernel), expected, "{}", line);
            }
        }
    }
}
