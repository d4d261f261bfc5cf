//! What events say, understood.
//!
//! Text is kept as it is in the log, which is whatever its sender chose: [`EventData::describe`] escapes it, and whoever prints
//! it otherwise must do so too.

use std::fmt::Write as _;

use aicert_core::text::is_deceptive;
use serde::Serialize;

use super::device_path::DevicePath;
use super::read::Guid;
use super::signature::Signature;
use super::tagged::Tag;
use crate::reference::Hex;

/// The data of an event, understood as far as it can be. In JSON an object whose `kind` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventData {
    /// Nothing that can be read.
    Undecoded,
    /// Not what the type says.
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Text, of events whose data is nothing else: actions, descriptions, versions.
    Text {
        /// The text.
        text: String,
    },
    /// The locality that the TPM was started from (PFP 1.06, section 10.4.5.3).
    StartupLocality {
        /// 0, 3 or 4.
        locality: u8,
    },
    /// Where the reference values of the firmware are (PFP 1.06, section 10.4.5.2).
    ReferenceManifest {
        /// 1, 2 or 3: which of the structures.
        version: u8,
        /// The IANA enterprise number of the platform's manufacturer.
        vendor: u32,
        /// The manifest.
        manifest: Guid,
        /// Manufacturer, model and version of the platform, manufacturer and version of the firmware; none in version 1.
        platform: Vec<String>,
        /// Where the manifest is; only in version 3.
        #[serde(skip_serializing_if = "Option::is_none")]
        locator: Option<String>,
    },
    /// Something that was extended into an NV index instead of a PCR (PFP 1.06, section 10.4.5).
    NvIndex {
        /// Whether it stays the same from boot to boot.
        instance: bool,
        /// The version of the structure.
        version: u16,
        /// What it is, if the structure says so.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    },
    /// Another statement without effect on PCRs, by its signature.
    Note {
        /// The signature.
        signature: String,
    },
    /// Firmware hands over (PFP 1.06, section 10.4.1, EV_SEPARATOR).
    Separator {
        /// 0 or 0xffffffff; 1 after an error.
        value: u32,
    },
    /// A part of the firmware.
    FirmwareBlob {
        /// Its name.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Its address.
        base: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Tables that firmware hands to the operating system.
    HandoffTables {
        /// Their name.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// What they are.
        tables: Vec<Guid>,
    },
    /// A boot loader, a unified kernel image, a kernel or a driver (`UEFI_IMAGE_LOAD_EVENT`, PFP 1.06, section 10.2.3).
    Image {
        /// Where it was loaded to.
        address: u64,
        /// Its length in memory.
        length: u64,
        /// Where it was linked to run.
        link_time_address: u64,
        /// Where it was loaded from.
        device_path: DevicePath,
    },
    /// A GUID partition table (`UEFI_GPT_DATA`, PFP 1.06, section 10.2; UEFI 2.10, section 5.3).
    Gpt {
        /// The disk.
        disk: Guid,
        /// Its partitions.
        partitions: Vec<Partition>,
    },
    /// A variable of UEFI (`UEFI_VARIABLE_DATA`, PFP 1.06, section 10.2.6).
    Variable {
        /// The namespace of its name.
        guid: Guid,
        /// Its name.
        name: String,
        /// Its value.
        value: VariableValue,
    },
    /// A command that GRUB ran.
    GrubCommand {
        /// The command.
        command: String,
    },
    /// The command line of a module that GRUB loaded.
    GrubModule {
        /// The command line.
        command_line: String,
    },
    /// The command line of a kernel, from GRUB, systemd-boot or systemd-stub.
    KernelCommandLine {
        /// The command line.
        command_line: String,
    },
    /// A file that a boot loader read.
    File {
        /// Its path, as the boot loader calls it.
        path: String,
    },
    /// A section of a unified kernel image: its name, then what it holds. Which of the two shows [`super::Event::data_check`].
    UkiSection {
        /// Its name, such as `.cmdline`.
        name: String,
    },
    /// One of shim's variables.
    Shim {
        /// Its name, such as `MokList`.
        variable: String,
    },
    /// Something that systemd-stub made out of files beside the image.
    Companion {
        /// What, such as `Credentials initrd`.
        what: String,
    },
    /// Data with a tag (`TCG_PCClientTaggedEvent`, PFP 1.06, section 10.4.2).
    Tagged {
        /// The tag.
        tag: u32,
        /// What it means.
        #[serde(skip_serializing_if = "Option::is_none")]
        meaning: Option<Tag>,
        /// The description.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// How a machine of Google Compute Engine encrypts its memory.
    GceMemoryEncryption {
        /// 0 for not at all, 1 for SEV, 2 for SEV-ES, 3 for TDX, 4 for SEV-SNP.
        technology: u8,
    },
    /// A device that was authenticated (`DEVICE_SECURITY_EVENT_DATA`, PFP 1.06, section 10.2.7).
    Device {
        /// 1 or 2: which of the structures.
        version: u16,
        /// What it is: 1 for PCI, 2 for USB.
        device_type: u32,
        /// Where it is.
        device_path: DevicePath,
    },
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Partition {
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: Guid,
    /// Which one it is.
    pub id: Guid,
    /// Its first block.
    pub first_lba: u64,
    /// Its last block.
    pub last_lba: u64,
    /// Its attributes.
    pub attributes: u64,
    /// Its name.
    pub name: String,
}

/// The value of a variable. In JSON an object whose `form` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VariableValue {
    /// The variable is not set.
    Empty {},
    /// On or off: `SecureBoot`, `SetupMode`, `AuditMode`, `DeployedMode` ...
    Switch {
        /// Whether it is on.
        on: bool,
    },
    /// Keys and hashes: `PK`, `KEK`, `db`, `dbx`, `dbt`, `dbr`, `MokList` ...
    Signatures {
        /// The entries.
        signatures: Vec<Signature>,
    },
    /// The entry of a list that allowed something to run.
    Authority {
        /// The entry.
        signature: Signature,
    },
    /// The order of the options to boot: `BootOrder` ...
    Order {
        /// Their numbers.
        options: Vec<u16>,
    },
    /// An option to boot: `Boot0000` ... (`EFI_LOAD_OPTION`, UEFI 2.10, section 3.1.3)
    LoadOption {
        /// What users are shown.
        description: String,
        /// Whether it is used at all.
        active: bool,
        /// What is booted.
        device_path: DevicePath,
        /// What it is given, as text.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// What it is given, in hexadecimal, if it is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<String>,
    },
    /// Text: `SbatLevel` ...
    Text {
        /// The text.
        text: String,
    },
    /// Anything else.
    Bytes {
        /// In hexadecimal.
        data: Hex,
    },
}

impl EventData {
    /// One line for people. Text from the log is shortened, and what could fool a terminal is escaped.
    pub fn describe(&self) -> String {
        match self {
            Self::Undecoded => "(not decoded)".to_owned(),
            Self::Malformed { reason } => format!("malformed: {reason}"),
            Self::Text { text } if text.is_empty() => "(empty)".to_owned(),
            Self::Text { text } => shown(text),
            Self::StartupLocality { locality } => format!("the TPM was started from locality {locality}"),
            Self::ReferenceManifest {
                manifest,
                platform,
                locator,
                ..
            } => {
                let mut line = format!("reference manifest {manifest}");
                for part in platform.iter().chain(locator) {
                    line.push_str(", ");
                    line.push_str(&shown(part));
                }
                line
            }
            Self::NvIndex {
                instance,
                description,
                ..
            } => format!(
                "measured into an NV index ({}): {}",
                if *instance { "instance" } else { "dynamic" },
                shown(description.as_deref().unwrap_or("no description"))
            ),
            Self::Note { signature } => format!("statement {}", shown(signature)),
            Self::Separator { value: 1 } => "separator after a firmware error".to_owned(),
            Self::Separator { value } => format!("separator {value:08x}"),
            Self::FirmwareBlob {
                description,
                base,
                length,
            } => format!(
                "{} of {length} bytes at {base:#x}",
                shown(description.as_deref().unwrap_or("firmware"))
            ),
            Self::HandoffTables { description, tables } => {
                let tables: Vec<_> = tables.iter().map(Guid::to_string).collect();
                format!(
                    "{} {}",
                    shown(description.as_deref().unwrap_or("tables")),
                    tables.join(", ")
                )
            }
            Self::Image { device_path, .. } if device_path.text.is_empty() => "image from memory".to_owned(),
            Self::Image { device_path, .. } => shown(&device_path.text),
            Self::Gpt { disk, partitions } => {
                let names: Vec<_> = partitions
                    .iter()
                    .map(|partition| shown(&partition.name))
                    .collect();
                format!("disk {disk}, {} partitions: {}", names.len(), names.join(", "))
            }
            Self::Variable { name, value, .. } => format!("{} {}", shown(name), value.describe()),
            Self::GrubCommand { command } => format!("grub: {}", shown(command)),
            Self::GrubModule { command_line } => format!("grub module: {}", shown(command_line)),
            Self::KernelCommandLine { command_line } => {
                format!("kernel command line: {}", shown(command_line))
            }
            Self::File { path } => format!("file {}", shown(path)),
            Self::UkiSection { name } => format!("section {} of the kernel image", shown(name)),
            Self::Shim { variable } => format!("shim's variable {}", shown(variable)),
            Self::Companion { what } => shown(what),
            Self::Tagged { tag, meaning, text } => {
                let mut line =
                    meaning.map_or_else(|| format!("tag {tag:#010x}"), |meaning| meaning.to_string());
                if let Some(text) = text {
                    line.push_str(": ");
                    line.push_str(&shown(text));
                }
                line
            }
            Self::GceMemoryEncryption { technology } => match technology {
                0 => "memory is not encrypted".to_owned(),
                1 => "memory is encrypted by AMD SEV".to_owned(),
                2 => "memory is encrypted by AMD SEV-ES".to_owned(),
                3 => "memory is encrypted by Intel TDX".to_owned(),
                4 => "memory is encrypted by AMD SEV-SNP".to_owned(),
                other => format!("memory is encrypted by technology {other}"),
            },
            Self::Device { device_path, .. } => format!("device {}", shown(&device_path.text)),
        }
    }
}

impl VariableValue {
    fn describe(&self) -> String {
        match self {
            Self::Empty {} => "is not set".to_owned(),
            Self::Switch { on } => (if *on { "is on" } else { "is off" }).to_owned(),
            Self::Signatures { signatures } => {
                let certificates = signatures
                    .iter()
                    .filter(|entry| entry.subject().is_some())
                    .count();
                format!(
                    "has {certificates} certificates and {} other entries",
                    signatures.len() - certificates
                )
            }
            Self::Authority { signature } => match signature.subject() {
                Some(subject) => format!("allowed it by the certificate of {}", shown(&subject)),
                None => format!("allowed it by {}", shortened_hex(&signature.data)),
            },
            Self::Order { options } => {
                let options: Vec<_> = options
                    .iter()
                    .take(64)
                    .map(|option| format!("{option:04X}"))
                    .collect();
                format!("is {}", options.join(","))
            }
            Self::LoadOption {
                description,
                device_path,
                ..
            } => {
                format!("is {}: {}", shown(description), shown(&device_path.text))
            }
            Self::Text { text } => format!("is {}", shown(text)),
            Self::Bytes { data } => format!("is {} bytes", data.0.len()),
        }
    }
}

/// The most characters of one text that a description shows.
const SHOWN: usize = 1024;

/// Text from the log for people: escaped like everything else that is shown (see [`is_deceptive`]).
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN {
            out.push('…');
            break;
        }
        if is_deceptive(character) {
            let _ = write!(out, "{}", character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

fn shortened_hex(bytes: &[u8]) -> String {
    hex::encode(&bytes[..bytes.len().min(32)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_cannot_fool_a_terminal() {
        let line = EventData::KernelCommandLine {
            command_line: "quiet\u{1b}[2K\nroot\u{202e}".to_owned(),
        }
        .describe();
        assert_eq!(line, "kernel command line: quiet\\u{1b}[2K\\u{a}root\\u{202e}");
        let long = EventData::Text {
            text: "x".repeat(5000),
        }
        .describe();
        assert_eq!(long.chars().count(), SHOWN + 1);
    }
}
