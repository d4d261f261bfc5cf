//! Downloading what a requirements file names: with network, and with nothing else of the job in sight.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use aicert_core::event::Package;
use aicert_core::progress::{Progress, Step};
use aicert_core::runtime::{DependencyRequest, RuntimeErrorKind};

use crate::cache::{Cache, Key};
use crate::engine::Engine;
use crate::error::Fault;
use crate::pip::{self, ROOT, Settings};
use crate::requirements::Requirements;
use crate::{failure, sandbox, wheel};

const LOG: &str = "pip.log";
const LOG_END: u64 = 8 << 20;

/// Downloads packages as wheels, and measures them.
pub(crate) async fn resolve(
    engine: &Engine,
    cache: Option<&Cache>,
    request: DependencyRequest,
) -> Result<Vec<Package>, Fault> {
    let subject = request
        .requirements
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let progress = request.progress.clone();
    progress.started(Step::Dependencies, &subject);
    let path = request.requirements.clone();
    let requirements = blocking(move || Requirements::read(&path)).await?;
    if requirements.count == 0 {
        progress.finished(Step::Dependencies, &subject, "nothing to install");
        return Ok(Vec::new());
    }

    let key = Key::of_requirements(
        &request.image.digest,
        &requirements.text,
        request.index.url.as_deref(),
    );
    if let Some(packages) = from_cache(cache, &key, &request.into, &progress).await? {
        progress.finished(
            Step::Dependencies,
            &subject,
            format!("{} packages, downloaded before", packages.len()),
        );
        return Ok(packages);
    }
    let packages = download(engine, &request, &requirements).await?;
    if let Some(cache) = cache.cloned() {
        let (packages, from, pinned) = (packages.clone(), request.into.clone(), requirements.pinned);
        // Every package pinned: no later resolution can differ.
        let for_ever = packages
            .iter()
            .all(|package| pinned.get(&package.name) == Some(&package.version));
        blocking(move || cache.keep_wheels(&key, &packages, &from, for_ever)).await?;
    }
    progress.finished(
        Step::Dependencies,
        &subject,
        format!("{} packages", packages.len()),
    );
    Ok(packages)
}

async fn from_cache(
    cache: Option<&Cache>,
    key: &Key,
    into: &Path,
    progress: &Progress,
) -> Result<Option<Vec<Package>>, Fault> {
    let Some(cache) = cache.cloned() else {
        return Ok(None);
    };
    let (key, into, progress) = (key.clone(), into.to_owned(), progress.clone());
    blocking(move || cache.wheels(&key, &into, &progress)).await
}

async fn download(
    engine: &Engine,
    request: &DependencyRequest,
    requirements: &Requirements,
) -> Result<Vec<Package>, Fault> {
    let parent = request
        .into
        .parent()
        .map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let mut settings = Settings::private(&parent)?;
    settings.write_index(&request.index)?;
    settings.write("requirements.txt", requirements.text.as_bytes())?;

    let image = engine
        .image_by_digest(request.image.digest)
        .await?
        .id
        .unwrap_or_default();
    let (file, wheels) = (
        format!("{ROOT}/settings/requirements.txt"),
        format!("{ROOT}/wheels"),
    );
    let log = format!("{ROOT}/tmp/{LOG}");
    let scratch = settings.scratch()?;
    let command = pip::command(&[
        "download",
        "--log",
        &log,
        "--only-binary=:all:",
        "--dest",
        &wheels,
        "--requirement",
        &file,
    ]);
    let mounts = vec![
        settings.mount()?,
        sandbox::bind(&request.into, &wheels, true)?,
        // pip unpacks here before it moves: on disk, as wheels of gigabytes do not fit a file system in memory.
        sandbox::bind(&scratch, &format!("{ROOT}/tmp"), true)?,
    ];
    let body = sandbox::container(&image, command, sandbox::user(engine), sandbox::Network::Bridge);
    let mut body = pip::with_mounts(body, mounts, true);
    body.env = Some(vec![format!("TMPDIR={ROOT}/tmp"), "HOME=/tmp".into()]);

    let id = engine.create(&request.job, body).await?;
    let mut files = 0;
    let said = pip::run(engine, &id, &settings, |line| {
        if let Some(file) = line.trim_start().strip_prefix("Downloading ") {
            files += 1;
            let file = file.rsplit('/').next().unwrap_or(file);
            request.progress.advanced(
                Step::Dependencies,
                file.split(' ').next().unwrap_or(file),
                files,
                None,
            );
        }
    })
    .await;
    engine.remove(&id).await?;
    let said = said?;
    if said.exit_code != 0 {
        return Err(failure::download(&said, &end_of(&scratch.join(LOG))));
    }
    let into = request.into.clone();
    blocking(move || wheel::measure(&into)).await
}

/// The end of pip's own log, where it says why it failed; it is only searched, never shown, as it may hold credentials.
fn end_of(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        let mut end = Vec::new();
        file.take(LOG_END).read_to_end(&mut end)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&end).into_owned())
    };
    read().unwrap_or_default()
}

/// Runs what reads and hashes files on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Fault::told(
            RuntimeErrorKind::Failed,
            format!("work on files broke off: {error}"),
            "this is a fault of aicert: please report it",
        )
    })?
}
