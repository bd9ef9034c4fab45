//! What a run leaves in the stream: one fetch for each instruction, stores with their bytes, and
//! each special instruction as the event that it is.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ARCHES, CODE, CPU0, DATA, newest, stalest, views};
use textbed_arch::{Arch, SpaceId, VirtAddr, insn};
use textbed_event::{Batch, Event, Kind, MemOrder, View};
use textbed_firmware::{load, names};
use textbed_machine::Step;

fn of_kind(batch: &Batch, kind: Kind) -> Vec<&Event> {
    batch.events.iter().filter(|e| e.kind == kind && e.cpu == CPU0).collect()
}

#[test]
fn each_instruction_is_fetched_once_and_whole() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("fib");
        bed.forget_events();
        let end = bed.call_on(CPU0, f, &[5]);
        assert_eq!(end.end, Step::Returned(5));
        let events = bed.events();
        let fetches = of_kind(&events, Kind::Fetch);
        assert_eq!(fetches.len() as u64, end.steps, "{arch}");
        let code = bed.code;
        for event in fetches {
            let View::Fetch { virt, phys, len } = event.view() else { panic!() };
            assert_eq!(phys.0 - code.0, virt.0 - bed.at(CODE, 0), "{arch}");
            if arch != Arch::X86_64 {
                assert_eq!(len, 4);
            }
        }
        // The first three instructions of the x86-64 routine: CMP, JB, PUSH.
        if arch == Arch::X86_64 {
            let lens: Vec<u32> = views(&events, CPU0)
                .iter()
                .filter_map(|v| if let View::Fetch { len, .. } = v { Some(*len) } else { None })
                .take(3)
                .collect();
            assert_eq!(lens, [4, 2, 1]);
        }
    }
}

#[test]
fn a_store_event_has_address_and_bytes_of_the_store() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("store_word");
        let target = VirtAddr(bed.at(DATA, 0x40));
        bed.start(CPU0, f, &[target.0, 0x1122_3344]);
        bed.forget_events();
        bed.step_on(CPU0);
        let events = bed.events();
        let stores = of_kind(&events, Kind::Store);
        let [store] = stores.as_slice() else { panic!("{arch}: {}", stores.len()) };
        let View::Store { virt, phys, bytes, order } = store.view() else { panic!() };
        let mapping = bed.m.lookup(SpaceId::KERNEL, target).unwrap();
        assert_eq!((virt, order), (target, MemOrder::Plain), "{arch}");
        assert_eq!(phys.0, mapping.phys.0 + (target.0 - mapping.virt.0), "{arch}");
        let little = [0x44, 0x33, 0x22, 0x11];
        let mut expected = little;
        if !arch.is_little_endian() {
            expected.reverse();
        }
        assert_eq!(events.bytes(bytes), expected, "{arch}");
    }
}

#[test]
fn stores_carry_the_order_of_their_instruction() {
    let orders = |arch: Arch, name: &str, args: [u64; 2]| {
        let mut bed = newest(arch);
        let f = bed.install(name);
        let target = bed.at(DATA, 0x40);
        bed.start(CPU0, f, &[target, args[1]]);
        bed.forget_events();
        bed.step_on(CPU0);
        let events = bed.events();
        let views: Vec<MemOrder> = views(&events, CPU0)
            .iter()
            .filter_map(|v| if let View::Store { order, .. } = v { Some(*order) } else { None })
            .collect();
        views
    };
    use MemOrder::{Full, Plain, Release};
    assert_eq!(orders(Arch::Arm64, "publish_word", [0, 1]), [Release], "stlr");
    assert_eq!(orders(Arch::Arm64, "store_word", [0, 1]), [Plain], "str");
    assert_eq!(orders(Arch::Arm64, "fetch_add", [0, 1]), [Release], "ldaddal");
    assert_eq!(orders(Arch::Arm64, "atomic_inc", [0, 2]), [Release, Release], "stlxr");
    assert_eq!(orders(Arch::X86_64, "fetch_add", [0, 1]), [Full], "lock xadd");
    assert_eq!(orders(Arch::X86_64, "publish_word", [0, 1]), [Plain], "mov");
    assert_eq!(orders(Arch::Ppc64, "atomic_inc", [0, 1]), [Plain], "stwcx.");
}

/// Names of the instructions behind the special events of a run of `name`, in order.
fn specials(arch: Arch, name: &str) -> Vec<&'static str> {
    let mut bed = newest(arch);
    let f = bed.install(name);
    let data = bed.at(DATA, 0);
    bed.forget_events();
    bed.run(f, &[data, 64, 64]);
    let events = bed.events();
    let kinds = [
        Kind::CacheClean,
        Kind::IcacheInvalidate,
        Kind::TlbInvalidate,
        Kind::Barrier,
        Kind::ContextSync,
    ];
    let special = events.events.iter().filter(|e| kinds.contains(&e.kind));
    special.map(|e| insn::by_id(insn::OpId(e.op.0)).unwrap().name).collect()
}

#[test]
fn maintenance_sequences_appear_instruction_by_instruction() {
    let arm = ["dc cvau", "dsb ish", "ic ivau", "dsb ish", "isb"];
    let power = ["dcbst", "sync", "icbi", "sync", "isync"];
    for name in ["cachesync", "cachesync_range"] {
        assert_eq!(specials(Arch::Arm64, name), arm);
        assert_eq!(specials(Arch::Ppc64le, name), power);
        assert_eq!(specials(Arch::Ppc64, name), power);
        assert_eq!(specials(Arch::X86_64, name), ["cpuid"]);
    }
    let tlb = |arch| specials(arch, "tlb_flush_page");
    assert_eq!(tlb(Arch::Arm64), ["dsb ishst", "tlbi vaale1is", "dsb ish", "isb"]);
    assert_eq!(tlb(Arch::Ppc64), ["ptesync", "tlbie", "eieio", "tlbsync", "ptesync"]);
    assert!(tlb(Arch::X86_64).contains(&"invlpg"));
}

#[test]
fn the_event_of_a_clean_has_the_address_that_the_register_held() {
    for (arch, address) in [(Arch::Arm64, 0x1234), (Arch::Ppc64le, 0x1234)] {
        let mut bed = newest(arch);
        let f = bed.install("clean_line");
        let data = bed.at(DATA, address);
        bed.forget_events();
        bed.run(f, &[data]);
        let events = bed.events();
        let cleans = of_kind(&events, Kind::CacheClean);
        let [clean] = cleans.as_slice() else { panic!("{arch}") };
        let View::CacheClean { virt, .. } = clean.view() else { panic!() };
        assert_eq!(virt.0, data, "{arch}");
    }
}

#[test]
fn taken_branches_are_in_the_stream() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let (f, ret42) = (bed.install("call0"), bed.install("ret42"));
        bed.forget_events();
        bed.run(f, &[ret42]);
        let events = bed.events();
        let branches: Vec<_> = views(&events, CPU0)
            .into_iter()
            .filter_map(|v| match v {
                View::Branch { to, indirect, .. } => Some((to.0, indirect)),
                _ => None,
            })
            .collect();
        // The call, the return from ret42, the return to the caller.
        assert_eq!(branches.len(), 3, "{arch}");
        assert_eq!(branches[0], (ret42, true), "{arch}");
        assert!(branches.iter().all(|(_, indirect)| *indirect), "{arch}");
    }
}

#[test]
fn equal_runs_leave_equal_streams() {
    for arch in ARCHES {
        let run = || {
            let mut bed = stalest(arch);
            for name in ["fib", "cachesync", "atomic_inc"] {
                let f = bed.install(name);
                let data = bed.at(DATA, 0);
                bed.call_on(CPU0, f, &[if name == "fib" { 4 } else { data }, 3]);
            }
            let batch = bed.events();
            (batch.events.clone(), batch.bytes.clone())
        };
        assert!(run() == run(), "{arch}");
    }
}

#[test]
fn the_table_knows_every_special_instruction_of_the_firmware() {
    // What the model must not leave to the engine is recognised wherever it stands in a routine.
    for arch in [Arch::Arm64, Arch::Ppc64le, Arch::Ppc64] {
        let mut found = 0;
        for name in names(arch) {
            for word in load(arch, name).unwrap().bytes.chunks(4) {
                found += usize::from(insn::decode(arch, word).is_some());
            }
        }
        assert!(found > 50, "{arch}: {found}");
    }
}
