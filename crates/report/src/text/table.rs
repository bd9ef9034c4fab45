//! Plain tables, and the table of stories by architecture.

use std::fmt::Write as _;

use textbed_arch::Arch;
use textbed_check::Level;
use unicode_width::UnicodeWidthStr;

use crate::run::{Outcome, Run};

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
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|c| {
                let cells = self.rows.iter().filter_map(|row| row.get(c));
                cells.flat_map(|cell| cell.lines().map(UnicodeWidthStr::width)).max().unwrap_or(0)
            })
            .collect();
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

/// The runs as a table: a row for each name and kernel, a column for each architecture, in each
/// cell the outcome and the findings (`?` = possible).
#[must_use]
pub fn stories(runs: &[Run]) -> String {
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
    for (name, kernel) in keys {
        let head = kernel.map_or_else(|| name.to_owned(), |k| format!("{name}\nkernel {k}"));
        let cells = archs.iter().map(|arch| {
            let mine = runs
                .iter()
                .filter(|r| r.arch == *arch && r.name == name && r.kernel.as_deref() == kernel);
            cell(&mine.collect::<Vec<_>>())
        });
        table.row([head].into_iter().chain(cells));
    }
    table.render()
}

/// What the runs of one story on one machine showed, together.
fn cell(runs: &[&Run]) -> String {
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
    lines.join("\n")
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
}
