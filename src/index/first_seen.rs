//! What the tables of packed files tell a new index of the index that was packed: its birth, and which rows came late.
//!
//! An index that has given out snapshots already knows better: to it a packed file that arrives is new.

use std::collections::HashMap;

use crate::index::meta::IndexMeta;
use crate::index::segment::span::{RangeKind, ScanRange};

/// What the tables of the files to scan tell.
#[derive(Default)]
pub(crate) struct FirstSeen {
    first_seen: HashMap<usize, Option<i64>>,
    birth: Option<i64>,
    latest: Option<i64>,
}

impl FirstSeen {
    /// Collects it; nothing when the generation has given out a snapshot.
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

    /// Notes birth and latest snapshot in a generation that has none.
    pub(crate) fn note_table(&self, meta: &mut IndexMeta) {
        meta.birth = meta.birth.or(self.birth);
        meta.latest = meta.latest.max(self.latest);
    }

    /// T of the first snapshot that held the rows of a file, if its table tells.
    pub(crate) fn first_seen(&self, file: usize) -> Option<i64> {
        self.first_seen.get(&file).copied().flatten()
    }
}
