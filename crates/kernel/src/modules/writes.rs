//! What loading writes to a module's text before it is protected: relocations and alternatives.
//!
//! Modelled: places that a scenario names, each in the text and in the init text, in the order and
//! by the means of each architecture. x86-64 stores relocations plainly while the module is
//! unformed, and alternatives by `text_poke_early()`, to which such text is none of a module's:
//! interrupts off and a synchronisation of this CPU. arm64 stores both plainly,
//! `flush_module_icache()` behind them being the one maintenance. powerpc patches branches (and the
//! words of a stub) by `patch_instruction()`, whose error ends the loading, stores other words
//! plainly, and puts alternatives in place by `raw_patch_instruction()`, word by word, without a
//! look at the result. PLTs (arm64) and stubs (powerpc) lie in text and are written as relocations
//! are; powerpc's stub of ftrace is stored plainly in between. From: Linux 6.1, 6.12, 6.18.2 and
//! 7.0 kernel/module/main.c apply_relocations(), post_relocation(); arch/x86/kernel/module.c
//! write_relocate_add(), module_finalize(), arch/x86/kernel/alternative.c text_poke_early();
//! arch/arm64/kernel/module.c, module-plts.c, alternative.c; arch/powerpc/kernel/module_64.c,
//! module.c, arch/powerpc/lib/feature-fixups.c. Not modelled: x86-64's copy beside the text (6.13,
//! 6.14), retpolines and the like, which are alternatives by other names.

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::call::Args;
use crate::errno::EFAULT;
use crate::error::Stop;
use crate::insns::word_of;
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Made, Step, call_step, calls_step, calls_then, once, pause, step_then_others,
};

/// Primary opcode of powerpc's relative branches.
const POWER_BRANCH: u32 = 18;

/// One place of the next module's text, and what comes there.
#[derive(Clone, Debug)]
pub(super) struct Write {
    alternative: bool,
    offset: u64,
    code: Vec<u8>,
}

/// An address, and what is written there.
type Place = (u64, Vec<u8>);

impl Write {
    /// Where it ends, as an offset.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.code.len() as u64)
    }
}

/// `module_relocation(offset, code)`: stands for a row of the next module's relocations.
pub(crate) fn module_relocation(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.name_write(false, args)
}

/// `module_alternative(offset, code)`: stands for a row of its `.altinstructions` that applies.
pub(crate) fn module_alternative(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.name_write(true, args)
}

impl Kernel {
    fn name_write(&mut self, alternative: bool, args: &Args) -> Result<i64, Stop> {
        let (offset, code) = (args.get(0), args.code().to_vec());
        let words = self.arch == Arch::X86_64 || offset % 4 == 0 && code.len().is_multiple_of(4);
        if code.is_empty() || !words {
            return Err(Stop::not_modelled("a part of an instruction"));
        }
        self.users.modules.next.push(Write { alternative, offset, code });
        Ok(0)
    }
}

/// `apply_relocations`; `behind` gets 0 or an error, and says what follows.
pub(super) fn relocations_step(
    places: Vec<Place>,
    behind: impl FnOnce(&mut Kernel, i64) -> Vec<Step> + 'static,
) -> Step {
    once(move |k, _| relocate(k, places.into_iter(), behind))
}

fn relocate(
    k: &mut Kernel,
    mut places: impl Iterator<Item = Place> + 'static,
    behind: impl FnOnce(&mut Kernel, i64) -> Vec<Step> + 'static,
) -> Result<(), Stop> {
    let Some((at, code)) = places.next() else {
        let steps = behind(k, 0);
        k.later(steps);
        return Ok(());
    };
    let arch = k.arch;
    let branch = |word: &[u8]| arch.is_powerpc() && word_of(arch, word) >> 26 == POWER_BRANCH;
    if !code.chunks(4).any(branch) {
        k.later([
            step_then_others(move |k, cpu| k.store_plain(cpu, VirtAddr(at), &code)),
            once(move |k, _| relocate(k, places, behind)),
        ]);
        return Ok(());
    }
    let calls = words(arch, at, &code, "patch_instruction", Fate::Checked);
    let patched = move |k: &mut Kernel, _, error| {
        if error != 0 {
            let steps = behind(k, -EFAULT);
            k.later(steps);
            return Ok(());
        }
        k.later([pause(), once(move |k, _| relocate(k, places, behind))]);
        Ok(())
    };
    k.later([calls_then(calls, Box::new(patched))]);
    Ok(())
}

/// What `module_finalize` does about alternatives.
pub(super) fn alternatives_steps(arch: Arch, places: Vec<Place>) -> Vec<Step> {
    let one = |(at, code): Place| match arch {
        Arch::X86_64 => {
            vec![call_step("text_poke_early", Args::with_code(&[at], &code)), pause()]
        }
        Arch::Arm64 => {
            vec![step_then_others(move |k, cpu| k.store_plain(cpu, VirtAddr(at), &code))]
        }
        _ => {
            let calls = words(arch, at, &code, "raw_patch_instruction", Fate::Dropped);
            vec![calls_step(calls), pause()]
        }
    };
    places.into_iter().flat_map(one).collect()
}

/// Calls that write words one after the other.
fn words(arch: Arch, at: u64, code: &[u8], call: &'static str, fate: Fate) -> Vec<Made> {
    let one = |(n, word): (usize, &[u8])| {
        let args = [at + 4 * n as u64, u64::from(word_of(arch, word))];
        (call, Args::of(&args), fate)
    };
    code.chunks(4).enumerate().map(one).collect()
}

/// Places of one kind, in the texts at two addresses.
pub(super) fn places(texts: [u64; 2], listed: &[Write], alternative: bool) -> Vec<Place> {
    let of = |text: u64| {
        let kind = listed.iter().filter(move |write| write.alternative == alternative);
        kind.map(move |write| (text + write.offset, write.code.clone()))
    };
    texts.into_iter().flat_map(of).collect()
}
