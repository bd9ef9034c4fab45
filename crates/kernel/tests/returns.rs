//! Return probes: where returns are sent, how they come back, how many.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, values};
use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_kernel::{Rethook, find_call};

const CPU: CpuId = CpuId(0);
const STACK: VirtAddr = VirtAddr(0xffff_8000_0000_1000);
const BACK: VirtAddr = VirtAddr(0xffff_8000_0000_2000);

/// A module with a return probe at its start.
fn probed(version: &str, arch: Arch) -> (Bed, VirtAddr) {
    let mut bed = boot(version, arch, &[]);
    let code = match arch {
        Arch::X86_64 => vec![0x0f, 0x1f, 0x44, 0, 0, 0xc3],
        Arch::Arm64 => [0x5280_0020u32, 0xd65f_03c0].iter().flat_map(|w| w.to_le_bytes()).collect(),
        _ => [0x6000_0000u32, 0x4e80_0020].iter().flat_map(|w| w.to_le_bytes()).collect(),
    };
    let module = bed.call_code("load_module", &[], &code) as u64;
    assert_eq!(bed.kernel.return_trampoline(), None);
    assert_eq!(bed.call("register_kretprobe", &[module]), 0, "{version} {arch}");
    (bed, VirtAddr(module))
}

#[test]
fn returns_are_sent_to_the_trampoline_and_come_back_after_the_probe_is_gone() {
    for (version, arch, brk) in [
        ("5.18", Arch::X86_64, false),
        ("7.0", Arch::X86_64, false),
        ("6.6", Arch::Arm64, false),
        ("6.12", Arch::Arm64, true),
        ("6.12", Arch::Ppc64le, false),
    ] {
        let (mut bed, function) = probed(version, arch);
        let trampoline = bed.kernel.return_trampoline().unwrap();
        assert!(bed.kernel.layout().text.contains(trampoline));
        assert_eq!(bed.kernel.return_probe(function), Some(function));
        assert_eq!(bed.kernel.return_probe(function.offset(4)), None);
        bed.kernel.hook_return(CPU, function, STACK, BACK);
        bed.call("unregister_kretprobe", &[function.0]);
        assert_eq!(bed.kernel.return_probe(function), None, "{version} {arch}");
        assert_eq!(bed.kernel.unhook_return(CpuId(1), STACK), None, "another CPU's");
        let back = bed.kernel.unhook_return(CPU, STACK);
        match back {
            Some(Rethook::GoOn(to)) => assert!(brk && to == BACK, "{version} {arch}"),
            Some(Rethook::PutBack { back, .. }) => assert!(!brk && back == BACK),
            None => panic!("{version} {arch}"),
        }
        assert_eq!(bed.kernel.unhook_return(CPU, STACK), None, "once");
    }
}

#[test]
fn more_than_may_be_under_way_are_missed() {
    let (mut bed, function) = probed("6.12", Arch::X86_64);
    for n in 0..10 {
        assert!(bed.kernel.return_probe(function).is_some(), "{n}");
        bed.kernel.hook_return(CPU, function, STACK.offset(16 * n), BACK);
    }
    assert_eq!(bed.kernel.return_probe(function), None);
    bed.kernel.unhook_return(CPU, STACK).unwrap();
    assert!(bed.kernel.return_probe(function).is_some());
}

#[test]
fn refused_where_a_probe_is_refused() {
    let mut bed = boot("6.12", Arch::Arm64, &[]);
    let page = bed.call("vmalloc", &[4096]) as u64;
    let refused = bed.try_call("register_kretprobe", &values(&[page])).unwrap();
    assert_eq!((refused.value, refused.failed), (-22, true));
    assert_eq!(bed.kernel.return_trampoline(), None);
    assert!(find_call("register_kretprobe", bed.kernel.version(), Arch::Arm64).is_ok());
}
