//! The Python base image is the same, byte for byte, whoever builds it.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

use std::path::Path;
use std::process::{Command, Output};

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../image/python/build");

fn build(folder: &Path, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let scratch = folder.join(format!("tmp-{name}"));
    std::fs::create_dir(&scratch).unwrap();
    let output = Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh", RECIPE, "--output"])
        .arg(folder.join(name))
        .args(arguments)
        .env("TMPDIR", &scratch)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert_eq!(
        std::fs::read_dir(&scratch).unwrap().count(),
        0,
        "the recipe leaves nothing behind"
    );
    output
}

#[test]
fn two_builds_are_one_image() {
    let there = Command::new("mmdebstrap").arg("--version").output().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "mmdebstrap is not installed");
        println!("skipped: mmdebstrap is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("packages.txt");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let first = build(
        folder.path(),
        "first.tar",
        &["--packages", list.to_str().unwrap()],
        &[],
    );
    assert!(first.status.success(), "{}", text(&first.stderr));
    // In another language, time zone and folder, and held to the packages of the first.
    let elsewhere = [
        ("LANG", "de_DE.UTF-8"),
        ("TZ", "Asia/Tokyo"),
        ("HOME", "/nonexistent"),
        ("PYTHONHASHSEED", "7"),
    ];
    let second = build(
        folder.path(),
        "second.tar",
        &["--lock", list.to_str().unwrap()],
        &elsewhere,
    );
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert_eq!(text(&first.stdout), text(&second.stdout));
    assert!(
        text(&first.stdout).starts_with("image id sha256:"),
        "{}",
        text(&first.stdout)
    );
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("first.tar") == bytes("second.tar"), "the archives differ");

    let known = std::fs::read_to_string(&list).unwrap();
    assert!(known.lines().any(|line| line.starts_with("python3=")), "{known}");
    assert!(
        known.lines().all(|line| line
            .split_once(" sha256:")
            .is_some_and(|(_, hash)| hash.len() == 64)),
        "{known}"
    );
}

#[test]
fn a_release_without_the_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = build(folder.path(), "x.tar", &["--suite", "buster"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("bookworm (Python 3.11) and trixie (Python 3.13)"),
        "{said}"
    );
}
