//! `aicert image build`.

use std::ffi::OsString;
use std::path::Path;

use aicert_core::measure::{HardLinks, Options, hash_file};
use serde::Serialize;

use crate::args::ImageBuildArgs;
use crate::card::bytes;
use crate::error::{Exit, Failure};
use crate::image::recipe::Recipe;
use crate::output::Terminal;
use crate::table::columns;
use crate::text::{Text, one_line};

/// One file of a folder with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

pub(crate) fn build(args: &ImageBuildArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let recipe = Recipe::find(&args.recipe)?;
    let mut more: Vec<OsString> = Vec::new();
    for word in &args.add_to_command_line {
        more.extend(["--add-to-command-line".into(), word.into()]);
    }
    for (name, file) in [("--server", &args.server), ("--init", &args.init)] {
        if let Some(file) = file {
            more.extend([name.into(), file.into()]);
        }
    }
    more.extend(args.variant.options());
    recipe.build(&args.output, &args.format, &more, terminal)?;
    let parts = parts(&args.output)?;
    terminal.result(&text(&args.output, &parts));
    terminal.json_result(&serde_json::json!({ "output": args.output, "files": parts }));
    Ok(Exit::Holds)
}

/// The list of what is in a folder.
const SUMS: &str = "SHA256SUMS";

/// The files of a folder, as its list says that they are; a file that is something else, or that the list does not name, is
/// an error.
pub(super) fn parts(folder: &Path) -> Result<Vec<Part>, Failure> {
    let list = folder.join(SUMS);
    let failed = || Failure::misuse(format!("could not read {}", list.display()));
    let text = std::fs::read_to_string(&list).map_err(|error| failed().because(&error))?;
    let parts: Result<Vec<_>, _> = text.lines().map(|line| part(folder, line)).collect();
    let parts = parts?;
    if parts.is_empty() {
        return Err(Failure::misuse(format!("{} names no file", list.display())));
    }
    // Whoever takes something from this folder believes it because of what is said here of the folder.
    for entry in std::fs::read_dir(folder).map_err(|error| failed().because(&error))? {
        let name = entry.map_err(|error| failed().because(&error))?.file_name();
        if name != SUMS && !parts.iter().any(|part| name == part.name.as_str()) {
            return Err(Failure::misuse(format!(
                "{} does not name {}, which is there",
                list.display(),
                one_line(&name.to_string_lossy())
            ))
            .help(
                "nothing can be said of a file that is not in the list: add it there, or move it elsewhere",
            ));
        }
    }
    Ok(parts)
}

fn part(folder: &Path, line: &str) -> Result<Part, Failure> {
    let misuse = |what: String| Failure::misuse(format!("{}: {what}", folder.join(SUMS).display()));
    let (expected, name) = line
        .split_once("  ")
        .filter(|(hash, name)| hash.len() == 64 && is_plain(name))
        .ok_or_else(|| {
            misuse(format!(
                "expected a SHA-256 and the name of a file, found {:?}",
                one_line(line)
            ))
        })?;
    let path = folder.join(name);
    let (found, size) = hash_file(&path, &Options::quiet(HardLinks::Accept))
        .map_err(|error| misuse(one_line(&error.to_string())))?;
    let found = hex::encode(found.as_bytes());
    if found != expected {
        return Err(
            misuse(format!("{name} has the SHA-256 {found}, expected {expected}"))
                .help("the file was changed or did not arrive whole"),
        );
    }
    Ok(Part {
        name: name.to_owned(),
        size,
        sha256: found,
    })
}

/// Whether this can only be a file in the folder itself.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+~".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

fn text(folder: &Path, parts: &[Part]) -> Text {
    let mut rows = vec![vec!["FILE".into(), "SIZE".into(), "SHA-256".into()]];
    rows.extend(
        parts
            .iter()
            .map(|part| vec![part.name.clone(), bytes(part.size), part.sha256.clone()]),
    );
    Text::new()
        .bold("IMAGE")
        .plain(&format!("  {}\n", one_line(&folder.display().to_string())))
        .append(columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn folder(sums: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.raw"), "").unwrap();
        std::fs::write(folder.path().join("SHA256SUMS"), sums).unwrap();
        folder
    }

    #[test]
    fn reads_a_folder() {
        let folder = folder(&format!("{EMPTY}  a.raw\n"));
        let part = Part {
            name: "a.raw".into(),
            size: 0,
            sha256: EMPTY.into(),
        };
        assert_eq!(parts(folder.path()).unwrap(), [part]);
    }

    #[test]
    fn refuses_what_the_list_does_not_name() {
        let folder = folder(&format!("{EMPTY}  a.raw\n"));
        for name in ["a.reference-values.json", ".hidden"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            let failure = parts(folder.path()).unwrap_err();
            assert!(
                failure.message.contains(&format!("does not name {name}")),
                "{}",
                failure.message
            );
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::create_dir(folder.path().join("more")).unwrap();
        parts(folder.path()).unwrap_err();
    }

    #[test]
    fn refuses_what_is_not_what_the_list_says() {
        let other = "0".repeat(64);
        for (sums, words) in [
            (format!("{other}  a.raw\n"), "expected 0000"),
            (format!("{EMPTY}  b.raw\n"), "b.raw"),
            (
                format!("{EMPTY}  ../a.raw\n"),
                "expected a SHA-256 and the name of a file",
            ),
            (
                format!("{EMPTY}  .a\n"),
                "expected a SHA-256 and the name of a file",
            ),
            ("rubbish\n".into(), "expected a SHA-256 and the name of a file"),
            (String::new(), "names no file"),
        ] {
            let folder = folder(&sums);
            let failure = parts(folder.path()).unwrap_err();
            assert!(failure.message.contains(words), "{}: {sums}", failure.message);
            assert_eq!(failure.exit, Exit::Misuse);
        }
    }
}
