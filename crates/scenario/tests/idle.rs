//! `with idle` and `with polling_idle`: who is interrupted there, and who is not.

mod common;

use common::{MAIN, run_on};
use textbed_arch::Arch;
use textbed_arch::effect::SyncCause;
use textbed_event::View;
use textbed_scenario::Outcome;

/// How often each CPU but the first came back from an interrupt, in a story in which those idle,
/// are called by `kick_all_cpus_sync()` and are woken by what is published.
fn interruptions(arch: Arch, how: &str, idlers: u16) -> Vec<usize> {
    let mut lines = format!("cpus {}\ncpu 0 {{\n", idlers + 1);
    for cpu in 1..=idlers {
        lines += &format!("await idles{cpu}\n");
    }
    lines += "kick_all_cpus_sync()\npublish done = 1\n}\n";
    for cpu in 1..=idlers {
        lines += &format!("cpu {cpu} {{ with {how} {{ publish idles{cpu} = 1\nawait done\n}} }}\n");
    }
    let ran = run_on(arch, "6.12", &lines);
    assert_eq!(ran.end.outcome, Outcome::Ended, "{arch} {how}");
    let came_back = |cpu: u16| {
        let back = |view| matches!(view, View::ContextSync { cause: SyncCause::ExceptionReturn });
        ran.events().filter(|(e, _)| e.cpu.0 == cpu && back(e.view())).count()
    };
    (1..=idlers).map(came_back).collect()
}

/// A CPU that sleeps is interrupted by the call, and once more by who publishes what it waits for.
#[test]
fn an_idle_cpu_is_interrupted_for_a_call_and_to_wake() {
    for arch in MAIN {
        assert_eq!(interruptions(arch, "idle", 1), [2], "{arch}");
        assert_eq!(interruptions(arch, "idle", 2), [2, 2], "{arch}");
    }
}

/// One that polls is neither, if it alone is called; arm64 has no such flag. Where several are
/// called each is interrupted, and woken without.
#[test]
fn a_polling_cpu_is_interrupted_only_among_several() {
    for arch in [Arch::X86_64, Arch::Ppc64le] {
        assert_eq!(interruptions(arch, "polling_idle", 1), [0], "{arch}");
        assert_eq!(interruptions(arch, "polling_idle", 2), [1, 1], "{arch}");
    }
    assert_eq!(interruptions(Arch::Arm64, "polling_idle", 1), [2]);
}
