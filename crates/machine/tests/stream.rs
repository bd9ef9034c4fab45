//! What the machine tells: events with their context, and runs that can be repeated.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use common::{KERNEL, P0, P1, P2, Rig};
use textbed_arch::effect::SyncCause;
use textbed_arch::{Arch, CpuId, Features, Perm, Pfn, VirtAddr};
use textbed_event::{
    Batch, CallRef, Context, CpuState, Event, Flags, Kind, MemOrder, NameTable, Need, View,
};
use textbed_machine::{
    CpuMask, DataOrder, Machine, MachineConfig, MachineError, Newest, OpError, Policy, Random,
    Scripted, Stalest,
};

fn rig(policy: Box<dyn Policy>) -> Rig {
    let mut r = Rig::arm(Features::empty(), policy);
    r.m.take_batch();
    r
}

fn kinds(batch: &Batch) -> Vec<Kind> {
    batch.events.iter().map(|e| e.kind).collect()
}

#[test]
fn events_carry_their_call_context_and_instruction() {
    let mut r = rig(Box::new(Newest));
    let outer = r.m.enter_call(P0, "outer", &[1, 2]);
    let inner = r.m.enter_call(P0, "inner", &[]);
    r.m.set_irqs(P0, false);
    r.op(P0, "dc cvau", 0x48);
    r.str(P1, 0, 1);
    r.m.leave_call(P0, outer, -22, true);
    r.op(P0, "isb", 0);
    let batch = r.m.take_batch();
    let mut names = NameTable::default();
    names.absorb(&batch);
    let e: Vec<Event> = batch.events.clone();
    assert_eq!(
        kinds(&batch),
        [
            Kind::CallEntered,
            Kind::CallEntered,
            Kind::CacheClean,
            Kind::Store,
            Kind::CallReturned,
            Kind::ContextSync
        ]
    );
    let View::CallEntered { call, name, args } = e[0].view() else { panic!() };
    assert_eq!((call, names.get(name), batch.bytes(args).len()), (outer, "outer", 16));
    assert_eq!((e[1].cause, e[2].cause, e[3].cause), (outer, inner, CallRef::NONE));
    let off = |e: &Event| e.flags.has(Flags::IRQS_OFF);
    assert!(!off(&e[1]) && off(&e[2]) && !off(&e[3]));
    let row = textbed_arch::insn::by_name(Arch::Arm64, "dc cvau").unwrap();
    assert_eq!(e[2].op.0, row.id.0);
    let View::CacheClean { virt, phys, .. } = e[2].view() else { panic!() };
    assert_eq!((virt, phys), (r.alias.offset(0x48), r.phys.offset(0x48)));
    // Leaving the outer call leaves the inner one.
    assert_eq!(e[5].cause, CallRef::NONE);
    let View::CallReturned { call, value, failed } = e[4].view() else { panic!() };
    assert_eq!((call, value, failed), (outer, -22, true));
    assert!(batch.events.iter().all(Event::is_valid));
}

#[test]
fn stores_fetches_and_fills_say_where_and_what() {
    let mut r = rig(Box::new(Stalest));
    r.str(P0, 4, 0);
    r.str(P0, 4, 7);
    r.fetch(P1, 4);
    // Across a page: two fetches. Frames follow each other: one store.
    let f = r.m.fetch(P1, r.code.offset(4094), 4).unwrap();
    assert_eq!((f.bytes.len(), f.phys), (4, r.phys.offset(4094)));
    r.m.store(P0, r.alias.offset(4090), &[9; 12], MemOrder::Release).unwrap();
    r.m.fill(P0, r.alias.offset(4096 + 1), 10, &[1, 2, 3]).unwrap();
    let batch = r.m.take_batch();
    let views: Vec<View> = batch.events.iter().map(Event::view).collect();
    assert!(batch.events[0].flags.has(Flags::EQUAL_BYTES));
    assert!(!batch.events[1].flags.has(Flags::EQUAL_BYTES));
    let (code, phys) = (r.code, r.phys);
    assert_eq!(views[2], View::Fetch { virt: code.offset(4), phys: phys.offset(4), len: 4 });
    let observed = View::Observed { virt: code.offset(4), phys: phys.offset(4), behind: 1 };
    assert_eq!(views[3], observed);
    assert_eq!(views[4], View::Fetch { virt: code.offset(4094), phys: phys.offset(4094), len: 2 });
    assert_eq!(views[5], View::Fetch { virt: code.offset(4096), phys: phys.offset(4096), len: 2 });
    let View::Store { virt, phys: at, bytes, order } = views[6] else { panic!("{:?}", views[6]) };
    assert_eq!((virt, at), (r.alias.offset(4090), phys.offset(4090)));
    assert_eq!((batch.bytes(bytes), order), (&[9; 12][..], MemOrder::Release));
    let View::Fill { what, .. } = views[7] else { panic!("{:?}", views[7]) };
    assert_eq!(batch.bytes(what), [10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    let mut got = [0; 10];
    r.m.read_phys(phys.offset(4097), &mut got).unwrap();
    assert_eq!(got, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]);
}

#[test]
fn faults_are_told_and_returned() {
    let mut r = rig(Box::new(Newest));
    let at = r.code.offset(1 << 40);
    let read_only = r.m.store(P0, r.code.offset(0x3ffc), &[1; 4], MemOrder::Plain).unwrap_err();
    // The first page of the range is there, the next is not.
    let over = r.m.load(P0, r.code.offset(0x3ffc), &mut [0; 8]).unwrap_err();
    let fetch = r.m.fetch(P0, at, 4).unwrap_err();
    let maintenance = r.m.op_named(P0, "ic ivau", at.0).unwrap_err();
    let faults: Vec<View> = r.m.take_batch().events.iter().map(Event::view).collect();
    let told = |f: textbed_machine::Fault| {
        let view = View::Fault { virt: f.virt, access: f.access, reason: f.reason };
        faults.contains(&view)
    };
    assert!(told(read_only) && told(over) && told(fetch));
    assert_eq!(over.virt, r.code.offset(0x4000));
    assert!(matches!(maintenance, OpError::Fault(f) if told(f)));
    assert!(matches!(r.m.op_named(P0, "brk", 0).unwrap_err(), OpError::NotModelled { .. }));
    assert!(matches!(r.m.op_named(P0, "cpuid", 0).unwrap_err(), OpError::Unknown { .. }));
    assert!(r.m.load(textbed_arch::CpuId(9), r.code, &mut [0]).is_err());
    assert!(r.m.load(P0, VirtAddr(u64::MAX), &mut [0; 2]).is_err());
}

#[test]
fn a_cross_call_in_order() {
    for (arch, expected) in [
        (Arch::X86_64, vec![SyncCause::ExceptionReturn]),
        (Arch::Arm64, vec![SyncCause::ExceptionEntry, SyncCause::ExceptionReturn]),
        (Arch::Ppc64le, vec![SyncCause::ExceptionEntry, SyncCause::ExceptionReturn]),
    ] {
        let mut r = Rig::new(arch, Features::default_for(arch), Box::new(Stalest));
        r.m.take_batch();
        let mut ran = Vec::new();
        r.m.ipi(P0, CpuMask::first(3), "function", true, &mut |m, cpu| {
            ran.push((cpu, m.irqs_on(cpu)));
            Ok(())
        })
        .unwrap();
        assert_eq!(ran, [(P1, false), (P2, false), (P0, true)]);
        let events = r.m.take_batch().events;
        let View::IpiSent { targets, .. } = events[0].view() else { panic!() };
        assert_eq!(targets, 0b110);
        let syncs: Vec<SyncCause> = events
            .iter()
            .filter(|e| e.cpu == P1)
            .filter_map(|e| match e.view() {
                View::ContextSync { cause } => Some(cause),
                _ => None,
            })
            .collect();
        assert_eq!(syncs, expected, "{arch}");
        let taken = events.iter().find(|e| e.kind == Kind::IpiTaken).unwrap();
        assert_eq!((taken.cpu, taken.flags.context()), (P1, Context::Irq));
        let done: Vec<_> =
            events.iter().filter(|e| e.kind == Kind::IpiDone).map(|e| e.cpu).collect();
        assert_eq!(done, [P1, P2, P0]);
        assert!(r.m.irqs_on(P1));
    }
}

/// How each CPU took a cross-call that P0 sent to these, P1 polling while idle.
fn taken_by_interrupt(targets: CpuMask, already: Option<CpuId>) -> Vec<(CpuId, bool)> {
    let mut r = rig(Box::new(Newest));
    r.m.cpu_idles(P1, true).unwrap();
    if let Some(cpu) = already {
        r.m.send_ipi(P0, CpuMask::one(cpu), "earlier").unwrap();
    }
    r.m.send_ipi(P0, targets, "function").unwrap();
    for cpu in [P1, P2] {
        r.m.serve_ipis(cpu, &mut |_, _| Ok(())).unwrap();
    }
    let events = r.m.take_batch().events;
    let synced = |cpu| events.iter().any(|e| e.cpu == cpu && e.kind == Kind::ContextSync);
    let taken = events.iter().filter_map(|e| match e.view() {
        View::IpiTaken { by_interrupt, .. } => Some((e.cpu, by_interrupt)),
        _ => None,
    });
    let taken: Vec<_> = taken.collect();
    for cpu in [P1, P2] {
        let interrupted = taken.iter().any(|(c, by_interrupt)| *c == cpu && *by_interrupt);
        assert_eq!(synced(cpu), interrupted, "{cpu}: an interrupt synchronises");
    }
    taken
}

#[test]
fn a_polling_cpu_is_not_interrupted_if_it_is_called_alone() {
    let both: CpuMask = [P1, P2].into_iter().collect();
    assert_eq!(taken_by_interrupt(CpuMask::one(P1), None), [(P1, false)]);
    assert_eq!(taken_by_interrupt(both, None), [(P1, true), (P2, true)]);
    // The other one has an interrupt under way.
    let three = [(P1, false), (P2, true), (P2, true)];
    assert_eq!(taken_by_interrupt(both, Some(P2)), three);
}

#[test]
fn who_idles_is_woken_by_an_interrupt_unless_it_polls() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        for polls in [false, true] {
            let mut r = Rig::new(arch, Features::default_for(arch), Box::new(Newest));
            r.m.cpu_idles(P1, polls).unwrap();
            let state = if polls { CpuState::PollingIdle } else { CpuState::Idle };
            assert_eq!(r.m.cpu_state(P1), Some(state));
            r.m.cpu_wakes(P1).unwrap();
            assert_eq!(r.m.cpu_state(P1), Some(CpuState::Running));
            let events = r.m.take_batch().events;
            let synced = events.iter().any(|e| e.cpu == P1 && e.kind == Kind::ContextSync);
            assert_eq!(synced, !polls, "{arch}");
        }
    }
}

#[test]
fn cross_calls_and_locks_in_wrong_contexts() {
    let mut r = rig(Box::new(Newest));
    let all = CpuMask::first(3);
    r.m.set_irqs(P0, false);
    assert_eq!(r.m.ipi(P0, all, "f", true, &mut |_, _| Ok(())), Ok(()));
    assert_eq!(r.m.ipi(P0, all, "f", false, &mut |_, _| Ok(())), Ok(()));
    r.m.set_irqs(P0, true);
    r.m.set_irqs(P2, false);
    let refused = r.m.ipi(P0, all, "f", true, &mut |_, _| Ok(()));
    assert_eq!(refused, Err(MachineError::WrongContext { cpu: P2 }));
    r.m.lock(P0, "text_mutex").unwrap();
    let name = || "text_mutex".to_owned();
    assert_eq!(r.m.lock(P1, "text_mutex"), Err(MachineError::LockHeld { name: name(), by: P0 }));
    assert_eq!(
        r.m.unlock(P1, "text_mutex"),
        Err(MachineError::LockNotHeld { name: name(), cpu: P1 })
    );
    r.m.unlock(P0, "text_mutex").unwrap();
    r.m.lock(P1, "text_mutex").unwrap();
    assert_eq!(r.m.lock_holder("text_mutex"), Some(P1));
}

#[test]
fn several_share_a_lock_or_one_has_it_alone() {
    let mut r = rig(Box::new(Newest));
    let name = || "cpu_hotplug_lock".to_owned();
    for cpu in [P0, P1, P1] {
        r.m.lock_shared(cpu, &name()).unwrap();
    }
    assert_eq!(r.m.lock_sharers(&name()), [P0, P1, P1]);
    assert_eq!(r.m.lock_holder(&name()), None);
    assert_eq!(r.m.lock(P2, &name()), Err(MachineError::LockHeld { name: name(), by: P0 }));
    let not = |cpu| Err(MachineError::LockNotHeld { name: name(), cpu });
    assert_eq!(r.m.unlock_shared(P2, &name()), not(P2));
    assert_eq!(r.m.unlock(P0, &name()), not(P0));
    for cpu in [P1, P0, P1] {
        r.m.unlock_shared(cpu, &name()).unwrap();
    }
    r.m.lock(P2, &name()).unwrap();
    assert_eq!(r.m.lock_shared(P0, &name()), Err(MachineError::LockHeld { name: name(), by: P2 }));
}

#[test]
fn a_cross_call_is_pending_until_interrupts_are_on_and_synchronises_only_then() {
    let mut r = rig(Box::new(Stalest));
    r.fetch(P1, 0);
    r.str(P0, 0, 1);
    r.ops(P0, &["dc cvau", "dsb ish", "ic ivau", "dsb ish"], 0);
    r.m.set_irqs(P1, false);
    let mut order = Vec::new();
    for name in ["first", "second"] {
        r.m.ipi(P0, CpuMask::one(P1), name, false, &mut |_, _| panic!("not yet")).unwrap();
    }
    let ipi = r.m.send_ipi(P0, CpuMask::one(P1), "third").unwrap().unwrap();
    assert_eq!(
        (r.m.pending_ipis(P1), r.m.ipi_is_served(ipi), r.m.join_ipi(ipi)),
        (3, false, false)
    );
    let serve = |m: &mut Machine, order: &mut Vec<CpuId>| {
        m.serve_ipis(P1, &mut |m, cpu| {
            assert!(!m.irqs_on(cpu));
            order.push(cpu);
            Ok(())
        })
    };
    assert_eq!(serve(&mut r.m, &mut order), Ok(0));
    assert_eq!(r.fetch(P1, 0), 0, "nothing has synchronised it");
    r.m.set_irqs(P1, true);
    r.m.take_batch();
    assert_eq!(serve(&mut r.m, &mut order), Ok(3));
    assert_eq!((order, r.fetch(P1, 0)), (vec![P1; 3], 1));
    let batch = r.m.take_batch();
    let kinds = kinds(&batch);
    let taken = kinds.iter().filter(|k| matches!(k, Kind::IpiTaken | Kind::IpiDone));
    assert_eq!(taken.copied().collect::<Vec<_>>(), [Kind::IpiTaken, Kind::IpiDone].repeat(3));
    let numbers = batch.events.iter().filter_map(|e| match e.view() {
        View::IpiTaken { ipi, .. } => Some(ipi),
        _ => None,
    });
    let numbers: Vec<u32> = numbers.collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in the order of sending: {numbers:?}");
    assert!(r.m.ipi_is_served(ipi) && r.m.join_ipi(ipi));
    // Nobody to send to.
    assert_eq!(r.m.send_ipi(P0, CpuMask::one(P0), "f"), Ok(None));
}

#[test]
fn a_cross_call_tells_what_the_other_side_did() {
    let mut r = rig(Box::new(Stalest));
    let invalidate = ["ic ivau", "dsb ish", "isb"];
    assert_eq!((r.fetch(P1, 0), r.fetch(P0, 128)), (0, 0));
    r.str(P0, 0, 1);
    r.ops(P0, &["dc cvau", "dsb ish"], 0);
    let ipi = r.m.send_ipi(P0, CpuMask::one(P1), "function").unwrap().unwrap();
    assert!(r.m.accept_ipi(P1));
    // An invalidation is ordered after what its CPU knows of.
    r.ops(P1, &invalidate, 0);
    assert_eq!(r.fetch(P1, 0), 1, "the receiver knows of the sender's store");
    r.str(P1, 128, 1);
    r.ops(P1, &["dc cvau", "dsb ish"], 128);
    assert!(!r.m.join_ipi(ipi), "it is being served");
    r.m.finish_ipi(P1);
    assert!(r.m.join_ipi(ipi));
    r.ops(P0, &invalidate, 128);
    assert_eq!(r.fetch(P0, 128), 1, "the sender knows of the receiver's");
}

#[test]
fn stores_are_performed_before_a_cross_call_is_sent() {
    let data_order = DataOrder::Architecture;
    let config = MachineConfig { data_order, ..MachineConfig::new(Arch::Arm64) };
    let loaded = |sends: bool| {
        let mut r = Rig::of(Machine::new(config.clone(), Box::new(Stalest)).unwrap());
        r.fetch(P1, 0);
        // A store to code: it waits as long as it may.
        r.str(P0, 0, 1);
        if sends {
            r.m.send_ipi(P0, CpuMask::one(P1), "function").unwrap().unwrap();
            assert!(r.m.accept_ipi(P1));
        }
        r.load(P1, 0)
    };
    assert_eq!([loaded(false), loaded(true)], [0, 1]);
}

#[test]
fn a_handler_serves_its_own_call_alone() {
    let mut r = rig(Box::new(Newest));
    let to = CpuMask::one(P1);
    r.m.set_irqs(P1, false);
    r.m.ipi(P0, to, "first", false, &mut |_, _| panic!("not yet")).unwrap();
    r.m.set_irqs(P1, true);
    // The first one is taken before a second one, and it is not the second one's handler that runs.
    let mut wrong = |_: &mut Machine, _| panic!("another call's handler");
    let refused = r.m.ipi(P0, to, "second", true, &mut wrong);
    assert_eq!(refused, Err(MachineError::WrongContext { cpu: P1 }));
    assert_eq!(r.m.ipi(P0, to, "second", false, &mut wrong), Ok(()));
    assert_eq!((r.m.pending_ipis(P1), r.m.serve_ipis(P1, &mut |_, _| Ok(()))), (2, Ok(2)));
    let mut ran = 0;
    let mut own = |_: &mut Machine, _| {
        ran += 1;
        Ok(())
    };
    assert_eq!(r.m.ipi(P0, to, "third", true, &mut own), Ok(()));
    assert_eq!(ran, 1);
    r.m.take_batch();
    r.fetch(P1, 0);
    let context = r.m.take_batch().events[0].flags.context();
    assert_eq!(context, Context::Task, "it goes back to what it was doing");
}

#[test]
fn frames_are_told_recycled_and_zeroed() {
    let mut r = rig(Box::new(Newest));
    let a = r.m.alloc_frames(P0, 512, 21, false).unwrap();
    assert!(a.addr().is_aligned(21));
    r.m.load_image(a.addr(), &[5; 64]).unwrap();
    r.m.free_frames(P0, a, 512).unwrap();
    assert!(r.m.free_frames(P0, a, 1).is_err());
    let b = r.m.alloc_frames(P0, 512, 21, false).unwrap();
    assert_eq!(a, b);
    let mut got = [0; 64];
    r.m.read_phys(b.addr(), &mut got).unwrap();
    assert_eq!(got, [5; 64], "contents are left over");
    r.m.free_frames(P0, b, 512).unwrap();
    let c = r.m.alloc_frames(P0, 1, 12, true).unwrap();
    r.m.read_phys(c.addr(), &mut got).unwrap();
    assert_eq!((c, got), (a, [0; 64]));
    let batch = r.m.take_batch();
    assert_eq!(
        kinds(&batch),
        [Kind::FrameAlloc, Kind::FrameFree, Kind::FrameAlloc, Kind::FrameFree, Kind::FrameAlloc]
    );
    assert_eq!(batch.events[4].view(), View::FrameAlloc { pfn: c, count: 1, zeroed: true });
    assert!(r.m.claim_frames(Pfn(1 << 40), 1).is_err());
    assert!(r.m.alloc_frames(P0, 0, 12, false).is_err());
    assert!(r.m.alloc_frames(P0, 1 << 40, 12, false).is_err());
}

/// A run with many choices; everything that it told.
fn busy(policy: Box<dyn Policy>) -> (Batch, Vec<usize>) {
    let mut r = rig(policy);
    for n in 1..20u32 {
        let word = u64::from(n % 3) * 0x44;
        r.str(P0, word, n);
        r.op(P0, "dc cvau", word);
        if n % 2 == 0 {
            r.op(P0, "dsb ish", 0);
        }
        r.op(P0, "ic ivau", word);
        r.op(P0, "dsb ish", 0);
        r.fetch(P1, word);
        r.fetch(P2, word);
        if n % 5 == 0 {
            let (set, clear) = if n % 2 == 0 {
                (Perm::WRITE, Perm::empty())
            } else {
                (Perm::empty(), Perm::WRITE)
            };
            r.m.protect(P0, KERNEL, r.alias.offset(0x2000), 4096, set, clear).unwrap();
            let _ = r.m.store(P1, r.alias.offset(0x2000), &[n as u8], MemOrder::Plain);
        }
    }
    (r.m.take_batch(), r.m.choices().answers())
}

#[test]
fn equal_seeds_give_equal_runs_and_a_witness_replays() {
    let (first, answers) = busy(Box::new(Random::new(11)));
    let (again, _) = busy(Box::new(Random::new(11)));
    let (other, _) = busy(Box::new(Random::new(12)));
    let (replayed, replayed_answers) = busy(Box::new(Scripted::new(answers.clone())));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(first, replayed);
    assert_eq!(answers, replayed_answers);
    assert!(answers.len() > 40, "{} choices", answers.len());
}

#[test]
fn the_header_is_the_machine() {
    let r = Rig::new(Arch::Ppc64le, Features::PPC_RADIX, Box::new(Newest));
    let h = r.m.header();
    assert_eq!((h.arch, h.cpus, h.page_shift, h.dline_bytes), (Arch::Ppc64le, 3, 12, 128));
    assert_eq!(h.features, Features::PPC_RADIX);
}

#[test]
fn a_comparison_says_where_what_and_whether_it_is_equal() {
    let mut r = rig(Box::new(Newest));
    r.m.store(P0, r.alias.offset(0x40), &[1, 2, 3, 4], MemOrder::Plain).unwrap();
    assert!(r.m.compare(P0, r.code.offset(0x40), &[1, 2, 3, 4]).unwrap());
    assert!(!r.m.compare(P0, r.code.offset(0x40), &[1, 2, 3, 5]).unwrap());
    let batch = r.m.take_batch();
    let seen: Vec<_> = batch.events.iter().map(Event::view).collect();
    let verdicts: Vec<(VirtAddr, bool, Vec<u8>)> = seen
        .iter()
        .filter_map(|v| match v {
            View::Compared { virt, phys, bytes, equal } => {
                assert_eq!(*phys, r.phys.offset(0x40));
                Some((*virt, *equal, batch.bytes(*bytes).to_vec()))
            }
            _ => None,
        })
        .collect();
    let at = r.code.offset(0x40);
    assert_eq!(verdicts, [(at, true, vec![1, 2, 3, 4]), (at, false, vec![1, 2, 3, 5])]);
    // Nothing is compared where nothing can be loaded.
    assert!(r.m.compare(P0, VirtAddr(0x1000), &[0]).is_err());
    assert!(r.m.take_batch().events.iter().all(|e| e.kind != Kind::Compared));
}

#[test]
fn what_a_patcher_says_carries_its_call() {
    let mut r = rig(Box::new(Newest));
    let call = r.m.enter_call(P0, "patch", &[]);
    r.m.needs(P0, Need::MaySleep);
    r.m.needs_lock(P0, "text");
    r.m.trap_handler(P0, r.code, 5, true);
    r.m.task_stands(P1, "worker", r.code.offset(8), true);
    let batch = r.m.take_batch();
    let mut names = NameTable::default();
    names.absorb(&batch);
    let views: Vec<View> = batch.events.iter().skip(1).map(Event::view).collect();
    let View::Needs { call: whose, what: Need::LockHeld, lock } = views[1] else { panic!() };
    assert_eq!((whose, names.get(lock)), (call, "text"));
    let may_sleep = View::Needs { call, what: Need::MaySleep, lock: textbed_event::NameId::NONE };
    assert_eq!(views[0], may_sleep);
    assert_eq!(views[2], View::TrapHandler { virt: r.code, len: 5, registered: true });
    let View::TaskStands { task, virt, stands: true } = views[3] else { panic!() };
    assert_eq!((names.get(task), virt), ("worker", r.code.offset(8)));
}
