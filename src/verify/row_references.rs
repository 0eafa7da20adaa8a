//! What a line refers to, and the identifiers that it gives, by the rules of the index (COMP-06), read another way than the
//! index reads them.

use crate::extract::line_references::{OwnedMention, read_strings};
use crate::fhir::conditional_reference::ConditionalReference;
use crate::fhir::context;
use crate::fhir::id::IdRule;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::index::segment::columns::{Columns, ReferenceName};
use crate::index::segment::layout::{BASE_BITS, flag};
use crate::verify::json_tree::{JsonTree, WantedNames, without_lone_surrogates};

/// A reference as the index holds it: type, base, and id or identifier as text, the latter marked.
pub(crate) type NamedReference = (ResourceType, String, bool, String);

/// References and identifiers of a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StatedReferences {
    /// The references, sorted. One to an attachment is there as often as its URL stands in the row.
    references: Vec<NamedReference>,
    /// Whether it is a Device with a key `patient`.
    names_patient: bool,
    /// Identifiers of a row of context, as system, a vertical line and value, sorted.
    keys: Vec<String>,
}

impl StatedReferences {
    /// Reads a line that is a row of this type.
    pub(crate) fn read(line: &[u8], of_row: ResourceType, ids: IdRule) -> StatedReferences {
        let mentions = read_strings(line);
        let names_patient = of_row == ResourceType::DEVICE && mentions.contains(&OwnedMention::Patient);
        let mut texts: Vec<(ResourceType, String)> =
            mentions.into_iter().filter_map(|mention| kept(of_row, mention)).collect();
        texts.sort();
        // One text is one reference, but for attachments.
        texts.dedup_by(|a, b| a == b && a.0 != ResourceType::BINARY);
        let mut references: Vec<NamedReference> = texts
            .into_iter()
            .map(|(resource_type, text)| match Reference::parse(&text).filter(|read| ids.allows(read.id.as_bytes())) {
                Some(read) => (resource_type, read.base.to_string(), false, read.id.to_string()),
                None => match ConditionalReference::parse(&text) {
                    Some(read) => (resource_type, read.base.to_string(), true, read.identifier),
                    None => (resource_type, String::new(), true, String::new()),
                },
            })
            .collect();
        references.sort();
        let keys = if context::is_context(of_row) { identifiers(line) } else { Vec::new() };
        StatedReferences { references, names_patient, keys }
    }

    /// The references: type, base, whether it is conditional, and id or identifier.
    pub(crate) fn references(&self) -> impl Iterator<Item = &NamedReference> {
        self.references.iter()
    }

    /// The identifiers of a row of context.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.iter()
    }

    /// Whether it is a Device with a key `patient`.
    pub(crate) fn names_patient(&self) -> bool {
        self.names_patient
    }

    /// Those that a segment has for a row.
    pub(crate) fn of_columns(columns: &Columns<'_>, row: usize) -> StatedReferences {
        let named = |number: &u32| {
            let number = *number as usize;
            let base = columns.base_text((columns.reference_base[number] & BASE_BITS) as usize).to_string();
            let (is_conditional, text) = match columns.reference_name(number) {
                ReferenceName::Id(id) => (false, id.to_string()),
                ReferenceName::Identifier(text) => (true, String::from_utf8_lossy(text).into_owned()),
            };
            (columns.reference_type_of(number), base, is_conditional, text)
        };
        let mut references: Vec<NamedReference> = columns.references_of(row).iter().map(named).collect();
        references.sort();
        let own = columns.key_row.partition_point(|key| (*key as usize) < row)
            ..columns.key_row.partition_point(|key| (*key as usize) <= row);
        let mut keys: Vec<String> =
            own.map(|key| String::from_utf8_lossy(columns.key_of(key).1).into_owned()).collect();
        keys.sort();
        let names_patient = columns.flags[row] & flag::NAMES_PATIENT != 0;
        StatedReferences { references, names_patient, keys }
    }
}

/// The type and text of a mention, if the index keeps it for a row of this type.
fn kept(of_row: ResourceType, mention: OwnedMention) -> Option<(ResourceType, String)> {
    match mention {
        OwnedMention::Patient => None,
        OwnedMention::Attachment(text) => {
            let read = Reference::parse(&text)?;
            (read.resource_type == ResourceType::BINARY && read.base.is_empty()).then_some((read.resource_type, text))
        }
        OwnedMention::Questionnaire(text) => {
            let url = text.split('|').next()?;
            let of_type = Reference::parse(url)?.resource_type;
            let is_kept = of_row == ResourceType::QUESTIONNAIRE_RESPONSE && of_type == ResourceType::QUESTIONNAIRE;
            is_kept.then(|| (of_type, url.to_string()))
        }
        OwnedMention::Reference(text) => {
            let relative = text.split(['/', '?']).next().filter(|name| name.len() < text.len());
            let of_type = match relative.and_then(ResourceType::parse).filter(|of_type| context::is_context(*of_type)) {
                Some(of_type) => of_type,
                None => match Reference::parse(&text) {
                    Some(read) => read.resource_type,
                    None => ConditionalReference::parse(&text)?.resource_type,
                },
            };
            let is_of_binary = of_row == ResourceType::BINARY && of_type == ResourceType::PATIENT;
            (context::is_context(of_type) || is_of_binary).then_some((of_type, text))
        }
    }
}

/// The identifiers of a resource, sorted.
fn identifiers(line: &[u8]) -> Vec<String> {
    let text = without_lone_surrogates(str::from_utf8(line).unwrap_or_default());
    let want = WantedNames::of(&["identifier.system", "identifier.value"]);
    let Some(tree) = JsonTree::read(&text, &want) else { return Vec::new() };
    let mut found = Vec::new();
    for identifier in tree.objects("identifier") {
        let tree = JsonTree::of(identifier);
        // The last of several keys of one name counts.
        let last = |key| tree.leaves(key).last().map(|leaf| leaf.text().map(str::to_string));
        if let Some(Some(value)) = last("value") {
            found.push(format!("{}|{value}", last("system").flatten().unwrap_or_default()));
        }
    }
    found.sort();
    found
}
