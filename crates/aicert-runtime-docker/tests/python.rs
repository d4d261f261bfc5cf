//! Dependencies for real: a package index of our own over HTTPS with a password, pip in a container, and the built image.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aicert_core::digest::{FileDigest, ImageDigest};
use aicert_core::event::Package;
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::runtime::{
    BuildRequest, DependencyRequest, ExecutionRequest, JobId, Limits, ResolvedImage, Runtime as _,
    RuntimeError, RuntimeErrorKind,
};
use aicert_core::secret::Secret;
use aicert_core::spec::{ImageSpec, PackageIndex};
use aicert_runtime_docker::{DockerConfig, DockerRuntime};

const PASSWORD: &str = "p@ss/word%21-of-the-index";

struct Index {
    server: Child,
    folder: tempfile::TempDir,
    url: String,
    ca: PathBuf,
}

impl Drop for Index {
    fn drop(&mut self) {
        self.stop();
    }
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("the command docker");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Index {
    /// Starts the server on the address under which containers reach this machine.
    fn start() -> Self {
        let gateway = docker(&[
            "network",
            "inspect",
            "bridge",
            "--format",
            "{{(index .IPAM.Config 0).Gateway}}",
        ]);
        let address = if gateway.is_empty() {
            "172.17.0.1".to_owned()
        } else {
            gateway
        };
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("ca.pem"), folder.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed([address.clone()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        wheel(
            &files,
            "Aicert.Test_A",
            "1.0",
            "Requires-Dist: aicert-test-b<2\n",
            "import aicert_test_b\nVALUE = aicert_test_b.VALUE + 1\n",
        );
        wheel(&files, "aicert_test_b", "1.5", "", "VALUE = 41\n");
        wheel(&files, "aicert_test_b", "2.0", "", "VALUE = 0\n");
        // An archive that would leave a mark if anything of it ran.
        fs::write(files.join("aicert_test_source-1.0.tar.gz"), "no archive").unwrap();

        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/index.py");
        let mut server = Command::new("python3")
            .arg(script)
            .args([&files])
            .arg(&address)
            .args([&certificate, &key])
            .arg(format!("user:{PASSWORD}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let url = format!("https://{address}:{}/simple", port.trim());
        Self {
            server,
            folder,
            url,
            ca: certificate,
        }
    }

    fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    fn package_index(&self) -> PackageIndex {
        PackageIndex {
            url: Some(self.url.clone()),
            credentials: Some(Secret::new(format!("user:{PASSWORD}"))),
            ca_bundle: Some(self.ca.clone()),
            proxy: None,
        }
    }
}

/// Writes a wheel that pip installs.
fn wheel(folder: &Path, name: &str, version: &str, requires: &str, code: &str) {
    let module = name.replace('.', "_").to_lowercase();
    let info = format!("{}-{version}.dist-info", name.replace('.', "_"));
    let files = [
        (format!("{module}.py"), code.to_owned()),
        (
            format!("{info}/METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"),
        ),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".into(),
        ),
    ];
    let record: String = files
        .iter()
        .map(|(path, _)| format!("{path},,\n"))
        .chain([format!("{info}/RECORD,,\n")])
        .collect();
    let file = folder.join(format!("{}-{version}-py3-none-any.whl", name.replace('.', "_")));
    let mut archive = zip::ZipWriter::new(File::create(file).unwrap());
    for (path, content) in files.iter().chain([&(format!("{info}/RECORD"), record)]) {
        archive
            .start_file(path.as_str(), zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(content.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
}

struct Fixture {
    runtime: DockerRuntime,
    image: ResolvedImage,
    job: JobId,
    workspace: tempfile::TempDir,
}

impl Fixture {
    async fn new(config: DockerConfig) -> Option<Self> {
        let runtime = common::configured(config).await?;
        let image = runtime
            .resolve_image(&ImageSpec::Python { minor: 11 }, &Progress::ignored())
            .await
            .unwrap();
        let job = common::prefix().parse().unwrap();
        Some(Self {
            runtime,
            image,
            job,
            workspace: tempfile::tempdir().unwrap(),
        })
    }

    fn packages_dir(&self) -> PathBuf {
        self.workspace.path().join("packages")
    }

    async fn resolve(
        &self,
        requirements: &str,
        index: PackageIndex,
        progress: Progress,
    ) -> Result<Vec<Package>, RuntimeError> {
        let file = self.workspace.path().join("requirements.txt");
        fs::write(&file, requirements).unwrap();
        let _ = fs::remove_dir_all(self.packages_dir());
        fs::create_dir(self.packages_dir()).unwrap();
        let request = DependencyRequest {
            job: self.job.clone(),
            image: self.image.clone(),
            requirements: file,
            index,
            into: self.packages_dir(),
            progress,
        };
        let result = self.runtime.resolve_dependencies(request).await;
        let left: Vec<_> = fs::read_dir(self.workspace.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "settings with credentials are removed: {left:?}");
        result
    }

    async fn build(&self, packages: Vec<Package>) -> Result<ImageDigest, RuntimeError> {
        let request = BuildRequest {
            job: self.job.clone(),
            image: self.image.clone(),
            packages,
            packages_dir: self.packages_dir(),
            progress: Progress::ignored(),
        };
        self.runtime.build(request).await
    }

    async fn python(&self, image: ImageDigest, program: &str) -> String {
        let log_file = self.workspace.path().join("job.log");
        let request = ExecutionRequest {
            job: self.job.clone(),
            image,
            command: ["python3", "-c", program].map(str::to_owned).to_vec(),
            working_directory: "/".into(),
            environment: vec![],
            mounts: vec![],
            gpus: vec![],
            limits: Limits::default(),
            log_file: log_file.clone(),
            progress: Progress::ignored(),
        };
        let report = self.runtime.run(request).await.unwrap();
        let log = fs::read_to_string(&log_file).unwrap();
        fs::remove_file(log_file).unwrap();
        assert_eq!(report.exit_code, 0, "{log}");
        log
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wheels_are_downloaded_measured_installed_and_found_by_the_job() {
    let Some(fixture) = Fixture::new(DockerConfig::new()).await else {
        return;
    };
    let index = Index::start();
    let packages = fixture
        .resolve("aicert.test-a\n", index.package_index(), Progress::ignored())
        .await
        .unwrap();
    let names: Vec<_> = packages
        .iter()
        .map(|p| (&*p.name, &*p.version, &*p.file))
        .collect();
    let expected = [
        ("aicert-test-a", "1.0", "Aicert_Test_A-1.0-py3-none-any.whl"),
        ("aicert-test-b", "1.5", "aicert_test_b-1.5-py3-none-any.whl"),
    ];
    assert_eq!(names, expected);
    for package in &packages {
        let served = fs::read(index.folder.path().join("files").join(&package.file)).unwrap();
        assert_eq!(package.hash, FileDigest::of(&served), "{}", package.file);
    }

    let image = fixture.build(packages.clone()).await.unwrap();
    assert_ne!(image, fixture.image.digest);
    assert_eq!(
        fixture
            .python(image, "import aicert_test_a; print(aicert_test_a.VALUE)")
            .await,
        "42\n"
    );
    // Whatever the installation needed is in no layer and no setting of the image.
    let base = docker(&[
        "inspect",
        "--format",
        "{{json .Config.Env}}{{json .Config.Cmd}}{{json .Config.Entrypoint}}{{.Config.WorkingDir}}",
        &fixture.image.digest.to_string(),
    ]);
    let built = docker(&[
        "inspect",
        "--format",
        "{{json .Config.Env}}{{json .Config.Cmd}}{{json .Config.Entrypoint}}{{.Config.WorkingDir}}",
        &image.to_string(),
    ]);
    assert_eq!(built.replace("[]", "null"), base.replace("[]", "null"));
    assert_eq!(fixture.runtime.default_command(image).await.unwrap(), ["python3"]);
    let image_id = image.to_string();
    let traces = [
        "find",
        "/tmp",
        "/root",
        "/etc/pip.conf",
        "-mindepth",
        "1",
        "-newermt",
        "1981-01-01",
    ];
    let found = docker(&[&["run", "--rm", "--network", "none", &*image_id][..], &traces].concat());
    assert_eq!(found, "", "the installation left something behind");

    // Without a cache the image is the job's own, and goes with it.
    fixture.runtime.clean_up(&fixture.job).await.unwrap();
    assert!(
        fixture.runtime.default_command(image).await.is_err(),
        "the job's image is removed"
    );
    fixture
        .runtime
        .default_command(fixture.image.digest)
        .await
        .expect("the base image stays");

    // A wheel that changed after it was measured is not installed.
    fs::write(fixture.packages_dir().join(&packages[1].file), "changed").unwrap();
    let error = fixture.build(packages).await.unwrap_err();
    assert!(
        error.message().contains("changed after it was measured"),
        "{error}"
    );
    fixture.runtime.clean_up(&fixture.job).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_seen_by_nobody() {
    let Some(fixture) = Fixture::new(DockerConfig::new()).await else {
        return;
    };
    let index = Index::start();
    let (progress, mut events) = Progress::channel(1_000);
    let filter = format!("label=aicert.job={}", fixture.job);
    let watch = async {
        let mut seen = String::new();
        loop {
            let container = docker(&["ps", "--quiet", "--filter", &filter]);
            if !container.is_empty() {
                seen += &docker(&["inspect", &container]);
                seen += &docker(&["top", &container, "-o", "pid,args"]);
                seen += &String::from_utf8_lossy(&processes_of(&docker(&[
                    "inspect",
                    "--format",
                    "{{.State.Pid}}",
                    &container,
                ])));
                if seen.contains("pip.py") && seen.len() > 10_000 {
                    return seen;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (result, seen) = tokio::join!(
        fixture.resolve("aicert-test-b", index.package_index(), progress),
        watch
    );
    assert_eq!(result.unwrap().len(), 1);
    let mut shown = format!(
        "{seen}{}",
        docker(&["history", "--no-trunc", &fixture.image.digest.to_string()])
    );
    while let Ok(event) = events.try_recv() {
        shown += &format!("{event:?}");
    }

    let mut wrong = index.package_index();
    wrong.credentials = Some(Secret::new("user:wrong-password".into()));
    let error = fixture
        .resolve("aicert-test-b", wrong, Progress::ignored())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Dependencies);
    assert!(error.message().contains("refuses those it got"), "{error}");
    shown += &format!("{error} {error:?} {:?}", error.advice());
    for secret in [PASSWORD, "ss/word", "ss%2Fword", "wrong-password"] {
        assert!(!shown.contains(secret), "{secret} is in: {shown}");
    }
    fixture.runtime.clean_up(&fixture.job).await.unwrap();
}

/// Arguments and environment of a process, as this machine sees them.
fn processes_of(pid: &str) -> Vec<u8> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    [read("cmdline"), read("environ")].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resolved_is_told_with_its_cause() {
    let Some(fixture) = Fixture::new(DockerConfig::new()).await else {
        return;
    };
    let index = Index::start();
    let good = || index.package_index();
    let cases: [(&str, PackageIndex, &str, &str); 6] = [
        (
            "aicert-test-none",
            good(),
            "has no package \"aicert-test-none\"",
            "spelling",
        ),
        ("aicert-test-source", good(), "only source", "build a wheel"),
        (
            "aicert-test-a==1.0\naicert-test-b==2.0",
            good(),
            "contradict each other",
            "loosen",
        ),
        (
            "aicert-test-b==1.5 --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000",
            good(),
            "the one whose hash",
            "check where",
        ),
        (
            "aicert-test-b",
            PackageIndex {
                ca_bundle: None,
                ..good()
            },
            "certificate of the package index is not trusted",
            "CA bundle",
        ),
        // Nothing listens on port 9.
        (
            "aicert-test-b",
            PackageIndex {
                url: Some("https://127.0.0.1:9/simple".into()),
                ..good()
            },
            "cannot be reached",
            "network",
        ),
    ];
    for (requirements, package_index, message, advice) in cases {
        let error = fixture
            .resolve(requirements, package_index, Progress::ignored())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::Dependencies, "{error}");
        assert!(error.message().contains(message), "{requirements}: {error}");
        assert!(
            error.advice().unwrap_or_default().contains(advice),
            "{requirements}: {:?}",
            error.advice()
        );
    }
    let none = fixture
        .resolve("# nothing\n", PackageIndex::default(), Progress::ignored())
        .await
        .unwrap();
    assert_eq!(none, []);
    let image = fixture.build(none).await.unwrap();
    assert_eq!(image, fixture.image.digest);
    fixture.runtime.clean_up(&fixture.job).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_used_again_and_never_believed() {
    let cache = tempfile::tempdir().unwrap();
    let Some(fixture) = Fixture::new(DockerConfig::new().with_cache_dir(cache.path())).await else {
        return;
    };
    let mut index = Index::start();
    let packages = fixture
        .resolve("aicert-test-b==1.5", index.package_index(), Progress::ignored())
        .await
        .unwrap();
    let image = fixture.build(packages.clone()).await.unwrap();
    fixture.runtime.clean_up(&fixture.job).await.unwrap();
    assert_eq!(
        fixture
            .runtime
            .leftovers()
            .await
            .unwrap()
            .iter()
            .filter(|job| **job == fixture.job)
            .count(),
        0
    );

    // Again, without an index: nothing is downloaded and nothing built.
    let index_data = index.package_index();
    index.stop();
    assert_eq!(
        fixture
            .resolve("aicert-test-b==1.5", index_data.clone(), Progress::ignored())
            .await
            .unwrap(),
        packages
    );
    assert_eq!(fixture.build(packages.clone()).await.unwrap(), image);

    // An image that the cache names, but that is not what was built, is not used: the record is exchanged.
    let record = fs::read_dir(cache.path().join("images"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = fs::read_to_string(&record).unwrap();
    fs::write(
        &record,
        text.replace(&image.to_string(), &fixture.image.digest.to_string()),
    )
    .unwrap();
    let again = fixture.build(packages.clone()).await.unwrap();
    assert_ne!(again, fixture.image.digest);
    assert_eq!(
        fixture
            .python(again, "import aicert_test_b; print(aicert_test_b.VALUE)")
            .await,
        "41\n"
    );

    // A wheel in the cache that changed is not used: without an index, resolving fails.
    let entry = fs::read_dir(cache.path().join("wheels"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let kept = entry.join(&packages[0].file);
    fs::write(&kept, "changed").unwrap();
    let (progress, mut events) = Progress::channel(100);
    let error = fixture
        .resolve("aicert-test-b==1.5", index_data, progress)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Dependencies);
    let warned = std::iter::from_fn(|| events.try_recv().ok())
        .any(|event| matches!(event, ProgressEvent::Warning { .. }));
    assert!(
        warned && !entry.exists(),
        "the changed entry is discarded, and the user told"
    );

    fixture.runtime.clean_up(&fixture.job).await.unwrap();
    for image in [image, again] {
        docker(&["image", "rm", "--force", &image.to_string()]);
    }
}
