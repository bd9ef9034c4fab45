//! Plain stores to kernel memory: what a JIT does to its own buffer before any protection.
//!
//! Modelled: the stores, page by page, with their faults. From: C's memset and memcpy. Not
//! modelled: their instructions and the widths of single stores; loads of the source.

use textbed_arch::{CpuId, VirtAddr};
use textbed_event::MemOrder;

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::pages::Pages;

/// Longest range that plain stores fill or copy.
const MAX_STORED_BYTES: u64 = 1 << 30;

/// `memset(addr, c, len)`.
pub(crate) fn memset(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let byte = u8::try_from(args.get(1)).unwrap_or(0);
    k.fill_plain(cpu, args.addr(0), args.get(2), &[byte])?;
    Ok(0)
}

/// `memcpy(addr, code)`.
pub(crate) fn memcpy(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.store_plain(cpu, args.addr(0), args.code())?;
    Ok(0)
}

/// `page_address(page)`, the page given by an address that maps it; 0 where there is none.
pub(crate) fn page_address(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let page = k.page_behind(args.addr(0));
    Ok(page.and_then(|pfn| k.direct_map_of(pfn)).map_or(0, |virt| virt.0 as i64))
}

/// `_stext`: a symbol.
pub(crate) fn stext(k: &mut Kernel, _cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    Ok(k.layout.text.start.0 as i64)
}

impl Kernel {
    /// Stores a pattern over a range by plain stores.
    pub(crate) fn fill_plain(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        len: u64,
        pattern: &[u8],
    ) -> Result<(), Stop> {
        if len == 0 {
            return Ok(());
        }
        if len > MAX_STORED_BYTES {
            return Err(Stop::not_modelled(format!("plain stores over {len:#x} bytes")));
        }
        self.machine.fill(cpu, addr, len, pattern)?;
        Ok(())
    }

    /// Plain stores of bytes, page by page.
    pub(crate) fn store_plain(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        let mut at = addr;
        for part in by_page(self.pages, addr, bytes) {
            self.machine.store(cpu, at, part, MemOrder::Plain)?;
            at = at.offset(part.len() as u64);
        }
        Ok(())
    }
}

/// Bytes at an address, cut at page boundaries.
pub(crate) fn by_page(pages: Pages, addr: VirtAddr, bytes: &[u8]) -> Vec<&[u8]> {
    let room = usize::try_from(pages.room_at(addr)).unwrap_or(usize::MAX);
    let (first, rest) = bytes.split_at(room.min(bytes.len()));
    let mut parts = Vec::new();
    if !first.is_empty() {
        parts.push(first);
    }
    parts.extend(rest.chunks(pages.bytes() as usize));
    parts
}
