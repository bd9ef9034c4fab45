//! x86: who has which type of memory (the tracking of PAT).
//!
//! Modelled: types of RAM by frame, of which only ordinary frames take another one; of everything
//! else by ranges that may overlap if they agree; what is neither RAM nor not; the range of ISA,
//! which nobody tracks; that `__pa()` of an area's address is some address beyond RAM, and of a
//! module's the frame that would lie there in the image's map. From: Linux 5.19, 6.1, 6.6, 6.12,
//! 6.18.2 and 7.0 arch/x86/mm/pat/memtype.c memtype_reserve(), memtype_free(),
//! reserve_ram_pages_type(), pat_pagerange_is_ram(), memtype_interval.c; arch/x86/include/asm/
//! page_64.h __phys_addr_nodebug(). Not modelled: PAT that is off, MTRRs, `memtype_lock` (each of
//! these is one step), CONFIG_DEBUG_VIRTUAL, which stops at such a `__pa()`; that a node shrinks
//! when its end is freed (up to 6.14, `mremap()`).

use std::collections::BTreeMap;

use textbed_arch::{CpuId, FRAME_BYTES, FRAME_SHIFT, VirtAddr};
use textbed_event::WarnReason;

use crate::errno::{EBUSY, EINVAL, ENOMEM};
use crate::error::Stop;
use crate::kernel::Kernel;

/// Where the image's map begins (`__START_KERNEL_map`).
const IMAGE_MAP: u64 = 0xffff_ffff_8000_0000;
/// Physical addresses have so many bits (`__PHYSICAL_MASK`).
const PHYS_MASK: u64 = (1 << 52) - 1;
/// What nobody tracks (`ISA_START_ADDRESS`, `ISA_END_ADDRESS`).
const ISA: (u64, u64) = (0xa_0000, 0x10_0000);

/// A type of memory other than write-back, as calls ask for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CacheMode {
    /// Write-combining.
    Wc,
    /// Uncached, unless an MTRR says write-combining.
    UcMinus,
}

impl CacheMode {
    /// Its index in the PAT that Linux programs, from whose bits entries are made.
    pub(super) fn pat_bits(self) -> u8 {
        match self {
            CacheMode::Wc => 1,
            CacheMode::UcMinus => 2,
        }
    }
}

/// Types that were reserved.
#[derive(Clone, Default, Debug)]
pub(crate) struct Memtypes {
    /// Frames of RAM that are not write-back.
    frames: BTreeMap<u64, CacheMode>,
    /// What is no RAM: start and end.
    ranges: Vec<(u64, u64, CacheMode)>,
}

/// Whether a range is RAM.
enum Kind {
    Ram,
    Other,
    Mixed,
}

impl Kernel {
    /// `__pa`, which takes any address.
    pub(super) fn x86_pa(&self, virt: VirtAddr) -> u64 {
        let in_map = virt.0.wrapping_sub(IMAGE_MAP);
        if virt.0 > in_map {
            let base = self.image.pfn.addr().0.wrapping_sub(self.layout.text.start.0 - IMAGE_MAP);
            return in_map.wrapping_add(base);
        }
        virt.0.wrapping_sub(self.layout.direct_map.start.0)
    }

    /// `pat_pagerange_is_ram`; what is RAM at its beginning and ends behind it counts as RAM.
    fn kind_of(&self, start: u64, end: u64) -> Kind {
        let first = (start >> FRAME_SHIFT).max(ISA.1 >> FRAME_SHIFT);
        let frames = self.machine.memory_bytes() / FRAME_BYTES;
        if first >= end.div_ceil(FRAME_BYTES) || first >= frames {
            Kind::Other
        } else if first > start >> FRAME_SHIFT {
            Kind::Mixed
        } else {
            Kind::Ram
        }
    }

    /// Frames of RAM in a range, which have to be there.
    fn typed_frames(&self, start: u64, end: u64) -> Result<std::ops::Range<u64>, Stop> {
        if end > self.machine.memory_bytes() {
            return Err(Stop::not_modelled("a struct page behind the end of memory"));
        }
        Ok(start >> FRAME_SHIFT..end >> FRAME_SHIFT)
    }

    /// `memtype_reserve`: 0, or a negative error number.
    pub(super) fn memtype_reserve(
        &mut self,
        cpu: CpuId,
        (start, len): (u64, u64),
        mode: CacheMode,
    ) -> Result<i64, Stop> {
        let from = start & PHYS_MASK;
        let end = (start.wrapping_add(len).wrapping_sub(1) & PHYS_MASK) + 1;
        if from >= end {
            self.warn(cpu, WarnReason::BadArgument, VirtAddr(start));
            return Ok(-EINVAL);
        }
        if from >= ISA.0 && end <= ISA.1 {
            return Ok(0);
        }
        match self.kind_of(from, end) {
            Kind::Mixed => return Ok(-EINVAL),
            Kind::Ram => {
                let frames = self.typed_frames(from, end)?;
                if self.memtypes.frames.range(frames.clone()).next().is_some() {
                    return Ok(-EBUSY);
                }
                self.memtypes.frames.extend(frames.map(|frame| (frame, mode)));
            }
            Kind::Other => {
                if self.allocation_fails() {
                    return Ok(-ENOMEM);
                }
                let meets = |(s, e, _): &&(u64, u64, CacheMode)| *s < end && from < *e;
                if self.memtypes.ranges.iter().filter(meets).any(|(_, _, of)| *of != mode) {
                    return Ok(-EBUSY);
                }
                self.memtypes.ranges.push((from, end, mode));
            }
        }
        Ok(0)
    }

    /// `memtype_free`, whose result nobody looks at.
    pub(super) fn memtype_free(&mut self, (start, len): (u64, u64)) -> Result<(), Stop> {
        let (from, end) = (start & PHYS_MASK, start.wrapping_add(len) & PHYS_MASK);
        if from >= ISA.0 && end <= ISA.1 {
            return Ok(());
        }
        match self.kind_of(from, end) {
            Kind::Mixed => {}
            Kind::Ram => {
                for frame in self.typed_frames(from, end)? {
                    self.memtypes.frames.remove(&frame);
                }
            }
            Kind::Other => {
                let ranges = &mut self.memtypes.ranges;
                if let Some(at) = ranges.iter().position(|(s, e, _)| (*s, *e) == (from, end)) {
                    ranges.remove(at);
                }
            }
        }
        Ok(())
    }
}
