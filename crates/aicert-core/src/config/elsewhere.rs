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

/// What another machine cannot do of a job; `known_hosts` is what it is told about SSH servers.
pub fn objections(spec: &JobSpec, known_hosts: &str) -> Vec<Objection> {
    let mut objections = Vec::new();
    for (index, input) in spec.inputs.iter().enumerate() {
        let mut object = |key, message: &str, help| {
            objections.push(Objection {
                at: Where::Input { index, key },
                message: message.into(),
                help,
            });
        };
        if let Some(server) = ssh_server(&input.location)
            && lines_about(known_hosts, &server).next().is_none()
        {
            object(
                "gitRepo",
                &format!("your known_hosts files have no key of the SSH server {server}"),
                "ask whoever runs it for its key, and add it to ~/.ssh/known_hosts; or give the https:// address of the repository",
            );
        }
        match &input.location {
            Location::Git(git) if is_local(&git.repository) => object(
                "gitRepo",
                "the repository is a folder of your machine, which the job's machine cannot reach",
                "push it to a server and give its address, or use `type: directory`, which is sent",
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

/// The SSH server that a repository is fetched from (git-clone(1), "Git URLs"), as `known_hosts` files name it; nothing for
/// what is fetched otherwise.
pub fn ssh_server(location: &Location) -> Option<String> {
    let Location::Git(git) = location else {
        return None;
    };
    let (server, port) = match git.repository.split_once("://") {
        Some((scheme, rest)) => {
            let is_ssh = ["ssh", "git+ssh", "ssh+git"]
                .iter()
                .any(|ssh| scheme.eq_ignore_ascii_case(ssh));
            let server = rest.split('/').next().filter(|_| is_ssh)?;
            match server.rsplit_once(':') {
                // The colons of an IPv6 address are in brackets.
                Some((server, port)) if !port.contains(']') => (server, port),
                _ => (server, "22"),
            }
        }
        None => {
            let (server, _) = git.repository.split_once(':')?;
            (!server.contains('/')).then_some((server, "22"))?
        }
    };
    let host = server.rsplit_once('@').map_or(server, |(_, host)| host);
    let host = host.trim_matches(['[', ']']).to_lowercase();
    Some(match port {
        "22" | "" => host,
        port => format!("[{host}]:{port}"),
    })
}

/// The lines of a `known_hosts` file (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT") that may be about a server: those that name it,
/// and those that do not show whom they name.
pub fn lines_about<'a>(known_hosts: &'a str, server: &'a str) -> impl Iterator<Item = &'a str> {
    known_hosts.lines().filter(move |line| {
        let mut words = line.split_ascii_whitespace().peekable();
        let _marker = words.next_if(|word| word.starts_with('@'));
        let hosts = words.next().filter(|hosts| !hosts.starts_with('#'));
        hosts.is_some_and(|hosts| {
            hosts.split(',').any(|pattern| {
                pattern.starts_with("|1|")
                    || pattern.contains(['*', '?'])
                    || pattern.eq_ignore_ascii_case(server)
            })
        })
    })
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

    const KNOWN: &str = "# known.org\nknown.org,10.0.0.1 ssh-ed25519 AAAA\n[known.org]:2222 ssh-rsa BBBB\n";

    fn refused(rest: &str, index: Option<&str>) -> Option<String> {
        let text = format!("{HEAD}{rest}");
        let environment = |name: &str| index.filter(|_| name == "PIP_INDEX_URL").map(str::to_owned);
        let spec = JobSpec::from_yaml(&text, Path::new("/home/me"), &environment).unwrap();
        let refused = refuse(&text, objections(&spec, KNOWN));
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
                "aicert.yaml:4:21: your known_hosts files have no key of the SSH server h",
            ),
            (
                "source: {type: git, gitRepo: 'git@h:x/y'}\n",
                "aicert.yaml:4:21: your known_hosts files have no key of the SSH server h",
            ),
            (
                "source: {type: directory, path: x}\nresources:\n- {type: git, gitRepo: 'me@h:z', destinationPath: y}\n",
                "aicert.yaml:6:15: your known_hosts files have no key of the SSH server h",
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
    #[test]
    fn what_is_known_of_an_ssh_server_is_found() {
        for address in [
            "ssh://git@KNOWN.org/x",
            "git@known.org:x",
            "ssh://10.0.0.1/x",
            "ssh://known.org:2222/x",
        ] {
            let source = format!("source: {{type: git, gitRepo: '{address}', name: x}}\n");
            assert_eq!(refused(&source, None), None, "{address}");
        }
        let text = "# a\n\n@revoked a ssh-rsa A\nb,A ssh-rsa B\n|1|salt|hash ssh-rsa C\n*.org ssh-rsa D\nab ssh-rsa E\n@x\n";
        let about: Vec<_> = lines_about(text, "a").collect();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(about, lines[2..6]);
        let server = |repository: &str| {
            let source = format!("{HEAD}source: {{type: git, gitRepo: '{repository}', name: x}}\n");
            let spec = JobSpec::from_yaml(&source, Path::new("/"), &|_| None).unwrap();
            ssh_server(&spec.inputs[0].location)
        };
        assert_eq!(server("ssh://[::1]:2222/x").as_deref(), Some("[::1]:2222"));
        assert_eq!(server("ssh://me@[::1]/x").as_deref(), Some("::1"));
        assert_eq!(server("https://known.org/x"), None);
        assert_eq!(server("/srv/x"), None);
    }
}
