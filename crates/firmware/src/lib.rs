//! Guest routines: machine code with known results, from the ELF files under `firmware/elf/`.
//!
//! Modelled: self-contained position-independent routines, one to a file, with the symbols that lie
//! in their text. Not modelled: relocations, data sections, dynamic linking; a file that needs one
//! of these is refused by name. Copying code needs no emulator, so this crate has none.

mod elf;
mod table;

use textbed_arch::Arch;

pub use elf::{ElfError, Image, Symbol, parse};

/// A guest routine: its code and the places in it that have names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Routine {
    /// The architecture that it runs on.
    pub arch: Arch,
    /// Its name, as in its file's.
    pub name: &'static str,
    /// Its code, to be copied as it is to any address with the alignment of an instruction.
    pub bytes: &'static [u8],
    /// Offset of its first instruction in `bytes`.
    pub entry: u64,
    /// Named places in `bytes`, ascending by offset, then name.
    pub symbols: Vec<Symbol<'static>>,
}

impl Routine {
    /// The named place, if the routine has it.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<&Symbol<'static>> {
        self.symbols.iter().find(|s| s.name == name)
    }

    /// The bytes that a symbol with a size covers.
    #[must_use]
    pub fn bytes_of(&self, name: &str) -> Option<&'static [u8]> {
        let symbol = self.symbol(name)?;
        let start = usize::try_from(symbol.offset).ok()?;
        let end = start.checked_add(usize::try_from(symbol.size).ok()?)?;
        self.bytes.get(start..end)
    }
}

/// Why there is no such routine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FirmwareError {
    /// No file of that name for that architecture.
    #[error("no guest routine '{name}' for {arch}")]
    Unknown {
        /// The architecture asked for.
        arch: Arch,
        /// The name asked for.
        name: String,
    },
    /// The embedded file cannot be used.
    #[error("guest routine '{name}' for {arch}: {why}")]
    Unusable {
        /// The architecture asked for.
        arch: Arch,
        /// The name asked for.
        name: &'static str,
        /// What is wrong with it.
        why: ElfError,
    },
}

/// The routine `name` of `arch`.
///
/// # Errors
/// [`FirmwareError::Unknown`] if there is none; [`FirmwareError::Unusable`] cannot happen for the
/// files of this repository, each of which a test loads.
pub fn load(arch: Arch, name: &str) -> Result<Routine, FirmwareError> {
    let unknown = || FirmwareError::Unknown { arch, name: name.to_owned() };
    let entry = table::of(arch).iter().find(|e| e.name == name).ok_or_else(unknown)?;
    let Image { text, entry: first, symbols } = parse(arch, entry.file)
        .map_err(|why| FirmwareError::Unusable { arch, name: entry.name, why })?;
    Ok(Routine { arch, name: entry.name, bytes: text, entry: first, symbols })
}

/// As [`load`], for callers with a message of their own.
#[must_use]
pub fn routine(arch: Arch, name: &str) -> Option<Routine> {
    load(arch, name).ok()
}

/// Names of the routines of `arch`, ascending. None for an architecture without firmware (ppc32).
pub fn names(arch: Arch) -> impl Iterator<Item = &'static str> {
    table::of(arch).iter().map(|e| e.name)
}
