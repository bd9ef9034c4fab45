//! Instruction fetch: from one CPU's instruction side, by one of the translations it may use.
//!
//! Modelled: a fetch is made piece by piece, a piece lying in one line; each piece gets one version
//! of its line, or what is worse than old where nothing else is promised ([`crate::torn`]). Emits
//! `Fetch` (never across a page) and, where the bytes are older than memory's, `Observed`; no
//! `Observed` means the newest.

use textbed_arch::{CpuId, FRAME_BYTES, PhysAddr, VirtAddr};
use textbed_event::{Access, FaultReason, Flags, OpId, View};

use crate::alone::Side;
use crate::choice::Choice;
use crate::iside::Performed;
use crate::tlb::TlbEntry;
use crate::torn::{Got, Integrity};
use crate::translate::{Way, grants};
use crate::{Fault, Machine};

/// What a fetch got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the translation used leads for the first of them.
    pub phys: PhysAddr,
    /// Stores to these bytes that they miss; 0 = the newest.
    pub behind: u32,
    /// Whether they are what was there at some moment.
    pub integrity: Integrity,
}

/// A fetch that could get only one thing, and when it gets that again.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    cpu: CpuId,
    virt: VirtAddr,
    phys: PhysAddr,
    len: u32,
    start: u64,
    side: Side,
    stamp: u64,
    /// As [`Machine::lines_changed`] was: as long as it stays, so does the stamp.
    changed: u64,
}

impl Again {
    /// Length of the instruction in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len as usize
    }
}

/// A translation for a fetch, with the moments at which it could be used.
#[derive(Clone, Copy)]
struct Lead {
    phys: u64,
    /// Bytes from here on that it covers.
    room: u64,
    since: u64,
    until: u64,
}

impl Lead {
    /// By an entry that the tables still have.
    fn of(e: &TlbEntry, virt: VirtAddr) -> Self {
        Lead {
            phys: e.phys_of(virt.0),
            room: (e.len - (virt.0 - e.virt)).min(page_room(virt)),
            since: e.since,
            until: u64::MAX,
        }
    }
}

/// Bytes from an address on that are in its page.
fn page_room(virt: VirtAddr) -> u64 {
    FRAME_BYTES - virt.page_offset()
}

/// Bytes of one line or page, as fetched.
#[derive(Clone, Copy)]
struct Part {
    virt: VirtAddr,
    phys: PhysAddr,
    len: u32,
    behind: u32,
}

impl Machine {
    /// Fetches `len` bytes of code.
    ///
    /// # Errors
    /// The fault, which was also emitted; then nothing was fetched.
    pub fn fetch(&mut self, cpu: CpuId, virt: VirtAddr, len: usize) -> Result<Fetched, Fault> {
        self.fetch_with(cpu, virt, &mut |bytes| (bytes.len() >= len).then_some(len))
    }

    /// Fetches an instruction whose length only its bytes tell: `length` is asked with what was
    /// fetched so far (whole lines, at most 64 bytes beyond need) or could be, and returns the
    /// instruction's length once it knows. Events speak of that many bytes.
    ///
    /// # Errors
    /// The fault, which was also emitted; then nothing was fetched. If 16 lines do not suffice,
    /// that is `BadAddress`.
    pub fn fetch_with(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        length: &mut dyn FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Fetched, Fault> {
        let refuse = |m: &mut Machine, at, reason| Err(m.fault(cpu, at, Access::Exec, reason));
        let line = 1u64 << self.lines.shift();
        let mut bytes: Vec<u8> = Vec::new();
        let mut pieces: Vec<Part> = Vec::new();
        let mut integrity = Integrity::Whole;
        let mut need = length(&bytes);
        while need.is_none_or(|n| n > bytes.len()) {
            if pieces.len() >= 16 && need.is_none() {
                return refuse(self, virt, FaultReason::BadAddress);
            }
            let Some(at) = virt.checked_add(bytes.len() as u64) else {
                return refuse(self, virt, FaultReason::BadAddress);
            };
            let lead = match self.fetch_lead(cpu, at) {
                Ok(lead) => lead,
                Err(reason) => return refuse(self, at, reason),
            };
            let take = (line - (lead.phys & (line - 1))).min(lead.room);
            let phys = PhysAddr(lead.phys);
            let when = (lead.since, lead.until);
            let Ok(found) = self.candidates(cpu, at, phys, take as usize, when) else {
                return refuse(self, at, FaultReason::NoMemory);
            };
            let options = found.len();
            let n = self.choices.ask(Choice::Version { cpu, virt: at, options });
            let Some(chosen) = found.get(n) else {
                return refuse(self, at, FaultReason::NotPresent);
            };
            let mut own = |piece: &[u8]| {
                let end = length(&[&bytes[..], piece].concat());
                end.map_or(piece.len(), |end| end.saturating_sub(bytes.len()).min(piece.len()))
            };
            let got = self.tear(cpu, at, &found, &mut own);
            let (piece, behind, worst) = match &got {
                Got::Torn(mixture) => {
                    let of = mixture.of.iter().filter_map(|n| found.get(*n));
                    let behind = of.clone().map(|c| c.behind).max().unwrap_or(0);
                    of.for_each(|c| self.fetched(cpu, phys, c));
                    (&mixture.bytes, behind, Integrity::Torn)
                }
                whole => {
                    self.fetched(cpu, phys, chosen);
                    let open = matches!(whole, Got::Unpredictable);
                    let worst = if open { Integrity::Unpredictable } else { Integrity::Whole };
                    (&chosen.bytes, chosen.behind, worst)
                }
            };
            bytes.extend_from_slice(piece);
            integrity = integrity.max(worst);
            pieces.push(Part { virt: at, phys, len: piece.len() as u32, behind });
            need = length(&bytes);
        }
        let need = need.unwrap_or(0);
        bytes.truncate(need);
        let parts = by_page(&pieces, need);
        let behind = parts.iter().map(|p| p.behind).max().unwrap_or(0);
        let space = self.space_of(cpu);
        let first = parts.first().map_or(PhysAddr(0), |p| p.phys);
        for p in parts {
            let Part { virt, phys, len, behind } = p;
            let behind = behind + self.waiting_over(phys.0, u64::from(len));
            let fetch = View::Fetch { virt, phys, len };
            self.emit_in(cpu, space, Flags::default(), OpId::NONE, fetch);
            if behind > 0 {
                let observed = View::Observed { virt, phys, behind };
                self.emit_in(cpu, space, Flags::default(), OpId::NONE, observed);
            }
        }
        Ok(Fetched { bytes, phys: first, behind, integrity })
    }

    /// An instruction of at most 16 bytes, where there is but one thing that a fetch can get: one
    /// translation, and a line without older versions. `length` is as in [`Machine::fetch_with`].
    /// `None`, without any effect: it has to be fetched there.
    pub fn fetch_only(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        length: &mut dyn FnMut(&[u8]) -> Option<usize>,
        out: &mut [u8; 16],
    ) -> Option<Again> {
        if self.reorders() || self.has_sets() {
            return None;
        }
        let lead = self.only_lead(cpu, virt)?;
        let (phys, shift) = (PhysAddr(lead.phys), self.lines.shift());
        let line = self.lines.get(phys.0 >> shift);
        if line.is_some_and(|line| !line.versions.is_empty()) {
            return None;
        }
        let born = line.map_or(0, |line| line.newest_born);
        let size = 1u64 << shift;
        let room = (size - (phys.0 & (size - 1))).min(lead.room) as usize;
        let piece = out.get_mut(..room.min(16))?;
        self.memory.read(phys, piece).ok()?;
        let len = length(piece).filter(|len| (1..=piece.len()).contains(len))? as u32;
        let start = self.fetch_floor(cpu).max(lead.since).max(born);
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.ahead.cursor = c.ahead.cursor.max(start);
            c.pending.saw(born);
        }
        self.fetched_only(cpu, virt, phys, len, start);
        let side = self.side(cpu)?;
        let (stamp, changed) = (self.lines_stamp(phys, len.into()), self.lines_changed());
        Some(Again { cpu, virt, phys, len, start, side, stamp, changed })
    }

    /// Makes a fetch of [`Machine::fetch_only`] once more, if it gets the same: whether it did.
    /// Without any effect if not.
    pub fn fetch_again(&mut self, again: &Again) -> bool {
        let Again { cpu, virt, phys, len, start, side, stamp, changed } = *again;
        let lines = self.lines_changed() == changed || self.lines_stamp(phys, len.into()) == stamp;
        let same = lines && self.side(cpu) == Some(side);
        if same {
            self.fetched_only(cpu, virt, phys, len, start);
        }
        same
    }

    /// What a fetch does that could get nothing else.
    fn fetched_only(&mut self, cpu: CpuId, virt: VirtAddr, phys: PhysAddr, len: u32, start: u64) {
        self.stores_performed(cpu, Performed::Seen(start));
        let fetch = View::Fetch { virt, phys, len };
        self.emit_in(cpu, self.space_of(cpu), Flags::default(), OpId::NONE, fetch);
    }

    /// The translation that a fetch uses, if no other can be used.
    fn only_lead(&mut self, cpu: CpuId, virt: VirtAddr) -> Option<Lead> {
        let c = self.cpus.get_mut(cpu.index())?;
        let e = c.tlb.only(virt.0, c.asid).filter(|e| grants(e.perm, Access::Exec, true))?;
        let past_any = c.ahead.past.iter().any(|p| virt.0.wrapping_sub(p.virt) < p.len);
        (!past_any).then(|| Lead::of(&e, virt))
    }

    /// The translation that a fetch uses.
    fn fetch_lead(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<Lead, FaultReason> {
        if let Some(lead) = self.only_lead(cpu, virt) {
            return Ok(lead);
        }
        let Some(c) = self.cpus.get(cpu.index()) else { return Err(FaultReason::BadAddress) };
        let asid = c.asid;
        let floor = self.fetch_floor(cpu);
        let ways = self.ways(cpu, virt, Access::Exec);
        let walked = ways.first().copied();
        let mut options: Vec<Result<Lead, Way>> = Vec::new();
        for way in ways {
            match way {
                Ok(e) if grants(e.perm, Access::Exec, true) => options.push(Ok(Lead::of(&e, virt))),
                refused => options.push(Err(refused)),
            }
        }
        let past = self.cpus.get(cpu.index()).map_or(&[][..], |c| &c.ahead.past);
        for p in past.iter().rev() {
            let offset = virt.0.wrapping_sub(p.virt);
            if offset >= p.len || p.until <= floor || p.tag.is_some_and(|tag| tag != asid) {
                continue;
            }
            let (phys, room) = (p.phys + offset, (p.len - offset).min(page_room(virt)));
            let lead = Lead { phys, room, since: p.since, until: p.until };
            // Only if something could be fetched by it then.
            let known = options.iter().any(|o| o.as_ref().is_ok_and(|l| l.phys == phys));
            let some = self
                .candidates(cpu, virt, PhysAddr(phys), 1, (p.since, p.until))
                .is_ok_and(|found| !found.is_empty());
            if some && !known {
                options.push(Ok(lead));
            }
        }
        let count = options.len();
        let n = self.choices.ask(Choice::Translation { cpu, virt, options: count });
        match options.get(n).copied() {
            Some(Ok(lead)) => Ok(lead),
            Some(Err(way)) => {
                let e = self.settle(cpu, virt, Access::Exec, way, walked)?;
                Ok(Lead::of(&e, virt))
            }
            None => Err(FaultReason::NotPresent),
        }
    }
}

/// The first `need` bytes of what was fetched, page by page.
fn by_page(pieces: &[Part], need: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut left = need as u64;
    for piece in pieces {
        let len = left.min(u64::from(piece.len)) as u32;
        if len == 0 {
            break;
        }
        left -= u64::from(len);
        match parts.last_mut() {
            Some(p)
                if piece.virt.page_offset() != 0
                    && p.phys.0 + u64::from(p.len) == piece.phys.0
                    && p.virt.page_number() == piece.virt.page_number() =>
            {
                p.len += len;
                p.behind = p.behind.max(piece.behind);
            }
            _ => parts.push(Part { len, ..*piece }),
        }
    }
    parts
}
