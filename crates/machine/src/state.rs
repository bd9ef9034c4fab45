//! The state of a machine as one number, for a search that goes no state twice.
//!
//! Two states are the same if everything that a later operation may look at is. Moments are only
//! ever compared, so they are numbered by their order: those at which something happened (a store,
//! a clean, the end of a translation) one after the other, and what a CPU knows by its place among
//! them. Streams, choices, calls and the allocator's lists do not count; memory counts as far as
//! the caller names it, because hashing all of it at every step would cost more than the search.

use std::hash::{DefaultHasher, Hash, Hasher};

use textbed_arch::PhysAddr;

use crate::data::Moment;
use crate::lines::{Line, OPEN};
use crate::machine::PerCpu;
use crate::{Machine, MachineError};

/// One part of a state.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    /// A moment at which something happened.
    Event(u64),
    /// A moment up to which something is known.
    Known(u64),
    /// Anything else.
    Value(u64),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// Takes every part of a state, in an order that does not depend on how it was reached.
pub(crate) type Take<'a> = &'a mut dyn FnMut(Part<'_>);

/// A moment that there may not be.
pub(crate) fn maybe(moment: Option<u64>, take: Take<'_>) {
    take(Part::Value(u64::from(moment.is_some())));
    if let Some(moment) = moment {
        take(Part::Event(moment));
    }
}

impl Machine {
    /// A number for the state: of two machines of one configuration with equal numbers (by all that
    /// can be told from 128 bits) equal operations have equal outcomes, but for numbers of events.
    /// `memory` names the ranges that may differ (first byte, bytes); `moments` are those that the
    /// caller keeps.
    ///
    /// # Errors
    /// A range is outside memory.
    pub fn fingerprint(
        &self,
        memory: &[(PhysAddr, u64)],
        moments: &[Moment],
    ) -> Result<u128, MachineError> {
        let mut events: Vec<u64> = Vec::new();
        self.visit(&mut |part| {
            if let Part::Event(moment) = part {
                events.push(moment);
            }
        });
        events.sort_unstable();
        events.dedup();
        let mut halves: [DefaultHasher; 2] = Default::default();
        // Anything that makes them differ.
        0x7465_7874u32.hash(&mut halves[1]);
        let mut feed = |part: Part<'_>| {
            let value = match part {
                // Odd: at that event; even: between two.
                Part::Event(moment) | Part::Known(moment) => match events.binary_search(&moment) {
                    Ok(n) => 2 * n as u64 + 1,
                    Err(n) => 2 * n as u64,
                },
                Part::Value(value) => value,
                Part::Bytes(bytes) => {
                    halves.iter_mut().for_each(|h| h.write(bytes));
                    bytes.len() as u64
                }
            };
            halves.iter_mut().for_each(|h| h.write_u64(value));
        };
        self.visit(&mut feed);
        moments.iter().for_each(|m| feed(Part::Known(m.0)));
        for (phys, len) in memory {
            let mut bytes = vec![0; *len as usize];
            self.memory.read(*phys, &mut bytes)?;
            feed(Part::Bytes(&bytes));
        }
        let [a, b] = halves.map(|h| u128::from(h.finish()));
        Ok(a << 64 | b)
    }

    fn visit(&self, take: Take<'_>) {
        for number in self.lines.in_range(None) {
            take(Part::Value(number));
            if let Some(line) = self.lines.get(number) {
                visit_line(line, take);
            }
        }
        self.past.visit(take);
        for c in &self.cpus {
            visit_cpu(c, take);
        }
        take(Part::Value(self.locks.len() as u64));
        for (name, held) in &self.locks {
            take(Part::Bytes(name.as_bytes()));
            held.visit(take);
        }
        take(Part::Value(self.slots.len() as u64));
        for (name, value) in &self.slots {
            take(Part::Bytes(name.as_bytes()));
            take(Part::Value(*value));
        }
    }
}

fn visit_line(line: &Line, take: Take<'_>) {
    take(Part::Value(line.versions.len() as u64));
    for version in &line.versions {
        take(Part::Bytes(&version.bytes));
        take(Part::Event(version.born));
        take(Part::Event(version.ended));
        take(Part::Value(u64::from(version.by.0)));
        take(Part::Value((version.changed.0 as u64) << 32 | version.changed.1 as u64));
        maybe(version.cleaned, take);
        let mut held: Vec<_> = version.held.iter().collect();
        held.sort_by_key(|h| h.cpu);
        take(Part::Value(held.len() as u64));
        for h in held {
            take(Part::Value(u64::from(h.cpu.0)));
            maybe((h.until != OPEN).then_some(h.until), take);
            take(Part::Value(h.not_at.len() as u64));
            h.not_at.iter().for_each(|at| take(Part::Value(*at)));
            take(Part::Value(u64::from(h.waits) | u64::from(h.resident) << 1));
            take(Part::Known(h.got));
        }
    }
    take(Part::Event(line.newest_born));
    let mut accessed = line.accessed.clone();
    accessed.sort_unstable();
    take(Part::Value(accessed.len() as u64));
    for (cpu, at) in accessed {
        take(Part::Value(u64::from(cpu.0)));
        take(Part::Known(at));
    }
}

fn visit_cpu(c: &PerCpu, take: Take<'_>) {
    take(Part::Value(u64::from(c.space.0) << 16 | u64::from(c.asid)));
    take(Part::Value(u64::from(c.irqs_on) << 16 | (c.context as u64) << 8 | c.state as u64));
    take(Part::Value(c.known.len() as u64));
    c.known.iter().for_each(|(s, asid)| take(Part::Value(u64::from(s.0) << 16 | u64::from(*asid))));
    take(Part::Value(c.tlb.entries().len() as u64));
    for e in c.tlb.entries() {
        for value in [e.virt, e.len, e.phys, u64::from(e.shift), u64::from(e.perm.bits())] {
            take(Part::Value(value));
        }
        take(Part::Value(e.tag.map_or(u64::MAX, u64::from)));
        take(Part::Value(u64::from(e.space.0)));
        take(Part::Event(e.since));
        take(Part::Value(e.replaced.map_or(0, |r| u64::from(r.by.0))));
        maybe(e.replaced.map(|r| r.at), take);
    }
    take(Part::Value(c.uppers.len() as u64));
    for u in &c.uppers {
        for value in [u.entry.0, u.raw, u.virt, u.len, u.tag.map_or(u64::MAX, u64::from)] {
            take(Part::Value(value));
        }
        take(Part::Value(u64::from(u.replaced.by.0) | u64::from(u.limited) << 16));
        take(Part::Event(u.replaced.at));
    }
    take(Part::Known(c.ahead.floor));
    take(Part::Known(c.ahead.cursor));
    take(Part::Value(c.ahead.past.len() as u64));
    for p in &c.ahead.past {
        for value in [p.virt, p.len, p.phys, p.tag.map_or(u64::MAX, u64::from)] {
            take(Part::Value(value));
        }
        take(Part::Event(p.since));
        take(Part::Event(p.until));
    }
    take(Part::Value(c.ahead.waiting.len() as u64));
    c.ahead.waiting.iter().for_each(|line| take(Part::Value(*line)));
    if let Some(icache) = &c.icache {
        icache.visit(take);
    }
    take(Part::Value((c.ipis.len() as u64) << 32 | c.serving.len() as u64));
    c.ipis.iter().for_each(|ipi| ipi.visit(take));
    c.serving.iter().for_each(|serving| serving.visit(take));
    take(Part::Value(c.reserved.unwrap_or(u64::MAX)));
    c.waiting.visit(take);
    c.pending.visit(take);
    c.data.visit(take);
}
