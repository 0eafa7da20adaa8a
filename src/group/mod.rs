//! TODO: module documentation.

pub mod facts;
pub mod identifiers;
pub mod lookup;
pub mod reader;
pub mod registry;
pub mod rules;
