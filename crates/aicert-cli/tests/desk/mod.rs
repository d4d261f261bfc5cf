//! Where tests run the command.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder to work in, with its own state.
pub(crate) struct Desk(TempDir);

impl Desk {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path(name), contents).unwrap();
        self
    }

    /// Makes a folder its owner's alone.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn private(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aicert"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("AICERT_STATE_DIR", self.path("state"))
            .env("AICERT_CACHE_DIR", self.path("cache"))
            .env("AICERT_OWNER", "ada")
            .env_remove("NO_COLOR")
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command; shows exit code, standard output and standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.show(&self.command(arguments).output().unwrap())
    }

    pub(crate) fn show(&self, output: &Output) -> String {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(&self.0.path().display().to_string(), "DESK")
        };
        let mut shown = format!("exit code {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                shown += &format!("--- {name}\n{}", text(bytes));
            }
        }
        shown
    }
}
