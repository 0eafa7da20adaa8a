//! Which row a fullUrl of a Bundle stands for: a table of hashes, confirmed by reading the entry again.
//!
//! 5 to 10 bytes an entry beside the 24 of its place. Two urls of one hash are told apart by their texts.

use std::collections::HashMap;
use std::ops::Range;

use crate::casts::{to_u32, to_usize};
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::import::entry::{
    BundleKind, EntryAction, EntryRules, ReadEntry, RowTarget, full_url_of, read_entry, resource_head,
};
use crate::import::outline::{BundleOutline, hash_of_url};

/// A slot of the table without an entry.
const FREE_SLOT: u32 = u32::MAX;

/// Open addressing from hashes of fullUrls to entries.
pub(crate) struct UrlTable {
    slots: Vec<u32>,
}

/// A Bundle whose entries can be read.
pub(crate) struct OpenBundle<'a> {
    /// Its text.
    pub text: &'a [u8],
    /// Where its entries stand.
    pub outline: &'a BundleOutline,
    /// How they are read.
    pub rules: EntryRules<'a>,
    /// Rows that stand for another resource than their own, by the number of their entry: what a condition found.
    pub replaced: HashMap<u32, RowTarget>,
}

impl<'a> OpenBundle<'a> {
    /// Reads an entry.
    ///
    /// # Errors
    /// Why it cannot be taken.
    pub(crate) fn read(&self, number: u32) -> Result<ReadEntry, String> {
        let (text, resource) = self.parts(number);
        read_entry(text, resource, self.rules)
    }

    /// The text of an entry, and where its resource stands in it.
    pub(crate) fn parts(&self, number: u32) -> (&'a [u8], Option<Range<usize>>) {
        let (range, resource) = self.outline.entry(self.text, number as usize);
        (&self.text[range], resource)
    }

    /// Offset of an entry in the Bundle, in bytes.
    pub(crate) fn offset(&self, number: u32) -> u64 {
        self.outline.entries[number as usize].start
    }

    /// The row that an entry stands for; `None` if it is none.
    pub(crate) fn target(&self, number: u32) -> Option<RowTarget> {
        if let Some(target) = self.replaced.get(&number) {
            return Some(*target);
        }
        // The id of the resource itself decides, whatever else the entry says: that is checked when its own row is made.
        if let Some(resource) = self.outline.resource(self.text, number as usize)
            && let Ok((resource_type, Some(id))) = resource_head(resource, self.rules.kernel)
        {
            return Some(RowTarget { resource_type, id });
        }
        match self.read(number).ok()?.action {
            EntryAction::Row { target, .. } => Some(target),
            EntryAction::Deletion { .. } | EntryAction::Outcome => None,
        }
    }

    /// Type, id and versionId of an entry's resource.
    fn version(&self, number: u32) -> Option<(RowTarget, Vec<u8>)> {
        let target = self.target(number)?;
        let (text, resource) = self.parts(number);
        let mut extractor = Extractor::new(self.rules.kernel, Validate::Full);
        let version = extractor.extract(&text[resource?]).ok()?.version_id().to_vec();
        Some((target, version))
    }

    /// Whether R4 lets two entries have the same fullUrl: versions of one resource (bdl-7,
    /// <https://hl7.org/fhir/R4/bundle.html#invs>).
    fn may_share_url(&self, one: u32, other: u32) -> bool {
        match (self.version(one), self.version(other)) {
            (Some((one, one_version)), Some((other, other_version))) => {
                one == other && (self.rules.kind == BundleKind::History || one_version != other_version)
            }
            // A deleted version has no resource.
            _ => self.rules.kind == BundleKind::History,
        }
    }
}

impl UrlTable {
    /// The table of a Bundle, and entries whose fullUrl an earlier one has.
    pub(crate) fn of(bundle: &OpenBundle<'_>) -> (UrlTable, Vec<u32>) {
        let entries = &bundle.outline.entries;
        let urls = entries.iter().filter(|entry| entry.url_hash != 0).count();
        // At most four of five slots are taken.
        let size = if urls == 0 { 0 } else { (urls + urls / 4 + 1).next_power_of_two() };
        let mut table = UrlTable { slots: vec![FREE_SLOT; size] };
        let mut repeated = Vec::new();
        for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.url_hash != 0) {
            let number = to_u32(number);
            let mut url = None;
            let mut slot = table.first_slot(entry.url_hash);
            while table.slots[slot] != FREE_SLOT {
                let earlier = table.slots[slot];
                if entries[earlier as usize].url_hash == entry.url_hash {
                    let own = url.get_or_insert_with(|| url_of(bundle, number));
                    if *own == url_of(bundle, earlier) {
                        break;
                    }
                }
                slot = (slot + 1) & (table.slots.len() - 1);
            }
            match table.slots[slot] {
                FREE_SLOT => table.slots[slot] = number,
                earlier if bundle.may_share_url(earlier, number) => {}
                _ => repeated.push(number),
            }
        }
        (table, repeated)
    }

    /// The entry with this fullUrl.
    pub(crate) fn find(&self, bundle: &OpenBundle<'_>, url: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash_of_url(url.as_bytes());
        let mut slot = self.first_slot(hash);
        loop {
            let number = match self.slots[slot] {
                FREE_SLOT => return None,
                number => number,
            };
            let is_same = bundle.outline.entries[number as usize].url_hash == hash;
            if is_same && has_url(bundle, number, url) {
                return Some(number);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// The slot at which the search for a hash begins.
    fn first_slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }
}

/// Whether an entry has this fullUrl, which mostly stands first in it.
fn has_url(bundle: &OpenBundle<'_>, number: u32, url: &str) -> bool {
    // Its end, which may be far away, is not looked for.
    let text = &bundle.text[to_usize(bundle.offset(number))..];
    let behind = |text: &'_ [u8], token: &[u8]| text.trim_ascii_start().strip_prefix(token).map(<[u8]>::len);
    let at = behind(text, b"{").and_then(|left| behind(&text[text.len() - left..], b"\"fullUrl\""));
    let at = at.and_then(|left| behind(&text[text.len() - left..], b":"));
    let at = at.and_then(|left| behind(&text[text.len() - left..], b"\""));
    let first = at.map(|left| &text[text.len() - left..]);
    match first.and_then(|first| first.strip_prefix(url.as_bytes())).is_some_and(|rest| rest.starts_with(b"\"")) {
        // A fullUrl that stands twice is found when the entry's own row is made.
        true => !url.contains('\\'),
        false => url_of(bundle, number).as_deref() == Some(url),
    }
}

/// The fullUrl of an entry, read again.
fn url_of(bundle: &OpenBundle<'_>, number: u32) -> Option<String> {
    let (text, resource) = bundle.parts(number);
    full_url_of(text, resource)
}
