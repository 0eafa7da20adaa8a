//! The manifest of an export, in the shape of the Bulk Data IG (MANIFEST-01…18).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fhir::instant::Instant;
use crate::hash::digest::Digest;
use crate::write::journal::Receipt;

/// Key of the root extension: snapshot, policies and ledger.
pub(crate) const EXPORT_KEY: &str = "urn:outpour:export:1";
/// Key of the extension of an item.
pub(crate) const FILE_KEY: &str = "urn:outpour:file:1";

/// A manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// T of the snapshot.
    pub transaction_time: String,
    /// The request as its kick-off URL.
    pub request: String,
    /// Always false here: files are files.
    pub requires_access_token: bool,
    /// Files of resources by type name, then number.
    pub output: Vec<ManifestItem>,
    /// Files of deletions; the key is left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<ManifestItem>,
    /// Files of messages.
    pub error: Vec<ManifestItem>,
    /// Extensions by key.
    #[serde(default)]
    pub extension: Map<String, Value>,
}

/// A file of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestItem {
    /// Type of its lines.
    pub r#type: String,
    /// Where it is.
    pub url: String,
    /// Its lines.
    pub count: u64,
    /// Extensions by key.
    #[serde(default)]
    pub extension: Map<String, Value>,
}

/// What an item's extension holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFacts {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Digest over the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl ManifestItem {
    /// The manifest entry of a finished file.
    fn of(receipt: &Receipt, base_url: &str) -> ManifestItem {
        let facts = FileFacts { bytes: receipt.bytes, file_bytes: receipt.file_bytes, digest: receipt.digest.clone() };
        let mut extension = Map::new();
        extension.insert(FILE_KEY.to_string(), serde_json::to_value(facts).expect("plain data"));
        ManifestItem {
            r#type: receipt.r#type.clone(),
            url: format!("{base_url}{}", receipt.file),
            count: receipt.count,
            extension,
        }
    }

    /// The file's name in its directory: what the URL has behind `base`.
    pub fn file_name(&self) -> &str {
        let tail = |parts: usize| {
            self.url.rmatch_indices('/').nth(parts - 1).map_or(&*self.url, |(offset, _)| &self.url[offset + 1..])
        };
        match tail(2) {
            name if name.starts_with("error/") || name.starts_with("deleted/") => name,
            _ => tail(1),
        }
    }

    /// Sizes and digest, if outpour wrote the manifest.
    pub fn facts(&self) -> Option<FileFacts> {
        serde_json::from_value(self.extension.get(FILE_KEY)?.clone()).ok()
    }
}

impl Manifest {
    /// Puts a manifest together. `base_url` is put before file names as it is.
    pub fn assemble(
        as_of: &Instant,
        request: String,
        base_url: &str,
        output: &[Receipt],
        deleted: &[Receipt],
        error: &[Receipt],
        export: Value,
    ) -> Manifest {
        let items = |receipts: &[Receipt]| receipts.iter().map(|receipt| ManifestItem::of(receipt, base_url)).collect();
        let Value::Object(extension) = json!({ EXPORT_KEY: export }) else {
            unreachable!("an object is written above")
        };
        Manifest {
            transaction_time: as_of.to_string(),
            request,
            requires_access_token: false,
            output: items(output),
            deleted: items(deleted),
            error: items(error),
            extension,
        }
    }

    /// The document, indented, with a newline at its end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, String> {
        simd_json::serde::from_slice(&mut bytes.to_vec()).map_err(|error| error.to_string())
    }
}

/// The `file://` URL of a directory, with a slash at its end (RFC 8089; bytes outside RFC 3986's unreserved set are
/// percent-encoded).
pub(crate) fn file_url(directory: &Path) -> String {
    let mut url = String::from("file://");
    for byte in directory.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => url.push(*byte as char),
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    if !url.ends_with('/') {
        url.push('/');
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_urls_are_encoded() {
        assert_eq!(file_url(Path::new("/tmp/a b/ü")), "file:///tmp/a%20b/%C3%BC/");
    }

    /// The keys and their order are those of the IG; `deleted` is there only when needed (MANIFEST-10, MANIFEST-15).
    #[test]
    fn the_document_has_the_ig_shape_and_reads_back() {
        let receipt = Receipt {
            file: "Patient.00001.ndjson".into(),
            r#type: "Patient".into(),
            count: 2,
            bytes: 10,
            file_bytes: 10,
            digest: None,
        };
        let instant = Instant::from_unix_millis(1);
        let manifest = Manifest::assemble(
            &instant,
            "Patient/$export".into(),
            "file:///x/",
            &[receipt],
            &[],
            &[],
            json!({"ledger": {}}),
        );
        let text = String::from_utf8(manifest.to_bytes()).unwrap();
        let keys: Vec<String> = serde_json::from_str::<Map<String, Value>>(&text).unwrap().keys().cloned().collect();
        assert_eq!(keys, ["transactionTime", "request", "requiresAccessToken", "output", "error", "extension"]);
        assert_eq!(Manifest::from_bytes(text.as_bytes()).unwrap(), manifest);
        assert_eq!(manifest.output[0].file_name(), "Patient.00001.ndjson");
    }
}
