//! What the machine is told before it boots, from where its platform keeps that. Nothing measures it, and nothing here
//! looks into it: the server does.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::console::say;
use crate::failure::{Failure, OrFail as _, Outcome};

/// Who made the machine.
const VENDOR: &str = "/sys/class/dmi/id/sys_vendor";

/// QEMU's configuration device, with the document (QEMU, docs/specs/fw_cfg.rst: names of users begin with `opt/`).
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.aicert/provisioning/raw";

/// The largest document that is taken; the server's limit.
const LIMIT: u64 = 64 << 10;

/// Copies the document to `place`.
pub(crate) fn fetch(place: &Path) -> Outcome {
    let vendor = fs::read_to_string(VENDOR).or_fail(
        || format!("cannot read {VENDOR}"),
        "without the maker's name it is not known where the machine is told whom it serves",
    )?;
    let source = match vendor.trim() {
        "QEMU" => Path::new(FW_CFG),
        other => {
            return Err(Failure::new(
                format!("this machine was made by {other:?}"),
                "aicert only knows where machines of QEMU are told whom they serve",
            ));
        }
    };
    let document = read(source)?;
    fs::write(place, &document).or_fail(|| format!("cannot write {}", place.display()), "memory is full")?;
    say!("provisioning: {} bytes from {}", document.len(), source.display());
    Ok(())
}

fn read(source: &Path) -> Outcome<Vec<u8>> {
    let mut document = Vec::new();
    File::open(source)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut document))
        .or_fail(
            || format!("cannot read {}", source.display()),
            "whoever started the machine did not say whom it serves",
        )?;
    if document.len() as u64 > LIMIT {
        return Err(Failure::new(
            format!("{} has more than {LIMIT} bytes", source.display()),
            "this is no provisioning document",
        ));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("raw");
        fs::write(&file, vec![b' '; LIMIT as usize]).unwrap();
        assert_eq!(read(&file).unwrap().len(), LIMIT as usize);
        fs::write(&file, vec![b' '; LIMIT as usize + 1]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("more than 65536"));
        let message = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("did not say whom"), "{message}");
    }
}
