//! Physical memory: frames in an arena, each allocated at its first store.
//!
//! Modelled: bytes of memory, as the coherent data side sees them. A frame that was never written
//! reads as junk that differs from frame to frame ([`junk_word`]), so that what is left over shows
//! as left over. A frame filled with a repeating 8-byte pattern costs no page. Not modelled: device
//! memory and memory types.

use rustc_hash::FxHashMap;
use textbed_arch::{FRAME_BYTES, FRAME_SHIFT, Pfn, PhysAddr};

use crate::MachineError;
use crate::numbers::SplitMix64;

const FRAME: usize = FRAME_BYTES as usize;

/// The 8 bytes that a never-written frame repeats. Every byte lies in 0x40 to 0x7f: neither zero
/// nor a trap fill (x86 `cc`, arm64 `d4202000`, powerpc `7fe00008`) nor poison 6b repeated.
#[must_use]
pub fn junk_word(pfn: Pfn) -> [u8; 8] {
    let z = SplitMix64(pfn.0).number();
    (z & 0x3f3f_3f3f_3f3f_3f3f | 0x4040_4040_4040_4040).to_le_bytes()
}

/// What a written frame holds.
#[derive(Clone)]
enum Contents {
    /// These 8 bytes again and again.
    Word([u8; 8]),
    /// Anything.
    Bytes(Box<[u8; FRAME]>),
}

/// Physical memory from address 0.
#[derive(Clone)]
pub(crate) struct Memory {
    bytes: u64,
    frames: FxHashMap<u64, Contents>,
}

impl Memory {
    /// Memory of so many bytes, a multiple of a frame.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, frames: FxHashMap::default() }
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    /// Frames that hold bytes of their own (not junk, not a pattern).
    pub(crate) fn frames_held(&self) -> usize {
        self.frames.values().filter(|c| matches!(c, Contents::Bytes(_))).count()
    }

    /// Checks that the range lies in memory.
    pub(crate) fn check(&self, phys: PhysAddr, len: u64) -> Result<(), MachineError> {
        match phys.checked_add(len) {
            Some(end) if end.0 <= self.bytes => Ok(()),
            _ => Err(MachineError::OutsideMemory { phys, len }),
        }
    }

    /// Reads bytes.
    pub(crate) fn read(&self, phys: PhysAddr, out: &mut [u8]) -> Result<(), MachineError> {
        self.check(phys, out.len() as u64)?;
        let (mut at, mut rest) = (phys.0, out);
        while !rest.is_empty() {
            let offset = (at & (FRAME_BYTES - 1)) as usize;
            let take = rest.len().min(FRAME - offset);
            let (here, after) = rest.split_at_mut(take);
            match self.frames.get(&(at >> FRAME_SHIFT)) {
                Some(Contents::Bytes(frame)) => here.copy_from_slice(&frame[offset..offset + take]),
                Some(Contents::Word(word)) => repeat(word, offset, here),
                None => repeat(&junk_word(Pfn(at >> FRAME_SHIFT)), offset, here),
            }
            rest = after;
            at += take as u64;
        }
        Ok(())
    }

    /// The 8 bytes at a multiple of 8, or `None` outside memory.
    pub(crate) fn word(&self, phys: PhysAddr) -> Option<[u8; 8]> {
        if phys.checked_add(8)?.0 > self.bytes || !phys.is_aligned(3) {
            return None;
        }
        let offset = phys.page_offset() as usize;
        Some(match self.frames.get(&phys.page_number()) {
            Some(Contents::Bytes(frame)) => {
                let mut word = [0; 8];
                word.copy_from_slice(&frame[offset..offset + 8]);
                word
            }
            Some(Contents::Word(word)) => *word,
            None => junk_word(phys.pfn()),
        })
    }

    /// The 4 bytes at a multiple of 4 as a number, or `None` outside memory.
    pub(crate) fn half_word(&self, phys: PhysAddr, big_endian: bool) -> Option<u32> {
        let word = self.word(phys.align_down(3))?;
        let at = (phys.0 & 7) as usize;
        let half: [u8; 4] = word.get(at..at + 4)?.try_into().ok()?;
        Some(if big_endian { u32::from_be_bytes(half) } else { u32::from_le_bytes(half) })
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, phys: PhysAddr, bytes: &[u8]) -> Result<(), MachineError> {
        self.check(phys, bytes.len() as u64)?;
        let (mut at, mut rest) = (phys.0, bytes);
        while !rest.is_empty() {
            let offset = (at & (FRAME_BYTES - 1)) as usize;
            let (here, after) = rest.split_at(rest.len().min(FRAME - offset));
            let frame = self.own(Pfn(at >> FRAME_SHIFT));
            frame[offset..offset + here.len()].copy_from_slice(here);
            rest = after;
            at += here.len() as u64;
        }
        Ok(())
    }

    /// Repeats `pattern` (1, 2, 4 or 8 bytes keep whole frames free of charge) from `phys` on, the
    /// first byte of the pattern first.
    pub(crate) fn fill(
        &mut self,
        phys: PhysAddr,
        len: u64,
        pattern: &[u8],
    ) -> Result<(), MachineError> {
        self.check(phys, len)?;
        if pattern.is_empty() {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let at = phys.0 + done;
            let offset = at & (FRAME_BYTES - 1);
            let take = (len - done).min(FRAME_BYTES - offset);
            let phase = (done % pattern.len() as u64) as usize;
            if take == FRAME_BYTES && matches!(pattern.len(), 1 | 2 | 4 | 8) {
                let mut word = [0; 8];
                cycle(pattern, phase, &mut word);
                self.frames.insert(at >> FRAME_SHIFT, Contents::Word(word));
            } else {
                let frame = self.own(Pfn(at >> FRAME_SHIFT));
                let offset = offset as usize;
                cycle(pattern, phase, &mut frame[offset..offset + take as usize]);
            }
            done += take;
        }
        Ok(())
    }

    /// The frame as bytes of its own.
    fn own(&mut self, pfn: Pfn) -> &mut [u8; FRAME] {
        let slot = self.frames.entry(pfn.0).or_insert_with(|| Contents::Word(junk_word(pfn)));
        if let Contents::Word(word) = slot {
            let mut frame = Box::new([0; FRAME]);
            repeat(word, 0, &mut frame[..]);
            *slot = Contents::Bytes(frame);
        }
        match slot {
            Contents::Bytes(frame) => frame,
            Contents::Word(_) => unreachable!("replaced above"),
        }
    }
}

/// Fills `out` with `word` repeated, as it stands at `offset` of a frame.
fn repeat(word: &[u8; 8], offset: usize, out: &mut [u8]) {
    cycle(word, offset % 8, out);
}

/// Fills `out` with `pattern` repeated, from its byte `phase` on.
pub(crate) fn cycle(pattern: &[u8], phase: usize, out: &mut [u8]) {
    if pattern.is_empty() {
        return;
    }
    let mut done = pattern.len().min(out.len());
    for (n, byte) in out.iter_mut().take(done).enumerate() {
        *byte = pattern[(phase + n) % pattern.len()];
    }
    // From here on the output repeats itself: copy it in ever larger parts.
    while done < out.len() {
        let take = done.min(out.len() - done);
        out.copy_within(..take, done);
        done += take;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn junk_differs_and_is_no_fill() {
        let words: std::collections::BTreeSet<_> = (0..10_000).map(|n| junk_word(Pfn(n))).collect();
        assert_eq!(words.len(), 10_000);
        for word in words {
            for unit in word.windows(4) {
                let unit = [unit[0], unit[1], unit[2], unit[3]];
                for fill in [0u32, 0xcccc_cccc, 0xd420_2000, 0x7fe0_0008] {
                    assert!(unit != fill.to_le_bytes() && unit != fill.to_be_bytes());
                }
            }
            assert!(!word.contains(&0) && !word.contains(&0xcc));
        }
    }

    #[test]
    fn a_tebibyte_costs_what_is_written() {
        let mut m = Memory::new(1 << 40);
        m.write(PhysAddr((1 << 40) - 1), &[7]).unwrap();
        m.fill(PhysAddr(1 << 30), 2 << 20, &[0xcc]).unwrap();
        assert_eq!(m.frames_held(), 1);
        let mut got = [0; 2];
        m.read(PhysAddr((1 << 30) + 4095), &mut got).unwrap();
        assert_eq!(got, [0xcc, 0xcc]);
        assert!(m.read(PhysAddr((1 << 40) - 1), &mut got).is_err());
        assert!(m.read(PhysAddr(u64::MAX), &mut got).is_err());
        assert!(m.write(PhysAddr(1 << 40), &[1]).is_err());
    }

    #[derive(Clone, Debug)]
    enum Edit {
        Write(u64, Vec<u8>),
        Fill(u64, u64, Vec<u8>),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let at = 0u64..16000;
        prop_oneof![
            (at.clone(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(a, b)| Edit::Write(a, b)),
            (at, 0u64..9000, prop::collection::vec(any::<u8>(), 1..10))
                .prop_map(|(a, l, p)| Edit::Fill(a, l, p)),
        ]
    }

    proptest! {
        #[test]
        fn memory_is_an_array(edits in prop::collection::vec(edit(), 1..20)) {
            let size = 16384;
            let mut flat: Vec<u8> = (0..size)
                .map(|i| junk_word(Pfn(i as u64 >> 12))[i % 8])
                .collect();
            let mut m = Memory::new(size as u64);
            for e in edits {
                match e {
                    Edit::Write(at, bytes) => {
                        let fits = at as usize + bytes.len() <= size;
                        prop_assert_eq!(m.write(PhysAddr(at), &bytes).is_ok(), fits);
                        if fits {
                            flat[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                    Edit::Fill(at, len, pattern) => {
                        let fits = (at + len) as usize <= size;
                        prop_assert_eq!(m.fill(PhysAddr(at), len, &pattern).is_ok(), fits);
                        if fits {
                            for i in 0..len as usize {
                                flat[at as usize + i] = pattern[i % pattern.len()];
                            }
                        }
                    }
                }
                let mut now = vec![0; size];
                m.read(PhysAddr(0), &mut now).unwrap();
                prop_assert_eq!(&now, &flat);
                let word = m.word(PhysAddr(8000)).unwrap();
                prop_assert_eq!(&word[..], &flat[8000..8008]);
            }
        }
    }
}
