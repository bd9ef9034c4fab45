//! What programs put together by chance are made of: something that a CPU takes, uses, and gives
//! back, and code that others run meanwhile.

use proptest::prelude::*;
use textbed_arch::Arch;
use textbed_scenario::Version;

/// Routines that units install, with an argument and what they return.
const CODE: [(&str, &str, u64); 2] = [("ret42", "", 42), ("fib", ", 10", 55)];

/// Something that a CPU takes, uses, and gives back.
#[derive(Clone, Debug)]
pub(crate) enum Unit {
    Data {
        pages: u64,
        huge: bool,
    },
    /// Ranges of pages made read-only and perhaps writable again; freed as it is or writable.
    Protect {
        pages: u64,
        ranges: Vec<(u64, u64, bool)>,
        reset: bool,
    },
    Alias {
        pages: u64,
    },
    /// Taken out of the direct map, and put back.
    Hidden,
    /// Code written and then protected: by one call or two, in memory of execmem or of vmalloc.
    Written {
        pages: u64,
        code: usize,
        execmem: bool,
        at_once: bool,
    },
    /// The same through memory of execmem that is writable for the time being.
    Restored {
        code: usize,
    },
    /// Code patched into memory that is protected already.
    Patched,
    Pack {
        bytes: u64,
        code: usize,
    },
    Module {
        code: usize,
        free_init: bool,
    },
    /// Code that changes while others run it.
    Live(Change),
    /// A CPU goes, and comes.
    Hotplug,
    Call(&'static str),
}

/// How code changes under those who run it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    StaticKey,
    StaticCall,
    Probe { optimised: bool },
    Tracer,
    Direct,
    Trampoline,
}

pub(crate) fn unit() -> impl Strategy<Value = Unit> {
    let range = (0..8u64, 1..8u64, any::<bool>());
    let calls =
        ["kick_all_cpus_sync()", "vm_unmap_aliases()", "stop_machine()", "synchronize_rcu()"];
    let changes = [
        Change::StaticKey,
        Change::StaticCall,
        Change::Probe { optimised: false },
        Change::Probe { optimised: true },
        Change::Tracer,
        Change::Direct,
        Change::Trampoline,
    ];
    prop_oneof![
        2 => (1..6u64, prop::bool::weighted(0.2))
            .prop_map(|(pages, huge)| Unit::Data { pages, huge }),
        2 => (1..8u64, prop::collection::vec(range, 1..4), any::<bool>())
            .prop_map(|(pages, ranges, reset)| Unit::Protect { pages, ranges, reset }),
        1 => (1..4u64).prop_map(|pages| Unit::Alias { pages }),
        1 => Just(Unit::Hidden),
        4 => (1..4u64, 0..2usize, any::<bool>(), any::<bool>()).prop_map(
            |(pages, code, execmem, at_once)| Unit::Written { pages, code, execmem, at_once },
        ),
        1 => (0..2usize).prop_map(|code| Unit::Restored { code }),
        2 => Just(Unit::Patched),
        3 => (prop::sample::select(vec![64, 256, 2000, 5000]), 0..2usize)
            .prop_map(|(bytes, code)| Unit::Pack { bytes, code }),
        3 => (0..2usize, any::<bool>())
            .prop_map(|(code, free_init)| Unit::Module { code, free_init }),
        4 => prop::sample::select(changes.to_vec()).prop_map(Unit::Live),
        1 => Just(Unit::Hotplug),
        1 => prop::sample::select(calls.to_vec()).prop_map(Unit::Call),
    ]
}

/// Code that a unit has: where, how it is called, and what it returns.
pub(crate) struct Code {
    pub(crate) entry: String,
    pub(crate) argument: &'static str,
    pub(crate) result: u64,
    /// The lines that change it while others run it, and what it returns behind them.
    pub(crate) change: Option<(Vec<String>, u64)>,
}

/// A unit by the lines that take it and those that give it back, and its code.
pub(crate) type Lines = (Vec<String>, Vec<String>, Option<Code>);

/// The machine and kernel that a program is for, and the CPU that goes and comes.
#[derive(Clone, Copy)]
pub(crate) struct On {
    pub(crate) arch: Arch,
    pub(crate) version: Version,
    pub(crate) moves: usize,
}

impl On {
    fn since(self, version: &str) -> bool {
        Version::parse(version).is_ok_and(|since| self.version >= since)
    }
}

/// The lines of unit `n`.
pub(crate) fn lines(unit: &Unit, n: usize, on: On) -> Lines {
    let v = &format!("u{n}");
    let protect = |pages: u64| format!("try set_memory_rox({v}, {pages} pages)");
    let area = |pages: u64| {
        vec![format!("{v} = vmalloc({pages} pages)"), format!("memset({v}, 0, {pages} pages)")]
    };
    let reset = || vec![format!("set_vm_flush_reset_perms({v})"), format!("vfree({v})")];
    let routine = |entry: String, code: usize| {
        let (_, argument, result) = CODE[code];
        Some(Code { entry, argument, result, change: None })
    };
    match *unit {
        Unit::Data { huge: true, .. } => {
            let take = [format!("{v} = vmalloc_huge(2M)"), format!("memset({v}, 0, 4K)")];
            (take.into(), vec![format!("vfree({v})")], None)
        }
        Unit::Data { pages, .. } => (area(pages), vec![format!("vfree({v})")], None),
        Unit::Protect { pages, ref ranges, reset: by_reset } => {
            let mut take = area(pages);
            for (first, count, back) in ranges {
                let first = first % pages;
                let count = (*count).min(pages - first);
                take.push(format!("try set_memory_ro({v} + {first} pages, {count} pages)"));
                if *back {
                    take.push(format!("try set_memory_rw({v} + {first} pages, {count} pages)"));
                }
            }
            let writable =
                [format!("try set_memory_rw({v}, {pages} pages)"), format!("vfree({v})")];
            (take, if by_reset { reset() } else { writable.into() }, None)
        }
        Unit::Alias { pages } => {
            let mut take = area(pages);
            take.extend([format!("{v}w = vmap({v}, {pages})"), format!("memset({v}w, 1, 64)")]);
            (take, vec![format!("vunmap({v}w)"), format!("vfree({v})")], None)
        }
        Unit::Hidden => {
            let mut take = area(1);
            take.extend([
                format!("{v}d = page_address({v})"),
                format!("try set_direct_map_invalid_noflush({v})"),
                format!("flush_tlb_kernel_range({v}d, {v}d + 1 pages)"),
                format!("memset({v}, 1, 64)"),
            ]);
            let back = [format!("try set_direct_map_default_noflush({v})"), format!("vfree({v})")];
            (take, back.into(), None)
        }
        Unit::Written { pages, code, execmem, at_once } => {
            let from = if execmem { "execmem_alloc(EXECMEM_BPF, " } else { "vmalloc(" };
            let mut take = vec![
                format!("{v} = {from}{pages} pages)"),
                format!("bpf_fill_ill_insns({v}, {pages} pages)"),
                format!("memcpy({v}, code({}))", CODE[code].0),
                format!("flush_icache_range({v}, {v} + {pages} pages)"),
            ];
            if execmem || at_once {
                take.push(protect(pages));
            } else {
                take.push(format!("try set_memory_ro({v}, {pages} pages)"));
                take.push(format!("try set_memory_x({v}, {pages} pages)"));
            }
            take.push("kick_all_cpus_sync()".into());
            let back = if execmem { vec![format!("execmem_free({v})")] } else { reset() };
            (take, back, routine(v.clone(), code))
        }
        Unit::Restored { code } if on.since("6.18") && on.arch == Arch::X86_64 => {
            let take = vec![
                format!("{v} = execmem_alloc_rw(EXECMEM_MODULE_TEXT, 1 pages)"),
                format!("bpf_fill_ill_insns({v}, 1 pages)"),
                format!("memcpy({v}, code({}))", CODE[code].0),
                format!("try execmem_restore_rox({v}, 1 pages)"),
                "kick_all_cpus_sync()".into(),
            ];
            (take, vec![format!("execmem_free({v})")], routine(v.clone(), code))
        }
        Unit::Restored { code } => lines(&Unit::Module { code, free_init: true }, n, on),
        Unit::Patched => {
            let take = format!(
                "{v} = vmalloc(1 pages)\nbpf_fill_ill_insns({v}, 1 pages)\n\
                 flush_icache_range({v}, {v} + 1 pages)\n{}\n\
                 when x86_64 {{\ntext_poke_copy({v}, code(ret42))\nkick_all_cpus_sync()\n}}\n\
                 when arm64 {{\naarch64_insn_copy({v}, code(ret42))\n}}\n\
                 when powerpc {{\nwith lock text_mutex {{\n\
                 patch_instruction({v}, 0x3860002a)\npatch_instruction({v} + 4, 0x4e800020)\n}}\n\
                 kick_all_cpus_sync()\n}}",
                protect(1)
            );
            (vec![take], reset(), routine(v.clone(), 0))
        }
        Unit::Pack { bytes, code } => {
            let take = vec![
                format!("{v} = bpf_jit_binary_pack_alloc({bytes})"),
                format!("try bpf_jit_binary_pack_finalize({v}, code({}))", CODE[code].0),
                "kick_all_cpus_sync()".into(),
            ];
            let back = vec![format!("bpf_jit_binary_pack_free({v})")];
            (take, back, routine(format!("{v} + 8"), code))
        }
        Unit::Module { code, free_init } => {
            let mut take = vec![
                format!("{v} = load_module(code({}))", CODE[code].0),
                "kick_all_cpus_sync()".into(),
                format!("try do_init_module({v})"),
            ];
            take.extend(free_init.then(|| "do_free_init()".into()));
            (take, vec![format!("free_module({v})")], routine(v.clone(), code))
        }
        Unit::Live(change) => live(change, n, on),
        Unit::Hotplug => {
            // At once: others wait for what it runs.
            let cpu = on.moves;
            (vec![format!("{v}r = remove_cpu({cpu})\n{v}r = add_cpu({cpu})")], Vec::new(), None)
        }
        Unit::Call(call) => (vec![call.to_owned()], Vec::new(), None),
    }
}

/// Code that is changed while others run it. Where an architecture or version has no such change,
/// or the routine is none for it, a static key is switched instead.
fn live(change: Change, n: usize, on: On) -> Lines {
    let v = &format!("u{n}");
    let x86 = on.arch == Arch::X86_64;
    let (site, taken) = if x86 { (5, 11) } else { (4, 12) };
    let module = |name: &str| format!("{v} = load_module(code({name}))");
    let tracer = || format!("{v}f = load_module(code(ret42))");
    let kick = || "kick_all_cpus_sync()".to_owned();
    let (take, change, back, results) = match change {
        // Power promises neither the old nor the new instruction where a trap replaces one that
        // others run (Power ISA Book II, Concurrent Modification and Execution of Instructions).
        Change::Probe { optimised } if !on.arch.is_powerpc() => {
            let waits = optimised && x86;
            let wait = || waits.then(|| "wait_for_kprobe_optimizer()".to_owned());
            let mut change = vec![format!("try register_kprobe({v})")];
            change.extend(wait());
            let mut back = vec![format!("unregister_kprobe({v})")];
            back.extend(wait());
            back.push(format!("free_module({v})"));
            (vec![module("ret42")], change, back, (42, 42))
        }
        Change::Tracer if x86 => {
            let take = vec![tracer(), module("patched_site"), format!("try ftrace_site({v} + 5)")];
            let change = vec![format!("try register_ftrace_function({n}, {v} + 5, {v}f)")];
            let back = vec![format!("try unregister_ftrace_function({n})")];
            (take, change, freed(back, v), (1, 42))
        }
        Change::Direct if x86 => {
            let take = vec![tracer(), module("patched_site"), format!("try ftrace_site({v} + 5)")];
            let change = vec![format!("try register_ftrace_direct({n}, {v} + 5, {v}f)")];
            let back = vec![
                format!("try unregister_ftrace_direct({n})"),
                "synchronize_rcu_tasks()".to_owned(),
            ];
            (take, change, freed(back, v), (1, 42))
        }
        Change::Trampoline if x86 => {
            let take = vec![tracer(), module("patched_site")];
            let change = vec![format!("try bpf_trampoline_link_prog({v} + 5, {v}f)")];
            let back = vec![
                format!("try bpf_trampoline_unlink_prog({v} + 5, {v}f)"),
                "__bpf_tramp_image_put_deferred()".to_owned(),
            ];
            (take, change, freed(back, v), (1, 42))
        }
        Change::StaticCall if x86 => {
            let take = vec![
                format!("{v}f = load_module(code(fib))"),
                module("ret42"),
                format!("{v}t = execmem_alloc(EXECMEM_BPF, 4K)"),
                format!("bpf_fill_ill_insns({v}t, 4K)"),
                format!("memset({v}t, 0xc3, 1)"),
                format!("try set_memory_rox({v}t, 1 pages)"),
                format!("static_call_tramp({n}, {v}t)"),
                format!("static_call_update({n}, {v})"),
            ];
            let change = vec![format!("static_call_update({n}, {v}f)")];
            let back = vec![
                format!("static_call_update({n}, 0)"),
                "synchronize_rcu_tasks()".to_owned(),
                format!("execmem_free({v}t)"),
            ];
            let code = (format!("{v}t"), ", 10", (42, 55));
            return with(take, change, freed(back, v), code);
        }
        _ => {
            let take = vec![
                format!("{v} = execmem_alloc(EXECMEM_BPF, 1 pages)"),
                format!("bpf_fill_ill_insns({v}, 1 pages)"),
                format!("memcpy({v}, code(patched_site))"),
                format!("jump_entry({n}, {v} + {site}, {v} + {taken})"),
                format!("flush_icache_range({v}, {v} + 1 pages)"),
                format!("try set_memory_rox({v}, 1 pages)"),
            ];
            let change = vec![format!("static_key_enable({n})")];
            let back = vec![format!("static_key_disable({n})"), format!("execmem_free({v})")];
            (take, change, back, (1, 2))
        }
    };
    let mut take = take;
    take.push(kick());
    with(take, change, back, (v.clone(), "", results))
}

/// The modules of unit `v` go.
fn freed(mut back: Vec<String>, v: &str) -> Vec<String> {
    back.extend([format!("free_module({v})"), format!("free_module({v}f)")]);
    back
}

fn with(
    take: Vec<String>,
    mut change: Vec<String>,
    back: Vec<String>,
    (entry, argument, (result, then)): (String, &'static str, (u64, u64)),
) -> Lines {
    change.push("kick_all_cpus_sync()".to_owned());
    (take, back, Some(Code { entry, argument, result, change: Some((change, then)) }))
}
