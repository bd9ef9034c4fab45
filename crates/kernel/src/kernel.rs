//! A booted kernel: the machine, the kernel's own records, and the way calls are carried out.
//!
//! Modelled: what the calls of [`crate::CALLS`] need to remember between them. Not modelled: tasks
//! and scheduling; what others may run inside of is in `phases`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use textbed_arch::{Arch, CpuId, FRAME_BYTES, Features, Pfn, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{CallRef, Flags, Promise, RefusalReason, View, WarnReason, WindowPurpose};
use textbed_machine::{CpuMask, Machine, MachineError};

use crate::area::{Areas, Frames};
use crate::bpf::Packs;
use crate::call::Failure;
use crate::calls::CallSpec;
use crate::caps::{Caps, Fact};
use crate::config::Config;
use crate::error::{CallError, Stop};
use crate::hotplug::Hotplug;
use crate::layout::{Layout, Range};
use crate::pages::Pages;
use crate::phases::UnderWay;
use crate::powerpc::PowerMmu;
use crate::rox_cache::RoxCache;
use crate::steps::Step;
use crate::text_users::JumpEntry;
use crate::users::Users;
use crate::version::Version;
use crate::vfree::direct_map_step;
use crate::x86::batch::Batch;
use crate::x86::memtype::Memtypes;

/// What a call gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallValue {
    /// The value; a pointer's bits are taken as signed.
    pub value: i64,
    /// Whether it is a failure by the call's convention.
    pub failed: bool,
    /// The instance, for [`View::ResultUsed`] and [`View::ResultDropped`].
    pub call: CallRef,
}

/// A booted kernel on its machine.
pub struct Kernel {
    pub(crate) machine: Machine,
    pub(crate) version: Version,
    pub(crate) arch: Arch,
    pub(crate) features: Features,
    pub(crate) config: Config,
    pub(crate) caps: Caps,
    pub(crate) layout: Layout,
    pub(crate) pages: Pages,
    pub(crate) cpus: u16,
    /// Which of them are online.
    pub(crate) hotplug: Hotplug,
    pub(crate) areas: Areas,
    /// Frames of the kernel text.
    pub(crate) image: Frames,
    /// WARN_ONCE sites that have fired.
    pub(crate) warned: BTreeSet<&'static str>,
    pub(crate) next_window: u32,
    /// Calls so far, by name.
    pub(crate) counts: BTreeMap<&'static str, u32>,
    pub(crate) failures: Vec<Failure>,
    /// The failure whose ENOMEM the next allocation of the current call meets.
    pub(crate) armed: Option<usize>,
    /// The patchers' address spaces: one on x86, one for each CPU on powerpc.
    pub(crate) patch_spaces: Vec<SpaceId>,
    /// powerpc: the page of the vmalloc area that each CPU patches through.
    pub(crate) patch_areas: Vec<VirtAddr>,
    pub(crate) stacks: Vec<Range>,
    pub(crate) packs: Packs,
    /// Ranges that the call under way noted for its promise.
    pub(crate) noted: Vec<(VirtAddr, u64)>,
    /// Calls of several phases, by CPU, innermost last.
    pub(crate) under_way: BTreeMap<CpuId, Vec<UnderWay>>,
    /// The call whose body runs now, if no other made it: to its end or its first step.
    pub(crate) beginning: Option<&'static CallSpec>,
    /// Calls that came to their end while somebody waited for a lock of theirs: not yet told.
    pub(crate) ended: BTreeMap<CpuId, Result<CallValue, CallError>>,
    /// CPUs whose calls go on because somebody waits for a lock of theirs.
    pub(crate) waited_for: Vec<CpuId>,
    /// CPUs whose step or body runs now, and the calls, innermost last.
    pub(crate) running: Vec<(CpuId, &'static CallSpec)>,
    /// CPUs that stand still in `stop_machine`.
    pub(crate) held: CpuMask,
    /// The only CPU so far that made calls, if it unmapped areas.
    pub(crate) untold: Option<CpuId>,
    /// CPUs that made calls.
    pub(crate) callers: CpuMask,
    /// Who has all others stand still, or waits for them to.
    pub(crate) stopping: Option<CpuId>,
    /// Some page was unmapped: page-table pages may be empty.
    pub(crate) unmapped: bool,
    /// Steps that the body or step that runs now leaves behind.
    pub(crate) staged: VecDeque<Step>,
    /// The last call that a step made, once it returned.
    pub(crate) nested: Option<CallValue>,
    /// What the call of the step that runs now is to return.
    pub(crate) value: Option<i64>,
    /// x86: instructions that wait to be, or are being, replaced.
    pub(crate) batch: Batch,
    /// arm64: how often all CPUs stopped to be patched.
    pub(crate) patch_rounds: u32,
    /// Sites of static keys, and the keys that are on.
    pub(crate) jump_entries: Vec<JumpEntry>,
    /// powerpc: out-of-line stubs of BPF programs, by their attach points.
    pub(crate) ool_stubs: BTreeMap<VirtAddr, VirtAddr>,
    pub(crate) keys_on: BTreeSet<u64>,
    /// x86: the cache of executable memory.
    pub(crate) rox_cache: RoxCache,
    /// x86: which memory is not write-back.
    pub(crate) memtypes: Memtypes,
    /// Modules, probes, tracers and others who patch.
    pub(crate) users: Users,
}

impl Kernel {
    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine, to run code on it or to take its events.
    pub fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The architecture.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The options.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The version's facts.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// Where things lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The sizes of its pages.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// The areas of kernel virtual memory.
    #[must_use]
    pub fn areas(&self) -> &Areas {
        &self.areas
    }

    /// Number of CPUs.
    #[must_use]
    pub fn cpus(&self) -> u16 {
        self.cpus
    }

    /// Top (highest address, exclusive) of a CPU's kernel stack; `None` for a CPU that is not
    /// there.
    #[must_use]
    pub fn stack_of(&self, cpu: CpuId) -> Option<VirtAddr> {
        self.stacks.get(cpu.index()).map(|s| VirtAddr(s.end()))
    }

    /// The direct map's address of a frame, if the frame is in memory.
    #[must_use]
    pub fn direct_map_of(&self, pfn: Pfn) -> Option<VirtAddr> {
        let offset = pfn.addr().0;
        (offset < self.layout.direct_map.len).then(|| self.layout.direct_map.start.offset(offset))
    }

    /// Whether an address is kernel text (`core_kernel_text`).
    pub(crate) fn is_core_text(&self, virt: VirtAddr) -> bool {
        self.layout.text.contains(virt)
    }

    /// Whether the direct map can be changed page by page (`can_set_direct_map`).
    pub(crate) fn can_set_direct_map(&self) -> bool {
        match self.arch {
            Arch::X86_64 => true,
            Arch::Arm64 => {
                let pool = self.config.get("kfence").unwrap_or("n");
                let kfence = self.caps.yes(Fact::KfenceByPages) && pool != "n"
                    || self.caps.word(Fact::KfenceByPages) == "if-late" && pool == "late";
                self.rodata_full() || self.config.on("debug_pagealloc") || kfence
            }
            _ => false,
        }
    }

    /// arm64: whether the direct map follows the permissions of areas (`rodata_enabled &&
    /// rodata_full`), by what the version makes of the boot parameter.
    pub(crate) fn rodata_full(&self) -> bool {
        match self.config.get("rodata") {
            Some("full") => true,
            Some("on") => self.caps.yes(Fact::RodataOnFull),
            _ => false,
        }
    }

    /// Flags of an event that rests on these facts.
    pub(crate) fn flags_of(&self, facts: &[Fact]) -> Flags {
        if facts.iter().any(|f| self.caps.from_memory(*f)) {
            Flags::FROM_MEMORY
        } else {
            Flags::default()
        }
    }

    /// Emits an event of the kernel's own, about kernel space.
    pub(crate) fn emit(&mut self, cpu: CpuId, flags: Flags, view: View) {
        self.machine.emit_in(cpu, SpaceId::KERNEL, flags, textbed_event::OpId::NONE, view);
    }

    /// Names a range, for people.
    pub(crate) fn region(&mut self, cpu: CpuId, virt: VirtAddr, len: u64, owner: &str, name: &str) {
        self.region_of(cpu, (virt, len), owner, name, Flags::default());
    }

    /// Names a range in which others get their places.
    pub(crate) fn zone(&mut self, cpu: CpuId, virt: VirtAddr, len: u64, owner: &str, name: &str) {
        self.region_of(cpu, (virt, len), owner, name, Flags::ZONE);
    }

    fn region_of(
        &mut self,
        cpu: CpuId,
        (virt, len): (VirtAddr, u64),
        owner: &str,
        name: &str,
        flags: Flags,
    ) {
        let owner = self.machine.recorder().name(owner);
        let name = self.machine.recorder().name(name);
        self.emit(cpu, flags, View::Region { virt, len, owner, name });
    }

    /// WARN_ON_ONCE: complains the first time that `site` is reached.
    pub(crate) fn warn_once(
        &mut self,
        cpu: CpuId,
        site: &'static str,
        reason: WarnReason,
        virt: VirtAddr,
    ) {
        if self.warned.insert(site) {
            self.warn(cpu, reason, virt);
        }
    }

    /// WARN_ON.
    pub(crate) fn warn(&mut self, cpu: CpuId, reason: WarnReason, virt: VirtAddr) {
        let call = self.machine.current_call(cpu);
        self.emit(cpu, Flags::default(), View::Warned { call, reason, virt });
    }

    /// Says that the current call refuses a change of permissions.
    pub(crate) fn refuse(
        &mut self,
        cpu: CpuId,
        flags: Flags,
        what: Promise,
        reason: RefusalReason,
        virt: VirtAddr,
        len: u64,
    ) {
        let call = self.machine.current_call(cpu);
        let len = len.min(MAX_REFUSED_BYTES);
        self.emit(cpu, flags, View::Refused { call, what, reason, virt, len });
    }

    /// Opens an authorised alias of physical memory.
    pub(crate) fn open_window(
        &mut self,
        cpu: CpuId,
        purpose: WindowPurpose,
        phys: PhysAddr,
        len: u64,
    ) -> u32 {
        self.next_window += 1;
        let window = self.next_window;
        self.emit(cpu, Flags::default(), View::WindowOpened { window, purpose, phys, len });
        window
    }

    /// Closes it.
    pub(crate) fn close_window(&mut self, cpu: CpuId, window: u32) {
        self.emit(cpu, Flags::default(), View::WindowClosed { window });
    }

    /// Whether the allocation that a call is about to make fails by injection.
    pub(crate) fn allocation_fails(&mut self) -> bool {
        let Some(failure) = self.armed.and_then(|index| self.failures.get_mut(index)) else {
            return false;
        };
        if failure.spared > 0 {
            failure.spared -= 1;
            return false;
        }
        failure.used = true;
        self.armed = None;
        true
    }

    /// The first frame of each page in runs of frames, which are whole pages.
    pub(crate) fn pages_of(&self, runs: &[Frames]) -> impl Iterator<Item = Pfn> + use<> {
        let step = usize::try_from(self.pages.frames()).unwrap_or(usize::MAX);
        let runs = runs.to_vec();
        let each = |run: Frames| run.pfn.0..run.pfn.0.saturating_add(run.count);
        runs.into_iter().flat_map(move |run| each(run).step_by(step)).map(Pfn)
    }

    /// Frames from the page allocator, whole pages, contents left as they are; `None` = out of
    /// memory. A failure to inject is the caller's to ask for, once an allocation:
    /// [`Kernel::allocation_fails`].
    pub(crate) fn alloc_frames(
        &mut self,
        cpu: CpuId,
        count: u64,
        align_shift: u32,
    ) -> Result<Option<Pfn>, Stop> {
        match self.machine.alloc_frames(cpu, count, align_shift, false) {
            Ok(pfn) => {
                self.debug_map_pages(cpu, pfn, count, true)?;
                Ok(Some(pfn))
            }
            Err(MachineError::OutOfMemory { .. } | MachineError::BadBlock { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Frames back to the page allocator, which takes them out of the direct map then: who gave
    /// them back left them there.
    pub(crate) fn free_frames(&mut self, cpu: CpuId, pfn: Pfn, count: u64) -> Result<(), Stop> {
        self.machine.free_frames(cpu, pfn, count)?;
        self.debug_map_pages(cpu, pfn, count, false)
    }

    /// `debug_pagealloc_map_pages`, `debug_pagealloc_unmap_pages`: free pages are not in the direct
    /// map. x86 flushes its own CPU alone (`__kernel_map_pages`); powerpc's radix has nothing, its
    /// hashed tables an entry of each page.
    fn debug_map_pages(
        &mut self,
        cpu: CpuId,
        pfn: Pfn,
        count: u64,
        present: bool,
    ) -> Result<(), Stop> {
        let hashed = self.power_mmu() == Some(PowerMmu::Hash64);
        if !self.config.on("debug_pagealloc") || self.arch.is_powerpc() && !hashed {
            return Ok(());
        }
        if hashed {
            return (self.pages_of(&[Frames { pfn, count }]))
                .try_for_each(|page| self.hash_map_linear(cpu, page, present));
        }
        for page in self.pages_of(&[Frames { pfn, count }]) {
            self.at_once(cpu, direct_map_step(page, present))?;
        }
        if self.arch == Arch::X86_64 {
            return self.x86_flush_local(cpu);
        }
        let Some(start) = self.direct_map_of(pfn) else { return Ok(()) };
        self.flush_kernel_range(cpu, start.0, start.0.saturating_add(count * FRAME_BYTES))
    }

    /// Takes a lock that the kernel sleeps or spins on. If a call under way on another CPU holds
    /// it, that one goes on first; a wait for one that was taken across calls is not modelled.
    pub(crate) fn lock(&mut self, cpu: CpuId, name: &str) -> Result<(), Stop> {
        match self.machine.lock(cpu, name) {
            Ok(()) => Ok(()),
            Err(MachineError::LockHeld { by, .. }) if by == cpu => {
                Err(Stop::died(format!("deadlock: {name} is held by the caller"), VirtAddr(0)))
            }
            Err(MachineError::LockHeld { by, .. }) => {
                self.wait_out(name, by)?;
                Ok(self.machine.lock(cpu, name)?)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Releases it.
    pub(crate) fn unlock(&mut self, cpu: CpuId, name: &str) -> Result<(), Stop> {
        Ok(self.machine.unlock(cpu, name)?)
    }
}

/// Longest range that a refusal can carry (see [`View::Refused`]).
const MAX_REFUSED_BYTES: u64 = (1 << 40) - 1;
