//! Scenarios on the modelled kernel: what reaches the event stream, from where, and what is said.

mod common;

use std::collections::BTreeMap;

use common::{MAIN, loaded, options, run_on, try_run};
use textbed_arch::Arch;
use textbed_event::{Batch, CallRef, Event, OpId, View};
use textbed_scenario::builder::{CmpOp, Expr, Scenario, code, mib, pages};
use textbed_scenario::{Outcome, PolicyChoice, RunError, RunOptions, load, load_built};

/// The message and the text at the place of each thing that is wrong.
fn wrong(arch: Arch, kernel: &str, lines: &str) -> Vec<(String, String)> {
    let loaded = loaded(lines);
    match try_run(&loaded, &options(arch, kernel)).map(|ran| ran.end) {
        Err(RunError::Input(diagnostics)) => diagnostics
            .into_iter()
            .map(|d| (d.message, d.span.text(loaded.text()).to_owned()))
            .collect(),
        other => panic!("{other:?}"),
    }
}

const STORY: &str = "kernel 6.12\n\
cpu 0 {\n\
\x20   page = vmalloc(4096)\n\
\x20   r = set_memory_ro(page, 1 pages)\n\
\x20   here: set_memory_x(page, 1)\n\
\x20   assert r == 0\n\
\x20   publish entry = page + 64\n\
}\n\
cpu 1 {\n\
\x20   await entry\n\
\x20   assert entry != 0\n\
}\n";

#[test]
fn a_story_runs_on_every_architecture() {
    for arch in MAIN {
        let ran = run_on(arch, "6.12", STORY);
        assert_eq!(ran.end.outcome, Outcome::Ended, "{arch}");
        assert_eq!(ran.end.asserts_failed, 0, "{arch} {:?}", ran.notes());
        let names = ran.names();
        let calls: Vec<String> = ran
            .events()
            .filter(|(event, _)| event.cause == CallRef::NONE)
            .filter_map(|(event, _)| match event.view() {
                View::CallEntered { name, .. } => Some(names.get(name).to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(calls, ["vmalloc", "set_memory_ro", "set_memory_x"], "{arch}");
        let published = ran.events().find_map(|(event, _)| match event.view() {
            View::Publish { slot, value } => Some((names.get(slot).to_owned(), value, event.cpu.0)),
            _ => None,
        });
        let observed = ran.events().find_map(|(event, _)| match event.view() {
            View::Observe { slot, value } => Some((names.get(slot).to_owned(), value, event.cpu.0)),
            _ => None,
        });
        let (name, value, cpu) = published.unwrap();
        assert_eq!((name.as_str(), cpu, value % 4096), ("entry", 0, 64));
        assert_eq!(observed, Some((name, value, 1)));
    }
}

#[test]
fn events_come_from_the_statement_behind_them() {
    let loaded = loaded(STORY);
    let ran = try_run(&loaded, &options(Arch::X86_64, "6.12")).unwrap();
    let names = ran.names();
    let mut checked = 0;
    for (event, batch) in ran.events() {
        let View::CallEntered { name, .. } = event.view() else { continue };
        if event.cause != CallRef::NONE {
            continue;
        }
        let origin = batch.origin(event.origin).expect("a call has a place");
        assert_eq!(names.get(origin.file), "story.tb");
        let start = usize::try_from(origin.offset).unwrap();
        let text = &loaded.text()[start..start + usize::try_from(origin.len).unwrap()];
        assert!(text.contains(names.get(name)), "{text}");
        assert!(!text.contains('\n'));
        let line = loaded.text().lines().nth(usize::try_from(origin.line).unwrap() - 1).unwrap();
        assert!(line.contains(text));
        let label = (names.get(name) == "set_memory_x").then_some("here");
        assert_eq!(loaded.label_at(origin.offset), label);
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn results_reach_the_stream_as_used_or_dropped() {
    for arch in MAIN {
        let ran = run_on(arch, "6.12", STORY);
        let names = ran.names();
        let mut fates: BTreeMap<CallRef, (String, &str)> = BTreeMap::new();
        for (event, _) in ran.events() {
            match event.view() {
                View::CallEntered { call, name, .. } if event.cause == CallRef::NONE => {
                    fates.insert(call, (names.get(name).to_owned(), "unknown"));
                }
                View::ResultUsed { call } => {
                    if let Some(fate) = fates.get_mut(&call) {
                        fate.1 = "used";
                    }
                }
                View::ResultDropped { call } => {
                    if let Some(fate) = fates.get_mut(&call) {
                        fate.1 = "dropped";
                    }
                }
                _ => {}
            }
        }
        let fates: Vec<(String, &str)> = fates.into_values().collect();
        let wanted =
            [("vmalloc", "dropped"), ("set_memory_ro", "used"), ("set_memory_x", "dropped")];
        assert_eq!(fates, wanted.map(|(name, fate)| (name.to_owned(), fate)), "{arch}");
    }
}

fn built() -> Scenario {
    Scenario::new("both ways")
        .kernel("5.18-rc3")
        .arch("x86_64")
        .arch("arm64")
        .arch("ppc64le")
        .cpus(2)
        .setup(|p| p.assign("pack", "vmalloc_huge", [mib(2).into()]))
        .cpu(0, |p| {
            p.call("set_memory_ro", ["pack".into(), pages(512).into()]);
            p.label("exec").assign("r", "set_memory_x", ["pack".into(), pages(512).into()]);
            p.either(
                ("r", CmpOp::Lt, 0),
                |p| p.publish("entry", 0),
                |p| {
                    p.call("bpf_arch_text_copy", ["pack".into(), code("ret42")]);
                    p.publish("entry", Expr::from("pack") + 64);
                },
            );
            p.with_irqs_off(|p| p.on(&["arm64"], |p| p.op("isb", [])));
        })
        .cpu(1, |p| p.wait_for("entry"))
        .expect("", "none")
}

const WRITTEN: &str = r#"scenario "both ways"
kernel 5.18-rc3
arch x86_64
arch arm64
arch ppc64le
cpus 2
setup {
    pack = vmalloc_huge(2M)
}
cpu 0 {
    set_memory_ro(pack, 512 pages)
    exec: r = set_memory_x(pack, 512 pages)
    if r < 0 {
        publish entry = 0
    } else {
        bpf_arch_text_copy(pack, code(ret42))
        publish entry = pack + 64
    }
    with irqs_off {
        when arm64 {
            op isb
        }
    }
}
cpu 1 {
    await entry
}
expect: none
"#;

#[test]
fn one_story_both_ways_gives_equal_events() {
    let (from_rust, _) = load_built("a.tb", &built(), &[]).unwrap();
    let (from_file, _) = load("a.tb", WRITTEN.to_owned(), &[]).unwrap();
    let mut events = 0;
    for arch in MAIN {
        for policy in [PolicyChoice::Newest, PolicyChoice::Stalest, PolicyChoice::Random(7)] {
            let options = RunOptions { policy, ..options(arch, "5.18-rc3") };
            let a = try_run(&from_rust, &options).unwrap();
            let b = try_run(&from_file, &options).unwrap();
            assert_eq!(a.batches, b.batches, "{arch} {policy:?}");
            assert_eq!(a.end, b.end);
            events += a.events().count();
        }
    }
    assert!(events > 200, "{events} events compared");
}

#[test]
fn two_runs_are_equal_and_seeds_differ() {
    let story = loaded(
        "cpu 0 { repeat 6 as i { memset(0, 0, i * 0) } }\ncpu 1 { repeat 6 { memset(0, 0, 0) } }\n",
    );
    let with = |seed| {
        let options =
            RunOptions { policy: PolicyChoice::Random(seed), ..options(Arch::Arm64, "6.12") };
        try_run(&story, &options).unwrap().batches
    };
    let order = |batches: &[Batch]| -> Vec<u16> {
        let entered = |e: &&Event| matches!(e.view(), View::CallEntered { .. });
        batches.iter().flat_map(|b| b.events.iter().filter(entered).map(|e| e.cpu.0)).collect()
    };
    let first = with(1);
    assert_eq!(first, with(1));
    let different = (2..12).filter(|seed| order(&with(*seed)) != order(&first)).count();
    assert!(different > 5, "{different} of 10 seeds differ");
}

#[test]
fn instructions_are_rows_of_the_table() {
    let ran = run_on(
        Arch::Arm64,
        "6.12",
        "arch arm64\ncpu 0 { p = vmalloc(4096)\nop dc_cvau p + 64\nop dsb_ish\nop isb }\n",
    );
    assert_eq!(ran.end.outcome, Outcome::Ended, "{:?}", ran.notes());
    let row = textbed_arch::insn::by_name(Arch::Arm64, "dc cvau").unwrap();
    let cleaned = ran.events().any(|(event, _)| {
        matches!(event.view(), View::CacheClean { virt, .. } if virt.0 % 4096 == 64)
            && event.op == OpId(row.id.0)
    });
    assert!(cleaned);
    let synced = ran.events().any(|(event, _)| matches!(event.view(), View::ContextSync { .. }));
    assert!(synced);
}

#[test]
fn contexts_reach_the_stream() {
    let ran = run_on(
        Arch::X86_64,
        "6.12",
        "cpu 0 { with lock l { with rcu { with stop_machine { vmalloc(4096) } } }\n\
         with mm other { vmalloc(4096) }\nwith irqs_off { memset(0, 0, 0) }\nvmalloc(4096) }\n",
    );
    let names = ran.names();
    let shown: Vec<String> = ran
        .events()
        .filter(|(event, _)| event.cause == CallRef::NONE)
        .filter_map(|(event, _)| {
            let off = event.flags.has(textbed_event::Flags::IRQS_OFF);
            Some(match event.view() {
                View::LockAcquired { lock } => format!("lock {}", names.get(lock)),
                View::LockReleased { lock } => format!("unlock {}", names.get(lock)),
                View::ReadSide { begin, .. } => format!("rcu {begin}"),
                View::StopMachine { begin } => format!("stop {begin}"),
                View::SpaceLoaded { .. } => format!("space {}", event.space.0),
                View::CallEntered { .. } => format!("call off={off}"),
                _ => return None,
            })
        })
        .skip_while(|line| !line.starts_with("lock l"))
        .collect();
    let stopped = ["lock cpu_hotplug_lock", "stop true", "call off=true", "stop false"];
    let around = [&["lock l", "rcu true"][..], &stopped, &["unlock cpu_hotplug_lock"]].concat();
    assert_eq!(shown[..9], [&around[..], &["rcu false", "unlock l"]].concat());
    let spaces: Vec<&String> = shown[9..].iter().filter(|l| l.starts_with("space")).collect();
    assert_eq!(spaces.len(), 2, "{shown:?}");
    assert_ne!(spaces[0], spaces[1]);
    let calls: Vec<&String> = shown[9..].iter().filter(|l| l.starts_with("call")).collect();
    assert_eq!(calls, ["call off=false", "call off=true", "call off=false"]);
}

#[test]
fn address_spaces_nest() {
    let ran = run_on(Arch::Arm64, "6.12", "cpu 0 { with mm a { with mm b { } }\nwith mm a { } }\n");
    let spaces: Vec<u32> = ran
        .events()
        .filter(|(event, batch)| {
            let in_file = batch.origin(event.origin).is_some();
            in_file && matches!(event.view(), View::SpaceLoaded { .. })
        })
        .map(|(event, _)| event.space.0)
        .collect();
    let [a, b] = [spaces[0], spaces[1]];
    assert!(a != 0 && b != 0 && a != b);
    assert_eq!(spaces, [a, b, a, 0, a, 0]);
}

#[test]
fn calls_without_a_result_have_none_to_drop() {
    let ran = run_on(Arch::X86_64, "6.12", "cpu 0 { p = vmalloc(4096)\nvfree(p) }\n");
    let dropped = |e: &Event| matches!(e.view(), View::ResultDropped { .. });
    let own = ran.events().filter(|(event, _)| event.cause == CallRef::NONE && dropped(event));
    assert_eq!(own.count(), 1, "vmalloc's, not vfree's");
}

#[test]
fn pages_are_counted_where_the_parameter_counts_pages() {
    let ran = run_on(
        Arch::X86_64,
        "6.12",
        "cpu 0 { p = vmalloc(2 pages)\nset_memory_ro(p, 2 pages)\nset_memory_rw(p, 2) }\n",
    );
    let names = ran.names();
    let last_arguments: Vec<(String, u64)> = ran
        .events()
        .filter(|(event, _)| event.cause == CallRef::NONE)
        .filter_map(|(event, batch)| match event.view() {
            View::CallEntered { name, args, .. } => {
                let last = batch.bytes(args).last_chunk::<8>().expect("an argument");
                Some((names.get(name).to_owned(), u64::from_le_bytes(*last)))
            }
            _ => None,
        })
        .collect();
    let wanted = [("vmalloc", 8192), ("set_memory_ro", 2), ("set_memory_rw", 2)];
    assert_eq!(last_arguments, wanted.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn interrupts_run_their_handler_on_each_receiver() {
    for (arch, op) in [(Arch::X86_64, "cpuid"), (Arch::Arm64, "isb"), (Arch::Ppc64le, "isync")] {
        let ran = run_on(
            arch,
            "6.12",
            &format!(
                "arch {arch}\ncpus 3\ncpu 0 {{ publish p = 5\nipi others sync }}\n\
                 handler ipi sync {{ assert p == 5\nop {op} }}\n"
            ),
        );
        assert_eq!(
            (ran.end.outcome.clone(), ran.end.asserts_failed),
            (Outcome::Ended, 0),
            "{arch}"
        );
        let row = textbed_scenario::ops::resolve(arch, op).unwrap().id.0;
        let taken: Vec<u16> = ran
            .events()
            .filter(|(event, _)| matches!(event.view(), View::IpiTaken { .. }))
            .map(|(event, _)| event.cpu.0)
            .collect();
        assert_eq!(taken, [1, 2], "{arch}");
        let ops: Vec<u16> = ran
            .events()
            .filter(|(event, batch)| event.op.0 == row && batch.origin(event.origin).is_some())
            .map(|(event, _)| event.cpu.0)
            .collect();
        assert_eq!(ops, [1, 2], "{arch}");
    }
}

#[test]
fn failures_are_injected_and_noted() {
    let ran = run_on(
        Arch::X86_64,
        "6.12",
        "fail set_memory_ro #2 with ENOMEM\nfail set_memory_nx with EINVAL\n\
         fail set_memory_rw #9 with EINVAL\n\
         cpu 0 { p = vmalloc(8192)\nset_memory_nx(p, 1)\nr = set_memory_nx(p, 1)\nassert r == 0 }\n",
    );
    let notes = ran.notes();
    assert_eq!(notes[0], "cpu 0: set_memory_nx(p, 1) returned -EINVAL, result dropped");
    assert!(notes[1].contains("fail set_memory_ro #2"), "{notes:?}");
    assert!(notes[2].contains("fail set_memory_rw #9"), "{notes:?}");
    assert_eq!(notes.len(), 3);
    assert_eq!(ran.end.notes[0].span.text("").len(), 0);
    assert_eq!(ran.end.notes[0].line, 6);
}

#[test]
fn powerpc_refuses_huge_areas_and_says_so() {
    let lines = "kernel 5.18-rc3\ncpu 0 { p = vmalloc_huge(2M)\nr = set_memory_ro(p, 512 pages)\n\
                 when ppc64le { assert r == -EINVAL }\nwhen x86_64 { assert r == 0 } }\n";
    let ran = run_on(Arch::Ppc64le, "5.18-rc3", lines);
    assert_eq!(ran.end.asserts_failed, 0);
    let notes = ran.notes().join("\n");
    assert!(notes.contains("set_memory_ro(p, 512 pages) returned -EINVAL"), "{notes}");
    assert!(notes.contains("WARN: permission change over a huge mapping"), "{notes}");
    assert!(!notes.contains("dropped"), "{notes}");
    let ran = run_on(Arch::X86_64, "5.18-rc3", lines);
    assert_eq!((ran.notes(), ran.end.asserts_failed), (vec![], 0));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let x86 = |lines: &str| wrong(Arch::X86_64, "6.12", lines);
    let found = x86("cpu 0 { p = vmalloc(1, 2)\npatch_instruction(p, 1)\nset_memory_ro(p, 2M) }");
    assert_eq!(found[0].1, "vmalloc");
    assert!(found[0].0.contains("takes 1 argument (size), not 2"), "{found:?}");
    assert_eq!(found[1].1, "patch_instruction");
    assert_eq!(found.len(), 2);
    let found = x86("cpu 0 { p = vmalloc(4096)\nset_memory_ro(p, 2M) }");
    assert_eq!(found, [("`set_memory_ro` counts pages here, not bytes".into(), "2M".into())]);
    let found = x86("cpu 0 { p = vmalloc(4096)\nset_memory_ro(p, A | B) }");
    assert_eq!((found.len(), found[0].1.as_str()), (1, "A | B"));
    let found = x86("config STRICT_MODUL_RWX = y\ncpu 0 { }");
    assert!(found[0].0.contains("did you mean 'STRICT_MODULE_RWX'"), "{found:?}");
    assert_eq!(found[0].1, "STRICT_MODUL_RWX = y");
    let found = x86("feature x86_64.pse = maybe\ncpu 0 { }");
    assert_eq!(found[0].0, "feature `pse` is 0 or 1, not `maybe`");
    let found = x86("cpu 0 { repeat 3 as i { vmalloc(4096 - i * 4000) } }");
    assert_eq!(found, [("4096 - 8000 is below zero".into(), "4096 - i * 4000".into())]);
    let found = wrong(Arch::Arm64, "6.12", "arch arm64\ncpu 0 { op isb 1, 2 }");
    assert_eq!(found[0].1, "2");
    let mut with_option = options(Arch::X86_64, "6.12");
    with_option.features = vec![("pci".into(), "1".into())];
    let error = try_run(&loaded("cpu 0 { }"), &with_option).map(|ran| ran.end).unwrap_err();
    let text = "x86_64 has no feature `pci`, did you mean `pcid`?";
    assert_eq!(error, RunError::Option(text.to_owned()));
}

#[test]
fn what_is_not_modelled_is_said_by_name() {
    let ran = run_on(Arch::X86_64, "6.12", "cpu 0 { p = vmalloc(4096)\nkvmalloc(p) }\n");
    let Outcome::NotModelled(what) = &ran.end.outcome else { panic!("{:?}", ran.end) };
    assert!(what.contains("kvmalloc"), "{what}");
    // On 32-bit powerpc code is fetched, and executed by nobody.
    let fetched = "cpu 0 { p = execmem_alloc(EXECMEM_BPF, 4096)\nmemset(p, 0x60, 4)\n\
                   w = fetch_u32(p)\nassert w == 0x60606060\ncall(p) }\n";
    let ppc32 = run_on(Arch::Ppc32, "6.12", fetched);
    let Outcome::NotModelled(what) = &ppc32.end.outcome else { panic!("{:?}", ppc32.end) };
    assert!(what.contains("ppc32"), "{what}");
    assert_eq!(ppc32.end.asserts_failed, 0);
    let two = "feature ppc32.mpc8xx = 1\ncpus 2\ncpu 0 { }";
    let ppc32 = try_run(&loaded(two), &options(Arch::Ppc32, "6.12")).unwrap();
    assert!(matches!(ppc32.end.outcome, Outcome::NotModelled(_)), "{:?}", ppc32.end);
}

#[test]
fn blocked_and_endless_runs_end() {
    let ran = run_on(Arch::Arm64, "6.12", "cpu 0 { await never }\n");
    assert_eq!(ran.end.outcome, Outcome::Blocked);
    assert_eq!(ran.notes(), ["cpu 0 waits for `never`, which nobody publishes"]);
    let mut few = options(Arch::Arm64, "6.12");
    few.max_steps = 100;
    let ran = try_run(&loaded("cpu 0 { repeat 1000 { } }\n"), &few).unwrap();
    assert!(matches!(ran.end.outcome, Outcome::Limit(_)), "{:?}", ran.end);
}

mod damaged {
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = "scenario \"s\"\nkernel 5.18-rc3\ncpus 3\n\
        fail vmalloc #2 with ENOMEM\nsetup { area = vmalloc_huge(2M) }\n\
        cpu 0 {\n try r = set_memory_ro(area, 512 pages)\n with lock l { set_memory_x(area, 1) }\n\
        repeat 3 as i { memset(area + 64 * i, 1, 2) }\n publish entry = area + 64\n\
        with irqs_off { vfree(area) }\n ipi 1, 2 sync\n}\n\
        cpu 1 { await entry\nif entry > 4K { with mm m { memset(entry, 0xcc, 16) } } else { } }\n\
        cpu 2 { with stop_machine { with rcu { p = vmalloc(8192)\nmemcpy(p, code(ret42)) } } }\n\
        handler ipi sync { publish seen = 1 }\nexpect: none\n";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Whatever can still be read runs to some end, twice the same.
        #[test]
        fn files_run_to_some_end(
            cuts in prop::collection::vec((any::<prop::sample::Index>(), "[a-z0-9{}(), \n]?"), 0..4),
            arch in prop::sample::select(MAIN.to_vec()),
            seed in any::<u64>(),
        ) {
            let mut text = FULL.to_owned();
            for (index, new) in cuts {
                let i = index.index(text.len());
                text.replace_range(i..=i, &new);
            }
            if let Ok((loaded, _)) = load("f.tb", text, &[]) {
                let mut options = options(arch, "5.18-rc3");
                options.policy = PolicyChoice::Random(seed);
                options.max_steps = 300;
                let first = try_run(&loaded, &options).map(|ran| (ran.end, ran.batches));
                let again = try_run(&loaded, &options).map(|ran| (ran.end, ran.batches));
                if let Err(RunError::Input(diagnostics)) = &first {
                    for d in diagnostics {
                        prop_assert!(!d.span.text(loaded.text()).is_empty(), "{:?}", d);
                    }
                }
                prop_assert!(first == again);
            }
        }
    }
}

#[cfg(not(feature = "vcpu"))]
#[test]
fn without_cpus_no_code_runs() {
    let ran = run_on(Arch::X86_64, "6.12", "cpu 0 { r = call(4096)\nassert r == 42 }\n");
    let outcome = Outcome::NotModelled("call(): built without CPUs".to_owned());
    assert_eq!(ran.end.outcome, outcome);
}

/// A CPU with interrupts off takes a cross-call when it has them on again, whoever sends it.
#[test]
fn a_call_that_interrupts_others_waits_for_who_has_interrupts_off() {
    for (arch, call) in [
        (Arch::X86_64, "set_memory_ro(p, 1)"),
        (Arch::X86_64, "text_poke_sync()"),
        (Arch::Arm64, "flush_icache_range(p, p + 4K)"),
        (Arch::Arm64, "stop_machine()"),
    ] {
        let lines = format!(
            "cpu 0 {{ p = vmalloc(4K)\npublish go = p\nawait off\n{call}\npublish sent = 1 }}\n\
             cpu 1 {{ await go\nwith irqs_off {{ publish off = 1\nq = vmap(go, 1)\n\
             publish last = 1 }} }}\n"
        );
        for seed in 0..20 {
            let policy = PolicyChoice::Random(seed);
            let options = RunOptions { policy, ..options(arch, "6.12") };
            let ran = try_run(&loaded(&lines), &options).unwrap();
            assert_eq!(ran.end.outcome, Outcome::Ended, "{arch} {call} {:?}", ran.notes());
            let names = ran.names();
            let at = |what: &str| {
                ran.events().position(|(event, _)| match event.view() {
                    View::Publish { slot, .. } => names.get(slot) == what,
                    _ => false,
                })
            };
            let stops = |e: &Event| {
                matches!(e.view(), View::IpiTaken { .. } | View::StopMachine { begin: true })
            };
            let taken: Vec<usize> =
                ran.events().enumerate().filter(|(_, (e, _))| stops(e)).map(|(n, _)| n).collect();
            assert!(!taken.is_empty() && taken.iter().all(|n| Some(*n) > at("last")), "{call}");
        }
    }
}

/// Who waits for whom, if nobody can go on: the lock against the interrupt, and two senders. What
/// only might have had to wait goes on.
#[test]
fn cross_calls_that_nobody_ever_takes_are_a_blocked_run() {
    let lock = "cpu 0 { with lock l { await off\nkick_all_cpus_sync() } }\n\
                cpu 1 { with irqs_off { publish off = 1\nwith lock l { } } }\n";
    let both = "cpu 0 { with irqs_off { publish a = 1\nawait b\nkick_all_cpus_sync() } }\n\
                cpu 1 { with irqs_off { publish b = 1\nawait a\nkick_all_cpus_sync() } }\n";
    for arch in MAIN {
        let ran = run_on(arch, "6.12", lock);
        assert_eq!(ran.end.outcome, Outcome::Blocked, "{arch}");
        let notes = [
            "cpu 0 waits for cpu 1, which never takes interrupts again",
            "cpu 1 waits for the lock `l`, which is never released",
        ];
        assert_eq!(ran.notes(), notes, "{arch}");
        let ran = run_on(arch, "6.12", both);
        assert_eq!(ran.end.outcome, Outcome::Blocked, "{arch}");
        let ends = ran.notes().into_iter().filter(|n| n.ends_with("never takes interrupts again"));
        assert_eq!(ends.count(), 2, "{arch} {:?}", ran.notes());
    }
    // Who dies with interrupts off leaves a CPU that takes them.
    let dead = "cpu 0 { await off\nkick_all_cpus_sync() }\n\
                cpu 1 { with irqs_off { publish off = 1\nmemset(0, 0, 8) } }\n";
    for arch in MAIN {
        let ran = run_on(arch, "6.12", dead);
        assert_eq!(ran.end.outcome, Outcome::Ended, "{arch} {:?}", ran.notes());
        assert_eq!(ran.notes().len(), 1, "{arch} {:?}", ran.notes());
    }
    let free = "cpu 0 { p = vmalloc(4K)\nawait off\nvfree(p)\npublish done = 1 }\n\
                cpu 1 { with irqs_off { publish off = 1\nawait done } }\n";
    for arch in MAIN {
        let ran = run_on(arch, "6.12", free);
        assert_eq!(ran.end.outcome, Outcome::Ended, "{arch} {:?}", ran.notes());
    }
}
