//! Jobs on machines other than this one.

pub(crate) mod record;

use aicert_core::spec::MachineSpec;

use crate::args::RunArgs;
use crate::error::{Exit, Failure};
use crate::output::Terminal;
use crate::run::Plan;
use crate::signals::Signals;

pub(crate) async fn run(
    _: &Plan,
    _: &MachineSpec,
    _: &RunArgs,
    _: Terminal,
    _: &mut Signals,
) -> Result<Exit, Failure> {
    Err(Failure::misuse("this build knows no such machine"))
}
