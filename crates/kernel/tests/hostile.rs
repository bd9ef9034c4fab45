//! Random calls with random and hostile arguments: never a panic, never a torn stream.

mod common;

use common::{Bed, boot_with};
use proptest::prelude::*;
use textbed_arch::{Arch, CpuId, Features};
use textbed_event::{CallRef, View};
use textbed_kernel::{
    Arg, CALLS, CallError, CallSpec, CallValue, PAGE_SIZES, ParamKind, Progress, find_call,
};

const ARCHS: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const VERSIONS: [&str; 7] = ["5.18-rc3", "5.18", "6.1", "6.6", "6.12", "6.18", "7.0"];

/// Sizes of an architecture's pages.
fn sizes(arch: Arch) -> Vec<&'static str> {
    let of = PAGE_SIZES.iter().filter(|row| row.archs.contains(&arch));
    of.map(|row| row.word).collect()
}

/// Sizes and counts that break things.
const NUMBERS: [u64; 16] = [
    0,
    1,
    3,
    8,
    64,
    0xfff,
    0x1000,
    0x1001,
    0x3000,
    0x20_0000,
    0x20_1000,
    0x7fff_ffff,
    1 << 32,
    1 << 52,
    u64::MAX - 0xfff,
    u64::MAX,
];

/// One random call: which, and seeds for its arguments.
#[derive(Clone, Debug)]
struct Step {
    call: usize,
    cpu: u16,
    seeds: Vec<(u8, u64)>,
    code: Vec<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let seeds = prop::collection::vec((any::<u8>(), any::<u64>()), 6);
    let code = prop::collection::vec(any::<u8>(), 0..5000);
    (0..CALLS.len(), 0..2u16, seeds, code).prop_map(|(call, cpu, seeds, code)| Step {
        call,
        cpu,
        seeds,
        code,
    })
}

/// An address: in or near something that was allocated, or in one of the fixed places.
fn address(known: &[u64], fixed: &[u64], (how, seed): (u8, u64)) -> u64 {
    let offsets = [0, 0, 0, 0x1000, 0x3000, 0x800, 1, 0x20_0000, 4];
    let offset = offsets[seed as usize % offsets.len()];
    match how % 8 {
        0..=4 if !known.is_empty() => {
            let base = known[seed as usize / 16 % known.len()];
            base.wrapping_add(offset)
        }
        0..=6 => fixed[seed as usize / 16 % fixed.len()].wrapping_add(offset),
        _ => seed,
    }
}

fn arguments(spec: &CallSpec, step: &Step, known: &[u64], fixed: &[u64]) -> Vec<Arg> {
    let number = |(how, seed): (u8, u64)| match how % 4 {
        0..=2 => NUMBERS[seed as usize % NUMBERS.len()],
        _ => seed % 0x9000,
    };
    let one = |(n, param): (usize, &textbed_kernel::Param)| {
        let seed = step.seeds[n % step.seeds.len()];
        match param.kind {
            ParamKind::Addr => Arg::Value(address(known, fixed, seed)),
            ParamKind::Bytes => Arg::Value(number(seed)),
            ParamKind::Pages => {
                Arg::Value(if seed.0.is_multiple_of(3) { number(seed) } else { seed.1 % 5 })
            }
            ParamKind::Cpu => Arg::Value(seed.1 % 3),
            ParamKind::Byte => Arg::Value(seed.1 % 300),
            ParamKind::Insn => Arg::Value(seed.1 >> (seed.0 % 64)),
            ParamKind::Flag => Arg::Value(seed.1 % 3),
            ParamKind::Flags(names) => {
                Arg::Flags(vec![names[seed.1 as usize % names.len()].0.to_owned()])
            }
            ParamKind::Code => Arg::Code(step.code.clone()),
        }
    };
    spec.params.iter().enumerate().map(one).collect()
}

/// A call from its begin to its end; one in one piece that interrupts others and is not known for
/// it fails here.
fn carried_out(
    bed: &mut Bed,
    cpu: CpuId,
    name: &str,
    args: &[Arg],
) -> Result<CallValue, CallError> {
    let mut progress = bed.kernel.begin(cpu, name, args);
    loop {
        match progress {
            Ok(Progress::Done(value)) => return Ok(value),
            Ok(Progress::More) => progress = bed.kernel.resume(cpu),
            Ok(Progress::Waits(wait)) => panic!("{name} waits for {wait} alone"),
            Err(error) => return Err(error),
        }
    }
}

fn run(arch: Arch, version: &str, size: &str, steps: &[Step]) {
    let options = [("memory_mib", "64"), ("page_size", size)];
    let mut bed = boot_with(version, arch, &options, Features::default_for(arch), 2);
    let layout = *bed.kernel.layout();
    let fixed = [
        0,
        0x1000,
        0x0000_8000_0000_0000,
        0xffff_7fff_ffff_f000,
        layout.text.start.0,
        layout.text.end() - 4096,
        layout.direct_map.start.0,
        layout.direct_map.end() - 4096,
        layout.vmalloc.start.0,
        layout.vmalloc.end() - 8192,
        layout.modules.start.0,
        layout.patch.0,
    ];
    let mut known = Vec::new();
    let mut open: Vec<CallRef> = Vec::new();
    for step in steps {
        let name = CALLS[step.call].name;
        let Ok(spec) = find_call(name, bed.kernel.version(), arch) else { continue };
        let args = arguments(spec, step, &known, &fixed);
        let cpu = CpuId(step.cpu);
        let mut done = carried_out(&mut bed, cpu, name, &args);
        // What is left open on purpose is ended at once: alone, nobody else would.
        let ends = [("cpus_read_lock", "cpus_read_unlock"), ("cpu_up_begin", "cpu_up_end")];
        if let Some((_, end)) = ends.iter().find(|(begin, _)| *begin == name)
            && done.is_ok()
        {
            done = carried_out(&mut bed, cpu, end, &args);
        }
        let batch = bed.take();
        for event in &batch.events {
            assert!(event.is_valid(), "{event:?}");
            match event.view() {
                View::CallEntered { call, .. } => open.push(call),
                View::CallReturned { call, value, failed } => {
                    assert_eq!(open.pop(), Some(call), "calls nest");
                    assert!(!failed || value <= 1);
                }
                _ => {}
            }
        }
        match done {
            Ok(value) => {
                assert!(open.is_empty(), "{name} returned: {open:?}");
                assert_eq!(value.failed, spec.returns.failed(value.value));
                assert!(bed.kernel.machine().irqs_on(cpu), "{name} left interrupts off");
                for lock in
                    ["cpa_lock", "vmap_purge_lock", "text_mutex", "pack_mutex", "patch_lock"]
                {
                    assert_eq!(bed.kernel.machine().lock_holder(lock), None, "{name} {lock}");
                }
                if name.contains("alloc") && value.value != 0 {
                    known.push(value.value as u64);
                }
            }
            Err(CallError::Arguments { .. }) => assert!(open.is_empty()),
            // The task or the run is over.
            Err(CallError::Died { .. } | CallError::NotModelled { .. }) => return,
            Err(other) => panic!("{name} {args:x?}: {other}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_call_panics_or_tears_the_stream(
        arch in 0..ARCHS.len(),
        size in any::<usize>(),
        version in 0..VERSIONS.len(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let sizes = sizes(ARCHS[arch]);
        run(ARCHS[arch], VERSIONS[version], sizes[size % sizes.len()], &steps);
    }
}

/// Every call that exists, with each hostile number for each number and each odd address.
#[test]
fn every_call_alone_with_hostile_arguments() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        // Every version with pages of 4 KiB, one with the others.
        let others = sizes(arch).into_iter().skip(1).map(|size| ("6.12", size));
        for (version, size) in VERSIONS.map(|v| (v, "4K")).into_iter().chain(others) {
            for (call, spec) in CALLS.iter().enumerate() {
                for how in 0..4u64 {
                    let seeds = (0..6).map(|n| (7 * (how as u8 % 2), how * 5 + n * 3)).collect();
                    let odd = Step { call, cpu: 0, seeds, code: vec![0xcc; how as usize * 4] };
                    run(arch, version, size, std::slice::from_ref(&odd));
                    if spec.params.is_empty() {
                        break;
                    }
                }
            }
        }
    }
}
