//! `aicert image verify`: builds an image again, and compares.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use aicert_verify::image::MeasureOptions;
use aicert_verify::reference::ImageReference;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;

use crate::args::ImageVerifyArgs;
use crate::card::count;
use crate::error::{Exit, Failure};
use crate::image::build::{Part, parts};
use crate::image::recipe::Recipe;
use crate::output::Terminal;
use crate::table::{Row, table};
use crate::text::{Style, Text, one_line};

/// What is verified: a folder with everything that was published, or one image.
struct Subject {
    raw: PathBuf,
    /// The formats that a folder has.
    formats: String,
    published: Option<Vec<Part>>,
}

/// A file that was published, or that building again gave: on one side alone it is a difference.
#[derive(Debug, PartialEq, Serialize)]
struct Comparison {
    name: String,
    /// None if it was not published.
    sha256: Option<String>,
    /// None if building it again does not make it.
    again: Option<String>,
}

impl Comparison {
    fn is_same(&self) -> bool {
        self.sha256.is_some() && self.sha256 == self.again
    }
}

pub(crate) fn verify(args: &ImageVerifyArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let subject = Subject::read(&args.image)?;
    let measured = super::read(&subject.raw, &MeasureOptions::default())?;
    let recipe = Recipe::find(&args.recipe)?;
    check_source(&recipe, &measured)?;
    let again = Again::build(&recipe, &subject.formats, args.variant.options(), terminal)?;
    let rebuilt = parts(&again.folder())?;
    let raw = rebuilt
        .iter()
        .find(|part| is_raw(Path::new(&part.name)))
        .ok_or_else(|| Failure::new(Exit::DoesNotHold, "the recipe made no raw image"))?;
    let comparisons = subject.compare(&measured, &rebuilt, raw);
    let differences = if comparisons.iter().all(Comparison::is_same) {
        Vec::new()
    } else {
        recipe.compare(&subject.raw, &again.folder().join(&raw.name), terminal)?
    };
    let reproduced = comparisons.iter().all(Comparison::is_same);
    terminal.result(&text(&args.image, &measured, &comparisons, &differences));
    terminal.json_result(&serde_json::json!({
        "image": args.image,
        "name": measured.name,
        "build": measured.build,
        "reproduced": reproduced,
        "files": comparisons,
        "differences": differences,
    }));
    Ok(if reproduced {
        Exit::Holds
    } else {
        Exit::DoesNotHold
    })
}

/// The raw image that is meant: a file, or the one of a folder that is what its list says.
pub(super) fn raw_image(path: &Path) -> Result<PathBuf, Failure> {
    Ok(Subject::read(path)?.raw)
}

impl Subject {
    fn read(path: &Path) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Ok(Self {
                raw: path.to_owned(),
                formats: "raw".into(),
                published: None,
            });
        }
        let published = parts(path)?;
        let raws: Vec<_> = published
            .iter()
            .filter(|part| is_raw(Path::new(&part.name)))
            .collect();
        let [raw] = raws[..] else {
            return Err(Failure::misuse(format!(
                "{} has {}, expected one",
                path.display(),
                count(raws.len() as u64, "raw image")
            )));
        };
        let formats: Vec<_> = ["raw", "vhd", "qcow2"]
            .into_iter()
            .filter(|format| {
                published
                    .iter()
                    .any(|part| part.name.ends_with(&format!(".{format}")))
            })
            .collect();
        Ok(Self {
            raw: path.join(&raw.name),
            formats: formats.join(","),
            published: Some(published),
        })
    }

    fn compare(&self, measured: &ImageReference, rebuilt: &[Part], raw: &Part) -> Vec<Comparison> {
        let Some(published) = &self.published else {
            return vec![Comparison {
                name: self.raw.display().to_string(),
                sha256: Some(measured.sha256.to_string()),
                again: Some(raw.sha256.clone()),
            }];
        };
        let names: BTreeSet<_> = published.iter().chain(rebuilt).map(|part| &part.name).collect();
        let hash = |parts: &[Part], name: &str| {
            let part = parts.iter().find(|part| part.name == name)?;
            Some(part.sha256.clone())
        };
        names
            .into_iter()
            .map(|name| Comparison {
                name: name.clone(),
                sha256: hash(published, name),
                again: hash(rebuilt, name),
            })
            .collect()
    }
}

fn is_raw(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "raw")
}

/// Whether building from this checkout can give the image at all.
fn check_source(recipe: &Recipe, measured: &ImageReference) -> Result<(), Failure> {
    let Some(wanted) = &measured.build else {
        return Err(Failure::misuse(format!(
            "the image {} does not say what it was built from",
            one_line(&measured.name)
        ))
        .help("aicert's own images say it in the section .osrel (BUILD_ID)"));
    };
    let found = recipe.build_id()?;
    if found == *wanted {
        return Ok(());
    }
    let checkout = recipe.checkout().display();
    let commit = wanted.strip_suffix("-modified").unwrap_or(wanted);
    let failure = Failure::misuse(format!(
        "the image was built from {}, and {checkout} is {found}",
        one_line(wanted)
    ));
    Err(if wanted != commit {
        failure.help(
            "it was built from files that are in no commit: only those who have them can build it again",
        )
    } else if found.strip_suffix("-modified") == Some(commit) {
        failure.help(format!(
            "files there were changed: `git -C {checkout} status` shows which"
        ))
    } else {
        failure.help(format!(
            "`git -C {checkout} checkout {commit}`, or name another checkout with `--recipe DIR`"
        ))
    })
}

fn text(image: &Path, measured: &ImageReference, comparisons: &[Comparison], differences: &[String]) -> Text {
    let different: Vec<_> = comparisons
        .iter()
        .filter(|comparison| !comparison.is_same())
        .collect();
    let shown = one_line(&image.display().to_string());
    let verdict = if different.is_empty() {
        Text::new()
            .add(Style::Good, "REPRODUCED")
            .plain(&format!("  {shown}: building it again gave the same bytes\n"))
    } else {
        Text::new()
            .add(Style::Bad, "NOT REPRODUCED")
            .plain(&format!("  {shown}: building it again gave other bytes\n"))
    };
    let mut rows = vec![
        Row::new("name", measured.name.as_str()),
        Row::new("built from", measured.build.as_deref().unwrap_or("unknown")),
    ];
    let hash =
        |hash: Option<&str>, without: &str| hash.map_or(without.into(), |hash| format!("sha256:{hash}"));
    for comparison in comparisons {
        let Comparison { name, sha256, again } = comparison;
        rows.push(Row::new(name, hash(sha256.as_deref(), "not published")));
        if !comparison.is_same() {
            let again = hash(again.as_deref(), "no such file");
            rows.push(Row::new("", format!("again: {again}")));
        }
    }
    let mut text = verdict.append(table(&rows, None));
    if !different.is_empty() {
        text = text
            .line_end()
            .bold("Where they differ: the image, and what it is when it is built again\n");
        for line in differences {
            text = text.plain(&format!("  {}\n", one_line(line)));
        }
        if differences.is_empty() {
            text = text.plain("  not in the raw image; in the files named above\n");
        }
    }
    text
}

/// The image, built again, in a folder that is gone in the end.
struct Again(PathBuf);

impl Again {
    fn build(
        recipe: &Recipe,
        formats: &str,
        mut options: Vec<OsString>,
        terminal: Terminal,
    ) -> Result<Self, Failure> {
        let again = Self::new()?;
        // From nothing but packages: what was kept of an earlier build may be what made the image wrong.
        options.push("--fresh".into());
        recipe.build(&again.folder(), formats, &options, terminal)?;
        Ok(again)
    }

    fn folder(&self) -> PathBuf {
        self.0.join("again")
    }

    fn new() -> Result<Self, Failure> {
        let mut name = [0; 8];
        let folder = getrandom(name.as_mut_slice(), GetRandomFlags::empty())
            .map(|_| std::env::temp_dir().join(format!("aicert-image-{}", hex::encode(name))))
            .map_err(std::io::Error::from)
            .and_then(|folder| crate::files::private(&folder).map(|()| folder));
        folder
            .map(Self)
            .map_err(|error| Failure::misuse("could not make a temporary folder").because(&error))
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use aicert_core::digest::FileDigest;
    use aicert_verify::reference::Hex;

    use super::*;
    use crate::args::{Color, GlobalArgs, RecipeArgs};

    fn image(build: Option<&str>) -> ImageReference {
        ImageReference {
            name: "aicert-base 1.0".into(),
            sha256: Hex(vec![0xab; 32]),
            build: build.map(str::to_owned),
            stub: None,
            kernel: None,
            command_line: None,
            events: Vec::new(),
            pcrs: Default::default(),
        }
    }

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-C"])
            .arg(folder)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A checkout whose only file is the recipe; it is never run.
    fn checkout() -> (tempfile::TempDir, Recipe, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("image/base")).unwrap();
        fs::write(folder.path().join("image/base/build"), "").unwrap();
        git(folder.path(), &["init", "--quiet"]);
        git(folder.path(), &["add", "."]);
        git(folder.path(), &["commit", "--quiet", "--message", "first"]);
        let commit = git(folder.path(), &["rev-parse", "HEAD"]);
        let recipe = Recipe::find(&RecipeArgs {
            recipe: Some(folder.path().to_owned()),
            mirror: None,
            security_mirror: None,
            cache: None,
        });
        (folder, recipe.unwrap(), commit)
    }

    #[test]
    fn only_the_commit_of_the_image_can_give_it_again() {
        let (folder, recipe, commit) = checkout();
        check_source(&recipe, &image(Some(&commit))).unwrap();

        let refused = |build: Option<&str>, words: &str, help: &str| {
            let failure = check_source(&recipe, &image(build)).unwrap_err();
            assert_eq!(failure.exit, Exit::Misuse);
            assert!(failure.message.contains(words), "{}", failure.message);
            assert!(
                failure.help.as_deref().unwrap_or_default().contains(help),
                "{failure:?}"
            );
        };
        let other = "0".repeat(40);
        refused(None, "does not say what it was built from", "BUILD_ID");
        refused(
            Some(&other),
            &format!("built from {other}"),
            &format!("checkout {other}"),
        );
        let modified = format!("{commit}-modified");
        refused(Some(&modified), &modified, "in no commit");
        fs::write(folder.path().join("image/base/build"), "changed").unwrap();
        refused(Some(&commit), &modified, "status");
        check_source(&recipe, &image(Some(&modified))).unwrap();
    }

    #[test]
    fn it_is_built_from_nothing_and_gone_in_the_end() {
        const STAND_IN: &str = "#!/bin/sh\nmkdir \"$2\" && echo \"$@\" >\"$2/options\"\n";
        let (folder, recipe, _) = checkout();
        let program = folder.path().join("image/base/build");
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let quiet = Terminal::new(&GlobalArgs {
            quiet: true,
            json: false,
            color: Color::Never,
        });
        let again = Again::build(&recipe, "raw,vhd", vec!["--variant".into()], quiet).unwrap();
        let options = fs::read_to_string(again.folder().join("options")).unwrap();
        assert!(
            options.contains("--format raw,vhd") && options.contains("--variant --fresh"),
            "{options}"
        );
        let place = again.0.clone();
        drop(again);
        assert!(!place.exists());
    }

    #[test]
    fn a_folder_without_the_recipe_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Recipe::find(&RecipeArgs {
            recipe: Some(folder.path().to_owned()),
            mirror: None,
            security_mirror: None,
            cache: None,
        })
        .err()
        .unwrap();
        assert!(
            failure.message.contains("no checkout of aicert"),
            "{}",
            failure.message
        );
    }

    /// A folder as it is published: each file has its own name as contents.
    fn published(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut sums = String::new();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
            sums += &format!(
                "{}  {name}\n",
                hex::encode(FileDigest::of(name.as_bytes()).as_bytes())
            );
        }
        fs::write(folder.path().join("SHA256SUMS"), sums).unwrap();
        folder
    }

    const RELEASE: [&str; 3] = ["a.packages.txt", "a.raw", "a.reference-values.json"];

    /// What of this folder differs from a build that gives `rebuilt`.
    fn different(folder: &Path, rebuilt: &Path) -> Vec<String> {
        let subject = Subject::read(folder).unwrap();
        let rebuilt = parts(rebuilt).unwrap();
        let raw = rebuilt.iter().find(|part| part.name == "a.raw").unwrap();
        let comparisons = subject.compare(&image(None), &rebuilt, raw);
        let different = comparisons.iter().filter(|comparison| !comparison.is_same());
        different.map(|comparison| comparison.name.clone()).collect()
    }

    #[test]
    fn a_file_that_the_list_leaves_out_does_not_pass() {
        let rebuilt = published(&RELEASE);
        assert!(different(published(&RELEASE).path(), rebuilt.path()).is_empty());

        let forged = published(&RELEASE[..2]);
        let values = forged.path().join(RELEASE[2]);
        fs::write(&values, "another image's").unwrap();
        let failure = Subject::read(forged.path()).err().unwrap();
        assert_eq!(failure.exit, Exit::Misuse);
        assert!(failure.message.contains(RELEASE[2]), "{}", failure.message);

        fs::remove_file(values).unwrap();
        assert_eq!(different(forged.path(), rebuilt.path()), [RELEASE[2]]);
    }

    #[test]
    fn a_file_that_no_build_makes_is_a_difference() {
        let rebuilt = published(&RELEASE);
        let more = published(&["a.packages.txt", "a.raw", "a.reference-values.json", "install.sh"]);
        assert_eq!(different(more.path(), rebuilt.path()), ["install.sh"]);
        let renamed = published(&["a.packages.txt", "b.raw", "a.reference-values.json"]);
        assert_eq!(different(renamed.path(), rebuilt.path()), ["a.raw", "b.raw"]);
    }

    #[test]
    fn the_formats_that_are_there_are_built() {
        let folder = published(&["a.packages.txt", "a.qcow2", "a.raw", "a.vhd"]);
        assert_eq!(Subject::read(folder.path()).unwrap().formats, "raw,vhd,qcow2");
        assert_eq!(Subject::read(published(&RELEASE).path()).unwrap().formats, "raw");
    }

    #[test]
    fn a_difference_is_shown_with_both_hashes() {
        let comparison = Comparison {
            name: "a.raw".into(),
            sha256: Some("11".into()),
            again: Some("22".into()),
        };
        let unpublished = Comparison {
            name: "b.json".into(),
            sha256: None,
            again: Some("33".into()),
        };
        let superfluous = Comparison {
            name: "c.vhd".into(),
            sha256: Some("44".into()),
            again: None,
        };
        let shown = text(
            Path::new("folder"),
            &image(Some("c0ffee")),
            &[comparison, unpublished, superfluous],
            &["UKI section .cmdline: 'a' and 'b'".into()],
        )
        .render(false);
        assert_eq!(
            shown,
            "NOT REPRODUCED  folder: building it again gave other bytes\n\
             name        aicert-base 1.0\n\
             built from  c0ffee\n\
             a.raw       sha256:11\n            again: sha256:22\n\
             b.json      not published\n            again: sha256:33\n\
             c.vhd       sha256:44\n            again: no such file\n\n\
             Where they differ: the image, and what it is when it is built again\n  \
             UKI section .cmdline: 'a' and 'b'\n"
        );
    }
}
