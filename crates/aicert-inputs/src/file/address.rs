//! Where a file is, and how that is written down.

use std::path::PathBuf;

use aicert_core::input::{InputError, InputErrorKind};
use aicert_core::spec::FileLocation;
use url::{Host, Url};

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Http(Url),
    Local(PathBuf),
}

impl Address {
    /// Checks what is configured. No error repeats the URL's query or user information, which may be secret.
    pub(super) fn parse(location: &FileLocation) -> Result<Self, InputError> {
        let refused = |message: String, advice: &str| {
            InputError::new(InputErrorKind::Configuration, message).with_advice(advice)
        };
        let url = Url::parse(&location.url).map_err(|error| {
            refused(
                format!("the URL of the file is not valid: {error}"),
                "write it like https://host/path or file:///path",
            )
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                format!("the URL of {} holds a user name or password", shown(&url)),
                "take it out of the URL, where it would be recorded, and give it as a token",
            ));
        }
        match url.scheme() {
            "https" => Ok(Self::Http(url)),
            "http" if location.token.is_some() && !is_loopback(&url) => Err(refused(
                format!("a token for {} would be sent without encryption", shown(&url)),
                "use https",
            )),
            "http" => Ok(Self::Http(url)),
            "file" => {
                let local = url.host().is_none_or(|host| host == Host::Domain("localhost"));
                let path = url.to_file_path().ok().filter(|_| local);
                path.map(Self::Local).ok_or_else(|| {
                    refused(
                        format!("{} is not a file of this machine", shown(&url)),
                        "write it like file:///path",
                    )
                })
            }
            other => Err(refused(
                format!("files cannot be fetched by {other:?}: expected https, http or file"),
                "use an https URL, or download the file yourself and name it as file:///path",
            )),
        }
    }

    /// What the certificate says about where the file came from.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Http(url) => shown(url),
            // Made from a URL, so it has one.
            Self::Local(path) => Url::from_file_path(path).map_or_else(|()| String::new(), Into::into),
        }
    }
}

/// A URL as it may be shown and recorded: without user information, query and fragment.
///
/// The whole query goes, not only the parameters known to be signatures: services name their secrets as they like, a
/// list would miss some, and a certificate is published. The file's hash says what it was; the configuration, whose
/// hash is in the certificate too, says how to get it.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither can fail for a URL with a host; one without has no user information.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Whether a URL leads to this machine itself, so that nobody on the way can read along.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use aicert_core::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str, token: Option<&str>) -> Result<Address, InputError> {
        let token = token.map(|token| Secret::new(token.into()));
        Address::parse(&FileLocation {
            url: url.into(),
            sha256: None,
            token,
        })
    }

    #[test]
    fn addresses_are_recorded_without_secrets() {
        for (url, origin) in [
            (
                "https://host/a%20b/$(c);'d'?sig=hunter2&X-Amz-Signature=hunter2#hunter2",
                "https://host/a%20b/$(c);'d'",
            ),
            ("http://host:8080/x", "http://host:8080/x"),
            ("file:///data/a%20b", "file:///data/a%20b"),
            ("file://localhost/data", "file:///data"),
            ("HTTPS://HOST:443", "https://host/"),
        ] {
            assert_eq!(parse(url, None).unwrap().origin(), origin);
        }
    }

    #[test]
    fn what_makes_no_sense_or_gives_secrets_away_is_refused() {
        for (url, token, words) in [
            ("https://me:hunter2@host/", None, "user name or password"),
            ("https://hunter2@host/", None, "user name or password"),
            ("http://host/", Some("hunter2"), "without encryption"),
            ("http://localhost.example/", Some("hunter2"), "without encryption"),
            ("ftp://host/x", None, "expected https, http or file"),
            ("file://elsewhere/x", None, "not a file of this machine"),
            ("/plain/path", None, "not valid"),
            ("https://", None, "not valid"),
            ("", None, "not valid"),
        ] {
            let error = parse(url, token).unwrap_err();
            assert!(error.to_string().contains(words), "{url}: {error}");
            assert!(error.advice().is_some());
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(parse("http://127.0.0.1:9/", Some("t")).is_ok());
        assert!(parse("http://[::1]:9/", Some("t")).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_without_secrets_or_an_error(
            start in "(https?|file|)(:/{0,3})?", rest in "\\PC{0,40}"
        ) {
            let url = format!("{start}{rest}");
            if let Ok(address) = parse(&url, None) {
                prop_assert!(!address.origin().contains(['?', '#']), "{}", address.origin());
            }
        }
    }
}
