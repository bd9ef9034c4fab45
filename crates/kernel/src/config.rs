//! Configuration and boot options, as data.
//!
//! Only options that change what a modelled call does. An option that is not in the table is an
//! error, never ignored.

use textbed_arch::{Arch, Cite};
use thiserror::Error;

use crate::pages::{ADDRESS_SIZES, PAGE_SIZES, Paging, USUAL_VA_BITS};
use crate::suggest::{self, did_you_mean};

/// What values an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptionKind {
    /// `y` or `n` (also `on`, `off`, `1`, `0`).
    Switch,
    /// A number in a range, both ends included.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Name without `CONFIG_`; boot parameters in lower case.
    pub name: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// Architectures that have it.
    pub archs: &'static [Arch],
    /// Default where no row of `defaults` names the architecture.
    pub default: &'static str,
    /// Defaults of single architectures.
    pub defaults: &'static [(Arch, &'static str)],
    /// What it changes.
    pub doc: &'static str,
    /// Where that is to be seen.
    pub cite: Cite,
}

/// The option that chooses among [`PAGE_SIZES`].
const PAGE_SIZE: &str = "page_size";
/// The option that chooses among [`ADDRESS_SIZES`].
const VA_BITS: &str = "va_bits";

/// Every architecture.
const ANY: &[Arch] = &Arch::ALL;

/// Every option.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "STRICT_KERNEL_RWX",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "y",
        defaults: &[],
        doc: "kernel text is read-only; powerpc patches text through an alias",
        cite: Cite::read("Linux 6.12 arch/Kconfig, arch/powerpc/lib/code-patching.c"),
    },
    OptionSpec {
        name: "STRICT_MODULE_RWX",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "y",
        defaults: &[],
        doc: "module memory is not executable from the start on powerpc (PAGE_KERNEL instead of \
              PAGE_KERNEL_EXEC); x86 uses its cache of executable memory (6.15 on)",
        cite: Cite::read("Linux 5.19 and 6.8 arch/powerpc/kernel/module.c"),
    },
    OptionSpec {
        name: "rodata",
        kind: OptionKind::Word(&["off", "on", "full", "noalias"]),
        archs: ANY,
        default: "on",
        defaults: &[(Arch::Arm64, "full")],
        doc: "boot parameter; full (arm64 only) also protects the direct map of read-only areas \
              and maps it by pages, noalias (arm64 only) doesn't (up to 6.17 that is \
              CONFIG_RODATA_FULL_DEFAULT_ENABLED=n), and on is one of the two, by version",
        cite: Cite::read(
            "Linux 6.12, 6.18.2 arch/arm64/mm/pageattr.c can_set_direct_map(), \
             arch/arm64/include/asm/setup.h arch_parse_debug_rodata()",
        ),
    },
    OptionSpec {
        name: "debug_pagealloc",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "n",
        defaults: &[],
        doc: "boot parameter; the direct map is made of pages, free pages are not in it, unmapping a \
              vmalloc area flushes at once",
        cite: Cite::read(
            "Linux 6.12 mm/vmalloc.c, mm/page_alloc.c, arch/x86/mm/pat/set_memory.c \
             __kernel_map_pages(), arch/arm64/mm/pageattr.c",
        ),
    },
    OptionSpec {
        name: "kfence",
        kind: OptionKind::Word(&["n", "y", "late"]),
        archs: &[Arch::Arm64],
        default: "n",
        defaults: &[],
        doc: "CONFIG_KFENCE with a pool, made while booting (y) or later \
              (kfence.sample_interval=0 at boot); from 6.1 on the direct map is made of pages for \
              it, from 6.4 on for a late one alone",
        cite: Cite::read(
            "Linux 6.1, 6.6, 6.12 arch/arm64/mm/pageattr.c can_set_direct_map(), asm/kfence.h",
        ),
    },
    OptionSpec {
        name: "nohugevmalloc",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "n",
        defaults: &[],
        doc: "boot parameter; vmalloc never maps large leaves",
        cite: Cite::read("Linux 6.12 mm/vmalloc.c vmap_allow_huge"),
    },
    OptionSpec {
        name: "nr_nodes",
        kind: OptionKind::Count { min: 1, max: 64 },
        archs: ANY,
        default: "1",
        defaults: &[],
        doc: "online NUMA nodes; up to 6.12 a huge vmalloc needs a large leaf for each",
        cite: Cite::read("Linux 6.12 mm/vmalloc.c"),
    },
    OptionSpec {
        name: "kprobes_optimization",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "y",
        defaults: &[],
        doc: "sysctl debug.kprobes-optimization; breakpoints of probes become jumps where they can",
        cite: Cite::read("Linux 6.12 kernel/kprobes.c"),
    },
    OptionSpec {
        name: "ftrace_call_ops",
        kind: OptionKind::Switch,
        archs: &[Arch::Arm64],
        default: "y",
        defaults: &[],
        doc: "DYNAMIC_FTRACE_WITH_CALL_OPS (6.3 on): the ops of a site's tracer stand in a literal \
              before the function",
        cite: Cite::read("Linux 6.12 arch/arm64/Kconfig, arch/arm64/kernel/ftrace.c"),
    },
    OptionSpec {
        name: "skip_text_poke_sync",
        kind: OptionKind::Count { min: 0, max: 3 },
        archs: ANY,
        default: "0",
        defaults: &[],
        doc: "a mistake to seed: x86's INT3 protocol leaves out the synchronisation behind this \
              phase (0: none is left out)",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
    OptionSpec {
        name: "skip_text_poke_order",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "n",
        defaults: &[],
        doc: "a mistake to seed: a single replacement of x86 (6.16 on) joins what is pending in no \
              order, where the trap's handler searches by halves",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
    OptionSpec {
        name: "skip_table_flush",
        kind: OptionKind::Switch,
        archs: ANY,
        default: "n",
        defaults: &[],
        doc: "a mistake to seed: a page-table page that is empty where a large leaf is to come \
              goes back without a flush",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
    OptionSpec {
        name: "page_size",
        kind: OptionKind::Word(&["4K", "16K", "64K"]),
        archs: ANY,
        default: "4K",
        defaults: &[],
        doc: "the kernel's base page, also by its own name: CONFIG_ARM64_16K_PAGES=y, \
              CONFIG_ARM64_64K_PAGES=y, CONFIG_PPC_64K_PAGES=y",
        cite: Cite::read("Linux 6.12 arch/arm64/Kconfig, arch/powerpc/Kconfig (Page size)"),
    },
    OptionSpec {
        name: VA_BITS,
        kind: OptionKind::Word(&["32", "36", "39", "42", "47", USUAL_VA_BITS, "52", "57"]),
        archs: &[Arch::X86_64, Arch::Arm64],
        default: USUAL_VA_BITS,
        defaults: &[(Arch::Ppc64le, "52"), (Arch::Ppc64, "52"), (Arch::Ppc32, "32")],
        doc: "bits of an address that the page tables translate: x86-64 48, or 57 with LA57; \
              arm64 39, 48 or 52 with pages of 4 KiB, 36, 47, 48 or 52 with 16 KiB, 42, 48 or 52 \
              with 64 KiB; also by its own name, as CONFIG_ARM64_VA_BITS_39=y, CONFIG_X86_5LEVEL=y",
        cite: Cite::read("Linux 6.12 arch/arm64/Kconfig, arch/x86/Kconfig"),
    },
    OptionSpec {
        name: "memory_mib",
        kind: OptionKind::Count { min: 64, max: 65536 },
        archs: ANY,
        default: "1024",
        defaults: &[(Arch::Arm64, "256"), (Arch::Ppc32, "256")],
        doc: "memory of the modelled machine in MiB",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
    OptionSpec {
        name: "icache_sets",
        kind: OptionKind::Count { min: 0, max: 65536 },
        archs: ANY,
        default: "0",
        defaults: &[],
        doc: "sets of each CPU's instruction cache, a power of two: it keeps what was executed until \
              it is invalidated or its way is taken (0: it keeps whatever it may)",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
    OptionSpec {
        name: "icache_ways",
        kind: OptionKind::Count { min: 1, max: 64 },
        archs: ANY,
        default: "4",
        defaults: &[],
        doc: "lines of such a set; which one goes for another is the policy's choice",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
    OptionSpec {
        name: "first_cpu_iline",
        kind: OptionKind::Count { min: 0, max: 2048 },
        archs: &[Arch::Arm64],
        default: "0",
        defaults: &[],
        doc: "bytes of CPU 0's instruction line, a power of two, where other CPUs have another one \
              (0: all have 64)",
        cite: Cite::deduced("an option of the model, not of Linux"),
    },
];

/// Values of all options for one architecture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    arch: Arch,
    /// In the order of [`OPTIONS`].
    values: Vec<String>,
}

/// Why an option was refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// No such option.
    #[error("unknown option '{name}'{}", did_you_mean(*suggestion))]
    Unknown {
        /// As written.
        name: String,
        /// The nearest one.
        suggestion: Option<&'static str>,
    },
    /// A value that the option does not take.
    #[error("on {arch} option {name} takes {expected}, not '{value}'{elsewhere}")]
    Value {
        /// The option.
        name: &'static str,
        /// Where.
        arch: Arch,
        /// Which architectures take it, in words; empty if none does.
        elsewhere: String,
        /// As written.
        value: String,
        /// What it takes.
        expected: String,
    },
}

/// `: LEAD arm64 and ppc64`, or nothing.
fn named(archs: &[Arch], lead: &str) -> String {
    let names: Vec<&str> = archs.iter().map(|arch| arch.name()).collect();
    if names.is_empty() { String::new() } else { format!(": {lead} {}", names.join(" and ")) }
}

impl OptionSpec {
    /// Its default on an architecture.
    #[must_use]
    pub fn default_for(&self, arch: Arch) -> &'static str {
        let own = self.defaults.iter().find(|(a, _)| *a == arch);
        own.map_or(self.default, |(_, value)| value)
    }

    /// What it takes, in words.
    fn expected(&self, arch: Arch) -> String {
        match self.kind {
            OptionKind::Switch => "y or n".to_owned(),
            OptionKind::Count { min, max } => format!("a number from {min} to {max}"),
            OptionKind::Word(words) => {
                let fit: Vec<&str> =
                    words.iter().copied().filter(|w| self.word_fits(w, arch)).collect();
                fit.join(" or ")
            }
        }
    }

    /// The other architectures that take a value, in words.
    fn taken_elsewhere(&self, value: &str) -> String {
        let takes = |arch: &Arch| self.archs.contains(arch) && self.accept(value, *arch).is_some();
        let archs: Vec<Arch> = Arch::ALL.into_iter().filter(takes).collect();
        named(&archs, "that is a word of")
    }

    /// Whether an architecture has the option at all.
    #[must_use]
    pub fn is_for(&self, arch: Arch) -> bool {
        self.archs.contains(&arch)
    }

    /// Whether the architecture knows the word.
    fn word_fits(&self, word: &str, arch: Arch) -> bool {
        match self.name {
            "rodata" => !["full", "noalias"].contains(&word) || arch == Arch::Arm64,
            PAGE_SIZE => PAGE_SIZES.iter().any(|r| r.word == word && r.archs.contains(&arch)),
            VA_BITS => match ADDRESS_SIZES.iter().any(|r| r.arch == arch) {
                true => ADDRESS_SIZES.iter().any(|r| r.word == word && r.arch == arch),
                false => word == self.default_for(arch),
            },
            _ => true,
        }
    }

    /// The canonical spelling of a value, if the option takes it.
    fn accept(&self, value: &str, arch: Arch) -> Option<String> {
        match self.kind {
            OptionKind::Switch => match value {
                "y" | "on" | "1" | "yes" | "true" => Some("y".to_owned()),
                "n" | "off" | "0" | "no" | "false" => Some("n".to_owned()),
                _ => None,
            },
            OptionKind::Count { min, max } => {
                let number = value.parse::<u64>().ok()?;
                (min..=max).contains(&number).then(|| number.to_string())
            }
            OptionKind::Word(words) => {
                (words.contains(&value) && self.word_fits(value, arch)).then(|| value.to_owned())
            }
        }
    }
}

impl Config {
    /// The defaults of an architecture.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self { arch, values: OPTIONS.iter().map(|o| o.default_for(arch).to_owned()).collect() }
    }

    /// The architecture whose options these are.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Sets one option; a leading `CONFIG_` is accepted.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let short = name.strip_prefix("CONFIG_").unwrap_or(name);
        let (short, value) = self.by_switch(short, value)?;
        let found = OPTIONS.iter().zip(self.values.iter_mut()).find(|(o, _)| o.name == short);
        let Some((spec, slot)) = found else {
            let suggestion = suggest::nearest(short, OPTIONS.iter().map(|o| o.name));
            return Err(ConfigError::Unknown { name: name.to_owned(), suggestion });
        };
        match spec.accept(value, self.arch) {
            Some(accepted) => {
                *slot = accepted;
                Ok(())
            }
            None => Err(ConfigError::Value {
                name: spec.name,
                arch: self.arch,
                elsewhere: spec.taken_elsewhere(value),
                value: value.to_owned(),
                expected: spec.expected(self.arch),
            }),
        }
    }

    /// Linux's own switch of a page size is `page_size` with that value, and so are those of
    /// address bits `va_bits`.
    fn by_switch<'a>(
        &self,
        name: &'a str,
        value: &'a str,
    ) -> Result<(&'a str, &'a str), ConfigError> {
        let sizes = PAGE_SIZES.iter().map(|r| (r.switch, (PAGE_SIZE, r.word), r.archs));
        let bits = ADDRESS_SIZES
            .iter()
            .map(|r| (r.switch, (VA_BITS, r.word), std::slice::from_ref(&r.arch)));
        let Some((switch, meant, archs)) = sizes.chain(bits).find(|row| row.0 == Some(name)) else {
            return Ok((if name == "ARM64_VA_BITS" { VA_BITS } else { name }, value));
        };
        let there = archs.contains(&self.arch);
        if there && ["y", "on", "1", "yes", "true"].contains(&value) {
            return Ok(meant);
        }
        let (expected, elsewhere) = if there {
            ("y (one of the sizes is chosen)".to_owned(), String::new())
        } else {
            ("nothing".to_owned(), named(archs, "such a choice is that of"))
        };
        let (name, arch) = (switch.unwrap_or(PAGE_SIZE), self.arch);
        Err(ConfigError::Value { name, arch, elsewhere, value: value.to_owned(), expected })
    }

    /// `log2` of the base page's bytes.
    pub(crate) fn page_shift(&self) -> u32 {
        let row = PAGE_SIZES.iter().find(|r| Some(r.word) == self.get(PAGE_SIZE));
        row.map_or(textbed_arch::FRAME_SHIFT, |r| r.shift)
    }

    /// The page tables of the kernel, with hashed ones or not.
    pub(crate) fn paging(&self, hashed: bool) -> Paging {
        let shift = self.page_shift();
        if hashed {
            return Paging::hashed(self.arch, shift);
        }
        Paging { va_bits: self.count(VA_BITS) as u32, ..Paging::new(self.arch, shift) }
    }

    /// The value of an option in its canonical spelling.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.list().find(|(o, _)| o.name == name).map(|(_, value)| value)
    }

    /// Every option with its value, in table order.
    pub fn list(&self) -> impl Iterator<Item = (&'static OptionSpec, &str)> {
        OPTIONS.iter().zip(self.values.iter().map(String::as_str))
    }

    /// Whether a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.get(name) == Some("y")
    }

    /// The value of a count; 0 for a name that is none.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.get(name).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Whether permissions of kernel memory are enforced at all (`rodata_enabled`).
    pub(crate) fn rodata_enabled(&self) -> bool {
        self.get("rodata") != Some("off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_the_option_takes() {
        for arch in Arch::ALL {
            for option in OPTIONS {
                let default = option.default_for(arch);
                assert_eq!(
                    option.accept(default, arch).as_deref(),
                    Some(default),
                    "{}",
                    option.name
                );
            }
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let mut config = Config::new(Arch::X86_64);
        let typo = config.set("STRICT_MODULE_RWC", "y").unwrap_err();
        assert!(typo.to_string().contains("did you mean 'STRICT_MODULE_RWX'"), "{typo}");
        let full = config.set("rodata", "full").unwrap_err();
        let said = "on x86_64 option rodata takes off or on, not 'full': that is a word of arm64";
        assert_eq!(full.to_string(), said);
        assert!(config.set("nr_nodes", "0").is_err() && config.set("nr_nodes", "x").is_err());
        config.set("CONFIG_STRICT_MODULE_RWX", "off").unwrap();
        assert_eq!(config.get("STRICT_MODULE_RWX"), Some("n"));
        assert_eq!(Config::new(Arch::Arm64).get("rodata"), Some("full"));
    }

    #[test]
    fn pages_that_no_kernel_of_an_architecture_has_are_refused() {
        let said = |arch, name, value| {
            let mut config = Config::new(arch);
            let set = config.set(name, value).map(|()| config.page_shift());
            set.map_err(|error| error.to_string())
        };
        for arch in Arch::ALL {
            assert_eq!(Config::new(arch).page_shift(), 12, "{arch}");
        }
        assert_eq!(said(Arch::Arm64, "page_size", "16K"), Ok(14));
        assert_eq!(said(Arch::Arm64, "CONFIG_ARM64_64K_PAGES", "y"), Ok(16));
        assert_eq!(said(Arch::Ppc64le, "PPC_64K_PAGES", "y"), Ok(16));
        for (arch, name, value, expected) in [
            (
                Arch::Ppc64,
                "page_size",
                "16K",
                "page_size takes 4K or 64K, not '16K': that is a word of arm64",
            ),
            (Arch::Arm64, "page_size", "8K", "page_size takes 4K or 16K or 64K, not '8K'"),
            (
                Arch::X86_64,
                "CONFIG_ARM64_64K_PAGES",
                "y",
                "ARM64_64K_PAGES takes nothing, not 'y': such a choice is that of arm64",
            ),
            (
                Arch::Arm64,
                "ARM64_64K_PAGES",
                "n",
                "ARM64_64K_PAGES takes y (one of the sizes is chosen), not 'n'",
            ),
        ] {
            assert_eq!(said(arch, name, value), Err(format!("on {arch} option {expected}")));
        }
    }
}
