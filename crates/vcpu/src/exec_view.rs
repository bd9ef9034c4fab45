//! The exec view: what the engine may fetch, instruction by instruction.
//!
//! A slot holds one virtual page. Only bytes that were placed for execution are in it; what else
//! the engine translates ahead from a slot is never executed, because each instruction is placed
//! before it runs and a placement of other bytes drops the translations that cover it.

use std::collections::BTreeMap;

use crate::engine::PAGE;

/// Physical address of the exec view inside the engine.
pub(crate) const EXEC_BASE: u64 = 0x1000_0000;

/// Pages of it: the last one is blank, for pages that the engine looks at but does not execute.
pub(crate) const SLOTS: usize = 33;

const BLANK: usize = SLOTS - 1;

/// What has to be done for a placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    /// The page got a slot just now.
    pub(crate) new_slot: bool,
    /// Where the bytes have to be written; `None` if they are there.
    pub(crate) write_to: Option<u64>,
}

#[derive(Clone)]
struct Slot {
    page: Option<u64>,
    bytes: [Option<u8>; PAGE as usize],
}

/// Which page is in which slot, and which bytes of it are known.
pub(crate) struct ExecView {
    slots: Vec<Slot>,
    by_page: BTreeMap<u64, usize>,
    next: usize,
    /// Where the last placement was: code runs on in one page.
    hint: usize,
}

impl Default for ExecView {
    fn default() -> Self {
        let empty = Slot { page: None, bytes: [None; PAGE as usize] };
        Self { slots: vec![empty; BLANK], by_page: BTreeMap::new(), next: 0, hint: 0 }
    }
}

impl ExecView {
    /// Physical address of the slot of the page that holds `virt`.
    pub(crate) fn address(&self, virt: u64) -> u64 {
        let slot = self.by_page.get(&(virt / PAGE)).copied().unwrap_or(BLANK);
        EXEC_BASE + slot as u64 * PAGE
    }

    /// Notes that `piece`, which crosses no page, is to be executed at `virt`.
    pub(crate) fn place(&mut self, virt: u64, piece: &[u8]) -> Placed {
        let (slot, new_slot) = self.slot_for(virt / PAGE);
        let offset = (virt % PAGE) as usize;
        let mut same = true;
        for (known, byte) in self.slots[slot].bytes.iter_mut().skip(offset).zip(piece) {
            same &= *known == Some(*byte);
            *known = Some(*byte);
        }
        let write_to = EXEC_BASE + slot as u64 * PAGE + offset as u64;
        Placed { new_slot, write_to: (!same).then_some(write_to) }
    }

    fn slot_for(&mut self, page: u64) -> (usize, bool) {
        if self.slots.get(self.hint).is_some_and(|slot| slot.page == Some(page)) {
            return (self.hint, false);
        }
        if let Some(slot) = self.by_page.get(&page) {
            self.hint = *slot;
            return (*slot, false);
        }
        let slot = self.next;
        self.next = (self.next + 1) % BLANK;
        if let Some(old) = self.slots[slot].page {
            self.by_page.remove(&old);
        }
        self.slots[slot] = Slot { page: Some(page), bytes: [None; PAGE as usize] };
        self.by_page.insert(page, slot);
        (slot, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_written_once_and_other_bytes_again() {
        let mut view = ExecView::default();
        let first = view.place(0x1ffe, &[1, 2]);
        assert_eq!(first, Placed { new_slot: true, write_to: Some(EXEC_BASE + 0xffe) });
        assert_eq!(view.place(0x1ffe, &[1, 2]), Placed { new_slot: false, write_to: None });
        assert_eq!(view.place(0x1fff, &[2]).write_to, None);
        assert_eq!(view.place(0x1fff, &[3]).write_to, Some(EXEC_BASE + 0xfff));
        assert_eq!(view.place(0x1ffe, &[1, 2]).write_to, Some(EXEC_BASE + 0xffe));
    }

    #[test]
    fn a_page_that_lost_its_slot_is_forgotten() {
        let mut view = ExecView::default();
        view.place(0, &[1]);
        assert_eq!(view.address(8), EXEC_BASE);
        for page in 1..=BLANK as u64 {
            assert!(view.place(page * PAGE, &[1]).new_slot);
        }
        assert_eq!(view.address(8), EXEC_BASE + BLANK as u64 * PAGE, "blank");
        let again = view.place(0, &[1]);
        assert!(again.new_slot && again.write_to.is_some());
    }
}
