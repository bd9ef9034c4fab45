//! Baselines: findings that an earlier report had already.
//!
//! A baseline is a JSON report of an earlier run (`--format json=FILE`). A finding with a
//! fingerprint that it has is known: it gets level `allow`, so that only what is new fails a run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use textbed_check::Level;
use textbed_report::{Note, Outcome, Run};

/// Fingerprints of known findings.
#[derive(Default, Debug)]
pub(crate) struct Baseline {
    known: BTreeSet<String>,
    seen: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    runs: Vec<RunPart>,
}

#[derive(Deserialize)]
struct RunPart {
    findings: Vec<FindingPart>,
}

#[derive(Deserialize)]
struct FindingPart {
    fingerprint: String,
}

impl Baseline {
    /// Reads a report.
    ///
    /// # Errors
    /// A file that cannot be read or is no report of this schema.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let shown = path.display();
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the baseline {shown}"))?;
        let document: Document = serde_json::from_str(&text)
            .with_context(|| format!("--baseline {shown}: no JSON report of textbed"))?;
        if document.schema != "textbed-report/1" {
            bail!("--baseline {shown}: schema '{}' is not textbed-report/1", document.schema);
        }
        let findings = document.runs.into_iter().flat_map(|run| run.findings);
        Ok(Self { known: findings.map(|f| f.fingerprint).collect(), ..Self::default() })
    }

    /// Lowers the run's known findings.
    pub(crate) fn apply(&mut self, run: &mut Run) {
        let mut lowered = 0;
        for finding in &mut run.report.findings {
            if self.known.contains(&finding.fingerprint) {
                self.seen.insert(finding.fingerprint.clone());
                finding.level = Level::Allow;
                lowered += 1;
            }
        }
        if lowered == 0 {
            return;
        }
        let text = format!("{lowered} findings are known: the baseline has them");
        run.notes.push(Note { text, place: None });
        let left = run.report.findings.iter().any(|f| f.level != Level::Allow);
        if run.outcome == Outcome::Findings && !left {
            run.outcome = Outcome::Clean;
        }
    }

    /// What to say at the end: entries that nothing matched any more.
    pub(crate) fn stale(&self) -> Option<String> {
        let stale = self.known.difference(&self.seen).count();
        (stale > 0).then(|| {
            format!("{stale} of {} findings of the baseline were not found again", self.known.len())
        })
    }
}
