//! The `textbed` command: reads arguments and inputs, calls the crates, prints what they say.
//!
//! What is here is only what a person touches: options ([`args`]), where output goes ([`output`]),
//! the exit status ([`status`]) and one file for each command. No verdict is made here.

mod args;
mod caps;
mod inputs;
mod list;
mod options;
mod output;
mod record;
mod replay;
mod scenarios;
mod status;
mod watch;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
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
        Command::Test(args) => scenarios::test(args, &mut out),
        Command::Replay(args) => replay::replay(args, &mut out),
        Command::Record(args) => record::record(args, &mut out),
        Command::Explain { rule } => list::explain(rule, &mut out),
        Command::List { what } => list::list(*what, &mut out),
        Command::Caps(args) => caps::caps(args, &mut out),
        Command::Schema => out.text(textbed_report::json::SCHEMA).map(|()| Status::Clean),
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

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
