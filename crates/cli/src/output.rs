//! Where text goes, how wide it is and whether it has colours.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use textbed_report::text::{Problem, Style, problem};
use textbed_report::{Run, json, text};

use crate::args::{Cli, Colour};

/// Standard output and standard error as this run uses them.
pub(crate) struct Out {
    stdout: io::BufWriter<io::Stdout>,
    style: Style,
    error_style: Style,
}

impl Out {
    /// As the command line and the terminal ask.
    pub(crate) fn new(cli: &Cli) -> Self {
        let width = terminal_size::terminal_size().map_or(100, |(w, _)| usize::from(w.0));
        let width = width.clamp(60, 120);
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

    /// Empties the buffer.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stdout.flush().context("cannot write to standard output")
    }

    /// Prints a problem with an input to standard error.
    pub(crate) fn problem(&mut self, what: &Problem) {
        let _ = self.stdout.flush();
        let _ = io::stderr().write_all(problem(what, self.error_style).as_bytes());
    }

    /// Prints an error without a place to standard error.
    pub(crate) fn error(&mut self, message: &str) {
        let _ = self.stdout.flush();
        let _ = writeln!(io::stderr(), "error: {message}");
    }
}

/// One report that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    json: bool,
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
        let json = match name {
            "text" => false,
            "json" => true,
            _ => bail!("--format {word}: unknown format '{name}' (known: text, json)"),
        };
        formats.push(Format { json, file });
    }
    if formats.is_empty() {
        formats.push(Format { json: false, file: None });
    }
    if formats.iter().filter(|f| f.file.is_none()).count() > 1 {
        bail!("--format: two reports cannot share standard output; give one a file");
    }
    Ok(formats)
}

/// Writes the runs in every format asked for.
///
/// # Errors
/// A file or standard output that cannot be written.
pub(crate) fn reports(runs: &[Run], formats: &[Format], out: &mut Out) -> Result<()> {
    for format in formats {
        let style = match format.file {
            Some(_) => Style { colour: false, width: 100, ..out.style() },
            None => out.style(),
        };
        let report = if format.json { json::document(runs)? } else { text_report(runs, style) };
        match &format.file {
            Some(path) => fs::write(path, report)
                .with_context(|| format!("cannot write the report to {}", path.display()))?,
            None => out.text(&report)?,
        }
    }
    Ok(())
}

/// A table first if there are several runs, then each run.
fn text_report(runs: &[Run], style: Style) -> String {
    let mut report = String::new();
    let stories = runs.iter().filter(|r| r.policy.is_some()).count();
    if stories > 1 {
        report.push_str(&text::stories(runs));
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
        assert_eq!(read(&[]).unwrap(), [Format { json: false, file: None }]);
        let both = read(&["text", "json=a/b.json"]).unwrap();
        assert_eq!(both[1], Format { json: true, file: Some("a/b.json".into()) });
        for wrong in [&["yaml"][..], &["json="], &["json", "text"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
