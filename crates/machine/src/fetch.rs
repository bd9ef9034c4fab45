//! Instruction fetch: from one CPU's instruction side, by one of the translations it may use.
//!
//! Modelled: a fetch is made piece by piece, a piece lying in one line; each piece gets one version
//! of its line, or what is worse than old where nothing else is promised ([`crate::torn`]). Emits
//! `Fetch` (never across a page) and, where the bytes are older than memory's, `Observed`; no
//! `Observed` means the newest.

use textbed_arch::{CpuId, PhysAddr, VirtAddr};
use textbed_event::{Access, FaultReason, Flags, OpId, View};

use crate::choice::Choice;
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

/// A translation for a fetch, with the moments at which it could be used.
#[derive(Clone, Copy)]
struct Lead {
    phys: u64,
    /// Bytes from here on that it covers.
    room: u64,
    since: u64,
    until: u64,
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

    /// The translation that a fetch uses.
    fn fetch_lead(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<Lead, FaultReason> {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return Err(FaultReason::BadAddress) };
        let asid = c.asid;
        let page_room = 4096 - virt.page_offset();
        let fresh = c.tlb.only(virt.0, asid).filter(|e| grants(e.perm, Access::Exec, true));
        let past_any = c.ahead.past.iter().any(|p| virt.0.wrapping_sub(p.virt) < p.len);
        let lead_of = |e: &crate::tlb::TlbEntry| Lead {
            phys: e.phys_of(virt.0),
            room: (e.len - (virt.0 - e.virt)).min(page_room),
            since: e.since,
            until: u64::MAX,
        };
        if let Some(e) = fresh.filter(|_| !past_any) {
            return Ok(lead_of(&e));
        }
        let floor = self.fetch_floor(cpu);
        let ways = self.ways(cpu, virt, Access::Exec);
        let walked = ways.first().copied();
        let mut options: Vec<Result<Lead, Way>> = Vec::new();
        for way in ways {
            match way {
                Ok(e) if grants(e.perm, Access::Exec, true) => options.push(Ok(lead_of(&e))),
                refused => options.push(Err(refused)),
            }
        }
        let past = self.cpus.get(cpu.index()).map_or(&[][..], |c| &c.ahead.past);
        for p in past.iter().rev() {
            let offset = virt.0.wrapping_sub(p.virt);
            if offset >= p.len || p.until <= floor || p.tag.is_some_and(|tag| tag != asid) {
                continue;
            }
            let (phys, room) = (p.phys + offset, (p.len - offset).min(page_room));
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
                Ok(lead_of(&e))
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
