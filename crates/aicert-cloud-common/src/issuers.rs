//! Certificates that the user names: those between an attestation key and a root.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aicert_core::attestation::PROVISIONING_LIMIT;
use aicert_core::cloud::{CloudError, CloudErrorKind};
use pki_types::CertificateDer;
use pki_types::pem::PemObject as _;

/// Reads the certificates in files, DER or PEM, in their order.
///
/// # Errors
///
/// When a file cannot be read, holds no certificate, or more than a machine can be told.
pub fn read_issuers(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, CloudError> {
    let mut issuers = Vec::new();
    for path in files {
        issuers.extend(read(path)?);
    }
    Ok(issuers)
}

fn read(path: &Path) -> Result<Vec<Vec<u8>>, CloudError> {
    let refuse = |kind, why: &str| {
        CloudError::new(
            kind,
            format!("{} in `issuers` cannot be used: {why}", path.display()),
        )
        .with_advice("name files with certificates, DER or PEM")
    };
    let limit = PROVISIONING_LIMIT as u64;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(CloudErrorKind::NotFound, &error.to_string()).with_source(error))?;
    let refuse = |why: &str| refuse(CloudErrorKind::Unsupported, why);
    if bytes.len() as u64 > limit {
        return Err(refuse(&format!("it has more than {limit} bytes")));
    }
    // A SEQUENCE whose length has two bytes, as that of every certificate of a TPM's key.
    if bytes.starts_with(&[0x30, 0x82]) {
        return Ok(vec![bytes]);
    }
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .map(|found| found.map(|certificate| certificate.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| refuse("it is no PEM"))?;
    if certificates.is_empty() {
        return Err(refuse("it holds no certificate"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_in_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let der = write("a.der", &[0x30, 0x82, 0, 1, 5]);
        let two = write("b.pem", pem.repeat(2).as_bytes());
        let read = read_issuers(&[der, two]).unwrap();
        assert_eq!(
            read,
            [
                vec![0x30, 0x82, 0, 1, 5],
                vec![0x30, 0x82, 1],
                vec![0x30, 0x82, 1]
            ]
        );
        for (name, content) in [
            ("empty", &b""[..]),
            ("other", b"hello"),
            ("large", &[b' '; PROVISIONING_LIMIT + 1]),
            ("cut.pem", b"-----BEGIN CERTIFICATE-----\nMI"),
        ] {
            let error = read_issuers(&[write(name, content)]).unwrap_err();
            assert_eq!(error.kind(), CloudErrorKind::Unsupported, "{name}");
            assert!(error.message().contains(name));
        }
        let error = read_issuers(&[folder.path().join("none")]).unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::NotFound);
    }
}
