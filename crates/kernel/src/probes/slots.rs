//! Pages of instruction slots.
//!
//! Modelled: slots clean, used and dirty; the first clean one is taken, garbage is collected after
//! a grace period when there is too much of it or nothing else, a page is freed when it is empty
//! and not the last. From: Linux 6.1 and 6.12 kernel/kprobes.c __get_insn_slot(),
//! __free_insn_slot(), collect_garbage_slots(). Not modelled: perf's and kallsyms' records.

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::area::vm_flags;
use crate::call::Args;
use crate::call_table::EXECMEM_TYPES;
use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;

/// Which cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cache {
    /// Copies of single instructions.
    Insn,
    /// Detours of optimised probes.
    Optinsn,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Clean,
    Dirty,
    Used,
}

#[derive(Clone, Debug)]
struct Page {
    at: u64,
    slots: Vec<State>,
}

/// The pages of one cache.
#[derive(Clone, Default, Debug)]
pub(crate) struct Slots {
    pages: Vec<Page>,
    garbage: usize,
}

/// Bytes of an x86 detour's part that saves registers and calls back; Linux's template is about
/// that long. Here it is no-operations.
pub(crate) const TEMPLATE_BYTES: u64 = 96;
/// Words of powerpc's.
pub(crate) const TEMPLATE_WORDS: u64 = 24;

impl Cache {
    /// Bytes of a slot (`insn_size`).
    pub(crate) fn slot_bytes(self, arch: Arch) -> u64 {
        match (self, arch) {
            // MAX_INSN_SIZE.
            (Cache::Insn, Arch::X86_64) => 15,
            (Cache::Insn, _) => 8,
            // Template, replaced instructions (MAX_OPTIMIZED_LENGTH), jump back.
            (Cache::Optinsn, Arch::X86_64) => TEMPLATE_BYTES + 19 + 5,
            (Cache::Optinsn, _) => (TEMPLATE_WORDS + 1) * 4,
        }
    }

    fn mutex(self) -> &'static str {
        match self {
            Cache::Insn => "kprobe_insn_slots.mutex",
            Cache::Optinsn => "kprobe_optinsn_slots.mutex",
        }
    }
}

impl Kernel {
    fn slots(&mut self, cache: Cache) -> &mut Slots {
        match cache {
            Cache::Insn => &mut self.users.probes.insn_slots,
            Cache::Optinsn => &mut self.users.probes.optinsn_slots,
        }
    }

    /// `get_insn_slot`, `get_optinsn_slot`: an address, or 0.
    pub(crate) fn get_slot(&mut self, cpu: CpuId, cache: Cache) -> Result<u64, Stop> {
        self.lock(cpu, cache.mutex())?;
        let size = cache.slot_bytes(self.arch);
        let mut got = self.slots(cache).take(size);
        if got.is_none() && self.slots(cache).garbage > 0 {
            self.collect_garbage(cpu, cache)?;
            got = self.slots(cache).take(size);
        }
        if got.is_none() && !self.allocation_fails() {
            let at = match cache {
                Cache::Optinsn if self.arch.is_powerpc() => self.power_optinsn_page(),
                _ => self.alloc_insn_page(cpu)?,
            };
            if at != 0 {
                let count = usize::try_from(self.pages.bytes() / size).unwrap_or(0);
                let slots = vec![State::Clean; count];
                self.slots(cache).pages.push(Page { at, slots });
                got = self.slots(cache).take(size);
            }
        }
        self.unlock(cpu, cache.mutex())?;
        Ok(got.unwrap_or(0))
    }

    /// `free_insn_slot(slot, dirty)`.
    pub(crate) fn free_slot(
        &mut self,
        cpu: CpuId,
        cache: Cache,
        slot: u64,
        dirty: bool,
    ) -> Result<(), Stop> {
        self.lock(cpu, cache.mutex())?;
        let size = cache.slot_bytes(self.arch);
        let slots = self.slots(cache);
        let per_page = slots.pages.first().map_or(0, |p| p.slots.len());
        let to = if dirty { State::Dirty } else { State::Clean };
        slots.set(slot, size, to);
        if dirty {
            slots.garbage += 1;
            if slots.garbage > per_page {
                self.collect_garbage(cpu, cache)?;
            }
        } else {
            self.free_empty_pages(cpu, cache)?;
        }
        self.unlock(cpu, cache.mutex())
    }

    /// Dirty slots become clean once nobody can be in them.
    fn collect_garbage(&mut self, cpu: CpuId, cache: Cache) -> Result<(), Stop> {
        self.inner(cpu, "synchronize_rcu", &Args::default())?;
        let slots = self.slots(cache);
        for state in slots.pages.iter_mut().flat_map(|p| &mut p.slots) {
            if *state == State::Dirty {
                *state = State::Clean;
            }
        }
        slots.garbage = 0;
        self.free_empty_pages(cpu, cache)
    }

    /// Empty pages go, but for the last.
    fn free_empty_pages(&mut self, cpu: CpuId, cache: Cache) -> Result<(), Stop> {
        loop {
            let pages = &mut self.slots(cache).pages;
            let empty = |p: &Page| p.slots.iter().all(|s| *s == State::Clean);
            let Some(index) = pages.iter().position(empty).filter(|_| pages.len() > 1) else {
                return Ok(());
            };
            let page = pages.remove(index);
            self.inner(cpu, "synchronize_rcu", &Args::default())?;
            let (name, args) = self.text_memory_free(page.at);
            self.inner(cpu, name, &args)?;
        }
    }

    /// powerpc keeps one page in its own text for detours; here it is the last of the text.
    fn power_optinsn_page(&mut self) -> u64 {
        if self.users.probes.optinsn_slots.pages.is_empty() {
            self.layout.text.end() - self.pages.bytes()
        } else {
            0
        }
    }

    /// `alloc_insn_page` of the version and architecture; 0 where it fails.
    fn alloc_insn_page(&mut self, cpu: CpuId) -> Result<u64, Stop> {
        let how = self.caps.word(Fact::KprobePage);
        let got = if how == "vmalloc-rox" {
            let range = self.layout.vmalloc;
            let call = "__vmalloc_node_range";
            let prot = crate::call_table::PROTS.iter().find(|(n, _)| *n == "PAGE_KERNEL_ROX");
            let args = [
                self.pages.bytes(),
                1,
                range.start.0,
                range.end(),
                prot.map_or(0, |(_, bit)| *bit),
                vm_flags::VM_FLUSH_RESET_PERMS,
            ];
            self.inner(cpu, call, &Args::of(&args))?
        } else if self.caps.yes(Fact::Execmem) {
            let kind = EXECMEM_TYPES.iter().find(|(n, _)| *n == "EXECMEM_KPROBES");
            let kind = kind.map_or(0, |(_, bit)| *bit);
            self.inner(cpu, "execmem_alloc", &Args::of(&[kind, self.pages.bytes()]))?
        } else {
            self.inner(cpu, "module_alloc", &Args::of(&[self.pages.bytes()]))?
        };
        let page = self.used(cpu, got) as u64;
        if page == 0 {
            return Ok(0);
        }
        self.zone(cpu, VirtAddr(page), self.pages.bytes(), "kprobes", "slots");
        // powerpc changes nothing without strict module permissions: it is executable already.
        let strict = self.config.on("STRICT_MODULE_RWX") && self.config.rodata_enabled();
        let range = Args::of(&[page, 1]);
        let calls: &[&str] = match how {
            "alloc-ro-x" => &["set_memory_ro", "set_memory_x"],
            "alloc-rox" => &["set_memory_rox"],
            "alloc-rox-checked" => {
                let done = self.inner(cpu, "set_memory_rox", &range)?;
                if self.used(cpu, done) != 0 {
                    let (name, args) = self.text_memory_free(page);
                    self.inner(cpu, name, &args)?;
                    return Ok(0);
                }
                &[]
            }
            _ => &[],
        };
        if self.arch.is_powerpc() && !strict {
            return Ok(page);
        }
        if how == "alloc-ro-x" && self.arch == Arch::X86_64 {
            self.inner(cpu, "set_vm_flush_reset_perms", &Args::of(&[page]))?;
        }
        for call in calls {
            let done = self.inner(cpu, call, &range)?;
            self.dropped(cpu, done);
        }
        Ok(page)
    }
}

impl Slots {
    /// The first clean slot, used from now on.
    fn take(&mut self, size: u64) -> Option<u64> {
        for page in &mut self.pages {
            if let Some(index) = page.slots.iter().position(|s| *s == State::Clean) {
                if let Some(state) = page.slots.get_mut(index) {
                    *state = State::Used;
                }
                return Some(page.at + index as u64 * size);
            }
        }
        None
    }

    fn set(&mut self, slot: u64, size: u64, to: State) {
        for page in &mut self.pages {
            let index = slot.checked_sub(page.at).map(|offset| offset / size);
            let index = index.and_then(|n| usize::try_from(n).ok());
            if let Some(state) = index.and_then(|n| page.slots.get_mut(n)) {
                *state = to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_in_order_and_dirty_ones_are_not_taken_again() {
        let mut slots = Slots {
            pages: vec![Page { at: 0x1000, slots: vec![State::Clean; 3] }],
            ..Slots::default()
        };
        assert_eq!([slots.take(8), slots.take(8)], [Some(0x1000), Some(0x1008)]);
        slots.set(0x1000, 8, State::Dirty);
        assert_eq!([slots.take(8), slots.take(8)], [Some(0x1010), None]);
        slots.set(0x1008, 8, State::Clean);
        assert_eq!(slots.take(8), Some(0x1008));
    }
}
