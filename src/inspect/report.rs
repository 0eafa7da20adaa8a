//! Report of an inspection: sections, each with facts and a table, and the broken parts.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::text_table::TextTable;

/// Most rows of a table that are kept.
pub(crate) const ROWS_MAX: usize = 200;

/// Facts and table of one file, or of one part of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ReportSection {
    /// Heading of the section.
    pub title: String,
    /// Facts as (name, value), in the order of printing.
    pub facts: Vec<(String, String)>,
    /// Names of the table's columns.
    pub heading: Vec<String>,
    /// Rows of the table, at most [`ROWS_MAX`].
    pub rows: Vec<Vec<String>>,
    /// Number of rows that were left out.
    pub more: u64,
}

impl ReportSection {
    /// A section without facts and rows. `heading` names the columns of its table.
    pub(crate) fn new(title: impl Into<String>, heading: &[&str]) -> ReportSection {
        let heading = heading.iter().map(|name| name.to_string()).collect();
        ReportSection { title: title.into(), heading, ..ReportSection::default() }
    }

    /// Adds a named fact.
    pub(crate) fn fact(&mut self, name: &str, value: impl ToString) {
        self.facts.push((name.to_string(), value.to_string()));
    }

    /// Adds a row to the table, or counts it if the table is full.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        match self.rows.len() < ROWS_MAX {
            true => self.rows.push(cells),
            false => self.more += 1,
        }
    }

    /// Lines of the section for people.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.title.clone()];
        let width = self.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        lines
            .extend(self.facts.iter().map(|(name, value)| format!("  {name:<width$}  {value}").trim_end().to_string()));
        if !self.rows.is_empty() {
            let heading: Vec<&str> = self.heading.iter().map(String::as_str).collect();
            let mut table = TextTable::new(&heading);
            self.rows.iter().for_each(|row| table.row(row));
            lines.extend(table.lines());
        }
        if self.more > 0 {
            lines.push(format!("  and {} more", self.more));
        }
        lines
    }
}

/// Result of an inspection. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InspectReport {
    /// The path that was inspected.
    pub path: String,
    /// Kind of the file or directory, in words.
    pub what: String,
    /// Whether nothing is broken.
    pub intact: bool,
    /// Sections in the order of printing.
    pub parts: Vec<ReportSection>,
    /// Files that an export may have and that do not exist.
    pub absent: Vec<String>,
    /// Files in an index directory that its meta file does not name: obsolete or foreign.
    pub unnamed: Vec<String>,
    /// Broken parts, each with its file and place.
    pub broken: Vec<String>,
}

impl InspectReport {
    /// An empty report of a path.
    pub(crate) fn new(path: &Path) -> InspectReport {
        InspectReport {
            path: path.display().to_string(),
            what: String::new(),
            intact: true,
            parts: Vec::new(),
            absent: Vec::new(),
            unnamed: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Adds a section. The first one states the kind of the whole, unless that is known.
    pub(crate) fn part(&mut self, what: &str, section: ReportSection) {
        if self.what.is_empty() {
            self.what = what.to_string();
        }
        self.parts.push(section);
    }

    /// Adds damage of a file.
    pub(crate) fn broken(&mut self, path: &Path, what: impl fmt::Display) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.broken.push(format!("{name}: {what}"));
    }

    /// Lines of the report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} is {}.", self.path, self.what)];
        for part in &self.parts {
            lines.push(String::new());
            lines.extend(part.lines());
        }
        for (what, names) in [("Not there", &self.absent), ("Named by no generation", &self.unnamed)] {
            if !names.is_empty() {
                lines.push(String::new());
                lines.push(format!("{what}: {}", names.join(", ")));
            }
        }
        lines.push(String::new());
        match self.broken.is_empty() {
            true => lines.push("Nothing is broken.".to_string()),
            false => {
                lines.push("Broken:".to_string());
                lines.extend(self.broken.iter().map(|what| format!("  {what}")));
            }
        }
        lines
    }
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
