//! The sink of every command: the checker, and what a report needs beside its findings.

use std::ops::ControlFlow;

use textbed_check::{Checker, Options, Report};
use textbed_event::{Batch, Header, NameTable, Sink};

/// Feeds the checker and keeps the stream's header and names.
pub(crate) struct Watch {
    checker: Checker,
    names: NameTable,
}

impl Watch {
    /// A checker with these options.
    pub(crate) fn new(options: Options) -> Self {
        Self { checker: Checker::new(options), names: NameTable::default() }
    }

    /// The verdict, and the names that its sites use.
    pub(crate) fn finish(self) -> (Report, NameTable) {
        (self.checker.finish(), self.names)
    }
}

impl Sink for Watch {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        self.checker.begin(header)
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.names.absorb(batch);
        self.checker.batch(batch)
    }
}
