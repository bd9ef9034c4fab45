//! Events of which nothing is to be said but that they were: the steady state of a stream.
//!
//! Most events repeat others. A fetch of a block that is *plain* ([`crate::fetch::looks`]), and a
//! plain store of an aligned word to memory in which no code ran, of which a note is all that is
//! kept ([`crate::fetch::versions`]), are looked up once and noted, while nothing is going on for
//! which any other part waits: no act of changes, no entry in the making, no site that is patched.
//! Whatever is not so goes the way of all events, and what is noted here is what that way notes
//! ([`crate::shortcuts`] has the test).

use textbed_arch::SpaceId;
use textbed_event::{Event, Flags, Kind, MemOrder, Provenance};

use crate::fetch::versions::{Forgotten, Knew, Unit};
use crate::fetch::views::View;
use crate::fetch::{Fetches, Model};
use crate::live::{Live, Now};
use crate::rules::RuleId;
use crate::shortcuts::{Shortcut, open};
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;

/// Whether nothing is going on for which any other part waits. Only events that go the way of all
/// can change that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    /// No use of memory could concern any part.
    quiet: bool,
    /// Besides, nobody looks at a store but the versions, and these only keep that it was.
    notes: bool,
}

impl Steady {
    /// Whether the event is such a fetch or store; then it is noted. `place` is where what is known
    /// of its block or word may be.
    #[inline]
    pub(crate) fn goes_on(self, live: &mut Live, now: Now<'_>, place: u32) -> bool {
        match now.event.kind {
            Kind::Fetch if self.quiet => live.runs_plain(now.event, place),
            Kind::Store if self.notes => live.stores_again(now, place),
            _ => false,
        }
    }
}

/// Flags of events that say that there is more to it.
const OTHERWISE: Flags = Flags::EQUAL_BYTES.with(Flags::NONTEMPORAL).with(Flags::PHYS_UNKNOWN);

impl Live {
    /// What may be noted now.
    pub(crate) fn steady(&self) -> Steady {
        let idle = self.watch.is_idle() && self.patching.sites.is_empty();
        let quiet = idle && !self.in_act() && open(Shortcut::Steady);
        let notes = quiet
            && self.patching.is_idle()
            && self.frames.unwritten.is_empty()
            && self.fetches.fetches_are_seen
            && open(Shortcut::Noted);
        Steady { quiet, notes }
    }

    /// A fetch of a block that may be plain.
    #[inline]
    fn runs_plain(&mut self, event: &Event, place: u32) -> bool {
        let Some((virt, phys, len)) = event.as_fetch().filter(|_| event.is_valid()) else {
            return false;
        };
        let unknown = event.flags.0 & Flags::PHYS_UNKNOWN.0 != 0;
        if unknown || phys.0 >= UNKNOWN_PHYS || !self.fetches.counts(event.cpu) {
            return false;
        }
        let (cpu, seq, at) = (event.cpu, event.seq, (virt.0, phys.0));
        let Fetches { looks, model, .. } = &mut self.fetches;
        let plain = looks.plain(cpu, place, at, len, || model.moment(cpu), seq);
        if plain {
            self.watch.runs(cpu, seq, self.space_of(cpu, virt), virt.0);
        }
        plain
    }

    #[inline]
    fn stores_again(&mut self, now: Now<'_>, place: u32) -> bool {
        let Now { event, batch } = now;
        let Some((virt, phys, range)) = event.as_plain_store() else { return false };
        if event.flags.0 & OTHERWISE.0 != 0 || phys.0 & 7 != 0 || phys.0 >= UNKNOWN_PHYS {
            return false;
        }
        let Ok(bytes) = <[u8; 8]>::try_from(batch.bytes(range)) else { return false };
        let (phys, recorded) = (phys.0, event.flags.provenance() == Provenance::Recorded);
        let chain = || self.calls.chain(event.cause);
        if self.fetches.looks.follows(phys)
            || !self.fetches.versions.same_context(event, batch, chain)
            || recorded && !self.may_store(now, virt.0)
        {
            return false;
        }
        let (at, unit) = ((place, self.header.arch), Unit { phys, len: 8, bytes });
        let (p, seq) = (event.cpu, event.seq);
        let Fetches { versions, model, settling, predicted: by_edges, .. } = &mut self.fetches;
        let noted = match model {
            Model::Off => return false,
            Model::X86 { machine, .. } => {
                versions.store_again(at, event, &unit, |newest, older| {
                    let forgotten = newest.map(|key| settling.at(machine, key));
                    let knew = match by_edges {
                        true => Knew::Clock(machine.store(p, seq, older)),
                        false => Knew::Nothing,
                    };
                    (knew, forgotten.unwrap_or(Forgotten::None))
                })
            }
            Model::Weak { observed, predicted, .. } => {
                let (span, none) = (Span { first: phys, last: phys | 7 }, View::default());
                versions.store_again(at, event, &unit, |newest, older| {
                    let forgotten = newest
                        .map(|key| settling.within(observed, predicted.as_deref(), span, key));
                    let knew = predicted.as_mut().map_or(Knew::Nothing, |weak| {
                        let from = older.and_then(|newest| newest.view);
                        let view = weak.store(p, span, seq, MemOrder::Plain, from.as_ref(), &none);
                        Knew::View(view.shared())
                    });
                    (knew, forgotten.unwrap_or(Forgotten::None))
                })
            }
        };
        if noted && recorded {
            self.occasions.looked(RuleId::WriteThroughReadOnly);
        }
        noted
    }

    /// Whether the tables of the kernel's space, which the CPU of the event uses, grant stores
    /// there.
    #[inline]
    fn may_store(&mut self, now: Now<'_>, virt: u64) -> bool {
        self.cpus.space_of(now.cpu()) == SpaceId::KERNEL
            && self.tables.is_writable(SpaceId::KERNEL, virt) == Some(true)
    }
}
