//! The source and the resources.

use super::secrets;
use super::section::{Reader, Section, Text};
use super::values;
use crate::digest::{CommitId, FileDigest};
use crate::spec::{
    DirectoryLocation, FileLocation, GitCredentials, GitLocation, GitRevision, InputSpec, Location,
};
use crate::tree::TreePath;
use crate::workspace::{RESOURCES_FOLDER, SOURCE_FOLDER, overlap};
use crate::yaml::{Node, Value, similar_or};

pub(super) const SOURCE_KEYS: &[&str] = &[
    "type",
    "name",
    "gitRepo",
    "branch",
    "tag",
    "commit",
    "submodules",
    "tokenEnv",
    "sshKey",
    "sshKeyPassphraseEnv",
    "path",
];

pub(super) const RESOURCE_KEYS: &[&str] = &[
    "type",
    "name",
    "destinationPath",
    "url",
    "sha256",
    "gitRepo",
    "branch",
    "tag",
    "commit",
    "submodules",
    "tokenEnv",
    "sshKey",
    "sshKeyPassphraseEnv",
    "path",
];

const GIT_KEYS: &[&str] = &[
    "gitRepo",
    "branch",
    "tag",
    "commit",
    "submodules",
    "sshKey",
    "sshKeyPassphraseEnv",
];
const FILE_KEYS: &[&str] = &["url", "sha256"];
const DIRECTORY_KEYS: &[&str] = &["path"];

/// Kinds of input that are known, but not to this build.
const LATER: [&str; 5] = ["huggingface", "s3", "gcs", "azblob", "oci"];

/// Reads the source.
pub(super) fn source(reader: &Reader<'_>, node: &Node) -> Option<InputSpec> {
    let section = Section::of(reader, node, "`source`", SOURCE_KEYS)?;
    let (location, derived) = location(&section, &["git", "directory"])?;
    Some(InputSpec {
        name: name(&section, &derived)?,
        destination: SOURCE_FOLDER.into(),
        location,
    })
}

/// Reads the resources; `taken` is the name of the source.
pub(super) fn resources(reader: &Reader<'_>, node: &Node, taken: Option<&InputSpec>) -> Vec<InputSpec> {
    let Value::List(items) = &node.value else {
        reader.problem_with_help(
            node.place,
            format!("`resources` is a list; this is {}", node.value.kind()),
            "begin each resource with `- type: …`",
        );
        return Vec::new();
    };
    let mut inputs: Vec<InputSpec> = Vec::new();
    for item in items {
        let Some(input) = resource(reader, item) else {
            continue;
        };
        if let Some(other) = taken
            .into_iter()
            .chain(&inputs)
            .find(|other| other.name == input.name)
        {
            reader.problem_with_help(
                item.place,
                format!("two inputs have the name {:?}", other.name),
                "give one of them another `name`",
            );
            continue;
        }
        if let Some(other) = inputs
            .iter()
            .find(|other| overlap(&input.destination, &other.destination))
        {
            reader.problem_with_help(
                item.place,
                format!(
                    "its place {} and that of {:?}, {}, overlap",
                    input.destination, other.name, other.destination
                ),
                "give one of them another `destinationPath`",
            );
            continue;
        }
        inputs.push(input);
    }
    inputs
}

fn resource(reader: &Reader<'_>, node: &Node) -> Option<InputSpec> {
    let section = Section::of(reader, node, "a resource", RESOURCE_KEYS)?;
    let location = location(&section, &["file", "git", "directory"]);
    let destination = section.text("destinationPath");
    let (location, derived) = location?;
    let relative: TreePath = match destination {
        Some(text) => text
            .text
            .strip_suffix('/')
            .unwrap_or(text.text)
            .parse()
            .map_err(|error| {
                section.reader.problem_with_help(
                    text.place,
                    format!("`destinationPath`: {error}"),
                    format!("it is relative to {RESOURCES_FOLDER} and stays inside"),
                );
            })
            .ok()?,
        None if section.entry("destinationPath").is_some() => return None,
        None => derived
            .parse()
            .map_err(|_| {
                section.missing(
                    "the place of this resource does not follow from its address",
                    format!("add `destinationPath`, relative to {RESOURCES_FOLDER}"),
                );
            })
            .ok()?,
    };
    // The last component of the place is the best name there is when the address has none.
    let derived = if derived.parse::<TreePath>().is_ok() {
        derived
    } else {
        relative
            .as_str()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    Some(InputSpec {
        name: name(&section, &derived)?,
        destination: format!("{RESOURCES_FOLDER}/{relative}"),
        location,
    })
}

fn name(section: &Section<'_>, derived: &str) -> Option<String> {
    let Some(entry) = section.entry("name") else {
        if derived.is_empty() {
            section.missing(
                "the name of this input does not follow from its address",
                "add `name`",
            );
            return None;
        }
        return Some(derived.to_owned());
    };
    let name = section.scalar("name")?;
    if name.text.len() > 100 || name.text.trim() != name.text {
        section
            .reader
            .problem(entry.place, "`name` has at most 100 bytes and no space around it");
        return None;
    }
    if let Some(reason) = crate::text::deceives(name.text) {
        section.reader.problem(entry.place, format!("`name` {reason}"));
        return None;
    }
    Some(name.text.to_owned())
}

/// Where an input comes from, and the name that follows from it.
fn location(section: &Section<'_>, allowed: &'static [&'static str]) -> Option<(Location, String)> {
    let Some(kind) = section.text("type") else {
        if section.lacks("type") {
            section.missing(
                "`type` is missing",
                format!("it is one of {}", allowed.join(", ")),
            );
        }
        return None;
    };
    if !allowed.contains(&kind.text) {
        refuse_kind(section, kind, allowed);
        return None;
    }
    for (other, keys) in [
        ("git", GIT_KEYS),
        ("file", FILE_KEYS),
        ("directory", DIRECTORY_KEYS),
    ] {
        if other != kind.text {
            section.refuse(
                keys,
                &format!("belongs to `type: {other}`; this is `type: {}`", kind.text),
                "remove it, or change `type`",
            );
        }
    }
    match kind.text {
        "git" => git(section).map(|git| {
            let name = last_segment(&git.repository);
            let name = name.strip_suffix(".git").unwrap_or(name).to_owned();
            (Location::Git(git), name)
        }),
        "file" => file(section).map(|file| {
            let name = last_segment(&file.url).to_owned();
            (Location::File(file), name)
        }),
        _ => {
            section.refuse(
                &["tokenEnv"],
                "belongs to `type: git` and `type: file`; this is `type: directory`",
                "remove it, or change `type`",
            );
            directory(section).map(|directory| {
                let name = directory
                    .path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default()
                    .to_owned();
                (Location::Directory(directory), name)
            })
        }
    }
}

fn refuse_kind(section: &Section<'_>, kind: Text<'_>, allowed: &'static [&'static str]) {
    let shown: String = kind.text.escape_debug().take(40).collect();
    if LATER.contains(&kind.text) {
        section.reader.problem_with_help(
            kind.place,
            format!("`type: {shown}` is not available yet"),
            format!("this version knows {}", allowed.join(", ")),
        );
    } else if kind.text == "file" {
        section.reader.problem_with_help(
            kind.place,
            "a source is a folder: `type: file` is for resources",
            "use `type: git` or `type: directory`",
        );
    } else {
        let help = similar_or(kind.text, allowed, || {
            format!("this version knows {}", allowed.join(", "))
        });
        section
            .reader
            .problem_with_help(kind.place, format!("unknown `type: {shown}`"), help);
    }
}

fn git(section: &Section<'_>) -> Option<GitLocation> {
    let reader = section.reader;
    let revision = revision(section);
    let submodules = section.boolean("submodules").unwrap_or(true);
    let Some(repository) = required(section, "gitRepo", "the repository to fetch") else {
        // Later keys are checked in the next run: what they may be depends on this one.
        return None;
    };
    let transport = transport(repository.text);
    let address = match transport {
        Transport::Unknown => {
            reader.problem_with_help(
                repository.place,
                "`gitRepo` is no address of a repository",
                "use https://…, ssh://…, user@host:path, file:///… or a path that begins with `/`, `./`, `../` or `~/`",
            );
            return None;
        }
        Transport::Path => reader.path(repository.text).to_string_lossy().into_owned(),
        _ => repository.text.to_owned(),
    };
    let address = Text {
        text: &address,
        ..repository
    };
    let open = check_url(section, address);
    let credentials = git_credentials(section, transport, repository.text);
    open.then_some(())?;
    Some(GitLocation {
        repository: address.text.to_owned(),
        revision: revision?,
        submodules,
        credentials: credentials?,
    })
}

/// The outer nothing is a problem, the inner one means that the repository is public.
fn git_credentials(
    section: &Section<'_>,
    transport: Transport,
    repository: &str,
) -> Option<Option<GitCredentials>> {
    let reader = section.reader;
    if transport != Transport::Ssh {
        section.refuse(
            &["sshKey", "sshKeyPassphraseEnv"],
            "is for repositories over SSH",
            "use `tokenEnv`, or an address that begins with ssh://",
        );
    }
    if !matches!(transport, Transport::Https | Transport::Http) {
        section.refuse(
            &["tokenEnv"],
            "is for repositories over HTTPS",
            "use `sshKey`, or an address that begins with https://",
        );
    }
    if let Some(name) = section.text("tokenEnv") {
        if transport == Transport::Http && !is_loopback(repository) {
            clear_text(reader, name);
            return None;
        }
        return Some(Some(GitCredentials::Token(reader.secret(name)?)));
    }
    let passphrase = section.text("sshKeyPassphraseEnv");
    match (section.text("sshKey"), passphrase) {
        (Some(path), passphrase) => Some(Some(GitCredentials::SshKey {
            path: reader.path(path.text),
            passphrase: match passphrase {
                Some(name) => Some(reader.secret(name)?),
                None => None,
            },
        })),
        (None, Some(passphrase)) => {
            reader.problem_with_help(
                passphrase.place,
                "`sshKeyPassphraseEnv` without `sshKey`",
                "add `sshKey`, the path of the private key",
            );
            None
        }
        (None, None) => Some(None),
    }
}

fn revision(section: &Section<'_>) -> Option<GitRevision> {
    let given: Vec<_> = ["branch", "tag", "commit"]
        .into_iter()
        .filter_map(|key| section.entry(key))
        .collect();
    if let [_, second, ..] = given.as_slice() {
        section.reader.problem_with_help(
            second.place,
            format!(
                "only one of branch, tag and commit can be given; here are {}",
                given
                    .iter()
                    .map(|entry| format!("`{}`", entry.key))
                    .collect::<Vec<_>>()
                    .join(" and ")
            ),
            "`commit` alone says exactly which files are meant",
        );
        return None;
    }
    match given.first().map(|entry| entry.key.as_str()) {
        None => Some(GitRevision::Default),
        Some("branch") => reference(section, section.scalar("branch")?).map(GitRevision::Branch),
        Some("tag") => reference(section, section.scalar("tag")?).map(GitRevision::Tag),
        Some(_) => {
            let commit = section.scalar("commit")?;
            let parsed = values::hexadecimal(commit.text, "sha1:", 20)
                .and_then(|digits| format!("sha1:{digits}").parse::<CommitId>().ok());
            if parsed.is_none() {
                section.reader.problem_with_help(
                    commit.place,
                    "`commit` is not a full commit id: 40 hexadecimal digits",
                    "`git rev-parse HEAD` prints it",
                );
            }
            parsed.map(GitRevision::Commit)
        }
    }
}

/// Branch and tag names: the rules of `git check-ref-format` that matter before git itself is asked.
fn reference(section: &Section<'_>, name: Text<'_>) -> Option<String> {
    let refused = name.text.starts_with(['-', '/', '.'])
        || name.text.ends_with(['/', '.'])
        || name.text.contains("..")
        || name.text.contains("@{")
        || name.text.contains([' ', '~', '^', ':', '?', '*', '[', '\\']);
    if refused {
        section.reader.problem(
            name.place,
            format!("`{}` is not a name that git allows", name.key),
        );
        return None;
    }
    Some(name.text.to_owned())
}

fn file(section: &Section<'_>) -> Option<FileLocation> {
    let reader = section.reader;
    let sha256 = section.scalar("sha256").map(|text| {
        let parsed = values::hexadecimal(text.text, "sha256:", 32)
            .and_then(|digits| format!("sha256:{digits}").parse::<FileDigest>().ok());
        if parsed.is_none() {
            reader.problem_with_help(
                text.place,
                "`sha256` is not a SHA-256: 64 hexadecimal digits",
                "`sha256sum FILE` prints it",
            );
        }
        parsed
    });
    let url = required(section, "url", "the address of the file")?;
    let transport = transport(url.text);
    if !matches!(transport, Transport::Https | Transport::Http | Transport::File) {
        reader.problem_with_help(
            url.place,
            "`url` is no address of a file",
            "use https://…, http://… or file:///…",
        );
        return None;
    }
    let open = check_url(section, url);
    let token = match section.text("tokenEnv") {
        None => None,
        Some(name) if transport == Transport::File => {
            reader.problem(name.place, "`tokenEnv` is for files over HTTPS");
            return None;
        }
        Some(name) if transport == Transport::Http && !is_loopback(url.text) => {
            clear_text(reader, name);
            return None;
        }
        Some(name) => Some(reader.secret(name)?),
    };
    if last_segment(url.text).is_empty() && section.entry("destinationPath").is_none() {
        reader.problem_with_help(
            url.place,
            "`url` ends without the name of a file",
            "add `destinationPath`",
        );
        return None;
    }
    open.then_some(())?;
    Some(FileLocation {
        url: url.text.to_owned(),
        sha256: match sha256 {
            None => None,
            Some(parsed) => Some(parsed?),
        },
        token,
    })
}

fn directory(section: &Section<'_>) -> Option<DirectoryLocation> {
    let path = required(section, "path", "the directory")?;
    Some(DirectoryLocation {
        path: section.reader.path(path.text),
    })
}

fn required<'a>(section: &Section<'a>, key: &'static str, what: &str) -> Option<Text<'a>> {
    if section.lacks(key) {
        section.missing(format!("`{key}` is missing"), format!("add `{key}`, {what}"));
    }
    section.text(key)
}

/// Refuses an address with a secret in it, without showing it.
fn check_url(section: &Section<'_>, url: Text<'_>) -> bool {
    match secrets::in_url(url.text) {
        Some(what) => {
            section.reader.problem_with_help(
                url.place,
                format!(
                    "`{}` holds {what}: everybody who sees the proof would read it",
                    url.key
                ),
                "remove it from the address; `tokenEnv` names an environment variable that holds a token",
            );
            false
        }
        None => true,
    }
}

fn clear_text(reader: &Reader<'_>, name: Text<'_>) {
    reader.problem_with_help(
        name.place,
        "over http:// the token would be readable on the network",
        "use an https:// address",
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Https,
    Http,
    Ssh,
    File,
    Path,
    Unknown,
}

fn transport(address: &str) -> Transport {
    match address.split_once("://") {
        Some(("https", rest)) if !rest.is_empty() => Transport::Https,
        Some(("http", rest)) if !rest.is_empty() => Transport::Http,
        Some(("ssh", rest)) if !rest.is_empty() => Transport::Ssh,
        Some(("file", rest)) if rest.starts_with('/') => Transport::File,
        Some(_) => Transport::Unknown,
        None if ["/", "./", "../", "~/"]
            .iter()
            .any(|start| address.starts_with(start))
            || address == "." =>
        {
            Transport::Path
        }
        // user@host:path
        None => match address.split_once(':') {
            Some((host, path)) if host.contains('@') && !host.contains('/') && !path.is_empty() => {
                Transport::Ssh
            }
            _ => Transport::Unknown,
        },
    }
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let host = &authority[..end];
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// The last component of an address's path, without query and fragment; empty when there is no path.
fn last_segment(address: &str) -> &str {
    let path = match address.split_once("://") {
        Some((scheme, rest)) => {
            let rest = if scheme.starts_with("http") {
                rest.split(['?', '#']).next().unwrap_or_default()
            } else {
                rest
            };
            match rest.split_once('/') {
                Some((_, path)) => path,
                None => return "",
            }
        }
        None => address.rsplit_once(':').map_or(address, |(_, path)| path),
    };
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}
