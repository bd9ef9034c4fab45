//! ftrace sites and static calls: what lies there, who is told, what is waited for.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, run, values};
use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_kernel::CallError;

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

fn nops(arch: Arch) -> Vec<u8> {
    match arch {
        Arch::X86_64 => [0x0f, 0x1f, 0x44, 0, 0].repeat(16),
        Arch::Arm64 => 0xd503_201fu32.to_le_bytes().repeat(16),
        _ => 0x6000_0000u32.to_le_bytes().repeat(64),
    }
}

/// Where powerpc's stub lies behind a module's start.
const STUB: u64 = 0x80;

/// A module full of no-operations with a call site at its twentieth byte, and on powerpc from 6.13
/// on its out-of-line stub.
fn bed(version: &str, arch: Arch) -> (Bed, u64) {
    let (mut bed, site) = plain_bed(version, arch);
    if arch == Arch::Ppc64le && ["6.18", "7.0"].contains(&version) {
        assert_eq!(bed.call("ftrace_ool_stub", &[site, site - 20 + STUB]), 0);
        bed.trace();
    }
    (bed, site)
}

fn plain_bed(version: &str, arch: Arch) -> (Bed, u64) {
    let mut bed = boot(version, arch, &[]);
    let module = bed.call_code("load_module", &[], &nops(arch)) as u64;
    let site = module + 20;
    assert_eq!(bed.call("ftrace_site", &[site]), 0);
    bed.trace();
    (bed, site)
}

fn bytes(bed: &mut Bed, at: u64, len: usize) -> Vec<u8> {
    let mut now = vec![0; len];
    bed.kernel.machine_mut().load(CpuId(0), VirtAddr(at), &mut now).unwrap();
    bed.trace();
    now
}

fn count(trace: &[String], what: &str) -> usize {
    trace.iter().filter(|l| l.contains(what)).count()
}

#[test]
fn a_tracer_is_called_from_its_site_and_no_longer() {
    for arch in ARCHS {
        for version in ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"] {
            let (mut bed, site) = bed(version, arch);
            let nop = bytes(&mut bed, site, 5);
            let func = site & !0xfff;
            let got = bed.call("register_ftrace_function", &[1, site, func]);
            assert_eq!(got, 0, "{version} {arch}");
            let trace = bed.trace();
            assert_ne!(bytes(&mut bed, site, 5), nop, "{version} {arch}");
            let x86 = arch == Arch::X86_64;
            assert_eq!(count(&trace, "ipi do_sync_core"), if x86 { 3 } else { 0 }, "{version}");
            assert_eq!(bed.call("unregister_ftrace_function", &[1]), 0, "{version} {arch}");
            let trace = bed.trace();
            assert_eq!(bytes(&mut bed, site, 5), nop, "{version} {arch}");
            let rude = trace.iter().position(|l| l.contains("TasksRude")).unwrap();
            let tasks = trace.iter().position(|l| l.contains("flavour: Tasks }")).unwrap();
            let patched = trace.iter().rposition(|l| l.contains("store")).unwrap();
            assert!(patched < rude && rude < tasks, "{version} {arch}");
            let freed = trace.iter().position(|l| l.contains("area gone"));
            assert_eq!(freed.is_some_and(|f| tasks < f), x86, "{version}");
        }
    }
}

#[test]
fn an_x86_trampoline_calls_the_tracer_and_is_no_longer_writable() {
    for version in ["6.1", "6.12", "6.18"] {
        let (mut bed, site) = bed(version, Arch::X86_64);
        let func = site & !0xfff;
        bed.call("register_ftrace_function", &[1, site, func]);
        let call = bytes(&mut bed, site, 5);
        let to = i32::from_le_bytes(call[1..].try_into().unwrap());
        let tramp = (site + 5).wrapping_add_signed(i64::from(to));
        let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(tramp)).unwrap();
        assert_eq!(leaf.perm, Perm::KERNEL_ROX, "{version}");
        let inner = bytes(&mut bed, tramp + 0x80, 5);
        let to = i32::from_le_bytes(inner[1..].try_into().unwrap());
        assert_eq!((inner[0], (tramp + 0x85).wrapping_add_signed(i64::from(to))), (0xe8, func));
    }
}

#[test]
fn a_site_that_holds_something_else_is_the_end_of_ftrace() {
    for arch in ARCHS {
        let (mut bed, site) = bed("6.12", arch);
        // A second site over the middle of the first no-operation.
        let len = nops(arch).len() as u64;
        let odd = if arch == Arch::X86_64 { site + 1 } else { site - 20 + len };
        assert_eq!(bed.call("ftrace_site", &[odd]), 0);
        let func = site & !0xfff;
        assert_eq!(bed.call("register_ftrace_function", &[1, odd, func]), -19, "{arch}");
        assert_eq!(count(&bed.trace(), "WARN NotPatched"), 1, "{arch}");
        assert_eq!(bed.call("register_ftrace_function", &[2, site, func]), -19, "{arch}");
    }
}

#[test]
fn arm64_writes_the_ops_before_the_function_from_6_3_on() {
    for (version, literals) in [("6.1", 0), ("6.12", 1)] {
        let (mut bed, site) = bed(version, Arch::Arm64);
        bed.call("register_ftrace_function", &[77, site, site & !0xfff]);
        let trace = bed.trace();
        assert_eq!(count(&trace, "call aarch64_insn_write_literal_u64"), literals, "{version}");
        if literals == 1 {
            assert_eq!(bytes(&mut bed, (site - 12) & !7, 8), 77u64.to_le_bytes());
        }
    }
    let mut bed = boot("6.12", Arch::Arm64, &[]);
    let module = bed.call_code("load_module", &[], &nops(Arch::Arm64)) as u64;
    bed.call("ftrace_site", &[module]);
    let tight = bed.try_call("register_ftrace_function", &values(&[1, module, module]));
    assert!(matches!(tight, Err(CallError::NotModelled { .. })), "{tight:?}");
}

#[test]
fn direct_calls_and_refusals() {
    for arch in ARCHS {
        let (mut bed, site) = bed("7.0", arch);
        let func = site & !0xfff;
        assert_eq!(bed.call("register_ftrace_direct", &[1, site + 4096, func]), -22, "{arch}");
        assert_eq!(bed.call("register_ftrace_direct", &[1, site, func]), 0, "{arch}");
        assert_eq!(bed.call("register_ftrace_direct", &[2, site, func]), -16, "{arch}");
        assert_eq!(bed.call("unregister_ftrace_function", &[1]), -16, "{arch}");
        assert_eq!(bed.call("unregister_ftrace_direct", &[1]), 0, "{arch}");
        // arm64 refuses it; the others reach the probe by ftrace (KPROBES_ON_FTRACE).
        match bed.try_call("register_kprobe", &values(&[site])) {
            Ok(value) => assert!(arch == Arch::Arm64 && value.value == -22, "{arch}"),
            Err(CallError::NotModelled { what, .. }) => {
                assert!(
                    arch != Arch::Arm64 && what.contains("KPROBES_ON_FTRACE"),
                    "{arch}: {what}"
                );
            }
            Err(other) => panic!("{arch}: {other}"),
        }
    }
}

/// HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS: arm64 has it from 6.4 on, powerpc from 6.13 on; without
/// it the calls are stubs, and a trampoline has no ops for a site of ftrace (-ENOTSUPP): its image
/// stays where the version does not free it.
#[test]
fn direct_calls_that_an_architecture_has_not_are_refused() {
    for (version, arch, there) in [
        ("5.18", Arch::X86_64, true),
        ("5.18", Arch::Arm64, false),
        ("6.1", Arch::Arm64, false),
        ("6.6", Arch::Arm64, true),
        ("6.12", Arch::Ppc64le, false),
        ("6.18", Arch::Ppc64le, true),
    ] {
        let (mut bed, site) = bed(version, arch);
        let nop = bytes(&mut bed, site, 4);
        let func = site & !0xfff;
        let got = bed.call("register_ftrace_direct", &[1, site, func]);
        assert_eq!(got, if there { 0 } else { -19 }, "{version} {arch}");
        assert_eq!(bytes(&mut bed, site, 4) == nop, !there, "{version} {arch}");
        let got = bed.call("modify_ftrace_direct", &[1, func + 64]);
        assert_eq!(got, if there { 0 } else { -19 }, "{version} {arch}");
        let got = bed.call("unregister_ftrace_direct", &[1]);
        assert_eq!(got, if there { 0 } else { -19 }, "{version} {arch}");
    }
    let (mut bed, site) = bed("6.1", Arch::Arm64);
    let nop = bytes(&mut bed, site, 4);
    assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, site & !0xfff]), -524);
    let trace = bed.trace();
    assert_eq!((count(&trace, "0 area vm"), count(&trace, "area gone")), (1, 0), "{trace:#?}");
    assert_eq!(bytes(&mut bed, site, 4), nop);
}

/// Linux 6.13.2, 7.0 arch/powerpc/kernel/trace/ftrace.c: the ops are written, then the call in the
/// stub, then the branch to the stub; a change of the target leaves the site alone; the way back is
/// in the same order. Without a stub there are no direct calls.
#[test]
fn powerpc_calls_by_an_out_of_line_stub_from_6_13_on() {
    let (mut bed, site) = bed("7.0", Arch::Ppc64le);
    let (module, stub) = (site - 20, site - 20 + STUB);
    bed.mark("m", module, 4096);
    let nop = bytes(&mut bed, site, 4);
    let words = |bed: &mut Bed| -> Vec<u32> {
        let bytes = bytes(bed, stub, 16);
        bytes.chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
    };
    let waiting = words(&mut bed);
    assert_eq!((waiting[0], waiting[2]), (0x7c08_02a6, 0x7c08_03a6));
    assert_eq!(waiting[1] & 0xfc00_0003, 0x4800_0001, "a call");
    let back = 0x4800_0000 | (site + 4).wrapping_sub(stub + 12) as u32 & 0x03ff_fffc;
    assert_eq!(waiting[3], back);
    let patched = |bed: &mut Bed| -> Vec<String> {
        let patches = ["call patch_ulong", "call patch_instruction", "patch site "];
        let line = |l: &String| patches.iter().any(|p| l.contains(p));
        bed.trace().into_iter().filter(line).map(|l| l.replace("0 ", "")).collect()
    };
    let func = module + 0x40;
    assert_eq!(bed.call("register_ftrace_direct", &[5, site, func]), 0);
    let order = patched(&mut bed);
    let at = |what: &str| order.iter().position(|l| l.contains(what));
    let (ops, stub_word, word) = (at("patch_ulong"), at("m+0x84"), at("m+0x14"));
    assert!(ops < stub_word && stub_word < word && ops.is_some(), "{order:#?}");
    assert_eq!(bytes(&mut bed, stub - 8, 8), 5u64.to_le_bytes());
    let call = 0x4800_0001 | func.wrapping_sub(stub + 4) as u32 & 0x03ff_fffc;
    assert_eq!(words(&mut bed)[1], call);
    let to_stub = 0x4800_0000 | stub.wrapping_sub(site) as u32 & 0x03ff_fffc;
    assert_eq!(bytes(&mut bed, site, 4), to_stub.to_le_bytes());
    assert_eq!(bed.call("modify_ftrace_direct", &[5, func + 8]), 0);
    assert_eq!(patched(&mut bed).iter().filter(|l| l.contains("m+0x14")).count(), 0);
    assert_eq!(bed.call("unregister_ftrace_direct", &[5]), 0);
    let order = patched(&mut bed);
    let at = |what: &str| order.iter().position(|l| l.contains(what));
    assert!(at("m+0x84") < at("m+0x14"), "{order:#?}");
    assert_eq!(words(&mut bed), waiting);
    assert_eq!(bytes(&mut bed, site, 4), nop);
    // A tracer has the stub call ftrace_caller, as it did: one word less.
    assert_eq!(bed.call("register_ftrace_function", &[6, site, func]), 0);
    let order = patched(&mut bed);
    assert_eq!(order.iter().filter(|l| l.contains("call patch_instruction")).count(), 1);
    assert_eq!(words(&mut bed), waiting);
    // Without one.
    let (mut bed, site) = plain_bed("7.0", Arch::Ppc64le);
    assert_eq!(bed.call("register_ftrace_direct", &[1, site, site & !0xfff]), -19);
    assert_eq!(bed.call("ftrace_ool_stub", &[site, site]), -22, "not aligned");
    assert_eq!(bed.call("ftrace_ool_stub", &[site + 4, site - 20 + STUB]), -22, "no site");
    assert_eq!(bed.call("ftrace_ool_stub", &[site, 0x1000]), -22, "no text");
}

#[test]
fn static_calls_are_patched_on_x86_alone() {
    for arch in ARCHS {
        let (mut bed, site) = bed("6.12", arch);
        let (here, tramp) = (site - 20, site - 20 + 40);
        bed.call("static_call_site", &[5, here]);
        let before = bytes(&mut bed, here, 5);
        bed.call("static_call_update", &[5, here + 32]);
        let trace = bed.trace();
        let after = bytes(&mut bed, here, 5);
        if arch == Arch::X86_64 {
            assert_eq!(after, [0xe8, 27, 0, 0, 0]);
            assert_eq!(count(&trace, "ipi do_sync_core"), 3);
            bed.call("static_call_update", &[5, here + 32]);
            assert_eq!(count(&bed.trace(), "ipi"), 0, "the same function");
            bed.call("static_call_update", &[5, 0]);
            assert_eq!(bytes(&mut bed, here, 5), before);
            bed.call("static_call_tramp", &[5, tramp]);
            let died = bed.try_call("static_call_update", &values(&[5, here + 32]));
            assert!(matches!(died, Err(CallError::Died { .. })), "no trampoline lies there");
        } else {
            assert_eq!(after, before, "{arch}");
            assert_eq!(count(&trace, "ipi"), 0, "{arch}");
        }
    }
}

/// Linux 6.12 __modify_ftrace_direct(): the site calls ftrace_caller in between, never nothing, and
/// nobody is waited for.
#[test]
fn a_direct_call_changes_by_way_of_ftrace_caller() {
    for arch in ARCHS {
        let (mut bed, site) = bed("7.0", arch);
        let (first, second) = (site & !0xfff, (site & !0xfff) + 64);
        assert_eq!(bed.call("register_ftrace_direct", &[1, site, first]), 0, "{arch}");
        let at = if arch == Arch::Ppc64le { site - 20 + STUB + 4 } else { site };
        let before = bytes(&mut bed, at, 5);
        assert_eq!(bed.call("modify_ftrace_direct", &[2, second]), -22, "{arch}");
        bed.trace();
        assert_eq!(bed.call("modify_ftrace_direct", &[1, second]), 0, "{arch}");
        let trace = bed.trace();
        assert_ne!(bytes(&mut bed, at, 5), before, "{arch}");
        let x86 = arch == Arch::X86_64;
        assert_eq!(count(&trace, "ipi do_sync_core"), if x86 { 6 } else { 0 }, "{arch}");
        assert_eq!(count(&trace, "patch site"), 2, "{arch}");
        assert_eq!(count(&trace, "GracePeriod"), 0, "{arch}");
        // Back to the first address: the same instruction as at the beginning.
        assert_eq!(bed.call("modify_ftrace_direct", &[1, first]), 0, "{arch}");
        assert_eq!(bytes(&mut bed, at, 5), before, "{arch}");
        assert_eq!(bed.call("unregister_ftrace_direct", &[1]), 0, "{arch}");
    }
}

/// Linux 6.12 arch/x86/kernel/ftrace.c create_trampoline(): written, then protected, then called.
#[test]
fn a_trampoline_is_protected_before_its_site_changes() {
    for version in ["6.1", "6.12", "7.0"] {
        let (mut first, site) = bed(version, Arch::X86_64);
        let func = site & !0xfff;
        first.call("register_ftrace_function", &[1, site, func]);
        let call = bytes(&mut first, site, 5);
        let to = i32::from_le_bytes(call[1..].try_into().unwrap());
        let trampoline = (site + 5).wrapping_add_signed(i64::from(to));
        // The same in a kernel of its own, and what others see there.
        let (mut bed, site) = bed(version, Arch::X86_64);
        let nop = bytes(&mut bed, site, 1);
        let mut moments = Vec::new();
        let args = values(&[1, site, func]);
        assert_eq!(
            run(&mut bed, CpuId(0), ("register_ftrace_function", &args), |bed| {
                let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(trampoline));
                let perm = leaf.map_or("---".to_owned(), |l| l.perm.letters().to_string());
                moments.push((perm, bytes(bed, site, 1) == nop));
            }),
            0
        );
        moments.dedup();
        let writable = moments.iter().position(|m| m.0 == "rw-").unwrap();
        let changed = moments.iter().position(|m| !m.1).unwrap();
        assert!(writable < changed, "{version}: {moments:?}");
        let called = moments.iter().skip(changed);
        assert!(called.into_iter().all(|m| m.0 == "r-x"), "{version}: {moments:?}");
    }
}
