//! What a protection number grants under a key, and what else takes rights away.
//!
//! A number that no row has is reserved: nothing is promised of it, and nothing is granted here.

use super::entry::Rights;
use super::{HashFormat, Segment};
use crate::cite::Cite;
use crate::paging::Privilege;
use crate::perm::Perm;

/// A row: under a key, a protection number grants this. What may be read may be executed, unless
/// something else is against it.
#[derive(Clone, Copy, Debug)]
pub struct ProtectionRow {
    /// The key of the access: Ks or Kp of its segment.
    pub key: bool,
    /// The number (pp0, PP).
    pub protection: u64,
    /// What it grants.
    pub grants: Perm,
    /// Where it is defined.
    pub cite: Cite,
}

const NONE: Perm = Perm::empty();
const RX: Perm = Perm::READ.union(Perm::EXEC);
const RWX: Perm = RX.union(Perm::WRITE);

const PP: Cite = Cite::read("QEMU target/ppc/mmu-hash64.c ppc_hash64_pte_prot()");
const BAT_PP: Cite = Cite::read("QEMU target/ppc/mmu-hash32.c hash32_bat_prot()");

const fn row(key: bool, protection: u64, grants: Perm, cite: Cite) -> ProtectionRow {
    ProtectionRow { key, protection, grants, cite }
}

/// Of entries.
pub static PROTECTION_ROWS: &[ProtectionRow] = &[
    row(false, 0b000, RWX, PP),
    row(false, 0b001, RWX, PP),
    row(false, 0b010, RWX, PP),
    row(false, 0b011, RX, PP),
    row(false, 0b110, RX, PP),
    row(true, 0b000, NONE, PP),
    row(true, 0b001, RX, PP),
    row(true, 0b010, RWX, PP),
    row(true, 0b011, RX, PP),
    row(true, 0b110, NONE, PP),
];

/// Of blocks, which no key concerns.
pub static BLOCK_ROWS: &[ProtectionRow] = &[
    row(false, 0b00, NONE, BAT_PP),
    row(false, 0b01, RX, BAT_PP),
    row(false, 0b10, RWX, BAT_PP),
    row(false, 0b11, RX, BAT_PP),
];

fn look(rows: &[ProtectionRow], key: bool, protection: u64) -> Perm {
    let found = rows.iter().find(|row| (row.key, row.protection) == (key, protection));
    found.map_or(NONE, |row| row.grants)
}

pub(super) fn of_block(protection: u64) -> Perm {
    look(BLOCK_ROWS, false, protection)
}

/// Registers of virtual page class keys: two bits a key, key 0 highest.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Keys {
    /// AMR: no stores (high bit of the two), no loads.
    pub amr: u64,
    /// IAMR: no fetches (low bit).
    pub iamr: u64,
}

impl Keys {
    /// What a key leaves.
    #[must_use]
    pub fn leave(&self, key: u64) -> Perm {
        let of = |register: u64| register >> (62 - 2 * (key & 31)) & 3;
        let mut perm = RWX;
        perm.set(Perm::WRITE, of(self.amr) & 2 == 0);
        perm.set(Perm::READ, of(self.amr) & 1 == 0);
        perm.set(Perm::EXEC, of(self.iamr) & 1 == 0);
        perm
    }
}

impl Segment {
    /// What a protection number grants in this segment at a privilege.
    #[must_use]
    pub fn grants(&self, protection: u64, who: Privilege) -> Perm {
        let key = match who {
            Privilege::Kernel => self.kernel_key,
            Privilege::User => self.user_key,
        };
        look(PROTECTION_ROWS, key, protection)
    }
}

impl Rights {
    /// What they grant in a segment at a privilege, before keys.
    #[must_use]
    pub fn grants(&self, segment: &Segment, who: Privilege) -> Perm {
        let granted = segment.grants(self.protection, who);
        let barred = segment.no_execute || self.no_execute || self.guarded;
        if barred { granted - Perm::EXEC } else { granted }
    }
}

impl HashFormat {
    /// What an entry with these rights in a segment grants, as the simulator and reports say it:
    /// READ, WRITE and EXEC to the kernel, USER and USER_EXEC to a process.
    #[must_use]
    pub fn effective(&self, rights: &Rights, segment: &Segment) -> Perm {
        let user = rights.grants(segment, Privilege::User);
        let mut perm = Perm::PRESENT | rights.grants(segment, Privilege::Kernel);
        perm.set(Perm::USER, user.contains(Perm::READ));
        perm.set(Perm::USER_EXEC, user.contains(Perm::EXEC));
        perm
    }
}
