//! From `aicert.yaml` to what a machine needs of this computer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aicert_core::api::{InputForm, SecretText, Submission};
use aicert_core::config::elsewhere;
use aicert_core::digest::Nonce;
use aicert_core::runtime::JobId;
use aicert_core::secret::Secret;
use aicert_core::spec::{InputSpec, JobSpec, Location};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use zeroize::Zeroizing;

use crate::error::ClientError;

/// The largest of the small files that go with a job, in bytes: keys, certificates to trust.
const FILE_LIMIT: u64 = 1 << 20;

/// A job that is ready to be sent: its configuration with every environment variable and small file that it names, and the
/// inputs that are on this computer.
#[derive(Debug, Clone)]
pub struct PreparedJob {
    spec: JobSpec,
    submission: Submission,
    uploads: Vec<Upload>,
}

/// An input that is on this computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its name in the configuration.
    pub name: String,
    /// In what form it is sent.
    pub form: InputForm,
    /// The file or directory.
    pub path: PathBuf,
}

impl PreparedJob {
    /// Reads a configuration and gathers what it needs. `base_dir` is the folder of the file, `environment` looks up
    /// variables; only those that the configuration asks for leave this computer.
    ///
    /// # Errors
    ///
    /// When the configuration is not right, or needs something that cannot be sent.
    pub fn from_yaml(
        id: &JobId,
        text: &str,
        base_dir: &Path,
        nonce: Nonce,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ClientError> {
        let base_dir =
            std::path::absolute(base_dir).map_err(|error| ClientError::storage("find", base_dir, error))?;
        let Some(folder) = base_dir.to_str() else {
            return Err(ClientError::Usage {
                message: format!("the folder {base_dir:?} has a name that is not UTF-8"),
                advice: "move the configuration to a folder with another name",
            });
        };
        let asked = RefCell::new(BTreeMap::new());
        let record = |name: &str| {
            let value = environment(name)?;
            let secret = SecretText(Secret::new(value.clone()));
            asked.borrow_mut().insert(name.to_owned(), secret);
            Some(value)
        };
        let mut spec = JobSpec::from_yaml(text, &base_dir, &record).map_err(ClientError::Configuration)?;
        // What the machine would refuse is better known before there is one.
        let known_hosts = known_hosts(&spec, environment);
        elsewhere::refuse(text, elsewhere::objections(&spec, &known_hosts))
            .map_err(ClientError::Configuration)?;
        let mut files = BTreeMap::new();
        for path in spec.auxiliary_files() {
            let Some(name) = path.to_str() else {
                return Err(ClientError::Usage {
                    message: format!("the file {path:?} has a name that is not UTF-8"),
                    advice: "give the file another name",
                });
            };
            files.insert(name.to_owned(), read_small(path)?);
        }
        let uploads = spec.inputs.iter().filter_map(|input| upload(input).transpose());
        let uploads = uploads.collect::<Result<_, _>>()?;
        Ok(Self {
            submission: Submission {
                id: id.as_str().to_owned(),
                config: text.to_owned(),
                base_dir: folder.to_owned(),
                nonce,
                variables: asked.into_inner(),
                files,
                known_hosts,
            },
            uploads,
            spec,
        })
    }

    /// The job.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// What is sent first: see [`crate::AttestedClient::submit`]. It holds secrets.
    pub fn submission(&self) -> &Submission {
        &self.submission
    }

    /// What is sent when the machine asks for it: see [`crate::AttestedClient::send_inputs`].
    pub fn uploads(&self) -> &[Upload] {
        &self.uploads
    }
}

fn read_small(path: &Path) -> Result<SecretText, ClientError> {
    let failed = |error| ClientError::storage("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(ClientError::Usage {
            message: format!("the file {path:?} has more than {FILE_LIMIT} bytes"),
            advice: "keys and certificates are smaller: check the path; large files are inputs (`resources`)",
        });
    }
    Ok(SecretText(Secret::new(STANDARD.encode(&*bytes))))
}

/// What this computer knows about the SSH servers of a job's repositories, and about no others that are named. A file that
/// cannot be read is one that says nothing, as for ssh itself.
fn known_hosts(spec: &JobSpec, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let servers: BTreeSet<_> = spec
        .inputs
        .iter()
        .filter_map(|input| elsewhere::ssh_server(&input.location))
        .collect();
    if servers.is_empty() {
        return String::new();
    }
    let own = environment("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts"));
    let files = own.into_iter().chain(["/etc/ssh/ssh_known_hosts".into()]);
    let mut known = BTreeSet::new();
    for path in files {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes));
        let text = read.map(|_| String::from_utf8_lossy(&bytes)).unwrap_or_default();
        for server in &servers {
            known.extend(elsewhere::lines_about(&text, server).map(|line| format!("{line}\n")));
        }
    }
    known.into_iter().collect()
}

/// What has to be sent of an input; nothing of what the machine fetches itself.
fn upload(input: &InputSpec) -> Result<Option<Upload>, ClientError> {
    let refused = |message: String, advice: &str| ClientError::Input {
        name: input.name.clone(),
        message,
        advice: advice.to_owned(),
    };
    let (form, path) = match &input.location {
        Location::Directory(directory) => (InputForm::Tar, directory.path.clone()),
        Location::File(file) if file.url.starts_with("file:") => {
            let path = Url::parse(&file.url).ok().and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| {
                refused(
                    format!("{:?} names no file of this computer", file.url),
                    "write it like file:///path",
                )
            })?;
            (InputForm::File, path)
        }
        _ => return Ok(None),
    };
    // As segments of an address, these mean the folder itself and the one above.
    if matches!(input.name.as_str(), "." | "..") {
        return Err(refused(
            "an input with this name cannot be sent".into(),
            "give it another `name`",
        ));
    }
    Ok(Some(Upload {
        name: input.name.clone(),
        form,
        path,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
kind: python
pythonVersion: 11
source: {type: directory, path: ./code}
resources:
  - {type: file, url: 'file:///data/a%20b.bin', destinationPath: a.bin}
  - {type: file, url: 'https://example.org/b.bin', tokenEnv: TOKEN}
packageIndex: {url: 'https://example.org/simple', caBundle: ./ca.pem}
machine: {provider: local, tpm: swtpm}
";

    fn prepare(text: &str, base_dir: &Path) -> Result<PreparedJob, ClientError> {
        let environment = |name: &str| match name {
            "TOKEN" => Some("hunter2".to_owned()),
            "UNRELATED" => Some("private".to_owned()),
            _ => None,
        };
        let id = "job-1".parse().unwrap();
        PreparedJob::from_yaml(&id, text, base_dir, Nonce::from_bytes([7; 32]), &environment)
    }

    #[test]
    fn what_is_asked_for_is_sent_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "authority").unwrap();
        let job = prepare(CONFIG, folder.path()).unwrap();
        let submission = job.submission();
        assert_eq!(submission.config, CONFIG);
        assert_eq!(submission.base_dir, folder.path().to_str().unwrap());
        let names: Vec<_> = submission.variables.keys().collect();
        assert_eq!(names, ["TOKEN"]);
        let ca = folder.path().join("ca.pem");
        let sent = &submission.files[ca.to_str().unwrap()];
        assert_eq!(STANDARD.decode(sent.0.expose()).unwrap(), b"authority");
        assert_eq!(
            job.uploads(),
            [
                Upload {
                    name: "code".into(),
                    form: InputForm::Tar,
                    path: folder.path().join("code")
                },
                Upload {
                    name: job.spec().inputs[1].name.clone(),
                    form: InputForm::File,
                    path: "/data/a b.bin".into()
                },
            ]
        );
        // The machine reads the very same job out of what is sent.
        let variables = &submission.variables;
        let again = JobSpec::from_yaml(&submission.config, submission.base_dir.as_ref(), &|name| {
            variables.get(name).map(|value| value.0.expose().to_owned())
        });
        assert_eq!(format!("{:?}", again.unwrap()), format!("{:?}", job.spec()));
        assert!(!format!("{job:?}").contains("hunter2"));
        assert!(!format!("{job:?}").contains(&STANDARD.encode("authority")));
    }

    #[test]
    fn what_is_known_of_ssh_servers_goes_along() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        let line = "git.example.org ssh-ed25519 AAAA\n";
        let all = format!("private.example.org ssh-ed25519 BBBB\n{line}");
        std::fs::write(home.path().join(".ssh/known_hosts"), all).unwrap();
        let text = "kind: python\npythonVersion: 11\nmachine: {provider: local, tpm: swtpm}\n\
            source: {type: git, gitRepo: 'git@git.example.org:code'}\n";
        let environment = |name: &str| (name == "HOME").then(|| home.path().to_str().unwrap().to_owned());
        let (id, nonce) = ("job-1".parse().unwrap(), Nonce::from_bytes([7; 32]));
        let job = PreparedJob::from_yaml(&id, text, home.path(), nonce, &environment).unwrap();
        let sent = &job.submission().known_hosts;
        assert!(sent.contains(line) && !sent.contains("private"), "{sent}");
        assert!(job.submission().variables.is_empty());
    }

    #[test]
    fn what_cannot_be_sent_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = prepare(CONFIG, folder.path()).unwrap_err();
        assert!(error.to_string().contains("it does not exist"), "{error}");
        std::fs::write(folder.path().join("ca.pem"), vec![b'x'; FILE_LIMIT as usize + 1]).unwrap();
        let error = prepare(CONFIG, folder.path()).unwrap_err();
        assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
        std::fs::write(folder.path().join("ca.pem"), "").unwrap();
        for (from, to, cause) in [
            (
                "source: {type: directory, path: ./code}",
                "source: {type: git, gitRepo: /srv/code}",
                "the repository is a folder of your machine",
            ),
            (
                "source: {type: directory, path: ./code}",
                "source: {type: git, gitRepo: 'git@example.org:x'}",
                "no key of the SSH server example.org",
            ),
            (
                "url: 'https://example.org/simple'",
                "url: 'file:///wheels'",
                "the package index is a folder of your machine",
            ),
            (
                "source: {type: directory, path: ./code}",
                "source: {type: directory, path: ./code, name: '..'}",
                "cannot be sent",
            ),
            ("tokenEnv: TOKEN", "tokenEnv: ABSENT", "ABSENT is not set"),
        ] {
            assert!(CONFIG.contains(from));
            let error = prepare(&CONFIG.replace(from, to), folder.path()).unwrap_err();
            assert!(error.to_string().contains(cause), "{error}");
        }
    }
}
