//! The kernel's own search for mappings that are writable and executable.
//!
//! Modelled: what each architecture looks at in an entry, which is not the same: x86 what all
//! levels together grant, arm64 and powerpc the last entry alone; nobody compares two mappings of
//! one frame, and nobody asks whether the entry is valid. arm64 also complains of kernel pages that
//! user space may execute. Each complaint comes once a boot. From: Linux 6.12 mm/ptdump.c,
//! include/linux/ptdump.h, arch/x86/mm/dump_pagetables.c, arch/arm64/mm/ptdump.c,
//! arch/powerpc/mm/ptdump/ptdump.c. Not modelled: the counts that are printed, x86's exemption of
//! the PCI BIOS, what lies outside the direct map, the vmalloc and module areas and the image.

use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_event::WarnReason;
use textbed_machine::{Mapping, Span};

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;

/// `debug_checkwx()` with CONFIG_DEBUG_WX: the result goes into the log of the kernel alone.
pub(crate) fn debug_checkwx(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    k.check_wx(cpu);
    Ok(0)
}

/// `ptdump_check_wx()`: 1 if nothing was found.
pub(crate) fn ptdump_check_wx(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    Ok(i64::from(k.check_wx(cpu)))
}

/// What is wrong with an entry by the reading of its architecture.
fn complaints(arch: Arch, leaf: &Mapping) -> [Option<(&'static str, WarnReason)>; 2] {
    // Bits by their numbers in the headers: RW and NX; RDONLY, PXN and UXN; WRITE and EXEC.
    let bit = |n: u32| leaf.raw >> n & 1 == 1;
    let wx = Some(("ptdump: W+X", WarnReason::WriteExec));
    match arch {
        Arch::X86_64 => {
            let upper = leaf.perm.is_empty() || leaf.perm.writable() && leaf.perm.executable();
            [wx.filter(|_| bit(1) && !bit(63) && upper), None]
        }
        Arch::Arm64 => {
            // The dirty-bit modifier (51) alone is none of the bits that are looked at.
            let looked_at = leaf.raw & !(1 << 51) != 0;
            let user = Some(("ptdump: non-UXN", WarnReason::OddEntry));
            [
                wx.filter(|_| looked_at && !bit(7) && !bit(53)),
                user.filter(|_| looked_at && !bit(54)),
            ]
        }
        _ => [wx.filter(|_| leaf.raw & 0x3 == 0x3), None],
    }
}

impl Kernel {
    /// Looks through the kernel's tables; whether nothing was found.
    fn check_wx(&mut self, cpu: CpuId) -> bool {
        let (layout, mut clean) = (self.layout, true);
        let mut ranges = vec![layout.direct_map, layout.vmalloc];
        for more in [layout.modules, layout.text] {
            if !ranges.iter().any(|r| r.contains(more.start)) {
                ranges.push(more);
            }
        }
        ranges.sort_by_key(|r| r.start);
        for range in ranges {
            for span in self.machine.leaves(SpaceId::KERNEL, range.start, range.len) {
                let Span::Mapped(leaf) = span else { continue };
                for (site, reason) in complaints(self.arch, &leaf).into_iter().flatten() {
                    clean = false;
                    self.warn_once(cpu, site, reason, VirtAddr(leaf.virt.0));
                }
            }
        }
        clean
    }
}
