//! kprobes: what lies at the address and in the slot, who is told, and what waits for what.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, values};
use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_kernel::{Progress, Resume};

/// Code of some instructions, the probed one first: x86 `push rbp; mov rbp, rsp; nops; ret`; two
/// moves and a return elsewhere.
fn code(arch: Arch) -> Vec<u8> {
    let words: &[u32] = match arch {
        Arch::X86_64 => return vec![0x55, 0x48, 0x89, 0xe5, 0x90, 0x90, 0x90, 0xc3],
        Arch::Arm64 => &[0x5280_0540, 0xd503_201f, 0xd65f_03c0],
        _ => &[0x3860_002a, 0x6000_0000, 0x4e80_0020],
    };
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

const BREAKPOINTS: [(Arch, &[u8]); 3] = [
    (Arch::X86_64, &[0xcc]),
    (Arch::Arm64, &[0x80, 0x00, 0x20, 0xd4]),
    (Arch::Ppc64le, &[0x08, 0x00, 0xe0, 0x7f]),
];

fn bed(version: &str, arch: Arch) -> (Bed, u64) {
    let mut bed = boot(version, arch, &[]);
    let module = bed.call_code("load_module", &[], &code(arch)) as u64;
    bed.trace();
    (bed, module)
}

fn bytes(bed: &mut Bed, at: u64, len: usize) -> Vec<u8> {
    let mut now = vec![0; len];
    bed.kernel.machine_mut().load(CpuId(0), VirtAddr(at), &mut now).unwrap();
    bed.trace();
    now
}

fn slot(bed: &mut Bed, at: u64) -> u64 {
    match bed.kernel.trap(CpuId(1), VirtAddr(at), vector(bed.kernel.arch())) {
        Some(Resume::At(slot) | Resume::Step { at: slot, .. }) => slot.0,
        other => panic!("{other:?}"),
    }
}

fn vector(arch: Arch) -> u16 {
    match arch {
        Arch::X86_64 => 3,
        Arch::Arm64 => 0x3c,
        _ => 0x700,
    }
}

#[test]
fn a_probe_is_a_copy_in_a_slot_and_a_breakpoint() {
    for (arch, breakpoint) in BREAKPOINTS {
        for version in ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"] {
            let (mut bed, at) = bed(version, arch);
            assert_eq!(bed.call("register_kprobe", &[at]), 0, "{version} {arch}");
            let trace = bed.trace();
            assert_eq!(bytes(&mut bed, at, breakpoint.len()), breakpoint, "{version} {arch}");
            let slot = slot(&mut bed, at);
            let first = &code(arch)[..if arch == Arch::X86_64 { 1 } else { 4 }];
            assert_eq!(bytes(&mut bed, slot, first.len()), first, "{version} {arch}");
            let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(slot)).unwrap();
            assert_eq!(leaf.perm, Perm::KERNEL_ROX, "{version} {arch}");
            // The slot is written before the breakpoint, and only x86 interrupts for it.
            let count = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
            let synced = count("ipi do_sync_core");
            assert_eq!(synced, usize::from(arch == Arch::X86_64), "{version} {arch}");
            let stops = count("StopMachine { begin: true }");
            // arm64's patcher promises it too, and in 5.18 for the slot; powerpc tells nobody.
            let (stopped, tells) = match arch {
                Arch::X86_64 => (0, 1),
                Arch::Arm64 if version == "5.18" => (2, 4),
                Arch::Arm64 => (1, 2),
                _ => (0, 0),
            };
            assert_eq!(stops, stopped, "{version} {arch}");
            assert_eq!(count("promised NoStaleCode"), tells, "{version} {arch}");
            bed.call("unregister_kprobe", &[at]);
            let trace = bed.trace();
            let promised = trace.iter().filter(|l| l.contains("promised NoStaleCode")).count();
            assert_eq!(promised, tells.min(2), "{version} {arch}");
            assert_eq!(bytes(&mut bed, at, first.len()), first, "{version} {arch}");
            let put_back = trace.iter().rposition(|l| l.contains("store")).unwrap();
            let grace = trace.iter().position(|l| l.contains("GracePeriod")).unwrap();
            assert!(put_back < grace, "{version} {arch}: waits before the slot goes");
            // powerpc's handler tries again where no trap lies any more.
            let again = (arch == Arch::Ppc64le).then_some(Resume::At(VirtAddr(at)));
            assert_eq!(bed.kernel.trap(CpuId(1), VirtAddr(at), vector(arch)), again);
        }
    }
}

#[test]
fn the_page_of_slots_gets_its_permissions_by_version() {
    let rows = [
        ("6.1", Arch::X86_64, &["set_memory_ro", "set_memory_x"][..]),
        ("6.12", Arch::X86_64, &["set_memory_rox"]),
        ("6.1", Arch::Arm64, &[]),
        ("6.12", Arch::Arm64, &[]),
        ("6.18", Arch::Arm64, &["set_memory_rox", "set_memory_ro", "set_memory_x"]),
        ("6.1", Arch::Ppc64le, &["set_memory_ro", "set_memory_x"]),
        ("6.12", Arch::Ppc64le, &[]),
    ];
    for (version, arch, want) in rows {
        let (mut bed, at) = bed(version, arch);
        bed.call("register_kprobe", &[at]);
        let mut trace = bed.trace();
        // x86 has another page for detours, which gets the same.
        let detours = trace.iter().position(|l| l.contains("kprobe_optinsn_slots"));
        trace.truncate(detours.unwrap_or(trace.len()));
        let calls = trace.iter().filter_map(|l| l[2..].strip_prefix("call set_memory"));
        let calls: Vec<String> = calls.map(|c| format!("set_memory{c}")).collect();
        assert_eq!(calls, want, "{version} {arch}");
    }
    // arm64 6.12: the page is read-only by its own mapping alone, the direct map may write it.
    let (mut bed, at) = bed("6.12", Arch::Arm64);
    bed.call("register_kprobe", &[at]);
    let slot = slot(&mut bed, at);
    let frame = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(slot)).unwrap().phys;
    let alias = bed.kernel.direct_map_of(frame.pfn()).unwrap();
    let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, alias).unwrap();
    assert!(leaf.perm.writable());
}

#[test]
fn what_cannot_be_probed() {
    for (arch, _) in BREAKPOINTS {
        let (mut bed, at) = bed("6.12", arch);
        let data = bed.call("vmalloc", &[4096]) as u64;
        assert_eq!(bed.call("register_kprobe", &[data]), -22, "{arch}: no text");
        bed.call("jump_entry", &[7, at, at + 64]);
        assert_eq!(bed.call("register_kprobe", &[at]), -22, "{arch}: a static key's");
        if arch != Arch::X86_64 {
            assert_eq!(bed.call("register_kprobe", &[at + 2]), -22, "{arch}: unaligned");
        }
        bed.kernel.fail("register_kprobe", 4, 12).unwrap();
        let nth = if arch == Arch::X86_64 { 2 } else { 1 };
        for _ in 0..nth {
            bed.call("register_kprobe", &[data]);
        }
        assert_eq!(bed.call("disable_kprobe", &[at]), -22, "{arch}: none there");
    }
    let (mut bed, at) = bed("6.12", Arch::X86_64);
    bed.kernel.fail("execmem_alloc", 3, 12).unwrap();
    bed.kernel.fail("register_kprobe", 1, 12).unwrap();
    assert_eq!(bed.call("register_kprobe", &[at]), -12, "no slot");
    assert_eq!(bytes(&mut bed, at, 1), [0x55]);
    let module = bed.call_code("load_module", &[], &[0xcc, 0xc3]) as u64;
    assert_eq!(bed.call("register_kprobe", &[module]), -95, "a breakpoint");
}

#[test]
fn two_handlers_share_a_breakpoint_and_disabling_takes_it_away() {
    for (arch, breakpoint) in BREAKPOINTS {
        let (mut bed, at) = bed("6.12", arch);
        bed.call("register_kprobe", &[at]);
        bed.call("register_kprobe", &[at]);
        bed.call("unregister_kprobe", &[at]);
        assert_eq!(bytes(&mut bed, at, breakpoint.len()), breakpoint, "{arch}");
        assert_eq!(bed.call("disable_kprobe", &[at]), 0);
        let len = breakpoint.len();
        assert_eq!(bytes(&mut bed, at, len), code(arch)[..len], "{arch}");
        assert_eq!(bed.call("enable_kprobe", &[at]), 0);
        assert_eq!(bytes(&mut bed, at, len), breakpoint, "{arch}");
        bed.call("free_module", &[at]);
        assert_eq!(bed.kernel.trap(CpuId(1), VirtAddr(at), vector(arch)), None, "{arch}: gone");
    }
}

#[test]
fn x86_optimises_after_a_grace_period_of_tasks_and_takes_back_before_it() {
    let (mut bed, at) = bed("6.12", Arch::X86_64);
    bed.call("register_kprobe", &[at]);
    bed.trace();
    bed.call("kprobe_optimizer", &[]);
    let trace = bed.trace();
    assert_eq!(bytes(&mut bed, at, 1), [0xe9]);
    let grace = trace.iter().position(|l| l.contains("Tasks")).unwrap();
    let jump = trace.iter().position(|l| l.contains("call text_poke_bp")).unwrap();
    assert!(grace < jump);
    assert_eq!(trace.iter().filter(|l| l.contains("ipi do_sync_core")).count(), 3);
    // The detour ends with what was replaced and a jump behind it.
    let to = i32::from_le_bytes(bytes(&mut bed, at + 1, 4).try_into().unwrap());
    let slot = (at + 5).wrapping_add_signed(i64::from(to));
    let tail = bytes(&mut bed, slot + 96, 5 + 5);
    assert_eq!(tail[..5], code(Arch::X86_64)[..5]);
    let back = i32::from_le_bytes(tail[6..].try_into().unwrap());
    assert_eq!((slot + 96 + 10).wrapping_add_signed(i64::from(back)), at + 5);
    // Unregistering leaves the jump to the work item.
    bed.call("unregister_kprobe", &[at]);
    assert_eq!(bytes(&mut bed, at, 1), [0xe9]);
    bed.call("wait_for_kprobe_optimizer", &[]);
    let trace = bed.trace();
    assert_eq!(bytes(&mut bed, at, 8), code(Arch::X86_64));
    let grace = trace.iter().position(|l| l.contains("Tasks")).unwrap();
    let last = trace.iter().rposition(|l| l.contains("call text_poke")).unwrap();
    assert!(last < grace, "taken back before it waits");
    assert_eq!(trace.iter().filter(|l| l.contains("ipi do_sync_core")).count(), 3);
}

#[test]
fn a_probe_inside_a_jump_has_it_taken_back_at_once() {
    let (mut bed, at) = bed("6.12", Arch::X86_64);
    bed.call("register_kprobe", &[at]);
    bed.call("kprobe_optimizer", &[]);
    assert_eq!(bed.call("register_kprobe", &[at + 1]), 0);
    assert_eq!(bytes(&mut bed, at, 8), [0xcc, 0xcc, 0x89, 0xe5, 0x90, 0x90, 0x90, 0xc3]);
    let inner = slot(&mut bed, at + 1);
    assert_eq!(bytes(&mut bed, inner, 4), [0x48, 0x89, 0xe5, 0xcc]);
}

#[test]
fn powerpc_optimises_in_the_kernels_text_only() {
    let (mut bed, at) = bed("6.12", Arch::Ppc64le);
    bed.call("register_kprobe", &[at]);
    bed.call("kprobe_optimizer", &[]);
    assert_eq!(bytes(&mut bed, at, 4), BREAKPOINTS[2].1, "a module is too far away");
    let text = bed.kernel.layout().text.start.0 + 0x1000;
    let words = code(Arch::Ppc64le);
    bed.try_call(
        "patch_instructions",
        &[
            textbed_kernel::Arg::Value(text),
            textbed_kernel::Arg::Code(words.clone()),
            textbed_kernel::Arg::Value(0),
            textbed_kernel::Arg::Value(12),
        ],
    )
    .unwrap();
    assert_eq!(bed.call("register_kprobe", &[text]), 0);
    bed.call("kprobe_optimizer", &[]);
    assert_eq!(bytes(&mut bed, text, 4)[3] & 0xfc, 0x48, "a branch");
    bed.call("unregister_kprobe", &[text]);
    bed.call("kprobe_optimizer", &[]);
    assert_eq!(bytes(&mut bed, text, 4), words[..4]);
}

#[test]
fn others_run_between_x86_s_breakpoint_and_its_synchronisation() {
    let (mut bed, at) = bed("6.12", Arch::X86_64);
    let mut progress = bed.kernel.begin(CpuId(0), "register_kprobe", &values(&[at])).unwrap();
    let mut trapped_before_sync = false;
    while progress == Progress::More {
        if bytes(&mut bed, at, 1) == [0xcc] {
            trapped_before_sync |= bed.kernel.trap(CpuId(1), VirtAddr(at), 3).is_some();
        }
        progress = bed.kernel.resume(CpuId(0)).unwrap();
    }
    assert!(matches!(progress, Progress::Done(v) if v.value == 0) && trapped_before_sync);
    // A lock that another CPU holds is waited for before anything is done.
    bed.kernel.machine_mut().lock(CpuId(1), "text_mutex").unwrap();
    let waits = bed.kernel.begin(CpuId(0), "unregister_kprobe", &values(&[at])).unwrap();
    assert!(matches!(waits, Progress::Waits(_)), "{waits:?}");
}

/// alloc_insn_page(): others see the page for slots before it is protected, and whoever wants one
/// of the locks on the way waits.
#[test]
fn others_run_while_the_page_for_slots_is_made() {
    for (version, seen) in [("6.1", ["rw-", "r--", "r-x"].as_slice()), ("6.12", &["rw-", "r-x"])] {
        let (mut bed, at) = bed(version, Arch::X86_64);
        let areas = |bed: &Bed| -> Vec<VirtAddr> {
            let layout = bed.kernel.layout();
            let modules = (layout.modules.start.0 >> 12..layout.modules.end() >> 12).take(4096);
            let starts = modules.filter_map(|n| bed.kernel.areas().find(VirtAddr(n << 12)));
            starts.map(|area| area.start).collect()
        };
        let known = areas(&bed);
        let mut states: Vec<&str> = Vec::new();
        let mut waited = false;
        let mut progress = bed.kernel.begin(CpuId(0), "register_kprobe", &values(&[at])).unwrap();
        while progress == Progress::More {
            let page = areas(&bed).into_iter().find(|start| !known.contains(start));
            let leaf = page.and_then(|p| bed.kernel.machine().lookup(SpaceId::KERNEL, p));
            if let Some(letters) = leaf.map(|leaf| leaf.perm.letters())
                && states.last() != Some(&letters)
            {
                states.push(letters);
            }
            let other = bed.kernel.begin(CpuId(1), "static_key_enable", &values(&[9])).unwrap();
            waited |= matches!(other, Progress::Waits(_));
            progress = bed.kernel.resume(CpuId(0)).unwrap();
            while bed.kernel.is_under_way(CpuId(1)) && progress != Progress::More {
                bed.kernel.resume(CpuId(1)).unwrap();
            }
        }
        assert_eq!(states, seen, "{version}");
        assert!(waited, "{version}: for text_mutex");
    }
}

#[test]
fn a_debuggers_breakpoint_goes_in_by_the_patcher_where_text_is_read_only() {
    for (arch, want) in [
        (Arch::X86_64, &[0xcc][..]),
        (Arch::Arm64, &[0x00, 0x80, 0x20, 0xd4]),
        (Arch::Ppc64le, &[0x08, 0x10, 0x82, 0x7d]),
    ] {
        let (mut bed, at) = bed("6.12", arch);
        let old = bytes(&mut bed, at, want.len());
        assert_eq!(bed.call("kgdb_arch_set_breakpoint", &[at]), 0, "{arch}");
        let trace = bed.trace();
        let poked = trace.iter().any(|l| l.ends_with("call text_poke_kgdb"));
        assert_eq!(poked, arch == Arch::X86_64, "{arch}");
        assert!(!trace.iter().any(|l| l.contains(" ipi ")), "{arch}: nobody is told");
        assert_eq!(bytes(&mut bed, at, want.len()), want, "{arch}");
        assert_eq!(bed.call("kgdb_arch_remove_breakpoint", &[at]), 0, "{arch}");
        assert_eq!(bytes(&mut bed, at, want.len()), old, "{arch}");
        assert_eq!(bed.call("kgdb_arch_remove_breakpoint", &[at]), -22, "{arch}");
        // Whoever holds text_mutex was stopped in the middle of something.
        bed.kernel.machine_mut().lock(CpuId(1), "text_mutex").unwrap();
        let held = bed.call("kgdb_arch_set_breakpoint", &[at]);
        assert_eq!(held, if arch == Arch::X86_64 { -16 } else { 0 }, "{arch}");
        // Writable text takes x86's plain store.
        let area = bed.call("vmalloc", &[4096]) as u64;
        bed.call("memset", &[area, 0x90, 64]);
        assert_eq!(bed.call("kgdb_arch_set_breakpoint", &[area]), 0, "{arch}");
    }
}

/// 4fbd2f83fda0 (6.3): a probe that waits to be freed loses its jump to another one inside of it;
/// up to 6.2 the work item frees it with its breakpoint in place.
#[test]
fn a_breakpoint_that_was_taken_back_by_force_goes_with_its_probe() {
    for (version, left) in [("6.1", 0xcc), ("6.6", 0x55), ("7.0", 0x55)] {
        let (mut bed, at) = bed(version, Arch::X86_64);
        assert_eq!(code(Arch::X86_64)[0], 0x55);
        bed.call("register_kprobe", &[at]);
        bed.call("kprobe_optimizer", &[]);
        bed.call("unregister_kprobe", &[at]);
        assert_eq!(bytes(&mut bed, at, 1), [0xe9], "{version}: the work item has not run");
        assert_eq!(bed.call("register_kprobe", &[at + 1]), 0);
        assert_eq!(bytes(&mut bed, at, 2), [0xcc, 0xcc], "{version}: taken back by force");
        bed.call("kprobe_optimizer", &[]);
        assert_eq!(bytes(&mut bed, at, 1), [left], "{version}");
    }
}

/// arch_prepare_ss_slot(): 5.19 stops all CPUs to write the slot, and flushes it; 6.1 and later
/// store the two words and tell nobody.
#[test]
fn an_arm64_slot_is_written_with_all_cpus_stopped_until_6_0() {
    for (version, stops) in [("5.18", 2), ("6.1", 1), ("7.0", 1)] {
        let (mut bed, at) = bed(version, Arch::Arm64);
        assert_eq!(bed.call("register_kprobe", &[at]), 0, "{version}");
        let trace = bed.trace();
        let calls =
            |name: &str| trace.iter().filter(|l| l.ends_with(&format!("call {name}"))).count();
        assert_eq!(calls("aarch64_insn_patch_text"), stops, "{version}: {trace:#?}");
        assert_eq!(calls("flush_icache_range"), stops - 1, "{version}");
    }
}

/// Linux 6.6 kernel/jump_label.c, kernel/static_call_inline.c addr_conflict(): every byte of a
/// listed site is reserved; static calls have sites on x86 alone.
#[test]
fn no_byte_of_a_listed_site_is_probed() {
    for version in ["5.18", "6.6", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let nop5 = [0x0f, 0x1f, 0x44, 0, 0];
        let module = bed.call_code("load_module", &[], &nop5.repeat(4)) as u64;
        bed.call("jump_entry", &[7, module, module + 15]);
        bed.call("static_call_site", &[9, module + 5]);
        for at in [0, 1, 4, 5, 9] {
            assert_eq!(bed.call("register_kprobe", &[module + at]), -22, "{version} {at}");
        }
        assert_eq!(bed.call("register_kprobe", &[module + 10]), 0, "{version}");
        let mut bed = boot(version, Arch::Arm64, &[]);
        let nop = 0xd503_201fu32.to_le_bytes();
        let module = bed.call_code("load_module", &[], &nop.repeat(4)) as u64;
        bed.call("static_call_site", &[9, module + 4]);
        assert_eq!(bed.call("register_kprobe", &[module + 4]), 0, "{version}: a pointer's call");
    }
}
