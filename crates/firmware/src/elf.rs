//! The loader: one routine out of one ELF file.
//!
//! Modelled: 64-bit executables of the expected machine and byte order whose only memory is one
//! `.text`. Every offset and size is checked; what cannot be loaded is refused with its reason.

use goblin::elf::{
    Elf,
    header::{EM_AARCH64, EM_PPC64, EM_X86_64, ET_EXEC},
    section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_PROGBITS, SHT_REL, SHT_RELA},
    sym::{STT_FILE, STT_SECTION},
};
use textbed_arch::Arch;

/// A named place in a routine's text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Symbol<'a> {
    /// Distance from the first byte of text, in bytes.
    pub offset: u64,
    /// Its name.
    pub name: &'a str,
    /// Bytes that it covers, 0 if the file does not say.
    pub size: u64,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image<'a> {
    /// The text.
    pub text: &'a [u8],
    /// Offset of the first instruction in it.
    pub entry: u64,
    /// Named places in it, ascending by offset, then name.
    pub symbols: Vec<Symbol<'a>>,
}

/// Why a file cannot be used as a routine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Malformed(String),
    /// The header tables reach beyond the file.
    #[error("{count} {what} do not fit a file of {file_bytes} bytes")]
    TooMany {
        /// Which table.
        what: &'static str,
        /// Its entries by the header.
        count: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// Built for another machine.
    #[error("built for ELF machine {found}, not {wanted} ({arch})")]
    WrongMachine {
        /// What was asked for.
        arch: Arch,
        /// Its `e_machine`.
        wanted: u16,
        /// The file's.
        found: u16,
    },
    /// No 64-bit file, or the other byte order.
    #[error("wrong class or byte order for {arch}")]
    WrongFormat {
        /// What was asked for.
        arch: Arch,
    },
    /// The loader has no such architecture.
    #[error("no guest code for {arch}: not modelled")]
    NotModelled {
        /// What was asked for.
        arch: Arch,
    },
    /// Not a linked executable.
    #[error("ELF type {0}, not a linked executable")]
    WrongType(u16),
    /// No `.text`, or an empty one, or several.
    #[error("{0} executable sections, not one")]
    TextCount(usize),
    /// The text is no plain bytes of the file.
    #[error("the text (offset {offset:#x}, {bytes:#x} bytes) does not lie in the file")]
    TextOutside {
        /// Its offset in the file.
        offset: u64,
        /// Its size.
        bytes: u64,
    },
    /// It needs memory beside its text.
    #[error("section '{0}' needs memory of its own: not modelled")]
    HasData(String),
    /// It was not linked to the end.
    #[error("section '{0}' holds relocations: not modelled")]
    HasRelocations(String),
    /// Execution would begin outside the text or between two instructions.
    #[error("entry point {0:#x} is no instruction of the text")]
    BadEntry(u64),
}

/// Reads a routine from `file`.
///
/// # Errors
/// [`ElfError`] for anything but a self-contained executable of `arch`; never panics.
pub fn parse(arch: Arch, file: &[u8]) -> Result<Image<'_>, ElfError> {
    let wanted = match arch {
        Arch::X86_64 => EM_X86_64,
        Arch::Arm64 => EM_AARCH64,
        Arch::Ppc64le | Arch::Ppc64 => EM_PPC64,
        Arch::Ppc32 => return Err(ElfError::NotModelled { arch }),
    };
    check_counts(file)?;
    let elf = Elf::parse(file).map_err(|e| ElfError::Malformed(e.to_string()))?;
    if !elf.is_64 || elf.little_endian != arch.is_little_endian() {
        return Err(ElfError::WrongFormat { arch });
    }
    if elf.header.e_machine != wanted {
        return Err(ElfError::WrongMachine { arch, wanted, found: elf.header.e_machine });
    }
    if elf.header.e_type != ET_EXEC {
        return Err(ElfError::WrongType(elf.header.e_type));
    }
    let (base, text) = text_of(&elf, file)?;
    let bytes = text.len() as u64;
    let entry = elf.entry.wrapping_sub(base);
    if entry >= bytes || entry % arch.code_unit_bytes() != 0 {
        return Err(ElfError::BadEntry(elf.entry));
    }
    Ok(Image { text, entry, symbols: symbols_of(&elf, base, bytes) })
}

/// Refuses header tables that cannot fit, before anything is allocated for them.
fn check_counts(file: &[u8]) -> Result<(), ElfError> {
    let header = Elf::parse_header(file).map_err(|e| ElfError::Malformed(e.to_string()))?;
    let tables = [
        ("program headers", header.e_phoff, header.e_phnum, header.e_phentsize),
        ("section headers", header.e_shoff, header.e_shnum, header.e_shentsize),
    ];
    let file_bytes = file.len() as u64;
    for (what, offset, count, entry_bytes) in tables {
        let size = u64::from(count) * u64::from(entry_bytes);
        if count > 0 && offset.checked_add(size).is_none_or(|end| end > file_bytes) {
            return Err(ElfError::TooMany { what, count: count.into(), file_bytes });
        }
    }
    Ok(())
}

/// The address and bytes of the one executable section, when nothing else needs memory.
fn text_of<'a>(elf: &Elf<'_>, file: &'a [u8]) -> Result<(u64, &'a [u8]), ElfError> {
    let name = |at: usize| elf.shdr_strtab.get_at(at).unwrap_or("?").to_owned();
    let (alloc, exec) = (u64::from(SHF_ALLOC), u64::from(SHF_EXECINSTR));
    let mut texts = Vec::new();
    for section in &elf.section_headers {
        if section.sh_size == 0 {
            continue;
        }
        if matches!(section.sh_type, SHT_REL | SHT_RELA) {
            return Err(ElfError::HasRelocations(name(section.sh_name)));
        }
        if section.sh_flags & exec != 0 {
            texts.push(section);
        } else if section.sh_flags & alloc != 0 {
            return Err(ElfError::HasData(name(section.sh_name)));
        }
    }
    let [text] = texts.as_slice() else { return Err(ElfError::TextCount(texts.len())) };
    let outside = ElfError::TextOutside { offset: text.sh_offset, bytes: text.sh_size };
    if text.sh_type == SHT_NOBITS || text.sh_type != SHT_PROGBITS {
        return Err(outside);
    }
    let range = usize::try_from(text.sh_offset)
        .ok()
        .zip(text.sh_offset.checked_add(text.sh_size).and_then(|end| usize::try_from(end).ok()));
    match range.and_then(|(start, end)| file.get(start..end)) {
        Some(bytes) => Ok((text.sh_addr, bytes)),
        None => Err(outside),
    }
}

/// Named places in the text. What the linker adds (`_end`, mapping symbols) lies behind it or has
/// no name of its own.
fn symbols_of<'a>(elf: &Elf<'a>, base: u64, bytes: u64) -> Vec<Symbol<'a>> {
    let mut symbols: Vec<_> = elf
        .syms
        .iter()
        .filter(|s| s.st_shndx != 0 && !matches!(s.st_type(), STT_SECTION | STT_FILE))
        .filter_map(|s| {
            let name = elf.strtab.get_at(s.st_name)?;
            let offset = s.st_value.wrapping_sub(base);
            let inside = offset < bytes && s.st_size <= bytes - offset;
            (inside && !name.is_empty() && !name.starts_with('$')).then_some(Symbol {
                offset,
                name,
                size: s.st_size,
            })
        })
        .collect();
    symbols.sort_unstable();
    symbols
}
