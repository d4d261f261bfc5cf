//! Reads documents in YAML that people write, so that everything that is wrong with one is said at once, each thing with
//! its line and column.
//!
//! A [`Document`] says which kind of document it is; whoever knows its keys takes them out of [`Section`]s:
//!
//! ```
//! use aicert_core::yaml::{Document, Section};
//!
//! const DOCUMENT: Document = Document {
//!     name: "shopping list",
//!     file: "list.yaml",
//!     twice: None,
//!     secret: |_| false,
//! };
//!
//! let count = |text| {
//!     DOCUMENT.read(text, |problems, root| {
//!         let list = Section::of(problems, root, "a shopping list", &["milk", "bread"])?;
//!         Some(["milk", "bread"].iter().filter(|key| list.node(key).is_some()).count())
//!     })
//! };
//! assert_eq!(count("milk: 1"), Ok(1));
//! let said = count("mlik: 1").unwrap_err().to_string();
//! assert!(said.starts_with("list.yaml:1:1: unknown key `mlik` in a shopping list"), "{said}");
//! assert!(said.ends_with("did you mean `milk`?"), "{said}");
//! ```

mod error;
mod node;
mod section;
#[cfg(test)]
mod tests;

pub use error::{DocumentError, Place, Problem, Problems};
pub use node::{Entry, Kind, Node, Value};
pub use section::{Section, similar_or};

/// A kind of document: what differs between those that are read.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// What it is called: `configuration`.
    pub name: &'static str,
    /// What its file is called when an error is shown by somebody who does not know its path.
    pub file: &'static str,
    /// What to do about a key that stands twice.
    pub twice: Option<&'static str>,
    /// Whether a line looks like it holds a secret, and must not be shown.
    pub secret: fn(&str) -> bool,
}

impl Document {
    /// Reads a document: `read` takes what it needs, and notes what is wrong with it. A document without content is the
    /// value [`Value::Null`].
    ///
    /// Anchors, aliases and merge keys are refused: a document says what it says where it says it, and nothing in it
    /// expands.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in the order of the file; also when `read` gives nothing without saying why.
    pub fn read<T>(
        &self,
        text: &str,
        read: impl FnOnce(&Problems, &Node) -> Option<T>,
    ) -> Result<T, DocumentError> {
        let failed = |problems| Err(DocumentError::new(self, problems, text));
        let root = match node::parse(self, text) {
            Ok(root) => root,
            Err(problem) => return failed(vec![problem]),
        };
        let problems = Problems::default();
        let found = read(&problems, &root);
        match (found, problems.into_inner()) {
            (Some(found), problems) if problems.is_empty() => Ok(found),
            (None, problems) if problems.is_empty() => {
                let message = format!("the {} is incomplete", self.name);
                failed(vec![Problem::new(root.place, message, None)])
            }
            (_, problems) => failed(problems),
        }
    }
}
