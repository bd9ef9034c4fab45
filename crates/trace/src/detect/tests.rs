use super::*;

fn evidence(lines: &[&str]) -> Evidence {
    let mut e = Evidence::default();
    for l in lines {
        e.add(format!("            init-1       [001] ..... 1.000000: {l}").as_bytes());
    }
    e
}

fn options(kernel: Option<&str>) -> Options {
    Options { kernel: kernel.map(str::to_string), ..Options::default() }
}

const POKE: &str = "__text_poke: (__text_poke+0x0/0x4c0) addr=0x1 len=4";
const SYNC: &str = "do_sync_core: (do_sync_core+0x4/0x30)";
const ARM: &str = "change_memory_common: (change_memory_common+0x0/0x1) addr=0x1 numpages=1";
const POWER: &str = "change_memory_attr: (change_memory_attr+0xc/0x1) addr=0xc008000000000000";

#[test]
fn by_functions_and_addresses() {
    let none = SideFiles::default();
    for (line, arch) in [(SYNC, Arch::X86_64), (ARM, Arch::Arm64), (POWER, Arch::Ppc64le)] {
        let k = kernel(&options(Some("6.12")), &none, &evidence(&[line])).unwrap();
        assert_eq!(k.arch, arch, "{line}");
    }
    let vfree = |a: u64| evidence(&[&format!("vfree: (vfree+0x0/0x1) addr={a:#x}")]);
    for (address, arch) in [
        (0xffff_ffff_c020_0000u64, Arch::X86_64),
        (0xffff_0000_0123_4000, Arch::Arm64),
        (0xc008_0000_0000_0000, Arch::Ppc64le),
    ] {
        let k = kernel(&options(Some("6.12")), &none, &vfree(address)).unwrap();
        assert_eq!(k.arch, arch, "{address:#x}");
    }
    // x86 and arm64 both have this function; nothing else speaks.
    assert_eq!(
        kernel(&options(Some("6.12")), &none, &evidence(&[POKE])).unwrap_err(),
        DetectError::UnknownArch
    );
}

#[test]
fn contradictions_name_both_sides() {
    let none = SideFiles::default();
    let both = kernel(&options(Some("6.12")), &none, &evidence(&[SYNC, ARM])).unwrap_err();
    let text = both.to_string();
    assert!(text.contains("do_sync_core") && text.contains("change_memory_common"), "{text}");
    assert!(text.contains("--arch"), "{text}");
    let side = SideFiles {
        version: Some("Linux version 6.12.1-arm64 (aarch64-gcc)".into()),
        ..SideFiles::default()
    };
    assert!(matches!(
        kernel(&options(None), &side, &evidence(&[SYNC])),
        Err(DetectError::ContradictoryArch { .. })
    ));
    let told = Options { arch: Some(Arch::X86_64), ..options(None) };
    let k = kernel(&told, &side, &evidence(&[SYNC])).unwrap();
    assert_eq!((k.arch, k.version), (Arch::X86_64, Version::point(6, 12, 1)));
    assert!(k.because.iter().any(|b| b.starts_with("but the file version says arm64")));
}

#[test]
fn versions() {
    let side = |v: &str, c: &str| SideFiles {
        version: Some(v.into()),
        config_name: Some(c.into()),
        ..SideFiles::default()
    };
    let e = evidence(&[SYNC]);
    let k = kernel(
        &options(None),
        &side("Linux version 6.12.117+deb12-amd64 (x)", "config-6.12.117+deb12-amd64"),
        &e,
    )
    .unwrap();
    assert_eq!(
        (k.version, k.release.as_str()),
        (Version::point(6, 12, 117), "6.12.117+deb12-amd64")
    );
    assert!(matches!(
        kernel(&options(None), &side("Linux version 6.12.1-amd64", "config-6.1.0-amd64"), &e),
        Err(DetectError::ContradictoryKernel { .. })
    ));
    assert!(matches!(
        kernel(&options(None), &side("hello", "config"), &e),
        Err(DetectError::BadVersion { .. })
    ));
    assert_eq!(
        kernel(&options(None), &SideFiles::default(), &e).unwrap_err(),
        DetectError::UnknownKernel
    );
}

#[test]
fn page_sizes() {
    let map = |n: u64| {
        format!(
            "vmap_pages_range_noflush: (vmap_pages_range_noflush+0xc/0x1) \
             start={:#x} end={:#x} prot=0x8",
            0xc008_0000_0000_0000u64 + n * 0x10000,
            0xc008_0000_0000_0000u64 + (n + 1) * 0x10000
        )
    };
    let lines: Vec<String> = (0..8).map(map).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let none = SideFiles::default();
    let k = kernel(&options(Some("6.1")), &none, &evidence(&lines)).unwrap();
    assert_eq!(k.format.page_shift, 16);
    let configured = |option: &str, lines: &[&str]| {
        let config = SideFiles { config_tables: vec![option.into()], ..SideFiles::default() };
        kernel(&options(Some("6.1")), &config, &evidence(lines)).map(|k| k.format.name)
    };
    assert_eq!(configured("CONFIG_ARM64_16K_PAGES", &[ARM]), Ok("arm64 16k 48-bit"));
    assert_eq!(configured("CONFIG_ARM64_64K_PAGES", &[ARM]), Ok("arm64 64k 48-bit"));
    let of = |option, address: u64| {
        let vfree = format!("vfree: (vfree+0x0/0x1) addr={address:#x}");
        configured(option, &[ARM, &vfree])
    };
    assert_eq!(of("CONFIG_ARM64_VA_BITS_39", u64::MAX << 47), Ok("arm64 4k 39-bit"));
    assert_eq!(of("CONFIG_ARM64_VA_BITS_52", u64::MAX << 52), Ok("arm64 4k 52-bit"));
    // A CPU without LPA2.
    assert_eq!(of("CONFIG_ARM64_VA_BITS_52", u64::MAX << 48), Ok("arm64 4k 48-bit"));
    assert_eq!(
        configured("CONFIG_PAGE_SIZE_64KB", &[POKE, SYNC]),
        Err(DetectError::NotModelled { arch: Arch::X86_64, page_shift: 16, va_bits: 0 })
    );
}

/// Where a kernel maps first says how much it can address.
#[test]
fn bits_of_addresses_by_what_is_mapped() {
    let none = SideFiles::default();
    let found = |first: &str, start: u64| {
        let map = format!(
            "vmap_pages_range_noflush: (vmap_pages_range_noflush+0xc/0x1) start={start:#x} \
             end={:#x} prot=0x8",
            start + 0x10000
        );
        kernel(&options(Some("6.12")), &none, &evidence(&[first, &map])).unwrap().format.name
    };
    for (start, name) in [
        (0xffff_8000_8000_0000, "arm64 4k 48-bit"),
        (0xffff_ffbf_ffff_0000, "arm64 4k 48-bit"),
        (0xffff_ffc0_8000_0000, "arm64 4k 39-bit"),
    ] {
        assert_eq!(found(ARM, start), name, "{start:#x}");
    }
    assert_eq!(found(SYNC, 0xffff_c900_0000_0000), "x86-64 4-level");
    assert_eq!(found(SYNC, 0xffa0_0000_0000_0000), "x86-64 5-level");
    // A log without an address of the kernel, and what the user says.
    let k = |options: &Options| kernel(options, &none, &evidence(&[SYNC])).unwrap().format.name;
    assert_eq!(k(&options(Some("6.12"))), "x86-64 4-level");
    let told = Options { va_bits: Some(57), ..options(Some("6.12")) };
    assert_eq!(k(&told), "x86-64 5-level");
    let wrong = Options { va_bits: Some(50), ..options(Some("6.12")) };
    let text = kernel(&wrong, &none, &evidence(&[SYNC])).unwrap_err().to_string();
    assert_eq!(text, "x86_64 with pages of 4 KiB and 50 bits of addresses is not modelled");
}
