//! Test results for people: a line a file, then a total; each difference as a diagnostic.

use crate::text::{Style, problem};

use super::{FileVerdict, Tested};

/// The results as text, each difference under its file.
#[must_use]
pub fn document(all: &[Tested], style: Style) -> String {
    let mut out = String::new();
    for tested in all {
        out.push_str(&line(tested));
        for found in &tested.unusable {
            out.push_str(&problem(found, style));
        }
        for (difference, cases) in tested.joined() {
            if let Some(case) = cases.first() {
                out.push_str(&problem(&difference.problem(case), style));
            }
        }
    }
    out + &total(all)
}

/// The line of one file.
#[must_use]
pub fn line(tested: &Tested) -> String {
    let verdict = match tested.verdict() {
        FileVerdict::Unusable if tested.cases.is_empty() => {
            return format!("UNUSED  {}\n", tested.path);
        }
        FileVerdict::Unusable => "UNUSED",
        FileVerdict::Agrees => "ok",
        FileVerdict::Differs => "DIFFERS",
    };
    format!("{verdict:8}{} ({} runs)\n", tested.path, tested.cases.len())
}

/// The last line.
#[must_use]
pub fn total(all: &[Tested]) -> String {
    let count = |verdict| all.iter().filter(|t| t.verdict() == verdict).count();
    let (passed, failed) = (count(FileVerdict::Agrees), count(FileVerdict::Differs));
    let unusable = match count(FileVerdict::Unusable) {
        0 => String::new(),
        n => format!(", {n} unusable"),
    };
    format!("{passed} passed, {failed} failed{unusable}\n")
}
