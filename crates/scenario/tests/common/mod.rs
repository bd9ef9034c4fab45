//! Runs scenarios and keeps what they send.

#![allow(dead_code, unreachable_pub)] // each test file uses a part

use textbed_arch::Arch;
use textbed_event::{Batch, Collect, Event, NameTable};
use textbed_scenario::{Loaded, Outcome, RunEnd, RunError, RunOptions, Version, load, run};

pub const MAIN: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

pub fn loaded(lines: &str) -> Loaded {
    let text = format!("scenario \"s\"\n{lines}");
    match load("story.tb", text, &["ignored-error"]) {
        Ok((loaded, _)) => loaded,
        Err(diagnostics) => panic!("{diagnostics:#?}"),
    }
}

pub struct Ran {
    pub end: RunEnd,
    pub batches: Vec<Batch>,
}

impl Ran {
    pub fn events(&self) -> impl Iterator<Item = (&Event, &Batch)> {
        self.batches.iter().flat_map(|batch| batch.events.iter().map(move |event| (event, batch)))
    }

    pub fn names(&self) -> NameTable {
        let mut names = NameTable::default();
        self.batches.iter().for_each(|batch| names.absorb(batch));
        names
    }

    pub fn notes(&self) -> Vec<&str> {
        self.end.notes.iter().map(|note| note.text.as_str()).collect()
    }
}

pub fn try_run(loaded: &Loaded, options: &RunOptions) -> Result<Ran, RunError> {
    let mut sink = Collect::default();
    let end = run(loaded, options, &mut sink)?;
    if !matches!(end.outcome, Outcome::NotModelled(_)) {
        assert_eq!(sink.header.as_ref().map(|h| h.arch), Some(options.arch));
    }
    Ok(Ran { end, batches: sink.batches })
}

pub fn options(arch: Arch, kernel: &str) -> RunOptions {
    RunOptions::new(arch, Version::parse(kernel).expect("a version"))
}

pub fn run_on(arch: Arch, kernel: &str, lines: &str) -> Ran {
    try_run(&loaded(lines), &options(arch, kernel)).unwrap_or_else(|e| panic!("{arch} {e:?}"))
}
