//! What happens to a patient's resources, and when: visits, later versions, deletions.
//!
//! Each follows from the seed, the patient and the row alone, so nothing has to be remembered from one place to another.

use crate::synth::SynthOptions;
use crate::synth::rename::choice;
use crate::synth::seed::{SeedPatient, SeedRow};
use crate::synth::time::{self, BEGIN, END, between};

/// Distance in time of the rows of a visit, in ticks.
const ROW_TICKS: i64 = 1_000_000;

/// What is drawn about a row or visit.
const VISIT: u64 = 1;
const UPDATE: u64 = 2;
const UPDATE_AT: u64 = 3;
const DELETION: u64 = 4;
const DELETION_AT: u64 = 5;
/// The form of a time.
const FORM: u64 = 6;

/// Something that puts lines into a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub at: i64,
    pub patient: u32,
    pub what: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EventKind {
    /// First versions of all rows of a visit.
    Visit(u32),
    /// The second version of a row.
    Update(u32),
    /// The end of a row.
    Deletion(u32),
}

/// The life of one row.
pub(crate) struct Life {
    pub first: i64,
    pub second: Option<i64>,
    pub deleted: Option<i64>,
}

pub(crate) struct Lives<'a> {
    pub options: &'a SynthOptions,
}

impl Lives<'_> {
    /// When a visit begins.
    pub(crate) fn visit(&self, patient: u64, visit: u32) -> i64 {
        let last = END - 1000 * ROW_TICKS;
        between(BEGIN, last, choice(self.options.seed, patient, u64::from(visit), VISIT))
    }

    /// What happens to a row.
    pub(crate) fn of(&self, patient: u64, number: usize, row: &SeedRow) -> Life {
        let first = self.visit(patient, row.visit) + i64::from(row.place.min(999)) * ROW_TICKS;
        let draw = |what| choice(self.options.seed, patient, number as u64, what);
        let happens = |what, share: f64| (draw(what) >> 11) as f64 / (1u64 << 53) as f64 * 1.0 < share;
        let second = happens(UPDATE, self.options.updates).then(|| between(first + ROW_TICKS, END, draw(UPDATE_AT)));
        // A patient is never deleted: its other records would be without an owner.
        let mortal = row.resource_type != crate::fhir::resource_type::ResourceType::PATIENT;
        let deleted = (mortal && happens(DELETION, self.options.deletions))
            .then(|| between(second.unwrap_or(first) + ROW_TICKS, END + ROW_TICKS, draw(DELETION_AT)));
        Life { first, second, deleted }
    }

    /// Writes a time of a row.
    pub(crate) fn put(&self, out: &mut Vec<u8>, patient: u64, number: usize, ticks: i64) {
        time::put(out, ticks, choice(self.options.seed, patient, number as u64, FORM ^ ticks as u64));
    }

    /// Every event of a patient between two instants.
    pub(crate) fn events(&self, patient: u64, of: &SeedPatient, from: i64, to: i64, all: &mut Vec<Event>) {
        let mut push = |at: i64, what| {
            if (from..to).contains(&at) {
                all.push(Event { at, patient: patient as u32, what });
            }
        };
        (0..of.visits.len() as u32).for_each(|visit| push(self.visit(patient, visit), EventKind::Visit(visit)));
        for (number, row) in of.rows.iter().enumerate() {
            let life = self.of(patient, number, row);
            if let Some(time_ticks) = life.second {
                push(time_ticks, EventKind::Update(number as u32));
            }
            if let Some(ticks) = life.deleted {
                push(ticks, EventKind::Deletion(number as u32));
            }
        }
    }
}
