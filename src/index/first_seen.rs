//! Birth of the index and first snapshots of late rows, as the tables of packed files record them of the index that was
//! packed.
//!
//! Used only for an index that has no snapshot yet; to any other a packed file that arrives is new.

use std::collections::HashMap;

use crate::ids::FileId;
use crate::index::meta::IndexMeta;
use crate::index::segment::span::{RangeKind, ScanRange};

/// Snapshot times from the tables of the packed files to scan, in ticks.
#[derive(Default)]
pub(crate) struct FirstSeen {
    first_seen: HashMap<FileId, Option<i64>>,
    birth: Option<i64>,
    latest: Option<i64>,
}

impl FirstSeen {
    /// Collects the times of the tables in `spans`; nothing when the index meta has a snapshot.
    pub(crate) fn of(spans: &[ScanRange], meta: &IndexMeta) -> FirstSeen {
        let mut collected = FirstSeen::default();
        if meta.birth.is_some() {
            return collected;
        }
        for span in spans {
            if let RangeKind::Packed { table, .. } = &span.part {
                collected.first_seen.insert(span.file, table.first_seen);
                // Of several packs the oldest birth: it errs towards exporting a row twice, never towards losing it.
                collected.birth = collected.birth.into_iter().chain(table.birth).min();
                collected.latest = collected.latest.max(table.latest);
            }
        }
        collected
    }

    /// Sets birth and latest snapshot of an index meta that has none.
    pub(crate) fn note_table(&self, meta: &mut IndexMeta) {
        meta.birth = meta.birth.or(self.birth);
        meta.latest = meta.latest.max(self.latest);
    }

    /// T of the first snapshot that held the rows of a file, in ticks; `None` if its table has none.
    pub(crate) fn first_seen(&self, file: FileId) -> Option<i64> {
        self.first_seen.get(&file).copied().flatten()
    }
}
