//! What a line refers to: every `reference` of a Reference, wherever it stands, the `questionnaire` of a
//! QuestionnaireResponse, and every `url` that names a Binary relative to its server, as attachments do (ATTACH-02).
//!
//! The compartment needs the references on a few paths; what rows refer to beside patients (COMP-06) may stand anywhere,
//! in extensions and contained resources, too. So this reads no structure: in a JSON text an unescaped `"reference"` that a
//! colon follows is a key, for within a string a quote is escaped. Lines whose letters may be escaped, and lines that come in
//! pieces, are read string by string, which is the slow twin.

use std::ops::Range;

use crate::extract::unescape::unescape;
use crate::fhir::context;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::simd::{BLOCK, Kernel, KernelJob, Vector, WINDOW};

/// A text that names another resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mention<'a> {
    /// The `reference` of a Reference.
    Reference(&'a str),
    /// A `url` that begins with `Binary/`.
    Attachment(&'a str),
    /// A `questionnaire`: a canonical URL.
    Questionnaire(&'a str),
    /// A key `patient` or `subject`, or either with an underscore before it, whatever its value.
    Patient,
}

/// The keys whose values are mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MentionKey {
    Reference,
    Url,
    Questionnaire,
    Patient,
}

impl MentionKey {
    /// The key of this name, its escapes resolved.
    fn of(name: &[u8]) -> Option<MentionKey> {
        match name {
            b"reference" => Some(MentionKey::Reference),
            b"url" => Some(MentionKey::Url),
            b"questionnaire" => Some(MentionKey::Questionnaire),
            b"patient" | b"_patient" | b"subject" | b"_subject" => Some(MentionKey::Patient),
            _ => None,
        }
    }

    /// The mention that a value of this key is; `None` if it is none.
    fn mention(self, text: &str) -> Option<Mention<'_>> {
        match self {
            _ if text.len() > REFERENCE_BYTES_MAX => None,
            MentionKey::Reference => Some(Mention::Reference(text)),
            MentionKey::Questionnaire => Some(Mention::Questionnaire(text)),
            MentionKey::Patient => None,
            MentionKey::Url => text.starts_with(ATTACHMENT).then_some(Mention::Attachment(text)),
        }
    }
}

/// How a URL of an attachment begins that is relative to the server.
const ATTACHMENT: &str = "Binary/";
/// Longest raw text of a string whose value may be a mention: every byte of it as `\u0000`.
const RAW_BYTES_MAX: usize = 6 * REFERENCE_BYTES_MAX;
/// Keys that are looked for in lines of few types, as they stand in a line.
const QUESTIONNAIRE: &[u8] = b"\"questionnaire\"";
const PATIENT: [&[u8]; 4] = [b"\"patient\"", b"\"_patient\"", b"\"subject\"", b"\"_subject\""];

/// A line, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MentionLine<'a> {
    /// Its bytes without the line end.
    pub text: &'a [u8],
    /// Whether it may have a backslash.
    pub escapes: bool,
    /// Offsets of the opening quotes of all strings that have the letters of mentions, by [`Vector::mention_letters`]; `None`
    /// if they are not known.
    pub marks: Option<&'a [u16]>,
}

/// What is looked for in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Every `reference`; else those alone that may lead to context, which are few.
    pub every_reference: bool,
    /// `questionnaire`.
    pub questionnaire: bool,
    /// `patient`.
    pub patient: bool,
}

/// Takes the mentions of a line.
pub(crate) trait MentionSink {
    /// Takes the `reference` whose text `rest` begins with, up to its quote, if it is one that was taken before; whether it
    /// was. It is not said of every one.
    fn take_repeated(&mut self, rest: &[u8]) -> bool;
    /// Takes a mention.
    fn take(&mut self, mention: Mention<'_>);
}

/// Finds the mentions of lines, one after another. Its buffers are reused.
pub(crate) struct MentionReader {
    kernel: Kernel,
    found: Vec<(MentionKey, Range<usize>)>,
    text: String,
    strings: StringWalk,
}

impl MentionReader {
    /// A reader that searches with `kernel`.
    pub(crate) fn new(kernel: Kernel) -> MentionReader {
        MentionReader { kernel, found: Vec::new(), text: String::new(), strings: StringWalk::default() }
    }

    /// Passes the mentions of a line to `sink`, in no order: at least those that are wanted. The line was found to be legal
    /// JSON: of any other, any mentions may be found.
    #[inline]
    pub(crate) fn read_line(&mut self, line: MentionLine<'_>, wanted: Wanted, sink: &mut impl MentionSink) {
        let MentionReader { kernel, found, text, strings } = self;
        let MentionLine { text: line, escapes, marks } = line;
        if escapes && may_hide_letters(line) {
            strings.begin();
            return strings.feed(line, &mut |mention| sink.take(mention));
        }
        found.clear();
        let mut search = ValueSearch { line, every_reference: wanted.every_reference, found, sink };
        match marks {
            Some(marks) => marks.iter().for_each(|at| search.find_value(usize::from(*at))),
            None => kernel.run(search),
        }
        let is_there =
            |key: &&[u8]| memchr::memmem::find_iter(line, key).any(|at| colon_behind(line, at, key.len()).is_some());
        if wanted.patient && PATIENT.iter().any(is_there) {
            sink.take(Mention::Patient);
        }
        if wanted.questionnaire {
            let keys = memchr::memmem::find_iter(line, QUESTIONNAIRE);
            found.extend(
                keys.filter_map(|at| Some((MentionKey::Questionnaire, value_of(line, at, QUESTIONNAIRE.len())?))),
            );
        }
        for (key, range) in found {
            visit_value(*key, &line[range.clone()], text, &mut |mention| sink.take(mention));
        }
    }

    /// Begins a line that comes in pieces.
    pub(crate) fn begin_line(&mut self) {
        self.strings.begin();
    }

    /// Passes the mentions of the next piece of the line to `visit`, in their order.
    pub(crate) fn feed_piece(&mut self, piece: &[u8], visit: &mut dyn FnMut(Mention<'_>)) {
        self.strings.feed(piece, visit);
    }
}

/// A mention that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedMention {
    /// As [`Mention::Reference`].
    Reference(String),
    /// As [`Mention::Attachment`].
    Attachment(String),
    /// As [`Mention::Questionnaire`].
    Questionnaire(String),
    /// As [`Mention::Patient`].
    Patient,
}

impl Mention<'_> {
    /// The mention with a text of its own.
    pub(crate) fn to_owned(self) -> OwnedMention {
        match self {
            Mention::Reference(text) => OwnedMention::Reference(text.to_string()),
            Mention::Attachment(text) => OwnedMention::Attachment(text.to_string()),
            Mention::Questionnaire(text) => OwnedMention::Questionnaire(text.to_string()),
            Mention::Patient => OwnedMention::Patient,
        }
    }
}

impl OwnedMention {
    /// The mention, borrowed.
    pub(crate) fn as_mention(&self) -> Mention<'_> {
        match self {
            OwnedMention::Reference(text) => Mention::Reference(text),
            OwnedMention::Attachment(text) => Mention::Attachment(text),
            OwnedMention::Questionnaire(text) => Mention::Questionnaire(text),
            OwnedMention::Patient => Mention::Patient,
        }
    }
}

/// The mentions of a line, read string by string: the slow twin of [`MentionReader::read_line`].
pub(crate) fn read_strings(line: &[u8]) -> Vec<OwnedMention> {
    let mut mentions = Vec::new();
    StringWalk::default().feed(line, &mut |mention| mentions.push(mention.to_owned()));
    mentions
}

/// The offsets of the strings with the letters of mentions in a line that ends at `end` of `text`, the obvious way: the slow
/// twin of [`Row::mentions`](crate::extract::block::row::Row).
#[cfg(test)]
pub(crate) fn marks_of(text: &[u8], end: usize) -> Vec<u16> {
    let (mut marks, mut in_string, mut escaped) = (Vec::new(), false, false);
    for (offset, byte) in text[..end].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => {
                in_string = !in_string;
                if in_string && matches!(text[offset..], [_, _, _, b'f' | b'n', _, b'r', ..]) {
                    marks.push(offset as u16);
                }
            }
            _ => {}
        }
    }
    marks
}

/// Passes the raw text of a value to `visit` as the mention that it is, if it is one. `text` is a buffer.
fn visit_value(key: MentionKey, raw: &[u8], text: &mut String, visit: &mut dyn FnMut(Mention<'_>)) {
    if raw.len() > RAW_BYTES_MAX {
        return;
    }
    let value = match memchr::memchr(b'\\', raw) {
        None => str::from_utf8(raw).ok(),
        Some(_) => unescape(raw, text).then_some(text.as_str()),
    };
    value.and_then(|value| key.mention(value)).into_iter().for_each(visit);
}

/// Whether letters or slashes of a line may be escaped by their numbers: keys and URLs may then be written otherwise.
fn may_hide_letters(line: &[u8]) -> bool {
    memchr::memmem::find_iter(line, b"\\u00")
        .any(|at| matches!(line[at + 4..], [b'4'..=b'7', ..] | [b'2', b'f' | b'F', ..]))
}

/// Finds the values of the keys `reference` and, for attachments, `url` by their places alone, in a line whose letters are
/// not escaped.
struct ValueSearch<'a, S> {
    line: &'a [u8],
    every_reference: bool,
    found: &'a mut Vec<(MentionKey, Range<usize>)>,
    sink: &'a mut S,
}

impl<S: MentionSink> KernelJob for ValueSearch<'_, S> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self, vector: V) {
        let line = self.line;
        let mut start = 0;
        while start < line.len() {
            let mut padded = [0; WINDOW];
            let window = match line[start..].first_chunk::<WINDOW>() {
                Some(window) => window,
                None => {
                    padded[..line.len() - start].copy_from_slice(&line[start..]);
                    &padded
                }
            };
            let quotes = window.first_chunk::<BLOCK>().map_or(0, |block| vector.marks(block).quote);
            let mut marks = quotes & vector.mention_letters(window);
            while marks != 0 {
                let at = start + marks.trailing_zeros() as usize;
                marks &= marks - 1;
                self.find_value(at);
            }
            start += BLOCK;
        }
    }
}

/// Bytes of a reference that [`is_wanted`] looks at.
const START: usize = 3;

/// Whether a raw text that begins so is a reference that is wanted: of any form, or one that may lead to context.
#[inline(always)]
fn is_wanted(start: &[u8; START], every_reference: bool) -> bool {
    // An escape hides what stands there.
    every_reference || context::may_be_relative(start) || start[0] == b'h' || start.contains(&b'\\')
}

impl<S: MentionSink> ValueSearch<'_, S> {
    /// Takes or adds the value that the quote at `at` leads to, if it leads to one.
    #[inline(always)]
    fn find_value(&mut self, at: usize) {
        // `"reference":"` as two integers that overlap: no call for so few bytes.
        const LENGTH: usize = 13;
        const HEAD: &[u8; 8] = b"\"referen";
        const TAIL: &[u8; 8] = b"rence\":\"";
        let line = self.line;
        // Nearly all references stand so, and few of them are wanted.
        if let Some(start) = line[at..].first_chunk::<{ LENGTH + START }>()
            && let (Some(head), Some(tail)) = (start.first_chunk::<8>(), start[LENGTH - 8..].first_chunk::<8>())
            && u64::from_le_bytes(*head) == u64::from_le_bytes(*HEAD)
            && u64::from_le_bytes(*tail) == u64::from_le_bytes(*TAIL)
            && let Some(value) = start.last_chunk::<START>()
        {
            if is_wanted(value, self.every_reference)
                && !is_escaped(line, at)
                && !self.sink.take_repeated(&line[at + LENGTH..])
            {
                let value = string_from(line, at + LENGTH);
                self.found.extend(value.map(|range| (MentionKey::Reference, range)));
            }
            return;
        }
        if matches!(line.get(at + 1), Some(b'r' | b'B')) {
            self.find_other_value(at);
        }
    }

    /// As [`ValueSearch::find_value`], of what is no compact reference.
    fn find_other_value(&mut self, at: usize) {
        const REFERENCE: &[u8] = b"\"reference\"";
        let line = self.line;
        let found = match line[at + 1] {
            b'r' if line[at..].starts_with(REFERENCE) => {
                value_of(line, at, REFERENCE.len()).map(|range| (MentionKey::Reference, range))
            }
            b'B' if is_value_of_url(line, at) => string_from(line, at + 1).map(|range| (MentionKey::Url, range)),
            _ => None,
        };
        self.found.extend(found);
    }
}

/// The range of the raw text of the string that is the value of the key at `at`, which has `len` bytes with its quotes;
/// `None` if it is no key or its value no string.
fn value_of(line: &[u8], at: usize, len: usize) -> Option<Range<usize>> {
    let quote = skip_space(line, colon_behind(line, at, len)? + 1);
    (line.get(quote) == Some(&b'"')).then(|| string_from(line, quote + 1))?
}

/// The place of the colon behind the key at `at`, which has `len` bytes with its quotes; `None` if it is no key.
fn colon_behind(line: &[u8], at: usize, len: usize) -> Option<usize> {
    let colon = skip_space(line, at + len);
    (line.get(colon) == Some(&b':') && !is_escaped(line, at)).then_some(colon)
}

/// The range of the raw text of a string from its first character to its end; `None` if it does not end.
fn string_from(line: &[u8], start: usize) -> Option<Range<usize>> {
    let mut end = start;
    loop {
        end += memchr::memchr2(b'"', b'\\', line.get(end..)?)?;
        match line[end] {
            b'"' => return Some(start..end),
            _ => end += 2,
        }
    }
}

/// Whether the quote at `at` begins a string that is the value of a key `url` and names a Binary.
fn is_value_of_url(line: &[u8], at: usize) -> bool {
    let text = &line[at + 1..];
    if !text.starts_with(b"Binary/") && !text.starts_with(b"Binary\\/") || is_escaped(line, at) {
        return false;
    }
    let before = |end: usize| line[..end].iter().rposition(|byte| !is_space(*byte)).map(|last| last + 1);
    let Some(colon) = before(at).filter(|end| line[*end - 1] == b':') else { return false };
    let Some(key_end) = before(colon - 1) else { return false };
    line[..key_end].ends_with(b"\"url\"") && !is_escaped(line, key_end - b"\"url\"".len())
}

/// Whether the quote at `at` is escaped: an odd number of backslashes stands before it.
fn is_escaped(line: &[u8], at: usize) -> bool {
    line[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 != 0
}

/// The first place from `at` on that is no white space.
fn skip_space(line: &[u8], at: usize) -> usize {
    line.get(at..).and_then(|rest| rest.iter().position(|byte| !is_space(*byte))).map_or(line.len(), |found| at + found)
}

/// White space of RFC 8259.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Reads a JSON text string by string, in pieces of any length.
#[derive(Default)]
struct StringWalk {
    /// Whether the next character is in a string.
    in_string: bool,
    /// Whether the next character is escaped.
    escaped: bool,
    /// Raw text of the string so far, if it is not too long.
    raw: Vec<u8>,
    /// Whether the string is longer than any mention.
    too_long: bool,
    /// What the last token says of the next string.
    last: LastToken,
    text: String,
}

/// The last token of a text, as far as mentions need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LastToken {
    /// Any other.
    #[default]
    Other,
    /// A string of this name, which is a key if a colon follows.
    Name(MentionKey),
    /// The colon behind that key.
    Colon(MentionKey),
}

impl StringWalk {
    /// Begins a text.
    fn begin(&mut self) {
        (self.in_string, self.escaped, self.last) = (false, false, LastToken::Other);
    }

    /// Passes the mentions that end in the next piece to `visit`.
    fn feed(&mut self, piece: &[u8], visit: &mut dyn FnMut(Mention<'_>)) {
        for byte in piece {
            match byte {
                _ if self.in_string => self.take_character(*byte, visit),
                b'"' => {
                    self.in_string = true;
                    self.too_long = false;
                    self.raw.clear();
                }
                b':' => {
                    self.last = match self.last {
                        LastToken::Name(key) => LastToken::Colon(key),
                        _ => LastToken::Other,
                    };
                    if self.last == LastToken::Colon(MentionKey::Patient) {
                        visit(Mention::Patient);
                    }
                }
                byte if is_space(*byte) => {}
                _ => self.last = LastToken::Other,
            }
        }
    }

    /// Takes the next character of a string.
    fn take_character(&mut self, byte: u8, visit: &mut dyn FnMut(Mention<'_>)) {
        match byte {
            b'"' if !self.escaped => {
                self.in_string = false;
                let last = std::mem::take(&mut self.last);
                let is_whole = !self.too_long;
                match last {
                    LastToken::Colon(key) if is_whole => visit_value(key, &self.raw, &mut self.text, visit),
                    LastToken::Colon(_) => {}
                    _ => {
                        let is_name = is_whole && unescape(&self.raw, &mut self.text);
                        let key = is_name.then(|| MentionKey::of(self.text.as_bytes())).flatten();
                        self.last = key.map_or(LastToken::Other, LastToken::Name);
                    }
                }
                return;
            }
            byte => self.escaped = byte == b'\\' && !self.escaped,
        }
        match self.raw.len() < RAW_BYTES_MAX {
            true => self.raw.push(byte),
            false => self.too_long = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Calls a function with each mention.
    struct Visit<F>(F);

    impl<F: FnMut(Mention<'_>)> MentionSink for Visit<F> {
        fn take_repeated(&mut self, _: &[u8]) -> bool {
            false
        }
        fn take(&mut self, mention: Mention<'_>) {
            self.0(mention);
        }
    }

    const ALL: Wanted = Wanted { every_reference: true, questionnaire: true, patient: true };

    fn unmarked(text: &[u8]) -> MentionLine<'_> {
        MentionLine { text, escapes: true, marks: None }
    }

    /// The mentions of a line by the search, from marks, and by the walk in pieces, each sorted.
    fn read(line: &str, kernel: Kernel, cuts: &[usize]) -> [Vec<(u8, String)>; 3] {
        let as_pair = |mention: Mention<'_>| match mention {
            Mention::Reference(text) => (0, text.to_string()),
            Mention::Attachment(text) => (1, text.to_string()),
            Mention::Questionnaire(text) => (2, text.to_string()),
            Mention::Patient => (3, String::new()),
        };
        let mut reader = MentionReader::new(kernel);
        let (mut whole, mut marked, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
        reader.read_line(
            unmarked(line.as_bytes()),
            ALL,
            &mut Visit(|mention: Mention<'_>| whole.push(as_pair(mention))),
        );
        let marks = marks_of(line.as_bytes(), line.len());
        let with_marks = MentionLine { marks: Some(&marks), ..unmarked(line.as_bytes()) };
        reader.read_line(with_marks, ALL, &mut Visit(|mention: Mention<'_>| marked.push(as_pair(mention))));
        let mut rest = line.as_bytes();
        reader.begin_line();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut % (rest.len() + 1));
            reader.feed_piece(piece, &mut |mention| pieces.push(as_pair(mention)));
            rest = after;
        }
        reader.feed_piece(rest, &mut |mention| pieces.push(as_pair(mention)));
        for found in [&mut whole, &mut marked, &mut pieces] {
            found.sort();
            // A repeated `patient` or `subject` key may be reported once or each time: both mean the same.
            found.dedup_by(|a, b| a == b && a.0 == 3);
        }
        [whole, marked, pieces]
    }

    /// The mentions of a value, the obvious way.
    fn of_tree(value: &Value, out: &mut Vec<(u8, String)>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| of_tree(item, out)),
            Value::Object(members) => {
                for (name, value) in members {
                    if ["patient", "_patient", "subject", "_subject"].contains(&name.as_str())
                        && !out.contains(&(3, String::new()))
                    {
                        out.push((3, String::new()));
                    }
                    match (name.as_str(), value) {
                        ("reference", Value::String(text)) => out.push((0, text.clone())),
                        ("url", Value::String(text)) if text.starts_with("Binary/") => out.push((1, text.clone())),
                        ("questionnaire", Value::String(text)) => out.push((2, text.clone())),
                        _ => {}
                    }
                    of_tree(value, out);
                }
            }
            _ => {}
        }
    }

    /// Text of a JSON value: keys and texts that mean something here, escapes of several kinds, white space.
    fn json() -> impl Strategy<Value = String> {
        let text = prop_oneof![
            4 => prop::sample::select(vec![
                "reference", "url", "questionnaire", "patient", "_subject", "p\\u0061tient", "Binary/a", "Binary\\/a", "Bin\\u0061ry/b", "Binary\\u002fa", "Binary\\u002Fa", "\\u0072eference",
                "\\\"reference\\\"", "\\\\", "\\\\\\\"", "ref", "u\\u0072l", "r\\u003cf", "Practitioner/1", "x\\\"url", "\\u00e9",
                "Binary/", "/Binary/c", "\"reference\":\"no".trim_start_matches('"'),
            ]).prop_filter("a quote ends a string", |text| serde_json::from_str::<String>(&format!("\"{text}\"")).is_ok())
                .prop_map(str::to_string),
            1 => "[a-z]{0,70}",
        ];
        let space = || prop::sample::select(vec!["", "", "", " ", "\t \r"]);
        let leaf = prop_oneof![
            4 => text.clone().prop_map(|text| format!("\"{text}\"")),
            1 => prop::sample::select(vec!["1", "null", "true", "{}", "[]"]).prop_map(str::to_string),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let member = (text.clone(), space(), space(), inner.clone(), space());
            prop_oneof![
                3 => prop::collection::vec(member, 0..5).prop_map(|members| {
                    let mut names = std::collections::HashSet::new();
                    let mut own = Vec::new();
                    for (name, a, b, value, c) in members {
                        // A tree keeps one of two members of a name.
                        let plain: String = serde_json::from_str(&format!("\"{name}\"")).unwrap();
                        if names.insert(plain) {
                            own.push(format!("{a}\"{name}\"{b}:{a}{value}{c}"));
                        }
                    }
                    format!("{{{}}}", own.join(","))
                }),
                1 => prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

        /// The search, marks, the walk over pieces and a tree find the same, on every kernel.
        #[test]
        fn the_search_finds_what_a_tree_holds(line in json(), cuts in prop::collection::vec(0..90usize, 0..6)) {
            let mut expected = Vec::new();
            of_tree(&serde_json::from_str(&line).unwrap(), &mut expected);
            expected.sort();
            for kernel in Kernel::available() {
                for found in read(&line, kernel, &cuts) {
                    prop_assert_eq!(&found, &expected, "{}: {}", kernel.name(), line);
                }
            }
        }

        /// No text makes either fail, or read beyond its end.
        #[test]
        fn any_bytes_are_read(line in prop::collection::vec(
            prop_oneof![prop::sample::select(b"\"reference\":\\u0041Binary/url{} ".to_vec()), any::<u8>()], 0..200)) {
            for kernel in Kernel::available() {
                let mut reader = MentionReader::new(kernel);
                reader.read_line(unmarked(&line), ALL, &mut Visit(|_: Mention<'_>| ()));
                reader.begin_line();
                reader.feed_piece(&line, &mut |_| ());
            }
        }
    }

    /// Where not every reference is wanted, those to context and absolute ones are found all the same.
    #[test]
    fn what_is_wanted_is_found() {
        let texts = [
            "Patient/a",
            "Practitioner/a",
            "Encounter/b",
            "Endpoint/b",
            "https://a.example/x/Location/1",
            "Pr\\/x",
            "#p",
        ];
        let members: Vec<String> = texts.iter().map(|text| format!(r#"{{"reference":"{text}"}}"#)).collect();
        let line = format!("[{}, {{\"reference\" : \"Patient/b\"}}]", members.join(","));
        let mut found = Vec::new();
        MentionReader::new(Kernel::detect()).read_line(
            unmarked(line.as_bytes()),
            Wanted::default(),
            &mut Visit(|mention: Mention<'_>| found.push(mention.to_owned())),
        );
        let expected = ["Practitioner/a", "Endpoint/b", "https://a.example/x/Location/1", "Pr/x", "Patient/b"];
        assert_eq!(found, expected.map(|text| OwnedMention::Reference(text.to_string())));
    }

    /// Texts that no reference can have are passed over, whichever way they are read.
    #[test]
    fn long_texts_are_no_mentions() {
        for (length, expected) in [(REFERENCE_BYTES_MAX, 1), (REFERENCE_BYTES_MAX + 1, 0), (RAW_BYTES_MAX + 9, 0)] {
            let line = format!(r#"{{"reference":"{}"}}"#, "x".repeat(length));
            for found in read(&line, Kernel::detect(), &[5, 40]) {
                assert_eq!(found.len(), expected, "{length}");
            }
        }
    }
}
