//! R4 search over one type, as `_typeFilter` has it: the parameters of each type, the criteria of a filter, and whether a
//! resource meets them.

pub(crate) mod base_letters;
pub(crate) mod criterion;
pub(crate) mod date_range;
pub(crate) mod decimal;
pub(crate) mod filter_set;
pub(crate) mod matching;
pub(crate) mod members;
pub(crate) mod parameter;
pub(crate) mod type_filter;
pub(crate) mod value;
