//! The rows of one output file that are changed on their way: reduced, their URLs made absolute, or both; counted on both
//! sides.

use crate::error::ExportError;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RowAddress, ShardId};
use crate::index::snapshot::Snapshot;
use crate::limits::GATHER_BYTES;
use crate::plan::Plan;
use crate::select::attachments::{AttachmentLinks, RowLinks};
use crate::simd::Kernel;
use crate::write::reduce::line_reducer::LineReducer;
use crate::write::rewrite::url_rewriter::UrlRewriter;

/// Changes the rows of one file.
pub(crate) struct RowChanges<'p> {
    reducer: Option<LineReducer>,
    links: Option<LinkedRows<'p>>,
    /// A piece of a row that is reduced and not rewritten yet.
    reduced: Vec<u8>,
    /// Changed bytes that wait to be written.
    changed: Vec<u8>,
    /// Rows that were ended.
    rows: u64,
    /// Bytes of the rows as they are in the store, with a newline for each that was ended.
    source_bytes: u64,
    is_in_row: bool,
}

/// The rows of a file whose URLs become absolute, one after another.
struct LinkedRows<'p> {
    snapshot: &'p Snapshot,
    links: &'p AttachmentLinks,
    rows: Box<dyn Iterator<Item = RowAddress> + 'p>,
    rewriter: UrlRewriter,
    /// Those of the row that is read.
    row: RowLinks,
}

impl LinkedRows<'_> {
    /// Begins the next row.
    fn begin_row(&mut self) -> Result<(), ExportError> {
        self.row = match self.rows.next() {
            Some(row) => self.links.of_row(self.snapshot, row)?,
            // A row too many is found when the file ends.
            None => RowLinks::default(),
        };
        Ok(())
    }

    /// Takes the next bytes of the row, and appends to `out` what they become.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ExportError> {
        let LinkedRows { snapshot, links, rewriter, row, .. } = self;
        if row.is_empty() {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let mut failure = None;
        let mut new_url = |found: crate::fhir::reference::Reference<'_>| match links.new_text(snapshot, row, found) {
            Ok(new) => new,
            Err(error) => {
                failure = Some(error);
                None
            }
        };
        rewriter.feed(bytes, &mut new_url, out);
        failure.map_or(Ok(()), Err)
    }

    /// Ends the row. `false` if it was no whole object.
    fn end_row(&mut self, out: &mut Vec<u8>) -> bool {
        self.row.is_empty() || self.rewriter.end_row(out)
    }
}

impl<'p> RowChanges<'p> {
    /// The changes of the rows of a file; `None` if they are written as they are.
    pub(crate) fn of(plan: &'p Plan, snapshot: &'p Snapshot, shard: ShardId) -> Option<RowChanges<'p>> {
        let of_shard = plan.shard(shard);
        let reducer = LineReducer::of(&plan.request.elements, of_shard.resource_type, Kernel::detect());
        let links = plan.attachments.as_ref().filter(|_| of_shard.rewritten).map(|links| LinkedRows {
            snapshot,
            links,
            rows: Box::new(plan.rows_of(snapshot, shard)),
            rewriter: UrlRewriter::default(),
            row: RowLinks::default(),
        });
        (reducer.is_some() || links.is_some()).then(|| RowChanges::begin(reducer, links))
    }

    /// The reductions of the rows of a type; `None` if they are written as they are.
    pub(crate) fn reducing(elements: &ElementSelection, of_type: ResourceType) -> Option<RowChanges<'p>> {
        let reducer = LineReducer::of(elements, of_type, Kernel::detect());
        reducer.map(|reducer| RowChanges::begin(Some(reducer), None))
    }

    /// Changes of no row yet.
    fn begin(reducer: Option<LineReducer>, links: Option<LinkedRows<'p>>) -> RowChanges<'p> {
        let (reduced, changed) = (Vec::new(), Vec::new());
        RowChanges { reducer, links, reduced, changed, rows: 0, source_bytes: 0, is_in_row: false }
    }

    /// Takes the next bytes of a row.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged, or a Binary that the row refers to cannot be read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.source_bytes += bytes.len() as u64;
        let RowChanges { reducer, links, reduced, changed, is_in_row, .. } = self;
        if !std::mem::replace(is_in_row, true)
            && let Some(links) = links
        {
            links.begin_row()?;
        }
        match (reducer, links) {
            (Some(reducer), None) => reducer.feed(bytes, changed),
            (Some(reducer), Some(links)) => {
                reduced.clear();
                reducer.feed(bytes, reduced);
                links.feed(reduced, changed)?;
            }
            (None, Some(links)) => links.feed(bytes, changed)?,
            (None, None) => changed.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Ends a row, which gets a newline. `false` if it was no whole object.
    pub(crate) fn end_row(&mut self) -> bool {
        self.is_in_row = false;
        self.rows += 1;
        self.source_bytes += 1;
        let is_rewritten = self.links.as_mut().is_none_or(|links| links.end_row(&mut self.changed));
        self.changed.push(b'\n');
        self.reducer.as_mut().is_none_or(LineReducer::end_row) && is_rewritten
    }

    /// Whether so much waits that it is to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.changed.len() >= GATHER_BYTES
    }

    /// Passes what waits to `write`.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn drain<E>(&mut self, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let written = write(&self.changed);
        self.changed.clear();
        written
    }

    /// Rows so far, and their bytes in the store, newlines included.
    pub(crate) fn taken(&self) -> (u64, u64) {
        (self.rows, self.source_bytes)
    }
}
