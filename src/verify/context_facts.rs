//! What rows refer to beside patients, as a recount needs it (COMP-06).

use crate::fhir::context;
use crate::fhir::id::IdRule;
use crate::fhir::resource_type::ResourceType;
use crate::hash::Hasher128;
use crate::policies::Context;
use crate::verify::oracle_line::OracleRow;
use crate::verify::output_file::entity;
use crate::verify::request::RecordedRequest;
use crate::verify::row_references::StatedReferences;

/// What a row refers to, and by what it can be referred to.
#[derive(Default)]
pub(crate) struct ContextFacts {
    /// Names of resources of context: hashes of type and id, or of type and identifier.
    pub references: Box<[u128]>,
    /// Hashes of type and identifier of a row of context.
    pub keys: Box<[u128]>,
    /// Whether it is some patient's record, known or not.
    pub is_patients: bool,
}

impl ContextFacts {
    /// Reads them from a line; nothing where the request has no context.
    pub(crate) fn read(row: &OracleRow, line: &[u8], recorded: &RecordedRequest, ids: IdRule) -> ContextFacts {
        if recorded.context == Context::None {
            return ContextFacts::default();
        }
        let stated = StatedReferences::read(line, row.resource_type, ids);
        let followed = stated
            .references()
            .filter(|(of_type, base, ..)| context::is_context(*of_type) && recorded.is_ours(base))
            .map(|(of_type, _, is_conditional, text)| name_of(*of_type, *is_conditional, text));
        ContextFacts {
            references: followed.collect(),
            keys: stated.keys().map(|text| name_of(row.resource_type, true, text)).collect(),
            is_patients: !row.owners().is_empty() || stated.names_patient(),
        }
    }
}

/// The name that a reference gives: the hash of a type and an id, or of a type and an identifier.
fn name_of(resource_type: ResourceType, is_identifier: bool, text: &str) -> u128 {
    if !is_identifier {
        return entity(resource_type.name(), text);
    }
    let mut hash = Hasher128::new();
    hash.update(resource_type.name().as_bytes());
    hash.update(b"?");
    hash.update(text.as_bytes());
    hash.digest()
}
