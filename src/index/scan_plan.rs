//! What a refresh would scan, written down, so that other processes can scan it: files, ranges, and the rules of rows. A
//! refresh that is given their segments ([`SegmentSupply`](crate::index::segment::scan::SegmentSupply)) compares the store with
//! its index again, and takes them if it would scan the same.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::casts::{to_u32, to_usize};
use crate::codec::compression::{Compression, SeekPoint};
use crate::error::IndexError;
use crate::ids::FileId;
use crate::index::compaction::join_segments;
use crate::index::diff::{NewFileHashes, diff};
use crate::index::dir::IndexDir;
use crate::index::load::load;
use crate::index::open::{Verification, open_index};
use crate::index::refresh::{check_root, chosen_rules};
use crate::index::segment::span::{RangeKind, ScanRange};
use crate::index::store_files::StoreFiles;
use crate::index::store_listing::StoreListing;
use crate::store::Store;
use crate::store::choices::RowRules;
use crate::store::packed::seek_table::{SeekTable, TableError};
use crate::sys::store_file::{FileStamp, file_clock_ns};

/// What a refresh would scan.
pub(crate) struct ScanPlan {
    /// The files of the store. What is added to it later is not scanned.
    pub listing: StoreListing,
    /// How rows are read.
    pub rules: RowRules,
    /// Whether links in the store are followed.
    pub follow_symlinks: bool,
    /// The files that have ranges, in store order.
    pub files: Vec<PlannedFile>,
    /// The ranges, in the order of a refresh.
    pub ranges: Vec<PlannedRange>,
    /// Bytes on disk that each range covers.
    pub range_bytes: Vec<u64>,
}

/// A store file of which ranges are scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedFile {
    /// Path relative to the store.
    pub name: String,
    /// Size, times and identity before it was read.
    pub stamp: FileStamp,
    /// Whether that stamp was settled then.
    pub settled: bool,
    /// Compression of its bytes.
    pub compression: Compression,
}

impl PlannedFile {
    /// Whether a file with this stamp still has the bytes that were planned, as far as a stamp tells: it is the same file, and has
    /// not been written, or is a plain one that has grown. A plain file that was also changed in place is told by the next
    /// refresh, which is left the planned stamp to compare with.
    pub(crate) fn stands_in(&self, now: FileStamp) -> bool {
        let is_same_file = (now.inode, now.device) == (self.stamp.inode, self.stamp.device);
        now == self.stamp || self.compression == Compression::None && is_same_file && now.len >= self.stamp.len
    }
}

/// A range of a planned file, see [`RangeKind`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedRange {
    /// Place of the file among those of the plan.
    pub file: u32,
    /// Its part.
    pub part: PlannedPart,
}

/// The part of a file that a range is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PlannedPart {
    /// Bytes of a plain file: start, end, and whether it is the last line, without a newline.
    Plain(u64, u64, bool),
    /// A compressed file from a place on: offset on disk, uncompressed bytes before it, and the line end at which the range ends,
    /// uncompressed, if it ends before the file.
    Compressed(u64, u64, Option<u64>),
    /// Frames of a packed file: first, end, and how many its table has.
    Packed(u64, u64, u64),
}

impl PlannedPart {
    /// The part that a range is, to be written down.
    fn of(part: &RangeKind) -> PlannedPart {
        match part {
            RangeKind::Plain { range, tail } => PlannedPart::Plain(range.start, range.end, *tail),
            RangeKind::Compressed { from, to, .. } => PlannedPart::Compressed(from.compressed, from.uncompressed, *to),
            RangeKind::Packed { table, frames } => {
                PlannedPart::Packed(frames.start as u64, frames.end as u64, table.frames() as u64)
            }
        }
    }

    /// Whether it can be a part of a file of this compression.
    pub(crate) fn is_of(&self, compression: Compression) -> bool {
        match self {
            PlannedPart::Plain(start, end, _) => compression == Compression::None && start < end,
            PlannedPart::Compressed(..) => compression != Compression::None,
            PlannedPart::Packed(first, end, of_all) => {
                compression != Compression::None && first <= end && end <= of_all
            }
        }
    }
}

/// Whether segments, given by file, start and end, are those of these ranges, in their order: they cover each range without a gap, up
/// to the end of a compressed file where that is not known.
pub(crate) fn cover_ranges(ranges: &[ScanRange], mut segments: impl Iterator<Item = (FileId, u64, u64)>) -> bool {
    let mut next = segments.next();
    for range in ranges {
        let (mut position, end) = match &range.part {
            RangeKind::Plain { range, .. } => (range.start, Some(range.end)),
            RangeKind::Compressed { from, to, .. } => (from.uncompressed, *to),
            RangeKind::Packed { table, frames } => {
                let start = |frame: usize| match frame < table.frames() {
                    true => table.frame(frame).uncompressed,
                    false => table.uncompressed_len(),
                };
                (start(frames.start), Some(start(frames.end)))
            }
        };
        while let Some((file, start, segment_end)) = next
            && file == range.file
            && start == position
            && end.is_none_or(|end| segment_end <= end)
        {
            position = segment_end;
            next = segments.next();
        }
        if end.is_some_and(|end| position != end) {
            return false;
        }
    }
    next.is_none()
}

/// Plans what a refresh of the store would scan now. Reads the store's names and stamps, the index, lines around the ends of ranges,
/// and files that have changed; writes nothing.
///
/// # Errors
/// As a refresh; [`IndexError::OtherChoices`] where the index was made with other rules and is not to be made again.
pub(crate) fn plan_scan(store: &Store) -> Result<ScanPlan, IndexError> {
    let dir = IndexDir::read_only(&store.index_dir());
    let memory = load(&dir)?;
    let known = memory.known();
    if known.as_ref().is_some_and(|known| known.is_legacy) {
        return Err(IndexError::Changed {
            path: store.index_dir(),
            reason: "holds an index of an earlier version; run `outpour index` once, and then plan".into(),
        });
    }
    let (known, times) = known.map(|known| (known.current, known.times)).unzip();
    let times = times.unwrap_or_default();
    let listing = store.list_files()?;
    let files = StoreFiles::find_within(store, &listing, known.as_ref(), None)?;
    if files.count() == 0 {
        let (path, walked) = (store.root().to_path_buf(), files.walked());
        let others = walked.words_of_others();
        return Err(IndexError::NoDataFiles { path, others, links: walked.ignored_links });
    }
    if let Some(known) = &known {
        check_root(store, &files, known)?;
    }
    let rules = chosen_rules(store, known.as_ref())?;
    let opened = known.as_ref().map(|known| open_index(&dir, known, Verification::Stamps)).transpose()?;
    let mut changes = diff(&files, known.as_ref(), opened.as_ref(), &times, rules, NewFileHashes::LeftOut)?;
    if let Some(known) = known.as_ref().filter(|_| changes.changed && store.options().compaction) {
        join_segments(&mut changes, &files, known, &times)?;
    }
    let mut plan = ScanPlan {
        listing,
        rules,
        follow_symlinks: files.walk_rules().0,
        files: Vec::new(),
        ranges: Vec::new(),
        range_bytes: Vec::new(),
    };
    // Ranges of one file need not stand together: joined ones come last.
    let mut numbers = vec![None; files.count()];
    for span in &changes.spans {
        numbers[span.file.index()] = Some(0);
    }
    for (number, file) in numbers.iter_mut().zip(files.ids()).filter(|(number, _)| number.is_some()) {
        *number = Some(to_u32(plan.files.len()));
        plan.files.push(PlannedFile {
            name: files.name(file).to_string(),
            stamp: files.stamp(file),
            settled: files.is_settled(file),
            compression: files.compression(file),
        });
    }
    for span in &changes.spans {
        let file = numbers[span.file.index()].expect("each file of a range has a number");
        plan.ranges.push(PlannedRange { file, part: PlannedPart::of(&span.part) });
        plan.range_bytes.push(span.part.file_bytes(files.source(span.file)?));
    }
    settle(&files, &mut plan)?;
    Ok(plan)
}

/// Time between two looks whether the times of files that were just written are past.
const SETTLE_WAIT: Duration = Duration::from_millis(50);
/// Most such looks: 3 s, more than the coarsest clock of a file system takes for a step.
const SETTLE_ROUNDS: u32 = 60;

/// Waits until no compressed file of the plan can be written without a change of its times. Such a file is hashed by the commit and
/// not by the task, so nothing else would tell that it was written between them. Plain files are told by the hashes of their ranges.
fn settle(files: &StoreFiles, plan: &mut ScanPlan) -> Result<(), IndexError> {
    let is_waited_for = |file: &PlannedFile| file.compression != Compression::None && !file.settled;
    for _ in 0..SETTLE_ROUNDS {
        let now = file_clock_ns();
        for file in plan.files.iter_mut().filter(|file| is_waited_for(file)) {
            file.settled = file.stamp.is_settled(now);
            let id = files.position(&file.name).expect("a file of the walk");
            if file.settled && files.stamp_now(id)? != file.stamp {
                let reason = "was written while its index was planned; plan once more".to_string();
                return Err(IndexError::Changed { path: files.path(id), reason });
            }
        }
        if !plan.files.iter().any(is_waited_for) {
            break;
        }
        std::thread::sleep(SETTLE_WAIT);
    }
    Ok(())
}

/// The planned files, to be scanned; each has the number of its place in the plan.
pub(crate) fn planned_files(store: &Store, files: &[PlannedFile], follow_symlinks: bool) -> StoreFiles {
    StoreFiles::of_entries(
        store,
        files.iter().map(|file| (file.name.as_str(), file.stamp, file.compression)),
        follow_symlinks,
    )
}

/// The ranges of planned files, to be scanned. Tables of packed files are read.
///
/// # Errors
/// [`IndexError::Changed`] when a packed file is another one by now; when a file cannot be read.
pub(crate) fn ranges_to_scan(files: &StoreFiles, ranges: &[PlannedRange]) -> Result<Vec<ScanRange>, IndexError> {
    let mut last_table: Option<(FileId, Arc<SeekTable>)> = None;
    ranges
        .iter()
        .map(|range| {
            let file = FileId(range.file);
            let part = match range.part {
                PlannedPart::Plain(start, end, tail) => RangeKind::Plain { range: start..end, tail },
                PlannedPart::Compressed(compressed, uncompressed, to) => {
                    let from = SeekPoint { compressed, uncompressed };
                    RangeKind::Compressed { compression: files.compression(file), from, cuts: Vec::new(), to }
                }
                PlannedPart::Packed(first, end, of_all) => {
                    let table = match &last_table {
                        Some((of, table)) if *of == file => table.clone(),
                        _ => match SeekTable::open(files.source(file)?) {
                            Ok(Some(table)) => Arc::new(table),
                            Err(TableError::Source(error)) => return Err(error.into()),
                            Ok(None) | Err(TableError::Damaged(_)) => return Err(changed_since_plan(files, file)),
                        },
                    };
                    if table.frames() as u64 != of_all {
                        return Err(changed_since_plan(files, file));
                    }
                    last_table = Some((file, table.clone()));
                    RangeKind::Packed { table, frames: to_usize(first)..to_usize(end) }
                }
            };
            Ok(ScanRange { file, part })
        })
        .collect()
}

/// The first file of which a refresh is going to scan other ranges than were planned; `None` if it scans the planned ones.
pub(crate) fn first_difference(
    files: &StoreFiles,
    ranges: &[ScanRange],
    planned_files: &[PlannedFile],
    planned: &[PlannedRange],
) -> Option<String> {
    let planned_name = |range: &PlannedRange| planned_files[range.file as usize].name.clone();
    for place in 0..ranges.len().max(planned.len()) {
        match (ranges.get(place), planned.get(place)) {
            (Some(range), Some(planned)) => {
                let file = &planned_files[planned.file as usize];
                let is_planned = files.name(range.file) == file.name
                    && files.compression(range.file) == file.compression
                    && PlannedPart::of(&range.part) == planned.part;
                if !is_planned {
                    return Some(files.name(range.file).to_string());
                }
            }
            (Some(range), None) => return Some(files.name(range.file).to_string()),
            (None, planned) => return planned.map(planned_name),
        }
    }
    None
}

/// The error of a store file that is not what it was when its scan was planned.
pub(crate) fn changed_since_plan(files: &StoreFiles, file: FileId) -> IndexError {
    let reason = "is not what it was when its scan was planned; make a new plan".to_string();
    IndexError::Changed { path: files.path(file), reason }
}
