//! Text patching of arm64 and powerpc, static keys and BPF's attach points: results by
//! architecture and what each does about other CPUs.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, expect, power_patch, run, values};
use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_kernel::{Arg, CallError};

const NOPS: [(Arch, &[u8]); 3] = [
    (Arch::X86_64, &[0x0f, 0x1f, 0x44, 0, 0]),
    (Arch::Arm64, &[0x1f, 0x20, 0x03, 0xd5]),
    (Arch::Ppc64le, &[0, 0, 0, 0x60]),
];

fn bed(version: &str, arch: Arch) -> (Bed, u64) {
    let mut bed = boot(version, arch, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    let nop = NOPS.iter().find(|(n, _)| *n == arch).unwrap().1;
    bed.call_code("memcpy", &[a], &nop.repeat(4));
    bed.trace();
    (bed, a)
}

fn lines(bed: &mut Bed, what: &str) -> Vec<String> {
    bed.trace().into_iter().filter(|l| l[2..].starts_with(what)).collect()
}

fn bytes(bed: &mut Bed, at: u64, len: usize) -> Vec<u8> {
    let mut now = vec![0; len];
    bed.kernel.machine_mut().load(CpuId(0), VirtAddr(at), &mut now).unwrap();
    bed.trace();
    now
}

#[test]
fn attach_points_answer_by_architecture() {
    // Attach, attach again, attach over something else, detach, an address that is nobody's.
    let rows = [
        (Arch::X86_64, [0, -16, -16, 0, -22]),
        (Arch::Arm64, [0, -14, -14, 0, -524]),
        (Arch::Ppc64le, [0, -22, -22, 0, -95]),
    ];
    for (arch, want) in rows {
        let version = if arch == Arch::Ppc64le { "7.0" } else { "6.12" };
        let (mut bed, a) = bed(version, arch);
        let (t, u) = (a + 0x100, a + 0x200);
        let poke = |bed: &mut Bed, args: [u64; 4]| bed.call("bpf_arch_text_poke", &args);
        let got = [
            poke(&mut bed, [a, 1, 0, t]),
            poke(&mut bed, [a, 1, 0, t]),
            poke(&mut bed, [a, 1, u, t]),
            poke(&mut bed, [a, 1, t, 0]),
            poke(&mut bed, [bed_hole(arch), 1, 0, t]),
        ];
        assert_eq!(got, want, "{arch}");
    }
}

fn bed_hole(arch: Arch) -> u64 {
    if arch.is_powerpc() { 0xc008_8000_0000_0000 } else { 0xffff_fff0_0000_0000 }
}

#[test]
fn x86_says_1_where_the_new_instruction_lies_already() {
    let (mut bed, a) = bed("6.12", Arch::X86_64);
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, 0, 0]), 1);
    assert_eq!(lines(&mut bed, "ipi").len(), 0);
}

#[test]
fn t11_powerpc_tells_others_of_a_detached_branch_and_not_of_an_attached_one() {
    let (mut bed, a) = bed("7.0", Arch::Ppc64le);
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, 0, a + 64]), 0);
    assert_eq!(lines(&mut bed, "ipi").len(), 0);
    assert_eq!(bytes(&mut bed, a, 4), [0x40, 0, 0, 0x48]);
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, a + 64, 0]), 0);
    assert_eq!(lines(&mut bed, "ipi"), ["0 ipi do_isync to 0b10"]);
}

#[test]
fn static_keys_patch_their_sites_each_in_its_way() {
    let rows = [
        (Arch::X86_64, "6.12", 3, [0xe9, 0x3b, 0, 0]),
        (Arch::Arm64, "6.12", 1, [0x10, 0, 0, 0x14]),
        (Arch::Arm64, "6.6", 0, [0x10, 0, 0, 0x14]),
        (Arch::Ppc64le, "6.12", 0, [0x40, 0, 0, 0x48]),
    ];
    for (arch, version, interrupts, jump) in rows {
        let (mut bed, a) = bed(version, arch);
        let step = NOPS.iter().find(|(n, _)| *n == arch).unwrap().1.len() as u64;
        bed.call("jump_entry", &[7, a, a + 64]);
        bed.call("jump_entry", &[7, a + step, a + 64]);
        let before = bytes(&mut bed, a, 8);
        bed.call("static_key_enable", &[7]);
        let trace = bed.trace();
        let count = |what: &str| trace.iter().filter(|l| l[2..].starts_with(what)).count();
        assert_eq!(count("ipi"), interrupts, "{arch} {version}");
        // Who interrupts the others promises that nobody executes the old instruction; on x86 what
        // finishes the vector does so too.
        let promised = [0, 2, 0, 4][interrupts];
        assert_eq!(count("promised NoStaleCode"), promised, "{arch} {version}");
        assert_eq!(bytes(&mut bed, a, 4), jump, "{arch}");
        bed.call("static_key_enable", &[7]);
        assert_eq!(lines(&mut bed, "patch site").len(), 0, "{arch}: it is on already");
        bed.call("static_key_disable", &[7]);
        assert_eq!(bytes(&mut bed, a, 8), before, "{arch}");
    }
}

#[test]
fn a_static_key_over_bytes_that_are_not_its_own_is_a_bug_on_x86() {
    let (mut bed, a) = bed("6.12", Arch::X86_64);
    bed.call("jump_entry", &[7, a + 1, a + 64]);
    let died = bed.try_call("static_key_enable", &values(&[7]));
    assert!(matches!(died, Err(CallError::Died { .. })), "{died:?}");
}

#[test]
fn arm64_patches_while_the_others_stand_still_and_they_synchronise_last() {
    let (mut bed, a) = bed("6.12", Arch::Arm64);
    assert_eq!(bed.call_code("aarch64_insn_patch_text", &[a], &[]), -22);
    bed.trace();
    let two = [0x1f, 0x20, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6];
    assert_eq!(bed.call_code("aarch64_insn_patch_text", &[a], &two), 0);
    let trace = bed.trace();
    let at = |what: &str| trace.iter().position(|l| l.contains(what)).unwrap();
    let last_store = trace.iter().rposition(|l| l.contains("store")).unwrap();
    let other = trace.iter().position(|l| l.starts_with("1-sync") && l.ends_with("isb")).unwrap();
    assert!(at("StopMachine { begin: true }") < at("store"));
    // From the end on others run, each behind its barrier.
    let end = at("StopMachine { begin: false }");
    assert!(last_store < end && end < other, "{trace:#?}");
    assert_eq!(trace.iter().filter(|l| l.contains("patch site")).count(), 2);
    assert_eq!(bytes(&mut bed, a, 8), two);
    bed.kernel.machine_mut().set_irqs(CpuId(1), false);
    let args = [Arg::Value(a), Arg::Code(two.to_vec())];
    let held = bed.try_call("aarch64_insn_patch_text", &args);
    assert!(matches!(held, Err(CallError::Waits { .. })), "{held:?}");
}

#[test]
fn arm64_writes_without_maintenance_where_linux_does_none() {
    let (mut bed, a) = bed("6.12", Arch::Arm64);
    assert_eq!(bed.call("aarch64_insn_write", &[a, 0xd65f_03c0]), 0);
    assert_eq!(bed.call("aarch64_insn_write_literal_u64", &[a + 8, 0x1122_3344_5566_7788]), 0);
    let trace = bed.trace();
    assert!(!trace.iter().any(|l| l.contains("ic ivau") || l.contains("dc cvau")), "{trace:#?}");
    assert_eq!(bytes(&mut bed, a + 8, 2), [0x88, 0x77]);
    bed.call("caches_clean_inval_pou", &[a, a + 4]);
    assert_eq!(lines(&mut bed, "ic ivau").len(), 1);
}

#[test]
fn powerpc_branches_and_values() {
    let (mut bed, a) = bed("6.12", Arch::Ppc64le);
    assert_eq!(bed.call("patch_branch", &[a, a + 0x20, 1]), 0);
    assert_eq!(bytes(&mut bed, a, 4), [0x21, 0, 0, 0x48]);
    assert_eq!(bed.call("patch_branch", &[a, a + 0x200_0000, 0]), -34);
    assert_eq!(bed.call("patch_uint", &[a + 2, 1]), -22);
    assert_eq!(bed.call("patch_ulong", &[a + 8, 0x1122_3344_5566_7788]), 0);
    assert_eq!(bytes(&mut bed, a + 8, 2), [0x88, 0x77]);
    assert_eq!(bed.call("raw_patch_instruction", &[a, 0x6000_0000]), 0);
    let trace = bed.trace();
    assert!(!trace.iter().any(|l| l.contains("window")), "in place: {trace:#?}");
}

/// T11, event for event, of a program with its out-of-line stub: attaching is two words and tells
/// nobody, detaching has the others execute isync behind the lock, another target is one word.
#[test]
fn t11_each_event_of_an_attach_and_a_detach() {
    let (mut bed, a) = bed("7.0", Arch::Ppc64le);
    let nop = 0x6000_0000u32.to_le_bytes();
    for at in [a, a + 0x24] {
        bed.call_code("memcpy", &[at], &nop);
    }
    bed.call("bpf_ool_stub", &[a, a + 0x20]);
    bed.trace();
    let word = |at: u64| {
        let patch = power_patch(at);
        format!(
            "
        0 load a+{at:#x} 4
        0 load a+{at:#x} 4
        0 compared a+{at:#x} 4 equal
{patch}
        0 result used
        "
        )
    };
    let (stub, entry) = (word(0x24), word(0));
    let told = "
        0 ipi do_isync to 0b10
        1-sync ExceptionEntry
        1-taken
        1-sync Instruction isync
        1-done
        1-sync ExceptionReturn
        0 waited
        ";
    let golden = |words: &str, told: &str| {
        format!(
            "
        0 call bpf_arch_text_poke
        0 lock text_mutex
{words}
        0 unlock text_mutex
{told}
        0 return 0
        "
        )
    };
    let both = format!("{stub}{entry}");
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, 0, a + 64]), 0);
    expect(&bed.trace(), &golden(&both, ""));
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, a + 64, a + 128]), 0);
    expect(&bed.trace(), &golden(&stub, told));
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, a + 128, 0]), 0);
    expect(&bed.trace(), &golden(&both, told));
    // What is not there ends it, and the others are told all the same.
    assert_eq!(bed.call("bpf_arch_text_poke", &[a, 0, a + 128, 0]), -22);
    assert!(bed.trace().iter().any(|l| l == "0 ipi do_isync to 0b10"));
}

/// Linux 6.12 kernel/jump_label.c, arch/arm64 and arch/powerpc/kernel/jump_label.c: each site by
/// itself; arm64 tells the other CPUs when all are changed.
#[test]
fn sites_of_a_key_change_one_after_the_other_for_all_to_see() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc", 4096);
        let nop = if arch == Arch::Arm64 { 0xd503_201f_u32 } else { 0x6000_0000 };
        bed.call_code("memcpy", &[a], &nop.to_le_bytes().repeat(16));
        for site in [a, a + 8] {
            bed.call("jump_entry", &[7, site, a + 32]);
        }
        bed.trace();
        let (mut moments, mut kicked) = (Vec::new(), Vec::new());
        run(&mut bed, CpuId(0), ("static_key_enable", &values(&[7])), |bed| {
            kicked.extend(bed.trace().into_iter().filter(|l| l.contains("ipi ")));
            let changed = |bed: &mut Bed, at: u64| {
                let mut now = [0; 4];
                bed.kernel.machine_mut().load(CpuId(1), VirtAddr(at), &mut now).unwrap();
                now != nop.to_le_bytes()
            };
            let moment = (changed(bed, a), changed(bed, a + 8));
            assert!(moment == (true, true) || kicked.is_empty(), "{arch}: {kicked:?}");
            moments.push(moment);
        });
        moments.dedup();
        assert!(moments.ends_with(&[(true, false), (true, true)]), "{arch}: {moments:?}");
        assert_eq!(kicked.len(), usize::from(arch == Arch::Arm64), "{arch}");
    }
}
