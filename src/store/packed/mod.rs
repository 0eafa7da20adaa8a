//! Packed data files: independent compressed frames of whole lines, and a seek table behind them with the place of each
//! frame.
//!
//! A packed file is an ordinary `.ndjson.zst` or `.ndjson.gz` file: its frames are zstd frames, or deflate segments of one
//! gzip member, and head and table stand where every reader passes over them, so that a reader that ignores the table
//! misses no row. With the table a reader takes single frames, checks them before it decodes them, and copies them
//! unchanged. `envelope` is what stands around frames and table in each format, `seek_table` the layout of the table,
//! `frame_reader` reads frames. Entries of the table are checked against the bytes of a frame when it is read, and rows
//! are scanned as those of any other file. Nothing here writes files, or knows types, rows or patients beyond the
//! entries that the table has for the index.

pub(crate) mod envelope;
pub(crate) mod frame_reader;
pub(crate) mod seek_table;
