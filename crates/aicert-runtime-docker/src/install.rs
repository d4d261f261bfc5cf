//! From a base image and measured wheels to the image that the job runs in, without network.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aicert_core::digest::ImageDigest;
use aicert_core::event::Package;
use aicert_core::progress::Step;
use aicert_core::runtime::{BuildRequest, RuntimeErrorKind};
use bollard::models::{ContainerConfig, ImageConfig, ImageInspect};
use bollard::query_parameters::CommitContainerOptionsBuilder;

use crate::cache::{Cache, Key};
use crate::dependencies::blocking;
use crate::engine::{Engine, labels};
use crate::error::{Doing as _, Fault};
use crate::owner::JOB_LABEL;
use crate::pip::{self, ROOT, Settings};
use crate::{failure, sandbox, wheel};

/// Label with the key of a build: the base image and every file that was installed.
const BUILD_LABEL: &str = "aicert.build";

/// Builds the image of a job; without packages, that is the base image itself.
pub(crate) async fn build(
    engine: &Engine,
    cache: Option<&Cache>,
    request: BuildRequest,
) -> Result<ImageDigest, Fault> {
    if request.packages.is_empty() {
        return Ok(request.image.digest);
    }
    let (progress, count) = (request.progress.clone(), request.packages.len());
    let subject = format!("{count} packages on {}", request.image.requested);
    progress.started(Step::Build, &subject);

    let base = engine.image_by_digest(request.image.digest).await?;
    let key = Key::of_build(&request.image.digest, &request.packages);
    if let Some(image) = reusable(engine, cache, &key, &base).await? {
        progress.finished(Step::Build, &subject, format!("{image}, built before"));
        return Ok(image);
    }
    let image = install(engine, &request, &key, &base, cache.is_some()).await?;
    if let Some(cache) = cache {
        for old in cache.keep_built(&key, image)? {
            // An image in use by another job stays; it is only no longer kept for later.
            let _ = engine.remove_image(&old.to_string()).await;
        }
    }
    progress.finished(Step::Build, &subject, image.to_string());
    Ok(image)
}

/// An image that was built from the same base and files, if it is still there and is what it is said to be.
async fn reusable(
    engine: &Engine,
    cache: Option<&Cache>,
    key: &Key,
    base: &ImageInspect,
) -> Result<Option<ImageDigest>, Fault> {
    let Some(cache) = cache else { return Ok(None) };
    let Some(digest) = cache.built(key) else {
        return Ok(None);
    };
    let found = engine.image(&digest.to_string()).await?;
    if found.is_some_and(|image| stands_on(&image, base) && label(&image) == Some(key.as_str())) {
        return Ok(Some(digest));
    }
    cache.forget_built(key);
    Ok(None)
}

fn label(image: &ImageInspect) -> Option<&str> {
    image
        .config
        .as_ref()?
        .labels
        .as_ref()?
        .get(BUILD_LABEL)
        .map(String::as_str)
}

/// Whether an image is the layers of `base` and exactly one more.
fn stands_on(image: &ImageInspect, base: &ImageInspect) -> bool {
    let layers = |image: &ImageInspect| {
        image
            .root_fs
            .clone()
            .and_then(|root| root.layers)
            .unwrap_or_default()
    };
    let (image, base) = (layers(image), layers(base));
    image.len() == base.len() + 1 && image.starts_with(&base)
}

async fn install(
    engine: &Engine,
    request: &BuildRequest,
    key: &Key,
    base: &ImageInspect,
    kept: bool,
) -> Result<ImageDigest, Fault> {
    let (folder, packages) = (request.packages_dir.clone(), request.packages.clone());
    blocking(move || {
        wheel::check(&folder, &packages)?;
        readable(&folder, &packages)
    })
    .await?;

    let parent = request
        .packages_dir
        .parent()
        .map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let settings = Settings::open(&parent)?;
    settings.write("pip.conf", INSTALL_SETTINGS.as_bytes())?;
    let list: String = request
        .packages
        .iter()
        .map(|package| {
            let hash = package.hash.to_string();
            format!("{}=={} --hash={hash}\n", package.name, package.version)
        })
        .collect();
    settings.write("requirements.txt", list.as_bytes())?;

    let (file, wheels) = (
        format!("{ROOT}/settings/requirements.txt"),
        format!("{ROOT}/wheels"),
    );
    let command = pip::command(&[
        "install",
        "--no-index",
        "--find-links",
        &wheels,
        "--no-deps",
        "--require-hashes",
        "--force-reinstall",
        "--only-binary=:all:",
        "--requirement",
        &file,
    ]);
    let config = base.config.clone().unwrap_or_default();
    let user = config
        .user
        .clone()
        .filter(|user| is_root(user))
        .unwrap_or_else(|| "0:0".into());
    let base_id = base.id.clone().unwrap_or_default();
    let body = sandbox::container(&base_id, command, user, sandbox::Network::None);
    let mounts = vec![
        settings.mount()?,
        sandbox::bind(&request.packages_dir, &wheels, false)?,
    ];
    let body = pip::with_mounts(body, mounts, false);

    let id = engine.create(&request.job, body).await?;
    let result = install_and_commit(engine, request, key, config, kept, &id, &settings).await;
    engine.remove(&id).await?;
    result
}

/// Lets the root of a container read the wheels, which without capabilities reads only what everybody may. The folder
/// that theirs is in keeps others out.
fn readable(folder: &Path, packages: &[Package]) -> Result<(), Fault> {
    let set = |path: &Path, mode| {
        let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        set.map_err(|error| Fault::file("change the mode of", path, error))
    };
    set(folder, 0o755)?;
    packages
        .iter()
        .try_for_each(|package| set(&wheel::file_in(folder, package)?, 0o644))
}

/// What pip is told beyond its arguments, as versions of pip that do not know a setting pass over it in a file. Bytecode
/// is compiled here, once, because the job could not keep what it compiles.
const INSTALL_SETTINGS: &str =
    "[global]\nno-warn-script-location = true\nroot-user-action = ignore\nbreak-system-packages = true\n";

async fn install_and_commit(
    engine: &Engine,
    request: &BuildRequest,
    key: &Key,
    config: ImageConfig,
    kept: bool,
    id: &str,
    settings: &Settings,
) -> Result<ImageDigest, Fault> {
    let total = request.packages.len() as u64;
    let said = pip::run(engine, id, settings, |line| {
        let done = if line.starts_with("Processing ") {
            0
        } else if line.starts_with("Successfully installed") {
            total
        } else {
            return;
        };
        request
            .progress
            .advanced(Step::Build, &request.image.requested, done, Some(total));
    })
    .await?;
    if said.exit_code != 0 {
        let advice = "the wheels are those that were measured; if pip does not take them, try an image with a newer pip";
        return Err(Fault::told(
            RuntimeErrorKind::Dependencies,
            failure::told("the packages could not be installed", &said),
            advice,
        ));
    }

    let mut options = CommitContainerOptionsBuilder::new().container(id).pause(false);
    if kept {
        options = options.repo("aicert/built").tag(&key.as_str()[..16]);
    }
    let (docker, options, config) = (
        engine.docker.clone(),
        options.build(),
        committed(config, request, key, kept),
    );
    let commit = engine
        .uncancelled(async move { docker.commit_container(options, config).await })
        .await?;
    let image = commit.doing("commit the image of the job")?.id;
    image.parse().map_err(|_| {
        Fault::told(
            RuntimeErrorKind::Failed,
            format!("the Docker engine named the image it built {image:?}"),
            "report this engine's version",
        )
    })
}

/// The base's configuration, with labels. The engine fills what is left out from the container, whose command and labels
/// are those of the installation: so nothing is left out.
fn committed(base: ImageConfig, request: &BuildRequest, key: &Key, kept: bool) -> ContainerConfig {
    let mut all: HashMap<String, String> = base.labels.unwrap_or_default();
    all.extend(labels(&request.job));
    if kept {
        // It outlives the job.
        all.extend([
            (JOB_LABEL.to_owned(), String::new()),
            (crate::owner::OWNER_LABEL.to_owned(), String::new()),
        ]);
    }
    all.insert(BUILD_LABEL.into(), key.as_str().into());
    ContainerConfig {
        user: base.user,
        exposed_ports: base.exposed_ports,
        env: base.env,
        entrypoint: Some(base.entrypoint.unwrap_or_default()),
        cmd: Some(base.cmd.unwrap_or_default()),
        healthcheck: base.healthcheck,
        args_escaped: base.args_escaped,
        volumes: base.volumes,
        working_dir: Some(
            base.working_dir
                .filter(|folder| !folder.is_empty())
                .unwrap_or_else(|| "/".into()),
        ),
        on_build: base.on_build,
        labels: Some(all),
        stop_signal: base.stop_signal,
        shell: base.shell,
        ..ContainerConfig::default()
    }
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), Some("root" | "0"))
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageInspectRootFs;

    use super::*;

    #[test]
    fn a_built_image_is_its_base_and_one_layer() {
        let image = |layers: &[&str]| ImageInspect {
            root_fs: Some(ImageInspectRootFs {
                typ: "layers".into(),
                layers: Some(layers.iter().map(|&layer| layer.to_owned()).collect()),
            }),
            ..ImageInspect::default()
        };
        let base = image(&["a", "b"]);
        assert!(stands_on(&image(&["a", "b", "c"]), &base));
        for other in [
            &["a", "b"][..],
            &["a", "c", "b"],
            &["x", "b", "c"],
            &["a", "b", "c", "d"],
        ] {
            assert!(!stands_on(&image(other), &base), "{other:?}");
        }
    }
}
