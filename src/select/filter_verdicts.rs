//! What search columns say of rows and filters: a verdict for each row, a byte each.
//!
//! Each distinct value of a segment is compared once, its verdict is spread to the rows that have it, and verdicts of criteria
//! and filters are combined by least and greatest, which compilers vectorise.

use crate::error::CorruptIndex;
use crate::fhir::search::criterion::SearchModifier;
use crate::fhir::search::filter_set::FilterSet;
use crate::fhir::search::matching::{MatchContext, PreparedCriterion};
use crate::fhir::search::parameter::SearchParameter;
use crate::fhir::search::value::ParameterValue;
use crate::index::search::section::{ColumnSection, EntryValues};
use crate::index::search::value_key::{filter_bits, time_of_key};

/// A row that cannot be read for a criterion: whatever the other criteria of a filter say, it must be read.
const UNREADABLE: u8 = 0;
/// A row that does not meet a criterion or filter.
pub(crate) const NOT_MET: u8 = 1;
/// A row of which columns do not say.
pub(crate) const UNKNOWN: u8 = 2;
/// A row that meets it, or is of another type.
pub(crate) const MET: u8 = 3;
/// No verdict yet.
const NONE_YET: u8 = u8::MAX;

/// Most keys of a criterion that are looked for in the words of entries; of more, each value is looked up.
const KEYS_MAX: usize = 8;

/// The rows of a segment whose verdicts are asked for.
#[derive(Clone, Copy)]
pub(crate) enum AskedRows<'a> {
    /// All of so many.
    All(usize),
    /// Some.
    Listed(&'a [u32]),
}

impl AskedRows<'_> {
    /// How many they are.
    fn count(self) -> usize {
        match self {
            AskedRows::All(rows) => rows,
            AskedRows::Listed(rows) => rows.len(),
        }
    }
}

/// The verdict on the filters of a type for each asked row, in their order; `section` finds the column of a parameter.
///
/// # Errors
/// [`CorruptIndex`] if a column is malformed.
pub(crate) fn filter_verdicts<'s>(
    filters: &FilterSet<'_>,
    section: &dyn Fn(&SearchParameter) -> Option<&'s ColumnSection<'s>>,
    rows: AskedRows<'_>,
) -> Result<Vec<u8>, CorruptIndex> {
    let mut verdicts = vec![NOT_MET; rows.count()];
    for filter in &filters.filters {
        // A row meets a filter if it meets each criterion.
        let mut of_filter = vec![MET; rows.count()];
        for criterion in &filter.criteria {
            match section(&criterion.criterion.parameter) {
                Some(section) => {
                    let of_criterion = criterion_verdicts(criterion, filters.context, section, rows)?;
                    of_filter.iter_mut().zip(&of_criterion).for_each(|(all, one)| *all = (*all).min(*one));
                }
                None => of_filter.iter_mut().for_each(|all| *all = (*all).min(UNKNOWN)),
            }
        }
        // And one filter suffices.
        let known = |verdict: u8| if verdict == UNREADABLE { UNKNOWN } else { verdict };
        verdicts.iter_mut().zip(&of_filter).for_each(|(any, one)| *any = (*any).max(known(*one)));
    }
    Ok(verdicts)
}

/// The verdict on a criterion for each asked row.
fn criterion_verdicts(
    criterion: &PreparedCriterion<'_>,
    context: MatchContext<'_>,
    section: &ColumnSection<'_>,
    rows: AskedRows<'_>,
) -> Result<Vec<u8>, CorruptIndex> {
    let judge = EntryJudge::new(criterion, context, section);
    let mut verdicts = vec![MET; rows.count()];
    match rows {
        AskedRows::All(_) => {
            let mut table = Vec::with_capacity(section.entries() + 1);
            table.push(MET);
            for (entry, key) in section.keys().enumerate() {
                table.push(judge.verdict(entry, key)?);
            }
            section.spread(&table, &mut verdicts)?;
        }
        AskedRows::Listed(rows) => {
            let mut table = vec![NONE_YET; section.entries()];
            for (row, verdict) in rows.iter().zip(&mut verdicts) {
                let Some(entry) = section.entry_of(*row as usize)? else { continue };
                if table[entry] == NONE_YET {
                    table[entry] = judge.verdict(entry, section.key(entry))?;
                }
                *verdict = table[entry];
            }
        }
    }
    Ok(verdicts)
}

/// Compares entries of a section with a criterion.
struct EntryJudge<'a, 'c, 'b> {
    criterion: &'a PreparedCriterion<'c>,
    context: MatchContext<'a>,
    section: &'a ColumnSection<'b>,
    /// The bits of which the word of an entry has all those of one, if a value of it matches; `None` if words do not tell.
    bits: Option<Vec<u64>>,
}

impl<'a, 'c, 'b> EntryJudge<'a, 'c, 'b> {
    /// For one criterion and section.
    fn new(
        criterion: &'a PreparedCriterion<'c>,
        context: MatchContext<'a>,
        section: &'a ColumnSection<'b>,
    ) -> EntryJudge<'a, 'c, 'b> {
        let is_missing = matches!(criterion.criterion.modifier, SearchModifier::Missing(_));
        let keys = criterion.keys.as_ref().filter(|keys| !is_missing && keys.len() <= KEYS_MAX);
        let bits = keys.map(|keys| keys.iter().map(|key| filter_bits(key)).collect());
        EntryJudge { criterion, context, section, bits }
    }

    /// The verdict on an entry of this word.
    #[inline(always)]
    fn verdict(&self, entry: usize, key: u64) -> Result<u8, CorruptIndex> {
        let of = |is_met: bool| if is_met { MET } else { NOT_MET };
        let modifier = self.criterion.criterion.modifier;
        if self.section.is_in_key(entry) {
            let span = time_of_key(key).ok_or(CorruptIndex("a search column is malformed"))?;
            return Ok(of(match modifier {
                SearchModifier::Missing(is_missing) => !is_missing,
                _ => self.criterion.matches(&ParameterValue::Time(span), self.context),
            }));
        }
        // A word without a bit is that of an entry without values, or of one that could not be read.
        if let Some(bits) = &self.bits
            && key != 0
            && !bits.iter().any(|bits| key & bits == *bits)
        {
            return Ok(of(modifier == SearchModifier::Not));
        }
        Ok(match self.section.values(entry)? {
            EntryValues::Unreadable => UNREADABLE,
            EntryValues::Read(values) => of(self.criterion.is_met_by(&values, self.context)),
        })
    }
}
