//! The table of calls: names, parameters, results, where and when each exists.
//!
//! A row's body is in the file of its topic. Not in the table, but known by name: calls that are
//! not modelled ([`NOT_MODELLED`]), so that asking for one says so.

use textbed_arch::{Arch, Cite, CpuId};
use textbed_event::Need;

use crate::call::{Args, nearest_call};
use crate::cross_calls::By;
use crate::errno;
use crate::error::{CallError, Stop};
use crate::kernel::Kernel;
use crate::version::{Version, in_range};

pub use crate::call_table::{CALLS, NOT_MODELLED};

/// What a parameter takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamKind {
    /// A virtual address.
    Addr,
    /// A number of bytes.
    Bytes,
    /// A number of pages (a C `int`).
    Pages,
    /// The number of a CPU (a C `unsigned int`).
    Cpu,
    /// One byte.
    Byte,
    /// An instruction as a number: 32 bits, or a prefix in the upper 32.
    Insn,
    /// 0 or 1.
    Flag,
    /// Names of flags, with their bits.
    Flags(&'static [(&'static str, u64)]),
    /// Bytes of code, with their length.
    Code,
}

impl ParamKind {
    /// In words, for messages.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            ParamKind::Addr => "an address",
            ParamKind::Bytes => "a number of bytes",
            ParamKind::Pages => "a number of pages",
            ParamKind::Cpu => "the number of a CPU",
            ParamKind::Byte => "a byte",
            ParamKind::Insn => "an instruction as a number",
            ParamKind::Flag => "0 or 1",
            ParamKind::Flags(_) => "flags",
            ParamKind::Code => "code, or one instruction as a number",
        }
    }
}

/// One parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: ParamKind,
}

/// What a call returns, and what of it is a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returns {
    /// 0, or a negative error number.
    Errno,
    /// 0, or anything else for failure.
    Nonzero,
    /// A pointer, NULL for failure.
    PointerOrNull,
    /// A pointer, or an error number in a pointer (`ERR_PTR`).
    PointerOrErr,
    /// 0 or 1; never a failure.
    Bool,
    /// Nothing.
    Void,
}

impl Returns {
    /// Whether a value is a failure.
    #[must_use]
    pub fn failed(self, value: i64) -> bool {
        match self {
            Returns::Errno => value < 0,
            Returns::Nonzero => value != 0,
            Returns::PointerOrNull => value == 0,
            Returns::PointerOrErr => errno::is_err_pointer(value),
            Returns::Bool | Returns::Void => false,
        }
    }

    /// The value that says failure with this (positive) error number; `None` where nothing does.
    #[must_use]
    pub fn failure(self, errno: i64) -> Option<i64> {
        match self {
            Returns::Errno | Returns::Nonzero | Returns::PointerOrErr => Some(-errno),
            Returns::PointerOrNull => Some(0),
            Returns::Bool | Returns::Void => None,
        }
    }
}

/// What a call asks of its context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallNeed {
    /// A lock that the caller holds.
    Lock(&'static str),
    /// Anything else.
    Context(Need),
}

/// What carries a call out.
pub(crate) type Body = fn(&mut Kernel, CpuId, &Args) -> Result<i64, Stop>;

/// One call, from one version to another on some architectures.
#[derive(Clone, Copy, Debug)]
pub struct CallSpec {
    /// The kernel's name.
    pub name: &'static str,
    /// Its parameters; allocation flags, nodes and callers are left out.
    pub params: &'static [Param],
    /// What it returns.
    pub returns: Returns,
    /// Architectures.
    pub archs: &'static [Arch],
    /// First version.
    pub since: Option<Version>,
    /// First version without it.
    pub until: Option<Version>,
    /// What it does, in a line.
    pub doc: &'static str,
    /// Where that is to be seen.
    pub cite: Cite,
    /// Set where no kernel has it: what it stands for.
    pub counterfactual: Option<&'static str>,
    /// What it asks of the context that it is called in.
    pub needs: &'static [CallNeed],
    /// Locks that it takes and releases; it waits for them before it begins.
    pub takes: &'static [&'static str],
    /// For what it interrupts other CPUs on some of its ways, and on which architectures.
    pub sends: &'static [(By, &'static [Arch])],
    /// Where it is made of steps, so that others run inside of it. Each waits for the CPUs that it
    /// interrupts.
    pub steps: &'static [Arch],
    pub(crate) run: Body,
}

impl CallSpec {
    pub(crate) const fn sends(mut self, sends: &'static [(By, &'static [Arch])]) -> Self {
        self.sends = sends;
        self
    }

    pub(crate) const fn steps(mut self, archs: &'static [Arch]) -> Self {
        self.steps = archs;
        self
    }
}

/// A call that is known by name alone.
#[derive(Clone, Copy, Debug)]
pub struct NotModelled {
    /// The kernel's name.
    pub name: &'static str,
    /// Why not, or what to use instead.
    pub what: &'static str,
}

/// The row of a call in a version on an architecture.
///
/// # Errors
/// Unknown names with a suggestion; calls that do not exist there, with where they do; calls that
/// are not modelled.
pub fn find_call(name: &str, version: Version, arch: Arch) -> Result<&'static CallSpec, CallError> {
    let rows = || CALLS.iter().filter(|c| c.name == name);
    let fits = |c: &&CallSpec| c.archs.contains(&arch) && in_range(version, c.since, c.until);
    if let Some(spec) = rows().find(fits) {
        return Ok(spec);
    }
    let on_64 =
        |c: &CallSpec| c.archs.contains(&Arch::Ppc64) && in_range(version, c.since, c.until);
    if arch == Arch::Ppc32 && rows().any(on_64) {
        let what = "not on 32-bit powerpc, where areas, permissions and patch_instruction are";
        return Err(CallError::NotModelled { call: name.to_owned(), what: what.to_owned() });
    }
    if let Some(first) = rows().next() {
        let when: Vec<String> = rows().map(existence).collect();
        return Err(CallError::Absent { call: first.name, arch, version, when: when.join("; ") });
    }
    if let Some(known) = NOT_MODELLED.iter().find(|n| n.name == name) {
        let (call, what) = (name.to_owned(), known.what.to_owned());
        return Err(CallError::NotModelled { call, what });
    }
    Err(CallError::Unknown { name: name.to_owned(), suggestion: nearest_call(name) })
}

/// Where and when a row holds, in words.
fn existence(spec: &CallSpec) -> String {
    let archs: Vec<&str> = spec.archs.iter().map(|a| a.name()).collect();
    let bounds = match (spec.since, spec.until) {
        (None, None) => "all versions".to_owned(),
        (Some(s), None) => format!("{s} and later"),
        (None, Some(u)) => format!("before {u}"),
        (Some(s), Some(u)) => format!("{s} to before {u}"),
    };
    format!("{bounds} on {}", archs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_name_never_overlap() {
        for (i, a) in CALLS.iter().enumerate() {
            for b in CALLS.iter().skip(i + 1).filter(|b| b.name == a.name) {
                let archs = a.archs.iter().any(|x| b.archs.contains(x));
                let apart = a.until.is_some_and(|u| b.since.is_some_and(|s| u <= s))
                    || b.until.is_some_and(|u| a.since.is_some_and(|s| u <= s));
                assert!(!archs || apart, "{}", a.name);
            }
            assert!(NOT_MODELLED.iter().all(|n| n.name != a.name), "{}", a.name);
            assert!(
                !a.doc.is_empty()
                    && a.params.iter().filter(|p| p.kind == ParamKind::Code).count() <= 1
            );
        }
    }

    #[test]
    fn a_name_that_is_not_there_says_why() {
        let v6_12 = Version::release(6, 12);
        let v5_18 = Version::release(5, 18);
        let absent = find_call("set_memory_rox", v5_18, Arch::Arm64).unwrap_err();
        assert!(absent.to_string().contains("6.2-rc1 and later"), "{absent}");
        let typo = find_call("set_memory_or", v6_12, Arch::Arm64).unwrap_err();
        assert!(typo.to_string().contains("did you mean"), "{typo}");
        let bp = find_call("bpf_jit_binary_lock_ro", v6_12, Arch::X86_64).unwrap_err();
        assert!(matches!(bp, CallError::NotModelled { .. }), "{bp}");
        let other = find_call("patch_instruction", v6_12, Arch::X86_64).unwrap_err();
        assert!(matches!(other, CallError::Absent { .. }), "{other}");
        assert!(find_call("vmalloc_huge", Version::candidate(5, 18, 3), Arch::X86_64).is_ok());
    }

    #[test]
    fn failure_by_convention() {
        assert!(Returns::Errno.failed(-22) && !Returns::Errno.failed(1));
        assert!(Returns::PointerOrErr.failed(-524) && !Returns::PointerOrErr.failed(-5000));
        assert!(!Returns::PointerOrErr.failed(0) && Returns::PointerOrNull.failed(0));
        assert!(Returns::Nonzero.failed(1) && !Returns::Void.failed(-1));
    }
}
