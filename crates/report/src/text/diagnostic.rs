//! One finding as a compiler's diagnostic, and problems with inputs in the same form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level as Title, Origin as Place, Renderer, Snippet,
};
use textbed_arch::{Cite, cite::Evidence};
use textbed_check::{ChainStep, Confidence, Finding, Level, Site, StepState};
use textbed_event::{NameTable, Origin};

use super::{Style, wrap};
use crate::run::{Excerpt, Run};

/// A problem with an input: a message, a place, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// One line.
    pub message: String,
    /// The input's path.
    pub path: String,
    /// Its text, if it has any.
    pub source: Option<String>,
    /// Byte range of the place in the text.
    pub span: Option<Range<usize>>,
    /// Text at the place.
    pub label: String,
    /// What to do.
    pub help: Option<String>,
    /// Whether it stops the run.
    pub fatal: bool,
}

/// Room that the gutter of a diagnostic takes.
const GUTTER: usize = 12;

/// A problem with an input, rendered.
#[must_use]
pub fn problem(problem: &Problem, style: Style) -> String {
    let level = if problem.fatal { Title::ERROR } else { Title::WARNING };
    let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
    match (&problem.source, &problem.span) {
        (Some(source), Some(span)) => {
            let span = inside(source, span.clone());
            let mark = AnnotationKind::Primary.span(span).label(problem.label.as_str());
            let snippet = Snippet::source(source.as_str()).path(problem.path.as_str());
            group = group.element(snippet.fold(true).annotation(mark));
        }
        _ => group = group.element(Place::path(problem.path.as_str())),
    }
    if let Some(help) = &problem.help {
        group = group.element(Title::HELP.message(wrap(help, style.width - GUTTER, 0)));
    }
    render(&[group], style)
}

/// A finding, rendered with the lines of its run's input.
#[must_use]
pub fn finding(run: &Run, finding: &Finding, style: Style) -> String {
    let level = if finding.level == Level::Deny { Title::ERROR } else { Title::WARNING };
    let room = style.width.saturating_sub(GUTTER).max(40);
    // "error[RULE]: ", whose width the renderer indents later lines by.
    let word = if finding.level == Level::Deny { "error" } else { "warning" };
    let label = word.len() + finding.rule.name().len() + 4;
    let message = wrap(&finding.message, style.width.saturating_sub(label).max(40), 0);
    let title = level.primary_title(message).id(finding.rule.name());
    let mut group = Group::with_title(title);
    let sites: Vec<(&Site, AnnotationKind)> = [(&finding.at, AnnotationKind::Primary)]
        .into_iter()
        .chain(finding.because.iter().map(|site| (site, AnnotationKind::Context)))
        .collect();
    for element in snippets(&sites, &run.names, &run.excerpts) {
        group = group.element(element);
    }
    let mut notes: Vec<String> = Vec::new();
    notes.push(circumstances(run, finding));
    if !finding.missing.is_empty() {
        notes.push(format!("missing: {}", finding.missing.join("; then ")));
    }
    if !finding.chain.is_empty() {
        notes.push(chain(&finding.chain));
    }
    notes.extend(finding.notes.iter().cloned());
    for note in notes {
        group = group.element(Title::NOTE.message(wrap(&note, room, 0)));
    }
    if let Some(help) = &finding.help {
        group = group.element(Title::HELP.message(wrap(help, room, 0)));
    }
    for cite in &finding.cites {
        group = group.element(Title::NOTE.message(wrap(&source(cite), room, 0)));
    }
    render(&[group], style)
}

fn render(groups: &[Group<'_>], style: Style) -> String {
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.term_width(style.width).render(groups);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Who, when, how often, how sure.
fn circumstances(run: &Run, finding: &Finding) -> String {
    let mut text = format!("{} on {}", finding.at.cpu, finding.arch);
    if let Some(kernel) = &run.kernel {
        let _ = write!(text, ", kernel {kernel}");
    }
    if let Some(at) = finding.at.at_ns {
        let _ = write!(text, ", at {}.{:06} s", at / 1_000_000_000, at % 1_000_000_000 / 1000);
    }
    if let Some(since) = since(finding) {
        let _ = write!(text, ", {since}");
    }
    if finding.count > 1 {
        let _ = write!(text, ", {} times", finding.count);
    }
    if !finding.at.calls.is_empty() {
        let _ = write!(text, ", in {}", finding.at.calls.join(" > "));
    }
    text.push_str(match finding.confidence {
        Confidence::Certain => "; certain",
        Confidence::Possible => "; possible, not certain",
    });
    text
}

/// Since when: how long after the event that it conflicts with.
fn since(finding: &Finding) -> Option<String> {
    let (at, because) = (&finding.at, finding.because.as_ref()?);
    let events = at.seq.checked_sub(because.seq).filter(|n| *n > 0)?;
    let ns = at.at_ns.zip(because.at_ns).and_then(|(a, b)| a.checked_sub(b)).filter(|n| *n > 0);
    let ago = match ns {
        Some(ns) => format!("{}.{:03} us", ns / 1000, ns % 1000),
        None if events == 1 => "1 event".to_owned(),
        None => format!("{events} events"),
    };
    Some(format!("{ago} after event {}", because.seq))
}

/// A citation, and how far it was checked.
fn source(cite: &Cite) -> String {
    let how = match cite.evidence {
        Evidence::Read => "read",
        Evidence::Deduced => "deduced from it",
        Evidence::Memory => "from memory, not checked against the text",
    };
    format!("see {} [{how}]", cite.source)
}

fn chain(steps: &[ChainStep]) -> String {
    let mut text = "what closes this window, step by step:".to_owned();
    for step in steps {
        let state = match step.state {
            StepState::Done => "done   ",
            StepState::Missing => "MISSING",
            StepState::Unknown => "unknown",
            StepState::NotNeeded => "-      ",
        };
        let _ = write!(text, "\n  {state}  {}", step.what);
        if !step.operation.is_empty() {
            let _ = write!(text, ": {}", step.operation);
        }
        if let Some(site) = &step.site {
            let _ = write!(text, " ({} at event {})", site.cpu, site.seq);
        }
    }
    text
}

/// The sites as snippets: one for each file, with every line that a site names.
fn snippets<'a>(
    sites: &[(&'a Site, AnnotationKind)],
    names: &'a NameTable,
    excerpts: &'a BTreeMap<String, Excerpt>,
) -> Vec<Element<'a>> {
    let mut elements = Vec::new();
    let placed = |site: &Site| site.origin.map(|o| (names.get(o.file), o));
    let mut done: Vec<&str> = Vec::new();
    for (site, _) in sites {
        let Some((path, _)) = placed(site) else { continue };
        if done.contains(&path) {
            continue;
        }
        done.push(path);
        let here: Vec<(&Site, &AnnotationKind, Origin)> = sites
            .iter()
            .filter_map(|(s, k)| placed(s).filter(|(p, _)| *p == path).map(|(_, o)| (*s, k, o)))
            .collect();
        match excerpts.get(path) {
            Some(Excerpt::Whole(text)) => {
                let marks = here.iter().map(|(s, kind, o)| {
                    let start = usize::try_from(o.offset).unwrap_or(usize::MAX);
                    let span = start..start.saturating_add(o.len as usize);
                    mark(kind, inside(text, span), s)
                });
                let snippet = Snippet::source(text.as_str()).path(path).fold(true);
                elements.push(snippet.annotations(marks).into());
            }
            Some(Excerpt::Lines(lines)) => {
                for (s, kind, o) in &here {
                    let Some(line) = lines.get(&o.line) else { continue };
                    let start = line.len() - line.trim_start().len();
                    let snippet = Snippet::source(line.as_str()).path(path);
                    let snippet = snippet.line_start(o.line as usize);
                    elements.push(snippet.annotation(mark(kind, start..line.len(), s)).into());
                }
            }
            None => elements.push(Place::path(path).into()),
        }
    }
    elements
}

fn mark<'a>(kind: &AnnotationKind, span: Range<usize>, site: &Site) -> Annotation<'a> {
    let kind = match kind {
        AnnotationKind::Primary => AnnotationKind::Primary,
        _ => AnnotationKind::Context,
    };
    kind.span(span).label(site.label.clone())
}

/// `span` cut to the text and to character boundaries.
fn inside(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stay_inside_the_text() {
        assert_eq!(inside("añb", 2..99), 1..4);
        assert_eq!(inside("", 5..9), 0..0);
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = 3..1;
        assert_eq!(inside("abcd", backwards), 3..3);
    }

    #[test]
    fn a_problem_shows_its_line_and_its_help() {
        let text = problem(
            &Problem {
                message: "unknown call `set_memory_rp`".into(),
                path: "a.tb".into(),
                source: Some("cpu 0 {\n    set_memory_rp(x, 1)\n}\n".into()),
                span: Some(12..25),
                label: "no kernel call has this name".into(),
                help: Some("did you mean `set_memory_ro`?".into()),
                fatal: true,
            },
            Style::default(),
        );
        assert!(text.starts_with("error: unknown call `set_memory_rp`\n"), "{text}");
        assert!(text.contains("a.tb:2:5"), "{text}");
        assert!(text.contains("^^^^^^^^^^^^^ no kernel call has this name"), "{text}");
        assert!(text.contains("help: did you mean `set_memory_ro`?"), "{text}");
    }
}
