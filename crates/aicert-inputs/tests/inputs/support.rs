//! What the tests of all sources need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aicert_core::digest::FileDigest;
use aicert_core::input::{FetchRequest, FetchedInput, InputError, InputSource};
use aicert_core::progress::Progress;
use aicert_core::secret::Secret;
use aicert_core::spec::{FileLocation, GitCredentials, GitLocation, GitRevision, InputSpec, Location};
use aicert_inputs::{FileConfig, FileSource};
use tempfile::TempDir;

pub(crate) fn spec(location: Location) -> InputSpec {
    InputSpec {
        name: "the input".into(),
        destination: "/workspace/resources/x".into(),
        location,
    }
}

pub(crate) fn file(url: impl Into<String>) -> FileLocation {
    FileLocation {
        url: url.into(),
        sha256: None,
        token: None,
    }
}

pub(crate) fn file_spec(url: impl Into<String>, content: Option<&[u8]>, token: Option<&str>) -> InputSpec {
    spec(Location::File(FileLocation {
        sha256: content.map(FileDigest::of),
        token: token.map(|token| Secret::new(token.into())),
        ..file(url)
    }))
}

pub(crate) fn git_spec(
    repository: impl Into<String>,
    revision: GitRevision,
    credentials: Option<GitCredentials>,
) -> InputSpec {
    spec(Location::Git(GitLocation {
        repository: repository.into(),
        revision,
        submodules: true,
        credentials,
    }))
}

pub(crate) fn token(text: &str) -> Option<GitCredentials> {
    Some(GitCredentials::Token(Secret::new(text.into())))
}

/// Retries fast, so that tests of servers that are down take no time.
pub(crate) fn hasty() -> FileSource {
    FileSource::new(FileConfig {
        attempts: 3,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(50),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_millis(700),
    })
}

/// What came of a fetch, with the folder that it was to.
pub(crate) struct Fetched {
    pub(crate) folder: TempDir,
    pub(crate) result: Result<FetchedInput, InputError>,
}

impl Fetched {
    pub(crate) fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    pub(crate) fn ok(&self) -> &FetchedInput {
        self.result.as_ref().unwrap()
    }

    /// The error, after a check that nothing remains and that it can be shown.
    pub(crate) fn error(&self) -> &InputError {
        let error = self.result.as_ref().unwrap_err();
        let left: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert!(left.is_empty(), "{left:?} remains after {error}");
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
        error
    }

    /// The kind, the words, and the advice of the error.
    pub(crate) fn assert_error(&self, kind: aicert_core::input::InputErrorKind, words: &str, advice: &str) {
        let error = self.error();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{words:?} in {error}");
        let given = error.advice().unwrap_or_default();
        assert!(
            given.contains(advice) && !given.is_empty(),
            "{advice:?} in {given:?}"
        );
    }
}

pub(crate) async fn fetch(source: &dyn InputSource, spec: InputSpec) -> Fetched {
    fetch_in(tempfile::tempdir().unwrap(), source, spec).await
}

pub(crate) async fn fetch_in(folder: TempDir, source: &dyn InputSource, spec: InputSpec) -> Fetched {
    let target = folder.path().join("target");
    let result = source
        .fetch(FetchRequest {
            spec,
            target,
            progress: Progress::ignored(),
        })
        .await;
    Fetched { folder, result }
}

/// Bytes that no compression and no accident gives.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(len)
    .collect()
}

/// Runs a test of this program that is ignored otherwise, in a process with other environment variables; `None` unsets
/// one.
pub(crate) fn run_in_environment(test: &str, variables: &[(&str, Option<&Path>)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
}

/// Says that a test is skipped; in continuous integration that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// A small file system of its own, unmounted when dropped; nothing where mounting is not allowed.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
