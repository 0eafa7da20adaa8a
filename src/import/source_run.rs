//! The import of one source under way: where its rows go, and what was found wrong with it so far.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::instant::Instant;
use crate::import::compact::compact;
use crate::import::output::ImportDir;
use crate::import::problem::{ImportError, ImportProblem, ProblemLog};
use crate::import::rows::{BatchRows, RowForm, RowMaker, RowOrigin};
use crate::import::stamp::RowStamp;
use crate::import::stored::StoredResources;
use crate::progress::Progress;
use crate::simd::Kernel;
use crate::sys::file_map::ReadMap;
use crate::sys::private_files::create_unnamed;

/// Why a long row gets no date.
pub(crate) const LONG_ROW: &str =
    "the row is longer than 16 MiB, more than is compared for a new date; import it without one";

/// One source on its way into the store.
pub(crate) struct SourceRun<'a> {
    /// Name of the file in problems.
    pub source: String,
    /// The scanner's kernel.
    pub kernel: Kernel,
    /// Bases under which URLs are the store's.
    pub bases: BaseUrls<'a>,
    /// Whether good rows are taken beside bad ones.
    pub partial: bool,
    /// When deletions happened whose Bundle has no date.
    pub deleted_at: Option<Instant>,
    /// Where its rows go.
    pub dir: ImportDir,
    /// What cannot be taken.
    pub problems: ProblemLog,
    /// Entries that are no rows.
    pub passed_over: u64,
    /// Rows and deletions that are left out because the store is as they say.
    pub unchanged: u64,
    /// The date that rows get, if they get one.
    pub stamp: Option<RowStamp>,
    /// The store, for searches.
    pub stored: &'a mut StoredResources<'a>,
    /// Directory for files without a name.
    pub spool: &'a Path,
    /// Progress and cancellation.
    pub progress: &'a Progress,
}

impl SourceRun<'_> {
    /// Adds what a part of the source became, unless the source is left as a whole.
    ///
    /// # Errors
    /// If it cannot be written, or the work is cancelled.
    pub(crate) fn add(&mut self, mut batch: BatchRows) -> Result<(), ImportError> {
        self.problems.append(std::mem::take(&mut batch.problems));
        self.passed_over += batch.passed_over;
        self.unchanged += batch.unchanged;
        self.progress.write_done.fetch_add(batch.source_bytes, Relaxed);
        if self.progress.is_cancelled() {
            return Err(ImportError::Cancelled);
        }
        if self.takes_rows() { self.dir.add(&batch) } else { Ok(()) }
    }

    /// Whether rows are still taken.
    pub(crate) fn takes_rows(&self) -> bool {
        self.partial || self.problems.count == 0
    }

    /// Adds a problem.
    pub(crate) fn refuse(&mut self, document: Option<u64>, entry: Option<u64>, offset: u64, reason: impl Into<String>) {
        let (source, reason) = (self.source.clone(), reason.into());
        self.problems.push(ImportProblem { source, document, entry, offset, reason });
    }

    /// Adds the row of a resource that is too long to be held in memory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add_long(
        &mut self,
        mut maker: RowMaker<'_>,
        resource: &[u8],
        form: RowForm,
        origin: RowOrigin,
    ) -> Result<(), ImportError> {
        if self.stamp.is_some() {
            maker.refuse(origin, LONG_ROW);
            return self.add(maker.finish(&|_| None));
        }
        let failed = |error| ImportError::Write { path: self.spool.to_path_buf(), source: error };
        let file = create_unnamed(self.spool, ".outpour-import.row").map_err(failed)?;
        let mut out = BufWriter::new(file);
        let mut written = Ok(());
        let whole = compact(self.kernel, resource, |run| {
            if written.is_ok() {
                written = out.write_all(run);
            }
        });
        written.map_err(failed)?;
        let row = ReadMap::of_file(out.into_inner().map_err(|error| failed(error.into_error()))?, self.spool)?;
        // Once to see whether it is a row, and once more to write it.
        let is_row = whole && maker.pass_long(&row, form, origin, &mut |_| {});
        if !whole {
            maker.refuse(origin, "a line feed stands unescaped in a string (RFC 8259)");
        }
        if is_row && self.takes_rows() {
            let resource_type = form.target.resource_type;
            let mut written = Ok(());
            maker.pass_long(&row, form, origin, &mut |piece| {
                if written.is_ok() {
                    written = self.dir.write(resource_type, piece, 0);
                }
            });
            written?;
            self.dir.write(resource_type, b"\n", 1)?;
        }
        let mut batch = maker.finish(&|_| None);
        batch.source_bytes = resource.len() as u64;
        self.add(batch)
    }
}
