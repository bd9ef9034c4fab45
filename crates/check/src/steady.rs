//! Events of which nothing is to be said but that they were: the steady state of a stream.
//!
//! Most events repeat others. A fetch of a block that is *plain* ([`crate::fetch::looks`]), and a
//! plain store of an aligned word to memory in which no code ran, of which a note is all that is
//! kept ([`crate::fetch::versions`]), are looked up once and noted, while nothing is going on for
//! which any other part waits: no act of changes, no entry in the making, no site that is patched.
//! Whatever is not so goes the way of all events, and what is noted here is what that way notes
//! ([`crate::shortcuts`] has the test).

use textbed_arch::SpaceId;
use textbed_event::{Flags, Kind, MemOrder, Provenance};

use crate::fetch::versions::{Forgotten, Knew, Unit};
use crate::fetch::views::View;
use crate::fetch::{Fetches, Model};
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::rules::RuleId;
use crate::shortcuts::{Shortcut, open};
use crate::span::Span;

impl Live {
    /// Whether the event is such a fetch or store; then it is noted. `place` is where what is known
    /// of its memory may be.
    #[inline]
    pub(crate) fn goes_on(&mut self, now: Now<'_>, place: u32) -> bool {
        match now.event.kind {
            Kind::Fetch => self.runs_again(now, place),
            Kind::Store => self.stores_again(now, place),
            _ => false,
        }
    }

    /// Whether nothing is going on that any use of memory could concern.
    #[inline]
    fn is_quiet(&self) -> bool {
        let idle = self.watch.is_idle() && self.patching.sites.is_empty();
        idle && !self.in_act() && open(Shortcut::Steady)
    }

    #[inline]
    fn runs_again(&mut self, now: Now<'_>, place: u32) -> bool {
        let (Some((virt, phys, len)), true) = (now.event.as_fetch(), self.is_quiet()) else {
            return false;
        };
        let (cpu, seq) = (now.cpu(), now.seq());
        let Some(phys) = now.phys(phys) else { return false };
        let plain = self.fetches.looks.plain((cpu, place), (virt.0, phys), len, seq);
        if plain {
            self.watch.runs(cpu, seq, self.space_at(now, virt), virt.0);
        }
        plain
    }

    #[inline]
    fn stores_again(&mut self, now: Now<'_>, place: u32) -> bool {
        const OTHERWISE: [Flags; 3] = [Flags::EQUAL_BYTES, Flags::NONTEMPORAL, Flags::PHYS_UNKNOWN];
        let Now { event, batch } = now;
        let Some((virt, phys, range)) = event.as_plain_store() else { return false };
        let Ok(bytes) = <[u8; 8]>::try_from(batch.bytes(range)) else { return false };
        let Some(phys) = now.phys(phys).filter(|phys| phys.is_multiple_of(8)) else { return false };
        let recorded = event.flags.provenance() == Provenance::Recorded;
        if OTHERWISE.iter().any(|flag| event.flags.has(*flag))
            || !self.is_quiet()
            || !self.stores_are_notes()
            || recorded && !self.may_store(now, virt.0)
            || self.fetches.looks.follows(phys)
        {
            return false;
        }
        let (at, unit) = ((place, self.header.arch), Unit { phys, len: 8, bytes });
        let mark = Mark::of(event, batch, self.calls.chain(event.cause));
        let (p, seq) = (mark.cpu, mark.seq);
        let Fetches { versions, model, settling, predicted: by_edges, .. } = &mut self.fetches;
        let noted = match model {
            Model::Off => return false,
            Model::X86 { machine, .. } => {
                versions.store_again(at, &mark, &unit, |newest, older| {
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
                versions.store_again(at, &mark, &unit, |newest, older| {
                    let forgotten = newest.map(|_| settling.within(observed, span));
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

    /// Whether nobody looks at a store but the versions, and these only keep that it was.
    #[inline]
    fn stores_are_notes(&self) -> bool {
        self.patching.is_idle()
            && self.frames.unwritten.is_empty()
            && self.fetches.fetches_are_seen
            && open(Shortcut::Noted)
    }

    /// Whether it is known that the CPU of the event may store there.
    #[inline]
    fn may_store(&self, now: Now<'_>, virt: u64) -> bool {
        self.cpus.space_of(now.cpu()) == SpaceId::KERNEL && self.tables.is_known_writable(virt)
    }
}
