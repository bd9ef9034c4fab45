//! How events leave: names are interned within a bound, changes of mappings become leaf events, and
//! batches go to the sink. What an event means is not decided here.

use super::Lower;
use crate::bounds::Bound;
use crate::mappings::Changed;
use std::collections::BTreeMap;
use textbed_arch::{CpuId, PhysAddr, VirtAddr};
use textbed_event::{CallRef, Event, Flags, Kind, LeafChange, NameId, Provenance, View};

/// A batch goes out when it has this many events.
const BATCH_EVENTS: usize = 4096;

impl Lower<'_> {
    /// As much of a name as is kept.
    pub(super) fn short<'t>(&mut self, text: &'t str) -> &'t str {
        let most = Bound::NameBytes.most();
        if text.len() <= most {
            return text;
        }
        self.dropped.add(Bound::NameBytes, 1);
        text.get(..text.floor_char_boundary(most)).unwrap_or_default()
    }

    /// A name, interned; beyond the number that is told apart all are one.
    pub(super) fn name(&mut self, text: &str) -> NameId {
        if let Some(id) = self.names.get(text) {
            return *id;
        }
        if self.names.len() >= Bound::Names.most() {
            self.dropped.add(Bound::Names, 1);
            return self.rec.name("(more names)");
        }
        let id = self.rec.name(text);
        self.names.insert(text.to_string(), id);
        id
    }

    /// Emits an event of the current moment.
    pub(super) fn emit(&mut self, view: View, known_by: Provenance) {
        self.emit_flagged(view, known_by, Flags::default());
    }

    pub(super) fn emit_flagged(&mut self, view: View, known_by: Provenance, more: Flags) {
        let cause = self.calls.cause(self.now.stack);
        self.emit_of(self.now.cpu, cause, view, known_by, more);
    }

    pub(super) fn emit_of(
        &mut self,
        cpu: CpuId,
        cause: CallRef,
        view: View,
        known_by: Provenance,
        more: Flags,
    ) {
        let flags = self.now.flags.known_by(known_by).with(more);
        let event = Event { at_ns: self.now.at_ns, cause, flags, ..Event::new(cpu, view) };
        if let Some(n) = self.events.get_mut(event.kind as usize) {
            *n += 1;
        }
        if let Some(n) = self.counts.by_provenance.get_mut(known_by as usize) {
            *n += 1;
        }
        self.rec.set_origin(self.origin);
        self.rec.push(event);
    }

    /// Emits what [`Mappings`] changed.
    pub(super) fn emit_changed(&mut self, known_by: Provenance) {
        let changed = std::mem::take(&mut self.changed);
        for c in &changed {
            self.emit_leaf(c, known_by);
        }
        self.changed = changed;
        self.changed.clear();
    }

    pub(super) fn emit_leaf(&mut self, c: &Changed, known_by: Provenance) {
        let page = self.mappings.page_shift();
        if c.new.executable() && !c.old.executable() {
            self.others_may_have();
        }
        // A part of a large leaf can only be said in base pages.
        let whole = c.len.trailing_zeros() >= u32::from(c.shift) && c.shift < 48;
        let shift = if whole { c.shift } else { page };
        let old_shift = if whole { c.old_shift } else { page };
        let leaves = c.len >> shift;
        let known_by = if c.assumed { Provenance::Modelled } else { known_by };
        self.counts.leaves_assumed += u64::from(c.assumed);
        let (phys, more) = match c.phys {
            Some(p) => (p, Flags::default()),
            None => (0, Flags::PHYS_UNKNOWN),
        };
        match c.phys {
            Some(_) => self.counts.leaves_with_phys += 1,
            None => self.counts.leaves_without_phys += 1,
        }
        let mut done = 0u64;
        while done < leaves {
            let count = u32::try_from(leaves - done).unwrap_or(u32::MAX);
            let change = LeafChange { old_shift, ..LeafChange::usual(count, shift, c.old, c.new) };
            let virt = VirtAddr(c.virt).offset(done << shift);
            let phys =
                PhysAddr(if c.phys.is_some() { phys.wrapping_add(done << shift) } else { 0 });
            self.emit_flagged(View::Leaf { virt, phys, change }, known_by, more);
            done += u64::from(count);
        }
    }

    /// Events by kind, those that occurred.
    pub(crate) fn event_counts(&self) -> BTreeMap<Kind, u64> {
        Kind::ALL.into_iter().zip(self.events).filter(|(_, n)| *n > 0).collect()
    }

    pub(super) fn send(&mut self) {
        let batch = self.rec.take();
        if !batch.is_empty() && !self.stopped && self.sink.batch(&batch).is_break() {
            self.stopped = true;
        }
        self.rec.recycle(batch);
    }

    pub(super) fn send_if_full(&mut self) {
        if self.rec.pending() >= BATCH_EVENTS {
            self.send();
        }
    }
}
