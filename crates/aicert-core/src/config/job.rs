//! The file as a whole.

use super::inputs;
use super::machine;
use super::secrets;
use super::section::{Reader, Section, Text, is_variable_name};
use super::values;
use crate::digest::ConfigDigest;
use crate::event::Variable;
use crate::runtime::Limits;
use crate::secret::Secret;
use crate::spec::{DEFAULT_REQUIREMENTS, GpuRequest, ImageSpec, JobSpec, MachineSpec, PackageIndex};
use crate::tree::TreePath;
use crate::workspace::{OUTPUTS_FOLDER, SOURCE_FOLDER};
use crate::yaml::{Kind, Node, Value, similar_or};

pub(super) const KEYS: &[&str] = &[
    "kind",
    "pythonVersion",
    "baseImage",
    "image",
    "source",
    "pythonEntryPoint",
    "requirements",
    "command",
    "environment",
    "resources",
    "outputs",
    "gpus",
    "limits",
    "packageIndex",
    "machine",
];
pub(super) const LIMIT_KEYS: &[&str] = &["memory", "processes", "time"];
pub(super) const INDEX_KEYS: &[&str] = &["url", "credentialsEnv", "caBundle", "proxyEnv"];

const PYTHON_KEYS: &[&str] = &[
    "pythonVersion",
    "baseImage",
    "pythonEntryPoint",
    "requirements",
    "packageIndex",
];

/// The parts that depend on `kind`.
struct Program {
    image: ImageSpec,
    command: Option<Vec<String>>,
    entry_point: Option<String>,
    requirements: Option<String>,
    package_index: PackageIndex,
}

/// Reads the file; nothing only when a problem was noted.
pub(super) fn read(reader: &Reader<'_>, root: &Node, text: &str) -> Option<JobSpec> {
    if matches!(root.value, Value::Null) {
        reader.problem_with_help(root.place, "the file is empty", "`aicert init` writes a template");
        return None;
    }
    let file = Section::of(reader, root, "the configuration", KEYS)?;
    let program = program(&file);
    let environment = environment(&file);
    let source = file.node("source").map(|node| inputs::source(reader, node));
    let known_source = source.as_ref().and_then(Option::as_ref);
    let resources = file
        .node("resources")
        .map(|node| inputs::resources(reader, node, known_source))
        .unwrap_or_default();
    let outputs = outputs(&file);
    let gpus = gpus(&file);
    let limits = limits(&file);
    let machine = machine_section(&file, &limits);
    let runs_source = program
        .as_ref()
        .is_some_and(|program| program.entry_point.is_some());
    if runs_source && file.lacks("source") {
        file.missing(
            "`source` is missing: a Python job runs a script of its source",
            "add `source`, or give a `command`",
        );
    } else if file.lacks("source") && file.entry("resources").is_none_or(|entry| is_empty(&entry.node)) {
        file.missing(
            "the job has no input: neither `source` nor `resources`",
            "a proof says which code and data a model was made from: add `source`",
        );
    }
    let program = program?;
    Some(JobSpec {
        config: ConfigDigest::of(text.as_bytes()),
        image: program.image,
        command: program.command,
        entry_point: program.entry_point,
        requirements: program.requirements,
        package_index: program.package_index,
        environment,
        inputs: source.flatten().into_iter().chain(resources).collect(),
        outputs: outputs?,
        gpus,
        limits,
        machine: machine?,
    })
}

/// Reads the section `machine` alone; nothing only when a problem was noted.
pub(super) fn read_machine(reader: &Reader<'_>, root: &Node) -> Option<MachineSpec> {
    let file = Section::of(reader, root, "the configuration", KEYS)?;
    let limits = limits(&file);
    machine_section(&file, &limits)
}

fn machine_section(file: &Section<'_>, limits: &Limits) -> Option<MachineSpec> {
    if file.lacks("machine") {
        file.missing(
            "`machine` is missing: where shall the job run?",
            "`machine: {provider: local, tpm: device}` is this machine with its TPM; `tpm: swtpm` simulates one",
        );
        return None;
    }
    machine::machine(file.reader, file.node("machine")?, limits)
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, Value::List(items) if items.is_empty())
}

fn program(file: &Section<'_>) -> Option<Program> {
    let Some(kind) = file.text("kind") else {
        if file.lacks("kind") {
            file.missing(
                "`kind` is missing",
                "`kind: python` runs a Python script, `kind: container` any image",
            );
        }
        return None;
    };
    match kind.text {
        "python" => python(file),
        "container" => container(file),
        other => {
            file.reader.problem_with_help(
                kind.place,
                "unknown `kind`",
                similar_or(other, &["python", "container"], || {
                    "it is `python` or `container`".into()
                }),
            );
            None
        }
    }
}

fn python(file: &Section<'_>) -> Option<Program> {
    file.refuse(
        &["image"],
        "belongs to `kind: container`",
        "for `kind: python` the image is called `baseImage`",
    );
    let image = python_image(file);
    let requirements = match file.entry("requirements") {
        None => Some(DEFAULT_REQUIREMENTS.to_owned()),
        Some(_) => inside_source(file, "requirements").map(|path| path.as_str().to_owned()),
    };
    let command = command(file);
    if file.entry("command").is_some() {
        file.refuse(
            &["pythonEntryPoint"],
            "and `command` both say what runs",
            "remove one of them",
        );
    }
    let entry_point = match (file.entry("command"), file.entry("pythonEntryPoint")) {
        (Some(_), _) => None,
        (None, None) => Some("main.py".to_owned()),
        (None, Some(_)) => Some(inside_source(file, "pythonEntryPoint")?.as_str().to_owned()),
    };
    let command = match &entry_point {
        Some(script) => vec!["python3".to_owned(), format!("{SOURCE_FOLDER}/{script}")],
        None => command?,
    };
    let package_index = package_index(file);
    Some(Program {
        image: image?,
        command: Some(command),
        entry_point,
        requirements: Some(requirements?),
        package_index,
    })
}

fn python_image(file: &Section<'_>) -> Option<ImageSpec> {
    if let Some(image) = image_reference(file, "baseImage") {
        file.refuse(
            &["pythonVersion"],
            "and `baseImage` both say which Python runs",
            "remove `pythonVersion`: the image brings its own Python",
        );
        return Some(image);
    }
    if file.entry("baseImage").is_some() {
        return None;
    }
    if file.lacks("pythonVersion") {
        file.missing(
            "`pythonVersion` is missing",
            "`pythonVersion: 11` is Python 3.11; `baseImage` names an image that brings its own",
        );
        return None;
    }
    let version = file.scalar("pythonVersion")?;
    let quoted = matches!(
        file.entry("pythonVersion").map(|entry| &entry.node.value),
        Some(Value::Scalar { kind: Kind::Text, .. })
    );
    // YAML reads a bare 3.10 as the number 3.1: other tools that read this file would see another version.
    if !quoted && version.text.contains('.') {
        file.reader.problem_with_help(
            version.place,
            "`pythonVersion` without quotes is a number, in which 3.10 and 3.1 are the same",
            "write the minor version alone, `pythonVersion: 11`, or quotes: `pythonVersion: \"3.11\"`",
        );
        return None;
    }
    let minor = version.text.strip_prefix("3.").unwrap_or(version.text);
    match minor.parse::<u8>() {
        Ok(minor @ 7..=99) if !version.text.starts_with(['+', '0']) => Some(ImageSpec::Python { minor }),
        _ => {
            file.reader.problem_with_help(
                version.place,
                "`pythonVersion` is no version of Python 3",
                "`pythonVersion: 11` is Python 3.11; patch versions cannot be chosen",
            );
            None
        }
    }
}

fn container(file: &Section<'_>) -> Option<Program> {
    file.refuse(
        PYTHON_KEYS,
        "belongs to `kind: python`",
        "for `kind: container` there are `image` and `command`",
    );
    let command = match file.entry("command") {
        None => None,
        Some(_) => Some(command(file)?),
    };
    if file.lacks("image") {
        file.missing("`image` is missing", "add `image`, the container image to run");
    }
    Some(Program {
        image: image_reference(file, "image")?,
        command,
        entry_point: None,
        requirements: None,
        package_index: PackageIndex::default(),
    })
}

fn image_reference(file: &Section<'_>, key: &'static str) -> Option<ImageSpec> {
    let reference = file.text(key)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    if reference.text.len() > 512
        || !reference.text.bytes().all(allowed)
        || !reference.text.as_bytes()[0].is_ascii_alphanumeric()
    {
        file.reader.problem_with_help(
            reference.place,
            format!("`{key}` is no reference of an image"),
            "use name, name:tag or name@sha256:…",
        );
        return None;
    }
    Some(ImageSpec::Reference {
        reference: reference.text.to_owned(),
    })
}

/// A path relative to the source; `/workspace/src/…` is accepted too.
fn inside_source(file: &Section<'_>, key: &'static str) -> Option<TreePath> {
    let path = file.text(key)?;
    let relative = path
        .text
        .strip_prefix(SOURCE_FOLDER)
        .map_or(path.text, |rest| rest.strip_prefix('/').unwrap_or(rest));
    let relative = relative.strip_prefix("./").unwrap_or(relative);
    relative
        .parse()
        .map_err(|error| {
            file.reader.problem_with_help(
                path.place,
                format!("`{key}`: {error}"),
                "it is a path inside the source, relative to its root",
            );
        })
        .ok()
}

fn command(file: &Section<'_>) -> Option<Vec<String>> {
    let node = file.node("command")?;
    let Value::List(items) = &node.value else {
        file.reader.problem_with_help(
            node.place,
            format!(
                "`command` is a list of the program and its arguments; this is {}",
                node.value.kind()
            ),
            "no shell reads it: write [\"program\", \"argument\"]",
        );
        return None;
    };
    if items.is_empty() {
        file.reader.problem(node.place, "`command` is empty");
        return None;
    }
    let mut command = Vec::new();
    for item in items {
        let argument = file.scalar_of(item, "command", true)?;
        if argument.text.contains('\0') {
            file.reader
                .problem(argument.place, "an argument holds a zero byte");
            return None;
        }
        if refuse_secret(file, argument, "the arguments") {
            return None;
        }
        command.push(argument.text.to_owned());
    }
    if command[0].is_empty() {
        file.reader
            .problem(node.place, "the program in `command` is empty");
        return None;
    }
    Some(command)
}

fn environment(file: &Section<'_>) -> Vec<Variable> {
    let Some(node) = file.node("environment") else {
        return Vec::new();
    };
    let Value::Map(entries) = &node.value else {
        file.reader.problem_with_help(
            node.place,
            format!(
                "`environment` maps names to values; this is {}",
                node.value.kind()
            ),
            "write NAME: value",
        );
        return Vec::new();
    };
    let mut variables = Vec::new();
    for entry in entries {
        if !is_variable_name(&entry.key) {
            file.reader.problem_with_help(
                entry.place,
                "this is no name of an environment variable",
                "use letters, digits and `_`, a letter first",
            );
            continue;
        }
        if matches!(entry.node.value, Value::Null) {
            file.reader.problem_with_help(
                entry.place,
                format!("`{}` has no value", entry.key),
                "write \"\" for an empty one",
            );
            continue;
        }
        let Some(value) = file.scalar_of(&entry.node, &entry.key, true) else {
            continue;
        };
        if value.text.contains('\0') {
            file.reader.problem(value.place, "the value holds a zero byte");
        } else if !refuse_secret(file, value, "the environment") {
            variables.push(Variable {
                name: entry.key.clone(),
                value: value.text.to_owned(),
            });
        }
    }
    variables
}

/// Arguments and environment are in the certificate, and the job has no network to use a token on.
fn refuse_secret(file: &Section<'_>, text: Text<'_>, place: &str) -> bool {
    let Some(what) = secrets::in_text(text.text) else {
        return false;
    };
    file.reader.problem_with_help(
        text.place,
        format!("this looks like {what}, and everybody can read {place} of a job in its proof"),
        "remove it: a job has no network, and what it needs is fetched before, with `tokenEnv`",
    );
    true
}

fn outputs(file: &Section<'_>) -> Option<String> {
    if file.entry("outputs").is_none() {
        return Some(OUTPUTS_FOLDER.into());
    }
    let folder = file.text("outputs")?;
    values::outputs_folder(folder.text)
        .map_err(|reason| {
            file.reader.problem_with_help(
                folder.place,
                format!("`outputs`: {reason}"),
                format!("it is a folder in the container; without the key it is {OUTPUTS_FOLDER}"),
            );
        })
        .ok()
}

fn gpus(file: &Section<'_>) -> Option<GpuRequest> {
    let node = file.node("gpus")?;
    let help = "write all, a number, or a list of UUIDs (`nvidia-smi -L` prints them)";
    if let Value::List(items) = &node.value {
        let mut uuids: Vec<String> = Vec::new();
        for item in items {
            let uuid = file.scalar_of(item, "gpus", false)?;
            let valid = (uuid.text.starts_with("GPU-") || uuid.text.starts_with("MIG-"))
                && uuid
                    .text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'/');
            if !valid || uuids.iter().any(|other| other == uuid.text) {
                file.reader.problem_with_help(
                    uuid.place,
                    "this is no UUID of a GPU, or it stands twice",
                    help,
                );
                return None;
            }
            uuids.push(uuid.text.to_owned());
        }
        if uuids.is_empty() {
            file.reader
                .problem_with_help(node.place, "the list of GPUs is empty", "remove `gpus` for none");
            return None;
        }
        return Some(GpuRequest::Uuids(uuids));
    }
    let request = file.scalar("gpus")?;
    match (request.text, request.text.parse::<u32>()) {
        ("all", _) => Some(GpuRequest::All),
        (_, Ok(0)) => {
            file.reader
                .problem_with_help(request.place, "`gpus: 0` asks for none", "remove `gpus` for none");
            None
        }
        (_, Ok(count)) => Some(GpuRequest::Count(count)),
        (_, Err(_)) => {
            file.reader
                .problem_with_help(request.place, "`gpus` is no number of GPUs", help);
            None
        }
    }
}

fn limits(file: &Section<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(section) = file
        .node("limits")
        .and_then(|node| Section::of(file.reader, node, "`limits`", LIMIT_KEYS))
    else {
        return limits;
    };
    if let Some(memory) = section.scalar("memory") {
        limits.memory_bytes = values::size(memory.text);
        if limits.memory_bytes.is_none() {
            file.reader.problem_with_help(
                memory.place,
                "`memory` is no size",
                "write a whole number with its unit: 8GiB, 500MiB",
            );
        }
    }
    if let Some(processes) = section.scalar("processes") {
        limits.processes = processes
            .text
            .parse()
            .ok()
            .filter(|count| (1..1 << 22).contains(count));
        if limits.processes.is_none() {
            file.reader.problem(
                processes.place,
                "`processes` is a number of processes and threads, 1 or more",
            );
        }
    }
    if let Some(time) = section.scalar("time") {
        limits.time = values::duration(time.text);
        if limits.time.is_none() {
            file.reader.problem_with_help(
                time.place,
                "`time` is no time span",
                "write it with units: 90s, 30m, 2h, 1h30m, 1d",
            );
        }
    }
    limits
}

/// Where packages come from: what the file says, else what pip itself would take from the environment.
fn package_index(file: &Section<'_>) -> PackageIndex {
    let reader = file.reader;
    let from_environment = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| (reader.environment)(name).filter(|value| !value.is_empty()))
    };
    let mut index = PackageIndex::default();
    let section = file
        .node("packageIndex")
        .and_then(|node| Section::of(reader, node, "`packageIndex`", INDEX_KEYS));
    let text = |key| section.as_ref().and_then(|section| section.text(key));

    match text("url") {
        Some(url) => {
            if let Some(what) = secrets::in_url(url.text) {
                reader.problem_with_help(
                    url.place,
                    format!("`url` holds {what}"),
                    "`credentialsEnv` names an environment variable that holds user:password",
                );
            } else if !["https://", "http://", "file:///"]
                .iter()
                .any(|scheme| url.text.starts_with(scheme))
            {
                reader.problem(url.place, "`url` of a package index begins with https://");
            }
            index.url = Some(url.text.to_owned());
        }
        None => {
            if let Some(url) = from_environment(&["PIP_INDEX_URL"]) {
                let (url, credentials) = split_credentials(&url);
                index.url = Some(url);
                index.credentials = credentials;
            }
        }
    }
    if let Some(name) = text("credentialsEnv") {
        index.credentials = reader.secret(name);
    }
    index.ca_bundle = match text("caBundle") {
        Some(path) => Some(reader.path(path.text)),
        None => from_environment(&["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"]).map(Into::into),
    };
    index.proxy = match text("proxyEnv") {
        Some(name) => reader.secret(name),
        None => from_environment(&["HTTPS_PROXY", "https_proxy"]).map(Secret::new),
    };
    index
}

/// Takes user and password out of a URL.
fn split_credentials(url: &str) -> (String, Option<Secret>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) => (
            format!("{scheme}://{host}{}", &rest[end..]),
            Some(Secret::new(user.to_owned())),
        ),
        None => (url.to_owned(), None),
    }
}
