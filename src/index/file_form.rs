//! Tells what a store file is that holds no NDJSON, by its first bytes: one message for the file says more than one for
//! each of its lines.

use crate::codec::compression::{LFS_POINTER, SeekPoint};
use crate::codec::decoder::Decoder;
use crate::ids::FileId;
use crate::index::snapshot::Index;

/// Uncompressed bytes at the start of a file that are looked at.
const LOOK_BYTES: usize = 4096;

/// What a file is whose lines are no resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileForm {
    /// Text in UTF-16.
    Utf16,
    /// What Git LFS leaves in the place of a file that was not fetched.
    LfsPointer,
    /// One JSON array.
    JsonArray,
    /// One JSON object over several lines.
    JsonDocument,
    /// One Bundle over several lines.
    BundleDocument,
}

impl FileForm {
    /// The form of a store file of so many lines; `None` if it is another one, or the file cannot be read.
    pub(crate) fn of_file(index: &Index, file: FileId, lines: u64) -> Option<FileForm> {
        let source = index.source(file).ok()?;
        let mut decoder = Decoder::new(source, index.compression(file), SeekPoint::default()).ok()?;
        let piece = decoder.piece(|_| {}).ok()??;
        FileForm::of_text(&piece[..piece.len().min(LOOK_BYTES)], lines)
    }

    /// The form of a text of so many lines that begins with these bytes.
    pub(crate) fn of_text(start: &[u8], lines: u64) -> Option<FileForm> {
        if [&b"\xff\xfe"[..], b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0["].iter().any(|mark| start.starts_with(mark)) {
            return Some(FileForm::Utf16);
        }
        if start.starts_with(LFS_POINTER) {
            return Some(FileForm::LfsPointer);
        }
        let body = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
        // A line that ends so is not the end of a value; with nothing behind it, it was cut off.
        let goes_on = memchr::memchr(b'\n', body).is_some_and(|end| {
            let (line, rest) = body.split_at(end);
            line.trim_ascii_end().last().is_some_and(|last| b"{[,:".contains(last)) && !rest.trim_ascii().is_empty()
        });
        match body.first()? {
            b'[' if goes_on || lines == 1 => Some(FileForm::JsonArray),
            b'{' if goes_on && names_bundle(body) => Some(FileForm::BundleDocument),
            b'{' if goes_on => Some(FileForm::JsonDocument),
            _ => None,
        }
    }

    /// Whether a file of this form can hold no resource; a line of an array may by chance be one.
    pub(crate) fn excludes_rows(self) -> bool {
        matches!(self, FileForm::JsonDocument | FileForm::BundleDocument)
    }

    /// What the file is, and what to do.
    pub(crate) fn words(self) -> &'static str {
        match self {
            FileForm::Utf16 => "the file is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
            FileForm::LfsPointer => {
                "the file is a pointer of Git LFS in the place of the data; fetch them (git lfs pull)"
            }
            FileForm::JsonArray => "the file is one JSON array; write its elements one a line (jq -c '.[]')",
            FileForm::JsonDocument => {
                "the file is one JSON document over several lines; write one resource a line (jq -c .)"
            }
            FileForm::BundleDocument => {
                "the file is one Bundle over several lines; take it apart, one resource a line \
                 (jq -c '.entry[].resource')"
            }
        }
    }
}

/// Whether the start of an object says that it is a Bundle.
fn names_bundle(start: &[u8]) -> bool {
    let key = b"\"resourceType\"";
    memchr::memmem::find_iter(start, key).next().is_some_and(|at| {
        let rest = start[at + key.len()..].trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"\"Bundle\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_first_bytes() {
        let utf16: Vec<u8> = "{\"resourceType\"".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let forms: [(&[u8], Option<FileForm>); 20] = [
            (b"", None),
            (b"\xff\xfe{\0", Some(FileForm::Utf16)),
            (b"\xfe\xff\0{", Some(FileForm::Utf16)),
            (&utf16, Some(FileForm::Utf16)),
            (b"version https://git-lfs.github.com/spec/v1\noid", Some(FileForm::LfsPointer)),
            (b"version https://example.org", None),
            (b"[{\"resourceType\":\"Patient\"}]", Some(FileForm::JsonArray)),
            (b"\xef\xbb\xbf \n [\n{}", Some(FileForm::JsonArray)),
            // Arrays one a line are no single one.
            (b"[]\n{\"resourceType\":\"Patient\"}\n", None),
            (b"[{}]\n[{}]\n", None),
            (b"{\n  \"resourceType\": \"Patient\",\n", Some(FileForm::JsonDocument)),
            (b"{ \"id\": \"a\",\r\n \"resourceType\" :\t\"Bundle\"}", Some(FileForm::BundleDocument)),
            (b"{\"resourceType\":\"Bundle\",\"entry\":[\n{", Some(FileForm::BundleDocument)),
            (b"{\"resourceType\":\n\"Bundles\"", Some(FileForm::JsonDocument)),
            // One line, torn or not, is no document of several.
            (b"{\"resourceType\":\"Bundle\",", None),
            (b"{\"resourceType\":\"Bundle\",\n \n", None),
            (b"{\"resourceType\":\"Bundle\"}\n", None),
            (b"{\"resourceType\":\"Patient\"\n", None),
            (b"no JSON,\n", None),
            (b"\n\n", None),
        ];
        for (start, form) in forms {
            let lines = memchr::memchr_iter(b'\n', start).count() as u64 + u64::from(!start.ends_with(b"\n"));
            assert_eq!(FileForm::of_text(start, lines), form, "{}", String::from_utf8_lossy(start));
        }
    }
}
