//! What the modelled kernel answers to a recorded call: asked by running that call.
//!
//! A kernel of the newest simulated version that is not newer than the log's is booted once, and
//! the call is made in it on an area like the recorded one: of small pages or one that may be
//! huge, the range within the area or reaching out of it, the address on a page or off it. The
//! answers are kept, so that a long log asks a few times.
//!
//! Not modelled: memory that runs out (such an answer of a log is no contradiction), areas of other
//! kinds than the allocator's own, options of the kernel's configuration.

use crate::areas::{Area, VM_ALLOW_HUGE_VMAP};
use std::collections::BTreeMap;
use textbed_arch::{Arch, CpuId, Features};
use textbed_kernel::{Arg, BootArgs, Config, Kernel, Version, simulated};
use textbed_machine::Newest;

/// An area as far as an answer depends on it, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    call: &'static str,
    huge: bool,
    aligned: bool,
    within: bool,
    none: bool,
}

/// Bytes of a small area of the model, and of one that gets large pages.
const SMALL_BYTES: u64 = 8 << 12;
const HUGE_BYTES: u64 = 2 << 20;

/// The model, booted when it is first asked.
#[derive(Default)]
pub(crate) struct Model {
    kernel: Option<Box<Kernel>>,
    cannot: bool,
    answers: BTreeMap<Question, Option<i64>>,
}

/// The version that stands for `version`; `None` where none is old enough.
pub(crate) fn stand_in(version: Version) -> Option<Version> {
    simulated().filter(|v| *v <= version).last()
}

impl Model {
    /// What the call returns for `pages` pages at `addr`, in an area that begins at `start`;
    /// `None` where the model has no answer.
    pub(crate) fn answer(
        &mut self,
        (arch, version): (Arch, Version),
        call: &'static str,
        (start, area): (u64, Area),
        (addr, pages, page_shift): (u64, u64, u8),
    ) -> Option<i64> {
        let bytes = pages.checked_shl(page_shift.into())?;
        let flags = area.flags?;
        let question = Question {
            call,
            huge: flags & VM_ALLOW_HUGE_VMAP != 0 && area.len >= HUGE_BYTES,
            aligned: addr.trailing_zeros() >= u32::from(page_shift),
            // The guard page counts as part of the area.
            within: addr.checked_add(bytes)? <= start.checked_add(area.len)? + (1 << page_shift),
            none: pages == 0,
        };
        if let Some(known) = self.answers.get(&question) {
            return *known;
        }
        let answer = self.ask(arch, version, question);
        self.answers.insert(question, answer);
        answer
    }

    fn ask(&mut self, arch: Arch, version: Version, q: Question) -> Option<i64> {
        if self.kernel.is_none() && !self.cannot {
            self.kernel = boot(arch, version);
            self.cannot = self.kernel.is_none();
        }
        let kernel = self.kernel.as_mut()?;
        let mut call = |name: &str, args: &[u64]| {
            let args: Vec<Arg> = args.iter().map(|v| Arg::Value(*v)).collect();
            let value = kernel.call(CpuId(0), name, &args).ok()?.value;
            kernel.machine_mut().take_batch();
            Some(value)
        };
        let (allocate, bytes) =
            if q.huge { ("vmalloc_huge", HUGE_BYTES) } else { ("vmalloc", SMALL_BYTES) };
        let area = call(allocate, &[bytes])?.cast_unsigned();
        let addr = if q.aligned { area } else { area + 8 };
        let all = bytes >> 12;
        let pages = match (q.none, q.within) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => all + 2,
        };
        let answer = call(q.call, &[addr, pages]);
        call("vfree", &[area]);
        answer
    }
}

fn boot(arch: Arch, version: Version) -> Option<Box<Kernel>> {
    let version = stand_in(version)?;
    let mut features = Features::default_for(arch);
    if arch.is_powerpc() {
        features |= Features::PPC_RADIX;
    }
    let args = BootArgs { version, arch, config: Config::new(arch), features, cpus: 1 };
    let mut kernel = Kernel::boot(args, Box::new(Newest)).ok()?;
    kernel.machine_mut().take_batch();
    Some(Box::new(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_answers_as_the_kernel_of_that_version_does() {
        let area = |len, huge| Area {
            len,
            flags: Some(if huge { VM_ALLOW_HUGE_VMAP } else { 0 }),
            line: (0, 1),
        };
        let ask = |arch, version, call, huge, at: u64, pages| {
            let area = area(if huge { 4 << 20 } else { 0x8000 }, huge);
            let start = 0xffff_8000_8000_0000;
            Model::default().answer((arch, version), call, (start, area), (start + at, pages, 12))
        };
        let v = Version::release;
        // linux-semantics: arm64 refuses huge areas up to 6.14, and ranges out of an area; x86
        // neither.
        for (arch, version, huge, at, pages, wanted) in [
            (Arch::X86_64, v(6, 12), false, 0, 2, Some(true)),
            (Arch::X86_64, v(6, 12), true, 0, 2, Some(true)),
            (Arch::Arm64, v(6, 12), false, 0, 2, Some(true)),
            (Arch::Arm64, v(6, 12), true, 0, 2, Some(false)),
            (Arch::Arm64, v(6, 12), false, 0, 64, Some(false)),
            (Arch::Arm64, v(4, 19), false, 0, 2, None),
        ] {
            let answer = ask(arch, version, "set_memory_ro", huge, at, pages);
            assert_eq!(answer.map(|a| a == 0), wanted, "{arch} {version} {huge} {at} {pages}");
        }
    }
}
