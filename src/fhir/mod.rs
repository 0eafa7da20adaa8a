//! FHIR R4 as the pipeline needs it: resource types, ids, instants, references and the Patient compartment.
//!
//! Pure: nothing here reads a file, a clock or JSON.

pub mod compartment;
pub mod id;
pub mod instant;
pub mod reference;
pub mod resource_type;
