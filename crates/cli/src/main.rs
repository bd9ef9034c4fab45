//! The `textbed` command: reads arguments and inputs, calls the crates, prints what they say.
//!
//! What is here is only what a person touches: options ([`args`]), where output goes ([`output`]),
//! the exit status ([`status`]) and one file for each command. No verdict is made here.

mod args;
mod baseline;
mod caps;
mod config;
mod explain;
mod inputs;
mod leave_out;
mod list;
mod log_summary;
mod options;
mod output;
mod record;
mod remedy;
mod replay;
mod results;
mod scenarios;
mod status;
mod test;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, Document};
use crate::output::Out;
use crate::status::Status;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows where each goes.
            let status = if error.use_stderr() { Status::Unusable } else { Status::Clean };
            let _ = error.print();
            return ExitCode::from(status.code());
        }
    };
    let mut out = Out::new(&cli);
    let result = match &cli.command {
        Command::Run(args) => scenarios::run(args, &mut out),
        Command::Test(args) => test::test(args, &mut out),
        Command::LeaveOut(args) => leave_out::leave_out(args, &mut out),
        Command::Replay(args) => replay::replay(args, &mut out),
        Command::Record(args) => record::record(args, &mut out),
        Command::Explain { rule } => explain::explain(rule, &mut out),
        Command::List { what } => list::list(*what, &mut out),
        Command::Caps(args) => caps::caps(args, &mut out),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "textbed", &mut text);
            out.text(&String::from_utf8_lossy(&text)).map(|()| Status::Clean)
        }
        Command::Man => manual().and_then(|text| out.text(&text)).map(|()| Status::Clean),
        Command::Schema { of } => {
            let schema = match of {
                Document::Report => textbed_report::json::SCHEMA,
                Document::Test => textbed_report::tested::json::SCHEMA,
            };
            out.text(schema).map(|()| Status::Clean)
        }
    };
    match result.and_then(|status| out.flush().map(|()| status)) {
        Ok(status) => ExitCode::from(status.code()),
        // The reader of a pipe went away: it has what it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&format!("{error:#}"));
            ExitCode::from(Status::Unusable.code())
        }
    }
}

/// The manual page, with a section for each subcommand.
fn manual() -> anyhow::Result<String> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        writeln!(text, ".SH \"TEXTBED {}\"", sub.get_name().to_uppercase())?;
        let page = clap_mangen::Man::new(sub.clone());
        let mut part = Vec::new();
        page.render_description_section(&mut part)?;
        page.render_options_section(&mut part)?;
        // Its sections become subsections of its own.
        text.extend(String::from_utf8_lossy(&part).replace(".SH ", ".SS ").bytes());
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
