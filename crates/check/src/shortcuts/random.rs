//! Random streams with each shortcut open and closed: the report is the same, but for how much was
//! looked at.

use proptest::prelude::*;
use textbed_arch::{
    Arch, CpuId, Features, Perm, Pfn, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
};
use textbed_event::{
    Batch, Event, Flags, Header, LeafChange, MemOrder, NameId, RcuFlavour, Recorder, Sink, View,
    WindowPurpose,
};

use super::{CLOSED, Shortcut};
use crate::{Checker, Mode, Options, Reading, Report};

const CODE: u64 = 0xffff_ffff_c000_0000;
const ALIAS: u64 = 0xffff_8880_0000_0000;
const PHYS: u64 = 0x20_0000;
const CPUS: u16 = 3;
const FRAMES: u64 = 3;

/// A generator of numbers (splitmix64).
struct Mix(u64);

impl Mix {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(n)) >> 64) as u64
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

fn leaf(virt: u64, phys: u64, old: Perm, new: Perm) -> View {
    let change = LeafChange::usual(1, 12, old, new);
    View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change }
}

/// Something that happens at `at` in frame `page`.
fn anything(mix: &mut Mix, rec: &mut Recorder, arch: Arch, page: u64, slot: NameId) -> View {
    let at = page + mix.of(&[0, 4, 8, 12, 16, 60, 64, 4088, 4094]);
    let (virt, alias, phys) = (VirtAddr(CODE + at), VirtAddr(ALIAS + at), PhysAddr(PHYS + at));
    let (scope, reach) = (CacheScope::Line, Reach::Broadcast);
    match mix.below(76) {
        0..24 => {
            let at = page + mix.below(6) * 8;
            let (virt, phys) = (VirtAddr(CODE + at), PhysAddr(PHYS + at));
            View::Fetch { virt, phys, len: mix.of(&[4, 8, 16]) }
        }
        24..38 => {
            let len = mix.of(&[1usize, 2, 4, 4, 8, 8, 8, 16]);
            let first = mix.of(&[0xcc, 1, 2, 3]);
            let bytes = rec.bytes(&[first, 0, 0x90, 0x14].repeat(4)[..len]);
            let order = mix.of(&[MemOrder::Plain, MemOrder::Plain, MemOrder::Release]);
            View::Store { virt: alias, phys, bytes, order }
        }
        38..44 => View::ContextSync { cause: SyncCause::Serialising },
        44..47 => View::CacheClean { scope: mix.of(&[scope, scope, CacheScope::All]), virt, phys },
        47..50 => {
            let scope = mix.of(&[scope, scope, CacheScope::All]);
            View::IcacheInvalidate { scope, reach, virt, phys }
        }
        50..57 => {
            let barrier = match arch {
                Arch::X86_64 => mix.of(&[Barrier::Mfence, Barrier::Sfence]),
                Arch::Arm64 => mix.of(&[Barrier::DsbFull, Barrier::DmbFull]),
                _ => mix.of(&[Barrier::Sync, Barrier::Lwsync]),
            };
            View::Barrier { barrier, domain: Domain::Inner }
        }
        57 => View::Publish { slot, value: mix.below(2) },
        58 => View::Observe { slot, value: mix.below(2) },
        59 => View::Load { virt: alias, phys, len: 4, order: MemOrder::Acquire },
        60 => leaf(CODE + page, PHYS + page, Perm::KERNEL_ROX, Perm::empty()),
        61..63 => leaf(CODE + page, PHYS + page, Perm::empty(), Perm::KERNEL_ROX),
        63 => leaf(ALIAS + page, PHYS + page, Perm::KERNEL_RW, Perm::KERNEL_RO),
        64 => leaf(ALIAS + page, PHYS + page, Perm::KERNEL_RO, Perm::KERNEL_RW),
        65..67 => {
            let (scope, virt) = (TlbScope::Address, VirtAddr(CODE + page));
            View::TlbInvalidate { scope, reach, virt, len: 4096, asid: 0, leaf: None }
        }
        67 => View::FrameFree { pfn: Pfn((PHYS + page) >> 12), count: 1 },
        68 => View::FrameAlloc { pfn: Pfn((PHYS + page) >> 12), count: 1, zeroed: false },
        69..73 => {
            let purpose = mix.of(&[
                WindowPurpose::Platform,
                WindowPurpose::PatchPrivate,
                WindowPurpose::PatchShared,
            ]);
            let (window, len) = (mix.below(3) as u32, mix.of(&[5, 4096]));
            View::WindowOpened { window, purpose, phys, len }
        }
        73..75 => View::WindowClosed { window: mix.below(3) as u32 },
        _ => View::StoreLate { virt: alias, phys, len: mix.of(&[4, 8, 4096]) },
    }
}

/// A store of a word, or what orders and maintains such: nothing that anybody waits for.
fn quiet(mix: &mut Mix, rec: &mut Recorder, arch: Arch, page: u64, slot: NameId) -> View {
    if mix.below(4) == 0 {
        return loop {
            let view = anything(mix, rec, arch, page, slot);
            if !matches!(view, View::Fetch { .. } | View::Leaf { .. } | View::FrameAlloc { .. }) {
                break view;
            }
        };
    }
    let at = page + mix.of(&[0, 8, 8, 16, 64]);
    let bytes = rec.bytes(&[mix.of(&[0xcc, 1, 2, 3]), 0, 0x90, 0x14, 0, 0, 0, 0]);
    let (virt, phys) = (VirtAddr(ALIAS + at), PhysAddr(PHYS + at));
    View::Store { virt, phys, bytes, order: MemOrder::Plain }
}

/// Everybody learns what everybody knows, and acts on it.
fn everybody_is_told(rec: &mut Recorder, arch: Arch) {
    rec.emit(CpuId(0), View::GracePeriod { flavour: RcuFlavour::Normal });
    let barrier = match arch {
        Arch::X86_64 => Barrier::Mfence,
        Arch::Arm64 => Barrier::DsbFull,
        _ => Barrier::Sync,
    };
    for cpu in (0..CPUS).map(CpuId) {
        rec.emit(cpu, View::Barrier { barrier, domain: Domain::System });
        rec.emit(cpu, View::ContextSync { cause: SyncCause::Serialising });
    }
}

/// A stream in which so many quiet events come first.
fn stream(arch: Arch, amd: bool, seed: u64, before: u64) -> (Header, Vec<Batch>) {
    let features = if amd { Features::X86_AMD } else { Features::empty() };
    stream_of(arch, features, seed, before, 0)
}

/// The same on a machine with these features; one time of so many (0: never) everybody is told
/// what everybody knows.
fn stream_of(
    arch: Arch,
    features: Features,
    seed: u64,
    before: u64,
    told: u64,
) -> (Header, Vec<Batch>) {
    let (mut mix, mut rec) = (Mix(seed), Recorder::new());
    let mut header = Header::all_seeing(arch, CPUS);
    header.features |= features;
    let slot = rec.name("slot");
    for page in (0..FRAMES).map(|n| n * 4096) {
        rec.emit(CpuId(0), leaf(CODE + page, PHYS + page, Perm::empty(), Perm::KERNEL_ROX));
        rec.emit(CpuId(0), leaf(ALIAS + page, PHYS + page, Perm::empty(), Perm::KERNEL_RW));
    }
    for n in 0..200 + before {
        if told != 0 && mix.below(told) == 0 {
            everybody_is_told(&mut rec, arch);
        }
        let (cpu, page) = (CpuId(mix.below(CPUS.into()) as u16), mix.below(FRAMES) * 4096);
        let view = match n < before {
            true => quiet(&mut mix, &mut rec, arch, page, slot),
            false => anything(&mut mix, &mut rec, arch, page, slot),
        };
        let odd = [Flags::NONTEMPORAL, Flags::EQUAL_BYTES, Flags::PHYS_UNKNOWN];
        let flags = if mix.below(12) == 0 { mix.of(&odd) } else { Flags::default() };
        rec.push(Event { flags, ..Event::new(cpu, view) });
    }
    (header, vec![rec.take()])
}

fn report((header, batches): &(Header, Vec<Batch>), options: &Options) -> Report {
    let mut checker = Checker::new(options.clone());
    let _ = checker.begin(header);
    batches.iter().for_each(|b| {
        let _ = checker.batch(b);
    });
    checker.finish()
}

/// What a report says.
fn said(report: Report) -> String {
    format!("{:#?}\n{:#?}\n{:?}", report.findings, report.windows, report.notes)
}

fn compare(arch: Arch, amd: bool, seed: u64) -> Result<usize, TestCaseError> {
    Ok(compare_streams(arch, amd, seed, 0)? + compare_streams(arch, amd, seed, 60)?)
}

fn compare_streams(arch: Arch, amd: bool, seed: u64, before: u64) -> Result<usize, TestCaseError> {
    let stream = stream(arch, amd, seed, before);
    let mut found = 0;
    for mode in [Mode::Observed, Mode::Predicted] {
        for reading in [Reading::Strict, Reading::Mapped] {
            let options = Options { mode, reading, ..Options::default() };
            let open = report(&stream, &options);
            found += open.findings.len();
            let open = said(open);
            for shortcut in Shortcut::ALL {
                CLOSED.set(Some(shortcut));
                let slow = said(report(&stream, &options));
                CLOSED.set(None);
                prop_assert_eq!(&open, &slow, "{:?} {} {:?} {:?}", shortcut, arch, mode, reading);
            }
        }
    }
    Ok(found)
}

/// Streams in which everybody is told now and then: by real edges versions go that all are past.
fn compare_told(arch: Arch, seed: u64) -> Result<(), TestCaseError> {
    let features = match (arch, seed % 3) {
        (Arch::Arm64, 1) => Features::ARM_DIC | Features::ARM_IDC,
        (Arch::Arm64, 2) => Features::ARM_IDC,
        _ => Features::empty(),
    };
    let stream = stream_of(arch, features, seed, 60, 12);
    let options = Options { mode: Mode::Predicted, ..Options::default() };
    let open = said(report(&stream, &options));
    CLOSED.set(Some(Shortcut::Settled));
    let slow = said(report(&stream, &options));
    CLOSED.set(None);
    prop_assert_eq!(&open, &slow, "{} {:?}", arch, features);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn reports_are_the_same_where_everybody_is_told(seed: u64) {
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
            compare_told(arch, seed)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn x86_reports_are_the_same(seed: u64, amd: bool) {
        compare(Arch::X86_64, amd, seed)?;
    }

    #[test]
    fn arm64_reports_are_the_same(seed: u64) {
        compare(Arch::Arm64, false, seed)?;
    }

    #[test]
    fn powerpc_reports_are_the_same(seed: u64) {
        compare(Arch::Ppc64le, false, seed)?;
    }
}

/// A store of which the CPU executed a part before: whatever older stores divide it, it is one.
#[test]
fn what_older_stores_divide_is_one_store() {
    assert!(compare(Arch::X86_64, false, 5_411_235_954_356_254_330).unwrap() > 0);
}

/// A block that becomes plain when fewer of its bytes are fetched than before: what the CPU ran is
/// all that it ran.
#[test]
fn what_became_plain_ran_with_all_its_bytes() {
    assert!(compare(Arch::X86_64, false, 5_214_647_413_920_308_061).unwrap() > 0);
}

/// A block that a CPU ran again since it was found plain, and then with fewer bytes: what the CPU
/// ran before the change that made it otherwise meanwhile does not say what it ran since.
#[test]
fn what_ran_again_since_it_is_plain_ran_with_all_its_bytes() {
    for arch in [Arch::X86_64, Arch::Ppc64le] {
        assert!(compare(arch, false, 11_520_479_468_024_891_247).unwrap() > 0);
    }
}

/// Streams whose reports change if all versions are forgotten, or those that not every CPU is past:
/// about one in a thousand does.
const NEED_THEIR_BOUND: [u64; 2] = [7_797_122_764_801_549_308, 15_458_708_015_277_820_492];

#[test]
fn versions_that_a_cpu_may_run_are_kept() {
    for seed in NEED_THEIR_BOUND {
        assert!(compare(Arch::X86_64, false, seed).unwrap() > 0);
    }
}

#[test]
fn the_streams_hold_something_to_find() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        assert!((0..6).map(|seed| compare(arch, false, seed).unwrap()).sum::<usize>() > 20);
    }
}

/// A block that several events know to be plain when they are read ahead: what one of these does
/// counts for the others.
#[test]
fn what_changes_among_events_that_are_read_ahead_counts() {
    let (virt, alias, phys) = (VirtAddr(CODE), VirtAddr(ALIAS), PhysAddr(PHYS));
    let fetch = View::Fetch { virt, phys, len: 8 };
    // Another frame for a while, for the same one again is no other code.
    let swap = [(Perm::KERNEL_ROX, Perm::empty()), (Perm::empty(), Perm::KERNEL_ROX)];
    let [out, back] = swap.map(|(old, new)| leaf(CODE, PHYS, old, new));
    let [away, other] = swap.map(|(old, new)| leaf(CODE, PHYS + 0x1000, old, new));
    let remap = [out, other, away, back];
    let changes = |rec: &mut Recorder, mapping: bool| {
        if mapping {
            return remap.to_vec();
        }
        let bytes = rec.bytes(&[0x90; 8]);
        vec![View::Store { virt: alias, phys, bytes, order: MemOrder::Plain }]
    };
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        for mapping in [false, true] {
            let mut rec = Recorder::new();
            rec.emit(CpuId(0), leaf(CODE, PHYS, Perm::empty(), Perm::KERNEL_ROX));
            rec.emit(CpuId(0), leaf(ALIAS, PHYS, Perm::empty(), Perm::KERNEL_RW));
            rec.emit(CpuId(1), fetch);
            rec.emit(CpuId(1), fetch);
            let before = rec.take();
            rec.emit(CpuId(1), fetch);
            for view in changes(&mut rec, mapping) {
                rec.emit(CpuId(0), view);
            }
            rec.emit(CpuId(1), fetch);
            let stream = (Header::all_seeing(arch, CPUS), vec![before, rec.take()]);
            let options = Options { mode: Mode::Observed, ..Options::default() };
            let open = report(&stream, &options);
            let missing = |f: &crate::Finding| f.rule.row().name.starts_with("missing-");
            assert!(open.findings.iter().any(missing), "{arch}: {:#?}", open.findings);
            CLOSED.set(Some(Shortcut::Steady));
            let slow = said(report(&stream, &options));
            CLOSED.set(None);
            assert_eq!(said(open), slow, "{arch}");
        }
    }
}
