//! Binaries of a snapshot by id and version, as URLs of attachments name them (ATTACH-02).
//!
//! The index has the versionId of a row as a number. Any other is read from the first bytes of the row, where every serializer
//! puts `meta`: a versionId that does not stand there is not named in URLs.

use std::borrow::Cow;

use crate::error::{CorruptIndex, ExportError};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::group_rows_of;
use crate::group::rules::tokens::{JsonToken, TokenReader};
use crate::ids::RowAddress;
use crate::index::row_reader::{row_range, stream_range};
use crate::index::segment::id_encoding::VersionKey;
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::snapshot::{RowState, Snapshot};
use crate::limits::BINARY_HEAD_BYTES;

/// The row of a Binary that a URL names: its current version, or the one with a versionId while the resource is not deleted.
/// `None` if the snapshot has no such row. `ours` says of each reference base of the index whether it is ours.
///
/// # Errors
/// If the index is corrupt, or the store cannot be read.
pub(crate) fn find_binary(
    snapshot: &Snapshot,
    id: &Id,
    version: Option<&str>,
    ours: &[bool],
) -> Result<Option<RowAddress>, ExportError> {
    let (mut current, mut former) = (None, Vec::new());
    for row in group_rows_of(snapshot, ResourceType::BINARY, id)? {
        match snapshot.state(row, snapshot.as_of().as_ref(), ours, &|_| true)? {
            RowState::Current => current = Some(row),
            RowState::Superseded if !is_before_deletion(snapshot, row, ours)? => former.push(row),
            RowState::Superseded => {}
            RowState::Future | RowState::Deleted => {}
        }
    }
    let (Some(current), Some(version)) = (current, version) else { return Ok(current) };
    former.sort_unstable();
    for row in [current].into_iter().chain(former.into_iter().rev()) {
        if version_of_row(snapshot, row)?.as_deref() == Some(version) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Whether a DELETE entry of ours follows a row at T: what was deleted does not come back when its id is used again.
fn is_before_deletion(snapshot: &Snapshot, row: RowAddress, ours: &[bool]) -> Result<bool, CorruptIndex> {
    let index = snapshot.index();
    let mut next = index.global().next(index.record_of_row(row))?;
    while let Some(record) = next {
        if !index.is_row(record) {
            let (segment, entry) = index.locate_tombstone(record);
            let columns = index.segment(segment).tombstone(entry)?;
            let base = index.base_of_segment(segment, columns.tomb_base[entry.index()] & BASE_BITS);
            let is_past = columns.tombstone_updated(entry).is_some_and(|updated| updated <= snapshot.as_of().as_ref());
            if is_past && ours[base.index()] && snapshot.sees_segment(segment) {
                return Ok(true);
            }
        }
        next = index.global().next(record)?;
    }
    Ok(false)
}

/// The versionId of a row as URLs name it: a number without zeros before it, or any other text; `None` if the row has none, or
/// not in its first bytes.
///
/// # Errors
/// If the index is corrupt, or the store cannot be read.
pub(crate) fn version_of_row(snapshot: &Snapshot, row: RowAddress) -> Result<Option<String>, ExportError> {
    match numbered_version(snapshot, row)? {
        Some(number) => Ok(Some(number)),
        None => version_in_head(snapshot, row),
    }
}

/// The versionId of a row if it is a number, without zeros before it.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn numbered_version(snapshot: &Snapshot, address: RowAddress) -> Result<Option<String>, CorruptIndex> {
    let (segment, row) = address.parts();
    let segment = snapshot.index().segment(segment);
    segment.verify(Column::VersionId, row..row + 1)?;
    let columns = segment.columns();
    Ok(match columns.version_of(row) {
        VersionKey::None => None,
        VersionKey::Small(number) => Some(number.to_string()),
        VersionKey::Big(..) => {
            segment.verify_columns(&[Column::Heap])?;
            match columns.version_of(row) {
                VersionKey::Big(_, digits) => Some(String::from_utf8_lossy(digits).into_owned()),
                VersionKey::None | VersionKey::Small(_) => None,
            }
        }
    })
}

/// The versionId of a row if it stands in its first [`BINARY_HEAD_BYTES`].
///
/// # Errors
/// If the index is corrupt, or the store cannot be read.
pub(crate) fn version_in_head(snapshot: &Snapshot, address: RowAddress) -> Result<Option<String>, ExportError> {
    let index = snapshot.index();
    let (segment, row) = address.parts();
    index.segment(segment).row(row)?;
    let range = row_range(index, address);
    let head = range.start..range.end.min(range.start + BINARY_HEAD_BYTES);
    let mut reader = HeadReader::new();
    stream_range(index, index.file_of(segment), head, &mut |piece| reader.feed(piece))?;
    Ok(reader.version)
}

/// Reads `meta.versionId` from the beginning of a row.
struct HeadReader {
    tokens: TokenReader,
    in_meta: bool,
    is_version: bool,
    version: Option<String>,
}

impl HeadReader {
    /// A reader of no bytes.
    fn new() -> HeadReader {
        HeadReader { tokens: TokenReader::new(), in_meta: false, is_version: false, version: None }
    }

    /// Reads the next piece.
    fn feed(&mut self, piece: &[u8]) {
        let HeadReader { tokens, in_meta, is_version, version } = self;
        tokens.feed(piece, |depth, token| {
            match (depth, token) {
                (1, JsonToken::Key(name)) => *in_meta = name.get().as_deref() == Some("meta"),
                (2, JsonToken::String(text)) if *is_version => {
                    *version = text.get().map(Cow::into_owned).filter(|text| !text.is_empty());
                }
                _ => {}
            }
            *is_version = matches!(token, JsonToken::Key(name) if depth == 2 && *in_meta && name.get().as_deref() == Some("versionId"));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::instant::Instant;
    use crate::store::Store;

    /// ATTACH-02: versions are found by their text, numbers by their value; a deleted Binary has none, a later one counts.
    #[test]
    fn binaries_are_found_by_id_and_version() {
        let binary = |id: &str, version: &str, day: u32| {
            format!(
                r#"{{"resourceType":"Binary","id":"{id}","contained":[{{"meta":{{"versionId":"9"}}}}],"meta":{{"x":{{"versionId":"8"}},"versionId":"{version}","lastUpdated":"2024-01-0{day}T00:00:00Z"}}}}"#
            )
        };
        let big = "9".repeat(30);
        let late =
            format!(r#"{{"resourceType":"Binary","id":"late","x":"{}","meta":{{"versionId":"a"}}}}"#, "y".repeat(5000));
        let deletion = r#"{"resourceType":"Bundle","type":"batch","meta":{"lastUpdated":"2024-01-08T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Binary/gone"}}]}"#;
        let lines = [
            binary("a", "007", 1),
            binary("a", "W\\u0058/1", 2),
            binary("a", "2", 3),
            binary("a", "3", 9),
            binary("gone", "1", 1),
            binary("big", &big, 1),
            r#"{"resourceType":"Binary","id":"none","data":"AAAA"}"#.to_string(),
            late,
            deletion.to_string(),
        ];
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.ndjson"), lines.join("\n")).unwrap();
        let as_of = Instant::parse("2024-01-08T12:00:00Z").unwrap();
        let (snapshot, _) = Store::open(directory.path())
            .unwrap()
            .read_only()
            .snapshot_watched(as_of, &crate::progress::Progress::default())
            .unwrap();
        let ours = vec![true; snapshot.index().bases().len()];
        let find = |id: &str, version: Option<&str>| {
            let row = find_binary(&snapshot, &Id::parse(id.as_bytes()).unwrap(), version, &ours).unwrap()?;
            Some((row.row.index(), version_of_row(&snapshot, row).unwrap()))
        };
        let found = |row, version: &str| Some((row, Some(version.to_string())));
        assert_eq!(find("a", None), found(2, "2"));
        assert_eq!(find("a", Some("2")), found(2, "2"));
        assert_eq!(find("a", Some("7")), found(0, "7"));
        assert_eq!(find("a", Some("WX/1")), found(1, "WX/1"));
        assert_eq!(find("big", Some(&big)), found(5, &big));
        assert_eq!(find("none", None), Some((6, None)));
        assert_eq!(find("late", None), Some((7, None)));
        for (id, version) in [("a", "3"), ("a", "007"), ("gone", "1"), ("none", ""), ("late", "a"), ("b", "1")] {
            assert_eq!(find(id, Some(version)), None, "{id} {version}");
        }
        assert_eq!((find("gone", None), find("b", None)), (None, None));
    }
}
