//! Copying a directory while it is measured.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::walk::FoundKind;
use super::{MeasureError, Options, hash, walk};
use crate::tree::Tree;

/// Copies the files below `from` to `to`, which must not exist and whose parent nobody else may write to. The measure
/// is that of the bytes written. Directories without files are left out, as they are not in the measure. On an error,
/// nothing remains at `to`.
///
/// # Errors
///
/// As [`super::measure`], and when something cannot be written.
pub fn copy(from: &Path, to: &Path, options: &Options<'_>) -> Result<Tree, MeasureError> {
    let found = walk::list(from, options)?;
    fs::create_dir(to).map_err(|error| MeasureError::io("create", to, error))?;
    let unfinished = RemoveOnDrop(to);
    readable(to)?;

    let mut last_folder = "";
    for found in &found {
        let folder = found
            .path
            .as_str()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        if folder != last_folder {
            create_folders(to, folder)?;
            last_folder = folder;
        }
        if let FoundKind::Symlink { target } = &found.kind {
            let link = to.join(found.path.as_str());
            std::os::unix::fs::symlink(target, &link)
                .map_err(|error| MeasureError::io("create the link", &link, error))?;
        }
    }
    let hashes = hash::hash_all(from, &found, options, Some(to))?;
    walk::confirm(from, &found, options)?;
    let tree = hash::into_tree(found, hashes)?;
    std::mem::forget(unfinished);
    Ok(tree)
}

fn create_folders(to: &Path, folder: &str) -> Result<(), MeasureError> {
    let mut path = to.to_owned();
    for name in folder.split('/') {
        path.push(name);
        match fs::create_dir(&path) {
            Ok(()) => readable(&path)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(MeasureError::io("create", &path, error)),
        }
    }
    Ok(())
}

/// Whatever the umask: the container's user, who is somebody else, reads these files.
fn readable(folder: &Path) -> Result<(), MeasureError> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))
        .map_err(|error| MeasureError::io("create", folder, error))
}

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}
