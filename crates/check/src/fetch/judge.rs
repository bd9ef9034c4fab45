//! What is asked at a fetch: is the memory still code, does the address lead elsewhere, does the
//! window hold a version that this CPU must not meet ([`super::verdict`])? The last is asked, too,
//! where a call promises that nobody runs old code.

use textbed_arch::{CpuId, PhysAddr, SpaceId, VirtAddr, sync::Action};
use textbed_event::{CallRef, View};

use super::looks::Verdict;
use super::verdict::Place;
use super::versions::History;
use super::{Fetches, Model};
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::options::Reading;
use crate::rules::translations::{self, After};
use crate::rules::{RuleId, fetch};
use crate::shortcuts::{Shortcut, open};
use crate::span::Span;
use crate::translation::Old;

/// Of so many fetches of blocks that are known one asks whether the block became plain.
const TRY_AGAIN: u64 = 8;

impl Live {
    /// Code was fetched and executed; of a block of which nothing is known but that it ran
    /// [`crate::steady`] speaks.
    pub(crate) fn fetch(&mut self, now: Now<'_>, virt: VirtAddr, phys: PhysAddr, len: u32) {
        let Some(phys) = now.phys(phys) else { return };
        let (p, seq, at) = (now.cpu(), now.seq(), (virt.0, phys));
        let counts = self.fetches.counts(p);
        let Fetches { looks, model, .. } = &mut self.fetches;
        let moment = || model.moment(p);
        if counts && looks.plain(p, at, len, moment, seq) {
            return;
        }
        let Some(judged) = looks.known(p, phys, len, moment, seq) else {
            return self.judge_fetch(now, virt, phys, len);
        };
        // With fewer bytes now than then what it ran is not forgotten.
        if judged == len
            && seq.is_multiple_of(TRY_AGAIN)
            && open(Shortcut::Plain)
            && let Some(span) = Span::of(phys, len.into())
            && self.is_plain(virt.0, span)
        {
            // What made it otherwise is over.
            let moment = self.fetches.moment(p);
            self.fetches.looks.judged(p, at, len, moment, Verdict::Plain, seq);
        }
    }

    /// It is not known what is to be said of a block that was fetched.
    fn judge_fetch(&mut self, now: Now<'_>, virt: VirtAddr, phys: u64, len: u32) {
        let (p, seq) = (now.cpu(), now.seq());
        let moment = self.fetches.moment(p);
        self.fetches.versions.end_run();
        let Some(span) = Span::of(phys, u64::from(len)) else { return };
        if open(Shortcut::Plain) && self.is_plain(virt.0, span) {
            self.fetches.looks.judged(p, (virt.0, phys), len, moment, Verdict::Plain, seq);
            return;
        }
        let mut clean = true;
        if let Some(freed) = self.frames.freed(phys)
            && self.checkable(RuleId::ExecAfterFree)
        {
            let mark = self.mark(now);
            translations::executed_after_free(self, virt.0, &freed, After::FrameFree, &mark);
            clean = false;
        } else if let Some(gone) = self.given_back(self.cpus.space_of(p), virt.0)
            && self.checkable(RuleId::ExecAfterFree)
        {
            let mark = self.mark(now);
            translations::executed_after_free(self, virt.0, &gone, After::Free, &mark);
            clean = false;
        }
        clean &= self.judge_translation(now, virt.0, phys);
        if !self.fetches.is_off() {
            clean &= self.judge(now, virt.0, span);
        }
        let verdict = if clean { Verdict::Clean } else { Verdict::Unclean };
        self.fetches.looks.judged(p, (virt.0, phys), len, moment, verdict, seq);
    }

    /// Whether nothing that is asked at a fetch has anything to look at, whichever CPU asks: no
    /// owner that gave the memory back, no old answer for the address, no store, no other code that
    /// the address led to.
    fn is_plain(&self, virt: u64, span: Span) -> bool {
        self.frames.freed(span.first).is_none()
            && !self.patching.gone.meets(Span { first: virt, last: virt })
            && !self.stale.anywhere(virt)
            && !self.fetches.versions.any_in(span)
            && !self.fetches.may_run_what_was_there(virt)
    }

    /// The windows joined: what a fetch may return are the versions of every frame to which the
    /// address may still lead this CPU. An old answer that leads elsewhere is a finding, whatever
    /// is in that frame.
    fn judge_translation(&mut self, now: Now<'_>, virt: u64, phys: u64) -> bool {
        let p = now.cpu();
        let space = self.cpus.space_of(p);
        let at = Span { first: virt, last: virt };
        let elsewhere = |old: &Old| {
            old.cpus & View::cpu_bit(p) != 0
                && old.perm.executable()
                && old.phys != phys
                && old.phys < crate::tables::UNKNOWN_PHYS
                // Of a frame that went back that was said then.
                && self.frames.freed(old.phys).is_none()
        };
        let spaces = [Some(space), (space != SpaceId::KERNEL).then_some(SpaceId::KERNEL)];
        let found = spaces.into_iter().flatten().find_map(|space| {
            let (_, olds) = self.stale.within(space, at).next()?;
            olds.0.iter().rev().find(|old| elsewhere(old)).map(|old| (space, *old))
        });
        let Some((space, old)) = found else { return true };
        self.occasions.looked(RuleId::StaleTranslation);
        let mark = self.mark(now);
        translations::stale_fetch(self, space, virt, &old, &mark);
        false
    }

    /// A call promised that no CPU runs old code in `span`: is every window closed?
    pub(crate) fn judge_promise(&mut self, call: CallRef, space: SpaceId, span: Span, mark: &Mark) {
        if self.fetches.is_off() {
            return;
        }
        self.occasions.looked(RuleId::BrokenPromise);
        let mut parts: Vec<(u64, Span, History)> = Vec::new();
        for (at, mapping) in self.tables.within(space, span) {
            let Some(frames) = Span::of(mapping.phys, at.len()) else { continue };
            let within = self.fetches.versions.within(frames);
            parts.extend(within.map(|(part, h)| (at.first + (part.first - frames.first), part, h)));
        }
        let cpus = (0..self.header.cpus.min(64)).map(CpuId);
        let done: Vec<Span> = parts.iter().map(|(_, part, _)| *part).collect();
        let up = cpus.filter(|p| self.cpus.online & View::cpu_bit(*p) != 0);
        let broken = up.flat_map(|p| parts.iter().map(move |part| (p, part))).find_map(
            |(p, (virt, part, history))| {
                let broken = self.verdict(Place::of(p, space, *virt, *part, history))?;
                Some((p, *virt, broken))
            },
        );
        if let Some((p, virt, broken)) = broken {
            let draft = fetch::broken_promise(self, &mark.about(virt), call, p, &broken);
            self.report(draft);
        }
        if !self.fetches.fetches_are_seen {
            done.into_iter().for_each(|part| self.fetches.versions.forget(part));
        }
    }

    /// A fetch that happened before the stores that follow: nothing to judge, but it was executed.
    pub(crate) fn fetch_late(&mut self, now: Now<'_>, virt: VirtAddr, phys: PhysAddr, len: u32) {
        self.ran_at(now, virt);
        if let Some(phys) = now.phys(phys)
            && !self.fetches.looks.ran_late(now.cpu(), phys, len, now.seq())
        {
            let moment = self.fetches.moment(now.cpu());
            let at = (virt.0, phys);
            self.fetches.looks.judged(now.cpu(), at, len, moment, Verdict::Clean, now.seq());
        }
    }

    /// Judges a block; false if something was found, or may be found once this CPU knows more.
    fn judge(&mut self, now: Now<'_>, virt: u64, span: Span) -> bool {
        let p = now.cpu();
        let space = self.cpus.space_of(p);
        let parts: Vec<(Span, History)> = self.fetches.versions.within(span).collect();
        let mut found = None;
        let mut all_settled = true;
        if !parts.is_empty() {
            for rule in [
                RuleId::MissingIcacheMaintenance,
                RuleId::MissingContextSync,
                RuleId::MissingPublicationOrder,
            ] {
                self.occasions.looked(rule);
            }
        }
        for store in parts.chunk_by(of_one_store) {
            let spans = store.iter().map(|(part, _)| *part);
            let whole = spans.reduce(|a, b| Span { first: a.first, last: b.last });
            for (part, history) in store {
                let at = virt.wrapping_add(part.first - span.first);
                let alone = Place::of(p, space, at, *part, history);
                let place = Place { stored: whole.unwrap_or(*part), ..alone };
                let live = Place { live: self.fetches.cmodx, ..place };
                if found.is_none() {
                    found = self.verdict(live).map(|broken| (at, broken));
                }
                // What only the list of live replacements allows may have been the old one.
                let settled = found.is_none() && (!live.live || self.verdict(place).is_none());
                all_settled &= settled;
                self.note_fetch(p, *part, history, settled, now.seq());
            }
        }
        if let Some((at, broken)) = found {
            let mark = self.mark(now).about(at);
            if self.checkable(broken.rule) {
                let mut draft = fetch::broken(self, &mark, &broken);
                draft.fetched = span.len() - at.wrapping_sub(virt).min(span.len() - 1);
                self.report(draft);
            }
            let frame = span.first.wrapping_add(at.wrapping_sub(virt));
            let unit = Span { first: frame, last: span.last.max(frame) };
            self.torn_by_window(&mark, unit, &broken);
            if matches!(broken.first, Action::Clean | Action::Invalidate) {
                self.maintained_beside(&mark, at, unit, &broken);
            }
        } else if self.options.reading != Reading::Fresh {
            self.judge_remap(now, space, virt, span.first);
        }
        all_settled
    }

    /// Tells the model of the fetch: it returned the newest version, if nothing else was possible.
    fn note_fetch(&mut self, p: CpuId, span: Span, history: &History, settled: bool, seq: u64) {
        let Some(newest) = history.newest().filter(|_| settled) else { return };
        match &mut self.fetches.model {
            Model::Off => {}
            Model::X86 { machine, .. } => machine.fetched(p, newest),
            Model::Weak { observed, predicted, .. } => {
                observed.fetched(p, newest.stamp);
                if let Some(weak) = predicted {
                    weak.fetch(p, span, Some(newest), seq);
                }
            }
        }
    }

    /// The address led elsewhere since this CPU's last context synchronisation: a change of the
    /// mapping is a modification too.
    fn judge_remap(&mut self, now: Now<'_>, space: SpaceId, virt: u64, phys: u64) {
        let p = now.cpu();
        // What was fetched may itself be what is mapped no more.
        let leads = self.tables.lookup(space, virt).map_or(phys, |(_, m)| m.phys);
        let until = self.fetches.elsewhere_until(space, virt, leads);
        if until > self.fetches.moment(p) && self.checkable(RuleId::MissingContextSync) {
            let mark = self.mark(now);
            let draft = fetch::remapped(self, &mark, space, until);
            self.report(draft);
        }
    }
}

/// Whether two parts, the second behind the first, are of one store: what was there before divides
/// them only as long as it is kept.
fn of_one_store((a, old): &(Span, History), (b, new): &(Span, History)) -> bool {
    let stamp = |history: &History| history.newest().map(|version| version.stamp);
    stamp(old) == stamp(new) && a.last.checked_add(1) == Some(b.first)
}
