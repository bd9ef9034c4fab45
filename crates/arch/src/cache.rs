//! Cache geometry as far as it decides which bytes a maintenance instruction reaches.
//!
//! Modelled: line sizes, and arm64's CTR_EL0 that announces them. Not modelled here: sets, ways and
//! replacement (a machine chooses them), and the data cache's levels.

use crate::cite::Cite;
use crate::features::Features;
use crate::isa::Arch;

/// Line sizes of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheGeometry {
    /// Bytes of a data cache line: what one clean reaches.
    pub dline_bytes: u32,
    /// Bytes of an instruction cache line: what one invalidation reaches.
    pub iline_bytes: u32,
}

/// A default geometry with its source.
#[derive(Clone, Copy, Debug)]
pub struct GeometryRow {
    /// The architecture.
    pub arch: Arch,
    /// Its line sizes.
    pub geometry: CacheGeometry,
    /// Why these.
    pub cite: Cite,
}

/// What current machines have. Power's 128 bytes hold for POWER4 and later; 32-bit parts of the
/// 6xx and 7xx families have 32.
pub const GEOMETRIES: [GeometryRow; 5] = [
    row(Arch::X86_64, 64, Cite::memory("CPUID.1:EBX[15:8] x 8 on current x86-64 CPUs")),
    row(Arch::Arm64, 64, Cite::memory("CTR_EL0 of Cortex-A and Neoverse cores")),
    row(Arch::Ppc64le, 128, Cite::memory("POWER4 to POWER10 user's manuals")),
    row(Arch::Ppc64, 128, Cite::memory("POWER4 to POWER10 user's manuals")),
    row(Arch::Ppc32, 32, Cite::read("IBM 750GX UM; MPC7400 UM")),
];

const fn row(arch: Arch, bytes: u32, cite: Cite) -> GeometryRow {
    let geometry = CacheGeometry { dline_bytes: bytes, iline_bytes: bytes };
    GeometryRow { arch, geometry, cite }
}

impl CacheGeometry {
    /// The default of an architecture.
    #[must_use]
    pub fn default_for(arch: Arch) -> CacheGeometry {
        match arch {
            Arch::X86_64 => GEOMETRIES[0].geometry,
            Arch::Arm64 => GEOMETRIES[1].geometry,
            Arch::Ppc64le => GEOMETRIES[2].geometry,
            Arch::Ppc64 => GEOMETRIES[3].geometry,
            Arch::Ppc32 => GEOMETRIES[4].geometry,
        }
    }

    /// First byte of the data line that holds `addr`, for a power-of-two size.
    #[must_use]
    pub fn dline_of(self, addr: u64) -> u64 {
        addr & !u64::from(self.dline_bytes.max(1) - 1)
    }

    /// First byte of the instruction line that holds `addr`, for a power-of-two size.
    #[must_use]
    pub fn iline_of(self, addr: u64) -> u64 {
        addr & !u64::from(self.iline_bytes.max(1) - 1)
    }
}

/// arm64 CTR_EL0, the fields that concern instruction fetch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ctr {
    /// `log2` of the words (4 bytes) in the smallest instruction cache line (bits 3:0).
    pub imin_line: u8,
    /// L1 instruction cache policy (bits 15:14): 2 VIPT, 3 PIPT.
    pub l1ip: u8,
    /// `log2` of the words in the smallest data cache line (bits 19:16).
    pub dmin_line: u8,
    /// Exclusives reservation granule, `log2` of words, 0 unknown (bits 23:20).
    pub erg: u8,
    /// Cache writeback granule, `log2` of words, 0 unknown (bits 27:24).
    pub cwg: u8,
    /// No clean to the point of unification is needed (bit 28).
    pub idc: bool,
    /// No instruction cache invalidation is needed (bit 29); only with IDC.
    pub dic: bool,
}

/// A geometry that CTR_EL0 cannot express.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CtrError {
    /// Not a power of two between 4 bytes and 128 KiB.
    #[error("a line of {bytes} bytes is no power of two from 4 to 131072")]
    LineBytes {
        /// The size asked for.
        bytes: u32,
    },
    /// DIC without IDC, which no machine has.
    #[error("DIC = 1 requires IDC = 1")]
    DicWithoutIdc,
}

impl Ctr {
    /// The register of a CPU with this geometry and these features: PIPT, granules as the data
    /// line.
    ///
    /// # Errors
    /// [`CtrError`] for sizes that the fields cannot hold, and for DIC without IDC.
    pub fn new(geometry: CacheGeometry, features: Features) -> Result<Ctr, CtrError> {
        let log = |bytes: u32| match bytes {
            4..=131_072 if bytes.is_power_of_two() => Ok((bytes.ilog2() - 2) as u8),
            _ => Err(CtrError::LineBytes { bytes }),
        };
        let (idc, dic) =
            (features.contains(Features::ARM_IDC), features.contains(Features::ARM_DIC));
        if dic && !idc {
            return Err(CtrError::DicWithoutIdc);
        }
        let (imin_line, dmin_line) = (log(geometry.iline_bytes)?, log(geometry.dline_bytes)?);
        Ok(Ctr { imin_line, l1ip: 3, dmin_line, erg: dmin_line, cwg: dmin_line, idc, dic })
    }

    /// Decodes the register. Source: Arm ARM DDI 0487, CTR_EL0.
    #[must_use]
    pub fn decode(raw: u64) -> Ctr {
        let nibble = |at: u32| ((raw >> at) & 15) as u8;
        Ctr {
            imin_line: nibble(0),
            l1ip: ((raw >> 14) & 3) as u8,
            dmin_line: nibble(16),
            erg: nibble(20),
            cwg: nibble(24),
            idc: raw & 1 << 28 != 0,
            dic: raw & 1 << 29 != 0,
        }
    }

    /// The register's value; bit 31 is one.
    #[must_use]
    pub fn encode(self) -> u64 {
        let nibble = |value: u8, at: u32| u64::from(value & 15) << at;
        nibble(self.imin_line, 0)
            | u64::from(self.l1ip & 3) << 14
            | nibble(self.dmin_line, 16)
            | nibble(self.erg, 20)
            | nibble(self.cwg, 24)
            | u64::from(self.idc) << 28
            | u64::from(self.dic) << 29
            | 1 << 31
    }

    /// Line sizes in bytes.
    #[must_use]
    pub fn geometry(self) -> CacheGeometry {
        let bytes = |log_words: u8| 4u32 << log_words.min(15);
        CacheGeometry { dline_bytes: bytes(self.dmin_line), iline_bytes: bytes(self.imin_line) }
    }

    /// Feature bits that the register sets. IDC here is the register's bit; it is also effective
    /// where CLIDR_EL1 says so ([`effective_idc`]).
    #[must_use]
    pub fn features(self) -> Features {
        let mut features = Features::empty();
        features.set(Features::ARM_IDC, self.idc);
        features.set(Features::ARM_DIC, self.dic);
        features
    }
}

/// Whether no clean to the point of unification is needed: CTR_EL0.IDC = 1, or CLIDR_EL1 has
/// LoC = 0, or LoUIS = 0 and LoUU = 0.
///
/// Source: Arm ARM DDI 0487, CTR_EL0.IDC (read); Linux 6.19 arm64 `cache.h` (read).
#[must_use]
pub fn effective_idc(ctr: u64, clidr: u64) -> bool {
    let level = |at: u32| (clidr >> at) & 7;
    let (louis, loc, louu) = (level(21), level(24), level(27));
    Ctr::decode(ctr).idc || loc == 0 || (louis == 0 && louu == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctr_of_known_cores() {
        // Cortex-A57: 64-byte lines, neither IDC nor DIC. Neoverse N1: both.
        let a57 = Ctr::decode(0x8444_c004);
        assert_eq!(a57.geometry(), CacheGeometry { dline_bytes: 64, iline_bytes: 64 });
        assert_eq!(a57.features(), Features::empty());
        let n1 = Ctr::decode(0xb444_c004);
        assert_eq!(n1.features(), Features::ARM_IDC | Features::ARM_DIC);
        assert_eq!((a57.encode(), n1.encode()), (0x8444_c004, 0xb444_c004));
        // Two line sizes, as on big.LITTLE systems with 32-byte instruction lines.
        let mixed = CacheGeometry { dline_bytes: 64, iline_bytes: 32 };
        let ctr = Ctr::new(mixed, Features::ARM_IDC).unwrap();
        assert_eq!(Ctr::decode(ctr.encode()).geometry(), mixed);
        assert_eq!(Ctr::new(mixed, Features::ARM_DIC), Err(CtrError::DicWithoutIdc));
        let odd = CacheGeometry { dline_bytes: 48, iline_bytes: 64 };
        assert_eq!(Ctr::new(odd, Features::empty()), Err(CtrError::LineBytes { bytes: 48 }));
    }

    #[test]
    fn every_ctr_round_trips() {
        for bits in 0..=u32::from(u16::MAX) {
            // Spread sixteen bits over the fields.
            let raw = u64::from(bits & 15)
                | u64::from(bits >> 4 & 3) << 14
                | u64::from(bits >> 6 & 0xff) << 16
                | u64::from(bits >> 14 & 3) << 28
                | 1 << 31;
            assert_eq!(Ctr::decode(raw).encode(), raw);
        }
    }

    #[test]
    fn idc_is_effective_three_ways() {
        let clidr = |louis: u64, loc: u64, louu: u64| louis << 21 | loc << 24 | louu << 27;
        assert!(effective_idc(1 << 28, clidr(1, 2, 1)));
        assert!(effective_idc(0, clidr(1, 0, 1)));
        assert!(effective_idc(0, clidr(0, 2, 0)));
        assert!(!effective_idc(0, clidr(0, 2, 1)));
        assert!(!effective_idc(0, clidr(1, 2, 0)));
    }

    #[test]
    fn every_architecture_has_its_row() {
        for (arch, row) in Arch::ALL.into_iter().zip(GEOMETRIES) {
            assert_eq!(arch, row.arch);
            assert_eq!(CacheGeometry::default_for(arch), row.geometry);
        }
        let g = CacheGeometry { dline_bytes: 64, iline_bytes: 128 };
        assert_eq!((g.dline_of(0x10ff), g.iline_of(0x10ff)), (0x10c0, 0x1080));
    }
}
