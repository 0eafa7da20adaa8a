//! Events of a patient's resources and their times: visits, second versions, deletions.
//!
//! Every time is a function of the seed, the patient and the row alone, so no state is carried from one event to
//! another.

use crate::synth::SynthOptions;
use crate::synth::rename::choice;
use crate::synth::seed::{SeedPatient, SeedRow};
use crate::synth::time::{self, BEGIN, END, between};

/// Ticks between two rows of a visit.
const ROW_TICKS: i64 = 1_000_000;

/// Purpose of a draw (see [`choice`]): the time of a visit.
const VISIT: u64 = 1;
/// Purpose of a draw: whether a row has a second version.
const UPDATE: u64 = 2;
/// Purpose of a draw: the time of the second version.
const UPDATE_AT: u64 = 3;
/// Purpose of a draw: whether a row is deleted.
const DELETION: u64 = 4;
/// Purpose of a draw: the time of the deletion.
const DELETION_AT: u64 = 5;
/// Purpose of a draw: the text form of a time.
const FORM: u64 = 6;

/// Event that puts lines into a store. Events order by time; the order of the fields matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    /// Time of the event in ticks.
    pub ticks: i64,
    /// Number of the patient.
    pub patient: u32,
    /// Kind of the event, and the visit or row that it concerns.
    pub kind: EventKind,
}

/// Kind of an event, with the number of the visit or row among its patient's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EventKind {
    /// First versions of all rows of a visit.
    Visit(u32),
    /// The second version of a row.
    Update(u32),
    /// The deletion of a row.
    Deletion(u32),
}

/// Times in ticks of the versions and the deletion of one row.
pub(crate) struct EventTimes {
    /// lastUpdated of the first version.
    pub first: i64,
    /// lastUpdated of the second version; `None` if there is none.
    pub second: Option<i64>,
    /// Time of the deletion; `None` if the row is not deleted.
    pub deleted: Option<i64>,
}

/// Computes the events of a store from its options.
pub(crate) struct EventModel<'a> {
    pub options: &'a SynthOptions,
}

impl EventModel<'_> {
    /// Time in ticks of a patient's visit.
    pub(crate) fn visit(&self, patient: u64, visit: u32) -> i64 {
        let last = END - 1000 * ROW_TICKS;
        between(BEGIN, last, choice(self.options.seed, patient, u64::from(visit), VISIT))
    }

    /// Times of row `number` of a patient.
    pub(crate) fn row_times(&self, patient: u64, number: usize, row: &SeedRow) -> EventTimes {
        let first = self.visit(patient, row.visit) + i64::from(row.place.min(999)) * ROW_TICKS;
        let draw = |purpose| choice(self.options.seed, patient, number as u64, purpose);
        let happens = |purpose, share: f64| (draw(purpose) >> 11) as f64 / (1u64 << 53) as f64 * 1.0 < share;
        let second = happens(UPDATE, self.options.updates).then(|| between(first + ROW_TICKS, END, draw(UPDATE_AT)));
        // A patient is never deleted: its other resources would have no owner.
        let can_be_deleted = row.resource_type != crate::fhir::resource_type::ResourceType::PATIENT;
        let deleted = (can_be_deleted && happens(DELETION, self.options.deletions))
            .then(|| between(second.unwrap_or(first) + ROW_TICKS, END + ROW_TICKS, draw(DELETION_AT)));
        EventTimes { first, second, deleted }
    }

    /// Appends a time of a row, in a form that the hash of row and time chooses.
    pub(crate) fn put(&self, out: &mut Vec<u8>, patient: u64, number: usize, ticks: i64) {
        time::put(out, ticks, choice(self.options.seed, patient, number as u64, FORM ^ ticks as u64));
    }

    /// Appends to `all` every event of a patient from instant `from` to before `to`.
    pub(crate) fn events(&self, patient: u64, of: &SeedPatient, from: i64, to: i64, all: &mut Vec<Event>) {
        let mut push = |ticks: i64, kind| {
            if (from..to).contains(&ticks) {
                all.push(Event { ticks, patient: patient as u32, kind });
            }
        };
        (0..of.visits.len() as u32).for_each(|visit| push(self.visit(patient, visit), EventKind::Visit(visit)));
        for (number, row) in of.rows.iter().enumerate() {
            let times = self.row_times(patient, number, row);
            if let Some(ticks) = times.second {
                push(ticks, EventKind::Update(number as u32));
            }
            if let Some(ticks) = times.deleted {
                push(ticks, EventKind::Deletion(number as u32));
            }
        }
    }
}
