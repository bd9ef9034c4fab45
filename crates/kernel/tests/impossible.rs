//! Impossible arguments for every call: what Linux gives, "not modelled" by name, or a message.
//! Never a panic, a stream that is torn, or a lock that stays held behind a returned call; and what
//! was refused before anything was done has left no entry of the page tables changed.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_with};
use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, Features, Perm};
use textbed_event::{Event, View};
use textbed_kernel::{Arg, CALLS, CallError, CallSpec, PAGE_SIZES, ParamKind, find_call};

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const VERSIONS: [&str; 7] = ["5.18-rc3", "5.18", "6.1", "6.6", "6.12", "6.18", "7.0"];
/// Calls that may fail behind a part of their work, which stays: the image of a trampoline that is
/// not freed, the block that room was to be cut from.
const IN_PARTS: &[&str] = &["bpf_trampoline_link_prog", "vmalloc_exec_v1"];
/// The same on x86: its walk goes on up to the page that is not mapped.
const IN_PARTS_ON_X86: &[&str] = &[
    "set_memory_ro",
    "set_memory_x",
    "set_memory_rox",
    "set_memory_np",
    "set_memory_np_noalias",
    "set_memory_nonglobal",
    "execmem_restore_rox",
];

/// Addresses that no caller has a right to, by what is wrong with them.
fn addresses(bed: &mut Bed) -> Vec<(&'static str, u64)> {
    let layout = *bed.kernel.layout();
    let area = bed.call("vmalloc", &[2 << 12]) as u64;
    let freed = bed.call("vmalloc", &[1 << 12]) as u64;
    bed.call("vfree", &[freed]);
    vec![
        ("NULL", 0),
        ("a user address", 0x40_0000),
        ("the last byte", u64::MAX),
        ("the last page", u64::MAX - 0xfff),
        ("not canonical", 0x0012_3456_789a_b000),
        ("not canonical, negative", 0xffef_0000_0000_0000),
        ("freed", freed),
        ("unaligned", area + 1),
        ("inside an area", area + 0x1000),
        ("behind an area", area + 0x2000),
        ("kernel text", layout.text.start.0),
        ("the last of the text", layout.text.end() - 1),
        ("direct map", layout.direct_map.start.0 + (40 << 20)),
        ("behind the direct map", layout.direct_map.end()),
        ("the patcher's alias", layout.patch.0),
    ]
}

const NUMBERS: [(&str, u64); 7] = [
    ("0", 0),
    ("1", 1),
    ("odd", 4097),
    ("2^31 - 1", (1 << 31) - 1),
    ("2^32", 1 << 32),
    ("2^52", 1 << 52),
    ("2^64 - 1", u64::MAX),
];

/// An argument that a call may well get.
fn usual(kind: ParamKind, area: u64) -> Arg {
    match kind {
        ParamKind::Addr => Arg::Value(area),
        ParamKind::Bytes => Arg::Value(4096),
        ParamKind::Pages => Arg::Value(1),
        ParamKind::Cpu => Arg::Value(1),
        ParamKind::Byte => Arg::Value(0xcc),
        ParamKind::Insn => Arg::Value(0x6000_0000),
        ParamKind::Flag => Arg::Value(0),
        ParamKind::Flags(names) => {
            Arg::Flags(names.first().map(|(n, _)| (*n).to_owned()).into_iter().collect())
        }
        ParamKind::Code => Arg::Code(vec![0x0f, 0x1f, 0x44, 0, 0]),
    }
}

/// Hostile arguments for one parameter.
fn hostile(kind: ParamKind, addresses: &[(&'static str, u64)]) -> Vec<(&'static str, Arg)> {
    let values = |all: &[(&'static str, u64)]| -> Vec<(&'static str, Arg)> {
        all.iter().map(|(what, value)| (*what, Arg::Value(*value))).collect()
    };
    match kind {
        ParamKind::Addr => values(addresses),
        ParamKind::Code => vec![
            ("no code", Arg::Code(Vec::new())),
            ("one byte", Arg::Code(vec![0xcc])),
            ("two pages", Arg::Code(vec![0x90; 8193])),
        ],
        ParamKind::Flags(names) => vec![
            ("no flag", Arg::Flags(Vec::new())),
            ("every flag", Arg::Flags(names.iter().map(|(n, _)| (*n).to_owned()).collect())),
            ("an unknown flag", Arg::Flags(vec!["VM_NO_SUCH".to_owned()])),
        ],
        _ => values(&NUMBERS),
    }
}

struct Rig {
    bed: Bed,
    addresses: Vec<(&'static str, u64)>,
    area: u64,
}

fn rig(arch: Arch, version: &str, size: &str) -> Rig {
    let options = [("memory_mib", "64"), ("page_size", size)];
    let mut bed = boot_with(version, arch, &options, Features::default_for(arch), 2);
    let addresses = addresses(&mut bed);
    let area = bed.call("vmalloc", &[4 << 12]) as u64;
    bed.events();
    Rig { bed, addresses, area }
}

/// What became of leaves: pages whose permissions are others than before, by the events.
fn changed(events: &[Event]) -> Vec<(u64, Perm, Perm)> {
    let mut pages: BTreeMap<u64, (Perm, Perm)> = BTreeMap::new();
    for event in events {
        let View::Leaf { virt, change, .. } = event.view() else { continue };
        // Sixteen pages of each change are enough to see it.
        let bytes = change.len().min(16 << 12);
        for page in (0..bytes).step_by(1 << 12) {
            let at = pages.entry(virt.0.wrapping_add(page)).or_insert((change.old, change.new));
            at.1 = change.new;
        }
    }
    let other = |(at, (old, new)): (u64, (Perm, Perm))| (old != new).then_some((at, old, new));
    pages.into_iter().filter_map(other).collect()
}

/// Makes one call; whether it returned, and whether the machine is still as callers leave it.
fn make(
    rig: &mut Rig,
    spec: &CallSpec,
    (what, args): (&str, &[Arg]),
    halves: &mut BTreeMap<(&'static str, bool), String>,
) -> bool {
    let done = rig.bed.kernel.call(CpuId(0), spec.name, args);
    let events = rig.bed.events();
    for event in &events {
        assert!(event.is_valid(), "{}: {what}: {event:?}", spec.name);
    }
    if done.as_ref().is_ok_and(|value| value.failed) {
        let changed = changed(&events);
        if !changed.is_empty() {
            let x86 = rig.bed.kernel.arch() == Arch::X86_64;
            halves.entry((spec.name, x86)).or_insert_with(|| format!("{what}: {:x?}", changed[0]));
        }
    }
    match done {
        Ok(value) => {
            assert_eq!(value.failed, spec.returns.failed(value.value), "{}: {what}", spec.name);
            assert!(rig.bed.kernel.machine().irqs_on(CpuId(0)), "{}: {what}", spec.name);
            true
        }
        Err(CallError::Arguments { reason, .. }) => {
            assert!(!reason.is_empty());
            true
        }
        Err(CallError::NotModelled { what: which, .. }) => {
            assert!(which.len() > 8, "{}: {what}: {which}", spec.name);
            false
        }
        Err(CallError::Died { how, .. }) => {
            assert!(how.len() > 4, "{}: {what}: {how}", spec.name);
            false
        }
        Err(other) => panic!("{} with {what}: {other}", spec.name),
    }
}

#[test]
fn every_call_with_every_impossible_argument() {
    let (mut made, mut halves) = (0, BTreeMap::new());
    for arch in ARCHS {
        // Every version with pages of 4 KiB, one with the others.
        let others = PAGE_SIZES.iter().filter(|r| r.shift > 12 && r.archs.contains(&arch));
        let others = others.map(|row| ("6.12", row.word));
        for (version, size) in VERSIONS.map(|v| (v, "4K")).into_iter().chain(others) {
            let mut rig = rig(arch, version, size);
            for spec in CALLS {
                let Ok(spec) = find_call(spec.name, rig.bed.kernel.version(), arch) else {
                    continue;
                };
                for (n, param) in spec.params.iter().enumerate() {
                    for (what, arg) in hostile(param.kind, &rig.addresses.clone()) {
                        let mut args: Vec<Arg> =
                            spec.params.iter().map(|p| usual(p.kind, rig.area)).collect();
                        args[n] = arg;
                        made += 1;
                        let what = format!("{} = {what} on {arch} {version} {size}", param.name);
                        if !make(&mut rig, spec, (&what, &args), &mut halves) {
                            rig = self::rig(arch, version, size);
                        }
                    }
                }
            }
        }
    }
    halves.retain(|(name, x86), _| {
        !(IN_PARTS.contains(name) || *x86 && IN_PARTS_ON_X86.contains(name))
    });
    assert!(halves.is_empty(), "failed, and changed leaves: {halves:#?}");
    println!("{made} calls made");
    assert!(made > 9000, "{made}");
}
