//! When an invalidation is complete, by architecture.
//!
//! | | local | broadcast |
//! |---|---|---|
//! | x86-64 | at once (the instruction waits) | INVLPGB: at the issuer's TLBSYNC |
//! | arm64 | the issuer's full DSB | the issuer's full DSB, not NSH |
//! | powerpc | the issuer's ptesync | eieio, tlbsync, then ptesync of the issuer |
//!
//! The eieio orders the tlbie before the tlbsync (the sequences of Power ISA Book III, as OpenBSD's
//! powerpc64 pmap.c comments them line by line; Linux 6.12 radix_tlb.c); a sync or ptesync is more.
//! Until then it closes nothing. On arm64 and powerpc the changed entry must besides be visible to
//! walks before the invalidation is issued: a DSB (full or ST), or a ptesync, of the CPU that
//! stored it. An invalidation behind which no instruction stands (a log that shows a flush as a
//! whole) is complete at once. Sources: `arch::sync` and the citations of the rules.
//!
//! Errata are features of the header. Of arm64 (`repeat_tlbi`) and powerpc (`tlbie_stq`): what is
//! broadcast is complete for other CPUs only when another broadcast invalidation, of whatever
//! address, was issued behind a barrier behind it, and is complete itself (Linux 6.12
//! arch/arm64/include/asm/tlbflush.h `__TLBI_0`, a8f78680ee6b, arch/powerpc/mm/book3s64/radix_tlb.c
//! `fixup_tlbie_pid`); on powerpc stores alone are left over. Of x86 (`invlpg_miss`): INVLPG leaves
//! global entries while there are PCIDs (ce0b15d11ad8).
//!
//! Not modelled: instructions fetched through the old translation that still wait in the pipeline
//! of another CPU; nXS variants; FEAT_ETS.

use textbed_arch::sync::translation::{TlbieStage, walks_in_order};
use textbed_arch::{
    Arch, Features, SpaceId,
    effect::{Barrier, Domain, Reach, TlbScope},
};

use super::Target;
use crate::fetch::clock::Clock;
use crate::span::Span;

/// An invalidation as it was issued.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) target: Target,
    pub(crate) reach: Reach,
    /// The event.
    pub(crate) at: u64,
    /// Up to which event of each CPU the barriers before it had ordered changes.
    pub(crate) shown: Clock,
    /// The last event before it by which walks may have come to find something else.
    pub(crate) moved: u64,
}

/// An invalidation that was issued and is not complete.
#[derive(Clone, Debug)]
struct Pending {
    asked: Asked,
    stage: TlbieStage,
    second: Second,
    /// Complete but for what an erratum leaves.
    half: bool,
}

/// The second invalidation that errata want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Second {
    Wanted,
    /// A barrier stands behind the first.
    Fenced,
    Issued,
}

/// What an invalidation does not take away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaves {
    /// Nothing.
    Nothing,
    /// Global entries.
    Globals,
    /// All that other CPUs than its own hold.
    Others,
    /// What other CPUs store.
    StoresOfOthers,
}

impl Leaves {
    /// What is so, and what ends it.
    pub(crate) fn text(self) -> Option<(&'static str, &'static str)> {
        match self {
            Leaves::Nothing => None,
            Leaves::Globals => Some((
                "INVLPG leaves global entries while PCIDs are on",
                "flush by INVPCID or by a change of CR4.PGE, or run without PCIDs",
            )),
            Leaves::Others => Some((
                "accesses of other CPUs may come after one TLBI and its DSB",
                "issue another TLBI, of any address, behind that DSB, and wait for it by a DSB",
            )),
            Leaves::StoresOfOthers => Some((
                "stores of other threads may come after one tlbie",
                "issue another tlbie behind a ptesync, and wait for it by tlbsync and ptesync",
            )),
        }
    }
}

/// What the instruction leaves that is complete at once.
pub(crate) fn leaves_at_once(arch: Arch, features: Features, scope: TlbScope) -> Leaves {
    let missed = Features::X86_INVLPG_MISS | Features::X86_PCID;
    let addressed = matches!(scope, TlbScope::Address | TlbScope::AddressLastLevel);
    if arch == Arch::X86_64 && addressed && features.contains(missed) {
        Leaves::Globals
    } else {
        Leaves::Nothing
    }
}

/// Whether an invalidation of one address takes all entries above the last level with it (Intel
/// SDM 3A 4.10.4.1; AMD too, but with EFER.TCE).
pub(crate) fn takes_every_upper(arch: Arch, features: Features) -> bool {
    arch == Arch::X86_64 && !features.contains(Features::X86_TCE)
}

/// What a broadcast invalidation leaves until it has its second.
fn leaves_at_first(arch: Arch, features: Features) -> Leaves {
    if arch == Arch::Arm64 && features.contains(Features::ARM_REPEAT_TLBI) {
        Leaves::Others
    } else if arch.is_powerpc() && features.contains(Features::PPC_TLBIE_STQ) {
        Leaves::StoresOfOthers
    } else {
        Leaves::Nothing
    }
}

/// Invalidations kept by CPU until their barrier; adjacent ones between which walks of no CPU came
/// to find something else are one. Past it the two oldest are given up, which leaves their answers
/// open.
const MAX_PENDING: usize = 4096;
/// Changes kept by CPU until walks see them; past it adjacent ranges are joined coarsely.
const MAX_CHANGED: usize = 4096;

/// What one CPU has issued and not completed.
#[derive(Default, Debug)]
pub(crate) struct Issued {
    pending: Vec<Pending>,
    changed: Vec<(SpaceId, Span)>,
    /// A barrier came after the last invalidation: the next one stands for itself.
    sealed: bool,
}

/// What a barrier completed.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    /// Invalidations, each with what it leaves.
    pub(crate) done: Vec<(Asked, Leaves)>,
    /// Changes that walks now see.
    pub(crate) seen: Vec<(SpaceId, Span)>,
    /// All that the CPU stored to the tables is seen.
    pub(crate) all_seen: bool,
}

/// Whether a barrier binds walks, those of others too, to what its CPU stored to the tables.
pub(crate) fn shows_changes(arch: Arch, barrier: Barrier, domain: Domain) -> bool {
    domain != Domain::NonShareable && sees_own(arch, barrier)
}

/// Whether it does so to that CPU's own stores, as far as it reaches.
fn sees_own(arch: Arch, barrier: Barrier) -> bool {
    match barrier {
        Barrier::DsbFull | Barrier::DsbStore => arch == Arch::Arm64,
        barrier => barrier.orders_tables(arch),
    }
}

/// Whether an invalidation by an instruction is complete when it is issued.
pub(crate) fn at_once(arch: Arch, features: Features, reach: Reach) -> bool {
    walks_in_order(arch, features) && (reach == Reach::Local || arch != Arch::X86_64)
}

impl Issued {
    pub(crate) fn issue(&mut self, asked: Asked) {
        let sealed = std::mem::take(&mut self.sealed);
        if asked.reach == Reach::Broadcast {
            for p in self.pending.iter_mut().filter(|p| p.second == Second::Fenced) {
                p.second = Second::Issued;
            }
        }
        if let Some(last) = self.pending.last_mut()
            && !sealed
            && let (Some(a), Some(b)) = (last.asked.target.span, asked.target.span)
            && (last.asked.target.scope, last.asked.target.space, last.asked.reach)
                == (asked.target.scope, asked.target.space, asked.reach)
            && last.asked.moved == asked.moved
            && a.last.checked_add(1) == Some(b.first)
        {
            last.asked.target.span = Some(Span { first: a.first, last: b.last });
            return;
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending.drain(..2);
        }
        let (second, half) = (Second::Wanted, false);
        self.pending.push(Pending { asked, stage: TlbieStage::Issued, second, half });
    }

    /// This CPU changed an entry.
    pub(crate) fn changed(&mut self, space: SpaceId, span: Span) {
        if let Some((s, last)) = self.changed.last_mut()
            && *s == space
            && last.last.checked_add(1) == Some(span.first)
        {
            last.last = span.last;
            return;
        }
        if self.changed.len() >= MAX_CHANGED
            && let Some((_, last)) = self.changed.iter_mut().find(|(s, _)| *s == space)
        {
            *last = Span { first: last.first.min(span.first), last: last.last.max(span.last) };
            return;
        }
        self.changed.push((space, span));
    }

    /// The first invalidation of these that is not complete, by its event, and where powerpc's is.
    pub(crate) fn waits(
        &self,
        is: impl Fn(&Target, Reach, u64) -> bool,
    ) -> Option<(u64, TlbieStage)> {
        let found = self.pending.iter().find(|p| is(&p.asked.target, p.asked.reach, p.asked.at));
        found.map(|p| (p.asked.at, p.stage))
    }

    /// What a barrier of this CPU completes.
    pub(crate) fn barrier(
        &mut self,
        (arch, features): (Arch, Features),
        barrier: Barrier,
        domain: Domain,
    ) -> Completed {
        let mut completed = Completed::default();
        self.sealed = true;
        if sees_own(arch, barrier) {
            completed.seen = std::mem::take(&mut self.changed);
            completed.all_seen = true;
        }
        if self.pending.is_empty() {
            return completed;
        }
        self.pending.iter_mut().for_each(|p| p.stage = p.stage.behind(barrier));
        let completes = |p: &Pending| match (barrier, p.asked.reach) {
            (Barrier::Tlbsync, Reach::Broadcast) => arch == Arch::X86_64,
            (Barrier::DsbFull, Reach::Local) => arch == Arch::Arm64,
            (Barrier::DsbFull, Reach::Broadcast) => {
                arch == Arch::Arm64 && domain != Domain::NonShareable
            }
            (barrier, Reach::Local) => barrier.orders_tables(arch),
            (barrier, Reach::Broadcast) => {
                barrier.orders_tables(arch) && p.stage == TlbieStage::Announced
            }
        };
        let first = leaves_at_first(arch, features);
        let seconds = match barrier {
            Barrier::DsbFull => arch == Arch::Arm64 && domain != Domain::NonShareable,
            barrier => barrier.orders_tables(arch),
        };
        self.pending.retain_mut(|p| {
            let waits = p.half && p.second != Second::Issued;
            let done = completes(p) && !waits;
            let lacks = p.asked.reach == Reach::Broadcast && p.second != Second::Issued;
            let leaves = if lacks { first } else { Leaves::Nothing };
            if done {
                completed.done.push((p.asked.clone(), leaves));
                p.half = true;
                p.stage = TlbieStage::Issued;
            }
            if seconds && p.second == Second::Wanted {
                p.second = Second::Fenced;
            }
            !done || leaves != Leaves::Nothing
        });
        completed
    }
}
