//! What libgit2's errors mean to whoever configured the repository.

use aicert_core::input::{InputError, InputErrorKind};
use git2::{ErrorClass, ErrorCode};

use super::address::{Server, Transport};
use super::auth::{Refusal, Session};
use super::known_hosts::{Verdict, lookup_name};

/// Explains why fetching failed.
pub(super) fn explain(error: &git2::Error, session: &Session<'_>) -> InputError {
    if let Some(refusal) = session.refusal() {
        return refused(refusal, session);
    }
    let message = plain(&session.access.redact(error.message()));
    let status = message
        .rsplit("status code: ")
        .next()
        .and_then(|code| code.trim().parse::<u16>().ok());
    match (error.code(), error.class(), status) {
        _ if message.contains("No space left on device") => {
            about(session, InputErrorKind::Storage, "the disk is full")
                .with_advice("free some space, or choose a place on a larger disk")
        }
        (_, ErrorClass::Http, Some(404 | 410)) => missing(session),
        (_, ErrorClass::Http, Some(401 | 403)) | (ErrorCode::Auth, ..) => refused(Refusal::Rejected, session),
        (_, ErrorClass::Http, Some(status @ (429 | 500..=599))) => about(
            session,
            InputErrorKind::Network,
            &format!("the server answered {status}"),
        )
        .with_advice("try again later")
        .retryable(),
        (_, ErrorClass::Http | ErrorClass::Net, _) if message.contains("redirect") => about(
            session,
            InputErrorKind::Network,
            &format!("the server redirects elsewhere ({message})"),
        )
        .with_advice("give the final address; often only `.git` is missing at its end"),
        (_, ErrorClass::Http, _) => not_a_repository(session, &message),
        (ErrorCode::Certificate, ..) | (_, ErrorClass::Ssl, _) => about(
            session,
            InputErrorKind::Refused,
            &format!("the server cannot prove who it is: {message}"),
        )
        .with_advice(
            "if your network has a certificate authority of its own, point SSL_CERT_FILE to its certificates",
        ),
        (ErrorCode::Owner, ..) => about(
            session,
            InputErrorKind::PermissionDenied,
            "the repository belongs to another user",
        )
        .with_advice("`git config --global --add safe.directory PATH` says that you trust it"),
        (ErrorCode::NotFound, ..) | (_, ErrorClass::Repository | ErrorClass::Net, _)
            if session.address.transport == Transport::Local =>
        {
            local_missing(session, &message)
        }
        (_, ErrorClass::Net | ErrorClass::Os, _)
            if message.contains("resolve address") || message.contains("connect to") =>
        {
            about(
                session,
                InputErrorKind::Network,
                &format!("the host could not be reached: {message}"),
            )
            .with_advice("check the address, the network and the proxy, then try again")
            .retryable()
        }
        // The words of git itself, and of the large code hosts.
        (_, ErrorClass::Ssh, _)
            if [
                "not appear to be a git",
                "not found",
                "could not be found",
                "not exist",
            ]
            .iter()
            .any(|words| message.contains(words)) =>
        {
            not_a_repository(session, &message)
        }
        (_, ErrorClass::Ssh, _) => about(
            session,
            InputErrorKind::PermissionDenied,
            &format!("SSH failed: {message}"),
        )
        .with_advice("check that the key is a private key that the server knows, and its passphrase"),
        // Over SSH, a server that has no such repository says so in words and closes the connection.
        (_, ErrorClass::Net, _) if session.address.transport == Transport::Ssh => {
            not_a_repository(session, &message)
        }
        (_, ErrorClass::Net | ErrorClass::Os, _) => about(
            session,
            InputErrorKind::Network,
            &format!("the connection failed: {message}"),
        )
        .with_advice("check the network, then try again")
        .retryable(),
        (_, ErrorClass::Odb | ErrorClass::Indexer | ErrorClass::Zlib | ErrorClass::Object, _) => about(
            session,
            InputErrorKind::Mismatch,
            &format!("what was received is damaged: {message}"),
        )
        .with_advice("check the repository with `git fsck`, or try again"),
        _ => about(session, InputErrorKind::Network, &message),
    }
}

/// What another program said, in one line.
fn plain(text: &str) -> String {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

fn refused(refusal: Refusal, session: &Session<'_>) -> InputError {
    let denied = |what: &str| about(session, InputErrorKind::PermissionDenied, what);
    let ssh = session.address.transport == Transport::Ssh;
    match refusal {
        Refusal::Cancelled => crate::error::cancelled(),
        Refusal::Needed if ssh => denied(
            "the server takes none of the keys of the SSH agent, or there is no agent",
        )
        .with_advice("give an SSH key with access to the repository, or add it to the agent (`ssh-add`)"),
        Refusal::Needed => {
            denied("the server asks for credentials: the repository is private, or does not exist")
                .with_advice("check the address; for a private repository, give a token that may read it")
        }
        Refusal::Rejected if ssh => denied("the server does not take the SSH key")
            .with_advice("check that the server knows the key, and its passphrase"),
        Refusal::Rejected if session.access.for_server(session.address).is_none() => {
            denied("the server refuses access, and no token is given for it")
                .with_advice("check the address; for a private repository, give a token that may read it")
        }
        Refusal::Rejected => denied("the server does not take the token")
            .with_advice("check that the token is valid and may read the repository"),
        Refusal::NoMethod => denied("the server offers no way to log in with these credentials")
            .with_advice("ask whoever runs the server which credentials it takes"),
        Refusal::HostKey {
            verdict,
            kind,
            fingerprint,
        } => host_key(session, &verdict, &kind, &fingerprint),
    }
}

fn host_key(session: &Session<'_>, verdict: &Verdict, kind: &str, fingerprint: &str) -> InputError {
    let (host, port) = match &session.address.server {
        Some(Server { host, port, .. }) => (host.as_str(), *port),
        None => ("", 22),
    };
    let shows = format!("{host} shows the {kind} key {fingerprint}");
    let refused = |what: String| about(session, InputErrorKind::Refused, &what);
    let add = format!("ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts");
    match verdict {
        Verdict::Changed => refused(format!(
            "{shows}, which is not the one in known_hosts: somebody may be in between"
        ))
        .with_advice(format!(
            "ask whoever runs the server for its fingerprint; only if it is this one, replace the entry \
                 (`ssh-keygen -R '{}'`, then `{add}`)",
            lookup_name(host, port)
        )),
        Verdict::Revoked => refused(format!("{shows}, which known_hosts marks as revoked"))
            .with_advice("ask whoever runs the server for its new key"),
        Verdict::Unknown { other_kinds } if !other_kinds.is_empty() => refused(format!(
            "{shows}, and known_hosts has only keys of other kinds: {}",
            other_kinds.join(", ")
        ))
        .with_advice(format!(
            "compare the fingerprint with the one that the server's owner publishes, then `{add}`"
        )),
        _ => refused(format!("{shows}, and known_hosts has none for it")).with_advice(format!(
            "compare the fingerprint with the one that the server's owner publishes, then `{add}`"
        )),
    }
}

fn missing(session: &Session<'_>) -> InputError {
    about(session, InputErrorKind::NotFound, "there is no such repository")
        .with_advice("check the address; private repositories also look missing to those without a token")
}

fn local_missing(session: &Session<'_>, message: &str) -> InputError {
    if std::path::Path::new(session.address.text()).exists() {
        return not_a_repository(session, message);
    }
    about(session, InputErrorKind::NotFound, "there is no such folder")
        .with_advice("check the path of the repository")
}

fn not_a_repository(session: &Session<'_>, message: &str) -> InputError {
    about(
        session,
        InputErrorKind::NotFound,
        &format!("there is no git repository there ({message})"),
    )
    .with_advice("check the address of the repository, and that you may read it")
}

/// An error about a repository.
pub(super) fn about(session: &Session<'_>, kind: InputErrorKind, what: &str) -> InputError {
    InputError::new(
        kind,
        format!("could not fetch {}: {what}", session.address.origin()),
    )
}
