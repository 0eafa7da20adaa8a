//! Packed data files: independent zstd frames of whole lines, and a seek table behind them with the place of each
//! frame.
//!
//! A packed file is an ordinary `.ndjson.zst` file: head and table are skippable frames (RFC 8878 section 3.1.2), so
//! every zstd reader reads its rows, and a reader that ignores the table misses none. With the table a reader takes
//! single frames, checks them before it decodes them, and copies them unchanged. `seek_table` is the layout,
//! `frame_reader` reads frames. Entries of the table are checked against the bytes of a frame when it is read, and rows
//! are scanned as those of any other file. Nothing here writes files, or knows types, rows or patients beyond the
//! entries that the table has for the index.

pub(crate) mod frame_reader;
pub(crate) mod seek_table;
