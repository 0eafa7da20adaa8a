//! Selection: the patients that a request names (`cohort`), and the rows that are exported (`selection`).
//!
//! `classifier` decides one row at a time and defines the correct answer, with `provenance` for membership; `postings_scan`, `column_scan` and
//! `zone_map_scan` are faster access paths to the same answer. Nothing here writes output or reads rows of the store,
//! but for Groups, when Group members are named by identifiers Patients, and what filters search.

#![deny(clippy::cast_possible_truncation)]

pub(crate) mod associated;
pub(crate) mod attachments;
pub(crate) mod binaries;
pub(crate) mod bitmap;
pub(crate) mod classifier;
pub(crate) mod cohort;
pub(crate) mod column_scan;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod context_changes;
pub(crate) mod context_closure;
pub(crate) mod deleted;
pub(crate) mod file_order;
pub(crate) mod filter_verdicts;
pub(crate) mod ledger;
pub(crate) mod line_counter;
pub(crate) mod line_filter;
pub(crate) mod member_changes;
pub(crate) mod member_filters;
pub(crate) mod member_messages;
pub(crate) mod member_starts;
pub(crate) mod members;
pub(crate) mod nested_groups;
pub(crate) mod only_patients;
pub(crate) mod patient_list;
pub(crate) mod postings_scan;
pub(crate) mod provenance;
pub(crate) mod resource_keys;
pub(crate) mod row_export;
pub(crate) mod row_set;
pub(crate) mod segment_filter;
pub(crate) mod selection;
pub(crate) mod store_issues;
pub(crate) mod type_filters;
pub(crate) mod unreached_binaries;
pub(crate) mod vanished;
pub(crate) mod visibility;
pub(crate) mod zone_map_scan;
