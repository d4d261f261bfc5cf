//! What the sources have in common when something goes wrong.

use std::io;
use std::path::Path;

use aicert_core::input::{InputError, InputErrorKind};
use aicert_core::measure::MeasureError;
use aicert_core::spec::Location;

/// Local storage failed.
pub(crate) fn storage(action: &'static str, path: &Path, source: io::Error) -> InputError {
    MeasureError::Io {
        action,
        path: path.to_owned(),
        source,
    }
    .into()
}

/// Somebody gave up on the fetch.
pub(crate) fn cancelled() -> InputError {
    InputError::new(InputErrorKind::Storage, "fetching was cancelled")
}

/// The pipeline chose the wrong source.
pub(crate) fn wrong_source(kind: &'static str, found: &Location) -> InputError {
    let found = found.kind();
    InputError::new(
        InputErrorKind::Configuration,
        format!("the source for inputs of type {kind:?} was given one of type {found:?}"),
    )
}

/// Refuses a target that exists: it would be neither empty nor ours to remove.
pub(crate) fn require_absent(target: &Path) -> Result<(), InputError> {
    match std::fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(storage("look at", target, error)),
        Ok(_) => Err(
            InputError::new(InputErrorKind::Storage, format!("{target:?} exists already"))
                .with_advice("give each input a destination of its own, and start from an empty workspace"),
        ),
    }
}
