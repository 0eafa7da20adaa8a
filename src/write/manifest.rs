//! The manifest of an export, in the shape of the Bulk Data IG (MANIFEST-01…18).

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
    pub extension: ItemExtension,
}

/// Extensions of an item. Those of outpour are held as what they are: as maps of JSON they took four fifths of the memory
/// of an export of many files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemExtension {
    /// What outpour states, under its own key.
    facts: Option<FileFacts>,
    /// Those under other keys, and one under outpour's key that does not hold what outpour writes.
    others: Option<Box<Map<String, Value>>>,
}

impl Serialize for ItemExtension {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.facts.iter().try_for_each(|facts| map.serialize_entry(FILE_KEY, facts))?;
        self.others.iter().flat_map(|others| others.iter()).try_for_each(|(key, of)| map.serialize_entry(key, of))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ItemExtension {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ItemExtension, D::Error> {
        let mut others = Map::deserialize(deserializer)?;
        let facts = others.get(FILE_KEY).and_then(|facts| serde_json::from_value(facts.clone()).ok());
        if facts.is_some() {
            others.shift_remove(FILE_KEY);
        }
        Ok(ItemExtension { facts, others: (!others.is_empty()).then(|| Box::new(others)) })
    }
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
        ManifestItem {
            r#type: receipt.r#type.clone(),
            url: format!("{base_url}{}", receipt.file),
            count: receipt.count,
            extension: ItemExtension { facts: Some(facts), others: None },
        }
    }

    /// The file's name in its directory: what the URL has behind `base`.
    pub fn file_name(&self) -> &str {
        file_name_of(&self.url)
    }

    /// Sizes and digest, if outpour wrote the manifest.
    pub fn facts(&self) -> Option<FileFacts> {
        self.extension.facts.clone()
    }
}

/// The name that an output file has in its directory, from the URL that a manifest lists it under.
pub(crate) fn file_name_of(url: &str) -> &str {
    let tail = |parts: usize| url.rmatch_indices('/').nth(parts - 1).map_or(url, |(offset, _)| &url[offset + 1..]);
    // Files of a job in tasks begin with their number, those of an export with their type.
    let is_of_job = tail(1).starts_with(|first: char| first.is_ascii_digit());
    match (tail(2), tail(3), tail(4)) {
        (_, name, _) if is_of_job && name.starts_with("data/") => name,
        (_, _, name) if is_of_job && (name.starts_with("data/error/") || name.starts_with("data/deleted/")) => name,
        (name, ..) if name.starts_with("error/") || name.starts_with("deleted/") => name,
        _ => tail(1),
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
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("a manifest is plain data, and memory takes it");
        bytes
    }

    /// Writes the document as [`Manifest::to_bytes`] has it: that of many files need not be in memory as a whole.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn write_to(&self, mut out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
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

    /// Extensions of an item read back as they were, outpour's own and those of others.
    #[test]
    fn extensions_of_an_item_read_back() {
        let own = json!({"bytes": 7, "fileBytes": 7});
        let odd = json!({"bytes": "seven"});
        for (extension, has_facts) in [
            (json!({FILE_KEY: own}), true),
            (json!({FILE_KEY: own, "https://example.org/x": {"a": [1, 2.50]}}), true),
            (json!({FILE_KEY: odd, "https://example.org/x": null}), false),
            (json!({"https://example.org/x": 1}), false),
            (json!({}), false),
        ] {
            let item = json!({"type": "Patient", "url": "x", "count": 1, "extension": extension});
            let read: ManifestItem = serde_json::from_value(item.clone()).unwrap();
            assert_eq!(read.facts().is_some(), has_facts, "{extension}");
            assert_eq!(serde_json::to_value(&read).unwrap(), item);
        }
        let bare: ManifestItem = serde_json::from_value(json!({"type": "Patient", "url": "x", "count": 1})).unwrap();
        assert_eq!(bare.extension, ItemExtension::default());
    }

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
