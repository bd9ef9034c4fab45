//! The code that may run freely: pages in which everything is a trap but what was fetched, by
//! single steps, and would be fetched alike again.
//!
//! A page here is a virtual one with the frame that its bytes came from, and a stamp for each 64 of
//! them ([`textbed_machine::Machine::lines_stamp`]). What it shows the engine is written when the
//! engine is entered, whole, and only if it is not what the engine has already: forgetting code and
//! learning it again costs no translation.

use std::collections::BTreeMap;

use textbed_arch::{Arch, Pfn, PhysAddr};
use textbed_machine::Machine;

use crate::engine::PAGE;

/// Physical address of the code inside the engine.
pub(super) const CODE_BASE: u64 = 0x1000_0000;
/// Pages of it: the last one has nothing but traps, for pages that are not known.
pub(super) const CODE_PAGES: usize = 65;

const BLANK: usize = CODE_PAGES - 1;
const BYTES: usize = PAGE as usize;
/// Bytes that are forgotten together, and how many such there are.
const GRANULE: usize = 64;
const GRANULES: usize = BYTES / GRANULE;

type Image = Box<[u8; BYTES]>;
type Bits = [u64; BYTES / 64];

fn get(bits: &Bits, at: usize) -> bool {
    bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
}

fn set(bits: &mut Bits, at: usize) {
    if let Some(word) = bits.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
}

fn clear(bits: &mut Bits, at: usize) {
    if let Some(word) = bits.get_mut(at / 64) {
        *word &= !(1 << (at % 64));
    }
}

struct Page {
    number: u64,
    frame: Pfn,
    /// Of each granule in which something is known.
    stamps: [Option<u64>; GRANULES],
    /// What the engine is to fetch: known bytes, and traps.
    image: Image,
    known: Bits,
    /// First bytes of the instructions that are known.
    starts: Bits,
    /// First bytes of instructions that are to be stepped however often they are met.
    barred: Bits,
    /// What the engine has, and which starts it has seen.
    written: Image,
    seen: Bits,
    changed: bool,
}

/// What has to be written to the engine.
pub(super) struct Update {
    pub(super) virt: u64,
    pub(super) paddr: u64,
    pub(super) bytes: Image,
}

/// Every page.
pub(super) struct Code {
    trap: Image,
    pages: Vec<Page>,
    by_number: BTreeMap<u64, usize>,
    /// Where the last look-up ended.
    hint: usize,
    /// As [`Machine::lines_changed`] was when the stamps were looked at.
    looked_at: u64,
}

/// An instruction that raises the engine's breakpoint.
fn trap_of(arch: Arch) -> [u8; 4] {
    match arch {
        Arch::X86_64 => [0xcc; 4],
        Arch::Arm64 => 0xd420_0000u32.to_le_bytes(),
        Arch::Ppc64le => 0x7fe0_0008u32.to_le_bytes(),
        Arch::Ppc64 | Arch::Ppc32 => 0x7fe0_0008u32.to_be_bytes(),
    }
}

impl Code {
    pub(super) fn new(arch: Arch) -> Self {
        let trap = trap_of(arch);
        let mut image = Box::new([0; BYTES]);
        image.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&trap));
        Self { trap: image, pages: Vec::new(), by_number: BTreeMap::new(), hint: 0, looked_at: 0 }
    }

    /// What every page of the engine has before anything is known.
    pub(super) fn blank(&self) -> &[u8] {
        &self.trap[..]
    }

    /// Physical address of a page inside the engine.
    pub(super) fn address(&self, virt: u64) -> u64 {
        let page = self.by_number.get(&(virt / PAGE)).copied().unwrap_or(BLANK);
        CODE_BASE + page as u64 * PAGE
    }

    fn page(&self, virt: u64) -> Option<&Page> {
        let number = virt / PAGE;
        let hinted = self.pages.get(self.hint).filter(|p| p.number == number);
        hinted.or_else(|| self.by_number.get(&number).and_then(|n| self.pages.get(*n)))
    }

    /// Whether an instruction that may run freely starts here.
    pub(super) fn starts(&self, virt: u64) -> bool {
        self.page(virt).is_some_and(|p| get(&p.starts, (virt % PAGE) as usize))
    }

    /// Whether the engine would execute this byte as it is.
    pub(super) fn shows(&self, virt: u64) -> bool {
        self.page(virt).is_some_and(|p| get(&p.known, (virt % PAGE) as usize))
    }

    /// Number of instructions that start in a range of one or two pages.
    pub(super) fn count(&self, virt: u64, len: u64) -> u64 {
        let (mut at, mut left, mut count) = (virt, len, 0);
        while left > 0 {
            let bit = (at % 64) as u32;
            let take = left.min(64 - u64::from(bit));
            let word = self.page(at).and_then(|p| p.starts.get((at % PAGE / 64) as usize));
            let mask = u64::MAX >> (64 - take) << bit;
            count += u64::from((word.copied().unwrap_or(0) & mask).count_ones());
            (at, left) = (at.wrapping_add(take), left - take);
        }
        count
    }

    /// Notes an instruction that may run freely, of the bytes that are at `phys` for this CPU.
    /// Returns whether pages moved for it.
    pub(super) fn note(&mut self, m: &Machine, virt: u64, bytes: &[u8], phys: PhysAddr) -> bool {
        let offset = (virt % PAGE) as usize;
        let end = offset + bytes.len();
        if end > BYTES || bytes.is_empty() {
            return false;
        }
        let (n, moved) = self.page_for(virt / PAGE, phys.pfn());
        let Some(page) = self.pages.get_mut(n) else { return moved };
        if page.frame != phys.pfn() {
            page.forget(&self.trap);
            page.frame = phys.pfn();
        }
        for granule in offset / GRANULE..=(end - 1) / GRANULE {
            page.check(m, granule, &self.trap);
        }
        page.note(offset, bytes);
        moved
    }

    fn page_for(&mut self, number: u64, frame: Pfn) -> (usize, bool) {
        if let Some(n) = self.by_number.get(&number) {
            self.hint = *n;
            return (*n, false);
        }
        if self.pages.len() >= BLANK {
            self.pages.clear();
            self.by_number.clear();
        }
        let n = self.pages.len();
        self.pages.push(Page {
            number,
            frame,
            stamps: [None; GRANULES],
            image: self.trap.clone(),
            known: [0; BYTES / 64],
            starts: [0; BYTES / 64],
            barred: [0; BYTES / 64],
            // What was here before is unknown.
            written: Box::new([0; BYTES]),
            seen: [0; BYTES / 64],
            changed: true,
        });
        self.by_number.insert(number, n);
        self.hint = n;
        (n, true)
    }

    /// From now on the instruction at `virt` is stepped.
    pub(super) fn bar(&mut self, virt: u64) {
        let Some(n) = self.by_number.get(&(virt / PAGE)) else { return };
        let Some(page) = self.pages.get_mut(*n) else { return };
        let offset = (virt % PAGE) as usize;
        if get(&page.starts, offset) {
            set(&mut page.barred, offset);
            page.remove(offset, &self.trap);
        }
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        // Counts of another machine may be the same.
        self.looked_at = u64::MAX;
        let trap = &self.trap;
        self.pages.iter_mut().for_each(|p| p.forget(trap));
    }

    /// Forgets what lies in lines that changed.
    pub(super) fn check(&mut self, m: &Machine) {
        if m.lines_changed() == self.looked_at {
            return;
        }
        self.looked_at = m.lines_changed();
        for page in &mut self.pages {
            (0..GRANULES).for_each(|granule| page.check(m, granule, &self.trap));
        }
    }

    /// The engine may have translated something else than what it was shown.
    pub(super) fn distrust(&mut self, virt: u64) {
        let n = self.by_number.get(&(virt / PAGE)).copied();
        if let Some(page) = n.and_then(|n| self.pages.get_mut(n)) {
            page.changed = true;
            page.seen = [u64::MAX; BYTES / 64];
        }
    }

    /// What the engine has to be told before it runs.
    pub(super) fn updates(&mut self) -> Vec<Update> {
        let mut out = Vec::new();
        for (n, page) in self.pages.iter_mut().enumerate().filter(|(_, p)| p.changed) {
            page.changed = false;
            if page.image == page.written && page.starts == page.seen {
                continue;
            }
            page.written.copy_from_slice(&page.image[..]);
            page.seen = page.starts;
            out.push(Update {
                virt: page.number * PAGE,
                paddr: CODE_BASE + n as u64 * PAGE,
                bytes: page.image.clone(),
            });
        }
        out
    }
}

impl Page {
    fn note(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        // Code in the middle of other code is always stepped.
        let overlaps = (offset..end).any(|at| get(&self.known, at));
        if get(&self.barred, offset) || overlaps {
            return;
        }
        set(&mut self.starts, offset);
        (offset..end).for_each(|at| set(&mut self.known, at));
        self.image[offset..end].copy_from_slice(bytes);
        self.changed = true;
    }

    /// Takes an instruction out.
    fn remove(&mut self, start: usize, trap: &Image) {
        clear(&mut self.starts, start);
        let mut at = start;
        while at < BYTES && get(&self.known, at) && !get(&self.starts, at) {
            clear(&mut self.known, at);
            self.image[at] = trap[at];
            at += 1;
        }
        self.changed = true;
    }

    /// Forgets what reaches into a granule if its lines changed.
    fn check(&mut self, m: &Machine, granule: usize, trap: &Image) {
        let first = granule * GRANULE;
        let now = m.lines_stamp(self.frame.addr().offset(first as u64), GRANULE as u64);
        let Some(stamp) = self.stamps.get_mut(granule) else { return };
        if stamp.replace(now).is_none_or(|before| before == now) {
            return;
        }
        let mut at = first;
        while at > 0 && get(&self.known, at) && !get(&self.starts, at) {
            at -= 1;
        }
        for start in at..first + GRANULE {
            clear(&mut self.barred, start);
            if get(&self.starts, start) {
                self.remove(start, trap);
            }
        }
    }

    fn forget(&mut self, trap: &Image) {
        if self.stamps.iter().all(Option::is_none) {
            return;
        }
        self.image.copy_from_slice(&trap[..]);
        self.stamps = [None; GRANULES];
        self.known = [0; BYTES / 64];
        self.starts = [0; BYTES / 64];
        self.barred = [0; BYTES / 64];
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use textbed_machine::{MachineConfig, Newest};

    use super::*;

    const PHYS: PhysAddr = PhysAddr(0x7010);

    fn machine() -> Machine {
        Machine::new(MachineConfig::new(Arch::X86_64), Box::new(Newest)).unwrap()
    }

    #[test]
    fn only_what_was_noted_is_shown_and_the_rest_traps() {
        let m = machine();
        let mut code = Code::new(Arch::X86_64);
        assert!(code.note(&m, 0x1010, &[1, 2, 3], PHYS), "a new page");
        assert!(!code.note(&m, 0x1013, &[4], PHYS));
        let [update] = code.updates().try_into().ok().unwrap();
        assert_eq!((update.virt, update.paddr), (0x1000, CODE_BASE));
        assert_eq!(update.bytes[0xf..0x15], [0xcc, 1, 2, 3, 4, 0xcc]);
        assert!(code.updates().is_empty(), "once");
        assert!(code.starts(0x1010) && code.starts(0x1013));
        assert!(!code.starts(0x1011) && code.shows(0x1011), "the middle of one");
        assert_eq!((code.count(0x1000, 0x1000), code.count(0x1011, 0x40)), (2, 1));
        assert_eq!((code.count(0xfff, 0x12), code.count(0x1013, 1)), (1, 1));
        assert_eq!(code.address(0x1fff), CODE_BASE);
        assert_eq!(code.address(0x2000), CODE_BASE + BLANK as u64 * PAGE);
    }

    #[test]
    fn overlapping_code_is_not_noted_and_barred_code_is_a_trap() {
        let m = machine();
        let mut code = Code::new(Arch::X86_64);
        code.note(&m, 0x1010, &[1, 2, 3], PHYS);
        code.note(&m, 0x1011, &[2], PHYS);
        code.note(&m, 0x100f, &[9, 1], PHYS);
        assert!(!code.starts(0x1011) && !code.starts(0x100f));
        code.bar(0x1010);
        code.note(&m, 0x1010, &[1, 2, 3], PHYS);
        assert!(!code.starts(0x1010) && !code.shows(0x1012));
        code.forget();
        code.note(&m, 0x1010, &[1, 2, 3], PHYS);
        assert!(code.starts(0x1010), "until the page is forgotten");
    }

    #[test]
    fn what_is_learnt_again_as_it_was_is_not_written_again() {
        let m = machine();
        let mut code = Code::new(Arch::Arm64);
        code.note(&m, 0x1010, &[1, 2, 3, 4], PHYS);
        assert_eq!(code.updates().len(), 1);
        code.forget();
        assert!(!code.shows(0x1010));
        code.note(&m, 0x1010, &[1, 2, 3, 4], PHYS);
        assert!(code.updates().is_empty());
        code.note(&m, 0x1010, &[1, 2, 3, 5], PhysAddr(0x8010));
        let updates = code.updates();
        assert_eq!(updates[0].bytes[0x10..0x14], [1, 2, 3, 5], "of another frame");
    }

    #[test]
    fn a_changed_line_takes_what_reaches_into_it() {
        let mut m = machine();
        let mut code = Code::new(Arch::X86_64);
        let at = |offset| PhysAddr(0x7000 + offset);
        for (offset, len) in [(0x3a, 4), (0x3e, 4), (0x42, 1), (0x7f, 2), (0x81, 1)] {
            code.note(&m, 0x1000 + offset, &vec![7; len], at(offset));
        }
        code.check(&m);
        assert!([0x3a, 0x3e, 0x42, 0x7f, 0x81].iter().all(|o| code.starts(0x1000 + o)));
        m.preload(at(0x60), &[1]).unwrap();
        code.check(&m);
        let left: Vec<u64> = (0..4096).filter(|o| code.shows(0x1000 + o)).collect();
        assert_eq!(left, [0x3a, 0x3b, 0x3c, 0x3d, 0x81]);
    }
}
