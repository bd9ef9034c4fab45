//! Fingerprints: the same fault has the same one in every run, whatever the addresses and times.

/// A 64-bit FNV-1a hash over fields, each closed by a byte that no text contains.
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn field(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// As 16 hex digits.
    pub(crate) fn finish(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_borders_count() {
        let of = |fields: &[&str]| {
            let mut f = Fingerprint::new();
            fields.iter().for_each(|t| f.field(t));
            f.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["ab"]).len(), 16);
    }
}
