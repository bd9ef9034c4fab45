//! Modules: their memory, its permissions in order, and how it goes away.
//!
//! Modelled: the memory of a module by type (before 6.4 in two areas, core and init), zeroed and
//! filled by plain stores, what relocates its text and puts alternatives in place ([`writes`]),
//! cache maintenance over each part, permissions and their order by version, errors that are
//! dropped (before 6.10) or end the loading, memory of the init sections freed later by a work
//! item, unloading. From: Linux 6.1, 6.4, 6.12 and 6.18.2 kernel/module/main.c and strict_rwx.c.
//! Not modelled: ELF, relocations of data, static keys while loading, parameters, exported symbols,
//! reference counts, sections that are writable and executable at once (-ENOEXEC), livepatch. Every
//! section has a page, the text as many as its code; the init text holds the same code, so that it
//! can be called.
//!
//! A module is known by the address of its text. Its init function is the scenario's to call,
//! between `load_module` and `do_init_module`.

mod writes;

pub(crate) use writes::{module_alternative, module_relocation};

use std::collections::{BTreeMap, VecDeque};

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::ENOMEM;
use crate::error::Stop;
use crate::insns::ftrace_caller;
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Made, Step, Then, call_step, call_then, calls_step, calls_then, lock_step, once, pause,
    step, step_then_others, unlock_step,
};

/// The parts of a module, with their numbers, in the order in which Linux goes through them.
pub(crate) const SECTIONS: &[(&str, u64)] = &[
    ("MOD_TEXT", 1),
    ("MOD_DATA", 2),
    ("MOD_RODATA", 4),
    ("MOD_RO_AFTER_INIT", 8),
    ("MOD_INIT_TEXT", 16),
    ("MOD_INIT_DATA", 32),
    ("MOD_INIT_RODATA", 64),
];

const TEXT: u64 = 1;
const DATA: u64 = 2;
const RODATA: u64 = 4;
const RO_AFTER_INIT: u64 = 8;
const INIT_TEXT: u64 = 16;
const INIT_DATA: u64 = 32;
const INIT_RODATA: u64 = 64;
const TEXTS: [u64; 2] = [TEXT, INIT_TEXT];
const DATAS: [u64; 5] = [DATA, RODATA, RO_AFTER_INIT, INIT_DATA, INIT_RODATA];
/// Parts of the two areas before 6.4, as they follow each other there.
const CORE_LAYOUT: [u64; 4] = [TEXT, RODATA, RO_AFTER_INIT, DATA];
const INIT_LAYOUT: [u64; 3] = [INIT_TEXT, INIT_RODATA, INIT_DATA];

/// The lock of the list of modules, held while a module is formed, made live and unlinked.
const MUTEX: &str = "module_mutex";

/// Longest text of a module.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// A range of addresses: start and length.
type Span = (u64, u64);

/// One module.
#[derive(Clone, Default, Debug)]
struct Module {
    /// Its parts.
    parts: BTreeMap<u64, Span>,
    /// What was allocated for them, in order.
    areas: Vec<u64>,
    /// The areas of the init parts, until they are handed to the work item.
    init_areas: Vec<u64>,
    live: bool,
}

/// Every module.
#[derive(Clone, Default, Debug)]
pub(crate) struct Modules {
    /// What the next one has to have written to its text.
    next: Vec<writes::Write>,
    loaded: BTreeMap<u64, Module>,
    /// Init memory that waits for the work item.
    init_free_list: Vec<u64>,
}

impl Modules {
    /// Whether an address is text of a module (`__module_text_address`).
    pub(crate) fn is_text(&self, virt: VirtAddr) -> bool {
        self.parts(&TEXTS).any(|(start, len)| virt.0.wrapping_sub(start) < len)
    }

    /// Whether an address is init text of a module that is done with it.
    pub(crate) fn is_spent_init(&self, virt: VirtAddr) -> bool {
        let inside = |(start, len): Span| virt.0.wrapping_sub(start) < len;
        self.loaded.values().any(|m| m.live && m.parts.get(&INIT_TEXT).is_some_and(|s| inside(*s)))
    }

    /// powerpc: the stub by which a module's call sites reach `ftrace_caller` (`mod->arch.tramp`);
    /// here it lies at the end of the text.
    pub(crate) fn stub_of(&self, virt: VirtAddr, len: u64) -> Option<VirtAddr> {
        let mut texts = self.loaded.values().filter_map(|m| m.parts.get(&TEXT));
        let (start, size) = texts.find(|(start, size)| virt.0.wrapping_sub(*start) < *size)?;
        Some(VirtAddr(start + size - len))
    }

    fn parts<'a>(&'a self, which: &'a [u64]) -> impl Iterator<Item = Span> + 'a {
        self.loaded.values().flat_map(move |m| which.iter().filter_map(|w| m.parts.get(w).copied()))
    }
}

/// `load_module(code)`: everything up to where the init function is called. The text's address, or
/// an error.
pub(crate) fn load_module(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let code = args.code().to_vec();
    let text = code.len() as u64;
    if text == 0 || text > MAX_TEXT_BYTES {
        return Err(Stop::not_modelled(format!("a module with {text:#x} bytes of text")));
    }
    let (stub, listed) = (k.module_stub(), std::mem::take(&mut k.users.modules.next));
    if listed.iter().any(|write| write.end() > text) {
        return Err(Stop::not_modelled("a place behind the text of the module"));
    }
    let room = (text + stub.len() as u64).next_multiple_of(k.pages.bytes());
    let moved = move |k: &mut Kernel, _, module: Option<Module>| {
        let Some(module) = module else {
            k.returns(-ENOMEM);
            return Ok(());
        };
        for which in TEXTS {
            let (at, code) = (module.start(which), code.clone());
            let copy = step_then_others(move |k, cpu| k.store_plain(cpu, VirtAddr(at), &code));
            k.later([copy]);
        }
        let end = module.start(TEXT) + room - stub.len() as u64;
        let stubs = step_then_others(move |k, cpu| k.store_plain(cpu, VirtAddr(end), &stub));
        let texts = TEXTS.map(|which| module.start(which));
        let relocations = writes::places(texts, &listed, false);
        let alternatives = writes::places(texts, &listed, true);
        k.later([writes::relocations_step(relocations, move |k, error| {
            if error != 0 {
                k.returns(error);
                return unlinked_steps(module);
            }
            let mut steps = vec![stubs];
            steps.extend(writes::alternatives_steps(k.arch, alternatives));
            let flush = k.flush_module_icache(&module);
            steps.push(calls_step(flush));
            steps.extend([lock_step(MUTEX), formation_step(module)]);
            steps
        })]);
        Ok(())
    };
    let first = once(move |k, cpu| {
        // The copy of the file's module, say.
        if k.allocation_fails() {
            return moved(k, cpu, None);
        }
        let groups = k.module_groups();
        k.later([parts_step(groups, room, Module::default(), Box::new(moved))]);
        Ok(())
    });
    k.with_steps(vec![first])
}

/// `complete_formation`, module_mutex held: permissions, and from then on the module is known.
fn formation_step(module: Module) -> Step {
    once(move |k, _| {
        let calls = k.module_enable(&module);
        let formed = move |k: &mut Kernel, cpu, error| {
            k.unlock(cpu, MUTEX)?;
            if error != 0 {
                k.returns(error);
                k.later(given_up_steps(module));
                return Ok(());
            }
            for (which, (at, len)) in &module.parts {
                let name = SECTIONS.iter().find(|(_, bit)| bit == which);
                let name = name.map_or("", |(name, _)| *name);
                k.region(cpu, VirtAddr(*at), *len, "module", name);
            }
            let base = module.start(TEXT);
            k.users.modules.loaded.insert(base, module);
            k.returns(base as i64);
            Ok(())
        };
        k.later([calls_then(calls, Box::new(formed))]);
        Ok(())
    })
}

/// The way out where complete_formation failed: ddebug_cleanup and unlink_mod each wait.
fn given_up_steps(module: Module) -> Vec<Step> {
    let mut steps = vec![call_step("synchronize_rcu", Args::default())];
    steps.extend(unlinked_steps(module));
    steps
}

/// The same where a relocation failed.
fn unlinked_steps(module: Module) -> Vec<Step> {
    let wait = call_step("synchronize_rcu", Args::default());
    let mut steps = vec![lock_step(MUTEX), wait, unlock_step(MUTEX)];
    steps.extend(module.areas.into_iter().rev().map(free_step));
    steps
}

/// Frees one allocation of a module.
fn free_step(area: u64) -> Step {
    once(move |k, _| {
        let (name, args) = k.text_memory_free(area);
        k.later([call_step(name, args)]);
        Ok(())
    })
}

/// Memory for groups of parts, each zeroed; `then` gets `None` where it cannot be had, and then
/// none is kept.
fn parts_step(
    mut groups: VecDeque<Vec<u64>>,
    text: u64,
    mut module: Module,
    then: Then<Option<Module>>,
) -> Step {
    once(move |k, cpu| {
        let Some(group) = groups.pop_front() else { return then(k, cpu, Some(module)) };
        let page = k.pages.bytes();
        let size = move |which: u64| if TEXTS.contains(&which) { text } else { page };
        let len: u64 = group.iter().map(|which| size(*which)).sum();
        let is_text = group.iter().any(|which| TEXTS.contains(which));
        let (name, args) = k.module_memory(is_text, len);
        k.later(call_then(name, args, move |k, cpu, start| {
            let start = start as u64;
            if start == 0 {
                k.later(module.areas.into_iter().rev().map(free_step));
                k.later([once(move |k, cpu| then(k, cpu, None))]);
                return Ok(());
            }
            k.fill_plain(cpu, VirtAddr(start), len, &[0])?;
            module.areas.push(start);
            if group.iter().any(|which| INIT_LAYOUT.contains(which)) {
                module.init_areas.push(start);
            }
            let mut at = start;
            for which in group {
                module.parts.insert(which, (at, size(which)));
                at += size(which);
            }
            k.later([pause(), parts_step(groups, text, module, then)]);
            Ok(())
        }));
        Ok(())
    })
}

/// `module_section(mod, type)`: the address of a part, 0 where it is gone or there is no such.
pub(crate) fn module_section(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let module = k.users.modules.loaded.get(&args.get(0));
    let part = module.and_then(|m| m.parts.get(&args.get(1)));
    Ok(part.map_or(0, |(start, _)| *start as i64))
}

/// `do_init_module(mod)`: what follows a successful init function.
pub(crate) fn do_init_module(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let base = args.get(0);
    let Some(module) = k.users.modules.loaded.get(&base).filter(|m| !m.live).cloned() else {
        return Err(Stop::not_modelled("a module that load_module did not give, or a second time"));
    };
    // freeinit is allocated before the init function runs.
    if k.allocation_fails() {
        return k.with_steps(abandon_steps(base, -ENOMEM));
    }
    let protect = once(move |k, _| {
        let calls = k.module_after_init(&module);
        k.later([calls_then(calls, Box::new(move |k, cpu, error| k.init_done(cpu, base, error)))]);
        Ok(())
    });
    k.with_steps(vec![lock_step(MUTEX), protect])
}

/// The way out of a failed `do_init_module`.
fn abandon_steps(base: u64, error: i64) -> Vec<Step> {
    let mut steps = vec![call_step("synchronize_rcu", Args::default())];
    steps.extend(release_steps(base));
    steps.push(step(move |k, _| {
        k.returns(error);
        Ok(())
    }));
    steps
}

/// `do_free_init()`: the work item that frees what the init sections of modules lay in.
pub(crate) fn do_free_init(k: &mut Kernel, _cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let spent = std::mem::take(&mut k.users.modules.init_free_list);
    let mut steps = vec![call_step("synchronize_rcu", Args::default())];
    for area in spent {
        let forget = step_then_others(move |k, _| {
            k.forget_init(area);
            Ok(())
        });
        steps.extend([forget, free_step(area)]);
    }
    k.with_steps(steps)
}

/// `free_module(mod)`: unlinked under RCU, then its memory goes.
pub(crate) fn free_module(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let base = args.get(0);
    if !k.users.modules.loaded.contains_key(&base) {
        return Err(Stop::not_modelled("a module that load_module did not give"));
    }
    k.with_steps(release_steps(base))
}

/// Unlinks a module and frees its memory.
fn release_steps(base: u64) -> Vec<Step> {
    let unlink = once(move |k, _| {
        let module = k.users.modules.loaded.remove(&base).unwrap_or_default();
        let gone = once(move |k, cpu| {
            k.unlock(cpu, MUTEX)?;
            k.forget_text(&module.parts.values().copied().collect::<Vec<Span>>());
            k.later([pause()]);
            k.later(module.in_order_of_freeing().into_iter().map(free_step));
            Ok(())
        });
        k.later([call_step("synchronize_rcu", Args::default()), gone]);
        Ok(())
    });
    vec![lock_step(MUTEX), unlink]
}

impl Module {
    fn start(&self, which: u64) -> u64 {
        self.parts.get(&which).map_or(0, |s| s.0)
    }

    /// By type the data goes last, since it holds the module; else the init area goes first.
    fn in_order_of_freeing(&self) -> Vec<u64> {
        let data = self.parts.get(&DATA).map(|s| s.0).filter(|d| self.areas.contains(d));
        match data {
            Some(data) => self.areas.iter().copied().filter(|a| *a != data).chain([data]).collect(),
            None => self.areas.iter().rev().copied().collect(),
        }
    }
}

impl Kernel {
    /// What powerpc's modules bring along to reach the kernel's text.
    fn module_stub(&self) -> Vec<u8> {
        if self.arch.is_powerpc() { ftrace_caller(self.arch) } else { Vec::new() }
    }

    /// The parts that are allocated together.
    fn module_groups(&self) -> VecDeque<Vec<u64>> {
        if self.caps.word(Fact::ModuleSections) == "by-type" {
            SECTIONS.iter().map(|(_, which)| vec![*which]).collect()
        } else {
            [CORE_LAYOUT.to_vec(), INIT_LAYOUT.to_vec()].into()
        }
    }

    /// The call that makes one allocation in this version.
    fn module_memory(&self, text: bool, len: u64) -> (&'static str, Args) {
        let kind = if text { "EXECMEM_MODULE_TEXT" } else { "EXECMEM_MODULE_DATA" };
        let bit = crate::call_table::EXECMEM_TYPES.iter().find(|(name, _)| *name == kind);
        let typed = Args::of(&[bit.map_or(0, |(_, bit)| *bit), len]);
        if !self.caps.yes(Fact::Execmem) {
            ("module_alloc", Args::of(&[len]))
        } else if self.there("execmem_alloc_rw") {
            ("execmem_alloc_rw", typed)
        } else {
            ("execmem_alloc", typed)
        }
    }

    /// Whether this kernel has a call.
    pub(crate) fn there(&self, name: &str) -> bool {
        crate::calls::find_call(name, self.version, self.arch).is_ok()
    }

    /// `flush_module_icache`: each part by itself (before 6.4 the init area, then the core).
    fn flush_module_icache(&self, module: &Module) -> Vec<Made> {
        let spans: Vec<Span> = if self.caps.word(Fact::ModuleSections) == "by-type" {
            SECTIONS.iter().filter_map(|(_, which)| module.parts.get(which).copied()).collect()
        } else {
            let whole = |layout: &[u64]| {
                let parts = layout.iter().filter_map(|which| module.parts.get(which));
                let start = layout.first().and_then(|w| module.parts.get(w)).map_or(0, |s| s.0);
                (start, parts.map(|s| s.1).sum())
            };
            vec![whole(&INIT_LAYOUT), whole(&CORE_LAYOUT)]
        };
        let flush = |(start, len)| Args::of(&[start, start + len]);
        spans.into_iter().map(|s| ("flush_icache_range", flush(s), Fate::Void)).collect()
    }

    /// The permissions of `complete_formation`.
    fn module_enable(&self, module: &Module) -> Vec<Made> {
        let strict = self.config.on("STRICT_MODULE_RWX");
        let rodata = strict && self.config.rodata_enabled();
        let mut calls = Vec::new();
        if self.caps.word(Fact::ModuleText) == "ro-then-x" {
            // Results are dropped.
            if rodata {
                let ro = [TEXT, RODATA, INIT_TEXT, INIT_RODATA];
                calls.extend(reset_perms(module, &ro));
                calls.extend(self.module_set(module, &ro, "set_memory_ro", Fate::Dropped));
            }
            if strict {
                let nx = [RODATA, RO_AFTER_INIT, DATA, INIT_RODATA, INIT_DATA];
                calls.extend(self.module_set(module, &nx, "set_memory_nx", Fate::Dropped));
            }
            calls.extend(self.module_set(module, &TEXTS, "set_memory_x", Fate::Dropped));
            return calls;
        }
        if rodata {
            let ro = [RODATA, INIT_RODATA];
            calls.extend(reset_perms(module, &ro));
            calls.extend(self.module_set(module, &ro, "set_memory_ro", Fate::Checked));
        }
        if strict {
            calls.extend(reset_perms(module, &DATAS));
            calls.extend(self.module_set(module, &DATAS, "set_memory_nx", Fate::Checked));
        }
        if self.arch == Arch::X86_64 && self.uses_rox_cache("EXECMEM_MODULE_TEXT") {
            let texts = TEXTS.iter().filter_map(|which| module.parts.get(which));
            let restore = |s: &Span| ("execmem_restore_rox", Args::of(&[s.0, s.1]), Fate::Checked);
            calls.extend(texts.map(restore));
            return calls;
        }
        calls.extend(reset_perms(module, &TEXTS));
        let call = if strict { "set_memory_rox" } else { "set_memory_x" };
        calls.extend(self.module_set(module, &TEXTS, call, Fate::Checked));
        calls
    }

    /// The permissions of `do_init_module`.
    fn module_after_init(&self, module: &Module) -> Vec<Made> {
        if !self.config.on("STRICT_MODULE_RWX") || !self.config.rodata_enabled() {
            return Vec::new();
        }
        if self.caps.word(Fact::ModuleText) == "ro-then-x" {
            let again = [TEXT, RODATA, INIT_TEXT, INIT_RODATA, RO_AFTER_INIT];
            return self.module_set(module, &again, "set_memory_ro", Fate::Dropped);
        }
        let once_more = self.caps.yes(Fact::AfterInitChecked);
        let which: &[u64] =
            if once_more { &[RODATA, INIT_RODATA, RO_AFTER_INIT] } else { &[RO_AFTER_INIT] };
        self.module_set(module, which, "set_memory_ro", Fate::Checked)
    }

    /// A permission call over some parts.
    fn module_set(
        &self,
        module: &Module,
        which: &[u64],
        call: &'static str,
        fate: Fate,
    ) -> Vec<Made> {
        let spans = which.iter().filter_map(|part| module.parts.get(part));
        spans.map(|(at, len)| (call, Args::of(&[*at, self.pages.holding(*len)]), fate)).collect()
    }

    /// The end of `do_init_module`, module_mutex held.
    fn init_done(&mut self, cpu: CpuId, base: u64, error: i64) -> Result<(), Stop> {
        if error != 0 && self.caps.yes(Fact::AfterInitChecked) {
            self.unlock(cpu, MUTEX)?;
            self.later(abandon_steps(base, error));
            return Ok(());
        }
        if let Some(module) = self.users.modules.loaded.get_mut(&base) {
            module.live = true;
            let spent = std::mem::take(&mut module.init_areas);
            module.areas.retain(|area| !spent.contains(area));
            self.users.modules.init_free_list.extend(spent);
        }
        self.unlock(cpu, MUTEX)
    }

    /// The parts of a module that lay in an area are gone.
    fn forget_init(&mut self, area: u64) {
        let areas = &self.areas;
        let lies =
            |(start, _): Span| areas.find(VirtAddr(start)).is_some_and(|a| a.start.0 == area);
        let owner =
            self.users.modules.loaded.values_mut().find(|m| {
                INIT_LAYOUT.iter().filter_map(|which| m.parts.get(which)).any(|s| lies(*s))
            });
        if let Some(module) = owner {
            for which in INIT_LAYOUT {
                module.parts.remove(&which);
            }
        }
    }
}

/// `set_vm_flush_reset_perms` of the areas of some parts.
fn reset_perms(module: &Module, which: &[u64]) -> Vec<Made> {
    let spans = which.iter().filter_map(|part| module.parts.get(part));
    spans.map(|(at, _)| ("set_vm_flush_reset_perms", Args::of(&[*at]), Fate::Void)).collect()
}
