//! How things are called in messages: operations by architecture, sets of CPUs, sizes.

use textbed_arch::Arch;

use crate::mark::Mark;

/// What drops a translation on the CPUs of a set, part by part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlbFlush {
    /// Has walks find the change; nothing where they do at once.
    pub(crate) orders: &'static [&'static str],
    pub(crate) drops: &'static str,
    /// Completes it; nothing where it is complete at once.
    pub(crate) completes: &'static [&'static str],
}

impl TlbFlush {
    /// That of an architecture.
    pub(crate) fn of(arch: Arch) -> Self {
        let (orders, drops, completes): (&[_], _, &[_]) = match arch {
            Arch::X86_64 => (&[], "invlpg", &[]),
            Arch::Arm64 => (&["dsb ishst"], "tlbi vaae1is", &["dsb ish"]),
            Arch::Ppc64le | Arch::Ppc64 => {
                (&["ptesync"], "tlbie", &["eieio", "tlbsync", "ptesync"])
            }
            Arch::Ppc32 => (&["sync"], "tlbie", &["eieio", "tlbsync", "sync"]),
        };
        Self { orders, drops, completes }
    }
}

/// Instructions one behind the other.
pub(crate) fn sequence<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().collect::<Vec<_>>().join("; ")
}

/// What drops a translation on the CPUs of a set.
pub(crate) fn tlb_flush(arch: Arch) -> String {
    let TlbFlush { orders, drops, completes } = TlbFlush::of(arch);
    sequence(orders.iter().copied().chain([drops]).chain(completes.iter().copied()))
}

/// An instruction that synchronises the context of the CPU that executes it.
pub(crate) fn context_sync(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "serialising instruction (iret, cpuid, serialize)",
        Arch::Arm64 => "isb",
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => "isync",
    }
}

/// What announces stores to another CPU.
pub(crate) fn publish(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "any store after them",
        Arch::Arm64 => "stlr, or dmb ish and a store",
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => "lwsync and a store",
    }
}

/// `cpu 1`, `cpus 0, 2`, `every cpu`.
pub(crate) fn cpus(mask: u64, all: u64) -> String {
    if mask == all && mask.count_ones() != 1 {
        return "every cpu".to_owned();
    }
    let numbers: Vec<String> =
        (0..64).filter(|n| mask & (1 << n) != 0).take(8).map(|n| n.to_string()).collect();
    let more = if mask.count_ones() > 8 { ", ..." } else { "" };
    let noun = if mask.count_ones() == 1 { "cpu" } else { "cpus" };
    format!("{noun} {}{more}", numbers.join(", "))
}

/// The time from one event to another one: in microseconds where both have a time, else in events.
pub(crate) fn lasted(from: &Mark, to: &Mark) -> String {
    match (to.ns_since(from), to.seq.saturating_sub(from.seq)) {
        (Some(ns), _) => format!("{}.{:03} us", ns / 1000, ns % 1000),
        (None, 1) => "1 event".to_owned(),
        (None, events) => format!("{events} events"),
    }
}

/// A number of bytes as people say it: `64 bytes`, `4 KiB`, `2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} byte{}", if bytes == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_cpu_sets() {
        assert_eq!(size(2 << 20), "2 MiB");
        assert_eq!(size(4097), "4097 bytes");
        assert_eq!(cpus(0b10, 0b11), "cpu 1");
        assert_eq!(cpus(0b101, 0b111), "cpus 0, 2");
        assert_eq!(cpus(0b11, 0b11), "every cpu");
        assert_eq!(cpus(0b1, 0b1), "cpu 0");
    }
}
