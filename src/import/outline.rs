//! The outline of a Bundle: where its entries stand, and a hash of each fullUrl, found in one pass over brackets and
//! quotes, 64 bytes at a time.
//!
//! The grammar is checked later: that of the Bundle without its entries, of each entry without its resource, and of each
//! resource. Only what stands between two entries is checked here, because no later look sees it.

use std::borrow::Cow;
use std::ops::Range;

use crate::casts::to_usize;
use crate::extract::root_members::{number_of, pass_to, pass_value};
use crate::extract::unescape::unescape;
use crate::hash::xxh3_64;
use crate::simd::block_cursor::{BlockCursor, StringCarry};
use crate::simd::{Kernel, KernelJob, Vector};

/// Where an entry stands in its Bundle: 24 bytes an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPlace {
    /// Offset of its brace in the Bundle, in bytes.
    pub start: u64,
    /// Hash of its fullUrl; 0 if it has none.
    pub url_hash: u64,
    /// Offset of its resource from `start`, and the resource's length; a length of 0 if there is none, and
    /// [`UNMEASURED`] if either does not fit.
    resource_at: u32,
    resource_len: u32,
}

/// Length of a resource that has to be found again.
const UNMEASURED: u32 = u32::MAX;

/// Names of the members of a Bundle that the outline has.
const BUNDLE_NAMES: [&str; 4] = ["entry", "type", "meta", "resourceType"];
/// Names of the members of an entry that the outline has.
const ENTRY_NAMES: [&str; 2] = ["fullUrl", "resource"];

/// Where the parts of a Bundle stand, relative to its first byte.
#[derive(Default)]
pub(crate) struct BundleOutline {
    /// The entries.
    pub entries: Vec<EntryPlace>,
    /// From behind the bracket that opens the entries up to the one that closes them; empty without entries.
    pub array: Range<usize>,
    /// The values of `type` and `meta`, empty if there are none.
    pub bundle_type: Range<usize>,
    pub meta: Range<usize>,
    /// Offset behind the Bundle; the end of the text if it is cut off.
    pub end: usize,
    /// Where it ends too early or is no JSON, and why; entries before that are listed.
    pub fault: Option<(usize, &'static str)>,
}

impl BundleOutline {
    /// The outline of the Bundle that `text` begins with.
    pub(crate) fn of(kernel: Kernel, text: &[u8]) -> BundleOutline {
        let mut outline = BundleOutline::default();
        outline.fault = kernel.run(OutlineJob { text, outline: &mut outline }).err();
        if outline.fault.is_some() {
            outline.end = text.len();
            outline.array.end = outline.array.end.max(outline.array.start);
        }
        outline
    }

    /// Where an entry stands in the Bundle, and where its resource stands in the entry, if it has one.
    pub(crate) fn entry(&self, text: &[u8], number: usize) -> (Range<usize>, Option<Range<usize>>) {
        let place = &self.entries[number];
        let start = to_usize(place.start);
        let end = match self.entries.get(number + 1) {
            Some(next) => to_usize(next.start),
            None => self.array.end,
        };
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',');
        let behind = text[start..end].iter().rev().take_while(|byte| is_between(byte)).count();
        let range = start..end - behind;
        let resource = match place.resource_len {
            0 => None,
            UNMEASURED => {
                let [found, _] = type_and_id(Kernel::detect(), &text[range.clone()], &["resource"]);
                Some(found).filter(|found| !found.is_empty())
            }
            len => Some(place.resource_at as usize..place.resource_at as usize + len as usize),
        };
        (range, resource)
    }

    /// The resource of an entry, if it has one; mostly the end of the entry is not looked at.
    pub(crate) fn resource<'t>(&self, text: &'t [u8], number: usize) -> Option<&'t [u8]> {
        let place = &self.entries[number];
        if matches!(place.resource_len, 0 | UNMEASURED) {
            let (range, resource) = self.entry(text, number);
            return Some(&text[range][resource?]);
        }
        let from = to_usize(place.start) + place.resource_at as usize;
        Some(&text[from..from + place.resource_len as usize])
    }

    /// The Bundle without its entries; `None` if that is longer than `bytes_max`.
    pub(crate) fn without_entries(&self, text: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let (before, behind) = (&text[..self.array.start], &text[self.array.end..self.end]);
        (before.len() + behind.len() <= bytes_max).then(|| [before, behind].concat())
    }
}

/// Why the outline ends, and at which offset.
type OutlineFault = (usize, &'static str);

const CUT: &str = "the file ends inside the Bundle; write it again as a whole";
const GRAMMAR: &str = "the Bundle is no JSON here (RFC 8259)";
const TWO_LISTS: &str = "the Bundle has two members named entry; parsers disagree on which one holds";
const NO_OBJECT: &str = "an entry is no JSON object";
const NO_ARRAY: &str = "entry is no JSON array";

/// A Bundle on its way through [`BundleOutline::of`].
struct OutlineJob<'a> {
    text: &'a [u8],
    outline: &'a mut BundleOutline,
}

impl KernelJob for OutlineJob<'_> {
    type Output = Result<(), OutlineFault>;
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> Result<(), OutlineFault> {
        let OutlineJob { text, outline } = self;
        let mut cursor = BlockCursor::new(vector, text, StringCarry::default());
        let mut has_entries = false;
        if !pass_to(&mut cursor, b'{') {
            return Err((cursor.at, GRAMMAR));
        }
        while let Some(name) = next_name(&mut cursor, text)? {
            let from = cursor.at;
            match number_of(&BUNDLE_NAMES, &text[name]) {
                Some(0) => {
                    if std::mem::replace(&mut has_entries, true) {
                        return Err((from, TWO_LISTS));
                    }
                    if cursor.byte() != Some(b'[') {
                        return Err((from, NO_ARRAY));
                    }
                    cursor.at += 1;
                    outline.array = cursor.at..cursor.at;
                    list_entries(&mut cursor, text, outline)?;
                    cursor.at += 1;
                }
                number => {
                    if !pass_value(&mut cursor, text) {
                        return Err((text.len(), CUT));
                    }
                    match number {
                        Some(1) => outline.bundle_type = from..cursor.at,
                        Some(2) => outline.meta = from..cursor.at,
                        _ => {}
                    }
                }
            }
        }
        outline.end = cursor.at;
        Ok(())
    }
}

/// Lists the entries of the array that begins here, up to the bracket that closes it.
#[inline(always)]
fn list_entries<V: Vector>(
    cursor: &mut BlockCursor<'_, V>,
    text: &[u8],
    outline: &mut BundleOutline,
) -> Result<(), OutlineFault> {
    skip_space(cursor);
    if cursor.byte() == Some(b']') {
        outline.array.end = cursor.at;
        return Ok(());
    }
    loop {
        skip_space(cursor);
        match cursor.byte() {
            Some(b'{') => {}
            Some(_) => return Err((cursor.at, NO_OBJECT)),
            None => return Err((text.len(), CUT)),
        }
        let start = cursor.at;
        cursor.at += 1;
        let mut place = EntryPlace { start: start as u64, url_hash: 0, resource_at: 0, resource_len: 0 };
        while let Some(name) = next_name(cursor, text)? {
            let from = cursor.at;
            if !pass_value(cursor, text) {
                return Err((text.len(), CUT));
            }
            match number_of(&ENTRY_NAMES, &text[name]) {
                Some(0) => place.url_hash = hash_of_value(&text[from..cursor.at]),
                Some(1) => {
                    let (at, len) = (u32::try_from(from - start), u32::try_from(cursor.at - from));
                    (place.resource_at, place.resource_len) = match (at, len) {
                        (Ok(at), Ok(len)) => (at, len),
                        _ => (0, UNMEASURED),
                    };
                }
                _ => {}
            }
        }
        outline.entries.push(place);
        outline.array.end = cursor.at;
        skip_space(cursor);
        match cursor.byte() {
            Some(b',') => cursor.at += 1,
            Some(b']') => break,
            Some(_) => return Err((cursor.at, GRAMMAR)),
            None => return Err((text.len(), CUT)),
        }
    }
    outline.array.end = cursor.at;
    Ok(())
}

/// Moves to the value of the next member, and returns where its name stands; `None` behind the end of the object.
#[inline(always)]
fn next_name<V: Vector>(cursor: &mut BlockCursor<'_, V>, text: &[u8]) -> Result<Option<Range<usize>>, OutlineFault> {
    loop {
        match cursor.byte() {
            Some(b'"') => break,
            Some(b'}') => {
                cursor.at += 1;
                return Ok(None);
            }
            Some(b',' | b' ' | b'\t' | b'\n' | b'\r') => cursor.at += 1,
            Some(_) => return Err((cursor.at, GRAMMAR)),
            None => return Err((text.len(), CUT)),
        }
    }
    cursor.at += 1;
    let from = cursor.at;
    if !cursor.find_quote() {
        return Err((text.len(), CUT));
    }
    let name = from..cursor.at;
    cursor.at += 1;
    let behind = cursor.at;
    if !pass_to(cursor, b':') {
        return Err(if cursor.byte().is_none() { (text.len(), CUT) } else { (behind, GRAMMAR) });
    }
    skip_space(cursor);
    Ok(Some(name))
}

/// Moves behind white space.
#[inline(always)]
fn skip_space<V: Vector>(cursor: &mut BlockCursor<'_, V>) {
    while matches!(cursor.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        cursor.at += 1;
    }
}

/// Hash of the text of a string, escapes resolved; 0 of any other value.
fn hash_of_value(value: &[u8]) -> u64 {
    let Some(raw) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else { return 0 };
    if memchr::memchr(b'\\', raw).is_none() {
        return hash_of_url(raw);
    }
    let mut text = String::new();
    if unescape(raw, &mut text) { hash_of_url(text.as_bytes()) } else { 0 }
}

/// Hash of a fullUrl, never 0.
pub(crate) fn hash_of_url(url: &[u8]) -> u64 {
    xxh3_64(url).max(1)
}

/// Offset behind the value that `text` begins with; `None` if it is cut off or no value.
pub(crate) fn value_end(kernel: Kernel, text: &[u8]) -> Option<usize> {
    kernel.run(ValueEnd { text })
}

/// A value on its way through [`value_end`].
struct ValueEnd<'a> {
    text: &'a [u8],
}

impl KernelJob for ValueEnd<'_> {
    type Output = Option<usize>;
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> Option<usize> {
        let mut cursor = BlockCursor::new(vector, self.text, StringCarry::default());
        pass_value(&mut cursor, self.text).then_some(cursor.at)
    }
}

/// Where `resourceType` and `id` stand in a resource, relative to its first byte; empty ranges if they are not there. Ends
/// at the second one of them. What stands twice, or is no JSON, is left to a later check.
pub(crate) fn type_and_id(kernel: Kernel, text: &[u8], names: &'static [&'static str]) -> [Range<usize>; 2] {
    kernel.run(HeadJob { text, names })
}

/// Names that [`type_and_id`] looks for.
pub(crate) const TYPE_AND_ID: &[&str] = &["resourceType", "id"];

/// A resource on its way through [`type_and_id`].
struct HeadJob<'a> {
    text: &'a [u8],
    names: &'static [&'static str],
}

impl KernelJob for HeadJob<'_> {
    type Output = [Range<usize>; 2];
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> [Range<usize>; 2] {
        let HeadJob { text, names } = self;
        let mut cursor = BlockCursor::new(vector, text, StringCarry::default());
        let mut found = [0..0, 0..0];
        if !pass_to(&mut cursor, b'{') {
            return found;
        }
        while let Ok(Some(name)) = next_name(&mut cursor, text) {
            let from = cursor.at;
            if !pass_value(&mut cursor, text) {
                break;
            }
            if let Some(number) = number_of(names, &text[name]) {
                found[number] = from..cursor.at;
                if found[..names.len()].iter().all(|range| !range.is_empty()) {
                    break;
                }
            }
        }
        found
    }
}

/// The text of a JSON string, escapes resolved; `None` of any other value.
pub(crate) fn text_of_value(value: &[u8]) -> Option<Cow<'_, str>> {
    let raw = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', raw).is_none() {
        return str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let mut text = String::new();
    unescape(raw, &mut text).then_some(Cow::Owned(text))
}
