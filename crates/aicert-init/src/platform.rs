//! Whose machine this is, by what firmware says of it (SMBIOS 3.6, sections 7.2 and 7.4). Who has the power to say something else
//! chooses where the provisioning document comes from, which nobody trusts wherever it comes from.

use std::fs;
use std::io;
use std::path::Path;

use crate::failure::{Failure, OrFail as _, Outcome};

/// Where the kernel shows what firmware says.
pub(crate) const DMI: &str = "/sys/class/dmi/id";

/// The asset tag of all of Azure's machines, and of no other of Hyper-V's: "MSFT AZURE VM" as decimal numbers.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// A provider of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    Qemu,
    Azure,
    Ec2,
    ComputeEngine,
}

impl Platform {
    /// Finds it out.
    pub(crate) fn detect(dmi: &Path) -> Outcome<Self> {
        let vendor = read(dmi, "sys_vendor")?;
        match vendor.as_str() {
            "QEMU" => Ok(Self::Qemu),
            "Amazon EC2" => Ok(Self::Ec2),
            "Google" => Self::require(Self::ComputeEngine, dmi, "product_name", "Google Compute Engine"),
            "Microsoft Corporation" => Self::require(Self::Azure, dmi, "chassis_asset_tag", AZURE_TAG),
            other => Err(Failure::new(
                format!("this machine was made by {other:?}"),
                MEANING,
            )),
        }
    }

    fn require(self, dmi: &Path, name: &str, expected: &str) -> Outcome<Self> {
        let found = read(dmi, name)?;
        if found == expected {
            return Ok(self);
        }
        Err(Failure::new(
            format!("this machine's {name} is {found:?}, and not {expected:?} as {self:?} has it"),
            MEANING,
        ))
    }
}

const MEANING: &str =
    "aicert only knows where machines of QEMU, Azure, EC2 and Compute Engine are told whom they serve";

fn read(dmi: &Path, name: &str) -> Outcome<String> {
    let path = dmi.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        // Firmware says nothing of it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name != "sys_vendor" => Ok(String::new()),
        Err(error) => Err(error).or_fail(
            || format!("cannot read {}", path.display()),
            "without the maker's name it is not known where the machine is told whom it serves",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(values: &[(&str, &str)]) -> Result<Platform, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in values {
            fs::write(folder.path().join(name), format!("{value}\n")).unwrap();
        }
        Platform::detect(folder.path()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn knows_whose_machine_it_is() {
        let azure = ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77");
        let microsoft = ("sys_vendor", "Microsoft Corporation");
        for (values, expected) in [
            (&[("sys_vendor", "QEMU")][..], Platform::Qemu),
            (
                &[("sys_vendor", "Amazon EC2"), ("product_name", "m6i.large")],
                Platform::Ec2,
            ),
            (
                &[
                    ("sys_vendor", "Google"),
                    ("product_name", "Google Compute Engine"),
                ],
                Platform::ComputeEngine,
            ),
            (&[microsoft, azure], Platform::Azure),
        ] {
            assert_eq!(detect(values), Ok(expected));
        }
        for (values, words) in [
            (&[][..], "cannot read"),
            (&[("sys_vendor", "Dell Inc.")], "made by \"Dell Inc.\""),
            // Hyper-V somewhere else, and a Chromebook.
            (&[microsoft], "chassis_asset_tag is \"\""),
            (
                &[("sys_vendor", "Google"), ("product_name", "Voxel")],
                "product_name is \"Voxel\"",
            ),
        ] {
            let failure = detect(values).unwrap_err();
            assert!(failure.contains(words), "{failure}");
        }
    }
}
