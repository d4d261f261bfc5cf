//! Measured trees: the files of an input or of the outputs, their RFC 6962 root, and proofs that one file is in it.
//!
//! A leaf is the canonical JSON (RFC 8785) of an [`Entry`]. Leaves are ordered by the bytes of their paths and hashed
//! as in RFC 6962, section 2.1: `SHA-256(0x00 || leaf)` and `SHA-256(0x01 || left || right)`. Empty directories are
//! not recorded, as in git.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::canonical::{INTEGER_LIMIT, at_most_if_there, expect_key, write_string};
use crate::digest::{FileDigest, TreeRoot};

/// The largest listing that travels inside an event; a larger one rides beside the certificate as a manifest.
pub const LISTING_LIMIT: usize = 1_000;

const PATH_LIMIT: usize = 4_096;
const COMPONENT_LIMIT: usize = 255;

/// A path below the root of a tree: relative, `/` between components, no `.`, no `..`, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TreePath(String);

/// Says why something cannot be measured as a tree. Paths are shown escaped, so that no name can fool a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A path is absolute, has `.` or `..`, is too long, or holds control characters.
    #[error("path {path:?} cannot be measured: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A symbolic link may lead outside the tree.
    #[error("symbolic link {path:?} -> {target:?} is refused: {reason}")]
    Link {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// One path stands twice, or is both a file and a directory.
    #[error("path {path:?} stands twice in the tree, or is both a file and a directory")]
    Conflict {
        /// The path.
        path: String,
    },
    /// The listing is not in the order of its paths.
    #[error("the listing is not sorted at {path:?}")]
    Order {
        /// The first path out of order.
        path: String,
    },
    /// The total size does not fit.
    #[error("the sizes in the listing add up to 2^53 bytes or more")]
    Size,
    /// A listing does not have the root, file count or byte count claimed for it.
    #[error("the listing has {what} {found}, the measurement says {expected}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// Claimed.
        expected: String,
        /// Computed.
        found: String,
    },
}

impl TreePath {
    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TreePath {
    type Err = TreeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |reason| TreeError::Path {
            path: text.chars().take(300).collect(),
            reason,
        };
        if text.is_empty() {
            return Err(refused("it is empty"));
        }
        if text.len() > PATH_LIMIT {
            return Err(refused("it is longer than 4096 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(refused("it holds a control character"));
        }
        for component in text.split('/') {
            match component {
                "" => return Err(refused("it is absolute or has an empty component")),
                "." | ".." => return Err(refused("it has a component `.` or `..`")),
                long if long.len() > COMPONENT_LIMIT => {
                    return Err(refused("a component is longer than 255 bytes"));
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One file or symbolic link of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Entry {
    /// A regular file.
    File {
        /// Where it is.
        path: TreePath,
        /// In bytes.
        size: u64,
        /// SHA-256 of its bytes.
        hash: FileDigest,
    },
    /// A regular file whose owner may execute it.
    Executable {
        /// Where it is.
        path: TreePath,
        /// In bytes.
        size: u64,
        /// SHA-256 of its bytes.
        hash: FileDigest,
    },
    /// A symbolic link that stays inside the tree.
    Symlink {
        /// Where it is.
        path: TreePath,
        /// The text of the link.
        target: String,
    },
}

impl Entry {
    /// A regular file, executable or not.
    pub fn file(path: TreePath, executable: bool, size: u64, hash: FileDigest) -> Self {
        if executable {
            Self::Executable { path, size, hash }
        } else {
            Self::File { path, size, hash }
        }
    }

    /// A symbolic link.
    ///
    /// # Errors
    ///
    /// When it could lead outside the tree: see [`check_link`].
    pub fn symlink(path: TreePath, target: String) -> Result<Self, TreeError> {
        check_link(&path, &target)?;
        Ok(Self::Symlink { path, target })
    }

    /// Where the entry is.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::File { path, .. } | Self::Executable { path, .. } | Self::Symlink { path, .. } => path,
        }
    }

    /// Its size in bytes; 0 for a link.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } | Self::Executable { size, .. } => *size,
            Self::Symlink { .. } => 0,
        }
    }

    /// The SHA-256 of its bytes; nothing for a link.
    pub fn hash(&self) -> Option<FileDigest> {
        match self {
            Self::File { hash, .. } | Self::Executable { hash, .. } => Some(*hash),
            Self::Symlink { .. } => None,
        }
    }

    /// Its canonical form (RFC 8785): members in alphabetical order. The size must be below 2^53.
    fn leaf(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        let mut member = |name: &[u8], text: &str| {
            out.extend_from_slice(name);
            write_string(text, &mut out);
        };
        match self {
            Self::File { path, size, hash } | Self::Executable { path, size, hash } => {
                let executable = matches!(self, Self::Executable { .. });
                member(b"{\"hash\":", &hash.to_string());
                member(b",\"mode\":", if executable { "executable" } else { "file" });
                member(b",\"path\":", path.as_str());
                out.extend_from_slice(format!(",\"size\":{size}}}").as_bytes());
            }
            Self::Symlink { path, target } => {
                member(b"{\"mode\":", "symlink");
                member(b",\"path\":", path.as_str());
                member(b",\"target\":", target);
                out.push(b'}');
            }
        }
        out
    }

    fn leaf_hash(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update([0])
            .chain_update(self.leaf())
            .finalize()
            .into()
    }
}

impl<'de> Deserialize<'de> for Entry {
    /// Reads members in the order in which they are written, so that nothing has to be kept until its kind is known.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entry: an object with mode, path, size and hash or target, in this order")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry, M::Error> {
                let expect = |map: &mut M, name| expect_key(map, name, "an entry");
                expect(&mut map, "mode")?;
                let mode: String = map.next_value()?;
                expect(&mut map, "path")?;
                let path = map.next_value()?;
                let entry = match mode.as_str() {
                    "file" | "executable" => {
                        expect(&mut map, "size")?;
                        let size = map.next_value()?;
                        expect(&mut map, "hash")?;
                        Entry::file(path, mode == "executable", size, map.next_value()?)
                    }
                    "symlink" => {
                        expect(&mut map, "target")?;
                        let target = map.next_value()?;
                        Entry::Symlink { path, target }
                    }
                    unknown => {
                        let known = &["file", "executable", "symlink"];
                        return Err(M::Error::unknown_variant(unknown, known));
                    }
                };
                match map.next_key::<String>()? {
                    Some(key) => Err(M::Error::custom(format_args!(
                        "expected the end of an entry, found `{key}`"
                    ))),
                    None => Ok(entry),
                }
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// Accepts a link only if it stays in the tree whatever the other links are: relative, and `..` only at its start, no
/// more often than the link is deep (its parents are real directories, so leading `..` mean what they say).
///
/// # Errors
///
/// When the link is absolute, leaves the tree, or could through another link.
pub fn check_link(path: &TreePath, target: &str) -> Result<(), TreeError> {
    let refused = |reason| TreeError::Link {
        path: path.as_str().into(),
        target: target.chars().take(300).collect(),
        reason,
    };
    if target.is_empty() || target.len() > PATH_LIMIT || target.chars().any(char::is_control) {
        return Err(refused(
            "its target is empty, too long or holds a control character",
        ));
    }
    if target.starts_with('/') {
        return Err(refused("its target is an absolute path"));
    }
    let ups = target
        .split('/')
        .take_while(|component| *component == "..")
        .count();
    if ups > path.as_str().matches('/').count() {
        return Err(refused("its target is outside the folder"));
    }
    if target.split('/').skip(ups).any(|component| component == "..") {
        return Err(refused(
            "`..` after a name in its target could lead outside the folder",
        ));
    }
    Ok(())
}

/// A complete, sorted listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(Vec<Entry>);

impl Tree {
    /// Sorts the entries by the bytes of their paths.
    ///
    /// # Errors
    ///
    /// When a path stands twice or is both a file and a directory, a link could leave the tree, or sizes overflow.
    pub fn from_entries(mut entries: Vec<Entry>) -> Result<Self, TreeError> {
        entries.sort_by(|a, b| a.path().cmp(b.path()));
        Self::from_sorted(entries)
    }

    /// Takes a listing that claims to be sorted already.
    ///
    /// # Errors
    ///
    /// As [`Tree::from_entries`], and when it is not sorted.
    pub fn from_sorted(entries: Vec<Entry>) -> Result<Self, TreeError> {
        let mut bytes = 0u64;
        // Files on the way to the current path; `a` and `a/b` need not be neighbours (`a`, `a-b`, `a/b`).
        let mut ancestors: Vec<&str> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = entry.path().as_str();
            if let Some(previous) = index.checked_sub(1).map(|i| entries[i].path().as_str()) {
                match previous.cmp(path) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal => return Err(TreeError::Conflict { path: path.into() }),
                    std::cmp::Ordering::Greater => return Err(TreeError::Order { path: path.into() }),
                }
            }
            while ancestors
                .last()
                .is_some_and(|ancestor| !path.starts_with(ancestor))
            {
                ancestors.pop();
            }
            if ancestors
                .iter()
                .any(|ancestor| path.as_bytes().get(ancestor.len()) == Some(&b'/'))
            {
                return Err(TreeError::Conflict { path: path.into() });
            }
            ancestors.push(path);
            if let Entry::Symlink { path, target } = entry {
                check_link(path, target)?;
            }
            bytes = bytes
                .checked_add(entry.size())
                .filter(|sum| *sum < INTEGER_LIMIT)
                .ok_or(TreeError::Size)?;
        }
        Ok(Self(entries))
    }

    /// The entries, sorted.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The sum of the sizes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(Entry::size).sum()
    }

    /// The RFC 6962 root.
    pub fn root(&self) -> TreeRoot {
        let mut builder = RootBuilder::default();
        for entry in &self.0 {
            builder.push(entry.leaf_hash());
        }
        builder.finish()
    }

    /// The proof that the entry at `path` is in this tree; nothing when it is not.
    pub fn prove(&self, path: &str) -> Option<InclusionProof> {
        let index = self
            .0
            .binary_search_by(|entry| entry.path().as_str().cmp(path))
            .ok()?;
        let leaves: Vec<_> = self.0.iter().map(Entry::leaf_hash).collect();
        let mut hashes = Vec::new();
        audit_path(index, &leaves, &mut hashes);
        Some(InclusionProof {
            entry: self.0[index].clone(),
            index: index as u64,
            files: leaves.len() as u64,
            hashes: hashes.into_iter().map(TreeRoot::from_bytes).collect(),
        })
    }

    /// What an event says of this tree.
    pub fn measured(&self) -> MeasuredTree {
        let listing = (self.0.len() <= LISTING_LIMIT).then(|| self.0.clone());
        MeasuredTree {
            root: self.root(),
            files: self.0.len() as u64,
            bytes: self.bytes(),
            listing,
        }
    }
}

/// Computes a root from leaf hashes as they come, in memory that grows with the logarithm of their number.
#[derive(Debug, Default)]
struct RootBuilder {
    /// Roots of perfect subtrees with their heights, tallest first.
    stack: Vec<(u32, [u8; 32])>,
}

impl RootBuilder {
    fn push(&mut self, leaf: [u8; 32]) {
        let (mut height, mut hash) = (0, leaf);
        while let Some(&(top, left)) = self.stack.last().filter(|(top, _)| *top == height) {
            self.stack.pop();
            hash = node_hash(&left, &hash);
            height = top + 1;
        }
        self.stack.push((height, hash));
    }

    fn finish(mut self) -> TreeRoot {
        let Some((_, mut hash)) = self.stack.pop() else {
            return TreeRoot::of(b"");
        };
        while let Some((_, left)) = self.stack.pop() {
            hash = node_hash(&left, &hash);
        }
        TreeRoot::from_bytes(hash)
    }
}

fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// RFC 6962, section 2.1.1: PATH(m, D\[n\]).
fn audit_path(index: usize, leaves: &[[u8; 32]], out: &mut Vec<[u8; 32]>) {
    if leaves.len() <= 1 {
        return;
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let subtree = |leaves: &[[u8; 32]]| {
        let mut builder = RootBuilder::default();
        leaves.iter().for_each(|leaf| builder.push(*leaf));
        *builder.finish().as_bytes()
    };
    if index < split {
        audit_path(index, left, out);
        out.push(subtree(right));
    } else {
        audit_path(index - split, right, out);
        out.push(subtree(left));
    }
}

/// Shows that one file was in a measured tree, without the other files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// The file.
    pub entry: Entry,
    /// Its position among the sorted entries, from 0.
    pub index: u64,
    /// How many entries the tree has.
    pub files: u64,
    /// The audit path of RFC 6962, section 2.1.1.
    pub hashes: Vec<TreeRoot>,
}

impl InclusionProof {
    /// The root that this proof leads to; nothing when the proof is malformed. The caller compares it to the measured
    /// root *and* compares `files` to the measured count.
    pub fn root(&self) -> Option<TreeRoot> {
        // Such entries are in no tree.
        match &self.entry {
            Entry::Symlink { path, target } => check_link(path, target).ok()?,
            file if file.size() >= INTEGER_LIMIT => return None,
            _ => {}
        }
        // RFC 9162, section 2.1.3.2.
        if self.index >= self.files {
            return None;
        }
        let (mut index, mut last) = (self.index, self.files - 1);
        let mut hash = self.entry.leaf_hash();
        for sibling in &self.hashes {
            if last == 0 {
                return None;
            }
            if index % 2 == 1 || index == last {
                hash = node_hash(sibling.as_bytes(), &hash);
                while index.is_multiple_of(2) && index != 0 {
                    index /= 2;
                    last /= 2;
                }
            } else {
                hash = node_hash(&hash, sibling.as_bytes());
            }
            index /= 2;
            last /= 2;
        }
        (last == 0).then(|| TreeRoot::from_bytes(hash))
    }
}

/// A tree as an event records it: the root that commits to everything, and the listing while it is small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTree {
    /// The RFC 6962 root over the sorted entries.
    pub root: TreeRoot,
    /// How many entries.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
    /// The entries, when there are at most [`LISTING_LIMIT`]; otherwise they ride in the manifest.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "at_most_if_there::<LISTING_LIMIT, _, _>"
    )]
    pub listing: Option<Vec<Entry>>,
}

impl MeasuredTree {
    /// Checks a listing against the measurement.
    ///
    /// # Errors
    ///
    /// When it is not a tree, or its root, count or size differ.
    pub fn check(&self, tree: &Tree) -> Result<(), TreeError> {
        let (root, files, bytes) = (tree.root(), tree.entries().len() as u64, tree.bytes());
        let mismatch = |what, expected: String, found: String| {
            Err(TreeError::Mismatch {
                what,
                expected,
                found,
            })
        };
        if files != self.files {
            return mismatch("file count", self.files.to_string(), files.to_string());
        }
        if bytes != self.bytes {
            return mismatch("total size", self.bytes.to_string(), bytes.to_string());
        }
        if root != self.root {
            return mismatch("root", self.root.to_string(), root.to_string());
        }
        Ok(())
    }

    /// Checks the listing inside, if there is one; a small tree without one is refused.
    ///
    /// # Errors
    ///
    /// As [`MeasuredTree::check`].
    pub fn check_listing(&self) -> Result<(), TreeError> {
        let expected = self.files <= LISTING_LIMIT as u64;
        match &self.listing {
            Some(listing) if expected => self.check(&Tree::from_sorted(listing.clone())?),
            None if !expected => Ok(()),
            other => Err(TreeError::Mismatch {
                what: "listing",
                expected: format!(
                    "{} for {} files",
                    if expected { "one" } else { "none" },
                    self.files
                ),
                found: if other.is_some() { "one" } else { "none" }.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::to_jcs;
    use proptest::prelude::*;

    fn entry(path: &str) -> Entry {
        Entry::file(path.parse().unwrap(), false, 3, FileDigest::of(path.as_bytes()))
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in [
            "",
            "/etc/passwd",
            "a//b",
            "a/",
            "./a",
            "a/../b",
            "..",
            "a\nb",
            "a\u{7f}",
            "\u{1b}[2J",
            &"x".repeat(256),
            &"x/".repeat(2100),
        ] {
            assert!(path.parse::<TreePath>().is_err(), "{path:?}");
        }
        for path in ["a", "a/b.c", "…/ü", "-rf", "$(x)", "a b", "...", "A"] {
            assert!(path.parse::<TreePath>().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn links_stay_inside() {
        for (path, target) in [
            ("l", "/etc"),
            ("l", ".."),
            ("a/l", "../../x"),
            ("l", "d/.."),
            ("l", "d/../../x"),
            ("l", ""),
        ] {
            assert!(
                Entry::symlink(path.parse().unwrap(), target.into()).is_err(),
                "{path} -> {target}"
            );
        }
        for (path, target) in [("l", "d/e"), ("a/l", "../x"), ("a/b/l", "../../x/y"), ("l", ".")] {
            assert!(
                Entry::symlink(path.parse().unwrap(), target.into()).is_ok(),
                "{path} -> {target}"
            );
        }
    }

    #[test]
    fn conflicts_are_refused_and_case_is_kept() {
        assert!(Tree::from_entries(vec![entry("a"), entry("a")]).is_err());
        assert!(Tree::from_entries(vec![entry("a"), entry("a-b"), entry("a/b")]).is_err());
        assert!(Tree::from_entries(vec![entry("a"), entry("a.b/c"), entry("a/b/c")]).is_err());
        assert!(Tree::from_sorted(vec![entry("b"), entry("a")]).is_err());
        assert_eq!(
            Tree::from_entries(vec![entry("readme"), entry("README")])
                .unwrap()
                .entries()
                .len(),
            2
        );
    }

    /// RFC 6962's recursive definition, to hold the incremental one to.
    fn root_by_definition(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => *TreeRoot::of(b"").as_bytes(),
            [leaf] => *leaf,
            many => {
                let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
                node_hash(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    #[test]
    fn roots_and_proofs_for_every_size() {
        for size in 0..70 {
            let tree = Tree::from_entries((0..size).map(|i| entry(&format!("f{i}"))).collect()).unwrap();
            let leaves: Vec<_> = tree.entries().iter().map(Entry::leaf_hash).collect();
            assert_eq!(tree.root().as_bytes(), &root_by_definition(&leaves));
            for entry in tree.entries() {
                let proof = tree.prove(entry.path().as_str()).unwrap();
                assert_eq!(proof.root(), Some(tree.root()));
                for wrong in [
                    InclusionProof {
                        index: (proof.index + 1) % size.max(2),
                        ..proof.clone()
                    },
                    InclusionProof {
                        hashes: [&proof.hashes[..], &[tree.root()]].concat(),
                        ..proof.clone()
                    },
                ] {
                    assert_ne!(wrong.root(), Some(tree.root()));
                }
            }
            assert!(tree.prove("absent").is_none());
        }
    }

    #[test]
    fn golden_root() {
        let tree = Tree::from_entries(vec![
            Entry::file("a".parse().unwrap(), false, 3, FileDigest::of(b"abc")),
            Entry::file("b/run".parse().unwrap(), true, 0, FileDigest::of(b"")),
            Entry::symlink("b/to".parse().unwrap(), "../a".into()).unwrap(),
        ])
        .unwrap();
        assert_eq!(
            String::from_utf8(to_jcs(&tree.entries()[1]).unwrap()).unwrap(),
            r#"{"hash":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","mode":"executable","path":"b/run","size":0}"#
        );
        assert_eq!(
            to_jcs(&tree.entries()[2]).unwrap(),
            br#"{"mode":"symlink","path":"b/to","target":"../a"}"#
        );
        assert_eq!(
            tree.root().to_string(),
            "sha256:f4d3827e5181d52cc0723b0a43204cc5ef3f897210f8325c9407a32460cce3c9"
        );
    }

    #[test]
    fn entries_are_read_in_one_order_and_to_the_end() {
        let hash = FileDigest::of(b"");
        let file = format!(r#"{{"mode":"file","path":"a","size":1,"hash":"{hash}"}}"#);
        let read = |text: &str| serde_json::from_str::<Entry>(text);
        assert_eq!(serde_json::to_string(&read(&file).unwrap()).unwrap(), file);
        for (text, cause) in [
            (
                file.replace("\"mode\":\"file\",", ""),
                "expected `mode` in an entry, found `path`",
            ),
            (file.replace("\"file\"", "\"fifo\""), "unknown variant `fifo`"),
            (
                file.replace("\"file\"", "\"symlink\""),
                "expected `target` in an entry, found `size`",
            ),
            (
                file.replace('}', ",\"more\":1}"),
                "expected the end of an entry, found `more`",
            ),
            (file.replace("\"a\"", "\"../a\""), "cannot be measured"),
            (format!("[{file}]"), "expected an entry"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn entries_that_are_in_no_tree_are_proven_by_nothing() {
        let proof = |entry| InclusionProof {
            entry,
            index: 0,
            files: 1,
            hashes: Vec::new(),
        };
        let huge = Entry::file("a".parse().unwrap(), false, INTEGER_LIMIT, FileDigest::of(b""));
        assert_eq!(proof(huge).root(), None);
        let outside = Entry::Symlink {
            path: "a".parse().unwrap(),
            target: "/etc/passwd".into(),
        };
        assert_eq!(proof(outside).root(), None);
        assert!(proof(entry("a")).root().is_some());
    }

    proptest! {
        #[test]
        fn leaves_are_canonical_json(path in "[^/]{1,20}", target in "[^/]{1,20}", size in 0..INTEGER_LIMIT, executable: bool) {
            if let Ok(path) = path.parse::<TreePath>() {
                let file = Entry::file(path.clone(), executable, size, FileDigest::of(target.as_bytes()));
                prop_assert_eq!(file.leaf(), to_jcs(&file).unwrap());
                let link = Entry::Symlink { path, target };
                prop_assert_eq!(link.leaf(), to_jcs(&link).unwrap());
            }
        }

        #[test]
        fn any_set_of_paths_is_a_tree_or_refused(paths in proptest::collection::vec("[ab./-]{1,6}", 0..12)) {
            let entries: Vec<_> = paths.iter().filter_map(|p| p.parse().ok()).map(|p: TreePath| entry(p.as_str())).collect();
            let conflict = entries.iter().enumerate().any(|(i, a)| entries.iter().enumerate().any(|(j, b)| i != j
                && (a.path() == b.path() || b.path().as_str().starts_with(&format!("{}/", a.path())))));
            prop_assert_eq!(Tree::from_entries(entries).is_err(), conflict);
        }
    }
}
