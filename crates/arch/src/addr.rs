//! Addresses and identities that every crate shares, as newtypes.
//!
//! Modelled: 64-bit virtual and physical addresses, 4 KiB frame numbers, CPUs, address spaces.
//! Not modelled: segmentation, physical address spaces (secure, realm); one physical space it is.

use std::fmt;

/// Base unit of physical memory accounting, in bytes. A *frame* is 4 KiB on every architecture,
/// also where the kernel's base page is larger: a 64 KiB page is then sixteen frames.
pub const FRAME_BYTES: u64 = 4096;
/// `log2(FRAME_BYTES)`.
pub const FRAME_SHIFT: u32 = 12;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` past the end of the 64-bit space.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }

            /// The address `bytes` further on, wrapping at 2^64: for arithmetic whose range was
            /// checked before.
            #[must_use]
            pub fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Rounded down to a multiple of `1 << shift`; `shift` is at most 63.
            #[must_use]
            pub fn align_down(self, shift: u32) -> Self {
                Self(self.0 & !((1u64 << shift) - 1))
            }

            /// Whether this is a multiple of `1 << shift`; `shift` is at most 63.
            #[must_use]
            pub fn is_aligned(self, shift: u32) -> bool {
                self.0 & ((1u64 << shift) - 1) == 0
            }

            /// Number of the 4 KiB page or frame that holds this address.
            #[must_use]
            pub fn page_number(self) -> u64 {
                self.0 >> FRAME_SHIFT
            }

            /// Offset inside the 4 KiB page or frame, in bytes.
            #[must_use]
            pub fn page_offset(self) -> u64 {
                self.0 & (FRAME_BYTES - 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }
    };
}

address!(
    /// A virtual (on x86: linear) address in bytes.
    VirtAddr
);
address!(
    /// A physical address in bytes.
    PhysAddr
);

/// Number of a 4 KiB frame of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Pfn(pub u64);

impl Pfn {
    /// First byte of the frame.
    #[must_use]
    pub fn addr(self) -> PhysAddr {
        PhysAddr(self.0 << FRAME_SHIFT)
    }
}

impl PhysAddr {
    /// The frame that holds this address.
    #[must_use]
    pub fn pfn(self) -> Pfn {
        Pfn(self.0 >> FRAME_SHIFT)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

/// A logical CPU, numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CpuId(pub u16);

impl CpuId {
    /// As an index into a table by CPU.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.0)
    }
}

/// An address space: one tree of page tables. [`SpaceId::KERNEL`] is the kernel's own (`init_mm`);
/// on arm64 it is what TTBR1 points to, on x86-64 and powerpc the kernel half of every space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The kernel's address space.
    pub const KERNEL: SpaceId = SpaceId(0);
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::KERNEL {
            write!(f, "kernel space")
        } else {
            write!(f, "space {}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_and_frames() {
        let a = VirtAddr(0xffff_8880_0012_3456);
        assert_eq!(a.align_down(12), VirtAddr(0xffff_8880_0012_3000));
        assert_eq!(a.page_offset(), 0x456);
        assert!(a.align_down(21).is_aligned(21));
        assert_eq!(VirtAddr(u64::MAX).checked_add(1), None);
        assert_eq!(PhysAddr(0x5fff).pfn(), Pfn(5));
        assert_eq!(Pfn(5).addr(), PhysAddr(0x5000));
    }
}
