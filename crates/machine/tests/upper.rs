//! Caches of upper table levels: a table page that was freed is still walked, and a right that an
//! upper entry lost is still there.

#![allow(clippy::unwrap_used)]

use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{Choice, Machine, MachineConfig, Newest, Policy};

const P0: CpuId = CpuId(0);
const P1: CpuId = CpuId(1);
const KERNEL: SpaceId = SpaceId::KERNEL;

/// Upper entries are held, leaves are not; the last translation is used.
struct Upper;

impl Policy for Upper {
    fn choose(&mut self, choice: &Choice) -> usize {
        match choice {
            Choice::UpperFill { .. } => 1,
            Choice::Translation { options, .. } => options - 1,
            _ => 0,
        }
    }
}

/// 2 MiB in small pages are collapsed, flushed by `flush`, and the table's page becomes somebody's
/// whose contents happen to be entries; what the other CPU then reads at the first address.
fn read_after(arch: Arch, policy: Box<dyn Policy>, flush: &dyn Fn(&mut Machine, VirtAddr)) -> u8 {
    let at = VirtAddr(match arch {
        Arch::X86_64 => 0xffff_ffff_8000_0000,
        Arch::Arm64 => 0xffff_8000_8000_0000,
        _ => 0xc008_0000_0000_0000,
    });
    let mut m = Machine::new(MachineConfig::new(arch), policy).unwrap();
    let block = m.alloc_frames(P0, 512, 21, false).unwrap().addr();
    let other = m.alloc_frames(P0, 1, 12, false).unwrap().addr();
    m.load_image(block, &[1]).unwrap();
    m.load_image(other, &[2]).unwrap();
    m.map(P0, KERNEL, at, block, 2 << 20, 12, Perm::KERNEL_RW).unwrap();
    // What the freed table will hold: a leaf that leads to the other frame.
    let table = {
        let spare = VirtAddr(at.0 + (1 << 30));
        m.map(P0, KERNEL, spare, other, 4096, 12, Perm::KERNEL_RW).unwrap();
        let root = m.root(KERNEL).unwrap();
        let mut read = |addr| {
            let mut bytes = [0; 8];
            m.read_phys(addr, &mut bytes).unwrap();
            Some(m.format().entry_from_bytes(bytes))
        };
        let leaf = *m.format().walk(root, spare, &mut read).path().last().unwrap();
        let there = m.format().walk(root, at, &mut read).path().last().unwrap().addr;
        let mut raw = [0; 8];
        m.read_phys(leaf.addr, &mut raw).unwrap();
        (there, raw)
    };
    m.collapse(P0, KERNEL, at).unwrap();
    flush(&mut m, at);
    m.load_image(table.0, &table.1).unwrap();
    let mut byte = [0];
    m.load(P1, at, &mut byte).unwrap();
    byte[0]
}

fn tlbi(name: &'static str) -> impl Fn(&mut Machine, VirtAddr) {
    move |m, at| {
        m.op_named(P0, "dsb ishst", 0).unwrap();
        m.op_named(P0, name, at.0 >> 12 & ((1 << 44) - 1)).unwrap();
        m.op_named(P0, "dsb ish", 0).unwrap();
    }
}

#[test]
fn only_an_invalidation_of_every_level_keeps_walks_out_of_a_freed_table() {
    let nothing = |_: &mut Machine, _: VirtAddr| {};
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        assert_eq!(read_after(arch, Box::new(Newest), &nothing), 1, "{arch}");
        assert_eq!(read_after(arch, Box::new(Upper), &nothing), 2, "{arch}");
    }
    let arm = |name| read_after(Arch::Arm64, Box::new(Upper), &tlbi(name));
    assert_eq!(arm("tlbi vaale1is"), 2, "the last level alone");
    assert_eq!(arm("tlbi vaae1is"), 1);
    assert_eq!(arm("tlbi vmalle1is"), 1);
    assert_eq!(arm("tlbi vaae1"), 2, "another CPU's");
    // x86-64: any INVLPG of the CPU takes them all.
    let elsewhere = |m: &mut Machine, at: VirtAddr| {
        m.op_named(P1, "invlpg", at.0 + (1 << 30)).unwrap();
    };
    assert_eq!(read_after(Arch::X86_64, Box::new(Upper), &elsewhere), 1);
}

/// A page that could be stored to, below an entry of `level` that lost that right; whether another
/// CPU still stores there after `flush`.
fn stores_after(arch: Arch, level: usize, flush: &dyn Fn(&mut Machine, VirtAddr)) -> bool {
    let at = VirtAddr(match arch {
        Arch::X86_64 => 0xffff_ffff_8000_0000,
        _ => 0xffff_8000_8000_0000,
    });
    let mut m = Machine::new(MachineConfig::new(arch), Box::new(Upper)).unwrap();
    let frame = m.alloc_frames(P0, 1, 12, false).unwrap().addr();
    m.map(P0, KERNEL, at, frame, 4096, 12, Perm::KERNEL_RW).unwrap();
    m.store(P1, at, &[1], MemOrder::Plain).unwrap();
    m.protect_table(P0, KERNEL, at, level, (Perm::empty(), Perm::WRITE)).unwrap();
    assert_eq!(m.lookup(KERNEL, at).unwrap().perm, Perm::KERNEL_RO);
    flush(&mut m, at);
    m.store(P1, at, &[2], MemOrder::Plain).is_ok()
}

#[test]
fn a_right_that_an_upper_entry_lost_is_there_until_every_level_is_invalidated() {
    let arm = |level, name| stores_after(Arch::Arm64, level, &tlbi(name));
    for level in [1, 2] {
        assert!(stores_after(Arch::Arm64, level, &|_, _| {}));
        assert!(arm(level, "tlbi vaale1is"), "the last level alone");
        assert!(arm(level, "tlbi vaae1"), "another CPU's");
        assert!(!arm(level, "tlbi vaae1is"));
        assert!(!arm(level, "tlbi vmalle1is"));
    }
    // Lower entries have the right by their own addresses: those of the next page are not these.
    let beside = |bytes: u64| {
        move |m: &mut Machine, at: VirtAddr| {
            tlbi("tlbi vaale1is")(m, at);
            tlbi("tlbi vaae1is")(m, at.offset(bytes));
        }
    };
    assert!(stores_after(Arch::Arm64, 1, &beside(2 << 20)));
    assert!(!stores_after(Arch::Arm64, 1, &beside(1 << 20)));
    // x86-64: there is no invalidation of the last level alone.
    let here = |m: &mut Machine, at: VirtAddr| {
        m.op_named(P1, "invlpg", at.0).unwrap();
    };
    for level in [1, 2] {
        assert!(stores_after(Arch::X86_64, level, &|_, _| {}));
        assert!(!stores_after(Arch::X86_64, level, &here));
    }
    // No rights in such entries, and no copies of a root's kept in step.
    let rights = (Perm::empty(), Perm::WRITE);
    for (arch, level) in [(Arch::Ppc64le, 2), (Arch::X86_64, 0)] {
        let at = VirtAddr(if arch == Arch::X86_64 { u64::MAX << 31 } else { 0xc008 << 48 });
        let mut m = Machine::new(MachineConfig::new(arch), Box::new(Newest)).unwrap();
        let frame = m.alloc_frames(P0, 1, 12, false).unwrap().addr();
        m.map(P0, KERNEL, at, frame, 4096, 12, Perm::KERNEL_RW).unwrap();
        assert!(m.protect_table(P0, KERNEL, at, level, rights).is_err(), "{arch}");
        assert_eq!(m.lookup(KERNEL, at).unwrap().perm, Perm::KERNEL_RW);
    }
}
