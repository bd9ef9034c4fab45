//! How fast a stream is checked: 70 % fetches, 20 % stores, 8 % barriers, 2 % mappings, as a
//! simulated run of two CPUs has them; and fetches alone, which are what elision leaves over.

use divan::{Bencher, counter::ItemsCount};
use textbed_arch::{
    Arch, CpuId, Perm, PhysAddr, VirtAddr,
    effect::{Barrier, Domain, Reach, SyncCause, TlbScope},
};
use textbed_check::{Checker, Mode, Options};
use textbed_event::{Batch, Event, Header, LeafChange, MemOrder, OpId, Recorder, Sink, View};

const EVENTS: usize = 100_000;
const CODE: u64 = 0xffff_ffff_c000_0000;
const DATA: u64 = 0xffff_8880_0100_0000;
const DATA_PHYS: u64 = 0x100_0000;

fn main() {
    divan::main();
}

/// A small generator: the bench must not depend on a crate for random numbers.
struct Mix(u64);

impl Mix {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn leaf(virt: u64, phys: u64, count: u32, old: Perm, new: Perm) -> View {
    let change = LeafChange { count, shift: 12, old_shift: 12, old, new };
    View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change }
}

fn stream(arch: Arch, fetches_only: bool) -> (Header, Vec<Batch>) {
    let mut rec = Recorder::new();
    let mut mix = Mix(7);
    rec.emit(CpuId(0), leaf(CODE, 0x20_0000, 64, Perm::empty(), Perm::KERNEL_ROX));
    rec.emit(CpuId(0), leaf(DATA, DATA_PHYS, 1024, Perm::empty(), Perm::KERNEL_RW));
    let mut next = 0;
    while rec.pending() < EVENTS {
        let cpu = CpuId(mix.below(2) as u16);
        let draw = if fetches_only { 0 } else { mix.below(100) };
        match draw {
            0..70 => {
                let at = mix.below(512) * 64;
                let (virt, phys) = (VirtAddr(CODE + at), PhysAddr(0x20_0000 + at));
                rec.emit(cpu, View::Fetch { virt, phys, len: 32 });
            }
            70..90 => {
                next = if mix.below(8) == 0 { mix.below(4096) * 8 } else { (next + 8) % 32768 };
                let bytes = rec.bytes(&[0; 8]);
                let (virt, phys) = (VirtAddr(DATA + next), PhysAddr(DATA_PHYS + next));
                rec.emit(cpu, View::Store { virt, phys, bytes, order: MemOrder::Plain });
            }
            90..98 => {
                let (barrier, domain) = match arch {
                    Arch::X86_64 => (Barrier::Mfence, Domain::System),
                    Arch::Arm64 => (Barrier::DsbFull, Domain::Inner),
                    _ => (Barrier::Sync, Domain::System),
                };
                rec.emit(cpu, View::Barrier { barrier, domain });
                if draw == 97 {
                    rec.emit(cpu, View::ContextSync { cause: SyncCause::Instruction });
                }
            }
            _ => {
                let at = 0x10_0000 + mix.below(256) * 4096;
                let (virt, phys) = (DATA + at, DATA_PHYS + at);
                rec.emit(cpu, leaf(virt, phys, 1, Perm::KERNEL_RW, Perm::KERNEL_RO));
                rec.emit(cpu, leaf(virt, phys, 1, Perm::KERNEL_RO, Perm::KERNEL_RW));
                for cpu in [CpuId(0), CpuId(1)] {
                    let (scope, reach) = (TlbScope::Address, Reach::Local);
                    let virt = VirtAddr(virt);
                    let flush = View::TlbInvalidate { scope, reach, virt, len: 4096, asid: 0 };
                    rec.push(Event { op: OpId::NONE, ..Event::new(cpu, flush) });
                }
            }
        }
    }
    (Header::all_seeing(arch, 2), vec![rec.take()])
}

fn check(bencher: Bencher<'_, '_>, arch: Arch, mode: Mode, fetches_only: bool) {
    let (header, batches) = stream(arch, fetches_only);
    let events: usize = batches.iter().map(|b| b.events.len()).sum();
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        let mut checker = Checker::new(Options { mode, ..Options::default() });
        let _ = checker.begin(&header);
        for batch in &batches {
            let _ = checker.batch(batch);
        }
        checker.finish().events
    });
}

#[divan::bench(args = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le])]
fn mixed_observed(bencher: Bencher<'_, '_>, arch: &Arch) {
    check(bencher, *arch, Mode::Observed, false);
}

#[divan::bench(args = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le])]
fn mixed_predicted(bencher: Bencher<'_, '_>, arch: &Arch) {
    check(bencher, *arch, Mode::Predicted, false);
}

#[divan::bench(args = [Arch::X86_64, Arch::Arm64])]
fn fetches(bencher: Bencher<'_, '_>, arch: &Arch) {
    check(bencher, *arch, Mode::Predicted, true);
}
