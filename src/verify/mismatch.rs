//! Mismatches between stated and found facts: each with its place, and bounded in number.
//!
//! A mismatch is data, not an error: a verification collects all of them. No text here quotes the content of a line.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::limits::DIFFERENCES_PER_RULE_MAX;

/// One fact that is not as stated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mismatch {
    /// The rule it violates: a row of the specification (`FILE-02`) or a short name (`index`).
    pub rule: &'static str,
    /// Name of the file, relative to the verified directory.
    pub file: String,
    /// Number of the line in the file, from 1; `None` for the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Offset of the line in the uncompressed file; `None` for the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// The stated and the found fact, in words.
    pub what: String,
}

impl Mismatch {
    /// A mismatch of a file as a whole.
    pub(crate) fn of_file(rule: &'static str, file: &str, what: impl Into<String>) -> Mismatch {
        Mismatch { rule, file: file.to_string(), line: None, byte: None, what: what.into() }
    }

    /// A mismatch of one line.
    pub(crate) fn of_line(rule: &'static str, file: &str, line: u64, byte: u64, what: impl Into<String>) -> Mismatch {
        Mismatch { rule, file: file.to_string(), line: Some(line), byte: Some(byte), what: what.into() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ": line {line}")?;
        }
        if let Some(byte) = self.byte {
            write!(f, " at byte {byte}")?;
        }
        write!(f, ": {}", self.what)?;
        // A row of the specification says nothing to who reads a report; a short name says what was compared.
        if is_row(self.rule) { Ok(()) } else { write!(f, " ({})", self.rule) }
    }
}

/// Whether a rule is a row of the specification, such as `FILE-02`.
fn is_row(rule: &str) -> bool {
    let number = rule.rsplit_once('-').map(|(_, number)| number);
    number.is_some_and(|number| number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Mismatches: the first [`DIFFERENCES_PER_RULE_MAX`] of each rule are kept, the others only counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Mismatches {
    /// Number of mismatches by rule.
    pub counts: BTreeMap<&'static str, u64>,
    /// The kept mismatches, in the order in which they were found.
    pub kept: Vec<Mismatch>,
}

impl Mismatches {
    /// Counts a mismatch, and keeps it if its rule has room.
    pub(crate) fn push(&mut self, mismatch: Mismatch) {
        let count = self.counts.entry(mismatch.rule).or_default();
        *count += 1;
        if *count <= DIFFERENCES_PER_RULE_MAX as u64 {
            self.kept.push(mismatch);
        }
    }

    /// Adds the mismatches of a later part.
    pub(crate) fn absorb(&mut self, other: Mismatches) {
        let mut counted = other.counts;
        for mismatch in other.kept {
            if let Some(count) = counted.get_mut(mismatch.rule) {
                *count -= 1;
            }
            self.push(mismatch);
        }
        counted.into_iter().for_each(|(rule, count)| *self.counts.entry(rule).or_default() += count);
        self.counts.retain(|_, count| *count > 0);
    }

    /// The same, with the files named below a directory.
    pub(crate) fn within(mut self, directory: &str) -> Mismatches {
        self.kept.iter_mut().for_each(|mismatch| mismatch.file = format!("{directory}/{}", mismatch.file));
        self
    }

    /// Number of mismatches of all rules.
    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether there is no mismatch.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// One line for each kept mismatch, and one for each rule of which some were only counted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.kept.iter().map(Mismatch::to_string).collect();
        for (rule, count) in &self.counts {
            let of_rule: Vec<&Mismatch> = self.kept.iter().filter(|mismatch| mismatch.rule == *rule).collect();
            let more = count - of_rule.len() as u64;
            let kind = match of_rule.first() {
                Some(first) if is_row(rule) => format!("such as {:?}", first.what),
                _ => format!("of the same kind ({rule})"),
            };
            if more > 0 {
                lines.push(format!("{more} more {kind}, {count} in all"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bounded number is kept for each rule, and all are counted.
    #[test]
    fn differences_are_bounded_and_counted() {
        let mut all = Mismatches::default();
        for part in 0..3 {
            let mut some = Mismatches::default();
            (0..150).for_each(|line| some.push(Mismatch::of_line("FILE-02", "f", line, 0, "blank")));
            some.push(Mismatch::of_file("MANIFEST-07", &format!("f{part}"), "count"));
            all.absorb(some);
        }
        assert_eq!((all.total(), all.counts["FILE-02"], all.kept.len()), (453, 450, DIFFERENCES_PER_RULE_MAX + 3));
        assert_eq!(all.lines().last().unwrap(), "350 more such as \"blank\", 450 in all");
        assert_eq!(all.lines()[0], "f: line 0 at byte 0: blank");
    }
}
