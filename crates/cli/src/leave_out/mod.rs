//! `textbed leave-out`: one synchronisation after the other is left out, and what is found then.

mod reason;
mod search;

use std::collections::BTreeMap;

use anyhow::Result;
use textbed_arch::Arch;
use textbed_check::Confidence;
use textbed_kernel::Version;
use textbed_report::text::Table;
use textbed_scenario::{PolicyChoice, SyncSite};

use crate::args::LeaveOutArgs;
use crate::output::Out;
use crate::status::Status;
use crate::{options, scenarios};
use reason::Events;
use search::{OfRule, Story, Without};

/// One row: pieces of synchronisation of one call of which the same is to be said.
#[derive(PartialEq, Eq)]
struct Row {
    arch: Arch,
    kernel: Version,
    inside: String,
    what: String,
    verdict: String,
}

/// `textbed leave-out`.
pub(crate) fn leave_out(args: &LeaveOutArgs, out: &mut Out) -> Result<Status> {
    let check = options::check(&args.check)?;
    let machine = scenarios::Machines::new(&args.machine)?;
    let mut status = Status::Clean;
    for input in &args.inputs {
        for loaded in scenarios::load_all(input, out, &mut status) {
            let mut rows = Vec::new();
            for (arch, kernel) in machine.of(&loaded) {
                let check = check.with(scenarios::allowed(&loaded));
                let how = machine.run_options(arch, kernel, PolicyChoice::Newest);
                match Story::new(&loaded, how, check) {
                    Ok(story) => add_rows(&story, &mut rows),
                    Err(error) => {
                        scenarios::failed(error, &loaded).iter().for_each(|p| out.problem(p));
                        status = status.and(Status::Unusable);
                    }
                }
            }
            let text =
                if args.markdown { markdown(&rows) } else { plain(loaded.path(), &rows, out) };
            out.text(&text)?;
        }
    }
    Ok(status)
}

/// The rows of one scenario as tables, one a machine.
fn plain(path: &str, rows: &[(Row, Vec<u32>)], out: &Out) -> String {
    let mut text = String::new();
    for machine in rows.chunk_by(|a, b| (a.0.arch, a.0.kernel) == (b.0.arch, b.0.kernel)) {
        let mut table = Table::new(["line", "in", "left out", "what is found, or why nothing is"]);
        for (row, lines) in machine {
            table.row([&joined(lines), &row.inside, &row.what, &row.verdict]);
        }
        if let Some((first, _)) = machine.first() {
            let (arch, kernel) = (first.arch, first.kernel);
            text.push_str(&format!("{path} on {arch}, kernel {kernel}\n\n"));
        }
        text.push_str(&out.laid_out(&table));
        text.push('\n');
    }
    text
}

/// The rows of one scenario as one table of a page.
fn markdown(rows: &[(Row, Vec<u32>)]) -> String {
    let mut text = String::from(
        "| architecture | line | in | left out | what is found, or why nothing is |\n\
         |---|---|---|---|---|\n",
    );
    for (row, lines) in rows {
        let code = |name: &str| if name.is_empty() { String::new() } else { format!("`{name}`") };
        let (arch, lines, inside) = (row.arch, joined(lines), code(&row.inside));
        text.push_str(&format!(
            "| {arch} | {lines} | {inside} | {} | {} |\n",
            row.what, row.verdict
        ));
    }
    text
}

fn joined(lines: &[u32]) -> String {
    lines.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn add_rows(story: &Story<'_>, rows: &mut Vec<(Row, Vec<u32>)>) {
    let events = Events::of(story);
    for (at, seen) in story.syncs.iter().enumerate() {
        let site = &seen.site;
        if site.kind.incidental() {
            continue;
        }
        let without = story.without(&[site]);
        let verdict = if without.silent() { silent(story, &events, at) } else { found(&without) };
        let mut what = site.kind.to_string();
        if site.cpu.0 != 0 {
            what.push_str(&format!(" ({})", site.cpu));
        }
        let (arch, kernel) = (story.how.arch, story.how.kernel);
        let row = Row { arch, kernel, inside: inside(site), what, verdict };
        match rows.iter_mut().find(|(known, _)| *known == row) {
            Some((_, lines)) if lines.contains(&site.line) => {}
            Some((_, lines)) => lines.push(site.line),
            None => rows.push((row, vec![site.line])),
        }
    }
}

fn inside(site: &SyncSite) -> String {
    site.calls.last().cloned().unwrap_or_default()
}

fn names(found: &BTreeMap<&'static str, OfRule>) -> String {
    let one = |(rule, of): (&&str, &OfRule)| match of.confidence {
        Confidence::Certain => (*rule).to_string(),
        Confidence::Possible => format!("{rule}?"),
    };
    found.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn found(without: &Without) -> String {
    let text = names(&without.found);
    let more = match (&without.ended, text.is_empty()) {
        (Some(ended), true) => return format!("no finding, but {ended}"),
        (None, true) => return "no finding, but an assertion fails".to_owned(),
        (Some(_), false) => "; a CPU stops",
        (None, false) if without.wrong => "; an assertion fails",
        (None, false) => "",
    };
    text + more
}

/// Why nothing is found without the piece at `at`.
fn silent(story: &Story<'_>, events: &Events, at: usize) -> String {
    let Some(seen) = story.syncs.get(at) else { return String::new() };
    if let Some(reason) = reason::reason(story, events, &seen.site, seen.seq) {
        return format!("not needed: {reason}");
    }
    let Some((others, more)) = story.stand_ins(at) else {
        return format!("not needed: {}", reason::guess(story, events, &seen.site, seen.seq));
    };
    let (what, all) = match others.as_slice() {
        [one] => (named(one), "both"),
        few if few.len() <= 3 => {
            (few.iter().map(|s| named(s)).collect::<Vec<_>>().join("; "), "all")
        }
        many => (format!("{} others do the same", many.len()), "all"),
    };
    format!("redundant: {what} (without {all}: {})", more.join(", "))
}

/// A piece, as a row names another.
fn named(site: &SyncSite) -> String {
    let mut text = site.kind.to_string();
    if site.nth > 1 {
        text.push_str(&format!(" (no. {})", site.nth));
    }
    if site.cpu.0 != 0 {
        text.push_str(&format!(" on {}", site.cpu));
    }
    text.push_str(&format!(", line {}", site.line));
    text
}
