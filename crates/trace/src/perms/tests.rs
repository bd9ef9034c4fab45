use super::*;

fn after(arch: Arch, start: u64, actions: &[Action]) -> &'static str {
    let format = Format::for_kernel(arch, 12).unwrap();
    let bits = Bits::new(format);
    let virt = VirtAddr(0xffff_ffff_c000_0000);
    let last = actions.iter().fold(bits.of(start), |b, a| bits.apply(b, masks(arch, *a).unwrap()));
    bits.perm(virt, last).letters()
}

#[test]
fn actions_have_their_effect_on_every_architecture() {
    use Action::*;
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let start = page_kernel(arch);
        let rows: &[(&[Action], &str)] = &[
            (&[], "rw-"),
            (&[Ro], "r--"),
            (&[Ro, X], "r-x"),
            (&[Rox], "r-x"),
            (&[X], "rwx"),
            (&[Rox, Rw], "rwx"),
            (&[Rox, Rw, Nx], "rw-"),
            (&[Np], "---"),
            (&[Ro, Np, P], "r--"),
        ];
        for (actions, expected) in rows {
            assert_eq!(after(arch, start, actions), *expected, "{arch} {actions:?}");
        }
    }
    for arch in [Arch::X86_64, Arch::Arm64] {
        let start = page_kernel(arch);
        assert_eq!(after(arch, start, &[DirectInvalid]), "---");
        assert_eq!(after(arch, start, &[Ro, DirectInvalid, DirectDefault]), "rw-");
    }
}

/// The masks that recorded logs print for a call are the table's, as far as they decide.
#[test]
fn masks_agree_with_the_recorded_ones() {
    for (arch, log) in [(Arch::X86_64, "amd64-6.12"), (Arch::Arm64, "arm64-6.12")] {
        let bits = Bits::new(Format::for_kernel(arch, 12).unwrap());
        let path = format!("{}/../../tests/logs/{log}/trace.txt.zst", env!("CARGO_MANIFEST_DIR"));
        let mut reader = crate::reader::LineReader::open(path.as_ref()).unwrap();
        let mut last: Option<(Action, u64)> = None;
        let (mut compared, mut equal) = (0, 0);
        while let Some(line) = reader.next_line().unwrap() {
            let crate::ftrace::Parsed::Event(e) = crate::ftrace::parse(line.bytes) else {
                continue;
            };
            let crate::functions::Hit::Entry(f) =
                crate::functions::classify(&e, &Default::default())
            else {
                continue;
            };
            match f.meaning {
                crate::functions::Meaning::SetMemory(a) => {
                    last = e.number(b"addr").map(|addr| (a, addr));
                }
                crate::functions::Meaning::CpaCall
                | crate::functions::Meaning::ChangeMemoryCall => {
                    let Some((action, addr)) = last.take() else { continue };
                    if e.number(b"addr") != Some(addr) {
                        continue;
                    }
                    let set = bits.of(e.number(b"set").unwrap());
                    let clear = bits.of(e.number(b"clr").unwrap());
                    compared += 1;
                    equal += u32::from(masks(arch, action) == Some(Masks { set, clear }));
                }
                _ => {}
            }
        }
        println!("{log}: masks of {compared} calls compared, {equal} equal");
        assert_eq!(compared, equal);
        assert!(compared > 100);
    }
}
