//! Blocks of 32-bit Power (BATs): 128 KiB to 256 MiB, mapped by a pair of registers.

use super::field::{Part, get};
use super::protection::of_block;
use super::{HashFormat, Words};
use crate::addr::{PhysAddr, VirtAddr};
use crate::paging::Privilege;
use crate::perm::Perm;

/// Bytes of the smallest block, less one.
const LOW: u64 = 0x1_ffff;

/// A block, as its pair of registers says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Its first address.
    pub first: VirtAddr,
    /// First byte of its frame.
    pub phys: PhysAddr,
    /// Its bytes, less one.
    pub mask: u64,
    /// Valid for the kernel.
    pub kernel: bool,
    /// Valid for a process.
    pub user: bool,
    /// Protection number.
    pub protection: u64,
}

impl Block {
    /// Whether it translates an access at a privilege.
    #[must_use]
    pub fn holds(&self, va: VirtAddr, who: Privilege) -> bool {
        let valid = match who {
            Privilege::Kernel => self.kernel,
            Privilege::User => self.user,
        };
        valid && (va.0 ^ self.first.0) & !self.mask == 0
    }

    /// Where an address in it is.
    #[must_use]
    pub fn phys(&self, va: VirtAddr) -> PhysAddr {
        PhysAddr(self.phys.0 & !self.mask | va.0 & self.mask)
    }

    /// What it grants: reading, writing, execution.
    #[must_use]
    pub fn grants(&self) -> Perm {
        of_block(self.protection)
    }
}

impl HashFormat {
    /// The block of a pair of registers, upper and lower; `None` if it is valid for nobody, or
    /// there are no blocks.
    #[must_use]
    pub fn block(&self, words: Words) -> Option<Block> {
        let of = |part| get(self.block, words, part);
        let (kernel, user) = (of(Part::KernelValid) != 0, of(Part::UserValid) != 0);
        (kernel || user).then(|| Block {
            first: VirtAddr(of(Part::BlockAddress)),
            phys: PhysAddr(of(Part::Frame)),
            mask: of(Part::BlockLength) | LOW,
            kernel,
            user,
            protection: of(Part::Protection),
        })
    }
}
