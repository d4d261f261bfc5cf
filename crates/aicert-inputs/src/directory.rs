//! Directories of this machine.

use std::path::Path;

use aicert_core::input::{
    FetchRequest, FetchedInput, InputCapabilities, InputError, InputErrorKind, InputSource,
};
use aicert_core::measure::{self, HardLinks, Options};
use aicert_core::spec::{DirectoryLocation, Location};
use async_trait::async_trait;
use url::Url;

use crate::background;
use crate::error::{require_absent, storage, wrong_source};
use crate::reporter::Reporter;

/// Copies a directory, measuring the bytes that it writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectorySource;

#[async_trait]
impl InputSource for DirectorySource {
    fn capabilities(&self) -> &InputCapabilities {
        &InputCapabilities {
            kind: "directory",
            resumes: false,
            authenticates: false,
        }
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchedInput, InputError> {
        let FetchRequest {
            spec,
            target,
            progress,
        } = request;
        let Location::Directory(DirectoryLocation { path }) = spec.location else {
            return Err(wrong_source("directory", &spec.location));
        };
        let reporter = Reporter::new(progress, &spec.name);
        let origin = origin(&path)?;
        require_absent(&target)?;
        let to = target.clone();
        let tree = background::make(&target, None, move |signals| {
            check_apart(&path, &to)?;
            let report = |done| reporter.at(done, None);
            // Several names of one file become separate copies, so they do no harm here.
            let options = Options {
                hard_links: HardLinks::Accept,
                progress: &report,
                cancelled: signals.flag(),
            };
            Ok(measure::copy(&path, &to, &options)?)
        })
        .await?;
        Ok(FetchedInput {
            origin,
            requested: Vec::new(),
            resolved: Vec::new(),
            tree,
        })
    }
}

fn origin(path: &Path) -> Result<String, InputError> {
    let refused = |what| {
        InputError::new(
            InputErrorKind::Configuration,
            format!("directory {path:?} is {what}"),
        )
        .with_advice("give the absolute path of the folder that holds just this input")
    };
    if path == Path::new("/") {
        return Err(refused("the root of the file system"));
    }
    // Percent-encodes whatever is not plain text; fails on relative paths.
    Url::from_file_path(path)
        .map(Into::into)
        .map_err(|()| refused("not an absolute path"))
}

/// Refuses a directory that contains its own copy.
fn check_apart(from: &Path, target: &Path) -> Result<(), InputError> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    let from_real = from
        .canonicalize()
        .map_err(|error| storage("find", from, error))?;
    let parent_real = parent
        .canonicalize()
        .map_err(|error| storage("find", parent, error))?;
    if from_real == Path::new("/") || parent_real.starts_with(&from_real) {
        return Err(InputError::new(
            InputErrorKind::Refused,
            format!("directory {from:?} contains the workspace {parent:?} that it would be copied to"),
        )
        .with_advice(
            "name a folder that does not contain aicert's workspace, or keep the workspace elsewhere",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_by_a_url_without_ambiguity() {
        assert_eq!(
            origin(Path::new("/data/a b\n%")).unwrap(),
            "file:///data/a%20b%0A%25"
        );
        for wrong in ["/", "relative", ""] {
            assert_eq!(
                origin(Path::new(wrong)).unwrap_err().kind(),
                InputErrorKind::Configuration,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_directory_is_never_copied_into_itself() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::os::unix::fs::symlink(&inner, root.path().join("link")).unwrap();
        for (from, target) in [
            ("a", "a/target"),
            ("a", "a/b/target"),
            ("a", "link/target"),
            ("a/../a", "a/b/t"),
        ] {
            let error = check_apart(&root.path().join(from), &root.path().join(target)).unwrap_err();
            assert_eq!(error.kind(), InputErrorKind::Refused, "{from} {target}");
        }
        assert!(check_apart(&root.path().join("a/b"), &root.path().join("a/target")).is_ok());
    }
}
