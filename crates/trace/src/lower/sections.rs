//! Where the clock goes back: another boot, or another recording, in one file.
//!
//! A step back of less than a second is a matter of the tracer's clocks: it is counted, and from
//! there on the order between CPUs is not trusted. A longer one begins another section: nothing of
//! what was known holds there, so that everything is taken down, as inferred, at the last moment
//! of the section before. Side files are of the first section.
//!
//! Not modelled: a boot whose clock starts later than the one before it ended; clocks without a
//! unit.

use super::Lower;
use crate::sections::{Begins, Section};
use textbed_arch::VirtAddr;
use textbed_arch::effect::{Reach, TlbScope};
use textbed_event::{Provenance, View};

pub(crate) use crate::sections::Sections;

/// A step back of this much is no matter of clocks that differ.
const STEP_NS: u64 = 1_000_000_000;

impl Lower<'_> {
    /// Takes over the time of a line.
    pub(super) fn clock(&mut self, at_ns: u64, cpu: u32) {
        let place = self.line;
        if self.ahead {
            return;
        }
        let Some(now) = self.sections.now() else {
            self.sections.begin(Section::new(place, at_ns, Begins::Log), cpu);
            return;
        };
        if at_ns >= now.last_ns {
            self.sections.goes_on(at_ns, cpu);
            return;
        }
        if now.last_ns - at_ns < STEP_NS {
            self.counts.time_backwards += 1;
            self.sections.goes_on(now.last_ns, cpu);
            return;
        }
        let begins = match at_ns < now.first_ns || self.sections.seen(cpu) {
            true => Begins::ClockBack,
            false => Begins::OtherCpu,
        };
        self.take_down();
        self.sections.begin(Section::new(place, at_ns, begins), cpu);
    }

    /// Nothing of what was known holds any more.
    fn take_down(&mut self) {
        self.settle_all();
        self.calls.give_up();
        // Tables, and then what CPUs hold of them.
        self.mappings.unmap_all(&mut self.changed);
        self.emit_changed(Provenance::Inferred);
        for (virt, len) in self.areas.clear() {
            self.emit(View::AreaRemoved { virt: VirtAddr(virt), len }, Provenance::Inferred);
        }
        let view = View::TlbInvalidate {
            scope: TlbScope::All,
            reach: Reach::Broadcast,
            virt: VirtAddr(0),
            len: 0,
            asid: 0,
            leaf: None,
        };
        self.emit(view, Provenance::Modelled);
        self.change = super::change::State::at(self.documented);
        self.unseen = super::unseen::State::default();
        self.sync.restart();
        self.owners.restart();
        self.text_restart();
        self.frees_restart();
        self.promises_restart();
        self.protocol = super::conflicts::Steps::default();
    }
}
