//! The base image that tests boot: built once from this checkout as people build it, and shared by all tests and runs.

mod alter;
mod source;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

pub use alter::Alteration;

use crate::machine::have_machines;
use crate::tools::skip_with;

/// How many images are kept, each with its variants: those that were used last.
const KEPT: usize = 2;

/// The exit status by which the recipe says that a tool is missing.
const TOOL_MISSING: i32 = 3;

/// What the recipe says when the mirrors do not have a package of a lock any more.
const PACKAGES_ARE_GONE: &str = "could not be fetched";

/// What a test binary brings along.
#[derive(Debug, Clone, Copy)]
pub struct Workshop {
    /// The command: `env!("CARGO_BIN_EXE_aicert-under-test")`.
    pub aicert: &'static str,
    /// A folder that stays between runs: `env!("CARGO_TARGET_TMPDIR")`.
    pub folder: &'static str,
}

/// A disk image, and what booting the released one measures.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// The disk.
    pub disk: PathBuf,
    /// What is expected of it.
    pub reference_values: PathBuf,
}

impl BaseImage {
    /// The image of this checkout; nothing, after saying so, when it cannot be built for lack of a tool.
    ///
    /// # Panics
    ///
    /// When it cannot be built for another reason or, in CI, for any.
    pub fn released(workshop: &Workshop) -> Option<Self> {
        Self::built(workshop, "image", &[], |checkout| checkout.to_owned())
    }

    /// The same, with this program in place of the server.
    ///
    /// # Panics
    ///
    /// As [`BaseImage::released`].
    pub fn with_program(workshop: &Workshop, name: &str, program: &Path) -> Option<Self> {
        let server = [OsStr::new("--server"), program.as_os_str()];
        Self::built(workshop, name, &server, |checkout| checkout.to_owned())
    }

    /// The image of this checkout with one line of the server changed: its reference values are those of the released one.
    ///
    /// # Panics
    ///
    /// As [`BaseImage::released`].
    pub fn with_another_server(workshop: &Workshop) -> Option<Self> {
        let released = Self::released(workshop)?;
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let other = Self::built(workshop, "another-server", &[], |checkout| {
            source::with_another_server(checkout, scratch.path())
        })?;
        Some(Self {
            reference_values: released.reference_values,
            ..other
        })
    }

    /// This image, changed by somebody who has only the file; what is expected of it stays. It is made in `folder`.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn altered(&self, alteration: &Alteration<'_>, folder: &Path) -> Self {
        let disk = folder.join("altered.raw");
        alter::alter(&self.disk, alteration, &disk);
        Self { disk, ..self.clone() }
    }

    fn built(
        workshop: &Workshop,
        name: &str,
        options: &[&OsStr],
        source: impl FnOnce(&Path) -> PathBuf,
    ) -> Option<Self> {
        if !have_machines() {
            return None;
        }
        let all = Path::new(workshop.folder).join("base-images");
        let checkout = source::checkout();
        let folder = all.join(source::digest(&checkout));
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let _lock = lock(&folder.join(format!("{name}.lock")));
        let made = folder.join(name);
        if !made.is_dir() {
            forget(&all);
            let order = Order {
                workshop,
                options,
                source: &source(&checkout),
                made: &made,
            };
            order.build(&checkout)?;
        }
        // It was used just now: see `forget`.
        let _ = File::open(&folder).and_then(|folder| folder.set_modified(std::time::SystemTime::now()));
        Some(Self {
            disk: with_ending(&made, ".raw"),
            reference_values: with_ending(&made, ".reference-values.json"),
        })
    }
}

/// Waits until nobody else has the lock; it is given back when the file is closed.
fn lock(path: &Path) -> File {
    let file = File::create(path).expect("a lock can be made");
    file.lock().expect("a lock can be taken");
    file
}

/// What is to be built.
struct Order<'a> {
    workshop: &'a Workshop,
    options: &'a [&'a OsStr],
    source: &'a Path,
    made: &'a Path,
}

impl Order<'_> {
    fn build(&self, checkout: &Path) -> Option<()> {
        let started = Instant::now();
        say(&format!(
            "building the base image {}: minutes, the first time",
            self.made.display()
        ));
        let mut result = self.run(&checkout.join("image"));
        if let Err(Trouble { words, .. }) = &result
            && words.contains(PACKAGES_ARE_GONE)
        {
            say(
                "the mirrors do not have every package of the lock any more: building with the packages of today instead",
            );
            let scratch = tempfile::tempdir().expect("a temporary folder");
            result = with_fresh_lock(checkout, scratch.path()).and_then(|recipe| self.run(&recipe));
        }
        match result {
            Ok(()) => {
                say(&format!("built it in {} s", started.elapsed().as_secs()));
                Some(())
            }
            Err(Trouble {
                code: Some(TOOL_MISSING),
                words,
            }) => {
                skip_with(false, &format!("the base image cannot be built here:\n{words}"));
                None
            }
            Err(Trouble { words, .. }) => panic!("the base image cannot be built:\n{words}"),
        }
    }

    fn run(&self, recipe: &Path) -> Result<(), Trouble> {
        let [output, source, aicert] = ["--output", "--source", "--aicert"].map(OsStr::new);
        let measured_with = OsStr::new(self.workshop.aicert);
        let fixed = [
            output,
            self.made.as_os_str(),
            source,
            self.source.as_os_str(),
            aicert,
            measured_with,
        ];
        run(&recipe.join("base/build"), &[&fixed[..], self.options].concat())
    }
}

/// Why the recipe failed.
struct Trouble {
    code: Option<i32>,
    words: String,
}

/// A copy of the recipe whose locks name the packages that there are today: a release that names older ones can still be
/// tested, although the image is not the released one then.
fn with_fresh_lock(checkout: &Path, scratch: &Path) -> Result<PathBuf, Trouble> {
    run(
        Path::new("cp"),
        &[
            OsStr::new("--archive"),
            checkout.join("image").as_os_str(),
            scratch.as_os_str(),
        ],
    )?;
    let recipe = scratch.join("image");
    run(&recipe.join("base/lock"), &[])?;
    Ok(recipe)
}

fn run(program: &Path, arguments: &[&OsStr]) -> Result<(), Trouble> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Trouble {
            code: None,
            words: format!("{}: {error}", program.display()),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Trouble {
        code: output.status.code(),
        words: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn with_ending(folder: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("the image's folder can be read");
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(ending))
        .unwrap_or_else(|| panic!("the recipe made no *{ending} in {}", folder.display()))
}

/// Removes what was used longest ago, and is in nobody's hands.
fn forget(all: &Path) {
    let Ok(entries) = fs::read_dir(all) else { return };
    let mut folders: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    folders.sort();
    folders.reverse();
    for (_, folder) in folders.into_iter().skip(KEPT) {
        // A test that boots from it has the file open; what cannot be removed stays until next time.
        let _ = fs::remove_dir_all(folder);
    }
}

fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
