//! Numbers of things by a hash of a key that each has: four bytes an entry, and nothing of the
//! things themselves, which stand elsewhere in the order of their numbers.
//!
//! What an event costs is to a large part that its addresses are translated, and an index is read
//! all over. So it is small: an entry is a number below a part of the hash, which mostly says that
//! a thing is another one without a look at it.

use prefetch_index::prefetch_index;

/// No number.
pub(crate) const NONE: u32 = u32::MAX;

/// Entries that are looked at before a thing's turn.
const FIRST: usize = 4;

/// The index. Whoever has it has the things, and says of a number whether it is the one meant.
#[derive(Clone, Default, Debug)]
pub(crate) struct Hashed {
    /// Each where the hash says or close behind: a power of two of them, at most two thirds in use,
    /// the others [`NONE`].
    entries: Vec<u32>,
    shift: u32,
    /// The bits of a number there, all of which are none that a thing has.
    bits: u32,
}

impl Hashed {
    /// Where a key is looked for first, and its hash, of which the part that an entry has stands in
    /// the same bits.
    #[inline]
    fn home(&self, key: u64) -> (usize, u32) {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> (self.shift & 63)) as usize, hash as u32)
    }

    #[inline]
    fn mask(&self) -> usize {
        self.entries.len().wrapping_sub(1)
    }

    /// Where a thing is noted, with its number; else where it is to be noted. `is` says whether it
    /// has that number.
    #[inline]
    pub(crate) fn find(&self, key: u64, is: impl Fn(u32) -> bool) -> Result<(usize, u32), usize> {
        let mask = self.mask();
        let (mut at, hash) = self.home(key);
        loop {
            at &= mask;
            let there = self.entries.get(at).copied().unwrap_or(NONE);
            if there == NONE {
                return Err(at);
            }
            if (there ^ hash) & !self.bits == 0 && is(there & self.bits) {
                return Ok((at, there & self.bits));
            }
            at += 1;
        }
    }

    /// Prefetches where a key is looked for first.
    #[inline]
    pub(crate) fn prefetch(&self, key: u64) {
        prefetch_index(&self.entries, self.home(key).0);
    }

    /// The number that a thing may have, [`NONE`] where none is noted of it where it is looked for
    /// first.
    #[inline]
    pub(crate) fn near(&self, key: u64) -> u32 {
        let (home, hash) = self.home(key);
        let there = self.entries.get(home..home + FIRST).unwrap_or(&[]);
        let found = there.iter().find(|there| (**there ^ hash) & !self.bits == 0);
        found.map_or(NONE, |there| there & self.bits)
    }

    /// Whether there is room for so many things.
    #[inline]
    pub(crate) fn has_room(&self, things: usize) -> bool {
        things * 3 <= self.entries.len() * 2
    }

    /// Makes it twice as large, for things with these keys, by number.
    #[cold]
    pub(crate) fn grow(&mut self, keys: impl Iterator<Item = u64>) {
        let room = (self.entries.len() * 2).max(8);
        self.shift = 64 - room.trailing_zeros();
        self.bits = u32::try_from(room - 1).unwrap_or(NONE);
        self.entries = vec![NONE; room];
        keys.enumerate().for_each(|(number, key)| self.note(key, number as u32));
    }

    /// Notes a thing that is not in it.
    pub(crate) fn note(&mut self, key: u64, number: u32) {
        if let Err(free) = self.find(key, |_| false) {
            self.note_at(free, key, number);
        }
    }

    /// Notes a thing where [`Hashed::find`] said.
    #[inline]
    pub(crate) fn note_at(&mut self, free: usize, key: u64, number: u32) {
        let (_, hash) = self.home(key);
        if let Some(there) = self.entries.get_mut(free) {
            *there = hash & !self.bits | number & self.bits;
        }
    }

    /// Takes out what is noted at `hole`; what stands behind it because of it moves up. `key_of`
    /// gives the key of a number that is noted.
    pub(crate) fn forget(&mut self, mut hole: usize, key_of: impl Fn(u32) -> Option<u64>) {
        let mask = self.mask();
        let mut at = (hole + 1) & mask;
        while self.entries[at] != NONE {
            let Some(key) = key_of(self.entries[at] & self.bits) else { break };
            let from_home = at.wrapping_sub(self.home(key).0) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.entries[hole] = self.entries[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.entries[hole] = NONE;
    }

    /// The thing with this key, which is noted, has another number.
    pub(crate) fn renumber(&mut self, key: u64, before: u32, number: u32) {
        if let Ok((at, _)) = self.find(key, |there| there == before) {
            self.note_at(at, key, number);
        }
    }

    /// Forgets all, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.entries.fill(NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index of these keys, whose numbers are their places.
    fn index_of(keys: &[u64]) -> Hashed {
        let mut index = Hashed::default();
        for (number, key) in keys.iter().enumerate() {
            if index.has_room(number + 1) {
                index.note(*key, number as u32);
            } else {
                index.grow(keys.iter().copied().take(number + 1));
            }
        }
        index
    }

    #[test]
    fn what_is_noted_is_found_and_mostly_where_it_is_looked_for_first() {
        let keys: Vec<u64> = (0..5000).map(|n: u64| n << 13 | (n % 7) << 5).collect();
        let mut index = index_of(&keys);
        let find = |index: &Hashed, n: usize| {
            index.find(keys[n], |number| number as usize == n).ok().map(|(at, _)| at)
        };
        let near = (0..keys.len()).filter(|n| index.near(keys[*n]) as usize == *n).count();
        assert!(near > 4500, "{near}");
        assert!((0..keys.len()).all(|n| find(&index, n).is_some()));
        assert!(index.find(1, |_| true).is_err(), "a part of its hash stands with each");
        for n in (0..keys.len()).step_by(3) {
            let at = find(&index, n).unwrap();
            index.forget(at, |number| keys.get(number as usize).copied());
        }
        assert!((0..keys.len()).all(|n| find(&index, n).is_some() == (n % 3 != 0)));
        index.renumber(keys[4], 4, 0);
        assert_eq!(index.find(keys[4], |number| number == 0).map(|(_, number)| number), Ok(0));
        index.clear();
        assert!((0..keys.len()).all(|n| index.near(keys[n]) == NONE && find(&index, n).is_none()));
    }
}
