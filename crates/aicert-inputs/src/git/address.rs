//! Where a repository is.

use std::path::Path;

use aicert_core::input::{InputError, InputErrorKind};
use percent_encoding::percent_decode_str;
use url::{Host, Position, Url};

const FORMS: &str = "write it like https://host/path, ssh://user@host/path, user@host:path, file:///path or /path, without credentials";

/// A checked address of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) transport: Transport,
    /// For all but local repositories.
    pub(super) server: Option<Server>,
    /// What libgit2 is given. No credentials can be in it.
    text: String,
    /// What the certificate says.
    origin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Https,
    Http,
    Ssh,
    Local,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// SSH only.
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Checks what is configured, or what a `.gitmodules` file says. Errors never repeat user information.
    pub(super) fn parse(text: &str) -> Result<Self, InputError> {
        if text.chars().any(char::is_control) {
            return Err(refused("the address of the repository holds a control character"));
        }
        if text.starts_with('/') {
            return Self::local(Path::new(text));
        }
        if !text.contains("://") {
            return Self::scp_like(text);
        }
        let url = Url::parse(text)
            .map_err(|error| refused(&format!("the address of the repository is not a URL: {error}")))?;
        match url.scheme() {
            "https" => Self::http(&url, Transport::Https),
            "http" => Self::http(&url, Transport::Http),
            "ssh" | "git+ssh" | "ssh+git" => Self::ssh(&url),
            "file" => {
                let local = url.host().is_none_or(|host| host == Host::Domain("localhost"));
                match url.to_file_path() {
                    Ok(path) if local => Self::local(&path),
                    _ => Err(refused(
                        "the address of the repository is not a path of this machine",
                    )),
                }
            }
            other => Err(refused(&format!("repositories cannot be fetched by {other:?}"))),
        }
    }

    fn http(url: &Url, transport: Transport) -> Result<Self, InputError> {
        // A user name alone may be a token as well.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                refused("the address of the repository holds a user name, token or password").with_advice(
                    "take it out of the address, where it would be recorded, and give it as a token",
                ),
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused(
                "the address of the repository has a `?` or `#` part, which may hold a secret",
            ));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(Self {
            transport,
            server: Some(Server {
                user: None,
                host,
                port,
            }),
            text: url.as_str().into(),
            origin: url.as_str().into(),
        })
    }

    fn ssh(url: &Url) -> Result<Self, InputError> {
        if url.password().is_some() {
            return Err(
                refused("the address of the repository holds a password").with_advice("use an SSH key")
            );
        }
        let (host, path) = (url.host_str().unwrap_or_default(), url.path());
        if url.query().is_some() || url.fragment().is_some() || host.is_empty() || path.len() < 2 {
            return Err(refused(
                "the address of the repository has no path, or a `?` or `#` part",
            ));
        }
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let mut address = Self::ssh_server(user, host, url.port().unwrap_or(22), url.as_str())?;
        // As git, and unlike libgit2, which would ask the server for the path as it is written.
        let decoded = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| refused("its path is not UTF-8"))?;
        if decoded != path {
            if decoded.chars().any(|c| c.is_control() || "?#%".contains(c)) {
                return Err(refused(
                    "the path of the repository has characters that are not allowed",
                ));
            }
            address.text = format!("{}{decoded}", &url[..Position::BeforePath]);
        }
        Ok(address)
    }

    /// `user@host:path`, as in `git-clone(1)`.
    fn scp_like(text: &str) -> Result<Self, InputError> {
        let not_an_address =
            || refused("the address of the repository is neither a URL nor an absolute path");
        let (server, path) = text.split_once(':').ok_or_else(not_an_address)?;
        let (user, host) = server
            .rsplit_once('@')
            .map_or((None, server), |(user, host)| (Some(user), host));
        // What starts with a dash could be taken for an option on the other side.
        if host.is_empty()
            || server.contains('/')
            || path.is_empty()
            || path.starts_with(['-', ':'])
            || path.contains('@')
            || user.is_some_and(|u| u.contains(':'))
        {
            return Err(not_an_address());
        }
        Self::ssh_server(user, host, 22, text)
    }

    fn ssh_server(user: Option<&str>, host: &str, port: u16, text: &str) -> Result<Self, InputError> {
        let plain = |text: &str| {
            !text.starts_with('-')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._:[]+".contains(&b))
        };
        if !plain(host) || !user.is_none_or(|user| !user.is_empty() && plain(user)) {
            return Err(refused(
                "the user or host in the address of the repository has characters that are not allowed",
            ));
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let server = Server {
            user: user.map(Into::into),
            host,
            port,
        };
        Ok(Self {
            transport: Transport::Ssh,
            server: Some(server),
            text: text.into(),
            origin: text.into(),
        })
    }

    fn local(path: &Path) -> Result<Self, InputError> {
        let text = path
            .to_str()
            .ok_or_else(|| refused("the path of the repository is not UTF-8"))?;
        if text.chars().any(char::is_control) {
            return Err(refused("the path of the repository holds a control character"));
        }
        Ok(Self {
            transport: Transport::Local,
            server: None,
            text: text.into(),
            origin: Url::from_file_path(path)
                .map_err(|()| refused("the path of the repository is not absolute"))?
                .into(),
        })
    }

    /// What libgit2 is given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What the certificate says.
    pub(super) fn origin(&self) -> String {
        self.origin.clone()
    }

    /// Whether credentials for one are meant for the other too.
    pub(super) fn same_server(&self, other: &Self) -> bool {
        let place = |address: &Self| {
            address
                .server
                .as_ref()
                .map(|server| (server.host.clone(), server.port))
        };
        self.transport == other.transport && place(self) == place(other)
    }

    /// The address of a submodule, which may be relative to this one, and must not be less protected: what a remote
    /// repository says can neither read repositories of this machine nor go without encryption.
    pub(super) fn submodule(&self, url: &str) -> Result<Self, InputError> {
        let address = if url.starts_with("./") || url.starts_with("../") {
            self.relative(url)?
        } else {
            Self::parse(url)?
        };
        let allowed = match (self.transport, address.transport) {
            (Transport::Local, _) | (_, Transport::Https | Transport::Ssh) => true,
            (parent, child) => parent == child && child == Transport::Http,
        };
        if allowed {
            return Ok(address);
        }
        let kind = match address.transport {
            Transport::Http => "without encryption (http)",
            _ => "on this machine",
        };
        Err(InputError::new(
            InputErrorKind::Refused,
            format!("its repository would be fetched {kind}, its parent's is not"),
        )
        .with_advice("change the URL in .gitmodules, or set `submodules: false` if the job does not need it"))
    }

    /// As `git-submodule(1)`: `./` and `../` relative to this repository's own address.
    fn relative(&self, url: &str) -> Result<Self, InputError> {
        let outside = || refused("its relative address leads above its parent's server");
        let base = if self.transport == Transport::Local {
            &self.text
        } else {
            &self.origin
        };
        let mut base = base.trim_end_matches('/').to_owned();
        let mut rest = url;
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                rest = after;
                let at = base.rfind(['/', ':']).ok_or_else(outside)?;
                // `host:path` keeps its colon; `scheme://host` and `/` have nothing left to take away.
                if base.ends_with(':') || base[..at].ends_with(['/', ':']) {
                    return Err(outside());
                }
                let colon = base.as_bytes()[at] == b':';
                base.truncate(if colon { at + 1 } else { at });
            } else {
                break;
            }
        }
        let slash = if base.ends_with(':') || base.ends_with('/') {
            ""
        } else {
            "/"
        };
        let joined = Self::parse(&format!("{base}{slash}{rest}"))?;
        if joined.same_server(self) {
            Ok(joined)
        } else {
            Err(outside())
        }
    }
}

fn refused(message: &str) -> InputError {
    InputError::new(InputErrorKind::Configuration, message).with_advice(FORMS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_understood() {
        for (text, transport, server, origin) in [
            (
                "https://host/a/b.git",
                Transport::Https,
                Some((None, "host", 443)),
                "https://host/a/b.git",
            ),
            (
                "http://HOST:8080/a",
                Transport::Http,
                Some((None, "host", 8080)),
                "http://host:8080/a",
            ),
            (
                "ssh://git@host:2222/a",
                Transport::Ssh,
                Some((Some("git"), "host", 2222)),
                "ssh://git@host:2222/a",
            ),
            (
                "ssh://host/a%20b",
                Transport::Ssh,
                Some((None, "host", 22)),
                "ssh://host/a%20b",
            ),
            (
                "git@host:a/b.git",
                Transport::Ssh,
                Some((Some("git"), "host", 22)),
                "git@host:a/b.git",
            ),
            ("host:a", Transport::Ssh, Some((None, "host", 22)), "host:a"),
            ("file:///a%20b", Transport::Local, None, "file:///a%20b"),
            ("/a b;$(c)", Transport::Local, None, "file:///a%20b;$(c)"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.transport, transport, "{text}");
            let found = address
                .server
                .as_ref()
                .map(|s| (s.user.as_deref(), s.host.as_str(), s.port));
            assert_eq!(found, server, "{text}");
            assert_eq!(address.origin(), origin);
        }
    }

    #[test]
    fn addresses_that_hold_secrets_or_make_no_sense_are_refused() {
        for text in [
            "https://me:hunter2@host/a",
            "https://hunter2@host/a",
            "ssh://me:hunter2@host/a",
            "me:hunter2@host:a",
            "https://host/a?private_token=hunter2",
            "https://host/a#hunter2",
            "git://host/a",
            "ext::sh -c true",
            "file://elsewhere/a",
            "relative/path",
            "./a",
            "",
            "ssh://host/a%00b",
            "ssh://host/a%0ab",
            "ssh://host/a%ffb",
            "-oProxyCommand=true:a",
            "host:-a",
            "ssh://-oProxyCommand=true/a",
            "ssh://host$(true)/a",
            "user name@host:a",
            "https://host/a\nb",
            "ssh://host",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!(error.kind(), InputErrorKind::Configuration, "{text}");
            assert!(error.advice().is_some());
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn submodules_are_relative_to_their_parent_and_no_less_protected() {
        for (parent, url, expected) in [
            ("https://host/a/b.git", "../c.git", Some("https://host/a/c.git")),
            ("https://host/a/b.git/", "../../c", Some("https://host/c")),
            ("https://host/a/b", "./c", Some("https://host/a/b/c")),
            ("git@host:a/b", "../c", Some("git@host:a/c")),
            ("git@host:b", "../c", Some("git@host:c")),
            ("/srv/a", "../b", Some("/srv/b")),
            ("https://host/a", "git@other:b", Some("git@other:b")),
            ("https://host/a", "../../../b", None),
            ("https://host/a", "../..//evil/b", None),
            ("git@host:b", "../../c", None),
            ("https://host/a", "http://host/b", None),
            ("https://host/a", "/etc", None),
            ("https://host/a", "file:///etc", None),
            ("git@host:a", "file:///etc", None),
            ("http://host/a", "http://host/b", Some("http://host/b")),
            ("/srv/a", "file:///srv/b", Some("/srv/b")),
            ("https://host/a", "ext::sh -c true", None),
        ] {
            let found = Address::parse(parent).unwrap().submodule(url);
            assert_eq!(
                found.as_ref().ok().map(Address::text),
                expected,
                "{parent} {url}: {found:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_holds_no_password(text in "(https://|ssh://|git@|/|)[a-z:@/.?#\\-]{0,20}") {
            if let Ok(address) = Address::parse(&text) {
                if let Ok(url) = Url::parse(&address.origin()) {
                    prop_assert!(url.password().is_none());
                }
                let _ = address.submodule("../x");
            }
        }
    }
}
