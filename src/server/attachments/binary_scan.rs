//! Finds the content of a Binary in its row, in pieces of any size: where the text of `data` lies, how many bytes it gives,
//! their hash, and `contentType` (<https://hl7.org/fhir/R4/binary.html>).
//!
//! The row passed the check of an index, and its type and id are compared again, so that another text in its place is noticed.
//! Only short strings are held. Of members with equal names the last one counts.

use memchr::memchr2;

use crate::extract::unescape::unescape;
use crate::fhir::id::Id;
use crate::hash::Hasher128;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::server::attachments::base64_text::Base64Text;
use std::ops::Range;

/// The content of a Binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BinaryContent {
    /// Where the text of `data` lies in the row, without its quotes.
    pub text: Range<u64>,
    /// Number of bytes that the text gives.
    pub bytes: u64,
    /// XXH3-128 of these bytes.
    pub hash: u128,
    /// `contentType`, escapes resolved; `None` if there is none.
    pub content_type: Option<String>,
}

/// Why a row gives no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoContent {
    /// It is not the Binary that was looked for.
    OtherRow,
    /// It has no `data`.
    NoData,
    /// Its `data` is no base64.
    NotBase64,
}

/// Reads one row.
#[derive(Default)]
pub(crate) struct BinaryScan {
    /// Bytes of the pieces so far.
    before: u64,
    depth: u64,
    place: ScanPlace,
    /// Name of the member of the resource whose value comes next, or is read.
    name: MemberName,
    /// The name that has ended, before its colon.
    ended: MemberName,
    /// Raw text of the string that is read, if it may be short.
    held: Vec<u8>,
    /// Start of the text of `data`, and what it has given so far.
    data_start: u64,
    decoder: Base64Text,
    decoded: Vec<u8>,
    bytes: u64,
    hash: Option<Hasher128>,
    /// The last `data`: `Err` if it is no base64.
    data: Option<Result<DataText, NoContent>>,
    resource_type: Option<String>,
    id: Option<String>,
    content_type: Option<String>,
}

/// Where a `data` lies in the row, and the number and the hash of its bytes.
type DataText = (Range<u64>, u64, u128);

/// Where the next byte stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ScanPlace {
    /// Outside of strings.
    #[default]
    Outside,
    /// In a string. `escaped` if the byte is.
    String { escaped: bool },
}

/// A member of the resource by its name.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum MemberName {
    #[default]
    Other,
    ResourceType,
    Id,
    ContentType,
    Data,
}

impl BinaryScan {
    /// Reads the next piece of the row.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let mut at = 0;
        while at < piece.len() {
            let ScanPlace::String { escaped } = self.place else {
                self.take_outside(piece[at], self.before + at as u64);
                at += 1;
                continue;
            };
            let start = at;
            at += usize::from(escaped);
            let mut has_ended = false;
            while let Some(found) = piece.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
                at += found;
                if piece[at] == b'"' {
                    has_ended = true;
                    break;
                }
                at += 2;
            }
            let escaped = !has_ended && at > piece.len();
            let end = if has_ended { at } else { piece.len() };
            self.take_text(&piece[start..end]);
            if has_ended {
                self.end_string(self.before + end as u64);
                self.place = ScanPlace::Outside;
                at = end + 1;
            } else {
                self.place = ScanPlace::String { escaped };
                at = piece.len();
            }
        }
        self.before += piece.len() as u64;
    }

    /// The content of the row, which is that of the Binary with an id.
    ///
    /// # Errors
    /// [`NoContent`].
    pub(crate) fn finish(self, id: &Id) -> Result<BinaryContent, NoContent> {
        let is_whole = self.place == ScanPlace::Outside && self.depth == 0;
        let is_named = self.resource_type.as_deref() == Some("Binary") && self.id.as_deref() == Some(id.as_str());
        if !is_whole || !is_named {
            return Err(NoContent::OtherRow);
        }
        let (text, bytes, hash) = self.data.ok_or(NoContent::NoData)??;
        Ok(BinaryContent { text, bytes, hash, content_type: self.content_type })
    }

    /// Takes a byte outside of strings, at an offset of the row.
    fn take_outside(&mut self, byte: u8, offset: u64) {
        let ended = std::mem::take(&mut self.ended);
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => self.ended = ended,
            b':' => self.name = ended,
            b'"' => {
                self.held.clear();
                self.place = ScanPlace::String { escaped: false };
                if self.name == MemberName::Data {
                    self.data_start = offset + 1;
                    (self.decoder, self.bytes, self.hash) = (Base64Text::default(), 0, Some(Hasher128::new()));
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.name = MemberName::Other;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.name = MemberName::Other;
            }
            _ => self.name = MemberName::Other,
        }
    }

    /// Takes raw text of a string.
    fn take_text(&mut self, text: &[u8]) {
        if self.name != MemberName::Data {
            let room = (REFERENCE_BYTES_MAX + 1).saturating_sub(self.held.len());
            self.held.extend_from_slice(&text[..text.len().min(room)]);
            return;
        }
        let Some(hash) = &mut self.hash else { return };
        self.decoded.clear();
        match self.decoder.feed(text, &mut self.decoded) {
            Ok(()) => {
                self.bytes += self.decoded.len() as u64;
                hash.update(&self.decoded);
            }
            Err(_) => self.hash = None,
        }
    }

    /// Ends a string before an offset of the row.
    fn end_string(&mut self, end: u64) {
        let name = std::mem::take(&mut self.name);
        if name == MemberName::Data {
            let hash = self.hash.take().filter(|_| self.decoder.finish().is_ok());
            let found = hash.map(|hash| (self.data_start..end, self.bytes, hash.digest()));
            self.data = Some(found.ok_or(NoContent::NotBase64));
            return;
        }
        let mut text = String::new();
        let text = (self.held.len() <= REFERENCE_BYTES_MAX && unescape(&self.held, &mut text)).then_some(text);
        match name {
            MemberName::ResourceType => self.resource_type = text,
            MemberName::Id => self.id = text,
            MemberName::ContentType => self.content_type = text,
            MemberName::Other if self.depth == 1 => {
                self.ended = match text.as_deref() {
                    Some("resourceType") => MemberName::ResourceType,
                    Some("id") => MemberName::Id,
                    Some("contentType") => MemberName::ContentType,
                    Some("data") => MemberName::Data,
                    _ => MemberName::Other,
                };
            }
            MemberName::Other | MemberName::Data => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans a row in pieces that end at `cuts`.
    fn scan_pieces(row: &[u8], cuts: &[usize]) -> Result<BinaryContent, NoContent> {
        let (mut scan, mut start) = (BinaryScan::default(), 0);
        for end in cuts.iter().copied().chain([row.len()]) {
            let end = end.clamp(start, row.len());
            scan.feed(&row[start..end]);
            start = end;
        }
        scan.finish(&Id::parse(b"b").unwrap())
    }

    /// Scans a row whole, byte by byte and in two pieces; all find the same.
    #[track_caller]
    fn scan(row: &str) -> Result<BinaryContent, NoContent> {
        let every: Vec<usize> = (0..row.len()).collect();
        let whole = scan_pieces(row.as_bytes(), &[]);
        assert_eq!(scan_pieces(row.as_bytes(), &every), whole);
        (0..row.len()).for_each(|cut| assert_eq!(scan_pieces(row.as_bytes(), &[cut]), whole, "{cut}"));
        whole
    }

    /// ATTACH-02: content is found wherever its members stand, and nowhere else.
    #[test]
    fn content_is_found() {
        for (row, text, bytes, content_type) in [
            (
                r#"{"resourceType":"Binary","id":"b","contentType":"text/plain","data":"aGk="}"#,
                "aGk=",
                "hi",
                "text/plain",
            ),
            (
                r#" { "d\u0061ta" : "aG\/q" ,"x":{"data":"zzz","id":"c"},"a":["data","id"],"\u0069d":"b","contentType":"a\/b","resourceType":"Binary"} "#,
                "aG\\/q",
                "h\u{6f}\u{ea}",
                "a/b",
            ),
            (r#"{"data":"AAAA","id":"c","id":"b","data":"","resourceType":"Binary","contentType":""}"#, "", "", ""),
        ] {
            let found = scan(row).unwrap();
            assert_eq!(&row[found.text.start as usize..found.text.end as usize], text);
            assert_eq!(found.content_type.as_deref(), Some(content_type));
            if bytes.is_ascii() {
                let hash = xxhash_rust::xxh3::xxh3_128(bytes.as_bytes());
                assert_eq!((found.bytes, found.hash), (bytes.len() as u64, hash));
            }
        }
    }

    /// Rows without content, and rows of another resource.
    #[test]
    fn other_rows_have_no_content() {
        for (row, why) in [
            (r#"{"resourceType":"Binary","id":"b"}"#, NoContent::NoData),
            (r#"{"resourceType":"Binary","id":"b","data":null,"x":"aGk="}"#, NoContent::NoData),
            (r#"{"resourceType":"Binary","id":"b","data":["aGk="]}"#, NoContent::NoData),
            (r#"{"resourceType":"Binary","id":"b","data":"a b"}"#, NoContent::NotBase64),
            (r#"{"resourceType":"Binary","id":"b","data":"aG-k"}"#, NoContent::NotBase64),
            (r#"{"resourceType":"Binary","id":"c","data":"aGk="}"#, NoContent::OtherRow),
            (r#"{"resourceType":"Patient","id":"b","data":"aGk="}"#, NoContent::OtherRow),
            (r#"{"resourceType":"Binary","id":"b","data":"aGk="#, NoContent::OtherRow),
            (r#"{"resourceType":"Binary","id":"b","data":"aGk=""#, NoContent::OtherRow),
            (r#"": "Binary","#, NoContent::OtherRow),
            ("", NoContent::OtherRow),
        ] {
            assert_eq!(scan(row), Err(why), "{row}");
        }
    }
}
