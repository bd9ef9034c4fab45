//! Blocks of code by where they begin, and which CPU ran each when.
//!
//! Blocks have numbers in the order in which they came, so that those that run most, which come
//! early, lie together; an index ([`crate::hashed`]) says by where one begins which it is. By its
//! number everything else about a block is found: the lists in which it is, and for each CPU its
//! last execution. So it is looked up once.

use prefetch_index::prefetch_index;
use textbed_arch::CpuId;

use super::ran::{Far, Judged, MAX_LEN, NEAR, Ran};
use crate::hashed::{Hashed, NONE};

/// Number of a block, or of a place in [`super::looks`].
pub(crate) type Id = u32;
/// The end of a list that has blocks.
pub(super) const LAST: Id = u32::MAX - 1;
/// What is kept of blocks, by CPU; past it all is forgotten and judged again.
pub(super) const MAX_KEPT: usize = 1 << 22;

/// One block: what is asked each time that it runs, in half a cache line, and what was done with it
/// beside that, for the processor has the translations of few pages at hand.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Block {
    /// Where it begins.
    pub(super) phys: u64,
    /// Its address when it was found plain.
    pub(super) virt: u64,
    /// The event since which it is plain through that, if it is.
    pub(super) since: u64,
    /// Bytes that are plain, with the count of what changed everything when they were (above); see
    /// [`plain`].
    pub(super) plain: u32,
    /// What each of the first CPUs did with it.
    ran: [Ran; NEAR],
}

const _: () = assert!(size_of::<Block>() == 32 + 8 * NEAR, "the rest is half a cache line");

/// What of the count of changes of everything is kept with a block.
pub(super) const ALL: u32 = 0xffff;

/// What a block has whose first `len` bytes were found plain when everything had changed `all`
/// times; 0 = not plain.
pub(super) fn plain(len: u32, all: u32) -> u32 {
    if len > MAX_LEN { 0 } else { all << 16 | len }
}

/// Whether `len` bytes of a block with that are plain now.
#[inline]
pub(super) fn is_plain(plain: u32, len: u32, all: u32) -> bool {
    plain >> 16 == all & ALL && len.wrapping_sub(1) < plain & MAX_LEN
}

/// What else is known of a block, by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    /// The places of its frame, and of the page through which it was found plain.
    pub(super) frame: Id,
    pub(super) page: Id,
    /// The block behind it in its frame.
    in_frame: Id,
    /// And among those that were found plain through the same page.
    pub(super) in_page: Id,
}

/// All blocks.
#[derive(Default, Debug)]
pub(super) struct Blocks {
    index: Hashed,
    /// By number, as what follows.
    blocks: Vec<Block>,
    listed: Vec<Listed>,
    /// When what stands with each block was judged, which few ask for.
    judged: Vec<[Judged; NEAR]>,
    far: Far,
}

impl Blocks {
    /// The number of the block that begins at `phys`.
    #[inline]
    pub(super) fn find(&self, phys: u64) -> Option<Id> {
        let found = self.index.find(phys, |id| self.at(id, phys).is_some());
        found.ok().map(|(_, id)| id)
    }

    /// The block with this number, if it begins at `phys`.
    #[inline]
    pub(super) fn at(&self, id: Id, phys: u64) -> Option<&Block> {
        self.blocks.get(id as usize).filter(|block| block.phys == phys)
    }

    /// The number that a block which begins at `phys` may have, [`NONE`] where none is noted in the
    /// places that are looked at first.
    #[inline]
    pub(super) fn near(&self, phys: u64) -> Id {
        self.index.near(phys)
    }

    /// Prefetches where in the index `phys` is looked for first.
    #[inline]
    pub(super) fn prefetch(&self, phys: u64) {
        self.index.prefetch(phys);
    }

    /// Prefetches a block, and what `cpu` did with it.
    #[inline]
    pub(super) fn prefetch_there(&self, cpu: CpuId, id: Id) {
        prefetch_index(&self.blocks, id as usize);
        if usize::from(cpu.0) >= NEAR {
            self.far.prefetch(cpu, id);
        } else if let Some(block) = self.blocks.get(id as usize) {
            prefetch_index(block.ran.as_slice(), cpu.0.into());
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<&Block> {
        self.blocks.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Block> {
        self.blocks.get_mut(id as usize)
    }

    /// The blocks of a frame, from the one with this number on.
    pub(super) fn in_frame(&self, first: Option<Id>) -> impl Iterator<Item = Id> + '_ {
        let first = first.filter(|id| *id != NONE);
        let next = |id: &Id| self.listed.get(*id as usize).map(|listed| listed.in_frame);
        std::iter::successors(first, move |id| next(id).filter(|id| *id != NONE))
    }

    pub(super) fn listed(&self, id: Id) -> Option<&Listed> {
        self.listed.get(id as usize)
    }

    pub(super) fn listed_mut(&mut self, id: Id) -> Option<&mut Listed> {
        self.listed.get_mut(id as usize)
    }

    /// None of what is known to be plain is so any more.
    pub(super) fn none_is_plain(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.plain = 0);
    }

    /// Puts in a block that begins at `phys`, where none does, in the frame with this place;
    /// `behind` it there is another.
    pub(super) fn add(&mut self, phys: u64, frame: Id, behind: Id) -> Id {
        let id = self.blocks.len() as Id;
        let ran = [Ran::default(); NEAR];
        self.blocks.push(Block { phys, virt: 0, since: 0, plain: 0, ran });
        self.judged.push([Judged::default(); NEAR]);
        self.listed.push(Listed { frame, page: NONE, in_frame: behind, in_page: NONE });
        if self.index.has_room(self.blocks.len()) {
            self.index.note(phys, id);
        } else {
            self.index.grow(self.blocks.iter().map(|block| block.phys));
        }
        id
    }

    /// What `cpu` did with a block, and when that was judged; nothing where no room is for it.
    fn both(&self, cpu: CpuId, id: Id) -> Option<(Ran, Judged)> {
        match usize::from(cpu.0) {
            cpu if cpu < NEAR => {
                let (block, judged) = (self.get(id)?, self.judged.get(id as usize)?);
                Some((*block.ran.get(cpu)?, *judged.get(cpu)?))
            }
            _ => self.far.at(self.far.slot(cpu, id)?),
        }
    }

    fn both_mut(&mut self, cpu: CpuId, id: Id) -> Option<(&mut Ran, &mut Judged)> {
        match usize::from(cpu.0) {
            cpu if cpu < NEAR => {
                let block = self.blocks.get_mut(id as usize)?;
                Some((block.ran.get_mut(cpu)?, self.judged.get_mut(id as usize)?.get_mut(cpu)?))
            }
            _ => self.far.at_mut(self.far.slot(cpu, id)?),
        }
    }

    /// What `cpu` did with a block, if it ran it or one with a number near by.
    pub(super) fn ran(&self, cpu: CpuId, id: Id) -> Option<Ran> {
        self.both(cpu, id).map(|(ran, _)| ran)
    }

    /// When it was judged for `cpu`.
    pub(super) fn judged(&self, cpu: CpuId, id: Id) -> Option<Judged> {
        self.both(cpu, id).map(|(_, judged)| judged)
    }

    #[inline]
    pub(super) fn ran_mut(&mut self, cpu: CpuId, id: Id) -> Option<&mut Ran> {
        match usize::from(cpu.0) {
            cpu if cpu < NEAR => self.blocks.get_mut(id as usize)?.ran.get_mut(cpu),
            _ => self.far.at_mut(self.far.slot(cpu, id)?).map(|(ran, _)| ran),
        }
    }

    pub(super) fn put(&mut self, cpu: CpuId, id: Id, ran: Ran, judged: Judged) {
        if usize::from(cpu.0) >= NEAR && self.far.slot(cpu, id).is_none() {
            self.far.make_room(cpu, id);
        }
        if let Some((was, when)) = self.both_mut(cpu, id) {
            (*was, *when) = (ran, judged);
        }
    }

    /// Writes down `judged` for each CPU that ran a block in event `since` or later, where nothing
    /// but [`Judged::PLAIN`] stands.
    pub(super) fn say_when(&mut self, id: Id, since: u64, judged: Judged) {
        for cpu in (0..NEAR as u16).map(CpuId).chain(self.far.cpus()) {
            if let Some((ran, when)) = self.both_mut(cpu, id)
                && ran.len() != 0
                && ran.last() >= since
                && *when == Judged::PLAIN
            {
                *when = judged;
            }
        }
    }

    /// Forgets all blocks, and keeps the room.
    pub(super) fn forget(&mut self) {
        self.index.clear();
        self.blocks.clear();
        self.listed.clear();
        self.judged.clear();
        self.far.forget();
    }

    /// What is kept: blocks, and what CPUs may have done with each.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() * (1 + NEAR) + self.far.len()
    }
}
