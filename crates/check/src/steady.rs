//! Events of which nothing is to be said but that they were: the steady state of a stream.
//!
//! Most events repeat others. A fetch of a block that is *plain* ([`crate::fetch::looks`]), and a
//! plain store of an aligned word to memory in which no code ran, of which a note is all that is
//! kept ([`crate::fetch::versions`]), are looked up once and noted, while nothing is going on for
//! which any other part waits: no act of changes, no entry in the making, no site that is patched.
//! Whatever is not so goes the way of all events, and what is noted here is what that way notes
//! ([`crate::shortcuts`] has the test).

use textbed_arch::{SpaceId, VirtAddr};
use textbed_event::{Batch, Event, Flags, Kind, MemOrder, Provenance};

use crate::checker::END;
use crate::fetch::versions::{Forgotten, Knew};
use crate::fetch::views::View;
use crate::fetch::{Fetches, Model};
use crate::live::{Live, Now};
use crate::rules::RuleId;
use crate::shortcuts::{Shortcut, open};
use crate::span::{NOWHERE, Span};
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
    /// Notes the first events as long as they are such fetches or stores, and their numbers, from
    /// `next` on, ascend: how many. `places` says where what is known of each may be.
    #[inline]
    pub(crate) fn goes_on(
        self,
        live: &mut Live,
        (events, batch): (&[Event], &Batch),
        places: &[u32],
        next: &mut u64,
    ) -> usize {
        let mut at = 0;
        while let (Some(event), Some(place)) = (events.get(at), places.get(at)) {
            if event.seq < *next || event.seq >= END {
                break;
            }
            let noted = match event.kind {
                Kind::Fetch if self.quiet && *place != NOWHERE => {
                    let runs = live.run_again(&events[at..], &places[at..], next);
                    if runs > 0 {
                        at += runs;
                        continue;
                    }
                    live.runs_plain(event)
                }
                Kind::Fetch if self.quiet => live.runs_plain(event),
                Kind::Store if self.notes => live.stores_again(Now { event, batch }, *place),
                _ => false,
            };
            if !noted {
                break;
            }
            *next = event.seq + 1;
            at += 1;
        }
        at
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

    /// Fetches of plain blocks that their CPUs ran before, the first of the events as far as they
    /// go on: how many.
    #[inline(never)]
    fn run_again(&mut self, events: &[Event], ids: &[u32], next: &mut u64) -> usize {
        let Self { fetches, watch, cpus, header, .. } = self;
        let mut count = 0;
        for (event, id) in events.iter().zip(ids) {
            let otherwise = event.flags.0 & Flags::PHYS_UNKNOWN.0 != 0;
            if event.kind != Kind::Fetch
                || otherwise
                || event.seq < *next
                || event.seq >= END
                || !fetches.counts(event.cpu)
                || !fetches.looks.runs_again(event, *id)
            {
                break;
            }
            let space = cpus.space_at(header.arch, event.cpu, VirtAddr(event.a));
            watch.runs(event.cpu, event.seq, space, event.a);
            *next = event.seq + 1;
            count += 1;
        }
        count
    }

    /// A fetch of a block that may be plain.
    #[inline(never)]
    fn runs_plain(&mut self, event: &Event) -> bool {
        let Some((virt, phys, len)) = event.as_fetch().filter(|_| event.is_valid()) else {
            return false;
        };
        let unknown = event.flags.0 & Flags::PHYS_UNKNOWN.0 != 0;
        if unknown || phys.0 >= UNKNOWN_PHYS || !self.fetches.counts(event.cpu) {
            return false;
        }
        let (cpu, seq, at) = (event.cpu, event.seq, (virt.0, phys.0));
        let Fetches { looks, model, .. } = &mut self.fetches;
        let plain = looks.plain(cpu, at, len, || model.moment(cpu), seq);
        if plain {
            self.watch.runs(cpu, seq, self.space_of(cpu, virt), virt.0);
        }
        plain
    }

    /// A plain store of an aligned word, of which a note is all that is kept.
    #[inline(never)]
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
        let (p, seq, arch) = (event.cpu, event.seq, self.header.arch);
        let Fetches { versions, model, settling, predicted: by_edges, .. } = &mut self.fetches;
        let Some(spot) = versions.spot(place, phys) else { return false };
        let newest = versions.newest_key(spot);
        let (knew, forgotten) = match model {
            Model::Off => return false,
            Model::X86 { machine, .. } => {
                let knew = match by_edges {
                    true => Knew::Clock(machine.store(p, seq, versions.another_at(spot, p))),
                    false => Knew::Nothing,
                };
                (knew, newest.map(|key| settling.at(machine, key)))
            }
            Model::Weak { observed, predicted, .. } => {
                let (span, none) = (Span { first: phys, last: phys | 7 }, View::default());
                let settling =
                    newest.map(|key| settling.within(observed, predicted.as_deref(), span, key));
                let knew = predicted.as_mut().map_or(Knew::Nothing, |weak| {
                    let from = versions.another_at(spot, p).and_then(|newest| newest.view);
                    let view = weak.store(p, span, seq, MemOrder::Plain, from.as_ref(), &none);
                    Knew::View(view.shared())
                });
                (knew, settling)
            }
        };
        let forgotten = forgotten.unwrap_or(Forgotten::None);
        versions.note_at(spot, arch, event, bytes, (knew, forgotten));
        if recorded {
            self.occasions.looked(RuleId::WriteThroughReadOnly);
        }
        true
    }

    /// Whether the tables of the kernel's space, which the CPU of the event uses, grant stores
    /// there.
    #[inline]
    fn may_store(&mut self, now: Now<'_>, virt: u64) -> bool {
        self.cpus.space_of(now.cpu()) == SpaceId::KERNEL
            && self.tables.is_writable(SpaceId::KERNEL, virt) == Some(true)
    }
}
