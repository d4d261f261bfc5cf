//! Building images, as far as it goes without building one: `image/base/tests` and `make image-check` do the rest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::desk::Desk;

mod desk;

/// A recipe that never ends by itself, and takes a while to clean up.
const RECIPE: &str = "#!/bin/sh
trap 'sleep 0.5; touch cleaned; exit 143' TERM
touch begun
for second in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & wait; done
";

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_recipe_is_ended_in_order_by_what_ends_the_command() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let desk = Desk::new();
        fs::create_dir_all(desk.path("image/base")).unwrap();
        desk.write("image/base/build", RECIPE);
        fs::set_permissions(desk.path("image/base/build"), fs::Permissions::from_mode(0o700)).unwrap();
        let build = desk
            .command(&["image", "build", "--output", "made"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&desk.path("begun"));
        kill_process(Pid::from_child(&build), signal).unwrap();
        let output = build.wait_with_output().unwrap();
        assert!(desk.path("cleaned").exists(), "it did not wait for the recipe");
        assert_eq!(
            desk.show(&output),
            format!("exit code {code}\n--- stderr\nerror: interrupted: nothing was written\n")
        );
    }
}

#[test]
fn a_published_folder_is_verified_whole() {
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let desk = Desk::new();
    fs::create_dir(desk.path("published")).unwrap();
    desk.write("published/a.raw", "")
        .write(
            "published/a.reference-values.json",
            "what a forger would have believed",
        )
        .write("published/SHA256SUMS", format!("{EMPTY}  a.raw\n"));
    assert_snapshot!(desk.run(&["image", "verify", "published"]), @"
    exit code 2
    --- stderr
    error: published/SHA256SUMS does not name a.reference-values.json, which is there
    help: nothing can be said of a file that is not in the list: add it there, or move it elsewhere
    ");
}
