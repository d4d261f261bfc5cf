//! Writing a commit's files from the object database, byte for byte, and measuring them while they are written.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aicert_core::digest::FileDigest;
use aicert_core::input::{InputError, InputErrorKind};
use aicert_core::measure::MAX_DEPTH;
use aicert_core::tree::{Entry, TreePath};
use git2::{ObjectType, Odb, Oid, Repository};

use super::gitmodules;
use crate::background::Signals;
use crate::error::storage;

/// Files and links written so far.
pub(super) struct Checkout<'a> {
    target: PathBuf,
    largest_file: u64,
    signals: &'a Signals,
    entries: Vec<Entry>,
}

/// A commit of another repository that belongs at a path.
#[derive(Debug)]
pub(super) struct Submodule {
    pub(super) path: String,
    pub(super) commit: Oid,
    /// What `.gitmodules` says; empty when it says nothing.
    pub(super) url: String,
}

impl<'a> Checkout<'a> {
    /// Makes the target.
    pub(super) fn create(target: &Path, largest_file: u64, signals: &'a Signals) -> Result<Self, InputError> {
        make_folder(target).map_err(|error| storage("create", target, error))?;
        Ok(Self {
            target: target.to_owned(),
            largest_file,
            signals,
            entries: Vec::new(),
        })
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Writes the files of a commit below `at`, a path in the target or empty. Returns its submodules, not written.
    pub(super) fn commit(
        &mut self,
        repository: &Repository,
        commit: Oid,
        at: &str,
        origin: &str,
    ) -> Result<Vec<Submodule>, InputError> {
        let damaged = |error: git2::Error| damaged(origin, &error);
        let odb = repository.odb().map_err(damaged)?;
        let root = repository
            .find_commit(commit)
            .and_then(|commit| commit.tree())
            .map_err(damaged)?;
        let mut links = Vec::new();
        if !at.is_empty() {
            self.make_folders(at, origin)?;
        }
        self.tree(
            &Source {
                repository,
                odb: &odb,
                origin,
            },
            &root,
            at,
            0,
            &mut links,
        )?;
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let urls = match root.get_name(".gitmodules") {
            Some(entry) if entry.kind() == Some(ObjectType::Blob) => {
                let blob = repository.find_blob(entry.id()).map_err(damaged)?;
                gitmodules::parse(&String::from_utf8_lossy(blob.content()))
            }
            _ => BTreeMap::new(),
        };
        let submodule = |(path, commit): (String, Oid)| {
            let inner = path.strip_prefix(at).unwrap_or(&path).trim_start_matches('/');
            Submodule {
                url: urls.get(inner).cloned().unwrap_or_default(),
                path,
                commit,
            }
        };
        Ok(links.into_iter().map(submodule).collect())
    }

    fn tree(
        &mut self,
        source: &Source<'_>,
        tree: &git2::Tree<'_>,
        at: &str,
        depth: usize,
        links: &mut Vec<(String, Oid)>,
    ) -> Result<(), InputError> {
        if depth > MAX_DEPTH {
            return Err(refused(
                source.origin,
                &format!("{at:?} is more than {MAX_DEPTH} levels deep"),
                "flatten the repository",
            ));
        }
        for entry in tree {
            self.signals.check()?;
            let path = entry_path(at, entry.name_bytes(), source.origin)?;
            // Modes as in git's documentation of tree objects; older versions of git wrote others for files.
            match entry.filemode() & 0o170_000 {
                0o040_000 => {
                    let inner = source
                        .repository
                        .find_tree(entry.id())
                        .map_err(|error| damaged(source.origin, &error))?;
                    let folder = self.target.join(path.as_str());
                    make_folder(&folder).map_err(|error| self.not_made(source.origin, &path, error))?;
                    self.tree(source, &inner, path.as_str(), depth + 1, links)?;
                    // A folder of nothing but submodules that are not fetched would be there without being measured.
                    let _ = fs::remove_dir(&folder);
                }
                0o100_000 => self.file(source, &path, entry.id(), entry.filemode() & 0o100 != 0)?,
                0o120_000 => self.link(source, path, entry.id())?,
                0o160_000 => links.push((path.as_str().to_owned(), entry.id())),
                mode => {
                    let what = format!("{:?} has the unknown mode {mode:o}", path.as_str());
                    return Err(refused(
                        source.origin,
                        &what,
                        "check the repository with `git fsck`",
                    ));
                }
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        source: &Source<'_>,
        path: &TreePath,
        id: Oid,
        executable: bool,
    ) -> Result<(), InputError> {
        let content = self.blob(source, path, id)?;
        let content = content.data();
        if is_lfs_pointer(content) {
            let what = format!(
                "{:?} is kept in Git LFS: the repository holds only a pointer to it",
                path.as_str()
            );
            let advice = "name the file as an input of its own (type file, with its URL and sha256), or commit it without LFS";
            return Err(refused(source.origin, &what, advice));
        }
        let target = self.target.join(path.as_str());
        let mode = if executable { 0o755 } else { 0o644 };
        let written = || -> io::Result<()> {
            // `create_new` opens nothing that is there, and follows no link.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&target)?;
            file.write_all(content)?;
            // Whatever the umask: the container's user, who is somebody else, reads these files.
            file.set_permissions(Permissions::from_mode(mode))
        };
        written().map_err(|error| self.not_made(source.origin, path, error))?;
        self.entries.push(Entry::file(
            path.clone(),
            executable,
            content.len() as u64,
            FileDigest::of(content),
        ));
        Ok(())
    }

    fn link(&mut self, source: &Source<'_>, path: TreePath, id: Oid) -> Result<(), InputError> {
        let content = self.blob(source, &path, id)?;
        let target = std::str::from_utf8(content.data()).map_err(|_| {
            refused(
                source.origin,
                &format!("the link {:?} leads to a name that is not UTF-8", path.as_str()),
                "rename its target",
            )
        })?;
        let entry = Entry::symlink(path.clone(), target.to_owned()).map_err(|error| {
            refused(
                source.origin,
                &error.to_string(),
                "replace the link with a copy of what it points to",
            )
        })?;
        std::os::unix::fs::symlink(target, self.target.join(path.as_str()))
            .map_err(|error| self.not_made(source.origin, &path, error))?;
        self.entries.push(entry);
        Ok(())
    }

    fn blob<'b>(
        &self,
        source: &Source<'b>,
        path: &TreePath,
        id: Oid,
    ) -> Result<git2::OdbObject<'b>, InputError> {
        let damaged = |error: git2::Error| damaged(source.origin, &error);
        // Asked for first: a small pack may hold a file that unpacks to more than fits into memory.
        let (size, _) = source.odb.read_header(id).map_err(damaged)?;
        if size as u64 > self.largest_file {
            let what = format!(
                "{:?} has {size} bytes: files of a repository may have {}",
                path.as_str(),
                self.largest_file
            );
            return Err(refused(
                source.origin,
                &what,
                "name the file as an input of its own (type file)",
            ));
        }
        source.odb.read(id).map_err(damaged)
    }

    /// Makes the folder of a submodule. What is there already must be folders: links are never followed.
    fn make_folders(&self, path: &str, origin: &str) -> Result<(), InputError> {
        let path: TreePath = path
            .parse()
            .map_err(|error| refused(origin, &format!("{error}"), "rename the submodule"))?;
        let mut folder = self.target.clone();
        for name in path.as_str().split('/') {
            folder.push(name);
            match make_folder(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(&folder) => {}
                made => made.map_err(|error| self.not_made(origin, &path, error))?,
            }
        }
        Ok(())
    }

    fn not_made(&self, origin: &str, path: &TreePath, error: io::Error) -> InputError {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let what = format!("{:?} stands twice in a tree", path.as_str());
            return refused(origin, &what, "check the repository with `git fsck`");
        }
        storage("write", &self.target.join(path.as_str()), error)
    }
}

struct Source<'a> {
    repository: &'a Repository,
    odb: &'a Odb<'a>,
    origin: &'a str,
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The path of a tree's entry. A tree object can hold any bytes as a name, so that `a/b` is no path to be trusted.
fn entry_path(at: &str, name: &[u8], origin: &str) -> Result<TreePath, InputError> {
    let shown = String::from_utf8_lossy(name);
    let refused = |why: &str| {
        refused(
            origin,
            &format!("the name {shown:?} below {at:?} {why}"),
            "rename it in the repository",
        )
    };
    let name = std::str::from_utf8(name).map_err(|_| refused("is not UTF-8"))?;
    if name.contains('/') {
        return Err(refused("holds a slash"));
    }
    if name.eq_ignore_ascii_case(".git") {
        return Err(refused("would make a repository out of the files"));
    }
    let path = if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}/{name}")
    };
    path.parse()
        .map_err(|error| refused(&format!("cannot be measured: {error}")))
}

/// The format of Git LFS's pointer files: its specification, section "The Pointer".
fn is_lfs_pointer(content: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(&content[..content.len().min(1024)]) else {
        return false;
    };
    content.len() < 1024
        && text.starts_with("version https://git-lfs.github.com/spec/v1\n")
        && text.contains("\noid sha256:")
        && text.contains("\nsize ")
}

fn refused(origin: &str, what: &str, advice: &str) -> InputError {
    InputError::new(InputErrorKind::Refused, format!("{origin}: {what}")).with_advice(advice)
}

fn damaged(origin: &str, error: &git2::Error) -> InputError {
    InputError::new(
        InputErrorKind::Mismatch,
        format!("{origin}: an object is missing or damaged: {}", error.message()),
    )
    .with_advice("check the repository with `git fsck`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_reach_elsewhere_are_refused() {
        for name in [
            &b".."[..],
            b".",
            b"",
            b"a/b",
            b"../a",
            b"/a",
            b".git",
            b".GIT",
            b"a\nb",
            b"caf\xe9",
            b"\x1b[31m",
        ] {
            let error = entry_path("d", name, "https://host/a").unwrap_err();
            assert_eq!(error.kind(), InputErrorKind::Refused);
            assert!(!error.message().chars().any(char::is_control), "{error}");
        }
        assert_eq!(entry_path("d", b"$(a); b", "x").unwrap().as_str(), "d/$(a); b");
    }

    #[test]
    fn lfs_pointers_are_recognised() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        assert!(is_lfs_pointer(pointer));
        assert!(!is_lfs_pointer(
            b"version https://git-lfs.github.com/spec/v1\nis described here"
        ));
        assert!(!is_lfs_pointer(b""));
    }
}
