//! What calls need of their context is said where they begin; what they find wrong is an event.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, boot_with, values};
use textbed_arch::{Arch, CpuId, Features};
use textbed_kernel::{Arg, CallError, Progress, Wait};

/// Needs of the first call of a trace.
fn needs(bed: &mut Bed) -> Vec<String> {
    let trace = bed.trace_all();
    let lines = trace.iter().skip(1).map_while(|l| l[2..].strip_prefix("needs "));
    lines.map(str::to_owned).collect()
}

#[test]
fn needs_by_architecture() {
    type Row = (&'static str, &'static [u64], [&'static [&'static str]; 3]);
    let rows: [Row; 6] = [
        ("set_memory_ro", &[1], [&["MaySleep"], &["MaySleep"], &[]]),
        ("flush_tlb_kernel_range", &[4096], [&["IrqsOn"], &[], &[]]),
        ("flush_icache_range", &[64], [&[], &["IrqsOn"], &[]]),
        ("bpf_arch_text_invalidate", &[64], [&["MaySleep"], &["IrqsOn"], &["MaySleep"]]),
        ("vfree", &[], [&["NotInNmi"]; 3]),
        ("register_kprobe", &[], [&["MaySleep"]; 3]),
    ];
    for (call, more, want) in rows {
        for (arch, want) in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le].into_iter().zip(want) {
            let mut bed = boot("6.12", arch, &[]);
            let a = bed.call("vmalloc", &[2 << 12]) as u64;
            bed.trace();
            let second = match call {
                "flush_tlb_kernel_range" | "flush_icache_range" => {
                    more.iter().map(|n| a + n).collect()
                }
                _ => more.to_vec(),
            };
            bed.call(call, &[&[a][..], &second].concat());
            assert_eq!(needs(&mut bed), want, "{call} on {arch}");
        }
    }
}

#[test]
fn a_sender_with_interrupts_off_warns_and_sends_all_the_same() {
    for (arch, call) in
        [(Arch::X86_64, "flush_tlb_kernel_range"), (Arch::Arm64, "flush_icache_range")]
    {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.call("vmalloc", &[1 << 12]) as u64;
        bed.trace();
        bed.kernel.machine_mut().set_irqs(CpuId(0), false);
        for warned in [1, 0] {
            bed.call(call, &[a, a + 4096]);
            let trace = bed.trace();
            let count = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
            assert_eq!((count("WARN WrongContext"), count("ipi do_")), (warned, 1), "{trace:#?}");
        }
        assert!(!bed.kernel.machine().irqs_on(CpuId(0)));
    }
    let mut bed = boot("6.12", Arch::X86_64, &[]);
    let a = bed.call("vmalloc", &[1 << 12]) as u64;
    bed.kernel.machine_mut().set_irqs(CpuId(0), false);
    let done = bed.try_call("set_memory_ro", &values(&[a, 1]));
    assert!(matches!(done, Err(CallError::Died { .. })), "the BUG_ON of cpa_flush: {done:?}");
}

#[test]
fn receivers_with_interrupts_off_are_waited_for() {
    for (arch, call) in
        [(Arch::X86_64, "flush_tlb_kernel_range"), (Arch::Arm64, "kick_all_cpus_sync")]
    {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.call("vmalloc", &[1 << 12]) as u64;
        let args = match call {
            "kick_all_cpus_sync" => Vec::new(),
            _ => values(&[a, a + 4096]),
        };
        bed.trace();
        bed.kernel.machine_mut().set_irqs(CpuId(1), false);
        let waits = Ok(Progress::Waits(Wait::Cpus(vec![CpuId(1)])));
        assert_eq!(bed.kernel.begin(CpuId(0), call, &args), waits, "{call}");
        assert_eq!(bed.trace(), [""; 0], "{call} did nothing yet");
        let held = bed.kernel.begin_anyway(CpuId(0), call, &args);
        assert!(matches!(held, Err(CallError::Waits { .. })), "{call}: {held:?}");
    }
    // A probe waits where its page is protected, and where its breakpoint is told to all.
    let mut bed = boot("6.12", Arch::X86_64, &[]);
    let text = bed.kernel.layout().text.start.0;
    for (at, calls) in [(text + 0x2000, true), (text + 0x3000, false)] {
        bed.trace();
        bed.kernel.machine_mut().set_irqs(CpuId(1), false);
        let begun = bed.kernel.begin(CpuId(0), "register_kprobe", &values(&[at])).unwrap();
        assert!(matches!(gone_on(&mut bed, begun), Progress::Waits(Wait::Cpus(_))));
        let protects = bed.trace().iter().any(|l| l == "0 call set_memory_rox");
        assert_eq!(protects, calls, "{at:#x}");
        bed.kernel.machine_mut().set_irqs(CpuId(1), true);
        let resumed = bed.kernel.resume(CpuId(0)).unwrap();
        assert!(matches!(gone_on(&mut bed, resumed), Progress::Done(_)));
    }
}

/// Goes on with a call until it waits or returns.
fn gone_on(bed: &mut common::Bed, mut progress: Progress) -> Progress {
    while progress == Progress::More {
        progress = bed.kernel.resume(CpuId(0)).unwrap();
    }
    progress
}

#[test]
fn calls_made_of_steps_wait_where_they_interrupt() {
    for (arch, call, before, waits) in [
        (Arch::X86_64, "set_memory_ro", "0 leaf a+0x0 1x4K rw->r--", true),
        (Arch::Arm64, "set_memory_ro", "0 leaf a+0x0 1x4K rw->r--", false),
        (Arch::Arm64, "stop_machine", "0 call stop_machine", true),
        (Arch::Arm64, "flush_icache_range", "0 ic ivau a+0x0", true),
        // What was unmapped waits for a purge, and interrupts nobody.
        (Arch::X86_64, "vfree", "0 leaf a+0x0 1x4K rw->---", false),
    ] {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        let args = match call {
            "stop_machine" => Vec::new(),
            "vfree" => values(&[a]),
            "flush_icache_range" => values(&[a, a + 64]),
            _ => values(&[a, 1]),
        };
        bed.trace();
        bed.kernel.machine_mut().set_irqs(CpuId(1), false);
        let begun = bed.kernel.begin(CpuId(0), call, &args).unwrap();
        let mut progress = gone_on(&mut bed, begun);
        let waiting = progress == Progress::Waits(Wait::Cpus(vec![CpuId(1)]));
        assert_eq!(waiting, waits, "{call}: {progress:?}");
        let trace = bed.trace();
        assert!(trace.iter().any(|l| l == before), "{call}: {trace:#?}");
        bed.kernel.machine_mut().set_irqs(CpuId(1), true);
        if waits {
            progress = bed.kernel.resume(CpuId(0)).unwrap();
        }
        let done = gone_on(&mut bed, progress);
        assert!(matches!(done, Progress::Done(_)), "{call}: {done:?}");
    }
}

#[test]
fn x86_flushes_by_invlpgb_where_the_cpu_has_it_and_interrupts_nobody() {
    let features = Features::default_for(Arch::X86_64) | Features::X86_INVLPGB;
    for (version, ipis) in [("6.12", 1), ("6.18", 0), ("7.0", 0)] {
        let mut bed = boot_with(version, Arch::X86_64, &[], features, 2);
        let a = bed.area("a", "vmalloc", 4 << 12);
        bed.trace();
        assert_eq!(bed.call("set_memory_ro", &[a, 4]), 0);
        let trace = bed.trace();
        let count = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
        // One for the split of the direct map's leaf, one at the end.
        assert_eq!(count(" ipi "), 2 * ipis, "{version}");
        assert_eq!(count("invlpgb: tlb All broadcast"), 2 - 2 * ipis, "{version}");
        assert_eq!(count("tlbsync"), 2 - 2 * ipis, "{version}");
        bed.call("flush_tlb_kernel_range", &[a, a + (4 << 12)]);
        let needs_irqs = bed.trace_all().iter().any(|l| l.ends_with("needs IrqsOn"));
        assert_eq!(needs_irqs, ipis == 1, "{version}");
    }
}

#[test]
fn stop_machine_orders_everybody_and_synchronises_nobody() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let mut bed = boot("6.12", arch, &[]);
        bed.trace();
        assert_eq!(bed.call("stop_machine", &[]), 0);
        let trace = bed.trace();
        assert!(!trace.iter().any(|l| l.contains("sync ")), "{arch}: {trace:#?}");
        let count = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
        assert_eq!((count("Publish"), count("Observe"), count("StopMachine")), (2, 2, 2), "{arch}");
        assert!(bed.kernel.machine().irqs_on(CpuId(0)) && bed.kernel.machine().irqs_on(CpuId(1)));
    }
}

#[test]
fn arm64_alternatives_go_in_by_the_linear_alias_with_everybody_stopped() {
    let mut bed = boot("6.12", Arch::Arm64, &[("rodata", "off")]);
    let text = bed.kernel.layout().text.start.0 + 0x2000;
    let nop = 0xd503_201fu32.to_le_bytes();
    let args = [Arg::Value(text), Arg::Code(nop.to_vec())];
    bed.trace();
    bed.try_call("apply_alternatives_all", &args).unwrap();
    let trace = bed.trace();
    let at = |what: &str| trace.iter().position(|l| l.contains(what)).unwrap();
    assert!(at("StopMachine { begin: true }") < at("store dm"));
    assert!(at("store dm") < at("dc civac") && at("dc civac") < at("ic ialluis"));
    let others = trace.iter().position(|l| l.starts_with("1-sync") && l.ends_with("isb")).unwrap();
    assert!(at("ic ialluis") < others);
    let mut now = [0; 4];
    bed.kernel.machine_mut().load(CpuId(0), textbed_arch::VirtAddr(text), &mut now).unwrap();
    assert_eq!(now, nop);
}

#[test]
fn set_memory_4k_splits_and_keeps_pages_small() {
    for (version, leaf) in [("6.12", false), ("6.18", true)] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let a = bed.area("a", "vmalloc_huge", 2 << 20);
        bed.trace();
        assert_eq!(bed.call("set_memory_4k", &[a + 0x1000, 1]), 0);
        let trace = bed.trace();
        let splits = trace.iter().filter(|l| l.contains("512x2M>4K")).count();
        // The direct map, too.
        assert_eq!(splits, 2, "{version}: {trace:#?}");
        bed.call("set_memory_rox", &[a, 512]);
        let joined = bed.trace().iter().any(|l| l.contains("4K>2M"));
        assert!(!joined, "{version}: 6.12 never joins, 6.18 not where pages are kept small");
        bed.kernel.fail("set_memory_4k", 2, 12).unwrap();
        let b = bed.call("vmalloc_huge", &[2 << 20]) as u64;
        assert_eq!(bed.call("set_memory_4k", &[b, 1]), -12, "{version} {leaf}");
    }
}
