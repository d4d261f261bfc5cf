//! Jobs that run on another machine than the one that their configuration was written on: what only the latter can reach is
//! objected to, at its place. Whoever prepares such a job asks before there is a machine; the machine asks again.

use std::iter;
use std::path::Path;

use super::{ConfigError, DOCUMENT};
use crate::spec::{JobSpec, Location};
use crate::yaml::{Entry, Node, Place, Value};

/// Where something stands in a configuration that was read already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Where {
    /// A key of an input.
    Input {
        /// Its position counts the source first.
        index: usize,
        /// The key.
        key: &'static str,
    },
    /// A key of the package index, or the environment variable that stands in for it.
    PackageIndex(&'static str),
}

/// An objection to something that is well-formed, and cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// To what.
    pub at: Where,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

/// What another machine cannot do of a job.
pub fn objections(spec: &JobSpec) -> Vec<Objection> {
    let mut objections = Vec::new();
    for (index, input) in spec.inputs.iter().enumerate() {
        let mut object = |key, message: &str, help| {
            objections.push(Objection {
                at: Where::Input { index, key },
                message: message.into(),
                help,
            });
        };
        match &input.location {
            Location::Git(git) if is_local(&git.repository) => object(
                "gitRepo",
                "the repository is a folder of your machine, which the job's machine cannot reach",
                "push it to a server and give its address, or use `type: directory`, which is sent",
            ),
            Location::Git(git) if is_ssh(&git.repository) => object(
                "gitRepo",
                "the job's machine does not know the keys of SSH servers, and fetches nothing from any",
                "give the https:// address of the repository, and a token with `tokenEnv` if it is private",
            ),
            Location::Directory(directory) if directory.path == Path::new("/") => object(
                "path",
                "\"/\" is no folder that can be sent",
                "give the path of the folder that holds just this input",
            ),
            _ => {}
        }
    }
    if let Some(url) = &spec.package_index.url
        && is_file_url(url)
    {
        objections.push(Objection {
            at: Where::PackageIndex("url"),
            message: "the package index is a folder of your machine, which the job's machine cannot reach"
                .into(),
            help: "set `url` of `packageIndex` to an https:// address; without it, PIP_INDEX_URL of your environment counts",
        });
    }
    objections
}

/// Refuses a configuration to which there are objections; `text` is what it was read from.
///
/// # Errors
///
/// The objections, each with its place.
pub fn refuse(text: &str, objections: Vec<Objection>) -> Result<(), ConfigError> {
    if objections.is_empty() {
        return Ok(());
    }
    DOCUMENT.read(text, |problems, root| {
        for Objection { at, message, help } in objections {
            problems.note(place(root, at), message, help);
        }
        Some(())
    })
}

fn is_file_url(url: &str) -> bool {
    url.get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}

/// Whether a repository is on the machine of whoever wrote the configuration.
fn is_local(repository: &str) -> bool {
    repository.starts_with('/') || is_file_url(repository)
}

/// Whether a repository is fetched by SSH: what git takes for that (git-clone(1), "Git URLs").
fn is_ssh(repository: &str) -> bool {
    match repository.split_once("://") {
        Some((scheme, _)) => ["ssh", "git+ssh", "ssh+git"]
            .iter()
            .any(|ssh| scheme.eq_ignore_ascii_case(ssh)),
        None => repository
            .split_once(':')
            .is_some_and(|(server, _)| !server.contains('/')),
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "kind: python\npythonVersion: 11\nmachine: {provider: local, tpm: swtpm}\n";

    fn refused(rest: &str, index: Option<&str>) -> Option<String> {
        let text = format!("{HEAD}{rest}");
        let environment = |name: &str| index.filter(|_| name == "PIP_INDEX_URL").map(str::to_owned);
        let spec = JobSpec::from_yaml(&text, Path::new("/home/me"), &environment).unwrap();
        let refused = refuse(&text, objections(&spec));
        refused.err().map(|error| error.render("aicert.yaml"))
    }

    #[test]
    fn what_another_machine_cannot_reach_is_objected_to_at_its_place() {
        for (rest, said) in [
            (
                "source: {type: git, gitRepo: ../code}\n",
                "aicert.yaml:4:21: the repository is a folder",
            ),
            (
                "source: {type: git, gitRepo: 'file:///code'}\n",
                "aicert.yaml:4:21: the repository is a folder",
            ),
            (
                "source: {type: git, gitRepo: 'ssh://git@h/x'}\n",
                "aicert.yaml:4:21: the job's machine does not know",
            ),
            (
                "source: {type: git, gitRepo: 'git@h:x/y'}\n",
                "aicert.yaml:4:21: the job's machine does not know",
            ),
            (
                "source: {type: directory, path: x}\nresources:\n- {type: git, gitRepo: 'me@h:z', destinationPath: y}\n",
                "aicert.yaml:6:15: the job's machine does not know",
            ),
            (
                "source: {name: x, type: directory, path: /}\n",
                "aicert.yaml:4:36: \"/\" is no folder",
            ),
            (
                "source: {type: directory, path: x}\npackageIndex: {url: 'file:///wheels'}\n",
                "aicert.yaml:5:16: the package index is a folder",
            ),
        ] {
            let message = refused(rest, None).unwrap_or_else(|| panic!("{rest} was accepted"));
            assert!(message.starts_with(said), "expected {said}, found {message}");
        }
        let plain = "source: {type: directory, path: x}\n";
        let message = refused(plain, Some("FILE:///wheels")).unwrap();
        assert!(message.contains("PIP_INDEX_URL of your environment"), "{message}");
        assert_eq!(refused(plain, Some("https://h/simple")), None);
        assert_eq!(
            refused("source: {type: git, gitRepo: 'https://h:8443/x'}\n", None),
            None
        );
    }
}
