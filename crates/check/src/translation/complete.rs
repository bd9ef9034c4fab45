//! When an invalidation is complete, by architecture.
//!
//! | | local | broadcast |
//! |---|---|---|
//! | x86-64 | at once (the instruction waits) | INVLPGB: at the issuer's TLBSYNC |
//! | arm64 | the issuer's full DSB | the issuer's full DSB, not NSH |
//! | powerpc | the issuer's ptesync | tlbsync, then ptesync of the issuer |
//!
//! Until then it closes nothing. On arm64 and powerpc the changed entry must besides be visible to
//! walks before the invalidation is issued: a DSB (full or ST), or a ptesync, of the CPU that
//! stored it. An invalidation behind which no instruction stands (a log that shows a flush as a
//! whole) is complete at once. Sources: `arch::sync` and the citations of the rules.
//!
//! Not modelled: instructions fetched through the old translation that still wait in the pipeline
//! of another CPU; nXS variants; FEAT_ETS.

use textbed_arch::{
    Arch, SpaceId,
    effect::{Barrier, Domain, Reach},
};

use super::Target;
use crate::span::Span;

/// An invalidation that was issued and is not complete.
#[derive(Clone, Copy, Debug)]
struct Pending {
    target: Target,
    reach: Reach,
    issued: u64,
    /// powerpc: a tlbsync followed.
    announced: bool,
}

/// Invalidations kept by CPU until their barrier; adjacent ones are one. Past it the two oldest
/// are given up, which leaves their answers open.
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
    /// Invalidations, each with its reach and the event that issued it.
    pub(crate) done: Vec<(Target, Reach, u64)>,
    /// Changes that walks now see.
    pub(crate) seen: Vec<(SpaceId, Span)>,
}

/// Whether an invalidation by an instruction is complete when it is issued.
pub(crate) fn at_once(arch: Arch, reach: Reach) -> bool {
    arch == Arch::X86_64 && reach == Reach::Local
}

/// Whether a changed entry is visible to all walks as soon as it is stored.
pub(crate) fn walks_see_stores(arch: Arch) -> bool {
    arch == Arch::X86_64
}

impl Issued {
    pub(crate) fn issue(&mut self, target: Target, reach: Reach, issued: u64) {
        let sealed = std::mem::take(&mut self.sealed);
        if let Some(last) = self.pending.last_mut()
            && !sealed
            && let (Some(a), Some(b)) = (last.target.span, target.span)
            && (last.target.scope, last.target.space, last.reach)
                == (target.scope, target.space, reach)
            && a.last.checked_add(1) == Some(b.first)
        {
            last.target.span = Some(Span { first: a.first, last: b.last });
            return;
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending.drain(..2);
        }
        self.pending.push(Pending { target, reach, issued, announced: false });
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

    /// What a barrier of this CPU completes.
    pub(crate) fn barrier(&mut self, arch: Arch, barrier: Barrier, domain: Domain) -> Completed {
        let mut completed = Completed::default();
        self.sealed = true;
        let sees = match barrier {
            Barrier::DsbFull | Barrier::DsbStore => arch == Arch::Arm64,
            Barrier::Ptesync => arch.is_powerpc(),
            _ => false,
        };
        if sees {
            completed.seen = std::mem::take(&mut self.changed);
        }
        if self.pending.is_empty() {
            return completed;
        }
        if barrier == Barrier::Tlbsync {
            self.pending.iter_mut().for_each(|p| p.announced = true);
        }
        let completes = |p: &Pending| match (barrier, p.reach) {
            (Barrier::Tlbsync, Reach::Broadcast) => arch == Arch::X86_64,
            (Barrier::DsbFull, Reach::Local) => arch == Arch::Arm64,
            (Barrier::DsbFull, Reach::Broadcast) => {
                arch == Arch::Arm64 && domain != Domain::NonShareable
            }
            (Barrier::Ptesync, Reach::Local) => arch.is_powerpc(),
            (Barrier::Ptesync, Reach::Broadcast) => arch.is_powerpc() && p.announced,
            _ => false,
        };
        self.pending.retain(|p| {
            let done = completes(p);
            if done {
                completed.done.push((p.target, p.reach, p.issued));
            }
            !done
        });
        completed
    }
}
