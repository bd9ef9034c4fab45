//! Something for each CPU that did anything, found by its number without hashing.

use textbed_arch::CpuId;

/// A value by CPU; the room grows with the highest number that was used.
#[derive(Clone, Debug)]
pub(crate) struct PerCpu<T>(Vec<Option<T>>);

impl<T> Default for PerCpu<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PerCpu<T> {
    #[inline]
    pub(crate) fn get(&self, cpu: CpuId) -> Option<&T> {
        self.0.get(usize::from(cpu.0))?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, cpu: CpuId) -> Option<&mut T> {
        self.0.get_mut(usize::from(cpu.0))?.as_mut()
    }

    #[inline]
    fn slot(&mut self, cpu: CpuId) -> &mut Option<T> {
        let at = usize::from(cpu.0);
        if at >= self.0.len() {
            self.grow(at);
        }
        &mut self.0[at]
    }

    #[cold]
    fn grow(&mut self, at: usize) {
        self.0.resize_with(at + 1, || None);
    }

    #[inline]
    pub(crate) fn set(&mut self, cpu: CpuId, value: T) {
        *self.slot(cpu) = Some(value);
    }

    /// The value of `cpu`, made if there is none.
    pub(crate) fn of(&mut self, cpu: CpuId) -> &mut T
    where
        T: Default,
    {
        self.slot(cpu).get_or_insert_default()
    }

    /// All CPUs with a value, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CpuId, &T)> {
        self.0.iter().enumerate().filter_map(|(n, v)| Some((CpuId(n as u16), v.as_ref()?)))
    }
}
