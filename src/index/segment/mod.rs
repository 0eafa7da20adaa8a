//! Segments: the columns of the rows of one range of a store file.
//!
//! `span` cuts store files into ranges, `scan` reads them on all threads, `line_splitter` finds the lines, `builder`
//! collects the columns, `layout` and `id_encoding` define the bytes, `reader`, `columns` and `validate` read and check
//! them.

pub(crate) mod builder;
pub(crate) mod columns;
pub(crate) mod id_encoding;
pub(crate) mod key_table;
pub(crate) mod layout;
pub(crate) mod line_splitter;
pub(crate) mod radix_sort;
pub(crate) mod reader;
pub(crate) mod reference_columns;
pub(crate) mod row_note;
pub(crate) mod scan;
pub(crate) mod span;
pub(crate) mod validate;
