//! What stands under the lines of a finding: its sites, what is missing, the chain, the sources.

use std::fmt::Write as _;

use textbed_arch::{Cite, cite::Evidence};
use textbed_check::{ChainStep, Confidence, Finding, Site, StepState};

use super::wrap;
use crate::run::{Excerpt, Run};

/// The notes of a finding in their order, each broken at `room` columns.
pub(super) fn notes(run: &Run, finding: &Finding, room: usize) -> Vec<String> {
    let mut notes = vec![wrap(&circumstances(run, finding), room, 0)];
    let sites = std::iter::once(&finding.at).chain(&finding.because);
    let sites: Vec<String> = sites.map(|site| wrap(&place(run, site), room, 2)).collect();
    notes.push(sites.join("\n"));
    if !finding.missing.is_empty() {
        notes.push(wrap(&format!("missing: {}", finding.missing.join("; then ")), room, 2));
    }
    if !finding.chain.is_empty() {
        notes.push(chain(&finding.chain, room));
    }
    notes.extend(finding.notes.iter().map(|note| wrap(note, room, 0)));
    notes
}

/// On which machine, how sure, how long after the other event, how often.
fn circumstances(run: &Run, finding: &Finding) -> String {
    let mut text = match finding.confidence {
        Confidence::Certain => "certain".to_owned(),
        Confidence::Possible => "possible, not certain".to_owned(),
    };
    let _ = write!(text, "; on {}", finding.arch);
    if let Some(kernel) = &run.kernel {
        let _ = write!(text, ", kernel {kernel}");
    }
    if let Some(apart) = finding.because.as_ref().and_then(|b| apart(&finding.at, b)) {
        let _ = write!(text, "; {apart}");
    }
    if finding.count > 1 {
        let _ = write!(text, "; {} times", finding.count);
    }
    text
}

/// How far the event lies from the one that it conflicts with.
fn apart(at: &Site, because: &Site) -> Option<String> {
    let events = match at.seq.abs_diff(because.seq) {
        0 => return None,
        1 => "1 event".to_owned(),
        n => format!("{n} events"),
    };
    let side = if at.seq > because.seq { "after" } else { "before" };
    let ns = at.at_ns.zip(because.at_ns).map(|(a, b)| a.abs_diff(b)).filter(|ns| *ns > 0);
    let ns = ns.map(|ns| format!("{}.{:03} us ({events})", ns / 1000, ns % 1000));
    Some(format!("{} {side} event {}", ns.unwrap_or(events), because.seq))
}

/// A site: event and time, CPU, what happened, at which address of whom, in which calls.
fn place(run: &Run, site: &Site) -> String {
    let mut text = format!("event {}", site.seq);
    if let Some(at) = site.at_ns {
        let _ = write!(text, ", {}.{:06} s", at / 1_000_000_000, at % 1_000_000_000 / 1000);
    }
    let _ = write!(text, ", {}: {}", site.cpu, site.label);
    if let Some(virt) = site.virt {
        let _ = write!(text, ": {virt}");
        if let Some(symbol) = &site.symbol {
            let _ = write!(text, " ({symbol})");
        }
    }
    if !site.calls.is_empty() {
        let _ = write!(text, ", in {}", site.calls.join(" > "));
    }
    // Where its line cannot be shown.
    if let Some(origin) = site.origin {
        let path = run.names.get(origin.file);
        let shown = match run.excerpts.get(path) {
            Some(Excerpt::Whole(_)) => true,
            Some(Excerpt::Lines(lines)) => lines.contains_key(&origin.line),
            None => false,
        };
        if !shown {
            let _ = write!(text, ", {path}:{}", origin.line);
        }
    }
    text
}

/// The steps, one a line, what follows of a step below its text.
fn chain(steps: &[ChainStep], room: usize) -> String {
    let mut text = "what closes this window, step by step:".to_owned();
    for step in steps {
        let state = match step.state {
            StepState::Done => "done   ",
            StepState::Missing => "MISSING",
            StepState::Unknown => "unknown",
            StepState::NotNeeded => "-      ",
        };
        let mut line = format!("  {state}  {}", step.what);
        if !step.operation.is_empty() {
            let _ = write!(line, ": {}", step.operation);
        }
        let _ = match (&step.site, step.state) {
            (Some(site), StepState::Done) => {
                write!(line, " ({} at event {})", site.cpu, site.seq)
            }
            // The last one that there was.
            (Some(site), StepState::Missing) => {
                write!(line, " (too early: {} at event {})", site.cpu, site.seq)
            }
            _ => Ok(()),
        };
        let _ = write!(text, "\n{}", wrap(&line, room, state.len() + 2));
    }
    text
}

/// A citation, and how far it was checked.
pub(super) fn source(cite: &Cite) -> String {
    let how = match cite.evidence {
        Evidence::Read => "read",
        Evidence::Deduced => "deduced from it",
        Evidence::Memory => "from memory, not checked against the text",
    };
    format!("see {} [{how}]", cite.source)
}
