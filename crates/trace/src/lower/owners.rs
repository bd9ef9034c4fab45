//! Who has executable memory: modules, BPF programs and trampolines, kprobes, ftrace.
//!
//! A module's memory is allocated before its name is known: the allocations of a task wait until
//! that task does something to a module by name. Who asked is the `type` of `execmem_alloc` (6.10
//! and later), or the caller that a return probe shows. A BPF program has no name in these logs; it
//! is numbered in order of appearance. Not modelled: names of single functions.

use super::Lower;
use crate::bounds::Bound;
use crate::calls::{Frame, Stack};
use crate::ftrace::{Event as LogEvent, Fields, Location};
use crate::functions::{Function, Meaning, Owner};
use crate::modules::{self, Module};
use crate::side::SideFiles;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use textbed_arch::VirtAddr;
use textbed_event::{Flags, Provenance, View};

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    nameless: FxHashMap<Stack, Vec<(u64, u64)>>,
    /// Pieces of all tasks in it.
    waiting: usize,
    numbered: BTreeMap<Owner, u64>,
    last: Option<(u64, u64, Owner)>,
    pub(super) counts: BTreeMap<(String, String), u64>,
}

impl State {
    /// Nobody waits for a name any more; numbers go on.
    pub(super) fn restart(&mut self) {
        self.nameless.clear();
        self.waiting = 0;
        self.last = None;
    }
}

/// `enum execmem_type` (`include/linux/execmem.h`): EXECMEM_DEFAULT is MODULE_TEXT.
fn owner_of_type(number: u64) -> Option<Owner> {
    Some(match number {
        0 | 4 => Owner::Module,
        1 => Owner::Kprobes,
        2 => Owner::Ftrace,
        3 => Owner::Bpf,
        _ => return None,
    })
}

/// By the function into which an allocator returns.
fn owner_of_caller(symbol: &[u8]) -> Option<Owner> {
    const CALLERS: &[(&[u8], Owner)] = &[
        (b"load_module", Owner::Module),
        (b"move_module", Owner::Module),
        (b"layout_and_allocate", Owner::Module),
        (b"module_memory_alloc", Owner::Module),
        (b"bpf_jit_alloc_exec", Owner::Bpf),
        (b"bpf_prog_pack_alloc", Owner::Bpf),
        (b"bpf_jit_binary_alloc", Owner::Bpf),
        (b"arch_alloc_bpf_trampoline", Owner::BpfTrampoline),
        (b"alloc_insn_page", Owner::Kprobes),
        (b"__get_insn_slot", Owner::Kprobes),
        (b"create_trampoline", Owner::Ftrace),
        (b"arch_ftrace_update_trampoline", Owner::Ftrace),
    ];
    CALLERS.iter().find(|(name, _)| symbol.starts_with(name)).map(|(_, o)| *o)
}

impl Lower<'_> {
    /// Regions of areas that were there before the log began: by the list of modules, else by the
    /// words of `vmallocinfo`.
    pub(super) fn owner_before(&mut self, virt: u64, len: u64, words: &str, module: Option<&str>) {
        let owner = module.map(|_| Owner::Module).or_else(|| owner_of_caller(words.as_bytes()));
        if let Some(owner) = owner {
            let nameless = if owner == Owner::Module { "loaded before the log" } else { "" };
            let name = self.short(module.unwrap_or(nameless)).to_owned();
            self.region(virt, len, owner, &name, Flags::default());
        }
    }

    /// A module from before the log of which no area is known: its text is what the tables show to
    /// be executable from its beginning on. Returns whether they show any.
    fn module_in_tables(&mut self, module: &Module) -> bool {
        let end = module.base.saturating_add(module.size);
        let mut text_end = module.base;
        for run in self.mappings.runs_in(module.base, end) {
            if run.virt != text_end || !run.perm.executable() {
                break;
            }
            text_end = run.end;
        }
        if text_end > module.base {
            let name = self.short(&module.name).to_owned();
            self.region(
                module.base,
                text_end - module.base,
                Owner::Module,
                &name,
                Flags::default(),
            );
        }
        text_end > module.base
    }

    /// What was there before the first line: areas, and modules outside of them. Returns how many
    /// modules have memory of which nothing is known.
    pub(crate) fn areas_before(&mut self, side: &SideFiles) -> usize {
        let page = 1u64 << self.mappings.page_shift();
        let areas: Vec<(u64, u64)> =
            side.areas.iter().map(|(virt, len, _)| (*virt, len.saturating_sub(page))).collect();
        let asked: FxHashMap<u64, &str> =
            side.areas.iter().map(|(virt, _, words)| (*virt, words.as_str())).collect();
        let by_module = |virt| {
            let words = asked.get(&virt).copied().unwrap_or_default();
            owner_of_caller(words.as_bytes()) == Some(Owner::Module)
        };
        let owned = modules::areas_of(&side.modules, &areas, by_module);
        for ((virt, len), (_, _, words)) in areas.iter().zip(&side.areas) {
            self.area_before(*virt, *len, words, owned.get(virt).copied());
        }
        let outside = side.modules.iter().filter(|m| !owned.contains_key(&m.base));
        outside.filter(|module| !self.module_in_tables(module)).count()
    }

    pub(crate) fn take_owners(&mut self) -> BTreeMap<(String, String), u64> {
        std::mem::take(&mut self.owners.counts)
    }

    pub(super) fn module_step(&mut self, e: &Fields<'_>) -> Option<()> {
        let name = self.short(&String::from_utf8_lossy(e.arg(b"name")?)).to_owned();
        let Some(pieces) = self.owners.nameless.remove(&self.now.stack) else { return Some(()) };
        self.owners.waiting -= pieces.len();
        for (virt, len) in pieces {
            self.region(virt, len, Owner::Module, &name, Flags::default());
        }
        Some(())
    }

    /// Somebody asks for executable memory: what is handed out next is new, at whatever address.
    pub(super) fn owner_entry(&mut self, f: &Function) {
        use Meaning::{ExecAlloc, ExecPage, ExecPiece, ExecmemAlloc};
        if matches!(f.meaning, ExecAlloc(_) | ExecPage(_) | ExecPiece(_) | ExecmemAlloc) {
            self.owners.last = None;
        }
    }

    pub(super) fn owner_return(
        &mut self,
        frame: &Frame,
        e: &LogEvent<'_>,
        address: u64,
        failed: bool,
    ) {
        if failed {
            return;
        }
        let caller = match e.location() {
            Some(Location::Return { to, .. }) => owner_of_caller(to),
            _ => None,
        };
        let page = 1u64 << self.mappings.page_shift();
        let size = frame.arg("size");
        let (owner, len) = match frame.function.meaning {
            Meaning::ExecmemAlloc => {
                (caller.or_else(|| owner_of_type(frame.arg("type")?)), size.unwrap_or(0))
            }
            Meaning::ExecAlloc(owner) => (owner.or(caller), size.unwrap_or(0)),
            Meaning::ExecPiece(owner) => (Some(owner), size.unwrap_or(0)),
            Meaning::ExecPage(owner) => (Some(owner), page),
            _ => return,
        };
        let Some(owner) = owner.filter(|_| len > 0) else { return };
        self.outside_region(owner, address);
        if owner == Owner::Module {
            if self.owners.waiting >= Bound::Nameless.most() {
                self.dropped.add(Bound::Nameless, self.owners.waiting);
                self.owners.nameless.clear();
                self.owners.waiting = 0;
            }
            self.owners.nameless.entry(self.now.stack).or_default().push((address, len));
            self.owners.waiting += 1;
            return;
        }
        // The inner allocator showed the same piece already.
        if self.owners.last == Some((address, len, owner)) {
            return;
        }
        self.owners.last = Some((address, len, owner));
        let number = self.owners.numbered.entry(owner).or_default();
        *number += 1;
        // The owner stands before the name wherever both are shown.
        let name = format!("#{number}");
        self.region(address, len, owner, &name, Flags::NUMBERED);
    }

    fn region(&mut self, virt: u64, len: u64, owner: Owner, name: &str, of: Flags) {
        let id = self.name(owner.text());
        let name_id = self.name(name);
        let view = View::Region { virt: VirtAddr(virt), len, owner: id, name: name_id };
        self.emit_flagged(view, Provenance::Recorded, of);
        // Numbered pieces are counted together.
        let name = if owner == Owner::Module { name } else { "" };
        let key = (owner.text().to_string(), name.to_string());
        let known = self.owners.counts.contains_key(&key);
        if known || self.owners.counts.len() < Bound::Owners.most() {
            *self.owners.counts.entry(key).or_default() += 1;
        } else {
            self.dropped.add(Bound::Owners, 1);
        }
    }
}
