use std::fs;

use aicert_core::conformance::input::{Subject, all};
use aicert_core::input::{FetchRequest, InputErrorKind, InputSource as _};
use aicert_core::progress::Progress;
use aicert_core::spec::{DirectoryLocation, InputSpec, Location};
use aicert_inputs::DirectorySource;

use crate::support::{SmallDisk, fetch, noise, skip, spec};

fn directory(path: impl Into<std::path::PathBuf>) -> InputSpec {
    spec(Location::Directory(DirectoryLocation { path: path.into() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let files = vec![
        ("a/large".to_owned(), noise(20_000_000)),
        ("$(touch pwned);`id`".to_owned(), b"x".to_vec()),
        ("a/b/c".to_owned(), Vec::new()),
    ];
    for (path, content) in &files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    std::os::unix::fs::symlink("../large", folder.path().join("a/b/link")).unwrap();
    let subject = Subject {
        good: directory(folder.path()),
        files,
        is_directory: true,
        missing: directory(folder.path().join("absent")),
        mismatched: None,
        secret: None,
    };
    all(&DirectorySource, &subject).await;
}

#[tokio::test]
async fn bad_directories_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"x").unwrap();
    fs::create_dir(folder.path().join("out")).unwrap();
    std::os::unix::fs::symlink("../../etc/passwd", folder.path().join("out/link")).unwrap();
    use InputErrorKind::{Configuration, NotFound, Refused};
    for (path, kind, words) in [
        ("/".into(), Configuration, "is the root of the file system"),
        ("relative".into(), Configuration, "is not an absolute path"),
        (folder.path().join("absent"), NotFound, "does not exist"),
        (folder.path().join("file"), Configuration, "is not a directory"),
        (folder.path().join("out"), Refused, "outside the folder"),
    ] {
        fetch(&DirectorySource, directory(&path))
            .await
            .assert_error(kind, words, "");
    }
    let request = FetchRequest {
        spec: directory(folder.path()),
        target: folder.path().join("target"),
        progress: Progress::ignored(),
    };
    let error = DirectorySource.fetch(request).await.unwrap_err();
    assert!(error.to_string().contains("contains the workspace"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let Some(disk) = SmallDisk::new("size=1m") else {
        return skip("mounting a small disk needs root");
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large"), noise(3_000_000)).unwrap();
    let request = FetchRequest {
        spec: directory(folder.path()),
        target: disk.path().join("target"),
        progress: Progress::ignored(),
    };
    let error = DirectorySource.fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), InputErrorKind::Storage);
    assert!(
        error.to_string().contains("the disk is full") && error.advice().unwrap().contains("free some space")
    );
    assert!(!disk.path().join("target").exists());
}
