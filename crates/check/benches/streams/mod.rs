//! Streams of events for measuring the checker, made from a seed alone.
//!
//! - *A*: 70 % fetches, 20 % stores, 8 % barriers and context synchronisation, 2 % changes of
//!   mappings with their invalidation; which frame is drawn by Zipf's law (exponent 1), 8 CPUs,
//!   100 000 live mappings, a third of them code. What changes is mostly data; one change in forty
//!   takes an area of code away, puts it back and maintains it.
//! - *B*: the same mixture, drawn uniformly over the mappings, as many as asked for.
//!
//! Neighbouring mappings lead to frames that are not neighbours, so that each is an entry of its
//! own. Nobody writes code. That code is taken away for a moment while another CPU runs there may
//! be found, as a hole in a live mapping.

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

/// A stream and how many of its events only set it up.
pub(crate) struct Stream {
    /// What the source says of itself.
    pub(crate) header: Header,
    /// Making the mappings.
    pub(crate) setup: Vec<Batch>,
    /// What is measured.
    pub(crate) batches: Vec<Batch>,
}

impl Stream {
    /// Events in the measured part.
    pub(crate) fn events(&self) -> usize {
        self.batches.iter().map(|b| b.events.len()).sum()
    }
}

struct Maker {
    arch: Arch,
    rec: Recorder,
    done: Vec<Batch>,
    code: u64,
    data: u64,
}

fn leaf(virt: u64, phys: u64, old: Perm, new: Perm) -> View {
    let change = LeafChange { count: 1, shift: 12, old_shift: 12, old, new };
    View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change }
}

impl Maker {
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
            self.done.push(self.rec.take());
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
        self.emit(cpu, View::TlbInvalidate { scope, reach, virt, len: 4096, asid: 0 });
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
}

/// A stream of `events` events (a few more) over `mappings` live mappings.
pub(crate) fn make(arch: Arch, draw: Draw, mappings: u64, events: usize, seed: u64) -> Stream {
    let (code, data) = (mappings / 3, mappings - mappings / 3);
    let mut m = Maker { arch, rec: Recorder::new(), done: Vec::new(), code, data };
    for n in 0..m.code {
        let (virt, phys) = m.code_at(n);
        m.emit(0, leaf(virt, phys, Perm::empty(), Perm::KERNEL_ROX));
    }
    for n in 0..m.data {
        let (virt, phys) = m.data_at(n);
        m.emit(0, leaf(virt, phys, Perm::empty(), Perm::KERNEL_RW));
    }
    m.barrier(0);
    (0..CPUS).for_each(|p| m.sync(p));
    m.done.push(m.rec.take());
    let setup = std::mem::take(&mut m.done);
    let mut mix = Mix(seed);
    let count = |m: &Maker| m.done.len() * BATCH + m.rec.pending();
    while count(&m) < events {
        let cpu = mix.below(CPUS.into()) as u16;
        match mix.below(1000) {
            0..700 => {
                let n = draw.pick(&mut mix, m.code);
                let block = mix.below(BLOCKS);
                m.fetch(cpu, n, block);
            }
            700..900 => {
                let n = draw.pick(&mut mix, m.data);
                let word = mix.below(512);
                m.store(cpu, n, word);
            }
            900..960 => m.barrier(cpu),
            960..980 => m.sync(cpu),
            // Four events each: together 2 % of all.
            980..985 => {
                let n = draw.pick(&mut mix, m.data);
                m.data_change(cpu, n);
            }
            985 if mix.below(8) == 0 => {
                let n = draw.pick(&mut mix, m.code);
                m.code_change(cpu, n);
            }
            _ => {
                let n = draw.pick(&mut mix, m.code);
                let block = mix.below(BLOCKS);
                m.fetch(cpu, n, block);
            }
        }
    }
    m.done.push(m.rec.take());
    Stream { header: Header::all_seeing(arch, CPUS), setup, batches: m.done }
}

/// Stream A with `events` events.
pub(crate) fn a(arch: Arch, events: usize) -> Stream {
    make(arch, Draw::Zipf, A_MAPPINGS, events, 0xa)
}

/// Stream B with `events` events over `mappings` mappings.
pub(crate) fn b(arch: Arch, mappings: u64, events: usize) -> Stream {
    make(arch, Draw::Uniform, mappings, events, 0xb)
}
