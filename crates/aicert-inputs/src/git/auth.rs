//! Credentials, host keys, and signs of life: everything that libgit2 asks us during a connection.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use aicert_core::input::{InputError, InputErrorKind};
use aicert_core::spec::GitCredentials;
use git2::{CertificateCheckStatus, Cred, CredentialType, RemoteCallbacks};

use super::address::{Address, Server, Transport};
use super::known_hosts::{self, Verdict};
use crate::background::Signals;
use crate::config::GitConfig;
use crate::error::storage;
use crate::reporter::Reporter;

/// Hosts take any user name beside a token; this one is what GitHub documents.
const TOKEN_USER: &str = "x-access-token";
/// What code hosts use where an SSH address names no user.
const SSH_USER: &str = "git";

/// Whom we are to the server of the configured repository.
#[derive(Debug, Clone)]
pub(super) struct Access {
    home: Address,
    credentials: Option<GitCredentials>,
    known_hosts: Vec<PathBuf>,
}

/// Why a connection was given up by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The server asks for credentials, and there are none for it.
    Needed,
    /// The server does not take the credentials.
    Rejected,
    /// The server offers no way to log in that we have credentials for.
    NoMethod,
    /// The host key is not known to be the server's.
    HostKey {
        verdict: Verdict,
        kind: String,
        fingerprint: String,
    },
    /// Nobody waits for the result any more.
    Cancelled,
}

impl Access {
    /// Checks that the credentials fit the address.
    pub(super) fn new(
        home: &Address,
        credentials: Option<GitCredentials>,
        config: &GitConfig,
    ) -> Result<Self, InputError> {
        let refused = |message: &str, advice: &str| {
            let message = format!("{}: {message}", home.origin());
            Err(InputError::new(InputErrorKind::Configuration, message).with_advice(advice))
        };
        match (&credentials, home.transport) {
            (None, _) | (Some(GitCredentials::Token(_)), Transport::Https) => {}
            (Some(GitCredentials::Token(_)), Transport::Http) if is_loopback(home) => {}
            (Some(GitCredentials::Token(_)), Transport::Http) => {
                return refused("a token would be sent without encryption", "use https");
            }
            (Some(GitCredentials::Token(_)), _) => {
                return refused(
                    "a token is for https, and this address is not",
                    "use an https address, or an SSH key",
                );
            }
            (Some(GitCredentials::SshKey { path, .. }), Transport::Ssh) => {
                // Named here, because libssh2 only says that it failed.
                std::fs::File::open(path).map_err(|error| storage("read the SSH key", path, error))?;
            }
            (Some(GitCredentials::SshKey { .. }), _) => {
                return refused(
                    "an SSH key is for ssh, and this address is not",
                    "use an ssh address, or a token",
                );
            }
            (Some(_), _) => {
                return refused("these credentials are not supported", "use a token or an SSH key");
            }
        }
        Ok(Self {
            home: home.clone(),
            credentials,
            known_hosts: config.known_hosts.clone(),
        })
    }

    /// The credentials for a server: those configured are for the configured repository's server alone.
    pub(super) fn for_server(&self, address: &Address) -> Option<&GitCredentials> {
        self.credentials
            .as_ref()
            .filter(|_| address.same_server(&self.home))
    }

    /// Whether a redirect may be followed: libgit2 would send the credentials to wherever it leads.
    pub(super) fn may_follow_redirects(&self, address: &Address) -> bool {
        self.for_server(address).is_none()
    }

    /// Removes secrets from what another library says.
    pub(super) fn redact(&self, text: &str) -> String {
        match &self.credentials {
            Some(GitCredentials::Token(secret)) => secret.redact(text),
            Some(GitCredentials::SshKey {
                passphrase: Some(secret),
                ..
            }) => secret.redact(text),
            _ => text.to_owned(),
        }
    }

    fn known_hosts_contents(&self) -> Vec<String> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .ok()
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        self.known_hosts.iter().filter_map(read).collect()
    }
}

fn is_loopback(address: &Address) -> bool {
    let Some(Server { host, .. }) = &address.server else {
        return false;
    };
    let host = host.trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// One connection.
pub(super) struct Session<'a> {
    pub(super) address: &'a Address,
    pub(super) access: &'a Access,
    signals: &'a Signals,
    reporter: &'a Reporter,
    offered: Cell<u32>,
    refusal: RefCell<Option<Refusal>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        address: &'a Address,
        access: &'a Access,
        signals: &'a Signals,
        reporter: &'a Reporter,
    ) -> Self {
        Self {
            address,
            access,
            signals,
            reporter,
            offered: Cell::new(0),
            refusal: RefCell::new(None),
        }
    }

    /// Why we gave up, if we did.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.borrow().clone()
    }

    pub(super) fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .credentials(|_, user, allowed| self.credentials(user, allowed))
            .certificate_check(|certificate, _| match certificate.as_hostkey() {
                Some(key) => self.host_key(key.hostkey().unwrap_or_default()),
                // OpenSSL has checked it, against SSL_CERT_FILE and SSL_CERT_DIR or the system's certificates.
                None => Ok(CertificateCheckStatus::CertificatePassthrough),
            })
            .transfer_progress(|progress| {
                self.reporter.at(progress.received_bytes() as u64, None);
                self.goes_on()
            })
            .sideband_progress(|_| self.goes_on())
            .pack_progress(|_, _, _| {
                self.goes_on();
            });
        callbacks
    }

    fn goes_on(&self) -> bool {
        let goes_on = self.signals.beat();
        if !goes_on {
            self.refuse(Refusal::Cancelled);
        }
        goes_on
    }

    fn refuse(&self, refusal: Refusal) -> git2::Error {
        self.refusal.borrow_mut().get_or_insert(refusal);
        git2::Error::from_str("refused")
    }

    fn credentials(&self, user: Option<&str>, allowed: CredentialType) -> Result<Cred, git2::Error> {
        if !self.goes_on() {
            return Err(self.refuse(Refusal::Cancelled));
        }
        let user = user.unwrap_or(SSH_USER);
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        let credentials = self.access.for_server(self.address);
        // libgit2 asks again, without end, for as long as the server says no.
        let offered = self.offered.replace(self.offered.get() + 1);
        if offered > 0 {
            return Err(self.refuse(if credentials.is_some() {
                Refusal::Rejected
            } else {
                Refusal::Needed
            }));
        }
        match credentials {
            Some(GitCredentials::Token(token)) if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                Cred::userpass_plaintext(TOKEN_USER, token.expose())
            }
            Some(GitCredentials::SshKey { path, passphrase })
                if allowed.contains(CredentialType::SSH_KEY) =>
            {
                Cred::ssh_key(
                    user,
                    None,
                    path,
                    passphrase.as_ref().map(|secret| secret.expose()),
                )
            }
            Some(_) => Err(self.refuse(Refusal::NoMethod)),
            None if allowed.contains(CredentialType::SSH_KEY) => {
                Cred::ssh_key_from_agent(user).map_err(|_| self.refuse(Refusal::Needed))
            }
            None => Err(self.refuse(Refusal::Needed)),
        }
    }

    fn host_key(&self, key: &[u8]) -> Result<CertificateCheckStatus, git2::Error> {
        let files = self.access.known_hosts_contents();
        let verdict = match &self.address.server {
            Some(server) if !key.is_empty() => {
                known_hosts::check(files.iter().map(String::as_str), &server.host, server.port, key)
            }
            _ => Verdict::Unknown {
                other_kinds: Vec::new(),
            },
        };
        if verdict == Verdict::Known {
            return Ok(CertificateCheckStatus::CertificateOk);
        }
        let kind = known_hosts::kind(key).unwrap_or_else(|| "unknown kind".into());
        Err(self.refuse(Refusal::HostKey {
            verdict,
            kind,
            fingerprint: known_hosts::fingerprint(key),
        }))
    }
}
