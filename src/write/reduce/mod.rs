//! Reduction of rows to the elements that `_elements` lists (ELEM-01 to ELEM-06).
//!
//! ```text
//! row in pieces → simd::block_cursor: strings and brackets, 64 bytes at a time → line_reducer: what stays → encoder
//! ```
//!
//! What stays of a row keeps its bytes. White space between the members of the resource itself is dropped, any other kept.

pub(crate) mod kept_names;
pub(crate) mod line_reducer;
#[cfg(test)]
mod tests;
