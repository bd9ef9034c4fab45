//! x86-64: how long an instruction is, and what `iretq` takes from the stack.

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Register};

/// Longest instruction in bytes.
pub(crate) const MAX_INSN_BYTES: usize = 15;

/// Length of the instruction at the start of `bytes`; `None` if more bytes are needed. Bytes that
/// are no instruction count as one, which is enough to raise #UD.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let insn = decoder.decode();
    match decoder.last_error() {
        DecoderError::NoMoreBytes if bytes.len() < MAX_INSN_BYTES => None,
        DecoderError::None => Some(insn.len()),
        _ => Some(1),
    }
}

/// Whether the bytes are an instruction that some x86-64 CPU has.
pub(crate) fn is_defined(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    !decoder.decode().is_invalid()
}

/// Whether it is `mov r64, cr3`: the root is the machine's.
pub(crate) fn reads_cr3(bytes: &[u8]) -> bool {
    let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    insn.code() == Code::Mov_r64_cr && insn.op1_register() == Register::CR3
}

/// The frame that `iretq` pops, in ascending order of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IretFrame {
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// Size of that frame.
pub(crate) const IRET_FRAME_BYTES: usize = 40;

impl IretFrame {
    /// From the bytes at the stack pointer.
    pub(crate) fn from_bytes(bytes: &[u8; IRET_FRAME_BYTES]) -> Self {
        let word = |n: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[n * 8..n * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Self { rip: word(0), cs: word(1), rflags: word(2), rsp: word(3), ss: word(4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_need_no_byte_behind_the_instruction() {
        let insns: [&[u8]; 6] = [
            &[0xc3],
            &[0xb8, 1, 0, 0, 0],
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0xf0, 0x48, 0x81, 0x84, 0x88, 1, 0, 0, 0, 2, 0, 0, 0],
        ];
        for insn in insns {
            assert_eq!(length(insn), Some(insn.len()), "{insn:x?}");
            assert!(is_defined(insn));
            for cut in 0..insn.len() {
                assert_eq!(length(&insn[..cut]), None, "{insn:x?} cut to {cut}");
            }
        }
        assert_eq!(length(&[0x06, 0]), Some(1), "no instruction in 64-bit mode");
        assert_eq!(length(&[0x66; 15]), Some(1), "prefixes only");
    }
}
