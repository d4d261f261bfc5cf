//! What the machine was told before it booted: read within bounds, and checked.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aicert_core::api::{PROVISIONING_LIMIT, Provisioning};
use aicert_core::text::is_deceptive;

/// A chain has a few certificates of a few kilobytes.
const ISSUERS: usize = 7;
/// Names are shown in proofs.
const NAME_BYTES: usize = 100;
/// Longer than any job.
const LONGEST: u64 = 366 * 24 * 60 * 60;

/// Says why a provisioning document was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisioningError {
    /// It could not be read.
    #[error("the provisioning document {path:?} could not be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is too large.
    #[error("the provisioning document has more than {PROVISIONING_LIMIT} bytes")]
    TooLarge,
    /// It is not what it should be.
    #[error("the provisioning document is not what it should be: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A value makes no sense.
    #[error("the provisioning document: `{field}` {reason}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the document from a file.
///
/// # Errors
///
/// When it cannot be read, or is not accepted.
pub fn read(path: &Path) -> Result<Provisioning, ProvisioningError> {
    let unreadable = |source| ProvisioningError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PROVISIONING_LIMIT as u64 + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    parse(&bytes)
}

/// Reads the document from bytes.
///
/// # Errors
///
/// When it is not accepted.
pub fn parse(bytes: &[u8]) -> Result<Provisioning, ProvisioningError> {
    if bytes.len() > PROVISIONING_LIMIT {
        return Err(ProvisioningError::TooLarge);
    }
    let document: Provisioning = serde_json::from_slice(bytes)?;
    for (field, text) in [
        ("provider", &document.provider),
        ("instance_type", &document.instance_type),
        ("region", &document.region),
    ] {
        check_name(text).map_err(|reason| ProvisioningError::Value { field, reason })?;
    }
    if document.issuers.len() > ISSUERS {
        return Err(ProvisioningError::Value {
            field: "issuers",
            reason: format!(
                "has {} certificates; expected at most {ISSUERS}",
                document.issuers.len()
            ),
        });
    }
    let times = [
        ("idle_seconds", Some(document.idle_seconds)),
        ("lifetime_seconds", document.lifetime_seconds),
    ];
    for (field, seconds) in times {
        if let Some(seconds) = seconds.filter(|seconds| !(1..=LONGEST).contains(seconds)) {
            let reason = format!("is {seconds}; expected 1 to {LONGEST} seconds");
            return Err(ProvisioningError::Value { field, reason });
        }
    }
    Ok(document)
}

fn check_name(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > NAME_BYTES {
        return Err(format!("has {} bytes; expected 1 to {NAME_BYTES}", text.len()));
    }
    if text.chars().any(is_deceptive) {
        return Err("holds a control character, or one that hides others or changes their order".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> serde_json::Value {
        serde_json::json!({
            "client": format!("sha256:{}", "ab".repeat(32)),
            "provider": "qemu",
            "instance_type": "q35",
            "region": "here",
            "attestation_key": {"kind": "template", "template": 0x01c1_0003, "certificate": 0x01c1_0002},
            "issuers": ["AAAA"],
            "idle_seconds": 600,
        })
    }

    fn with(field: &str, value: impl Into<serde_json::Value>) -> Vec<u8> {
        let mut document = document();
        document[field] = value.into();
        serde_json::to_vec(&document).unwrap()
    }

    #[test]
    fn a_document_is_read_or_explained() {
        assert_eq!(parse(&with("region", "there")).unwrap().region, "there");
        for (bytes, words) in [
            (with("region", ""), "`region` has 0 bytes"),
            (with("provider", "x".repeat(101)), "`provider` has 101 bytes"),
            (with("instance_type", "a\u{202e}b"), "`instance_type`"),
            (with("idle_seconds", 0), "`idle_seconds` is 0"),
            (with("idle_seconds", u64::MAX), "`idle_seconds` is"),
            (with("lifetime_seconds", 0), "`lifetime_seconds` is 0"),
            (with("lifetime_seconds", u64::MAX), "`lifetime_seconds` is"),
            (with("lifetime_seconds", -1), "not what it should be"),
            (with("issuers", vec!["AA=="; 8]), "`issuers` has 8"),
            (with("client", "me"), "not a client certificate digest"),
            (with("more", 1), "unknown field `more`"),
            (b"{".to_vec(), "not what it should be"),
            (vec![b' '; PROVISIONING_LIMIT + 1], "more than 65536 bytes"),
        ] {
            let error = parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        assert!(matches!(
            read(Path::new("/dev/zero")),
            Err(ProvisioningError::TooLarge)
        ));
        let error = read(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
