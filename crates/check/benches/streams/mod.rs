//! Streams of events for measuring the checker, made from a seed alone.
//!
//! - *A*: 70 % fetches, 20 % stores, 8 % barriers and context synchronisation, 2 % changes of
//!   mappings with their invalidation; which frame is drawn by Zipf's law (exponent 1), 8 CPUs,
//!   100 000 live mappings, a third of them code. What changes is mostly data; one change in forty
//!   takes an area of code away, puts it back and maintains it.
//! - *B*: the same mixture, drawn uniformly over the mappings, as many as asked for.
//!
//! A stream has no end and is made in chunks, so that it can be measured after millions of events:
//! at first most blocks are fetched for the first time, which no long stream consists of.
//!
//! Neighbouring mappings lead to frames that are not neighbours, so that each is an entry of its
//! own. Nobody writes code. That code is taken away for a moment while another CPU runs there may
//! be found, as a hole in a live mapping.

use std::collections::VecDeque;

use textbed_arch::{
    Arch, CpuId, Perm, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
};
use textbed_event::{Batch, Header, LeafChange, MemOrder, Recorder, View};

/// CPUs of the machine.
pub(crate) const CPUS: u16 = 8;
/// Live mappings of stream A.
pub(crate) const A_MAPPINGS: u64 = 100_000;
/// Events of one batch, as sources send them.
const BATCH: usize = 4096;
const CODE: u64 = 0xffff_ffff_c000_0000;
const DATA: u64 = 0xffff_8880_0000_0000;
/// Blocks of code in a page that are fetched, and their bytes.
const BLOCKS: u64 = 4;
const BLOCK_BYTES: u32 = 32;

/// A generator of numbers (splitmix64: benches must not depend on a crate for this).
pub(crate) struct Mix(pub u64);

impl Mix {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number in 0..1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Which of `n` things is drawn.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    /// Each as often as any other.
    Uniform,
    /// The k-th in proportion to 1/k.
    Zipf,
}

impl Draw {
    fn pick(self, mix: &mut Mix, n: u64) -> u64 {
        match self {
            Draw::Uniform => mix.below(n),
            // The harmonic sum is close to a logarithm, whose inverse is a power.
            Draw::Zipf => (((n + 1) as f64).powf(mix.fraction()) as u64 - 1).min(n - 1),
        }
    }
}

/// A stream that is made as it is wanted: it has no end, and only what was asked for is in memory.
pub(crate) struct Stream {
    arch: Arch,
    draw: Draw,
    rec: Recorder,
    done: VecDeque<Batch>,
    code: u64,
    data: u64,
    mix: Mix,
}

fn leaf(virt: u64, phys: u64, old: Perm, new: Perm) -> View {
    let change = LeafChange::usual(1, 12, old, new);
    View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change }
}

impl Stream {
    /// Page `n` of code: its address and its frame.
    fn code_at(&self, n: u64) -> (u64, u64) {
        (CODE + n * 4096, 0x1_0000_0000 + n * 8192)
    }

    fn data_at(&self, n: u64) -> (u64, u64) {
        (DATA + n * 4096, 0x100_0000_0000 + n * 8192)
    }

    fn emit(&mut self, cpu: u16, view: View) {
        self.rec.emit(CpuId(cpu), view);
        if self.rec.pending() >= BATCH {
            self.done.push_back(self.rec.take());
        }
    }

    fn sync(&mut self, cpu: u16) {
        self.emit(cpu, View::ContextSync { cause: SyncCause::Instruction });
    }

    fn barrier(&mut self, cpu: u16) {
        let (barrier, domain) = match self.arch {
            Arch::X86_64 => (Barrier::Mfence, Domain::System),
            Arch::Arm64 => (Barrier::DsbFull, Domain::Inner),
            _ => (Barrier::Sync, Domain::System),
        };
        self.emit(cpu, View::Barrier { barrier, domain });
    }

    /// The translation of one page is dropped on every CPU.
    fn flush(&mut self, cpu: u16, virt: u64) {
        let (scope, virt) = (TlbScope::Address, VirtAddr(virt));
        let reach = Reach::Broadcast;
        self.emit(cpu, View::TlbInvalidate { scope, reach, virt, len: 4096, asid: 0, leaf: None });
    }

    /// Data made read-only and writable again; two events each.
    fn data_change(&mut self, cpu: u16, n: u64) {
        let (virt, phys) = self.data_at(n);
        self.emit(cpu, leaf(virt, phys, Perm::KERNEL_RW, Perm::KERNEL_RO));
        self.flush(cpu, virt);
        self.emit(cpu, leaf(virt, phys, Perm::KERNEL_RO, Perm::KERNEL_RW));
        self.flush(cpu, virt);
    }

    /// Code taken away and put back, maintained, and every CPU's context synchronised.
    fn code_change(&mut self, cpu: u16, n: u64) {
        let (virt, phys) = self.code_at(n);
        self.emit(cpu, leaf(virt, phys, Perm::KERNEL_ROX, Perm::empty()));
        self.flush(cpu, virt);
        self.emit(cpu, leaf(virt, phys, Perm::empty(), Perm::KERNEL_ROX));
        for at in (0..BLOCKS * u64::from(BLOCK_BYTES)).step_by(64) {
            let (virt, phys, scope) = (VirtAddr(virt + at), PhysAddr(phys + at), CacheScope::Line);
            self.emit(cpu, View::CacheClean { scope, virt, phys });
            self.barrier(cpu);
            let reach = Reach::Broadcast;
            self.emit(cpu, View::IcacheInvalidate { scope, reach, virt, phys });
        }
        self.barrier(cpu);
        (0..CPUS).for_each(|p| self.sync(p));
    }

    fn fetch(&mut self, cpu: u16, n: u64, block: u64) {
        let (virt, phys) = self.code_at(n);
        let at = block * u64::from(BLOCK_BYTES);
        let (virt, phys) = (VirtAddr(virt + at), PhysAddr(phys + at));
        self.emit(cpu, View::Fetch { virt, phys, len: BLOCK_BYTES });
    }

    fn store(&mut self, cpu: u16, n: u64, word: u64) {
        let (virt, phys) = self.data_at(n);
        let bytes = self.rec.bytes(&word.to_le_bytes());
        let (virt, phys) = (VirtAddr(virt + word * 8), PhysAddr(phys + word * 8));
        self.emit(cpu, View::Store { virt, phys, bytes, order: MemOrder::Plain });
    }

    /// A stream over `mappings` live mappings; its first batches make these.
    fn new(arch: Arch, draw: Draw, mappings: u64, seed: u64) -> Self {
        let (code, data) = (mappings / 3, mappings - mappings / 3);
        let (rec, done, mix) = (Recorder::new(), VecDeque::new(), Mix(seed));
        Self { arch, draw, rec, done, code, data, mix }
    }

    /// What the source says of itself.
    pub(crate) fn header(&self) -> Header {
        Header::all_seeing(self.arch, CPUS)
    }

    /// The batches that make the mappings, handed to `take` one by one.
    pub(crate) fn set_up(&mut self, mut take: impl FnMut(&Batch)) {
        let mut pass = |done: &mut VecDeque<Batch>| done.drain(..).for_each(|batch| take(&batch));
        for n in 0..self.code {
            let (virt, phys) = self.code_at(n);
            self.emit(0, leaf(virt, phys, Perm::empty(), Perm::KERNEL_ROX));
            pass(&mut self.done);
        }
        for n in 0..self.data {
            let (virt, phys) = self.data_at(n);
            self.emit(0, leaf(virt, phys, Perm::empty(), Perm::KERNEL_RW));
            pass(&mut self.done);
        }
        self.barrier(0);
        (0..CPUS).for_each(|p| self.sync(p));
        self.done.push_back(self.rec.take());
        pass(&mut self.done);
    }

    /// The next batches: as many as hold `events` events, and a few more.
    pub(crate) fn next(&mut self, events: usize) -> Vec<Batch> {
        while self.done.len() < events.div_ceil(BATCH) {
            self.step();
        }
        self.done.drain(..events.div_ceil(BATCH)).collect()
    }

    /// One thing that happens.
    fn step(&mut self) {
        let cpu = self.mix.below(CPUS.into()) as u16;
        match self.mix.below(1000) {
            700..900 => {
                let n = self.draw.pick(&mut self.mix, self.data);
                let word = self.mix.below(512);
                self.store(cpu, n, word);
            }
            900..960 => self.barrier(cpu),
            960..980 => self.sync(cpu),
            // Four events each: together 2 % of all.
            980..985 => {
                let n = self.draw.pick(&mut self.mix, self.data);
                self.data_change(cpu, n);
            }
            985 if self.mix.below(8) == 0 => {
                let n = self.draw.pick(&mut self.mix, self.code);
                self.code_change(cpu, n);
            }
            _ => {
                let n = self.draw.pick(&mut self.mix, self.code);
                let block = self.mix.below(BLOCKS);
                self.fetch(cpu, n, block);
            }
        }
    }
}

/// Stream A.
pub(crate) fn a(arch: Arch) -> Stream {
    Stream::new(arch, Draw::Zipf, A_MAPPINGS, 0xa)
}

/// Stream B over `mappings` mappings.
pub(crate) fn b(arch: Arch, mappings: u64) -> Stream {
    Stream::new(arch, Draw::Uniform, mappings, 0xb)
}

/// Events made at once, a few batches: sources hand each on when it is full. Making them is not
/// measured.
pub(crate) const CHUNK: usize = 1 << 14;
