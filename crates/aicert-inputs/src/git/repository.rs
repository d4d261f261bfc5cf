//! Bare repositories that know nothing of the user's configuration.

use std::io;
use std::path::Path;

use aicert_core::input::{InputError, InputErrorKind};
use git2::{ConfigLevel, Repository, RepositoryInitOptions, opts};

use crate::error::storage;

/// Makes an empty bare repository at `path`.
pub(super) fn create(path: &Path, follow_redirects: bool) -> Result<Repository, InputError> {
    let failed = |error: git2::Error| {
        let what = error.message().to_owned();
        if error.class() == git2::ErrorClass::Config {
            // libgit2 insists on reading it before it can be replaced.
            return InputError::new(
                InputErrorKind::Configuration,
                format!("a git configuration cannot be read: {what}"),
            )
            .with_advice("repair the file; what it says is not used, but it must be readable");
        }
        storage("create the repository", path, io::Error::other(what))
    };
    // Both are the default of libgit2; they are part of what is promised here.
    opts::strict_hash_verification(true);
    opts::strict_object_creation(true);

    let empty = path.with_extension("config");
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::write(&empty, b""))
        .map_err(|error| storage("create", path, error))?;
    let mut options = RepositoryInitOptions::new();
    options.bare(true).no_reinit(true).external_template(false);
    let repository = Repository::init_opts(path, &options).map_err(failed)?;
    // The repository keeps this object: what is replaced here is replaced for every later use.
    let mut config = repository.config().map_err(failed)?;
    for level in [
        ConfigLevel::ProgramData,
        ConfigLevel::System,
        ConfigLevel::XDG,
        ConfigLevel::Global,
    ] {
        config.add_file(&empty, level, true).map_err(failed)?;
    }
    config
        .set_str(
            "http.followRedirects",
            if follow_redirects { "initial" } else { "false" },
        )
        .map_err(failed)?;
    Ok(repository)
}
