#![doc = include_str!("../README.md")]

mod access;
mod args;
mod attach;
mod backends;
mod card;
mod deliver;
mod error;
mod eventlog;
mod evidence;
mod export;
mod files;
mod fleet;
mod formats;
mod image;
mod init;
mod local;
mod lock;
mod machines;
mod nitro;
mod output;
mod owner;
mod place;
mod progress;
mod quote;
mod recover;
mod remote;
mod report;
mod run;
mod signals;
mod source;
mod state;
mod table;
mod targets;
mod text;
mod trust;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{
    Cli, Command, CompletionsArgs, ImageCommand, MachinesCommand, NitroCommand, QuoteCommand, RunArgs,
};
use crate::error::{Exit, Failure};
use crate::output::Terminal;

/// Runs the command with these arguments, the program's name first; it has printed everything there is to say.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed pipe is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Misuse
            } else {
                Exit::Holds
            }
            .into();
        }
    };
    let terminal = Terminal::new(&cli.global);
    match dispatch(cli, terminal) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            terminal.error(&failure);
            failure.exit.into()
        }
    }
}

/// The environment variable that a process with these arguments needs from its start, unless it is set: the C libraries
/// behind a TPM would write to the terminal without it.
pub fn needed_environment(arguments: &[OsString]) -> Option<(&'static str, &'static str)> {
    #[cfg(feature = "tpm")]
    let variable = aicert_tpm::QUIET_LOGS;
    #[cfg(not(feature = "tpm"))]
    let variable = ("TSS2_LOG", "all+NONE");
    let cli = Cli::try_parse_from(arguments).ok()?;
    let runs = matches!(cli.command, Some(Command::Run(_)))
        || (cli.command.is_none() && cli.run != RunArgs::default());
    (runs && std::env::var_os(variable.0).is_none()).then_some(variable)
}

fn dispatch(cli: Cli, terminal: Terminal) -> Result<Exit, Failure> {
    let bare = cli.run != RunArgs::default();
    match cli.command {
        Some(_) if bare => Err(Failure::misuse("options of `run` stand before another command")
            .help("write the command first: `aicert run --output-bom proof.json`")),
        Some(Command::Init(args)) => init::init(&args, terminal),
        Some(Command::Run(args)) => run::run(&args, terminal),
        Some(Command::Attach(args)) => attach::attach(&args, terminal),
        Some(Command::Machines(args)) => match args.command {
            MachinesCommand::List(args) => machines::list(&args, terminal),
            MachinesCommand::Destroy(args) => machines::destroy(&args, terminal),
            MachinesCommand::Logs(args) => machines::logs(&args, terminal),
        },
        Some(Command::Verify(args)) => verify::verify(&args, terminal),
        Some(Command::Inspect(args)) => verify::inspect(&args, terminal),
        Some(Command::Eventlog(args)) => eventlog::show(&args, terminal),
        Some(Command::Quote(args)) => match args.command {
            QuoteCommand::Verify(args) => quote::verify(&args, terminal),
        },
        Some(Command::Nitro(args)) => match args.command {
            NitroCommand::Verify(args) => nitro::verify(&args, terminal),
        },
        Some(Command::Image(args)) => match args.command {
            ImageCommand::Build(args) => image::build(&args, terminal),
            ImageCommand::Measure(args) => image::measure(&args, terminal),
            ImageCommand::Verify(args) => image::verify(&args, terminal),
            ImageCommand::Publish(args) => image::publish(&args, terminal),
            ImageCommand::Discard(args) => image::discard(&args, terminal),
        },
        Some(Command::Completions(args)) => Ok(completions(&args, terminal)),
        None if bare => run::run(&cli.run, terminal),
        None => {
            let mut help = Vec::new();
            let _ = std::io::Write::write_fmt(&mut help, format_args!("{}", Cli::command().render_help()));
            terminal.raw(&help);
            Ok(Exit::Misuse)
        }
    }
}

fn completions(args: &CompletionsArgs, terminal: Terminal) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aicert", &mut script);
    terminal.raw(&script);
    Exit::Holds
}

/// The configuration that `aicert init` writes.
#[doc(hidden)]
pub fn template() -> &'static str {
    init::TEMPLATE
}
