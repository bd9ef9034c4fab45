//! Staleness is real: old bytes run on the engine until the chain that the architecture asks for
//! was executed, instruction by instruction, by guest code.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ALIAS, ARCHES, Bed, CODE, CPU0, CPU1, RWX, newest, stalest};
use textbed_arch::{Arch, CpuId, Features, cache::CacheGeometry};
use textbed_event::View;
use textbed_machine::{InstructionCache, MachineConfig, Newest, Stalest};

/// Beds in which code can be stale: on powerpc with an instruction cache that does not snoop too.
fn stale_beds() -> Vec<Bed> {
    let mut beds: Vec<Bed> = ARCHES.map(stalest).into();
    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        let mut config = MachineConfig::new(arch);
        config.features.remove(Features::PPC_COHERENT_ICACHE);
        beds.push(Bed::new(config, Box::new(Stalest)));
    }
    beds.extend(ARCHES.map(|arch| stalest(arch).freely()));
    beds
}

/// The word of `ret42` with the number in it, changed to return 43.
fn word_of_43(bed: &mut Bed, ret42: u64) -> u32 {
    let word = bed.word(ret42);
    match bed.arch() {
        Arch::X86_64 => word ^ (42 ^ 43) << 8,
        Arch::Arm64 => word ^ (42 ^ 43) << 5,
        _ => word ^ (42 ^ 43),
    }
}

struct Story {
    ret42: u64,
    /// Where the code is writable.
    alias: u64,
    new: u32,
}

/// `ret42` installed and executed, on every CPU, so that its old bytes are held.
fn story(bed: &mut Bed) -> Story {
    let ret42 = bed.install("ret42");
    for cpu in [CPU0, CPU1] {
        let end = bed.call_on(cpu, ret42, &[]).end;
        assert_eq!(end, textbed_machine::Step::Returned(42));
    }
    let new = word_of_43(bed, ret42);
    Story { ret42, alias: ret42 - bed.at(CODE, 0) + bed.at(ALIAS, 0), new }
}

fn result(bed: &mut Bed, cpu: CpuId, f: u64, args: &[u64]) -> u64 {
    match bed.call_on(cpu, f, args).end {
        textbed_machine::Step::Returned(value) => value,
        other => panic!("{} {cpu}: {other:?}", bed.arch()),
    }
}

#[test]
fn old_code_runs_until_it_is_synchronised_and_data_is_new_at_once() {
    for mut bed in stale_beds() {
        let arch = bed.arch();
        let s = story(&mut bed);
        let (store, load) = (bed.install("store_word"), bed.install("load_word"));
        let sync = bed.install("cachesync");
        // Installing synchronised; make the old bytes held again.
        assert_eq!(bed.run(s.ret42, &[]), 42);
        bed.run(store, &[s.alias, s.new.into()]);
        assert_eq!(bed.run(load, &[s.ret42]), u64::from(s.new), "{arch}: data is new");
        bed.forget_events();
        assert_eq!(bed.run(s.ret42, &[]), 42, "{arch}: the old code ran");
        let events = bed.events();
        let behind = events
            .events
            .iter()
            .any(|e| matches!(e.view(), View::Observed { behind, .. } if behind > 0));
        assert!(behind, "{arch}: and the machine says so");
        assert_eq!(bed.run(sync, &[s.alias]), 0);
        assert_eq!(bed.run(s.ret42, &[]), 43, "{arch}: the new code ran");
    }
}

#[test]
fn without_the_choice_of_staleness_the_new_code_runs() {
    for arch in ARCHES {
        for mut bed in [newest(arch), newest(arch).freely()] {
            let s = story(&mut bed);
            let store = bed.install("store_word");
            bed.run(store, &[s.alias, s.new.into()]);
            assert_eq!(bed.run(s.ret42, &[]), 43, "{arch}");
        }
    }
}

#[test]
fn each_half_of_the_chain_alone_is_not_enough_on_arm64() {
    let parts: [(&[&str], u64); 6] = [
        (&["clean_line"], 42),
        (&["invalidate_line", "sync_core"], 42),
        (&["clean_line", "sync_core"], 42),
        (&["clean_line", "invalidate_line"], 42),
        (&["clean_line", "invalidate_line", "sync_core"], 43),
        (&["cachesync"], 43),
    ];
    let beds = || [stalest(Arch::Arm64), stalest(Arch::Arm64).freely()];
    for ((names, expected), mut bed) in parts.into_iter().flat_map(|p| beds().map(|b| (p, b))) {
        let s = story(&mut bed);
        let store = bed.install("store_word");
        let routines: Vec<u64> = names.iter().map(|n| bed.install(n)).collect();
        assert_eq!(bed.run(s.ret42, &[]), 42);
        bed.run(store, &[s.alias, s.new.into()]);
        for routine in routines {
            bed.run(routine, &[s.alias]);
        }
        assert_eq!(bed.run(s.ret42, &[]), expected, "{names:?}");
    }
}

#[test]
fn one_routine_that_pokes_and_calls_needs_the_chain() {
    for mut bed in [stalest(Arch::Arm64), stalest(Arch::Ppc64le), stalest(Arch::Ppc64)] {
        let arch = bed.arch();
        for (name, expected) in [("poke_call", 42), ("poke_sync_call", 43)] {
            let f = bed.install(name);
            let ret42 = bed.install("ret42");
            let rwx = ret42 - bed.at(CODE, 0) + bed.at(RWX, 0);
            let new = word_of_43(&mut bed, ret42);
            assert_eq!(bed.run(rwx, &[]), 42);
            assert_eq!(bed.run(f, &[rwx, new.into(), rwx]), expected, "{arch} {name}");
        }
    }
}

#[test]
fn another_cpu_needs_its_own_synchronisation() {
    for mut bed in stale_beds() {
        let arch = bed.arch();
        let s = story(&mut bed);
        let (store, sync) = (bed.install("store_word"), bed.install("cachesync"));
        let sync_core = bed.install("sync_core");
        for cpu in [CPU0, CPU1] {
            assert_eq!(result(&mut bed, cpu, s.ret42, &[]), 42);
        }
        bed.run(store, &[s.alias, s.new.into()]);
        bed.run(sync, &[s.alias]);
        assert_eq!(result(&mut bed, CPU0, s.ret42, &[]), 43, "{arch}: the CPU that did it");
        assert_eq!(result(&mut bed, CPU1, s.ret42, &[]), 42, "{arch}: fetched ahead");
        result(&mut bed, CPU1, sync_core, &[]);
        assert_eq!(result(&mut bed, CPU1, s.ret42, &[]), 43, "{arch}: synchronised");
    }
}

/// A core with instruction lines of 128 bytes and one with 64, on caches of sets and ways: nothing
/// but what was executed is old, whatever the policy.
#[test]
fn code_that_goes_by_the_lines_of_the_cpu_it_started_on_leaves_old_code_on_another() {
    let mut config = MachineConfig::new(Arch::Arm64);
    let big = CacheGeometry { dline_bytes: 64, iline_bytes: 128 };
    config.own_geometry = vec![(CPU0, big)];
    config.icache = InstructionCache::Sets { sets: 128, ways: 2 };
    let mut bed = Bed::new(config, Box::new(Newest));
    let ctr = bed.install_bytes(&[0xd53b_0020_u32, 0xd65f_03c0].map(u32::to_le_bytes).concat());
    let iline = |bed: &mut Bed, cpu| 4 << (result(bed, cpu, ctr, &[]) & 15);
    let lines = [iline(&mut bed, CPU0), iline(&mut bed, CPU1)];
    assert_eq!(lines, [128, 64]);
    let smallest = bed.m.header().iline_bytes.into();
    // Two functions 64 bytes apart, in one line of CPU 0 and in two of CPU 1.
    let [mov, ret] = [0x5280_0540_u32, 0xd65f_03c0]; // mov w0, #42
    let mut bytes = [mov, ret].map(u32::to_le_bytes).concat();
    bytes.resize(64, 0);
    bytes.extend([mov, ret].map(u32::to_le_bytes).concat());
    let f = bed.install_bytes(&bytes);
    let (store, sync) = (bed.install("store_word"), bed.install("cachesync_range"));
    let alias = f - bed.at(CODE, 0) + bed.at(ALIAS, 0);
    let sync_core = bed.install("sync_core");
    let mut number = 42;
    for (stride, other) in [(lines[0], 42), (smallest, 44)] {
        for cpu in [CPU0, CPU1] {
            for at in [f, f + 64] {
                assert_eq!(result(&mut bed, cpu, at, &[]), number);
            }
        }
        let to = if number == 42 { 43 } else { 44 };
        for at in [alias, alias + 64] {
            bed.run(store, &[at, u64::from(mov) + ((to - 42) << 5)]);
        }
        bed.run(sync, &[alias, 128, stride]);
        result(&mut bed, CPU1, sync_core, &[]);
        assert_eq!(bed.run(f, &[]), to);
        assert_eq!(bed.run(f + 64, &[]), to, "CPU 0 has what it invalidated");
        assert_eq!(result(&mut bed, CPU1, f, &[]), to);
        assert_eq!(result(&mut bed, CPU1, f + 64, &[]), other, "by lines of {stride}");
        number = to;
        if other != to {
            // Mended by one more invalidation.
            bed.run(sync, &[alias, 128, smallest]);
            result(&mut bed, CPU1, sync_core, &[]);
        }
    }
}
