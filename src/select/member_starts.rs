//! When members joined their Group, by `member.period.start`: what is asked for under `_since` where no export before it has the
//! list of its patients (GROUP-11).
//!
//! A start with a time of day is compared as an instant; a date counts as late as it can be, since who joined on the day of `_since`
//! is better sent twice than lost. A patient who is listed several times joined with the earliest; one who is listed through other
//! Groups, with the later of the two.

use crate::fhir::instant::{Instant, date_time_span};
use crate::group::reader::GroupMember;
use crate::select::bitmap::Bitmap;

/// When an entry of a Group began, against `_since`, in the order in which several of a patient count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MemberStart {
    /// Not after `_since`.
    Before,
    /// It has no start that can be read.
    Unknown,
    /// After `_since`.
    After,
}

impl MemberStart {
    /// The start of an entry.
    pub(crate) fn of(member: &GroupMember<'_>, since: &Instant) -> MemberStart {
        let Some(text) = member.period_start else { return MemberStart::Unknown };
        let Some((first, after)) = date_time_span(text.as_bytes()) else { return MemberStart::Unknown };
        let is_date = text.len() <= "2024-05-01".len();
        match first > *since || is_date && after > *since {
            true => MemberStart::After,
            false => MemberStart::Before,
        }
    }

    /// The start of an entry of a Group that is itself an entry with this start: a patient is a member once both have begun.
    pub(crate) fn within(self, entry: MemberStart) -> MemberStart {
        self.max(entry)
    }
}

/// The starts of all members.
#[derive(Clone, Debug)]
pub(crate) struct MemberStarts {
    /// `_since`.
    since: Instant,
    /// Patients with an entry that began after `_since`.
    after: Bitmap,
    /// Patients with an entry that began before, or whose start is unknown.
    other: Bitmap,
    /// Patients with an entry that began before.
    before: Bitmap,
}

impl MemberStarts {
    /// Of nobody yet; `patients` is the size of the dictionary.
    pub(crate) fn new(since: Instant, patients: usize) -> MemberStarts {
        let none = || Bitmap::new(patients);
        MemberStarts { since, after: none(), other: none(), before: none() }
    }

    /// The start of an entry.
    pub(crate) fn of(&self, member: &GroupMember<'_>) -> MemberStart {
        MemberStart::of(member, &self.since)
    }

    /// Notes an entry of a patient.
    pub(crate) fn add(&mut self, patient: usize, start: MemberStart) {
        match start {
            MemberStart::After => self.after.insert(patient),
            MemberStart::Unknown => self.other.insert(patient),
            MemberStart::Before => self.other.insert(patient) | self.before.insert(patient),
        };
    }

    /// Those of some patients who joined after `_since`.
    pub(crate) fn joined(&self, patients: &Bitmap) -> Bitmap {
        let mut joined = Bitmap::new(patients.len());
        patients.iter().filter(|patient| self.has_joined(*patient)).for_each(|patient| {
            joined.insert(patient);
        });
        joined
    }

    /// How many of some patients joined after `_since`, and of how many that is not known.
    pub(crate) fn counts(&self, members: &Bitmap) -> (u64, u64) {
        let joined = members.iter().filter(|patient| self.has_joined(*patient)).count();
        let before = members.iter().filter(|patient| self.before.contains(*patient)).count();
        (joined as u64, (members.count() - joined - before) as u64)
    }

    /// Whether all entries of a patient began after `_since`.
    fn has_joined(&self, patient: usize) -> bool {
        self.after.contains(patient) && !self.other.contains(patient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of an entry with this period, against noon of a day in May.
    fn start(period_start: Option<&str>) -> MemberStart {
        let member = GroupMember { reference: None, identifier: None, inactive: false, period_start, period_end: None };
        MemberStart::of(&member, &Instant::parse("2024-05-02T12:00:00Z").unwrap())
    }

    /// Times are compared as instants, dates by the last moment that they can mean.
    #[test]
    fn starts_are_compared_with_since() {
        use MemberStart::{After, Before, Unknown};
        for (text, expected) in [
            ("2024-05-02T12:00:00Z", Before),
            ("2024-05-02T12:00:00.001Z", After),
            ("2024-05-02T14:00:00+02:00", Before),
            ("2024-05-02T12:30:00-01:00", After),
            ("2024-05-01", Before),
            ("2024-05-02", After),
            ("2024-04", Before),
            ("2024-05", After),
            ("2023", Before),
            ("2024", After),
            ("soon", Unknown),
            ("", Unknown),
        ] {
            assert_eq!(start(Some(text)), expected, "{text}");
        }
        assert_eq!(start(None), Unknown);
    }

    /// The earliest entry of a patient decides, an unknown one leaves it open, and nested Groups count with the later start.
    #[test]
    fn several_entries_of_a_patient_are_one_start() {
        use MemberStart::{After, Before, Unknown};
        let mut starts = MemberStarts::new(Instant::parse("2024-05-02T12:00:00Z").unwrap(), 6);
        for (patient, entries) in
            [(0, &[After][..]), (1, &[After, Before]), (2, &[Unknown, After]), (3, &[Before]), (4, &[Before, Unknown])]
        {
            entries.iter().for_each(|start| starts.add(patient, *start));
        }
        let everybody = Bitmap::full(6);
        assert_eq!(starts.joined(&everybody).iter().collect::<Vec<_>>(), [0]);
        assert_eq!(starts.counts(&everybody), (1, 2), "of 2 and 5 it is not known");
        assert_eq!([Before.within(After), Unknown.within(Before), After.within(Unknown)], [After, Unknown, After]);
    }
}
