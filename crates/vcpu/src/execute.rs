//! One step: an instruction fetched, decoded, and carried out by whom its plan names.

use std::rc::Rc;

use textbed_arch::{Arch, CpuId, Features, SpaceId, VirtAddr, effect::Effect, insn};
use textbed_event::{Flags, MemOrder, OpId, View};
use textbed_machine::{CpuError, Fault, Integrity, Machine, Step};
use unicorn_engine::{RegisterARM64, RegisterPPC, RegisterX86};

use crate::{
    decoded::{Decoded, MOST_BYTES},
    exceptions::Taken,
    native::Native,
    special::{Order, Plan},
    traps::{self, Trap},
    vcpu::{RETURN_ADDRESS, Vcpu},
    x86,
};

/// A fetched instruction.
struct Site<'a> {
    /// Its address.
    pc: u64,
    /// The address behind it.
    next: u64,
    /// What it is.
    what: &'a Decoded,
}

impl Site<'_> {
    fn bytes(&self) -> &[u8] {
        self.what.bytes()
    }

    fn op(&self) -> OpId {
        self.what.insn.map_or(OpId::NONE, |insn| OpId(insn.row.id.0))
    }
}

impl Vcpu {
    /// Fetches and carries out the instruction at `pc`.
    pub(crate) fn step_at(&mut self, m: &mut Machine, pc: u64) -> Result<Step, CpuError> {
        let what = match self.known.met(pc) {
            Some((what, again)) if m.fetch_again(again) => Rc::clone(what),
            _ => match self.fetch(m, pc) {
                Ok(Some(what)) => what,
                Ok(None) => return Ok(Step::Unpredictable { virt: VirtAddr(pc) }),
                Err(fault) => return self.faulted(m, fault),
            },
        };
        if self.free.is_some() {
            self.note_fetched(m, pc, what.bytes());
        }
        if !what.plain {
            self.control_changes();
        }
        let next = pc.wrapping_add(what.bytes().len() as u64);
        self.execute(m, &Site { pc, next, what: &what })
    }

    /// The instruction at `pc`, as the modelled instruction side gives it; `None`: anything.
    fn fetch(&mut self, m: &mut Machine, pc: u64) -> Result<Option<Rc<Decoded>>, Fault> {
        let mut room = [0; MOST_BYTES];
        let (id, virt, known) = (self.id, VirtAddr(pc), &self.known);
        let mut length = |bytes: &[u8]| known.length(pc, bytes);
        if let Some(again) = m.fetch_only(id, virt, &mut length, &mut room) {
            let bytes = room.get(..again.bytes()).unwrap_or(&room);
            return Ok(Some(self.known.decode(pc, bytes, Some(again))));
        }
        let got = m.fetch_with(id, virt, &mut length)?;
        let open = got.integrity == Integrity::Unpredictable;
        Ok((!open).then(|| self.known.decode(pc, &got.bytes, None)))
    }

    fn execute(&mut self, m: &mut Machine, site: &Site<'_>) -> Result<Step, CpuError> {
        // A prefixed instruction must not cross 64 bytes (Linux 6.19 powerpc kernel/uprobes.c).
        if self.arch.is_powerpc() && site.bytes().len() == 8 && site.pc % 64 == 60 {
            return self.trap(m, site, traps::PPC_ALIGNMENT);
        }
        match site.what.plan {
            Plan::Engine(order) => match self.by_engine(m, site, order)? {
                Native::Done => {
                    if site.what.plain {
                        self.note_plain();
                    }
                    // The instruction after STI runs before an interrupt is taken (SDM 2B, STI).
                    self.interrupts.shadow = self.arch == Arch::X86_64 && site.bytes() == [0xfb];
                    self.branched(m, site)?;
                }
                other => return self.ended(m, site, other),
            },
            Plan::Machine { first } => return self.by_machine(m, site, first),
            Plan::Trap(trap) => return self.trap(m, site, trap),
            Plan::Hint => self.engine.set_pc(site.next),
            Plan::Wait(wake) => {
                self.engine.set_pc(site.next);
                return self.wait(m, site.pc, wake);
            }
            Plan::ZeroBlock(size) => {
                let address = VirtAddr(self.zero_block_address(site.bytes())? & !(size - 1));
                let zeros = vec![0; size as usize];
                match m.store(self.id, address, &zeros, MemOrder::Plain) {
                    Ok(()) => self.engine.set_pc(site.next),
                    Err(fault) => return self.faulted(m, fault),
                }
            }
            Plan::CacheType => {
                let register = site.bytes().first().copied().unwrap_or(0) & 0x1f;
                self.set_general(register, cache_type(m, self.id))?;
                self.engine.set_pc(site.next);
            }
            Plan::Iretq => return self.iretq(m, site),
            Plan::EngineReturn => return self.engine_return(m, site),
            Plan::NotModelled => return Err(self.unknown(site.bytes())),
        }
        self.after()
    }

    /// The engine carries it out, or the machine in its place.
    fn by_engine(
        &mut self,
        m: &mut Machine,
        site: &Site<'_>,
        order: Order,
    ) -> Result<Native, CpuError> {
        match &site.what.moves {
            Some(moves) => self.moved(m, (site.pc, site.next), moves),
            None => self.native(m, site.pc, site.what, order),
        }
    }

    /// The machine carries out the effect, with `first` after the engine.
    fn by_machine(
        &mut self,
        m: &mut Machine,
        site: &Site<'_>,
        first: Option<Order>,
    ) -> Result<Step, CpuError> {
        let Some(insn) = &site.what.insn else { return Err(self.unknown(site.bytes())) };
        let operands = match self.operands(m, insn, site.next)? {
            Ok(operands) => operands,
            Err(fault) => return self.faulted(m, fault),
        };
        if let Some(order) = first {
            match self.native(m, site.pc, site.what, order)? {
                Native::Done => {}
                other => return self.ended(m, site, other),
            }
        }
        match self.operate(m, insn, &operands) {
            Ok(None) => {}
            Ok(Some(fault)) => return self.faulted(m, fault),
            Err(refused) => {
                // Then it was not executed.
                if first.is_some() {
                    self.engine.restore()?;
                }
                return Err(refused);
            }
        }
        if first.is_none() {
            self.engine.set_pc(site.next);
        }
        self.after()
    }

    /// Ends a step: returned, or went on.
    fn after(&mut self) -> Result<Step, CpuError> {
        if self.engine.pc()? != RETURN_ADDRESS.0 {
            return Ok(Step::Ran);
        }
        self.running = false;
        Ok(Step::Returned(self.general(self.convention.result)?))
    }

    /// Ends a step by how the engine's part ended.
    fn ended(
        &mut self,
        m: &mut Machine,
        site: &Site<'_>,
        native: Native,
    ) -> Result<Step, CpuError> {
        match native {
            Native::Done => self.after(),
            Native::Faulted(fault) => self.faulted(m, fault),
            Native::Trapped(trap) => self.trap(m, site, trap),
        }
    }

    /// Takes the exception of a fault. The machine has emitted it.
    fn faulted(&mut self, m: &mut Machine, fault: Fault) -> Result<Step, CpuError> {
        if self.interrupts.vectors.is_some() {
            let pc = self.engine.pc()?;
            return self.take(m, Taken::Fault(fault, pc));
        }
        m.exception_entry(self.id);
        Ok(Step::Faulted(fault))
    }

    /// Takes an exception: emits it, synchronises where the architecture does, and goes to the
    /// guest's handler, or stops there if it has none.
    fn trap(&mut self, m: &mut Machine, site: &Site<'_>, trap: Trap) -> Result<Step, CpuError> {
        let back = if trap.after { site.next } else { site.pc };
        self.engine.set_pc(back);
        let (virt, vector) = (VirtAddr(site.pc), trap.vector);
        let view = View::Trap { virt, vector };
        m.emit_in(self.id, SpaceId::KERNEL, Flags::default(), site.op(), view);
        if self.interrupts.vectors.is_some() {
            return self.take(m, Taken::Trap(vector, back));
        }
        m.exception_entry(self.id);
        Ok(Step::Trapped { virt, vector, name: trap.name.to_owned() })
    }

    /// An instruction that the model does not have, by its name if it has one, and its bytes.
    pub(crate) fn unknown(&self, bytes: &[u8]) -> CpuError {
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let hex = hex.join(" ");
        CpuError::NotModelled(match insn::decode(self.arch, bytes) {
            Some(insn) => format!("{} instruction '{}' [{hex}]", self.arch, insn.row.name),
            None => format!("{} instruction [{hex}]", self.arch),
        })
    }

    /// Emits a taken branch.
    fn branched(&self, m: &mut Machine, site: &Site<'_>) -> Result<(), CpuError> {
        let Some(insn) = site.what.insn.filter(|i| matches!(i.row.effect, Effect::Branch(_)))
        else {
            return Ok(());
        };
        let to = self.engine.pc()?;
        if to != site.next {
            let indirect = insn.operands.target(site.pc).is_none();
            let view = View::Branch { from: VirtAddr(site.pc), to: VirtAddr(to), indirect };
            m.emit_in(self.id, SpaceId::KERNEL, Flags::default(), site.op(), view);
        }
        Ok(())
    }

    /// `iretq` to the same privilege: pops the frame from the modelled stack.
    fn iretq(&mut self, m: &mut Machine, site: &Site<'_>) -> Result<Step, CpuError> {
        let mut bytes = [0; x86::IRET_FRAME_BYTES];
        let stack = self.stack_pointer()?;
        if let Err(fault) = m.load(self.id, stack, &mut bytes) {
            return self.faulted(m, fault);
        }
        let frame = x86::IretFrame::from_bytes(&bytes);
        let current = |r: RegisterX86| self.engine.register(r as i32);
        let (cs, ss) = (current(RegisterX86::CS)?, current(RegisterX86::SS)?);
        if (frame.cs, frame.ss) != (cs, ss) {
            let text = format!("iretq to other segments (CS {:#x}, SS {:#x})", frame.cs, frame.ss);
            return Err(CpuError::NotModelled(text));
        }
        self.engine.set_register(RegisterX86::RFLAGS as i32, frame.rflags)?;
        self.engine.set_register(RegisterX86::RSP as i32, frame.rsp)?;
        self.engine.set_pc(frame.rip);
        self.returned(m, site)
    }

    /// `eret` and `rfid`: the engine has the registers that they return from.
    fn engine_return(&mut self, m: &mut Machine, site: &Site<'_>) -> Result<Step, CpuError> {
        let before = self.mode()?;
        match self.native(m, site.pc, site.what, Order::PLAIN)? {
            Native::Done => {}
            other => return self.ended(m, site, other),
        }
        if self.mode()? != before {
            self.engine.restore()?;
            let name = site.what.insn.map_or("return", |insn| insn.row.name);
            let text = format!("'{name}' to another privilege, width or byte order");
            return Err(CpuError::NotModelled(text));
        }
        self.returned(m, site)
    }

    /// What an exception return does on the machine.
    fn returned(&mut self, m: &mut Machine, site: &Site<'_>) -> Result<Step, CpuError> {
        let Some(insn) = &site.what.insn else { return Err(self.unknown(site.bytes())) };
        match self.operate(m, insn, &[])? {
            Some(fault) => self.faulted(m, fault),
            None => {
                self.left_handler(m);
                self.after()
            }
        }
    }

    /// What an exception return must leave as it is: PSTATE.M (bits 4:0) on arm64; SF, HV, PR and
    /// LE of the MSR on powerpc.
    fn mode(&self) -> Result<u64, CpuError> {
        Ok(match self.arch {
            Arch::Arm64 => self.engine.register(RegisterARM64::PSTATE as i32)? & 0x1f,
            _ => {
                let kept = 1 << 63 | 1 << 60 | 1 << 14 | 1;
                self.engine.register(RegisterPPC::MSR as i32)? & kept
            }
        })
    }
}

/// CTR_EL0 of a CPU's modelled caches (DDI 0487 D24.2.34): its line sizes, IDC and DIC from the
/// features, a PIPT instruction cache, granules as large as a line.
fn cache_type(m: &Machine, cpu: CpuId) -> u64 {
    let own = m.config().geometry_of(cpu);
    let words = |bytes: u64| u64::from((bytes.max(4) / 4).ilog2());
    let bit = |feature, n: u32| u64::from(m.features().contains(feature)) << n;
    let (dline, iline) = (words(own.dline_bytes.into()), words(own.iline_bytes.into()));
    iline
        | 0b11 << 14
        | dline << 16
        | dline << 20
        | dline << 24
        | bit(Features::ARM_IDC, 28)
        | bit(Features::ARM_DIC, 29)
        | 1 << 31
}
