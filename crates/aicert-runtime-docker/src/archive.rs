//! Images that come as a file, in the form of `docker save`.

use std::fs::File;
use std::io::{self, Read as _, Seek};
use std::path::{Path, PathBuf};

use aicert_core::digest::ImageDigest;
use aicert_core::progress::{Progress, Step};
use aicert_core::runtime::RuntimeErrorKind;
use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use crate::engine::Engine;
use crate::error::{Doing as _, Fault};

const PIECE: usize = 1 << 20;
/// The manifest and the configuration of an image have a few kilobytes.
const DOCUMENT_LIMIT: u64 = 1 << 20;
/// More entries are not looked through: an image has a few for each layer.
const ENTRY_LIMIT: usize = 10_000;
const MANIFEST: &str = "manifest.json";

/// Of `manifest.json` (Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
}

/// The image of an archive, loaded into the engine unless that has it. What is in the archive decides, never what the engine
/// has under the same name.
pub(crate) async fn provide(
    engine: &Engine,
    archive: &Path,
    tag: &str,
    progress: &Progress,
) -> Result<ImageDigest, Fault> {
    let (path, wanted) = (archive.to_owned(), tag.to_owned());
    let id = tokio::task::spawn_blocking(move || image_id(&path, &wanted))
        .await
        .map_err(|error| Fault::file("read", archive, io::Error::other(error)))??;
    if engine.image(&id.to_string()).await?.is_some() {
        return Ok(id);
    }
    load(engine, archive, tag, progress).await?;
    match engine.image(&id.to_string()).await? {
        Some(_) => Ok(id),
        None => Err(Fault::told(
            RuntimeErrorKind::Unsupported,
            format!(
                "the Docker engine loaded {tag} from {}, but has no image {id}",
                archive.display()
            ),
            "the engine must name images by the digest of their configuration: turn its containerd image store off",
        )),
    }
}

/// Loads an archive into the engine.
pub(crate) async fn load(
    engine: &Engine,
    archive: &Path,
    tag: &str,
    progress: &Progress,
) -> Result<(), Fault> {
    let open = async {
        let file = tokio::fs::File::open(archive).await?;
        let length = file.metadata().await?.len();
        Ok((file, length))
    };
    let (file, length) = open.await.map_err(|error| Fault::file("open", archive, error))?;
    let report = {
        let (progress, tag) = (progress.clone(), tag.to_owned());
        move |done| progress.advanced(Step::Image, &tag, done, Some(length))
    };
    let pieces =
        futures_util::stream::try_unfold((file, 0, report), |(mut file, mut done, report)| async move {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
            done += read as u64;
            report(done);
            Ok::<_, io::Error>((read > 0).then_some((Bytes::from(piece), (file, done, report))))
        });
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let mut answers = Box::pin(engine.docker.import_image_stream(options, pieces, None));
    while let Some(answer) = answers.next().await {
        answer.doing(format!("load the base image {tag}"))?;
    }
    Ok(())
}

/// The id that the only image of an archive has in an engine: the SHA-256 of its configuration.
fn image_id(archive: &Path, tag: &str) -> Result<ImageDigest, Fault> {
    let wrong = |what: String| {
        Fault::told(
            RuntimeErrorKind::Unsupported,
            format!("{} is no archive of {tag}: {what}", archive.display()),
            "make it with the recipe in image/python, or with `docker save`",
        )
    };
    let file = File::open(archive).map_err(|error| Fault::file("open", archive, error))?;
    let find = |name: &str| {
        let found = find(&file, name).map_err(|error| Fault::file("read", archive, error))?;
        found.ok_or_else(|| wrong(format!("it has no {name:?} of at most {DOCUMENT_LIMIT} bytes")))
    };
    let images: Vec<Manifest> = serde_json::from_slice(&find(MANIFEST)?)
        .map_err(|error| wrong(format!("{MANIFEST} is not what it should be: {error}")))?;
    let [image] = &images[..] else {
        return Err(wrong(format!("it has {} images; expected one", images.len())));
    };
    let tags = image.tags.as_deref().unwrap_or_default();
    if !tags.iter().any(|found| found == tag) {
        return Err(wrong(format!("its image is called {tags:?}")));
    }
    Ok(ImageDigest::of(&find(&image.config)?))
}

/// The contents of an entry; nothing when there is no such entry, or it is too large.
fn find(mut file: &File, name: &str) -> io::Result<Option<Vec<u8>>> {
    file.rewind()?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()?.take(ENTRY_LIMIT) {
        let entry = entry?;
        let path: PathBuf = entry.path()?.into_owned();
        let plain = path.strip_prefix("./").unwrap_or(&path);
        if plain != Path::new(name) {
            continue;
        }
        if entry.size() > DOCUMENT_LIMIT {
            return Ok(None);
        }
        let mut contents = Vec::new();
        entry.take(DOCUMENT_LIMIT).read_to_end(&mut contents)?;
        return Ok(Some(contents));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "aicert/python:3.11";

    fn archive(entries: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(&mut file);
        for (name, contents) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, contents.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap();
        file
    }

    #[test]
    fn an_image_is_named_by_its_configuration() {
        let manifest = format!(r#"[{{"Config":"blobs/sha256/c","RepoTags":["{TAG}"],"Layers":[]}}]"#);
        let found = archive(&[("blobs/sha256/c", "{}"), (MANIFEST, &manifest)]);
        assert_eq!(image_id(found.path(), TAG).unwrap(), ImageDigest::of(b"{}"));

        let two = format!("[{0},{0}]", &manifest[1..manifest.len() - 1]);
        let huge = " ".repeat(DOCUMENT_LIMIT as usize + 1);
        for (entries, words) in [
            (vec![], "it has no \"manifest.json\""),
            (vec![(MANIFEST, "{}")], "not what it should be"),
            (vec![(MANIFEST, "[]")], "it has 0 images"),
            (vec![(MANIFEST, two.as_str())], "it has 2 images"),
            (vec![(MANIFEST, huge.as_str())], "it has no \"manifest.json\""),
            (
                vec![(MANIFEST, manifest.as_str())],
                "it has no \"blobs/sha256/c\"",
            ),
            (
                vec![(MANIFEST, r#"[{"Config":"c","RepoTags":["python:3.11"]}]"#)],
                "is called [\"python:3.11\"]",
            ),
        ] {
            let error = image_id(archive(&entries).path(), TAG).unwrap_err().to_string();
            assert!(error.contains(words), "expected {words}, found {error}");
        }
        assert!(image_id(Path::new("/nonexistent"), TAG).is_err());
    }
}
