//! Modules: permissions in order by version, errors, and what goes when.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot};
use textbed_arch::{Arch, Perm, SpaceId, VirtAddr};
use textbed_kernel::Arg;

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

fn load(bed: &mut Bed) -> i64 {
    bed.call_code("load_module", &[], &[0xc3, 0, 0, 0])
}

fn section(bed: &mut Bed, module: u64, name: &str) -> u64 {
    let args = [Arg::Value(module), Arg::Flags(vec![name.to_owned()])];
    bed.try_call("module_section", &args).unwrap().value as u64
}

fn perm(bed: &Bed, at: u64) -> Option<Perm> {
    bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).map(|m| m.perm)
}

/// Calls of permissions, in order, with what was looked at.
fn permissions(bed: &mut Bed) -> Vec<String> {
    let trace = bed.trace();
    let calls = trace.iter().filter_map(|l| l[2..].strip_prefix("call "));
    let such = |c: &&str| c.starts_with("set_memory") || c.starts_with("execmem_restore");
    calls.filter(such).map(str::to_owned).collect()
}

#[test]
fn text_becomes_executable_as_each_version_does_it() {
    // kernel/module/main.c complete_formation() and strict_rwx.c of each tree.
    let old = [&["set_memory_ro"; 4][..], &["set_memory_nx"; 5], &["set_memory_x"; 2]].concat();
    let rox =
        ["set_memory_ro"; 2].iter().chain(&["set_memory_nx"; 5]).chain(&["set_memory_rox"; 2]);
    let rox: Vec<&str> = rox.copied().collect();
    for (version, arch, want) in [
        ("6.1", Arch::X86_64, old.clone()),
        ("6.6", Arch::X86_64, old.clone()),
        ("6.1", Arch::Arm64, old.clone()),
        ("6.12", Arch::X86_64, rox.clone()),
        ("6.12", Arch::Ppc64le, rox.clone()),
    ] {
        let mut bed = boot(version, arch, &[]);
        let module = load(&mut bed) as u64;
        assert_eq!(permissions(&mut bed), want, "{version} {arch}");
        assert_eq!(perm(&bed, module), Some(Perm::KERNEL_ROX), "{version} {arch}");
        let rodata = section(&mut bed, module, "MOD_RODATA");
        assert_eq!(perm(&bed, rodata), Some(Perm::KERNEL_RO), "{version} {arch}");
        let data = section(&mut bed, module, "MOD_DATA");
        assert_eq!(perm(&bed, data), Some(Perm::KERNEL_RW), "{version} {arch}");
    }
    // arm64's set_memory_rox is two calls, 6.18 on x86 gives text back to execmem.
    let mut bed = boot("6.18", Arch::X86_64, &[]);
    load(&mut bed);
    let calls = permissions(&mut bed);
    let last: Vec<&str> = calls.iter().rev().take(4).map(String::as_str).collect();
    let restore = ["set_memory_rox", "execmem_restore_rox"];
    assert_eq!(last, [restore, restore].concat());
}

#[test]
fn each_part_is_flushed_and_arm64_interrupts_for_each() {
    for (version, ipis) in [("6.1", 2), ("6.12", 7)] {
        let mut bed = boot(version, Arch::Arm64, &[]);
        load(&mut bed);
        let trace = bed.trace();
        let flushes = trace.iter().filter(|l| l.ends_with("call flush_icache_range")).count();
        let sent = trace.iter().filter(|l| l.contains(" ipi do_nothing")).count();
        assert_eq!((flushes, sent), (ipis, ipis), "{version}");
    }
}

#[test]
fn init_memory_goes_after_a_grace_period_and_the_rest_with_the_module() {
    for arch in ARCHS {
        for version in ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"] {
            let mut bed = boot(version, arch, &[]);
            let before = bed.kernel.areas().len();
            let module = load(&mut bed) as u64;
            let init = section(&mut bed, module, "MOD_INIT_TEXT");
            assert_eq!(perm(&bed, init), Some(Perm::KERNEL_ROX), "{version} {arch}");
            assert_eq!(bed.call("do_init_module", &[module]), 0, "{version} {arch}");
            let late = section(&mut bed, module, "MOD_RO_AFTER_INIT");
            assert_eq!(perm(&bed, late), Some(Perm::KERNEL_RO), "{version} {arch}");
            assert!(perm(&bed, init).is_some());
            bed.trace();
            bed.call("do_free_init", &[]);
            let trace = bed.trace();
            let at = |what: &str| trace.iter().position(|l| l.contains(what));
            let old = ["5.18", "6.1", "6.6"].contains(&version);
            let free = if old { "module_memfree" } else { "execmem_free" };
            assert!(at("GracePeriod").unwrap() < at(free).unwrap(), "{version} {arch}");
            assert_eq!(section(&mut bed, module, "MOD_INIT_TEXT"), 0);
            bed.call("free_module", &[module]);
            let cached = bed.kernel.areas().len() - before;
            assert!(cached <= 1, "{version} {arch}: {cached} areas are left");
        }
    }
}

#[test]
fn errors_end_the_loading_where_they_are_looked_at() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let before = bed.kernel.areas().len();
        bed.kernel.fail("set_memory_nx", 1, 12).unwrap();
        bed.kernel.fail("set_memory_ro", 1, 22).unwrap();
        assert_eq!(load(&mut bed), -22, "{arch}");
        assert_eq!(bed.kernel.areas().len(), before, "{arch}");
        for nth in 1..=7 {
            let mut bed = boot("6.12", arch, &[]);
            bed.kernel.fail("execmem_alloc", nth, 12).unwrap();
            assert_eq!(load(&mut bed), -12, "{arch}, allocation {nth}");
            assert_eq!(bed.kernel.areas().len(), before, "{arch}, allocation {nth}");
            assert!(bed.kernel.unused_failures().is_empty());
        }
        let mut bed = boot("6.1", arch, &[]);
        bed.kernel.fail("set_memory_x", 1, 22).unwrap();
        let module = load(&mut bed);
        assert!(!(-4095..=0).contains(&module), "{arch}: 6.1 drops it, {module}");
        assert_eq!(perm(&bed, module as u64), Some(Perm::KERNEL_RO), "{arch}: and it is no code");
    }
}

#[test]
fn without_strict_permissions_text_is_writable_and_executable() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let mut bed = boot("6.12", arch, &[("STRICT_MODULE_RWX", "n")]);
        let module = load(&mut bed) as u64;
        assert_eq!(perm(&bed, module), Some(Perm::KERNEL_RWX), "{arch}");
    }
    let mut bed = boot("6.12", Arch::X86_64, &[]);
    let module = load(&mut bed) as u64;
    bed.call("do_init_module", &[module]);
    let twice = bed.try_call("do_init_module", &common::values(&[module]));
    assert!(twice.is_err());
}

/// Loads a module with one relocation and one alternative; what is written to its text, in order,
/// and where the maintenance and the first permission come.
fn written(bed: &mut Bed, relocation: &[u8], alternative: &[u8]) -> Vec<String> {
    bed.call_code("module_relocation", &[0], relocation);
    bed.call_code("module_alternative", &[8], alternative);
    let module = bed.call_code("load_module", &[], &[0; 16]) as u64;
    let init = section(bed, module, "MOD_INIT_TEXT");
    bed.mark("text", module, 4096);
    bed.mark("init", init, 4096);
    let trace = bed.trace();
    let first = trace.iter().position(|l| l.contains("store text+0x0 16")).unwrap();
    let kept = |line: &&String| {
        let what = ["store text", "store init", "sync ExceptionReturn", "isync", "call "];
        what.iter().any(|w| line.contains(w))
    };
    let until = |line: &&String| !line.ends_with("call set_memory_ro");
    trace.iter().skip(first).take_while(until).filter(kept).cloned().collect()
}

/// apply_relocations(), module_finalize(), flush_module_icache(), in this order and before anything
/// is protected (Linux 6.12 and 7.0; by architecture: kernel/modules/writes.rs).
#[test]
fn text_is_relocated_and_gets_alternatives_before_it_is_protected() {
    for version in ["6.1", "6.12", "7.0"] {
        let flushes = if version == "6.1" { 2 } else { 7 };
        let maintained = vec!["0 call flush_icache_range".to_owned(); flushes];
        let lines = |all: &[&str]| all.iter().map(|l| (*l).to_owned()).collect::<Vec<String>>();
        let copied = lines(&["0 store text+0x0 16", "0 store init+0x0 16"]);
        let mut bed = boot(version, Arch::X86_64, &[]);
        let poke = |at: &str| {
            lines(&[
                "0 call text_poke_early",
                &format!("0-store {at}+0x8 2"),
                "0-sync ExceptionReturn iretq",
            ])
        };
        let got = written(&mut bed, &[1, 2, 3, 4], &[0x66, 0x90]);
        let relocated = lines(&["0 store text+0x0 4", "0 store init+0x0 4"]);
        let want =
            [copied.clone(), relocated.clone(), poke("text"), poke("init"), maintained.clone()];
        assert_eq!(got[..want.concat().len()], want.concat(), "x86 {version}");

        let mut bed = boot(version, Arch::Arm64, &[]);
        let got = written(&mut bed, &[1, 2, 3, 4], &[0x1f, 0x20, 0x03, 0xd5]);
        let alternatives = lines(&["0 store text+0x8 4", "0 store init+0x8 4"]);
        let first = maintained[..1].to_vec();
        let want = [copied.clone(), relocated, alternatives, first].concat();
        assert_eq!(got[..want.len()], want, "arm64 {version}");

        // A branch is patched through the alias, anything else is stored.
        let mut bed = boot(version, Arch::Ppc64le, &[]);
        let branch = 0x4800_0010u32.to_le_bytes();
        let got = written(&mut bed, &branch, &0x6000_0000u32.to_le_bytes());
        let calls = |got: &[String]| -> Vec<String> {
            let patch = |l: &&String| l.ends_with("patch_instruction");
            got.iter().filter(patch).map(|l| l[7..].to_owned()).collect()
        };
        let want = ["patch_instruction", "patch_instruction"];
        let raw = ["raw_patch_instruction", "raw_patch_instruction"];
        assert_eq!(calls(&got), [want, raw].concat(), "powerpc {version}");
        let flush = got.iter().position(|l| l.ends_with("call flush_icache_range")).unwrap();
        let last = got.iter().rposition(|l| l.ends_with("patch_instruction")).unwrap();
        assert!(last < flush, "{got:#?}");
    }
}

#[test]
fn a_branch_that_cannot_be_patched_ends_the_loading_of_a_powerpc_module() {
    let mut bed = boot("6.12", Arch::Ppc64le, &[]);
    let before = bed.kernel.areas().len();
    bed.call_code("module_relocation", &[0], &0x4800_0010u32.to_le_bytes());
    bed.kernel.fail("patch_instruction", 2, 1).unwrap();
    assert_eq!(load(&mut bed), -14);
    assert_eq!(bed.kernel.areas().len(), before);
    // A list is of one module.
    assert!(load(&mut bed) as u64 > 1 << 63);
}
