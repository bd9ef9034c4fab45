//! The machine's fetches on x86-64 (Intel and AMD) and Power: what a fetch may get, and what closes
//! it. Also, on every architecture: frames that are used again, and mappings that change.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use common::{KERNEL, P0, P1, Rig, code, runs};
use textbed_arch::{Arch, Features, Perm, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::CpuMask;

const INTEL: Features = Features::X86_PSE.union(Features::X86_PCID);
const AMD: Features = INTEL.union(Features::X86_AMD);
const COHERENT: Features = Features::PPC_RADIX.union(Features::PPC_COHERENT_ICACHE);
const INCOHERENT: Features = Features::PPC_RADIX;

#[track_caller]
fn window(
    (arch, features): (Arch, Features),
    low: u32,
    high: u32,
    program: impl Fn(&mut Rig) -> u32,
) {
    let seen = runs(|policy| Rig::new(arch, features, policy), program);
    let all: Vec<u32> = seen.all.iter().copied().collect();
    assert_eq!(all, (low..=high).collect::<Vec<_>>(), "{arch} {features:?}");
    assert_eq!((seen.stalest, seen.newest), (low, high), "{arch} {features:?}");
}

const X86: [(Arch, Features); 2] = [(Arch::X86_64, INTEL), (Arch::X86_64, AMD)];

#[test]
fn x86_another_cpu_needs_a_serialising_instruction() {
    // Instruction between, low end on Intel and on AMD.
    let rows = [
        ("", 0, 0),
        ("cpuid", 1, 1),
        ("iretq", 1, 1),
        ("invlpg", 1, 1),
        ("wbinvd", 1, 1),
        ("mfence", 0, 1),
        ("lfence", 0, 0),
        ("sfence", 0, 0),
        ("serialize", 1, 0),
        ("sysret", 0, 0),
        ("mov cr2", 1, 1),
        ("mov cr8", 0, 1),
    ];
    for (name, intel, amd) in rows {
        for (cpu, low) in [(X86[0], intel), (X86[1], amd)] {
            window(cpu, low, 1, |r| {
                r.str(P0, 0, 1);
                r.m.publish(P0, "flag", 1);
                r.m.observe(P1, "flag");
                if !name.is_empty() {
                    r.op(P1, name, 0);
                }
                r.fetch(P1, 0)
            });
        }
    }
}

#[test]
fn x86_an_interrupt_synchronises_at_its_return_only() {
    for cpu in X86 {
        let seen = runs(
            |policy| Rig::new(cpu.0, cpu.1, policy),
            |r| {
                r.str(P0, 0, 1);
                let code = r.code;
                let mut inside = 9;
                r.m.ipi(P0, CpuMask::one(P1), "look", true, &mut |m, cpu| {
                    inside = m.fetch(cpu, code, 4)?.bytes[0];
                    Ok(())
                })
                .unwrap();
                (u32::from(inside), r.fetch(P1, 0))
            },
        );
        assert_eq!(seen.all.into_iter().collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    }
}

/// The page is writable where it is executed.
fn rwx(r: &mut Rig) {
    let (set, none) = (Perm::WRITE, Perm::empty());
    r.m.protect(P0, KERNEL, r.code, 4096, set, none).unwrap();
    for cpu in [P0, P1] {
        r.m.op_named(cpu, "invlpg", r.code.0).unwrap();
    }
}

#[test]
fn x86_own_stores() {
    for (cpu, alias_low) in [(X86[0], 0), (X86[1], 1)] {
        // At the linear address that is executed.
        window(cpu, 1, 1, |r| {
            rwx(r);
            let v = r.code;
            r.m.store(P0, v, &0x1001u32.to_le_bytes(), MemOrder::Plain).unwrap();
            r.fetch(P0, 0)
        });
        // Through an alias.
        window(cpu, alias_low, 1, |r| {
            r.str(P0, 0, 1);
            r.fetch(P0, 0)
        });
        window(cpu, 1, 1, |r| {
            r.str(P0, 0, 1);
            r.op(P0, "cpuid", 0);
            r.fetch(P0, 0)
        });
        // Another CPU stored before: AMD's own store drops that, too.
        window(cpu, alias_low * 2, 2, |r| {
            r.str(P1, 0, 1);
            r.str(P0, 0, 2);
            r.fetch(P0, 0)
        });
        // First through the alias, then at the executed address: that is seen.
        window(cpu, 2, 2, |r| {
            rwx(r);
            r.str(P0, 0, 1);
            let v = r.code;
            r.m.store(P0, v, &0x1002u32.to_le_bytes(), MemOrder::Plain).unwrap();
            r.fetch(P0, 0)
        });
    }
}

#[test]
fn x86_amd_fetches_in_order_and_intel_need_not() {
    for (cpu, anchored) in [(X86[0], false), (X86[1], true)] {
        let seen = runs(
            |policy| Rig::new(cpu.0, cpu.1, policy),
            |r| {
                r.str(P0, 0, 1);
                r.str(P0, 0x200, 1);
                (r.fetch(P1, 0x200), r.fetch(P1, 0))
            },
        );
        assert_eq!(seen.all.contains(&(1, 0)), !anchored);
        assert!(seen.all.contains(&(0, 0)) && seen.all.contains(&(0, 1)));
    }
}

#[test]
fn power_coherent_needs_sync_and_isync() {
    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        let cpu = (arch, COHERENT);
        window(cpu, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["sync", "icbi", "sync"], 0);
            r.fetch(P0, 0)
        });
        window(cpu, 1, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["sync", "icbi", "sync", "isync"], 0);
            r.fetch(P0, 0)
        });
        window(cpu, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.op(P0, "isync", 0);
            r.fetch(P0, 0)
        });
        window(cpu, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["sync", "icbi", "sync", "isync"], 0);
            r.fetch(P1, 0)
        });
    }
}

#[test]
fn power_incoherent_needs_every_step() {
    let parts = ["dcbst", "sync", "icbi", "sync", "isync"];
    let cpu = (Arch::Ppc64le, INCOHERENT);
    window(cpu, 1, 1, |r| {
        r.str(P0, 0, 1);
        r.ops(P0, &parts, 0);
        r.fetch(P0, 0)
    });
    for left_out in 0..parts.len() {
        window(cpu, 0, 1, |r| {
            r.str(P0, 0, 1);
            for (n, part) in parts.iter().enumerate() {
                if n != left_out {
                    r.op(P0, part, 0);
                }
            }
            r.fetch(P0, 0)
        });
    }
    // Another thread needs its own isync.
    for (isync, low) in [(true, 1), (false, 0)] {
        window(cpu, low, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &parts[..4], 0);
            r.m.publish(P0, "flag", 1);
            r.m.observe(P1, "flag");
            if isync {
                r.op(P1, "isync", 0);
            }
            r.fetch(P1, 0)
        });
    }
}

const EVERY: [(Arch, Features); 6] = [
    X86[0],
    X86[1],
    (Arch::Arm64, Features::empty()),
    (Arch::Arm64, Features::ARM_IDC.union(Features::ARM_DIC)),
    (Arch::Ppc64le, COHERENT),
    (Arch::Ppc64le, INCOHERENT),
];

/// What a CPU does to drop what it fetched ahead.
fn context_sync(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "cpuid",
        Arch::Arm64 => "isb",
        _ => "isync",
    }
}

#[test]
fn code_written_before_its_first_mapping_is_new_where_caches_are_coherent() {
    for (arch, features) in EVERY {
        let low = match arch {
            Arch::X86_64 => 1,
            Arch::Arm64 => u32::from(features.contains(Features::ARM_DIC)),
            _ => u32::from(features.contains(Features::PPC_COHERENT_ICACHE)),
        };
        window((arch, features), low, 1, |r| {
            let (v, len) = (r.code, 4 << 12);
            r.m.unmap(P0, KERNEL, v, len).unwrap();
            flush_all(r);
            r.str(P0, 0, 1);
            r.m.map(P0, KERNEL, v, r.phys, len, 12, Perm::KERNEL_ROX).unwrap();
            r.op(P0, context_sync(arch), 0);
            r.fetch(P0, 0)
        });
    }
}

/// Every CPU forgets every translation, and what it fetched ahead.
fn flush_all(r: &mut Rig) {
    let arch = r.m.arch();
    for cpu in [P0, P1] {
        match arch {
            Arch::X86_64 => r.m.op_with(cpu, row(arch, "invpcid"), &[2]).unwrap(),
            Arch::Arm64 => r.ops(cpu, &["dsb ish", "tlbi vmalle1is", "dsb ish"], 0),
            _ => {
                r.op(cpu, "ptesync", 0);
                r.m.op_with(cpu, row(arch, "tlbie"), &[3 << 10]).unwrap();
                r.ops(cpu, &["eieio", "tlbsync", "ptesync"], 0);
            }
        }
        r.op(cpu, context_sync(arch), 0);
    }
}

fn row(arch: Arch, name: &str) -> &'static textbed_arch::insn::Row {
    textbed_arch::insn::by_name(arch, name).unwrap()
}

#[test]
fn a_frame_used_again_keeps_its_past() {
    // Old code of a frame, at another address, after everything but the instruction caches forgot.
    for (arch, features) in EVERY {
        let unified = arch == Arch::X86_64
            || features.intersects(Features::ARM_DIC | Features::PPC_COHERENT_ICACHE);
        window((arch, features), u32::from(unified), 1, |r| {
            let other = code(arch).offset(64 << 20);
            r.fetch(P1, 0);
            r.m.unmap(P0, KERNEL, r.code, 4 << 12).unwrap();
            flush_all(r);
            r.m.free_frames(P0, r.phys.pfn(), 4).unwrap();
            let again = r.m.alloc_frames(P0, 4, 12, false).unwrap();
            assert_eq!(again.addr(), r.phys);
            r.str(P0, 0, 1);
            r.m.map(P0, KERNEL, other, r.phys, 4 << 12, 12, Perm::KERNEL_ROX).unwrap();
            r.op(P1, context_sync(arch), 0);
            r.fetch_at(P1, other)
        });
    }
}

#[test]
fn instructions_fetched_ahead_outlive_their_translation() {
    for (arch, features) in EVERY {
        for sync in [false, true] {
            let seen = runs(
                |policy| Rig::new(arch, features, policy),
                |r| {
                    let v = r.code;
                    r.m.unmap(P0, KERNEL, v, 4 << 12).unwrap();
                    invalidate(r, v);
                    if sync {
                        r.op(P1, context_sync(arch), 0);
                    }
                    r.m.fetch(P1, v, 4).is_ok()
                },
            );
            let got: Vec<bool> = seen.all.into_iter().collect();
            // x86: the invalidation itself is local and serialises.
            let outlives = !sync && arch != Arch::X86_64;
            let expected = if outlives { vec![false, true] } else { vec![false] };
            assert_eq!(got, expected, "{arch} {features:?} {sync}");
        }
    }
}

#[test]
fn what_was_fetched_ahead_comes_from_the_frame_of_that_time() {
    for (arch, features) in EVERY.into_iter().filter(|(arch, _)| *arch != Arch::X86_64) {
        window((arch, features), 0, 1, |r| {
            let v = r.code;
            let other = r.m.alloc_frames(P0, 1, 12, false).unwrap();
            r.m.load_image(other.addr(), &0x1001u32.to_le_bytes().repeat(1024)).unwrap();
            r.m.unmap(P0, KERNEL, v, 4096).unwrap();
            invalidate(r, v);
            r.m.map(P0, KERNEL, v, other.addr(), 4096, 12, Perm::KERNEL_ROX).unwrap();
            // The new translation is held by now; what was fetched is another matter.
            r.m.load(P1, v, &mut [0; 4]).unwrap();
            r.fetch(P1, 0)
        });
    }
}

/// The complete invalidation of one page, on the two CPUs.
fn invalidate(r: &mut Rig, v: VirtAddr) {
    match r.m.arch() {
        Arch::X86_64 => {
            for cpu in [P0, P1] {
                r.m.op_named(cpu, "invlpg", v.0).unwrap();
            }
        }
        Arch::Arm64 => {
            r.op(P0, "dsb ishst", 0);
            r.m.tlbi(P0, "tlbi vaale1is", v, 4 << 12, 0).unwrap();
            r.op(P0, "dsb ish", 0);
        }
        _ => {
            r.op(P0, "ptesync", 0);
            r.m.tlbi(P0, "tlbie", v, 4 << 12, 0).unwrap();
            r.ops(P0, &["eieio", "tlbsync", "ptesync"], 0);
        }
    }
}
