//! An output file that is being written: rows go to it as they are, or changed.

use crate::error::ExportError;
use crate::limits::GATHER_BYTES;
use crate::write::encode::Encoder;
use crate::write::row_changes::RowChanges;
use crate::write::sink::Sink;

/// Maps a failure of the sink of the file with this name to an error.
pub(crate) type FailedWrite<'a> = &'a dyn Fn(&str, std::io::Error) -> ExportError;

/// An output file being written: its encoder, name and resource type.
pub(crate) struct ShardOutput<'p, S: Sink> {
    pub(crate) encoder: Encoder<S>,
    pub(crate) name: String,
    pub(crate) resource_type: &'static str,
    /// The changes of its rows; `None` if they are written as they are.
    pub(crate) changes: Option<RowChanges<'p>>,
}

impl<S: Sink> ShardOutput<'_, S> {
    /// Whether rows are written as they are.
    pub(crate) fn is_whole(&self) -> bool {
        self.changes.is_none()
    }

    /// Bytes of the rows taken so far, as they are in the store, with a newline each.
    pub(crate) fn source_bytes(&self) -> u64 {
        self.changes.as_ref().map_or(self.encoder.bytes_in(), |changes| changes.taken().1)
    }

    /// Number of source bytes to take next that fills a write, as [`Encoder::preferred_len`].
    pub(crate) fn preferred_len(&self) -> usize {
        if self.is_whole() { self.encoder.preferred_len() } else { GATHER_BYTES }
    }

    /// Takes a piece of a row, without its newline.
    ///
    /// # Errors
    /// Those of [`RowChanges::feed`]; the sink's, by `failed`.
    pub(crate) fn write_piece(&mut self, bytes: &[u8], failed: FailedWrite<'_>) -> Result<(), ExportError> {
        match &mut self.changes {
            None => self.encoder.write(bytes).map_err(|error| failed(&self.name, error)),
            Some(changes) => {
                changes.feed(bytes)?;
                self.drain_full(failed)
            }
        }
    }

    /// Ends a row whose pieces were taken.
    ///
    /// # Errors
    /// `torn` if the row is to be changed and is no whole object; the sink's, by `failed`.
    pub(crate) fn end_row(
        &mut self,
        torn: impl FnOnce() -> ExportError,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        match &mut self.changes {
            None => self.encoder.write(b"\n").map_err(|error| failed(&self.name, error)),
            Some(changes) => match changes.end_row() {
                true => self.drain_full(failed),
                false => Err(torn()),
            },
        }
    }

    /// Takes whole rows, each with its newline.
    ///
    /// # Errors
    /// `torn` with the offset of a row that is to be changed and is no whole object; the sink's, by `failed`.
    pub(crate) fn write_rows(
        &mut self,
        rows: &[u8],
        torn: impl Fn(usize) -> ExportError,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        if self.is_whole() {
            return self.encoder.write(rows).map_err(|error| failed(&self.name, error));
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', rows) {
            self.write_piece(&rows[start..end], failed)?;
            self.end_row(|| torn(start), failed)?;
            start = end + 1;
        }
        Ok(())
    }

    /// Writes the changed rows that wait, if they fill a write.
    fn drain_full(&mut self, failed: FailedWrite<'_>) -> Result<(), ExportError> {
        match self.changes.as_ref().is_some_and(RowChanges::is_full) {
            true => self.drain(failed),
            false => Ok(()),
        }
    }

    /// Writes the changed rows that wait.
    ///
    /// # Errors
    /// The sink's, by `failed`.
    pub(crate) fn drain(&mut self, failed: FailedWrite<'_>) -> Result<(), ExportError> {
        let ShardOutput { encoder, name, changes, .. } = self;
        match changes {
            None => Ok(()),
            Some(changes) => changes.drain(|bytes| encoder.write(bytes)).map_err(|error| failed(name, error)),
        }
    }
}
