//! Patchers that others are made of, event for event: x86's early poke and the one under a lock
//! that the caller holds, the names that 6.16 gave to the INT3 protocol, arm64's fill,
//! alternatives.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, arm64_fixmap_write, boot, expect};
use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_kernel::{Arg, CallError, find_call};

const X86: Arch = Arch::X86_64;
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
const CALL: [u8; 5] = [0xe8, 0x10, 0, 0, 0];

fn letters(bed: &Bed, at: u64) -> &'static str {
    let mapped = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
    mapped.map_or("---", |m| m.perm.letters())
}

/// A page that is written as the kernel's text is while it boots.
fn writable_text(bed: &mut Bed) -> u64 {
    let a = bed.area("a", "vmalloc", 4096);
    bed.call("set_memory_x", &[a, 1]);
    bed.trace();
    a
}

/// Linux 6.12 arch/x86/kernel/alternative.c text_poke_early(): text of a module gets plain stores
/// (is_module_text_address() knows a module once it is formed); anything else is written with
/// interrupts off, and the CPU that writes serialises, no other.
#[test]
fn an_early_poke_synchronises_its_own_cpu_but_for_a_modules_text() {
    for version in ["5.18", "7.0"] {
        let mut bed = boot(version, X86, &[]);
        let a = writable_text(&mut bed);
        bed.call_code("text_poke_early", &[a], &CALL);
        let trace = bed.trace();
        let store = trace.iter().position(|l| l == "0-store a+0x0 5").unwrap();
        let sync = trace.iter().position(|l| l.contains("sync ExceptionReturn")).unwrap();
        assert!(store < sync, "{trace:#?}");
        assert!(!trace.iter().any(|l| l.contains("ipi") || l.starts_with('1')), "{trace:#?}");
        assert!(bed.kernel.machine().irqs_on(CpuId(0)));
    }
    let mut bed = boot("6.6", X86, &[("STRICT_MODULE_RWX", "n")]);
    let module = bed.call_code("load_module", &[], &[0x90; 8]) as u64;
    bed.mark("a", module, 4096);
    bed.trace();
    bed.call_code("text_poke_early", &[module], &CALL);
    let trace = bed.trace();
    assert!(trace.contains(&"0 store a+0x0 5".to_owned()), "with interrupts on: {trace:#?}");
    assert!(!trace.iter().any(|l| l.contains("sync")), "{trace:#?}");
}

/// 6.2 on: text_mutex is the caller's, and kernel text is refused unless core_ok says so.
#[test]
fn a_copy_under_a_lock_that_is_held() {
    let mut bed = boot("6.12", X86, &[]);
    let text = bed.kernel.layout().text.start.0 + 0x100;
    let args = |ok: u64| [Arg::Value(text), Arg::Code(CALL.to_vec()), Arg::Value(ok)];
    bed.kernel.machine_mut().lock(CpuId(0), "text_mutex").unwrap();
    bed.trace();
    assert_eq!(bed.try_call("text_poke_copy_locked", &args(0)).unwrap().value, 0);
    assert!(bed.trace().contains(&"0 WARN BadArgument".to_owned()));
    assert_eq!(bed.try_call("text_poke_copy_locked", &args(1)).unwrap().value, text as i64);
    let trace = bed.trace_all();
    assert_eq!(trace.get(1).map(String::as_str), Some("0 needs LockHeld text_mutex"));
    assert!(!trace.iter().any(|l| l.contains("ipi") || l.contains(" lock ")), "{trace:#?}");
    let version = "6.1".parse().unwrap();
    assert!(find_call("text_poke_copy_locked", version, X86).is_err());
}

/// 6.16 renamed text_poke_bp, text_poke_queue, text_poke_finish and text_poke_sync; what they do
/// stayed.
#[test]
fn new_names_do_what_the_old_ones_did() {
    let run = |version: &str, names: [&str; 4]| {
        let mut bed = boot(version, X86, &[]);
        let a = bed.area("a", "vmalloc", 4096);
        bed.call_code("memcpy", &[a], &[NOP5, NOP5].concat());
        bed.kernel.machine_mut().lock(CpuId(0), "text_mutex").unwrap();
        bed.trace();
        bed.call_code(names[0], &[a], &CALL);
        bed.call_code(names[1], &[a + 5], &CALL);
        bed.call(names[2], &[]);
        bed.call(names[3], &[]);
        let mut now = [0; 10];
        bed.kernel.machine_mut().load(CpuId(1), VirtAddr(a), &mut now).unwrap();
        assert_eq!(now[..], [CALL, CALL].concat()[..]);
        let trace = bed.trace();
        assert_eq!(trace.iter().filter(|l| l.contains(" ipi ")).count(), 7, "{version}");
        trace.into_iter().filter(|l| !l.contains("call ")).collect::<Vec<_>>()
    };
    let old = ["text_poke_bp", "text_poke_queue", "text_poke_finish", "text_poke_sync"];
    let new = [
        "smp_text_poke_single",
        "smp_text_poke_batch_add",
        "smp_text_poke_batch_finish",
        "smp_text_poke_sync_each_cpu",
    ];
    assert_eq!(run("6.12", old), run("7.0", new));
    for (version, absent) in [("6.12", new), ("7.0", old)] {
        for name in absent {
            assert!(find_call(name, version.parse().unwrap(), X86).is_err(), "{name} in {version}");
        }
    }
}

/// Linux 6.12 arch/arm64/kernel/patching.c aarch64_insn_set(): as the copy, with one instruction
/// again and again; NULL for an address between instructions.
#[test]
fn arm64_fills_through_the_fixmap_and_interrupts_once() {
    let mut bed = boot("6.12", Arch::Arm64, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    bed.trace();
    assert_eq!(bed.call("aarch64_insn_set", &[a + 0xff8, 0xd420_2000, 16]), (a + 0xff8) as i64);
    let page = |at: &str| {
        arm64_fixmap_write(0x1000, "4K", &format!("fill alias+{at} 0x8 [00, 20, 20, d4]"))
    };
    let trace = bed.trace();
    let from = trace.iter().position(|l| l.contains("lock patch_lock")).unwrap();
    let to = trace.iter().position(|l| l.contains("unlock patch_lock")).unwrap();
    expect(&trace[from + 1..to], &format!("{}{}", page("0xff8"), page("0x0")));
    assert_eq!(trace.iter().filter(|l| l.contains(" ipi ")).count(), 1, "{trace:#?}");
    assert_eq!(bed.call("aarch64_insn_set", &[a + 2, 0xd420_2000, 16]), 0);
}

/// x86 has NMIs away and pokes early; no other CPU is told.
#[test]
fn alternatives_of_x86_are_an_early_poke() {
    let mut bed = boot("6.12", X86, &[]);
    let a = writable_text(&mut bed);
    bed.call_code("apply_alternatives", &[a], &NOP5);
    let trace = bed.trace();
    assert!(trace.iter().any(|l| l.contains("call text_poke_early")), "{trace:#?}");
    assert!(!trace.iter().any(|l| l.contains("ipi")), "{trace:#?}");
    // The kernel's own text is read-only when it has booted.
    let late = [Arg::Value(bed.kernel.layout().text.start.0), Arg::Code(NOP5.to_vec())];
    let died = bed.try_call("apply_alternatives", &late).unwrap_err();
    assert!(matches!(died, CallError::Died { .. }), "{died}");
}

/// 6.13 on: several pages of the direct map at once, without a flush but a split's own.
#[test]
fn pages_of_the_direct_map_that_follow_each_other() {
    for (arch, gone) in [(X86, "---"), (Arch::Arm64, "---"), (Arch::Ppc64le, "rw-")] {
        let mut bed = boot("6.18", arch, &[("debug_pagealloc", "n")]);
        let a = bed.area("a", "vmalloc", 2 << 12);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        assert_eq!(bed.call("set_direct_map_valid_noflush", &[a, 2, 0]), 0, "{arch}");
        for at in [dm, dm + 0x1000] {
            assert_eq!(letters(&bed, at), gone, "{arch}");
        }
        assert_eq!(letters(&bed, dm + 0x2000), "rw-", "{arch}: the page behind");
        assert_eq!(bed.call("set_direct_map_valid_noflush", &[a, 2, 1]), 0, "{arch}");
        assert_eq!(letters(&bed, dm + 0x1000), "rw-", "{arch}");
    }
}

/// set_memory_np_noalias leaves the direct map; set_memory_np does not.
#[test]
fn not_present_at_one_address_alone() {
    for (call, alias) in [("set_memory_np_noalias", "rw-"), ("set_memory_np", "---")] {
        let mut bed = boot("6.12", X86, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        assert_eq!(bed.call(call, &[a, 1]), 0);
        assert_eq!((letters(&bed, a), letters(&bed, dm)), ("---", alias), "{call}");
    }
}
