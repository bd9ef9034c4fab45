//! The checker as a sink: reads events one by one and tells the parts of the live state.

use std::ops::ControlFlow;

use textbed_arch::effect::TlbScope;
use textbed_event::{Batch, Event, Facts, Flags, Header, Kind, KindSet, Sink, View, WindowPurpose};

use crate::ahead::{Ahead, STEP};
use crate::calls::Refusal;
use crate::coverage::{Occasions, kinds_of};
use crate::fetch::edges::MEETINGS;
use crate::finding::{Confidence, Finding, Report};
use crate::live::{Live, Now};
use crate::options::Options;
use crate::rules::{RuleId, calls, translations};
use crate::shortcuts::{Shortcut, open};
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;

/// Reads one stream and reports what is wrong in it.
#[derive(Debug)]
pub struct Checker {
    options: Options,
    pub(crate) live: Option<Box<Live>>,
    events: u64,
    /// Events before a header: they cannot be read.
    headless: u64,
    /// Events whose words or numbers no source makes.
    invalid: u64,
    /// The least number that the next event may have.
    next: u64,
    ahead: Ahead,
}

impl Checker {
    /// A checker for one stream.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let ahead = Ahead::default();
        Self { options, live: None, events: 0, headless: 0, invalid: 0, next: 0, ahead }
    }

    /// The verdict over what was read.
    #[must_use]
    pub fn finish(self) -> Report {
        let Some(mut live) = self.live else {
            let mut notes = vec!["the stream has no header: nothing was checked".to_owned()];
            if self.headless > 0 {
                notes.push(format!("{} events came without a header", self.headless));
            }
            return Report {
                findings: Vec::new(),
                windows: Vec::new(),
                coverage: Occasions::default().finish(None),
                events: self.events,
                arch: None,
                kernel: None,
                left_off: 0,
                notes,
            };
        };
        live.finish_entries();
        live.finish_groups();
        live.finish_mismatches();
        let windows = live.finish_windows();
        let mut notes = notes(&live);
        if self.invalid > 0 {
            notes.push(format!("{} events were damaged and skipped", self.invalid));
        }
        let coverage = live.occasions.finish(Some(&live.header));
        let book = std::mem::take(&mut live.book);
        let (mut findings, left_off) = (book.findings(), book.left_off);
        doubt(&mut findings, &live);
        Report {
            findings,
            windows,
            coverage,
            events: self.events,
            arch: Some(live.header.arch),
            kernel: live.header.kernel.clone(),
            left_off,
            notes,
        }
    }
}

/// Events that bear on a finding were lost, and nobody knows where: it is possible.
fn doubt(findings: &mut [Finding], live: &Live) {
    let doubted = |rule: RuleId| live.doubted.0 & kinds_of(rule).0 != 0;
    for finding in findings.iter_mut().filter(|f| doubted(f.rule)) {
        if finding.confidence == Confidence::Certain {
            (finding.confidence, finding.level) = live.weigh(finding.rule, false);
            let note = "events that bear on this were lost, nobody knows where";
            finding.notes.push(note.to_owned());
        }
    }
}

/// What has to be known to read the report.
fn notes(live: &Live) -> Vec<String> {
    let mut notes = Vec::new();
    let facts = live.header.facts;
    if !facts.contains(Facts::SYNCHRONISATION) {
        notes.push(
            "synchronisation between CPUs is not recorded: it is taken to have happened, and the \
             order of the stream is taken as the order of events"
                .to_owned(),
        );
    }
    if !facts.contains(Facts::TOTAL_ORDER) {
        notes.push("the order of events of different CPUs is not known exactly".to_owned());
    }
    if live.without_phys > 0 {
        notes.push(format!(
            "{} mappings came without physical addresses: aliases of them are not seen",
            live.without_phys
        ));
    }
    if live.gaps != KindSet::EMPTY {
        notes.push("events were lost: what bears on them is at most possible".to_owned());
    }
    if live.header.cpus > 64 {
        notes.push("CPUs from number 63 on are not told apart in translation windows".to_owned());
    }
    notes.extend(live.fetches.notes());
    notes
}

impl Sink for Checker {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        if self.live.is_none() {
            self.live = Some(Box::new(Live::new(header.clone(), self.options.clone())));
        }
        ControlFlow::Continue(())
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        let count = batch.events.len() as u64;
        self.events = self.events.saturating_add(count);
        let Some(live) = self.live.as_mut() else {
            self.headless = self.headless.saturating_add(count);
            return ControlFlow::Continue(());
        };
        live.names.absorb(batch);
        let mut steady = live.steady();
        self.ahead.begin(live, &batch.events);
        for (step, events) in batch.events.chunks(STEP).enumerate() {
            self.ahead.turn(live, &batch.events, step);
            let mut at = 0;
            while at < events.len() {
                let (rest, places) = (&events[at..], &self.ahead.places(step)[at..]);
                at += steady.goes_on(live, (rest, batch), places, &mut self.next);
                let Some(event) = events.get(at) else { break };
                at += 1;
                let in_order = self.next <= event.seq && event.seq < END;
                if event.is_valid() && (in_order || is_told_late(event)) {
                    self.next = self.next.max(event.seq + 1);
                    live.event(Now { event, batch });
                    steady = live.steady();
                } else {
                    self.invalid = self.invalid.saturating_add(1);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Numbers of events end here: stamps of versions leave room for a CPU.
pub(crate) const END: u64 = 1 << 48;

/// Whether it may stand behind events that came later. Stamps of versions need numbers that ascend;
/// what is told late makes no version, and has the number of what it tells.
fn is_told_late(event: &Event) -> bool {
    event.kind == Kind::FetchLate && event.seq < END
}

/// Kinds of which a change of translations and its flush are made.
const ACT: KindSet = KindSet::of(&[
    Kind::Leaf,
    Kind::TableUnlinked,
    Kind::TableRights,
    Kind::TableFreed,
    Kind::TlbInvalidate,
    Kind::Barrier,
    Kind::ContextSync,
    Kind::SpaceLoaded,
    Kind::Control,
    Kind::IpiSent,
    Kind::IpiTaken,
    Kind::IpiDone,
]);

impl Live {
    /// One event.
    fn event(&mut self, now: Now<'_>) {
        if self.in_act() && !ACT.contains(now.event.kind) {
            self.act_ends(now.cpu());
        }
        if MEETINGS.contains(now.event.kind) {
            self.meeting(now);
        }
        match now.event.view() {
            View::Fetch { virt, phys, len } => {
                self.entry_used(now, virt, true);
                self.run_in_site(now, virt, phys, len);
                self.fetch(now, virt, phys, len);
            }
            View::Store { virt, phys, bytes, order } => {
                self.entry_used(now, virt, false);
                self.patched(now, virt, phys, u64::from(bytes.len), now.batch.bytes(bytes));
                self.store(now, virt, phys, bytes, order);
            }
            View::Barrier { barrier, domain } => {
                self.complete_translations(now, barrier, domain);
                self.order_barrier(now, barrier, domain);
            }
            View::Load { virt, phys, len, order } => {
                self.entry_used(now, virt, false);
                self.load(now, virt, phys, len, order, u64::MAX);
            }
            View::LoadOld { virt, phys, len, order, from } => {
                self.entry_used(now, virt, false);
                self.load(now, virt, phys, len, order, from);
            }
            View::Leaf { virt, phys, change } => self.leaf(now, virt, phys, change),

            View::CallEntered { call, name, .. } => self.calls.entered(call, name, now.event.cause),
            View::CallReturned { call, value, failed } => {
                self.occasions.looked(RuleId::IgnoredError);
                let mark = self.mark(now);
                self.calls.returned(call, value, failed.then_some(mark));
                if !failed {
                    self.refusals.returned_well(call);
                }
                self.judge_windows(call);
                self.judge_became_exec(call);
                self.judge_entries(call);
                self.judge_mismatches(call);
                self.judge_flushes(call);
                self.sites_close(call);
            }
            View::ResultUsed { call } => {
                self.calls.used(call);
                self.refusals.used(call, &self.calls);
            }
            View::ResultDropped { call } => {
                for draft in self.refusals.dropped(call) {
                    self.report(draft);
                }
                if let Some(failed) = self.calls.dropped(call)
                    && self.checkable(RuleId::IgnoredError)
                {
                    let mark = self.mark(now);
                    calls::ignored_error(self, &failed, &mark);
                }
            }
            View::Refused { call, what, reason, virt, len } => {
                let refusal = Refusal { what, reason, virt: virt.0, len };
                self.calls.refused(call, refusal);
                let mark = self.mark(now);
                calls::refused(self, now.event.space, call, refusal, &mark);
            }
            View::Promised { call, what, virt, len } => self.promised(now, call, what, virt.0, len),
            View::WindowOpened { window, purpose, phys, len } => {
                self.permit(now, window, purpose, phys.0, len);
            }
            View::WindowClosed { window } => {
                // Whom it permitted is in a window, if there is a pair of grants at all.
                if let Some(frames) = self.authorised.close(window)
                    && (self.in_window(frames) || !open(Shortcut::NoWindow))
                {
                    let mark = self.mark(now);
                    self.review_frames(frames, &mark);
                }
            }
            View::Region { virt, len, owner, name } => {
                self.symbols.add((virt.0, len), owner, name, now.event.flags);
            }
            View::AreaMade { virt, len, .. } => {
                self.area_made(virt.0, len);
                self.room_made(now, virt.0, len);
            }
            View::AreaRemoved { virt, len } => {
                self.watch.given_back(Span::of(virt.0, len), None);
                self.symbols.forget(virt.0, len);
                self.area_gone(now, virt.0, len);
                self.room_removed(virt.0, len);
            }

            View::SpaceLoaded { asid, no_flush, .. } => {
                self.space_loaded(now, asid, no_flush);
            }
            View::Control { register, value } => {
                self.write_protection(now, register, value);
                self.landing_control(now, register, value);
                self.control(now, register, value);
            }
            View::TlbInvalidate { scope, reach, virt, len, asid, leaf } => {
                let by_address = matches!(scope, TlbScope::Address | TlbScope::AddressLastLevel);
                if let Some(span) = Span::of(virt.0, len.max(1)).filter(|_| by_address) {
                    self.range_flushed(now, span.rounded(self.page_bytes()));
                }
                self.tlb_invalidate(now, scope, reach, (virt, len), (asid, leaf));
            }
            View::Fault { virt, access, reason } => {
                self.write_fault(now, virt, access, reason);
                self.run_fault(now, virt, access);
                self.faulted(now, virt);
                self.refused(now, virt, access, reason);
                self.fault(now, virt);
            }
            View::Cpu { state } => self.cpu_state(now, state),

            View::Fill { virt, phys, what } => {
                self.entry_used(now, virt, false);
                let bytes = now.batch.bytes(what);
                let len = bytes.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
                if let Some(len) = len {
                    let pattern = bytes.get(8..).unwrap_or(&[]);
                    self.patched(now, virt, phys, len, pattern);
                    self.fill(now, virt, phys, len);
                }
            }
            View::StoreLate { virt, phys, len } => self.fill(now, virt, phys, len),
            View::Dma { phys, len, write } => {
                if write && let Some(phys) = now.phys(phys) {
                    self.dma(now, phys, len);
                }
            }
            View::FrameAlloc { pfn, count, zeroed } => self.frame_alloc(now, pfn, count, zeroed),
            View::FrameFree { pfn, count } => {
                if now.knows_phys() {
                    let frames = Span::of(pfn.addr().0, count.saturating_mul(4096));
                    self.watch.given_back(None, frames);
                }
                self.frame_free(now, pfn, count);
            }

            View::CacheClean { scope, virt, phys } => {
                let line = u64::from(self.header.dline_bytes.clamp(4, 4096).next_power_of_two());
                self.line_maintained(now, scope, virt.0, now.phys(phys), line);
                self.cache_clean(now, scope, virt, phys);
            }
            View::IcacheInvalidate { scope, reach, virt, phys } => {
                let line = u64::from(self.header.iline_bytes.clamp(4, 4096).next_power_of_two());
                self.line_maintained(now, scope, virt.0, now.phys(phys), line);
                self.icache_invalidate(now, scope, reach, virt, phys);
            }
            View::ContextSync { cause } => {
                self.watch.context_sync(now.cpu());
                self.context_sync(now, cause);
            }
            View::LockAcquired { lock } => self.lock_held(now, lock, true),
            View::LockReleased { lock } => self.lock_held(now, lock, false),
            View::StopMachine { begin } => {
                self.watch.stopped = begin;
                self.everybody_meets(now);
            }
            View::GracePeriod { .. } => self.everybody_meets(now),
            View::FetchLate { virt, phys, len } => self.fetch_late(now, virt, phys, len),

            View::PatchSite { virt, old_len, new_len, handler } => {
                self.patch_site(now, virt, (old_len, new_len), handler);
            }
            View::ListedSite { virt, begins } => self.listed_site(now, virt.0, begins),
            View::TrapHandler { virt, len, registered } => {
                self.trap_handler(now, virt, len, registered);
            }
            View::Trap { virt, .. } => self.trapped(now, virt),
            View::TableUnlinked { virt, len, phys, .. } => {
                self.table_unlinked(now, Span::of(virt.0, len), phys);
            }
            View::TableRights { virt, len, entry, before, after } => {
                self.table_rights(now, Span::of(virt.0, len), entry, (before, after));
            }
            View::TableFreed { phys, .. } => self.table_freed(now, phys),
            View::Needs { call, what, lock } => self.needs(now, call, what, lock),
            View::Compared { virt, phys, bytes, equal } => {
                self.compared(now, virt.0, now.phys(phys), bytes, equal);
            }
            View::TaskStands { task, virt, stands } => self.task_stands(now, task, virt.0, stands),
            View::Branch { from, to, indirect } => {
                if indirect {
                    self.branched(now, from, to);
                }
            }

            View::Gap { cpus, kinds } => {
                self.gaps = self.gaps.union(kinds);
                if cpus == 0 {
                    self.doubted = self.doubted.union(kinds);
                }
            }
            // Meetings and no more.
            View::IpiSent { .. }
            | View::IpiTaken { .. }
            | View::IpiDone { .. }
            | View::Publish { .. }
            | View::Observe { .. } => {}
            // Not looked at: for people (Marker, Warned), for rules not built (ReadSide), and what
            // only tests may read (Observed).
            View::Marker { .. }
            | View::Warned { .. }
            | View::ReadSide { .. }
            | View::Observed { .. } => {}
        }
    }

    fn promised(
        &mut self,
        now: Now<'_>,
        call: textbed_event::CallRef,
        what: textbed_event::Promise,
        virt: u64,
        len: u64,
    ) {
        let Some(span) = Span::of(virt, len) else { return };
        let mark = self.mark(now);
        let space = now.event.space;
        if now.event.flags.has(Flags::BY_PHYS) {
            translations::promised_frames(self, call, what, span, &mark);
            return;
        }
        if what == textbed_event::Promise::NoStaleCode {
            self.judge_promise(call, space, span, &mark);
            return;
        }
        if self.checkable(RuleId::BrokenPromise) {
            calls::broken_promise(self, space, call, what, span, &mark);
        }
        if self.checkable(RuleId::StaleTranslation) {
            translations::stale_translation(self, space, call, what, span, u64::MAX, &mark);
        }
    }

    fn permit(&mut self, now: Now<'_>, id: u32, purpose: WindowPurpose, phys: u64, len: u64) {
        let first = if now.knows_phys() { phys } else { phys | UNKNOWN_PHYS };
        if let Some(frames) = Span::of(first, len) {
            self.authorised.open(id, purpose, frames, now.seq());
            if purpose == WindowPurpose::Platform {
                let mark = self.mark(now);
                self.review_frames(frames, &mark);
            }
        }
    }
}
