//! FHIR Groups: read, checked, looked up in a store, and registered by clients. Nothing here knows HTTP or jobs.

pub mod facts;
pub mod identifiers;
pub mod lookup;
pub mod reader;
pub mod registry;
pub mod rules;
