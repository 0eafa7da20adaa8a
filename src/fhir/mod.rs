//! FHIR R4 as indexing and export need it: resource types and their root elements, ids,
//! instants, references and the Patient compartment.
//!
//! Pure: nothing here reads a file, a clock or JSON.

pub(crate) mod attachment_url;
pub(crate) mod base_url;
pub(crate) mod compartment;
pub(crate) mod conditional_reference;
pub(crate) mod context;
pub(crate) mod elements;
pub(crate) mod id;
pub(crate) mod instant;
pub(crate) mod reference;
pub(crate) mod resource_type;
pub(crate) mod search;
pub(crate) mod subsetted;
