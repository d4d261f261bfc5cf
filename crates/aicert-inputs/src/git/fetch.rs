//! Fetching one revision, with as little history as the server allows.

use std::path::Path;

use aicert_core::input::{InputError, InputErrorKind};
use aicert_core::spec::GitRevision;
use git2::{
    AutotagOption, Direction, ErrorClass, FetchOptions, Oid, ProxyOptions, Reference, Remote, RemoteRedirect,
    Repository,
};

use super::address::{Address, Transport};
use super::auth::{Access, Session};
use super::error::{about, explain};
use super::repository;
use crate::background::Signals;
use crate::reporter::Reporter;

/// Where the fetched revision is kept from being garbage.
const WANTED: &str = "refs/aicert/wanted";

/// Fetches into `<scratch>/<number>-…`.
pub(super) struct Fetch<'a> {
    pub(super) address: &'a Address,
    pub(super) access: &'a Access,
    pub(super) scratch: &'a Path,
    pub(super) number: usize,
    pub(super) signals: &'a Signals,
    pub(super) reporter: &'a Reporter,
}

/// What was fetched.
pub(super) struct Found {
    pub(super) repository: Repository,
    pub(super) commit: Oid,
    /// Of the remote's HEAD, when that was asked for.
    pub(super) branch: Option<String>,
}

/// What a remote offers.
struct Head {
    name: String,
    oid: Oid,
    target: Option<String>,
}

/// A revision as the remote knows it.
struct Wanted {
    refspec: String,
    oid: Oid,
    branch: Option<String>,
}

impl Fetch<'_> {
    pub(super) fn revision(&self, revision: &GitRevision) -> Result<Found, InputError> {
        self.signals.check()?;
        self.check_name(revision)?;
        // The transport within this machine has no shallow fetch.
        let depths: &[Option<i32>] = if self.address.transport == Transport::Local {
            &[None]
        } else {
            &[Some(1), None]
        };
        let by_commit = matches!(revision, GitRevision::Commit(_));
        for (attempt, depth) in depths.iter().enumerate() {
            let last = attempt + 1 == depths.len();
            let session = Session::new(self.address, self.access, self.signals, self.reporter);
            let repository = self.repository(attempt)?;
            let fetched = self.fetch(
                &session,
                &repository,
                |heads| {
                    let wanted = self.resolve(&session, revision, heads)?;
                    let everything = last && by_commit;
                    let refspecs = match everything {
                        true => vec![
                            "+refs/heads/*:refs/aicert/heads/*".into(),
                            "+refs/tags/*:refs/aicert/tags/*".into(),
                        ],
                        false => vec![wanted.refspec.clone()],
                    };
                    Ok((wanted, refspecs))
                },
                *depth,
            );
            match fetched {
                Ok(wanted) => match peel(&repository, wanted.oid) {
                    Some(commit) => {
                        return Ok(Found {
                            repository,
                            commit,
                            branch: wanted.branch,
                        });
                    }
                    None if last => return Err(self.no_commit(&session, revision)),
                    None => {}
                },
                // Servers may refuse shallow fetches, and commits that no branch or tag points to.
                Err(Failed::Fetch(error)) if !last && may_be_the_depth(&error, &session) => {}
                Err(Failed::Fetch(error)) => return Err(explain(&error, &session)),
                Err(Failed::Other(error)) => return Err(error),
            }
        }
        // Every last attempt returns above.
        Err(InputError::new(
            InputErrorKind::Network,
            format!("{} could not be fetched", self.address.origin()),
        ))
    }

    fn repository(&self, attempt: usize) -> Result<Repository, InputError> {
        let path = self.scratch.join(format!("{}-{attempt}", self.number));
        repository::create(&path, self.access.may_follow_redirects(self.address))
    }

    /// Asks the remote what it has, and fetches what `choose` makes of the answer.
    fn fetch(
        &self,
        session: &Session<'_>,
        repository: &Repository,
        choose: impl FnOnce(&[Head]) -> Result<(Wanted, Vec<String>), InputError>,
        depth: Option<i32>,
    ) -> Result<Wanted, Failed> {
        let mut remote = repository.remote_anonymous(self.address.text())?;
        if remote.url()? != self.address.text() {
            let what = "the address of the repository was rewritten by a git configuration";
            return Err(Failed::Other(about(session, InputErrorKind::Refused, what)));
        }
        let mut connection =
            remote.connect_auth(Direction::Fetch, Some(session.callbacks()), Some(proxy()))?;
        let heads = list(connection.remote())?;
        let (wanted, refspecs) = choose(&heads)?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(session.callbacks())
            .proxy_options(proxy())
            .download_tags(AutotagOption::None)
            .update_fetchhead(false);
        if !self.access.may_follow_redirects(self.address) {
            options.follow_redirects(RemoteRedirect::None);
        }
        if let Some(depth) = depth {
            options.depth(depth);
        }
        connection.remote().fetch(&refspecs, Some(&mut options), None)?;
        self.signals.check()?;
        Ok(wanted)
    }

    fn check_name(&self, revision: &GitRevision) -> Result<(), InputError> {
        let (what, name, reference) = match revision {
            GitRevision::Branch(name) => ("branch", name, format!("refs/heads/{name}")),
            GitRevision::Tag(name) => ("tag", name, format!("refs/tags/{name}")),
            _ => return Ok(()),
        };
        if Reference::is_valid_name(&reference) {
            return Ok(());
        }
        Err(InputError::new(
            InputErrorKind::Configuration,
            format!("{name:?} cannot be the name of a {what}"),
        )
        .with_advice(format!("give the name as `git {what}` lists it")))
    }

    fn resolve(
        &self,
        session: &Session<'_>,
        revision: &GitRevision,
        heads: &[Head],
    ) -> Result<Wanted, InputError> {
        if heads.is_empty() {
            return Err(
                about(session, InputErrorKind::NotFound, "the repository is empty")
                    .with_advice("push a commit to it first"),
            );
        }
        let by_name = |name: &str| heads.iter().find(|head| head.name == name);
        let wanted = |head: &Head, branch| Wanted {
            refspec: format!("+{}:{WANTED}", head.name),
            oid: head.oid,
            branch,
        };
        match revision {
            GitRevision::Branch(name) => by_name(&format!("refs/heads/{name}"))
                .map(|head| wanted(head, None))
                .ok_or_else(|| unknown(session, "branch", name, "refs/heads/", heads)),
            GitRevision::Tag(name) => by_name(&format!("refs/tags/{name}"))
                .map(|head| wanted(head, None))
                .ok_or_else(|| unknown(session, "tag", name, "refs/tags/", heads)),
            GitRevision::Commit(id) => {
                let oid = Oid::from_bytes(id.as_bytes()).map_err(|error| explain(&error, session))?;
                let tip = heads
                    .iter()
                    .find(|head| head.oid == oid && !head.name.ends_with("^{}") && head.name != "HEAD");
                Ok(tip.map_or_else(
                    || Wanted {
                        refspec: format!("+{oid}:{WANTED}"),
                        oid,
                        branch: None,
                    },
                    |head| wanted(head, None),
                ))
            }
            _ => {
                let head = by_name("HEAD").ok_or_else(|| {
                    about(
                        session,
                        InputErrorKind::NotFound,
                        "the repository has no default branch (no HEAD)",
                    )
                    .with_advice("name a branch, tag or commit")
                })?;
                let target = head.target.as_deref().and_then(by_name).unwrap_or(head);
                let branch = head
                    .target
                    .as_deref()
                    .and_then(|target| target.strip_prefix("refs/heads/"));
                Ok(Wanted {
                    oid: head.oid,
                    ..wanted(target, branch.map(Into::into))
                })
            }
        }
    }

    fn no_commit(&self, session: &Session<'_>, revision: &GitRevision) -> InputError {
        match revision {
            GitRevision::Commit(id) => about(
                session,
                InputErrorKind::NotFound,
                &format!("there is no commit {id}, or no branch and no tag leads to it"),
            )
            .with_advice("check the commit, and that it was pushed"),
            _ => about(session, InputErrorKind::NotFound, "what it names is not a commit")
                .with_advice("name a branch, tag or commit that leads to files"),
        }
    }
}

/// Why [`Fetch::fetch`] failed.
enum Failed {
    Fetch(git2::Error),
    Other(InputError),
}

impl From<git2::Error> for Failed {
    fn from(error: git2::Error) -> Self {
        Self::Fetch(error)
    }
}

impl From<InputError> for Failed {
    fn from(error: InputError) -> Self {
        Self::Other(error)
    }
}

fn list(remote: &Remote<'_>) -> Result<Vec<Head>, git2::Error> {
    let head = |head: &git2::RemoteHead<'_>| Head {
        name: head.name().into(),
        oid: head.oid(),
        target: head.symref_target().map(Into::into),
    };
    Ok(remote.list()?.iter().map(head).collect())
}

fn proxy() -> ProxyOptions<'static> {
    let mut proxy = ProxyOptions::new();
    // From the environment, as git itself.
    proxy.auto();
    proxy
}

fn peel(repository: &Repository, oid: Oid) -> Option<Oid> {
    let commit = repository.find_object(oid, None).ok()?.peel_to_commit().ok()?;
    Some(commit.id())
}

/// Whether a fetch may succeed without a limit to its depth.
fn may_be_the_depth(error: &git2::Error, session: &Session<'_>) -> bool {
    let elsewhere = [
        ErrorClass::Os,
        ErrorClass::Ssl,
        ErrorClass::Ssh,
        ErrorClass::Http,
        ErrorClass::Repository,
    ];
    session.refusal().is_none()
        && !elsewhere.contains(&error.class())
        && error.code() != git2::ErrorCode::Auth
}

fn unknown(session: &Session<'_>, what: &str, name: &str, prefix: &str, heads: &[Head]) -> InputError {
    let mut existing: Vec<&str> = heads
        .iter()
        .filter_map(|head| head.name.strip_prefix(prefix))
        .filter(|existing| !existing.ends_with("^{}"))
        .collect();
    existing.sort_by(|a, b| strsim::jaro_winkler(b, name).total_cmp(&strsim::jaro_winkler(a, name)));
    let advice = match existing.as_slice() {
        [] => format!("the repository has no {what}: name another kind of revision"),
        some => {
            let shown: Vec<_> = some.iter().take(3).map(|name| format!("{name:?}")).collect();
            format!(
                "the repository has {} {what} name(s), for example {}",
                some.len(),
                shown.join(", ")
            )
        }
    };
    about(
        session,
        InputErrorKind::NotFound,
        &format!("there is no {what} {name:?}"),
    )
    .with_advice(advice)
}
