//! Entries made, changed and removed in a table, in the order of stores that other CPUs may see:
//! an entry is filled before it is valid, and its first word goes first when it is removed.
//!
//! Nothing is invalidated here: that is a matter of who edits, and of `tlbie` by virtual address.

use super::field::{Part, get};
use super::lookup::Slot;
use super::{GROUP, HashEntry, HashError, HashFormat, HashRefusal, HashTable, Rights, Segment};
use crate::addr::{PhysAddr, VirtAddr};

/// Memory that holds a table, in words of the format.
pub trait HashMemory {
    /// The word at an address; `None` where there is no memory.
    fn word(&self, addr: PhysAddr) -> Option<u64>;
    /// Stores a word; whether there is memory.
    fn set_word(&mut self, addr: PhysAddr, value: u64) -> bool;
}

/// Where an entry was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Its address.
    pub addr: PhysAddr,
    /// Number in its group.
    pub slot: u64,
    /// Whether that is the secondary one.
    pub secondary: bool,
}

impl HashFormat {
    /// The entry for an address in memory.
    ///
    /// # Errors
    /// See [`HashFormat::find`].
    pub fn find_in(
        &self,
        memory: &dyn HashMemory,
        table: HashTable,
        segment: &Segment,
        va: VirtAddr,
    ) -> Result<Slot, HashRefusal> {
        self.find(table, segment, va, &mut |addr| memory.word(addr))
    }

    /// Puts an entry for `va` into the first free slot of the primary group, else of the secondary
    /// one.
    ///
    /// # Errors
    /// [`HashError::Full`] if there is none; others if it cannot be encoded.
    pub fn insert(
        &self,
        memory: &mut dyn HashMemory,
        table: HashTable,
        segment: &Segment,
        va: VirtAddr,
        entry: &HashEntry,
    ) -> Result<Placed, HashError> {
        for secondary in [false, true] {
            let words = self.encode_entry(segment, va, entry, secondary)?;
            let outside = HashError::OutsideMemory { phys: PhysAddr(u64::MAX) };
            let group = self.group(table, segment, va, secondary).ok_or(outside)?;
            for slot in 0..GROUP {
                let addr = group.checked_add(slot * self.entry_bytes()).ok_or(outside)?;
                let first = memory.word(addr).ok_or(HashError::OutsideMemory { phys: addr })?;
                if get(self.entry, [first, 0], Part::Valid) == 0 {
                    self.store(memory, addr, 1, words[1])?;
                    self.store(memory, addr, 0, words[0])?;
                    return Ok(Placed { addr, slot, secondary });
                }
            }
        }
        Err(HashError::Full)
    }

    /// Gives a found entry other rights, in one store.
    ///
    /// # Errors
    /// [`HashError`] if the format has no bits for them, or there is no memory.
    pub fn protect(
        &self,
        memory: &mut dyn HashMemory,
        slot: &Slot,
        rights: &Rights,
    ) -> Result<(), HashError> {
        let new = self.with_rights(slot.words, rights)?;
        self.store(memory, slot.addr, 1, new[1])
    }

    /// Makes a found entry invalid.
    ///
    /// # Errors
    /// [`HashError::OutsideMemory`].
    pub fn remove(&self, memory: &mut dyn HashMemory, slot: &Slot) -> Result<(), HashError> {
        self.store(memory, slot.addr, 0, 0)
    }

    fn store(
        &self,
        memory: &mut dyn HashMemory,
        entry: PhysAddr,
        word: u64,
        value: u64,
    ) -> Result<(), HashError> {
        let outside = HashError::OutsideMemory { phys: entry };
        let addr = entry.checked_add(word * self.word_bytes).ok_or(outside)?;
        if memory.set_word(addr, value) { Ok(()) } else { Err(outside) }
    }
}
