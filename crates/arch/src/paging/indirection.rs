//! arm64 permission indirection (FEAT_S1PIE): bits 6, 51, 53 and 54 of a leaf are the number of a
//! permission in a register, for EL1 in `PIR_EL1` and for EL0 in `PIRE0_EL1`.
//!
//! What the bits say by themselves, the permission bits of tables and WXN have no effect then, and
//! bit 7 says that the leaf is clean: a store faults unless hardware manages that state. Where EL1
//! might execute what EL0 may write, neither gets anything. Held against the registers that Linux
//! writes: its protections grant the same with and without the indirection.
//!
//! Not modelled: overlays (FEAT_S1POE), which take from the lower eight permissions, and guarded
//! control stacks.

use super::Privilege;
use crate::perm::Perm;

/// The two registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Indirection {
    /// `PIR_EL1`: sixteen permissions of four bits, for EL1.
    pub pir: u64,
    /// `PIRE0_EL1`: the same for EL0.
    pub pire0: u64,
}

/// Where the number's bits are in a leaf, the lowest first (Linux 7.0
/// arch/arm64/include/asm/pgtable-prot.h: `PTE_PI_IDX_0` to `_3`).
const INDEX_BITS: [u32; 4] = [6, 51, 53, 54];
/// The leaf was not written to.
const CLEAN: u64 = 1 << 7;

const R: Perm = Perm::READ;
const RX: Perm = Perm::READ.union(Perm::EXEC);
const RW: Perm = Perm::READ.union(Perm::WRITE);
const RWX: Perm = RW.union(Perm::EXEC);
const NONE: Perm = Perm::empty();

/// What each permission is (Linux 7.0 arch/arm64/include/asm/sysreg.h: `PIE_NONE_O` and so on; read
/// against QEMU's `get_S1prot_indirect`, target/arm/ptw.c). 0x6 executes only where an overlay
/// takes writing away; 0x9 is a guarded control stack; 0x4, 0xb, 0xd and 0xf are reserved.
const PERMISSIONS: [Perm; 16] =
    [NONE, R, Perm::EXEC, RX, NONE, RW, RW, RWX, R, R, RX, NONE, RW, NONE, RWX, NONE];

impl Indirection {
    /// What Linux writes since it has guarded control stacks (6.13; 7.0
    /// arch/arm64/include/asm/pgtable-prot.h: `PIE_E1`, `PIE_E0`).
    pub const LINUX: Indirection =
        Indirection { pir: 0xcc88_0e0a_c080_0000, pire0: 0x5010_9080_7032_0000 };

    /// Which of READ, WRITE and EXEC the leaf `raw` grants; `hardware_dirty`: TCR_EL1.HD.
    pub(super) fn granted(&self, raw: u64, who: Privilege, hardware_dirty: bool) -> Perm {
        let number =
            INDEX_BITS.iter().rev().fold(0, |number, bit| number << 1 | (raw >> bit & 1) as u32);
        let of = |register: u64| PERMISSIONS[(register >> (4 * number) & 0xf) as usize];
        let (kernel, user) = (of(self.pir), of(self.pire0));
        let mut perm = match who {
            _ if kernel.contains(Perm::EXEC) && user.contains(Perm::WRITE) => NONE,
            Privilege::Kernel => kernel,
            Privilege::User => user,
        };
        if raw & CLEAN != 0 && !hardware_dirty {
            perm -= Perm::WRITE;
        }
        perm
    }

    /// The same as permissions of a leaf: the kernel's, and whether EL0 may load and fetch.
    pub(super) fn perm(&self, raw: u64, hardware_dirty: bool) -> Perm {
        let user = self.granted(raw, Privilege::User, hardware_dirty);
        let mut perm = self.granted(raw, Privilege::Kernel, hardware_dirty);
        perm.set(Perm::USER, user.contains(Perm::READ));
        perm.set(Perm::USER_EXEC, user.contains(Perm::EXEC));
        perm
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ARM64_4K, Controls};
    use super::*;
    use crate::addr::VirtAddr;

    const INDIRECT: Controls =
        Controls { arm_indirection: Some(Indirection::LINUX), ..Controls::LINUX };

    /// Valid page, normal memory, inner shareable, accessed.
    const PAGE: u64 = 0x703;
    const USER: u64 = 1 << 6;
    const RDONLY: u64 = 1 << 7;
    const WRITE: u64 = 1 << 51;
    const PXN: u64 = 1 << 53;
    const UXN: u64 = 1 << 54;

    /// Linux 7.0 arch/arm64/include/asm/pgtable-prot.h: `_PAGE_KERNEL` and its like.
    const PROTECTIONS: [(&str, u64); 8] = [
        ("KERNEL", UXN | PXN | WRITE),
        ("KERNEL_RO", UXN | PXN | RDONLY),
        ("KERNEL_ROX", UXN | RDONLY),
        ("KERNEL_EXEC", UXN | WRITE),
        ("SHARED", USER | UXN | PXN | WRITE),
        ("SHARED_EXEC", USER | PXN | WRITE),
        ("READONLY", USER | UXN | PXN | RDONLY),
        ("READONLY_EXEC", USER | PXN | RDONLY),
    ];

    fn granted(raw: u64, who: Privilege, controls: &Controls) -> Perm {
        let perm = ARM64_4K.entry_perm(3, raw, controls);
        ARM64_4K.granted(3, raw, perm, who, controls)
    }

    #[test]
    fn linuxs_protections_grant_the_same_with_and_without() {
        for (name, bits) in PROTECTIONS {
            let raw = PAGE | bits;
            for who in [Privilege::Kernel, Privilege::User] {
                let (direct, indirect) =
                    (granted(raw, who, &Controls::LINUX), granted(raw, who, &INDIRECT));
                assert_eq!(direct, indirect, "{name} {who:?}");
            }
            let (direct, indirect) = (
                ARM64_4K.entry_perm(3, raw, &Controls::LINUX),
                ARM64_4K.entry_perm(3, raw, &INDIRECT),
            );
            assert_eq!(direct, indirect, "{name}");
            let effective = |controls| {
                let va = VirtAddr(0xffff_8000_0000_0000);
                ARM64_4K.effective(va, direct, Perm::all(), controls)
            };
            assert_eq!(effective(&Controls::LINUX), effective(&INDIRECT), "{name}");
        }
    }

    #[test]
    fn other_architectures_have_none() {
        for format in crate::paging::FORMATS.iter().filter(|f| f.arch != crate::isa::Arch::Arm64) {
            let level = format.last_level();
            let raw = format.encode_leaf(level, crate::addr::PhysAddr(0), Perm::KERNEL_RWX);
            let perm = |controls| format.entry_perm(level, raw.unwrap(), controls);
            assert_eq!(perm(&INDIRECT), perm(&Controls::LINUX), "{}", format.name);
            let granted = |controls| {
                let perm = Perm::KERNEL_RWX;
                format.granted(level, raw.unwrap(), perm, Privilege::Kernel, controls)
            };
            assert_eq!((granted(&INDIRECT), granted(&Controls::LINUX)), (RWX, RWX));
        }
    }

    #[test]
    fn only_the_registers_count() {
        let swapped = Indirection { pir: 0xe << (4 * 0xe), pire0: 0 };
        let controls = Controls { arm_indirection: Some(swapped), arm_wxn: true, ..INDIRECT };
        let kernel_data = PAGE | UXN | PXN | WRITE;
        // Number 0xe may be anything: here writable and executable, in spite of PXN and WXN.
        assert_eq!(granted(kernel_data, Privilege::Kernel, &controls), RWX);
        assert_eq!(granted(kernel_data, Privilege::User, &controls), NONE);
        // A clean page cannot be written unless hardware clears the bit.
        let clean = kernel_data | RDONLY;
        assert_eq!(granted(clean, Privilege::Kernel, &controls), RWX);
        let by_hand = Controls { arm_hd: false, ..controls };
        assert_eq!(granted(clean, Privilege::Kernel, &by_hand), RX);
        // What EL0 may write and EL1 execute is nobody's.
        let both = Indirection { pir: 0xe << (4 * 0xf), pire0: 0xc << (4 * 0xf) };
        let controls = Controls { arm_indirection: Some(both), ..INDIRECT };
        let shared = PAGE | USER | UXN | PXN | WRITE;
        for who in [Privilege::Kernel, Privilege::User] {
            assert_eq!(granted(shared, who, &controls), NONE, "{who:?}");
        }
        // PAN takes the kernel's data accesses where EL0 may do anything.
        let data = Indirection { pir: 0xc << (4 * 0xf), pire0: 2 << (4 * 0xf) };
        let controls = Controls { arm_indirection: Some(data), ..INDIRECT };
        assert_eq!(granted(shared, Privilege::Kernel, &controls), RW);
        let pan = Controls { arm_pan: true, ..controls };
        assert_eq!(granted(shared, Privilege::Kernel, &pan), NONE);
    }

    #[test]
    fn tables_take_nothing_away() {
        let table = 0x1003 | 1 << 59 | 1 << 62;
        let walk = |controls: &Controls| {
            let read = |at: crate::addr::PhysAddr| {
                Some(if at.0 < 0x3000 {
                    table + at.0 / 0x1000 * 0x1000
                } else {
                    PAGE | UXN | WRITE
                })
            };
            let mut read = read;
            let va = VirtAddr(0xffff_0000_0000_0000);
            ARM64_4K.walk_with(crate::addr::PhysAddr(0), va, controls, &mut read).perm()
        };
        assert_eq!(walk(&Controls::LINUX) & RWX, R);
        assert_eq!(walk(&INDIRECT) & RWX, RWX);
    }
}
