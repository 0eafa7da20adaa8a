//! Segments: the columns of the rows of one range of a store file, how they are scanned, built, laid out and read.

pub mod builder;
pub mod columns;
pub mod id_encoding;
pub mod layout;
pub mod line_splitter;
pub mod radix_sort;
pub mod reader;
pub mod scan;
pub mod span;
pub mod validate;
