//! `aicert init`.

use std::io;

use crate::args::InitArgs;
use crate::error::{Exit, Failure};
use crate::files;
use crate::output::Terminal;
use crate::text::Text;

/// The configuration that people start from.
pub(crate) const TEMPLATE: &str = include_str!("template.yaml");

pub(crate) fn init(args: &InitArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let shown = args.path.display().to_string();
    files::write_new(&args.path, TEMPLATE.as_bytes()).map_err(|error| {
        let failure = Failure::misuse(format!("could not write {shown}")).because(&error);
        match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::misuse(format!("{shown} is already there"))
                .help("give another name: `aicert init NAME`"),
            _ => failure,
        }
    })?;
    terminal.result(
        &Text::from("Wrote ")
            .bold(&shown)
            .plain(". Edit it, then run `aicert --output-bom proof.json --outputs model`."),
    );
    terminal.json_result(&serde_json::json!({ "written": shown }));
    Ok(Exit::Holds)
}
