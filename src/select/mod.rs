//! Which rows an export takes: the request, the cohort it names, and the selection, which has two ways to one answer.

pub mod bitmap;
pub mod classifier;
pub mod cohort;
pub mod column_scan;
pub mod deleted;
pub mod ledger;
pub mod members;
pub mod nested_groups;
pub mod postings_scan;
pub mod row_set;
pub mod selection;
pub mod visibility;
pub mod zone_map_scan;
