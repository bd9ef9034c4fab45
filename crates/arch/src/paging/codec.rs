//! Entries decoded, encoded and changed, from the fields' roles alone.
//!
//! Modelled: validity, kind, address, permissions, the style in which Linux writes its kernel
//! entries. Not modelled: which entry a TLB would really cache.

use std::fmt;

use super::shape::{Sense, Shape};
use super::{Controls, Format};
use crate::addr::PhysAddr;
use crate::perm::Perm;

/// An entry, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Not valid.
    None,
    /// Points to a table of the next level.
    Table {
        /// Address of that table.
        next: PhysAddr,
        /// What remains possible below: a permission not in here is taken from every leaf.
        limits: Perm,
    },
    /// Maps memory.
    Leaf {
        /// First byte of the frame.
        phys: PhysAddr,
        /// `log2` of its size in bytes.
        shift: u32,
        /// What this entry grants by itself, under [`Controls::LINUX`].
        perm: Perm,
        /// The entry.
        raw: u64,
    },
    /// Valid, but not an entry that the format allows.
    Malformed {
        /// What is wrong.
        why: Why,
    },
}

/// Why a valid entry is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Reserved bits are set.
    Reserved {
        /// Those bits, in place.
        bits: u64,
    },
    /// A leaf where the level has none.
    LeafNotAllowed,
    /// A table where the level has none (arm64: the reserved type at level 3).
    TableNotAllowed,
    /// The number of index bits of the next level is another than the format's.
    NextLevelBits {
        /// What the entry says.
        found: u64,
        /// What the format has.
        expected: u64,
    },
    /// The next table is not aligned to its size.
    TableMisaligned {
        /// Its address.
        next: PhysAddr,
    },
    /// No such level.
    NoSuchLevel,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Reserved { bits } => write!(f, "reserved bits {bits:#x} are set"),
            Why::LeafNotAllowed => write!(f, "no leaf is allowed at this level"),
            Why::TableNotAllowed => write!(f, "no table is allowed at this level"),
            Why::NextLevelBits { found, expected } => {
                write!(f, "next level has {found} index bits instead of {expected}")
            }
            Why::TableMisaligned { next } => {
                write!(f, "next table at {next} is not aligned to its size")
            }
            Why::NoSuchLevel => write!(f, "no such level"),
        }
    }
}

/// An entry that cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The format has no such level.
    #[error("{format} has no level {level}")]
    NoSuchLevel {
        /// The format.
        format: &'static str,
        /// The level asked for.
        level: usize,
    },
    /// The level has no entries of that kind.
    #[error("{format} has no {kind} at level {level}")]
    KindNotAllowed {
        /// The format.
        format: &'static str,
        /// The level.
        level: usize,
        /// `leaf` or `table`.
        kind: &'static str,
    },
    /// The address is not aligned, or has bits that the entry cannot hold.
    #[error("{phys} does not fit an entry that maps or points to 1 << {shift} bytes")]
    Address {
        /// The address.
        phys: PhysAddr,
        /// `log2` of the size that it must be aligned to.
        shift: u32,
    },
    /// The combination of permissions has no encoding.
    #[error("{format} cannot grant {perm:?} (nearest: {nearest:?})")]
    Permission {
        /// The format.
        format: &'static str,
        /// What was asked for.
        perm: Perm,
        /// What the entry would have granted.
        nearest: Perm,
    },
}

/// The kernel version's habit of setting the dirty bit in kernel entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum LeafStyle {
    /// x86 since 6.5: D only with RW. arm64: DIRTY in every kernel entry, as read in the tables of
    /// Debian's 6.1 and 6.12 and in the sources of 7.0.
    #[default]
    Recent,
    /// x86 up to 6.4: D in every kernel entry. arm64: no DIRTY, as PAGE_KERNEL expands in sources
    /// up to 6.14 before the entry is marked dirty.
    Older,
}

/// When an encoder sets the dirty bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirtyRule {
    /// In every entry.
    Always,
    /// In writable entries.
    IfWritable,
    /// In none.
    Never,
}

/// How Linux writes kernel entries of a format.
#[derive(Clone, Copy, Debug)]
pub struct KernelStyle {
    /// Bits of every leaf: accessed, shareability.
    pub leaf_bits: u64,
    /// Bits of every table entry.
    pub table_bits: u64,
    /// What a table entry of the kernel takes away below it.
    pub table_denies: Perm,
    /// Dirty bits in [`LeafStyle::Recent`].
    pub dirty_recent: DirtyRule,
    /// Dirty bits in [`LeafStyle::Older`].
    pub dirty_older: DirtyRule,
}

impl Format {
    pub(super) fn shape(&self, level: usize, leaf: bool) -> Option<&Shape> {
        self.shapes.get(level).map(|s| &s[usize::from(leaf)])
    }

    /// Whether `raw`, read at `level`, has the form of a leaf, valid or not.
    #[must_use]
    pub fn is_leaf_shaped(&self, level: usize, raw: u64) -> bool {
        let Some(l) = self.levels.get(level) else { return false };
        match self.shape(level, true) {
            Some(s) if s.type_mask != 0 && l.table_allowed => raw & s.type_mask == s.type_leaf,
            _ => !l.table_allowed,
        }
    }

    /// Decodes an entry found at `level`, under [`Controls::LINUX`].
    #[must_use]
    pub fn decode(&self, level: usize, raw: u64) -> Entry {
        self.decode_with(level, raw, &Controls::LINUX)
    }

    /// Decodes an entry found at `level`.
    #[must_use]
    pub fn decode_with(&self, level: usize, raw: u64, controls: &Controls) -> Entry {
        let malformed = |why| Entry::Malformed { why };
        let Some(l) = self.levels.get(level) else { return malformed(Why::NoSuchLevel) };
        let leaf = self.is_leaf_shaped(level, raw);
        let Some(s) = self.shape(level, leaf) else { return malformed(Why::NoSuchLevel) };
        if raw & s.present == 0 {
            return Entry::None;
        }
        if leaf && !l.leaf_allowed {
            return malformed(Why::LeafNotAllowed);
        }
        if leaf && !l.table_allowed && raw & s.type_mask != s.type_leaf {
            return malformed(Why::TableNotAllowed);
        }
        let reserved = raw & (s.reserved | self.reserved_by(controls));
        if reserved != 0 {
            return malformed(Why::Reserved { bits: reserved });
        }
        let address = PhysAddr(s.phys(raw & !self.encryption(controls)));
        if leaf {
            let perm = self.leaf_perm(s, raw, controls);
            return Entry::Leaf { phys: address, shift: l.index_shift, perm, raw };
        }
        let Some(next) = self.levels.get(level + 1) else {
            return malformed(Why::TableNotAllowed);
        };
        if s.next_level_bits != 0 {
            let (found, expected) = (raw & s.next_level_bits, u64::from(next.index_bits));
            if found != expected {
                return malformed(Why::NextLevelBits { found, expected });
            }
        }
        if !address.0.is_multiple_of(next.table_bytes()) {
            return malformed(Why::TableMisaligned { next: address });
        }
        Entry::Table { next: address, limits: table_limits(s, raw) }
    }

    /// Bits that a control register makes reserved.
    fn reserved_by(&self, controls: &Controls) -> u64 {
        if self.arch != crate::isa::Arch::X86_64 {
            return 0;
        }
        let nx = if controls.x86_nxe { 0 } else { 1 << 63 };
        let above = 64u32.saturating_sub(self.pa_bits);
        let address = (u64::MAX << above) >> above;
        let beyond = address & u64::MAX.checked_shl(controls.x86_pa_bits).unwrap_or(0);
        nx | (beyond & !self.encryption(controls))
    }

    /// The bit of an entry that is not part of the address (see [`Controls::x86_encryption_bit`]).
    fn encryption(&self, controls: &Controls) -> u64 {
        let bit = controls.x86_encryption_bit.filter(|_| self.arch == crate::isa::Arch::X86_64);
        bit.and_then(|bit| 1u64.checked_shl(bit)).unwrap_or(0)
    }

    /// Permissions that an entry of `level` grants by itself (leaf) or leaves possible (table),
    /// whether it is valid or not; PRESENT tells which.
    #[must_use]
    pub fn entry_perm(&self, level: usize, raw: u64, controls: &Controls) -> Perm {
        let leaf = self.is_leaf_shaped(level, raw);
        let Some(s) = self.shape(level, leaf) else { return Perm::empty() };
        let mut perm = if leaf { self.leaf_perm(s, raw, controls) } else { table_limits(s, raw) };
        perm.set(Perm::PRESENT, raw & s.present != 0);
        perm
    }

    /// The permissions that a leaf of this format can express; others are ignored when encoding
    /// (powerpc radix: GLOBAL, which is the address's).
    #[must_use]
    pub fn expressible(&self) -> Perm {
        let fixed = Perm::PRESENT | Perm::READ;
        let leaf = self.shape(self.last_level(), true);
        leaf.map_or(fixed, |s| s.rights().iter().fold(fixed, |p, r| p | r.perm))
    }

    /// A kernel or user leaf in the kernel's current style ([`LeafStyle::Recent`]), normal memory.
    ///
    /// # Errors
    /// [`EncodeError`] if the level has no leaves, the address does not fit, or the permissions
    /// have no encoding (x86: user pages that only the kernel may execute; none without PRESENT).
    pub fn encode_leaf(
        &self,
        level: usize,
        phys: PhysAddr,
        perm: Perm,
    ) -> Result<u64, EncodeError> {
        self.encode_leaf_as(level, phys, perm, LeafStyle::Recent)
    }

    /// As [`Format::encode_leaf`] in the style of a kernel version.
    ///
    /// # Errors
    /// See there.
    pub fn encode_leaf_as(
        &self,
        level: usize,
        phys: PhysAddr,
        perm: Perm,
        style: LeafStyle,
    ) -> Result<u64, EncodeError> {
        let (l, s) = match (self.levels.get(level), self.shape(level, true)) {
            (Some(l), Some(s)) if l.leaf_allowed => (l, s),
            (Some(_), _) => return Err(self.kind_not_allowed(level, "leaf")),
            (None, _) => return Err(EncodeError::NoSuchLevel { format: self.name, level }),
        };
        let Some(address) = s.placed(phys.0) else {
            return Err(EncodeError::Address { phys, shift: l.index_shift });
        };
        let mut raw = address | s.valid | s.type_leaf | self.style.leaf_bits;
        for right in s.rights() {
            raw =
                put(raw, right.mask, perm.contains(right.primary) == (right.sense != Sense::Deny));
        }
        let rule = match (perm.contains(Perm::USER), style) {
            (true, _) => DirtyRule::IfWritable,
            (false, LeafStyle::Recent) => self.style.dirty_recent,
            (false, LeafStyle::Older) => self.style.dirty_older,
        };
        let dirty = match rule {
            DirtyRule::Always => true,
            DirtyRule::IfWritable => perm.contains(Perm::WRITE),
            DirtyRule::Never => false,
        };
        raw = put(raw, s.dirty, dirty);
        let nearest = self.leaf_perm(s, raw, &Controls::LINUX);
        let unsaid = Perm::GLOBAL.difference(self.expressible());
        if perm.difference(unsaid) != nearest {
            return Err(EncodeError::Permission { format: self.name, perm, nearest });
        }
        Ok(raw)
    }

    /// An entry of `level` that points to the table at `next`, as the kernel writes it for its own
    /// half of the address space.
    ///
    /// # Errors
    /// [`EncodeError`] if the level has no table entries or the address does not fit.
    pub fn encode_table(&self, level: usize, next: PhysAddr) -> Result<u64, EncodeError> {
        self.encode_table_denying(level, next, self.style.table_denies)
    }

    /// An entry of `level` that points to the table at `next` and takes `denied` away below.
    ///
    /// # Errors
    /// [`EncodeError`] as for [`Format::encode_table`], or if the format's table entries cannot
    /// take that away (powerpc radix: nothing).
    pub fn encode_table_denying(
        &self,
        level: usize,
        next: PhysAddr,
        denied: Perm,
    ) -> Result<u64, EncodeError> {
        let (s, below) = match (self.levels.get(level), self.shape(level, false)) {
            (Some(l), Some(s)) if l.table_allowed => match self.levels.get(level + 1) {
                Some(below) => (s, below),
                None => return Err(self.kind_not_allowed(level, "table")),
            },
            (Some(_), _) => return Err(self.kind_not_allowed(level, "table")),
            (None, _) => return Err(EncodeError::NoSuchLevel { format: self.name, level }),
        };
        let misaligned = !next.0.is_multiple_of(below.table_bytes());
        let shift = below.table_bytes().trailing_zeros();
        let Some(address) = s.placed(next.0).filter(|_| !misaligned) else {
            return Err(EncodeError::Address { phys: next, shift });
        };
        let type_bits = s.type_mask & !s.type_leaf;
        let next_bits = u64::from(below.index_bits) & s.next_level_bits;
        let mut raw = address | s.valid | type_bits | next_bits | self.style.table_bits;
        for right in s.rights() {
            let deny = denied.contains(right.primary);
            raw = put(raw, right.mask, deny == (right.sense == Sense::Deny));
        }
        if raw & s.present == 0 {
            return Err(EncodeError::Address { phys: next, shift });
        }
        let nearest = table_limits(s, raw);
        if nearest.intersects(denied) {
            return Err(EncodeError::Permission {
                format: self.name,
                perm: Perm::all().difference(denied),
                nearest,
            });
        }
        Ok(raw)
    }

    /// `raw`, an entry of `level`, with the permissions of `clear` taken away and then those of
    /// `set` given; every other bit stays. PRESENT is the valid bit. A bit that governs several
    /// permissions follows WRITE, USER or EXEC: on x86 clearing USER_EXEC alone changes nothing.
    /// arm64 changes RDONLY and DBM together, as the kernel does.
    #[must_use]
    pub fn with_perm(&self, level: usize, raw: u64, set: Perm, clear: Perm) -> u64 {
        let Some(s) = self.shape(level, self.is_leaf_shaped(level, raw)) else { return raw };
        let mut new = raw;
        for (perm, on) in [(clear, false), (set, true)] {
            if perm.contains(Perm::PRESENT) {
                new = put(new, s.valid, on);
            }
            for right in s.rights() {
                if perm.contains(right.primary) {
                    new = put(new, right.mask, on == (right.sense != Sense::Deny));
                }
            }
        }
        new
    }

    /// The leaf `raw` of level `from` as an entry of level `to` with the same attributes: the
    /// `index`th part of it if `to` is below (a split; several levels at once are allowed), or the
    /// leaf that covers it if `to` is above (a collapse: the address is rounded down, `index` is
    /// not used; whether the neighbours agree is the caller's business). Moves the x86 PAT bit,
    /// sets PS or TYPE, and drops arm64's contiguous bit, which speaks of a group of one level.
    ///
    /// # Errors
    /// [`EncodeError`] if a level has no leaves, or `index` lies outside the larger leaf (reported
    /// as an address that does not fit).
    pub fn leaf_at_level(
        &self,
        raw: u64,
        from: usize,
        to: usize,
        index: u64,
    ) -> Result<u64, EncodeError> {
        let get = |level: usize| match (self.levels.get(level), self.shape(level, true)) {
            (Some(l), Some(s)) if l.leaf_allowed => Ok((l, s)),
            (Some(_), _) => Err(self.kind_not_allowed(level, "leaf")),
            (None, _) => Err(EncodeError::NoSuchLevel { format: self.name, level }),
        };
        let ((lf, sf), (lt, st)) = (get(from)?, get(to)?);
        if from == to {
            return Ok(raw);
        }
        let base = sf.phys(raw);
        let phys = if to > from {
            let parts = 1u64 << (lf.index_shift - lt.index_shift);
            if index >= parts {
                return Err(EncodeError::Address { phys: PhysAddr(base), shift: lf.index_shift });
            }
            base | (index << lt.index_shift)
        } else {
            base & !(lt.span_bytes() - 1)
        };
        let Some(address) = st.placed(phys) else {
            return Err(EncodeError::Address { phys: PhysAddr(phys), shift: lt.index_shift });
        };
        let moved = self.moved(from, to);
        let mut kept = raw & !(sf.address_bits() | sf.type_mask | sf.contiguous | sf.reserved);
        // A bit that is part of the type or the address at the other level is not an attribute.
        let carried = moved.map_or(0, |(a, b)| if raw & a != 0 { b } else { 0 });
        kept &= !moved.map_or(0, |(a, _)| a);
        kept &= !(st.address_bits() | st.type_mask | st.reserved);
        Ok(address | kept | st.type_leaf | carried)
    }

    /// The bit of an attribute that sits elsewhere in leaves of another level: (its mask at `from`,
    /// its mask at `to`).
    fn moved(&self, from: usize, to: usize) -> Option<(u64, u64)> {
        let at = |level: usize| {
            let f = self
                .fields
                .iter()
                .find(|f| (f.name == "PAT" || f.name == "PAT_LARGE") && f.is_in(level, true));
            f.map(super::Field::mask)
        };
        Some((at(from)?, at(to)?))
    }

    /// What a leaf grants by itself.
    fn leaf_perm(&self, s: &Shape, raw: u64, controls: &Controls) -> Perm {
        let controls = controls.in_force(self.arch);
        let (mut granted, mut denied, mut by_hardware) = (s.base, Perm::empty(), Perm::empty());
        for right in s.rights() {
            if raw & right.mask != 0 {
                match right.sense {
                    Sense::Grant => granted |= right.perm,
                    Sense::Deny => denied |= right.perm,
                    Sense::GrantIfHardwareDirty if controls.arm_hd => by_hardware |= right.perm,
                    Sense::GrantIfHardwareDirty => {}
                }
            }
        }
        let perm = granted.difference(denied).union(by_hardware);
        match controls.arm_indirection {
            Some(indirection) => {
                (perm & (Perm::PRESENT | Perm::GLOBAL)) | indirection.perm(raw, controls.arm_hd)
            }
            None => perm,
        }
    }

    fn kind_not_allowed(&self, level: usize, kind: &'static str) -> EncodeError {
        EncodeError::KindNotAllowed { format: self.name, level, kind }
    }
}

fn put(raw: u64, mask: u64, on: bool) -> u64 {
    if on { raw | mask } else { raw & !mask }
}

/// What a table entry leaves possible below.
pub(super) fn table_limits(s: &Shape, raw: u64) -> Perm {
    s.rights().iter().fold(s.base, |limits, right| {
        let denies = (raw & right.mask != 0) == (right.sense == Sense::Deny);
        if denies { limits.difference(right.perm) } else { limits }
    })
}
