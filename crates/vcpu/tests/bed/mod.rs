//! A small machine with a few mappings, and guest routines in it.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use textbed_arch::{Arch, CpuId, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Batch, Event, MemOrder, View};
use textbed_firmware::{Routine, load};
use textbed_machine::{
    CallEnd, Cpu, Machine, MachineConfig, Newest, Policy, Stalest, Step, call, together,
};
use textbed_vcpu::Vcpu;

pub(crate) const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
pub(crate) const CPU0: CpuId = CpuId(0);
pub(crate) const CPU1: CpuId = CpuId(1);
pub(crate) const PAGE: u64 = 4096;

/// Offsets of the bed's areas from its base, each of [`AREA_PAGES`] pages with unmapped pages
/// between them.
pub(crate) const CODE: u64 = 0;
/// The code's frames once more, writable.
pub(crate) const ALIAS: u64 = 0x1_0000;
pub(crate) const DATA: u64 = 0x2_0000;
pub(crate) const STACK: u64 = 0x3_0000;
/// Readable only; behind it nothing.
pub(crate) const READ_ONLY: u64 = 0x4_0000;
/// The code's frames, readable, writable and executable.
pub(crate) const RWX: u64 = 0x5_0000;
/// Nothing is mapped here.
pub(crate) const HOLE: u64 = 0x6_0000;
pub(crate) const AREA_PAGES: u64 = 4;

pub(crate) struct Bed {
    pub(crate) m: Machine,
    pub(crate) cpus: Vec<Vcpu>,
    pub(crate) base: u64,
    next: u64,
    /// Physical address of the code area.
    pub(crate) code: PhysAddr,
    /// Calls run freely, in slices of so many instructions.
    pub(crate) slice: Option<u64>,
}

pub(crate) fn newest(arch: Arch) -> Bed {
    Bed::new(MachineConfig::new(arch), Box::new(Newest))
}

pub(crate) fn stalest(arch: Arch) -> Bed {
    Bed::new(MachineConfig::new(arch), Box::new(Stalest))
}

impl Bed {
    pub(crate) fn new(config: MachineConfig, policy: Box<dyn Policy>) -> Self {
        let arch = config.arch;
        // Where vmalloc areas are.
        let base = match arch {
            Arch::X86_64 => 0xffff_c900_0020_0000,
            Arch::Arm64 => 0xffff_8000_1020_0000,
            _ => 0xc008_0000_0020_0000,
        };
        let mut m = Machine::new(config, policy).unwrap();
        let mut area = |offset: u64, phys: Option<PhysAddr>, perm: Perm| {
            let len = AREA_PAGES * PAGE;
            let phys =
                phys.unwrap_or_else(|| m.alloc_frames(CPU0, AREA_PAGES, 12, true).unwrap().addr());
            m.map(CPU0, SpaceId::KERNEL, VirtAddr(base + offset), phys, len, 12, perm).unwrap();
            phys
        };
        let code = area(CODE, None, Perm::KERNEL_ROX);
        area(ALIAS, Some(code), Perm::KERNEL_RW);
        area(RWX, Some(code), Perm::KERNEL_RWX);
        for offset in [DATA, STACK] {
            area(offset, None, Perm::KERNEL_RW);
        }
        area(READ_ONLY, None, Perm::KERNEL_RO);
        let cpus = (0..m.cpus()).map(|n| Vcpu::new(arch, CpuId(n)).unwrap()).collect();
        Self { m, cpus, base, next: 0, code, slice: None }
    }

    pub(crate) fn arch(&self) -> Arch {
        self.m.arch()
    }

    /// An address in one of the areas.
    pub(crate) fn at(&self, area: u64, offset: u64) -> u64 {
        self.base + area + offset
    }

    /// Copies a routine into the code area and makes it fetchable everywhere; its address there.
    pub(crate) fn install(&mut self, name: &str) -> u64 {
        let routine = load(self.arch(), name).unwrap();
        self.install_bytes(routine.bytes) + routine.entry
    }

    pub(crate) fn routine(&self, name: &str) -> Routine {
        load(self.arch(), name).unwrap()
    }

    /// Copies code to the next lines of the code area; its address there.
    pub(crate) fn install_bytes(&mut self, bytes: &[u8]) -> u64 {
        let offset = self.next;
        self.next = (self.next + bytes.len() as u64).next_multiple_of(256);
        assert!(self.next <= AREA_PAGES * PAGE, "the code area is full");
        self.store(self.at(ALIAS, offset), bytes);
        self.publish(self.at(CODE, offset), bytes.len() as u64);
        self.at(CODE, offset)
    }

    pub(crate) fn store(&mut self, virt: u64, bytes: &[u8]) {
        for (i, piece) in bytes.chunks(32).enumerate() {
            let at = VirtAddr(virt + 32 * i as u64);
            self.m.store(CPU0, at, piece, MemOrder::Plain).unwrap();
        }
    }

    /// The whole chain for every line of a range, and context synchronisation on every CPU.
    pub(crate) fn publish(&mut self, virt: u64, len: u64) {
        let lines: Vec<u64> = (virt & !31..virt + len).step_by(32).collect();
        let (clean, invalidate, barrier, sync): (_, _, &str, &str) = match self.arch() {
            Arch::X86_64 => (None, None, "mfence", "cpuid"),
            Arch::Arm64 => (Some("dc cvau"), Some("ic ivau"), "dsb ish", "isb"),
            _ => (Some("dcbst"), Some("icbi"), "sync", "isync"),
        };
        for each in [clean, invalidate] {
            for line in each.iter().flat_map(|_| &lines) {
                self.m.op_named(CPU0, each.unwrap(), *line).unwrap();
            }
            self.m.op_named(CPU0, barrier, 0).unwrap();
        }
        for cpu in 0..self.m.cpus() {
            self.m.op_named(CpuId(cpu), sync, 0).unwrap();
        }
    }

    /// Top of a CPU's stack.
    pub(crate) fn stack(&self, cpu: CpuId) -> VirtAddr {
        VirtAddr(self.at(STACK, PAGE * (u64::from(cpu.0) + 1)))
    }

    /// The same bed, in which calls run freely.
    pub(crate) fn freely(self) -> Self {
        Self { slice: Some(1000), ..self }
    }

    /// Calls on a CPU, up to 10 000 instructions; how many they were is not known of a call that
    /// runs freely.
    pub(crate) fn call_on(&mut self, cpu: CpuId, entry: u64, args: &[u64]) -> CallEnd {
        if let Some(slice) = self.slice {
            self.start(cpu, entry, args);
            for _ in 0..10_000u64.div_ceil(slice) {
                match self.run_free(cpu, slice) {
                    Step::Ran => {}
                    end => return CallEnd { end, steps: 0 },
                }
            }
            return CallEnd { end: Step::Limit, steps: 10_000 };
        }
        let stack = self.stack(cpu);
        let vcpu = &mut self.cpus[cpu.index()];
        call(vcpu, &mut self.m, VirtAddr(entry), stack, args, 10_000).unwrap()
    }

    /// Calls on CPU 0 and expects a return.
    pub(crate) fn run(&mut self, entry: u64, args: &[u64]) -> u64 {
        match self.call_on(CPU0, entry, args).end {
            Step::Returned(value) => value,
            other => panic!("{}: {other:?}", self.arch()),
        }
    }

    pub(crate) fn start(&mut self, cpu: CpuId, entry: u64, args: &[u64]) {
        let stack = self.stack(cpu);
        self.cpus[cpu.index()].start(&mut self.m, VirtAddr(entry), stack, args).unwrap();
    }

    pub(crate) fn step(&mut self, cpu: CpuId) -> Step {
        self.cpus[cpu.index()].step(&mut self.m).unwrap()
    }

    /// Runs what was started to its end, freely if the bed's calls do.
    pub(crate) fn finish(&mut self, cpu: CpuId) -> Step {
        loop {
            let step = match self.slice {
                Some(slice) => self.run_free(cpu, slice),
                None => self.step(cpu),
            };
            if step != Step::Ran {
                return step;
            }
        }
    }

    /// Steps a CPU until a step is not simply done: that one, and how many were.
    pub(crate) fn step_on(&mut self, cpu: CpuId) -> (Step, usize) {
        for steps in 0..10_000 {
            match self.step(cpu) {
                Step::Ran => {}
                end => return (end, steps),
            }
        }
        panic!("{}: it goes on and on", self.arch());
    }

    pub(crate) fn run_free(&mut self, cpu: CpuId, slice: u64) -> Step {
        self.cpus[cpu.index()].run_free(&mut self.m, slice).unwrap()
    }

    /// Runs what was started on both CPUs to its end.
    pub(crate) fn together(
        &mut self,
        turn: &mut dyn FnMut(&[usize]) -> usize,
        max_steps: u64,
    ) -> Vec<CallEnd> {
        let mut cpus: Vec<&mut dyn Cpu> = self.cpus.iter_mut().map(|c| c as _).collect();
        together(&mut cpus, &mut self.m, turn, max_steps).unwrap()
    }

    /// A 32-bit word of memory in the guest's byte order.
    pub(crate) fn word(&mut self, virt: u64) -> u32 {
        let mut bytes = [0; 4];
        self.m.load(CPU0, VirtAddr(virt), &mut bytes).unwrap();
        self.to_word(bytes)
    }

    pub(crate) fn set_word(&mut self, virt: u64, word: u32) {
        let bytes = self.word_bytes(word);
        self.store(virt, &bytes);
    }

    pub(crate) fn to_word(&self, bytes: [u8; 4]) -> u32 {
        if self.arch().is_little_endian() {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        }
    }

    pub(crate) fn word_bytes(&self, word: u32) -> [u8; 4] {
        if self.arch().is_little_endian() { word.to_le_bytes() } else { word.to_be_bytes() }
    }

    /// Forgets the events so far.
    pub(crate) fn forget_events(&mut self) {
        let batch = self.m.take_batch();
        self.m.recorder().recycle(batch);
    }

    pub(crate) fn events(&mut self) -> Batch {
        self.m.take_batch()
    }
}

/// The views of one CPU's events.
pub(crate) fn views(batch: &Batch, cpu: CpuId) -> Vec<View> {
    batch.events.iter().filter(|e| e.cpu == cpu).map(Event::view).collect()
}
