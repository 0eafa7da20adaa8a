//! The searches by identifier that a Bundle asks for: conditional references, conditional creates and updates. They are
//! looked up among the entries of the Bundle first, then in the store.
//!
//! Memory depends on the number of different identifiers searched for, not on that of the entries.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::casts::to_u32;
use crate::extract::identifiers::IdentifierReader;
use crate::fhir::conditional_reference::ConditionalReference;
use crate::fhir::resource_type::ResourceType;
use crate::import::entry::{BundleKind, EntryAction, RowTarget};
use crate::import::links::SearchMatches;
use crate::import::outline::{TYPE_AND_ID, text_of_value, type_and_id};
use crate::import::problem::ImportError;
use crate::import::stored::StoredResources;
use crate::import::targets::OpenBundle;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::progress::Progress;

static SEARCH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"?identifier"));
static IF_NONE_EXIST: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"ifNoneExist"));

/// What the conditions of a Bundle's entries came to, and what its conditional references match.
#[derive(Default)]
pub(crate) struct Searches {
    /// By type and identifier.
    pub matches: SearchMatches,
    /// Resources that stand for rows, by the number of their entry.
    pub replaced: HashMap<u32, RowTarget>,
    /// The same by the rows' own relative references.
    pub renamed: HashMap<String, RowTarget>,
    /// Entries whose row is not taken, because the resource is there.
    pub untaken: Vec<u32>,
    /// Entries whose condition cannot be honoured, and why.
    pub faults: Vec<(u32, &'static str)>,
}

const SEVERAL: &str = "its condition matches several resources (412 in R4); make the identifier unique";
const OTHER_SEARCH: &str =
    "its condition is a search by something other than one identifier; use identifier=system|value, or its id";
const OTHER_ID: &str = "its resource's id is not that of the resource which its condition matches";

/// Finds what the searches of a Bundle match.
///
/// # Errors
/// If the store cannot be searched, or the work is cancelled.
pub(crate) fn run_searches(
    bundle: &OpenBundle<'_>,
    stored: &mut StoredResources<'_>,
    progress: &Progress,
) -> Result<Searches, ImportError> {
    let mut searches = Searches::default();
    let text = &bundle.text[..bundle.outline.end];
    if bundle.rules.kind != BundleKind::Requests {
        return Ok(searches);
    }
    // 1. What is searched for, and the entries with conditions.
    let mut wanted: HashMap<(ResourceType, String), Vec<u32>> = HashMap::new();
    let mut has_search = false;
    for at in SEARCH.find_iter(text) {
        has_search = true;
        if let Some(search) = string_around(text, at).as_deref().and_then(ConditionalReference::parse)
            && bundle.rules.bases.contains(search.base)
        {
            wanted.entry((search.resource_type, search.identifier)).or_default();
        }
    }
    let mut conditions = Vec::new();
    if has_search || (0..bundle.outline.entries.len()).any(|number| may_have_condition(bundle, number)) {
        for number in 0..to_u32(bundle.outline.entries.len()) {
            // A faulty entry is told when its row is made.
            let Ok(entry) = bundle.read(number) else { continue };
            let (Some(condition), EntryAction::Row { target, own_id }) = (entry.condition, entry.action) else {
                continue;
            };
            match &condition.search {
                Some(search) => drop(wanted.entry(search.clone()).or_default()),
                None => searches.faults.push((number, OTHER_SEARCH)),
            }
            conditions.push((number, condition, target, own_id));
        }
    }
    if wanted.is_empty() {
        return Ok(searches);
    }
    // 2. The entries that have these identifiers.
    find_in_bundle(bundle, &mut wanted, progress)?;
    // 3. The store, for what the entries do not answer by themselves.
    let conditional: Vec<_> = conditions.iter().filter_map(|(_, condition, ..)| condition.search.clone()).collect();
    let open = wanted.iter().filter(|(search, found)| found.is_empty() || conditional.contains(search));
    let mut in_store: HashMap<(ResourceType, String), Vec<RowTarget>> =
        open.map(|(search, _)| (search.clone(), Vec::new())).collect();
    if !in_store.is_empty() {
        stored.find(&mut in_store, progress)?;
    }
    // 4. Conditions, in the order of the entries: a later one may match an earlier entry.
    for (number, condition, target, own_id) in conditions {
        let Some(search) = condition.search else { continue };
        let mut found: Vec<RowTarget> = in_store.get(&search).cloned().unwrap_or_default();
        for earlier in wanted[&search].iter().filter(|earlier| **earlier < number) {
            let row = searches.replaced.get(earlier).copied().or_else(|| bundle.target(*earlier));
            found.extend(row.filter(|row| !found.contains(row)));
        }
        match found[..] {
            [] => {}
            [single] if condition.is_update && own_id && single.id != target.id => {
                searches.faults.push((number, OTHER_ID));
            }
            [single] => {
                searches.replaced.insert(number, single);
                if single != target {
                    searches.renamed.insert(target.to_string(), single);
                }
                if !condition.is_update {
                    searches.untaken.push(number);
                }
            }
            _ => searches.faults.push((number, SEVERAL)),
        }
    }
    // 5. References.
    for (search, entries) in wanted {
        let mut rows: Vec<RowTarget> = Vec::new();
        for entry in entries {
            let row = searches.replaced.get(&entry).copied().or_else(|| bundle.target(entry));
            rows.extend(row.filter(|row| !rows.contains(row)));
        }
        if rows.is_empty() {
            rows = in_store.get(&search).cloned().unwrap_or_default();
        }
        searches.matches.insert(search, rows);
    }
    searches.untaken.sort_unstable();
    Ok(searches)
}

/// Whether an entry may have a condition, by its bytes outside of the resource: a condition names it, or is a search in a url.
fn may_have_condition(bundle: &OpenBundle<'_>, number: usize) -> bool {
    let (entry, resource) = bundle.parts(to_u32(number));
    let resource = resource.unwrap_or(0..0);
    [&entry[..resource.start], &entry[resource.end..]].into_iter().any(|part| {
        // A name or a question mark may be written with an escape.
        memchr::memchr2(b'?', b'\\', part).is_some() || IF_NONE_EXIST.find(part).is_some()
    })
}

/// Adds to each search the entries whose resource has its identifier, at most some of each.
fn find_in_bundle(
    bundle: &OpenBundle<'_>,
    wanted: &mut HashMap<(ResourceType, String), Vec<u32>>,
    progress: &Progress,
) -> Result<(), ImportError> {
    let mut types: Vec<ResourceType> = wanted.keys().map(|(resource_type, _)| *resource_type).collect();
    types.sort();
    types.dedup();
    let mut reader = IdentifierReader::new(bundle.rules.kernel);
    for number in 0..to_u32(bundle.outline.entries.len()) {
        if progress.is_cancelled() {
            return Err(ImportError::Cancelled);
        }
        let (entry, Some(resource)) = bundle.parts(number) else { continue };
        let resource = &entry[resource];
        let [type_at, _] = type_and_id(bundle.rules.kernel, resource, &TYPE_AND_ID[..1]);
        let own = text_of_value(&resource[type_at]).and_then(|name| ResourceType::parse(&name));
        let Some(own) = own.filter(|own| types.contains(own)) else { continue };
        reader.begin();
        reader.feed(resource, &mut |system, value| {
            if let Some(found) = wanted.get_mut(&(own, format!("{system}|{value}")))
                && found.last() != Some(&number)
            {
                found.push(number);
            }
        });
    }
    Ok(())
}

/// The text of the string that the byte at `at` is in.
fn string_around(text: &[u8], at: usize) -> Option<String> {
    let from = text[at.saturating_sub(REFERENCE_BYTES_MAX)..at].iter().rposition(|byte| *byte == b'"')?;
    let from = at.saturating_sub(REFERENCE_BYTES_MAX) + from;
    let len = memchr::memchr(b'"', &text[at..(at + REFERENCE_BYTES_MAX).min(text.len())])?;
    text_of_value(&text[from..at + len + 1]).map(Cow::into_owned)
}
