//! Modules: their memory, its permissions in order, and how it goes away.
//!
//! Modelled: the memory of a module by type (before 6.4 in two areas, core and init), zeroed and
//! filled by plain stores, cache maintenance over each part, permissions and their order by
//! version, errors that are dropped (before 6.10) or end the loading, memory of the init sections
//! freed later by a work item, unloading. From: Linux 6.1, 6.4, 6.12 and 6.18.2 kernel/module/
//! main.c and strict_rwx.c. Not modelled: ELF, relocations, alternatives and static keys while
//! loading, parameters, exported symbols, reference counts, sections that are writable and
//! executable at once (-ENOEXEC), livepatch. Every section has a page, the text as many as its
//! code; the init text holds the same code, so that it can be called.
//!
//! Branches that leave a module go by PLTs and stubs, which relocation fills before anything is
//! protected; no permission call is made for them alone. arm64's lie in sections that are text
//! (`.plt`, `.init.plt`: arch/arm64/kernel/module-plts.c, allocated and executable) and are stored
//! plainly. powerpc's are text too and written word by word by `patch_instruction()`, but for that
//! of ftrace, which is stored plainly (arch/powerpc/kernel/module_64.c create_stub(),
//! create_ftrace_stub()) and is the one here.
//!
//! A module is known by the address of its text. Its init function is the scenario's to call,
//! between `load_module` and `do_init_module`.

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::ENOMEM;
use crate::error::Stop;
use crate::insns::ftrace_caller;
use crate::kernel::Kernel;

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
pub(crate) fn load_module(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let code = args.code().to_vec();
    let text = code.len() as u64;
    if text == 0 || text > MAX_TEXT_BYTES {
        return Err(Stop::not_modelled(format!("a module with {text:#x} bytes of text")));
    }
    let stub = k.module_stub();
    let room = (text + stub.len() as u64).next_multiple_of(k.pages.bytes());
    let Some(module) = k.module_alloc_parts(cpu, room)? else {
        return Ok(-ENOMEM);
    };
    let start = |which: u64| module.parts.get(&which).map_or(0, |s| s.0);
    for which in TEXTS {
        k.store_plain(cpu, VirtAddr(start(which)), &code)?;
    }
    let end = start(TEXT) + room - stub.len() as u64;
    k.store_plain(cpu, VirtAddr(end), &stub)?;
    k.flush_module_icache(cpu, &module)?;
    k.lock(cpu, "module_mutex")?;
    let error = k.module_enable(cpu, &module)?;
    k.unlock(cpu, "module_mutex")?;
    if error != 0 {
        // ddebug_cleanup and unlink_mod each wait.
        k.inner(cpu, "synchronize_rcu", &Args::default())?;
        k.lock(cpu, "module_mutex")?;
        k.inner(cpu, "synchronize_rcu", &Args::default())?;
        k.unlock(cpu, "module_mutex")?;
        for area in module.areas.iter().rev() {
            k.module_memory_free(cpu, *area)?;
        }
        return Ok(error);
    }
    let base = start(TEXT);
    for (which, (at, len)) in &module.parts {
        let name = SECTIONS.iter().find(|(_, bit)| bit == which).map_or("", |(name, _)| *name);
        k.region(cpu, VirtAddr(*at), *len, "module", name);
    }
    k.users.modules.loaded.insert(base, module);
    Ok(base as i64)
}

/// `module_section(mod, type)`: the address of a part, 0 where it is gone or there is no such.
pub(crate) fn module_section(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let module = k.users.modules.loaded.get(&args.get(0));
    let part = module.and_then(|m| m.parts.get(&args.get(1)));
    Ok(part.map_or(0, |(start, _)| *start as i64))
}

/// `do_init_module(mod)`: what follows a successful init function.
pub(crate) fn do_init_module(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let base = args.get(0);
    let Some(mut module) = k.users.modules.loaded.get(&base).filter(|m| !m.live).cloned() else {
        return Err(Stop::not_modelled("a module that load_module did not give, or a second time"));
    };
    // freeinit is allocated before the init function runs.
    if k.allocation_fails() {
        return k.abandon_module(cpu, base).map(|()| -ENOMEM);
    }
    k.lock(cpu, "module_mutex")?;
    let error = k.module_after_init(cpu, &module)?;
    if error != 0 && k.caps.yes(Fact::AfterInitChecked) {
        k.unlock(cpu, "module_mutex")?;
        return k.abandon_module(cpu, base).map(|()| error);
    }
    module.live = true;
    let spent = std::mem::take(&mut module.init_areas);
    module.areas.retain(|area| !spent.contains(area));
    k.users.modules.init_free_list.extend(spent);
    k.users.modules.loaded.insert(base, module);
    k.unlock(cpu, "module_mutex")?;
    Ok(0)
}

/// `do_free_init()`: the work item that frees what the init sections of modules lay in.
pub(crate) fn do_free_init(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let spent = std::mem::take(&mut k.users.modules.init_free_list);
    k.inner(cpu, "synchronize_rcu", &Args::default())?;
    for area in spent {
        let gone =
            |(start, _): Span| k.areas.find(VirtAddr(start)).is_some_and(|a| a.start.0 == area);
        let owner = k.users.modules.loaded.iter().find(|(_, m)| {
            [INIT_TEXT, INIT_DATA, INIT_RODATA]
                .iter()
                .filter_map(|w| m.parts.get(w))
                .any(|s| gone(*s))
        });
        let owner = owner.map(|(base, _)| *base);
        if let Some(module) = owner.and_then(|base| k.users.modules.loaded.get_mut(&base)) {
            for which in INIT_LAYOUT {
                module.parts.remove(&which);
            }
        }
        k.module_memory_free(cpu, area)?;
    }
    Ok(0)
}

/// `free_module(mod)`: unlinked under RCU, then its memory goes.
pub(crate) fn free_module(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let base = args.get(0);
    if !k.users.modules.loaded.contains_key(&base) {
        return Err(Stop::not_modelled("a module that load_module did not give"));
    }
    k.release_module(cpu, base)?;
    Ok(0)
}

impl Kernel {
    /// What powerpc's modules bring along to reach the kernel's text.
    fn module_stub(&self) -> Vec<u8> {
        if self.arch.is_powerpc() { ftrace_caller(self.arch) } else { Vec::new() }
    }

    /// Memory for all parts; `None` where it cannot be had, and then none is kept.
    fn module_alloc_parts(&mut self, cpu: CpuId, text: u64) -> Result<Option<Module>, Stop> {
        let page = self.pages.bytes();
        let size = |which: u64| if TEXTS.contains(&which) { text } else { page };
        let by_type = self.caps.word(Fact::ModuleSections) == "by-type";
        let groups: Vec<Vec<u64>> = if by_type {
            SECTIONS.iter().map(|(_, which)| vec![*which]).collect()
        } else {
            vec![CORE_LAYOUT.to_vec(), INIT_LAYOUT.to_vec()]
        };
        let mut module = Module::default();
        let mut refused = self.allocation_fails();
        for group in groups {
            let len: u64 = group.iter().map(|which| size(*which)).sum();
            let is_text = group.iter().any(|which| TEXTS.contains(which));
            let start = if refused { 0 } else { self.module_memory(cpu, is_text, len)? };
            refused = start == 0;
            if refused {
                for area in module.areas.iter().rev() {
                    self.module_memory_free(cpu, *area)?;
                }
                return Ok(None);
            }
            self.fill_plain(cpu, VirtAddr(start), len, &[0])?;
            module.areas.push(start);
            if group.iter().any(|which| INIT_LAYOUT.contains(which)) {
                module.init_areas.push(start);
            }
            let mut at = start;
            for which in group {
                module.parts.insert(which, (at, size(which)));
                at += size(which);
            }
        }
        Ok(Some(module))
    }

    /// One allocation, as the version makes it; 0 where it fails.
    fn module_memory(&mut self, cpu: CpuId, text: bool, len: u64) -> Result<u64, Stop> {
        let kind = if text { "EXECMEM_MODULE_TEXT" } else { "EXECMEM_MODULE_DATA" };
        let bit = crate::call_table::EXECMEM_TYPES.iter().find(|(name, _)| *name == kind);
        let bit = bit.map_or(0, |(_, bit)| *bit);
        let got = if !self.caps.yes(Fact::Execmem) {
            self.inner(cpu, "module_alloc", &Args::of(&[len]))?
        } else if self.there("execmem_alloc_rw") {
            self.inner(cpu, "execmem_alloc_rw", &Args::of(&[bit, len]))?
        } else {
            self.inner(cpu, "execmem_alloc", &Args::of(&[bit, len]))?
        };
        Ok(self.used(cpu, got) as u64)
    }

    /// Whether this kernel has a call.
    pub(crate) fn there(&self, name: &str) -> bool {
        crate::calls::find_call(name, self.version, self.arch).is_ok()
    }

    fn module_memory_free(&mut self, cpu: CpuId, area: u64) -> Result<(), Stop> {
        self.text_memory_free(cpu, area)
    }

    /// `flush_module_icache`: each part by itself (before 6.4 the init area, then the core).
    fn flush_module_icache(&mut self, cpu: CpuId, module: &Module) -> Result<(), Stop> {
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
        for (start, len) in spans {
            self.inner(cpu, "flush_icache_range", &Args::of(&[start, start + len]))?;
        }
        Ok(())
    }

    /// The permissions of `complete_formation`; 0, or the error that ends the loading.
    fn module_enable(&mut self, cpu: CpuId, module: &Module) -> Result<i64, Stop> {
        let strict = self.config.on("STRICT_MODULE_RWX");
        let rodata = strict && self.config.rodata_enabled();
        if self.caps.word(Fact::ModuleText) == "ro-then-x" {
            // Results are dropped.
            if rodata {
                let ro = [TEXT, RODATA, INIT_TEXT, INIT_RODATA];
                self.module_reset_perms(cpu, module, &ro)?;
                self.module_set(cpu, module, &ro, "set_memory_ro", false)?;
            }
            if strict {
                let nx = [RODATA, RO_AFTER_INIT, DATA, INIT_RODATA, INIT_DATA];
                self.module_set(cpu, module, &nx, "set_memory_nx", false)?;
            }
            return self.module_set(cpu, module, &TEXTS, "set_memory_x", false);
        }
        if rodata {
            let ro = [RODATA, INIT_RODATA];
            self.module_reset_perms(cpu, module, &ro)?;
            let error = self.module_set(cpu, module, &ro, "set_memory_ro", true)?;
            if error != 0 {
                return Ok(error);
            }
        }
        if strict {
            self.module_reset_perms(cpu, module, &DATAS)?;
            let error = self.module_set(cpu, module, &DATAS, "set_memory_nx", true)?;
            if error != 0 {
                return Ok(error);
            }
        }
        let cached = self.arch == Arch::X86_64 && self.uses_rox_cache("EXECMEM_MODULE_TEXT");
        if cached {
            for which in TEXTS {
                let Some((start, len)) = module.parts.get(&which).copied() else { continue };
                let done = self.inner(cpu, "execmem_restore_rox", &Args::of(&[start, len]))?;
                let error = self.used(cpu, done);
                if error != 0 {
                    return Ok(error);
                }
            }
            return Ok(0);
        }
        self.module_reset_perms(cpu, module, &TEXTS)?;
        let call = if strict { "set_memory_rox" } else { "set_memory_x" };
        self.module_set(cpu, module, &TEXTS, call, true)
    }

    /// The permissions of `do_init_module`.
    fn module_after_init(&mut self, cpu: CpuId, module: &Module) -> Result<i64, Stop> {
        if !self.config.on("STRICT_MODULE_RWX") || !self.config.rodata_enabled() {
            return Ok(0);
        }
        if self.caps.word(Fact::ModuleText) == "ro-then-x" {
            let again = [TEXT, RODATA, INIT_TEXT, INIT_RODATA, RO_AFTER_INIT];
            return self.module_set(cpu, module, &again, "set_memory_ro", false);
        }
        let once_more = self.caps.yes(Fact::AfterInitChecked);
        let which: &[u64] =
            if once_more { &[RODATA, INIT_RODATA, RO_AFTER_INIT] } else { &[RO_AFTER_INIT] };
        self.module_set(cpu, module, which, "set_memory_ro", true)
    }

    /// `set_vm_flush_reset_perms` of the areas of some parts.
    fn module_reset_perms(
        &mut self,
        cpu: CpuId,
        module: &Module,
        which: &[u64],
    ) -> Result<(), Stop> {
        for part in which {
            if let Some((start, _)) = module.parts.get(part) {
                self.inner(cpu, "set_vm_flush_reset_perms", &Args::of(&[*start]))?;
            }
        }
        Ok(())
    }

    /// A permission call over some parts: the first error ends it if results are looked at.
    fn module_set(
        &mut self,
        cpu: CpuId,
        module: &Module,
        which: &[u64],
        call: &str,
        checked: bool,
    ) -> Result<i64, Stop> {
        for part in which {
            let Some((start, len)) = module.parts.get(part).copied() else { continue };
            let done = self.inner(cpu, call, &Args::of(&[start, self.pages.holding(len)]))?;
            if checked {
                let error = self.used(cpu, done);
                if error != 0 {
                    return Ok(error);
                }
            } else {
                self.dropped(cpu, done);
            }
        }
        Ok(0)
    }

    /// The way out of a failed `do_init_module`.
    fn abandon_module(&mut self, cpu: CpuId, base: u64) -> Result<(), Stop> {
        self.inner(cpu, "synchronize_rcu", &Args::default())?;
        self.release_module(cpu, base)
    }

    fn release_module(&mut self, cpu: CpuId, base: u64) -> Result<(), Stop> {
        self.lock(cpu, "module_mutex")?;
        let module = self.users.modules.loaded.remove(&base).unwrap_or_default();
        self.inner(cpu, "synchronize_rcu", &Args::default())?;
        self.unlock(cpu, "module_mutex")?;
        self.forget_text(&module.parts.values().copied().collect::<Vec<Span>>());
        // By type the data goes last, since it holds the module; else the init area goes first.
        let data = module.parts.get(&DATA).map(|s| s.0).filter(|d| module.areas.contains(d));
        let mut order: Vec<u64> = match data {
            Some(data) => {
                module.areas.iter().copied().filter(|a| *a != data).chain([data]).collect()
            }
            None => module.areas.iter().rev().copied().collect(),
        };
        for area in order.drain(..) {
            self.module_memory_free(cpu, area)?;
        }
        Ok(())
    }
}
