//! Packed data files: independent zstd frames of whole lines, and a table behind them that says where each frame lies.
//!
//! A packed file is an ordinary `.ndjson.zst` file: the head and the table are skippable frames (RFC 8878 section
//! 3.1.2), so every reader of zstd reads its rows, and a reader that ignores the table misses none. With the table a
//! reader can take single frames, check them before it decodes them, and copy them as they are. `table` is the layout,
//! `frames` reads. The table is never believed over the bytes: what it says of a frame is checked when the frame is
//! read, and rows are scanned as those of any other file. Nothing here writes files or knows types, rows or patients
//! beyond what the table notes for the index.

pub(crate) mod frame_reader;
pub(crate) mod seek_table;
