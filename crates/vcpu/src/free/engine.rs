//! The Unicorn instance that runs many instructions at once.
//!
//! It fetches from pages that show traps wherever nothing is known ([`super::code`]) and loads from
//! and stores to private windows ([`super::data`]); every other access stops it before it is made.
//! No hook sees single instructions or accesses, so that code runs as fast as the engine can. It
//! always stops between two instructions, with registers as they are there, and what comes next is
//! carried out by a single step of the other instance.
//!
//! Instructions are counted by blocks, and only where there is a limit ([`FreeEngine::count`]): a
//! block that does not fit is not begun, and of one that is left in its middle the rest is taken
//! off again.
//!
//! Not modelled: that an instruction of several stores may have made some of them when another one
//! stops it; the single step makes them all.

use textbed_arch::Arch;
use unicorn_engine::{
    Context, MemType, Prot, TlbEntry, TranslationBlock, UcHookId, Unicorn, uc_error,
};

use super::code::{CODE_BASE, CODE_PAGES, Code, Update};
use super::data::{DATA_BASE, DATA_PAGES, Data, Show, window_at};
use crate::engine::{EngineError, PAGE, Shared, did, guarded, open, stop};

/// The engine's number of a breakpoint or trap.
const X86_BREAKPOINT: u32 = 3;

/// Blocks whose instructions are not counted again.
const BLOCKS: usize = 64;

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stopped {
    /// At something that is not known, or not to be had here.
    Met,
    /// At an access to this page.
    Access {
        /// An address in the page.
        virt: u64,
        /// A store.
        write: bool,
    },
    /// The limit was reached.
    Limit,
}

/// A block of code that the engine translated.
#[derive(Clone, Copy, Default)]
struct Block {
    at: u64,
    bytes: u64,
    instructions: u64,
}

/// What the hooks see and write.
pub(super) struct Hooked {
    pub(super) code: Code,
    pub(super) data: Data,
    exception: Option<u32>,
    refused: Option<(u64, bool)>,
    /// A block begins where no known instruction does.
    astray: Option<u64>,
    /// Instructions that may still be begun; `None`: any number.
    left: Option<u64>,
    /// The block begun last.
    block: Block,
    /// Blocks that were begun since code changed, by their addresses.
    blocks: [Block; BLOCKS],
    over: bool,
    panicked: bool,
}

/// The instance.
pub(super) struct FreeEngine {
    uc: Unicorn<'static, Hooked>,
    arch: Arch,
    pc_register: i32,
    registers: Context,
    /// The registers that it began with: on powerpc they have addresses of its own, which it must
    /// have again when it ends.
    first: Context,
    counting: Option<UcHookId>,
}

impl Drop for FreeEngine {
    fn drop(&mut self) {
        // It cannot fail: the context is this instance's own.
        let _ = self.uc.context_restore(&self.first);
    }
}

impl FreeEngine {
    pub(super) fn new(arch: Arch) -> Result<Self, EngineError> {
        let hooked = Hooked {
            code: Code::new(arch),
            data: Data::default(),
            exception: None,
            refused: None,
            astray: None,
            left: None,
            block: Block::default(),
            blocks: [Block::default(); BLOCKS],
            over: false,
            panicked: false,
        };
        let (mut uc, pc_register) = open(arch, hooked)?;
        did("map code", uc.mem_map(CODE_BASE, CODE_PAGES as u64 * PAGE, Prot::ALL))?;
        let data = Prot::READ | Prot::WRITE;
        did("map windows", uc.mem_map(DATA_BASE, DATA_PAGES as u64 * PAGE, data))?;
        let blank = uc.get_data().code.blank().to_vec();
        for page in 0..CODE_PAGES as u64 {
            did("write traps", uc.mem_write(CODE_BASE + page * PAGE, &blank))?;
        }
        add_hooks(arch, &mut uc)?;
        let registers = did("allocate context", uc.context_alloc())?;
        let first = did("save context", uc.context_init())?;
        Ok(Self { uc, arch, pc_register, registers, first, counting: None })
    }

    /// What is known and granted.
    pub(super) fn hooked(&mut self) -> &mut Hooked {
        self.uc.get_data_mut()
    }

    pub(super) fn shown(&self) -> &Hooked {
        self.uc.get_data()
    }

    /// Limits the number of instructions of runs from now on.
    pub(super) fn count(&mut self, limit: Option<u64>) -> Result<(), EngineError> {
        self.uc.get_data_mut().left = limit;
        match (limit.is_some(), self.counting) {
            (true, None) => {
                let hook = self.uc.add_block_hook(1, 0, |uc, at, size| {
                    uc.get_data_mut().begins(at, u64::from(size));
                    if uc.get_data().over {
                        stop(uc);
                    }
                });
                self.counting = Some(did("add block hook", hook)?);
            }
            (false, Some(hook)) => {
                did("remove block hook", self.uc.remove_hook(hook))?;
                self.counting = None;
            }
            _ => return Ok(()),
        }
        // Blocks have their hook built in.
        did("flush translations", self.uc.ctl_flush_tb())
    }

    /// What is left of the limit.
    pub(super) fn left(&self) -> Option<u64> {
        self.uc.get_data().left
    }

    /// Runs from `pc` with these registers. How it stopped, and where.
    pub(super) fn run(
        &mut self,
        registers: &Context,
        pc: u64,
    ) -> Result<(Stopped, u64), EngineError> {
        let updates = self.uc.get_data_mut().code.updates();
        if !updates.is_empty() {
            self.uc.get_data_mut().blocks = [Block::default(); BLOCKS];
        }
        for Update { virt, paddr, bytes } in updates {
            did("write code", self.uc.mem_write(paddr, &bytes[..]))?;
            did("drop translation", self.uc.ctl_remove_cache(virt, virt.wrapping_add(PAGE)))?;
        }
        let hooked = self.uc.get_data_mut();
        (hooked.exception, hooked.refused, hooked.astray) = (None, None, None);
        (hooked.over, hooked.block) = (false, Block::default());
        did("restore context", self.uc.context_restore(registers))?;
        let result = self.uc.emu_start(pc, 0, 0, 0);
        let stopped_at = did("read register", self.uc.reg_read(self.pc_register))?;
        let hooked = self.uc.get_data_mut();
        if hooked.panicked {
            return Err(EngineError::HookPanicked);
        }
        if let Some(at) = hooked.astray {
            hooked.code.distrust(at);
        }
        let exception = hooked.exception;
        let (stopped, at) = match (hooked.over, hooked.refused, result) {
            (true, _, _) => (Stopped::Limit, stopped_at),
            (_, Some((virt, write)), _) => (Stopped::Access { virt, write }, stopped_at),
            (_, None, Ok(()) | Err(uc_error::INSN_INVALID)) => (Stopped::Met, stopped_at),
            (_, None, Err(_)) if exception.is_some() => (Stopped::Met, stopped_at),
            (_, None, Err(error)) => {
                return Err(EngineError::Call { what: "run freely", error });
            }
        };
        let at = exception.map_or(at, |number| self.raised_at(number, at));
        self.uc.get_data_mut().stopped_at(at);
        Ok((stopped, at))
    }

    /// The instruction that raised an exception, by where the program counter is then.
    fn raised_at(&self, number: u32, pc: u64) -> u64 {
        match self.arch {
            Arch::X86_64 if number == X86_BREAKPOINT => pc.wrapping_sub(1),
            Arch::X86_64 | Arch::Arm64 => pc,
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => pc.wrapping_sub(4),
        }
    }

    /// The registers where it stopped.
    pub(super) fn registers(&mut self) -> Result<&Context, EngineError> {
        did("save context", self.uc.context_save(&mut self.registers))?;
        Ok(&self.registers)
    }

    /// Gives a window its contents.
    pub(super) fn show(&mut self, show: &Show) -> Result<(), EngineError> {
        did("write data", self.uc.mem_write(window_at(show.window), &show.bytes[..]))
    }

    /// The contents of a window.
    pub(super) fn window(&self, window: usize) -> Result<[u8; PAGE as usize], EngineError> {
        let mut bytes = [0; PAGE as usize];
        did("read data", self.uc.mem_read(window_at(window), &mut bytes))?;
        Ok(bytes)
    }

    /// Forgets which addresses lead where.
    pub(super) fn flush(&mut self) -> Result<(), EngineError> {
        did("flush TLB", self.uc.ctl_flush_tlb())
    }
}

impl Hooked {
    /// A block begins: whether it still fits. Nothing in it can panic.
    fn begins(&mut self, at: u64, bytes: u64) {
        let Some(left) = self.left else { return };
        if (self.block.at, self.block.bytes) != (at, bytes) {
            let slot = self.blocks.get_mut((at >> 2 ^ at >> 8) as usize % BLOCKS);
            self.block = match slot {
                Some(slot) if (slot.at, slot.bytes) == (at, bytes) => *slot,
                slot => {
                    // What stops it is no instruction.
                    let block = Block { at, bytes, instructions: self.code.count(at, bytes) };
                    slot.map_or(block, |slot| {
                        *slot = block;
                        block
                    })
                }
            };
        }
        match left.checked_sub(self.block.instructions) {
            Some(less) => self.left = Some(less),
            None => (self.over, self.block) = (true, Block::default()),
        }
    }

    /// Takes off what the last block has from here on.
    fn stopped_at(&mut self, pc: u64) {
        let Block { at, bytes, instructions } = self.block;
        let into = pc.wrapping_sub(at);
        if let Some(left) = self.left.as_mut().filter(|_| into < bytes) {
            *left += instructions - self.code.count(at, into).min(instructions);
        }
    }
}

impl Shared for Hooked {
    fn panicked(&mut self) {
        self.panicked = true;
    }
}

fn add_hooks(arch: Arch, uc: &mut Unicorn<'static, Hooked>) -> Result<(), EngineError> {
    let fill = |uc: &mut Unicorn<'_, Hooked>, page: u64, kind: MemType| {
        guarded(uc, |uc| {
            let hooked = uc.get_data_mut();
            if kind == MemType::FETCH {
                return Some(TlbEntry { paddr: hooked.code.address(page), perms: Prot::EXEC });
            }
            let write = kind == MemType::WRITE;
            match hooked.data.access(page, write) {
                Some((paddr, write)) => {
                    let perms = if write { Prot::READ | Prot::WRITE } else { Prot::READ };
                    Some(TlbEntry { paddr, perms })
                }
                None => {
                    hooked.refused = Some((page, write));
                    None
                }
            }
        })
        .flatten()
    };
    did("add TLB hook", uc.add_tlb_hook(0, u64::MAX, fill))?;
    let exception = |uc: &mut Unicorn<'_, Hooked>, number: u32| {
        let _ = guarded(uc, |uc| {
            uc.get_data_mut().exception = Some(number);
            stop(uc);
        });
    };
    did("add exception hook", uc.add_intr_hook(exception))?;
    did("add invalid-instruction hook", uc.add_insn_invalid_hook(|_| false))?;
    if arch == Arch::X86_64 {
        // Elsewhere instructions begin at words.
        let block = |uc: &mut Unicorn<'_, Hooked>, block: &mut TranslationBlock, _: &mut _| {
            let _ = guarded(uc, |uc| {
                let hooked = uc.get_data_mut();
                if hooked.code.shows(block.pc) && !hooked.code.starts(block.pc) {
                    hooked.astray = Some(block.pc);
                    stop(uc);
                }
            });
        };
        did("add hook of new blocks", uc.add_edge_gen_hook(1, 0, block))?;
    }
    Ok(())
}
