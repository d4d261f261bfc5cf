//! Git repositories.
//!
//! Everything is fetched into a bare repository next to the target and written from its objects by this module: no
//! filters, no line-end conversion, no hooks, no `.git` in the result. libgit2 computes the SHA-1 of every object that
//! it receives (with collision detection), so the commit's id covers what was fetched; the tree root, which the caller
//! gets beside it, does not rest on SHA-1.
//!
//! The user's git configuration has no influence: it could send the request elsewhere (`url.<base>.insteadOf`), and what
//! is certified must not depend on it. libgit2 reads it when it opens the bare repository; [`repository`] then replaces
//! every level of it by an empty file. Only a repository on this machine is opened by libgit2 in the ordinary way, with
//! the check that its owner is the user or is trusted (`safe.directory`).

mod address;
mod auth;
mod checkout;
mod error;
mod fetch;
mod gitmodules;
mod known_hosts;
mod repository;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aicert_core::digest::CommitId;
use aicert_core::event::{Pin, PinKind};
use aicert_core::input::{
    FetchRequest, FetchedInput, InputCapabilities, InputError, InputErrorKind, InputSource,
};
use aicert_core::spec::{GitLocation, GitRevision, Location};
use aicert_core::tree::Tree;
use async_trait::async_trait;

use crate::background::{self, Signals, Unfinished};
use crate::config::GitConfig;
use crate::error::{require_absent, storage, wrong_source};
use crate::reporter::Reporter;
use address::Address;
use auth::Access;
use checkout::{Checkout, Submodule};
use fetch::Fetch;

/// How deep submodules may be nested.
const SUBMODULE_DEPTH: usize = 10;
/// How many submodules a repository may have in all.
const SUBMODULE_LIMIT: usize = 500;

/// Fetches a revision of a repository, with its submodules.
#[derive(Debug, Clone, Default)]
pub struct GitSource {
    config: GitConfig,
}

impl GitSource {
    /// A source that behaves as `config` says.
    pub fn new(config: GitConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl InputSource for GitSource {
    fn capabilities(&self) -> &InputCapabilities {
        &InputCapabilities {
            kind: "git",
            resumes: false,
            authenticates: true,
        }
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchedInput, InputError> {
        let FetchRequest {
            spec,
            target,
            progress,
        } = request;
        let Location::Git(location) = spec.location else {
            return Err(wrong_source("git", &spec.location));
        };
        let address = Address::parse(&location.repository)?;
        let access = Access::new(&address, location.credentials.clone(), &self.config)?;
        let reporter = Reporter::new(progress, &spec.name);
        require_absent(&target)?;

        let (config, to) = (self.config.clone(), target.clone());
        background::make(&target, Some(self.config.idle_timeout), move |signals| {
            let scratch = Scratch::create(&to)?;
            let job = Job {
                config: &config,
                location: &location,
                access: &access,
                signals,
                reporter: &reporter,
            };
            job.run(&address, scratch.path(), &to)
        })
        .await
    }
}

/// A directory next to the target, removed in the end.
struct Scratch {
    path: std::path::PathBuf,
    _unfinished: Unfinished,
}

impl Scratch {
    fn create(target: &Path) -> Result<Self, InputError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            ".fetch-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = target.with_file_name(name);
        std::fs::create_dir(&path).map_err(|error| storage("create", &path, error))?;
        Ok(Self {
            _unfinished: Unfinished::new(path.clone()),
            path,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

struct Job<'a> {
    config: &'a GitConfig,
    location: &'a GitLocation,
    access: &'a Access,
    signals: &'a Signals,
    reporter: &'a Reporter,
}

impl Job<'_> {
    fn run(&self, address: &Address, scratch: &Path, target: &Path) -> Result<FetchedInput, InputError> {
        let revision = &self.location.revision;
        let found = self.fetcher(address, scratch, 0).revision(revision)?;
        let commit = commit_id(found.commit);
        check_commit(revision, commit, address)?;

        let mut checkout = Checkout::create(target, self.config.largest_file, self.signals)?;
        let mut submodules = checkout.commit(&found.repository, found.commit, "", &address.origin())?;
        drop(found.repository);
        let mut pins = Vec::new();
        if self.location.submodules {
            self.submodules(&mut submodules, address, scratch, &mut checkout, &mut pins)?;
        }
        let tree = Tree::from_entries(checkout.into_entries()).map_err(|error| {
            InputError::new(
                InputErrorKind::Refused,
                format!("the files of {} cannot be measured: {error}", address.origin()),
            )
        })?;

        let commit = Pin {
            kind: PinKind::Commit,
            value: commit.to_string(),
        };
        let branch = found.branch.map(|value| Pin {
            kind: PinKind::Branch,
            value,
        });
        Ok(FetchedInput {
            origin: address.origin(),
            requested: requested(revision),
            resolved: std::iter::once(commit).chain(branch).chain(pins).collect(),
            tree,
        })
    }

    /// Fetches the submodules, and theirs, breadth first.
    fn submodules(
        &self,
        found: &mut Vec<Submodule>,
        address: &Address,
        scratch: &Path,
        checkout: &mut Checkout<'_>,
        pins: &mut Vec<Pin>,
    ) -> Result<(), InputError> {
        let mut open: Vec<_> = found
            .drain(..)
            .map(|submodule| (submodule, address.clone(), 1))
            .collect();
        while let Some((Submodule { path, commit, url }, parent, depth)) = open.pop() {
            let about = |error: InputError| {
                let message = format!("submodule {path:?}: {}", error.message());
                let about = InputError::new(error.kind(), message);
                match error.advice() {
                    Some(advice) => about.with_advice(advice),
                    None => about,
                }
            };
            if depth > SUBMODULE_DEPTH || pins.len() >= SUBMODULE_LIMIT {
                return Err(about(
                    InputError::new(
                        InputErrorKind::Refused,
                        format!(
                            "there are more than {SUBMODULE_DEPTH} levels or {SUBMODULE_LIMIT} submodules"
                        ),
                    )
                    .with_advice("set `submodules: false` if the job does not need them"),
                ));
            }
            let address = parent.submodule(&url).map_err(about)?;
            let wanted = GitRevision::Commit(commit_id(commit));
            let repository = self
                .fetcher(&address, scratch, pins.len() + 1)
                .revision(&wanted)
                .map_err(about)?
                .repository;
            let inner = checkout
                .commit(&repository, commit, &path, &address.origin())
                .map_err(about)?;
            open.extend(
                inner
                    .into_iter()
                    .map(|submodule| (submodule, address.clone(), depth + 1)),
            );
            pins.push(Pin {
                kind: PinKind::Submodule,
                value: format!("{}@{path}", commit_id(commit)),
            });
        }
        pins.sort_by(|a, b| {
            a.value
                .rsplit('@')
                .next()
                .cmp(&b.value.rsplit('@').next())
                .then_with(|| a.value.cmp(&b.value))
        });
        Ok(())
    }

    fn fetcher<'b>(&'b self, address: &'b Address, scratch: &'b Path, number: usize) -> Fetch<'b> {
        Fetch {
            address,
            access: self.access,
            scratch,
            number,
            signals: self.signals,
            reporter: self.reporter,
        }
    }
}

fn commit_id(oid: git2::Oid) -> CommitId {
    let mut bytes = [0; 20];
    // libgit2 is built without SHA-256 repositories: every id has 20 bytes.
    bytes.copy_from_slice(&oid.as_bytes()[..20]);
    CommitId::from_bytes(bytes)
}

/// The fetch asked for that commit alone; this makes sure of it once more, where nothing else can go wrong.
fn check_commit(revision: &GitRevision, found: CommitId, address: &Address) -> Result<(), InputError> {
    match revision {
        GitRevision::Commit(expected) if *expected != found => Err(InputError::new(
            InputErrorKind::Mismatch,
            format!(
                "{} gave another commit: expected {expected}, found {found}",
                address.origin()
            ),
        )),
        _ => Ok(()),
    }
}

fn requested(revision: &GitRevision) -> Vec<Pin> {
    let pin = |kind, value: &dyn ToString| {
        vec![Pin {
            kind,
            value: value.to_string(),
        }]
    };
    match revision {
        GitRevision::Branch(name) => pin(PinKind::Branch, name),
        GitRevision::Tag(name) => pin(PinKind::Tag, name),
        GitRevision::Commit(id) => pin(PinKind::Commit, id),
        _ => Vec::new(),
    }
}
