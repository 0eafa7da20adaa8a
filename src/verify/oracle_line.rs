//! Facts of a line in a form that both the reference implementation and the scanner can be converted to.
//!
//! The reference implementation, [`crate::extract::naive`], reads every line that is held; the scanner reads only those
//! that are too long to be held.

use crate::extract::facts::{Content, Facts, LastUpdated};
use crate::extract::fault::FaultKind;
use crate::extract::naive::{self, FaultFound};
use crate::extract::rules::LineRules;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;

/// Kind and facts of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OracleLine {
    /// Nothing but spaces, tabs and carriage returns.
    Blank,
    /// Neither a resource nor a list of deletions.
    Faulty,
    /// Faulty: a whole JSON object without a `resourceType` that is a string.
    Untyped,
    /// A Bundle of DELETE entries: its lastUpdated and the urls of its entries.
    Deletions(Option<Instant>, Vec<String>),
    /// A resource with its facts.
    Row(Box<OracleRow>),
}

/// Facts of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OracleRow {
    /// Type that `resourceType` names.
    pub resource_type: ResourceType,
    /// The `id`, which is legal.
    pub id: Id,
    /// The `meta.lastUpdated`; `None` if it is missing or no instant.
    pub updated: Option<Instant>,
    /// Whether a `meta.lastUpdated` is there that is no instant.
    pub illegal_updated: bool,
    /// Digits of a numeric `meta.versionId` without leading zeros; `None` for any other.
    pub version: Option<String>,
    /// Literal references on compartment paths of the type, in no order; empty for a Group.
    pub references: Vec<String>,
}

impl OracleRow {
    /// Patients whose compartment the resource is in by itself, as (base URL, id), ascending and without duplicates.
    pub(crate) fn owners(&self) -> Vec<(&str, Id)> {
        let named = self.parsed().filter(|reference| reference.resource_type == ResourceType::PATIENT);
        let mut owners: Vec<(&str, Id)> = named.map(|reference| (reference.base, reference.id())).collect();
        if self.resource_type == ResourceType::PATIENT {
            owners.push(("", self.id));
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Targets of a Provenance as (base URL, type, id), ascending and without duplicates; empty for other
    /// types.
    pub(crate) fn targets(&self) -> Vec<(&str, ResourceType, Id)> {
        let is_target = self.resource_type == ResourceType::PROVENANCE;
        let all = self.parsed().filter(|_| is_target);
        let mut targets: Vec<_> = all.map(|target| (target.base, target.resource_type, target.id())).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// The references that parse.
    fn parsed(&self) -> impl Iterator<Item = Reference<'_>> {
        self.references.iter().filter_map(|text| Reference::parse(text))
    }
}

impl OracleLine {
    /// Reads a line by the reference implementation, under these rules. The caller has removed its newline, one trailing carriage return,
    /// and the byte order mark of the file.
    pub(crate) fn read(line: &[u8], rules: LineRules) -> OracleLine {
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            return OracleLine::Blank;
        }
        let facts = match naive::extract(line, rules) {
            Ok(facts) => facts,
            Err(FaultFound::Kind(FaultKind::NoType)) => return OracleLine::Untyped,
            Err(_) => return OracleLine::Faulty,
        };
        let illegal_updated = facts.last_updated == Some(None);
        let updated = facts.last_updated.flatten();
        match (facts.content, facts.id) {
            (Content::Tombstones, _) => OracleLine::Deletions(updated, facts.tombstones),
            (Content::Resource, None) => OracleLine::Faulty,
            (Content::Resource, Some(id)) => OracleLine::Row(Box::new(OracleRow {
                resource_type: facts.resource_type,
                id,
                updated,
                illegal_updated,
                version: digits(&facts.version_id),
                references: literal_references(facts.references.iter().map(String::as_str), rules),
            })),
        }
    }

    /// Converts the scanner's facts of a line.
    pub(crate) fn of_facts(facts: &Facts, rules: LineRules) -> OracleLine {
        let (updated, illegal_updated) = match facts.last_updated() {
            LastUpdated::Missing => (None, false),
            LastUpdated::Illegal => (None, true),
            LastUpdated::At(instant) => (Some(instant.to_owned()), false),
        };
        match (facts.content, facts.id) {
            (Content::Tombstones, _) => {
                OracleLine::Deletions(updated, facts.tombstones().map(str::to_string).collect())
            }
            (Content::Resource, None) => OracleLine::Faulty,
            (Content::Resource, Some(id)) => OracleLine::Row(Box::new(OracleRow {
                resource_type: facts.resource_type,
                id,
                updated,
                illegal_updated,
                version: str::from_utf8(facts.version_id()).ok().and_then(digits),
                references: literal_references(facts.references(), rules),
            })),
        }
    }
}

/// The references that the rules follow, each as a literal reference.
fn literal_references<'a>(texts: impl Iterator<Item = &'a str>, rules: LineRules) -> Vec<String> {
    let followed = texts.filter_map(|text| Reference::read(text, rules.ids, rules.patient_references).ok());
    let literal = |reference: Reference<'_>| {
        let slash = if reference.base.is_empty() { "" } else { "/" };
        format!("{}{slash}{}/{}", reference.base, reference.resource_type.name(), reference.id)
    };
    followed.map(literal).collect()
}

/// Version id of an oracle line as digits without leading zeros; `None` for a text that does not order as a number.
fn digits(text: &str) -> Option<String> {
    let number = (1..=crate::limits::R4_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    number.then(|| text.trim_start_matches('0').to_string())
}

#[cfg(test)]
mod tests;
