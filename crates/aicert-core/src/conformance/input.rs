//! What every [`InputSource`] must do.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::input::{FetchRequest, InputErrorKind, InputSource};
use crate::measure::{self, HardLinks, Options};
use crate::progress::{Progress, ProgressEvent};
use crate::secret::Secret;
use crate::spec::InputSpec;
use crate::tree::{Entry, Tree};

/// Inputs to try a source with.
#[derive(Debug, Clone)]
pub struct Subject {
    /// An input that can be fetched, as often as wanted. Large enough to take a moment: see [`dropped_fetches_stop`].
    pub good: InputSpec,
    /// Its files: path and content; for a source of single files one, whose path is ignored.
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether the source makes a directory at its target (rather than a file).
    pub is_directory: bool,
    /// An input that does not exist.
    pub missing: InputSpec,
    /// An input that exists and is not what an exact pin of its configuration says; for sources that have such pins.
    pub mismatched: Option<InputSpec>,
    /// The secret among the credentials of `good` and the others, where there is one.
    pub secret: Option<Secret>,
}

/// Calls every function of this module.
///
/// # Panics
///
/// When the source breaks its contract.
pub async fn all(source: &dyn InputSource, subject: &Subject) {
    measures_what_is_at_the_target(source, subject).await;
    fetches_are_independent(source, subject).await;
    leaves_nothing_on_error(source, subject).await;
    keeps_what_is_there(source, subject).await;
    dropped_fetches_stop(source, subject).await;
}

/// The result says what is at the target, file by file, and no secret is in it, in progress, or in any file.
///
/// # Panics
///
/// When the source breaks its contract.
pub async fn measures_what_is_at_the_target(source: &dyn InputSource, subject: &Subject) {
    let kind = source.capabilities().kind;
    assert_eq!(subject.good.location.kind(), kind, "the source serves one kind");
    let place = Place::new();
    let (progress, mut events) = Progress::channel(10_000);
    let request = FetchRequest {
        progress,
        ..place.request(&subject.good)
    };
    let fetched = source
        .fetch(request)
        .await
        .expect("the good input must be fetched");

    place.check_others();
    assert_eq!(
        fetched.tree,
        re_measured(&place.target(), subject),
        "the measure must be of what is at the target"
    );
    let files: Vec<_> = fetched
        .tree
        .entries()
        .iter()
        .filter(|entry| entry.hash().is_some())
        .collect();
    assert_eq!(files.len(), subject.files.len(), "files at the target");
    for (path, content) in &subject.files {
        let at = if subject.is_directory {
            place.target().join(path)
        } else {
            place.target()
        };
        let found = fs::read(&at).expect("every file of the input must be at the target");
        assert!(found == *content, "{path} must hold what it holds at its source");
    }
    for pin in fetched.requested.iter().filter(|pin| pin.kind.is_exact()) {
        assert!(
            fetched.resolved.contains(pin),
            "what was asked for exactly must be what was found: {pin:?}"
        );
    }
    assert!(
        !fetched.origin.is_empty(),
        "the certificate says where an input came from"
    );

    assert_secret_absent(subject, &format!("{fetched:?}"));
    while let Ok(event) = events.try_recv() {
        if let ProgressEvent::StepAdvanced { subject: name, .. } = &event {
            assert_eq!(
                *name, subject.good.name,
                "progress must be reported under the input's name"
            );
        }
        assert_secret_absent(subject, &format!("{event:?}"));
    }
    assert_secret_in_no_file(subject, place.0.path());
}

/// Fetches at the same time, next to each other, do not disturb each other, and give the same.
///
/// # Panics
///
/// When the source breaks its contract.
pub async fn fetches_are_independent(source: &dyn InputSource, subject: &Subject) {
    let place = Place::new();
    let requests = ["one", "two"].map(|name| FetchRequest {
        target: place.0.path().join(name).join("target"),
        ..place.request(&subject.good)
    });
    for request in &requests {
        fs::create_dir(request.target.parent().expect("a parent")).expect("a folder");
    }
    let targets = requests.clone().map(|request| request.target);
    let [one, two] = requests.map(|request| source.fetch(request));
    let (one, two) = tokio::join!(one, two);
    let (one, two) = (
        one.expect("the first of two fetches"),
        two.expect("the second of two fetches"),
    );
    assert_eq!(one.tree, two.tree, "the same input must measure the same");
    assert_eq!(
        one.resolved, two.resolved,
        "the same input must resolve to the same"
    );
    for target in targets {
        assert_eq!(
            one.tree,
            re_measured(&target, subject),
            "each fetch must have its own files"
        );
    }
}

/// What does not exist is [`InputErrorKind::NotFound`], and what differs from an exact pin is
/// [`InputErrorKind::Mismatch`] (or not found: a commit is its own name). The errors say what to do, give no secret
/// away, and nothing remains.
///
/// # Panics
///
/// When the source breaks its contract.
pub async fn leaves_nothing_on_error(source: &dyn InputSource, subject: &Subject) {
    let cases = [
        (Some(&subject.missing), false),
        (subject.mismatched.as_ref(), true),
    ];
    for (spec, is_mismatch) in cases
        .into_iter()
        .filter_map(|(spec, is_mismatch)| Some((spec?, is_mismatch)))
    {
        let place = Place::new();
        let error = source
            .fetch(place.request(spec))
            .await
            .expect_err("must not be fetched");
        let right = error.kind() == InputErrorKind::NotFound
            || is_mismatch && error.kind() == InputErrorKind::Mismatch;
        assert!(right, "the kind of {error} must not be {:?}", error.kind());
        assert!(error.advice().is_some(), "{error}: must say what to do");
        assert_secret_absent(subject, &format!("{error} {error:?}"));
        place.check_nothing_remains();
    }
}

/// A target that exists is neither written to nor removed.
///
/// # Panics
///
/// When the source breaks its contract.
pub async fn keeps_what_is_there(source: &dyn InputSource, subject: &Subject) {
    let place = Place::new();
    fs::write(place.target(), "somebody's").expect("a file");
    source
        .fetch(place.request(&subject.good))
        .await
        .expect_err("the target exists");
    assert_eq!(
        fs::read(place.target()).expect("still there"),
        b"somebody's",
        "what was at the target must stay"
    );
    place.check_others();
}

/// When a fetch is dropped, at whatever moment, nothing remains soon afterwards.
///
/// # Panics
///
/// When the source breaks its contract.
pub async fn dropped_fetches_stop(source: &dyn InputSource, subject: &Subject) {
    let mut wait = Duration::from_micros(100);
    let mut dropped = 0;
    loop {
        let place = Place::new();
        let fetch = source.fetch(place.request(&subject.good));
        if let Ok(finished) = tokio::time::timeout(wait, fetch).await {
            finished.expect("the good input must be fetched");
            break;
        }
        dropped += 1;
        // Work in other threads may go on until its next read or write, or may be about to begin.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..500 {
            if !place.something_remains() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        place.check_nothing_remains();
        wait = wait.mul_f64(1.7);
    }
    assert!(
        dropped > 0,
        "the good input must take longer than a tenth of a millisecond"
    );
}

/// A folder with a place for the target, and neighbours that must stay as they are.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("neighbour"), "untouched").expect("a file");
        fs::write(folder.path().join("target.part"), "another input").expect("a file");
        Self(folder)
    }

    fn target(&self) -> std::path::PathBuf {
        self.0.path().join("target")
    }

    fn request(&self, spec: &InputSpec) -> FetchRequest {
        FetchRequest {
            spec: spec.clone(),
            target: self.target(),
            progress: Progress::ignored(),
        }
    }

    fn names(&self) -> BTreeSet<OsString> {
        let entries = fs::read_dir(self.0.path()).expect("the folder");
        entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect()
    }

    /// Next to the target, nothing was added, removed or changed.
    fn check_others(&self) {
        let mut names = self.names();
        names.remove(&OsString::from("target"));
        assert_eq!(
            names,
            ["neighbour".into(), "target.part".into()].into(),
            "files next to the target"
        );
        for (name, content) in [("neighbour", "untouched"), ("target.part", "another input")] {
            assert_eq!(
                fs::read_to_string(self.0.path().join(name)).expect("a file"),
                content,
                "{name}"
            );
        }
    }

    fn something_remains(&self) -> bool {
        self.names().len() > 2
    }

    fn check_nothing_remains(&self) {
        assert!(
            !self.names().contains(&OsString::from("target")),
            "nothing may remain at the target"
        );
        self.check_others();
    }
}

fn re_measured(target: &Path, subject: &Subject) -> Tree {
    let options = Options::quiet(HardLinks::Refuse);
    if subject.is_directory {
        return measure::measure(target, &options).expect("the target can be measured");
    }
    let (hash, size) = measure::hash_file(target, &options).expect("the target can be measured");
    let name = target.file_name().and_then(|name| name.to_str()).expect("a name");
    let path = name.parse().expect("a path");
    Tree::from_entries(vec![Entry::file(path, false, size, hash)]).expect("a tree")
}

fn assert_secret_absent(subject: &Subject, text: &str) {
    if let Some(secret) = &subject.secret {
        assert!(!text.contains(secret.expose()), "a secret must never be shown");
    }
}

fn assert_secret_in_no_file(subject: &Subject, folder: &Path) {
    let Some(secret) = &subject.secret else { return };
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            assert_secret_in_no_file(subject, &path);
        } else if path.is_file() {
            let content = fs::read(&path).expect("a file");
            let secret = secret.expose().as_bytes();
            assert!(
                !content.windows(secret.len()).any(|window| window == secret),
                "a secret must never be stored"
            );
        }
    }
}
