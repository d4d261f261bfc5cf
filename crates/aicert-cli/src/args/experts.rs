//! The command line of the commands that look at one piece of evidence.

use std::ffi::OsString;
use std::path::PathBuf;

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{DiscardArgs, PublishArgs};

const EXIT_CODES: &str = "Exit codes:
  0  it holds
  1  it does not hold
  2  misuse, or a file that cannot be read";

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  nothing in it is wrong by itself, and its PCRs are those of `--pcrs`; it proves nothing without a quote
  1  it has what no honest log has, or other PCRs
  2  misuse, or a file that cannot be read")]
pub(crate) struct EventlogArgs {
    /// The log, such as /sys/kernel/security/tpm0/binary_bios_measurements; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// PCR values to compare with: JSON, {"sha256": {"0": "<hexadecimal>", …}}
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) pcrs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct QuoteArgs {
    #[command(subcommand)]
    pub(crate) command: QuoteCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuoteCommand {
    /// Says whether a quote holds, and what it covers
    Verify(QuoteVerifyArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct QuoteVerifyArgs {
    /// The platform that the quote must be of
    #[arg(long, value_enum, value_name = "PLATFORM")]
    pub(crate) platform: PlatformName,
    /// What the TPM signed (TPMS_ATTEST); `-` is standard input, here as below
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) message: PathBuf,
    /// The signature: TPMT_SIGNATURE, or an ECDSA signature in DER
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) signature: PathBuf,
    /// The PCR values: JSON, {"sha256": {"0": "<hexadecimal>", …}}
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) pcrs: PathBuf,
    /// The certificates (PEM or DER), in any order: the attestation key's own, intermediates, the root
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required = true, num_args = 1..)]
    pub(crate) chain: Vec<PathBuf>,
    /// The attestation key's public area (TPMT_PUBLIC or TPM2B_PUBLIC); needed for local-ca
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) public: Option<PathBuf>,
    /// What the qualifying data must be; without it the quote may be of any age
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// The time at which certificates must be valid, as 2026-01-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
    /// A file with a root certificate (PEM or DER) to trust, for local-ca
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath)]
    pub(crate) trust_anchor: Vec<PathBuf>,
    /// Sets aside values of PCRs that the quote does not cover, instead of refusing them
    #[arg(long)]
    pub(crate) set_aside_other_pcrs: bool,
    /// Accepts certificates that Azure issued before 2025-11-01, when it also certified keys that the owner of a machine
    /// had chosen (CVE-2025-49707): such a quote shows nothing, unless you know who made it
    #[arg(long, hide_short_help = true)]
    pub(crate) dangerous_accept_azure_keys_certified_before_fix: bool,
}

/// The platforms whose quotes can be verified, named as in proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlatformName {
    AzureTrustedLaunch,
    GceShieldedVm,
    LocalCa,
}

impl From<PlatformName> for PlatformKind {
    fn from(name: PlatformName) -> Self {
        match name {
            PlatformName::AzureTrustedLaunch => Self::AzureTrustedLaunch,
            PlatformName::GceShieldedVm => Self::GceShieldedVm,
            PlatformName::LocalCa => Self::LocalCa,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct NitroArgs {
    #[command(subcommand)]
    pub(crate) command: NitroCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NitroCommand {
    /// Says whether an attestation document holds, and what it covers
    Verify(NitroVerifyArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct NitroVerifyArgs {
    /// The document (COSE_Sign1); `-` is standard input
    #[arg(value_name = "DOC", value_hint = ValueHint::FilePath)]
    pub(crate) document: PathBuf,
    /// The nonce that it must hold; without it the document may be of any age
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// The time at which certificates must be valid, as 2026-01-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
    /// A file with a root certificate (PEM or DER) to trust beside that of AWS
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath)]
    pub(crate) trust_anchor: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Builds the base image from a checkout of aicert
    Build(ImageBuildArgs),
    /// Computes the events and PCR values that booting an image leaves; `--json` writes reference values
    Measure(MeasureArgs),
    /// Builds an image again, from the commit that it names, and says whether that gives the same bytes
    Verify(ImageVerifyArgs),
    /// Puts an image into a cloud, where machines can be made from it
    Publish(PublishArgs),
    /// Removes a published image, complete or not
    Discard(DiscardArgs),
}

/// Where the recipe of the image is, and what it is made with.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recipe")]
pub(crate) struct RecipeArgs {
    /// The checkout of aicert with the recipe [default: the one that the working directory is in]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) recipe: Option<PathBuf>,
    /// A Debian mirror, such as https://snapshot.debian.org/archive/debian/<TIME> [default: that of this machine's apt]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) mirror: Option<String>,
    /// A mirror of Debian's security updates [default: that of this machine's apt]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) security_mirror: Option<String>,
    /// Where packages and intermediate results are kept [default: $XDG_CACHE_HOME/aicert]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache: Option<PathBuf>,
}

/// Which image is built.
#[derive(Debug, Args)]
pub(crate) struct VariantArgs {
    /// Adds NVIDIA's driver and container toolkit: see docs/images.md
    #[arg(long, value_enum, value_name = "VARIANT", requires_all = ["nvidia_repository", "nvidia_lock"])]
    variant: Option<Variant>,
    /// Where NVIDIA's packages are, for `--variant gpu`
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, requires = "variant")]
    nvidia_repository: Option<String>,
    /// Which packages these are, for `--variant gpu`: a lock, as docs/images.md describes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "variant")]
    nvidia_lock: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Variant {
    Gpu,
}

impl VariantArgs {
    /// The same, for the recipe.
    pub(crate) fn options(&self) -> Vec<OsString> {
        let mut options = Vec::new();
        if self.variant == Some(Variant::Gpu) {
            options.extend(["--variant".into(), "gpu".into()]);
        }
        if let Some(repository) = &self.nvidia_repository {
            options.extend(["--nvidia-repository".into(), repository.into()]);
        }
        if let Some(lock) = &self.nvidia_lock {
            options.extend(["--nvidia-lock".into(), lock.into()]);
        }
        options
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  the image was built
  1  it could not be built
  2  misuse, or something is missing on this machine")]
pub(crate) struct ImageBuildArgs {
    /// The folder to write; it must not exist
    #[arg(short, long, value_name = "DIR", default_value = "aicert-base", value_hint = ValueHint::DirPath)]
    pub(crate) output: PathBuf,
    /// Formats, separated by commas: raw (always there), vhd (Azure), qcow2
    #[arg(long, value_name = "LIST", default_value = "raw")]
    pub(crate) format: String,
    #[command(flatten)]
    pub(crate) variant: VariantArgs,
    /// For tests: takes this aicert-server instead of building one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) server: Option<PathBuf>,
    /// For tests: takes this aicert-init instead of building one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) init: Option<PathBuf>,
    /// For tests: adds a word to the kernel's command line; repeatable
    #[arg(long, value_name = "WORD")]
    pub(crate) add_to_command_line: Vec<String>,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  building it again gives the same bytes
  1  it does not, and where they differ is said; or it could not be built
  2  misuse, or a file that is no image or cannot be read, or a checkout of another commit")]
pub(crate) struct ImageVerifyArgs {
    /// A raw disk image, or the folder of `aicert image build`
    #[arg(value_name = "IMAGE|FOLDER", value_hint = ValueHint::AnyPath)]
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) variant: VariantArgs,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  the values were computed
  2  misuse, or a file that is no image or cannot be read")]
pub(crate) struct MeasureArgs {
    /// A unified kernel image, or a raw disk image with one
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The name that the reference values give it [default: the one that the image has]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where the unified kernel image is on a disk's EFI system partition [default: \EFI\BOOT\BOOTX64.EFI]
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Treats a version of systemd-stub that is not known as this one
    #[arg(long, value_name = "VERSION")]
    pub(crate) assume_stub: Option<u16>,
}
