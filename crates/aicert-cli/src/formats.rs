//! What bytes look like, for telling people that they named the wrong file. Decides nothing.

/// Says what bytes look like, in words that go on after "it looks like"; nothing if like nothing in particular.
pub(crate) fn recognise(bytes: &[u8]) -> Option<&'static str> {
    MAGIC
        .iter()
        .find(|(offset, magic, _)| bytes.get(*offset..).is_some_and(|rest| rest.starts_with(magic)))
        .map(|(_, _, name)| *name)
        .or_else(|| tpm_signature(bytes))
        .or_else(|| text(bytes))
}

/// What stands at a fixed place, the more particular first.
const MAGIC: [(usize, &[u8], &str); 20] = [
    // TPM 2.0 Library, part 2, section 10.12.12: TPM_GENERATED_VALUE, and the type TPM_ST_ATTEST_QUOTE.
    (0, b"\xffTCG\x80\x18", "the message of a TPM quote (TPMS_ATTEST)"),
    (
        0,
        b"\xffTCG",
        "something else than a quote that a TPM signed (TPMS_ATTEST)",
    ),
    // TCG PC Client Platform Firmware Profile 1.06, section 10.4.5.1: the data of the first event.
    (32, b"Spec ID Event", "a boot event log"),
    // RFC 9052, section 4.2: an array of four with or without its tag.
    (
        0,
        b"\x84\x44\xa1\x01\x38",
        "an attestation document of AWS Nitro (COSE_Sign1)",
    ),
    (
        0,
        b"\xd2\x84",
        "an attestation document of AWS Nitro (COSE_Sign1)",
    ),
    (0, b"-----BEGIN CERTIFICATE-----", "certificates in PEM"),
    (0, b"-----BEGIN PUBLIC KEY-----", "a public key in PEM"),
    (0, b"-----BEGIN ", "PEM, but no certificate"),
    // What `tpm2_quote --pcrs_format serialized` writes: the number of selections, then the algorithm (little endian).
    (
        0,
        b"\x01\0\0\0\x0b\0\x03",
        "PCR values as tpm2_quote writes them; give them as JSON",
    ),
    (
        0,
        b"\x01\0\0\0\x0c\0\x03",
        "PCR values as tpm2_quote writes them; give them as JSON",
    ),
    (512, b"EFI PART", "a disk image with a GUID partition table"),
    (0, b"MZ", "an EFI program, such as a unified kernel image"),
    (
        0,
        b"QFI\xfb",
        "a disk image in the format of QEMU (qcow2); convert it to raw",
    ),
    (
        0,
        b"conectix",
        "a disk image in the format VHD; convert it to raw",
    ),
    (0, b"KDMV", "a disk image in the format VMDK; convert it to raw"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"\x1f\x8b", "something compressed with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "something compressed with zstd"),
    (0, b"\xfd7zXZ", "something compressed with xz"),
    // X.690, section 8.9: a sequence with a length of two bytes, as every certificate is.
    (0, b"\x30\x82", "DER, such as a certificate"),
];

/// A TPMT_SIGNATURE begins with scheme and hash (TPM 2.0 Library, part 2, section 11.3.4).
fn tpm_signature(bytes: &[u8]) -> Option<&'static str> {
    match bytes.get(..4)? {
        [0, 0x14 | 0x16 | 0x18, 0, 0x04 | 0x0b..=0x0d] => Some("the signature of a TPM (TPMT_SIGNATURE)"),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<&'static str> {
    const LOOKED_AT: usize = 4096;
    let start = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // Cut in the middle of a character.
        Err(error) if start.len() == LOOKED_AT && error.valid_up_to() + 4 > LOOKED_AT => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim();
    if text.is_empty() || text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let made_of = |allowed: fn(u8) -> bool| text.bytes().all(|b| b.is_ascii_whitespace() || allowed(b));
    Some(if text.starts_with(['{', '[']) {
        "JSON"
    } else if made_of(|b| b.is_ascii_hexdigit()) {
        "hexadecimal text"
    } else if text.len() > 40 && made_of(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b)) {
        "Base64 text"
    } else {
        "text"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_mixed_up_are_told_apart() {
        let log = [
            &[0, 0, 0, 0, 3, 0, 0, 0][..],
            &[0; 20],
            &[37, 0, 0, 0],
            b"Spec ID Event03\0",
        ]
        .concat();
        for (bytes, expected) in [
            (
                &b"\xffTCG\x80\x18\0\x22"[..],
                Some("the message of a TPM quote (TPMS_ATTEST)"),
            ),
            (&log, Some("a boot event log")),
            (
                b"\0\x18\0\x0b\0\x20",
                Some("the signature of a TPM (TPMT_SIGNATURE)"),
            ),
            (b"-----BEGIN CERTIFICATE-----\nMII", Some("certificates in PEM")),
            (b"\x30\x82\x03", Some("DER, such as a certificate")),
            (b" \n{\"sha256\": {}}", Some("JSON")),
            (b"00ff\n", Some("hexadecimal text")),
            (b"MZ\x90", Some("an EFI program, such as a unified kernel image")),
            (b"hello", Some("text")),
            (b"\0\x01\x02", None),
            (b"\x1b[2J", None),
            (b"", None),
        ] {
            assert_eq!(recognise(bytes), expected, "{bytes:02x?}");
        }
        let cut = [vec![b'z'; 4095], "é".as_bytes().to_vec()].concat();
        assert_eq!(recognise(&cut), Some("Base64 text"));
    }
}
