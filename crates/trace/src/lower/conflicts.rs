//! Where the log contradicts the model: looked for while it is replayed.
//!
//! Each check names what it needs: an area made in this log (its kind is known), a return probe,
//! probes of cross-calls. Where that is not there, it says nothing.
//!
//! Steps of a patch on x86 (Linux 6.12 arch/x86/kernel/alternative.c text_poke_bp_batch(): a trap
//! in the place of the first byte, all CPUs synchronise, the other bytes, synchronise, the first
//! byte, synchronise): two stores to one instruction without a synchronisation between them are
//! outside of that protocol, if synchronisations are seen before and after (probes are armed and
//! disarmed one after the other). Code that never ran is copied without (text_poke_copy()), in one
//! store for each page. Not modelled: the last synchronisation, protocols of other architectures.

use super::Lower;
use crate::bounds::Bound;
use crate::calls::{Frame, Stack};
use crate::conflicts::{Conflict, Kind, Place};
use crate::functions::{Meaning, Owner};
use crate::mappings::Mappings;
use crate::perms::{Action, action_from_number};
use crate::replay::ReplayError;
use crate::tables;
use rustc_hash::FxHashMap;
use std::path::Path;
use textbed_arch::{Arch, Perm, VirtAddr};
use textbed_kernel::{Layout, errno};

/// Bytes of the longest x86 instruction.
const INSN_BYTES: u64 = 15;
/// x86: modules lie above, whatever the size of the kernel image (Linux 6.12
/// arch/x86/include/asm/pgtable_64_types.h MODULES_VADDR, for the smaller image).
const X86_MODULES: u64 = 0xffff_ffff_a000_0000;
/// Memory runs out in every model.
const ENOMEM: i64 = -errno::ENOMEM;

/// Stores of patchers since their last synchronisation.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    /// A synchronisation was seen: its probe is armed by now.
    armed: bool,
    /// What contradicts, if a synchronisation is seen after it too: its probe was armed then.
    held: Vec<Conflict>,
    since_sync: FxHashMap<Stack, Vec<(u64, u64, Place)>>,
}

/// The place of an area, or none if it was there before the log.
fn made(line: Place) -> Option<Place> {
    (line.1 > 0).then_some(line)
}

impl Lower<'_> {
    /// An area was made where another one lives.
    pub(super) fn overlap(&mut self, new: (u64, u64), old: (u64, crate::areas::Area)) {
        let (virt, area) = old;
        // What was there before may have gone before the probe of removals was armed.
        if made(area.line).is_none() {
            return;
        }
        let conflict = Conflict {
            kind: Kind::Overlap,
            line: Some(self.line),
            other: made(area.line),
            recorded: format!("{:#x} bytes at {:#x} are made an area", new.1, new.0),
            modelled: format!("the area of {:#x} bytes at {virt:#x} was not removed", area.len),
        };
        self.conflicts.add(conflict);
    }

    /// A call returned: would it in the model?
    pub(super) fn contradicts(&mut self, frame: &Frame, value: i64) {
        let call = match frame.function.meaning {
            Meaning::SetMemory(_) => frame.function.name,
            Meaning::AttrCall => {
                match frame.arg("action").and_then(action_from_number).and_then(set_memory) {
                    Some(name) => name,
                    None => return,
                }
            }
            _ => return,
        };
        let (Some(addr), Some(pages)) = (frame.arg("addr"), frame.arg("numpages")) else { return };
        let Some((start, area)) = self.areas.holding(addr, 0) else { return };
        if value == ENOMEM || i32::try_from(pages).is_err() {
            return;
        }
        let of = (self.kernel.arch, self.kernel.version);
        let shift = self.mappings.page_shift();
        let Some(answer) = self.model.answer(of, call, (start, area), (addr, pages, shift)) else {
            return;
        };
        let kind = match (value < 0, answer < 0) {
            (true, false) => Kind::Failed,
            (false, true) => Kind::Succeeded,
            _ => return,
        };
        let said = |value: i64| match value {
            0 => "0".to_string(),
            v => errno::name(v).map_or_else(|| v.to_string(), |name| format!("{v} ({name})")),
        };
        let standing_in = crate::model::stand_in(self.kernel.version)
            .map_or_else(String::new, |v| format!(" {v}"));
        let conflict = Conflict {
            kind,
            line: Some(self.line),
            other: made(area.line),
            recorded: format!(
                "{call}({addr:#x}, {pages} pages) returned {}, in the area of {:#x} bytes at \
                 {start:#x}",
                said(value),
                area.len
            ),
            modelled: format!("Linux{standing_in} returns {} there", said(answer)),
        };
        self.conflicts.add(conflict);
    }

    /// Where things lie in the kernel that the log is of.
    fn layout(&self) -> Option<Layout> {
        Layout::of(self.kernel.version, self.kernel.paging(), 1 << 30)
    }

    /// Memory for code came from somewhere.
    pub(super) fn outside_region(&mut self, owner: Owner, address: u64) {
        let arch = self.kernel.arch;
        if owner != Owner::Module {
            return;
        }
        let Some(layout) = self.layout() else { return };
        let virt = VirtAddr(address);
        let inside = match arch {
            Arch::X86_64 => (X86_MODULES..layout.modules.end()).contains(&address),
            _ => layout.is_vmalloc_or_module(virt),
        };
        if !inside {
            let region = match arch {
                Arch::X86_64 => (X86_MODULES, layout.modules.end()),
                _ => (layout.modules.start.0, layout.vmalloc.end()),
            };
            self.conflicts.add(Conflict {
                kind: Kind::OutsideRegion,
                line: Some(self.line),
                other: None,
                recorded: format!("memory for a module at {address:#x}"),
                modelled: format!("modules lie from {:#x} to {:#x}", region.0, region.1),
            });
        }
    }

    /// A CPU of a patcher synchronised, or asked all to.
    pub(super) fn synced(&mut self) {
        self.protocol.armed = true;
        for conflict in std::mem::take(&mut self.protocol.held) {
            self.conflicts.add(conflict);
        }
        self.protocol.since_sync.remove(&self.now.stack);
    }

    /// A patcher stores.
    pub(super) fn step(&mut self, addr: u64, len: u64) {
        if self.kernel.arch != Arch::X86_64 || !self.protocol.armed || len > INSN_BYTES {
            return;
        }
        if self.protocol.since_sync.len() >= Bound::StoreTasks.most() {
            let stores = self.protocol.since_sync.values().map(Vec::len).sum();
            self.dropped.add(Bound::StoreTasks, stores);
            self.protocol.since_sync.clear();
        }
        let line = self.line;
        let before = self.protocol.since_sync.entry(self.now.stack).or_default();
        // A trap, alone at an instruction's first byte, then the rest, then the first byte.
        let found = before.iter().rev().find(|(at, size, _)| match (*size, len) {
            (1, 1) => *at == addr,
            (1, _) => at.checked_add(1) == Some(addr),
            (_, 1) => addr.checked_add(1) == Some(*at),
            _ => false,
        });
        let found = found.copied();
        if before.len() >= Bound::Stores.most() {
            self.dropped.add(Bound::Stores, before.len());
            before.clear();
        }
        before.push((addr, len, line));
        if let Some((at, size, other)) = found {
            if self.protocol.held.len() >= Bound::Held.most() {
                self.dropped.add(Bound::Held, 1);
                return;
            }
            self.protocol.held.push(Conflict {
                kind: Kind::Protocol,
                line: Some(line),
                other: Some(other),
                recorded: format!("{len} bytes are stored at {addr:#x}"),
                modelled: format!(
                    "after the store of {size} bytes at {at:#x}, all CPUs synchronise before the \
                     next one to that instruction"
                ),
            });
        }
    }

    /// Whether the log was replayed whole, as one piece.
    pub(crate) fn whole(&self) -> bool {
        self.stopped_at.is_none() && self.sections.list().len() == 1
    }

    /// Compares what is mapped now, in the regions for areas, with page tables taken now.
    pub(crate) fn compare_tables(&mut self, after: &Path) -> Result<(), ReplayError> {
        let arch = self.kernel.arch;
        let mut theirs = Mappings::new(self.mappings.bits());
        tables::read(after, arch, &mut theirs)?;
        let Some(layout) = self.layout() else { return Ok(()) };
        let mut ranges = vec![(layout.vmalloc.start.0, layout.vmalloc.end())];
        if layout.modules != layout.vmalloc {
            ranges.push((layout.modules.start.0, layout.modules.end()));
        }
        let page = 1u64 << self.mappings.page_shift();
        for (from, to) in ranges {
            for (virt, len, ours, theirs) in self.mappings.differ(&theirs, from, to) {
                let letters = |perm: Perm| match perm.contains(Perm::PRESENT) {
                    true => perm.letters(),
                    false => "nothing",
                };
                let area = self.areas.holding(virt, 0);
                let conflict = Conflict {
                    kind: Kind::Tables,
                    line: None,
                    other: area.and_then(|(_, a)| made(a.line)),
                    recorded: format!("{} at {virt:#x}, {} pages", letters(ours), len / page),
                    modelled: format!("the tables have {} there", letters(theirs)),
                };
                self.conflicts.add_many(conflict, len / page);
            }
        }
        Ok(())
    }
}

/// The call of the model for an action.
fn set_memory(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Ro => "set_memory_ro",
        Action::Rw => "set_memory_rw",
        Action::Nx => "set_memory_nx",
        Action::X => "set_memory_x",
        Action::Rox => "set_memory_rox",
        Action::Np => "set_memory_np",
        Action::P => "set_memory_p",
        Action::DirectInvalid | Action::DirectDefault => return None,
    })
}
