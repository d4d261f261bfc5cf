//! What the machine is told before it boots, from where its platform keeps that. Nothing measures it, and nothing here
//! looks into it but for the machine's lifetime: the server does.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::console::say;
use crate::failure::{Failure, OrFail as _, Outcome};
use crate::metadata::{Cloud, Service};
use crate::platform::{DMI, Platform};

/// QEMU's configuration device, with the document (QEMU, docs/specs/fw_cfg.rst: names of users begin with `opt/`).
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.aicert/provisioning/raw";

/// The largest document that is taken; the server's limit.
const LIMIT: usize = 64 << 10;

/// Copies the document to `place`, and returns it.
pub(crate) fn fetch(place: &Path) -> Outcome<Vec<u8>> {
    let cloud = match Platform::detect(Path::new(DMI))? {
        Platform::Qemu => None,
        Platform::Azure => Some(Cloud::Azure),
        Platform::Ec2 => Some(Cloud::Ec2),
        Platform::ComputeEngine => Some(Cloud::ComputeEngine),
    };
    let (source, document) = match cloud {
        None => (FW_CFG, read(Path::new(FW_CFG))?),
        Some(cloud) => {
            let service = Service::of(cloud);
            (service.place(), service.document(LIMIT)?)
        }
    };
    require_document(source, &document)?;
    fs::write(place, &document).or_fail(|| format!("cannot write {}", place.display()), "memory is full")?;
    say!("provisioning: {} bytes from {source}", document.len());
    Ok(document)
}

fn read(source: &Path) -> Outcome<Vec<u8>> {
    let mut document = Vec::new();
    File::open(source)
        .and_then(|file| file.take(LIMIT as u64 + 1).read_to_end(&mut document))
        .or_fail(
            || format!("cannot read {}", source.display()),
            "whoever started the machine did not say whom it serves",
        )?;
    if document.len() > LIMIT {
        return Err(Failure::new(
            format!("{} has more than {LIMIT} bytes", source.display()),
            "this is no provisioning document",
        ));
    }
    Ok(document)
}

/// Tells a JSON object from a page that somebody else shows, and from a program that another system would run.
fn require_document(source: &str, document: &[u8]) -> Outcome {
    if document.trim_ascii_start().starts_with(b"{") {
        return Ok(());
    }
    let begin: String = String::from_utf8_lossy(document).chars().take(20).collect();
    Err(Failure::new(
        format!("{source} begins with {begin:?}, and not with {{"),
        "this is no provisioning document: whoever started the machine did not say whom it serves",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("raw");
        fs::write(&file, vec![b' '; LIMIT]).unwrap();
        assert_eq!(read(&file).unwrap().len(), LIMIT);
        fs::write(&file, vec![b' '; LIMIT + 1]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("more than 65536"));
        let message = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("did not say whom"), "{message}");
    }

    #[test]
    fn a_page_is_no_document() {
        require_document("x", b" \n{}").unwrap();
        for document in [
            &b"<html><body>welcome</body></html>"[..],
            b"#!/bin/sh\n",
            b"",
            b"\xff\xfe",
        ] {
            let message = require_document("the user data", document)
                .unwrap_err()
                .to_string();
            assert!(message.starts_with("the user data begins with "), "{message}");
        }
    }
}
