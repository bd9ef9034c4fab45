//! The kernel's own search for writable and executable mappings: what it finds on each
//! architecture, and what it is blind to. Worked out by hand from Linux 6.12 mm/ptdump.c,
//! arch/x86/mm/dump_pagetables.c, arch/arm64/mm/ptdump.c, arch/powerpc/mm/ptdump/ptdump.c; for
//! entries that are neither empty nor present, mm/vmalloc.c vunmap_pte_range().

mod common;

use common::{Bed, boot, values};
use textbed_arch::Arch;
use textbed_kernel::CallError;

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

struct Row {
    what: &'static str,
    run: fn(&mut Bed, Arch, u64),
    /// 1 = clean, on x86-64, arm64 and powerpc.
    clean: [i64; 3],
}

fn away(bed: &mut Bed, arch: Arch, at: u64) {
    if arch == Arch::Arm64 {
        bed.call("set_memory_valid", &[at, 1, 0]);
    } else {
        bed.call("set_memory_np", &[at, 1]);
    }
}

const ROWS: &[Row] = &[
    Row { what: "a kernel that just booted", run: |_, _, _| {}, clean: [1; 3] },
    Row {
        what: "a page that is both",
        run: |bed, _, a| {
            bed.call("set_memory_x", &[a, 1]);
        },
        clean: [0; 3],
    },
    Row {
        what: "a page that is both, and not present",
        run: |bed, arch, a| {
            bed.call("set_memory_x", &[a, 1]);
            away(bed, arch, a);
        },
        clean: [0; 3],
    },
    Row {
        what: "two mappings of a frame, each one thing",
        run: |bed, _, a| {
            bed.call("set_memory_rox", &[a, 1]);
            bed.call("vmap", &[a, 1]);
        },
        clean: [1; 3],
    },
    Row {
        what: "bits in an empty entry",
        run: |bed, _, a| {
            bed.call("set_memory_ro", &[a, 3]);
        },
        clean: [1, 0, 1],
    },
    Row {
        what: "the dirty-bit modifier in an empty entry, at which nobody looks",
        run: |bed, _, a| {
            bed.call("set_memory_rw", &[a, 3]);
        },
        clean: [1; 3],
    },
];

#[test]
fn what_is_found_and_what_is_not() {
    let (mut compared, mut different) = (0, Vec::new());
    for row in ROWS {
        for (arch, want) in ARCHS.into_iter().zip(row.clean) {
            let mut bed = boot("6.12", arch, &[]);
            let a = bed.area("a", "vmalloc", 2 << 12);
            (row.run)(&mut bed, arch, a);
            bed.trace();
            let got = bed.call("ptdump_check_wx", &[]);
            let warned = bed.trace().iter().any(|l| l.contains("WARN"));
            compared += 1;
            if got != want || warned == (got == 1) {
                different.push(format!("{} on {arch}: {got}, warned {warned}", row.what));
            }
        }
    }
    println!("{compared} compared, {} equal", compared - different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn it_complains_once_a_boot_and_had_no_result_before_6_9() {
    let mut bed = boot("6.6", Arch::X86_64, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.call("set_memory_x", &[a, 1]);
    bed.trace();
    for warned in [true, false] {
        assert_eq!(bed.call("debug_checkwx", &[]), 0);
        assert_eq!(bed.trace().iter().any(|l| l == "0 WARN WriteExec"), warned);
    }
    assert!(bed.try_call("ptdump_check_wx", &[]).is_err());
}

#[test]
fn an_entry_that_is_neither_empty_nor_present_is_complained_of_when_it_goes() {
    for arch in ARCHS {
        let mut bed = boot("6.18", arch, &[]);
        let a = bed.area("a", "vmalloc", 2 << 12);
        away(&mut bed, arch, a);
        bed.trace();
        bed.call("vfree", &[a]);
        let odd = |bed: &mut Bed| bed.trace().iter().filter(|l| *l == "0 WARN OddEntry").count();
        assert_eq!(odd(&mut bed), 1, "{arch}");
        // The guard page's entry: arm64 alone left something there.
        let a = bed.area("a", "vmalloc", 2 << 12);
        bed.call("set_memory_ro", &[a, 3]);
        bed.trace();
        bed.call("vfree", &[a]);
        assert_eq!(odd(&mut bed), usize::from(arch == Arch::Arm64), "{arch}");
    }
}

/// From 6.19 on arm64 looks up the alias of each page that is asked for, where writing changes
/// (rodata=full); the guard page has none, and what is read instead is not modelled.
#[test]
fn the_alias_of_a_guard_page_is_not_modelled() {
    for (version, rodata, call, modelled) in [
        ("6.18", "full", "set_memory_ro", true),
        ("7.0", "noalias", "set_memory_ro", true),
        ("7.0", "on", "set_memory_ro", false),
        ("7.0", "full", "set_memory_nx", true),
        ("7.0", "full", "set_memory_ro", false),
    ] {
        let mut bed = boot(version, Arch::Arm64, &[("rodata", rodata)]);
        let a = bed.area("a", "vmalloc", 2 << 12);
        assert_eq!(bed.call(call, &[a, 2]), 0, "{version} {rodata} {call}");
        match bed.try_call(call, &values(&[a, 3])) {
            Ok(value) => assert!(modelled && value.value == 0, "{version} {rodata} {call}"),
            Err(CallError::NotModelled { what, .. }) => {
                assert!(!modelled && what.contains("guard page"), "{version} {rodata}: {what}");
            }
            Err(other) => panic!("{version} {rodata} {call}: {other}"),
        }
    }
}

#[test]
fn the_direct_map_says_whether_it_has_a_page() {
    for (arch, gone) in ARCHS.into_iter().zip([0, 0, 1]) {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        assert_eq!(bed.call("kernel_page_present", &[a]), 1, "{arch}");
        bed.call("set_direct_map_invalid_noflush", &[a]);
        assert_eq!(bed.call("kernel_page_present", &[a]), gone, "{arch}");
    }
}
