//! The worked examples of the algorithm: litmus shapes with the windows that they must have, at
//! IDC/DIC = 00, IDC and DIC. Version 0 is old, 1 new.
//!
//! Each rule is load-bearing in at least one: take it out and a window here changes.

use textbed_arch::{
    CpuId,
    effect::{Barrier, Domain},
};
use textbed_event::MemOrder;

use super::caches::Caches;
use super::views::View;
use crate::outcomes::Stream;
use crate::span::Span;

pub(super) const CONFIGURATIONS: [(&str, Caches); 3] = [
    ("00", Caches::ARM),
    ("IDC", Caches { clean: false, ..Caches::ARM }),
    ("DIC", Caches { clean: false, invalidate: false, ..Caches::ARM }),
];

/// Words, each on a line of its own.
const F: u64 = 0;
const F2: u64 = 64;
const FLAG: u64 = 128;
const FLAG2: u64 = 192;

fn word(at: u64) -> Span {
    Span { first: at, last: at + 3 }
}

/// A litmus test as it runs.
pub(super) struct Litmus {
    pub(super) stream: Stream,
}

impl Litmus {
    pub(super) fn new(caches: Caches) -> Self {
        Self { stream: Stream::new(caches) }
    }

    pub(super) fn str(&mut self, p: u16, at: u64) {
        self.str_after(p, at, &View::default());
    }

    /// A store whose data or address a load fed.
    pub(super) fn str_after(&mut self, p: u16, at: u64, taint: &View) {
        self.stream.store(p, at, MemOrder::Plain, taint);
    }

    /// A load that returns the newest version.
    pub(super) fn ldr(&mut self, p: u16, at: u64) -> View {
        self.stream.load(p, at, MemOrder::Plain, &View::default())
    }

    /// A clean, and an invalidation, of the 64-byte line around a word.
    pub(super) fn dc_line(&mut self, p: u16, at: u64) {
        self.stream.clean(p, Some(word(at).rounded(64)), &View::default());
    }

    pub(super) fn ic_line(&mut self, p: u16, at: u64) {
        self.stream.invalidate(p, Some(word(at).rounded(64)), &View::default());
    }

    /// The window that a fetch would have now.
    pub(super) fn would(&self, p: u16, at: u64) -> [usize; 2] {
        self.stream.would(p, at)
    }

    /// A load and a branch on what it returned.
    fn ldr_ctrl(&mut self, p: u16, at: u64) {
        let taint = self.ldr(p, at);
        self.stream.weak.branch(CpuId(p), &taint);
    }

    pub(super) fn dc(&mut self, p: u16, at: u64) {
        self.stream.clean(p, Some(word(at)), &View::default());
    }

    fn ic(&mut self, p: u16, at: u64) {
        self.stream.invalidate(p, Some(word(at)), &View::default());
    }

    pub(super) fn barrier(&mut self, p: u16, barrier: Barrier) {
        self.stream.barrier(p, barrier, Domain::Inner);
    }

    fn dsb(&mut self, p: u16) {
        self.barrier(p, Barrier::DsbFull);
    }

    pub(super) fn isb(&mut self, p: u16) {
        self.stream.sync(p);
    }

    fn cachesync(&mut self, p: u16, at: u64) {
        self.dc(p, at);
        self.dsb(p);
        self.ic(p, at);
        self.dsb(p);
    }

    /// A fetch that returned this version; its number.
    pub(super) fn fetch(&mut self, p: u16, at: u64, returned: usize) -> u64 {
        self.stream.fetch(p, at, returned)
    }

    pub(super) fn window(&self, fetch: u64) -> [usize; 2] {
        self.stream.window(fetch)
    }
}

/// Runs a test in the three configurations.
fn expect(want: [[usize; 2]; 3], test: impl Fn(&mut Litmus) -> u64) {
    for ((name, caches), want) in CONFIGURATIONS.into_iter().zip(want) {
        let mut litmus = Litmus::new(caches);
        let fetch = test(&mut litmus);
        assert_eq!(litmus.window(fetch), want, "{name}");
    }
}

const OLD: [usize; 2] = [0, 0];
const BOTH: [usize; 2] = [0, 1];
const NEW: [usize; 2] = [1, 1];

#[test]
fn example_1_sm() {
    expect([BOTH; 3], |t| {
        t.str(0, F);
        t.fetch(0, F, 1)
    });
}

#[test]
fn example_2_sm_cachesync_isb_and_each_of_its_parts() {
    // Dropping a part: what the window is at 00, IDC, DIC.
    let parts = ["dc", "dsb 1", "ic", "dsb 2", "isb"];
    let want = [
        ("", [NEW, NEW, NEW]),
        ("dc", [BOTH, NEW, NEW]),
        ("dsb 1", [BOTH, BOTH, NEW]),
        ("ic", [BOTH, BOTH, NEW]),
        ("dsb 2", [BOTH, BOTH, NEW]),
        ("isb", [BOTH, BOTH, BOTH]),
    ];
    for (dropped, want) in want {
        expect(want, |t| {
            t.str(0, F);
            for part in parts {
                match part {
                    _ if part == dropped => {}
                    "dc" => t.dc(0, F),
                    "ic" => t.ic(0, F),
                    "isb" => t.isb(0),
                    _ => t.dsb(0),
                }
            }
            t.fetch(0, F, 1)
        });
    }
}

#[test]
fn example_2_an_isb_or_a_dmb_completes_no_ic() {
    for instead in [None, Some(Barrier::DmbFull), Some(Barrier::DsbStore), Some(Barrier::DsbLoad)] {
        expect([BOTH, BOTH, NEW], |t| {
            t.str(0, F);
            t.dc(0, F);
            t.dsb(0);
            t.ic(0, F);
            match instead {
                Some(barrier) => t.barrier(0, barrier),
                None => t.isb(0),
            }
            t.isb(0);
            t.fetch(0, F, 1)
        });
    }
}

#[test]
fn dic_still_needs_a_dsb_before_the_isb() {
    expect([BOTH; 3], |t| {
        t.str(0, F);
        t.isb(0);
        t.fetch(0, F, 1)
    });
}

#[test]
fn example_3_mp_rf_cachesync_ctrl_isb() {
    expect([NEW; 3], |t| {
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, FLAG);
        t.ldr_ctrl(1, FLAG);
        t.isb(1);
        t.fetch(1, F, 1)
    });
    // Without a branch, an address or a DSB the load does not reach the fetch.
    expect([BOTH; 3], |t| {
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, FLAG);
        t.ldr(1, FLAG);
        t.isb(1);
        t.fetch(1, F, 1)
    });
    // An address or a DSB will do as well.
    expect([NEW; 3], |t| {
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, FLAG);
        let taint = t.ldr(1, FLAG);
        t.stream.weak.address(CpuId(1), &taint);
        t.isb(1);
        t.fetch(1, F, 1)
    });
    expect([NEW; 3], |t| {
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, FLAG);
        t.ldr(1, FLAG);
        t.barrier(1, Barrier::DsbLoad);
        t.isb(1);
        t.fetch(1, F, 1)
    });
    // The class in which the flag was not set: the store is not ordered after the fetch.
    expect([BOTH; 3], |t| {
        t.ldr_ctrl(1, FLAG);
        t.isb(1);
        let fetch = t.fetch(1, F, 0);
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, FLAG);
        fetch
    });
}

#[test]
fn example_4_mp_ff_the_fetch_anchor() {
    // f2 returned new: its writer's knowledge binds the later fetch of f1.
    expect([NEW; 3], |t| {
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, F2);
        t.fetch(1, F2, 1);
        t.fetch(1, F, 1)
    });
    expect([BOTH; 3], |t| {
        t.str(0, F);
        t.cachesync(0, F);
        t.str(0, F2);
        t.fetch(1, F2, 0);
        t.fetch(1, F, 1)
    });
    // With only a DMB between the stores.
    expect([BOTH, BOTH, NEW], |t| {
        t.str(0, F);
        t.barrier(0, Barrier::DmbFull);
        t.str(0, F2);
        t.fetch(1, F2, 1);
        t.fetch(1, F, 1)
    });
}

#[test]
fn example_5_cofr() {
    // The load returned the new version.
    expect([BOTH; 3], |t| {
        let fetch = t.fetch(1, F, 0);
        t.str(0, F);
        t.ldr(1, F);
        fetch
    });
    // The load returned the old one: fetch before load, load before store.
    expect([OLD; 3], |t| {
        let fetch = t.fetch(1, F, 0);
        t.ldr(1, F);
        t.str(0, F);
        fetch
    });
}

#[test]
fn example_6_isa2_dc_and_ic_on_two_cpus() {
    for order in ["ctrl", "dsb"] {
        expect([NEW; 3], |t| {
            t.str(0, F);
            t.dc(0, F);
            t.barrier(0, Barrier::DmbFull);
            t.str(0, FLAG);
            t.ldr_ctrl(1, FLAG);
            if order == "dsb" {
                t.dsb(1);
            }
            t.ic(1, F);
            t.dsb(1);
            t.str(1, FLAG2);
            t.ldr_ctrl(2, FLAG2);
            t.isb(2);
            t.fetch(2, F, 1)
        });
    }
    // Nothing orders the IC after the flag.
    expect([BOTH, BOTH, NEW], |t| {
        t.str(0, F);
        t.dc(0, F);
        t.barrier(0, Barrier::DmbFull);
        t.str(0, FLAG);
        t.ldr(1, FLAG);
        t.ic(1, F);
        t.dsb(1);
        t.str(1, FLAG2);
        t.ldr_ctrl(2, FLAG2);
        t.isb(2);
        t.fetch(2, F, 1)
    });
}

#[test]
fn example_7_sm_f_ic_having_been_fetched_is_not_clean() {
    expect([BOTH, NEW, NEW], |t| {
        t.str(0, F);
        t.fetch(1, F, 1);
        t.ic(1, F);
        t.dsb(1);
        t.str(1, FLAG);
        t.ldr_ctrl(0, FLAG);
        t.isb(0);
        t.fetch(0, F, 1)
    });
}

#[test]
fn example_8_fow_two_stores_and_no_clean() {
    for reader in [1, 2] {
        expect([[0, 2], [2, 2], [2, 2]], |t| {
            t.str(0, F);
            t.str(0, F);
            t.dsb(0);
            t.ic(0, F);
            t.dsb(0);
            t.str(0, FLAG);
            t.ldr_ctrl(reader, FLAG);
            t.isb(reader);
            t.fetch(reader, F, 2)
        });
    }
}

#[test]
fn example_9_coff() {
    expect([BOTH, BOTH, NEW], |t| {
        t.str(0, F);
        t.fetch(1, F, 1);
        t.fetch(1, F, 1)
    });
}

#[test]
fn dmb_st_carries_no_dc() {
    // CPU 0 cleans and announces with a barrier; CPU 1 invalidates after the flag and runs it.
    let test = |barrier: Barrier| {
        move |t: &mut Litmus| {
            t.str(0, F);
            t.dc(0, F);
            t.barrier(0, barrier);
            t.str(0, FLAG);
            t.ldr(1, FLAG);
            t.dsb(1);
            t.ic(1, F);
            t.dsb(1);
            t.isb(1);
            t.fetch(1, F, 1)
        }
    };
    expect([BOTH, NEW, NEW], test(Barrier::DmbStore));
    expect([NEW, NEW, NEW], test(Barrier::DmbFull));
    expect([BOTH, BOTH, BOTH], test(Barrier::DmbLoad));
}

#[test]
fn dmb_ld_orders_no_load_before_a_dc() {
    // The reader repairs the code itself after it saw the flag.
    let test = |barrier: Barrier| {
        move |t: &mut Litmus| {
            t.str(0, F);
            t.barrier(0, Barrier::DmbStore);
            t.str(0, FLAG);
            t.ldr(1, FLAG);
            t.barrier(1, barrier);
            t.cachesync(1, F);
            t.isb(1);
            t.fetch(1, F, 1)
        }
    };
    expect([NEW, NEW, NEW], test(Barrier::DsbLoad));
    let (name, caches) = CONFIGURATIONS[0];
    let mut litmus = Litmus::new(caches);
    let fetch = test(Barrier::DmbLoad)(&mut litmus);
    assert_eq!(litmus.window(fetch), BOTH, "{name}");
}
