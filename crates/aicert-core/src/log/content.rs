//! Whether what an event says makes sense, and does not contradict the events before it.
//!
//! The TPM shows that a log was recorded, not that it is sound: whoever reads one relies on every rule here, and no
//! honest job breaks any.

use std::collections::HashSet;

use crate::digest::{CommitId, FileDigest, ImageDigest};
use crate::event::{
    Closed, DependenciesMeasured, Event, EventContent, ExecutionFinished, ExecutionOutcome, ExecutionStarted,
    INPUT_LIMIT, ImageResolved, InputMeasured, JobOpened, JobResult, LOG_SCHEMA, Machine, OutputsMeasured,
    Package, Pin, PinKind,
};
use crate::text::deceives;
use crate::time::Timestamp;
use crate::tree::{Entry, TreePath};
use crate::workspace::{RESOURCES_FOLDER, SOURCE_FOLDER, WORKSPACE_FOLDER, overlap};

/// Checks the content of the event that follows `before`.
pub(super) fn check(before: &[Event], content: &EventContent) -> Result<(), String> {
    match content {
        EventContent::JobOpened(opened) => check_opened(opened),
        EventContent::Machine(machine) => check_machine(machine),
        EventContent::InputMeasured(input) => check_input(before, input),
        EventContent::ImageResolved(image) => check_image(image),
        EventContent::DependenciesMeasured(dependencies) => check_packages(dependencies),
        EventContent::ContainerBuilt(_) => Ok(()),
        EventContent::Sealed(sealed) if sealed.events != before.len() as u64 => Err(format!(
            "it seals {} events, the log has {}",
            sealed.events,
            before.len()
        )),
        EventContent::Sealed(_) => Ok(()),
        EventContent::ExecutionStarted(started) => check_started(before, started),
        EventContent::ExecutionFinished(ExecutionFinished { time, .. }) => check_time(before, *time),
        EventContent::OutputsMeasured(outputs) => check_outputs(outputs),
        EventContent::Closed(closed) => check_closed(before, closed),
    }
}

/// See [`super::MeasurementLog::result`].
pub(super) fn result(events: &[Event]) -> JobResult {
    let (mut exited, mut left_outputs) = (false, false);
    for event in events {
        match &event.content {
            EventContent::ExecutionFinished(finished) => {
                exited = finished.exit_code == 0 && finished.outcome == ExecutionOutcome::Exited;
            }
            // Links, and files of no bytes, are no model.
            EventContent::OutputsMeasured(outputs) => left_outputs = outputs.tree.bytes > 0,
            _ => {}
        }
    }
    if exited && left_outputs {
        JobResult::Succeeded
    } else {
        JobResult::Failed
    }
}

/// See [`super::MeasurementLog::last_time`].
pub(super) fn last_time(events: &[Event]) -> Option<Timestamp> {
    events.iter().rev().find_map(|event| match &event.content {
        EventContent::JobOpened(JobOpened { time, .. })
        | EventContent::ExecutionStarted(ExecutionStarted { time, .. })
        | EventContent::ExecutionFinished(ExecutionFinished { time, .. })
        | EventContent::Closed(Closed { time, .. }) => Some(*time),
        _ => None,
    })
}

/// The beginning of a text, in quotation marks and escaped.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(200).collect::<String>())
}

/// Names and addresses are one line, and look like what they are.
fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    check_optional_text(what, text)
}

fn check_optional_text(what: &str, text: &str) -> Result<(), String> {
    match deceives(text) {
        Some(reason) => Err(format!("{what} {} {reason}", shown(text))),
        None => Ok(()),
    }
}

fn check_time(before: &[Event], time: Timestamp) -> Result<(), String> {
    match last_time(before).filter(|last| time < *last) {
        Some(last) => Err(format!(
            "its time is {time}, before that of an earlier event, {last}"
        )),
        None => Ok(()),
    }
}

fn check_opened(opened: &JobOpened) -> Result<(), String> {
    if opened.schema != LOG_SCHEMA {
        return Err(format!(
            "its format is {}, this software reads {LOG_SCHEMA:?}",
            shown(&opened.schema)
        ));
    }
    if opened.banks.is_empty() || !opened.banks.is_sorted_by(|a, b| a < b) {
        return Err("its PCR banks are none, or not sorted".into());
    }
    check_text("the name of the tool", &opened.tool.name)?;
    check_text("the version of the tool", &opened.tool.version)
}

fn check_machine(machine: &Machine) -> Result<(), String> {
    check_optional_text("the provider", &machine.provider)?;
    check_optional_text("the kind of machine", &machine.instance_type)?;
    check_optional_text("the region", &machine.region)?;
    for gpu in &machine.gpus {
        check_optional_text("the model of a GPU", &gpu.model)?;
        check_optional_text("the driver of a GPU", &gpu.driver)?;
    }
    check_gpus(machine.gpus.iter().map(|gpu| gpu.uuid.as_str()))
}

fn check_gpus<'a>(uuids: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for uuid in uuids {
        check_text("the UUID of a GPU", uuid)?;
        if !seen.insert(uuid) {
            return Err(format!("two of its GPUs have the UUID {uuid:?}"));
        }
    }
    Ok(())
}

fn check_input(before: &[Event], input: &InputMeasured) -> Result<(), String> {
    check_text("the name", &input.name)?;
    check_text("the type", &input.kind)?;
    check_text("the origin", &input.origin)?;
    check_destination(&input.destination)?;
    let mut others = 0;
    for other in before.iter().filter_map(|event| match &event.content {
        EventContent::InputMeasured(other) => Some(other),
        _ => None,
    }) {
        others += 1;
        if other.name == input.name {
            return Err(format!("a second input has the name {:?}", input.name));
        }
        if other.destination == input.destination {
            return Err(format!(
                "a second input has the destination {:?}",
                input.destination
            ));
        }
        if overlap(&input.destination, &other.destination) {
            return Err(format!(
                "its destination {:?} and that of {:?}, {:?}, overlap",
                input.destination, other.name, other.destination
            ));
        }
    }
    if others >= INPUT_LIMIT {
        return Err(format!("there are more than {INPUT_LIMIT} inputs"));
    }
    input.tree.check_listing().map_err(|error| error.to_string())?;
    for pin in input.requested.iter().chain(&input.resolved) {
        check_pin(pin)?;
    }
    check_pins(input)?;
    check_kind(input)
}

/// The part of an absolute path below a folder, if it is one that can be measured.
fn below(path: &str, folder: &str) -> Option<TreePath> {
    path.strip_prefix(folder)?.strip_prefix('/')?.parse().ok()
}

fn check_destination(destination: &str) -> Result<(), String> {
    check_text("the destination", destination)?;
    if destination == SOURCE_FOLDER || below(destination, RESOURCES_FOLDER).is_some() {
        return Ok(());
    }
    Err(format!(
        "its destination is {}; inputs are at {SOURCE_FOLDER} or below {RESOURCES_FOLDER}",
        shown(destination)
    ))
}

/// Every kind of pin has a syntax of its own, so that no text can pass for a commit.
fn check_pin(pin: &Pin) -> Result<(), String> {
    check_text("a revision or hash", &pin.value)?;
    let holds = match pin.kind {
        PinKind::Branch | PinKind::Tag => true,
        PinKind::Commit => pin.value.parse::<CommitId>().is_ok(),
        PinKind::Sha256 => pin.value.parse::<FileDigest>().is_ok(),
        PinKind::Submodule => pin.value.split_once('@').is_some_and(|(commit, path)| {
            commit.parse::<CommitId>().is_ok() && path.parse::<TreePath>().is_ok()
        }),
    };
    if holds {
        Ok(())
    } else {
        Err(format!(
            "{} is no {:?} as logs have them",
            shown(&pin.value),
            pin.kind
        ))
    }
}

/// What was asked for exactly must be what was found: a difference is never only displayed.
fn check_pins(input: &InputMeasured) -> Result<(), String> {
    for (pins, happened) in [
        (&input.requested, "was asked for as"),
        (&input.resolved, "is said to have resolved to"),
    ] {
        let mut seen = HashSet::new();
        for pin in pins {
            let path = match pin.kind {
                PinKind::Submodule => pin.value.split_once('@').map(|(_, path)| path),
                _ => None,
            };
            if !seen.insert((pin.kind, path)) {
                return Err(format!(
                    "input {:?} {happened} two things of one kind, the second being {}",
                    input.name, pin.value
                ));
            }
        }
    }
    let resolved = |kind| input.resolved.iter().find(|pin| pin.kind == kind);
    for asked in &input.requested {
        let found = resolved(asked.kind);
        let holds = match found {
            Some(found) => found.value == asked.value,
            None => !asked.kind.is_exact(),
        };
        if !holds {
            return Err(format!(
                "input {:?} was asked for as {}, but {} was measured",
                input.name,
                asked.value,
                found.map_or("nothing of that kind", |pin| &pin.value)
            ));
        }
    }
    // A SHA-256 that is said to be resolved must be that of the file measured, which is then alone in its tree.
    if let Some(pin) = resolved(PinKind::Sha256) {
        let measured = match input.tree.listing.as_deref() {
            Some([entry]) => entry.hash().map(|hash| hash.to_string()),
            _ => None,
        };
        if measured.as_deref() != Some(&pin.value) {
            return Err(format!(
                "input {:?} is said to have resolved to {}, but what was measured is {}",
                input.name,
                pin.value,
                measured.as_deref().unwrap_or("not one file")
            ));
        }
    }
    Ok(())
}

/// What inputs of the kinds that are known have, and have not.
fn check_kind(input: &InputMeasured) -> Result<(), String> {
    let (asked, found): (&[PinKind], &[PinKind]) = match input.kind.as_str() {
        "git" => (
            &[PinKind::Branch, PinKind::Tag, PinKind::Commit],
            &[PinKind::Branch, PinKind::Tag, PinKind::Commit, PinKind::Submodule],
        ),
        "file" => (&[PinKind::Sha256], &[PinKind::Sha256]),
        "directory" => (&[], &[]),
        // Sources that others bring.
        _ => return Ok(()),
    };
    let strange = |pins: &[Pin], known: &[PinKind]| pins.iter().any(|pin| !known.contains(&pin.kind));
    if strange(&input.requested, asked) || strange(&input.resolved, found) {
        return Err(format!(
            "input {:?} is of type `{}`, and has a revision or hash of a kind that such inputs do not have",
            input.name, input.kind
        ));
    }
    if input.requested.len() > 1 {
        return Err(format!(
            "input {:?} was asked for as {} things at once",
            input.name,
            input.requested.len()
        ));
    }
    let has = |kind| input.resolved.iter().any(|pin| pin.kind == kind);
    match input.kind.as_str() {
        "git" if !has(PinKind::Commit) => Err(format!(
            "input {:?} is of type `git`, and does not say which commit it is",
            input.name
        )),
        "file" if !has(PinKind::Sha256) => Err(format!(
            "input {:?} is of type `file`, and does not say which SHA-256 it has",
            input.name
        )),
        // That it is one file follows from its SHA-256.
        "file" => {
            let name = input.destination.rsplit('/').next().unwrap_or_default();
            match input.tree.listing.as_deref().and_then(<[Entry]>::first) {
                Some(entry) if entry.path().as_str() != name => Err(format!(
                    "the file {:?} was measured for the destination {:?}",
                    entry.path(),
                    input.destination
                )),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_image(image: &ImageResolved) -> Result<(), String> {
    check_text("the image asked for", &image.requested)?;
    // `name@sha256:…`, or an image's id.
    let digest = image
        .requested
        .rsplit_once('@')
        .map_or(image.requested.as_str(), |(_, digest)| digest);
    match digest.parse::<ImageDigest>() {
        Ok(asked) if asked != image.digest => Err(format!(
            "the image was asked for as {asked}, but {} was found",
            image.digest
        )),
        _ => Ok(()),
    }
}

fn check_packages(dependencies: &DependenciesMeasured) -> Result<(), String> {
    let mut files = HashSet::new();
    if !dependencies
        .packages
        .is_sorted_by(|a, b| (&a.name, &a.version, &a.file) < (&b.name, &b.version, &b.file))
    {
        return Err("its packages are not sorted by name, or one stands twice".into());
    }
    for Package {
        name, version, file, ..
    } in &dependencies.packages
    {
        check_text("the name of a package", name)?;
        check_text("the version of a package", version)?;
        check_text("the file of a package", file)?;
        let normal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !name.bytes().all(normal) {
            return Err(format!(
                "the package {name:?} is not named in lowercase letters, digits and `-`, so it could stand twice"
            ));
        }
        if file.contains('/') || file.parse::<TreePath>().is_err() {
            return Err(format!(
                "the package {name:?} comes from {file:?}, which is no name of a file"
            ));
        }
        if !files.insert(file) {
            return Err(format!("two packages are said to come from {file:?}"));
        }
    }
    match dependencies
        .packages
        .windows(2)
        .find(|pair| pair[0].name == pair[1].name)
    {
        Some(pair) => Err(format!(
            "the package {:?} is there in two versions, {:?} and {:?}",
            pair[0].name, pair[0].version, pair[1].version
        )),
        None => Ok(()),
    }
}

fn check_started(before: &[Event], started: &ExecutionStarted) -> Result<(), String> {
    check_time(before, started.time)?;
    check_gpus(started.gpus.iter().map(String::as_str))?;
    for event in before {
        match &event.content {
            EventContent::ContainerBuilt(built) if built.image != started.image => {
                return Err(format!(
                    "it runs image {}, the one that was built is {}",
                    started.image, built.image
                ));
            }
            EventContent::Machine(machine) => {
                let there: HashSet<_> = machine.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
                if let Some(uuid) = started.gpus.iter().find(|uuid| !there.contains(uuid.as_str())) {
                    return Err(format!("it uses GPU {uuid:?}, which the machine does not have"));
                }
            }
            _ => {}
        }
    }
    let folder = started.working_directory.as_str();
    if folder != "/" && below(folder, "").is_none() {
        return Err(format!(
            "its working directory {} is no absolute path",
            shown(folder)
        ));
    }
    // No program can be started with what follows, so nothing can have run as it is written.
    if started.command.first().is_none_or(String::is_empty) {
        return Err("its command is empty".into());
    }
    if started.command.iter().any(|argument| argument.contains('\0')) {
        return Err("its command holds a zero byte".into());
    }
    let mut names = HashSet::new();
    for variable in &started.environment {
        let (name, value) = (&variable.name, &variable.value);
        check_text("the name of an environment variable", name)?;
        if name.contains('=') || value.contains('\0') {
            return Err(format!(
                "no environment variable can be what {name:?} is said to be"
            ));
        }
        if !names.insert(name) {
            return Err(format!("the environment variable {name:?} stands twice"));
        }
    }
    Ok(())
}

fn check_outputs(outputs: &OutputsMeasured) -> Result<(), String> {
    let folder = outputs.folder.as_str();
    check_text("the folder", folder)?;
    let meets_inputs = overlap(folder, SOURCE_FOLDER) || overlap(folder, RESOURCES_FOLDER);
    if below(folder, WORKSPACE_FOLDER).is_none() || meets_inputs {
        return Err(format!(
            "its folder is {folder:?}; outputs are below /workspace, apart from the inputs"
        ));
    }
    outputs.tree.check_listing().map_err(|error| error.to_string())
}

fn check_closed(before: &[Event], closed: &Closed) -> Result<(), String> {
    check_time(before, closed.time)?;
    let derived = result(before);
    if closed.result == derived {
        Ok(())
    } else {
        Err(format!(
            "it says {:?}, but exit status and outputs mean {derived:?}",
            closed.result
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Variable;
    use crate::log::tests::{log_of, sample_contents};
    use crate::tree::Tree;

    const OTHER_COMMIT: &str = "sha1:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

    fn pin(kind: PinKind, value: &str) -> Pin {
        Pin {
            kind,
            value: value.into(),
        }
    }

    fn tree_of(files: &[(&str, &[u8])]) -> crate::tree::MeasuredTree {
        let entry = |(path, bytes): &(&str, &[u8])| {
            let hash = FileDigest::of(bytes);
            Entry::file(path.parse().unwrap(), false, bytes.len() as u64, hash)
        };
        Tree::from_entries(files.iter().map(entry).collect())
            .unwrap()
            .measured()
    }

    /// Changes the content of one type in the sample; for inputs, of that name.
    macro_rules! change {
        ($variant:ident, |$content:ident| $change:expr) => {
            |contents: &mut Vec<EventContent>| {
                for content in contents {
                    if let EventContent::$variant($content) = content {
                        $change;
                    }
                }
            }
        };
    }

    macro_rules! input {
        ($name:literal, |$input:ident| $change:expr) => {
            change!(InputMeasured, |$input| if $input.name == $name {
                $change;
            })
        };
    }

    type Change = fn(&mut Vec<EventContent>);

    #[track_caller]
    fn assert_refused(cases: &[(Change, &str)]) {
        for (change, words) in cases {
            let mut contents = sample_contents();
            change(&mut contents);
            assert_ne!(contents, sample_contents(), "{words}");
            let error = log_of(contents).expect_err(words).to_string();
            assert!(error.contains(words), "{error:?} does not say {words:?}");
            assert!(deceives(&error).is_none(), "{error:?} could fool a terminal");
        }
    }

    #[test]
    fn the_sample_is_sound() {
        assert_eq!(log_of(sample_contents()).unwrap().result(), JobResult::Succeeded);
    }

    #[test]
    fn inputs_are_inside_the_workspace_and_apart_from_each_other() {
        assert_refused(&[
            (
                input!("code", |i| i.destination = "/etc".into()),
                "its destination is \"/etc\"",
            ),
            (
                input!("code", |i| i.destination =
                    "/workspace/resources/../../etc".into()),
                "its destination is",
            ),
            (
                input!("code", |i| i.destination = "/workspace/resources".into()),
                "its destination is",
            ),
            (
                input!("code", |i| i.destination =
                    "/workspace/resources/weights.bin/x".into()),
                "overlap",
            ),
            (
                input!("code", |i| i.destination = "/workspace/srcs".into()),
                "its destination is",
            ),
        ]);
    }

    #[test]
    fn outputs_are_inside_the_workspace_and_apart_from_inputs() {
        assert_refused(&[
            (
                change!(OutputsMeasured, |o| o.folder = "/".into()),
                "its folder is \"/\"",
            ),
            (
                change!(OutputsMeasured, |o| o.folder = "/workspace".into()),
                "its folder is",
            ),
            (
                change!(OutputsMeasured, |o| o.folder = "/workspace/src/out".into()),
                "apart from the inputs",
            ),
            (
                change!(OutputsMeasured, |o| o.folder = "/workspace/a/../src".into()),
                "its folder is",
            ),
            (
                change!(OutputsMeasured, |o| o.folder = String::new()),
                "the folder is empty",
            ),
        ]);
    }

    #[test]
    fn revisions_and_hashes_are_what_they_are_called_and_there_once() {
        assert_refused(&[
            (
                input!("code", |i| i.resolved = vec![pin(PinKind::Commit, "main")]),
                "\"main\" is no Commit",
            ),
            (
                input!("code", |i| {
                    i.requested = vec![pin(PinKind::Commit, "HEAD")];
                    i.resolved = vec![pin(PinKind::Commit, "HEAD")];
                }),
                "\"HEAD\" is no Commit",
            ),
            (
                input!("weights", |i| i.requested[0].value.make_ascii_uppercase()),
                "is no Sha256",
            ),
            (
                input!("code", |i| i.resolved.push(pin(PinKind::Commit, OTHER_COMMIT))),
                "two things of one kind, the second being sha1:cdcd",
            ),
            (
                input!("code", |i| i.requested.push(pin(PinKind::Commit, OTHER_COMMIT))),
                "was asked for as sha1:cdcd",
            ),
            (
                input!("code", |i| i.requested.push(pin(PinKind::Branch, "main"))),
                "was asked for as 2 things at once",
            ),
            (
                input!("code", |i| {
                    i.requested = vec![pin(PinKind::Branch, "main")];
                    i.resolved.push(pin(PinKind::Branch, "evil"));
                }),
                "was asked for as main, but evil was measured",
            ),
            (
                input!("code", |i| i
                    .resolved
                    .push(pin(PinKind::Submodule, &format!("{OTHER_COMMIT}@../x")))),
                "is no Submodule",
            ),
            (
                input!(
                    "code",
                    |i| for commit in [OTHER_COMMIT, &OTHER_COMMIT.replace('c', "e")] {
                        i.resolved.push(pin(PinKind::Submodule, &format!("{commit}@x")));
                    }
                ),
                "two things of one kind",
            ),
            (
                input!("code", |i| i.requested =
                    vec![pin(PinKind::Commit, "\u{1b}[2J\u{202e}")]),
                "a revision or hash \"\\u{1b}[2J\\u{202e}\" holds a control character",
            ),
        ]);
    }

    #[test]
    fn inputs_have_what_their_type_says() {
        assert_refused(&[
            (
                input!("code", |i| i.resolved.clear()),
                "does not say which commit it is",
            ),
            (
                input!("weights", |i| {
                    i.requested.clear();
                    i.resolved.clear();
                }),
                "does not say which SHA-256 it has",
            ),
            (
                input!("weights", |i| {
                    i.tree = tree_of(&[("weights.bin", b"a"), ("b", b"b")]);
                }),
                "but what was measured is not one file",
            ),
            (
                input!("weights", |i| i.destination =
                    "/workspace/resources/other.bin".into()),
                "the file \"weights.bin\" was measured for the destination \"/workspace/resources/other.bin\"",
            ),
            (
                input!("weights", |i| i.resolved.push(pin(PinKind::Commit, OTHER_COMMIT))),
                "of a kind that such inputs do not have",
            ),
            (
                input!("code", |i| {
                    i.kind = "directory".into();
                    i.requested.clear();
                }),
                "of a kind that such inputs do not have",
            ),
        ]);
        // Persian words need a character without width to be spelled; it hides nothing.
        let mut contents = sample_contents();
        input!("code", |i| i.name = "می\u{200c}خواهم".into())(&mut contents);
        log_of(contents).unwrap();
        let mut contents = sample_contents();
        input!("code", |i| {
            i.kind = "directory".into();
            i.requested.clear();
            i.resolved.clear();
        })(&mut contents);
        log_of(contents).unwrap();
    }

    #[test]
    fn names_and_addresses_look_like_what_they_are() {
        assert_refused(&[
            (input!("code", |i| i.name = String::new()), "the name is empty"),
            (
                input!("code", |i| i.name = "a\nb".into()),
                "the name \"a\\nb\" holds",
            ),
            (
                input!("code", |i| i.origin = "https://x/\u{202e}gro".into()),
                "the origin",
            ),
            (input!("code", |i| i.kind = "\u{1b}[2J".into()), "the type"),
            (input!("code", |i| i.name = "co\u{200b}de".into()), "hides others"),
            (
                input!("code", |i| i.origin = "x".repeat(9_000)),
                "is longer than 8192 bytes",
            ),
            (change!(Machine, |m| m.region = "\u{9b}2J".into()), "the region"),
            (
                change!(JobOpened, |o| o.tool.version = "\r".into()),
                "the version of the tool",
            ),
            (
                change!(ImageResolved, |i| i.requested = "\0".into()),
                "the image asked for",
            ),
        ]);
    }

    #[test]
    fn an_image_asked_for_by_digest_is_that_image() {
        assert_refused(&[
            (
                change!(ImageResolved, |i| i.requested =
                    format!("python@{}", ImageDigest::of(b"other"))),
                "the image was asked for as sha256:",
            ),
            (
                change!(ImageResolved, |i| i.requested =
                    ImageDigest::of(b"other").to_string()),
                "the image was asked for as sha256:",
            ),
        ]);
    }

    #[test]
    fn packages_are_there_once_and_come_from_files() {
        assert_refused(&[
            (
                change!(DependenciesMeasured, |d| d.packages[0].file =
                    "../numpy.whl".into()),
                "which is no name of a file",
            ),
            (
                change!(DependenciesMeasured, |d| d.packages[0].file = "..".into()),
                "which is no name of a file",
            ),
            (
                change!(DependenciesMeasured, |d| d.packages[0].name = "Num_Py".into()),
                "is not named in lowercase letters",
            ),
            (
                change!(DependenciesMeasured, |d| {
                    let mut newer = d.packages[0].clone();
                    (newer.version, newer.file) = ("3.0.0".into(), "numpy-3.whl".into());
                    d.packages.push(newer);
                }),
                "is there in two versions, \"2.0.0\" and \"3.0.0\"",
            ),
            (
                change!(DependenciesMeasured, |d| {
                    let mut other = d.packages[0].clone();
                    other.name = "other".into();
                    d.packages.push(other);
                }),
                "two packages are said to come from",
            ),
        ]);
    }

    #[test]
    fn an_execution_is_one_that_can_have_been() {
        assert_refused(&[
            (
                change!(ExecutionStarted, |s| s.command.clear()),
                "its command is empty",
            ),
            (
                change!(ExecutionStarted, |s| s.command.push("a\0b".into())),
                "its command holds a zero byte",
            ),
            (
                change!(ExecutionStarted, |s| s.working_directory = "../x".into()),
                "is no absolute path",
            ),
            (
                change!(ExecutionStarted, |s| s.environment.push(Variable {
                    name: "SEED".into(),
                    value: "2".into()
                })),
                "the environment variable \"SEED\" stands twice",
            ),
            (
                change!(ExecutionStarted, |s| s.environment[0].name = "A=B".into()),
                "no environment variable can be",
            ),
            (
                change!(ExecutionStarted, |s| s.gpus =
                    vec!["GPU-1".into(), "GPU-1".into()]),
                "two of its GPUs have the UUID \"GPU-1\"",
            ),
            (
                change!(Machine, |m| m.gpus.push(m.gpus[0].clone())),
                "two of its GPUs have the UUID",
            ),
        ]);
    }

    #[test]
    fn time_does_not_go_back() {
        let early = "its time is 1970-01-01T00:00:00Z, before that of an earlier event";
        assert_refused(&[
            (
                change!(ExecutionStarted, |s| s.time = Timestamp::from_unix(0)),
                early,
            ),
            (
                change!(ExecutionFinished, |f| f.time = Timestamp::from_unix(0)),
                early,
            ),
            (change!(Closed, |c| c.time = Timestamp::from_unix(0)), early),
        ]);
        let log = log_of(sample_contents()).unwrap();
        let EventContent::Closed(closed) = &log.events()[11].content else {
            unreachable!("the last event closes the log")
        };
        assert_eq!(log.last_time(), Some(closed.time));
    }

    #[test]
    fn outputs_without_a_byte_are_no_success() {
        let link = Entry::symlink("model".parse().unwrap(), "nowhere".into()).unwrap();
        let only_a_link = Tree::from_entries(vec![link]).unwrap().measured();
        for tree in [only_a_link, tree_of(&[("model.bin", b"")]), tree_of(&[])] {
            let mut contents = sample_contents();
            if let EventContent::OutputsMeasured(outputs) = &mut contents[10] {
                outputs.tree = tree;
            }
            let error = log_of(contents.clone()).unwrap_err().to_string();
            assert!(error.contains("exit status and outputs mean Failed"), "{error}");
            if let EventContent::Closed(closed) = &mut contents[11] {
                closed.result = JobResult::Failed;
            }
            log_of(contents).unwrap();
        }
    }

    #[test]
    fn inputs_are_not_without_number() {
        let mut contents = sample_contents();
        let input = contents[3].clone();
        contents.truncate(2);
        for number in 0..=INPUT_LIMIT {
            let mut next = input.clone();
            if let EventContent::InputMeasured(next) = &mut next {
                next.name = number.to_string();
                next.destination = format!("/workspace/resources/{number}/weights.bin");
            }
            contents.push(next);
        }
        let error = log_of(contents.clone()).unwrap_err().to_string();
        assert!(error.contains("there are more than 1000 inputs"), "{error}");
        contents.pop();
        log_of(contents).unwrap();
    }
}
