//! A key outside any TPM, for forgeries: it signs whatever it is given.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::OsRng;

/// A P-256 key that claims to be in a TPM.
#[derive(Clone)]
pub struct ForgedKey {
    key: SigningKey,
    attributes: u32,
}

impl ForgedKey {
    /// The attributes of an honest attestation key: `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `userWithAuth`,
    /// `restricted`, `sign` (TPM 2.0 Library, part 2, section 8.3).
    pub const ATTESTATION: u32 = 0x0005_0072;

    /// Makes a key that claims to have these attributes.
    pub fn new(attributes: u32) -> Self {
        Self {
            key: SigningKey::random(&mut OsRng),
            attributes,
        }
    }

    /// Its public area, `TPMT_PUBLIC`: P-256, ECDSA with SHA-256.
    pub fn public(&self) -> Vec<u8> {
        const ECC: u16 = 0x0023;
        const SHA256: u16 = 0x000b;
        const NULL: u16 = 0x0010;
        const ECDSA: u16 = 0x0018;
        const NIST_P256: u16 = 0x0003;
        let mut public = Vec::new();
        let mut put = |value: u16| public.extend(value.to_be_bytes());
        put(ECC);
        put(SHA256);
        let [high, low] = [self.attributes >> 16, self.attributes & 0xffff];
        // Both halves have 16 bits.
        put(high as u16);
        put(low as u16);
        put(0); // no policy
        put(NULL); // symmetric
        put(ECDSA);
        put(SHA256);
        put(NIST_P256);
        put(NULL); // key derivation
        let point = self.key.verifying_key().to_encoded_point(false);
        for coordinate in [point.x(), point.y()].into_iter().flatten() {
            public.extend(32u16.to_be_bytes());
            public.extend(coordinate);
        }
        public
    }

    /// Signs any bytes; the result is a `TPMT_SIGNATURE`, ECDSA with SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        let mut bytes = vec![0x00, 0x18, 0x00, 0x0b];
        for half in signature.to_bytes().chunks(32) {
            bytes.extend(32u16.to_be_bytes());
            bytes.extend(half);
        }
        bytes
    }
}

impl std::fmt::Debug for ForgedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForgedKey({:#010x})", self.attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::structures::{Public, Signature as TpmSignature};
    use tss_esapi::traits::{Marshall as _, UnMarshall as _};

    #[test]
    fn the_tss_reads_what_is_forged() {
        let key = ForgedKey::new(ForgedKey::ATTESTATION);
        let public = Public::unmarshall(&key.public()).unwrap();
        assert!(public.object_attributes().restricted());
        assert_eq!(public.marshall().unwrap(), key.public());
        let signature = key.sign(b"anything");
        assert_eq!(
            TpmSignature::unmarshall(&signature).unwrap().marshall().unwrap(),
            signature
        );
    }
}
