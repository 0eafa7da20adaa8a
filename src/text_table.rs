//! Tables printed as text: columns aligned by spaces, numbers to the right. Knows no terminal, width or colour.

use crate::count_text::noun_form;

/// Rows of cells under a heading.
#[derive(Clone, Debug)]
pub(crate) struct TextTable {
    /// The heading, then the rows.
    rows: Vec<Vec<String>>,
    /// Whether every column but the first is aligned right, rather than those that hold only numbers.
    right_after_first: bool,
}

impl TextTable {
    /// A table with this heading and no rows.
    pub(crate) fn new(heading: &[&str]) -> TextTable {
        TextTable { rows: vec![heading.iter().map(|cell| cell.to_string()).collect()], right_after_first: false }
    }

    /// A table with this heading whose first column is aligned left and all others right, such as names and sizes.
    pub(crate) fn of_figures(heading: &[&str]) -> TextTable {
        TextTable { right_after_first: true, ..TextTable::new(heading) }
    }

    /// Appends a row; cells missing at its end are empty, cells beyond the heading are not printed.
    pub(crate) fn row<S: ToString>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    /// Whether the table has no rows below the heading.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table as lines of text, indented by two spaces. A column whose cells below the heading are all numbers or
    /// empty is aligned to the right.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows[0].len();
        let cell = |row: &'_ [String], column: usize| row.get(column).cloned().unwrap_or_default();
        let width = |column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'.'));
        let right = |column| match self.right_after_first {
            true => column > 0,
            false => self.rows[1..].iter().all(|row| is_number(&cell(row, column))),
        };
        let shape: Vec<(usize, bool)> = (0..columns).map(|column| (width(column), right(column))).collect();
        let line = |row: &Vec<String>| {
            let cells = shape.iter().enumerate().map(|(column, (width, right))| match right {
                true => format!("{:>width$}", cell(row, column)),
                false => format!("{:<width$}", cell(row, column)),
            });
            format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_string()
        };
        self.rows.iter().map(line).collect()
    }

    /// The lines as one text, each with its newline.
    pub(crate) fn text(&self) -> String {
        self.lines().into_iter().map(|line| line + "\n").collect()
    }
}

/// A number with grouped digits and its noun, which is given in the singular: `1 file`, `1,200 files`.
pub(crate) fn grouped_with(number: u64, noun: &str) -> String {
    format!("{} {}", grouped(number), noun_form(number, noun))
}

/// A number in decimal with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = TextTable::new(&["type", "lines"]);
        table.row(["Patient", &grouped(12)]);
        table.row(["Observation", &grouped(1234567)]);
        let lines = ["  type             lines", "  Patient             12", "  Observation  1,234,567"];
        assert_eq!(table.lines(), lines);
        assert!(TextTable::new(&["a"]).is_empty());
        assert_eq!(grouped(100), "100");
    }

    #[test]
    fn figures_are_aligned_right() {
        let mut table = TextTable::of_figures(&["type", "bytes"]);
        table.row(["Patient", "1.5 MB"]);
        table.row(["all"]);
        assert_eq!(table.text(), "  type      bytes\n  Patient  1.5 MB\n  all\n");
    }
}
