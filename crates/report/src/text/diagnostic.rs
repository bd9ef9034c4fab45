//! One finding as a compiler's diagnostic, and problems with inputs in the same form.

use std::ops::Range;

use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level as Title, Origin as Place, Renderer, Snippet,
};
use textbed_check::{Finding, Level, Site};
use textbed_event::Origin;
use unicode_width::UnicodeWidthStr;

use super::{Style, notes, wrap};
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
        let line = problem.span.as_ref().zip(problem.source.as_ref()).map_or(1, |(span, text)| {
            text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1
        });
        let room = style.width.saturating_sub(gutter(u32::try_from(line).unwrap_or(u32::MAX)));
        group = group.element(Title::HELP.message(wrap(help, room.max(24), 0)));
    }
    render(&[group], style)
}

/// A finding, rendered with the lines of its run's input.
#[must_use]
pub fn finding(run: &Run, finding: &Finding, style: Style) -> String {
    let level = if finding.level == Level::Deny { Title::ERROR } else { Title::WARNING };
    // "error[RULE]: ", whose width the renderer indents later lines by.
    let word = if finding.level == Level::Deny { "error" } else { "warning" };
    let label = word.len() + finding.rule.name().len() + 4;
    let message = wrap(&finding.message, style.width.saturating_sub(label).max(24), 0);
    let title = level.primary_title(message).id(finding.rule.name());
    let mut group = Group::with_title(title);
    let sites: Vec<(&Site, AnnotationKind)> = [(&finding.at, AnnotationKind::Primary)]
        .into_iter()
        .chain(finding.because.iter().map(|site| (site, AnnotationKind::Context)))
        .collect();
    for element in snippets(&sites, run, style.width) {
        group = group.element(element);
    }
    let lines = sites.iter().filter_map(|(site, _)| site.origin).map(|o| o.line);
    let room = style.width.saturating_sub(gutter(lines.max().unwrap_or(1))).max(24);
    for note in notes::notes(run, finding, room) {
        group = group.element(Title::NOTE.message(note));
    }
    if let Some(help) = &finding.help {
        group = group.element(Title::HELP.message(wrap(help, room, 0)));
    }
    for cite in &finding.cites {
        group = group.element(Title::NOTE.message(wrap(&notes::source(cite), room, 0)));
    }
    render(&[group], style)
}

/// Columns before the text of a note: those of the line numbers, and ` = note: `.
fn gutter(last_line: u32) -> usize {
    last_line.max(1).ilog10() as usize + 1 + " = note: ".len()
}

fn render(groups: &[Group<'_>], style: Style) -> String {
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.term_width(style.width).render(groups);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The sites as snippets: one for each file, with every line that a site names.
fn snippets<'a>(
    sites: &[(&'a Site, AnnotationKind)],
    run: &'a Run,
    width: usize,
) -> Vec<Element<'a>> {
    let mut elements = Vec::new();
    let placed = |site: &Site| site.origin.map(|o| (run.names.get(o.file), o));
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
        match run.excerpts.get(path) {
            Some(Excerpt::Whole(text)) => {
                let marks = here.iter().map(|(s, kind, o)| {
                    let start = usize::try_from(o.offset).unwrap_or(usize::MAX);
                    let span = start..start.saturating_add(o.len as usize);
                    let span = inside(text, span);
                    let begin = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
                    let left = width.saturating_sub(text[begin..span.end].width() + gutter(o.line));
                    mark(kind, span, s, left)
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
                    let left = width.saturating_sub(line.width() + gutter(o.line));
                    let mark = mark(kind, start..line.len(), s, left);
                    elements.push(snippet.annotation(mark).into());
                }
            }
            None => elements.push(Place::path(path).into()),
        }
    }
    elements
}

/// The mark of a site, with `left` columns for its label. A label that has no room there stands
/// with the site among the notes alone.
fn mark<'a>(kind: &AnnotationKind, span: Range<usize>, site: &Site, left: usize) -> Annotation<'a> {
    let kind = match kind {
        AnnotationKind::Primary => AnnotationKind::Primary,
        _ => AnnotationKind::Context,
    };
    let mark = kind.span(span);
    let words = [site.label.as_str(), site.label.split(", ").next().unwrap_or("")];
    match words.into_iter().find(|words| words.width() <= left) {
        Some(words) => mark.label(words.to_owned()),
        None => mark,
    }
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
