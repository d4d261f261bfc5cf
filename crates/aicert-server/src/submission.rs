//! What a client submits: read, checked, and made to fit this machine, before anything is done.

mod places;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aicert_core::api::{InputForm, ProblemCode, SecretText, Submission};
use aicert_core::config::elsewhere::{self, Objection, Where};
use aicert_core::digest::Nonce;
use aicert_core::runtime::JobId;
use aicert_core::spec::{JobSpec, Location};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use zeroize::Zeroizing;

use crate::problem::Refusal;
use crate::uploads::Expected;

/// What the configuration is called where its real name is not known.
const CONFIGURATION: &str = "aicert.yaml";
/// Longer than any path.
const PATH_LIMIT: usize = 4096;

/// A file that is written for the job and read by nobody else: its path, and what is in it.
pub(crate) type PrivateFile = (PathBuf, Zeroizing<Vec<u8>>);

/// A submission that can be run here.
pub(crate) struct Accepted {
    pub(crate) spec: JobSpec,
    pub(crate) nonce: Nonce,
    /// The inputs that are at the client, in the order of the configuration.
    pub(crate) expected: Vec<Expected>,
    /// Files to write, where `spec` looks for them.
    pub(crate) files: Vec<PrivateFile>,
}

/// Reads the body of a request. What is wrong is not repeated: secrets are in there.
pub(crate) fn parse(body: &[u8]) -> Result<(JobId, Submission), Refusal> {
    let malformed = |what: String| Refusal::new(ProblemCode::BadRequest, what);
    let submission: Submission = serde_json::from_slice(body).map_err(|error| {
        malformed(format!(
            "the body is no submission of a job: {} at line {}, column {}",
            match error.classify() {
                serde_json::error::Category::Data => "a field is missing, unknown or of another type",
                serde_json::error::Category::Eof => "it ends too soon",
                _ => "it is no JSON",
            },
            error.line(),
            error.column()
        ))
    })?;
    let id = submission
        .id
        .parse()
        .map_err(|error: aicert_core::runtime::ParseJobIdError| malformed(error.to_string()))?;
    let base = &submission.base_dir;
    if !base.starts_with('/') || base.len() > PATH_LIMIT || base.contains('\0') {
        return Err(malformed(
            "`base_dir` is no absolute path: expected the folder of the configuration at the client".into(),
        ));
    }
    Ok((id, submission))
}

/// Checks a submission, and changes its paths to those below `folder`. `kinds` are the inputs that can be fetched here.
pub(crate) fn accept(submission: &Submission, folder: &Path, kinds: &[&str]) -> Result<Accepted, Refusal> {
    // Nothing of this machine's environment is the client's.
    let environment = |name: &str| {
        let SecretText(secret) = submission.variables.get(name)?;
        Some(secret.expose().to_owned())
    };
    let base = Path::new(&submission.base_dir);
    let mut spec = JobSpec::from_yaml(&submission.config, base, &environment)
        .map_err(|error| configuration(error.render(CONFIGURATION)))?;

    let mut objections = elsewhere::objections(&spec, &submission.known_hosts);
    let expected = expected(&spec, kinds, &mut objections);
    let files = auxiliary(&mut spec, &submission.files, folder, &mut objections)?;
    elsewhere::refuse(&submission.config, objections)
        .map_err(|error| configuration(error.render(CONFIGURATION)))?;
    Ok(Accepted {
        spec,
        nonce: submission.nonce,
        expected,
        files,
    })
}

fn configuration(rendered: String) -> Refusal {
    Refusal::new(ProblemCode::Configuration, rendered)
}

/// The inputs that the client must send; what it cannot send and this very machine cannot fetch is objected to.
fn expected(spec: &JobSpec, kinds: &[&str], objections: &mut Vec<Objection>) -> Vec<Expected> {
    let mut expected = Vec::new();
    for (index, input) in spec.inputs.iter().enumerate() {
        let name = input.name.clone();
        let mut object = |key, message: String, help| {
            let at = Where::Input { index, key };
            objections.push(Objection { at, message, help });
        };
        if !kinds.contains(&input.location.kind()) {
            object(
                "type",
                format!(
                    "this machine cannot fetch inputs of the type {}",
                    input.location.kind()
                ),
                "use another type of input",
            );
            continue;
        }
        match &input.location {
            Location::Directory(directory) => match Url::from_file_path(&directory.path) {
                Ok(url) => expected.push(Expected {
                    name,
                    form: InputForm::Tar,
                    origin: url.into(),
                }),
                Err(()) => object(
                    "path",
                    format!("{:?} is no folder that can be sent", directory.path),
                    "give the absolute path of the folder that holds just this input",
                ),
            },
            Location::File(file) if is_file_url(&file.url) => match local_file(&file.url) {
                Some(origin) => expected.push(Expected {
                    name,
                    form: InputForm::File,
                    origin,
                }),
                None => object(
                    "url",
                    "it is no file of your machine".into(),
                    "write it like file:///path",
                ),
            },
            _ => {}
        }
    }
    expected
}

fn is_file_url(url: &str) -> bool {
    url.get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}

/// What the proof says about where a file came from.
fn local_file(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let local = url
        .host()
        .is_none_or(|host| host == url::Host::Domain("localhost"));
    let path = url.to_file_path().ok().filter(|_| local)?;
    Url::from_file_path(path).ok().map(Into::into)
}

/// Gives every small file that the job needs a place of its own here.
fn auxiliary(
    spec: &mut JobSpec,
    sent: &BTreeMap<String, SecretText>,
    folder: &Path,
    objections: &mut Vec<Objection>,
) -> Result<Vec<PrivateFile>, Refusal> {
    let wheres = places::auxiliary(spec);
    let mut files = Vec::new();
    for (number, (path, at)) in spec.auxiliary_files().into_iter().zip(wheres).enumerate() {
        let Some(SecretText(content)) = path.to_str().and_then(|name| sent.get(name)) else {
            objections.push(Objection {
                at,
                message: format!("the file {path:?} of your machine was not sent along"),
                help: "check that it exists and can be read",
            });
            continue;
        };
        let content = STANDARD.decode(content.expose()).map_err(|_| {
            Refusal::new(
                ProblemCode::BadRequest,
                format!("the file {path:?} in the submission is not base64"),
            )
        })?;
        let here = folder.join(number.to_string());
        files.push((here.clone(), Zeroizing::new(content)));
        *path = here;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: &[&str] = &["git", "file", "directory"];

    fn submission(config: &str) -> Submission {
        serde_json::from_value(serde_json::json!({
            "id": "job-1",
            "config": config,
            "base_dir": "/home/me/project",
            "nonce": "00".repeat(32),
            "variables": {"TOKEN": "hunter2"},
            "files": {"/home/me/ca.pem": "a2V5"},
        }))
        .unwrap()
    }

    fn try_accept(config: &str) -> Result<Accepted, String> {
        accept(&submission(config), Path::new("/state/files"), KINDS)
            .map_err(|refusal| refusal.problem().message.clone())
    }

    const HEAD: &str = "kind: python\npythonVersion: 11\nmachine: {provider: local, tpm: swtpm}\n";

    #[test]
    fn what_is_at_the_client_is_expected_from_it() {
        let config = format!(
            "{HEAD}source: {{type: directory, path: ./code}}\nresources:\n\
             - {{type: file, url: 'file:///data/a b.bin'}}\n\
             - {{type: file, url: 'https://example.org/x.bin', tokenEnv: TOKEN}}\n\
             - {{type: git, gitRepo: 'https://example.org/x', destinationPath: x}}\n\
             packageIndex: {{caBundle: /home/me/ca.pem}}\n"
        );
        let accepted = try_accept(&config)
            .map_err(|message| panic!("{message}"))
            .unwrap();
        let expected = |name: &str, form, origin: &str| Expected {
            name: name.into(),
            form,
            origin: origin.into(),
        };
        assert_eq!(
            accepted.expected,
            [
                expected("code", InputForm::Tar, "file:///home/me/project/code"),
                expected("a b.bin", InputForm::File, "file:///data/a%20b.bin"),
            ]
        );
        let here = PathBuf::from("/state/files/0");
        assert_eq!(accepted.files, [(here.clone(), Zeroizing::new(b"key".to_vec()))]);
        assert_eq!(accepted.spec.package_index.ca_bundle, Some(here));
    }

    #[test]
    fn what_only_the_client_can_reach_is_refused_at_its_place() {
        for (rest, said) in [
            (
                "source:\n  type: git\n  gitRepo: ../code\n",
                "aicert.yaml:6:3: the repository is a folder of your machine",
            ),
            (
                "source:\n  type: git\n  gitRepo: file:///code\n",
                "aicert.yaml:6:3: the repository",
            ),
            (
                "source: {type: git, gitRepo: 'ssh://git@h/x', sshKey: ~/key}\n",
                "aicert.yaml:4:47: the file",
            ),
            (
                "source: {type: git, gitRepo: 'git@h:x'}\n",
                "aicert.yaml:4:21: your known_hosts files have no key of the SSH server h",
            ),
            (
                "source: {type: git, gitRepo: 'https://h/x', tokenEnv: OTHER}\n",
                "the environment variable OTHER is not set",
            ),
            (
                "source: {type: git, gitRepo: 'https://h/x'}\npackageIndex: {caBundle: other.pem}\n",
                "aicert.yaml:5:16: the file \"/home/me/project/other.pem\"",
            ),
            (
                "source: {type: git, gitRepo: 'https://h/x'}\npackageIndex: {url: 'file:///wheels'}\n",
                "aicert.yaml:5:16: the package index",
            ),
            (
                "source: {type: git, gitRepo: 'https://h/x'}\nresources:\n- {type: file, url: 'file:///'}\n",
                "aicert.yaml:6:",
            ),
            ("source: {type: directory, path: /}\n", "aicert.yaml:4:"),
            ("source: 7\n", "aicert.yaml:4:9:"),
        ] {
            let Err(message) = try_accept(&format!("{HEAD}{rest}")) else {
                panic!("{rest} was accepted");
            };
            assert!(message.contains(said), "expected {said}, found {message}");
            assert!(!message.contains("hunter2"));
        }
        let Err(message) = accept(
            &submission(&format!("{HEAD}source: {{type: git, gitRepo: 'https://h/x'}}\n")),
            Path::new("/x"),
            &["file"],
        )
        .map_err(|refusal| refusal.problem().message.clone()) else {
            panic!("accepted");
        };
        assert!(
            message.contains("aicert.yaml:4:10: this machine cannot fetch inputs of the type git"),
            "{message}"
        );
    }

    #[test]
    fn nothing_comes_from_this_machines_environment() {
        // Set by cargo for every test.
        let config =
            format!("{HEAD}source: {{type: git, gitRepo: 'https://h/x', tokenEnv: CARGO_PKG_NAME}}\n");
        let Err(message) = try_accept(&config) else {
            panic!("accepted");
        };
        assert!(message.contains("CARGO_PKG_NAME is not set"), "{message}");
    }

    #[test]
    fn bodies_that_are_none_are_refused_without_their_contents() {
        for body in [
            "",
            "{",
            "[]",
            "{\"id\":\"x\"}",
            "{\"id\":\"j\",\"config\":7,\"base_dir\":\"/\",\"nonce\":\"hunter2\"}",
            "{\"hunter2\":\"hunter2\"}",
        ] {
            let refusal = parse(body.as_bytes()).map(drop).unwrap_err();
            let message = &refusal.problem().message;
            assert_eq!(refusal.problem().code, ProblemCode::BadRequest);
            assert!(
                message.contains("line") && !message.contains("hunter2"),
                "{message}"
            );
        }
        let with = |id: &str, base: &str| {
            let body =
                serde_json::json!({"id": id, "config": "", "base_dir": base, "nonce": "00".repeat(32)});
            parse(body.to_string().as_bytes()).map(drop)
        };
        assert!(with("job", "/").is_ok());
        assert!(with("Job", "/").is_err() && with("job", "home").is_err() && with("", "/").is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn any_configuration_is_accepted_or_refused(
            line in "[a-zA-Z{}: ./'~-]{0,40}", key in prop_oneof![Just("source"), Just("resources"), Just("packageIndex")]
        ) {
            let _ = try_accept(&format!("{HEAD}{key}: {line}\n"));
        }
    }
}
