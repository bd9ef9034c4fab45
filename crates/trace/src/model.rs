//! What the modelled kernel answers to a recorded call: asked by running that call.
//!
//! A kernel of the newest simulated version that is not newer than the log's, with pages of the
//! log's size, is booted once, and the call is made in it on an area like the recorded one: of
//! small pages or one that may be huge, the range within the area or reaching out of it, the
//! address on a page or off it. The answers are kept, so that a long log asks a few times.
//!
//! Not modelled: memory that runs out (such an answer of a log is no contradiction), areas of other
//! kinds than the allocator's own, other options of the kernel's configuration, areas of leaves of
//! 512 MiB.

use crate::areas::{Area, VM_ALLOW_HUGE_VMAP};
use std::collections::BTreeMap;
use textbed_arch::{Arch, CpuId, Features};
use textbed_kernel::{
    Arg, BootArgs, Config, Kernel, PAGE_SIZES, Pages, Paging, Version, simulated,
};
use textbed_machine::Newest;

/// An area as far as an answer depends on it, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    call: &'static str,
    /// It may have large leaves, and is long enough for one.
    huge: bool,
    large: bool,
    aligned: bool,
    within: bool,
    none: bool,
}

/// Pages of a small area of the model.
const SMALL_PAGES: u64 = 8;
/// The largest leaf that the model makes an area of: one that is larger takes more memory than it
/// has.
const LARGEST_LEAF: u64 = 64 << 20;

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
        let large = Pages::of(Paging::new(arch, page_shift.into()))?.pmd_bytes();
        let question = Question {
            call,
            huge: flags & VM_ALLOW_HUGE_VMAP != 0,
            large: flags & VM_ALLOW_HUGE_VMAP != 0 && area.len >= large,
            aligned: addr.trailing_zeros() >= u32::from(page_shift),
            // The guard page counts as part of the area.
            within: addr.checked_add(bytes)? <= start.checked_add(area.len)? + (1 << page_shift),
            none: pages == 0,
        };
        if let Some(known) = self.answers.get(&question) {
            return *known;
        }
        let answer = self.ask(arch, version, page_shift.into(), question);
        self.answers.insert(question, answer);
        answer
    }

    fn ask(&mut self, arch: Arch, version: Version, page_shift: u32, q: Question) -> Option<i64> {
        if self.kernel.is_none() && !self.cannot {
            self.kernel = boot(arch, version, page_shift);
            self.cannot = self.kernel.is_none();
        }
        let kernel = self.kernel.as_mut()?;
        let sizes = kernel.pages();
        if q.large && sizes.pmd_bytes() > LARGEST_LEAF {
            return None;
        }
        let mut call = |name: &str, args: &[u64]| {
            let args: Vec<Arg> = args.iter().map(|v| Arg::Value(*v)).collect();
            let value = kernel.call(CpuId(0), name, &args).ok()?.value;
            kernel.machine_mut().take_batch();
            Some(value)
        };
        let allocate = if q.huge { "vmalloc_huge" } else { "vmalloc" };
        let small = sizes.in_bytes(SMALL_PAGES);
        let bytes = if q.large { sizes.pmd_bytes() } else { small };
        let area = call(allocate, &[bytes])?.cast_unsigned();
        let addr = if q.aligned { area } else { area + 8 };
        let all = sizes.holding(bytes);
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

fn boot(arch: Arch, version: Version, page_shift: u32) -> Option<Box<Kernel>> {
    let version = stand_in(version)?;
    let mut features = Features::default_for(arch);
    if arch.is_powerpc() {
        features |= Features::PPC_RADIX;
    }
    let size = PAGE_SIZES.iter().find(|r| r.archs.contains(&arch) && r.shift == page_shift)?;
    let mut config = Config::new(arch);
    config.set("page_size", size.word).ok()?;
    let args = BootArgs { version, arch, config, features, cpus: 1 };
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
        let ask_with = |arch, version, huge, at: u64, pages, shift: u8| {
            let area = area(if huge { 64 << 20 } else { 8 << shift }, huge);
            let start = 0xffff_8000_8000_0000;
            let range = (start + at, pages, shift);
            Model::default().answer((arch, version), "set_memory_ro", (start, area), range)
        };
        let ask = |arch, version, huge, at, pages| ask_with(arch, version, huge, at, pages, 12);
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
            let answer = ask(arch, version, huge, at, pages);
            assert_eq!(answer.map(|a| a == 0), wanted, "{arch} {version} {huge} {at} {pages}");
        }
        // What may be huge is refused by that alone from 6.16 on (arm64).
        let small = |version| {
            let area = area(0x8000, true);
            let start = 0xffff_8000_8000_0000;
            let of = (Arch::Arm64, version);
            Model::default().answer(of, "set_memory_ro", (start, area), (start, 1, 12))
        };
        assert_eq!((small(v(6, 12)), small(v(6, 18))), (Some(0), Some(-22)));
        // 8 pages of the log's size and their guard page are an area; a leaf is a PMD's.
        for (arch, huge, pages, shift, wanted) in [
            (Arch::Arm64, false, 9, 16, Some(true)),
            (Arch::Arm64, false, 10, 16, Some(false)),
            (Arch::Arm64, true, 2, 14, Some(false)),
            (Arch::Arm64, true, 2, 16, Some(true)),
            (Arch::Ppc64le, false, 8, 16, Some(true)),
            (Arch::Ppc64le, true, 2, 16, Some(false)),
            (Arch::X86_64, false, 2, 16, None),
        ] {
            let answer = ask_with(arch, v(6, 12), huge, 0, pages, shift);
            assert_eq!(answer.map(|a| a == 0), wanted, "{arch} {huge} {pages} {shift}");
        }
    }
}
