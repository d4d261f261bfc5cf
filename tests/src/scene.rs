//! A folder in which the command is run, as a user would run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A temporary folder with a state folder of its own.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
    aicert: PathBuf,
}

impl Scene {
    /// A scene for the command at `aicert`: `env!("CARGO_BIN_EXE_aicert-under-test")`.
    ///
    /// # Panics
    ///
    /// When there is no temporary folder.
    pub fn new(aicert: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            aicert: aicert.into(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, and the folders above it.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the scene")).expect("folders can be made");
        fs::write(&path, contents).expect("a file can be written");
        path
    }

    /// Writes a Python job: its program, and a configuration with a local source and a simulated TPM.
    pub fn python_job(&self, program: &str) {
        self.write("src/main.py", program);
        self.configure("source: {type: directory, path: ./src}\n");
    }

    /// Writes the configuration of a Python job with these further lines.
    pub fn configure(&self, lines: &str) {
        let fixed = "kind: python\npythonVersion: 11\nmachine: {provider: local, tpm: swtpm}\n";
        self.write("aicert.yaml", format!("{fixed}{lines}"));
    }

    /// The command with these arguments, in this folder, with nothing of the caller's state.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.aicert);
        command
            .args(arguments)
            .current_dir(self.path())
            .env("AICERT_STATE_DIR", self.path().join("state"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().expect("the command starts"))
    }

    /// Makes a git repository of a folder, with one commit and a tag `v1`; returns the commit's id.
    ///
    /// # Panics
    ///
    /// When git fails.
    pub fn git(&self, folder: &str) -> String {
        let folder = self.path().join(folder);
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args([
                    "-c",
                    "user.name=test",
                    "-c",
                    "user.email=test@example.org",
                    "-c",
                    "commit.gpgsign=false",
                ])
                .args(arguments)
                .current_dir(&folder)
                .output()
                .expect("git starts");
            assert!(
                output.status.success(),
                "git {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        git(&["init", "--quiet", "--initial-branch=main"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "test"]);
        git(&["tag", "v1"]);
        git(&["rev-parse", "HEAD"])
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; nothing when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Everything that it printed.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// What it printed, with `--json`.
    ///
    /// # Panics
    ///
    /// When that is no JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts on the exit status, showing everything when it is another.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}
