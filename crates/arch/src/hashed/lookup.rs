//! One access: block, segment, both groups, rights.

use super::field::{Part, get};
use super::{Block, GROUP, HashFormat, HashTable, Keys, Segment, Words};
use crate::addr::{PhysAddr, VirtAddr};
use crate::paging::{Attempt, Privilege};
use crate::perm::Perm;

/// What a CPU has set up.
#[derive(Clone, Copy, Debug)]
pub struct HashMmu<'a> {
    /// The table.
    pub table: HashTable,
    /// Segments; the first that holds an address counts.
    pub segments: &'a [Segment],
    /// Blocks of loads and stores.
    pub data_blocks: &'a [Block],
    /// Blocks of fetches.
    pub fetch_blocks: &'a [Block],
    /// Virtual page class keys.
    pub keys: Keys,
}

/// An entry that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its address.
    pub addr: PhysAddr,
    /// Its words.
    pub words: Words,
    /// Whether it was found in the secondary group.
    pub secondary: bool,
}

/// Where an access arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Physical address of the byte.
    pub phys: PhysAddr,
    /// `log2` of the page; of a block: of its bytes.
    pub shift: u32,
    /// The entry; `None` for a block.
    pub slot: Option<Slot>,
}

/// Why an access is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashRefusal {
    /// No segment holds the address.
    NoSegment,
    /// A direct-store segment, which is not modelled.
    DirectStore,
    /// A fetch from a segment in which nothing is executed.
    Segment,
    /// No entry in either group.
    NoEntry,
    /// An entry or a block does not grant it.
    Rights {
        /// A fetch, and N or G is set.
        no_execute: bool,
        /// The protection number under the segment's key.
        protection: bool,
        /// The virtual page class key.
        key: bool,
    },
    /// A group lies where memory cannot be read.
    OutsideMemory {
        /// The entry's address.
        addr: PhysAddr,
    },
}

/// What finding an entry needs of memory: the word at an address, or `None` where there is none.
type Read<'a> = &'a mut dyn FnMut(PhysAddr) -> Option<u64>;

impl HashFormat {
    /// Address of the first entry of the group for an address; `None` past the end of the physical
    /// space.
    #[must_use]
    pub fn group(
        &self,
        table: HashTable,
        segment: &Segment,
        va: VirtAddr,
        secondary: bool,
    ) -> Option<PhysAddr> {
        let hash = if secondary { !segment.hash(va) } else { segment.hash(va) };
        let number = hash & ((1 << table.group_bits) - 1);
        table.base.checked_add(number * GROUP * self.entry_bytes())
    }

    /// The entry for an address: of the primary group, else of the secondary one.
    ///
    /// # Errors
    /// [`HashRefusal::NoEntry`] or [`HashRefusal::OutsideMemory`].
    pub fn find(
        &self,
        table: HashTable,
        segment: &Segment,
        va: VirtAddr,
        read: Read<'_>,
    ) -> Result<Slot, HashRefusal> {
        for secondary in [false, true] {
            let outside = HashRefusal::OutsideMemory { addr: PhysAddr(u64::MAX) };
            let group = self.group(table, segment, va, secondary).ok_or(outside)?;
            for n in 0..GROUP {
                let addr = group.checked_add(n * self.entry_bytes()).ok_or(outside)?;
                let words = self.read_entry(addr, read)?;
                if self.matches(words, segment, va, secondary) {
                    return Ok(Slot { addr, words, secondary });
                }
            }
        }
        Err(HashRefusal::NoEntry)
    }

    fn read_entry(&self, addr: PhysAddr, read: Read<'_>) -> Result<Words, HashRefusal> {
        let mut word = |at: Option<PhysAddr>| {
            at.and_then(&mut *read).ok_or(HashRefusal::OutsideMemory { addr })
        };
        Ok([word(Some(addr))?, word(addr.checked_add(self.word_bytes))?])
    }

    /// One access: where it arrives, or why it faults.
    ///
    /// # Errors
    /// The refusal; [`HashFormat::syndrome`] has what the CPU says of it.
    pub fn access(
        &self,
        mmu: &HashMmu<'_>,
        va: VirtAddr,
        who: Privilege,
        what: Attempt,
        read: Read<'_>,
    ) -> Result<Found, HashRefusal> {
        let fetch = what == Attempt::Exec;
        let blocks = if fetch { mmu.fetch_blocks } else { mmu.data_blocks };
        if let Some(block) = blocks.iter().find(|block| block.holds(va, who)) {
            let protection = !block.grants().contains(what.needs());
            let refused = HashRefusal::Rights { no_execute: false, protection, key: false };
            let shift = 64 - block.mask.leading_zeros();
            let found = Found { phys: block.phys(va), shift, slot: None };
            return if protection { Err(refused) } else { Ok(found) };
        }
        let segment = mmu.segments.iter().find(|segment| segment.holds(va));
        let segment = segment.ok_or(HashRefusal::NoSegment)?;
        if segment.direct_store {
            return Err(HashRefusal::DirectStore);
        }
        if fetch && segment.no_execute {
            return Err(HashRefusal::Segment);
        }
        let slot = self.find(mmu.table, segment, va, read)?;
        // One that matches has a page size.
        let entry = self.decode_entry(slot.words, segment).ok_or(HashRefusal::NoEntry)?;
        let no_execute = fetch && (entry.rights.no_execute || entry.rights.guarded);
        let need = what.needs();
        let protection = !segment.grants(entry.rights.protection, who).contains(need);
        let key = !mmu.keys.leave(entry.rights.key).contains(need);
        if no_execute || protection || key {
            return Err(HashRefusal::Rights { no_execute, protection, key });
        }
        let offset = va.0 & ((1 << entry.shift) - 1);
        let phys = PhysAddr(entry.frame.0 | offset);
        Ok(Found { phys, shift: entry.shift, slot: Some(slot) })
    }

    /// An entry as an access that was granted leaves it: R set, C by a store. A CPU may leave that
    /// to an interrupt.
    #[must_use]
    pub fn accessed(&self, words: Words, what: Attempt) -> Words {
        let mut new = words;
        for field in self.entry {
            let set = match field.part {
                Part::Referenced => true,
                Part::Changed => what == Attempt::Write,
                _ => false,
            };
            if set {
                new[field.word] |= field.mask();
            }
        }
        new
    }

    /// Software bits of an entry.
    #[must_use]
    pub fn software(&self, words: Words) -> u64 {
        get(self.entry, words, Part::Software)
    }

    /// What the entry for an address grants now, of an address that a segment holds; empty without
    /// one.
    pub fn perm(&self, table: HashTable, segment: &Segment, va: VirtAddr, read: Read<'_>) -> Perm {
        let slot = self.find(table, segment, va, read);
        slot.map_or(Perm::empty(), |slot| self.effective(&self.rights(slot.words), segment))
    }
}
