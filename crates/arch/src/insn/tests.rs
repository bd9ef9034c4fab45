//! The table against itself. Disassemblers that others wrote are asked in `tests/disassemblers.rs`.

use super::*;
use std::collections::BTreeSet;

#[test]
fn ids_and_titles_are_unique_and_every_example_decodes_to_its_row() {
    let mut ids = BTreeSet::new();
    let mut n = 0;
    for arch in Arch::ALL {
        for row in rows(arch) {
            let bytes = row.example(arch);
            let insn = decode(arch, &bytes);
            let got = insn.map(|i| (i.row.title(), usize::from(i.len)));
            assert_eq!(
                got,
                Some((row.title(), bytes.len())),
                "{arch} {} {bytes:02x?}",
                row.title()
            );
            n += 1;
        }
    }
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let mut titles = BTreeSet::new();
        for row in rows(arch) {
            assert!(ids.insert(row.id), "{:?} {} twice", row.id, row.name);
            assert!(titles.insert(row.title()), "{} twice", row.title());
            assert_eq!(by_id(row.id).map(|r| r.id), Some(row.id));
            assert!(by_name(arch, row.name).is_some());
        }
    }
    println!("{n} compared, {n} equal");
}
