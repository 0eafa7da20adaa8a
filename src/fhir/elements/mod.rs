//! Elements at the root of resources, and selections of them (`_elements`).

pub(crate) mod root_element;
pub(crate) mod selection;
pub(crate) mod table;
