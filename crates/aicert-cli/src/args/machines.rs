//! The command line of the commands for machines other than this one.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::EXIT_CODES;

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct AttachArgs {
    /// The job, or a part of its name that no other has; may be left out when there is only one
    pub(crate) job: Option<String>,
    /// Where to write the proof, instead of where `run` was told to
    #[arg(short = 'b', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output_bom: Option<PathBuf>,
    /// Where to put the outputs of the job, instead of where `run` was told to
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) outputs: Option<PathBuf>,
    /// Replaces a proof that is already there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MachinesArgs {
    #[command(subcommand)]
    pub(crate) command: MachinesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachinesCommand {
    /// Shows every machine, whoever provides it, and the job that it is for
    List(ListArgs),
    /// Removes machines, with what their jobs have not brought back yet
    Destroy(DestroyArgs),
    /// Shows what a machine wrote to its console
    Logs(LogsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) where_else: WhereElse,
}

/// Where machines are looked for, besides the places where this user's state folder knows that there may be some.
#[derive(Debug, Args)]
pub(crate) struct WhereElse {
    /// Also looks where this configuration makes machines: for machines that another computer has begun
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["job", "all"]))]
#[command(after_help = "Exit codes:
  0  nothing of what was to be destroyed is left
  1  something is left
  2  misuse")]
pub(crate) struct DestroyArgs {
    /// The job whose machine it is, or a part of its name that no other has
    pub(crate) job: Option<String>,
    /// Destroys every machine
    #[arg(long)]
    pub(crate) all: bool,
    /// Destroys machines of jobs that another aicert follows, too, but for jobs on this machine; and forgets jobs of which
    /// nobody knows whether they have a machine
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) where_else: WhereElse,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job whose machine it is, or a part of its name that no other has
    pub(crate) job: String,
    /// Goes on until the machine has ended
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) where_else: WhereElse,
}
