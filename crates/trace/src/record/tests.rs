use super::survey::{Evidence, Why, survey};
use super::*;
use crate::ftrace::{Parsed, parse};
use crate::functions::{Hit, all, classify};
use std::collections::BTreeSet;

const RECORDED: [(&str, Arch, Version); 3] = [
    ("amd64-6.12", Arch::X86_64, Version::release(6, 12)),
    ("arm64-6.12", Arch::Arm64, Version::release(6, 12)),
    ("ppc64el-6.12", Arch::Ppc64le, Version::release(6, 12)),
];

fn log(name: &str, file: &str) -> String {
    let path = format!("{}/../../tests/logs/{name}/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// Functions without a probe: what is seen of them is a tracepoint, or a probe under another name.
fn is_tracepoint_alone(name: &str) -> bool {
    TRACEPOINTS.iter().any(|t| t.event == name)
        || ["mm_page_free_batched", "mm_page_alloc"].contains(&name)
        || name.starts_with("module_") && name.len() <= "module_request".len()
        || name.starts_with("sched_")
        || name.starts_with("call_function_")
        || name.starts_with("csd_")
        || name.starts_with("page_fault_")
        || ["print", "tracing_mark_write", "ipi_entry", "ipi_exit", "tlb_flush"].contains(&name)
}

#[test]
fn probes_and_the_readers_table_hold_together() {
    let mut names = BTreeSet::new();
    for probe in PROBES {
        assert!(names.insert(probe.function), "{} twice", probe.function);
        let function = by_name(probe.function.as_bytes())
            .unwrap_or_else(|| panic!("the reader does not know {}", probe.function));
        let fields: Vec<_> = probe.fields().collect();
        assert_eq!(
            fields.len(),
            probe.fields.split(' ').filter(|f| !f.is_empty()).count(),
            "{}",
            probe.fields
        );
        for wanted in function.args {
            assert!(
                fields.iter().any(|f| f.name == *wanted),
                "{} is read by its {wanted}",
                probe.function
            );
        }
    }
    for function in all() {
        assert!(
            names.contains(function.name) || is_tracepoint_alone(function.name),
            "{} is understood and never recorded",
            function.name
        );
    }
    for t in TRACEPOINTS {
        assert!(by_name(t.event.as_bytes()).is_some(), "{}", t.event);
    }
}

/// The recordings were made by other means: their definitions are what kernels took.
#[test]
fn definitions_are_those_that_kernels_took() {
    let (mut compared, mut equal) = (0, 0);
    for (name, arch, version) in RECORDED {
        let plan = Plan::new(arch, Some(version));
        let mut ours = BTreeSet::new();
        for p in &plan.probes {
            let fields = tracefs::fields(p.probe.fields, arch);
            let f = p.probe.function;
            ours.insert(format!("p {f} {fields}").trim_end().to_string());
            if p.probe.returns {
                ours.insert(format!("r64 {f} ret=$retval:x64"));
            }
        }
        for line in log(name, "kprobe_events").lines() {
            let (kind, rest) = line.split_once(":k/").unwrap();
            // On powerpc 6.12 the recording used $argN, which that version has.
            let rest = if arch.is_powerpc() { registers(rest) } else { rest.to_string() };
            let definition = rest.split_once(' ').unwrap().1.replace("+0 ", " ");
            compared += 1;
            let line = format!("{kind} {definition}");
            if ours.contains(line.trim_end()) {
                equal += 1;
            } else {
                println!("{name}: not ours: {line}");
            }
        }
    }
    println!("definitions of probes: {compared} compared, {equal} equal");
    assert!(compared > 300);
    assert_eq!(compared, equal);
}

fn registers(text: &str) -> String {
    (1..=9).rev().fold(text.to_string(), |text, n| {
        text.replace(&format!("$arg{n}"), &format!("%gpr{}", n + 2))
    })
}

#[test]
fn the_script_names_the_machine_and_leaves_no_mark_unfilled() {
    for (arch, want, never) in [
        (Arch::X86_64, "text_poke_bp|patching|no|addr=$arg1:x64", "change_memory_attr"),
        (Arch::Arm64, "change_memory_common|permissions|no|addr=$arg1:x64", "text_poke_bp"),
        (Arch::Ppc64le, "change_memory_attr|permissions|yes|addr=%gpr3:x64", "set_memory_ro"),
    ] {
        let script = tracefs::script(&Plan::new(arch, Some(Version::release(6, 12))));
        assert!(script.contains(want), "{arch:?}");
        assert!(!script.contains(never), "{arch:?}");
        assert!(script.contains(&format!("want_machine='{}'", machine(arch))));
        for mark in ["PROBES", "TRACEPOINTS", "PURPOSES", "MACHINE", "ARCH", "VERSION"] {
            assert!(!script.contains(&format!("@{mark}@")), "{mark}");
        }
    }
    let script = tracefs::script(&Plan::new(Arch::X86_64, Some(Version::release(6, 12))));
    assert!(script.contains("\nkmem/mm_page_free|mappings|vfree\n"));
    assert!(script.contains("\nmodule/module_free|context|\n"));
    let old = tracefs::script(&Plan::new(Arch::X86_64, Some(Version::release(6, 1))));
    assert!(old.contains("\n__vmalloc_node_range|") && !old.contains("execmem_alloc|"));
    let any = tracefs::script(&Plan::new(Arch::X86_64, None));
    assert!(any.contains("\n__vmalloc_node_range|") && any.contains("execmem_alloc|"));
}

#[test]
fn bpftrace_lines_are_read_like_those_of_tracefs() {
    let program = bpftrace::program(&Plan::new(Arch::X86_64, Some(Version::release(6, 12))));
    assert!(program.contains("kprobe:change_page_attr_set_clr /@armed/ {"));
    assert!(program.contains("*(uint64 *)(arg0), (int32)arg1"));
    assert!(program.contains("*(uint64 *)(*(uint64 *)(arg0))"));
    assert!(program.contains("str(arg0 + 24)"));
    assert!(!program.contains("x8["));
    // The seventh argument is on x86-64's stack, and in a register elsewhere.
    assert!(program.contains("arg5, sarg0") && !program.contains("arg6"));
    let arm64 = bpftrace::program(&Plan::new(Arch::Arm64, Some(Version::release(6, 12))));
    assert!(arm64.contains("arg5, arg6") && !arm64.contains("sarg"));
    // Pages are recorded as given back while the task at hand is in vfree, and only then.
    assert!(arm64.contains("tracepoint:kmem:mm_page_free /@mm_page_free[tid]/ {"));
    assert!(arm64.contains("@mm_page_free[tid] = 1;") && arm64.contains("delete(@mm_page_free"));
    // Lines as printf makes them of the program's formats.
    for (line, hit) in [
        (
            "        modprobe-77 [001] 12.000000345: set_memory_ro: (set_memory_ro+0x0/0x0) addr=0xffffffffc0000000 numpages=4",
            "entry",
        ),
        (
            "        modprobe-77 [001] 12.000000999: set_memory_ro__ret: (0x0 <- set_memory_ro) ret=0x0",
            "return",
        ),
    ] {
        let Parsed::Event(event) = parse(line.as_bytes()) else { panic!("{line}") };
        let said = match classify(&event, &Default::default()) {
            Hit::Entry(f) if f.name == "set_memory_ro" => "entry",
            Hit::Return(f) if f.name == "set_memory_ro" => "return",
            _ => "other",
        };
        assert_eq!(said, hit, "{line}");
    }
}

#[test]
fn a_survey_names_what_is_missing_and_what_that_costs() {
    let plan = Plan::new(Arch::X86_64, Some(Version::release(6, 12)));
    let mut symbols: String = plan
        .probes
        .iter()
        .filter(|p| !matches!(p.probe.function, "vfree" | "set_memory_ro" | "vmap"))
        .filter(|p| p.purpose() != Purpose::Patching)
        .map(|p| format!("ffffffff81000000 t {}\n", p.probe.function))
        .collect();
    symbols += "ffffffff81000010 t vfree.part.0\nffffffff81000020 T vmap.llvm.99\n";
    symbols += "ffffffff81000030 d set_memory_ro\n";
    let found = survey(&plan, &symbols).unwrap();
    assert_eq!(found.evidence, Evidence::Symbols);
    let why = |name: &str| found.missing.iter().find(|m| m.what == name).map(|m| m.why.clone());
    assert_eq!(why("vfree"), Some(Why::Renamed("vfree.part.0".into())));
    assert_eq!(why("set_memory_ro"), Some(Why::NoSymbol), "data is no function");
    assert_eq!(why("vmap"), None);
    assert_eq!(found.blind, [Purpose::Patching]);
    assert!(!found.impossible);

    let found = survey(&plan, "CONFIG_FTRACE=y\n# CONFIG_KPROBE_EVENTS is not set\nCONFIG_X=m\n");
    let found = found.unwrap();
    assert!(found.impossible && found.evidence == Evidence::Config);
    assert!(found.missing.iter().any(|m| m.why == Why::Unset("CONFIG_KPROBE_EVENTS")));
    assert!(survey(&plan, "nothing of the kind\n").is_err());
}
