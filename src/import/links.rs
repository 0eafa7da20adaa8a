//! Links between the entries of a Bundle, replaced in a row by references to the rows that the entries became.
//!
//! Replaced are the strings of `reference`, and of `url`, `valueUri`, `valueUrl`, `valueOid` and `valueUuid` where they are
//! the `urn:` fullUrl of an entry (<https://hl7.org/fhir/R4/http.html#trules>). All other bytes stay.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::extract::unescape::unescape;
use crate::fhir::conditional_reference::ConditionalReference;
use crate::fhir::resource_type::ResourceType;
use crate::import::entry::{BundleKind, RowTarget};
use crate::import::outline::type_and_id;
use crate::import::targets::{OpenBundle, UrlTable};
use crate::limits::{IMPORT_LINKS_CACHED_MAX, REFERENCE_BYTES_MAX};
use crate::simd::Kernel;

/// Resources that searches by identifier match, at most some of each.
pub(crate) type SearchMatches = HashMap<(ResourceType, String), Vec<RowTarget>>;

/// A string of a row that may be a link, and whether it is a reference.
struct LinkPlace {
    /// Between its quotes.
    range: Range<usize>,
    is_reference: bool,
}

/// Replaces links in the rows of one Bundle.
pub(crate) struct LinkRewriter<'a> {
    bundle: &'a OpenBundle<'a>,
    table: &'a UrlTable,
    matches: &'a SearchMatches,
    /// Rows that stand for another resource, by their own relative reference.
    renamed: &'a HashMap<String, RowTarget>,
    /// References to the rows that links to entries lead to.
    known: HashMap<String, Option<Box<str>>>,
    /// What the link in hand becomes.
    new: String,
    places: Vec<LinkPlace>,
}

/// A link that leads nowhere: its offset in the compact row, and why.
pub(crate) type BrokenLink = (usize, &'static str);

const NO_ENTRY: &str = "a reference by urn: names an entry that the Bundle does not have";
const NO_MATCH: &str = "a conditional reference matches no resource of the Bundle or the store";
const MANY_MATCHES: &str = "a conditional reference matches several resources of the Bundle or the store";
const NO_SEARCH: &str =
    "a conditional reference searches by something other than one identifier, as Type?identifier=system|value";
const TOO_LONG: &str = "a reference is longer than any that is read";

static REFERENCE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"reference\":\""));
static URN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b":\"urn:"));
static ESCAPED_LETTER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u00"));

/// Names, beside `reference`, whose values may be links.
const URI_NAMES: [&[u8]; 5] = [b"url", b"valueUri", b"valueUrl", b"valueOid", b"valueUuid"];

impl<'a> LinkRewriter<'a> {
    /// A rewriter for the rows of a Bundle.
    pub(crate) fn new(
        bundle: &'a OpenBundle<'a>,
        table: &'a UrlTable,
        matches: &'a SearchMatches,
        renamed: &'a HashMap<String, RowTarget>,
    ) -> LinkRewriter<'a> {
        LinkRewriter { bundle, table, matches, renamed, known: HashMap::new(), new: String::new(), places: Vec::new() }
    }

    /// Passes a row without white space between its tokens to `emit`, in pieces, its links replaced. Whatever is broken in it
    /// is told to `on_broken`.
    pub(crate) fn rewrite(&mut self, row: &[u8], emit: &mut impl FnMut(&[u8]), on_broken: &mut dyn FnMut(BrokenLink)) {
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        find_links(row, &mut places);
        let mut written = 0;
        for LinkPlace { range, is_reference } in &places {
            let raw = &row[range.clone()];
            if raw.len() > REFERENCE_BYTES_MAX {
                on_broken((range.start, TOO_LONG));
                continue;
            }
            let Some(text) = plain_text(raw) else { continue };
            match self.replacement(&text, *is_reference) {
                Ok(false) => {}
                Ok(true) if !*is_reference && is_own_url(row, range) => {}
                Ok(true) => {
                    emit(&row[written..range.start]);
                    emit(self.new.as_bytes());
                    written = range.end;
                }
                Err(reason) => on_broken((range.start, reason)),
            }
        }
        emit(&row[written..]);
        self.places = places;
    }

    /// Puts what a link becomes into `new`; `false` if it stays.
    fn replacement(&mut self, text: &str, is_reference: bool) -> Result<bool, &'static str> {
        self.new.clear();
        if text.starts_with("urn:") {
            return match self.put_entry(text) {
                false if is_reference && (text.starts_with("urn:uuid:") || text.starts_with("urn:oid:")) => {
                    Err(NO_ENTRY)
                }
                is_entry => Ok(is_entry),
            };
        }
        if !is_reference || text.starts_with('#') {
            return Ok(false);
        }
        if text.contains('?') {
            return self.match_of(text);
        }
        let (resource, version) = text.split_once("/_history/").map_or((text, None), |(text, v)| (text, Some(v)));
        let is_absolute = text.starts_with("http://") || text.starts_with("https://");
        let is_replaced = match is_absolute {
            true => self.put_entry(resource),
            false if self.renamed.is_empty() => false,
            false => self.renamed.get(resource).is_some_and(|target| {
                self.new += &target.to_string();
                true
            }),
        };
        if let (true, Some(version)) = (is_replaced, version) {
            self.new += &format!("/_history/{version}");
        }
        Ok(is_replaced)
    }

    /// Puts what a conditional reference becomes into `new`; `false` if it stays.
    fn match_of(&mut self, text: &str) -> Result<bool, &'static str> {
        if self.bundle.rules.kind != BundleKind::Requests {
            return Ok(false);
        }
        let search = ConditionalReference::parse(text).ok_or(NO_SEARCH)?;
        if !self.bundle.rules.bases.contains(search.base) {
            return Ok(false);
        }
        match self.matches.get(&(search.resource_type, search.identifier)).map(Vec::as_slice) {
            Some([single]) => {
                self.new += &single.to_string();
                Ok(true)
            }
            Some([_, _, ..]) => Err(MANY_MATCHES),
            Some([]) | None => Err(NO_MATCH),
        }
    }

    /// Puts a reference to the row of the entry with this fullUrl into `new`; `false` if there is none.
    fn put_entry(&mut self, url: &str) -> bool {
        if let Some(known) = self.known.get(url) {
            self.new.extend(known.as_deref());
            return known.is_some();
        }
        let target = self.table.find(self.bundle, url).and_then(|number| self.bundle.target(number));
        let reference = target.map(|target| target.to_string().into_boxed_str());
        self.new.extend(reference.as_deref());
        let is_entry = reference.is_some();
        if self.known.len() >= IMPORT_LINKS_CACHED_MAX {
            self.known.clear();
        }
        self.known.insert(url.to_string(), reference);
        is_entry
    }
}

/// The text of a string between its quotes; `None` if its escapes are none.
fn plain_text(raw: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', raw).is_none() {
        return str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let mut text = String::new();
    unescape(raw, &mut text).then_some(Cow::Owned(text))
}

/// Whether a string is the `url` of the resource itself, which says what it is and leads nowhere.
fn is_own_url(row: &[u8], range: &Range<usize>) -> bool {
    let [found, _] = type_and_id(Kernel::detect(), row, &["url"]);
    found == (range.start - 1..range.end + 1)
}

/// Lists the strings of a row that may be links, in their order.
fn find_links(row: &[u8], places: &mut Vec<LinkPlace>) {
    // A name may be written with escapes; then every string is looked at.
    if ESCAPED_LETTER.find(row).is_some() {
        find_links_slowly(row, places);
        return;
    }
    let mut is_sorted = true;
    for at in REFERENCE.find_iter(row) {
        // A quote behind a brace or a comma begins a name; one within a string has a backslash before it.
        if !matches!(row[..at].last(), Some(b'{' | b',')) {
            continue;
        }
        let from = at + b"\"reference\":\"".len();
        if let Some(len) = string_length(&row[from..]) {
            places.push(LinkPlace { range: from..from + len, is_reference: true });
        }
    }
    let references = places.len();
    for from in URN.find_iter(row).map(|at| at + 2) {
        let before = &row[..from - 2];
        let name = before.strip_suffix(b"\"").and_then(|before| Some(&before[memchr::memrchr(b'"', before)? + 1..]));
        if name.is_some_and(|name| URI_NAMES.contains(&name))
            && let Some(len) = string_length(&row[from..])
        {
            places.push(LinkPlace { range: from..from + len, is_reference: false });
            is_sorted = false;
        }
    }
    if !is_sorted && references > 0 {
        places.sort_by_key(|place| place.range.start);
    }
}

/// Length of the string whose first character `text` begins with; `None` if it does not end.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &text[at..])?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
        if at > text.len() {
            return None;
        }
    }
}

/// As [`find_links`], string by string.
fn find_links_slowly(row: &[u8], places: &mut Vec<LinkPlace>) {
    let mut at = 0;
    let mut name: Option<Range<usize>> = None;
    while let Some(offset) = memchr::memchr(b'"', &row[at..]) {
        let from = at + offset + 1;
        let Some(len) = string_length(&row[from..]) else { return };
        let range = from..from + len;
        at = range.end + 1;
        if row.get(at) == Some(&b':') {
            name = Some(range);
            continue;
        }
        // A value belongs to the name right before it, or to none, as in an array.
        let own = name.take().filter(|name| name.end + 3 == range.start);
        let Some(own) = own.and_then(|name| plain_text(&row[name])) else { continue };
        if own == "reference" {
            places.push(LinkPlace { range, is_reference: true });
        } else if URI_NAMES.contains(&own.as_bytes()) {
            places.push(LinkPlace { range, is_reference: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(row: &str, slowly: bool) -> Vec<(String, bool)> {
        let mut places = Vec::new();
        match slowly {
            true => find_links_slowly(row.as_bytes(), &mut places),
            false => find_links(row.as_bytes(), &mut places),
        }
        let is_urn = |text: &str| text.starts_with("urn:");
        let all = places.into_iter().map(|place| (row[place.range].to_string(), place.is_reference));
        all.filter(|(text, is_reference)| *is_reference || is_urn(text)).collect()
    }

    /// The names of links inside of strings, escaped and in arrays are told from those of members.
    #[test]
    fn links_are_found_where_they_are() {
        let row = r#"{"a":"\"reference\":\"urn:x\"","reference":"urn:1","url":"urn:2","b":["reference","urn:3"],"valueUri":"urn:4\"","value":"urn:5"}"#;
        let expected = [("urn:1", true), ("urn:2", false), (r#"urn:4\""#, false)].map(|(a, b)| (a.to_string(), b));
        assert_eq!(found(row, false), expected);
        assert_eq!(found(row, true), expected);
        let escaped = r#"{"refer\u0065nce":"Patient\/1","\u0075rl":"urn:2"}"#;
        assert_eq!(found(escaped, false), [(r"Patient\/1".to_string(), true), ("urn:2".to_string(), false)]);
    }

    proptest! {
        /// Both ways find the same in any object of strings.
        #[test]
        fn both_ways_agree(members in proptest::collection::vec(
            (prop_oneof!["reference", "url", "valueUri", "[a-c]"], prop_oneof!["urn:[a-z]{0,3}", "[\"\\\\:,{a-c]{0,6}", "reference"]), 0..8)
        ) {
            let text = |text: &String| serde_json::Value::from(text.clone()).to_string();
            let row = members.iter().map(|(name, value)| format!("{}:{}", text(name), text(value)));
            let row = format!("{{{}}}", row.collect::<Vec<_>>().join(","));
            prop_assert_eq!(found(&row, false), found(&row, true));
        }
    }
}
