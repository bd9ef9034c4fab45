//! One Unicorn instance as an engine that executes single instructions and owns no truth.
//!
//! What it is given: the bytes of one instruction, the bytes that its loads return, registers. What
//! it gives: the accesses that the instruction made, the bytes that it would store, registers. It
//! sees neither the machine's memory nor its translations: code lies in a private *exec view*
//! ([`crate::exec_view`]), data in private *windows* ([`crate::windows`]), both behind Unicorn's
//! virtual TLB, so that nothing is coherent, cached or granted but by the machine.
//!
//! Not modelled: more than one instruction at a time; instructions that go round the memory hooks
//! (`dc zva`, `dcbz`), which the caller handles; interrupts.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use textbed_arch::Arch;
use unicorn_engine::{
    Arch as UcArch, Context, ControlType, HookType, MemType, Mode, Prot, RegisterARM64,
    RegisterPPC, RegisterX86, TlbEntry, TlbType, Unicorn, uc_ctl, uc_error,
};

use crate::{
    exec_view::{EXEC_BASE, ExecView, SLOTS},
    windows::{Access, DATA_BASE, WINDOWS, Windows},
};

/// Bytes of a page of the engine, on every architecture.
pub(crate) const PAGE: u64 = 4096;

/// Size of the code buffer of an instance. The default is 1 GiB of address space.
const CODE_BUFFER_BYTES: u32 = 16 << 20;

/// After so many dropped translations the code buffer is emptied: it fills otherwise.
const DROPS_UNTIL_FLUSH: u32 = 1000;

/// The engine failed, or its hooks did; never the guest's doing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No engine for this architecture.
    #[error("no engine for {0}: not modelled")]
    NotModelled(Arch),
    /// A call into the engine failed.
    #[error("{what}: {error:?}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// The engine's answer.
        error: uc_error,
    },
    /// One instruction touched more pages than the engine has windows.
    #[error("one instruction touched more than {0} pages")]
    TooManyPages(usize),
    /// A hook panicked; the engine cannot be used any more.
    #[error("a hook panicked")]
    HookPanicked,
}

/// Gives a call into the engine a name for its error.
pub(crate) fn did<T>(what: &'static str, result: Result<T, uc_error>) -> Result<T, EngineError> {
    result.map_err(|error| EngineError::Call { what, error })
}

/// How a run of one instruction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// It was executed; the program counter has moved.
    Done,
    /// It raised an exception with the engine's number; registers may have moved on.
    Exception(u32),
    /// The engine does not know it.
    Invalid,
}

/// What the hooks see and write.
#[derive(Default)]
pub(crate) struct Hooked {
    exec: ExecView,
    windows: Windows,
    exception: Option<u32>,
    invalid: bool,
    panicked: bool,
}

/// One instance.
pub(crate) struct Engine {
    uc: Unicorn<'static, Hooked>,
    saved: Context,
    /// What [`Engine::restore`] goes back to.
    mark: Mark,
    drops: u32,
    /// Instructions that are in the exec view, each where its address says, and how often anything
    /// in there changed.
    placed: Box<[PlacedAt; PLACED]>,
    changes: u64,
    pc_register: i32,
    /// The program counter, where it is known. Unicorn is told when it needs it: a call for each
    /// look at it would cost as much as the rest of a step.
    pc: Cell<Option<u64>>,
    /// Unicorn's own is older.
    pc_is_new: bool,
}

/// Instructions of which it is known that they were placed.
const PLACED: usize = 64;

/// An instruction that was placed: its bytes as one value with their number, and what
/// [`Engine::changes`] was then.
#[derive(Clone, Copy, Default)]
struct PlacedAt {
    pc: u64,
    what: (u128, usize),
    changes: u64,
}

/// What registers were noted.
#[derive(Clone, Copy)]
enum Mark {
    /// All, in the saved context.
    All,
    /// The program counter: nothing else can have changed.
    Pc(u64),
}

impl Engine {
    /// A CPU in its kernel's mode with everything else zero.
    pub(crate) fn new(arch: Arch) -> Result<Self, EngineError> {
        let (mut uc, pc_register) = open(arch, Hooked::default())?;
        did("map exec view", uc.mem_map(EXEC_BASE, SLOTS as u64 * PAGE, Prot::ALL))?;
        let data = Prot::READ | Prot::WRITE;
        did("map windows", uc.mem_map(DATA_BASE, WINDOWS as u64 * PAGE, data))?;
        add_hooks(&mut uc)?;
        initial_registers(arch, &mut uc)?;
        let saved = did("allocate context", uc.context_alloc())?;
        let (mark, pc) = (Mark::All, Cell::new(None));
        let placed = Box::new([PlacedAt::default(); PLACED]);
        let (drops, changes) = (0, 1);
        Ok(Self { uc, saved, mark, drops, placed, changes, pc_register, pc, pc_is_new: false })
    }

    /// A register by the engine's number.
    pub(crate) fn register(&self, number: i32) -> Result<u64, EngineError> {
        did("read register", self.uc.reg_read(number))
    }

    /// Sets a register by the engine's number.
    pub(crate) fn set_register(&mut self, number: i32, value: u64) -> Result<(), EngineError> {
        did("write register", self.uc.reg_write(number, value))
    }

    /// The program counter.
    pub(crate) fn pc(&self) -> Result<u64, EngineError> {
        if let Some(pc) = self.pc.get() {
            return Ok(pc);
        }
        let pc = self.register(self.pc_register)?;
        self.pc.set(Some(pc));
        Ok(pc)
    }

    /// Sets the program counter.
    pub(crate) fn set_pc(&mut self, pc: u64) {
        self.pc.set(Some(pc));
        self.pc_is_new = true;
    }

    /// Unicorn's program counter is the one that counts, whatever it is now.
    fn forget_pc(&mut self) {
        self.pc.set(None);
        self.pc_is_new = false;
    }

    /// Notes all registers, for [`Engine::restore`].
    pub(crate) fn save(&mut self) -> Result<(), EngineError> {
        if let Some(pc) = self.pc.get().filter(|_| self.pc_is_new) {
            self.set_register(self.pc_register, pc)?;
            self.pc_is_new = false;
        }
        self.mark = Mark::All;
        did("save context", self.uc.context_save(&mut self.saved))
    }

    /// All registers, for [`Engine::take_over`].
    pub(crate) fn registers(&mut self) -> Result<Context, EngineError> {
        if let Some(pc) = self.pc.get().filter(|_| self.pc_is_new) {
            self.set_register(self.pc_register, pc)?;
            self.pc_is_new = false;
        }
        did("save context", self.uc.context_init())
    }

    /// Notes the program counter alone, before an instruction that changes nothing else if it does
    /// not come to its end.
    pub(crate) fn save_pc(&mut self, pc: u64) {
        self.mark = Mark::Pc(pc);
    }

    /// Goes back to the registers noted last.
    pub(crate) fn restore(&mut self) -> Result<(), EngineError> {
        match self.mark {
            Mark::All => {
                self.forget_pc();
                did("restore context", self.uc.context_restore(&self.saved))
            }
            Mark::Pc(pc) => {
                self.set_pc(pc);
                Ok(())
            }
        }
    }

    /// The registers noted last by [`Engine::save`].
    pub(crate) fn saved(&self) -> &Context {
        &self.saved
    }

    /// Takes over the registers of another instance of the architecture.
    pub(crate) fn take_over(&mut self, registers: &Context) -> Result<(), EngineError> {
        self.forget_pc();
        did("restore context", self.uc.context_restore(registers))
    }

    /// As [`Engine::place`]; `what` is the same for equal bytes alone.
    pub(crate) fn place_known(
        &mut self,
        pc: u64,
        bytes: &[u8],
        what: (u128, usize),
    ) -> Result<(), EngineError> {
        let slot = (pc >> 1 ^ pc >> 7) as usize % PLACED;
        let there = |p: &PlacedAt| p.pc == pc && p.changes == self.changes && p.what == what;
        if self.placed.get(slot).is_some_and(there) {
            return Ok(());
        }
        self.place(pc, bytes)?;
        if let Some(placed) = self.placed.get_mut(slot) {
            *placed = PlacedAt { pc, what, changes: self.changes };
        }
        Ok(())
    }

    /// Makes `bytes` what a fetch at `pc` gets, and forgets translations of other bytes there.
    pub(crate) fn place(&mut self, pc: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let mut at = pc;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = (PAGE - at % PAGE) as usize;
            let (piece, behind) = rest.split_at(rest.len().min(room));
            self.place_in_page(at, piece)?;
            at = at.wrapping_add(piece.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    fn place_in_page(&mut self, at: u64, piece: &[u8]) -> Result<(), EngineError> {
        let placed = self.uc.get_data_mut().exec.place(at, piece);
        if placed.new_slot || placed.write_to.is_some() {
            self.changes += 1;
        }
        if placed.new_slot {
            // The page was served from elsewhere before.
            did("flush TLB", self.uc.ctl_flush_tlb())?;
        }
        let Some(address) = placed.write_to else { return Ok(()) };
        did("write code", self.uc.mem_write(address, piece))?;
        let end = at.wrapping_add(piece.len() as u64);
        did("drop translation", self.uc.ctl_remove_cache(at, end))?;
        self.drops += 1;
        if self.drops >= DROPS_UNTIL_FLUSH {
            self.drops = 0;
            did("flush translations", self.uc.ctl_flush_tb())?;
        }
        Ok(())
    }

    /// Makes room for the pages of a new instruction.
    pub(crate) fn begin(&mut self) -> Result<(), EngineError> {
        if self.uc.get_data_mut().windows.make_room() {
            did("flush TLB", self.uc.ctl_flush_tlb())?;
        }
        Ok(())
    }

    /// Makes `bytes` what the next run loads from `virt` on.
    pub(crate) fn supply(&mut self, virt: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let mut at = virt;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = (PAGE - at % PAGE) as usize;
            let (piece, behind) = rest.split_at(rest.len().min(room));
            let address = self.window_of(at)?;
            did("write data", self.uc.mem_write(address, piece))?;
            at = at.wrapping_add(piece.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    /// What the windows hold from `virt` on: after a run, what it stored there.
    pub(crate) fn shown(&mut self, virt: u64, bytes: &mut [u8]) -> Result<(), EngineError> {
        let mut at = virt;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = (PAGE - at % PAGE) as usize;
            let (piece, behind) = rest.split_at_mut(rest.len().min(room));
            let address = self.window_of(at)?;
            did("read data", self.uc.mem_read(address, piece))?;
            at = at.wrapping_add(piece.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    fn window_of(&mut self, virt: u64) -> Result<u64, EngineError> {
        let found = self.uc.get_data_mut().windows.address(virt);
        found.ok_or(EngineError::TooManyPages(WINDOWS))
    }

    /// Executes the instruction placed at `pc`.
    pub(crate) fn run(&mut self, pc: u64) -> Result<Ended, EngineError> {
        let hooked = self.uc.get_data_mut();
        hooked.windows.begin_run();
        hooked.exception = None;
        hooked.invalid = false;
        self.forget_pc();
        // until = 0: an `until` costs a retranslation at its end and a fetch of its page.
        let result = self.uc.emu_start(pc, 0, 0, 1);
        let hooked = self.uc.get_data();
        if hooked.panicked {
            return Err(EngineError::HookPanicked);
        }
        if hooked.windows.overflowed() {
            return Err(EngineError::TooManyPages(WINDOWS));
        }
        match (result, hooked.exception) {
            (_, Some(number)) => Ok(Ended::Exception(number)),
            (Err(uc_error::INSN_INVALID), None) => Ok(Ended::Invalid),
            (_, None) if hooked.invalid => Ok(Ended::Invalid),
            (Ok(()), None) => Ok(Ended::Done),
            (Err(error), None) => Err(EngineError::Call { what: "execute", error }),
        }
    }

    /// Notes accesses that the machine made in place of a run.
    pub(crate) fn note_accesses(&mut self, accesses: impl Iterator<Item = Access>) {
        self.uc.get_data_mut().windows.note_all(accesses);
    }

    /// The accesses of the last run, in order.
    pub(crate) fn accesses(&self) -> &[Access] {
        self.uc.get_data().windows.accesses()
    }
}

/// A bare instance of an architecture with the virtual TLB, and its register of the program
/// counter.
pub(crate) fn open<D>(arch: Arch, data: D) -> Result<(Unicorn<'static, D>, i32), EngineError> {
    let (uc_arch, mode, pc_register) = match arch {
        Arch::X86_64 => (UcArch::X86, Mode::MODE_64, RegisterX86::RIP as i32),
        Arch::Arm64 => (UcArch::ARM64, Mode::LITTLE_ENDIAN, RegisterARM64::PC as i32),
        // Little-endian instances are refused; MSR.LE makes one of a big-endian instance.
        Arch::Ppc64le | Arch::Ppc64 => {
            (UcArch::PPC, Mode::PPC64 | Mode::BIG_ENDIAN, RegisterPPC::PC as i32)
        }
        Arch::Ppc32 => return Err(EngineError::NotModelled(arch)),
    };
    let mut uc = did("open", Unicorn::new_with_data(uc_arch, mode, data))?;
    shrink_code_buffer(&uc)?;
    if arch == Arch::Arm64 {
        // The model with every feature; without a page size of its own the unit is 1 KiB.
        did("set CPU model", uc.ctl_set_cpu_model(ARM64_MAX))?;
        did("set page size", uc.ctl_set_page_size(PAGE as u32))?;
    }
    did("set TLB type", uc.ctl_set_tlb_type(TlbType::VIRTUAL))?;
    Ok((uc, pc_register))
}

/// Number of the arm64 CPU model with every feature.
const ARM64_MAX: i32 = 3;

/// Sets the size of the code buffer. It must be the first use of an instance.
#[allow(unsafe_code)]
fn shrink_code_buffer<D>(uc: &Unicorn<'static, D>) -> Result<(), EngineError> {
    let control = ControlType(ControlType::TCG_BUFFER_SIZE.0 | ControlType::IO_WRITE.0);
    // SAFETY: the handle is that of a live instance, and this control takes one 32-bit argument.
    let error = unsafe { uc_ctl(uc.get_handle(), control, CODE_BUFFER_BYTES) };
    did("set code buffer", if error == uc_error::OK { Ok(()) } else { Err(error) })
}

/// What the hooks of an instance share.
pub(crate) trait Shared {
    /// One of them panicked.
    fn panicked(&mut self);
}

impl Shared for Hooked {
    fn panicked(&mut self) {
        self.panicked = true;
    }
}

/// Stops an instance behind the instruction that it is at.
pub(crate) fn stop<D>(uc: &mut Unicorn<'_, D>) {
    // It only fails on an instance that was never used.
    let _ = uc.emu_stop();
}

/// Runs the body of a hook; a panic must not unwind into C. `None` if there was one.
pub(crate) fn guarded<D: Shared, T>(
    uc: &mut Unicorn<'_, D>,
    body: impl FnOnce(&mut Unicorn<'_, D>) -> T,
) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(|| body(uc)));
    if result.is_err() {
        uc.get_data_mut().panicked();
        stop(uc);
    }
    result.ok()
}

fn add_hooks(uc: &mut Unicorn<'static, Hooked>) -> Result<(), EngineError> {
    let fill = |uc: &mut Unicorn<'_, Hooked>, page: u64, kind: MemType| {
        guarded(uc, |uc| {
            let hooked = uc.get_data_mut();
            match kind {
                MemType::FETCH => {
                    Some(TlbEntry { paddr: hooked.exec.address(page), perms: Prot::EXEC })
                }
                _ => {
                    let perms = Prot::READ | Prot::WRITE;
                    hooked.windows.address(page).map(|paddr| TlbEntry { paddr, perms })
                }
            }
        })
        .flatten()
    };
    did("add TLB hook", uc.add_tlb_hook(0, u64::MAX, fill))?;
    let access =
        |uc: &mut Unicorn<'_, Hooked>, kind: MemType, paddr: u64, bytes: usize, _value: i64| {
            guarded(uc, |uc| {
                uc.get_data_mut().windows.note(paddr, bytes, kind == MemType::WRITE);
            })
            .is_some()
        };
    let kinds = HookType::MEM_READ | HookType::MEM_WRITE;
    did("add memory hook", uc.add_mem_hook(kinds, 0, u64::MAX, access))?;
    let exception = |uc: &mut Unicorn<'_, Hooked>, number: u32| {
        let _ = guarded(uc, |uc| {
            uc.get_data_mut().exception = Some(number);
            stop(uc);
        });
    };
    did("add exception hook", uc.add_intr_hook(exception))?;
    let invalid = |uc: &mut Unicorn<'_, Hooked>| {
        let _ = guarded(uc, |uc| uc.get_data_mut().invalid = true);
        false
    };
    did("add invalid-instruction hook", uc.add_insn_invalid_hook(invalid))?;
    Ok(())
}

/// Privileged mode with floating point and vectors enabled.
fn initial_registers(arch: Arch, uc: &mut Unicorn<'static, Hooked>) -> Result<(), EngineError> {
    match arch {
        Arch::X86_64 => {
            did("write CR0", uc.reg_write(RegisterX86::CR0, X86_CR0))?;
            did("write CR4", uc.reg_write(RegisterX86::CR4, X86_CR4))?;
            let mut efer = [0; 16];
            efer[..4].copy_from_slice(&X86_MSR_EFER.to_le_bytes());
            efer[8..].copy_from_slice(&X86_EFER.to_le_bytes());
            did("write EFER", uc.reg_write_long(RegisterX86::MSR, &efer))?;
            // The fixed bit and IF.
            did("write RFLAGS", uc.reg_write(RegisterX86::RFLAGS, 0x202))
        }
        Arch::Arm64 => {
            // CPACR_EL1.FPEN: no trap of floating point.
            did("write CPACR_EL1", uc.reg_write(RegisterARM64::CPACR_EL1, 3 << 20))
        }
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => {
            let order = if arch.is_little_endian() { MSR_LE } else { 0 };
            let msr = MSR_SF | MSR_VEC | MSR_VSX | MSR_FP | MSR_ME | MSR_RI | order;
            did("write MSR", uc.reg_write(RegisterPPC::MSR, msr))
        }
    }
}

// What Linux has in the control registers: PG, AM, WP, NE, ET, MP, PE; OSXMMEXCPT, OSFXSR, PGE,
// MCE, PAE, PSE; NXE, LMA, LME, SCE. Paging bits are there for guests that read them: translation
// is the machine's.
const X86_CR0: u64 = 0x8005_0033;
const X86_CR4: u64 = 0x6f0;
const X86_MSR_EFER: u32 = 0xc000_0080;
const X86_EFER: u64 = 0xd01;

// Bits of the powerpc MSR (Power ISA Book III 4.2.1, bit 0 leftmost): SF 0, VEC 38, VSX 40, FP 50,
// ME 51, RI 62, LE 63. IR and DR stay 0: translation is the machine's, whatever they say.
const MSR_SF: u64 = 1 << 63;
const MSR_VEC: u64 = 1 << 25;
const MSR_VSX: u64 = 1 << 23;
const MSR_FP: u64 = 1 << 13;
const MSR_ME: u64 = 1 << 12;
const MSR_RI: u64 = 1 << 1;
const MSR_LE: u64 = 1;
