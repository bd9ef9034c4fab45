//! What others do inside of calls: where they get in, what they find there, who waits for whom, and
//! that a call does the same whoever runs meanwhile.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_under, boot_with, run, values};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, Features, Perm, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_kernel::{Arg, Progress, Wait};
use textbed_machine::{Newest, SplitMix64, Stalest};

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const ME: CpuId = CpuId(0);
const OTHER: CpuId = CpuId(1);

fn on_two() -> (Features, u16) {
    (Features::default_for(Arch::X86_64), 2)
}

fn stalest(version: &str, arch: Arch) -> Bed {
    let machine = (Features::default_for(arch), 2);
    boot_under(version, arch, &[], machine, Box::new(Stalest))
}

fn stores(bed: &mut Bed, at: u64) -> bool {
    bed.kernel.machine_mut().store(OTHER, VirtAddr(at), &[1], MemOrder::Plain).is_ok()
}

fn perm(bed: &Bed, at: u64) -> Option<Perm> {
    bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).map(|leaf| leaf.perm)
}

#[test]
fn a_change_of_permissions_is_seen_entry_first_and_by_who_holds_a_translation_last() {
    for arch in ARCHS {
        for version in ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"] {
            let mut bed = stalest(version, arch);
            let a = bed.area("a", "vmalloc", FRAME_BYTES);
            assert!(stores(&mut bed, a));
            let mut seen = Vec::new();
            let args = values(&[a, 1]);
            let done = run(&mut bed, ME, ("set_memory_ro", &args), |bed| {
                let entry = perm(bed, a).is_some_and(Perm::writable);
                seen.push((entry, stores(bed, a)));
            });
            assert_eq!(done, 0);
            assert!(!stores(&mut bed, a), "{arch} {version}");
            // Written by an entry that is gone already, and by no later moment once that is over.
            let stale = seen.iter().filter(|s| **s == (false, true)).count();
            assert!(stale > 0, "{arch} {version}: {seen:?}");
            let order = |s: &(bool, bool)| u8::from(s.0) + u8::from(s.1);
            assert!(seen.is_sorted_by(|a, b| order(a) >= order(b)), "{arch} {version}: {seen:?}");
        }
    }
}

#[test]
fn an_area_that_goes_away_is_found_no_more_then_unmapped_then_its_frames_are_free() {
    for arch in ARCHS {
        for reset in [false, true] {
            let mut bed = stalest("6.12", arch);
            let a = bed.area("a", "vmalloc", FRAME_BYTES);
            if reset {
                bed.call("set_vm_flush_reset_perms", &[a]);
            }
            assert!(stores(&mut bed, a));
            bed.trace();
            let mut moments = Vec::new();
            run(&mut bed, ME, ("vfree", &values(&[a])), |bed| {
                let found = bed.kernel.areas().find(VirtAddr(a)).is_some();
                let free = bed.trace().iter().any(|l| l.contains("frames -1"));
                moments.push((found, perm(bed, a).is_some(), free, stores(bed, a)));
            });
            assert!(moments.iter().all(|m| !m.0), "{arch}: {moments:?}");
            assert!(moments.iter().any(|m| m.1) && moments.iter().any(|m| !m.1), "{moments:?}");
            // Without a flush before, who holds a translation writes to what may be another's.
            let late = moments.iter().any(|m| m.2 && m.3);
            assert_eq!(late, !reset, "{arch} reset {reset}: {moments:?}");
        }
    }
}

/// Whoever gets the frames next may map them before vfree returns.
#[test]
fn what_is_promised_of_frames_is_told_before_anybody_else_can_have_them() {
    for arch in ARCHS {
        let mut bed = stalest("6.12", arch);
        let a = bed.area("a", "vmalloc", 3 * FRAME_BYTES);
        bed.call("set_vm_flush_reset_perms", &[a]);
        bed.trace();
        let (mut lines, mut free) = (Vec::new(), 0);
        run(&mut bed, ME, ("vfree", &values(&[a])), |bed| {
            lines.extend(bed.trace());
            let of = |what: &str| lines.iter().any(|l| l.contains(what));
            assert_eq!(of("frames -"), of("promised NoAccess"), "{arch}: {lines:#?}");
            free += u32::from(of("frames -"));
        });
        assert!(free > 0, "{arch}: {lines:#?}");
    }
}

/// Also where nobody but the one who unmapped had made a call by then.
#[test]
fn who_purges_learns_of_who_unmapped() {
    for second_calls_first in [false, true] {
        let mut bed = stalest("6.12", Arch::Arm64);
        let a = bed.area("a", "vmalloc", FRAME_BYTES);
        if second_calls_first {
            run(&mut bed, OTHER, ("vm_unmap_aliases", &[]), |_| {});
        }
        bed.trace();
        bed.call("vfree", &[a]);
        run(&mut bed, OTHER, ("vm_unmap_aliases", &[]), |_| {});
        let trace = bed.trace();
        let at = |what: &str| trace.iter().rposition(|l| l.starts_with(what));
        let (told, learned, flush) = (at("0 Publish"), at("1 Observe"), at("1 tlbi"));
        assert!(told.is_some() && told < learned && learned < flush, "{trace:#?}");
    }
}

#[test]
fn what_a_purge_flushed_is_what_it_frees() {
    // Freed by another CPU between the flush and its end: that range was not flushed.
    let mut bed = boot_with("6.12", Arch::X86_64, &[], Features::default_for(Arch::X86_64), 2);
    let first = bed.area("a", "vmalloc", FRAME_BYTES);
    let second = bed.area("b", "vmalloc", FRAME_BYTES);
    let third = bed.area("c", "vmalloc", FRAME_BYTES);
    bed.call("vfree", &[first]);
    let mut freed = false;
    run(&mut bed, ME, ("set_memory_nx", &values(&[third, 1])), |bed| {
        if !freed {
            freed = true;
            run(bed, OTHER, ("vfree", &values(&[second])), |_| {});
        }
    });
    let waiting = bed.call("vmalloc", &[FRAME_BYTES]) as u64;
    assert_eq!(waiting, first, "what was purged is free again");
    let next = bed.call("vmalloc", &[FRAME_BYTES]) as u64;
    assert_ne!(next, second, "what was not flushed is not given out");
}

#[test]
fn a_call_in_one_piece_has_who_holds_a_lock_go_on() {
    let mut bed = boot_with("6.12", Arch::X86_64, &[], Features::default_for(Arch::X86_64), 2);
    let a = bed.area("a", "vmalloc", 3 * FRAME_BYTES);
    let b = bed.area("b", "vmalloc", FRAME_BYTES);
    let begun = bed.kernel.begin(ME, "set_memory_ro", &values(&[a, 3])).unwrap();
    assert_eq!(begun, Progress::More);
    // The area's entries have changed, and the lock is free until the alias's are.
    assert!(perm(&bed, a).is_some_and(|p| !p.writable()));
    assert_eq!(bed.kernel.machine().lock_holder("cpa_lock"), None);
    while bed.kernel.machine().lock_holder("cpa_lock") != Some(ME) {
        assert_eq!(bed.kernel.resume(ME).unwrap(), Progress::More);
    }
    bed.trace();
    let got = bed.kernel.call(OTHER, "set_direct_map_invalid_noflush", &values(&[b])).unwrap();
    assert_eq!(got.value, 0);
    let trace = bed.trace();
    let at = |what: &str| trace.iter().position(|l| l == what).unwrap();
    assert!(at("0 unlock cpa_lock") < at("1 lock cpa_lock"), "{trace:#?}");
    // It still has its flush before it.
    assert!(bed.kernel.is_under_way(ME));
    let mut progress = Progress::More;
    while progress == Progress::More {
        progress = bed.kernel.resume(ME).unwrap();
    }
    assert!(matches!(progress, Progress::Done(v) if v.value == 0));
    assert!(perm(&bed, a).is_some_and(|p| !p.writable()));
    assert_eq!(bed.kernel.machine().lock_holder("cpa_lock"), None);
}

/// x86: another CPU changes the same large leaf of the direct map while this one waits for the page
/// that its table is made of. The leaf is split once; both changes are there.
#[test]
fn a_leaf_that_somebody_else_split_meanwhile_is_not_split_again() {
    for (debug, moment) in ["off", "on"].into_iter().flat_map(|d| (0..6).map(move |m| (d, m))) {
        let options = [("debug_pagealloc", debug)];
        let mut bed = boot_under("6.12", Arch::X86_64, &options, on_two(), Box::new(Newest));
        let large = bed.area("large", "vmalloc_huge", 2 << 20);
        let (a, b) = (large, large + FRAME_BYTES);
        bed.trace();
        let mut moments = 0;
        let done = run(&mut bed, ME, ("set_memory_ro", &values(&[a, 1])), |bed| {
            let free = bed.kernel.machine().lock_holder("cpa_lock").is_none();
            if moments == moment && free {
                let args = values(&[b, 1]);
                assert_eq!(run(bed, OTHER, ("set_memory_ro", &args), |_| {}), 0);
            } else if moments == moment {
                return;
            }
            moments += 1;
        });
        assert!(done == 0 && moments > moment, "debug_pagealloc={debug} {moment}");
        let trace = bed.trace();
        let splits = trace.iter().filter(|l| l.contains("leaf large+0x0 512x2M>4K")).count();
        assert_eq!(splits, 1, "debug_pagealloc={debug} {moment}: {trace:#?}");
        let locks = trace.iter().any(|l| l.contains("lock cpa_lock"));
        assert_eq!(locks, debug == "off", "{trace:#?}");
        for at in [a, b] {
            assert!(perm(&bed, at).is_some_and(|p| !p.writable()));
        }
        assert!(perm(&bed, b + FRAME_BYTES).is_some_and(Perm::writable));
    }
}

/// Who waits for a lock whose holder waits for another one: both holders go on.
#[test]
fn holders_of_locks_go_on_one_behind_the_other() {
    let mut bed = boot_with("6.12", Arch::X86_64, &[], Features::default_for(Arch::X86_64), 3);
    let gone = bed.area("a", "vmalloc", FRAME_BYTES);
    bed.call("vfree", &[gone]);
    let purger = CpuId(2);
    assert_eq!(bed.kernel.begin(purger, "vm_unmap_aliases", &[]).unwrap(), Progress::More);
    let mut progress = bed.kernel.begin(OTHER, "bpf_prog_pack_alloc", &values(&[64])).unwrap();
    while progress == Progress::More {
        progress = bed.kernel.resume(OTHER).unwrap();
    }
    assert_eq!(progress, Progress::Waits(Wait::Lock("vmap_purge_lock".to_owned())));
    assert_eq!(bed.kernel.machine().lock_holder("pack_mutex"), Some(OTHER));
    bed.trace();
    let room = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
    let trace = bed.trace();
    let at = |what: &str| trace.iter().position(|l| l == what).unwrap();
    assert!(at("2 unlock vmap_purge_lock") < at("1 unlock pack_mutex"), "{trace:#?}");
    assert!(at("1 unlock pack_mutex") < at("0 lock pack_mutex"), "{trace:#?}");
    let theirs = bed.kernel.resume(OTHER).unwrap();
    assert!(matches!(theirs, Progress::Done(v) if v.value as u64 + 64 == room), "{theirs:?}");
}

#[test]
fn a_call_that_ended_while_somebody_waited_for_its_lock_still_returns() {
    let mut bed = boot_with("6.12", Arch::X86_64, &[], Features::default_for(Arch::X86_64), 2);
    let a = bed.area("a", "vmalloc", FRAME_BYTES);
    let gone = bed.area("b", "vmalloc", FRAME_BYTES);
    bed.call("vfree", &[gone]);
    assert_eq!(bed.kernel.begin(ME, "vm_unmap_aliases", &[]).unwrap(), Progress::More);
    assert_eq!(bed.kernel.machine().lock_holder("vmap_purge_lock"), Some(ME));
    bed.trace();
    let got = bed.kernel.call(OTHER, "set_memory_ro", &values(&[a, 1])).unwrap();
    assert_eq!(got.value, 0);
    let trace = bed.trace();
    let at = |what: &str| trace.iter().position(|l| l == what).unwrap();
    assert!(at("0 return 0") < at("1 lock vmap_purge_lock"), "{trace:#?}");
    // It is told when it is asked for, and nothing else begins there before that.
    assert!(bed.kernel.is_under_way(ME));
    assert!(bed.kernel.begin(ME, "vm_unmap_aliases", &[]).is_err());
    assert!(matches!(bed.kernel.resume(ME).unwrap(), Progress::Done(v) if v.value == 0));
    assert!(!bed.kernel.is_under_way(ME));
}

#[test]
fn a_lock_that_was_taken_across_calls_is_not_waited_for_inside_of_one() {
    let mut bed = boot_with("6.12", Arch::Arm64, &[], Features::default_for(Arch::Arm64), 2);
    let a = bed.area("a", "vmalloc", FRAME_BYTES);
    let write = |at: u64| values(&[at, 0xd503_201f]);
    bed.kernel.machine_mut().lock(OTHER, "patch_lock").unwrap();
    // Taken across calls: nobody's step releases it.
    let got = bed.kernel.call(ME, "aarch64_insn_write", &write(a));
    let error = got.unwrap_err().to_string();
    assert!(error.contains("waiting for patch_lock, in the middle of the call"), "{error}");
}

#[test]
fn cpus_arrive_and_leave_one_by_one_where_all_stop() {
    for (arch, name) in [(Arch::Arm64, "aarch64_insn_patch_text"), (Arch::X86_64, "stop_machine")] {
        let mut bed = boot_with("6.12", arch, &[], Features::default_for(arch), 3);
        let a = bed.area("a", "vmalloc", FRAME_BYTES);
        let args = match arch {
            Arch::Arm64 => vec![Arg::Value(a), Arg::Code(vec![0x1f, 0x20, 0x03, 0xd5])],
            _ => Vec::new(),
        };
        bed.trace();
        let mut held = Vec::new();
        run(&mut bed, ME, (name, &args), |bed| {
            held.push([CpuId(1), CpuId(2)].map(|cpu| bed.kernel.is_held(cpu)));
            // Who waits for the last one takes interrupts.
            if held.len() == 1 {
                assert!(bed.kernel.machine().irqs_on(CpuId(1)));
            }
        });
        held.dedup();
        let order = [[true, false], [true, true], [false, true], [false, false]];
        assert_eq!(held, order, "{arch}");
        assert!([1, 2].iter().all(|n| bed.kernel.machine().irqs_on(CpuId(*n))));
        // One with interrupts off, or with a spin lock, does not arrive.
        bed.kernel.machine_mut().set_irqs(CpuId(2), false);
        let mut progress = bed.kernel.begin(ME, name, &args).unwrap();
        while progress == Progress::More {
            progress = bed.kernel.resume(ME).unwrap();
        }
        assert_eq!(progress, Progress::Waits(Wait::Cpus(vec![CpuId(2)])), "{arch}");
        assert!(bed.kernel.is_held(CpuId(1)) && !bed.kernel.is_held(CpuId(2)));
        bed.kernel.machine_mut().set_irqs(CpuId(2), true);
        while !matches!(progress, Progress::Done(_)) {
            progress = bed.kernel.resume(ME).unwrap();
        }
    }
}

/// Calls on an area of three pages: what a loader of code and its end do.
fn story(arch: Arch, area: u64) -> Vec<(&'static str, Vec<Arg>)> {
    let code = match arch {
        Arch::X86_64 => vec![0x90; 0x1800],
        Arch::Arm64 => [0x1f, 0x20, 0x03, 0xd5].repeat(0x600),
        _ => [0, 0, 0, 0x60].repeat(0x600),
    };
    let copy = |at: u64| vec![Arg::Value(at), Arg::Code(code.clone())];
    let mut calls = vec![
        ("set_memory_ro", values(&[area, 3])),
        ("set_memory_x", values(&[area, 2])),
        ("bpf_arch_text_copy", copy(area + 0x400)),
        ("bpf_arch_text_invalidate", values(&[area, 64])),
        ("set_memory_nx", values(&[area + 0x1000, 1])),
        ("set_memory_rw", values(&[area + 0x2000, 1])),
    ];
    match arch {
        Arch::X86_64 => calls.push(("text_poke_set", values(&[area + 0x100, 0xcc, 0x40]))),
        Arch::Arm64 => {
            calls.push(("aarch64_insn_patch_text_nosync", values(&[area, 0xd503_201f])));
            let few = Arg::Code(code[..32].to_vec());
            calls.push(("aarch64_insn_patch_text", vec![Arg::Value(area + 0x800), few]));
        }
        _ => {
            calls.push(("patch_instruction", values(&[area, 0x6000_0000])));
            calls.push(("patch_branch", values(&[area + 4, area + 8, 0])));
        }
    }
    calls
}

/// What two CPUs leave behind, each with an area of its own, in the order that `next` says.
fn left(
    version: &str,
    arch: Arch,
    mut next: impl FnMut() -> usize,
) -> (Vec<i64>, Vec<String>, u32) {
    let machine = (Features::default_for(arch), 2);
    let mut bed = boot_under(version, arch, &[], machine, Box::new(Newest));
    let areas =
        [bed.area("a", "vmalloc", 3 * FRAME_BYTES), bed.area("b", "vmalloc", 3 * FRAME_BYTES)];
    let stories = areas.map(|area| story(arch, area));
    let (mut at, mut results, mut waits) = ([0, 0], vec![vec![], vec![]], 0);
    while (0..2).any(|n| at[n] < stories[n].len()) {
        let n = next();
        let Some((name, args)) = stories[n].get(at[n]) else { continue };
        let cpu = CpuId(n as u16);
        if bed.kernel.is_held(cpu) {
            continue;
        }
        let progress = match bed.kernel.is_under_way(cpu) {
            true => bed.kernel.resume(cpu),
            false => bed.kernel.begin(cpu, name, args),
        };
        match progress.unwrap_or_else(|e| panic!("{arch} {version}: {e}")) {
            Progress::Done(value) => {
                results[n].push(value.value);
                at[n] += 1;
            }
            Progress::More => {}
            Progress::Waits(_) => waits += 1,
        }
    }
    let mut state = Vec::new();
    for area in areas {
        for page in (0..3).map(|n| area + n * FRAME_BYTES) {
            let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(page)).unwrap();
            let mut bytes = [0; FRAME_BYTES as usize];
            bed.kernel.machine().read_phys(leaf.phys, &mut bytes).unwrap();
            let alias = bed.kernel.direct_map_of(leaf.phys.pfn()).unwrap().0;
            let text = format!("{} {:?} {bytes:?}", leaf.perm.letters(), perm(&bed, alias));
            state.push(text);
        }
    }
    for lock in ["cpa_lock", "vmap_purge_lock", "text_mutex", "patch_lock", "pgtable_split_lock"] {
        assert_eq!(bed.kernel.machine().lock_holder(lock), None, "{arch} {version}");
    }
    assert!([ME, OTHER].iter().all(|cpu| bed.kernel.machine().irqs_on(*cpu)));
    assert!(bed.kernel.areas().len() > 1);
    (results.concat(), state, waits)
}

#[test]
fn calls_leave_the_same_behind_in_whatever_order_their_steps_come() {
    for arch in ARCHS {
        for version in ["6.1", "7.0"] {
            let (mut turn, mut waited) = (0, 0);
            // One after the other.
            let lone = left(version, arch, || {
                turn += 1;
                usize::from(turn > 5000)
            });
            assert_eq!(lone.2, 0);
            for seed in 0..6 {
                let mut numbers = SplitMix64(seed);
                let mixed = left(version, arch, || numbers.below(2) as usize);
                assert_eq!((&mixed.0, &mixed.1), (&lone.0, &lone.1), "{arch} {version} {seed}");
                waited += mixed.2;
            }
            // powerpc's calls here take none of their own, but for BPF's later on.
            let locks = (arch, version) != (Arch::Ppc64le, "6.1");
            assert!(!locks || waited > 0, "{arch} {version}: nobody ever met a lock");
        }
    }
}

/// x86: each page with its alias behind it, before the next one; whoever changes another page of
/// the range meanwhile gets in between.
#[test]
fn pages_of_an_area_change_one_by_one_each_before_its_alias() {
    for version in ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"] {
        let mut bed = boot_under(version, Arch::X86_64, &[], on_two(), Box::new(Newest));
        let a = bed.area("a", "vmalloc", 2 * FRAME_BYTES);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        let writable = |bed: &Bed, at| perm(bed, at).is_some_and(Perm::writable);
        let mut seen = Vec::new();
        run(&mut bed, ME, ("set_memory_ro", &values(&[a, 2])), |bed| {
            seen.push([a, dm, a + FRAME_BYTES, dm + FRAME_BYTES].map(|at| writable(bed, at)));
        });
        seen.dedup();
        let states = (1..5).map(|changed| [0, 1, 2, 3].map(|n| n >= changed));
        assert_eq!(seen, states.collect::<Vec<_>>(), "{version}");
    }
}
