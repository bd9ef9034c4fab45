//! Damaged ELF files: each refusal by its reason, and no damage makes the loader panic or believe
//! in bytes that the file does not have.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use textbed_arch::Arch;
use textbed_firmware::{ElfError, parse};

const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];

fn file(arch: Arch) -> Vec<u8> {
    let path = format!("../../firmware/elf/{arch}/patched_site.elf");
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

// Offsets in the ELF64 header and section header, from the System V ABI.
const E_TYPE: usize = 16;
const E_ENTRY: usize = 24;
const E_SHOFF: usize = 40;
const E_SHNUM: usize = 60;
const SH_BYTES: usize = 64;
const SH_TYPE: usize = 4;
const SH_FLAGS: usize = 8;
const SH_OFFSET: usize = 24;

fn damaged(at: usize, bytes: &[u8]) -> Result<(), ElfError> {
    let mut f = file(Arch::X86_64);
    f[at..at + bytes.len()].copy_from_slice(bytes);
    parse(Arch::X86_64, &f).map(drop)
}

/// Offset of the section header of `.text`, which is the first after the null section.
fn text_header() -> usize {
    let f = file(Arch::X86_64);
    let table = u64::from_le_bytes(f[E_SHOFF..E_SHOFF + 8].try_into().unwrap());
    usize::try_from(table).unwrap() + SH_BYTES
}

#[test]
fn each_damage_has_its_reason() {
    let text = text_header();
    assert!(matches!(parse(Arch::X86_64, b""), Err(ElfError::Malformed(_))));
    assert!(matches!(parse(Arch::X86_64, &[0x7f; 4096]), Err(ElfError::Malformed(_))));
    assert!(matches!(damaged(0, b"ELF\x7f"), Err(ElfError::Malformed(_))));
    assert_eq!(damaged(E_TYPE, &[1, 0]), Err(ElfError::WrongType(1)));
    assert_eq!(damaged(E_ENTRY, &[0x1d]), Err(ElfError::BadEntry(0x1d)), "one byte behind");
    assert_eq!(damaged(E_ENTRY, &[0x1c]), Ok(()), "the last byte");
    assert!(matches!(
        damaged(E_SHNUM, &[0xff, 0xff]),
        Err(ElfError::TooMany { what: "section headers", count: 65535, .. })
    ));
    assert!(matches!(
        damaged(text + SH_OFFSET, &[0, 0, 1]),
        Err(ElfError::TextOutside { offset: 0x1_0000, .. } | ElfError::Malformed(_))
    ));
    assert!(matches!(damaged(text + SH_TYPE, &[8]), Err(ElfError::TextOutside { .. })));
    assert!(matches!(
        damaged(text + SH_TYPE, &[4]),
        Err(ElfError::HasRelocations(_) | ElfError::Malformed(_))
    ));
    assert_eq!(damaged(text + SH_FLAGS, &[2]), Err(ElfError::HasData(".text".into())));
    assert_eq!(damaged(text + SH_FLAGS, &[0]), Err(ElfError::TextCount(0)));
}

#[test]
fn an_unaligned_entry_is_no_instruction() {
    let mut f = file(Arch::Arm64);
    f[E_ENTRY] = 2;
    assert_eq!(parse(Arch::Arm64, &f), Err(ElfError::BadEntry(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_files_never_panic(
        arch in prop::sample::select(&ARCHES[..]),
        as_arch in prop::sample::select(&ARCHES[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        grow in 0usize..64,
    ) {
        let mut f = file(arch);
        for (at, value) in &edits {
            let at = at.index(f.len());
            f[at] = *value;
        }
        if let Some(cut) = cut {
            f.truncate(cut.index(f.len()));
        }
        f.extend(std::iter::repeat_n(0xa5, grow));
        if let Ok(image) = parse(as_arch, &f) {
            let at = image.text.as_ptr() as usize - f.as_ptr() as usize;
            prop_assert_eq!(&f[at..at + image.text.len()], image.text);
            prop_assert!((image.entry as usize) < image.text.len());
            for s in &image.symbols {
                prop_assert!(s.offset + s.size <= image.text.len() as u64);
            }
        }
        if edits.is_empty() && cut.is_none() && arch == as_arch {
            prop_assert!(parse(arch, &f).is_ok());
        }
    }

    #[test]
    fn mutated_headers_never_panic(
        arch in prop::sample::select(&ARCHES[..]),
        edits in prop::collection::vec((0usize..64, any::<u8>()), 1..4),
        section_edits in prop::collection::vec((0usize..512, any::<u8>()), 0..6),
    ) {
        let mut f = file(arch);
        for (at, value) in edits {
            f[at] = value;
        }
        let end = f.len();
        for (back, value) in section_edits {
            f[end - 1 - back.min(end - 1)] = value;
        }
        let _ = parse(arch, &f);
    }
}
