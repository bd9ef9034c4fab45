//! Open sites: two patchers at one place, a patcher that runs what it patches, a site that is cut
//! badly, or lies in memory that went back.

use textbed_arch::{Arch, CpuId, Features, VirtAddr, trap};
use textbed_event::{CallRef, Event, Facts, Kind};

use super::open::Site;
use crate::book::Draft;
use crate::finding::{self, Blame};
use crate::live::{Live, Now};
use crate::mark::{ChainId, Mark};
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;
use crate::words;

impl Live {
    /// A patcher says what it is about to replace.
    pub(crate) fn patch_site(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        lens: (u16, u16),
        handler: bool,
    ) {
        for rule in [RuleId::PatchMetadata, RuleId::MisalignedPatch, RuleId::UnlockedPatch] {
            self.occasions.looked(rule);
        }
        let len = u64::from(lens.0.max(lens.1));
        let Some(span) = Span::of(virt.0, len) else { return };
        let mark = self.mark(now);
        let (_, mapping) = match self.tables.lookup(self.cpus.space_of(now.cpu()), virt.0) {
            Some((space, mapping)) => (Some(space), Some(mapping)),
            None => (None, None),
        };
        let phys = mapping.map(|m| m.phys).filter(|p| *p < UNKNOWN_PHYS);
        let frames = phys.and_then(|p| Span::of(p, len));
        let space = self.cpus.space_of(now.cpu());
        let gone = match phys.and_then(|p| self.frames.freed(p)) {
            Some(freed) => Some(("whose frame went back to the allocator", freed)),
            None => self.given_back(space, virt.0).map(|gone| match mapping {
                Some(_) => ("whose memory was given back", gone),
                None => ("where nothing is mapped: its area was given back", gone),
            }),
        };
        if let Some((what, freed)) = gone
            && !self.patching.listed.is_told(virt.0)
        {
            self.site_is_gone(&mark.about(virt.0), &freed, what);
        } else if gone.is_none() {
            self.site_is_mapped(&mark, span);
        }
        let other = self.patching.sites.in_calls().find(|s| {
            s.cpu != now.cpu() && s.virt.meet(span).is_some() && self.calls.is_open(s.cause)
        });
        if let Some(other) = other.map(|s| s.mark) {
            self.two_patchers(&mark, &other);
        }
        if let Some(frames) = frames {
            self.judge_shape(&mark, frames, handler);
            self.torn_by_site(&mark, frames);
        }
        self.patching.sites.open(Site {
            cpu: now.cpu(),
            virt: span,
            frames,
            cause: mark.cause,
            mark,
            handler,
            stored: Vec::new(),
            last_store: None,
            elsewhere: None,
            trapped: false,
            ran: None,
        });
    }

    /// A call returned: its patches are done.
    pub(crate) fn sites_close(&mut self, call: CallRef) {
        for site in self.patching.sites.close(call) {
            self.went_astray(&site);
        }
    }

    /// A store may be one to an open site.
    pub(crate) fn site_stored(&mut self, mark: &Mark, frames: Span, bytes: &[u8]) {
        let arch = self.arch();
        let mut ran: Option<(Mark, u64)> = None;
        let mut trap = None;
        for site in self.patching.sites.iter_mut() {
            let Some(part) = site.frames.and_then(|f| f.meet(frames)) else { continue };
            if site.cpu != mark.cpu {
                continue;
            }
            // Whoever runs there before the site closes is judged.
            for rule in [RuleId::TornPatch, RuleId::SelfPatch] {
                self.occasions.looked(rule);
            }
            if site.frames.is_some_and(|f| f.first == part.first) {
                let skip = usize::try_from(part.first - frames.first).unwrap_or(usize::MAX);
                let unit = if arch == Arch::X86_64 { 1 } else { 4 };
                let first = bytes.get(skip..skip.saturating_add(unit));
                site.trapped = first.is_some_and(|b| trap::is_trap_fill(arch, b));
                if site.trapped && site.handler {
                    trap = Some((site.mark, site.virt.first));
                }
            }
            if let Some(was) = site.ran.take() {
                ran = Some((was, site.virt.first));
            }
            if site.stored.len() < 64 {
                site.stored.push(part);
            }
            site.last_store = Some(*mark);
        }
        if let Some((was, virt)) = ran {
            self.self_patch(mark, &was, virt);
        }
        if let Some((site, virt)) = trap {
            self.trap_stored(mark, &site, virt);
        }
        self.stored_beside_sites(mark, frames);
    }

    /// A store to no open site may be meant for one: it has the site's place in another page.
    fn stored_beside_sites(&mut self, mark: &Mark, frames: Span) {
        let within = self.page_bytes() - 1;
        let here = |site: &Site| site.frames.is_some_and(|f| f.meet(frames).is_some());
        let sites = &mut self.patching.sites;
        if sites.iter().any(|s| s.cpu == mark.cpu && here(s)) {
            return;
        }
        for site in sites.iter_mut().filter(|s| s.cpu == mark.cpu && s.stored.is_empty()) {
            let place = |f: Span| (f.first ^ frames.first) & within == 0 && frames.len() <= f.len();
            if site.frames.is_some_and(place) {
                site.elsewhere = Some(*mark);
            }
        }
    }

    /// A patch is done, and no byte of its site was stored: what was written has the site's place
    /// in another page.
    fn went_astray(&mut self, site: &Site) {
        self.occasions.looked(RuleId::WrongAlias);
        let Some(stored) = site.elsewhere else { return };
        if !self.checkable(RuleId::WrongAlias) {
            return;
        }
        let at = self.address(site.virt.first);
        let message = format!(
            "{} patched {at}, and its store went to another frame: the site is as it was",
            site.cpu
        );
        let about = self.site(&stored, "stored here, at the site's place in another page");
        let mut draft = Draft::new(RuleId::WrongAlias, Operation::WritableAlias, message, about);
        draft.because = Some(self.site(&site.mark, "what was to be replaced was said here"));
        draft.sure = false;
        draft.blame = Blame::Callee;
        draft.missing.push("a store through an alias of the site's own frame".to_owned());
        draft.help = Some(
            "map the frame that the tables have at the site, at whatever level its leaf is".into(),
        );
        self.report(draft);
    }

    /// A CPU runs bytes of an open site.
    pub(crate) fn site_run(&mut self, now: Now<'_>, virt: u64, frames: Span) {
        if self.patching.sites.is_empty() {
            return;
        }
        let mark = self.mark(now);
        let stopped = self.watch.stopped;
        let mut torn = None;
        for rule in [RuleId::TornPatch, RuleId::SelfPatch] {
            self.occasions.looked(rule);
        }
        for site in self.patching.sites.iter_mut() {
            let Some(part) = site.frames.and_then(|f| f.meet(frames)) else { continue };
            let at_trap = site.trapped && site.frames.is_some_and(|f| f.first == part.first);
            if site.stored.is_empty() || at_trap {
                continue;
            }
            if site.cpu == mark.cpu {
                site.ran = Some(mark);
            } else if site.is_partial() && !stopped {
                torn = Some(site.mark);
            }
        }
        if let Some(site) = torn {
            self.torn_open(&mark.about(virt), &site);
        }
    }

    /// A patcher goes by a list that names what `freed` gave back.
    pub(super) fn site_is_gone(&mut self, mark: &Mark, freed: &Mark, what: &str) {
        if !self.checkable(RuleId::PatchMetadata) {
            return;
        }
        let at = self.address(mark.virt.map_or(0, |v| v.0));
        let message = format!("a patcher's list names {at}, {what}");
        let site = self.site(mark, "about to be patched here");
        let mut draft = Draft::new(RuleId::PatchMetadata, Operation::SiteRemoval, message, site);
        draft.because = Some(self.site(freed, "given back here"));
        draft.sure = mark.sure && freed.sure;
        draft.blame = Blame::Callee;
        draft.missing.push("removal of the site from the list before its memory goes".to_owned());
        draft.help =
            Some("take sites off every list before the memory they lie in is freed".into());
        self.report(draft);
    }

    /// Whether every page of a site is mapped, as far as the source knows. With hashed tables a
    /// page is there from its first use on, and nothing is said.
    fn site_is_mapped(&mut self, mark: &Mark, site: Span) {
        let walked = self.header.features.contains(Features::PPC_RADIX);
        let known =
            self.header.facts.contains(Facts::ALL_ALIASES) && (walked || !self.arch().is_powerpc());
        if !known || !self.checkable(RuleId::PatchMetadata) {
            return;
        }
        let (space, page) = (self.cpus.space_of(mark.cpu), self.page_bytes());
        let starts = |at: u64| (at < site.last).then(|| (at | (page - 1)).checked_add(1))?;
        let mut parts = std::iter::successors(Some(site.first), |at| starts(*at))
            .take_while(|at| *at <= site.last);
        let Some(bare) = parts.find(|at| self.tables.lookup(space, *at).is_none()) else { return };
        let (bytes, at) = (words::size(site.len()), self.address(site.first));
        let beyond = match bare - site.first {
            0 => "and nothing is mapped there".to_owned(),
            part => format!("which is mapped for {} alone", words::size(part)),
        };
        let message = format!("a patcher is about to replace {bytes} at {at}, {beyond}");
        let about = self.site(&mark.about(bare), "nothing is mapped here");
        let mut draft = Draft::new(RuleId::PatchMetadata, Operation::Agreement, message, about);
        let mapped = self.tables.lookup(space, site.first).map(|(_, m)| m.since);
        draft.because = mapped.map(|since| self.site(&since, "what is before it is mapped here"));
        draft.sure = mark.sure;
        draft.blame = Blame::Caller;
        draft.missing.push("a site that is mapped from its first byte to its last".to_owned());
        draft.help =
            Some("see that the whole instruction lies in the code before it is patched".into());
        self.report(draft);
    }

    fn two_patchers(&mut self, mark: &Mark, other: &Mark) {
        if !self.checkable(RuleId::UnlockedPatch) {
            return;
        }
        let at = self.address(mark.virt.map_or(0, |v| v.0));
        let message = format!("{} patches {at} while {} is patching it", mark.cpu, other.cpu);
        let site = self.site(mark, "a second patch begins here");
        let mut draft = Draft::new(RuleId::UnlockedPatch, Operation::Lock, message, site);
        draft.because = Some(self.site(other, "the first one began here and is not done"));
        draft.sure = mark.sure && other.sure;
        draft.missing.push("one lock for both patchers".to_owned());
        draft.help = Some("let everybody who changes text hold one lock while he does".to_owned());
        self.report(draft);
    }

    fn self_patch(&mut self, mark: &Mark, ran: &Mark, virt: u64) {
        if !self.checkable(RuleId::SelfPatch) {
            return;
        }
        let at = self.address(virt);
        let message = format!("{} runs {at} in the middle of patching it", mark.cpu);
        let site = self.site(ran, "runs half of the patch here");
        let mut draft = Draft::new(RuleId::SelfPatch, Operation::OwnCode, message, site);
        draft.because = Some(self.stored_site(mark, virt, "and goes on patching here"));
        draft.sure = mark.sure && ran.sure;
        draft.missing.push("code for the patcher that the patch does not touch".to_owned());
        draft.help = Some(
            "patch in an order in which every prefix is sound, from code (and with exception \
             paths) that is not itself patched, or write all of it with one store"
                .to_owned(),
        );
        self.report(draft);
    }

    /// Whether a place that is patched while others may run it is cut well.
    fn judge_shape(&mut self, mark: &Mark, frames: Span, handler: bool) {
        let (arch, features) = (self.arch(), self.header.features);
        let alone = self.watch.stopped || self.cpus.online.count_ones() < 2;
        let (bytes, why, sure) = match arch {
            Arch::X86_64 => {
                let line = if features.contains(Features::X86_AMD) { 8 } else { 64 };
                let crosses = frames.len() <= 16 && frames.first / line != frames.last / line;
                if handler || alone || !crosses || !self.ran_elsewhere(mark.cpu, frames) {
                    return;
                }
                let what = if line == 8 { "an aligned quadword" } else { "a cache line" };
                (line, format!("crosses the end of {what}"), false)
            }
            _ if !frames.first.is_multiple_of(4) => {
                (4, "is no multiple of four bytes".to_owned(), true)
            }
            // Prefixed instructions lie within 64 bytes (Power ISA 3.1 Book I 1.6).
            Arch::Ppc64le | Arch::Ppc64
                if frames.len() == 8 && frames.first / 64 != frames.last / 64 =>
            {
                (64, "is a prefixed instruction that crosses 64 bytes".to_owned(), false)
            }
            _ => return,
        };
        self.misaligned(mark, frames, (&why, bytes), sure);
    }

    /// Whether a store of these bytes, which is not part of a longer one, may be seen in parts.
    fn is_cut(&self, frames: Span) -> bool {
        let len = frames.len();
        match self.arch() {
            Arch::X86_64 => {
                let line = if self.code_unit == 8 { 8 } else { 64 };
                (2..=16).contains(&len) && frames.first / line != frames.last / line
            }
            _ => len <= 16 && !(frames.first.is_multiple_of(4) && len.is_multiple_of(4)),
        }
    }

    /// Whether a store is whole and no trap, where no trap stands: with no site open it concerns no
    /// patch.
    pub(crate) fn is_plain_store(&self, frames: Span, bytes: &[u8]) -> bool {
        let trap = frames.len() == 1 && trap::is_trap_fill(self.arch(), bytes);
        !trap && self.patching.traps.is_empty() && !self.is_cut(frames)
    }

    /// A store to code that others run.
    pub(crate) fn judge_store_shape(&mut self, mark: &Mark, frames: Span) {
        let unit = self.code_unit;
        // Behind a trap nobody is; and of a site its own shape was judged when it was opened.
        let known = self
            .patching
            .sites
            .iter()
            .any(|s| s.cpu == mark.cpu && s.frames.is_some_and(|f| f.meet(frames).is_some()));
        let cut = self.is_cut(frames);
        if !cut || known || self.watch.stopped || !self.ran_elsewhere(mark.cpu, frames) {
            return;
        }
        self.occasions.looked(RuleId::MisalignedPatch);
        let sure = self.arch() != Arch::X86_64;
        let (why, bytes) = match self.arch() {
            Arch::X86_64 if unit == 8 => ("crosses the end of an aligned quadword", 8),
            Arch::X86_64 => ("crosses the end of a cache line", 64),
            _ => ("is not one instruction", unit),
        };
        self.misaligned(mark, frames, (why, bytes), sure);
    }

    /// Whether another CPU executed bytes of `frames` before this event.
    pub(crate) fn ran_elsewhere(&self, cpu: CpuId, frames: Span) -> bool {
        self.who_ran(cpu, frames).is_some()
    }

    /// Another CPU that executed bytes of `frames` before this event, and the last event in which
    /// it did.
    fn who_ran(&self, cpu: CpuId, frames: Span) -> Option<(CpuId, u64)> {
        let page_end = frames.first | 0xfff;
        let head = Span { first: frames.first, last: frames.last.min(page_end) };
        let mut others = (0..self.header.cpus.min(64)).map(CpuId).filter(|p| *p != cpu);
        others.find_map(|p| Some((p, self.fetches.looks.last_executed(p, head)?)))
    }

    /// The place of a patch as the site of the CPU that may run it meanwhile. Of what was executed
    /// only the event's number is kept.
    pub(crate) fn run_by_another(&self, patch: &Mark, frames: Span) -> Option<finding::Site> {
        let (cpu, seq) = self.who_ran(patch.cpu, frames)?;
        let mark = Mark {
            seq,
            at_ns: Event::NO_TIME,
            virt: patch.virt,
            origin: None,
            cause: CallRef::NONE,
            chain: ChainId::EMPTY,
            cpu,
            kind: Kind::Fetch,
            sure: true,
        };
        Some(self.site(&mark, "ran it last here"))
    }

    fn misaligned(&mut self, mark: &Mark, frames: Span, (why, unit): (&str, u64), sure: bool) {
        if !self.checkable(RuleId::MisalignedPatch) {
            return;
        }
        let at = self.address(mark.virt.map_or(0, |v| v.0));
        let message = format!("what is patched at {at} {why}: a CPU may fetch half of it");
        let site = self.site(mark, "patched here");
        let mut draft = Draft::new(RuleId::MisalignedPatch, Operation::Alignment, message, site);
        draft.because = self.run_by_another(mark, frames);
        draft.sure = sure && mark.sure;
        draft.missing.push(match unit {
            4 => "alignment to 4 bytes".to_owned(),
            _ => format!("a place inside one aligned block of {unit} bytes"),
        });
        draft.help = Some(
            "align the site when the code is made, or guard it: a trap in its first byte until \
             the rest is written and seen, or all CPUs stopped"
                .to_owned(),
        );
        self.report(draft);
    }
}
