//! BPF packs by version and architecture.

mod common;

use common::{Bed, boot, expect, values};
use textbed_arch::{Arch, SpaceId, VirtAddr};
use textbed_kernel::{Arg, Caps};

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

fn perm(bed: &Bed, at: u64) -> &'static str {
    let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
    mapping.map_or("---", |m| m.perm.letters())
}

fn calls(trace: &[String]) -> Vec<&str> {
    trace.iter().filter_map(|l| l.get(2..)?.strip_prefix("call ")).collect()
}

/// What the mail of April 2022 reviewed: 2 MiB by one large leaf, executable with whatever was in
/// it, results of the permission changes not looked at.
#[test]
fn a_pack_of_5_18_rc3_is_huge_and_full_of_leftovers() {
    let mut bed = boot("5.18-rc3", Arch::X86_64, &[]);
    let a = bed.call("bpf_prog_pack_alloc", &[100]) as u64;
    let trace = bed.trace();
    assert_eq!(
        calls(&trace),
        [
            "bpf_prog_pack_alloc",
            "module_alloc", // does it give large leaves?
            "vfree",
            "module_alloc",
            "set_vm_flush_reset_perms",
            "set_memory_ro",
            "set_memory_x"
        ]
    );
    assert!(!trace.iter().any(|l| l.contains("fill")), "{trace:#?}");
    assert_eq!(trace.iter().filter(|l| l.contains("result dropped")).count(), 2);
    let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
    assert_eq!((mapping.shift, mapping.perm.letters()), (21, "r-x"));
    // The next programs share the pack, two chunks further on and one more.
    assert_eq!(bed.call("bpf_prog_pack_alloc", &[64]) as u64, a + 128);
    assert_eq!(bed.call("bpf_prog_pack_alloc", &[64]) as u64, a + 192);
}

#[test]
fn a_pack_of_5_18_is_one_small_page_and_still_not_filled() {
    for arch in ARCHS {
        let mut bed = boot("5.18", arch, &[]);
        let a = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
        let trace = bed.trace();
        assert!(!trace.iter().any(|l| l.contains("fill")), "{trace:#?}");
        let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
        assert_eq!((mapping.shift, mapping.perm.letters()), (12, "r-x"), "{arch}");
        assert_eq!(bed.kernel.areas().find(VirtAddr(a)).unwrap().len, 4096);
    }
}

#[test]
fn a_pack_of_6_12_is_filled_before_it_is_executable_and_its_permissions_are_looked_at() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
        let trace = bed.trace();
        let fill = trace.iter().position(|l| l.contains("fill")).unwrap();
        let rox = trace.iter().position(|l| l.contains("call set_memory_rox")).unwrap();
        assert!(fill < rox && trace[fill].contains("0x200000"), "{arch}");
        assert!(!trace.iter().any(|l| l.contains("dropped")));
        assert_eq!(perm(&bed, a), "r-x");
        let frame = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().phys;
        let mut word = [0; 4];
        bed.kernel.machine().read_phys(frame, &mut word).unwrap();
        let trap = match arch {
            Arch::X86_64 => [0xcc; 4],
            Arch::Arm64 => 0xd420_2000u32.to_le_bytes(),
            _ => 0x7fe0_0008u32.to_le_bytes(),
        };
        assert_eq!(word, trap, "{arch}");
    }
}

#[test]
fn from_6_10_on_a_refused_permission_change_gives_the_pack_back() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        bed.kernel.fail("set_memory_rox", 1, 22).unwrap();
        assert_eq!(bed.call("bpf_prog_pack_alloc", &[64]), 0);
        let trace = bed.trace();
        assert_eq!(calls(&trace).last(), Some(&"execmem_free"), "{arch}");
        // Not so in 5.18: the pack is handed out, writable and not executable.
        let mut bed = boot("5.18", arch, &[]);
        bed.kernel.fail("set_memory_ro", 1, 22).unwrap();
        bed.kernel.fail("set_memory_x", 1, 22).unwrap();
        let a = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
        assert_eq!(perm(&bed, a), "rw-", "{arch}");
    }
}

#[test]
fn a_freed_program_is_overwritten_from_5_19_on() {
    for arch in ARCHS {
        for (version, overwritten) in [("5.18", false), ("6.12", true)] {
            let mut bed = boot(version, arch, &[]);
            let a = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
            let b = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
            bed.trace();
            bed.call("bpf_prog_pack_free", &[a, 64]);
            let trace = bed.trace();
            let called = calls(&trace).contains(&"bpf_arch_text_invalidate");
            assert_eq!(called, overwritten, "{arch} {version}");
            // The last program takes the pack with it.
            bed.call("bpf_prog_pack_free", &[b, 64]);
            assert!(calls(&bed.trace()).iter().any(|c| c.ends_with("free")));
            assert_eq!(perm(&bed, a), "---");
        }
    }
}

#[test]
fn text_copy_is_a_stub_where_the_architecture_has_none() {
    for arch in ARCHS {
        for version in ["5.18-rc3", "5.18", "6.12"] {
            let mut bed = boot(version, arch, &[]);
            let a = bed.area("a", "vmalloc", 4096);
            bed.trace();
            let value = bed.call_code("bpf_arch_text_copy", &[a], &[0; 8]);
            let caps = Caps::new(bed.kernel.version(), arch);
            if caps.yes(textbed_kernel::Fact::TextCopy) {
                assert_eq!(value as u64, a, "{arch} {version}");
            } else {
                assert_eq!(value, -524);
                expect(
                    &bed.trace(),
                    "
        0 call bpf_arch_text_copy
        0 return -524 failed
                    ",
                );
            }
        }
    }
}

/// The generic code goes through all its motions and fails at the end (mail of 2022-04-27); then
/// it frees the chunk by a size that nobody has written.
#[test]
fn finalize_without_a_text_copy_fails_after_everything_was_set_up() {
    let mut bed = boot("5.18", Arch::Ppc64le, &[]);
    let header = bed.call("bpf_jit_binary_pack_alloc", &[8]) as u64;
    bed.trace();
    assert_eq!(bed.call_code("bpf_jit_binary_pack_finalize", &[header], &[0; 8]), -524);
    let trace = bed.trace();
    assert_eq!(trace[2], "0 return -524 failed");
    assert!(calls(&trace).contains(&"bpf_prog_pack_free"), "{trace:#?}");
    assert_eq!(trace.last().unwrap(), "0 return -524 failed");
}

#[test]
fn a_program_comes_and_goes() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let code: Vec<u8> = (0..200).collect();
        let header = bed.call("bpf_jit_binary_pack_alloc", &[200]) as u64;
        assert_eq!(bed.call_code("bpf_jit_binary_pack_finalize", &[header], &code), 0, "{arch}");
        let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(header)).unwrap();
        let phys = mapping.phys.offset(header - mapping.virt.0);
        let mut bytes = vec![0; 208];
        bed.kernel.machine().read_phys(phys, &mut bytes).unwrap();
        assert_eq!(bytes[8..], code);
        bed.call("bpf_jit_binary_pack_free", &[header]);
        assert_eq!(perm(&bed, header), "---", "{arch}");
        let error = bed.try_call("bpf_jit_binary_pack_free", &values(&[header])).unwrap_err();
        assert!(error.to_string().contains("dies"), "{error}");
    }
}

#[test]
fn a_program_larger_than_a_pack_gets_pages_of_its_own() {
    let mut bed = boot("5.18", Arch::X86_64, &[]);
    let a = bed.call("bpf_prog_pack_alloc", &[5000]) as u64;
    assert_eq!(bed.kernel.areas().find(VirtAddr(a)).unwrap().len, 8192);
    bed.call("bpf_prog_pack_free", &[a, 5000]);
    assert_eq!(perm(&bed, a), "---");
}

/// A function that begins with places for a tracer, and what stands in one.
fn traced_function(bed: &mut Bed, arch: Arch) -> (u64, Vec<u8>) {
    let nop: Vec<u8> = match arch {
        Arch::X86_64 => vec![0x0f, 0x1f, 0x44, 0, 0],
        Arch::Arm64 => 0xd503_201fu32.to_le_bytes().to_vec(),
        _ => 0x6000_0000u32.to_le_bytes().to_vec(),
    };
    // On arm64 a module is too far from where BPF's memory lies: that needs a PLT.
    let far = arch != Arch::X86_64;
    let site = bed.call(if far { "vmalloc" } else { "module_alloc_huge" }, &[4096]) as u64;
    bed.call_code("memcpy", &[site], &nop.repeat(8));
    (site, nop)
}

#[test]
fn trampolines_come_and_go_with_their_programs() {
    for (version, arch, image) in [
        ("5.18", Arch::X86_64, "page"),
        ("6.1", Arch::X86_64, "page"),
        ("6.6", Arch::X86_64, "page"),
        ("6.12", Arch::X86_64, "pack"),
        ("6.1", Arch::Arm64, "page"),
        ("6.12", Arch::Arm64, "pack"),
        ("7.0", Arch::Ppc64le, "pack"),
        ("6.12", Arch::Ppc64le, "none"),
    ] {
        let mut bed = common::boot(version, arch, &[]);
        let (site, nop) = traced_function(&mut bed, arch);
        let other = site + nop.len() as u64;
        bed.trace();
        let got = bed.call("bpf_trampoline_link_prog", &[site, other]);
        assert_eq!(got, if image == "none" { -524 } else { 0 }, "{version} {arch}");
        let trace = bed.trace();
        let has = |what: &str| trace.iter().any(|l| l.contains(what));
        assert_eq!(has("call bpf_prog_pack_alloc"), image == "pack", "{version} {arch}");
        if image == "none" {
            continue;
        }
        assert!(has("call bpf_arch_text_poke"), "{version} {arch}");
        assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, other]), -16, "twice");
        // A second program is a second image; the first waits.
        assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, other + 8]), 0);
        bed.trace();
        assert_eq!(bed.call("bpf_trampoline_unlink_prog", &[site, other]), 0);
        assert_eq!(bed.call("bpf_trampoline_unlink_prog", &[site, other + 8]), 0);
        assert_eq!(bed.call("bpf_trampoline_unlink_prog", &[site, other]), -22);
        let trace = bed.trace();
        let freed = |l: &String| l.contains("pack_free") || l.contains("area gone");
        assert!(
            !trace.iter().any(freed),
            "{version} {arch}: nothing goes before the grace periods"
        );
        let mut now = vec![0; nop.len()];
        bed.kernel
            .machine_mut()
            .load(textbed_arch::CpuId(0), textbed_arch::VirtAddr(site), &mut now)
            .unwrap();
        assert_eq!(now, nop, "{version} {arch}");
        bed.trace();
        bed.call("__bpf_tramp_image_put_deferred", &[]);
        let trace = bed.trace();
        let grace = trace.iter().rposition(|l| l.contains("GracePeriod")).unwrap();
        let first = trace.iter().position(freed).unwrap();
        assert!(grace < first, "{version} {arch}");
        // An image that is not to be had leaves the site alone.
        bed.kernel.fail("bpf_trampoline_link_prog", 4, 12).unwrap();
        assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, other]), -12, "{version} {arch}");
    }
}

/// Linux 6.1, 6.12, 7.0 bpf_trampoline_update(): behind the last program the image goes even where
/// the site could not be changed, so that the site still calls it; behind another the old image
/// stays, and the program is off the list all the same.
#[test]
fn a_site_that_cannot_be_changed_back_does_not_keep_its_image() {
    for (version, arch) in [
        ("6.1", Arch::X86_64),
        ("6.12", Arch::X86_64),
        ("6.12", Arch::Arm64),
        ("7.0", Arch::Ppc64le),
    ] {
        let mut bed = boot(version, arch, &[]);
        let (site, nop) = traced_function(&mut bed, arch);
        let (first, second) = (site + nop.len() as u64, site + 2 * nop.len() as u64);
        assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, first]), 0, "{version} {arch}");
        assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, second]), 0, "{version} {arch}");
        bed.call("__bpf_tramp_image_put_deferred", &[]);
        // Somebody else's bytes at the site.
        bed.call_code("memcpy", &[site], &nop);
        bed.trace();
        for prog in [first, second] {
            let error = bed.call("bpf_trampoline_unlink_prog", &[site, prog]);
            assert!(error < 0, "{version} {arch}");
            let again = bed.call("bpf_trampoline_unlink_prog", &[site, prog]);
            assert_eq!(again, -22, "{version} {arch}: it is off the list");
        }
        let trace = bed.trace();
        let freed = |l: &&String| l.contains("call bpf_prog_pack_free") || l.contains("area gone");
        let freed_at_once = trace.iter().any(|l| freed(&l));
        assert_eq!(freed_at_once, version != "6.1", "{version} {arch}: what was not attached");
        bed.call("__bpf_tramp_image_put_deferred", &[]);
        assert!(bed.trace().iter().any(|l| freed(&l)), "{version} {arch}");
    }
}

/// Linux 6.12 bpf_tramp_image_put(): whoever comes back from the function jumps over the programs,
/// which may be gone; what did not call the function is left as it is.
#[test]
fn a_trampoline_that_calls_the_function_is_patched_when_it_goes() {
    let rows = [
        ("6.1", Arch::X86_64),
        ("6.12", Arch::X86_64),
        ("6.12", Arch::Arm64),
        ("7.0", Arch::Ppc64le),
    ];
    for (version, arch) in rows {
        for (kind, patched) in
            [("BPF_TRACE_FENTRY", false), ("BPF_TRACE_FEXIT", true), ("BPF_MODIFY_RETURN", true)]
        {
            let mut bed = boot(version, arch, &[]);
            let (site, nop) = traced_function(&mut bed, arch);
            let prog = site + nop.len() as u64;
            let says = [Arg::Value(prog), Arg::Flags(vec![kind.to_owned()])];
            bed.try_call("prog_attach_type", &says).unwrap();
            assert_eq!(bed.call("bpf_trampoline_link_prog", &[site, prog]), 0, "{version} {arch}");
            bed.mark("site", site, 4096);
            bed.trace();
            assert_eq!(bed.call("bpf_trampoline_unlink_prog", &[site, prog]), 0);
            let trace = bed.trace();
            let compares = |l: &&String| l.contains("compared") && l.contains("equal");
            let at_site = |l: &&String| l.contains("compared site");
            let inside = trace.iter().filter(compares).filter(|l| !at_site(l)).count();
            assert_eq!(inside > 0, patched, "{version} {arch} {kind}: {trace:#?}");
            // powerpc: once for the site, and once for the jump, though nothing was there.
            let told = trace.iter().filter(|l| l.contains("ipi do_isync")).count();
            let power = arch == Arch::Ppc64le;
            assert_eq!(told, if power { 1 + usize::from(patched) } else { 0 }, "{kind}");
            assert!(!trace.iter().any(|l| l.contains("WARN")), "{version} {arch} {kind}");
            bed.call("__bpf_tramp_image_put_deferred", &[]);
            let trace = bed.trace();
            let waits = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
            let graces = (waits("flavour: TasksTrace }"), waits("flavour: Tasks }"));
            assert_eq!(graces, if patched { (0, 2) } else { (1, 1) }, "{version} {arch} {kind}");
        }
    }
}

/// Linux 6.12 kernel/bpf/dispatcher.c: the other half is written, then led to, then waited for; x86
/// alone has such code.
#[test]
fn a_dispatcher_writes_the_half_that_is_not_in_use() {
    for arch in [Arch::X86_64, Arch::Arm64] {
        let mut bed = boot("6.12", arch, &[]);
        let progs: Vec<u64> =
            (0..3).map(|_| bed.call("bpf_prog_pack_alloc", &[64]) as u64).collect();
        let mut halves = Vec::new();
        for (from, to) in [(0, 0), (0, 1), (1, 2), (2, 1), (1, 0)] {
            bed.trace();
            let (from, to) = (from as usize, to as usize);
            let args =
                [7, if from == 0 { 0 } else { progs[from] }, if to == 0 { 0 } else { progs[to] }];
            bed.call("bpf_dispatcher_change_prog", &args);
            let trace = bed.trace();
            let at = |what: &str| trace.iter().position(|l| l.contains(what));
            if let Some(copy) = at("call bpf_arch_text_copy") {
                assert!(copy < at("call static_call_update").unwrap(), "{trace:#?}");
                assert!(at("call static_call_update") < at("GracePeriod"));
                halves.push(trace.iter().find(|l| l.contains("compared")).cloned());
            }
        }
        let x86 = arch == Arch::X86_64;
        assert_eq!(halves.len(), if x86 { 3 } else { 0 }, "{arch}");
        if x86 {
            assert_ne!(halves[0], halves[1]);
            assert_eq!(halves[0], halves[2]);
        }
    }
}

/// Up to 6.9 bpf_prog_pack_free() reads the size from the header: where the writable twin could not
/// be had it is written there first, by text patching. From 6.10 on it is an argument.
#[test]
fn without_a_twin_the_size_is_written_for_the_free_until_6_9() {
    for (version, written) in [("6.1", true), ("6.6", true), ("6.12", false), ("7.0", false)] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        bed.call("bpf_jit_binary_pack_alloc", &[8]);
        bed.trace();
        bed.kernel.fail("bpf_jit_binary_pack_alloc", 2, 12).unwrap();
        assert_eq!(bed.call("bpf_jit_binary_pack_alloc", &[8]), 0, "{version}");
        let trace = bed.trace();
        let inner = calls(&trace);
        let mut want = vec!["bpf_jit_binary_pack_alloc", "bpf_prog_pack_alloc"];
        want.extend(
            written.then_some(["bpf_arch_text_copy", "text_poke_copy"]).into_iter().flatten(),
        );
        want.extend(["bpf_prog_pack_free", "bpf_arch_text_invalidate", "text_poke_set"]);
        assert_eq!(inner, want, "{version}");
        let poke = trace.iter().any(|l| l.contains("store alias") && l.ends_with(" 4"));
        assert_eq!(poke, written, "{version}: {trace:#?}");
    }
}

/// bpf_prog_pack_free() of 5.19 masks the address by PMD_MASK, and packs are 2 MiB for each node;
/// from 6.0 on it looks which pack holds it.
#[test]
fn until_5_19_what_lies_in_a_later_nodes_part_of_a_pack_is_never_freed() {
    for (version, warns) in [("5.18-rc3", true), ("6.1", false)] {
        let mut bed = boot(version, Arch::X86_64, &[("nr_nodes", "2")]);
        let first = bed.call("bpf_prog_pack_alloc", &[3 << 20]);
        let second = bed.call("bpf_prog_pack_alloc", &[64]);
        assert_eq!(second - first, 3 << 20, "{version}");
        bed.trace();
        bed.call("bpf_prog_pack_free", &[second as u64, 64]);
        let warned = bed.trace().iter().any(|l| l.contains("WARN NoArea"));
        assert_eq!(warned, warns, "{version}");
        let again = bed.call("bpf_prog_pack_alloc", &[64]);
        assert_eq!(again == second, !warns, "{version}: the room is gone");
    }
}
