//! Literal references, exactly as R4 writes them, and Patient references of other forms.
//!
//! A reference is split into its parts or refused. This runs for every reference of a store, so nothing is allocated, and
//! the text is read from its end, which has the deciding parts.

use std::sync::LazyLock;

use crate::fhir::id::{Id, IdRule};
use crate::fhir::resource_type::ResourceType;
use crate::named_enum::by_name;

/// Which Patient references of a store are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatientReferences {
    /// Literal references as R4 writes them.
    #[default]
    Strict,
    /// Also those with one slash before or behind them, white space around them, or another case of the type's name.
    Lenient,
}

impl PatientReferences {
    /// Every value, in the order of the enum.
    pub const ALL: [PatientReferences; 2] = [PatientReferences::Strict, PatientReferences::Lenient];

    /// Name in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            PatientReferences::Strict => "strict",
            PatientReferences::Lenient => "lenient",
        }
    }
}

by_name!(PatientReferences);

/// A form of a reference to a patient, or to one perhaps, that is no literal reference: whose it is, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum OddReference {
    /// A URN, as `urn:uuid:`, which names an entry of a Bundle.
    Urn,
    /// A search, as `Patient?identifier=`.
    Conditional,
    /// A slash before or behind it.
    Slash,
    /// Another case of the name `Patient`.
    TypeCase,
    /// White space around it.
    WhiteSpace,
    /// An identifier, and no reference.
    IdentifierOnly,
    /// An id that no Patient of the store can have.
    ImpossibleId,
}

impl OddReference {
    /// Every form, in the order of their numbers on disk.
    pub(crate) const ALL: [OddReference; 7] = [
        OddReference::Urn,
        OddReference::Conditional,
        OddReference::Slash,
        OddReference::TypeCase,
        OddReference::WhiteSpace,
        OddReference::IdentifierOnly,
        OddReference::ImpossibleId,
    ];
}

/// A literal reference to a resource: `[base/]Type/id[/_history/version]`
/// (<https://hl7.org/fhir/R4/references.html#literal>). Any other form (`urn:uuid:`, `#contained`, queries, fragments,
/// percent escapes, another case) is none: [`Reference::parse`] gives `None` (readings 5, COMP-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// Absolute base URL without the final slash, exactly as written; empty for a relative reference.
    pub base: &'a str,
    /// Type of the resource referred to.
    pub resource_type: ResourceType,
    /// Logical id of the resource, one that [`Id::parse`] takes.
    pub id: &'a str,
    /// Version named by `_history`; `None` when there is none.
    pub version: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Splits a reference's text, whose JSON escapes are resolved; `None` when it is no literal reference.
    ///
    /// A base is `http://` or `https://`, a host and any path. R4's own pattern for it lacks characters that real
    /// servers have in their paths (`_`, `~`), so only characters that no base can hold are refused: white space,
    /// control characters, `?` and `#`.
    pub(crate) fn parse(text: &'a str) -> Option<Reference<'a>> {
        Reference::split(text, |name| TYPES.find(name))
    }

    /// Reads a reference of a store whose ids follow a rule.
    ///
    /// # Errors
    /// The form of a text that is none and yet means a patient, or may; `None` for any other text.
    #[inline]
    pub(crate) fn read(
        text: &'a str,
        ids: IdRule,
        patients: PatientReferences,
    ) -> Result<Reference<'a>, Option<OddReference>> {
        match Reference::parse(text) {
            Some(reference) if ids.allows_legal(reference.id.as_bytes()) => Ok(reference),
            _ => Reference::read_odd(text, ids, patients),
        }
    }

    /// As [`Reference::read`], of a text that is no literal reference with a legal id.
    #[cold]
    fn read_odd(
        text: &'a str,
        ids: IdRule,
        patients: PatientReferences,
    ) -> Result<Reference<'a>, Option<OddReference>> {
        if text.starts_with("urn:") {
            return Err(Some(OddReference::Urn));
        }
        let of_patients = |name: &str| name.eq_ignore_ascii_case("Patient").then_some(ResourceType::PATIENT);
        let trimmed = text.trim();
        let bare = trimmed.strip_prefix('/').unwrap_or(trimmed);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let form = match trimmed.len() {
            length if length < text.len() => OddReference::WhiteSpace,
            length if bare.len() < length => OddReference::Slash,
            _ => OddReference::TypeCase,
        };
        match Reference::split(bare, of_patients) {
            Some(reference) if ids.allows(reference.id.as_bytes()) => match patients {
                PatientReferences::Lenient => Ok(reference),
                PatientReferences::Strict => Err(Some(form)),
            },
            Some(_) => Err(Some(OddReference::ImpossibleId)),
            None => Err(Reference::unread_form(bare)),
        }
    }

    /// The form of a text that names a patient, but not by an id.
    fn unread_form(text: &str) -> Option<OddReference> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let names_patients = |path: &str| {
            let is_name = |name: &str| name.eq_ignore_ascii_case("Patient");
            split_last(path).map_or(is_name(path), |(base, name)| is_name(name) && is_absolute_url(base))
        };
        match query {
            Some(_) => names_patients(path).then_some(OddReference::Conditional),
            None => split_last(text).filter(|(before, _)| names_patients(before)).map(|_| OddReference::ImpossibleId),
        }
    }

    /// Splits a text; `type_of` knows the names of types.
    #[inline]
    fn split(text: &'a str, type_of: impl Fn(&str) -> Option<ResourceType>) -> Option<Reference<'a>> {
        let (mut before, mut id) = split_last(text)?;
        let mut version = None;
        if let Some(resource) = before.strip_suffix("/_history") {
            // R4 gives a version id the form of an id.
            Id::is_r4(id.as_bytes()).then_some(())?;
            version = Some(id);
            (before, id) = split_last(resource)?;
        }
        Id::is_legal(id.as_bytes()).then_some(())?;
        let (base, name) = match split_last(before) {
            Some((base, name)) if is_absolute_url(base) => (base, name),
            Some(_) => return None,
            None => ("", before),
        };
        let resource_type = type_of(name)?;
        Some(Reference { base, resource_type, id, version })
    }

    /// The id of the resource.
    pub(crate) fn id(&self) -> Id {
        Id::parse(self.id.as_bytes()).expect("the id of a reference is legal")
    }
}

/// The types by a perfect hash of their names. A binary search among 146 names would cost more than the rest of a
/// reference.
struct TypeTable {
    /// Index of the type at each hash, `NONE` where there is none.
    slots: [u8; Self::SLOTS],
    /// Seed of the hash, for which no two names share a slot.
    seed: u64,
}

/// The table, built on first use.
static TYPES: LazyLock<TypeTable> = LazyLock::new(TypeTable::new);

impl TypeTable {
    /// Number of slots, a power of two.
    const SLOTS: usize = 1 << 12;
    /// Slot without a type.
    const NONE: u8 = u8::MAX;

    /// The table by which references are parsed: tries seeds until no two type names share a slot; with this many slots
    /// one seed in fourteen suffices.
    fn new() -> TypeTable {
        let mut table = TypeTable { slots: [Self::NONE; Self::SLOTS], seed: 1 };
        'seed: loop {
            table.seed = table.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_406) | 1;
            table.slots.fill(Self::NONE);
            for resource_type in ResourceType::all() {
                let slot = table.slot(resource_type.name().as_bytes());
                if table.slots[slot] != Self::NONE {
                    continue 'seed;
                }
                table.slots[slot] = resource_type.index() as u8;
            }
            return table;
        }
    }

    /// The resource type that a literal reference names exactly so.
    #[inline]
    fn find(&self, name: &str) -> Option<ResourceType> {
        let index = self.slots[self.slot(name.as_bytes())];
        ResourceType::from_index(index as usize).filter(|resource_type| resource_type.name() == name)
    }

    /// Slot of the type name in a reference: a hash of its length and its first and last eight bytes (four for a short
    /// name), which are different for all types.
    #[inline]
    fn slot(&self, name: &[u8]) -> usize {
        let (first, last) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
                (Some(first), Some(last)) => (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64),
                _ => (0, 0),
            },
        };
        let mixed = first.wrapping_mul(self.seed) ^ last.wrapping_add(name.len() as u64);
        (mixed.wrapping_mul(self.seed) >> (64 - Self::SLOTS.trailing_zeros())) as usize
    }
}

const _: () = assert!(ResourceType::COUNT < TypeTable::NONE as usize);

/// The text before and after the last slash; `None` when it has none.
fn split_last(text: &str) -> Option<(&str, &str)> {
    let slash = memchr::memrchr(b'/', text.as_bytes())?;
    Some((&text[..slash], &text[slash + 1..]))
}

/// Whether the text before `Type/id` of a literal reference is a base URL: http or https, a host, and no character that
/// a base cannot hold.
pub(crate) fn is_absolute_url(text: &str) -> bool {
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
        for id in [ID_64.to_string(), "a_b~".to_string(), "a".repeat(255)] {
            assert_eq!(parts(&format!("Patient/{id}")), Some(("", "Patient", id.clone(), None)));
        }
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
        assert_eq!(parts(&format!("Patient/{}", "a".repeat(256))), None);
    }

    /// Forms of Patient references that are none, and what is taken of them where that is asked for.
    #[test]
    fn odd_references_have_a_form() {
        use OddReference::*;
        use PatientReferences::{Lenient, Strict};
        let long = format!("Patient/{}", "a".repeat(65));
        for (text, r4, form, lenient) in [
            ("urn:uuid:0b7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11", false, Some(Urn), None),
            ("urn:oid:1.2.3", false, Some(Urn), None),
            ("Patient?identifier=http://example.org/mrn|1", false, Some(Conditional), None),
            ("https://h/fhir/Patient?_id=a", false, Some(Conditional), None),
            ("Practitioner?identifier=1", false, None, None),
            ("/Patient/a", false, Some(Slash), Some("a")),
            ("Patient/a/", false, Some(Slash), Some("a")),
            ("/Patient/a/", false, Some(Slash), Some("a")),
            ("//Patient/a", false, None, None),
            ("https://h/fhir/Patient/a/", false, Some(Slash), Some("a")),
            ("patient/a", false, Some(TypeCase), Some("a")),
            ("PATIENT/A", false, Some(TypeCase), Some("A")),
            (" Patient/a", false, Some(WhiteSpace), Some("a")),
            ("Patient/a\n", false, Some(WhiteSpace), Some("a")),
            (" /patient/a/ ", false, Some(WhiteSpace), Some("a")),
            ("Patient /a", false, None, None),
            ("Patient/a b", false, Some(ImpossibleId), None),
            ("Patient/.", false, Some(ImpossibleId), None),
            ("Patient/", false, None, None),
            ("Patient/%61", false, Some(ImpossibleId), None),
            (&long, true, Some(ImpossibleId), None),
            ("Patient/a_b", true, Some(ImpossibleId), None),
            ("Device/a_b", true, None, None),
            ("device/a", false, None, None),
            ("#a", false, None, None),
            ("", false, None, None),
        ] {
            let ids = if r4 { IdRule::R4 } else { IdRule::Any };
            assert_eq!(Reference::read(text, ids, Strict).err(), Some(form), "{text:?}");
            let taken = Reference::read(text, ids, Lenient).ok().map(|reference| reference.id);
            assert_eq!(taken, lenient, "{text:?}");
        }
        assert!(Reference::read("Patient/.", IdRule::R4, Strict).is_ok());
        assert!(Reference::read(&long, IdRule::Any, Strict).is_ok());
    }

    #[test]
    fn every_type_and_no_other_is_found() {
        for resource_type in ResourceType::all() {
            let name = resource_type.name();
            assert_eq!(TYPES.find(name), Some(resource_type));
            for other in [&name[1..], &name[..name.len() - 1], &name.to_lowercase(), &format!("{name}s")] {
                assert_eq!(TYPES.find(other), ResourceType::parse(other), "{other}");
            }
        }
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
