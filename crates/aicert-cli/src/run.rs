//! `aicert run`.

mod here;

use std::path::{Path, PathBuf};

use aicert_core::config::ConfigError;
use aicert_core::spec::{JobSpec, LocalTpm, MachineSpec};

use crate::args::RunArgs;
use crate::error::{Exit, Failure};
use crate::files;
use crate::output::Terminal;
use crate::owner;
use crate::place::Place;
use crate::remote;
use crate::signals::Signals;
use crate::state::State;
use crate::targets::Targets;
use crate::text::Text;
use crate::trust::Trust;

/// A configuration larger than that is refused by its reader with a better message.
const CONFIG_LIMIT: u64 = 8 << 20;

/// What the reference values of an image are called, in place of its extension.
pub(crate) const REFERENCE_VALUES: &str = ".reference-values.json";

/// Everything that is known before anything is done.
pub(crate) struct Plan {
    pub(crate) spec: JobSpec,
    /// The configuration, byte for byte.
    pub(crate) text: String,
    /// Its absolute path.
    pub(crate) configuration: PathBuf,
    pub(crate) targets: Targets,
    pub(crate) trust: Trust,
    pub(crate) state: State,
}

pub(crate) fn run(args: &RunArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let plan = Plan::make(args)?;
    block_on(async {
        let mut signals = Signals::listen()?;
        match &plan.spec.machine {
            MachineSpec::Local(tpm) => here::drive(&plan, tpm, terminal, &mut signals).await,
            machine => remote::run(&plan, machine, terminal, &mut signals).await,
        }
    })
}

/// Runs what waits for other machines, and for signals.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::DoesNotHold, "could not start threads").because(&error))?;
    let result = executor.block_on(work);
    // A download that was given up may still wait for its last packet; nobody waits for it.
    executor.shutdown_background();
    result
}

impl Plan {
    fn make(args: &RunArgs) -> Result<Self, Failure> {
        let file = args.file.clone().unwrap_or_else(|| "aicert.yaml".into());
        let (text, configuration) = read_configuration(&file)?;
        let spec = parse_configuration(&text, &configuration, &file)?;
        let simulated = match &spec.machine {
            MachineSpec::Local(tpm) => matches!(tpm, LocalTpm::Swtpm),
            MachineSpec::Qemu(_) => true,
            _ => false,
        };
        let reference_files = match &args.reference_values[..] {
            [] => reference_file(&spec.machine)?.into_iter().collect(),
            named => named.to_vec(),
        };
        Ok(Self {
            targets: Targets::of(args, simulated)?,
            trust: Trust::read(reference_files, args.policy.clone())?,
            state: State::from_environment()?,
            spec,
            text,
            configuration,
        })
    }
}

/// The reference values that the configuration names, or that are beside the image.
fn reference_file(machine: &MachineSpec) -> Result<Option<PathBuf>, Failure> {
    if let Some(cloud) = machine.cloud() {
        return Ok(Some(cloud.reference_values.clone()));
    }
    let MachineSpec::Qemu(machine) = machine else {
        return Ok(None);
    };
    if let Some(named) = &machine.reference_values {
        return Ok(Some(named.clone()));
    }
    let beside = files::sibling(&machine.image, REFERENCE_VALUES);
    if files::exists(&beside) {
        return Ok(Some(beside));
    }
    let failure = Failure::misuse(format!("there are no reference values {}", beside.display()));
    Err(failure.help(
        "without them nobody can say what the machine boots: `aicert image measure IMAGE --json` computes them; \
         `referenceValues` in the configuration, or `--reference-values`, names them",
    ))
}

fn read_configuration(file: &Path) -> Result<(String, PathBuf), Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        let failure = Failure::misuse(format!("could not read the configuration {shown}")).because(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.help("`aicert init` writes one to start from; `-f FILE` names another")
            }
            _ => failure,
        }
    };
    let path = std::fs::canonicalize(file).map_err(unreadable)?;
    let size = std::fs::metadata(&path).map_err(unreadable)?.len();
    if size > CONFIG_LIMIT {
        return Err(Failure::misuse(format!(
            "the configuration {shown} is larger than 1 MiB"
        )));
    }
    let text = std::fs::read_to_string(&path).map_err(unreadable)?;
    Ok((text, path))
}

/// Reads a configuration whose absolute path is `path`, and which the user calls `shown`.
pub(crate) fn parse_configuration(text: &str, path: &Path, shown: &Path) -> Result<JobSpec, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    JobSpec::from_yaml(text, files::folder_of(path), &environment).map_err(|error| unusable(&error, shown))
}

/// Where the machine of a configuration is made, whatever else is wrong with it; nothing for this machine.
pub(crate) fn place_of_configuration(file: &Path) -> Result<Option<Place>, Failure> {
    let (text, path) = read_configuration(file)?;
    let environment = |name: &str| std::env::var(name).ok();
    let machine = MachineSpec::from_yaml(&text, files::folder_of(&path), &environment)
        .map_err(|error| unusable(&error, file))?;
    Place::of(&machine, owner::owner)
}

/// Says what is wrong with a configuration.
pub(crate) fn unusable(error: &ConfigError, shown: &Path) -> Failure {
    let shown = shown.display();
    let number = error.problems().len();
    Failure::misuse(format!(
        "{shown} cannot be used: {}\n\n{}\n",
        crate::card::count(number as u64, "problem"),
        error.render(&shown.to_string())
    ))
}

/// Shows a path as it was given, for commands that can be typed again.
pub(crate) fn shown(path: &Path) -> Text {
    Text::new().bold(&crate::card::shown_command(&[path.display().to_string()]))
}
