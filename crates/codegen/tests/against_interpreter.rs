//! Compiled functions, run on the emulated CPUs, against the interpreter of the same table.

#![allow(clippy::unwrap_used)] // test helpers

use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_codegen::{Bases, FIELDS, Field, FieldSpec, Format, UNPACKED_BYTES, compile};
use textbed_event::MemOrder;
use textbed_machine::{Machine, MachineConfig, Newest, Step, call};
use textbed_vcpu::Vcpu;

const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const CPU: CpuId = CpuId(0);
const PAGE: u64 = 4096;
const FORMATS: u64 = 250;
const KEYS: u64 = 4;

struct Bed {
    m: Machine,
    cpu: Vcpu,
    base: u64,
}

impl Bed {
    fn new(arch: Arch) -> Bed {
        let base = match arch {
            Arch::X86_64 => 0xffff_c900_0020_0000,
            Arch::Arm64 => 0xffff_8000_1020_0000,
            _ => 0xc008_0000_0020_0000,
        };
        let mut m = Machine::new(MachineConfig::new(arch), Box::new(Newest)).unwrap();
        for (page, perm) in [(0, Perm::KERNEL_RWX), (1, Perm::KERNEL_RW), (2, Perm::KERNEL_RW)] {
            let phys = m.alloc_frames(CPU, 1, 12, true).unwrap().addr();
            m.map(CPU, SpaceId::KERNEL, VirtAddr(base + page * PAGE), phys, PAGE, 12, perm)
                .unwrap();
        }
        Bed { m, cpu: Vcpu::new(arch, CPU).unwrap(), base }
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        for (i, part) in bytes.chunks(16).enumerate() {
            let at = VirtAddr(at + 16 * i as u64);
            self.m.store(CPU, at, part, MemOrder::Plain).unwrap();
        }
    }

    /// Puts code in place, with the architecture's whole maintenance.
    fn install(&mut self, code: &[u8]) {
        self.store(self.base, code);
        let (clean, invalidate, barrier, sync) = match self.m.arch() {
            Arch::X86_64 => (None, None, "mfence", "cpuid"),
            Arch::Arm64 => (Some("dc cvau"), Some("ic ivau"), "dsb ish", "isb"),
            _ => (Some("dcbst"), Some("icbi"), "sync", "isync"),
        };
        for op in [clean, invalidate] {
            for line in (0..code.len() as u64).step_by(32) {
                if let Some(op) = op {
                    self.m.op_named(CPU, op, self.base + line).unwrap();
                }
            }
            self.m.op_named(CPU, barrier, 0).unwrap();
        }
        self.m.op_named(CPU, sync, 0).unwrap();
    }

    /// Runs the installed function on a key and a table.
    fn unpack(&mut self, key: &[u64], table: &[u64]) -> [u8; UNPACKED_BYTES] {
        let (data, little) = (self.base + PAGE, self.m.arch().is_little_endian());
        let bytes = |words: &[u64]| -> Vec<u8> {
            let one = |w: &u64| if little { w.to_le_bytes() } else { w.to_be_bytes() };
            words.iter().flat_map(one).collect()
        };
        // What is not written by the function shows.
        self.store(data, &[0xa5; UNPACKED_BYTES]);
        self.store(data + 64, &bytes(key));
        self.store(data + 128, &bytes(table));
        let (entry, stack) = (VirtAddr(self.base), VirtAddr(self.base + 3 * PAGE));
        let args = [data, data + 64, data + 128];
        let end = call(&mut self.cpu, &mut self.m, entry, stack, &args, 1000).unwrap().end;
        assert!(matches!(end, Step::Returned(_)), "{end:?}");
        let mut out = [0; UNPACKED_BYTES];
        self.m.load(CPU, VirtAddr(data), &mut out).unwrap();
        drop(self.m.take_batch());
        out
    }
}

/// Bases at which generators choose another instruction; chance does not meet them.
fn edges() -> Vec<Format> {
    let corners = (0..64).flat_map(|bit| {
        let power = 1_u64 << bit;
        [power - 1, power, power.wrapping_neg()]
    });
    let field = |bits: u32, base: u64, spec: &FieldSpec| {
        let most = spec.max() - if bits == 0 { 0 } else { u64::MAX >> (64 - bits) };
        Field { bits, base: (base & spec.max()).min(most) }
    };
    let formats = corners.flat_map(|base| {
        [0, 8, 13]
            .map(|bits| Format::new(FIELDS.each_ref().map(|spec| field(bits, base, spec))).unwrap())
    });
    formats.collect()
}

/// Keys with every bit set, none, and by chance; the length in the header is the format's.
fn key(format: &Format, n: u64) -> Vec<u64> {
    let words = u64::from(format.key_words());
    let mut key: Vec<u64> = (0..words)
        .map(|w| match n {
            0 => u64::MAX,
            1 => 0,
            _ => (n * 8 + w).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(w as u32 * 7 + 29),
        })
        .collect();
    key[0] = key[0] & !0xffff | words;
    key
}

#[test]
fn every_architecture_unpacks_as_the_interpreter() {
    for arch in ARCHES {
        let mut bed = Bed::new(arch);
        let (mut compared, mut equal) = (0, 0);
        let formats = (0..FORMATS).map(Format::seeded).chain(edges());
        for (seed, format) in formats.enumerate() {
            let table = format.fields().map(|f| f.base);
            for bases in [Bases::Immediate, Bases::Table] {
                bed.install(&compile(arch, &format, bases).unwrap());
                for n in 0..KEYS {
                    let key = key(&format, n);
                    let (got, want) = (bed.unpack(&key, &table), format.unpack(&key).bytes(arch));
                    compared += 1;
                    equal += usize::from(got == want);
                    assert_eq!(got, want, "{arch}, seed {seed}, {bases:?}, {format:?}, {key:x?}");
                }
            }
        }
        println!("{arch}: {compared} keys compared, {equal} equal");
    }
}

#[test]
fn packing_is_what_the_interpreter_undoes() {
    let mut compared = 0;
    for seed in 0..2000 {
        let format = Format::seeded(seed);
        for n in 0..KEYS {
            let before = format.unpack(&key(&format, n));
            let packed = format.pack((before.header >> 16) as u8, &before.values).unwrap();
            assert_eq!(format.unpack(&packed), before, "seed {seed}: {format:?}");
            compared += 1;
        }
    }
    println!("{compared} keys compared, {compared} equal");
}
