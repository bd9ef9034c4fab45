//! The embedded table against the folder, and every file through the loader.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use textbed_arch::Arch;
use textbed_firmware::{ElfError, FirmwareError, load, names, parse, routine};

fn folder(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../firmware").join(part)
}

fn stems(part: &str, ending: &str) -> BTreeSet<String> {
    fs::read_dir(folder(part))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter_map(|n| n.strip_suffix(ending).map(str::to_owned))
        .collect()
}

const WITH_FIRMWARE: [(Arch, &str); 4] = [
    (Arch::X86_64, "x86_64"),
    (Arch::Arm64, "arm64"),
    (Arch::Ppc64le, "powerpc"),
    (Arch::Ppc64, "powerpc"),
];

#[test]
fn the_table_is_the_folder_is_the_sources() {
    for (arch, source) in WITH_FIRMWARE {
        let listed: Vec<_> = names(arch).map(str::to_owned).collect();
        assert!(listed.is_sorted());
        let listed: BTreeSet<_> = listed.into_iter().collect();
        assert_eq!(listed, stems(&format!("elf/{arch}"), ".elf"), "{arch}: built");
        assert_eq!(listed, stems(source, ".s"), "{arch}: sources");
    }
    assert_eq!(names(Arch::Ppc32).count(), 0);
}

#[test]
fn every_file_loads_and_begins_with_its_own_symbol() {
    for (arch, _) in WITH_FIRMWARE {
        for name in names(arch) {
            let r = load(arch, name).unwrap();
            let own = r.symbol(name).unwrap();
            assert_eq!((own.offset, r.entry), (0, 0), "{arch} {name}");
            assert_eq!(own.size as usize, r.bytes.len(), "{arch} {name}: size");
            assert_eq!(r.bytes.len() as u64 % arch.code_unit_bytes(), 0);
            assert!(r.symbols.iter().all(|s| s.offset < r.bytes.len() as u64));
        }
    }
}

#[test]
fn the_byte_order_of_the_powers_differs_word_by_word() {
    for name in names(Arch::Ppc64) {
        let (le, be) = (routine(Arch::Ppc64le, name).unwrap(), routine(Arch::Ppc64, name).unwrap());
        let swapped: Vec<u8> =
            le.bytes.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
        assert_eq!(swapped, be.bytes, "{name}");
    }
}

#[test]
fn a_patch_site_and_its_alternative_have_one_size() {
    for (arch, _) in WITH_FIRMWARE {
        let r = routine(arch, "patched_site").unwrap();
        let (site, alternative) = (r.bytes_of("site").unwrap(), r.bytes_of("alternative").unwrap());
        assert_eq!(site.len(), if arch == Arch::X86_64 { 5 } else { 4 });
        assert_eq!(site.len(), alternative.len());
        assert_ne!(site, alternative);
        assert!(r.symbol("taken").unwrap().offset > r.symbol("site").unwrap().offset);
        assert_eq!(r.bytes_of("nowhere"), None);
    }
}

#[test]
fn known_words() {
    // Encodings from the manuals, not from the assembler that built the files.
    assert_eq!(routine(Arch::X86_64, "ret42").unwrap().bytes, [0xb8, 42, 0, 0, 0, 0xc3]);
    let arm = 0x5280_0540_u32.to_le_bytes().into_iter().chain(0xd65f_03c0_u32.to_le_bytes());
    assert_eq!(routine(Arch::Arm64, "ret42").unwrap().bytes, arm.collect::<Vec<_>>());
    let ppc = 0x3860_002a_u32.to_be_bytes().into_iter().chain(0x4e80_0020_u32.to_be_bytes());
    assert_eq!(routine(Arch::Ppc64, "ret42").unwrap().bytes, ppc.collect::<Vec<_>>());
}

#[test]
fn unknown_names_are_refused_by_name() {
    let err = load(Arch::Arm64, "ret43").unwrap_err();
    assert_eq!(err, FirmwareError::Unknown { arch: Arch::Arm64, name: "ret43".into() });
    assert_eq!(err.to_string(), "no guest routine 'ret43' for arm64");
    assert!(routine(Arch::Arm64, "sync_cr").is_none(), "x86-64 only");
    assert!(routine(Arch::Ppc32, "ret42").is_none());
}

#[test]
fn a_file_of_another_machine_is_refused() {
    let file = |arch: Arch, name| fs::read(folder(&format!("elf/{arch}/{name}.elf"))).unwrap();
    let ret42 = file(Arch::Arm64, "ret42");
    assert_eq!(
        parse(Arch::X86_64, &ret42),
        Err(ElfError::WrongMachine { arch: Arch::X86_64, wanted: 62, found: 183 })
    );
    let le = file(Arch::Ppc64le, "ret42");
    assert_eq!(parse(Arch::Ppc64, &le), Err(ElfError::WrongFormat { arch: Arch::Ppc64 }));
    assert_eq!(parse(Arch::Ppc32, &le), Err(ElfError::NotModelled { arch: Arch::Ppc32 }));
    assert!(parse(Arch::Ppc64le, &le).is_ok());
}
