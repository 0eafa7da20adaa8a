//! URLs of attachments: which relative ones name a Binary of the store, and what they become in an export (ATTACH-02,
//! NETSMART-E08).
//!
//! The absolute URL is a function of base, id and version alone, so that two exports of the same rows have the same bytes.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::named_enum::by_name;

/// Where below a base attachments are downloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AttachmentPath {
    /// `attachment/{id}`.
    #[default]
    Plain,
    /// `Binary/{id}/$binary-access-read`, the operation of Netsmart's downloads (NETSMART-E08).
    BinaryAccessRead,
}

impl AttachmentPath {
    /// Every form, for lookup by name.
    pub(crate) const ALL: [AttachmentPath; 2] = [AttachmentPath::Plain, AttachmentPath::BinaryAccessRead];

    /// Name of the form in records of plans and jobs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            AttachmentPath::Plain => "attachment",
            AttachmentPath::BinaryAccessRead => "binary-access-read",
        }
    }

    /// The form of the URLs below a base, with names in brackets.
    pub(crate) fn url_template(self, base: &str) -> String {
        let (before, behind) = self.around_id();
        format!("{base}{before}[id]{behind}?v=[version]")
    }

    /// The texts before and behind the id.
    const fn around_id(self) -> (&'static str, &'static str) {
        match self {
            AttachmentPath::Plain => ("/attachment/", ""),
            AttachmentPath::BinaryAccessRead => ("/Binary/", "/$binary-access-read"),
        }
    }
}

by_name!(AttachmentPath);

/// The URLs that relative attachment URLs become in the rows of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachmentUrls {
    /// Absolute base URL, without a slash at its end.
    base: String,
    /// Where below the base.
    path: AttachmentPath,
}

impl AttachmentUrls {
    /// URLs below a base, given with or without slashes at its end.
    pub(crate) fn new(base: &str, path: AttachmentPath) -> AttachmentUrls {
        AttachmentUrls { base: base.trim_end_matches('/').to_string(), path }
    }

    /// The base and the form in one line, for records.
    pub(crate) fn recorded(&self) -> String {
        format!("{} {}", self.path.name(), self.base)
    }

    /// What [`AttachmentUrls::recorded`] gave; `None` for any other text.
    pub(crate) fn from_recorded(text: &str) -> Option<AttachmentUrls> {
        let (path, base) = text.split_once(' ')?;
        Some(AttachmentUrls::new(base, AttachmentPath::from_name(path)?))
    }

    /// The URL of the version of a Binary, or of its current one without a version.
    pub(crate) fn url(&self, id: &str, version: Option<&str>) -> String {
        let (before, behind) = self.path.around_id();
        let mut url = format!("{}{before}", self.base);
        push_percent_encoded(&mut url, id);
        url.push_str(behind);
        if let Some(version) = version {
            url.push_str("?v=");
            push_percent_encoded(&mut url, version);
        }
        url
    }

    /// The URL as it stands between the quotes of a JSON string.
    pub(crate) fn json_text(&self, id: &str, version: Option<&str>) -> String {
        let quoted = serde_json::to_string(&self.url(id, version)).expect("a text");
        quoted[1..quoted.len() - 1].to_string()
    }
}

/// The Binary that a relative attachment URL names, escapes of JSON resolved: `Binary/{id}`, with `/_history/{version}` or
/// without. `None` for any other text.
pub(crate) fn named_binary(url: &str) -> Option<Reference<'_>> {
    Reference::parse(url).filter(|found| found.base.is_empty() && found.resource_type == ResourceType::BINARY)
}

/// Appends a text with every byte but the unreserved characters of a URL percent-encoded
/// (<https://www.rfc-editor.org/rfc/rfc3986#section-2.3>).
fn push_percent_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => write!(out, "%{byte:02X}").expect("a String takes all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ATTACH-02, NETSMART-E08: the URL of each form, with a version and without; slashes of the base do not double.
    #[test]
    fn urls_are_a_function_of_base_id_and_version() {
        for (base, path, id, version, expected) in [
            ("https://a.example/fhir", "attachment", "b1", Some("3"), "https://a.example/fhir/attachment/b1?v=3"),
            ("https://a.example/", "attachment", "A-z.0_~", None, "https://a.example/attachment/A-z.0_~"),
            (
                "https://a.example/n",
                "binary-access-read",
                "b1",
                Some("1"),
                "https://a.example/n/Binary/b1/$binary-access-read?v=1",
            ),
            ("x", "attachment", "a", Some("W/\"é\" &"), "x/attachment/a?v=W%2F%22%C3%A9%22%20%26"),
        ] {
            let urls = AttachmentUrls::from_recorded(&format!("{path} {base}")).unwrap();
            assert_eq!(urls.url(id, version), expected);
            assert_eq!(AttachmentUrls::from_recorded(&urls.recorded()), Some(urls));
        }
        assert_eq!(AttachmentUrls::from_recorded("elsewhere https://a.example"), None);
    }

    /// Whatever the base is, the row stays JSON, and its reader gets the URL.
    #[test]
    fn urls_are_escaped_in_json() {
        let urls = AttachmentUrls::new("https://a.example/\"\\\u{1}é", AttachmentPath::Plain);
        let json = format!("\"{}\"", urls.json_text("a", Some("1")));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), urls.url("a", Some("1")));
    }

    /// ATTACH-02: which texts name a Binary of the store.
    #[test]
    fn relative_urls_of_binaries_are_known() {
        let named = |url| named_binary(url).map(|found| (found.id, found.version));
        assert_eq!(named("Binary/1"), Some(("1", None)));
        assert_eq!(named("Binary/1/_history/2"), Some(("1", Some("2"))));
        let long = format!("Binary/{}", "~".repeat(255));
        assert_eq!(named(&long), Some((&long[7..], None)));
        for other in [
            "Binary/",
            "Binary/a b",
            "binary/1",
            "/Binary/1",
            "Binary/1/",
            "Binary/1#a",
            "Binary/1?v=1",
            "Binary/1/_history/",
            "Binary/%41",
            "Patient/1",
            "https://a.example/Binary/1",
            "",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
