//! Plain tables, and the table of stories by architecture.

use std::fmt::Write as _;

use textbed_arch::Arch;
use textbed_check::Level;
use unicode_width::UnicodeWidthStr;

use super::wrap;
use crate::run::{Outcome, Run};

/// A column is not made narrower than this, nor than its longest word.
const NARROWEST: usize = 12;
/// Before what follows the first line of a text.
const INDENT: usize = 2;

/// A table of text; a cell may have several lines.
#[derive(Clone, Default, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this header.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![header.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row; missing cells are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Lays it out: columns as wide as their widest line, two spaces between, a rule under the
    /// header, a blank line between rows if any cell has several lines.
    #[must_use]
    pub fn render(&self) -> String {
        self.laid_out(&self.widths())
    }

    /// Laid out within `width` columns, as far as words allow: the widest columns become narrower,
    /// and what follows the first line of a text is indented there.
    #[must_use]
    pub fn render_within(&self, width: usize) -> String {
        let (mut widths, words) = (self.widths(), self.columns(widest_word));
        let between = 2 * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + between > width {
            let wider =
                widths.iter_mut().zip(&words).filter(|(w, word)| **w > NARROWEST.max(**word));
            let Some(widest) = wider.map(|(w, _)| w).max() else { break };
            *widest -= 1;
        }
        let cells = |row: &Vec<String>| {
            let broken = row.iter().zip(&widths).map(|(cell, width)| wrap(cell, *width, INDENT));
            broken.collect::<Vec<String>>()
        };
        let narrow = Self { rows: self.rows.iter().map(cells).collect() };
        narrow.laid_out(&narrow.widths())
    }

    /// The widest line of each column.
    fn widths(&self) -> Vec<usize> {
        self.columns(|cell| cell.lines().map(UnicodeWidthStr::width).max().unwrap_or(0))
    }

    /// The largest of each column's cells, by some measure.
    fn columns(&self, measure: impl Fn(&str) -> usize) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |c: usize| self.rows.iter().filter_map(move |row| row.get(c));
        (0..columns).map(|c| cells(c).map(|cell| measure(cell)).max().unwrap_or(0)).collect()
    }

    fn laid_out(&self, widths: &[usize]) -> String {
        let columns = widths.len();
        let airy = self.rows.iter().flatten().any(|cell| cell.contains('\n'));
        let mut out = String::new();
        for (r, row) in self.rows.iter().enumerate() {
            if airy && r > 1 {
                out.push('\n');
            }
            let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0);
            for line in 0..height {
                let mut text = String::new();
                for (c, width) in widths.iter().enumerate() {
                    let part = row.get(c).and_then(|cell| cell.lines().nth(line)).unwrap_or("");
                    text.push_str(part);
                    text.extend(std::iter::repeat_n(' ', width - part.width() + 2));
                }
                out.push_str(text.trim_end());
                out.push('\n');
            }
            if r == 0 {
                let rule: usize = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
                let _ = writeln!(out, "{}", "-".repeat(rule));
            }
        }
        out
    }
}

/// Columns that the longest word takes, if it does not come first.
fn widest_word(text: &str) -> usize {
    let words = text.split_whitespace().enumerate();
    words.map(|(n, word)| word.width() + if n > 0 { INDENT } else { 0 }).max().unwrap_or(0)
}

/// The runs as a table: a row for each name and kernel, a column for each architecture, in each
/// cell the outcome and the findings (`?` = possible). Where that has no room, a line for each run.
#[must_use]
pub fn stories(runs: &[Run], width: usize) -> String {
    let archs: Vec<Arch> =
        Arch::ALL.into_iter().filter(|a| runs.iter().any(|r| r.arch == *a)).collect();
    let mut keys: Vec<(&str, Option<&str>)> = Vec::new();
    for run in runs {
        let key = (run.name.as_str(), run.kernel.as_deref());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut table =
        Table::new(["story".to_owned()].into_iter().chain(archs.iter().map(ToString::to_string)));
    let mut list = String::new();
    for (name, kernel) in keys {
        let head = kernel.map_or_else(|| name.to_owned(), |k| format!("{name}\nkernel {k}"));
        let mut row = vec![head];
        for arch in &archs {
            let mine: Vec<&Run> = runs
                .iter()
                .filter(|r| r.arch == *arch && r.name == name && r.kernel.as_deref() == kernel)
                .collect();
            let lines = cell(&mine);
            if !mine.is_empty() {
                let on = kernel.map_or_else(String::new, |k| format!(", kernel {k}"));
                let line = format!("{name} on {arch}{on}: {}", lines.join(", "));
                let _ = writeln!(list, "{}", wrap(&line, width, 4));
            }
            row.push(lines.join("\n"));
        }
        table.row(row);
    }
    let table = table.render();
    if table.lines().all(|line| line.width() <= width) { table } else { list }
}

/// What the runs of one story on one machine showed, together: the outcome, then each kind of
/// finding.
fn cell(runs: &[&Run]) -> Vec<String> {
    let found = runs.iter().filter(|run| run.outcome == Outcome::Findings);
    let outcome = match found.map(|run| run.denied()).max() {
        Some(true) => "findings",
        Some(false) => "warnings only",
        None => {
            let other = runs.iter().find(|run| run.outcome != Outcome::Clean).or(runs.first());
            other.map_or("-", |run| run.outcome.text())
        }
    };
    let mut lines = vec![outcome.to_owned()];
    for finding in runs.iter().flat_map(|run| &run.report.findings) {
        let mark = match finding.level {
            Level::Deny => "",
            Level::Warn => "?",
            Level::Allow => continue,
        };
        let times = if finding.count > 1 { format!(" x{}", finding.count) } else { String::new() };
        let line = format!("{}{mark}{times}", finding.rule.name());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_over_cells_of_several_lines() {
        let mut table = Table::new(["a", "bb"]);
        table.row(["one\ntwo", "x"]);
        table.row(["3"]);
        assert_eq!(table.render(), "a    bb\n-------\none  x\ntwo\n\n3\n");
    }

    #[test]
    fn the_widest_columns_become_narrower() {
        let mut table = Table::new(["who", "what is said of it"]);
        table.row(["a", "one word after the other one"]);
        table.row(["b", "short"]);
        let narrow = table.render_within(20);
        let lines: Vec<&str> = narrow.lines().collect();
        assert!(lines.iter().all(|l| l.width() <= 20), "{narrow}");
        assert_eq!(lines[3..7], ["a    one word after", "       the other one", "", "b    short"]);
        assert_eq!(table.render_within(100), table.render());
        // A column of long words keeps its width, and another one becomes narrower for it.
        let mut table = Table::new(["a-rule-with-a-name", "several words that can be broken"]);
        table.row(["or-another-one", "and more of them"]);
        let narrow = table.render_within(34);
        assert!(narrow.lines().all(|l| l.width() <= 34), "{narrow}");
    }
}
