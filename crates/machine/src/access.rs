//! Loads, stores and fills, as a CPU makes them through its TLB.
//!
//! Modelled: an access goes piece by piece, a piece being what one translation covers (neighbouring
//! pieces whose frames follow each other are one event); what loads see and when stores are
//! performed is the data side's ([`crate::data`]). A store that faults in a later piece has stored
//! the earlier ones. Not modelled: alignment faults, atomicity of unaligned stores.

use textbed_arch::{CpuId, PhysAddr, VirtAddr};
use textbed_event::{Access, FaultReason, Flags, MemOrder, OpId, View};

use crate::iside::Performed;
use crate::memory::cycle;
use crate::tlb::Replaced;
use crate::{Fault, Machine, MachineError};

/// Most bytes of one load or store, and of one fill: 1 GiB.
pub const MAX_ACCESS_BYTES: u64 = 1 << 30;
/// A fill is done in parts of so many bytes.
const FILL_PART: u64 = 1 << 16;

/// A part of an access: offset in it, physical address, bytes.
#[derive(Clone, Copy, Default, Debug)]
struct Piece {
    offset: u64,
    phys: PhysAddr,
    len: u64,
}

/// The pieces of an access: one or two without an allocation.
#[derive(Default)]
struct Pieces {
    few: [Piece; 2],
    count: usize,
    /// All of them, if they are more.
    many: Vec<Piece>,
}

impl Pieces {
    fn push(&mut self, piece: Piece) {
        match self.few.get_mut(self.count) {
            Some(slot) if self.many.is_empty() => {
                *slot = piece;
                self.count += 1;
            }
            _ => {
                if self.many.is_empty() {
                    self.many.extend(self.few);
                }
                self.many.push(piece);
            }
        }
    }

    fn all(&self) -> &[Piece] {
        match self.many.is_empty() {
            true => self.few.get(..self.count).unwrap_or(&self.few),
            false => &self.many,
        }
    }

    fn last_mut(&mut self) -> Option<&mut Piece> {
        match self.many.is_empty() {
            true => self.count.checked_sub(1).and_then(|n| self.few.get_mut(n)),
            false => self.many.last_mut(),
        }
    }
}

impl Machine {
    /// Translates a range; the pieces up to a fault, and the fault.
    fn pieces(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        len: u64,
        access: Access,
    ) -> (Pieces, Result<(), Fault>) {
        let mut pieces = Pieces::default();
        if len > MAX_ACCESS_BYTES || cpu.index() >= self.cpus.len() {
            return (pieces, Err(self.fault(cpu, virt, access, FaultReason::BadAddress)));
        }
        let mut offset = 0;
        while offset < len {
            let Some(at) = virt.checked_add(offset) else {
                return (pieces, Err(self.fault(cpu, virt, access, FaultReason::BadAddress)));
            };
            match self.translate(cpu, at, access) {
                Ok((phys, room)) => {
                    let take = room.min(len - offset);
                    match pieces.last_mut() {
                        Some(p) if p.phys.0 + p.len == phys.0 => p.len += take,
                        _ => pieces.push(Piece { offset, phys, len: take }),
                    }
                    offset += take;
                }
                Err(reason) => return (pieces, Err(self.fault(cpu, at, access, reason))),
            }
        }
        (pieces, Ok(()))
    }

    /// Loads bytes.
    ///
    /// # Errors
    /// The fault, which was also emitted.
    pub fn load(&mut self, cpu: CpuId, virt: VirtAddr, out: &mut [u8]) -> Result<(), Fault> {
        self.load_ordered(cpu, virt, out, MemOrder::Plain)
    }

    /// Loads bytes with an order.
    ///
    /// # Errors
    /// The fault, which was also emitted.
    pub fn load_ordered(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        out: &mut [u8],
        order: MemOrder,
    ) -> Result<(), Fault> {
        self.load_from(cpu, virt, out, order, false).map(|_| ())
    }

    /// Loads the newest bytes, whatever order would allow: the load of an atomic operation or of an
    /// exclusive pair.
    ///
    /// # Errors
    /// The fault, which was also emitted.
    pub fn load_newest(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        out: &mut [u8],
        order: MemOrder,
    ) -> Result<(), Fault> {
        self.load_from(cpu, virt, out, order, true).map(|_| ())
    }

    /// Compares what a CPU loads at `virt` with `expected`, as a patcher does before it replaces
    /// code or after it did; whether it is equal.
    ///
    /// # Errors
    /// The fault of the load, which was also emitted; then nothing was compared.
    pub fn compare(&mut self, cpu: CpuId, virt: VirtAddr, expected: &[u8]) -> Result<bool, Fault> {
        let mut found = vec![0; expected.len()];
        let phys = self.load_from(cpu, virt, &mut found, MemOrder::Plain, false)?;
        let equal = found == expected;
        let bytes = self.recorder.bytes(expected);
        let space = self.space_of(cpu);
        let view = View::Compared { virt, phys, bytes, equal };
        self.emit_in(cpu, space, Flags::default(), OpId::NONE, view);
        Ok(equal)
    }

    /// Loads bytes; where the first of them came from.
    fn load_from(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        out: &mut [u8],
        order: MemOrder,
        newest: bool,
    ) -> Result<PhysAddr, Fault> {
        let (pieces, end) = self.pieces(cpu, virt, out.len() as u64, Access::Read);
        let first = pieces.all().first().map_or(PhysAddr(0), |p| p.phys);
        let space = self.space_of(cpu);
        for p in pieces.all().iter().copied() {
            let at = virt.offset(p.offset);
            let part =
                out.get_mut(p.offset as usize..(p.offset + p.len) as usize).unwrap_or(&mut []);
            let Ok(from) = self.see(cpu, at, p.phys, part, order, newest) else {
                return Err(self.fault(cpu, at, Access::Read, FaultReason::NoMemory));
            };
            self.users.note(cpu, p.phys.0, p.len, false);
            let now = if self.reorders() { self.last_load(cpu).0 } else { self.tick };
            self.lines.touch(p.phys.0, p.len, cpu, now);
            self.emit_load(cpu, space, at, p, (order, from));
        }
        if self.reorders() {
            let moment = self.last_load(cpu).0;
            self.stores_performed(cpu, Performed::Before(moment));
        } else {
            self.learned(cpu);
        }
        end.map(|()| first)
    }

    /// Load events carry at most 64 KiB - 1 each.
    fn emit_load(
        &mut self,
        cpu: CpuId,
        space: textbed_arch::SpaceId,
        virt: VirtAddr,
        piece: Piece,
        (order, from): (MemOrder, Option<u64>),
    ) {
        let mut done = 0;
        while done < piece.len {
            let len = (piece.len - done).min(u64::from(u16::MAX));
            let (virt, phys) = (virt.offset(done), piece.phys.offset(done));
            let piece = len as u16;
            let view = match from {
                None => View::Load { virt, phys, len: piece, order },
                Some(from) => View::LoadOld { virt, phys, len: piece, order, from },
            };
            self.emit_in(cpu, space, Flags::default(), OpId::NONE, view);
            done += len;
        }
    }

    /// Stores bytes. A store that changes nothing carries [`Flags::EQUAL_BYTES`].
    ///
    /// # Errors
    /// The fault, which was also emitted; what lies before it was stored.
    pub fn store(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        bytes: &[u8],
        order: MemOrder,
    ) -> Result<(), Fault> {
        self.store_flagged(cpu, virt, bytes, order, Flags::default())
    }

    /// As [`Machine::store`], with flags for the event ([`Flags::NONTEMPORAL`]).
    ///
    /// # Errors
    /// See there.
    pub fn store_flagged(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        bytes: &[u8],
        order: MemOrder,
        flags: Flags,
    ) -> Result<(), Fault> {
        let (pieces, end) = self.pieces(cpu, virt, bytes.len() as u64, Access::Write);
        self.store_pieces(cpu, virt, bytes, pieces.all(), order, flags)?;
        end
    }

    /// The stores of one instruction: all or, if one of them faults, none.
    ///
    /// # Errors
    /// The fault, which was also emitted; then nothing was stored.
    pub fn store_all(
        &mut self,
        cpu: CpuId,
        stores: &[(VirtAddr, impl AsRef<[u8]>)],
        order: MemOrder,
        flags: Flags,
    ) -> Result<(), Fault> {
        if let [(virt, bytes)] = stores {
            let bytes = bytes.as_ref();
            let (pieces, end) = self.pieces(cpu, *virt, bytes.len() as u64, Access::Write);
            end?;
            return self.store_pieces(cpu, *virt, bytes, pieces.all(), order, flags);
        }
        let mut translated = Vec::with_capacity(stores.len());
        for (virt, bytes) in stores {
            let bytes = bytes.as_ref();
            let (pieces, end) = self.pieces(cpu, *virt, bytes.len() as u64, Access::Write);
            end?;
            translated.push((*virt, bytes, pieces));
        }
        for (virt, bytes, pieces) in translated {
            self.store_pieces(cpu, virt, bytes, pieces.all(), order, flags)?;
        }
        Ok(())
    }

    /// Stores to where the pieces lead, and emits.
    fn store_pieces(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        bytes: &[u8],
        pieces: &[Piece],
        order: MemOrder,
        flags: Flags,
    ) -> Result<(), Fault> {
        let space = self.space_of(cpu);
        for p in pieces {
            let at = virt.offset(p.offset);
            let part = bytes.get(p.offset as usize..(p.offset + p.len) as usize).unwrap_or(&[]);
            let waits =
                pieces.len() == 1 && self.store_waits(cpu, at, p.phys, part, (order, flags));
            self.conflicts(cpu, p.phys.0, p.len);
            let changes = match waits {
                true => Ok(true),
                false => self.put(cpu, Some(at), p.phys, part),
            };
            let Ok(changes) = changes else {
                return Err(self.fault(cpu, at, Access::Write, FaultReason::NoMemory));
            };
            let flags = if changes { flags } else { flags.with(Flags::EQUAL_BYTES) };
            let bytes = self.recorder.bytes(part);
            let view = View::Store { virt: at, phys: p.phys, bytes, order };
            let seq = self.emit_in(cpu, space, flags, OpId::NONE, view);
            if waits {
                self.keep_waiting(cpu, at, p.phys, part, seq);
            } else if changes {
                self.has_replaced(cpu, p.phys.0, p.len, order, seq);
            }
        }
        Ok(())
    }

    /// Stores a pattern again and again over `len` bytes. An empty pattern does nothing.
    ///
    /// # Errors
    /// The fault, which was also emitted; what lies before it was stored.
    pub fn fill(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        len: u64,
        pattern: &[u8],
    ) -> Result<(), Fault> {
        if pattern.is_empty() {
            return Ok(());
        }
        let (pieces, end) = self.pieces(cpu, virt, len, Access::Write);
        let space = self.space_of(cpu);
        for p in pieces.all().iter().copied() {
            let at = virt.offset(p.offset);
            // The pattern as it stands at the start of this piece.
            let mut turned = vec![0; pattern.len()];
            cycle(pattern, (p.offset % pattern.len() as u64) as usize, &mut turned);
            let Ok(changes) = self.write_filled(cpu, p.phys, p.len, &turned, Some(at)) else {
                return Err(self.fault(cpu, at, Access::Write, FaultReason::NoMemory));
            };
            let flags =
                if changes { Flags::default() } else { Flags::default().with(Flags::EQUAL_BYTES) };
            let mut payload = p.len.to_le_bytes().to_vec();
            payload.extend_from_slice(&turned);
            let what = self.recorder.bytes(&payload);
            let view = View::Fill { virt: at, phys: p.phys, what };
            self.emit_in(cpu, space, flags, OpId::NONE, view);
        }
        end
    }

    /// Stores bytes by physical address, without translation and without an event; instruction
    /// sides notice. Whether anything changed.
    pub(crate) fn put(
        &mut self,
        cpu: CpuId,
        virt: Option<VirtAddr>,
        phys: PhysAddr,
        bytes: &[u8],
    ) -> Result<bool, MachineError> {
        if bytes.is_empty() {
            return Ok(false);
        }
        self.tell_watchers(cpu, phys.0, bytes.len() as u64);
        self.users.note(cpu, phys.0, bytes.len() as u64, true);
        let changes = self.before_store(cpu, virt, phys, bytes)?;
        if changes {
            self.will_replace(cpu, phys, bytes.len() as u64);
            self.memory.write(phys, bytes)?;
            self.tables_stored(cpu, phys, bytes.len() as u64);
        }
        Ok(changes)
    }

    /// As [`Self::put`] for a pattern.
    pub(crate) fn write_filled(
        &mut self,
        cpu: CpuId,
        phys: PhysAddr,
        len: u64,
        pattern: &[u8],
        virt: Option<VirtAddr>,
    ) -> Result<bool, MachineError> {
        self.memory.check(phys, len)?;
        for cpu in self.all_cpus() {
            self.perform_overlapping(cpu, phys.0, len);
        }
        self.tell_watchers(cpu, phys.0, len);
        self.users.note(cpu, phys.0, len, true);
        let mut changes = false;
        let mut done = 0;
        while done < len {
            let take = (len - done).min(FILL_PART);
            let mut part = vec![0; take as usize];
            cycle(pattern, (done % pattern.len().max(1) as u64) as usize, &mut part);
            let here = phys.offset(done);
            changes |= self.before_store(cpu, virt.map(|v| v.offset(done)), here, &part)?;
            done += take;
        }
        self.memory.fill(phys, len, pattern)?;
        self.past.overwritten(phys.0, len, self.tick);
        if changes {
            self.tables_stored(cpu, phys, len);
        }
        Ok(changes)
    }

    /// Stores bytes into physical memory as it is before anything runs: no event, no CPU, nothing
    /// old is left behind. For images that firmware loads.
    ///
    /// # Errors
    /// The range is outside memory.
    pub fn load_image(&mut self, phys: PhysAddr, bytes: &[u8]) -> Result<(), MachineError> {
        self.past.overwritten(phys.0, bytes.len() as u64, self.tick);
        self.set_bytes(phys, bytes)
    }

    /// A store hit frames of page tables (by an alias of theirs): held translations may now differ
    /// from what the tables say, so that accesses have to walk again. No leaf event is made of it.
    fn tables_stored(&mut self, by: CpuId, phys: PhysAddr, len: u64) {
        // Tables are at the top of memory: if any frame of the range is one, the last is.
        let last = phys.offset(len.saturating_sub(1));
        if !self.frames.is_table(last.pfn()) {
            return;
        }
        self.tables_overwritten = true;
        let now = Replaced { at: self.tick, by };
        for c in &mut self.cpus {
            c.tlb.distrust(now);
        }
    }

    /// Whether a store that went another way than the calls that change tables ever changed a frame
    /// of page tables: what they hold may then be anything.
    #[must_use]
    pub fn tables_overwritten(&self) -> bool {
        self.tables_overwritten
    }
}
