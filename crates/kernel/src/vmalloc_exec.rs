//! Memory for code by the allocator that was posted in October 2022 and not merged: read-only and
//! executable from the start, in 2 MiB blocks, written through the patcher alone.
//!
//! Modelled, as posted: a block from vmalloc, taken out of the tree of areas, zeroed, made
//! read-only and executable (results dropped), cut into pieces; `vcopy_exec` inside one piece;
//! `vfree_exec` with invalidation, merging, and one whole area given back. Only x86 had the two
//! functions that write. From: mail of 2022-10-31 "vmalloc: introduce vmalloc_exec, vfree_exec, and
//! vcopy_exec" (v1 RESEND). Not modelled: allocation of the records; that the list of areas is not
//! unlinked from its middle (as posted, an area that is not the newest stays on it).
//!
//! As posted, permissions are changed after the area left the tree: arm64 finds no area then and
//! refuses, powerpc dereferences what it does not find.

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, Perm, VirtAddr};
use textbed_event::WarnReason;

use crate::area::{Area, vm_flags};
use crate::call::Args;
use crate::errno::{EINVAL, EOPNOTSUPP};
use crate::error::Stop;
use crate::free_ranges::FreeRanges;
use crate::kernel::Kernel;
use crate::steps::{Fate, call_step, calls_then, pause};
use crate::vmalloc::Request;

/// The tree of free text, its areas, and what was handed out: start to length.
#[derive(Clone, Default, Debug)]
pub(crate) struct TextAreas {
    free: FreeRanges,
    pieces: BTreeMap<u64, u64>,
    areas: Vec<Area>,
}

impl TextAreas {
    /// Takes the lowest place that fits.
    fn take(&mut self, size: u64, align: u64) -> Option<u64> {
        let at = self.free.first_fit(size, align)?;
        self.free.cut(at, size);
        self.pieces.insert(at, size);
        Some(at)
    }

    /// The piece that an address lies in.
    fn piece(&self, virt: VirtAddr) -> Option<(u64, u64)> {
        let (start, len) = self.pieces.range(..=virt.0).next_back()?;
        (virt.0 - start < *len).then_some((*start, *len))
    }
}

/// `vmalloc_exec_v1(size, align)`: the posted `vmalloc_exec`.
pub(crate) fn vmalloc_exec(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (size, align) = (args.get(0), args.get(1).max(1));
    if size == 0 || size > k.layout.modules.len || !align.is_power_of_two() {
        return Err(Stop::not_modelled("a size of 0, beyond all room, or an odd alignment"));
    }
    if k.allocation_fails() {
        return Ok(0);
    }
    if let Some(at) = k.users.text_areas.take(size, align) {
        return Ok(at as i64);
    }
    let nodes = k.config.count("nr_nodes").max(1);
    let block = k.pages.pmd_bytes();
    let len = size.next_multiple_of(block * nodes);
    let range = if k.arch.is_powerpc() { k.layout.vmalloc } else { k.layout.modules };
    let flags = vm_flags::VM_ALLOW_HUGE_VMAP | vm_flags::VM_NO_GUARD;
    let request = Request { size: len, align: block, range, perm: Perm::KERNEL_RW, flags };
    let made = move |k: &mut Kernel, cpu, start| {
        let Some(area) = k.areas.hide(VirtAddr(start)) else { return Ok(()) };
        k.zone(cpu, VirtAddr(start), len, "vmalloc_exec", "text");
        k.fill_plain(cpu, VirtAddr(start), len, &[0])?;
        let range = Args::of(&[start, k.pages.holding(len)]);
        let calls = ["set_memory_ro", "set_memory_x"].map(|c| (c, range.clone(), Fate::Dropped));
        let protected = move |k: &mut Kernel, _, _| {
            k.users.text_areas.areas.push(area);
            k.users.text_areas.free.add(start, len);
            let got = k.users.text_areas.take(size, align);
            k.returns(got.map_or(0, |at| at as i64));
            Ok(())
        };
        k.later([pause(), calls_then(calls.into(), Box::new(protected))]);
        Ok(())
    };
    k.with_steps(vec![request.steps(Box::new(made))])
}

/// `vcopy_exec(dst, src, len)`: inside one piece; x86 alone can write.
pub(crate) fn vcopy_exec(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let dst = args.addr(0);
    let end = dst.0.checked_add(args.code().len() as u64);
    let piece = k.users.text_areas.piece(dst);
    let inside = piece.zip(end).is_some_and(|((start, len), end)| end <= start + len);
    if !inside {
        k.warn_once(cpu, "vcopy_exec", WarnReason::BadArgument, dst);
        return Ok(-EINVAL);
    }
    if k.arch != Arch::X86_64 {
        return Ok(-EOPNOTSUPP);
    }
    let done = k.inner(cpu, "text_poke_copy", &Args::with_code(&[dst.0], args.code()))?;
    Ok(if k.used(cpu, done) == 0 { -EINVAL } else { dst.0 as i64 })
}

/// `vfree_exec(addr)`.
pub(crate) fn vfree_exec(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    if addr.0 == 0 {
        return Ok(0);
    }
    let Some((start, len)) = k.users.text_areas.piece(addr) else {
        k.warn_once(cpu, "vfree_exec", WarnReason::NoArea, addr);
        return Ok(0);
    };
    k.users.text_areas.pieces.remove(&start);
    // What it returns is dropped.
    let trap = ("text_poke_set", Args::of(&[start, 0xcc, len]), Fate::Dropped);
    let traps = (k.arch == Arch::X86_64 && k.there("text_poke_set")).then_some(trap);
    let filled = move |k: &mut Kernel, _, _| {
        let (start, len) = k.users.text_areas.free.add(start, len);
        let block = k.pages.pmd_bytes();
        let (from, to) = (start.next_multiple_of(block), (start + len) & !(block - 1));
        let whole = |a: &Area| a.start.0 >= from && a.end() <= to;
        let Some(index) = k.users.text_areas.areas.iter().position(whole) else { return Ok(()) };
        let area = k.users.text_areas.areas.remove(index);
        let (at, bytes) = (area.start.0, area.len);
        k.users.text_areas.free.cut(at, bytes);
        let range = Args::of(&[at, k.pages.holding(bytes)]);
        let calls = ["set_memory_nx", "set_memory_rw"].map(|c| (c, range.clone(), Fate::Dropped));
        let back = move |k: &mut Kernel, _, _| {
            k.areas.show(area);
            k.later([call_step("vfree", Args::of(&[at]))]);
            Ok(())
        };
        k.later([calls_then(calls.into(), Box::new(back))]);
        Ok(())
    };
    k.with_steps(vec![calls_then(traps.into_iter().collect(), Box::new(filled))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_cut_and_merged() {
        let mut text = TextAreas::default();
        text.free.add(0x20_0000, 0x20_0000);
        assert_eq!(text.take(100, 64), Some(0x20_0000));
        assert_eq!(text.take(64, 4096), Some(0x20_1000));
        assert_eq!(text.take(64, 64), Some(0x20_0080));
        assert_eq!(text.piece(VirtAddr(0x20_1010)), Some((0x20_1000, 64)));
        assert_eq!(text.piece(VirtAddr(0x20_1040)), None);
        for (at, len) in [(0x20_0000, 100), (0x20_1000, 64), (0x20_0080, 64)] {
            text.pieces.remove(&at);
            text.free.add(at, len);
        }
        assert_eq!(text.free.iter().next(), Some((0x20_0000, 0x20_0000)));
        text.free.cut(0x20_0000, 0x20_0000);
        assert_eq!(text.free.iter().count(), 0);
    }
}
