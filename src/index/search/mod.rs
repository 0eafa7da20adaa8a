//! Search columns: values of search parameters in columns of the index, so that filters are decided without a look at rows.
//!
//! ```text
//! row → extract::root_members → fhir::search::value → entry_coding, value_key → section, of a segment → column_file
//! ```
//!
//! Columns are made when they are asked for, for one parameter of one type at a time, and grow by the segments that the index gets.
//! They can always be made again from the store: what is damaged or missing is read from the rows instead.

pub(crate) mod build;
pub(crate) mod column_dir;
pub(crate) mod column_file;
pub(crate) mod columns;
pub(crate) mod entry_coding;
pub(crate) mod known_texts;
pub(crate) mod maintenance;
pub(crate) mod section;
pub(crate) mod section_builder;
pub(crate) mod value_key;
pub(crate) mod writer;
