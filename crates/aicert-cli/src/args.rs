//! The command line.

mod experts;
mod machines;
mod publish;

use std::path::PathBuf;

use aicert_core::time::Timestamp;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub(crate) use experts::{
    EventlogArgs, ImageArgs, ImageBuildArgs, ImageCommand, ImageVerifyArgs, MeasureArgs, NitroArgs,
    NitroCommand, NitroVerifyArgs, QuoteArgs, QuoteCommand, QuoteVerifyArgs, RecipeArgs,
};
pub(crate) use machines::{
    AttachArgs, DestroyArgs, ListArgs, LogsArgs, MachinesArgs, MachinesCommand, WhereElse,
};
pub(crate) use publish::{CloudName, DestinationArgs, DiscardArgs, PublishArgs};

const EXIT_CODES: &str = "Exit codes:
  0    it holds; the job succeeded and its proof was written
  1    it does not hold; the job failed or could not be completed
  2    misuse, or a file that cannot be read
  130  interrupted (143: terminated)";

/// Proves which code, data and software stack produced a model.
#[derive(Debug, Parser)]
#[command(name = "aicert", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct GlobalArgs {
    /// Says nothing but errors; the exit code tells the result
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Writes results as JSON to standard output, and progress as JSON lines to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    // On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Writes a commented configuration to start from
    Init(InitArgs),
    /// Runs the job of a configuration, and writes its proof and outputs (`run` may be left out)
    Run(RunArgs),
    /// Goes on with a job that is on another machine
    Attach(AttachArgs),
    /// Lists and destroys machines, and shows what they wrote to their console
    Machines(MachinesArgs),
    /// Says whether a proof holds
    Verify(VerifyArgs),
    /// Shows what a proof says, marked as unverified unless it verifies
    Inspect(InspectArgs),
    /// Shows a boot event log: its events, the PCRs that they lead to, and what no honest log has
    Eventlog(EventlogArgs),
    /// Verifies TPM quotes outside of proofs
    Quote(QuoteArgs),
    /// Verifies attestation documents of AWS NitroTPM
    Nitro(NitroArgs),
    /// Measures, builds, verifies and publishes images
    Image(ImageArgs),
    /// Prints completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct InitArgs {
    /// The file to write; it must not exist
    #[arg(default_value = "aicert.yaml", value_hint = ValueHint::FilePath)]
    pub(crate) path: PathBuf,
}

/// Options of `run`, which is also what happens without a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct RunArgs {
    /// The configuration [default: aicert.yaml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Where to write the proof [default: proof.json]
    #[arg(short = 'b', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output_bom: Option<PathBuf>,
    /// Where to put the outputs of the job: a folder that is empty or not there [default: outputs]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) outputs: Option<PathBuf>,
    /// Replaces a proof that is already there
    #[arg(long)]
    pub(crate) force: bool,
    /// What images and firmware measure, for machines that are attested, instead of the file that the configuration names
    /// or that is beside the image
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) reference_values: Vec<PathBuf>,
    /// What the machine and the proof must satisfy (YAML)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
}

/// What a proof is verified against.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// A file with root certificates (PEM) to trust besides those that aicert knows; a proof that needs one is marked
    /// as simulated
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath)]
    pub(crate) trust_anchor: Vec<PathBuf>,
    /// The time at which certificates must be valid, as 2026-01-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
    /// Certificates (PEM or DER) for proofs whose chain lacks them; they are believed only as far as a root vouches
    /// for them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) intermediate: Vec<PathBuf>,
    /// What images and firmware measure, as `aicert image measure --json` writes it; without it nobody can say what a
    /// machine booted
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) reference_values: Vec<PathBuf>,
    /// What the proof must satisfy beyond that it is true (YAML)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
    /// The nonce that the proof must answer: 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// The folder with the outputs, to compare with those that were measured
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) outputs: Option<PathBuf>,
    /// An input and the hash that it must have: a commit, a file's SHA-256, or `tree:sha256:…` for the root of its tree
    #[arg(long = "input", value_name = "NAME=HASH")]
    pub(crate) inputs: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct VerifyArgs {
    /// The proof
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) proof: PathBuf,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct InspectArgs {
    /// The proof
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) proof: PathBuf,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// Also writes the quote to a new folder, in the layout that `tpm2_checkquote` reads
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) export_quote: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
