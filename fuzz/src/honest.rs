//! Honest material, the same in every run: the seeds, and what targets compare with.

use aicert_core::attestation::Attestation;
use aicert_core::certificate::{Base64, Certificate};
use aicert_core::tpm::{PcrBank, PcrValues};
use aicert_verify::eventlog::EventType;
use aicert_verify::testing::{
    Boot, application, described, event, section, separator, tagged, utf16, variable,
};

use crate::parts;
use crate::support::{Recipe, key};

/// Proofs that verify, with [`crate::support::options`].
pub fn proofs() -> Vec<Certificate> {
    let sha384 = Recipe {
        bank: PcrBank::Sha384,
        ..Recipe::default()
    };
    vec![Recipe::default().build(), sha384.build()]
}

/// A machine that boots a unified kernel image.
pub fn boot() -> Boot {
    let mut events = vec![
        event(0, EventType::S_CRTM_VERSION, &utf16("1.0")),
        event(
            7,
            EventType::EFI_VARIABLE_DRIVER_CONFIG,
            &variable("SecureBoot", &[1]),
        ),
        event(
            7,
            EventType::EFI_VARIABLE_DRIVER_CONFIG,
            &variable("db", &signature_list()),
        ),
        event(
            1,
            EventType::EFI_VARIABLE_BOOT,
            &variable("BootOrder", &[0, 0, 1, 0]),
        ),
        event(
            1,
            EventType::EFI_VARIABLE_BOOT,
            &variable("Boot0000", &boot_option()),
        ),
        event(
            4,
            EventType::EFI_ACTION,
            b"Calling EFI Application from Boot Option",
        ),
    ];
    events.extend((0..8).map(separator));
    events.push(event(5, EventType::EFI_GPT_EVENT, &gpt()));
    events.push(application("\\EFI\\BOOT\\BOOTX64.EFI", b"an image"));
    events.extend(section(".linux", b"a kernel"));
    events.extend(section(".cmdline", b"root=/dev/vda2 ro\0"));
    events.push(tagged(9, 0x8f3b_22ec, "Linux initrd", b"an initrd"));
    events.push(described(
        12,
        EventType::IPL,
        &utf16("root=/dev/vda2 ro"),
        &utf16("root=/dev/vda2 ro"),
    ));
    events.push(event(5, EventType::EFI_ACTION, b"Exit Boot Services Invocation"));
    Boot { locality: 3, events }
}

/// One list of one X.509 signature, and one of one SHA-256 (UEFI 2.10, section 32.4.1).
fn signature_list() -> Vec<u8> {
    let x509 = [
        0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
    ];
    let sha256 = [
        0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
    ];
    let mut out = Vec::new();
    for (kind, data) in [(x509, crate::support::root().der()), (sha256, vec![7; 32])] {
        let size = data.len() as u32 + 16;
        out.extend(kind);
        out.extend((28 + size).to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend([0x77; 16]);
        out.extend(data);
    }
    out
}

/// `EFI_LOAD_OPTION` (UEFI 2.10, section 3.1.3) with a hard drive and a file.
fn boot_option() -> Vec<u8> {
    let mut path = vec![4, 1, 42, 0];
    path.extend(1_u32.to_le_bytes());
    path.extend(2048_u64.to_le_bytes());
    path.extend(4096_u64.to_le_bytes());
    path.extend([0x11; 16]);
    path.extend([2, 2]);
    let name = utf16("\\EFI\\BOOT\\BOOTX64.EFI");
    path.extend([4, 4, name.len() as u8 + 4, 0]);
    path.extend(name);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut out = 1_u32.to_le_bytes().to_vec();
    out.extend((path.len() as u16).to_le_bytes());
    out.extend(utf16("aicert"));
    out.extend(path);
    out
}

/// `UEFI_GPT_DATA` (PFP 1.06, section 10.2.6) of two partitions.
fn gpt() -> Vec<u8> {
    let mut out = b"EFI PART\0\0\x01\0\x5c\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    for lba in [1_u64, 8191, 34, 8158] {
        out.extend(lba.to_le_bytes());
    }
    out.extend([0x44; 16]);
    out.extend(2_u64.to_le_bytes());
    for field in [128_u32, 128, 0] {
        out.extend(field.to_le_bytes());
    }
    out.extend(2_u64.to_le_bytes());
    for (name, first, last) in [("esp", 2048_u64, 4095_u64), ("root", 4096, 8000)] {
        out.extend([0x28; 16]);
        out.extend([0x55; 16]);
        out.extend(first.to_le_bytes());
        out.extend(last.to_le_bytes());
        out.extend([0; 8]);
        let mut text: Vec<_> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        text.resize(72, 0);
        out.extend(text);
    }
    out
}

/// Boot logs: crypto-agile with two banks and with three, padded, and of SHA-1 alone.
pub fn event_logs() -> Vec<Vec<u8>> {
    let boot = boot();
    let agile = boot.log();
    let padded = [&agile[..], &[0xff; 64]].concat();
    let three = boot.log_of(&[PcrBank::Sha1, PcrBank::Sha256, PcrBank::Sha384]);
    let mut old = Vec::new();
    for event in &boot.events {
        old.extend(event.pcr.to_le_bytes());
        old.extend(event.event_type.0.to_le_bytes());
        old.extend(event.digest(PcrBank::Sha1));
        old.extend((event.data.len() as u32).to_le_bytes());
        old.extend(&event.data);
    }
    vec![agile, three, padded, old]
}

/// A quote that [`crate::support::options`] accept, with the PCRs that it covers.
pub fn quote() -> (Vec<u8>, Vec<u8>, PcrValues) {
    let certificate = Recipe::default().build();
    (
        certificate.low_level_quote.attest.0,
        certificate.signature.0,
        certificate.low_level_quote.pcrs,
    )
}

/// Public areas (`TPMT_PUBLIC`) of each kind of key.
pub fn public_areas() -> Vec<Vec<u8>> {
    let p256 = crate::support::ecc_public(&key("ak"), crate::support::AK_ATTRIBUTES, 0x000b);
    let point = p384::ecdsa::SigningKey::from_slice(&[7; 48])
        .map(|key| key.verifying_key().to_encoded_point(false).as_bytes()[1..].to_vec())
        .unwrap_or_default();
    let attributes = crate::support::AK_ATTRIBUTES.to_be_bytes();
    let p384 = [
        &[0, 0x23, 0, 0x0b][..],
        &attributes,
        &[0, 0, 0, 0x10, 0, 0x18, 0, 0x0c, 0, 4, 0, 0x10, 0, 48],
        &point[..48],
        &[0, 48],
        &point[48..],
    ]
    .concat();
    // No key's modulus, but of its length, and odd.
    let mut out = vec![p256, p384];
    for scheme in [0x14, 0x16] {
        out.push(
            [
                &[0, 1, 0, 0x0b][..],
                &attributes,
                &[0, 0, 0, 0x10, 0, scheme, 0, 0x0b, 8, 0, 0, 0, 0, 0, 1, 0],
                &[0xc5; 256],
            ]
            .concat(),
        );
    }
    out
}

/// A proof with a part replaced: which one follows from the first byte, the rest is the part. Nothing when the part cannot
/// stand there.
pub fn with_replaced(honest: &Certificate, input: &[u8]) -> Option<Certificate> {
    let (which, part) = input.split_first()?;
    let mut proof = honest.clone();
    let bytes = Base64(part.to_vec());
    match which {
        b'0' => proof.low_level_quote.attest = bytes,
        b'1' => proof.signature = bytes,
        b'2' => proof.attestation_key.public = bytes,
        b'3'..=b'5' => {
            *proof
                .attestation_key
                .certificate_chain
                .get_mut(usize::from(which - b'3'))? = bytes
        }
        b'6' => proof.boot_event_log = bytes,
        b'7' => {
            proof.attestation_key.certificate_chain = parts(part)
                .into_iter()
                .map(|part| Base64(part.to_vec()))
                .collect();
        }
        b'8' => proof.measurement_log = serde_json::from_slice(part).ok()?,
        _ => proof.low_level_quote.pcrs = serde_json::from_slice(part).ok()?,
    }
    Some(proof)
}

/// An answer with a part replaced, as [`with_replaced`].
pub fn answer_with_replaced(honest: &Attestation, input: &[u8]) -> Option<Attestation> {
    let (which, part) = input.split_first()?;
    let mut answer = honest.clone();
    let bytes = Base64(part.to_vec());
    match which {
        b'0' => answer.quote.attest = bytes,
        b'1' => answer.signature = bytes,
        b'2' => answer.attestation_key.public = bytes,
        b'3'..=b'5' => {
            *answer
                .attestation_key
                .certificate_chain
                .get_mut(usize::from(which - b'3'))? = bytes
        }
        b'6' => answer.boot_event_log = bytes,
        b'7' => {
            answer.attestation_key.certificate_chain = parts(part)
                .into_iter()
                .map(|part| Base64(part.to_vec()))
                .collect();
        }
        b'8' => answer.tls_key = serde_json::from_slice(part).ok()?,
        _ => answer.quote.pcrs = serde_json::from_slice(part).ok()?,
    }
    Some(answer)
}
