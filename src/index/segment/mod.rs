//! Segments: the columns of the rows of one range of a store file, how they are scanned, built, laid out and read.

pub(crate) mod builder;
pub(crate) mod columns;
pub(crate) mod id_encoding;
pub(crate) mod layout;
pub(crate) mod line_splitter;
pub(crate) mod radix_sort;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod span;
pub(crate) mod validate;
