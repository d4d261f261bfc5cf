//! Measuring the files below a directory, and copying them while they are measured.
//!
//! A directory is walked by file descriptors (`openat` without following links), so that nothing can be swapped for a
//! link between being looked at and being opened. Every file is compared (inode, size, modification and change time)
//! before it is opened, after it is opened, after it is read, and once more when all files have been read: what is
//! returned is what the directory held at that last moment, and a directory that somebody writes to meanwhile is an
//! error. Two writes within one tick of the file system's clock (a few milliseconds) cannot be told apart this way;
//! where others may write, use [`copy`], which hashes the very bytes that it writes to a private place.
//!
//! What a tree holds: regular files, whether their owner may execute them, and symbolic links that stay inside. Empty
//! directories, owners, times, extended attributes, and the set-user-id, set-group-id and sticky bits are not recorded
//! and not copied. Everything else (FIFOs, sockets, devices, names that are not UTF-8 or hold control characters) is
//! refused by name, as are more than [`MAX_DEPTH`] levels of directories, and a directory on another file system than
//! the root: what is mounted there was not put there by whoever made the directory.

mod copy;
mod error;
mod hash;
mod walk;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;

pub use copy::copy;
pub use error::MeasureError;
pub use hash::{copy_file, hash_file};

use crate::tree::Tree;

/// How many levels of directories are walked.
pub const MAX_DEPTH: usize = 100;

/// What to do with files that have several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLinks {
    /// Refuse them: they could be changed under a name outside the directory.
    Refuse,
    /// Take them for what they hold now.
    Accept,
}

/// How to measure.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// What to do with files that have several names.
    pub hard_links: HardLinks,
    /// Called from several threads with the number of bytes read so far.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Set it to have the work stop with [`MeasureError::Cancelled`].
    pub cancelled: &'a AtomicBool,
}

impl Options<'static> {
    /// Options that report to nobody and cannot be cancelled.
    pub const fn quiet(hard_links: HardLinks) -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self {
            hard_links,
            progress: &|_| {},
            cancelled: &NEVER,
        }
    }
}

/// Measures the files below a directory. `root` itself may be a link to it.
///
/// # Errors
///
/// When something in it cannot be measured, cannot be read, or changes meanwhile.
pub fn measure(root: &Path, options: &Options<'_>) -> Result<Tree, MeasureError> {
    let found = walk::list(root, options)?;
    let hashes = hash::hash_all(root, &found, options, None)?;
    walk::confirm(root, &found, options)?;
    hash::into_tree(found, hashes)
}
