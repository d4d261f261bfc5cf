//! The quote of a proof in the layout of the TPM 2.0 tools, so that others can check it.

use std::fs;
use std::path::Path;

use aicert_core::certificate::{Certificate, EvidenceKind, qualifying_data};
use aicert_core::log::MeasurementLog;
use aicert_core::tpm::{PcrBank, PcrValues};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode as _, EncodePem as _};

use crate::error::Failure;
use crate::files;
use crate::output::Terminal;
use crate::text::Text;

/// Writes `ak.pem`, `quote.msg`, `quote.sig`, `quote.pcrs` and `qualifying-data.hex` to a new folder, and `boot-event-log.bin`
/// where the machine measured its boot; in place of the first four `attestation-document.cbor`, where the quote is a document.
pub(crate) fn quote(certificate: &Certificate, folder: &Path, terminal: Terminal) -> Result<(), Failure> {
    let refused = |message: String| Failure::misuse(format!("the quote cannot be exported: {message}"));
    let quote = &certificate.low_level_quote;
    let head = MeasurementLog::from_events(certificate.measurement_log.clone())
        .map_err(|error| refused(error.to_string()))?
        .head()
        .map_err(|error| refused(error.to_string()))?;
    let data = format!("{}\n", hex(&qualifying_data(&head, &quote.nonce)));
    let boot_log = &certificate.boot_event_log.0;
    let boot_log = (!boot_log.is_empty()).then_some(("boot-event-log.bin", boot_log.as_slice()));
    let shown = folder.display();
    let eventlog = boot_log.map_or(String::new(), |(name, _)| {
        format!("  tpm2_eventlog {shown}/{name}\n")
    });
    if quote.evidence() == EvidenceKind::NitroDocument {
        let files = [
            ("attestation-document.cbor", quote.attest.0.as_slice()),
            ("qualifying-data.hex", data.as_bytes()),
        ];
        write(folder, files.into_iter().chain(boot_log))?;
        let at = aicert_verify::nitro::unverified_timestamp(&quote.attest.0)
            .map_or(String::new(), |made| format!(" --at {made}"));
        terminal.note(
            &Text::from("Wrote the attestation document to ").bold(&shown.to_string()).plain(&format!(
                ". It can be verified alone:\n  aicert nitro verify {shown}/attestation-document.cbor{at} \
                 --nonce \"$(cat {shown}/qualifying-data.hex)\"\n{eventlog}"
            )),
        );
        return Ok(());
    }
    let leaf = certificate
        .attestation_key
        .certificate_chain
        .first()
        .ok_or_else(|| refused("there is no certificate of the attestation key".into()))?;
    let key = x509_cert::Certificate::from_der(&leaf.0)
        .and_then(|leaf| {
            leaf.tbs_certificate
                .subject_public_key_info
                .to_pem(LineEnding::LF)
        })
        .map_err(|error| refused(error.to_string()))?;
    let pcrs = serialized_pcrs(quote.bank, &quote.pcrs)
        .ok_or_else(|| refused("its PCRs are not those of one bank".into()))?;
    let files = [
        ("ak.pem", key.as_bytes()),
        ("quote.msg", quote.attest.0.as_slice()),
        ("quote.sig", certificate.signature.0.as_slice()),
        ("quote.pcrs", pcrs.as_slice()),
        ("qualifying-data.hex", data.as_bytes()),
    ];
    write(folder, files.into_iter().chain(boot_log))?;
    let bank = quote.bank;
    terminal.note(
        &Text::from("Wrote the quote to ").bold(&shown.to_string()).plain(&format!(
            ". The TPM 2.0 tools check it:\n  tpm2_checkquote -u {shown}/ak.pem -m {shown}/quote.msg -s {shown}/quote.sig \
             -f {shown}/quote.pcrs -g {bank} -q \"$(cat {shown}/qualifying-data.hex)\"\n{eventlog}"
        )),
    );
    Ok(())
}

/// Writes files to a new folder.
fn write<'a>(folder: &Path, files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<(), Failure> {
    let unwritable = |error: std::io::Error| {
        Failure::misuse(format!("could not write to {}", folder.display())).because(&error)
    };
    fs::create_dir(folder).map_err(|error| unwritable(error).help("name a folder that is not there yet"))?;
    for (name, bytes) in files {
        files::write_new(&folder.join(name), bytes).map_err(unwritable)?;
    }
    Ok(())
}

/// PCRs as `tpm2_quote --pcr` writes them: a `TPML_PCR_SELECTION`, the number of lists, then each `TPML_DIGEST`, as they
/// lie in the memory of a little-endian machine (tpm2-tools, `lib/pcr.c`).
fn serialized_pcrs(bank: PcrBank, pcrs: &PcrValues) -> Option<Vec<u8>> {
    /// `TPM2_NUM_PCR_BANKS`, and how many digests a list has (TPM 2.0 Library, part 2, sections 10.9.7 and 10.9.8).
    const BANKS: usize = 16;
    const DIGESTS: usize = 8;
    const DIGEST_SIZE: usize = 64;

    let mut selected = [0_u8; 4];
    for pcr in pcrs.0.keys() {
        selected[usize::from(pcr.as_u8() / 8)] |= 1 << (pcr.as_u8() % 8);
    }
    let mut out = Vec::new();
    out.extend(1_u32.to_le_bytes());
    for index in 0..BANKS {
        if index == 0 {
            out.extend(bank.algorithm_id().to_le_bytes());
            out.push(3);
            out.extend(selected);
            out.push(0);
        } else {
            out.extend([0; 8]);
        }
    }
    let values: Vec<_> = pcrs.0.values().collect();
    let lists = values.chunks(DIGESTS);
    out.extend(u32::try_from(lists.len()).ok()?.to_le_bytes());
    for list in lists {
        out.extend(u32::try_from(list.len()).ok()?.to_le_bytes());
        for index in 0..DIGESTS {
            let value = list.get(index).map_or(&[][..], |value| value.as_slice());
            if value.len() > DIGEST_SIZE || (!value.is_empty() && value.len() != bank.digest_len()) {
                return None;
            }
            out.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
            out.extend(value);
            out.resize(out.len() + DIGEST_SIZE - value.len(), 0);
        }
    }
    Some(out)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_lie_as_the_tools_write_them() {
        let values = (0..16)
            .filter_map(|index| Some((aicert_core::tpm::PcrIndex::new(index)?, vec![index; 32])))
            .collect();
        let bytes = serialized_pcrs(PcrBank::Sha256, &PcrValues(values)).unwrap();
        assert_eq!(bytes.len(), 132 + 4 + 2 * 532);
        assert_eq!(bytes[..12], [1, 0, 0, 0, 0x0b, 0, 3, 0xff, 0xff, 0, 0, 0]);
        assert_eq!(bytes[132..142], [2, 0, 0, 0, 8, 0, 0, 0, 32, 0]);
        let odd = PcrValues([(aicert_core::tpm::PcrIndex::INPUTS, vec![0; 20])].into());
        assert_eq!(serialized_pcrs(PcrBank::Sha256, &odd), None);
    }
}
