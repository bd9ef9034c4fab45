//! CPUs that come and go, and who keeps them from that.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_with, values};
use textbed_arch::{Arch, CpuId, Features};
use textbed_kernel::{CallError, HOTPLUG_LOCK, Progress, Wait};

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

/// Three CPUs.
fn three(arch: Arch) -> Bed {
    boot_with("6.12", arch, &[], Features::default_for(arch), 3)
}

fn begin(bed: &mut Bed, cpu: u16, name: &str, args: &[u64]) -> Result<Progress, CallError> {
    bed.kernel.begin(CpuId(cpu), name, &values(args))
}

/// Runs what is under way on a CPU to its end: what it returned.
fn finish(bed: &mut Bed, cpu: u16) -> i64 {
    loop {
        match bed.kernel.resume(CpuId(cpu)).unwrap() {
            Progress::Done(value) => return value.value,
            Progress::More => {}
            Progress::Waits(wait) => panic!("waits for {wait}"),
        }
    }
}

fn done(progress: Result<Progress, CallError>) -> i64 {
    match progress {
        Ok(Progress::Done(value)) => value.value,
        other => panic!("{other:?}"),
    }
}

fn shared() -> Result<Progress, CallError> {
    Ok(Progress::Waits(Wait::SharedLock(HOTPLUG_LOCK.to_owned())))
}

#[test]
fn what_a_cpu_executes_before_it_is_online() {
    let start: [&[&str]; 3] = [
        &["sync SpaceSwitch", "Control", "Control"],
        &["tlbi vmalle1", "dsb nsh", "sync Instruction isb", "ic iallu", "dsb nsh"],
        &["sync Instruction isync", "ptesync", "tlbiel", "ptesync", "sync Instruction isync"],
    ];
    for (arch, want) in ARCHS.into_iter().zip(start) {
        let mut bed = three(arch);
        assert_eq!(bed.call("remove_cpu", &[2]), 0);
        let gone = bed.trace();
        assert!(gone.iter().any(|l| l.starts_with("2-Cpu { state: Offline")), "{gone:#?}");
        assert_eq!(bed.call("add_cpu", &[2]), 0);
        let trace = bed.trace();
        let of_2: Vec<&String> = trace.iter().filter(|l| l.starts_with("2-")).collect();
        assert_eq!(of_2.first().map(|l| l.as_str()), Some("2-Cpu { state: Online }"));
        assert_eq!(of_2.get(1).map(|l| l.as_str()), Some("2-sync Reset"));
        let mut rest = of_2.iter();
        for line in want {
            let found = rest.any(|l| l.get(2..).is_some_and(|l| l.starts_with(line)));
            assert!(found, "{arch}: no {line} in {of_2:#?}");
        }
    }
}

#[test]
fn nobody_interrupts_a_cpu_that_is_not_online() {
    for arch in ARCHS {
        let mut bed = three(arch);
        let sent = |bed: &mut Bed| {
            bed.trace();
            bed.call("kick_all_cpus_sync", &[]);
            let trace = bed.trace();
            trace.into_iter().find_map(|l| l.split_once(" to ").map(|(_, to)| to.to_owned()))
        };
        assert_eq!(sent(&mut bed).as_deref(), Some("0b110"));
        bed.call("remove_cpu", &[1]);
        assert_eq!(sent(&mut bed).as_deref(), Some("0b100"));
        bed.call("cpu_up_begin", &[1]);
        assert_eq!(sent(&mut bed).as_deref(), Some("0b100"), "it runs, and is not in the mask");
        bed.call("cpu_up_end", &[1]);
        assert_eq!(sent(&mut bed).as_deref(), Some("0b110"));
    }
}

#[test]
fn several_share_the_lock_and_who_waits_to_have_it_alone_keeps_others_out() {
    let mut bed = three(Arch::X86_64);
    for cpu in [0, 1] {
        done(begin(&mut bed, cpu, "cpus_read_lock", &[]));
    }
    let alone = Ok(Progress::Waits(Wait::Lock(HOTPLUG_LOCK.to_owned())));
    assert_eq!(begin(&mut bed, 2, "remove_cpu", &[1]), alone);
    // The second time of CPU 0 would have to wait for CPU 2, and that for the first.
    assert_eq!(begin(&mut bed, 0, "static_key_enable", &[1]), shared());
    done(begin(&mut bed, 0, "cpus_read_unlock", &[]));
    assert_eq!(bed.kernel.resume(CpuId(2)), alone);
    done(begin(&mut bed, 1, "cpus_read_unlock", &[]));
    assert_eq!(finish(&mut bed, 2), 0);
    assert!(!bed.kernel.is_online(CpuId(1)));
    done(begin(&mut bed, 0, "static_key_enable", &[1]));
}

#[test]
fn who_keeps_cpus_waits_for_one_that_comes_up() {
    for arch in ARCHS {
        let mut bed = three(arch);
        let text = bed.kernel.layout().text.start.0 + 0x2000;
        bed.call("remove_cpu", &[2]);
        bed.call("cpu_up_begin", &[2]);
        for (call, args) in
            [("static_key_enable", 1), ("register_kprobe", text), ("cpus_read_lock", 0)]
        {
            let args = if call == "cpus_read_lock" { vec![] } else { vec![args] };
            let waits = begin(&mut bed, 1, call, &args);
            assert_eq!(waits, shared(), "{call} on {arch}");
            if bed.kernel.is_under_way(CpuId(1)) {
                assert_eq!(bed.kernel.resume(CpuId(1)), shared());
            }
        }
        // Those that do not keep CPUs do not wait.
        done(begin(&mut bed, 0, "kick_all_cpus_sync", &[]));
        bed.call("cpu_up_end", &[2]);
        finish(&mut bed, 1);
    }
}

/// Linux 6.12 kernel/bpf/dispatcher.c bpf_dispatcher_update(): the static call takes the lock, when
/// the other half is already written.
#[test]
fn a_lock_taken_inside_is_waited_for_there() {
    let mut bed = three(Arch::X86_64);
    let prog = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
    bed.call("remove_cpu", &[2]);
    bed.call("cpu_up_begin", &[2]);
    bed.trace();
    let mut progress = begin(&mut bed, 1, "bpf_dispatcher_change_prog", &[7, 0, prog]);
    while progress == Ok(Progress::More) {
        progress = bed.kernel.resume(CpuId(1));
    }
    assert_eq!(progress, shared());
    let trace = bed.trace();
    assert!(trace.iter().any(|l| l.contains("call bpf_arch_text_copy")), "{trace:#?}");
    assert!(!trace.iter().any(|l| l.contains("call static_call_update")), "{trace:#?}");
    bed.call("cpu_up_end", &[2]);
    finish(&mut bed, 1);
    assert!(bed.trace().iter().any(|l| l.contains("call static_call_update")));
}

#[test]
fn what_linux_returns() {
    let last = |bed: &mut Bed| bed.call("remove_cpu", &[2]);
    for (arch, boot_cpu) in ARCHS.into_iter().zip([-1, 0, 0]) {
        let mut bed = three(arch);
        let first = bed.kernel.call(CpuId(1), "remove_cpu", &values(&[0])).unwrap();
        assert_eq!((first.value, first.failed), (boot_cpu, boot_cpu < 0), "{arch}");
        if boot_cpu == 0 {
            assert_eq!(bed.kernel.call(CpuId(1), "add_cpu", &values(&[0])).unwrap().value, 0);
        }
        assert_eq!(bed.call("add_cpu", &[1]), 1);
        assert_eq!(last(&mut bed), 0);
        assert_eq!(last(&mut bed), 1);
        let itself = bed.try_call("remove_cpu", &values(&[0]));
        match arch {
            Arch::X86_64 => assert_eq!(itself.unwrap().value, -1),
            _ => assert!(matches!(itself, Err(CallError::NotModelled { .. })), "{itself:?}"),
        }
        bed.call("remove_cpu", &[1]);
        if arch != Arch::X86_64 {
            assert_eq!(bed.call("remove_cpu", &[0]), -16, "the only one");
        }
        let none = bed.try_call("add_cpu", &values(&[3]));
        assert!(matches!(none, Err(CallError::Died { .. })), "{none:?}");
        let there = bed.kernel.call(CpuId(1), "vmalloc", &values(&[4096]));
        assert!(matches!(there, Err(CallError::NotModelled { .. })), "{there:?}");
    }
}

#[test]
fn the_lock_twice_in_one_task_is_a_deadlock() {
    let mut bed = three(Arch::Arm64);
    bed.call("cpus_read_lock", &[]);
    let change = bed.try_call("remove_cpu", &values(&[1]));
    assert!(matches!(change, Err(CallError::Died { .. })), "{change:?}");
    let mut bed = three(Arch::Arm64);
    bed.call("remove_cpu", &[1]);
    bed.call("cpu_up_begin", &[1]);
    let key = bed.try_call("static_key_enable", &values(&[1]));
    assert!(matches!(key, Err(CallError::Died { .. })), "{key:?}");
    bed.call("static_key_enable_cpuslocked", &[2]);
}

#[test]
fn a_cpu_goes_when_its_call_has_ended() {
    let mut bed = three(Arch::X86_64);
    let page = bed.call("vmalloc", &[4096]) as u64;
    bed.call_code("memcpy", &[page], &[0x0f, 0x1f, 0x44, 0, 0]);
    bed.call("jump_entry", &[1, page, page + 0x105]);
    let mut args = values(&[page]);
    args.push(textbed_kernel::Arg::Code(vec![0xe9, 0, 1, 0, 0]));
    let progress = bed.kernel.begin(CpuId(1), "text_poke_bp", &args);
    assert_eq!(progress, Ok(Progress::More));
    let waits = Ok(Progress::Waits(Wait::CallOf(CpuId(1))));
    assert_eq!(begin(&mut bed, 0, "remove_cpu", &[1]), waits);
    finish(&mut bed, 1);
    assert_eq!(finish(&mut bed, 0), 0);
    // With interrupts off there it waits, too: all CPUs stop for it.
    bed.kernel.machine_mut().set_irqs(CpuId(2), false);
    let waits = Ok(Progress::Waits(Wait::Cpus(vec![CpuId(2)])));
    assert_eq!(begin(&mut bed, 0, "remove_cpu", &[2]), waits);
}

#[test]
fn patching_with_all_stopped_needs_the_lock() {
    let mut bed = three(Arch::Arm64);
    let page = bed.call("vmalloc", &[4096]) as u64;
    bed.trace();
    for (call, args) in [
        ("aarch64_insn_patch_text", vec![page, 0xd503_201f]),
        ("stop_machine_cpuslocked", vec![]),
        ("static_key_enable_cpuslocked", vec![1]),
    ] {
        bed.call(call, &args);
        let need = format!("0 needs LockHeld {HOTPLUG_LOCK}");
        assert_eq!(bed.trace_all().get(1), Some(&need), "{call}");
    }
    // Who does it for others has the lock.
    bed.call("register_kprobe", &[bed.kernel.layout().text.start.0 + 0x2000]);
    let trace = bed.trace();
    let at = |what: &str| trace.iter().rposition(|l| l.ends_with(what)).unwrap();
    let (lock, unlock) = (format!(" lock {HOTPLUG_LOCK}"), format!(" unlock {HOTPLUG_LOCK}"));
    let patch = at("call aarch64_insn_patch_text");
    assert!(at(&lock) < patch && patch < at(&unlock), "{trace:#?}");
}
