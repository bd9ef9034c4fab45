//! Formats with one wrong bit each.

use textbed_arch::Perm;
use textbed_arch::hashed::{HashField, HashFormat, Part};
use textbed_arch::paging::{ARM64_4K, Field, Format, Kinds, Role, X86_64_4LEVEL, X86_64_5LEVEL};

/// A wrong table: which field (by name and level), and what is wrong with it.
type Seed = (&'static str, usize, &'static str, fn(&mut Field));

fn build(format: &'static Format, seeds: &[Seed]) -> Vec<(String, Format)> {
    let make = |(name, level, what, edit): &Seed| {
        let mut fields = format.fields.to_vec();
        let is = |f: &Field| f.name == *name && f.levels & (1 << level) != 0;
        let field = fields.iter_mut().find(|f| is(f)).unwrap();
        edit(field);
        // Leaked: a format refers to its fields for ever.
        let wrong = format.with_fields(Vec::leak(fields));
        (format!("{name} of level {level} {what}"), wrong)
    };
    seeds.iter().map(make).collect()
}

/// An attribute taken for a part of the address.
fn address(f: &mut Field) {
    f.role = Role::Address;
}

fn ignore(f: &mut Field) {
    f.role = Role::Ignored;
}

/// The format as an MMU reads it that does not look at reserved bits.
#[must_use]
pub fn without_reserved(f: &'static Format) -> Format {
    let fields = f.fields.iter().map(|field| match field.role {
        Role::Reserved => Field { role: Role::Ignored, ..*field },
        _ => *field,
    });
    // Leaked: a format refers to its fields for ever.
    f.with_fields(Vec::leak(fields.collect()))
}

const EXECUTE: Perm = Perm::EXEC.union(Perm::USER_EXEC);
const USER: Perm = Perm::USER.union(Perm::USER_EXEC);

/// Wrong x86-64 tables.
#[must_use]
pub fn x86() -> Vec<(String, Format)> {
    let seeds: [Seed; 17] = [
        ("PWT", 3, "as address", address),
        ("PCD", 2, "as address", address),
        ("PAT", 3, "as address", address),
        ("PAT_LARGE", 2, "as address", address),
        ("P", 0, "at bit 5", |f| f.lo_bit = 5),
        ("P", 3, "at levels 0 to 2 only", |f| f.levels = 0b0111),
        ("RW", 0, "ignored", ignore),
        ("RW", 0, "read at level 3 only", |f| f.levels = 0b1000),
        ("RW", 3, "read the other way round", |f| f.role = Role::Deny(Perm::WRITE)),
        ("US", 0, "ignored", ignore),
        ("US", 0, "without its effect on fetches", |f| f.role = Role::Grant(Perm::USER)),
        ("US", 0, "at bit 3", |f| f.lo_bit = 3),
        ("US", 0, "not read at level 1", |f| f.levels = 0b1101),
        ("NX", 0, "ignored", ignore),
        ("NX", 0, "not read at level 0", |f| f.levels = 0b1110),
        ("NX", 0, "for the kernel only", |f| f.role = Role::Deny(Perm::EXEC)),
        ("PS (reserved)", 0, "ignored", ignore),
    ];
    build(&X86_64_4LEVEL, &seeds)
}

/// Wrong arm64 tables.
#[must_use]
pub fn arm64() -> Vec<(String, Format)> {
    let seeds: [Seed; 17] = [
        ("ATTR", 3, "as address", address),
        ("GP", 3, "as address", address),
        ("CONT", 2, "as address", address),
        ("VALID", 0, "at bit 1", |f| f.lo_bit = 1),
        ("TYPE", 3, "with 0 for a page", |f| f.role = Role::LeafIf(0)),
        ("USER", 3, "ignored", ignore),
        ("USER", 1, "at bit 5", |f| f.lo_bit = 5),
        ("RDONLY", 3, "read the other way round", |f| f.role = Role::Grant(Perm::WRITE)),
        ("RDONLY", 3, "not read at level 2", |f| f.levels = 0b1011),
        ("AF", 3, "ignored", ignore),
        ("DBM", 3, "granting without HD", |f| f.role = Role::Grant(Perm::WRITE)),
        ("PXN", 3, "for EL0 too", |f| f.role = Role::Deny(EXECUTE)),
        ("UXN", 3, "for EL1", |f| f.role = Role::Deny(Perm::EXEC)),
        ("PXNTable", 0, "ignored", ignore),
        ("UXNTable", 0, "not read at level 0", |f| f.levels = 0b0110),
        ("APTable0", 0, "for fetches too", |f| f.role = Role::Deny(USER)),
        ("APTable1", 0, "at bit 63", |f| f.lo_bit = 63),
    ];
    build(&ARM64_4K, &seeds)
}

/// Wrong powerpc tables: of one size of base pages or of the other.
#[must_use]
pub fn powerpc(format: &'static Format) -> Vec<(String, Format)> {
    let seeds: [Seed; 16] = [
        ("ATT", 3, "as address", address),
        ("PRESENT", 0, "at bit 62", |f| f.lo_bit = 62),
        ("PRESENT", 3, "at levels 0 to 2 only", |f| f.levels = 0b0111),
        ("PTE", 1, "with 0 for a leaf", |f| f.role = Role::LeafIf(0)),
        ("EXEC", 3, "ignored", ignore),
        ("EXEC", 2, "for the kernel only", |f| f.role = Role::Grant(Perm::EXEC)),
        ("EXEC", 1, "not read at level 1", |f| f.levels = 0b1100),
        ("WRITE", 3, "without reading", |f| f.role = Role::Grant(Perm::WRITE)),
        ("WRITE", 2, "at bit 4", |f| f.lo_bit = 4),
        ("READ", 3, "ignored", ignore),
        ("READ", 1, "read the other way round", |f| f.role = Role::Deny(Perm::READ)),
        ("PRIVILEGED", 3, "ignored", ignore),
        ("PRIVILEGED", 3, "without its effect on fetches", |f| f.role = Role::Deny(Perm::USER)),
        ("PRIVILEGED", 2, "read the other way round", |f| f.role = Role::Grant(USER)),
        ("NLS", 0, "not compared", ignore),
        ("DIRTY", 3, "at bit 6", |f| f.lo_bit = 6),
    ];
    build(format, &seeds)
}

/// Wrong tables of arm64's formats with 52 bits: what they have that the others have not, and the
/// new levels.
#[must_use]
pub fn arm64_wide(format: &'static Format) -> Vec<(String, Format)> {
    let last = format.last_level();
    let seeds: [Seed; 13] = [
        ("ADDR_HIGH", last, "ignored", ignore),
        ("ADDR_HIGH", 0, "of leaves only", |f| f.kinds = Kinds::Leaf),
        ("ADDR_HIGH", last, "of tables only", |f| f.kinds = Kinds::Table),
        ("ADDR_HIGH", 0, "at bit 2", |f| f.lo_bit = 2),
        ("ADDR_HIGH", 0, "with one bit less", |f| f.bits -= 1),
        ("ADDR", 0, "with two bits less in tables", |f| f.bits -= 2),
        ("ADDR", last, "with two bits less in pages", |f| f.bits -= 2),
        ("VALID", 0, "not read in the root", |f| f.levels &= !1),
        ("TYPE", 1, "with 1 for a block", |f| f.role = Role::LeafIf(1)),
        ("PXNTable", 0, "not read in the root", |f| f.levels &= !1),
        ("APTable1", 0, "ignored", ignore),
        ("AF", 1, "not read at the second level", |f| f.levels &= !2),
        ("DBM", last, "ignored", ignore),
    ];
    build(format, &seeds)
}

/// Wrong x86-64 tables: keys, and what 5 levels add.
#[must_use]
pub fn x86_5level() -> Vec<(String, Format)> {
    let seeds: [Seed; 8] = [
        ("P", 0, "not read in the root", |f| f.levels &= !1),
        ("RW", 0, "not read in the root", |f| f.levels &= !1),
        ("US", 0, "not read in the root", |f| f.levels &= !1),
        ("NX", 0, "not read in the root", |f| f.levels &= !1),
        ("PS (reserved)", 0, "not read in the root", |f| f.levels &= !1),
        ("PS (reserved)", 1, "not read below the root", |f| f.levels &= !2),
        ("PKEY", 4, "at bit 58", |f| f.lo_bit = 58),
        ("PKEY", 4, "in pages only", |f| f.levels = 0b1_0000),
    ];
    build(&X86_64_5LEVEL, &seeds)
}

/// A wrong table of hashed entries, segments or blocks: which of these, which field (by name and
/// word), and what is wrong with it.
type HashSeed = (Table, &'static str, usize, &'static str, fn(&mut HashField));

#[derive(Clone, Copy)]
enum Table {
    Entry,
    Segment,
    Block,
}

fn build_hashed(format: &'static HashFormat, seeds: &[HashSeed]) -> Vec<(String, HashFormat)> {
    let make = |(table, name, word, what, edit): &HashSeed| {
        let right = match table {
            Table::Entry => format.entry,
            Table::Segment => format.segment,
            Table::Block => format.block,
        };
        let mut fields = right.to_vec();
        let field = fields.iter_mut().find(|f| f.name == *name && f.word == *word).unwrap();
        edit(field);
        // Leaked: a format refers to its fields for ever.
        let fields = Vec::leak(fields);
        let wrong = match table {
            Table::Entry => format.with_entry(fields),
            Table::Segment => format.with_segment(fields),
            Table::Block => format.with_block(fields),
        };
        (format!("{name} {what}"), wrong)
    };
    seeds.iter().map(make).collect()
}

fn unused(f: &mut HashField) {
    f.part = Part::Reserved;
}

/// Wrong tables of 64-bit entries and segments.
#[must_use]
pub fn hashed(format: &'static HashFormat) -> Vec<(String, HashFormat)> {
    use Table::{Entry, Segment};
    let size = format.entry.iter().find(|f| f.part == Part::SegmentSize).map_or(0, |f| f.word);
    let seeds: [HashSeed; 20] = [
        (Entry, "V", 0, "at bit 3", |f| f.lo_bit = 3),
        (Entry, "H", 0, "not compared", unused),
        (Entry, "L", 0, "not looked at", unused),
        (Entry, "AVPN", 0, "without its lowest bit", |f| {
            f.lo_bit += 1;
            f.bits -= 1;
            f.at += 1;
        }),
        (Entry, "AVPN", 0, "without its highest ten bits", |f| f.bits -= 10),
        (Entry, "B", size, "not compared", unused),
        (Entry, "PP", 1, "with one bit", |f| f.bits = 1),
        (Entry, "PP0", 1, "ignored", unused),
        (Entry, "N", 1, "ignored", unused),
        (Entry, "N", 1, "at bit 4", |f| f.lo_bit = 4),
        (Entry, "G", 1, "ignored", unused),
        (Entry, "C", 1, "never set", unused),
        (Entry, "R", 1, "at bit 6", |f| f.lo_bit = 6),
        (Entry, "KEY", 1, "without its low bits", unused),
        (Entry, "RPN", 1, "from bit 16 on", |f| {
            f.lo_bit = 16;
            f.bits -= 4;
            f.at = 16;
        }),
        (Segment, "V", 0, "at bit 26", |f| f.lo_bit = 26),
        (Segment, "N", 1, "ignored", unused),
        (Segment, "Kp", 1, "for the kernel", |f| f.part = Part::KernelKey),
        (Segment, "Ks", 1, "ignored", unused),
        (Segment, "VSID", 1, "from bit 13 on", |f| f.lo_bit = 13),
    ];
    build_hashed(format, &seeds)
}

/// Wrong tables of 32-bit entries, segment registers and blocks.
#[must_use]
pub fn hashed32(format: &'static HashFormat) -> Vec<(String, HashFormat)> {
    use Table::{Block, Entry, Segment};
    let seeds: [HashSeed; 18] = [
        (Entry, "V", 0, "ignored", |f| f.lo_bit = 30),
        (Entry, "H", 0, "not compared", unused),
        (Entry, "API", 0, "not compared", unused),
        (Entry, "VSID", 0, "without its highest bit", |f| f.bits -= 1),
        (Entry, "PP", 1, "with one bit", |f| f.bits = 1),
        (Entry, "PP", 1, "at bit 1", |f| f.lo_bit = 1),
        (Entry, "C", 1, "never set", unused),
        (Entry, "R", 1, "never set", unused),
        (Entry, "RPN", 1, "from bit 13 on", |f| {
            f.lo_bit = 13;
            f.bits -= 1;
            f.at = 13;
        }),
        (Segment, "VSID", 1, "with 23 bits", |f| f.bits = 23),
        (Segment, "N", 1, "ignored", unused),
        (Segment, "Kp", 1, "ignored", unused),
        (Segment, "Ks", 1, "for a process", |f| f.part = Part::UserKey),
        (Block, "Vp", 0, "ignored", unused),
        (Block, "Vs", 0, "ignored", unused),
        (Block, "BL", 0, "with one bit less", |f| f.bits -= 1),
        (Block, "PP", 1, "with one bit", |f| f.bits = 1),
        (Block, "BRPN", 1, "from bit 18 on", |f| {
            f.lo_bit = 18;
            f.bits -= 1;
            f.at = 18;
        }),
    ];
    build_hashed(format, &seeds)
}
