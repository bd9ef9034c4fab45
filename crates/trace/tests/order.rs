//! What small logs mean: patchers' windows, cross-calls, owners, contexts, gaps.

#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::*;
use textbed_arch::Arch;
use textbed_event::{CpuState, Kind, Provenance, View};
use textbed_trace::side::SideFiles;

const POKE: &str = "__text_poke: (__text_poke+0x0/0x4c0) func=text_poke_memcpy+0x0/0x10 \
                    addr=0xffffffff8104dbf0 src=0xffffc90000013a6b len=1";
const CALL: &str = "on_each_cpu_cond_mask: (on_each_cpu_cond_mask+0x4/0x40) cond=0x0 \
                    func=do_sync_core+0x0/0x30 info=0x0 wait=1";
const INNER: &str = "smp_call_function_many_cond: (smp_call_function_many_cond+0x0/0x4c0) \
                     func=do_sync_core+0x0/0x30 info=0x0";
const SYNC: &str = "do_sync_core: (do_sync_core+0x4/0x30)";

#[test]
fn a_window_is_over_when_its_task_shows_up_with_interrupts_on() {
    let log = text(&[
        (T, 0, ON, POKE),
        (T, 0, "d..1.", "tlb_flush: pages:-1 reason:flush on task switch (0)"),
        ("<idle>-0", 1, "d.h1.", SYNC),
        (T, 0, ON, CALL),
        (T, 0, "...1.", INNER),
        (T, 0, "d..1.", SYNC),
        ("<idle>-0", 1, "d.h1.", SYNC),
        (T, 0, ON, POKE),
    ]);
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    let kinds: Vec<Kind> = keep.events.iter().map(|e| e.kind).collect();
    use Kind::*;
    assert_eq!(
        kinds,
        [
            WindowOpened,
            // The kernel's own text, of which nothing else told.
            Leaf,
            StoreLate,
            // Another CPU in between, of no call of the log.
            ContextSync,
            WindowClosed,
            IpiSent,
            // The sender runs it itself, the other CPU by interrupt.
            ContextSync,
            IpiTaken,
            ContextSync,
            IpiDone,
            ContextSync,
            // Waited until here.
            IpiDone,
            WindowOpened,
            StoreLate,
            WindowClosed,
        ]
    );
    assert!(matches!(views(&keep, IpiSent)[..], [View::IpiSent { targets: 0b10, .. }]));
    assert!(matches!(views(&keep, IpiTaken)[..], [View::IpiTaken { by_interrupt: true, .. }]));
    let waited: Vec<bool> = views(&keep, IpiDone)
        .iter()
        .map(|v| matches!(v, View::IpiDone { waited: true, .. }))
        .collect();
    assert_eq!(waited, [false, true]);
    assert_eq!(done.summary.counts.remote_without_call, 1);
    assert_eq!((done.summary.counts.ipis_sent, done.summary.counts.ipis_taken), (1, 1));
}

#[test]
fn a_receiver_whose_hit_was_missed_ran_it_if_the_sender_waited() {
    let flush = CALL.replace("do_sync_core", "do_flush_tlb_all");
    let own = "do_flush_tlb_all: (do_flush_tlb_all+0x0/0x30)";
    let after = "vfree: (vfree+0x4/0x50) addr=0x0";
    let invalidated = |wait: &str, sees: bool| -> Vec<u16> {
        let flush = flush.replace("wait=1", wait);
        let mut lines = vec![(T, 0, ON, flush.as_str()), (T, 0, "d..1.", own)];
        if sees {
            lines.push(("<idle>-0", 1, "d.h1.", own));
        }
        lines.push((T, 0, ON, after));
        let (_, keep) = run_as(Arch::X86_64, "6.1", SideFiles::default(), &text(&lines));
        let of = keep.events.iter().filter(|e| e.kind == Kind::TlbInvalidate);
        of.map(|e| e.cpu.0).collect()
    };
    assert_eq!(invalidated("wait=1", true), [0, 1]);
    assert_eq!(invalidated("wait=1", false), [0, 1], "inferred");
    assert_eq!(invalidated("wait=0", false), [0], "it may not have run yet");
}

#[test]
fn a_polling_cpu_gets_no_context_synchronisation() {
    let kick = "smp_call_function_many_cond: (smp_call_function_many_cond+0x0/0x560) \
                func=do_nothing+0x0/0x10 info=0x0";
    let nothing = "do_nothing: (do_nothing+0x0/0x10)";
    for (flags, syncs) in [("d.h..", 2), ("d....", 0)] {
        let log = text(&[
            (T, 0, "d....", kick),
            ("<idle>-0", 1, flags, nothing),
            (T, 0, "d....", "vfree: (vfree+0x0/0x2f8) addr=0x0"),
        ]);
        let (_, keep) = run_as(Arch::Arm64, "6.12", SideFiles::default(), &log);
        assert_eq!(views(&keep, Kind::ContextSync).len(), syncs, "{flags}");
        assert_eq!(views(&keep, Kind::IpiDone).len(), 2);
    }
}

#[test]
fn modules_get_their_memory_by_name_and_bpf_is_numbered() {
    let log = with(
        X86_PROT,
        &[
            (T, 0, ON, "execmem_alloc: (execmem_alloc+0x4/0xe0) type=0 size=0x1800"),
            (
                T,
                0,
                ON,
                "execmem_alloc__ret: (load_module+0x784/0x21b0 <- execmem_alloc) \
                    ret=0xffffffffc020f000",
            ),
            ("wl-9", 1, ON, "bpf_prog_pack_alloc: (bpf_prog_pack_alloc+0x4/0x3d0) size=192"),
            (
                "wl-9",
                1,
                ON,
                "bpf_prog_pack_alloc__ret: (bpf_jit_binary_pack_alloc+0x6c/0x120 <- \
                         bpf_prog_pack_alloc) ret=0xffffffffc0000640",
            ),
            (
                T,
                0,
                ON,
                "module_finalize: (module_finalize+0x4/0x3f0) hdr=0x1 sechdrs=0x2 mod=0x3 \
                    name=\"dummy\"",
            ),
        ],
    );
    let (_, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    let regions: Vec<_> = views(&keep, Kind::Region)
        .into_iter()
        .map(|v| match v {
            View::Region { virt, len, owner, name } => {
                (virt.0, len, keep.names.get(owner), keep.names.get(name))
            }
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(
        regions,
        [(0xffff_ffff_c000_0640, 192, "bpf", "#1"), (A, 0x1800, "module", "dummy"),]
    );
}

#[test]
fn an_area_that_no_vmalloc_made_has_its_guard_page_taken_off() {
    let log = text(&[
        (
            T,
            0,
            ON,
            "alloc_vmap_area: va_start: 18446744072637968384 size=12288 align=4096 \
                    vstart=0x1 vend=0x2 failed=0",
        ),
        (T, 0, ON, "alloc_vmap_area: va_start: 0 size=4096 align=1 vstart=0x1 vend=0x2 failed=1"),
        (T, 0, ON, SYNC),
    ]);
    let (_, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    assert!(matches!(views(&keep, Kind::AreaMade)[..],
        [View::AreaMade { virt, len: 0x2000, .. }] if virt.0 == A));
    let made = keep.events.iter().find(|e| e.kind == Kind::AreaMade).unwrap();
    assert_eq!(made.flags.provenance(), Provenance::Inferred);
}

#[test]
fn idle_tasks_of_two_cpus_and_their_interrupts_do_not_share_a_stack() {
    let entry = "vmap: (vmap+0x4/0x10) count=1";
    let exit = "vmap__ret: (f+0x1/0x2 <- vmap) ret=0xffffc90000000000";
    let log = text(&[
        ("<idle>-0", 0, "..s1.", entry),
        ("<idle>-0", 1, "..s1.", entry),
        ("wl-7", 1, "d.h1.", entry),
        ("wl-7", 1, "d.h1.", exit),
        ("<idle>-0", 1, "..s1.", exit),
        ("<idle>-0", 0, "..s1.", exit),
        // A softirq that began over one task and goes on over another: the CPU's own.
        ("wl-8", 0, "..s1.", entry),
        ("wl-9", 0, "..s1.", exit),
        (T, 0, ON, SYNC),
    ]);
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    let vmap = done.summary.calls["vmap"];
    assert_eq!((vmap.entered, vmap.returned), (4, 4));
    assert_eq!((vmap.return_without_entry, vmap.entry_without_return), (0, 0));
    let returned: Vec<u32> = views(&keep, Kind::CallReturned)
        .into_iter()
        .map(|v| match v {
            View::CallReturned { call, .. } => call.0,
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(returned, [3, 2, 1, 4]);
}

#[test]
fn lost_events_are_gaps() {
    let mut log = String::from("# entries-in-buffer/entries-written: 10/25   #P:2\n");
    log += "##### CPU 1 buffer started ####\n";
    log += &text(&[(T, 0, ON, SYNC)]);
    log += "CPU:1 [LOST 123 EVENTS]\n";
    log += "            init-1       [001] ..... 11.000000: vfree: (vfree+0x4/0x50) addr=0x";
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    let cpus: Vec<u64> = views(&keep, Kind::Gap)
        .into_iter()
        .map(|v| match v {
            View::Gap { cpus, .. } => cpus,
            _ => unreachable!(),
        })
        .collect();
    // And of eleven that two headers say are in the buffer ten are nowhere.
    assert_eq!(cpus, [u64::MAX, 2, 2, 0]);
    assert_eq!(done.summary.accounting.missing, 10);
    let a = &done.summary.accounting;
    assert_eq!((a.lost_events, a.lost_unknown, a.lost_notices.lines), (15 + 123, 1, 3));
    // The last line has no newline: half an address must not be read as one.
    assert_eq!(a.not_understood_lines(), 1);
    assert_eq!(a.not_understood[1].first[0].line, a.lines);
}

#[test]
fn what_is_not_understood_is_counted_by_reason() {
    let log = text(&[
        (T, 0, ON, SYNC),
        (T, 0, ON, "somebody: (somebody+0x0/0x4) x=1"),
        (T, 0, ON, "set_memory_ro: (set_memory_ro+0x4/0x40) addr=0xffffffffc0213000"),
        (T, 0, ON, "set_memory_ro: (set_memory_ro+0x24/0x40) addr=0xffffffffc0213000"),
    ]) + "what is this\n";
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    // What may have been an event is one that was lost, but for a name that nobody asked for.
    let gaps = views(&keep, Kind::Gap);
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|v| matches!(v, View::Gap { cpus: u64::MAX, .. })), "{gaps:?}");
    let reasons: Vec<(String, u64)> =
        done.summary.accounting.reasons().map(|(r, t)| (r.to_string(), t.lines)).collect();
    assert_eq!(
        reasons,
        [
            ("no line of an ftrace log".to_string(), 1),
            ("an argument is missing or is no number".to_string(), 1),
            ("an event of unknown name".to_string(), 1),
        ]
    );
}

#[test]
fn numbers_of_cpus_may_have_gaps() {
    let lines = [(T, 0, ON, CALL), (T, 0, "...1.", INNER), ("<idle>-0", 4, "d.h1.", SYNC)];
    // The header counts two; or the file names them; or it names more than the log shows.
    let listed = |cpu_gaps| SideFiles { cpus: Some(5), cpu_gaps, ..SideFiles::default() };
    for (side, late, others) in [
        (SideFiles::default(), None, 0b10000),
        (listed(0b1110), Some(2), 0b10000),
        (listed(0b10), None, 0b11100),
    ] {
        let mut log = text(&lines);
        if let Some(cpu) = late {
            log += &format!("            init-1       [{cpu:03}] .....    11.000000: {SYNC}\n");
        }
        let (_, keep) = run_as(Arch::X86_64, "6.12", side, &log);
        let sent = views(&keep, Kind::IpiSent);
        assert!(
            matches!(sent[..], [View::IpiSent { targets, .. }] if targets == others),
            "{sent:?}"
        );
        let states: Vec<(u16, bool)> = keep
            .events
            .iter()
            .filter(|e| e.kind == Kind::Cpu)
            .map(|e| (e.cpu.0, e.view() == View::Cpu { state: CpuState::Online }))
            .collect();
        let gone = (1..4).filter(|cpu| others & 1 << cpu == 0).map(|cpu| (cpu, false));
        let want: Vec<(u16, bool)> = gone.chain(late.map(|cpu| (cpu, true))).collect();
        assert_eq!(states, want);
    }
}

#[test]
fn a_cpu_that_nothing_names_is_not_taken_to_exist() {
    let log = text(&[(T, 0, ON, POKE), ("<idle>-0", 2, "d.h1.", SYNC)]);
    let log: String =
        log.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    let cpus = |side: SideFiles| run_as(Arch::X86_64, "6.12", side, &log).1.header.unwrap().cpus;
    assert_eq!(cpus(SideFiles::default()), 3);
    assert_eq!(cpus(SideFiles { cpus: Some(8), ..SideFiles::default() }), 8);
}
