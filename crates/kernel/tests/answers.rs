//! What Linux 6.12 answers to impossible arguments, call by call: a value, a value with a WARN, an
//! oops or BUG, or "not modelled" by name. Worked out by hand from the sources that the calls cite.
//! `impossible.rs` makes every call with every such argument and looks at what must never happen.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot};
use textbed_arch::Arch;
use textbed_kernel::{Arg, CallError, find_call};

use Answer::{Absent, Dies, NoInt, NotModelled, Value, Warns};
use Given::{Area, Bytes, Far, Freed, Kind, Num, Odd, OddCode, Text, User, Wild};

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

/// An argument.
#[derive(Clone, Copy, Debug)]
enum Given {
    /// An area of four pages.
    Area,
    /// Its second byte.
    Odd,
    /// Its third byte: no instruction begins there on arm64 and powerpc.
    OddCode,
    /// A page that was freed.
    Freed,
    /// An address of user space, where nothing is mapped.
    User,
    /// Bits 63 to 47 that are neither all 0 nor all 1.
    Wild,
    /// The kernel's text.
    Text,
    /// Out of the reach of a branch.
    Far,
    Num(u64),
    Kind(&'static str),
    Bytes,
}

/// What comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Value(i64),
    Warns(i64),
    Dies,
    NotModelled,
    /// The parameter is an int, and the number is none.
    NoInt,
    /// The architecture has no such call.
    Absent,
}

type Row = (&'static [&'static str], &'static [Given], [Answer; 3]);

/// Permission changes of a kernel page.
const CHANGES: &[&str] =
    &["set_memory_ro", "set_memory_rw", "set_memory_x", "set_memory_nx", "set_memory_rox"];
const PRESENT: &[&str] = &["set_memory_np", "set_memory_p"];
const FREES: &[&str] = &["vfree", "vunmap", "execmem_free"];
const DIRECT: &[&str] =
    &["set_direct_map_invalid_noflush", "set_direct_map_default_noflush", "kernel_page_present"];
const HUGE: u64 = 1 << 52;

const ROWS: &[Row] = &[
    // mm/vmalloc.c: WARN_ON_ONCE, warn_alloc; vmap of nothing says nothing.
    (&["vmalloc", "vmalloc_huge"], &[Num(0)], [Warns(0); 3]),
    (&["vmalloc", "vmalloc_huge"], &[Num(HUGE)], [Warns(0); 3]),
    (&["vmalloc", "vmalloc_huge"], &[Num(u64::MAX)], [Warns(0); 3]),
    (&["vmap"], &[Area, Num(0)], [Value(0); 3]),
    (&["vmap"], &[User, Num(1)], [NotModelled; 3]),
    (FREES, &[Num(0)], [Value(0); 3]),
    (FREES, &[User], [Warns(0); 3]),
    (FREES, &[Wild], [Warns(0); 3]),
    (FREES, &[Freed], [Warns(0); 3]),
    (FREES, &[Odd], [Warns(0); 3]),
    (&["set_vm_flush_reset_perms"], &[User], [Value(0); 3]),
    (&["is_vm_area_hugepages"], &[Freed], [Dies; 3]),
    // mm/execmem.c: __vmalloc_node_range as it is.
    (&["execmem_alloc"], &[Kind("EXECMEM_BPF"), Num(0)], [Warns(0); 3]),
    (&["execmem_alloc"], &[Kind("EXECMEM_BPF"), Num(HUGE)], [Warns(0); 3]),
    // arch/*/mm/pageattr.c, arch/x86/mm/pat/set_memory.c.
    (CHANGES, &[Area, Num(0)], [Value(0); 3]),
    (CHANGES, &[Area, Num(HUGE)], [NoInt; 3]),
    (CHANGES, &[User, Num(1)], [Warns(-14), Value(-22), NotModelled]),
    (CHANGES, &[Wild, Num(1)], [NotModelled, Value(-22), NotModelled]),
    (CHANGES, &[Freed, Num(1)], [Warns(-14), Value(-22), Dies]),
    (CHANGES, &[Freed, Num(0)], [Value(0), Value(-22), Value(0)]),
    (CHANGES, &[Area, Num(6)], [Warns(-14), Value(-22), Value(0)]),
    (PRESENT, &[Area, Num(0)], [Value(0), Absent, Value(0)]),
    (PRESENT, &[User, Num(1)], [Warns(-14), Absent, NotModelled]),
    (PRESENT, &[Freed, Num(1)], [Warns(-14), Absent, Dies]),
    (
        &["set_memory_np_noalias", "set_memory_global", "set_memory_nonglobal"],
        &[Freed, Num(1)],
        [Warns(-14), Absent, Absent],
    ),
    (&["set_memory_4k"], &[Freed, Num(1)], [Warns(-14), Absent, Absent]),
    (&["set_memory_4k"], &[Wild, Num(1)], [NotModelled, Absent, Absent]),
    (&["set_memory_valid"], &[Freed, Num(1), Num(0)], [Absent, Value(0), Absent]),
    (&["set_memory_valid"], &[Area, Num(0), Num(0)], [Absent, Warns(-22), Absent]),
    (&["set_memory_valid"], &[User, Num(1), Num(0)], [Absent, NotModelled, Absent]),
    (&["set_memory_valid"], &[Area, Num(HUGE), Num(0)], [Absent, NoInt, Absent]),
    (DIRECT, &[User], [NotModelled; 3]),
    (DIRECT, &[Freed], [NotModelled; 3]),
    (&["flush_tlb_kernel_range"], &[Num(0), Num(u64::MAX)], [Value(0); 3]),
    (&["flush_icache_range"], &[Area, Num(0)], [Value(0); 3]),
    (&["memset"], &[User, Num(0), Num(8)], [Dies; 3]),
    (&["memset"], &[Freed, Num(0), Num(8)], [Dies; 3]),
    (&["memset"], &[Area, Num(0), Num(0)], [Value(0); 3]),
    // arch/x86/kernel/alternative.c: a WARN for the kernel's text, a BUG where no page is.
    (&["text_poke_copy"], &[Text, Bytes], [Warns(0), Absent, Absent]),
    (&["text_poke_copy"], &[Freed, Bytes], [Dies, Absent, Absent]),
    (&["text_poke_copy"], &[User, Bytes], [Dies, Absent, Absent]),
    (&["text_poke_set"], &[Freed, Num(0xcc), Num(8)], [Dies, Absent, Absent]),
    // arch/arm64/kernel/patching.c.
    (&["aarch64_insn_copy"], &[OddCode, Bytes], [Absent, Value(0), Absent]),
    (&["aarch64_insn_copy"], &[Freed, Bytes], [Absent, Dies, Absent]),
    (&["aarch64_insn_patch_text_nosync"], &[OddCode, Num(0)], [Absent, Value(-22), Absent]),
    (&["aarch64_insn_patch_text_nosync"], &[Freed, Num(0)], [Absent, Dies, Absent]),
    // arch/powerpc/lib/code-patching.c: the frame of a page that is NULL.
    (&["patch_instruction"], &[Freed, Num(0)], [Absent, Absent, NotModelled]),
    (&["patch_uint"], &[OddCode, Num(0)], [Absent, Absent, Value(-22)]),
    (&["patch_branch"], &[Area, Far, Num(0)], [Absent, Absent, Value(-34)]),
    // arch/*/net/bpf_jit_comp*.c, kernel/bpf/core.c.
    (
        &["bpf_arch_text_poke"],
        &[User, Num(1), Num(0), Area],
        [Value(-22), Value(-524), Value(-524)],
    ),
    (&["bpf_arch_text_copy"], &[User, Bytes], [Dies, Dies, NotModelled]),
    (&["bpf_arch_text_invalidate"], &[Text, Num(64)], [Warns(1), Value(0), Warns(-22)]),
    (&["bpf_prog_pack_free"], &[User, Num(64)], [Warns(0); 3]),
    (&["bpf_prog_pack_alloc"], &[Num(0)], [NotModelled; 3]),
    (&["bpf_prog_pack_alloc"], &[Num(HUGE)], [NotModelled; 3]),
    (&["bpf_jit_binary_pack_free"], &[User], [Dies; 3]),
    (&["bpf_trampoline_unlink_prog"], &[User, Area], [Value(-22); 3]),
    // kernel/kprobes.c, kernel/trace/ftrace.c, kernel/debug/debug_core.c, kernel/jump_label.c.
    (&["register_kprobe"], &[Num(0)], [Value(-22); 3]),
    (&["register_kprobe"], &[User], [Value(-22); 3]),
    (&["register_kprobe"], &[Freed], [Value(-22); 3]),
    (&["register_kprobe"], &[Num(u64::MAX)], [Value(-22); 3]),
    (&["disable_kprobe", "enable_kprobe"], &[User], [Value(-22); 3]),
    (&["unregister_kprobe"], &[User], [Value(0); 3]),
    (&["ftrace_site"], &[Wild], [Value(-22); 3]),
    (&["register_ftrace_function"], &[Num(9), User, Area], [Value(-22); 3]),
    (&["register_ftrace_direct"], &[Num(9), User, Area], [Value(-22), Value(-22), Value(-19)]),
    (&["unregister_ftrace_function"], &[Num(9)], [Warns(-16); 3]),
    (&["unregister_ftrace_direct"], &[Num(9)], [Value(-22), Value(-22), Value(-19)]),
    (&["modify_ftrace_direct"], &[Num(9), Area], [Value(-22), Value(-22), Value(-19)]),
    (&["kgdb_arch_set_breakpoint"], &[User], [Value(-14); 3]),
    (&["static_key_enable", "static_key_disable"], &[Num(77)], [Value(0); 3]),
];

/// Makes one call in a kernel of its own.
fn answer(call: &str, given: &[Given], arch: Arch) -> Answer {
    let mut bed = boot("6.12", arch, &[("memory_mib", "64")]);
    if find_call(call, bed.kernel.version(), arch).is_err() {
        return Absent;
    }
    let args = arguments(&mut bed, given);
    bed.trace();
    let done = bed.try_call(call, &args);
    let warned = bed.trace().iter().any(|l| l.contains("WARN"));
    match done {
        Ok(value) if warned => Warns(value.value),
        Ok(value) => Value(value.value),
        Err(CallError::Died { .. }) => Dies,
        Err(CallError::NotModelled { what, .. }) => {
            assert!(what.len() > 8, "{call}: {what}");
            NotModelled
        }
        Err(CallError::Arguments { .. }) => NoInt,
        Err(other) => panic!("{call}: {other}"),
    }
}

fn arguments(bed: &mut Bed, given: &[Given]) -> Vec<Arg> {
    let freed = bed.call("vmalloc", &[4096]) as u64;
    let area = bed.call("vmalloc", &[4 << 12]) as u64;
    bed.call("vfree", &[freed]);
    let text = bed.kernel.layout().text.start.0;
    let one = |given: &Given| match given {
        Area => Arg::Value(area),
        Odd => Arg::Value(area + 1),
        OddCode => Arg::Value(area + 2),
        Freed => Arg::Value(freed),
        User => Arg::Value(0x40_0000),
        Wild => Arg::Value(0x0012_3456_789a_b000),
        Text => Arg::Value(text),
        Far => Arg::Value(area + (1 << 30)),
        Num(number) => Arg::Value(*number),
        Kind(name) => Arg::Flags(vec![(*name).to_owned()]),
        Bytes => Arg::Code(vec![0; 8]),
    };
    given.iter().map(one).collect()
}

#[test]
fn impossible_arguments_get_the_answers_of_linux() {
    let (mut compared, mut different) = (0, Vec::new());
    for (calls, given, want) in ROWS {
        for call in *calls {
            for (arch, want) in ARCHS.into_iter().zip(want) {
                let got = answer(call, given, arch);
                compared += 1;
                if got != *want {
                    different.push(format!("{call}{given:?} on {arch}: {got:?}, not {want:?}"));
                }
            }
        }
    }
    println!("{compared} compared, {} equal", compared - different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}
