//! Which page tables the kernel of a log has: the size of its pages, the bits of an address.
//!
//! What the user says wins; then the configuration; then what the addresses in the log need. A
//! kernel that is built for more bits than its CPU has falls back to fewer, so the configuration
//! alone does not decide where there is such a choice.

use textbed_arch::{Arch, VirtAddr};
use textbed_kernel::{ADDRESS_SIZES, AddressRow, PAGE_SIZES, Paging};

use super::{Evidence, Options};
use crate::side::SideFiles;

/// Pages of `1 << shift` bytes, for people.
fn pages(shift: u8) -> String {
    match 1u64.checked_shl(shift.into()).unwrap_or(0) {
        bytes @ 0..1024 => format!("pages of {bytes} bytes"),
        bytes => format!("pages of {} KiB", bytes >> 10),
    }
}

/// Page tables, for people.
pub(super) fn text(page_shift: u8, va_bits: u32) -> String {
    match va_bits {
        0 => pages(page_shift),
        bits => format!("{} and {bits} bits of addresses", pages(page_shift)),
    }
}

/// `log2` of the bytes of a page.
pub(super) fn page_shift(
    options: &Options,
    side: &SideFiles,
    evidence: &Evidence,
    arch: Arch,
    because: &mut Vec<String>,
) -> u8 {
    if let Some(shift) = options.page_shift {
        because.push(format!("{}: as given", pages(shift)));
        return shift;
    }
    // By the name that architectures share, or by their own.
    let named = PAGE_SIZES.iter().flat_map(|row| {
        let own = row.switch.map(|switch| format!("CONFIG_{switch}"));
        let names = [Some(format!("CONFIG_PAGE_SIZE_{}B", row.word)), own];
        names.into_iter().flatten().map(|name| (name, row.shift as u8))
    });
    for (option, shift) in named {
        if side.config_tables.contains(&option) {
            because.push(format!("{}: {option}", pages(shift)));
            return shift;
        }
    }
    // Powerpc comes in both: enough ranges that are all multiples of 64 KiB decide.
    let (ranges, odd) = evidence.ranges;
    if arch.is_powerpc() && ranges >= 16 && odd == 0 {
        because.push(format!("{}: {ranges} addresses are multiples of it", pages(16)));
        return 16;
    }
    because.push(format!("{}: nothing says otherwise", pages(12)));
    12
}

/// The bits of an address that the page tables translate.
pub(super) fn va_bits(
    options: &Options,
    side: &SideFiles,
    evidence: &Evidence,
    (arch, page_shift): (Arch, u32),
    because: &mut Vec<String>,
) -> u32 {
    let usual = Paging::new(arch, page_shift);
    let mut found = |bits: u32, why: String| {
        because.push(format!("{bits} bits of addresses: {why}"));
        bits
    };
    if let Some(bits) = options.va_bits {
        return found(bits, "as given".to_owned());
    }
    let sizes = || ADDRESS_SIZES.iter().filter(|r| (r.arch, r.page_shift) == (arch, page_shift));
    let configured = |row: &&AddressRow| {
        let is = |name: &String| name.strip_prefix("CONFIG_") == row.switch;
        row.switch.is_some() && side.config_tables.iter().any(is)
    };
    // x86's kernels are built for both.
    let both = |row: &&AddressRow| arch == Arch::X86_64 && row.fallback.is_some();
    let (lowest, lowest_mapped) = evidence.lowest;
    let chosen = sizes().find(configured);
    match chosen.or_else(|| sizes().find(both)) {
        Some(&AddressRow { bits, fallback: Some(fewer), .. }) => {
            let tree = Paging { va_bits: fewer, ..usual }.tree();
            let beyond = |at: &u64| tree.is_some_and(|tree| !tree.is_canonical(VirtAddr(*at)));
            match (lowest.filter(beyond), chosen.and_then(|row| row.switch)) {
                (Some(address), _) => found(bits, format!("{address:#x}")),
                (None, Some(switch)) => {
                    found(fewer, format!("{switch}, and no address needs more"))
                }
                (None, None) => fewer,
            }
        }
        Some(row) => found(row.bits, row.switch.unwrap_or_default().to_owned()),
        // What is mapped begins in the middle of the kernel's half.
        None => {
            let needed = lowest_mapped.map_or(usual.va_bits, |at| 65 - at.leading_ones());
            let enough = sizes().map(|row| row.bits).filter(|bits| *bits >= needed).min();
            match (enough, lowest_mapped) {
                (Some(bits), Some(at)) if bits != usual.va_bits => {
                    found(bits, format!("{at:#x} is the lowest mapped"))
                }
                _ => enough.unwrap_or(usual.va_bits),
            }
        }
    }
}
