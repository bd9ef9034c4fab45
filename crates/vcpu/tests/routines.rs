//! Every guest routine on every architecture: what it computes, and what it leaves in memory.

#![allow(clippy::unwrap_used)]

mod bed;

use std::collections::BTreeSet;

use bed::{ARCHES, Bed, CODE, CPU0, DATA, PAGE, newest, views};
use textbed_arch::{Arch, VirtAddr, effect::SyncCause};
use textbed_event::View;
use textbed_firmware::names;
use textbed_machine::Step;

/// One case: the routine, what to do.
type Case = (&'static str, fn(&mut Bed, u64));

const CASES: &[Case] = &[
    ("ret42", |b, f| assert_eq!(b.run(f, &[]), 42)),
    ("add3", |b, f| {
        assert_eq!(b.run(f, &[1, 20, 300]), 321);
        assert_eq!(b.run(f, &[u64::MAX, 5, 0]), 4);
    }),
    ("sum_loop", |b, f| {
        let data = b.at(DATA, 0);
        for (i, word) in [5, 7, 0xffff_fff0, 100].into_iter().enumerate() {
            b.set_word(data + 4 * i as u64, word);
        }
        assert_eq!(b.run(f, &[data, 4]), 96, "the sum, modulo 2^32");
        let sums: Vec<u32> = (0..4).map(|i| b.word(data + 4 * i)).collect();
        assert_eq!(sums, [5, 12, 0xffff_fffc, 96]);
        assert_eq!(b.run(f, &[data, 0]), 0);
    }),
    ("memcpy_words", |b, f| {
        // The source crosses a page.
        let (to, from) = (b.at(DATA, 0x40), b.at(DATA, PAGE - 8));
        for i in 0..5 {
            b.set_word(from + 4 * i, 0x1000_0000 + i as u32);
        }
        assert_eq!(b.run(f, &[to, from, 5]), to);
        for i in 0..5 {
            assert_eq!(b.word(to + 4 * i), 0x1000_0000 + i as u32);
        }
        assert_eq!(b.word(to + 20), 0, "not one more");
    }),
    ("load_word", |b, f| {
        let data = b.at(DATA, PAGE - 2);
        b.set_word(data, 0x8765_4321);
        assert_eq!(b.run(f, &[data]), 0x8765_4321, "across a page");
    }),
    ("store_word", |b, f| {
        let data = b.at(DATA, PAGE - 2);
        assert_eq!(b.run(f, &[data, 0x1234_5678]), 0);
        assert_eq!(b.word(data), 0x1234_5678, "across a page");
    }),
    ("store_two", |b, f| {
        let data = b.at(DATA, 0x80);
        assert_eq!(b.run(f, &[data, 0x1111_1111_2222_2222, 0x3333_3333_4444_4444]), 0);
        let mut words: Vec<u32> = (0..4).map(|i| b.word(data + 4 * i)).collect();
        if !b.arch().is_little_endian() {
            words.swap(0, 1);
            words.swap(2, 3);
        }
        assert_eq!(words, [0x2222_2222, 0x1111_1111, 0x4444_4444, 0x3333_3333]);
    }),
    ("call0", |b, f| {
        let ret42 = b.install("ret42");
        assert_eq!(b.run(f, &[ret42]), 42);
    }),
    ("fib", |b, f| {
        let numbers: Vec<u64> = (0..10).map(|n| b.run(f, &[n])).collect();
        assert_eq!(numbers, [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]);
    }),
    ("spin", |b, f| {
        let end = b.call_on(CPU0, f, &[]);
        assert_eq!((end.end, end.steps), (Step::Limit, 10_000));
        b.cpus[0].set_budget(Some(3));
        let end = b.call_on(CPU0, f, &[]);
        assert_eq!(end.end, Step::Limit);
        if b.slice.is_none() {
            assert_eq!(end.steps, 4, "three, and no fourth");
        }
        b.cpus[0].set_budget(None);
    }),
    ("atomic_inc", |b, f| {
        let data = b.at(DATA, 0);
        b.set_word(data, 0xffff_ffff);
        assert_eq!(b.run(f, &[data, 3]), 3);
        assert_eq!(b.word(data), 2);
    }),
    ("fetch_add", |b, f| {
        let data = b.at(DATA, 0);
        b.set_word(data, 40);
        assert_eq!(b.run(f, &[data, 2]), 40);
        assert_eq!(b.word(data), 42);
    }),
    ("publish_word", |b, f| {
        let data = b.at(DATA, 0);
        assert_eq!(b.run(f, &[data, 9]), 0);
        assert_eq!(b.word(data), 9);
    }),
    ("reader", reader),
    ("reader_nosync", reader),
    ("reader_wait", |b, f| {
        let (data, ret42) = (b.at(DATA, 0), b.install("ret42"));
        b.set_word(data, 1);
        assert_eq!(b.run(f, &[data, ret42]), 42);
    }),
    ("patched_site", |b, f| {
        assert_eq!(b.run(f, &[]), 1);
        let routine = b.routine("patched_site");
        let site = f + routine.symbol("site").unwrap().offset;
        let alternative = routine.bytes_of("alternative").unwrap();
        b.store(site - b.at(CODE, 0) + b.at(bed::ALIAS, 0), alternative);
        b.publish(site, alternative.len() as u64);
        assert_eq!(b.run(f, &[]), 2, "the branch was taken");
    }),
    ("poke_call", |b, f| {
        // Stores elsewhere: nothing stale can come of it.
        let (data, ret42) = (b.at(DATA, 0), b.install("ret42"));
        assert_eq!(b.run(f, &[data, 77, ret42]), 42);
        assert_eq!(b.word(data), 77);
    }),
    ("poke_sync_call", |b, f| {
        // Rewrites the word of ret42 that has the number in it.
        let ret42 = b.install("ret42");
        let rwx = ret42 - b.at(CODE, 0) + b.at(bed::RWX, 0);
        let word = b.word(ret42);
        let changed = match b.arch() {
            Arch::X86_64 => word ^ (42 ^ 43) << 8,
            Arch::Arm64 => word ^ (42 ^ 43) << 5,
            _ => word ^ (42 ^ 43),
        };
        assert_eq!(b.run(f, &[rwx, changed.into(), rwx]), 43);
    }),
    ("cachesync", |b, f| {
        let data = b.at(DATA, 0);
        assert_eq!(b.run(f, &[data]), 0);
    }),
    ("cachesync_range", |b, f| {
        let data = b.at(DATA, 0x30);
        let lines = if b.arch() == Arch::X86_64 { 0 } else { 3 };
        assert_eq!(b.run(f, &[data, 0x80, 64]), lines, "0x30 to 0xb0: three lines of 64 bytes");
    }),
    ("clean_line", |b, f| {
        let data = b.at(DATA, 0);
        assert_eq!(b.run(f, &[data]), 0);
    }),
    ("invalidate_line", |b, f| {
        let data = b.at(DATA, 0);
        assert_eq!(b.run(f, &[data]), 0);
    }),
    ("sync_core", |b, f| {
        b.forget_events();
        assert_eq!(b.run(f, &[]), 0);
        let events = b.events();
        let cause = match b.arch() {
            Arch::X86_64 => SyncCause::ExceptionReturn,
            _ => SyncCause::Instruction,
        };
        assert!(views(&events, CPU0).contains(&View::ContextSync { cause }), "{}", b.arch());
    }),
    ("exception_return", |b, f| {
        b.forget_events();
        assert_eq!(b.run(f, &[]), 42);
        let events = b.events();
        let sync = View::ContextSync { cause: SyncCause::ExceptionReturn };
        assert!(views(&events, CPU0).contains(&sync), "{}", b.arch());
    }),
    ("tlb_flush_page", |b, f| {
        b.forget_events();
        let data = b.at(DATA, 0x123);
        assert_eq!(b.run(f, &[data]), 0);
        let events = b.events();
        let found = views(&events, CPU0).iter().any(|v| {
            matches!(v, View::TlbInvalidate { virt, .. } if virt.align_down(12).0 == data & !0xfff)
        });
        assert!(found, "{}", b.arch());
    }),
    ("trap_breakpoint", |b, f| {
        let end = b.call_on(CPU0, f, &[]).end;
        let (vector, name, len) = match b.arch() {
            Arch::X86_64 => (3, "#BP breakpoint", 1),
            Arch::Arm64 => (0x3c, "brk", 4),
            _ => (0x700, "program interrupt", 4),
        };
        let trapped = Step::Trapped { virt: VirtAddr(f), vector, name: name.to_owned() };
        assert_eq!(end, trapped, "{}", b.arch());
        let after = if b.arch() == Arch::X86_64 { f + 1 } else { f };
        assert_eq!(b.cpus[0].pc().unwrap(), VirtAddr(after), "{}", b.arch());
        // A handler may let it go on behind the breakpoint.
        b.cpus[0].set_pc(VirtAddr(f + len)).unwrap();
        loop {
            match b.step(CPU0) {
                Step::Ran => {}
                end => break assert_eq!(end, Step::Returned(7), "{}", b.arch()),
            }
        }
    }),
    ("trap_undefined", |b, f| {
        let end = b.call_on(CPU0, f, &[]).end;
        let expected = match b.arch() {
            Arch::X86_64 => 6,
            Arch::Arm64 => 0,
            _ => 0xe40,
        };
        assert!(
            matches!(end, Step::Trapped { virt, vector, .. } if virt.0 == f && vector == expected),
            "{}: {end:?}",
            b.arch()
        );
        assert_eq!(b.cpus[0].pc().unwrap(), VirtAddr(f));
    }),
    ("sync_cpuid", |b, f| {
        b.forget_events();
        assert!(b.run(f, &[0]) >= 1, "the highest leaf");
        assert!(serialised(b));
    }),
    ("sync_serialize", |b, f| {
        b.forget_events();
        assert_eq!(b.run(f, &[]), 0);
        assert!(serialised(b));
    }),
    ("sync_cr", |b, f| {
        b.forget_events();
        assert_eq!(b.run(f, &[]), 0);
        assert!(serialised(b));
    }),
];

fn serialised(b: &mut Bed) -> bool {
    let events = b.events();
    views(&events, CPU0).contains(&View::ContextSync { cause: SyncCause::Serialising })
}

fn reader(b: &mut Bed, f: u64) {
    let (flag, ret42) = (b.at(DATA, 0), b.install("ret42"));
    b.set_word(flag, 0);
    assert_eq!(b.run(f, &[flag, ret42]), u64::MAX, "{}: not set", b.arch());
    b.set_word(flag, 1);
    assert_eq!(b.run(f, &[flag, ret42]), 42, "{}: set", b.arch());
}

#[test]
fn every_routine_does_what_its_header_says() {
    for arch in ARCHES {
        let mut ran = BTreeSet::new();
        for (name, case) in CASES {
            if !names(arch).any(|n| n == *name) {
                assert!(arch != Arch::X86_64, "{name} is no routine of any architecture");
                continue;
            }
            for bed in [newest(arch), newest(arch).freely()] {
                eprintln!("{arch} {name} {:?}", bed.slice);
                let mut bed = bed;
                let entry = bed.install(name);
                case(&mut bed, entry);
            }
            ran.insert(*name);
        }
        // Handlers are called by no function: they are tried in exceptions.rs.
        let all: BTreeSet<&str> = names(arch).filter(|n| !n.starts_with("handler_")).collect();
        assert_eq!(ran, all, "{arch}: every routine has a case");
    }
}
