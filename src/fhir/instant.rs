//! Instants with every fraction digit, and the partial dates of a Period.

use std::cmp::Ordering;

/// Ticks of 100 ns in a second.
pub const TICKS_PER_SECOND: i64 = 10_000_000;

/// A FHIR instant: 100 ns ticks since 1970-01-01T00:00:00Z (years 0001 to 9999), and whatever fraction digits stand
/// beyond the seventh, trailing zeros dropped. Comparison is exact (SINCE-02).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instant {
    /// 100 ns ticks since the Unix epoch, towards the past of the instant.
    pub ticks: i64,
    /// ASCII digits beyond the seventh fraction digit, no trailing zero; empty nearly always.
    pub rest: Box<[u8]>,
}

/// An instant whose further digits are borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstantRef<'a> {
    /// As in [`Instant::ticks`].
    pub ticks: i64,
    /// As in [`Instant::rest`].
    pub rest: &'a [u8],
}

impl<'a> InstantRef<'a> {
    /// Reads the text of an R4 `instant` (`YYYY-MM-DDThh:mm:ss[.f+](Z|(+|-)hh:mm)`), `None` when it is not one.
    pub fn parse(_text: &'a [u8]) -> Option<InstantRef<'a>> {
        todo!()
    }
    /// An owned copy.
    pub fn to_owned(self) -> Instant {
        Instant { ticks: self.ticks, rest: self.rest.into() }
    }
}

impl PartialOrd for InstantRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for InstantRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Trailing zeros are dropped, so digit strings order bytewise as fractions do.
        self.ticks.cmp(&other.ticks).then_with(|| self.rest.cmp(other.rest))
    }
}
impl PartialOrd for Instant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Instant {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl Instant {
    /// Reads the text of an R4 `instant`.
    pub fn parse(text: &str) -> Option<Instant> {
        InstantRef::parse(text.as_bytes()).map(InstantRef::to_owned)
    }
    /// `YYYY-MM-DD` as 00:00:00Z of that day (reading 1), or an instant.
    pub fn parse_instant_or_date(_text: &str) -> Option<Instant> {
        todo!()
    }
    /// The instant that many milliseconds after the Unix epoch.
    pub fn from_unix_millis(millis: i64) -> Instant {
        Instant { ticks: millis * (TICKS_PER_SECOND / 1000), rest: Box::default() }
    }
    /// A borrowed view.
    pub fn as_ref(&self) -> InstantRef<'_> {
        InstantRef { ticks: self.ticks, rest: &self.rest }
    }
}

/// `YYYY-MM-DDThh:mm:ss.fffZ` with at least three fraction digits and as many more as the value has.
impl std::fmt::Display for Instant {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// The first instant and the first instant after an R4 `dateTime` of any precision (`2015`, `2015-02`, `2015-02-07`,
/// or with a time and offset), as a Period's bounds are read
/// (<https://hl7.org/fhir/R4/datatypes.html#Period>). A date without a time is read in UTC.
pub fn date_time_span(_text: &[u8]) -> Option<(Instant, Instant)> {
    todo!()
}
