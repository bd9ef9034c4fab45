//! Handlers of traps: one that is taken back while a CPU may still run into its trap.
//!
//! A handler is known by the address of its trap ([`textbed_event::View::TrapHandler`]), and the
//! trap by the bytes that were stored there. Not modelled: what a handler does.

use textbed_arch::{Arch, CpuId, VirtAddr, trap};
use textbed_event::View;

use crate::book::Draft;
use crate::fetch::verdict::Place;
use crate::fetch::versions::Version;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;

/// What is known about a trap at some place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handler {
    last: u64,
    registered: bool,
    mark: Mark,
    /// That it was taken back too early was reported: a trap is what comes of that.
    told: bool,
}

/// Of a handler.
const TAKEN_BACK: &str = "the handler was taken back here";

/// Places with handlers kept.
const MAX_HANDLERS: usize = 1 << 14;

impl Live {
    /// A handler of a trap is known, or is no longer.
    pub(crate) fn trap_handler(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        len: u32,
        registered: bool,
    ) {
        let Some(span) = Span::of(virt.0, u64::from(len)) else { return };
        let mark = self.mark(now).about(virt.0);
        let handlers = &mut self.patching.handlers;
        if handlers.len() < MAX_HANDLERS || handlers.contains_key(&virt.0) {
            handlers.insert(virt.0, Handler { last: span.last, registered, mark, told: false });
        }
        if !registered {
            self.occasions.looked(RuleId::PatchMetadata);
            self.handler_gone(now, virt.0, &mark);
        }
    }

    /// The handler was taken back: may somebody still run the trap?
    fn handler_gone(&mut self, now: Now<'_>, virt: u64, mark: &Mark) {
        let space = self.cpus.space_of(now.cpu());
        let Some((_, mapping)) = self.tables.lookup(space, virt) else { return };
        if mapping.phys >= UNKNOWN_PHYS || !mapping.perm.executable() {
            return;
        }
        let byte = Span { first: mapping.phys, last: mapping.phys };
        let Some((_, history)) = self.fetches.versions.within(byte).next() else { return };
        let arch = self.arch();
        let traps = |v: &Version| {
            v.unit.is_some_and(|u| {
                let at = usize::try_from(mapping.phys.wrapping_sub(u.phys)).unwrap_or(usize::MAX);
                let unit = if arch == Arch::X86_64 { 1 } else { 4 };
                let bytes = u.bytes.get(at..at.saturating_add(unit));
                bytes.is_some_and(|b| trap::is_trap_fill(arch, b))
            })
        };
        if let Some(trap) = history.newest().filter(|v| traps(v)) {
            let what = "while the trap is still there";
            let help = "keep the handler until the trap is gone";
            let why = (trap.mark, "the trap was stored here");
            self.metadata((mark, TAKEN_BACK), what, help, true, why);
            return;
        }
        if !history.versions.iter().any(|v| traps(v)) && !history.trapped_before(mapping.phys) {
            return;
        }
        let cpus = (0..self.header.cpus.min(64)).map(CpuId);
        let others: Vec<CpuId> =
            cpus.filter(|p| *p != now.cpu() && self.cpus.online & View::cpu_bit(*p) != 0).collect();
        let open = others.into_iter().find_map(|p| {
            let broken = self.verdict(Place::of(p, space, virt, byte, &history))?;
            Some((p, broken.sure, broken.version.mark))
        });
        if let Some((p, sure, stored)) = open {
            let what = format!("while {p} may still run the trap");
            let help =
                "synchronise every CPU after the trap is replaced, then take the handler back";
            let why = (stored, "the trap was replaced here");
            self.metadata((mark, TAKEN_BACK), &what, help, sure, why);
        }
    }

    /// A CPU took a trap: is there anybody who knows of it?
    pub(crate) fn trapped(&mut self, now: Now<'_>, virt: VirtAddr) {
        let Some((_, handler)) = self.patching.handlers.range(..=virt.0).next_back() else {
            return;
        };
        let handler = *handler;
        // Of memory that was given back since, and may be somebody else's, it says nothing.
        let gone = self.patching.gone.get(virt.0).map(|(_, gone)| gone.at.seq);
        if handler.last < virt.0 || gone.is_some_and(|gone| gone > handler.mark.seq) {
            return;
        }
        self.occasions.looked(RuleId::PatchMetadata);
        if !handler.registered && !handler.told {
            let mark = self.mark(now).about(virt.0);
            let what = "and a CPU runs into the trap";
            let help = "take a handler back only after every CPU has left the trap behind";
            let (at, why) = ((&mark, "runs into the trap here"), (handler.mark, TAKEN_BACK));
            self.metadata(at, what, help, true, why);
        }
    }

    /// A trap stands at a site whose patcher said that a handler knows it: is there one?
    pub(super) fn trap_stored(&mut self, mark: &Mark, site: &Mark, virt: u64) {
        let before = self.patching.handlers.range(..=virt).next_back();
        let known = before.is_some_and(|(_, h)| h.last >= virt && h.registered);
        if known || !self.checkable(RuleId::PatchMetadata) {
            return;
        }
        let at = self.address(virt);
        let message = format!("a trap stands at {at}, and no handler finds what is done there");
        let stored = self.stored_site(mark, virt, "the trap is stored here");
        let mut draft = Draft::new(RuleId::PatchMetadata, Operation::Agreement, message, stored);
        draft.because = Some(self.site(site, "about to be patched behind a trap, said here"));
        draft.sure = mark.sure && site.sure;
        draft.blame = Blame::Callee;
        draft.missing.push("a handler that finds the site before the trap is there".to_owned());
        draft.help = Some(
            "enter the site where the handler looks, and as it looks (in order, if it searches by \
             halves), before the trap is stored"
                .to_owned(),
        );
        self.report(draft);
    }

    /// A handler that is missed: where that shows, and the event that it conflicts with.
    fn metadata(
        &mut self,
        (mark, label): (&Mark, &str),
        what: &str,
        help: &str,
        sure: bool,
        (why, because): (Mark, &str),
    ) {
        if !self.checkable(RuleId::PatchMetadata) {
            return;
        }
        let virt = mark.virt.map_or(0, |v| v.0);
        if let Some(handler) = self.patching.handlers.get_mut(&virt) {
            handler.told = true;
        }
        let at = self.address(virt);
        let message = format!("the handler of the trap at {at} was taken back {what}");
        let site = self.site(mark, label);
        let mut draft = Draft::new(RuleId::PatchMetadata, Operation::Handler, message, site);
        draft.because = Some(self.stored_site(&why, virt, because));
        draft.sure = sure && mark.sure;
        draft.blame = Blame::Callee;
        draft.missing.push("synchronisation of every CPU before the handler goes".to_owned());
        draft.help = Some(help.to_owned());
        self.report(draft);
    }
}
