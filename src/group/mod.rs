//! FHIR Groups: streaming readers (`reader`, `facts`), rules for incoming Groups (`rules`, `values`), lookup in a
//! snapshot (`lookup`), and the registry of Groups that clients create (`registry`).
//!
//! Nothing here knows HTTP or jobs; members are resolved to patients in `select`.

pub(crate) mod facts;
pub(crate) mod listing;
pub(crate) mod lookup;
pub(crate) mod member_filter;
pub(crate) mod reader;
pub(crate) mod registry;
pub(crate) mod rules;
pub(crate) mod values;
