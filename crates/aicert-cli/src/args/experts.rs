//! The command line of the commands that look at one piece of evidence.

use std::path::PathBuf;

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use clap::{Args, Subcommand, ValueEnum, ValueHint};

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
    /// Computes the events and PCR values that booting an image leaves; `--json` writes reference values
    Measure(MeasureArgs),
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
