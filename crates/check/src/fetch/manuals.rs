//! What the manuals of x86-64 and Power say of modified code, as windows; each test names the
//! section. Version 0 is old, 1 new; CPU 0 writes unless said.
//!
//! What needs events (interrupts, live patching, non-temporal stores) is in `tests/fetch`.

use textbed_arch::effect::{Barrier, Domain};
use textbed_arch::{Arch, CpuId, Features};
use textbed_event::MemOrder;

use super::caches::Caches;
use super::powerpc;
use super::versions::{Forgotten, Made, Newest, Version, Versions};
use super::views::View;
use super::x86::X86;
use crate::outcomes::Stream;
use crate::span::Span;

const BOTH: [u32; 2] = [0, 1];
const NEW: [u32; 2] = [1, 1];

/// Words on lines of their own.
const F: u64 = 0;
const F2: u64 = 64;
const FLAG: u64 = 128;

fn word(at: u64) -> Span {
    Span { first: at, last: at + 3 }
}

/// An x86-64 machine, fed by hand.
struct Pc {
    machine: X86,
    versions: Versions,
    next: u64,
}

impl Pc {
    fn new(amd: bool) -> Self {
        Self { machine: X86::new(amd, true), versions: Versions::default(), next: 0 }
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A store by the linear address that is `linear` above the physical one.
    fn store_by(&mut self, p: u16, at: u64, linear: u64) {
        let (seq, p) = (self.tick(), CpuId(p));
        let older = self.versions.newest(at).filter(|v| v.cpu != p);
        let clock = self.machine.store(p, seq, older.as_deref().map(Newest::from));
        let version = Version { delta: linear, clock: Some(clock), ..Version::by_hand(seq, p) };
        self.versions
            .store(Arch::X86_64, word(at), Made::New(version), false, |_, _| Forgotten::None);
    }

    fn store(&mut self, p: u16, at: u64) {
        self.store_by(p, at, 0);
    }

    fn load(&mut self, p: u16, at: u64) {
        let newest = self.versions.newest(at).filter(|v| v.cpu != CpuId(p));
        if let Some(newest) = newest {
            self.machine.saw(CpuId(p), &newest);
        }
    }

    fn serialise(&mut self, p: u16) {
        let now = self.tick();
        self.machine.sync(CpuId(p), now);
    }

    fn mfence(&mut self, p: u16) {
        let now = self.tick();
        self.machine.barrier(CpuId(p), Barrier::Mfence, now);
    }

    /// The window of a fetch by the linear address that equals the physical one.
    fn window(&self, p: u16, at: u64) -> [u32; 2] {
        let Some((_, h)) = self.versions.within(word(at)).next() else { return [0, 0] };
        [h.number_at(self.machine.low(CpuId(p), &h, 0)), h.newest_number()]
    }

    /// A fetch that returned the newest version.
    fn ran(&mut self, p: u16, at: u64) {
        if let Some(newest) = self.versions.newest(at) {
            self.machine.fetched(CpuId(p), &newest);
        }
    }
}

/// SDM 3A 8.1.3, self-modifying code, option 1: store, then jump to the new code.
#[test]
fn sdm_8_1_3_self_modifying_by_the_same_linear_address() {
    let mut pc = Pc::new(false);
    pc.store(0, F);
    assert_eq!(pc.window(0, F), NEW);
    assert_eq!(pc.window(1, F), BOTH, "nobody else is served by that jump");
}

/// SDM 3A 11.6: instructions that were prefetched are compared by linear address, so a store by
/// another one needs a serialising operation before the code runs (8.1.3, option 2).
#[test]
fn sdm_11_6_another_linear_address_needs_a_serialising_instruction() {
    let mut pc = Pc::new(false);
    pc.store_by(0, F, 0x1000);
    assert_eq!(pc.window(0, F), BOTH);
    pc.serialise(0);
    assert_eq!(pc.window(0, F), NEW);
}

/// APM vol 2 7.6.1: own stores are compared by physical address; nothing need be done.
#[test]
fn apm_7_6_1_own_stores_are_compared_by_physical_address() {
    let mut pc = Pc::new(true);
    pc.store_by(0, F, 0x1000);
    assert_eq!(pc.window(0, F), NEW);
}

/// SDM 3A 8.1.3, cross-modifying code: store the code, set the flag; wait for it, serialise, run.
#[test]
fn sdm_8_1_3_cross_modifying_code() {
    for amd in [false, true] {
        let mut pc = Pc::new(amd);
        pc.store(0, F);
        pc.store(0, FLAG);
        pc.load(1, FLAG);
        assert_eq!(pc.window(1, F), BOTH, "the flag alone is not enough (APM 7.6.1: speculation)");
        pc.serialise(1);
        assert_eq!(pc.window(1, F), NEW);
    }
}

/// The same, with the serialising instruction before the flag was seen.
#[test]
fn sdm_8_1_3_serialising_before_the_flag_is_too_early() {
    let mut pc = Pc::new(false);
    pc.store(0, F);
    pc.store(0, FLAG);
    pc.serialise(1);
    pc.load(1, FLAG);
    assert_eq!(pc.window(1, F), BOTH);
}

/// SDM 3A 8.3: MFENCE does not serialise the instruction stream; APM vol 2 7.6.4: it does.
#[test]
fn sdm_8_3_and_apm_7_6_4_mfence() {
    for (amd, want) in [(false, BOTH), (true, NEW)] {
        let mut pc = Pc::new(amd);
        pc.store(0, F);
        pc.store(0, FLAG);
        pc.load(1, FLAG);
        pc.mfence(1);
        assert_eq!(pc.window(1, F), want);
    }
}

/// SDM 3A 8.2.2: stores of a CPU are seen in their order, and what a CPU saw is passed on.
#[test]
fn sdm_8_2_2_stores_are_seen_in_order_by_way_of_a_third_cpu() {
    let mut pc = Pc::new(false);
    pc.store(0, F);
    pc.store(0, FLAG);
    pc.load(1, FLAG);
    pc.store(1, FLAG);
    pc.load(2, FLAG);
    pc.serialise(2);
    assert_eq!(pc.window(2, F), NEW);
}

/// APM vol 2 7.6.1, asynchronous modification: code that nobody can reach may be written at any
/// time, and one store exposes it; fetchers see stores in order.
#[test]
fn apm_7_6_1_unreachable_code_is_exposed_by_one_store() {
    for (amd, want) in [(false, BOTH), (true, NEW)] {
        let mut pc = Pc::new(amd);
        pc.store(0, F2);
        pc.store(0, F);
        pc.ran(1, F);
        assert_eq!(pc.window(1, F2), want, "no Intel text says so");
        assert_eq!(pc.window(2, F2), BOTH, "another CPU did not run it");
    }
}

/// A Power machine, fed by hand.
struct Power(Stream);

impl Power {
    fn new(coherent: bool) -> Self {
        let features = if coherent { Features::PPC_COHERENT_ICACHE } else { Features::empty() };
        let caches: Caches = powerpc::caches(features);
        Self(Stream::new(caches))
    }

    fn store(&mut self, p: u16, at: u64) {
        self.0.store(p, at, MemOrder::Plain, &View::default());
    }

    /// A load and a branch on it.
    fn load_ctrl(&mut self, p: u16, at: u64) {
        let taint = self.0.load(p, at, MemOrder::Plain, &View::default());
        self.0.weak.branch(CpuId(p), &taint);
    }

    fn dcbst(&mut self, p: u16, at: u64) {
        self.0.clean(p, Some(word(at)), &View::default());
    }

    fn icbi(&mut self, p: u16, at: u64) {
        self.0.invalidate(p, Some(word(at)), &View::default());
    }

    fn fence(&mut self, p: u16, barrier: Barrier) {
        self.0.barrier(p, barrier, Domain::System);
    }

    fn isync(&mut self, p: u16) {
        self.0.sync(p);
    }

    fn window(&self, p: u16, at: u64) -> [u32; 2] {
        self.0.would(p, at).map(|n| n as u32)
    }
}

/// 603e UM 2.3.4.3.1, 405 UM: store, dcbst, sync, icbi, isync for oneself; each part is needed.
#[test]
fn um_603e_2_3_4_3_1_each_part_of_the_sequence_for_oneself() {
    for dropped in ["", "dcbst", "sync", "icbi", "isync"] {
        let mut t = Power::new(false);
        t.store(0, F);
        for part in ["dcbst", "sync", "icbi", "isync"].into_iter().filter(|p| *p != dropped) {
            match part {
                "dcbst" => t.dcbst(0, F),
                "sync" => t.fence(0, Barrier::Sync),
                "icbi" => t.icbi(0, F),
                _ => t.isync(0),
            }
        }
        assert_eq!(t.window(0, F), if dropped.is_empty() { NEW } else { BOTH }, "{dropped}");
    }
}

/// 750GX UM 3.2: a second sync, behind the icbi, makes it performed for the others.
#[test]
fn um_750gx_3_2_the_second_sync_is_for_the_others() {
    for (second, want) in [(Barrier::Sync, NEW), (Barrier::Lwsync, BOTH), (Barrier::Eieio, BOTH)] {
        let mut t = Power::new(false);
        t.store(0, F);
        t.dcbst(0, F);
        t.fence(0, Barrier::Sync);
        t.icbi(0, F);
        t.fence(0, second);
        t.isync(0);
        t.store(0, FLAG);
        t.load_ctrl(1, FLAG);
        t.isync(1);
        assert_eq!(t.window(1, F), want, "{second:?}");
    }
}

/// isync (Book II 3.3.1): it drops what this thread prefetched, and has no effect on caches.
#[test]
fn isync_touches_no_cache_and_no_other_thread() {
    let mut t = Power::new(false);
    t.store(0, F);
    t.dcbst(0, F);
    t.fence(0, Barrier::Sync);
    t.isync(0);
    assert_eq!(t.window(0, F), BOTH, "no icbi");
    t.icbi(0, F);
    t.fence(0, Barrier::Sync);
    t.isync(0);
    t.store(0, FLAG);
    t.load_ctrl(1, FLAG);
    assert_eq!(t.window(1, F), BOTH, "every thread needs its own");
    t.isync(1);
    assert_eq!(t.window(1, F), NEW);
}

/// Linux 6.19 `powerpc/mm/cacheflush.c`, coherent instruction cache: sync, one icbi of any
/// address, sync, isync.
#[test]
fn coherent_icache_one_dummy_icbi() {
    for dropped in ["", "sync 1", "icbi", "isync"] {
        let mut t = Power::new(true);
        t.store(0, F);
        t.store(0, F2);
        for part in ["sync 1", "icbi", "sync 2", "isync"].into_iter().filter(|p| *p != dropped) {
            match part {
                // Of another line, and once for both stores.
                "icbi" => t.icbi(0, FLAG),
                "isync" => t.isync(0),
                _ => t.fence(0, Barrier::Sync),
            }
        }
        let want = if dropped.is_empty() { NEW } else { BOTH };
        assert_eq!([t.window(0, F), t.window(0, F2)], [want, want], "{dropped}");
    }
}

/// Book II 1.7.1: lwsync orders stores, not a dcbst; the reader then repairs the code in vain.
#[test]
fn book_ii_1_7_1_lwsync_carries_no_dcbst() {
    for (barrier, want) in [(Barrier::Lwsync, BOTH), (Barrier::Sync, NEW)] {
        let mut t = Power::new(false);
        t.store(0, F);
        t.dcbst(0, F);
        t.fence(0, barrier);
        t.store(0, FLAG);
        t.load_ctrl(1, FLAG);
        t.icbi(1, F);
        t.fence(1, Barrier::Sync);
        t.isync(1);
        assert_eq!(t.window(1, F), want, "{barrier:?}");
    }
}

/// Having run the new code orders nothing on Power: no text has Arm's anchor.
#[test]
fn power_has_no_fetch_anchor() {
    let mut t = Power::new(false);
    t.store(0, F);
    t.dcbst(0, F);
    t.fence(0, Barrier::Sync);
    t.icbi(0, F);
    t.fence(0, Barrier::Sync);
    t.store(0, F2);
    t.0.fetch(1, F2, 1);
    assert_eq!(t.window(1, F), BOTH);
}
