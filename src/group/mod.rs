//! FHIR Groups: read, checked, looked up in a store, and registered by clients. Nothing here knows HTTP or jobs.

pub(crate) mod facts;
pub(crate) mod identifiers;
pub(crate) mod lookup;
pub(crate) mod reader;
pub(crate) mod registry;
pub(crate) mod rules;
