//! Why nothing is found without a piece of synchronisation, as far as the events of the whole run
//! tell what it could have been for. Where they don't, [`super::search`] looks for what does the
//! same.

use std::collections::BTreeMap;

use textbed_arch::CpuId;
use textbed_arch::effect::Effect;
use textbed_arch::insn::{self, Row};
use textbed_arch::sync::{self, Action};
use textbed_event::{CallRef, Event, NameTable, View};
use textbed_scenario::{SyncKind, SyncSite};

use super::search::Story;

/// The events of a run, with what is needed to find one's way.
pub(crate) struct Events {
    all: Vec<Event>,
    names: NameTable,
    parents: BTreeMap<CallRef, CallRef>,
}

impl Events {
    /// Those of a story.
    pub(crate) fn of(story: &Story<'_>) -> Self {
        let mut events =
            Self { all: Vec::new(), names: NameTable::default(), parents: BTreeMap::new() };
        for batch in &story.events.batches {
            events.names.absorb(batch);
            for event in &batch.events {
                if let View::CallEntered { call, .. } = event.view() {
                    events.parents.insert(call, event.cause);
                }
                events.all.push(*event);
            }
        }
        events
    }

    fn outermost(&self, mut call: CallRef) -> CallRef {
        while let Some(parent) = self.parents.get(&call).filter(|p| **p != CallRef::NONE) {
            call = *parent;
        }
        call
    }

    /// The events from number `seq` on.
    fn after(&self, seq: u64) -> impl Iterator<Item = &Event> {
        self.all.iter().skip_while(move |e| e.seq < seq)
    }

    fn executes_after(&self, seq: u64, cpu: CpuId) -> bool {
        self.after(seq).any(|e| e.cpu == cpu && matches!(e.view(), View::Fetch { .. }))
    }

    /// Whether all that the call around `seq` changed in the tables until then only grants.
    fn only_grants(&self, seq: u64, cpu: CpuId) -> bool {
        let Some(call) = self.after(seq).next().map(|e| self.outermost(e.cause)) else {
            return false;
        };
        let mut changed = false;
        let mine = self.all.iter().take_while(|e| e.seq < seq).filter(|e| e.cpu == cpu);
        for event in mine.filter(|e| call != CallRef::NONE && self.outermost(e.cause) == call) {
            if let View::Leaf { change, .. } = event.view() {
                changed = true;
                let grants = change.new.contains(change.old);
                if !grants {
                    return false;
                }
            }
        }
        changed
    }

    /// Whether the event at `seq` is an invalidation of translations, or next to one of its CPU.
    fn invalidates_at(&self, seq: u64, cpu: CpuId) -> bool {
        let mine: Vec<&Event> = self.all.iter().filter(|e| e.cpu == cpu).collect();
        let at = mine.partition_point(|e| e.seq < seq);
        let near = at.saturating_sub(1)..(at + 2).min(mine.len());
        let near = mine.get(near).unwrap_or(&[]);
        near.iter().any(|e| matches!(e.view(), View::TlbInvalidate { .. }))
    }

    /// The CPUs that the interrupt sent at `seq` goes to.
    fn receivers(&self, seq: u64) -> u64 {
        self.after(seq).next().map_or(0, |e| match e.view() {
            View::IpiSent { targets, .. } => targets,
            _ => 0,
        })
    }

    /// Whether the next event but the one at `seq` sends an interrupt, from the same CPU.
    fn interrupt_follows(&self, seq: u64, cpu: CpuId) -> bool {
        let next = self.after(seq).filter(|e| e.cpu == cpu).nth(1);
        next.is_some_and(|e| matches!(e.view(), View::IpiSent { .. }))
    }
}

/// What the run says, if it says anything.
pub(crate) fn reason(
    story: &Story<'_>,
    events: &Events,
    site: &SyncSite,
    seq: u64,
) -> Option<String> {
    let cpu = site.cpu;
    let row = match &site.kind {
        SyncKind::Op(name) => insn::by_name(story.how.arch, name),
        _ => None,
    };
    match &site.kind {
        SyncKind::Lock(lock) => (!taken_by_others(events, lock, cpu))
            .then(|| "no other CPU takes it in this story".to_owned()),
        SyncKind::Release(slot) => (!awaited(events, slot)).then(|| "nobody awaits it".to_owned()),
        SyncKind::Ipi(_) => idle_receivers(events, seq),
        _ => row.and_then(|row| of_instruction(story, events, row, (cpu, seq))),
    }
}

fn taken_by_others(events: &Events, lock: &str, cpu: CpuId) -> bool {
    events.all.iter().filter(|e| e.cpu != cpu).any(|e| match e.view() {
        View::LockAcquired { lock: other } => events.names.get(other) == lock,
        _ => false,
    })
}

fn awaited(events: &Events, slot: &str) -> bool {
    events.all.iter().any(|e| match e.view() {
        View::Observe { slot: other, .. } => events.names.get(other) == slot,
        _ => false,
    })
}

fn idle_receivers(events: &Events, seq: u64) -> Option<String> {
    let receivers = events.receivers(seq);
    let busy = (0..63).any(|n| receivers >> n & 1 == 1 && events.executes_after(seq, CpuId(n)));
    (!busy).then(|| "none of its receivers executes code after it".to_owned())
}

fn of_instruction(
    story: &Story<'_>,
    events: &Events,
    row: &Row,
    (cpu, seq): (CpuId, u64),
) -> Option<String> {
    let needed = |action: Action| {
        let features = story.events.header.as_ref().map(|h| h.features)?;
        let chain = sync::chain(story.how.arch, features);
        (!chain.iter().any(|r| r.action == action))
            .then(|| format!("this machine asks for no such step ({})", action.text()))
    };
    match row.effect {
        Effect::CacheClean(_) => needed(Action::Clean),
        Effect::IcacheInvalidate(..) => needed(Action::Invalidate),
        Effect::ContextSync(_) | Effect::ExceptionReturn if !events.executes_after(seq, cpu) => {
            Some(format!("{cpu} executes no code after it"))
        }
        _ => None,
    }
}

/// What the run suggests where nothing was found that does the same.
pub(crate) fn guess(story: &Story<'_>, events: &Events, site: &SyncSite, seq: u64) -> String {
    let row = match &site.kind {
        SyncKind::Op(name) => insn::by_name(story.how.arch, name),
        _ => None,
    };
    let text = match row.map(|row| row.effect) {
        Some(Effect::TlbInvalidate(..) | Effect::Barrier(..))
            if events.invalidates_at(seq, site.cpu) && events.only_grants(seq, site.cpu) =>
        {
            "the call only grants more; who has less walks again"
        }
        Some(Effect::Barrier(..)) if events.interrupt_follows(seq, site.cpu) => {
            "the interrupt that follows orders the same"
        }
        _ => "nothing in this story depends on it",
    };
    text.to_owned()
}
