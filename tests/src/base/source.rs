//! The checkout that is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aicert_core::digest::FileDigest;

/// What the image is made of. The command and its libraries are not in it, and neither are tests.
const PARTS: [&str; 12] = [
    "image",
    "crates",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    ":(exclude)image/base/tests",
    ":(exclude)crates/*/tests",
    ":(exclude)crates/*/README.md",
    ":(exclude)crates/aicert-cli",
    ":(exclude)crates/aicert-client",
    ":(exclude)crates/aicert-cloud-*",
    ":(exclude)crates/aicert-swtpm-testing",
];

/// A line of the server that is in its program, and what another build has there.
const LINE: (&str, &str, &str) = (
    "crates/aicert-server/src/main.rs",
    "\"aicert-server: ready\"",
    "\"aicert-server: ready, and not what was released\"",
);

/// The folder of this checkout.
pub(super) fn checkout() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are in a folder").to_owned()
}

/// Names what the image is made of: two checkouts with the same name make the same image, but for the commit in it.
pub(super) fn digest(checkout: &Path) -> String {
    let mut list = String::new();
    for name in files(checkout, &PARTS) {
        // A file that was removed, and that git still has.
        if let Ok(content) = fs::read(checkout.join(&name)) {
            list.push_str(&format!("{name:?} {}\n", FileDigest::of(&content)));
        }
    }
    let digest = FileDigest::of(list.as_bytes()).to_string();
    digest.trim_start_matches("sha256:")[..16].to_owned()
}

/// What git has, and what is new and not ignored: what the recipe builds from.
fn files(checkout: &Path, parts: &[&str]) -> Vec<String> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
    ])
    .args(parts)
    .current_dir(checkout);
    let listed = run(&mut git);
    let mut names: Vec<_> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}

/// A copy of the checkout, with the same commits, in which one line of the server is another.
pub(super) fn with_another_server(checkout: &Path, scratch: &Path) -> PathBuf {
    let copy = scratch.join("checkout");
    run(Command::new("git")
        .args(["clone", "--quiet", "--shared", "--no-checkout"])
        .args([checkout, &copy]));
    for name in files(checkout, &[]) {
        let (from, to) = (checkout.join(&name), copy.join(&name));
        if from.is_file() {
            fs::create_dir_all(to.parent().expect("it is in the checkout")).expect("folders can be made");
            fs::copy(from, to).expect("a file can be copied");
        }
    }
    let (path, line, other) = LINE;
    let path = copy.join(path);
    let text = fs::read_to_string(&path).expect("the server's source can be read");
    assert_eq!(text.matches(line).count(), 1, "{line} is in {}", path.display());
    fs::write(path, text.replace(line, other)).expect("a file can be written");
    copy
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("git starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
