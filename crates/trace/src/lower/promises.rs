//! What calls promise about code that they stored: that no CPU runs the old one when they return.
//!
//! x86: `text_poke_bp_batch` (`smp_text_poke_batch_finish` since 6.16) and the arming of a kprobe
//! end with a cross-call that synchronises every CPU (Linux 6.12, 7.0
//! arch/x86/kernel/alternative.c). What was stored between the beginning and the end of such a call
//! is what it promises. It ends at its return, or where no probe is there, when its task does
//! something else than storing and synchronising. arm64: calls of which the kernel tables have such
//! a promise (`bpf_arch_text_copy` since 6.10); the maintenance inside of them cannot be probed
//! and is modelled, at the cross-call that follows it.
//!
//! A promise counts only between two synchronisations that the log has: probes are armed and
//! disarmed one after the other, and behind the last one nobody knows whether its probe was still
//! there. So a patch behind which nothing synchronised is held back until something does. Nothing
//! is said of a call during which events were lost.
//!
//! That a hit is missing is no proof that nothing happened (a kprobe misses hits while another one
//! runs on its CPU), so promises are marked as modelled: what is found by them is possible.
//!
//! Not modelled: patches of powerpc and of arm64's single instructions, which no probe shows.

use super::Lower;
use crate::bounds::Bound;
use crate::calls::{Frame, Stack};
use crate::functions::{Function, Hit, Meaning, Runs};
use rustc_hash::{FxHashMap, FxHashSet};
use textbed_arch::effect::{Barrier, Domain, SyncCause};
use textbed_arch::{Arch, Perm, PhysAddr, VirtAddr};
use textbed_event::{CallRef, Flags, LeafChange, Promise, Provenance, View};
use textbed_kernel::promises_of;

/// A call that patches.
#[derive(Debug, Clone)]
struct Patch {
    function: &'static Function,
    stores: Vec<(u64, u64)>,
    /// Its task synchronised since its last store.
    synced: bool,
    /// It counts: probes of synchronisations were armed, and nothing was lost.
    counts: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    under_way: FxHashMap<Stack, Patch>,
    held: Vec<Patch>,
    /// A function that synchronises was seen to run, and to be sent.
    ran: bool,
    sent: bool,
    /// Tasks whose copy was maintained already.
    maintained: FxHashSet<Stack>,
    /// Pages of the kernel's text that were patched.
    text: FxHashSet<u64>,
}

impl Lower<'_> {
    /// A call begins that patches.
    pub(super) fn patch_begins(&mut self, f: &'static Function) {
        if self.kernel.arch != Arch::X86_64 || !self.seen.patches_end_synced {
            return;
        }
        if self.promises.under_way.len() >= Bound::Patches.most() {
            self.dropped.add(Bound::Patches, self.promises.under_way.len());
            self.promises.under_way.clear();
        }
        let counts = self.promises.ran && self.promises.sent;
        let patch = Patch { function: f, stores: Vec::new(), synced: false, counts };
        self.promises.under_way.insert(self.now.stack, patch);
    }

    /// Its task stores.
    pub(super) fn patch_stores(&mut self, addr: u64, len: u64) {
        self.is_text(addr);
        self.others_store(addr, len);
        let Some(patch) = self.promises.under_way.get_mut(&self.now.stack) else { return };
        patch.synced = false;
        if patch.stores.contains(&(addr, len)) {
            return;
        }
        if patch.stores.len() < Bound::PatchStores.most() {
            patch.stores.push((addr, len));
        } else {
            self.dropped.add(Bound::PatchStores, 1);
        }
    }

    /// What another task stores is not what a call promises. Where no return is seen, a call seems
    /// to last longer than it does.
    fn others_store(&mut self, addr: u64, len: u64) {
        let now = self.now.stack;
        let end = addr.saturating_add(len);
        let apart = |(at, size): &(u64, u64)| *at >= end || addr >= at.saturating_add(*size);
        let open = self.promises.under_way.iter_mut().filter(|(stack, _)| **stack != now);
        for patch in open.map(|(_, patch)| patch).chain(&mut self.promises.held) {
            patch.stores.retain(apart);
        }
    }

    /// A synchronisation of all CPUs is sent, or this CPU runs one. What was held back comes first:
    /// the probes were there, and nothing came between.
    pub(super) fn patch_syncs(&mut self, sent: bool) {
        if !self.promises.held.is_empty() {
            for patch in std::mem::take(&mut self.promises.held) {
                self.promise_of(&patch, true);
            }
        }
        match sent {
            true => self.promises.sent = true,
            false => self.promises.ran = true,
        }
        if let Some(patch) = self.promises.under_way.get_mut(&self.now.stack) {
            patch.synced = true;
        }
    }

    /// Events were lost: what is under way may have done anything.
    pub(super) fn patches_torn(&mut self) {
        self.promises.held.clear();
        for patch in self.promises.under_way.values_mut() {
            patch.counts = false;
        }
    }

    /// Ends the patch that this event shows to be over for its task.
    pub(super) fn settle_patch(&mut self, hit: &Hit) {
        if self.promises.under_way.is_empty() {
            return;
        }
        let inside = match hit {
            Hit::Entry(f) => matches!(
                f.meaning,
                Meaning::TextPoke
                    | Meaning::CrossCall { .. }
                    | Meaning::IpiSend
                    | Meaning::Remote(Runs::SyncCore)
                    | Meaning::PatchStep
                    | Meaning::NotNeeded
            ),
            Hit::Return(f) => f.meaning != Meaning::PatchBatch,
            Hit::Inside(_) | Hit::Unknown => true,
        };
        if inside {
            return;
        }
        let Some(patch) = self.promises.under_way.remove(&self.now.stack) else { return };
        if !patch.counts || patch.stores.is_empty() {
            return;
        }
        let returned = matches!(hit, Hit::Return(f) if std::ptr::eq(*f, patch.function));
        if patch.synced {
            self.promise_of(&patch, !returned);
        } else if self.promises.held.len() < Bound::HeldPatches.most() {
            self.promises.held.push(patch);
        } else {
            self.dropped.add(Bound::HeldPatches, 1);
        }
    }

    /// Emits the promise; inside of a call of its own where the log has no open one.
    fn promise_of(&mut self, patch: &Patch, alone: bool) {
        let call = match alone {
            true => self.rec.new_call(),
            false => self.calls.cause(self.now.stack),
        };
        let (cpu, known_by) = (self.now.cpu, Provenance::Inferred);
        if alone {
            let name = self.name(patch.function.name);
            let args = self.rec.bytes(&[]);
            let view = View::CallEntered { call, name, args };
            self.emit_of(cpu, CallRef::NONE, view, known_by, Flags::default());
        }
        for (addr, len) in &patch.stores {
            let what = Promise::NoStaleCode;
            let view = View::Promised { call, what, virt: VirtAddr(*addr), len: *len };
            self.emit_of(cpu, call, view, Provenance::Modelled, Flags::default());
        }
        self.counts.patches_judged += 1;
        if alone {
            let view = View::CallReturned { call, value: 0, failed: false };
            self.emit_of(cpu, call, view, known_by, Flags::default());
        }
    }

    /// arm64: the cross-call behind the maintenance of a copy is sent, or the copy is over.
    pub(super) fn copy_maintained(&mut self) {
        let copying = |f: &Frame| f.function.meaning == Meaning::TextCopy;
        if self.kernel.arch != Arch::Arm64 || self.promises.maintained.contains(&self.now.stack) {
            return;
        }
        let found = self.calls.find(self.now.stack, copying);
        let Some((addr, len)) = found.and_then(|frame| self.promised_by(frame)) else { return };
        if self.promises.maintained.len() >= Bound::Copies.most() {
            self.dropped.add(Bound::Copies, self.promises.maintained.len());
            self.promises.maintained.clear();
        }
        self.promises.maintained.insert(self.now.stack);
        let range = (addr, addr.saturating_add(len));
        self.maintain(range, Provenance::Modelled, (true, false));
        self.ordered();
        self.maintain(range, Provenance::Modelled, (false, true));
        self.ordered();
        let view = View::ContextSync { cause: SyncCause::Instruction };
        self.emit(view, Provenance::Modelled);
    }

    /// arm64: what was issued is complete.
    fn ordered(&mut self) {
        let view = View::Barrier { barrier: Barrier::DsbFull, domain: Domain::Inner };
        self.emit(view, Provenance::Modelled);
    }

    /// The range of which a call promises that no CPU runs old code in it.
    fn promised_by(&self, frame: &Frame) -> Option<(u64, u64)> {
        let (arch, version) = (self.kernel.arch, self.kernel.version);
        let mut promises = promises_of(frame.function.name, arch, version);
        promises.find(|row| row.promise == Promise::NoStaleCode)?;
        frame.arg("dst").zip(frame.arg("len"))
    }

    /// A copy returns. Its call is still open.
    pub(super) fn copy_returns(&mut self, f: &'static Function, failed: bool) {
        if self.kernel.arch != Arch::Arm64 {
            return;
        }
        self.copy_maintained();
        let same = |frame: &Frame| std::ptr::eq(frame.function, f);
        let Some(frame) = self.calls.find(self.now.stack, same) else { return };
        let (call, range) = (frame.call, self.promised_by(frame));
        self.promises.maintained.remove(&self.now.stack);
        // Where no cross-call was seen before, its probe may not have been there.
        let armed = self.seen.kicks && self.promises.sent;
        let Some((addr, len)) = range.filter(|(_, len)| armed && !failed && *len > 0) else {
            return;
        };
        let what = Promise::NoStaleCode;
        let view = View::Promised { call, what, virt: VirtAddr(addr), len };
        self.counts.patches_judged += 1;
        self.emit(view, Provenance::Modelled);
    }

    /// Code is patched at an address that no area and no table has: it is the kernel's own text.
    fn is_text(&mut self, addr: u64) {
        let shift = self.mappings.page_shift();
        let page = addr >> shift;
        let virt = page << shift;
        if self.promises.text.contains(&page)
            || self.mappings.holds(addr)
            || self.areas.holding(addr, 0).is_some()
        {
            return;
        }
        if self.promises.text.len() >= Bound::TextPages.most() {
            self.dropped.add(Bound::TextPages, 1);
            return;
        }
        self.promises.text.insert(page);
        let new = Perm::PRESENT | Perm::READ | Perm::EXEC;
        let change = LeafChange::usual(1, shift, Perm::empty(), new);
        let view = View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(0), change };
        self.emit_flagged(view, Provenance::Modelled, Flags::PHYS_UNKNOWN);
    }

    /// Nothing of what was known holds any more.
    pub(super) fn promises_restart(&mut self) {
        let shift = self.mappings.page_shift();
        let mut pages: Vec<u64> = self.promises.text.drain().collect();
        pages.sort_unstable();
        for page in pages {
            let old = Perm::PRESENT | Perm::READ | Perm::EXEC;
            let change = LeafChange::usual(1, shift, old, Perm::empty());
            let view = View::Leaf { virt: VirtAddr(page << shift), phys: PhysAddr(0), change };
            self.emit_flagged(view, Provenance::Modelled, Flags::PHYS_UNKNOWN);
        }
        self.promises = State::default();
    }
}
