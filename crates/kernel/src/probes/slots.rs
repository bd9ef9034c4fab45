//! Pages of instruction slots.
//!
//! Modelled: slots clean, used and dirty; the first clean one is taken, garbage is collected after
//! a grace period when there is too much of it or nothing else, a page is freed when it is empty
//! and not the last; others run while a page is made, protected or freed. From: Linux 6.1, 6.12 and
//! 6.18.2 kernel/kprobes.c __get_insn_slot(), __free_insn_slot(), collect_garbage_slots(). Not
//! modelled: perf's and kallsyms' records.

use textbed_arch::{Arch, VirtAddr};

use crate::area::vm_flags;
use crate::call::Args;
use crate::call_table::EXECMEM_TYPES;
use crate::caps::Fact;
use crate::kernel::Kernel;
use crate::module_memory::protect_step;
use crate::steps::{
    Fate, Made, Step, Then, call_step, call_then, lock_step, once, pause, step, unlock_step,
};

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

    /// powerpc keeps one page in its own text for detours; here it is the last of the text.
    fn power_optinsn_page(&mut self) -> u64 {
        if self.users.probes.optinsn_slots.pages.is_empty() {
            self.layout.text.end() - self.pages.bytes()
        } else {
            0
        }
    }

    /// The slot is given, the lock goes.
    fn slot_given(&mut self, cache: Cache, at: u64, then: Then<u64>) {
        self.later([unlock_step(cache.mutex()), once(move |k, cpu| then(k, cpu, at))]);
    }

    /// A slot of a new page.
    fn slot_of_new_page(&mut self, cache: Cache, then: Then<u64>) {
        if self.allocation_fails() {
            return self.slot_given(cache, 0, then);
        }
        let added: Then<u64> = Box::new(move |k, _, at| {
            let size = cache.slot_bytes(k.arch);
            if at != 0 {
                let count = usize::try_from(k.pages.bytes() / size).unwrap_or(0);
                let slots = vec![State::Clean; count];
                k.slots(cache).pages.push(Page { at, slots });
            }
            let got = k.slots(cache).take(size).filter(|_| at != 0);
            k.slot_given(cache, got.unwrap_or(0), then);
            Ok(())
        });
        match cache {
            Cache::Optinsn if self.arch.is_powerpc() => {
                let at = self.power_optinsn_page();
                self.later([once(move |k, cpu| added(k, cpu, at))]);
            }
            _ => self.alloc_insn_page(added),
        }
    }

    /// `alloc_insn_page` of the version and architecture; `then` gets 0 where it fails.
    fn alloc_insn_page(&mut self, then: Then<u64>) {
        let how = self.caps.word(Fact::KprobePage);
        let page = self.pages.bytes();
        let (call, args) = if how == "vmalloc-rox" {
            let range = self.layout.vmalloc;
            let prot = crate::call_table::PROTS.iter().find(|(n, _)| *n == "PAGE_KERNEL_ROX");
            let prot = prot.map_or(0, |(_, bit)| *bit);
            let reset = vm_flags::VM_FLUSH_RESET_PERMS;
            ("__vmalloc_node_range", vec![page, 1, range.start.0, range.end(), prot, reset])
        } else if self.caps.yes(Fact::Execmem) {
            let kind = EXECMEM_TYPES.iter().find(|(n, _)| *n == "EXECMEM_KPROBES");
            ("execmem_alloc", vec![kind.map_or(0, |(_, bit)| *bit), page])
        } else {
            ("module_alloc", vec![page])
        };
        self.later(call_then(call, Args::of(&args), move |k, cpu, at| {
            let at = at as u64;
            if at == 0 {
                return then(k, cpu, 0);
            }
            k.zone(cpu, VirtAddr(at), page, "kprobes", "slots");
            let calls = k.insn_page_permissions(how, at);
            k.later([pause(), protect_step(at, calls, then)]);
            Ok(())
        }));
    }

    /// What makes such a page executable.
    fn insn_page_permissions(&self, how: &str, at: u64) -> Vec<Made> {
        // powerpc changes nothing without strict module permissions: it is executable already.
        let strict = self.config.on("STRICT_MODULE_RWX") && self.config.rodata_enabled();
        if self.arch.is_powerpc() && !strict {
            return Vec::new();
        }
        let set = |call, fate| (call, Args::of(&[at, 1]), fate);
        match how {
            "alloc-ro-x" => {
                let reset = ("set_vm_flush_reset_perms", Args::of(&[at]), Fate::Void);
                let x86 = self.arch == Arch::X86_64;
                let both = ["set_memory_ro", "set_memory_x"].map(|call| set(call, Fate::Dropped));
                x86.then_some(reset).into_iter().chain(both).collect()
            }
            "alloc-rox" => vec![set("set_memory_rox", Fate::Dropped)],
            "alloc-rox-checked" => vec![set("set_memory_rox", Fate::Checked)],
            _ => Vec::new(),
        }
    }
}

/// `get_insn_slot`, `get_optinsn_slot`; `then` gets an address, or 0.
pub(super) fn get_slot_step(cache: Cache, then: Then<u64>) -> Step {
    let take = move |k: &mut Kernel| {
        let size = cache.slot_bytes(k.arch);
        k.slots(cache).take(size)
    };
    let first = once(move |k, _| {
        if let Some(at) = take(k) {
            k.slot_given(cache, at, then);
        } else if k.slots(cache).garbage > 0 {
            k.later(collect_steps(cache));
            k.later([once(move |k, _| {
                match take(k) {
                    Some(at) => k.slot_given(cache, at, then),
                    None => k.slot_of_new_page(cache, then),
                }
                Ok(())
            })]);
        } else {
            k.slot_of_new_page(cache, then);
        }
        Ok(())
    });
    once(move |k, _| {
        k.later([lock_step(cache.mutex()), first]);
        Ok(())
    })
}

/// `free_insn_slot(slot, dirty)`.
pub(super) fn free_slot_steps(cache: Cache, slot: u64, dirty: bool) -> [Step; 3] {
    let free = once(move |k, _| {
        let size = cache.slot_bytes(k.arch);
        let slots = k.slots(cache);
        let per_page = slots.pages.first().map_or(0, |p| p.slots.len());
        slots.set(slot, size, if dirty { State::Dirty } else { State::Clean });
        if !dirty {
            k.later([free_empty_step(cache)]);
            return Ok(());
        }
        slots.garbage += 1;
        if slots.garbage > per_page {
            k.later(collect_steps(cache));
        }
        Ok(())
    });
    [lock_step(cache.mutex()), free, unlock_step(cache.mutex())]
}

/// Dirty slots become clean once nobody can be in them.
fn collect_steps(cache: Cache) -> [Step; 3] {
    let clean = step(move |k, _| {
        let slots = k.slots(cache);
        for state in slots.pages.iter_mut().flat_map(|p| &mut p.slots) {
            if *state == State::Dirty {
                *state = State::Clean;
            }
        }
        slots.garbage = 0;
        Ok(())
    });
    [call_step("synchronize_rcu", Args::default()), clean, free_empty_step(cache)]
}

/// Empty pages go, but for the last, each after a grace period.
fn free_empty_step(cache: Cache) -> Step {
    once(move |k, _| {
        let pages = &mut k.slots(cache).pages;
        let empty = |p: &Page| p.slots.iter().all(|s| *s == State::Clean);
        let Some(index) = pages.iter().position(empty).filter(|_| pages.len() > 1) else {
            return Ok(());
        };
        let page = pages.remove(index);
        let (name, args) = k.text_memory_free(page.at);
        let wait = call_step("synchronize_rcu", Args::default());
        k.later([wait, call_step(name, args), free_empty_step(cache)]);
        Ok(())
    })
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
