//! Rows dated when they come: those that differ from the current version of their resource get a new `meta.lastUpdated`,
//! the others are left out.
//!
//! The stamp is later than the T of every snapshot that was given out, so that the next increment has these rows. It is
//! chosen under the lock under which snapshots are recorded, and that lock is held until the rows are in the store.

use std::sync::Arc;

use crate::error::ExportError;
use crate::fhir::instant::Instant;
use crate::group::lookup::{group_rows_of, our_bases};
use crate::import::compact::compact_to_front;
use crate::import::entry::RowTarget;
use crate::import::members::object_members;
use crate::import::outline::{TYPE_AND_ID, text_of_value, type_and_id};
use crate::import::problem::ImportError;
use crate::import::rows::{BatchRows, TypeRows};
use crate::index::dir::{IndexDir, IndexLock};
use crate::index::row_reader::{row_range, stream_range};
use crate::index::snapshot::{RowState, Snapshot};
use crate::index::snapshot_time::next_ticks;
use crate::progress::Progress;
use crate::simd::Kernel;
use crate::store::Store;
use std::sync::atomic::Ordering::Relaxed;

/// The stamp of one source, and the versions that its rows are compared with.
pub(crate) struct RowStamp {
    /// The store before the source; `None` if it has no rows.
    snapshot: Option<Arc<Snapshot>>,
    ours: Vec<bool>,
    /// The time that rows get.
    pub time: Instant,
    kernel: Kernel,
    /// Keeps snapshots away.
    _lock: IndexLock,
}

impl RowStamp {
    /// Chooses the stamp for rows that are compared with `snapshot`. Waits for whoever holds the index.
    ///
    /// # Errors
    /// If the index cannot be locked.
    pub(crate) fn choose(
        store: &Store,
        snapshot: Option<Arc<Snapshot>>,
        bases: &[String],
        now: &Instant,
        progress: &Progress,
    ) -> Result<RowStamp, ImportError> {
        let place = store.index_dir();
        let dir = IndexDir::directory(&place).map_err(ImportError::write(&place))?;
        let lock = dir.lock(&mut || progress.waiting.store(true, Relaxed)).map_err(ImportError::write(&place))?;
        progress.waiting.store(false, Relaxed);
        let latest = store.latest_snapshot().map(|latest| latest.ticks);
        let time = Instant { ticks: next_ticks(now, latest), rest: Box::default() };
        let ours = snapshot.as_ref().map(|snapshot| our_bases(snapshot, bases)).unwrap_or_default();
        Ok(RowStamp { snapshot, ours, time, kernel: store.options().kernel, _lock: lock })
    }

    /// Stamps the rows of a part of a source, drops those that are as they were, and deletions of what is not there.
    ///
    /// # Errors
    /// If a row of the store cannot be read.
    pub(crate) fn apply(&self, batch: &mut BatchRows) -> Result<(), ImportError> {
        for rows in &mut batch.types {
            batch.unchanged += self.stamp_rows(rows)?;
        }
        batch.types.retain(|rows| rows.rows() > 0);
        let mut deletions = Vec::new();
        for mut deletion in std::mem::take(&mut batch.deletions) {
            match self.current(deletion.target)? {
                Some(_) => {
                    deletion.date = self.time.clone();
                    deletions.push(deletion);
                }
                None => batch.unchanged += 1,
            }
        }
        batch.deletions = deletions;
        Ok(())
    }

    /// Stamps rows of one type; the number of those that are dropped.
    fn stamp_rows(&self, rows: &mut TypeRows) -> Result<u64, ImportError> {
        let (mut kept, mut bytes) = (Vec::new(), Vec::with_capacity(rows.bytes.len()));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for (number, line) in rows.bytes.split(|byte| *byte == b'\n').take(rows.rows() as usize).enumerate() {
            let [_, id] = type_and_id(self.kernel, line, TYPE_AND_ID);
            let id = text_of_value(&line[id]).and_then(|id| crate::fhir::id::Id::parse(id.as_bytes()));
            let id = id.expect("the row was validated");
            let current = self.current(RowTarget { resource_type: rows.resource_type, id })?;
            if let Some(current) = &current {
                content(self.kernel, line, &mut one);
                content(self.kernel, current, &mut other);
                if one == other {
                    continue;
                }
            }
            write_stamped(self.kernel, line, &self.time, &mut bytes);
            bytes.push(b'\n');
            kept.push(number);
        }
        let dropped = rows.rows() - kept.len() as u64;
        rows.replace(bytes, &kept);
        Ok(dropped)
    }

    /// The bytes of the current version of a resource.
    fn current(&self, target: RowTarget) -> Result<Option<Vec<u8>>, ImportError> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        let index = snapshot.index();
        let rows = group_rows_of(snapshot, target.resource_type, &target.id).map_err(ExportError::from)?;
        for row in rows {
            let state = snapshot.state(row, snapshot.as_of().as_ref(), &self.ours, &|_| true);
            if state.map_err(ExportError::from)? == RowState::Current {
                let mut bytes = Vec::new();
                let file = index.file_of(row.segment);
                stream_range(index, file, row_range(index, row), &mut |piece| bytes.extend_from_slice(piece))?;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// The content of a row by which versions are compared: without white space between tokens, `meta.lastUpdated` and
/// `meta.versionId`, and without a `meta` of which nothing is left.
fn content(kernel: Kernel, row: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut line = Vec::new();
    let (len, _) = compact_to_front(kernel, row, &mut line);
    line.truncate(len);
    let Some(members) = object_members(kernel, &line) else { return out.extend_from_slice(&line) };
    for (name, value) in members {
        if text_of_value(&line[name.clone()]).as_deref() != Some("meta") {
            put_member(&line[name], &line[value], out);
            continue;
        }
        let meta = &line[value.clone()];
        let Some(parts) = object_members(kernel, meta) else {
            put_member(&line[name], meta, out);
            continue;
        };
        let is_kept =
            |name: &[u8]| !text_of_value(name).is_some_and(|name| matches!(&*name, "lastUpdated" | "versionId"));
        let mut reduced = Vec::new();
        let kept = parts.into_iter().filter(|(name, _)| is_kept(&meta[name.clone()]));
        kept.for_each(|(name, value)| put_member(&meta[name], &meta[value], &mut reduced));
        if !reduced.is_empty() {
            put_member(&line[name], &reduced, out);
        }
    }
}

/// Appends a member to a text that is only compared.
fn put_member(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b',');
}

/// Appends a row whose `meta.lastUpdated` is the stamp: in the place of the one that it has, else first in `meta`, else in a
/// `meta` behind the other members. All other bytes stay.
fn write_stamped(kernel: Kernel, row: &[u8], time: &Instant, out: &mut Vec<u8>) {
    let [meta_at, _] = type_and_id(kernel, row, &["meta"]);
    let members = if meta_at.is_empty() { None } else { object_members(kernel, &row[meta_at.clone()]) };
    let Some(members) = members else {
        // A meta that is no object says nothing.
        let (before, behind) = match meta_at.is_empty() {
            false => (&row[..meta_at.start], &row[meta_at.end..]),
            true => {
                let end = row.iter().rposition(|byte| *byte == b'}').unwrap_or(row.len());
                out.extend_from_slice(&row[..end]);
                (&b",\"meta\":"[..], &row[end..])
            }
        };
        out.extend_from_slice(before);
        out.extend_from_slice(format!("{{\"lastUpdated\":\"{time}\"}}").as_bytes());
        out.extend_from_slice(behind);
        return;
    };
    let meta = &row[meta_at.clone()];
    let is_date = |name: &[u8]| text_of_value(name).as_deref() == Some("lastUpdated");
    let old = members.iter().find(|(name, _)| is_date(&meta[name.clone()])).map(|(_, value)| value.clone());
    let (range, new) = match old {
        Some(value) => (meta_at.start + value.start..meta_at.start + value.end, format!("\"{time}\"")),
        None => {
            let comma = if members.is_empty() { "" } else { "," };
            let at = meta_at.start + 1;
            (at..at, format!("\"lastUpdated\":\"{time}\"{comma}"))
        }
    };
    out.extend_from_slice(&row[..range.start]);
    out.extend_from_slice(new.as_bytes());
    out.extend_from_slice(&row[range.end..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The date is replaced or added where it belongs, and nothing else changes.
    #[test]
    fn dates_are_put_where_they_belong() {
        let time = Instant::parse("2026-01-02T03:04:05Z").unwrap();
        let date = format!(r#""lastUpdated":"{time}""#);
        for (row, expected) in [
            (r#"{"id":"a"}"#, r#"{"id":"a","meta":{DATE}}"#),
            (r#"{"id":"a" } "#, r#"{"id":"a" ,"meta":{DATE}} "#),
            (r#"{"meta":{},"id":"a"}"#, r#"{"meta":{DATE},"id":"a"}"#),
            (r#"{"meta":null,"id":"a"}"#, r#"{"meta":{DATE},"id":"a"}"#),
            (
                r#"{"meta":{"versionId":"1"},"x":{"lastUpdated":"b"}}"#,
                r#"{"meta":{DATE,"versionId":"1"},"x":{"lastUpdated":"b"}}"#,
            ),
            (r#"{"meta":{"tag":[],"lastUpdated":"2020"},"id":"a"}"#, r#"{"meta":{"tag":[],DATE},"id":"a"}"#),
            (r#"{"m\u0065ta":{"lastUpdated" : null},"id":"a"}"#, r#"{"m\u0065ta":{"lastUpdated" : "TIME"},"id":"a"}"#),
        ] {
            let mut out = Vec::new();
            write_stamped(Kernel::detect(), row.as_bytes(), &time, &mut out);
            let expected = expected.replace("DATE", &date).replace("TIME", &time.to_string());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    /// What is compared has no date, no version and no white space; everything else counts.
    #[test]
    fn versions_are_compared_by_content() {
        let of = |row: &str| {
            let mut out = Vec::new();
            content(Kernel::detect(), row.as_bytes(), &mut out);
            out
        };
        let same = [
            r#"{"id":"a","x":1}"#,
            r#"{ "id":"a", "meta":{"versionId":"7","lastUpdated":"2020"}, "x": 1}"#,
            r#"{"id":"a","meta":{},"x":1}"#,
        ];
        assert!(same.iter().all(|row| of(row) == of(same[0])));
        for other in [
            r#"{"id":"a","x":1.0}"#,
            r#"{"id":"a","meta":{"tag":[]},"x":1}"#,
            r#"{"x":1,"id":"a"}"#,
            r#"{"id":"a","x":1,"meta":null}"#,
        ] {
            assert!(of(other) != of(same[0]), "{other}");
        }
    }
}
