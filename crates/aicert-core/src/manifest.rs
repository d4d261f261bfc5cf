//! Listings that are too large for an event, beside the certificate.
//!
//! A manifest is text, one JSON object per line: a line `{"tree":"sha256:…","files":n}` for each tree, followed by its
//! `n` entries in order. It needs no protection of its own: each listing is checked against the root that the log has.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::canonical::{self, ReadError};
use crate::digest::TreeRoot;
use crate::tree::{Entry, Tree, TreeError};

/// Longer than any entry: its path, its link target, escaped.
const LINE_LIMIT: usize = 64 << 10;

/// Says why a manifest was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It could not be read or written.
    #[error("the manifest could not be read or written: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("manifest line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        source: ReadError,
    },
    /// It ends in the middle of a listing.
    #[error("the manifest ends after {found} of {expected} entries")]
    Cut {
        /// Entries read.
        found: u64,
        /// Entries announced.
        expected: u64,
    },
    /// A listing is not that of a tree.
    #[error("manifest: {0}")]
    Tree(#[from] TreeError),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    tree: TreeRoot,
    files: u64,
}

/// The large listings of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    trees: Vec<Tree>,
}

impl Manifest {
    /// Takes trees over.
    pub fn new(trees: Vec<Tree>) -> Self {
        Self { trees }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// The tree with this root.
    pub fn find(&self, root: &TreeRoot) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.root() == *root)
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), ManifestError> {
        for tree in &self.trees {
            let header = Header {
                tree: tree.root(),
                files: tree.entries().len() as u64,
            };
            serde_json::to_writer(&mut *out, &header).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
            for entry in tree.entries() {
                serde_json::to_writer(&mut *out, entry).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Reads one, checking each listing against the root that it claims.
    ///
    /// # Errors
    ///
    /// When a line is malformed, a listing is cut, unsorted or not what its header says.
    pub fn read(mut input: impl BufRead) -> Result<Self, ManifestError> {
        let (mut trees, mut line) = (Vec::new(), 0);
        while let Some(header) = read_line::<Header>(&mut input, &mut line)? {
            // Grows with what is really there, never with what the header announces.
            let mut entries = Vec::new();
            while (entries.len() as u64) < header.files {
                let cut = ManifestError::Cut {
                    found: entries.len() as u64,
                    expected: header.files,
                };
                entries.push(read_line::<Entry>(&mut input, &mut line)?.ok_or(cut)?);
            }
            let tree = Tree::from_sorted(entries)?;
            if tree.root() != header.tree {
                let (expected, found) = (header.tree.to_string(), tree.root().to_string());
                return Err(TreeError::Mismatch {
                    what: "root",
                    expected,
                    found,
                }
                .into());
            }
            trees.push(tree);
        }
        Ok(Self { trees })
    }
}

fn read_line<T: Serialize + serde::de::DeserializeOwned>(
    input: &mut impl BufRead,
    line: &mut u64,
) -> Result<Option<T>, ManifestError> {
    let mut bytes = Vec::new();
    io::Read::take(&mut *input, LINE_LIMIT as u64 + 1).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    *line += 1;
    canonical::from_slice(&bytes, LINE_LIMIT)
        .map(Some)
        .map_err(|source| ManifestError::Line { line: *line, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::FileDigest;
    use proptest::prelude::*;

    fn sample() -> Manifest {
        let entry = |i: u32| {
            Entry::file(
                format!("d/{i}").parse().unwrap(),
                i.is_multiple_of(2),
                1,
                FileDigest::of(&i.to_le_bytes()),
            )
        };
        Manifest::new(vec![
            Tree::from_entries((0..1500).map(entry).collect()).unwrap(),
            Tree::from_entries((0..3).map(entry).collect()).unwrap(),
        ])
    }

    fn text(manifest: &Manifest) -> Vec<u8> {
        let mut text = Vec::new();
        manifest.write(&mut text).unwrap();
        text
    }

    #[test]
    fn survives_a_round_trip_and_no_change() {
        let manifest = sample();
        let text = text(&manifest);
        assert_eq!(Manifest::read(&text[..]).unwrap(), manifest);
        assert!(matches!(
            Manifest::read(&text[..text.len() / 2]),
            Err(ManifestError::Cut { .. } | ManifestError::Line { .. })
        ));
        let swapped = String::from_utf8(text)
            .unwrap()
            .replacen("\"size\":1", "\"size\":2", 1);
        assert!(matches!(
            Manifest::read(swapped.as_bytes()),
            Err(ManifestError::Tree(TreeError::Mismatch { .. }))
        ));
        let huge = format!(
            "{{\"tree\":\"{}\",\"files\":18446744073709551615}}\n",
            TreeRoot::of(b"")
        );
        assert!(matches!(
            Manifest::read(huge.as_bytes()),
            Err(ManifestError::Cut { found: 0, .. })
        ));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::read(&bytes[..]);
        }
    }
}
