//! A Bundle taken apart: its outline first, then its entries in parallel, a bounded part of them at a time.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use rayon::prelude::*;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::casts::to_u32;
use crate::fhir::instant::Instant;
use crate::import::entry::{BundleKind, EntryAction, EntryRules};
use crate::import::links::LinkRewriter;
use crate::import::outline::{BundleOutline, text_of_value};
use crate::import::problem::ImportError;
use crate::import::rows::{BatchRows, RowForm, RowMaker, RowOrigin, SourceDeletion};
use crate::import::searches::{Searches, run_searches};
use crate::import::source_run::{LONG_ROW, SourceRun};
use crate::import::stamp::RowStamp;
use crate::import::targets::{OpenBundle, UrlTable};
use crate::limits::{BUNDLE_HEAD_BYTES_MAX, IMPORT_BATCH_BYTES, IMPORT_ROW_HELD_MAX};

/// A Bundle without its entries.
#[derive(Deserialize)]
struct BundleHead {
    #[serde(rename = "type")]
    bundle_type: Option<String>,
    meta: Option<BundleMeta>,
    #[allow(dead_code)]
    entry: Option<IgnoredAny>,
    #[serde(rename = "resourceType")]
    #[allow(dead_code)]
    resource_type: Option<IgnoredAny>,
}

/// `Bundle.meta`.
#[derive(Deserialize)]
struct BundleMeta {
    #[serde(rename = "lastUpdated")]
    last_updated: Option<String>,
}

const HEAD: &str =
    "the Bundle is no JSON beside its entries, or an element of it stands twice or has another type than R4's";
const LONG_HEAD: &str = "the Bundle has more than 16 MiB beside its entries; leave out what is not an entry";
const UNDATED: &str = "its deletion has no date, and without one it deletes nothing; give the Bundle a meta.lastUpdated \
                       later than what is deleted";
const DATED: &str = "the versions of a history have dates of their own; import it without giving rows a new one";
const REPEATED_URL: &str = "its fullUrl is that of an earlier entry";

/// A Bundle on its way, as the threads that convert its entries see it.
struct BundleRows<'a> {
    bundle: &'a OpenBundle<'a>,
    table: &'a UrlTable,
    searches: &'a Searches,
    /// Entries that are told to be wrong already.
    wrong: &'a HashSet<u32>,
    /// Date of deletions that have none of their own.
    date: Option<Instant>,
    source: &'a str,
    document: Option<u64>,
    /// Offset of the Bundle in the source.
    offset: u64,
}

/// Takes the Bundle that `text` begins with, which stands at `offset` of the source. Returns its length.
///
/// # Errors
/// If rows cannot be written, the store cannot be searched, or the work is cancelled.
pub(crate) fn take_bundle(
    run: &mut SourceRun<'_>,
    text: &[u8],
    offset: u64,
    document: Option<u64>,
) -> Result<usize, ImportError> {
    // 1. Where its entries are, and what it is.
    let outline = BundleOutline::of(run.kernel, text);
    let end = outline.end;
    let (kind, date) = match read_head(text, &outline) {
        Ok(head) => head,
        Err(reason) => {
            if let Some((at, reason)) = outline.fault {
                run.refuse(document, None, offset + at as u64, reason);
            }
            run.refuse(document, None, offset, reason);
            return Ok(end);
        }
    };
    if let Some((at, reason)) = outline.fault {
        run.refuse(document, Some(outline.entries.len() as u64 + 1), offset + at as u64, reason);
    }
    let entries = match u32::try_from(outline.entries.len()) {
        Ok(count) if count < u32::MAX => count,
        _ => {
            run.refuse(document, None, offset, "the Bundle has more than four thousand million entries; split it");
            return Ok(end);
        }
    };
    if kind == BundleKind::History && run.stamp.is_some() {
        run.refuse(document, None, offset, DATED);
        return Ok(end);
    }
    // 2. What its links lead to.
    let rules = EntryRules { kind, bases: run.bases, kernel: run.kernel };
    let mut bundle = OpenBundle { text, outline: &outline, rules, replaced: HashMap::new() };
    let (table, repeated) = UrlTable::of(&bundle);
    let mut wrong: HashSet<u32> = HashSet::new();
    for number in repeated {
        let at = offset + bundle.offset(number);
        run.refuse(document, Some(u64::from(number) + 1), at, REPEATED_URL);
        wrong.insert(number);
    }
    let searches = run_searches(&bundle, run.stored, run.progress)?;
    for (number, reason) in &searches.faults {
        let at = offset + bundle.offset(*number);
        run.refuse(document, Some(u64::from(*number) + 1), at, *reason);
        wrong.insert(*number);
    }
    bundle.replaced.clone_from(&searches.replaced);
    // 3. Its rows.
    let source = run.source.clone();
    let stamp = run.stamp.take();
    let date = date.or_else(|| run.deleted_at.clone()).or_else(|| stamp.as_ref().map(|stamp| stamp.time.clone()));
    let rows = BundleRows {
        bundle: &bundle,
        table: &table,
        searches: &searches,
        wrong: &wrong,
        date,
        source: &source,
        document,
        offset,
    };
    let mut next = 0;
    while next < entries {
        let mut batches = Vec::new();
        let mut long = None;
        while next < entries && batches.len() < 2 * rayon::current_num_threads() && long.is_none() {
            let batch = rows.next_batch(next, entries);
            next = batch.end;
            match rows.is_long(&batch) {
                true => long = Some(batch.start),
                false => batches.push(batch),
            }
        }
        let convert = |batch| stamped(rows.convert(batch), stamp.as_ref());
        let made: Vec<Result<BatchRows, ImportError>> = batches.into_par_iter().map(convert).collect();
        made.into_iter().try_for_each(|batch| run.add(batch?))?;
        if let Some(number) = long {
            match &stamp {
                Some(_) => run.refuse(document, Some(u64::from(number) + 1), offset + bundle.offset(number), LONG_ROW),
                None => rows.take_long(run, number)?,
            }
        }
    }
    run.stamp = stamp;
    Ok(end)
}

/// Rows with the date that they get, if they get one.
///
/// # Errors
/// If a row of the store cannot be read.
pub(crate) fn stamped(mut batch: BatchRows, stamp: Option<&RowStamp>) -> Result<BatchRows, ImportError> {
    stamp.map_or(Ok(()), |stamp| stamp.apply(&mut batch))?;
    Ok(batch)
}

/// The kind of a Bundle, and its date.
fn read_head(text: &[u8], outline: &BundleOutline) -> Result<(BundleKind, Option<Instant>), &'static str> {
    let head: BundleHead = match outline.fault {
        // Of a Bundle that is cut off only what was found is known.
        Some(_) => BundleHead {
            bundle_type: text_of_value(&text[outline.bundle_type.clone()]).map(Cow::into_owned),
            meta: serde_json::from_slice(&text[outline.meta.clone()]).ok(),
            entry: None,
            resource_type: None,
        },
        None => {
            let without = outline.without_entries(text, BUNDLE_HEAD_BYTES_MAX).ok_or(LONG_HEAD)?;
            serde_json::from_slice(&without).map_err(|_| HEAD)?
        }
    };
    let kind = BundleKind::of(head.bundle_type.as_deref())?;
    let date = match head.meta.and_then(|meta| meta.last_updated) {
        Some(text) => Some(Instant::parse(&text).ok_or("the Bundle's meta.lastUpdated is no instant")?),
        None => None,
    };
    Ok((kind, date))
}

impl<'a> BundleRows<'a> {
    /// The next entries that one thread converts, of those up to `end`.
    fn next_batch(&self, start: u32, end: u32) -> Range<u32> {
        let from = self.bundle.offset(start);
        let mut behind = start + 1;
        while behind < end && self.bundle.offset(behind) - from < IMPORT_BATCH_BYTES as u64 {
            behind += 1;
        }
        // A long row at the end is left to the next part.
        if behind - start > 1 && self.is_long(&(behind - 1..behind)) {
            behind -= 1;
        }
        start..behind
    }

    /// Whether these entries are one with a row that is too long to be held.
    fn is_long(&self, batch: &Range<u32>) -> bool {
        let (_, resource) = self.bundle.parts(batch.start);
        batch.len() == 1 && resource.is_some_and(|resource| resource.len() > IMPORT_ROW_HELD_MAX)
    }

    /// A maker of this Bundle's rows.
    fn maker(&self) -> RowMaker<'a> {
        let links = LinkRewriter::new(self.bundle, self.table, &self.searches.matches, &self.searches.renamed);
        RowMaker::new(self.bundle.rules.kernel, self.source, Some(links))
    }

    /// Converts entries.
    fn convert(&self, batch: Range<u32>) -> BatchRows {
        let mut maker = self.maker();
        let bytes = self.bundle.offset(batch.end - 1) - self.bundle.offset(batch.start);
        let last = self.bundle.parts(batch.end - 1).0.len() as u64;
        for number in batch {
            if let Some((resource, form, origin)) = self.read(number, &mut maker) {
                maker.add(resource, form, origin);
            }
        }
        let base = self.offset;
        let mut made = maker.finish(&|origin| {
            let number = to_u32(usize::try_from(origin.entry? - 1).ok()?);
            debug_assert!(origin.offset >= base);
            let (text, resource) = self.bundle.parts(number);
            Some(&text[resource?])
        });
        made.source_bytes = bytes + last;
        made
    }

    /// The resource of an entry, what becomes of it, and where it is; `None` if it becomes no row, which the maker is told.
    fn read(&self, number: u32, maker: &mut RowMaker<'_>) -> Option<(&'a [u8], RowForm, RowOrigin)> {
        if self.wrong.contains(&number) {
            return None;
        }
        let (text, resource) = self.bundle.parts(number);
        let start = self.offset + self.bundle.offset(number);
        let origin = |behind: usize| RowOrigin {
            document: self.document,
            entry: Some(u64::from(number) + 1),
            offset: start + behind as u64,
        };
        let entry = match self.bundle.read(number) {
            Ok(entry) => entry,
            Err(reason) => {
                maker.refuse(origin(0), reason);
                return None;
            }
        };
        match entry.action {
            EntryAction::Outcome => {
                maker.batch.passed_over += 1;
                None
            }
            EntryAction::Deletion { target, date } => {
                match date.or_else(|| self.date.clone()) {
                    Some(date) => maker.batch.deletions.push(SourceDeletion { target, date }),
                    None => maker.refuse(origin(0), UNDATED),
                }
                None
            }
            EntryAction::Row { .. } if self.searches.untaken.binary_search(&number).is_ok() => {
                maker.batch.passed_over += 1;
                None
            }
            EntryAction::Row { target, own_id } => {
                let range = resource?;
                let origin = origin(range.start);
                let target = self.bundle.replaced.get(&number).copied().unwrap_or(target);
                Some((&text[range], RowForm { target, has_id: own_id, is_line: false }, origin))
            }
        }
    }

    /// Takes an entry whose row is too long to be held.
    fn take_long(&self, run: &mut SourceRun<'_>, number: u32) -> Result<(), ImportError> {
        let mut maker = self.maker();
        match self.read(number, &mut maker) {
            Some((resource, form, origin)) => run.add_long(maker, resource, form, origin),
            None => run.add(maker.finish(&|_| None)),
        }
    }
}
