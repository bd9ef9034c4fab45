//! Copies of machines, for searches that go on from one state in several ways.
//!
//! A copy has everything that the machine has but its policy: memory that was written, tables,
//! translations, caches, what waits, the numbers by which moments are told, and the events that
//! were not taken yet. So a machine and its copy go the same way if their policies answer alike,
//! and what each tells goes on from what was told before. It costs what was written and what the
//! CPUs hold. CPUs that run code have their registers elsewhere, and are noted by themselves.

use crate::choice::Choices;
use crate::{Machine, Policy};

impl Machine {
    /// A machine in the same state, whose choices `policy` makes from here on; the list of its
    /// choices begins anew.
    ///
    /// Whether data accesses may be seen out of order stays what it was: if this machine's policy
    /// had them in order from the start, nothing older is known that the copy could show.
    #[must_use]
    pub fn copy(&self, policy: Box<dyn Policy>) -> Machine {
        Machine {
            config: self.config.clone(),
            format: self.format,
            memory: self.memory.clone(),
            frames: self.frames.clone(),
            spaces: self.spaces.clone(),
            hashed: self.hashed.clone(),
            cpus: self.cpus.clone(),
            groups: self.groups.clone(),
            lines: self.lines.clone(),
            users: self.users.clone(),
            past: self.past.clone(),
            choices: Choices::new(policy),
            recorder: self.recorder.clone(),
            locks: self.locks.clone(),
            quiet: self.quiet.clone(),
            slots: self.slots.clone(),
            next_ipi: self.next_ipi,
            tick: self.tick,
            tables_overwritten: self.tables_overwritten,
            reorders: self.reorders,
            watchers: self.watchers,
            stirs: self.stirs,
            floors: Vec::new(),
            syncs: self.syncs.clone(),
        }
    }
}
