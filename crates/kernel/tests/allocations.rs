//! Every allocation inside of the calls that make memory, change its permissions, hand out
//! executable memory or patch text: each can be made to fail, and what the call answers then.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_with};
use textbed_arch::{Arch, CpuId, Features};
use textbed_kernel::Arg;

use Then::{Fails, Gives, Keeps};

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const X86: &[Arch] = &[Arch::X86_64];
const OTHERS: &[Arch] = &[Arch::Arm64, Arch::Ppc64le];

/// What a call does whose allocation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// It says so.
    Fails,
    /// It says so, and what it made before stays with an allocator.
    Keeps,
    /// It does without: smaller pages, or an error that nobody can be told.
    Gives,
}

struct Row {
    call: &'static str,
    version: &'static str,
    archs: &'static [Arch],
    /// Its arguments, after what has to be there first.
    args: fn(&mut Bed) -> Vec<Arg>,
    /// What follows from the failure of each allocation, in their order.
    then: &'static [Then],
}

fn size(bytes: u64) -> Vec<Arg> {
    vec![Arg::Value(bytes)]
}

fn typed(kind: &str, bytes: u64) -> Vec<Arg> {
    vec![Arg::Flags(vec![kind.to_owned()]), Arg::Value(bytes)]
}

fn area(bed: &mut Bed, call: &str, bytes: u64) -> u64 {
    bed.call(call, &[bytes]) as u64
}

fn pages(bed: &mut Bed, call: &str, bytes: u64) -> Vec<Arg> {
    common::values(&[area(bed, call, bytes), 1])
}

fn code(bed: &mut Bed) -> Vec<Arg> {
    vec![Arg::Value(area(bed, "vmalloc", 4096)), Arg::Code(vec![0; 8])]
}

const ROWS: &[Row] = &[
    // mm/vmalloc.c: what describes the area, its pages, its tables.
    Row {
        call: "vmalloc",
        version: "6.12",
        archs: ALL,
        args: |_| size(8192),
        then: &[Fails, Fails, Fails],
    },
    // The second try is one by small pages.
    Row {
        call: "vmalloc_huge",
        version: "6.12",
        archs: ALL,
        args: |_| size(2 << 20),
        then: &[Gives, Gives, Gives],
    },
    Row {
        call: "vmalloc_huge",
        version: "6.18",
        archs: &[Arch::Arm64],
        args: |_| size(0x1_0000),
        then: &[Gives, Gives, Gives],
    },
    Row {
        call: "vmap",
        version: "6.12",
        archs: ALL,
        args: |bed| pages(bed, "vmalloc", 4096),
        then: &[Fails, Fails],
    },
    Row {
        call: "module_alloc",
        version: "6.6",
        archs: ALL,
        args: |_| size(4096),
        then: &[Fails, Fails, Fails],
    },
    // arch/x86/mm/pat/set_memory.c: a table for each leaf that is split, the direct map's too.
    Row {
        call: "set_memory_ro",
        version: "6.12",
        archs: X86,
        args: |bed| pages(bed, "vmalloc", 4096),
        then: &[Fails],
    },
    Row {
        call: "set_memory_rox",
        version: "7.0",
        archs: X86,
        args: |bed| pages(bed, "vmalloc_huge", 2 << 20),
        then: &[Fails, Fails],
    },
    Row {
        call: "set_memory_nx",
        version: "6.12",
        archs: X86,
        args: |bed| pages(bed, "vmalloc", 4096),
        then: &[],
    },
    Row {
        call: "set_memory_4k",
        version: "6.12",
        archs: X86,
        args: |bed| pages(bed, "vmalloc_huge", 2 << 20),
        then: &[Fails],
    },
    Row {
        call: "set_direct_map_invalid_noflush",
        version: "6.12",
        archs: X86,
        args: |bed| size(area(bed, "vmalloc", 4096)),
        then: &[Fails],
    },
    Row {
        call: "set_memory_ro",
        version: "6.12",
        archs: OTHERS,
        args: |bed| pages(bed, "vmalloc", 4096),
        then: &[],
    },
    // mm/vmalloc.c vm_reset_perms() ignores what the direct map's change returns.
    Row {
        call: "vfree",
        version: "6.12",
        archs: X86,
        args: |bed| {
            let area = area(bed, "vmalloc", 4096);
            bed.call("set_vm_flush_reset_perms", &[area]);
            size(area)
        },
        then: &[Gives],
    },
    // mm/execmem.c: vmalloc's, or those of the cache (blocks by large leaves, then by small ones),
    // whose trees have nodes: one for what is added, one for what is busy, one for the rest.
    Row {
        call: "execmem_alloc",
        version: "6.12",
        archs: ALL,
        args: |_| typed("EXECMEM_BPF", 4096),
        then: &[Fails, Fails, Fails],
    },
    Row {
        call: "execmem_alloc",
        version: "7.0",
        archs: X86,
        args: |_| typed("EXECMEM_MODULE_TEXT", 4096),
        then: &[Gives, Gives, Gives, Fails, Keeps, Keeps],
    },
    Row {
        call: "execmem_free",
        version: "7.0",
        archs: X86,
        args: |bed| {
            let args = typed("EXECMEM_MODULE_TEXT", 4096);
            size(bed.try_call("execmem_alloc", &args).unwrap().value as u64)
        },
        then: &[Gives],
    },
    // kernel/bpf/core.c: the pack's record, the writable twin.
    Row {
        call: "bpf_prog_pack_alloc",
        version: "6.12",
        archs: ALL,
        args: |_| size(64),
        then: &[Fails],
    },
    Row {
        call: "bpf_jit_binary_pack_alloc",
        version: "6.12",
        archs: ALL,
        args: |_| size(64),
        then: &[Fails],
    },
    // Text patching allocates when it is set up, not when it patches.
    Row { call: "text_poke_copy", version: "6.12", archs: X86, args: code, then: &[] },
    Row { call: "bpf_arch_text_copy", version: "6.12", archs: ALL, args: code, then: &[] },
];

fn bed(row: &Row, arch: Arch) -> (Bed, Vec<Arg>) {
    let mut bed = boot_with(row.version, arch, &[], Features::default_for(arch), 2);
    let args = (row.args)(&mut bed);
    (bed, args)
}

#[test]
fn every_allocation_can_fail_and_the_list_is_complete() {
    let (mut compared, mut different) = (0, Vec::new());
    for row in ROWS {
        for arch in row.archs {
            for n in 1..=row.then.len() + 1 {
                let (mut bed, args) = bed(row, *arch);
                let nth = calls_so_far(row, *arch) + 1;
                bed.kernel.fail_allocation(row.call, nth, n as u32).unwrap();
                let areas = bed.kernel.areas().len();
                let value = bed.kernel.call(CpuId(0), row.call, &args).unwrap();
                let met = bed.kernel.unused_failures().is_empty();
                let more = bed.kernel.areas().len() != areas;
                let then = match (value.failed, more) {
                    (true, false) => Fails,
                    (true, true) => Keeps,
                    (false, _) => Gives,
                };
                let want = row.then.get(n - 1);
                compared += 1;
                let what = format!("{} {} on {arch}, allocation {n}", row.call, row.version);
                if met != want.is_some() || want.is_some_and(|w| *w != then) {
                    different.push(format!("{what}: met {met}, {then:?}, not {want:?}"));
                }
            }
        }
    }
    println!("{compared} compared, {} equal", compared - different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// How often a call of that name was made while its arguments were.
fn calls_so_far(row: &Row, arch: Arch) -> u32 {
    let mut bed = boot_with(row.version, arch, &[], Features::default_for(arch), 2);
    (row.args)(&mut bed);
    let name = format!("call {}", row.call);
    bed.trace().iter().filter(|l| l[2..] == name).count() as u32
}

#[test]
fn what_is_no_allocation_is_refused() {
    let (mut bed, _) = bed(&ROWS[0], Arch::X86_64);
    let zero = bed.kernel.fail_allocation("vmalloc", 1, 0).unwrap_err();
    assert!(zero.to_string().contains("counted from 1"), "{zero}");
    assert!(bed.kernel.fail_allocation("vmalloc", 0, 1).is_err());
    assert!(bed.kernel.fail_allocation("vmaloc", 1, 1).is_err());
}
