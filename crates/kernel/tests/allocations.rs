//! Every allocation inside of the calls that make memory, change its permissions, hand out
//! executable memory or patch text: each can be made to fail, and what the call answers then.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot};
use textbed_arch::{Arch, CpuId};
use textbed_kernel::Arg;

use Then::{Fails, Gives, Keeps};

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
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

const fn row(
    call: &'static str,
    version: &'static str,
    archs: &'static [Arch],
    args: fn(&mut Bed) -> Vec<Arg>,
    then: &'static [Then],
) -> Row {
    Row { call, version, archs, args, then }
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

/// An area that ends where a table of pages does, and its guard page.
fn with_guard_behind_a_table(bed: &mut Bed) -> Vec<Arg> {
    // Large enough to lie behind all that is there.
    let before = area(bed, "vmalloc", 1 << 20) + (1 << 20) + 0x1000;
    let bytes = (4 << 20) - before % (2 << 20);
    let start = area(bed, "vmalloc", bytes);
    assert_eq!(start, before);
    common::values(&[start, bytes / 4096 + 1])
}

fn code(bed: &mut Bed) -> Vec<Arg> {
    vec![Arg::Value(area(bed, "vmalloc", 4096)), Arg::Code(vec![0; 8])]
}

const ROWS: &[Row] = &[
    // mm/vmalloc.c: what describes the area, its pages, its tables.
    row("vmalloc", "6.12", ALL, |_| size(8192), &[Fails, Fails, Fails]),
    // The second try is one by small pages.
    row("vmalloc_huge", "6.12", ALL, |_| size(2 << 20), &[Gives, Gives, Gives]),
    row("vmalloc_huge", "6.18", &[Arch::Arm64], |_| size(0x1_0000), &[Gives, Gives, Gives]),
    row("vmap", "6.12", ALL, |bed| pages(bed, "vmalloc", 4096), &[Fails, Fails]),
    row("module_alloc", "6.6", ALL, |_| size(4096), &[Fails, Fails, Fails]),
    // arch/x86/mm/pat/set_memory.c: a table for each leaf that is split, the direct map's too.
    row("set_memory_ro", "6.12", X86, |bed| pages(bed, "vmalloc", 4096), &[Fails]),
    row("set_memory_rox", "7.0", X86, |bed| pages(bed, "vmalloc_huge", 2 << 20), &[Fails, Fails]),
    row("set_memory_nx", "6.12", X86, |bed| pages(bed, "vmalloc", 4096), &[]),
    row("set_memory_4k", "6.12", X86, |bed| pages(bed, "vmalloc_huge", 2 << 20), &[Fails; 2]),
    row(
        "set_direct_map_invalid_noflush",
        "6.12",
        X86,
        |bed| size(area(bed, "vmalloc", 4096)),
        &[Fails],
    ),
    row("set_memory_ro", "6.12", OTHERS, |bed| pages(bed, "vmalloc", 4096), &[]),
    // mm/memory.c apply_to_page_range(): a table for the guard page, if it lies behind one.
    row("set_memory_ro", "6.12", ARM64, with_guard_behind_a_table, &[Fails]),
    row("set_memory_ro", "6.18", ARM64, with_guard_behind_a_table, &[]),
    row("set_memory_np_noalias", "6.12", X86, |bed| pages(bed, "vmalloc", 4096), &[]),
    // mm/vmalloc.c vm_reset_perms() ignores what the direct map's change returns.
    row(
        "vfree",
        "6.12",
        X86,
        |bed| {
            let area = area(bed, "vmalloc", 4096);
            bed.call("set_vm_flush_reset_perms", &[area]);
            size(area)
        },
        &[Gives],
    ),
    // mm/execmem.c: vmalloc's, or those of the cache (blocks by large leaves, then by small ones),
    // whose trees have nodes: one for what is added, one for what is busy, one for the rest.
    row("execmem_alloc", "6.12", ALL, |_| typed("EXECMEM_BPF", 4096), &[Fails, Fails, Fails]),
    row(
        "execmem_alloc",
        "7.0",
        X86,
        |_| typed("EXECMEM_MODULE_TEXT", 4096),
        &[Gives, Gives, Gives, Fails, Keeps, Keeps],
    ),
    row(
        "execmem_free",
        "7.0",
        X86,
        |bed| {
            let args = typed("EXECMEM_MODULE_TEXT", 4096);
            size(bed.try_call("execmem_alloc", &args).unwrap().value as u64)
        },
        &[Gives],
    ),
    // kernel/bpf/core.c: the pack's record, the writable twin.
    row("bpf_prog_pack_alloc", "6.12", ALL, |_| size(64), &[Fails]),
    row("bpf_jit_binary_pack_alloc", "6.12", ALL, |_| size(64), &[Fails]),
    // Text patching allocates when it is set up, not when it patches.
    row("text_poke_copy", "6.12", X86, code, &[]),
    row("bpf_arch_text_copy", "6.12", ALL, code, &[]),
];

/// A kernel, the call's arguments, and how often a call of that name was made for them.
fn bed(row: &Row, arch: Arch) -> (Bed, Vec<Arg>, u32) {
    let mut bed = boot(row.version, arch, &[]);
    let args = (row.args)(&mut bed);
    let name = format!("call {}", row.call);
    let calls = bed.trace().iter().filter(|l| l[2..] == name).count() as u32;
    (bed, args, calls)
}

#[test]
fn every_allocation_can_fail_and_the_list_is_complete() {
    let (mut compared, mut different) = (0, Vec::new());
    for row in ROWS {
        for arch in row.archs {
            for n in 1..=row.then.len() + 1 {
                let (mut bed, args, calls) = bed(row, *arch);
                bed.kernel.fail_allocation(row.call, calls + 1, n as u32).unwrap();
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

#[test]
fn what_is_no_allocation_is_refused() {
    let (mut bed, ..) = bed(&ROWS[0], Arch::X86_64);
    let zero = bed.kernel.fail_allocation("vmalloc", 1, 0).unwrap_err();
    assert!(zero.to_string().contains("counted from 1"), "{zero}");
    assert!(bed.kernel.fail_allocation("vmalloc", 0, 1).is_err());
    assert!(bed.kernel.fail_allocation("vmaloc", 1, 1).is_err());
}
