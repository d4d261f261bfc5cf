//! pip in a container: its settings, its output, and what its errors mean.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use aicert_core::runtime::RuntimeErrorKind;
use aicert_core::secret::Secret;
use aicert_core::spec::PackageIndex;
use bollard::models::{ContainerCreateBody, Mount};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::error::Fault;
use crate::failure;
use crate::output::Lines;
use crate::process::{Output, run_to_end};
use crate::sandbox;

const SCRIPT: &str = include_str!("pip.py");
/// Where a container sees what pip needs; below a temporary file system, so that no image keeps a trace of it.
pub(crate) const ROOT: &str = "/tmp/aicert";
const TAIL: usize = 25;

/// The folder with pip's settings that a container sees, removed after use.
pub(crate) struct Settings {
    folder: TempDir,
    secrets: Vec<Secret>,
    modes: Modes,
}

struct Modes {
    folder: u32,
    file: u32,
}

impl Settings {
    /// Makes a folder in `parent` that only this user, in the container and outside, can read.
    pub(crate) fn private(parent: &Path) -> Result<Self, Fault> {
        Self::new(
            parent,
            Modes {
                folder: 0o700,
                file: 0o600,
            },
        )
    }

    /// Makes a folder without secrets, for a container that runs as root: without capabilities, root reads only what
    /// everybody may.
    pub(crate) fn open(parent: &Path) -> Result<Self, Fault> {
        Self::new(
            parent,
            Modes {
                folder: 0o755,
                file: 0o644,
            },
        )
    }

    fn new(parent: &Path, modes: Modes) -> Result<Self, Fault> {
        let folder = tempfile::Builder::new().prefix(".pip-").tempdir_in(parent);
        let folder = folder.map_err(|error| Fault::file("make a folder in", parent, error))?;
        let settings = Self {
            folder,
            secrets: Vec::new(),
            modes,
        };
        let inner = settings.folder.path().join("settings");
        let made = || {
            fs::create_dir(&inner)?;
            fs::set_permissions(&inner, Permissions::from_mode(settings.modes.folder))
        };
        made().map_err(|error| Fault::file("make", &inner, error))?;
        settings.write("pip.py", SCRIPT.as_bytes())?;
        Ok(settings)
    }

    /// Writes a file that the container sees under [`ROOT`]`/settings`.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), Fault> {
        let path = self.folder.path().join("settings").join(name);
        let written = || {
            // Private until it is written, whatever the mode it is to have.
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(content)?;
            file.set_permissions(Permissions::from_mode(self.modes.file))
        };
        written().map_err(|error| Fault::file("write", &path, error))
    }

    /// Writes where packages come from; credentials reach the container in this file alone.
    pub(crate) fn write_index(&mut self, index: &PackageIndex) -> Result<(), Fault> {
        let mut lines = String::from("[global]\ntimeout = 60\nretries = 3\n");
        match (&index.url, &index.credentials) {
            (Some(url), credentials) => {
                let url = with_credentials(url, credentials.as_ref())?;
                lines.push_str(&format!("index-url = {}\n", url.expose()));
                self.secrets.push(url);
            }
            (None, Some(_)) => {
                return Err(wrong_index(
                    "there are credentials for a package index, but no address of one",
                    "name the index, too",
                ));
            }
            (None, None) => {}
        }
        if let Some(proxy) = &index.proxy {
            if proxy
                .expose()
                .contains(|c: char| c.is_control() || c.is_whitespace())
            {
                return Err(wrong_index(
                    "the address of the proxy has a space or control character",
                    "expected http://host:port",
                ));
            }
            lines.push_str(&format!("proxy = {}\n", proxy.expose()));
        }
        if let Some(bundle) = &index.ca_bundle {
            let pem = fs::read(bundle).map_err(|error| Fault::file("read the CA bundle", bundle, error))?;
            if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                return Err(wrong_index(
                    &format!("the CA bundle {} has no certificate", bundle.display()),
                    "expected a file with certificates in PEM form",
                ));
            }
            self.write("ca.pem", &pem)?;
        }
        self.secrets.extend(index.credentials.iter().flat_map(spellings));
        self.secrets.extend(index.proxy.iter().flat_map(spellings));
        self.write("pip.conf", lines.as_bytes())
    }

    /// A folder beside the settings that a container may write to.
    pub(crate) fn scratch(&self) -> Result<std::path::PathBuf, Fault> {
        let path = self.folder.path().join("tmp");
        fs::create_dir(&path).map_err(|error| Fault::file("make", &path, error))?;
        Ok(path)
    }

    pub(crate) fn mount(&self) -> Result<Mount, Fault> {
        sandbox::bind(
            &self.folder.path().join("settings"),
            &format!("{ROOT}/settings"),
            false,
        )
    }

    /// Removes every secret from a text.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| secret.redact(&text))
    }
}

/// The command that runs pip with the settings; `-I` keeps the image's environment and user folder out.
pub(crate) fn command(arguments: &[&str]) -> Vec<String> {
    let script = format!("{ROOT}/settings/pip.py");
    let (config, bundle) = (
        format!("{ROOT}/settings/pip.conf"),
        format!("{ROOT}/settings/ca.pem"),
    );
    let fixed = ["python3", "-I", &script, &config, &bundle];
    let common = [
        "--no-input",
        "--no-cache-dir",
        "--no-color",
        "--disable-pip-version-check",
        "--progress-bar=off",
    ];
    // Options that every command knows come after the command's name.
    let (name, rest) = arguments
        .split_first()
        .map_or(("help", arguments), |(name, rest)| (*name, rest));
    fixed
        .iter()
        .copied()
        .chain([name])
        .chain(common)
        .chain(rest.iter().copied())
        .map(str::to_owned)
        .collect()
}

/// What pip printed last, and whether it succeeded.
pub(crate) struct Said {
    pub(crate) exit_code: i64,
    pub(crate) tail: Vec<String>,
    /// Whether any line told of a connection that failed, which pip prints long before its last.
    pub(crate) connection: bool,
}

/// Runs pip in a container, giving each line of its output to `show`, without secrets.
pub(crate) async fn run(
    engine: &Engine,
    id: &str,
    settings: &Settings,
    mut show: impl FnMut(&str),
) -> Result<Said, Fault> {
    let (sender, mut receiver) = mpsc::channel::<Output>(256);
    let mut said = Said {
        exit_code: -1,
        tail: Vec::new(),
        connection: false,
    };
    let mut take = |line: &str| {
        let line = settings.redact(line);
        said.connection |= failure::is_connection(&line);
        show(&line);
        if said.tail.len() == TAIL {
            said.tail.remove(0);
        }
        said.tail.push(line);
    };
    let read = async {
        let mut lines = [Lines::default(), Lines::default()];
        while let Some(piece) = receiver.recv().await {
            lines[usize::from(piece.is_error)].push(&piece.bytes, &mut take);
        }
        for lines in &mut lines {
            lines.finish(&mut take);
        }
    };
    let (end, ()) = futures_util::join!(run_to_end(engine, id, None, sender), read);
    said.exit_code = end?.state.exit_code.unwrap_or(-1);
    Ok(said)
}

/// Settings that are common to pip's containers.
pub(crate) fn with_mounts(
    mut body: ContainerCreateBody,
    mounts: Vec<Mount>,
    read_only: bool,
) -> ContainerCreateBody {
    let host = body.host_config.get_or_insert_default();
    host.mounts = Some(mounts);
    host.readonly_rootfs = Some(read_only);
    host.init = Some(false);
    host.tmpfs = Some([("/tmp".to_owned(), "rw,nosuid,nodev,mode=1777".to_owned())].into());
    body.working_dir = Some("/tmp".into());
    body
}

/// The address with user and password in it, as pip reads it; percent-encoded (RFC 3986, section 3.2.1).
fn with_credentials(url: &str, credentials: Option<&Secret>) -> Result<Secret, Fault> {
    let wrong = |reason| {
        wrong_index(
            reason,
            "expected https://host/path, and credentials apart from it",
        )
    };
    if url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(wrong(
            "the address of the package index has a space or control character",
        ));
    }
    let parts = url
        .split_once("://")
        .filter(|(scheme, rest)| ["https", "http"].contains(scheme) && !rest.is_empty());
    let Some((scheme, rest)) = parts else {
        return Err(wrong("the address of the package index is none of http or https"));
    };
    if rest.split('/').next().unwrap_or_default().contains('@') {
        return Err(wrong(
            "the address of the package index has credentials in it, where they would be shown",
        ));
    }
    let Some(credentials) = credentials else {
        return Ok(Secret::new(url.to_owned()));
    };
    let Some((user, password)) = credentials.expose().split_once(':') else {
        return Err(wrong_index(
            "the credentials of the package index have no `:`",
            "expected user:password; for a token, __token__:<token>",
        ));
    };
    Ok(Secret::new(format!(
        "{scheme}://{}:{}@{rest}",
        percent_encoded(user),
        percent_encoded(password)
    )))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// How a secret may show up in a text: whole, encoded, and the password alone.
fn spellings(secret: &Secret) -> Vec<Secret> {
    let text = secret.expose();
    let authority = text.split_once("://").map_or(text, |(_, rest)| {
        rest.rsplit_once('@').map_or("", |(user, _)| user)
    });
    let password = authority.split_once(':').map_or("", |(_, password)| password);
    [
        text,
        authority,
        &percent_encoded(text),
        password,
        &percent_encoded(password),
    ]
    .into_iter()
    .filter(|text| text.len() > 3)
    .map(|text| Secret::new(text.to_owned()))
    .collect()
}

fn wrong_index(message: &str, advice: &str) -> Fault {
    Fault::told(RuntimeErrorKind::Dependencies, message, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_in_one_private_file_and_in_no_text() {
        let parent = tempfile::tempdir().unwrap();
        let mut settings = Settings::private(parent.path()).unwrap();
        let index = PackageIndex {
            url: Some("https://example.org/simple".into()),
            credentials: Some(Secret::new("user:p@ss/word%".into())),
            ca_bundle: None,
            proxy: Some(Secret::new("http://me:hunter2@proxy:3128".into())),
        };
        settings.write_index(&index).unwrap();
        let path = settings.folder.path().join("settings/pip.conf");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("index-url = https://user:p%40ss%2Fword%25@example.org/simple\n"),
            "{text}"
        );
        assert!(text.contains("proxy = http://me:hunter2@proxy:3128\n"));
        for line in [
            "Looking in indexes: https://user:p%40ss%2Fword%25@example.org/simple",
            "error for user:p@ss/word% and p@ss/word%",
            "proxy http://me:hunter2@proxy:3128 said no to me:hunter2",
        ] {
            let shown = settings.redact(line);
            assert!(
                !shown.contains("hunter2") && !shown.contains("ss/word") && !shown.contains("ss%2Fword"),
                "{shown}"
            );
        }
        let folder = settings.folder.path().to_owned();
        drop(settings);
        assert!(!folder.exists());
    }

    #[test]
    fn an_index_that_could_smuggle_settings_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let refused = |url: &str, credentials: Option<&str>| {
            let credentials = credentials.map(|text| Secret::new(text.into()));
            let index = PackageIndex {
                url: Some(url.into()),
                credentials,
                ..PackageIndex::default()
            };
            Settings::private(parent.path())
                .unwrap()
                .write_index(&index)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("https://example.org/\ntrusted-host = x", None).contains("control character"));
        assert!(refused("https://u:p@example.org/", None).contains("credentials in it"));
        assert!(refused("file:///x", None).contains("none of http"));
        assert!(refused("https://example.org/", Some("token")).contains("no `:`"));
    }
}
