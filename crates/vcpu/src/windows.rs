//! Data windows: private pages in which one instruction's loads find their bytes and its stores
//! leave theirs, until the machine has taken or refused them.
//!
//! A window shows one virtual page. Its contents mean something only during an instruction, and
//! only where bytes were supplied or stored.

use crate::engine::PAGE;

/// Physical address of the windows inside the engine.
pub(crate) const DATA_BASE: u64 = 0;

/// How many there are. At the start of an instruction at least half of them are free.
pub(crate) const WINDOWS: usize = 64;

/// A load or store of the instruction that ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// First address.
    pub(crate) virt: u64,
    /// Bytes.
    pub(crate) len: usize,
    /// A store (else a load).
    pub(crate) write: bool,
}

/// Which page each window shows, and the accesses of the last run.
#[derive(Default)]
pub(crate) struct Windows {
    pages: Vec<u64>,
    accesses: Vec<Access>,
    overflowed: bool,
}

impl Windows {
    /// Physical address of `virt` in its window; `None` if all are taken.
    pub(crate) fn address(&mut self, virt: u64) -> Option<u64> {
        let page = virt / PAGE;
        let index = match self.pages.iter().position(|p| *p == page) {
            Some(index) => index,
            None if self.pages.len() < WINDOWS => {
                self.pages.push(page);
                self.pages.len() - 1
            }
            None => {
                self.overflowed = true;
                return None;
            }
        };
        Some(DATA_BASE + index as u64 * PAGE + virt % PAGE)
    }

    /// Frees all windows if more than half are taken. Returns whether it did: then translations
    /// to them are stale.
    pub(crate) fn make_room(&mut self) -> bool {
        let full = self.pages.len() > WINDOWS / 2;
        if full {
            self.pages.clear();
        }
        full
    }

    /// Forgets the accesses of the last run.
    pub(crate) fn begin_run(&mut self) {
        self.accesses.clear();
        self.overflowed = false;
    }

    /// Notes an access by its physical address, as the engine reports it.
    pub(crate) fn note(&mut self, paddr: u64, len: usize, write: bool) {
        let offset = paddr.wrapping_sub(DATA_BASE);
        let page = usize::try_from(offset / PAGE).ok().and_then(|index| self.pages.get(index));
        if let Some(page) = page {
            let virt = page.wrapping_mul(PAGE) + offset % PAGE;
            self.accesses.push(Access { virt, len, write });
        }
    }

    /// Notes accesses that the machine made without a run.
    pub(crate) fn note_all(&mut self, accesses: impl Iterator<Item = Access>) {
        self.accesses.clear();
        self.accesses.extend(accesses);
    }

    /// The accesses of the last run, in order.
    pub(crate) fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// Whether the last run needed more windows than there are.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_addresses_lead_back() {
        let mut w = Windows::default();
        let a = w.address(0xffff_8880_0000_1ff8).unwrap();
        let b = w.address(0x7008).unwrap();
        assert_eq!((a % PAGE, b), (0xff8, PAGE + 8));
        assert_eq!(w.address(0xffff_8880_0000_1000), Some(DATA_BASE));
        w.note(a, 8, false);
        w.note(b, 4, true);
        let expected = [
            Access { virt: 0xffff_8880_0000_1ff8, len: 8, write: false },
            Access { virt: 0x7008, len: 4, write: true },
        ];
        assert_eq!(w.accesses(), expected);
        w.begin_run();
        assert!(w.accesses().is_empty());
    }

    #[test]
    fn a_full_set_says_so_and_room_can_be_made() {
        let mut w = Windows::default();
        for page in 0..WINDOWS as u64 {
            assert!(w.address(page * PAGE).is_some());
        }
        assert_eq!(w.address(WINDOWS as u64 * PAGE), None);
        assert!(w.overflowed());
        assert!(w.make_room());
        assert!(!w.make_room());
        w.begin_run();
        assert!(w.address(WINDOWS as u64 * PAGE).is_some() && !w.overflowed());
    }
}
