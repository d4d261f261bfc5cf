//! Where something stands in a configuration that was read already, so that an objection can point at it.

use std::iter;

use aicert_core::spec::{GitCredentials, GitLocation, JobSpec, Location};
use aicert_core::yaml::{Document, Entry, Node, Place, Value};

const DOCUMENT: Document = Document {
    name: "configuration",
    file: "aicert.yaml",
    twice: None,
    // It was read before, and found to hold no secrets.
    secret: |_| false,
};

/// What is objected to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Where {
    /// A key of an input; its position counts the source first.
    Input { index: usize, key: &'static str },
    /// A key of the package index, or the environment variable that stands in for it.
    PackageIndex(&'static str),
}

/// An objection to something that is well-formed, and cannot be done.
#[derive(Debug)]
pub(super) struct Objection {
    pub(super) at: Where,
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// Where the paths are that [`JobSpec::auxiliary_files`] gives, in its order.
pub(super) fn auxiliary(spec: &JobSpec) -> Vec<Where> {
    let keys = spec.inputs.iter().enumerate().filter_map(|(index, input)| {
        let has_key = matches!(
            &input.location,
            Location::Git(GitLocation {
                credentials: Some(GitCredentials::SshKey { .. }),
                ..
            })
        );
        has_key.then_some(Where::Input { index, key: "sshKey" })
    });
    let bundle = spec.package_index.ca_bundle.as_ref();
    keys.chain(bundle.map(|_| Where::PackageIndex("caBundle")))
        .collect()
}

/// The objections as text, each with its place.
pub(super) fn render(text: &str, file: &str, objections: Vec<Objection>) -> String {
    let plain: Vec<_> = objections
        .iter()
        .map(|objection| format!("{file}: {}", objection.message))
        .collect();
    let noted = DOCUMENT.read(text, |problems, root| {
        for Objection { at, message, help } in objections {
            problems.note(place(root, at), message, help);
        }
        Some(())
    });
    match noted {
        Err(error) => error.render(file),
        // Not without objections; and with some there are problems.
        Ok(()) => plain.join("\n"),
    }
}

fn place(root: &Node, at: Where) -> Place {
    match at {
        Where::Input { index, key } => {
            let found = input(root, index);
            found.map_or(Place::START, |node| {
                get(node, key).map_or(node.place, |entry| entry.place)
            })
        }
        Where::PackageIndex(key) => {
            let section = get(root, "packageIndex");
            section.map_or(Place::START, |section| {
                get(&section.node, key).map_or(section.place, |entry| entry.place)
            })
        }
    }
}

fn input(root: &Node, index: usize) -> Option<&Node> {
    let source = get(root, "source").map(|entry| &entry.node);
    let resources = get(root, "resources").and_then(|entry| match &entry.node.value {
        Value::List(items) => Some(items),
        _ => None,
    });
    iter::empty()
        .chain(source)
        .chain(resources.into_iter().flatten())
        .nth(index)
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    }
}
