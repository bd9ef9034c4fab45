//! Traces on powerpc radix, worked out by hand from the descriptions of Linux 5.19, 6.8 and 6.12.

mod common;

use common::{boot, boot_with, expect, power_patch, power_patch_shared, values};
use textbed_arch::{Arch, Features, SpaceId, VirtAddr};
use textbed_event::{View, WindowPurpose};
use textbed_kernel::{Arg, BootArgs, CallError, Config, Kernel, Version};
use textbed_machine::Newest;

const POWER: Arch = Arch::Ppc64le;

/// One page changed, with the flush of the whole PID behind it.
fn page(n: u64, change: &str) -> String {
    format!(
        "
        0 leaf a+{:#x} 1x4K {change}
        0 ptesync
        0 ptesync
        0 tlbie: tlb Address broadcast text+0x0
        0 eieio
        0 tlbsync
        0 ptesync
        ",
        n << 12
    )
}

/// T7.
#[test]
fn set_memory_rox_flushes_the_whole_pid_for_each_page() {
    let mut bed = boot("6.12", POWER, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_rox", &[a, 2]), 0);
    let golden = format!(
        "
        0 call set_memory_rox
        {}
        {}
        0 promised ReadOnlyExec a+0x0 0x2000
        0 return 0
        ",
        page(0, "rw->r-x"),
        page(1, "rw->r-x"),
    );
    expect(&bed.trace(), &golden);
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    let alias = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(dm)).unwrap();
    assert_eq!(alias.perm.letters(), "rw-");
}

#[test]
fn without_tlbie_every_cpu_is_interrupted() {
    let features = Features::default_for(POWER) - Features::PPC_TLBIE;
    let mut bed = boot_with("6.12", POWER, &[], features, 2);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 1]), 0);
    expect(
        &bed.trace(),
        "
        0 call set_memory_ro
        0 leaf a+0x0 1x4K rw->r--
        0 ptesync
        0 ipi do_tlbiel_kernel to 0b10
        1-sync ExceptionEntry
        1-taken
        1-ptesync
        1-tlbiel: tlb Address local text+0x0
        1-ptesync
        1-done
        1-sync ExceptionReturn
        0 waited
        0 ptesync
        0 tlbiel: tlb Address local text+0x0
        0 ptesync
        0 promised NoWrite a+0x0 0x1000
        0 return 0
        ",
    );
}

#[test]
fn a_huge_area_warns_once_and_is_refused_every_time() {
    for version in ["5.18-rc3", "5.18", "6.12"] {
        let mut bed = boot(version, POWER, &[]);
        let a = bed.area("a", "vmalloc_huge", 2 << 20);
        bed.trace();
        assert_eq!(bed.call("set_memory_ro", &[a, 512]), -22);
        assert_eq!(bed.call("set_memory_x", &[a, 512]), -22);
        expect(
            &bed.trace(),
            "
        0 call set_memory_ro
        0 WARN HugeMapping
        0 refused NoWrite HugeMapping a+0x0 0x200000
        0 return -22 failed
        0 call set_memory_x
        0 refused Exec HugeMapping a+0x0 0x200000
        0 return -22 failed
            ",
        );
    }
}

#[test]
fn holes_are_skipped_and_leaves_of_the_direct_map_refused() {
    let mut bed = boot("6.12", POWER, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    assert_eq!(bed.call("set_memory_ro", &[a, 2]), 0);
    let io = 0xc00a_0000_0000_0000;
    assert_eq!(bed.call("set_memory_ro", &[io, 5]), 0);
    let error = bed.try_call("set_memory_ro", &values(&[0x1000, 5])).unwrap_err();
    assert!(matches!(error, CallError::NotModelled { .. }), "{error}");
    assert_eq!(bed.call("set_memory_ro", &[0, 0]), 0);
    let dm = bed.kernel.layout().direct_map.start.0;
    assert_eq!(bed.call("set_memory_rw", &[dm + (64 << 20), 1]), -22);
    assert!(bed.trace().contains(&"0 WARN HugeMapping".to_owned()));
    // No area where one is taken for granted.
    let vm = bed.kernel.layout().vmalloc.start.0 + (1 << 40);
    let died = bed.try_call("set_memory_ro", &values(&[vm, 1])).unwrap_err();
    assert!(died.to_string().contains("is_vm_area_hugepages"), "{died}");
}

/// T8.
#[test]
fn patch_instruction_by_the_private_space_tells_nobody() {
    let mut bed = boot("6.12", POWER, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    assert_eq!(bed.call("patch_instruction", &[a + 4, 0x6000_0000]), 0);
    expect(&bed.trace(), &power_patch(4));
}

/// Before 6.2: a page of the vmalloc area, for every CPU to see, flushed everywhere.
#[test]
fn patch_instruction_by_the_vmalloc_page_flushes_everywhere() {
    let mut bed = boot("5.18", POWER, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.mark("page", bed.kernel.layout().vmalloc.start.0, 4096);
    bed.trace();
    assert_eq!(bed.call("patch_instruction", &[a, 0x6000_0000]), 0);
    expect(&bed.trace(), &power_patch_shared(0, "page", "text", false));
}

#[test]
fn instructions_lie_in_memory_in_the_byte_order_of_the_kernel() {
    for (arch, plain, prefixed) in [
        (Arch::Ppc64le, [0, 0, 0, 0x60], [0, 0, 0, 0x07, 0, 0, 0, 0x60]),
        (Arch::Ppc64, [0x60, 0, 0, 0], [0x07, 0, 0, 0, 0x60, 0, 0, 0]),
    ] {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.call("patch_instruction", &[a, 0x6000_0000]);
        bed.call("patch_instruction", &[a + 8, 0x0700_0000_6000_0000]);
        let frame = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().phys;
        let mut bytes = [0; 16];
        bed.kernel.machine().read_phys(frame, &mut bytes).unwrap();
        assert_eq!((&bytes[..4], &bytes[8..]), (&plain[..], &prefixed[..]));
    }
}

#[test]
fn patch_instructions_fills_and_copies_over_pages() {
    let mut bed = boot("6.12", POWER, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    let trap = 0x7fe0_0008u32.to_le_bytes();
    let fill = |bed: &mut common::Bed, at: u64, len: u64| {
        let args = [Arg::Value(at), Arg::Code(trap.to_vec()), Arg::Value(1), Arg::Value(len)];
        bed.try_call("patch_instructions", &args).unwrap().value
    };
    assert_eq!(fill(&mut bed, a + 0xff8, 16), 0);
    let stores: Vec<String> = bed.trace().into_iter().filter(|l| l.contains("fill")).collect();
    assert_eq!(
        stores,
        ["0-fill alias+0xff8 0x8 [08, 00, e0, 7f]", "0-fill alias+0x0 0x8 [08, 00, e0, 7f]"]
    );
    // Nothing looks whether an instruction begins there (Linux 6.12, 6.18.2, 7.0).
    assert_eq!(fill(&mut bed, a + 2, 16), 0);
    let stores: Vec<String> = bed.trace().into_iter().filter(|l| l.contains("fill")).collect();
    assert_eq!(stores, ["0-fill alias+0x2 0x10 [08, 00, e0, 7f]"]);
    assert_eq!(fill(&mut bed, a, 0), 0);
}

#[test]
fn module_memory_is_executable_from_the_start_without_strict_module_rwx() {
    for (strict, letters) in [("y", "rw-"), ("n", "rwx")] {
        let mut bed = boot("5.18", POWER, &[("STRICT_MODULE_RWX", strict)]);
        let a = bed.area("a", "module_alloc", 1 << 12);
        let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
        assert_eq!(mapping.perm.letters(), letters);
        // The huge variant that was posted: executable either way, by large leaves.
        let b = bed.area("b", "module_alloc_huge", 2 << 20);
        let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(b)).unwrap();
        assert_eq!((mapping.perm.letters(), mapping.shift), ("rwx", 21));
    }
}

#[test]
fn the_linear_map_is_announced_as_never_protected() {
    let args = BootArgs {
        version: Version::release(6, 12),
        arch: POWER,
        config: Config::new(POWER),
        features: Features::default_for(POWER),
        cpus: 2,
    };
    let mut kernel = Kernel::boot(args, Box::new(Newest)).unwrap();
    let batch = kernel.machine_mut().take_batch();
    let windows: Vec<(u64, u64)> = batch
        .events
        .iter()
        .filter_map(|e| match e.view() {
            View::WindowOpened { purpose: WindowPurpose::Platform, phys, len, .. } => {
                Some((phys.0, len))
            }
            _ => None,
        })
        .collect();
    assert_eq!(windows, [(4 << 20, (1 << 30) - (4 << 20))]);
}

#[test]
fn vfree_with_reset_only_flushes() {
    let mut bed = boot("6.12", POWER, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.call("set_vm_flush_reset_perms", &[a]);
    bed.trace();
    bed.call("vfree", &[a]);
    let trace = bed.trace();
    assert!(!trace.iter().any(|l| l.contains("leaf dm")), "{trace:#?}");
    let flush = trace.iter().position(|l| l.contains("tlbie")).unwrap();
    let free = trace.iter().position(|l| l.contains("frames -1")).unwrap();
    assert!(flush < free, "{trace:#?}");
}

#[test]
fn calls_of_other_architectures_are_absent() {
    let mut bed = boot("6.12", POWER, &[]);
    let error = bed.try_call("text_poke_copy", &[]).unwrap_err();
    assert!(matches!(error, CallError::Absent { .. }), "{error}");
}

/// Linux 5.18.12, 6.1, 6.12 arch/powerpc/lib/code-patching.c: a store in place that faults is
/// -EFAULT in 5.18 and -EPERM later, from 6.7 on behind a sync; patch_instructions takes the alias
/// whether text is protected or not.
#[test]
fn a_store_in_place_that_faults_and_a_run_without_protected_text() {
    for (version, error, syncs) in
        [("5.18", -14, 0), ("6.1", -1, 0), ("6.6", -1, 0), ("6.12", -1, 1), ("7.0", -1, 1)]
    {
        let mut bed = boot(version, Arch::Ppc64le, &[("STRICT_KERNEL_RWX", "n")]);
        let a = bed.area("a", "vmalloc", 4096);
        assert_eq!(bed.call("patch_instruction", &[a, 0x6000_0000]), 0, "{version}");
        bed.call("set_memory_ro", &[a, 1]);
        bed.trace();
        assert_eq!(bed.call("patch_instruction", &[a, 0x6000_0000]), error, "{version}");
        let trace = bed.trace();
        let found = trace.iter().filter(|l| l.contains("sync") && !l.contains("isync")).count();
        assert_eq!(found, syncs, "{version}: {trace:#?}");
        if syncs == 1 {
            let code = [0x60, 0, 0, 0].repeat(2);
            let args = [Arg::Value(a), Arg::Code(code), Arg::Value(0), Arg::Value(8)];
            assert_eq!(bed.try_call("patch_instructions", &args).unwrap().value, 0, "{version}");
            assert!(bed.trace().iter().any(|l| l.contains("window")), "{version}: by an alias");
        }
    }
}

/// Linux 5.18.12 to 7.0 arch_disarm_kprobe(): the first word comes back, of a prefixed instruction
/// too.
#[test]
fn a_probe_on_a_prefixed_instruction_gives_its_prefix_back() {
    let mut bed = boot("6.12", Arch::Ppc64le, &[]);
    let words = [0x6000_0000u32, 0x6000_0000, 0x0600_0000, 0x3860_002a, 0x4e80_0020];
    let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let module = bed.call_code("load_module", &[], &code) as u64;
    bed.trace();
    assert_eq!(bed.call("register_kprobe", &[module + 8]), 0);
    bed.trace();
    bed.call("unregister_kprobe", &[module + 8]);
    let trace = bed.trace();
    let widths: Vec<&str> =
        trace.iter().filter(|l| l.contains("store")).filter_map(|l| l.rsplit(' ').next()).collect();
    assert_eq!(widths, ["4"], "{trace:#?}");
}

/// Linux 5.18.12 to 7.0 arch/powerpc/kernel/kprobes.c arch_prepare_kprobe(): no probe on the second
/// word of a prefixed instruction, whether its first is probed or not; 5.18 takes a trap.
#[test]
fn a_suffix_is_not_probed_and_a_trap_in_5_18_alone() {
    for (version, trap) in [("5.18", 0), ("6.1", -22), ("6.6", -22), ("7.0", -22)] {
        let mut bed = boot(version, Arch::Ppc64le, &[]);
        let words = [0x6000_0000u32, 0x6000_0000, 0x0600_0000, 0x3860_002a, 0x7fe0_0008];
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let module = bed.call_code("load_module", &[], &code) as u64;
        assert_eq!(bed.call("register_kprobe", &[module + 12]), -22, "{version}: the suffix");
        assert_eq!(bed.call("register_kprobe", &[module + 8]), 0, "{version}: the prefix");
        assert_eq!(bed.call("register_kprobe", &[module + 12]), -22, "{version}: behind a probe");
        assert_eq!(bed.call("register_kprobe", &[module + 16]), trap, "{version}: a trap");
    }
}
