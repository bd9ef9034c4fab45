//! Rows: CPUs that come and go, the lock against that, and calls that need it held.

use textbed_arch::Cite;

use super::keys::{KEY, KEY_LOCKS};
use super::{ALL_64 as ALL, ARM64_CROSS, CPUS_HELD, CROSS, SLEEPS, call, needs, never, p, takes};
use crate::calls::ParamKind::Cpu;
use crate::calls::{CallSpec, Param, Returns};
use crate::{hotplug, stop_machine, text_users};

const CPU: &[Param] = &[p("cpu", Cpu)];
const LOCK: Cite = Cite::read("Linux 5.19, 6.12, 7.0 kernel/cpu.c: a percpu_rw_semaphore");
const CHANGE: Cite =
    Cite::read("Linux 5.19, 6.6, 6.12, 7.0 kernel/cpu.c; 6.12 drivers/base/core.c, arch/*/kernel");
const LOCKED: Cite =
    Cite::read("Linux 6.12 kernel/stop_machine.c, kernel/jump_label.c: lockdep_assert_cpus_held()");

/// With the lock held by the caller.
const fn held(spec: CallSpec) -> CallSpec {
    needs(spec, CPUS_HELD)
}

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    needs(
        call(
            "cpus_read_lock",
            &[],
            Returns::Void,
            ALL,
            "keeps CPUs from going offline and coming online; others may hold the lock too",
            LOCK,
            hotplug::cpus_read_lock,
        )
        .steps(ALL),
        SLEEPS,
    ),
    call("cpus_read_unlock", &[], Returns::Void, ALL, "ends that", LOCK, hotplug::cpus_read_unlock),
    needs(
        call(
            "remove_cpu",
            CPU,
            Returns::Errno,
            ALL,
            "takes a CPU offline; 1 if it is already",
            CHANGE,
            hotplug::remove_cpu,
        )
        .steps(ALL),
        SLEEPS,
    ),
    needs(
        call(
            "add_cpu",
            CPU,
            Returns::Errno,
            ALL,
            "brings a CPU online; 1 if it is already",
            CHANGE,
            hotplug::add_cpu,
        )
        .steps(ALL),
        SLEEPS,
    ),
    never(
        needs(
            call(
                "cpu_up_begin",
                CPU,
                Returns::Void,
                ALL,
                "starts a CPU: it runs, and is not in cpu_online_mask",
                CHANGE,
                hotplug::cpu_up_begin,
            )
            .steps(ALL),
            SLEEPS,
        ),
        "the first half of add_cpu",
    ),
    never(
        call(
            "cpu_up_end",
            CPU,
            Returns::Void,
            ALL,
            "puts the CPU that was started into cpu_online_mask",
            CHANGE,
            hotplug::cpu_up_end,
        ),
        "the second half of add_cpu",
    ),
    held(
        call(
            "stop_machine_cpuslocked",
            &[],
            Returns::Errno,
            ALL,
            "as stop_machine, with cpu_hotplug_lock held by the caller",
            LOCKED,
            stop_machine::stop_machine,
        )
        .steps(ALL)
        .sends(CROSS),
    ),
    held(takes(
        call(
            "static_key_enable_cpuslocked",
            KEY,
            Returns::Void,
            ALL,
            "as static_key_enable, with cpu_hotplug_lock held by the caller",
            LOCKED,
            text_users::static_key_enable,
        )
        .steps(ALL)
        .sends(ARM64_CROSS),
        KEY_LOCKS,
    )),
    held(takes(
        call(
            "static_key_disable_cpuslocked",
            KEY,
            Returns::Void,
            ALL,
            "as static_key_disable, with cpu_hotplug_lock held by the caller",
            LOCKED,
            text_users::static_key_disable,
        )
        .steps(ALL)
        .sends(ARM64_CROSS),
        KEY_LOCKS,
    )),
];
