//! Rewrites the URLs of attachments in rows, in pieces of any size (ATTACH-02, ATTACH-04).
//!
//! An attachment's URL is a member named `url` whose value is a string that names a Binary relative to its server, wherever it
//! stands in the row. Four elements have a `url` of another kind, which stays as it is: an Extension, whose URL says what it
//! means, the `request` of a Bundle's entry, and a `link`.
//!
//! - Names and values may be escaped; a value keeps its bytes unless it is replaced.
//! - Of equal names each is treated by itself.
//! - A row is one that an index took, so brackets and strings close. On other text nothing panics.

use memchr::memchr2;

use crate::extract::unescape::unescape;
use crate::fhir::attachment_url::named_binary;
use crate::fhir::reference::Reference;
use crate::limits::{ID_BYTES_MAX, R4_ID_BYTES_MAX};

/// Longest raw text of a name that is looked at: the longest of [`NameRole::of`], every character of it escaped.
const NAME_BYTES_MAX: usize = 6 * "modifierExtension".len();
/// Longest raw text of a URL that can be one of a Binary, every character of it escaped.
const URL_BYTES_MAX: usize = 6 * ("Binary/".len() + ID_BYTES_MAX + "/_history/".len() + R4_ID_BYTES_MAX);
/// Most containers in one another that are kept in mind because of their names. Whatever is deeper in them stays as it is.
const KEPT_MAX: usize = 1024;

/// Makes the text that replaces a URL, as it is to stand between quotes; `None` to leave it.
pub(crate) type NewUrl<'a> = &'a mut dyn FnMut(Reference<'_>) -> Option<String>;

/// Rewrites rows, one after another.
#[derive(Default)]
pub(crate) struct UrlRewriter {
    step: RewriteStep,
    /// Number of open containers.
    depth: u64,
    /// Open containers whose objects keep their `url`, outermost first.
    kept: Vec<KeptContainer>,
    /// What the string is, should it be a name, that has ended.
    ended: NameRole,
    /// The name whose value comes next.
    name: NameRole,
    /// Raw text of the string that is read. That of a value has not been written yet.
    held: Vec<u8>,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RewriteStep {
    /// Outside of strings.
    #[default]
    Outside,
    /// In a string that may be a name. `escaped` if the byte is.
    Name { escaped: bool },
    /// In the value of a `url`.
    Url { escaped: bool },
    /// In the rest of a string that is too long to be looked at.
    Rest { escaped: bool },
}

/// What a member is to the rewriter by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NameRole {
    #[default]
    Other,
    /// A URL.
    Url,
    /// An element whose own `url` is none of an attachment.
    Keeper,
}

impl NameRole {
    /// What the member is whose name has this text.
    fn of(name: &[u8]) -> NameRole {
        match name {
            b"url" => NameRole::Url,
            b"extension" | b"modifierExtension" | b"request" | b"link" => NameRole::Keeper,
            _ => NameRole::Other,
        }
    }

    /// The same of a name with this raw text.
    fn of_raw(raw: &[u8]) -> NameRole {
        if memchr::memchr(b'\\', raw).is_none() {
            return NameRole::of(raw);
        }
        let mut name = String::new();
        match raw.len() <= NAME_BYTES_MAX && unescape(raw, &mut name) {
            true => NameRole::of(name.as_bytes()),
            false => NameRole::Other,
        }
    }
}

/// An open container whose objects keep their `url`.
#[derive(Clone, Copy)]
struct KeptContainer {
    /// Containers that are open within and with it.
    depth: u64,
    /// The same at its objects: itself, or the elements of an array.
    objects: u64,
}

impl UrlRewriter {
    /// Takes the next piece of a row, and appends to `out` what it gives.
    pub(crate) fn feed(&mut self, piece: &[u8], new_url: NewUrl<'_>, out: &mut Vec<u8>) {
        let (mut at, mut copied) = (0, 0);
        while at < piece.len() {
            let (RewriteStep::Name { escaped } | RewriteStep::Url { escaped } | RewriteStep::Rest { escaped }) =
                self.step
            else {
                self.take_outside(piece[at]);
                at += 1;
                continue;
            };
            let start = at;
            let (end, has_ended, escaped) = end_of_string(piece, at, escaped);
            at = end + usize::from(has_ended);
            let text = &piece[start..end];
            match self.step {
                RewriteStep::Name { .. } => {
                    let is_whole = has_ended && self.held.is_empty();
                    if !is_whole {
                        let room = (NAME_BYTES_MAX + 1).saturating_sub(self.held.len());
                        self.held.extend_from_slice(&text[..text.len().min(room)]);
                    }
                    if has_ended {
                        self.ended = NameRole::of_raw(if is_whole { text } else { &self.held });
                    }
                }
                RewriteStep::Url { .. } => {
                    out.extend_from_slice(&piece[copied..start]);
                    copied = end;
                    self.take_url(text, has_ended, new_url, out);
                }
                RewriteStep::Rest { .. } | RewriteStep::Outside => {}
            }
            self.step = match self.step {
                _ if has_ended => RewriteStep::Outside,
                RewriteStep::Name { .. } => RewriteStep::Name { escaped },
                RewriteStep::Url { .. } => RewriteStep::Url { escaped },
                RewriteStep::Rest { .. } | RewriteStep::Outside => RewriteStep::Rest { escaped },
            };
        }
        out.extend_from_slice(&piece[copied..]);
    }

    /// Ends the row, and appends to `out` what is left of it. `false` if it is not complete.
    pub(crate) fn end_row(&mut self, out: &mut Vec<u8>) -> bool {
        if let RewriteStep::Url { .. } = self.step {
            out.extend_from_slice(&self.held);
        }
        let is_complete = self.step == RewriteStep::Outside && self.depth == 0;
        self.held.clear();
        self.kept.clear();
        (self.step, self.depth, self.ended, self.name) = (RewriteStep::Outside, 0, NameRole::Other, NameRole::Other);
        is_complete
    }

    /// Takes a byte outside of strings.
    fn take_outside(&mut self, byte: u8) {
        let ended = std::mem::take(&mut self.ended);
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => self.ended = ended,
            b':' => self.name = ended,
            b'"' => {
                let is_url = std::mem::take(&mut self.name) == NameRole::Url && !self.keeps_url();
                self.held.clear();
                self.step =
                    if is_url { RewriteStep::Url { escaped: false } } else { RewriteStep::Name { escaped: false } };
            }
            b'{' | b'[' => {
                self.depth += 1;
                let is_kept = std::mem::take(&mut self.name) == NameRole::Keeper;
                if is_kept && self.kept.len() < KEPT_MAX {
                    let objects = self.depth + u64::from(byte == b'[');
                    self.kept.push(KeptContainer { depth: self.depth, objects });
                }
            }
            b'}' | b']' => {
                self.name = NameRole::Other;
                self.kept.pop_if(|kept| kept.depth == self.depth);
                self.depth = self.depth.saturating_sub(1);
            }
            _ => self.name = NameRole::Other,
        }
    }

    /// Whether a `url` of the innermost container stays as it is.
    fn keeps_url(&self) -> bool {
        let is_full = self.kept.len() == KEPT_MAX;
        self.kept.last().is_some_and(|kept| kept.objects == self.depth || is_full)
    }

    /// Takes text of a URL, up to its end or that of the piece.
    fn take_url(&mut self, text: &[u8], has_ended: bool, new_url: NewUrl<'_>, out: &mut Vec<u8>) {
        if self.held.len() + text.len() > URL_BYTES_MAX {
            out.extend_from_slice(&self.held);
            out.extend_from_slice(text);
            self.held.clear();
            self.step = RewriteStep::Rest { escaped: false };
            return;
        }
        self.held.extend_from_slice(text);
        if has_ended {
            let mut url = String::new();
            let new = unescape(&self.held, &mut url).then(|| named_binary(&url)).flatten().and_then(new_url);
            out.extend_from_slice(new.as_ref().map_or(&self.held[..], |new| new.as_bytes()));
        }
    }
}

/// The end of a string or of the piece, from `at` on; whether it is the string's, and whether the byte behind the piece is
/// escaped. `escaped` says so of the byte at `at`.
fn end_of_string(piece: &[u8], mut at: usize, escaped: bool) -> (usize, bool, bool) {
    at += usize::from(escaped);
    while let Some(found) = piece.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        match piece[at + found] {
            b'"' => return (at + found, true, false),
            _ => at += found + 2,
        }
    }
    (piece.len(), false, at > piece.len())
}
