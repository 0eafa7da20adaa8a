//! Which rows an export takes: the request, the cohort it names, and the selection, which has two ways to one answer.

pub(crate) mod bitmap;
pub(crate) mod classifier;
pub(crate) mod cohort;
pub(crate) mod column_scan;
pub(crate) mod deleted;
pub(crate) mod ledger;
pub(crate) mod members;
pub(crate) mod nested_groups;
pub(crate) mod postings_scan;
pub(crate) mod row_set;
pub(crate) mod selection;
pub(crate) mod visibility;
pub(crate) mod zone_map_scan;
