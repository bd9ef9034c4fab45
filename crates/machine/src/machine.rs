//! The machine as a whole: its configuration, its state, and what each CPU has of its own.

use std::collections::BTreeMap;

use textbed_arch::cache::CacheGeometry;
use textbed_arch::paging::{Controls, Format};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, Features, PhysAddr, SpaceId};
use textbed_event::{CallRef, Context, CpuState, Facts, Header, KindSet, Recorder, Source};

use crate::alone::Users;
use crate::choice::{Choices, Policy};
use crate::controls::Registers;
use crate::data::{DataOrder, DataSide, Past};
use crate::frames::Frames;
use crate::icache::{Icache, InstructionCache};
use crate::ipi::{Queued, Serving};
use crate::iside::Ahead;
use crate::leave_out::Watch;
use crate::lines::Lines;
use crate::locks::Held;
use crate::maintain::Pending;
use crate::memory::Memory;
use crate::quiet::Quiet;
use crate::spaces::Space;
use crate::tables::{Groups, Hashed};
use crate::tlb::Tlb;
use crate::upper::Upper;
use crate::wait::Waiting;
use crate::{MAX_CPUS, MachineError};

/// What a machine is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// The architecture.
    pub arch: Arch,
    /// Number of CPUs, 1 to [`MAX_CPUS`].
    pub cpus: u16,
    /// Physical memory in bytes, from address 0: a multiple of 4 KiB, at least 1 MiB. What is not
    /// written to costs nothing.
    pub memory_bytes: u64,
    /// `log2` of the kernel's base page in bytes.
    pub page_shift: u8,
    /// Bits of an address that the tree translates: 48 or 57 on x86-64; 36 to 52 on arm64, of
    /// those that a granule has; 52 with powerpc's radix tree, 32 on 32-bit powerpc.
    pub va_bits: u8,
    /// CPU features.
    pub features: Features,
    /// Line sizes: powers of two, 4 to 2048 bytes (what arm64's CTR_EL0 can express).
    pub geometry: CacheGeometry,
    /// CPUs whose own line sizes are others, as in systems with big and little cores. The header
    /// of the stream has the smallest, which is what a kernel goes by.
    pub own_geometry: Vec<(CpuId, CacheGeometry)>,
    /// How instruction caches are modelled.
    pub icache: InstructionCache,
    /// In which order the CPUs see each other's loads and stores.
    pub data_order: DataOrder,
    /// The kernel's version, for the stream's header.
    pub kernel: Option<String>,
}

impl MachineConfig {
    /// Two CPUs, 16 GiB, 4 KiB pages, the architecture's default features, data accesses in order.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self {
            arch,
            cpus: 2,
            memory_bytes: 16 << 30,
            page_shift: 12,
            va_bits: Format::for_kernel(arch, 12).map_or(48, |format| format.va_bits as u8),
            features: Features::default_for(arch),
            geometry: CacheGeometry::default_for(arch),
            own_geometry: Vec::new(),
            icache: InstructionCache::Adversarial,
            data_order: DataOrder::Sequential,
            kernel: None,
        }
    }

    /// The line sizes of one CPU.
    #[must_use]
    pub fn geometry_of(&self, cpu: CpuId) -> CacheGeometry {
        let own = self.own_geometry.iter().rev().find(|(c, _)| *c == cpu);
        own.map_or(self.geometry, |(_, geometry)| *geometry)
    }
}

/// What one CPU has of its own.
#[derive(Clone)]
pub(crate) struct PerCpu {
    pub(crate) calls: Vec<CallRef>,
    pub(crate) irqs_on: bool,
    pub(crate) context: Context,
    pub(crate) state: CpuState,
    /// The space it has loaded, and under which identifier.
    pub(crate) space: SpaceId,
    pub(crate) asid: u16,
    /// Spaces loaded before whose translations it may still hold.
    pub(crate) known: Vec<(SpaceId, u16)>,
    pub(crate) controls: Controls,
    pub(crate) registers: Registers,
    pub(crate) tlb: Tlb,
    /// Upper table entries that the tables no longer have.
    pub(crate) uppers: Vec<Upper>,
    pub(crate) ahead: Ahead,
    /// Its instruction cache, if it has sets and ways.
    pub(crate) icache: Option<Icache>,
    pub(crate) pending: Pending,
    pub(crate) data: DataSide,
    /// Cross-calls that it has not taken, and those that it is serving.
    pub(crate) ipis: Vec<Queued>,
    pub(crate) serving: Vec<Serving>,
    /// Number of the granule that it has reserved.
    pub(crate) reserved: Option<u64>,
    pub(crate) waiting: Waiting,
}

/// The hardware. See the crate's page for what is modelled.
pub struct Machine {
    pub(crate) config: MachineConfig,
    pub(crate) format: &'static Format,
    /// The hashed table, where CPUs read that and not `format`'s trees.
    pub(crate) hashed: Option<Hashed>,
    pub(crate) memory: Memory,
    pub(crate) frames: Frames,
    pub(crate) spaces: Vec<Space>,
    pub(crate) cpus: Vec<PerCpu>,
    /// Leaves that translate together and do not agree.
    pub(crate) groups: Groups,
    pub(crate) lines: Lines,
    /// Who used which frame for data.
    pub(crate) users: Users,
    /// Data that loads may still see.
    pub(crate) past: Past,
    pub(crate) choices: Choices,
    pub(crate) recorder: Recorder,
    pub(crate) locks: BTreeMap<String, Held>,
    pub(crate) slots: BTreeMap<String, u64>,
    pub(crate) next_ipi: u32,
    /// Counts what happened; every change of state has a moment of its own.
    pub(crate) tick: u64,
    /// A store changed frames of page tables.
    pub(crate) tables_overwritten: bool,
    /// Data accesses may be seen out of order.
    pub(crate) reorders: bool,
    /// Some CPU may have a reservation, or watch a line.
    pub(crate) watchers: bool,
    /// Counts what may end a wait.
    pub(crate) stirs: u64,
    /// Room for a list that every store to code makes.
    pub(crate) floors: Vec<u64>,
    /// Whom grace periods wait for.
    pub(crate) quiet: Quiet,
    /// What synchronises, if somebody wants to know.
    pub(crate) syncs: Option<Box<Watch>>,
}

impl Machine {
    /// A machine whose kernel space has an empty root table, loaded on every CPU.
    ///
    /// # Errors
    /// A configuration that makes no machine, or page tables that are not modelled.
    pub fn new(config: MachineConfig, policy: Box<dyn Policy>) -> Result<Machine, MachineError> {
        let what = "page tables of this architecture, page size and number of address bits";
        let format = Format::for_kernel(config.arch, u32::from(config.page_shift))
            .and_then(|format| format.with_va_bits(config.va_bits.into()))
            .ok_or(MachineError::NotModelled { what, arch: config.arch })?;
        if config.cpus == 0 || config.cpus > MAX_CPUS {
            return Err(MachineError::Config("between 1 and 1024 CPUs"));
        }
        let most = 1u64 << format.pa_bits.min(56);
        if !config.memory_bytes.is_multiple_of(FRAME_BYTES)
            || config.memory_bytes < 1 << 20
            || config.memory_bytes > most
        {
            return Err(MachineError::Config(
                "memory is a multiple of 4 KiB, at least 1 MiB, and fits physical addresses",
            ));
        }
        if config.features.contains(Features::ARM_DIC)
            && !config.features.contains(Features::ARM_IDC)
        {
            return Err(MachineError::Config("arm64 DIC=1 requires IDC=1"));
        }
        let own = config.own_geometry.iter();
        for g in own.map(|(_, g)| *g).chain([config.geometry]) {
            let wrong = |b: u32| !b.is_power_of_two() || !(4..=2048).contains(&b);
            if wrong(g.dline_bytes) || wrong(g.iline_bytes) {
                return Err(MachineError::Config("lines are a power of two from 4 to 2048 bytes"));
            }
        }
        if config.own_geometry.iter().any(|(cpu, _)| cpu.0 >= config.cpus) {
            return Err(MachineError::Config("lines of a CPU that there is not"));
        }
        if !config.icache.is_valid() {
            return Err(MachineError::Config(
                "an instruction cache has a power of two of sets up to 65536, and 1 to 64 ways",
            ));
        }
        let frames = Frames::new(config.memory_bytes / FRAME_BYTES);
        let lines = Lines::new(&config);
        let cache_of = |n| config.icache.build(config.geometry_of(CpuId(n)).iline_bytes);
        let cpus = (0..config.cpus).map(|n| PerCpu::new(cache_of(n))).collect();
        let reorders = config.data_order == DataOrder::Architecture
            && config.cpus > 1
            && !policy.always_newest();
        let mut machine = Machine {
            memory: Memory::new(config.memory_bytes),
            config,
            format,
            hashed: None,
            frames,
            spaces: Vec::new(),
            cpus,
            groups: Groups::default(),
            lines,
            users: Users::default(),
            past: Past::default(),
            choices: Choices::new(policy),
            recorder: Recorder::new(),
            locks: BTreeMap::new(),
            slots: BTreeMap::new(),
            next_ipi: 0,
            tick: 0,
            tables_overwritten: false,
            reorders,
            watchers: false,
            stirs: 0,
            floors: Vec::new(),
            quiet: Quiet::default(),
            syncs: None,
        };
        let root = machine.new_table(0)?;
        machine.spaces.push(Space::new(root));
        Ok(machine)
    }

    /// What the machine is made of.
    #[must_use]
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Its architecture.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.config.arch
    }

    /// Its CPU features.
    #[must_use]
    pub fn features(&self) -> Features {
        self.config.features
    }

    /// Its page-table format.
    #[must_use]
    pub fn format(&self) -> &'static Format {
        self.format
    }

    /// Number of CPUs.
    #[must_use]
    pub fn cpus(&self) -> u16 {
        self.config.cpus
    }

    /// The frame of the event stream: the simulator sees everything, in total order.
    #[must_use]
    pub fn header(&self) -> Header {
        let (dline, iline) = self.lines.geometry();
        Header {
            arch: self.config.arch,
            kernel: self.config.kernel.clone(),
            source: Source::Simulator,
            cpus: self.config.cpus,
            page_shift: self.config.page_shift,
            features: self.config.features,
            dline_bytes: dline,
            iline_bytes: iline,
            records: KindSet::ALL,
            facts: Facts::all(),
        }
    }

    /// The decisions taken so far: the witness of this run. Not part of the stream.
    #[must_use]
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// Frames of memory that hold bytes of their own: what the modelled memory really costs.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.memory.frames_held()
    }

    pub(crate) fn has(&self, feature: Features) -> bool {
        self.config.features.contains(feature)
    }

    /// The next moment.
    pub(crate) fn advance(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(crate) fn cpu(&self, cpu: CpuId) -> Result<&PerCpu, MachineError> {
        let cpus = self.config.cpus;
        self.cpus.get(cpu.index()).ok_or(MachineError::NoCpu { cpu, cpus })
    }

    pub(crate) fn cpu_mut(&mut self, cpu: CpuId) -> Result<&mut PerCpu, MachineError> {
        let cpus = self.config.cpus;
        self.cpus.get_mut(cpu.index()).ok_or(MachineError::NoCpu { cpu, cpus })
    }

    /// Every CPU.
    pub(crate) fn all_cpus(&self) -> impl Iterator<Item = CpuId> + use<> {
        (0..self.config.cpus).map(CpuId)
    }

    /// Reads physical memory as the coherent data side has it, without an event.
    ///
    /// # Errors
    /// The range is outside memory.
    pub fn read_phys(&self, phys: PhysAddr, out: &mut [u8]) -> Result<(), MachineError> {
        self.memory.read(phys, out)
    }

    /// Sets what memory held from the start: no CPU stored it, so there is no event. For contents
    /// that nothing has looked at yet.
    ///
    /// # Errors
    /// Bytes outside memory.
    pub fn preload(&mut self, phys: PhysAddr, bytes: &[u8]) -> Result<(), MachineError> {
        self.set_bytes(phys, bytes)
    }

    /// Writes bytes that no CPU stored.
    pub(crate) fn set_bytes(&mut self, phys: PhysAddr, bytes: &[u8]) -> Result<(), MachineError> {
        self.memory.write(phys, bytes)?;
        if let Some(last) = (bytes.len() as u64).checked_sub(1).map(|n| phys.offset(n).pfn()) {
            self.users.forget(phys.pfn(), last.0 - phys.pfn().0 + 1);
            self.lines.stamp_range(phys.0, bytes.len() as u64);
        }
        Ok(())
    }

    /// Size of physical memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.len()
    }
}

impl PerCpu {
    fn new(icache: Option<Icache>) -> Self {
        Self {
            calls: Vec::new(),
            irqs_on: true,
            context: Context::Task,
            state: CpuState::Running,
            space: SpaceId::KERNEL,
            asid: 0,
            known: Vec::new(),
            controls: Controls::LINUX,
            registers: Registers::default(),
            tlb: Tlb::default(),
            uppers: Vec::new(),
            ahead: Ahead::default(),
            icache,
            pending: Pending::default(),
            data: DataSide::default(),
            ipis: Vec::new(),
            serving: Vec::new(),
            reserved: None,
            waiting: Waiting::default(),
        }
    }
}
