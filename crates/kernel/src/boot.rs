//! Booting: a machine with memory mapped as Linux leaves it when the first task runs.
//!
//! Modelled: kernel text, direct map by the leaves that Linux uses, the patchers' address spaces, a
//! stack for each CPU; text read-only and executable with its direct-map alias read-only, where the
//! options say so. From: Linux 6.12 arch/x86/mm/init_64.c, arch/arm64/mm/mmu.c,
//! arch/powerpc/mm/book3s64/radix_pgtable.c, and 5.19. Not modelled: how it gets there, KASLR, the
//! kernel's data and bss, memory holes, NUMA, more than one image section.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use textbed_arch::cache::CacheGeometry;
use textbed_arch::hashed::HPT_3_0;
use textbed_arch::paging::Attributes;
use textbed_arch::{Arch, CpuId, FRAME_BYTES, Features, Perm, Pfn, PhysAddr, SpaceId, VirtAddr};
use textbed_event::WindowPurpose;
use textbed_machine::{CpuMask, DataOrder, InstructionCache, Machine, MachineConfig, Policy};

use crate::area::{Area, Areas, Frames, vm_flags};
use crate::bpf::Packs;
use crate::caps::{Caps, Fact};
use crate::config::Config;
use crate::error::{KernelError, Stop};
use crate::hotplug::Hotplug;
use crate::kernel::Kernel;
use crate::layout::{Layout, Range, TEXT_BYTES};
use crate::pages::{Pages, Paging};
use crate::powerpc::{PowerMmu, hash, hash32};
use crate::rox_cache::RoxCache;
use crate::users::Users;
use crate::version::{Version, simulated};
use crate::vmalloc::Request;
use crate::x86::batch::Batch;
use crate::x86::memtype::Memtypes;

/// What to boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootArgs {
    /// The version; one that [`simulated`] lists.
    pub version: Version,
    /// The architecture.
    pub arch: Arch,
    /// Options of that architecture.
    pub config: Config,
    /// CPU features.
    pub features: Features,
    /// Number of CPUs.
    pub cpus: u16,
}

/// Bytes of a kernel stack (`THREAD_SIZE`), at least a page.
const fn stack_bytes(arch: Arch) -> u64 {
    if matches!(arch, Arch::Ppc32) { 8 << 10 } else { 16 << 10 }
}

/// x86: memory that nobody gets (Linux 6.12, 7.0 arch/x86/kernel/setup.c reserves the first MiB).
const LOW_BYTES: u64 = 1 << 20;

impl Kernel {
    /// Boots. CPU 0 does it; afterwards every CPU has the kernel's address space loaded.
    ///
    /// # Errors
    /// A version, architecture or feature that is not modelled, or a machine that cannot be.
    pub fn boot(args: BootArgs, policy: Box<dyn Policy>) -> Result<Kernel, KernelError> {
        let BootArgs { version, arch, config, mut features, cpus } = args;
        let not = |what: String| Err(KernelError::NotModelled { what });
        if config.arch() != arch {
            return Err(KernelError::ConfigArch { config: config.arch(), arch });
        }
        if !simulated().any(|v| v == version) {
            let known: Vec<String> = simulated().map(|v| v.to_string()).collect();
            return not(format!("kernel {version} (simulated are {})", known.join(", ")));
        }
        let mmu = PowerMmu::of(arch, features);
        let hashed = mmu.is_some_and(PowerMmu::is_hashed);
        if mmu.is_some_and(|mmu| mmu != PowerMmu::Radix) && !features.contains(Features::PPC_TLBIE)
        {
            return not(format!("translation other than radix without tlbie on {arch}"));
        }
        if mmu == Some(PowerMmu::Soft8xx) && cpus > 1 {
            return not(format!("{cpus} CPUs on an 8xx, which has one"));
        }
        if arch == Arch::Ppc32 && config.on("debug_pagealloc") {
            return not("debug_pagealloc on 32-bit powerpc".to_owned());
        }
        let caps = Caps::new(version, arch);
        if caps.yes(Fact::PcidOffByErratum) && features.contains(Features::X86_INVLPG_MISS) {
            features.remove(Features::X86_PCID);
        }
        let memory_bytes = config.count("memory_mib") << 20;
        let page_shift = config.page_shift();
        let size = 1u64 << (page_shift - 10);
        let paging = config.paging(hashed);
        // The tree beside hashed tables is not the machine's.
        let tree = if hashed { Paging::new(arch, page_shift) } else { paging };
        let Some(pages) = Pages::of(paging) else {
            let tables = match hashed {
                true => "hashed tables".to_owned(),
                false => format!("{} bits of addresses", paging.va_bits),
            };
            return not(format!("{arch} with {tables} and pages of {size} KiB"));
        };
        let Some(layout) = Layout::of(version, paging, memory_bytes) else {
            return not(match Layout::row(version, paging) {
                Some(_) => {
                    format!("the address-space layout of {arch} with {memory_bytes:#x} bytes")
                }
                None => format!(
                    "Linux {version} on {arch} with {} bits of addresses and pages of {size} KiB",
                    paging.va_bits
                ),
            });
        };
        let icache = match config.count("icache_sets") as u32 {
            0 => InstructionCache::Adversarial,
            sets => InstructionCache::Sets { sets, ways: config.count("icache_ways") as u32 },
        };
        let own_geometry = match config.count("first_cpu_iline") as u32 {
            0 => Vec::new(),
            iline_bytes => {
                let geometry = CacheGeometry { iline_bytes, ..CacheGeometry::default_for(arch) };
                vec![(CpuId(0), geometry)]
            }
        };
        let mut machine = Machine::new(
            MachineConfig {
                arch,
                cpus,
                memory_bytes,
                page_shift: u8::try_from(page_shift).unwrap_or(u8::MAX),
                va_bits: u8::try_from(tree.va_bits).unwrap_or(u8::MAX),
                features,
                data_order: DataOrder::Architecture,
                icache,
                own_geometry,
                kernel: Some(version.to_string()),
                ..MachineConfig::new(arch)
            },
            policy,
        )?;
        let mut image = Frames { pfn: image_pfn(arch), count: TEXT_BYTES / FRAME_BYTES };
        match mmu {
            Some(PowerMmu::Hash64) => {
                let software = hash::software(pages, config.on("debug_pagealloc"));
                machine.use_hashed(software, hash_group_bits(memory_bytes, page_shift))?;
                image.count = (1 << hash::LINEAR_SHIFT) / FRAME_BYTES;
            }
            Some(PowerMmu::Hash32) => {
                let software = hash32::software(caps.yes(Fact::HashPageExec));
                machine.use_hashed(software, hash32_group_bits(memory_bytes))?;
            }
            _ => {}
        }
        let mut kernel = Kernel {
            machine,
            version,
            arch,
            features,
            config,
            caps,
            layout,
            pages,
            cpus,
            hotplug: Hotplug::new(cpus),
            areas: Areas::default(),
            image,
            warned: BTreeSet::new(),
            next_window: 0,
            counts: BTreeMap::new(),
            failures: Vec::new(),
            armed: None,
            patch_spaces: Vec::new(),
            patch_areas: Vec::new(),
            stacks: Vec::new(),
            packs: Packs::default(),
            noted: Vec::new(),
            untold: None,
            under_way: BTreeMap::new(),
            beginning: None,
            ended: BTreeMap::new(),
            waited_for: Vec::new(),
            running: Vec::new(),
            held: CpuMask::EMPTY,
            callers: CpuMask::EMPTY,
            stopping: None,
            unmapped: false,
            staged: VecDeque::new(),
            nested: None,
            value: None,
            batch: Batch::default(),
            patch_rounds: 0,
            jump_entries: Vec::new(),
            ool_stubs: BTreeMap::new(),
            keys_on: BTreeSet::new(),
            rox_cache: RoxCache::default(),
            memtypes: Memtypes::default(),
            users: Users::default(),
        };
        kernel.set_up().map_err(|stop| KernelError::Boot(stop.of("boot").to_string()))?;
        kernel.machine.settle_data();
        Ok(kernel)
    }

    fn set_up(&mut self) -> Result<(), Stop> {
        let boot = CpuId(0);
        self.machine.claim_frames(self.image.pfn, self.image.count)?;
        if self.arch == Arch::X86_64 {
            self.machine.claim_frames(Pfn(0), LOW_BYTES / FRAME_BYTES)?;
        }
        self.map_direct(boot)?;
        self.map_text(boot)?;
        self.after_new_mapping(boot)?;
        self.name_regions(boot);
        self.platform_windows(boot);
        for cpu in (0..self.cpus).map(CpuId) {
            self.machine.load_space(cpu, SpaceId::KERNEL, 0, false)?;
        }
        self.patchers(boot)?;
        for _ in 0..self.cpus {
            let range = self.layout.vmalloc;
            let bytes = stack_bytes(self.arch).max(self.pages.bytes());
            let request =
                Request { size: bytes, align: bytes, range, perm: Perm::KERNEL_RW, flags: 0 };
            let made = move |k: &mut Kernel, boot, start| {
                if start == 0 {
                    return Err(Stop::not_modelled("a machine without memory for stacks"));
                }
                let name = format!("cpu {}", k.stacks.len());
                k.region(boot, VirtAddr(start), bytes, "stack", &name);
                k.stacks.push(Range { start: VirtAddr(start), len: bytes });
                Ok(())
            };
            self.at_once(boot, request.steps(Box::new(made)))?;
        }
        Ok(())
    }

    /// Whether kernel text is protected.
    fn text_protected(&self) -> bool {
        self.config.on("STRICT_KERNEL_RWX") && self.config.rodata_enabled()
    }

    /// Kernel text, in large leaves where it is aligned to these; on powerpc it is part of the
    /// direct map.
    fn map_text(&mut self, cpu: CpuId) -> Result<(), Stop> {
        if self.arch.is_powerpc() {
            return Ok(());
        }
        let perm = if self.text_protected() { Perm::KERNEL_ROX } else { Perm::KERNEL_RWX };
        let (virt, phys) = (self.layout.text.start, self.image.pfn.addr());
        let whole = [virt.0, phys.0, TEXT_BYTES].iter().all(|n| n % self.pages.pmd_bytes() == 0);
        let pse = self.arch != Arch::X86_64 || self.features.contains(Features::X86_PSE);
        let shift = if whole && pse { self.pages.pmd_shift() } else { self.pages.shift() };
        self.machine.map(cpu, SpaceId::KERNEL, virt, phys, TEXT_BYTES, shift, perm)?;
        if self.layout.vmalloc.contains(virt) {
            // arm64's image lies in the vmalloc area, as an area without pages of its own.
            let (size, frames) = (TEXT_BYTES, Vec::new());
            let (start, len, flags, page_order) = (virt, size, 0, 0);
            let node = None;
            self.areas.insert(Area { start, size, len, flags, page_order, frames, node });
        }
        Ok(())
    }

    /// The direct map: each stretch by the largest leaves that fit and that Linux uses there.
    fn map_direct(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let memory = self.layout.direct_map.len;
        let image = self.image.pfn.addr().0;
        let image_end = image + TEXT_BYTES;
        let protected = self.text_protected();
        let text = match (self.arch.is_powerpc(), protected) {
            (true, true) => Perm::KERNEL_ROX,
            (true, false) => Perm::KERNEL_RWX,
            (false, true) => Perm::KERNEL_RO,
            (false, false) => Perm::KERNEL_RW,
        };
        match self.power_mmu() {
            Some(PowerMmu::Hash64) => return self.hash_bolt_linear(cpu, text),
            Some(PowerMmu::Hash32) => return self.hash32_map_low(cpu, protected),
            _ => {}
        }
        // Large leaves around the image end at a gigabyte boundary: the image's own permissions
        // keep the leaf that would cover it from being one.
        let stretches = [
            (0, image, Perm::KERNEL_RW),
            (image, image_end, text),
            (image_end, memory, Perm::KERNEL_RW),
        ];
        for (start, end, perm) in stretches {
            let mut at = start;
            while at < end {
                let (shift, len) = self.direct_leaf(at, end, start == image);
                let virt = self.layout.direct_map.start.offset(at);
                self.map_leaves(cpu, virt, at, (len, shift), perm, start == image)?;
                at += len;
            }
        }
        Ok(())
    }

    /// Maps leaves of one size in the direct map; on arm64 whole groups of small pages and of PMD
    /// leaves by the contiguous bit, but for the image's alias, which is remapped, and where all
    /// is made of pages (`alloc_init_cont_pte`, `alloc_init_cont_pmd`, NO_CONT_MAPPINGS).
    fn map_leaves(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        phys: u64,
        (len, shift): (u64, u32),
        perm: Perm,
        image: bool,
    ) -> Result<(), Stop> {
        let wanted = !image && !self.arm64_by_pages() && shift <= self.pages.pmd_shift();
        let group = self.machine.format().group_shift_of(shift).filter(|_| wanted);
        let bytes = 1 << group.unwrap_or(shift);
        let end = phys + len;
        let from = phys.next_multiple_of(bytes).min(end);
        let to = (end & !(bytes - 1)).max(from);
        for (part, until, contiguous) in
            [(phys, from, false), (from, to, group.is_some()), (to, end, false)]
        {
            if until > part {
                let what = (virt.offset(part - phys), PhysAddr(part), until - part);
                let attributes = Attributes { contiguous, ..Attributes::default() };
                self.machine.map_as(cpu, SpaceId::KERNEL, what, shift, (perm, attributes))?;
            }
        }
        Ok(())
    }

    /// Leaf size from a physical address on, and how many bytes can be mapped by it. arm64 maps the
    /// alias of its image by blocks even where the rest is made of pages.
    fn direct_leaf(&self, at: u64, end: u64, image: bool) -> (u32, u64) {
        let by_pages = match self.arch {
            Arch::X86_64 => self.config.on("debug_pagealloc"),
            Arch::Arm64 => self.arm64_by_pages() && !image,
            // 8 MiB and 512 KiB, of which the format has none.
            Arch::Ppc32 => true,
            _ => false,
        };
        let (page, pmd) = (self.pages.shift(), self.pages.pmd_shift());
        if by_pages {
            return (page, end - at);
        }
        let has = |shift: &u32| match self.arch {
            Arch::X86_64 if *shift > pmd => self.features.contains(Features::X86_GBPAGES),
            Arch::X86_64 => self.features.contains(Features::X86_PSE),
            _ => true,
        };
        let mut above: Option<u32> = None;
        for shift in self.machine.format().leaf_shifts().filter(|s| *s > page).filter(has) {
            let bytes = 1u64 << shift;
            if at.is_multiple_of(bytes) && end - at >= bytes {
                let whole = end & !(bytes - 1);
                // Up to where a larger leaf begins to fit.
                let limit = above.map_or(whole, |above| {
                    let next = (at + 1).next_multiple_of(1 << above);
                    if next.saturating_add(1 << above) <= end { next } else { whole }
                });
                return (shift, limit.min(whole) - at);
            }
            above = Some(shift);
        }
        let next = (at + 1).next_multiple_of(1 << pmd);
        (page, next.min(end) - at)
    }

    fn name_regions(&mut self, cpu: CpuId) {
        let layout = self.layout;
        self.region(cpu, layout.text.start, layout.text.len, "kernel", "text");
        self.zone(cpu, layout.direct_map.start, layout.direct_map.len, "direct map", "");
        self.zone(cpu, layout.vmalloc.start, layout.vmalloc.len, "vmalloc", "");
        if layout.modules != layout.vmalloc {
            self.zone(cpu, layout.modules.start, layout.modules.len, "modules", "");
        }
    }

    /// Where the direct map never follows a change of permissions, it says so once for all of it
    /// but the kernel's text.
    fn platform_windows(&mut self, cpu: CpuId) {
        let follows = match self.caps.word(Fact::AliasFollows) {
            "if-rodata-full" => self.rodata_full(),
            _ => self.caps.yes(Fact::AliasFollows),
        };
        if follows {
            return;
        }
        let image = self.image.pfn.addr().0;
        let image_end = image + self.image.count * FRAME_BYTES;
        for (start, end) in [(0, image), (image_end, self.layout.direct_map.len)] {
            if end > start {
                let phys = textbed_arch::PhysAddr(start);
                self.open_window(cpu, WindowPurpose::Platform, phys, end - start);
            }
        }
    }

    /// What the patchers need: a poking space, a space for each CPU, or a vmalloc page for each.
    fn patchers(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let spaces = match self.patch_alias() {
            "poking-mm" => 1,
            "mm-if-radix-smp" => self.cpus,
            _ => 0,
        };
        for _ in 0..spaces {
            let space = self.machine.new_space(cpu)?;
            self.patch_spaces.push(space);
        }
        if self.patch_alias() == "vm-area" {
            for _ in 0..self.cpus {
                let page = self.pages.bytes();
                let size = 2 * page;
                let place = self.areas.fit(self.layout.vmalloc, size, page);
                let start =
                    place.ok_or_else(|| Stop::not_modelled("a vmalloc area without addresses"))?;
                let flags = vm_flags::VM_ALLOC;
                let (len, page_order, frames) = (page, 0, Vec::new());
                let node = None;
                self.areas.insert(Area { start, size, len, flags, page_order, frames, node });
                self.patch_areas.push(start);
            }
        }
        Ok(())
    }
}

/// Names of the page-table formats on which [`Kernel::boot`] runs a kernel of `arch`; the tree and
/// the entries of hashed tables, where it can have these.
#[must_use]
pub fn booted_formats(arch: Arch) -> Vec<&'static str> {
    let mut names = Vec::new();
    for paging in Paging::all(arch) {
        let laid_out = |v| Layout::of(v, paging, 256 << 20).is_some();
        let (Some(tree), true) = (paging.tree(), simulated().any(laid_out)) else { continue };
        names.push(tree.name);
        let more: &[&str] = match arch {
            _ if !paging.hashed => &[],
            Arch::Ppc32 => &[hash32::tree(false).name, hash32::ENTRIES.name],
            _ if names.contains(&HPT_3_0.name) => &[],
            _ => &[HPT_3_0.name],
        };
        names.extend_from_slice(more);
    }
    names
}

/// The same of 32-bit: an eighth of a group for each page (`MMU_init_hw`).
fn hash32_group_bits(memory_bytes: u64) -> u32 {
    hash_group_bits(memory_bytes, 12).saturating_sub(2).max(10)
}

/// `log2` of the groups of the hashed table: two pages for each group
/// (`htab_shift_for_mem_size`).
fn hash_group_bits(memory_bytes: u64, page_shift: u32) -> u32 {
    let rounded = memory_bytes.max(1).next_power_of_two();
    rounded.trailing_zeros().saturating_sub(page_shift + 1)
}

/// Where the image lies in memory.
fn image_pfn(arch: Arch) -> Pfn {
    match arch {
        Arch::X86_64 => Pfn((16 << 20) / FRAME_BYTES),
        Arch::Arm64 => Pfn((2 << 20) / FRAME_BYTES),
        _ => Pfn(0),
    }
}
