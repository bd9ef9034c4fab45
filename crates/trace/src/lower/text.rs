//! Code that is stored: patchers' windows, direct stores, patch sites, cache maintenance.
//!
//! A patcher's function has no probe at its return. Its window is over when the same task in the
//! same context shows up again; on x86, where the patcher runs with interrupts off, when it shows
//! up with interrupts on. Contents of stores are not recorded: a store is a
//! [`View::StoreLate`] (some bytes, at this place, by now).
//!
//! Modelled: powerpc's window around `bpf_arch_text_copy`, whose inner functions cannot be probed:
//! an alias in a private address space since 6.4 (radix), a shared page before. Not modelled: the
//! alias's own address and leaf.

use super::Lower;
use crate::bounds::Bound;
use crate::calls::Stack;
use crate::ftrace::{Event as LogEvent, Fields};
use crate::functions::{Function, Hit, Meaning};
use rustc_hash::FxHashMap;
use textbed_arch::effect::{CacheScope, Reach};
use textbed_arch::{Arch, CpuId, PhysAddr, VirtAddr};
use textbed_event::{CallRef, Flags, Provenance, View, WindowPurpose};
use textbed_kernel::Version;

/// Since then powerpc (radix) patches in an address space of its own.
const PRIVATE_ALIAS: Version = Version::candidate(6, 4, 1);

/// Ranges longer than this are maintained as a whole and not line by line, in bytes.
const LINES_BYTES: u64 = 64 * 1024;

/// What the next sign of life of a task ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Open {
    /// A patcher's window.
    Window { window: u32, cpu: CpuId, in_call: bool },
    /// A stop_machine.
    StopMachine { cpu: CpuId },
    /// The wait of a cross-call's sender.
    Wait { ipi: u32, cpu: CpuId, creator: &'static str },
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    open: FxHashMap<Stack, Vec<Open>>,
    /// Memory of lists that are empty, for the next ones.
    spare: Vec<Vec<Open>>,
    windows: u32,
    /// Copies by a patcher that are under way.
    copies: FxHashMap<Stack, Copy>,
}

/// A copy by a patcher, which works page by page through an alias.
#[derive(Debug, Clone, Copy)]
struct Copy {
    /// Where the next page's part begins, and where the copy ends.
    next: u64,
    end: u64,
}

/// Empty lists whose memory is kept.
const SPARE: usize = 64;

/// How far the linear map of powerpc can reach: 2^46 bytes (MAX_PHYSMEM_BITS of 4 KiB pages).
const LINEAR_MAP_BYTES: u64 = 1 << 46;

impl Lower<'_> {
    pub(super) fn leave_open(&mut self, open: Open) {
        if self.text.open.len() >= Bound::OpenTasks.most() {
            let open = self.text.open.values().map(Vec::len).sum();
            self.dropped.add(Bound::OpenTasks, open);
            self.settle_all();
        }
        let State { open: all, spare, .. } = &mut self.text;
        let of_task = all.entry(self.now.stack).or_insert_with(|| spare.pop().unwrap_or_default());
        let first = (of_task.len() >= Bound::OpenDepth.most()).then(|| of_task.remove(0));
        of_task.push(open);
        if let Some(first) = first {
            self.dropped.add(Bound::OpenDepth, 1);
            self.close(first);
        }
    }

    /// Nothing is under way any more.
    pub(super) fn text_restart(&mut self) {
        self.text.copies.clear();
    }

    /// Whether this event still happens inside what is open.
    fn still_inside(&self, open: &Open, e: &LogEvent<'_>, hit: &Hit) -> bool {
        match (open, hit) {
            (Open::Window { in_call: true, .. }, _) => true,
            (Open::Window { .. }, _) => {
                self.kernel.arch == Arch::X86_64 && e.flags.is_some_and(|f| f.irqs_off)
            }
            (Open::StopMachine { .. }, _) => false,
            (Open::Wait { creator, .. }, Hit::Entry(f)) => match f.meaning {
                // The inner function of the one that began it.
                Meaning::CrossCall { .. } => f.name != *creator,
                Meaning::IpiSend
                | Meaning::Remote(_)
                | Meaning::LocalFlushAll
                | Meaning::LocalFlushOne => true,
                _ => false,
            },
            (Open::Wait { .. }, _) => false,
        }
    }

    /// Ends what this event shows to be over for its task.
    pub(super) fn settle(&mut self, e: &LogEvent<'_>, hit: &Hit) {
        let stack = self.now.stack;
        let Some(open) = self.text.open.get(&stack) else { return };
        if open.iter().all(|open| self.still_inside(open, e, hit)) {
            return;
        }
        let Some(mut open) = self.text.open.remove(&stack) else { return };
        let mut kept = Vec::new();
        while let Some(last) = open.pop() {
            if self.still_inside(&last, e, hit) {
                kept.push(last);
            } else {
                self.close(last);
            }
        }
        if !kept.is_empty() {
            kept.reverse();
            self.text.open.insert(stack, kept);
        }
        if self.text.spare.len() < SPARE {
            self.text.spare.push(open);
        }
    }

    /// Ends everything, at the end of the log.
    pub(super) fn settle_all(&mut self) {
        let mut all: Vec<(Stack, Vec<Open>)> = self.text.open.drain().collect();
        all.sort_by_key(|(stack, _)| *stack);
        for open in all.into_iter().flat_map(|(_, o)| o).rev() {
            self.close(open);
        }
    }

    fn close(&mut self, open: Open) {
        if let Open::Wait { ipi, .. } = open {
            self.waited_for(ipi);
        }
        let (cpu, view) = match open {
            Open::Window { window, cpu, .. } => (cpu, View::WindowClosed { window }),
            Open::StopMachine { cpu } => (cpu, View::StopMachine { begin: false }),
            Open::Wait { ipi, cpu, .. } => (cpu, View::IpiDone { ipi, waited: true }),
        };
        let cause = self.calls.cause(self.now.stack);
        let cause = if cpu == self.now.cpu { cause } else { CallRef::NONE };
        self.emit_of(cpu, cause, view, Provenance::Inferred, Flags::default());
    }

    /// The windows that a call keeps open end with it.
    pub(super) fn close_call_windows(&mut self) {
        let stack = self.now.stack;
        let Some(open) = self.text.open.remove(&stack) else { return };
        let (mine, kept): (Vec<Open>, Vec<Open>) =
            open.into_iter().partition(|o| matches!(o, Open::Window { in_call: true, .. }));
        for o in mine.into_iter().rev() {
            self.close(o);
        }
        if !kept.is_empty() {
            self.text.open.insert(stack, kept);
        }
    }

    pub(super) fn text_entry(&mut self, f: &'static Function, e: &Fields<'_>) -> Option<()> {
        match f.meaning {
            Meaning::TextPoke => {
                let (addr, len) = (e.number(b"addr")?, e.number(b"len")?);
                let purpose = match self.kernel.arch {
                    Arch::Arm64 => WindowPurpose::PatchShared,
                    _ => WindowPurpose::PatchPrivate,
                };
                self.step(addr, len);
                self.window(addr, len, purpose, Provenance::Recorded, false);
            }
            Meaning::TextCopy => {
                let (addr, len) = (e.number(b"dst")?, e.number(b"len")?);
                if self.kernel.arch.is_powerpc() {
                    if self.text.copies.len() >= Bound::OpenTasks.most() {
                        self.dropped.add(Bound::OpenTasks, self.text.copies.len());
                        self.text.copies.clear();
                    }
                    let copy = Copy { next: addr, end: addr.saturating_add(len) };
                    self.text.copies.insert(self.now.stack, copy);
                }
                if !self.seen.text_poke {
                    let private =
                        self.kernel.arch != Arch::Arm64 && self.kernel.version >= PRIVATE_ALIAS;
                    let purpose = match private || self.kernel.arch == Arch::X86_64 {
                        true => WindowPurpose::PatchPrivate,
                        false => WindowPurpose::PatchShared,
                    };
                    let in_call = self.probed.returns.contains(f.name);
                    self.window(addr, len, purpose, Provenance::Modelled, in_call);
                }
            }
            Meaning::StoreDirect => {
                let (addr, len) = (e.number(b"addr")?, e.number(b"len")?);
                self.store(addr, len, Provenance::Recorded);
            }
            Meaning::PatchTrap => {
                let (addr, len) = (e.number(b"addr")?, e.number(b"len")?);
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                let virt = VirtAddr(addr);
                self.emit(
                    View::PatchSite { virt, old_len: len, new_len: len, handler: true },
                    Provenance::Recorded,
                );
            }
            Meaning::IcacheRange => {
                let (start, end) = (e.number(b"start")?, e.number(b"end")?);
                self.icache_range(start, end);
            }
            Meaning::StopMachine => {
                self.emit(View::StopMachine { begin: true }, Provenance::Recorded);
                self.leave_open(Open::StopMachine { cpu: self.now.cpu });
            }
            _ => {}
        }
        Some(())
    }

    /// powerpc never changes the linear map when it changes the permissions of other mappings
    /// (Linux 5.13 to 7.0 arch/powerpc/mm/pageattr.c): all of it that is not itself executable is
    /// writable by the platform's way of doing things.
    pub(crate) fn platform_windows(&mut self) {
        let (true, Some(linear)) = (self.kernel.arch.is_powerpc(), self.direct_map()) else {
            return;
        };
        let end = linear.saturating_add(LINEAR_MAP_BYTES);
        let known: Vec<(u64, u64)> = self
            .mappings
            .runs_in(linear, end)
            .filter(|run| !run.perm.executable())
            .map(|run| (run.virt - linear, run.end - run.virt))
            .collect();
        let parts = if known.is_empty() { vec![(0, LINEAR_MAP_BYTES)] } else { known };
        for (phys, len) in parts {
            self.text.windows = self.text.windows.wrapping_add(1);
            let (window, purpose) = (self.text.windows, WindowPurpose::Platform);
            let view = View::WindowOpened { window, purpose, phys: PhysAddr(phys), len };
            self.emit(view, Provenance::Inferred);
        }
    }

    fn window(
        &mut self,
        addr: u64,
        len: u64,
        purpose: WindowPurpose,
        known_by: Provenance,
        in_call: bool,
    ) {
        self.text.windows = self.text.windows.wrapping_add(1);
        let window = self.text.windows;
        self.counts.windows += 1;
        let at = self.mappings.phys(addr, len);
        let (phys, more) = match at {
            Some(p) => (PhysAddr(p), Flags::default()),
            None => (PhysAddr(addr), Flags::PHYS_UNKNOWN),
        };
        self.emit_flagged(View::WindowOpened { window, purpose, phys, len }, known_by, more);
        self.store_at(addr, len, at, known_by);
        self.leave_open(Open::Window { window, cpu: self.now.cpu, in_call });
    }

    fn store(&mut self, addr: u64, len: u64, known_by: Provenance) {
        let at = self.mappings.phys(addr, len);
        self.store_at(addr, len, at, known_by);
    }

    fn store_at(&mut self, addr: u64, len: u64, at: Option<u64>, known_by: Provenance) {
        self.patch_stores(addr, len);
        let (phys, more) = known_or_zero(at);
        self.emit_flagged(View::StoreLate { virt: VirtAddr(addr), phys, len }, known_by, more);
    }

    /// Where powerpc's patcher maintains its own alias of a page, the code that it patches there:
    /// `__patch_instructions` (Linux 6.8 and later arch/powerpc/lib/code-patching.c) goes through
    /// the range page by page, each at the same offset in the alias. Caches go by physical address,
    /// so that the code's own address is as good.
    fn behind_alias(&mut self, start: u64, end: u64) -> Option<(u64, u64)> {
        let page = (1u64 << self.mappings.page_shift()) - 1;
        let copy = self.text.copies.get_mut(&self.now.stack)?;
        let len = end.checked_sub(start)?;
        let stop = (copy.next | page).saturating_add(1).min(copy.end);
        let to = copy.next.checked_add(len).filter(|to| *to <= stop)?;
        if start >> 63 == 1 || start & page != copy.next & page {
            return None;
        }
        Some((std::mem::replace(&mut copy.next, to), to))
    }

    /// The copy that a task was at is over.
    pub(super) fn copied(&mut self) {
        self.text.copies.remove(&self.now.stack);
    }

    /// Clean and invalidate.
    fn icache_range(&mut self, start: u64, end: u64) {
        let (start, end) = match self.behind_alias(start, end) {
            Some(place) => {
                self.counts.icache_by_alias += 1;
                place
            }
            None => (start, end),
        };
        self.maintain((start, end), Provenance::Inferred, (true, true));
    }

    /// Cleans data, invalidates instructions, or both, line by line.
    pub(super) fn maintain(
        &mut self,
        (start, end): (u64, u64),
        known_by: Provenance,
        (clean, invalidate): (bool, bool),
    ) {
        let line = u64::from(self.header.iline_bytes.max(4));
        let mut at = start & !(line - 1);
        let (scope, step) = match end.saturating_sub(start) > LINES_BYTES {
            true => (CacheScope::All, u64::MAX),
            false => (CacheScope::Line, line),
        };
        while at < end {
            let virt = VirtAddr(at);
            let (phys, more) = known_or_zero(self.mappings.phys(at, 1));
            if clean {
                self.emit_flagged(View::CacheClean { scope, virt, phys }, known_by, more);
            }
            if invalidate {
                let view = View::IcacheInvalidate { scope, reach: Reach::Broadcast, virt, phys };
                self.emit_flagged(view, known_by, more);
            }
            let Some(next) = at.checked_add(step) else { break };
            at = next;
        }
    }
}

/// A physical address and the flag that says whether it means anything.
fn known_or_zero(at: Option<u64>) -> (PhysAddr, Flags) {
    match at {
        Some(p) => (PhysAddr(p), Flags::default()),
        None => (PhysAddr(0), Flags::PHYS_UNKNOWN),
    }
}
