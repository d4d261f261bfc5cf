//! From what a configuration names to one digest.

use std::collections::HashMap;

use aicert_core::digest::ImageDigest;
use aicert_core::progress::{Progress, Step};
use aicert_core::runtime::{ResolvedImage, RuntimeErrorKind};
use aicert_core::spec::ImageSpec;
use bollard::errors::Error as ApiError;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;

use crate::archive;
use crate::config::DockerConfig;
use crate::engine::Engine;
use crate::error::Fault;
use crate::recipe;

/// Finds an image, pulling or building it where needed.
pub(crate) async fn resolve(
    engine: &Engine,
    config: &DockerConfig,
    image: &ImageSpec,
    progress: &Progress,
) -> Result<ResolvedImage, Fault> {
    let requested = match image {
        ImageSpec::Python { minor } => recipe::tag(*minor)?,
        ImageSpec::Reference { reference } => reference.clone(),
        other => {
            return Err(Fault::told(
                RuntimeErrorKind::Unsupported,
                format!("this runtime does not know images of the kind {other:?}"),
                "use `kind: python`, or name an image",
            ));
        }
    };
    progress.started(Step::Image, &requested);
    if let ImageSpec::Python { minor } = image
        && let Some(archive) = config.python_images.get(minor)
    {
        let digest = archive::provide(engine, archive, &requested, progress).await?;
        progress.finished(Step::Image, &requested, digest.to_string());
        return Ok(ResolvedImage { requested, digest });
    }
    let reference = Reference::parse(&requested)?;
    let found = match (engine.image(&reference.for_engine()).await?, image) {
        (Some(found), _) => found,
        (None, ImageSpec::Python { minor }) => recipe::build(engine, config, *minor, progress).await?,
        (None, _) => pull(engine, &reference, progress).await?,
    };
    let digest = digest(&reference, &found)?;
    progress.finished(Step::Image, &requested, digest.to_string());
    Ok(ResolvedImage { requested, digest })
}

/// The digest that a registry gave the image under this name; its id in the engine where it has none.
fn digest(reference: &Reference, image: &ImageInspect) -> Result<ImageDigest, Fault> {
    let unnamed = |text: &str| {
        Fault::told(
            RuntimeErrorKind::Failed,
            format!("the Docker engine names the image {reference} {text:?}, which is no SHA-256 digest"),
            "pull or load the image again",
        )
    };
    let id = image.id.as_deref().unwrap_or_default();
    let id = id.parse::<ImageDigest>().map_err(|_| unnamed(id))?;
    let mut given = Vec::new();
    for name in image.repo_digests.iter().flatten() {
        let parsed = Reference::parse(name)?;
        if parsed.repository == reference.repository {
            given.extend(parsed.digest);
        }
    }
    given.sort_unstable();
    match reference.digest {
        None => Ok(given.first().copied().unwrap_or(id)),
        Some(wanted) if given.contains(&wanted) || id == wanted => Ok(wanted),
        Some(wanted) => Err(Fault::told(
            RuntimeErrorKind::NotFound,
            format!(
                "the image {reference} was asked for by its digest; expected {wanted}, the engine has {id} ({given:?})"
            ),
            "check the digest, or remove the image from the engine so that it is pulled again",
        )),
    }
}

async fn pull(engine: &Engine, reference: &Reference, progress: &Progress) -> Result<ImageInspect, Fault> {
    if reference.repository == recipe::REPOSITORY {
        return Err(Fault::told(
            RuntimeErrorKind::NotFound,
            format!("{reference} names aicert's own Python image, which is built here and never pulled"),
            "leave `baseImage` out and choose `pythonVersion`: it is built then; another image needs another name",
        ));
    }
    if reference.repository.is_empty() {
        return Err(Fault::told(
            RuntimeErrorKind::NotFound,
            format!("no image with the id {reference} is in the Docker engine"),
            "an id names an image of this machine alone: load it (`docker load`), or name an image of a registry",
        ));
    }
    let tag = reference
        .digest
        .map_or_else(|| reference.tag.clone(), |digest| digest.to_string());
    let options = CreateImageOptionsBuilder::new()
        .from_image(&reference.repository)
        .tag(&tag)
        .build();
    let mut layers = HashMap::<String, (u64, u64)>::new();
    let mut stream = engine.docker.create_image(Some(options), None, None);
    while let Some(item) = stream.next().await {
        let item = item.map_err(|error| not_pulled(reference, error))?;
        let (Some(layer), Some(detail)) = (item.id, item.progress_detail) else {
            continue;
        };
        if let (Some(current), Some(total)) = (detail.current, detail.total) {
            let count = |value| u64::try_from(value).unwrap_or(0);
            layers.insert(layer, (count(current), count(total)));
            let (done, total) = layers
                .values()
                .fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
            progress.advanced(Step::Image, reference.to_string(), done, Some(total));
        }
    }
    engine.image(&reference.for_engine()).await?.ok_or_else(|| {
        Fault::told(
            RuntimeErrorKind::Failed,
            format!("the Docker engine pulled the image {reference}, but does not have it"),
            format!("try `docker pull {reference}`"),
        )
    })
}

fn not_pulled(reference: &Reference, error: ApiError) -> Fault {
    let said = match &error {
        ApiError::DockerResponseServerError { message, .. } => message.clone(),
        ApiError::DockerStreamError { error } => error.clone(),
        _ => {
            return Fault::Api {
                doing: format!("pull the image {reference}"),
                source: error,
            };
        }
    };
    let said = said.trim();
    let connection = [
        "no such host",
        "dial tcp",
        "connection refused",
        "timeout",
        "i/o",
        "TLS",
        "x509",
        "EOF",
    ];
    if connection.iter().any(|sign| said.contains(sign)) {
        return Fault::told(
            RuntimeErrorKind::NotFound,
            format!(
                "the image {reference} is not on this machine, and its registry cannot be reached: {said}"
            ),
            "check the name and the engine's network and proxy, or bring the image here (`docker load`)",
        );
    }
    if said.contains("no space left") {
        return Fault::told(
            RuntimeErrorKind::Storage,
            format!("cannot pull the image {reference}: {said}"),
            "the disk of the Docker engine is full; `docker system df` shows what takes the space",
        );
    }
    Fault::told(
        RuntimeErrorKind::NotFound,
        format!("the image {reference} is neither on this machine nor to be had from its registry: {said}"),
        format!("check the name; for a private image, log in and run `docker pull {reference}` first"),
    )
}

/// A reference to an image, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    /// `registry/path`; empty for an image id.
    repository: String,
    tag: String,
    digest: Option<ImageDigest>,
    text: String,
}

impl Reference {
    /// Reads `name`, `name:tag`, `name@sha256:…`, `name:tag@sha256:…` or an image id `sha256:…`.
    fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::told(
                RuntimeErrorKind::NotFound,
                format!(
                    "{:?} is not the name of an image",
                    text.chars().take(300).collect::<String>()
                ),
                "expected name, name:tag, name@sha256:<64 hexadecimal digits> or sha256:<64 hexadecimal digits>",
            )
        };
        // The name becomes part of a request's path.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if text.is_empty()
            || text.len() > 512
            || !text.bytes().all(plain)
            || text.contains("..")
            || text.contains("//")
        {
            return Err(wrong());
        }
        if let Ok(id) = text.parse() {
            return Ok(Self {
                repository: String::new(),
                tag: String::new(),
                digest: Some(id),
                text: text.into(),
            });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name, "latest"),
        };
        if name.is_empty() || name.starts_with('/') || name.ends_with('/') || tag.is_empty() {
            return Err(wrong());
        }
        // Docker's rule: the first part is a registry if it looks like a host.
        let repository = match name.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
            Some(_) => format!("docker.io/{name}"),
            None => format!("docker.io/library/{name}"),
        };
        Ok(Self {
            repository,
            tag: tag.into(),
            digest,
            text: text.into(),
        })
    }

    /// What the engine finds exactly this by: with a digest, a tag would be ignored.
    fn for_engine(&self) -> String {
        match self.digest {
            Some(digest) if self.repository.is_empty() => digest.to_string(),
            Some(digest) => format!("{}@{digest}", self.repository),
            None => format!("{}:{}", self.repository, self.tag),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, engine) in [
            ("python", "docker.io/library/python:latest".to_owned()),
            ("aicert/python:3.11", "docker.io/aicert/python:3.11".into()),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest".into()),
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1".into()),
            (
                &format!("python:3@{digest}"),
                format!("docker.io/library/python@{digest}"),
            ),
            (&digest, digest.clone()),
        ] {
            assert_eq!(Reference::parse(text).unwrap().for_engine(), engine, "{text}");
        }
        for own in [
            "aicert/python",
            "aicert/python:3.11",
            "docker.io/aicert/python:latest",
        ] {
            assert_eq!(Reference::parse(own).unwrap().repository, recipe::REPOSITORY);
        }
        for wrong in [
            "",
            "a b",
            "../../x",
            "a?b=c",
            "a#b",
            "python@sha256:12",
            "/x",
            "x/",
            "a:",
            "ü",
            "a//b",
            "a\nb",
            "$(id)",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_digest_that_was_asked_for_must_be_there() {
        let digest_of = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let image = ImageInspect {
            id: Some(digest_of("11")),
            repo_digests: Some(vec![
                format!("python@{}", digest_of("22")),
                format!("other/python@{}", digest_of("33")),
            ]),
            ..ImageInspect::default()
        };
        let resolve =
            |text: &str| digest(&Reference::parse(text).unwrap(), &image).map(|digest| digest.to_string());
        assert_eq!(resolve("python:3").unwrap(), digest_of("22"));
        assert_eq!(
            resolve(&format!("python@{}", digest_of("22"))).unwrap(),
            digest_of("22")
        );
        assert_eq!(resolve("local-name").unwrap(), digest_of("11"));
        let wrong = resolve(&format!("python@{}", digest_of("33")))
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains(&digest_of("33")) && wrong.contains(&digest_of("11")),
            "{wrong}"
        );
    }
}
