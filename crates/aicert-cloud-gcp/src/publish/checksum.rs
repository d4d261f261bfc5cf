//! CRC-32C, which Cloud Storage keeps of every object, composed ones among them.

/// The polynomial, reversed (RFC 3720, section 12.1).
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (if crc & 1 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The checksum of bytes that come piece by piece.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Crc32c(u32);

impl Crc32c {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0 = !bytes.iter().fold(!self.0, |crc, byte| {
            (crc >> 8) ^ TABLE[usize::from((crc as u8) ^ byte)]
        });
    }

    /// As Cloud Storage writes it: big-endian, in base64.
    pub(crate) fn text(self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(self.0.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4.
        for (bytes, expected) in [([0; 32], 0x8a91_36aa_u32), ([0xff; 32], 0x62a8_ab43)] {
            let mut whole = Crc32c::default();
            whole.update(&bytes);
            let mut pieces = Crc32c::default();
            for piece in bytes.chunks(5) {
                pieces.update(piece);
            }
            assert_eq!((whole.0, pieces.0), (expected, expected));
        }
        let mut crc = Crc32c::default();
        crc.update(b"123456789");
        assert_eq!(crc.text(), "4waSgw==");
    }
}
