//! Events about translations: leaves, address spaces, invalidations, barriers that complete them.

use smallvec::SmallVec;
use textbed_arch::paging::Attributes;
use textbed_arch::sync::translation::{HeldRefusal, held_refusal, walks_in_order};
use textbed_arch::{
    Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr,
    effect::{Barrier, Domain, Reach, TlbScope},
};
use textbed_event::{CallRef, ControlRegister, CpuState, Facts, Kind, LeafChange, OpId, View};

use crate::fetch::clock::Clock;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::memory::BecameExec;
use crate::rules::{RuleId, translations};
use crate::span::Span;
use crate::tables::{Mapping, UNKNOWN_PHYS};
use crate::translation::complete::{Asked, Leaves};
use crate::translation::ways::{HeldWay, Limited, Until, Way};
use crate::translation::{Flush, Frames, Heard, Old, Target, complete};

/// x86 CR4.PGE: a change of it drops every translation (SDM 3A 4.10.4.1).
const CR4_PGE: u64 = 1 << 7;

impl Live {
    pub(crate) fn leaf(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        phys: PhysAddr,
        change: LeafChange,
    ) {
        let Some(mut span) = Span::of(virt.0, change.len()) else { return };
        let base = match now.phys(phys) {
            Some(phys) => {
                // Cut where the physical addresses would run into those that mean "unknown".
                span.last = span.last.min(span.first.saturating_add(UNKNOWN_PHYS - 1 - phys));
                phys
            }
            None => {
                self.without_phys = self.without_phys.saturating_add(1);
                if span.first < UNKNOWN_PHYS {
                    span.last = span.last.min(UNKNOWN_PHYS - 1);
                }
                span.first | UNKNOWN_PHYS
            }
        };
        let mark = self.mark(now);
        let space = now.event.space;
        let mut review: Frames = Span::of(base, span.len()).into_iter().collect();
        let mut before: SmallVec<[(Span, Mapping); 1]> = self.tables.within(space, span).collect();
        let untold = before.is_empty() && change.old.contains(Perm::PRESENT);
        if untold {
            // The tables held something that the stream has not told of.
            let told = Mapping {
                phys: base,
                perm: change.old,
                shift: change.old_shift,
                attributes: Attributes { contiguous: change.was_contiguous, ..change.attributes },
                denied: Perm::empty(),
                since: mark,
                exec_since: 0,
            };
            before.push((span, told));
        }
        let present = change.new.contains(Perm::PRESENT);
        self.watch_entries(now, (space, span), base, &before, change, &mark);
        self.groups_change((space, span), base, &before, change, &mark);
        let faults = held_refusal(self.arch(), self.header.features) == HeldRefusal::Fault;
        for (part, old) in &before {
            let at = base.wrapping_add(part.first - span.first);
            let moved = !present || old.phys != at;
            // By entries above that CPUs hold with more rights it said what it would grant.
            if moved || old.perm | old.denied != change.new | change.denied {
                let seen = self.visible_from(&mark);
                if self.stale.leaf_gone(space, *part, &mark, seen) && seen == u64::MAX {
                    self.issued.entry(mark.cpu).or_default().changed(space, *part);
                }
            }
            let rights = Perm::READ | Perm::WRITE | Perm::EXEC;
            if moved || !change.new.contains(old.perm & rights) {
                self.answer_is_old(space, *part, old, (change.old_shift, None), &mark);
                self.rights_taken(space, *part, old.phys, &mark);
            } else if faults && !old.perm.contains(change.new & rights) {
                // Who holds it is refused what it lacks.
                self.answer_is_old(space, *part, old, (change.old_shift, None), &mark);
            }
            if old.perm.executable() && (moved || !change.new.executable()) {
                self.fetches.was_executable(space, *part, old.phys, now.seq());
            }
            if let Some(frames) = Span::of(old.phys, part.len())
                && !review.contains(&frames)
            {
                review.push(frames);
            }
        }
        if present {
            let mapping = Mapping {
                phys: base,
                perm: change.new,
                shift: change.shift,
                attributes: change.attributes,
                denied: change.denied,
                since: mark,
                exec_since: now.seq(),
            };
            self.tables.set(space, span, Some(mapping));
            self.keep_exec_since(space, span, base, &before, mapping);
            self.found_by_entries(space, span, &mark);
        } else {
            self.tables.set(space, span, None);
        }
        self.groups_changed(now, (space, span), change, &mark);
        if change.new.executable() {
            let fresh = before.iter().all(|(_, old)| !old.perm.executable());
            let outer = self.calls.outermost(mark.cause);
            if fresh {
                self.became_exec(BecameExec { space, span, phys: base, mark, outer });
            }
        }
        self.fetches.mapping_changed(span, &review);
        if change.new.writable() || change.new.executable() {
            // The pair of grants is looked for, also where there is none.
            self.occasions.looked(RuleId::WxMapping);
            if now.knows_phys() {
                self.occasions.looked(RuleId::WxAlias);
            }
        }
        let had = match before[..] {
            [] => Some(Perm::empty()),
            [(part, old)] if present && !untold => {
                (part == span && old.phys == base).then_some(old.perm)
            }
            _ => None,
        };
        if had.is_some_and(|had| had.contains(change.new & (Perm::WRITE | Perm::EXEC))) {
            // It leads where it led, and grants nothing more: no pair of grants comes by it, and
            // none goes that is in no window.
            review.retain(|frames| self.in_window(*frames));
        }
        for frames in review {
            self.review_frames(frames, &mark);
        }
    }

    /// Parts that were executable before, at the same frame, are so since then.
    fn keep_exec_since(
        &mut self,
        space: SpaceId,
        span: Span,
        base: u64,
        before: &[(Span, Mapping)],
        mapping: Mapping,
    ) {
        for (part, old) in before {
            let phys = base.wrapping_add(part.first - span.first);
            if mapping.perm.executable() && old.perm.executable() && old.phys == phys {
                let exec_since = old.exec_since;
                self.tables.set(space, *part, Some(Mapping { phys, exec_since, ..mapping }));
            }
        }
    }

    /// The tables no longer give an answer that CPUs may hold.
    /// `way` is what led there, if that went and not the leaf.
    pub(crate) fn answer_is_old(
        &mut self,
        space: SpaceId,
        span: Span,
        old: &Mapping,
        (shift, way): (u8, Option<Way>),
        mark: &Mark,
    ) {
        if !self.header.records.contains(Kind::TlbInvalidate) {
            return;
        }
        let by_hand = self.made_visible_by_hand();
        self.walks_moved = mark.seq;
        let answer = Old {
            phys: old.phys,
            perm: old.perm,
            shift,
            attributes: old.attributes,
            cpus: self.cpus.holding(space),
            unwalkable_at: self.visible_from(mark),
            made_at: old.since.seq,
            since: mark.about(span.first),
            early: None,
            left: None,
            way,
        };
        self.stale.add(space, span, answer);
        if by_hand {
            self.issued.entry(mark.cpu).or_default().changed(space, span);
        }
    }

    /// Whether a change of the tables is visible to walks only behind a barrier that the stream
    /// shows.
    pub(crate) fn made_visible_by_hand(&self) -> bool {
        let ordered = walks_in_order(self.arch(), self.header.features);
        self.header.facts.contains(Facts::MAINTENANCE) && !ordered
    }

    /// The event from which on every walk sees a change, if no barrier is needed for that.
    fn visible_from(&self, change: &Mark) -> u64 {
        if self.made_visible_by_hand() { u64::MAX } else { change.seq }
    }

    /// No entry points to a page-table page any more. What it still holds is what the tables said
    /// of its addresses up to now.
    pub(crate) fn table_unlinked(&mut self, now: Now<'_>, span: Option<Span>, phys: PhysAddr) {
        let Some(span) = span.filter(|_| self.checkable(RuleId::WalkAfterFree)) else { return };
        self.stale.page_out(now.event.space, span);
        self.stale.ways.page_out(now.event.space, span);
        let page = Until { phys: phys.0, event: now.seq() };
        self.way_is_old(now, span, (Way::Page(page), None), |_| true);
    }

    /// The entry that points to a page-table page leaves other rights possible. Where it takes more
    /// away than it did, CPUs that hold it as it was find the page's leaves with what they had.
    pub(crate) fn table_rights(
        &mut self,
        now: Now<'_>,
        span: Option<Span>,
        entry: PhysAddr,
        (before, after): (Perm, Perm),
    ) {
        let flushes = self.header.records.contains(Kind::TlbInvalidate);
        let Some(span) = span.filter(|_| flushes) else { return };
        let space = now.event.space;
        self.stale.ways.place(space, span, entry.0, after);
        let lost = before.difference(after);
        if !lost.is_empty() {
            // What a page of entries of 8 bytes serves: no format of others has rights up there.
            let page = self.page_bytes();
            let limited =
                Limited { part: page.saturating_mul(page / 8), granted: before, out: false };
            let loses = |leaf: &Mapping| leaf.perm.intersects(lost);
            let entry = Until { phys: entry.0, event: now.seq() };
            self.way_is_old(now, span, (Way::Entry(entry), Some(limited)), loses);
        }
        let mark = self.mark(now);
        let frames = self.found_by_entries(space, span, &mark);
        self.review_all(now, frames);
    }

    /// What CPUs make of the leaves of a range by entries above that they hold with more rights;
    /// the frames of those that are told of.
    fn found_by_entries(&mut self, space: SpaceId, span: Span, mark: &Mark) -> Frames {
        let mut frames = Frames::new();
        if !self.stale.ways.has_entries() {
            return frames;
        }
        for part in self.stale.ways.parts(span) {
            let leaves: Vec<(Span, Mapping)> = self.tables.within(space, part).collect();
            for (at, leaf) in leaves {
                for (perm, way) in self.stale.ways.found(space, at.first, leaf.perm | leaf.denied) {
                    let answer = Old {
                        phys: leaf.phys,
                        perm,
                        shift: leaf.shift,
                        attributes: leaf.attributes,
                        cpus: way.cpus,
                        unwalkable_at: way.unwalkable_at,
                        made_at: leaf.since.seq,
                        since: way.since,
                        early: None,
                        left: None,
                        way: Some(way.way),
                    };
                    if leaf.perm.contains(perm) || !self.stale.add_found(space, at, answer) {
                        continue;
                    }
                    self.walks_moved = mark.seq;
                    if way.unwalkable_at == u64::MAX {
                        self.issued.entry(way.since.cpu).or_default().changed(space, at);
                    }
                    frames.extend(Span::of(leaf.phys, at.len()));
                }
            }
        }
        frames
    }

    /// The tables no longer lead this way to `span`: CPUs that hold it find by it what such leaves
    /// as `finds` said up to now.
    fn way_is_old(
        &mut self,
        now: Now<'_>,
        span: Span,
        (way, limited): (Way, Option<Limited>),
        finds: impl Fn(&Mapping) -> bool,
    ) {
        let (space, mark) = (now.event.space, self.mark(now));
        self.walks_moved = mark.seq;
        self.stale.ways.add(HeldWay {
            space,
            span,
            way,
            cpus: self.cpus.holding(space) & self.cpus.online,
            unwalkable_at: self.visible_from(&mark),
            since: mark.about(span.first),
            limited,
        });
        if self.made_visible_by_hand() {
            self.issued.entry(mark.cpu).or_default();
        }
        let held: Vec<(Span, Mapping)> = self.tables.within(space, span).collect();
        for (at, leaf) in held.into_iter().filter(|(_, leaf)| finds(leaf)) {
            self.answer_is_old(space, at, &leaf, (leaf.shift, Some(way)), &mark);
        }
    }

    /// A page-table page went back to the allocator.
    pub(crate) fn table_freed(&mut self, now: Now<'_>, phys: PhysAddr) {
        self.occasions.looked(RuleId::WalkAfterFree);
        if let Some(table) = self.stale.ways.freed(phys.0) {
            let mark = self.mark(now);
            translations::walk_after_free(self, &table, &mark);
        }
    }

    pub(crate) fn tlb_invalidate(
        &mut self,
        now: Now<'_>,
        scope: TlbScope,
        reach: Reach,
        range: (VirtAddr, u64),
        (asid, leaf): (u16, Option<u8>),
    ) {
        self.occasions.looked(RuleId::WxStaleTranslation);
        let addressed = matches!(scope, TlbScope::Address | TlbScope::AddressLastLevel);
        let page = self.page_bytes();
        let span = Span::of(range.0.0, range.1.max(1)).map(|s| s.rounded(page));
        let space = match now.event.space {
            SpaceId::KERNEL => self.space_tagged(now.cpu(), asid),
            space => space,
        };
        let leaf = leaf.filter(|_| addressed);
        let target = Target { scope, span: if addressed { span } else { None }, space, leaf };
        let widened = self.arch() == Arch::Arm64 && self.header.features.contains(Features::ARM_FB);
        let reach = if widened { Reach::Broadcast } else { reach };
        let mark = self.mark(now);
        self.attempts.issued(target, reach, mark, self.calls.outermost(mark.cause));
        if self.stale.is_empty() {
            return;
        }
        let whole = now.event.op == OpId::NONE || !self.header.facts.contains(Facts::MAINTENANCE);
        let at = if whole { u64::MAX } else { now.seq() };
        let (shown, moved) = (self.told.shown(now.cpu()), self.walks_moved);
        let asked = Asked { target, reach, at, shown, moved };
        if whole || complete::at_once(self.arch(), self.header.features, reach) {
            let leaves = complete::leaves_at_once(self.arch(), self.header.features, scope);
            let uppers = complete::takes_every_upper(self.arch(), self.header.features);
            self.close(now, asked, (leaves, uppers));
        } else {
            self.issued.entry(now.cpu()).or_default().issue(asked);
        }
    }

    /// The space that `cpu` has tagged with `asid`; the kernel's if there is none.
    fn space_tagged(&self, cpu: CpuId, asid: u16) -> SpaceId {
        let tagged = self.cpus.tagged.iter().filter(|((c, _), tag)| *c == cpu && **tag == asid);
        tagged.map(|((_, space), _)| *space).min().unwrap_or(SpaceId::KERNEL)
    }

    /// A barrier, as far as translations are concerned.
    pub(crate) fn complete_translations(&mut self, now: Now<'_>, barrier: Barrier, domain: Domain) {
        let arch = self.arch();
        self.watch.barrier(arch, now.cpu(), barrier);
        self.walks_moved = now.seq();
        self.complete_issued(now, barrier, domain);
        if complete::shows_changes(arch, barrier, domain) {
            self.told.barrier(now.cpu());
        }
    }

    fn complete_issued(&mut self, now: Now<'_>, barrier: Barrier, domain: Domain) {
        let arch = self.arch();
        let Some(issued) = self.issued.get_mut(&now.cpu()) else { return };
        let completed = issued.barrier((arch, self.header.features), barrier, domain);
        self.stale.stores_done(now.cpu(), now.seq(), &completed.seen);
        if completed.all_seen {
            self.stale.ways.stores_done(now.cpu(), now.seq());
        }
        for (asked, leaves) in completed.done {
            self.close(now, asked, (leaves, false));
        }
    }

    /// Whatever the CPU's walks could find, all of `target` is gone from its TLB.
    fn close_all(&mut self, now: Now<'_>, target: &Target) {
        let (target, reach, shown, moved) = (*target, Reach::Local, Clock::NONE, 0);
        let asked = Asked { target, reach, at: u64::MAX, shown, moved };
        self.close(now, asked, (Leaves::Nothing, false));
    }

    fn close(&mut self, now: Now<'_>, asked: Asked, (leaves, every_upper): (Leaves, bool)) {
        let own = View::cpu_bit(now.cpu());
        let cpus = match asked.reach {
            Reach::Local => own,
            Reach::Broadcast => u64::MAX,
        };
        let mark = self.mark(now);
        let target = asked.target;
        // Of powerpc's process 0 that is a quadrant.
        let everything = target.span.is_none_or(|span| span.len() >= 1 << 62);
        let flush = Flush { asked, cpus, own, leaves, every_upper };
        let (calls, told) = (&self.calls, &self.told);
        let heard = |change: &Mark| {
            let by_call = change.cause != CallRef::NONE;
            if change.cpu == mark.cpu || told.knows(mark.cpu, change.cpu) > change.seq {
                Heard::Known
            } else if by_call && (everything || calls.is_open(change.cause)) {
                Heard::Amid(calls.outermost(change.cause))
            } else {
                Heard::Named
            }
        };
        let around = calls.outermost(mark.cause);
        let (frames, early) = self.stale.close(&flush, (&mark, around), heard);
        self.early.extend(early);
        if let Some(span) = target.span {
            self.groups_flushed(target.space, span);
        }
        self.review_all(now, frames);
    }

    fn review_all(&mut self, now: Now<'_>, mut frames: Frames) {
        if frames.is_empty() {
            return;
        }
        frames.sort_unstable();
        frames.dedup();
        let mark = self.mark(now);
        for span in frames {
            self.review_frames(span, &mark);
        }
    }

    pub(crate) fn space_loaded(&mut self, now: Now<'_>, asid: u16, no_flush: bool) {
        let (cpu, space) = (now.cpu(), now.event.space);
        let mark = self.mark(now);
        if self.arch() == Arch::X86_64 && !no_flush {
            // MOV to CR3 drops what is tagged with the new identifier, but for global entries.
            let mut dropped: Vec<SpaceId> = self
                .cpus
                .tagged
                .iter()
                .filter(|((c, _), tag)| *c == cpu && **tag == asid)
                .map(|((_, s), _)| *s)
                .collect();
            dropped.sort_unstable();
            for old in dropped {
                self.cpus.tagged.remove(&(cpu, old));
                let frames = self.stale.close_space(old, View::cpu_bit(cpu));
                self.review_all(now, frames);
            }
        }
        if space != SpaceId::KERNEL && self.cpus.tagged.len() < MAX_TAGS {
            self.cpus.tagged.insert((cpu, space), asid);
        }
        self.uses_space(cpu, space, &mark);
    }

    pub(crate) fn control(&mut self, now: Now<'_>, register: ControlRegister, value: u64) {
        if self.arch() == Arch::X86_64 && register == ControlRegister::Cr4 {
            let before = self.fetches.cr4.insert(now.cpu(), value).unwrap_or(value);
            if (before ^ value) & CR4_PGE != 0 {
                let target = Target::of(TlbScope::All, None, SpaceId::KERNEL);
                self.close_all(now, &target);
            }
        }
    }

    /// A fault: on x86 the CPU drops the translations of the page (SDM 3A 4.10.4.1).
    pub(crate) fn fault(&mut self, now: Now<'_>, virt: VirtAddr) {
        if self.arch() != Arch::X86_64 || self.stale.is_empty() {
            return;
        }
        let span = Span::of(virt.0, 1).map(|s| s.rounded(4096));
        let space = self.cpus.space_of(now.cpu());
        let target = Target::of(TlbScope::Address, span, space);
        self.close_all(now, &target);
    }

    pub(crate) fn cpu_state(&mut self, now: Now<'_>, state: CpuState) {
        let bit = View::cpu_bit(now.cpu());
        match state {
            CpuState::Online => {
                self.cpus.online |= bit;
                self.fetches.came_up(now.cpu(), now.seq());
            }
            CpuState::Offline if now.cpu().0 < 63 => {
                self.cpus.online &= !bit;
                let target = Target::of(TlbScope::All, None, SpaceId::KERNEL);
                self.close_all(now, &target);
            }
            _ => {}
        }
    }
}

/// Tags kept: CPUs times spaces.
const MAX_TAGS: usize = 1 << 16;
