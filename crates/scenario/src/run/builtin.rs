//! Calls that the runner has itself: machine code, and what a CPU reads in memory.
//!
//! A load is one of this CPU's data side, through its own translations, in its byte order. It says
//! nothing about what a fetch of the same address would return. A fetch is one of its instruction
//! side, which is what is left where no code can be executed (32-bit powerpc). Not modelled: loads
//! with an order (`await` is the load-acquire), loads from user space.

use textbed_arch::{CpuId, VirtAddr};
use textbed_kernel::Kernel;

use super::preflight::{arg_span, diagnostic};
use super::world::Stop;
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Arg, Call};
use crate::value::Value;

/// A call that is none of the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, for readers.
    pub params: &'static str,
    /// What it returns, for readers.
    pub returns: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What it does, for the runner.
    pub(crate) does: Does,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Does {
    /// Runs machine code.
    Guest,
    /// Runs machine code to where its task is preempted.
    Preempt,
    /// Lets that task go on.
    Resume,
    /// Loads so many bytes.
    Load(usize),
    /// Fetches four bytes.
    Fetch,
    /// Compares bytes in memory with those of `code(…)` or `jit(…)`.
    Compare,
    /// Makes the operand of a TLBI by address.
    TlbiOperand,
    /// Makes that of a TLBI of a range.
    TlbiRange,
}

const fn load(name: &'static str, bytes: usize, doc: &'static str) -> BuiltIn {
    BuiltIn { name, params: "addr", returns: "the value", doc, does: Does::Load(bytes) }
}

/// All of them.
pub const BUILT_INS: [BuiltIn; 11] = [
    BuiltIn {
        name: "call",
        params: "entry, args…",
        returns: "what the code returns",
        doc: "runs machine code on this CPU's emulated twin",
        does: Does::Guest,
    },
    BuiltIn {
        name: "preempt",
        params: "entry, at",
        returns: "nothing",
        doc: "runs machine code until it would execute `at`, where its task is preempted",
        does: Does::Preempt,
    },
    BuiltIn {
        name: "resume",
        params: "",
        returns: "what the code returns",
        doc: "lets the task that was preempted last on this CPU go on to its end",
        does: Does::Resume,
    },
    load("load_u8", 1, "loads a byte on this CPU"),
    load("load_u16", 2, "loads 16 bits on this CPU, in its byte order"),
    load("load_u32", 4, "loads 32 bits on this CPU, in its byte order"),
    load("load_u64", 8, "loads 64 bits on this CPU, in its byte order"),
    BuiltIn {
        name: "fetch_u32",
        params: "addr",
        returns: "the value",
        doc: "fetches 32 bits of code on this CPU, in its byte order, and executes nothing",
        does: Does::Fetch,
    },
    BuiltIn {
        name: "memcmp",
        params: "addr, code",
        returns: "0 if equal, else 1",
        doc: "compares memory with the bytes of code(NAME) or jit(NAME)",
        does: Does::Compare,
    },
    BuiltIn {
        name: "__TLBI_VADDR",
        params: "addr, asid",
        returns: "the operand",
        doc: "what arm64's `tlbi` by address takes: bits 55 to 12 of the address, and the ASID",
        does: Does::TlbiOperand,
    },
    BuiltIn {
        name: "__TLBI_VADDR_RANGE",
        params: "addr, asid, scale, num, ttl",
        returns: "the operand",
        doc: "what arm64's `tlbi` of a range takes: (num + 1) << (5 * scale + 1) pages from addr on; \
              ttl names a level, 0 none",
        does: Does::TlbiRange,
    },
];

/// The one of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static BuiltIn> {
    const ALL: &[BuiltIn] = &BUILT_INS;
    ALL.iter().find(|b| b.name == name)
}

impl BuiltIn {
    /// What is wrong with how it is called, if anything is.
    pub(super) fn check(&self, call: &Call) -> Option<Diagnostic> {
        let wrong = |message: &str, label: &str| {
            Some(diagnostic(message.to_owned(), call.name.span, label, None))
        };
        match (self.does, call.args.as_slice()) {
            (Does::Guest, []) => {
                wrong("`call` takes the address of the code, then its arguments", "no address")
            }
            (Does::Preempt, args) if args.len() != 2 => wrong(
                "`preempt` takes where code is entered, and where it is left",
                "wrong number of arguments",
            ),
            (Does::Resume, [_, ..]) => wrong(
                "`resume` takes nothing: it is the task that was preempted last",
                "wrong number of arguments",
            ),
            (Does::TlbiOperand, args) if args.len() != 2 => {
                wrong("`__TLBI_VADDR` takes an address and an ASID", "wrong number of arguments")
            }
            (Does::TlbiRange, args) if args.len() != 5 => wrong(
                "`__TLBI_VADDR_RANGE` takes an address, an ASID, scale, num and a level",
                "wrong number of arguments",
            ),
            (Does::Load(_) | Does::Fetch, args) if args.len() != 1 => {
                let message = format!("`{}` takes one argument, the address", self.name);
                wrong(&message, "wrong number of arguments")
            }
            (Does::Compare, [Arg::Expr(_), Arg::Code(_) | Arg::Jit(_)]) => None,
            (Does::Compare, _) => {
                wrong("`memcmp` takes an address and `code(NAME)` or `jit(NAME)`", "not these")
            }
            (_, args) => {
                let odd = args.iter().find(|a| !matches!(a, Arg::Expr(_)))?;
                let span = arg_span(odd).unwrap_or(call.name.span);
                let message = "a number or an address has to stand here".to_owned();
                Some(diagnostic(message, span, "not a number", None))
            }
        }
    }
}

/// What an arm64 TLBI by address takes in its register: VA[55:12] from bit 0 on, the ASID from bit
/// 48 on, and no hint of a level (Arm ARM DDI 0487 C5.5, TLBI VAE1IS; Linux 6.12
/// arch/arm64/include/asm/tlbflush.h, `__TLBI_VADDR`).
pub(super) fn tlbi_operand(addr: VirtAddr, asid: u64) -> Value {
    Value::number(((addr.0 >> 12) & ((1 << 44) - 1)) | (asid << 48))
}

/// What a TLBI of a range takes, by the granule and the unit of BaseADDR, as bits: BaseADDR in bits
/// 36 to 0, TTL, NUM, SCALE, TG, ASID (Arm ARM DDI 0487 C5.5, TLBI RVAE1IS; Linux 6.12
/// arch/arm64/include/asm/tlbflush.h, `__TLBI_VADDR_RANGE`). `None` if a field has no such value.
pub(super) fn tlbi_range((granule, unit): (u32, u32), args: [u64; 5]) -> Option<Value> {
    let [addr, asid, scale, num, ttl] = args;
    let fits = asid < 1 << 16 && scale < 4 && num < 32 && ttl < 4;
    let size = u64::from(granule.saturating_sub(10) / 2);
    let base = (addr >> unit) & ((1 << 37) - 1);
    let fields = ttl << 37 | num << 39 | scale << 44 | size << 46;
    fits.then(|| Value::number(base | fields | asid << 48))
}

/// Loads `bytes` bytes, 8 at most.
pub(super) fn load_value(
    kernel: &mut Kernel,
    cpu: CpuId,
    call: &Call,
    addr: VirtAddr,
    bytes: usize,
) -> Result<Value, Stop> {
    let mut word = [0; 8];
    let little = kernel.arch().is_little_endian();
    let part = if little { word.get_mut(..bytes) } else { word.get_mut(8 - bytes..) };
    let part = part.unwrap_or(&mut []);
    kernel
        .machine_mut()
        .load(cpu, addr, part)
        .map_err(|fault| Stop::Died(format!("{call}: fault: {fault}")))?;
    Ok(Value::number(if little { u64::from_le_bytes(word) } else { u64::from_be_bytes(word) }))
}

/// Fetches a word.
pub(super) fn fetch_value(
    kernel: &mut Kernel,
    cpu: CpuId,
    call: &Call,
    addr: VirtAddr,
) -> Result<Value, Stop> {
    let died = |what: String| Stop::Died(format!("{call}: {what}"));
    let got = kernel.machine_mut().fetch(cpu, addr, 4).map_err(|f| died(format!("fault: {f}")))?;
    let word = got.bytes.get(..4).and_then(|b| b.try_into().ok()).unwrap_or_default();
    let little = kernel.arch().is_little_endian();
    let word = if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
    Ok(Value::number(word.into()))
}

/// Compares memory with `expected`: 0 if equal, else 1.
pub(super) fn compare(
    kernel: &mut Kernel,
    cpu: CpuId,
    call: &Call,
    addr: VirtAddr,
    expected: &[u8],
) -> Result<Value, Stop> {
    let mut found = vec![0; expected.len()];
    kernel
        .machine_mut()
        .load(cpu, addr, &mut found)
        .map_err(|fault| Stop::Died(format!("{call}: fault: {fault}")))?;
    Ok(Value::number(u64::from(found != expected)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_ranges_have_their_fields() {
        let addr = 0xffff_8000_8040_5000;
        let value = |pages, args| tlbi_range(pages, args).and_then(Value::as_number);
        let base = (addr >> 12) & ((1 << 37) - 1);
        let four_pages = base | 1 << 39 | 1 << 46;
        assert_eq!(value((12, 12), [addr, 0, 0, 1, 0]), Some(four_pages));
        assert_eq!(value((12, 12), [addr, 3, 0, 1, 0]), Some(four_pages | 3 << 48));
        let all = value((16, 16), [0, 0, 3, 31, 3]);
        assert_eq!(all, Some(3 << 37 | 31 << 39 | 3 << 44 | 3 << 46));
        for wrong in [[0, 1 << 16, 0, 0, 0], [0, 0, 4, 0, 0], [0, 0, 0, 32, 0], [0, 0, 0, 0, 4]] {
            assert_eq!(value((12, 12), wrong), None, "{wrong:?}");
        }
    }
}
