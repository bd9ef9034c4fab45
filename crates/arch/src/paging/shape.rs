//! What the codec needs of a field table, gathered per level at compile time.
//!
//! A [`Shape`] holds masks for one level and one kind of entry (leaf or table), computed from the
//! [`Field`]s by [`shapes`], so that decoding an entry is a handful of mask operations. Nothing is
//! stated here: it is a second form of the same table, and a test compares the two.

use super::MAX_LEVELS;
use super::field::{Field, Role};
use crate::perm::Perm;

/// Most fields of one kind of entry that grant or deny a permission.
const MAX_RIGHTS: usize = 6;

/// One field that grants or denies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right {
    /// The bit.
    pub(super) mask: u64,
    /// What it grants or denies.
    pub(super) perm: Perm,
    /// The one permission whose change toggles the bit (see [`primary`]).
    pub(super) primary: Perm,
    /// How the bit is read.
    pub(super) sense: Sense,
}

/// How a permission bit is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sense {
    /// 1 grants.
    Grant,
    /// 1 denies.
    Deny,
    /// 1 grants where hardware manages dirty state.
    GrantIfHardwareDirty,
}

/// Masks of one kind of entry at one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bits of the address that are in place, and those that are not: their place in the entry and
    /// how far above it they are in the address.
    address: u64,
    elsewhere: u64,
    above: u32,
    pub(super) reserved: u64,
    /// Bit that tells leaves from tables (0: the level has none), and its value for a leaf.
    pub(super) type_mask: u64,
    pub(super) type_leaf: u64,
    pub(super) accessed: u64,
    pub(super) dirty: u64,
    pub(super) contiguous: u64,
    pub(super) memory: u64,
    pub(super) next_level_bits: u64,
    /// Bits that are set in a valid entry, and those of which a valid entry has one at least.
    pub(super) valid: u64,
    pub(super) present: u64,
    /// Granted unless a field denies it.
    pub(super) base: Perm,
    rights: [Right; MAX_RIGHTS],
    n_rights: usize,
}

impl Shape {
    /// The physical address that `raw` holds.
    pub(super) const fn phys(&self, raw: u64) -> u64 {
        raw & self.address | (raw & self.elsewhere) << self.above
    }

    /// The bits of an entry that hold `phys`; `None` if it has others than they can hold.
    pub(super) const fn placed(&self, phys: u64) -> Option<u64> {
        let raw = phys & self.address | phys >> self.above & self.elsewhere;
        if self.phys(raw) == phys { Some(raw) } else { None }
    }

    /// The bits of an entry that are part of the address.
    pub(super) const fn address_bits(&self) -> u64 {
        self.address | self.elsewhere
    }

    /// The fields that grant or deny.
    pub(super) fn rights(&self) -> &[Right] {
        &self.rights[..self.n_rights]
    }
}

/// Shapes of a level: index 0 for tables, 1 for leaves.
pub(super) type LevelShapes = [Shape; 2];

/// Gathers a field table.
pub(super) const fn shapes(fields: &[Field]) -> [LevelShapes; MAX_LEVELS] {
    let mut all = [[EMPTY; 2]; MAX_LEVELS];
    let mut level = 0;
    while level < MAX_LEVELS {
        all[level] = [shape(fields, level, false), shape(fields, level, true)];
        level += 1;
    }
    all
}

const NO_RIGHT: Right =
    Right { mask: 0, perm: Perm::empty(), primary: Perm::empty(), sense: Sense::Grant };

const EMPTY: Shape = Shape {
    address: 0,
    elsewhere: 0,
    above: 0,
    reserved: 0,
    type_mask: 0,
    type_leaf: 0,
    accessed: 0,
    dirty: 0,
    contiguous: 0,
    memory: 0,
    next_level_bits: 0,
    valid: 0,
    present: 0,
    base: Perm::empty(),
    rights: [NO_RIGHT; MAX_RIGHTS],
    n_rights: 0,
};

const fn shape(fields: &[Field], level: usize, leaf: bool) -> Shape {
    let mut s = EMPTY;
    let mut granted = Perm::empty();
    let mut denied = Perm::empty();
    let mut i = 0;
    while i < fields.len() {
        let f = &fields[i];
        i += 1;
        if f.levels & (1 << level) == 0 || !f.kinds.has(leaf) {
            continue;
        }
        let mask = f.mask();
        match f.role {
            Role::Valid => {
                s.valid |= mask;
                s.present |= mask;
            }
            Role::LeafIf(value) => {
                s.type_mask = mask;
                s.type_leaf = value << f.lo_bit;
            }
            Role::Address => s.address |= mask,
            Role::AddressIfValid => {
                s.address |= mask;
                s.present |= mask;
            }
            Role::AddressFrom(bit) => {
                s.elsewhere = mask;
                s.above = bit - f.lo_bit;
            }
            Role::Reserved => s.reserved |= mask,
            Role::Accessed => s.accessed |= mask,
            Role::Dirty => s.dirty |= mask,
            Role::Contiguous => s.contiguous |= mask,
            Role::NextLevelBits => s.next_level_bits |= mask,
            Role::Grant(p) => {
                granted = granted.union(p);
                s = with_right(s, mask, p, Sense::Grant);
            }
            Role::Deny(p) => {
                denied = denied.union(p);
                s = with_right(s, mask, p, Sense::Deny);
            }
            Role::GrantIfHardwareDirty(p) => {
                s = with_right(s, mask, p, Sense::GrantIfHardwareDirty);
            }
            Role::MemoryType => s.memory |= mask,
            Role::Attribute | Role::Software | Role::Ignored => {}
        }
    }
    // What no field grants is granted by presence: reading where no bit grants it, and whatever
    // only has a bit that denies it. A table grants all and takes away.
    let read = if granted.contains(Perm::READ) { Perm::empty() } else { Perm::READ };
    s.base = if leaf {
        Perm::PRESENT.union(read).union(denied.difference(granted))
    } else {
        Perm::all()
    };
    s
}

const fn with_right(mut s: Shape, mask: u64, perm: Perm, sense: Sense) -> Shape {
    s.rights[s.n_rights] = Right { mask, perm, primary: primary(perm), sense };
    s.n_rights += 1;
    s
}

/// A bit that governs several permissions is toggled by one of them: W by WRITE (not by the READ
/// that comes with it), U by USER, X by EXEC.
const fn primary(perm: Perm) -> Perm {
    const ORDER: [Perm; 6] =
        [Perm::WRITE, Perm::USER, Perm::EXEC, Perm::GLOBAL, Perm::READ, Perm::USER_EXEC];
    let mut i = 0;
    while i < ORDER.len() {
        if perm.contains(ORDER[i]) {
            return ORDER[i];
        }
        i += 1;
    }
    perm
}
