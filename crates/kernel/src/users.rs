//! What those who patch text or make it remember between calls.

use std::collections::BTreeMap;

use textbed_arch::VirtAddr;

use crate::dispatcher::Dispatcher;
use crate::ftrace::Ftrace;
use crate::kernel::Kernel;
use crate::kgdb::SwBreak;
use crate::layout::Range;
use crate::modules::Modules;
use crate::probes::Probes;
use crate::static_calls::StaticCalls;
use crate::trampolines::Trampolines;
use crate::vmalloc_exec::TextAreas;

/// Their records.
#[derive(Clone, Default, Debug)]
pub(crate) struct Users {
    pub(crate) modules: Modules,
    pub(crate) probes: Probes,
    pub(crate) ftrace: Ftrace,
    pub(crate) static_calls: StaticCalls,
    pub(crate) trampolines: Trampolines,
    pub(crate) dispatchers: BTreeMap<u64, Dispatcher>,
    pub(crate) text_areas: TextAreas,
    /// x86: ranges whose pages are to stay small (`set_memory_4k`, 6.15 on).
    pub(crate) kept_small: Vec<Range>,
    /// kgdb's breakpoints, by address.
    pub(crate) sw_breaks: BTreeMap<u64, SwBreak>,
}

impl Kernel {
    /// Whether an address is text that probes and tracers take (`kernel_text_address`, without BPF
    /// programs and trampolines).
    pub(crate) fn is_probed_text(&self, virt: VirtAddr) -> bool {
        self.is_core_text(virt) || self.users.modules.is_text(virt)
    }

    /// Text that goes away with its module: nobody touches its sites any more.
    pub(crate) fn forget_text(&mut self, spans: &[(u64, u64)]) {
        let gone = |virt: VirtAddr| spans.iter().any(|(s, len)| virt.0.wrapping_sub(*s) < *len);
        self.jump_entries.retain(|entry| !gone(entry.site()));
        self.ool_stubs.retain(|site, _| !gone(*site));
        self.users.probes.forget(gone);
        self.users.ftrace.forget(gone);
        self.users.static_calls.forget(gone);
        self.users.sw_breaks.retain(|addr, _| !gone(VirtAddr(*addr)));
    }
}
