//! Literal references, exactly as R4 writes them.
//!
//! Nothing is normalised and nothing resolved: a reference is cut into its parts or refused. Called for every reference
//! of a store, so nothing is allocated and the text is read backwards, where the parts that decide stand.

use super::{Id, ResourceType};

/// A literal reference to a resource: `[base/]Type/id[/_history/version]`
/// (<https://hl7.org/fhir/R4/references.html#literal>). What is in no legal form (`urn:uuid:`, `#contained`, queries,
/// fragments, percent escapes, another case) is no reference of ours: `parse` gives `None` (readings 5, COMP-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Absolute base URL without the final slash, exactly as written; empty for a relative reference.
    pub base: &'a str,
    /// Type of the resource referred to.
    pub resource_type: ResourceType,
    /// Its logical id.
    pub id: Id,
    /// Version named by `_history`, if one is.
    pub version: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Reads a reference's text (JSON escapes already resolved).
    ///
    /// A base is `http://` or `https://`, a host and any path; R4's own pattern for it leaves out characters that real
    /// servers have in their paths (`_`, `~`), so only what no base can hold is refused: white space, control
    /// characters, `?` and `#`.
    pub fn parse(text: &'a str) -> Option<Reference<'a>> {
        let (mut before, mut id) = cut(text)?;
        let mut version = None;
        if let Some(resource) = before.strip_suffix("/_history") {
            Id::parse(id.as_bytes())?; // R4 gives a version id the form of an id
            version = Some(id);
            (before, id) = cut(resource)?;
        }
        let id = Id::parse(id.as_bytes())?;
        let (base, name) = match cut(before) {
            Some((base, name)) if is_base(base) => (base, name),
            Some(_) => return None,
            None => ("", before),
        };
        // Most references of any store name a Patient: that one need not be searched for.
        let resource_type = if name == "Patient" { ResourceType::PATIENT } else { ResourceType::parse(name)? };
        Some(Reference { base, resource_type, id, version })
    }
}

/// What stands before and after the last slash.
fn cut(text: &str) -> Option<(&str, &str)> {
    let slash = memchr::memrchr(b'/', text.as_bytes())?;
    Some((&text[..slash], &text[slash + 1..]))
}

fn is_base(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http").map(|rest| rest.strip_prefix('s').unwrap_or(rest)) else {
        return false;
    };
    let Some(host) = rest.strip_prefix("://") else { return false };
    !host.is_empty()
        && !host.starts_with('/')
        && host.bytes().all(|b| b > b' ' && b != 0x7f && b != b'?' && b != b'#')
        && !host.contains(|c: char| !c.is_ascii() && (c.is_whitespace() || c.is_control()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID_64: &str = "m0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde";

    fn parts(text: &str) -> Option<(&str, &str, String, Option<&str>)> {
        Reference::parse(text).map(|it| (it.base, it.resource_type.name(), it.id.to_string(), it.version))
    }

    #[test]
    fn legal_forms() {
        for (text, base, name, id, version) in [
            ("Patient/a", "", "Patient", "a", None),
            ("Patient/a/_history/1", "", "Patient", "a", Some("1")),
            ("Patient/a/_history/v.2-x", "", "Patient", "a", Some("v.2-x")),
            ("https://fhir.example.org/r4/Patient/a", "https://fhir.example.org/r4", "Patient", "a", None),
            (
                "https://fhir.example.org/r4/Patient/a/_history/3",
                "https://fhir.example.org/r4",
                "Patient",
                "a",
                Some("3"),
            ),
            ("http://fhir.example.org/r4/Patient/a", "http://fhir.example.org/r4", "Patient", "a", None),
            ("https://FHIR.Example.ORG/r4/Patient/a", "https://FHIR.Example.ORG/r4", "Patient", "a", None),
            ("https://fhir.example.org/r4//Patient/a", "https://fhir.example.org/r4/", "Patient", "a", None),
            (
                "https://fhir.example.org/r4/tenant/Patient/a",
                "https://fhir.example.org/r4/tenant",
                "Patient",
                "a",
                None,
            ),
            ("https://h/Patient/a/Observation/1", "https://h/Patient/a", "Observation", "1", None),
            ("https://h:8080/x_y/~z/%41/Device/d", "https://h:8080/x_y/~z/%41", "Device", "d", None),
            ("RelatedPerson/a", "", "RelatedPerson", "a", None),
            (
                "Patient/0B7D7A9E-6D6F-4C53-9D50-3A0C6A2F1E11",
                "",
                "Patient",
                "0B7D7A9E-6D6F-4C53-9D50-3A0C6A2F1E11",
                None,
            ),
        ] {
            assert_eq!(parts(text), Some((base, name, id.to_string(), version)), "{text}");
        }
        assert_eq!(parts(&format!("Patient/{ID_64}")), Some(("", "Patient", ID_64.to_string(), None)));
        let long = format!("https://x.example.org/{}/Patient/a", "p".repeat(3000));
        assert_eq!(parts(&long).map(|it| it.0.len()), Some(22 + 3000));
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "Patient",
            "Patient/",
            "Patient//a",
            "Patient/a/",
            "/Patient/a",
            "./Patient/a",
            "../Patient/a",
            "Patient/a/Observation/1",
            "Patient/a/*",
            "Patient/%61",
            " Patient/a",
            "Patient/a ",
            "Patient/a#x",
            "Patient/a?x=1",
            "Patient?_id=a",
            "Patient?identifier=http://example.org/mrn|1",
            "xPatient/a",
            "patient/a",
            "Patient/\u{430}",
            "Patient/a/_history",
            "Patient/a/_history/",
            "Patient/a/_history/_",
            "_history/1",
            "Patient/a/_history/1/_history/2",
            "Resource/a",
            "DomainResource/a",
            "#a",
            "#",
            "urn:oid:1.2.3",
            "urn:uuid:0b7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11",
            "http://Patient/a",
            "https:///Patient/a",
            "http:////Patient/a",
            "HTTP://h/Patient/a",
            "ftp://h/Patient/a",
            "https:/h/Patient/a",
            "httpss://h/Patient/a",
            "//h/Patient/a",
            "h/Patient/a",
            "https://h/a b/Patient/a",
            "https://h/?/Patient/a",
            "https://h#/Patient/a",
            "https://h/\u{a0}/Patient/a",
            "https://h/\n/Patient/a",
            "https://fhir.example.org/r4/Patient/a/",
            "Patient/a\0",
        ] {
            assert_eq!(parts(text), None, "{text:?}");
        }
        assert_eq!(parts(&format!("Patient/{ID_64}0")), None);
    }

    proptest! {
        #[test]
        fn parts_make_the_text_again(text in "((https?://[a-z.]{0,5}/)?([a-z]{0,3}/){0,2})?(Patient|Device|Group|_history|X)/[a-z0-9.]{0,3}(/_history/[a-z0-9_]{0,2})?") {
            if let Some((base, name, id, version)) = parts(&text) {
                let slash = if base.is_empty() { "" } else { "/" };
                let version = version.map(|version| format!("/_history/{version}")).unwrap_or_default();
                prop_assert_eq!(format!("{base}{slash}{name}/{id}{version}"), text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Reference::parse(&text);
        }
    }
}
