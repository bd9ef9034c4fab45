//! Sets of CPUs.

use textbed_arch::CpuId;

/// Most CPUs of a machine.
pub const MAX_CPUS: u16 = 1024;

/// A set of CPUs below [`MAX_CPUS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CpuMask {
    words: [u64; MAX_CPUS as usize / 64],
}

impl Default for CpuMask {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl CpuMask {
    /// No CPU.
    pub const EMPTY: CpuMask = CpuMask { words: [0; MAX_CPUS as usize / 64] };

    /// One CPU.
    #[must_use]
    pub fn one(cpu: CpuId) -> Self {
        Self::EMPTY.with(cpu)
    }

    /// The first `cpus` CPUs.
    #[must_use]
    pub fn first(cpus: u16) -> Self {
        (0..cpus.min(MAX_CPUS)).fold(Self::EMPTY, |mask, n| mask.with(CpuId(n)))
    }

    /// With this CPU; one that cannot be is left out.
    #[must_use]
    pub fn with(mut self, cpu: CpuId) -> Self {
        if let Some(word) = self.words.get_mut(cpu.index() / 64) {
            *word |= 1 << (cpu.index() % 64);
        }
        self
    }

    /// Without this CPU.
    #[must_use]
    pub fn without(mut self, cpu: CpuId) -> Self {
        if let Some(word) = self.words.get_mut(cpu.index() / 64) {
            *word &= !(1 << (cpu.index() % 64));
        }
        self
    }

    /// Whether it has this CPU.
    #[must_use]
    pub fn has(&self, cpu: CpuId) -> bool {
        self.words.get(cpu.index() / 64).is_some_and(|w| w & (1 << (cpu.index() % 64)) != 0)
    }

    /// Its CPUs in order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + use<> {
        let mask = *self;
        (0..MAX_CPUS).map(CpuId).filter(move |cpu| mask.has(*cpu))
    }

    /// As events carry it: CPUs from 63 on share the top bit.
    #[must_use]
    pub fn event_bits(&self) -> u64 {
        self.iter().fold(0, |bits, cpu| bits | textbed_event::View::cpu_bit(cpu))
    }
}

impl FromIterator<CpuId> for CpuMask {
    fn from_iter<T: IntoIterator<Item = CpuId>>(cpus: T) -> Self {
        cpus.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_and_pack() {
        let mask: CpuMask = [CpuId(0), CpuId(70), CpuId(2000)].into_iter().collect();
        assert_eq!(mask.iter().collect::<Vec<_>>(), [CpuId(0), CpuId(70)]);
        assert_eq!(mask.event_bits(), 1 | 1 << 63);
        assert!(!mask.without(CpuId(0)).has(CpuId(0)));
        assert_eq!(CpuMask::first(3).iter().count(), 3);
    }
}
