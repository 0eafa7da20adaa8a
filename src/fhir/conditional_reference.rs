//! Conditional references to one resource by its business identifier, as some servers' bulk output has them.

use std::borrow::Cow;

use crate::casts::to_u8;
use crate::fhir::reference::is_absolute_url;
use crate::fhir::resource_type::ResourceType;

/// A conditional reference `[base/]Type?identifier=[system]|value`
/// (<https://hl7.org/fhir/R4/bundle.html#references>), its percent escapes resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionalReference<'a> {
    /// Absolute base URL without the final slash, exactly as written; empty for a relative reference.
    pub base: &'a str,
    /// Type of the resource referred to.
    pub resource_type: ResourceType,
    /// System, a vertical line and value.
    pub identifier: String,
}

impl<'a> ConditionalReference<'a> {
    /// Splits a reference's text; `None` when it is no search for one identifier with a system, which may be empty, or has
    /// other parameters.
    pub(crate) fn parse(text: &'a str) -> Option<ConditionalReference<'a>> {
        let (path, query) = text.split_once('?')?;
        let value = query.strip_prefix("identifier=")?;
        if value.contains(['&', '#', ',']) {
            return None;
        }
        let (base, name) = match path.rsplit_once('/') {
            Some((base, name)) if is_absolute_url(base) => (base, name),
            Some(_) => return None,
            None => ("", path),
        };
        let identifier = decode_percent(value)?;
        let (_, value) = identifier.split_once('|')?;
        // Escapes of search values (`\\|`, `\\,`) are rare enough to be no identifier of any resource.
        (!value.is_empty() && !identifier.contains('\\')).then(|| identifier.to_string()).and_then(|identifier| {
            Some(ConditionalReference { base, resource_type: ResourceType::parse(name)?, identifier })
        })
    }
}

/// Resolves percent escapes once; what is no escape stays. `None` if the bytes are no UTF-8 then.
fn decode_percent(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|digit| (*digit as char).to_digit(16));
        (bytes, rest) = match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(to_u8((high << 4 | low) as usize));
                (bytes, &after[2..])
            }
            _ => {
                bytes.push(*byte);
                (bytes, after)
            }
        };
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escapes are resolved once, and what is none stays.
    #[test]
    fn percent_escapes() {
        let decoded = |text| decode_percent(text).map(Cow::into_owned);
        for (text, expected) in [
            ("", ""),
            ("a", "a"),
            ("%41%6a", "Aj"),
            ("%2541", "%41"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%20", "%zz "),
            ("%C3%A9é", "éé"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(decoded("%ff"), None);
    }

    /// Searches for an identifier are read, any other query is none.
    #[test]
    fn forms() {
        let parts = |text| {
            let read = ConditionalReference::parse(text)?;
            Some((read.base.to_string(), read.resource_type.name(), read.identifier))
        };
        let npi = "http://hl7.org/fhir/sid/us-npi|9999940999";
        for (text, base, name, identifier) in [
            ("Practitioner?identifier=http://hl7.org/fhir/sid/us-npi|9999940999", "", "Practitioner", npi),
            (
                "Practitioner?identifier=http%3A%2F%2Fhl7.org%2Ffhir%2Fsid%2Fus-npi%7C9999940999",
                "",
                "Practitioner",
                npi,
            ),
            ("https://a.example/r4/Location?identifier=|x%20y", "https://a.example/r4", "Location", "|x y"),
        ] {
            assert_eq!(parts(text), Some((base.to_string(), name, identifier.to_string())), "{text}");
        }
        for text in [
            "Practitioner/1",
            "Practitioner?name=x",
            "Practitioner?identifier=1",
            "Practitioner?identifier=a|",
            "Practitioner?identifier=a|b&name=x",
            "Practitioner?identifier=a|b,c|d",
            "Practitioner?identifier=a|b%FF",
            "Practitioner?identifier=a|b\\|c",
            "Nobody?identifier=a|b",
            "x/Practitioner?identifier=a|b",
            "?identifier=a|b",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
