//! Where results go, and whether they can be put there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aicert_core::runtime::JobId;
use serde::{Deserialize, Serialize};

use crate::args::RunArgs;
use crate::error::Failure;
use crate::files;

/// Where results go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Targets {
    pub(crate) proof: PathBuf,
    pub(crate) outputs: PathBuf,
    /// Whether there is a trust anchor to hand out.
    simulated: bool,
    /// Whether files that are there are replaced.
    pub(crate) replace: bool,
}

impl Targets {
    /// Checks, before any work is done, that everything can be put where it belongs.
    pub(crate) fn of(args: &RunArgs, simulated: bool) -> Result<Self, Failure> {
        let targets = Self {
            proof: args.output_bom.clone().unwrap_or_else(|| "proof.json".into()),
            outputs: args.outputs.clone().unwrap_or_else(|| "outputs".into()),
            simulated,
            replace: args.force,
        };
        targets.check()?;
        Ok(targets)
    }

    /// Checks that everything can be put where it belongs.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Self { proof, outputs, .. } = self;
        if proof.file_name().is_none() {
            return Err(Failure::misuse(format!(
                "`--output-bom {}` names no file",
                proof.display()
            )));
        }
        if outputs.file_name().is_none() {
            return Err(
                Failure::misuse(format!("`--outputs {}` names no new folder", outputs.display()))
                    .help("name a folder that is empty or not there"),
            );
        }
        for path in self.files() {
            check_file(&path, self.replace)?;
        }
        check_folder(outputs)?;
        if absolute(proof)?.starts_with(absolute(outputs)?) {
            return Err(
                Failure::misuse("the proof cannot be inside the folder of the outputs")
                    .help("the outputs are what the proof speaks of: keep it beside them"),
            );
        }
        Ok(())
    }

    /// Other places, where they are wanted.
    pub(crate) fn redirected(self, proof: Option<&Path>, outputs: Option<&Path>, replace: bool) -> Self {
        Self {
            proof: proof.map_or(self.proof, Path::to_owned),
            outputs: outputs.map_or(self.outputs, Path::to_owned),
            replace: self.replace || replace,
            ..self
        }
    }

    /// The same places, wherever a command is given.
    pub(crate) fn absolute(&self) -> Result<Self, Failure> {
        Ok(Self {
            proof: absolute(&self.proof)?,
            outputs: absolute(&self.outputs)?,
            ..self.clone()
        })
    }

    /// The listings that are too large for the proof.
    pub(crate) fn manifest(&self) -> PathBuf {
        files::beside(&self.proof, ".manifest")
    }

    /// What the job printed.
    pub(crate) fn log(&self) -> PathBuf {
        files::sibling(&self.proof, ".log")
    }

    /// The trust anchor, for a simulated TPM.
    pub(crate) fn anchor(&self) -> Option<PathBuf> {
        self.simulated.then(|| files::sibling(&self.proof, ".ca.pem"))
    }

    /// Every file that may be written, the proof first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.proof.clone(), self.manifest(), self.log()];
        files.extend(self.anchor());
        files
    }

    /// Everything that may be written, absolute, the proof first.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let mut all = self.files();
        all.push(self.outputs.clone());
        all.iter()
            .filter_map(|path| std::path::absolute(path).ok())
            .collect()
    }

    /// The same names in another folder.
    pub(crate) fn inside(&self, folder: &Path) -> Self {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        let (proof, mut outputs) = (name(&self.proof), name(&self.outputs));
        if proof == outputs {
            outputs.push(".outputs");
        }
        Self {
            proof: folder.join(proof),
            outputs: folder.join(outputs),
            replace: false,
            ..self.clone()
        }
    }

    /// Other names in the same folders.
    pub(crate) fn renamed(&self, job: &JobId) -> Self {
        let extension = self
            .proof
            .extension()
            .map(|extension| format!(".{}", extension.to_string_lossy()));
        Self {
            proof: files::sibling(&self.proof, &format!("-{job}{}", extension.unwrap_or_default())),
            outputs: files::beside(&self.outputs, &format!("-{job}")),
            ..self.clone()
        }
    }

    /// Something that has been put in the way since [`Targets::of`] looked, by somebody else than us.
    pub(crate) fn obstacle(&self, is_ours: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        if check_folder(&self.outputs).is_err() && !is_ours(&self.outputs) {
            return Some(self.outputs.clone());
        }
        let mut files = self.files().into_iter();
        files.find(|file| check_file(file, self.replace).is_err() && !is_ours(file))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    // The parent exists by now; links in it are followed.
    let parent = files::folder_of(path);
    let name = path.file_name().unwrap_or_default();
    fs::canonicalize(parent)
        .map(|parent| parent.join(name))
        .map_err(|error| Failure::misuse(format!("there is no folder {}", parent.display())).because(&error))
}

fn check_file(path: &Path, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    let folder = files::folder_of(path);
    if !folder.is_dir() {
        return Err(
            Failure::misuse(format!("there is no folder {}", folder.display()))
                .help("make it, or name another place for the proof with `--output-bom`"),
        );
    }
    if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(Failure::misuse(format!(
            "no permission to write to the folder {}",
            folder.display()
        ))
        .help("name another place for the proof with `--output-bom`"));
    }
    if files::exists(path) && !force {
        return Err(Failure::misuse(format!("{shown} is already there"))
            .help("`--force` replaces it; `--output-bom` names another proof"));
    }
    if path.is_dir() {
        return Err(Failure::misuse(format!("{shown} is a folder")).help("name a file with `--output-bom`"));
    }
    Ok(())
}

fn check_folder(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let parent = files::folder_of(folder);
    if !parent.is_dir() {
        return Err(
            Failure::misuse(format!("there is no folder {}", parent.display()))
                .help("make it, or name another place for the outputs with `--outputs`"),
        );
    }
    if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(Failure::misuse(format!(
            "no permission to write to the folder {}",
            parent.display()
        ))
        .help("name another place for the outputs with `--outputs`"));
    }
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::misuse(format!("could not look at {shown}")).because(&error)),
        Ok(metadata) if !metadata.is_dir() => Err(Failure::misuse(format!("{shown} is no folder"))
            .help("`--outputs` names a folder that is empty or not there")),
        Ok(_) => match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::misuse(format!("the folder {shown} is not empty"))
                .help("`--outputs` names a folder that is empty or not there: what is in it will be exactly what was measured")),
            Err(error) => Err(Failure::misuse(format!("could not read {shown}")).because(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(proof: &str, outputs: &str) -> Targets {
        Targets {
            proof: proof.into(),
            outputs: outputs.into(),
            simulated: true,
            replace: false,
        }
    }

    #[test]
    fn other_names_are_derived() {
        let job = "j".parse().unwrap();
        let renamed = targets("a/proof.json", "b/model").renamed(&job);
        assert_eq!(renamed.proof, Path::new("a/proof-j.json"));
        assert_eq!(renamed.anchor().unwrap(), Path::new("a/proof-j.ca.pem"));
        assert_eq!(renamed.outputs, Path::new("b/model-j"));
        let inside = targets("a/x", "b/x").inside(Path::new("c"));
        assert_eq!(
            (inside.proof.as_path(), inside.outputs.as_path()),
            (Path::new("c/x"), Path::new("c/x.outputs"))
        );
    }

    #[test]
    fn what_came_in_the_way_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let targets = targets(&at("proof.json"), &at("model"));
        assert_eq!(targets.obstacle(|_| false), None);
        fs::create_dir(&targets.outputs).unwrap();
        assert_eq!(targets.obstacle(|_| false), None);
        fs::write(targets.log(), "x").unwrap();
        assert_eq!(targets.obstacle(|_| false), Some(targets.log()));
        assert_eq!(
            Targets {
                replace: true,
                ..targets.clone()
            }
            .obstacle(|_| false),
            None
        );
        fs::write(targets.outputs.join("x"), "x").unwrap();
        assert_eq!(targets.obstacle(|_| false), Some(targets.outputs.clone()));
    }
}
