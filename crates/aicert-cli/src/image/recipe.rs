//! The recipe of the base image, in a checkout of aicert's source: a program of its own, whose progress is shown here.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::args::RecipeArgs;
use crate::error::{Exit, Failure};
use crate::output::Terminal;
use crate::run::block_on;
use crate::signals::Signals;
use crate::text::{Text, one_line};

/// Where the recipe is in a checkout.
const PLACE: &str = "image/base";

/// What the recipe's last words begin with.
const ERROR: &str = "error: ";
const HELP: &str = "help: ";

/// How many of its words are kept.
const LINES: usize = 40;

/// More than it ever prints.
const ANSWER_LIMIT: u64 = 4 << 20;

/// A checkout with the recipe.
pub(super) struct Recipe {
    checkout: PathBuf,
    options: Vec<OsString>,
}

/// What a program of the recipe printed, and how it ended.
pub(super) struct Answer {
    pub(super) status: ExitStatus,
    pub(super) text: String,
    /// The last lines that it wrote for people.
    said: Vec<String>,
}

impl Recipe {
    /// Finds the checkout: the one that is named, or the one that the working directory is in.
    pub(super) fn find(args: &RecipeArgs) -> Result<Self, Failure> {
        let has_recipe = |folder: &Path| folder.join(PLACE).join("build").is_file();
        let checkout = match &args.recipe {
            Some(folder) if has_recipe(folder) => folder.clone(),
            Some(folder) => {
                return Err(Failure::misuse(format!(
                    "{} has no {PLACE}/build: it is no checkout of aicert",
                    folder.display()
                )));
            }
            None => {
                let here = std::env::current_dir().map_err(|error| {
                    Failure::misuse("could not tell the working directory").because(&error)
                })?;
                let found = here.ancestors().find(|folder| has_recipe(folder));
                found.map(Path::to_owned).ok_or_else(|| {
                    Failure::misuse("images are built from a checkout of aicert, and this is none").help(
                        "`git clone` the repository and go there, or name a checkout with `--recipe DIR`",
                    )
                })?
            }
        };
        let mut options = Vec::new();
        let urls = [
            ("--mirror", &args.mirror),
            ("--security-mirror", &args.security_mirror),
        ];
        for (name, value) in urls {
            if let Some(value) = value {
                options.extend([name.into(), value.into()]);
            }
        }
        if let Some(cache) = &args.cache {
            options.extend(["--cache".into(), cache.into()]);
        }
        Ok(Self { checkout, options })
    }

    /// What the image would say that it was built from: the commit, and whether files differ from it.
    pub(super) fn build_id(&self) -> Result<String, Failure> {
        let commit = self.git(&["rev-parse", "HEAD"])?;
        // Whatever people have git show them; the recipe asks the same.
        let status = [
            "status",
            "--porcelain",
            "--untracked-files=all",
            "--ignore-submodules=none",
        ];
        let modified = !self.git(&status)?.trim().is_empty();
        Ok(format!(
            "{}{}",
            commit.trim(),
            if modified { "-modified" } else { "" }
        ))
    }

    pub(super) fn checkout(&self) -> &Path {
        &self.checkout
    }

    fn git(&self, arguments: &[&str]) -> Result<String, Failure> {
        let failed = || {
            Failure::misuse(format!(
                "git could not say of which commit {} is a checkout",
                self.checkout.display()
            ))
        };
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.checkout)
            .args(arguments)
            .output()
            .map_err(|error| failed().because(&error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed().showing(said.lines().map(str::to_owned).collect()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Builds an image in a folder that is not there yet; returns what the recipe printed.
    pub(super) fn build(
        &self,
        output: &Path,
        formats: &str,
        more: &[OsString],
        terminal: Terminal,
    ) -> Result<String, Failure> {
        let mut arguments: Vec<OsString> = vec!["--output".into(), output.into()];
        arguments.extend(["--format".into(), formats.into()]);
        // This program measures as well as one that is built for it.
        if let Ok(program) = std::env::current_exe() {
            arguments.extend(["--aicert".into(), program.into()]);
        }
        arguments.extend(more.iter().cloned());
        let answer = self.run("build", &arguments, terminal)?;
        if answer.status.success() {
            return Ok(answer.text);
        }
        Err(answer.failure("the image could not be built"))
    }

    /// The differences between two images, in words.
    pub(super) fn compare(&self, one: &Path, two: &Path, terminal: Terminal) -> Result<Vec<String>, Failure> {
        let answer = self.run("compare", &[one.into(), two.into()], terminal)?;
        match answer.status.code() {
            Some(0 | 1) => Ok(answer.text.lines().map(str::to_owned).collect()),
            _ => Err(answer.failure("the images differ, and it could not be said where")),
        }
    }

    /// Runs a program of the recipe; each line that it writes on the way is shown at once. A signal that ends this program
    /// ends that one first, which cleans up.
    fn run(&self, program: &str, arguments: &[OsString], terminal: Terminal) -> Result<Answer, Failure> {
        let path = self.checkout.join(PLACE).join(program);
        let failed = |error: &io::Error| {
            Failure::new(Exit::DoesNotHold, format!("could not run {}", path.display())).because(error)
        };
        block_on(async {
            let mut signals = Signals::listen()?;
            let child = self.start(&path, arguments).map_err(|error| failed(&error))?;
            let id = Pid::from_child(&child);
            let mut ended = tokio::task::spawn_blocking(move || finish(child, terminal));
            tokio::select! {
                // Where both have come, it ended because of the signal.
                biased;
                number = signals.next() => {
                    // It is still there, or at least its number: nobody waits for it but the thread above.
                    let _ = kill_process(id, Signal::TERM);
                    tokio::select! {
                        _ = ended => {}
                        _ = signals.next() => {}
                    }
                    Err(Failure::new(Exit::Signal(number), "interrupted: nothing was written"))
                }
                answer = &mut ended => answer
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
                    .map_err(|error| failed(&error)),
            }
        })
    }

    fn start(&self, path: &Path, arguments: &[OsString]) -> io::Result<Child> {
        Command::new(path)
            .args(arguments)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }
}

/// Waits for a program of the recipe to end.
fn finish(mut child: Child, terminal: Terminal) -> io::Result<Answer> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = std::thread::spawn(move || stderr.map(|stream| show(stream, terminal)).unwrap_or_default());
    let mut text = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(ANSWER_LIMIT).read_to_end(&mut text)?;
    }
    let status = child.wait()?;
    Ok(Answer {
        status,
        text: String::from_utf8_lossy(&text).into_owned(),
        said: said.join().unwrap_or_default(),
    })
}

/// Shows lines as they come, up to an error, and returns the last ones.
fn show(stream: impl io::Read, terminal: Terminal) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    let mut ended = false;
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = one_line(&String::from_utf8_lossy(&line));
        ended |= line.contains(ERROR);
        if !ended {
            terminal.note(&Text::new().dim(&line));
            terminal.json_event(&serde_json::json!({ "event": "progress", "message": line.trim() }));
        }
        if said.len() == LINES {
            said.remove(0);
        }
        said.push(line);
    }
    said
}

impl Answer {
    /// The error that the program ended with, in its own words.
    fn failure(self, message: &str) -> Failure {
        let failure = match self.status.code() {
            // It lacks a program, or was called in a wrong way.
            Some(2 | 3) => Failure::misuse(message),
            _ => Failure::new(Exit::DoesNotHold, message),
        };
        let Some(start) = self.said.iter().position(|line| line.contains(ERROR)) else {
            return failure.showing(self.said);
        };
        let end = self.said.iter().rposition(|line| line.starts_with(HELP));
        let end = end.filter(|end| *end > start).unwrap_or(self.said.len());
        let error = self.said[start..end]
            .iter()
            .map(|line| match line.split_once(ERROR) {
                Some((_, said)) => said.to_owned(),
                None => line.clone(),
            });
        let help = self.said[end..].join("\n");
        failure
            .showing(error.collect())
            .maybe_help(help.strip_prefix(HELP).map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::args::{Color, GlobalArgs};

    fn answer(code: i32, said: &[&str]) -> Answer {
        Answer {
            status: ExitStatus::from_raw(code << 8),
            text: String::new(),
            said: said.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn errors_of_the_recipe_keep_their_words() {
        let failure = answer(
            1,
            &[
                "   1.0 s  packages",
                "image/base/build: error: two packages:",
                "  a",
                "  b",
                "help: first",
                "  second",
            ],
        )
        .failure("the image could not be built");
        assert_eq!(failure.exit, Exit::DoesNotHold);
        assert_eq!(failure.evidence.lines, ["two packages:", "  a", "  b"]);
        assert_eq!(failure.help.as_deref(), Some("first\n  second"));
    }

    #[test]
    fn a_missing_tool_is_misuse() {
        let failure = answer(3, &["image/base/build: error: git is not installed"]).failure("no");
        assert_eq!(failure.exit, Exit::Misuse);
        assert_eq!(failure.evidence.lines, ["git is not installed"]);
        assert_eq!(failure.help, None);
    }

    #[test]
    fn a_crash_shows_what_was_said() {
        let failure = answer(101, &["Traceback", "KeyError"]).failure("no");
        assert_eq!(failure.evidence.lines, ["Traceback", "KeyError"]);
    }

    #[test]
    fn keeps_the_last_lines_and_no_control_characters() {
        let text: String = (0..100).map(|number| format!("line \x1b[2J{number}\n")).collect();
        let quiet = Terminal::new(&GlobalArgs {
            quiet: true,
            json: false,
            color: Color::Never,
        });
        let said = show(text.as_bytes(), quiet);
        assert_eq!(said.len(), LINES);
        assert_eq!(said.last().map(String::as_str), Some("line \\u{1b}[2J99"));
    }

    /// The recipe is Python, and has tests of its own.
    #[test]
    fn the_recipe_passes_its_tests() {
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image/base");
        let output = Command::new("python3")
            .args(["-B", "-m", "unittest", "discover", "-s", "tests"])
            .env("PYTHONPATH", &recipe)
            .current_dir(&recipe)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
