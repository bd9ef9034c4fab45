//! Where text goes, how wide it is and whether it has colours.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use textbed_report::tested::{self, Tested};
use textbed_report::text::{Problem, Style, Table, problem};
use textbed_report::timeline::{self, Timeline};
use textbed_report::{Run, json, junit, ktap, sarif, text};

use crate::args::{Cli, Colour};

/// Columns of text where nothing says otherwise.
const WIDTH: usize = 100;

/// Standard output and standard error as this run uses them.
pub(crate) struct Out {
    stdout: io::BufWriter<io::Stdout>,
    style: Style,
    error_style: Style,
    /// The width that was asked for.
    width: Option<usize>,
}

impl Out {
    /// As the command line and the terminal ask.
    pub(crate) fn new(cli: &Cli) -> Self {
        let asked = cli.width.map(usize::from);
        let width = asked.unwrap_or_else(|| {
            let terminal = terminal_size::terminal_size();
            terminal.map_or(WIDTH, |(w, _)| usize::from(w.0).clamp(60, 120))
        });
        let detail = if cli.quiet {
            0
        } else if cli.verbose {
            2
        } else {
            1
        };
        let colour = |terminal: bool| match cli.color {
            Colour::Always => true,
            Colour::Never => false,
            // The convention of no-color.org: set and not empty.
            Colour::Auto => {
                terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        let style = |colour| Style { width, colour, detail };
        Self {
            stdout: io::BufWriter::new(io::stdout()),
            style: style(colour(io::stdout().is_terminal())),
            error_style: style(colour(io::stderr().is_terminal())),
            width: asked,
        }
    }

    /// Layout of text on standard output.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Prints text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.stdout.write_all(text.as_bytes()).context("cannot write to standard output")
    }

    /// Prints a table, laid out as [`Out::laid_out`] says.
    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        self.text(&self.laid_out(table))
    }

    /// A table as text: within the width where a person looks or asks for one, else a row a line,
    /// for programs.
    pub(crate) fn laid_out(&self, table: &Table) -> String {
        let within = self.width.is_some() || io::stdout().is_terminal();
        if within { table.render_within(self.style.width) } else { table.render() }
    }

    /// Empties the buffer.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stdout.flush().context("cannot write to standard output")
    }

    /// Prints a problem with an input to standard error.
    pub(crate) fn problem(&mut self, what: &Problem) {
        let _ = self.stdout.flush();
        let _ = io::stderr().write_all(problem(what, self.error_style).as_bytes());
    }

    /// Prints a remark to standard error.
    pub(crate) fn note(&mut self, message: &str) {
        let _ = self.stdout.flush();
        let _ = writeln!(io::stderr(), "note: {message}");
    }

    /// Prints an error without a place to standard error.
    pub(crate) fn error(&mut self, message: &str) {
        let _ = self.stdout.flush();
        let _ = writeln!(io::stderr(), "error: {message}");
    }
}

/// The timelines of a command's runs, if they were asked for.
pub(crate) struct Timelines {
    file: Option<PathBuf>,
    kept: Vec<Timeline>,
    given: u32,
}

impl Timelines {
    /// For that file.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, kept: Vec::new(), given: 0 }
    }

    /// One for the next run.
    pub(crate) fn next(&mut self) -> Option<Timeline> {
        self.file.as_ref()?;
        self.given += 1;
        Some(Timeline::new(self.given - 1))
    }

    /// Takes it back, with what was found.
    pub(crate) fn keep(&mut self, timeline: Option<Timeline>, run: &Run) {
        self.kept.extend(timeline.map(|mut timeline| {
            timeline.finish(run);
            timeline
        }));
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn write(&self) -> Result<()> {
        match &self.file {
            Some(path) => write_file(path, &timeline::document(&self.kept)),
            None => Ok(()),
        }
    }
}

/// A form of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Text,
    Json,
    Sarif,
    Junit,
    Ktap,
}

impl Form {
    const ALL: [(&'static str, Form); 5] = [
        ("text", Form::Text),
        ("json", Form::Json),
        ("sarif", Form::Sarif),
        ("junit", Form::Junit),
        ("ktap", Form::Ktap),
    ];
}

/// One report that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    pub(crate) form: Form,
    file: Option<PathBuf>,
}

/// The formats asked for; text to standard output if none is.
///
/// # Errors
/// An unknown format, or two for standard output.
pub(crate) fn formats(given: &[String]) -> Result<Vec<Format>> {
    let mut formats = Vec::new();
    for word in given {
        let (name, file) = match word.split_once('=') {
            Some((_, "")) => bail!("--format {word}: a file name is missing after '='"),
            Some((name, file)) => (name, Some(PathBuf::from(file))),
            None => (word.as_str(), None),
        };
        let Some((_, form)) = Form::ALL.into_iter().find(|(known, _)| *known == name) else {
            let known = Form::ALL.map(|(known, _)| known).join(", ");
            bail!("--format {word}: unknown format '{name}' (known: {known})");
        };
        formats.push(Format { form, file });
    }
    if formats.is_empty() {
        formats.push(Format { form: Form::Text, file: None });
    }
    if formats.iter().filter(|f| f.file.is_none()).count() > 1 {
        bail!("--format: two reports cannot share standard output; give one a file");
    }
    Ok(formats)
}

impl Format {
    /// Whether it is for standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        self.file.is_none()
    }

    /// Layout of its text.
    fn style(&self, out: &Out) -> Style {
        match self.file {
            Some(_) => Style { colour: false, width: out.width.unwrap_or(WIDTH), ..out.style() },
            None => out.style(),
        }
    }

    /// Writes what was made in this format to where it goes.
    fn write(&self, report: &str, out: &mut Out) -> Result<()> {
        match &self.file {
            Some(path) => write_file(path, report),
            None => out.text(report),
        }
    }
}

/// Writes the runs in every format asked for.
///
/// # Errors
/// A file or standard output that cannot be written.
pub(crate) fn reports(runs: &[Run], formats: &[Format], out: &mut Out) -> Result<()> {
    for format in formats {
        let report = match format.form {
            Form::Text => text_report(runs, format.style(out)),
            Form::Json => json::document(runs)?,
            Form::Sarif => sarif::document(runs)?,
            Form::Junit => junit::document(runs)?,
            Form::Ktap => ktap::document(runs),
        };
        format.write(&report, out)?;
    }
    Ok(())
}

/// Writes test results in every format asked for; text on standard output was written already.
///
/// # Errors
/// A file or standard output that cannot be written.
pub(crate) fn test_results(all: &[Tested], formats: &[Format], out: &mut Out) -> Result<()> {
    for format in formats.iter().filter(|f| f.form != Form::Text || !f.is_stdout()) {
        let report = match format.form {
            Form::Text => tested::text::document(all, format.style(out)),
            Form::Json => tested::json::document(all)?,
            Form::Sarif => tested::sarif::document(all)?,
            Form::Junit => tested::junit::document(all)?,
            Form::Ktap => tested::ktap::document(all),
        };
        format.write(&report, out)?;
    }
    Ok(())
}

/// Writes a report to a file.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write to {}", path.display()))
}

/// A table first if there are several runs, then each run.
fn text_report(runs: &[Run], style: Style) -> String {
    let mut report = String::new();
    let stories = runs.iter().filter(|r| r.policy.is_some()).count();
    if stories > 1 {
        report.push_str(&text::stories(runs, style.width));
        report.push('\n');
    }
    for (n, run) in runs.iter().enumerate() {
        if n > 0 {
            report.push('\n');
        }
        report.push_str(&text::run_report(run, style));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_wrong_ones_refused() {
        let read =
            |words: &[&str]| formats(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&[]).unwrap(), [Format { form: Form::Text, file: None }]);
        let both = read(&["text", "json=a/b.json"]).unwrap();
        assert_eq!(both[1], Format { form: Form::Json, file: Some("a/b.json".into()) });
        for wrong in [&["yaml"][..], &["json="], &["json", "text"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
