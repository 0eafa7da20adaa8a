//! The rows of one output file on their way through the reducer, counted on both sides.

use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::limits::GATHER_BYTES;
use crate::simd::Kernel;
use crate::write::reduce::line_reducer::LineReducer;

/// Reduces the rows of one file.
pub(crate) struct RowReduction {
    reducer: LineReducer,
    /// Reduced bytes that wait to be written.
    reduced: Vec<u8>,
    /// Rows that were ended.
    rows: u64,
    /// Bytes of the rows before reduction, with a newline for each that was ended.
    source_bytes: u64,
}

impl RowReduction {
    /// A reduction of rows of a type; `None` if the selection does not reduce it.
    pub(crate) fn of(selection: &ElementSelection, resource_type: ResourceType) -> Option<RowReduction> {
        let reducer = LineReducer::of(selection, resource_type, Kernel::detect())?;
        Some(RowReduction { reducer, reduced: Vec::new(), rows: 0, source_bytes: 0 })
    }

    /// Takes the next bytes of a row.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.source_bytes += bytes.len() as u64;
        self.reducer.feed(bytes, &mut self.reduced);
    }

    /// Ends a row, which gets a newline. `false` if it was no whole object.
    pub(crate) fn end_row(&mut self) -> bool {
        self.rows += 1;
        self.source_bytes += 1;
        self.reduced.push(b'\n');
        self.reducer.end_row()
    }

    /// Whether so much waits that it is to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.reduced.len() >= GATHER_BYTES
    }

    /// Passes what waits to `write`.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn drain<E>(&mut self, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let written = write(&self.reduced);
        self.reduced.clear();
        written
    }

    /// Rows so far, and their bytes before reduction, newlines included.
    pub(crate) fn taken(&self) -> (u64, u64) {
        (self.rows, self.source_bytes)
    }
}
