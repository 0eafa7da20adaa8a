//! What the store holds for the searches of an import: current resources by an identifier.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{ExportError, IndexError};
use crate::extract::identifiers::IdentifierReader;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::our_bases;
use crate::ids::RowAddress;
use crate::import::entry::RowTarget;
use crate::import::problem::ImportError;
use crate::index::row_lines::{RowPlace, read_lines};
use crate::index::row_reader::row_range;
use crate::index::snapshot::{RowState, Snapshot};
use crate::progress::Progress;
use crate::simd::Kernel;
use crate::store::Store;

/// The store that an import adds to, as its index has it.
pub(crate) struct StoredResources<'a> {
    store: &'a Store,
    /// The time at which resources are current.
    now: Instant,
    bases: &'a [String],
    /// The store as it was when it was first asked for; `None` within, while it has no data file.
    snapshot: Option<Option<Arc<Snapshot>>>,
}

impl<'a> StoredResources<'a> {
    /// Resources of a store that are current at `now`. Nothing is read yet.
    pub(crate) fn new(store: &'a Store, now: Instant, bases: &'a [String]) -> StoredResources<'a> {
        StoredResources { store, now, bases, snapshot: None }
    }

    /// The store as it was when it was first asked for, its index brought up to date; `None` while it has no data file.
    ///
    /// # Errors
    /// If the store or its index cannot be read, or the work is cancelled.
    pub(crate) fn snapshot(&mut self, progress: &Progress) -> Result<Option<Arc<Snapshot>>, ImportError> {
        match &self.snapshot {
            Some(snapshot) => Ok(snapshot.clone()),
            None => Ok(self.snapshot.insert(open(self.store, &self.now, progress)?.map(Arc::new)).clone()),
        }
    }

    /// The resources of each identifier asked for, at most two of each.
    ///
    /// # Errors
    /// If the store or its index cannot be read, or the work is cancelled.
    pub(crate) fn find(
        &mut self,
        wanted: &mut HashMap<(ResourceType, String), Vec<RowTarget>>,
        progress: &Progress,
    ) -> Result<(), ImportError> {
        let Some(snapshot) = self.snapshot(progress)? else { return Ok(()) };
        let snapshot = &*snapshot;
        let mut types: Vec<ResourceType> = wanted.keys().map(|(resource_type, _)| *resource_type).collect();
        types.sort();
        types.dedup();
        let ours = our_bases(snapshot, self.bases);
        let mut reader = IdentifierReader::new(Kernel::detect());
        for segment in snapshot.segments() {
            let head = snapshot.index().segment(segment).head();
            if !types.iter().any(|wanted| head.has_type(wanted.index())) {
                continue;
            }
            let columns = snapshot.index().segment(segment).verify_all().map_err(ExportError::from)?;
            let mut places = Vec::new();
            for row in (0..columns.rows()).filter(|row| types.contains(&columns.type_of(*row))) {
                let address = RowAddress::of(segment, row);
                let state = snapshot.state(address, snapshot.as_of().as_ref(), &ours, &|_| true);
                if state.map_err(ExportError::from)? == RowState::Current {
                    let target = RowTarget { resource_type: columns.type_of(row), id: columns.id_of(row) };
                    let file = snapshot.index().file_of(segment);
                    places.push(RowPlace { file, range: row_range(snapshot.index(), address), row: target });
                }
            }
            read_lines(snapshot.index(), &places, progress, &mut |target: &RowTarget, line: &[u8]| {
                reader.begin();
                reader.feed(line, &mut |system, value| {
                    let key = (target.resource_type, format!("{system}|{value}"));
                    if let Some(found) = wanted.get_mut(&key)
                        && found.len() < 2
                        && !found.contains(target)
                    {
                        found.push(*target);
                    }
                });
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The store at `now`, its index brought up to date; `None` if it has no data file yet.
fn open(store: &Store, now: &Instant, progress: &Progress) -> Result<Option<Snapshot>, ImportError> {
    match store.index(progress) {
        Ok((index, _)) => Ok(Some(Snapshot::of_latest(index, now.clone()))),
        Err(IndexError::NoDataFiles { .. }) => Ok(None),
        Err(IndexError::Cancelled) => Err(ImportError::Cancelled),
        Err(error) => Err(error.into()),
    }
}
