use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aicert_core::conformance::input::{Subject, all};
use aicert_core::digest::FileDigest;
use aicert_core::event::{Pin, PinKind};
use aicert_core::input::{FetchRequest, InputErrorKind, InputSource as _};
use aicert_core::progress::Progress;
use aicert_core::secret::Secret;
use aicert_core::spec::{GitCredentials, GitLocation, GitRevision, InputSpec, Location};
use aicert_inputs::{GitConfig, GitSource};
use tempfile::TempDir;

use crate::server::{self, Server, answer, tls};
use crate::ssh::Sshd;
use crate::support::{
    Fetched, SmallDisk, fetch, fetch_in, git_spec, noise, run_in_environment, skip, spec, token,
};

use GitRevision::{Branch, Default as Head, Tag};
use InputErrorKind::{Configuration, Mismatch, Network, NotFound, PermissionDenied, Refused, Storage};

const SECRET: &str = "hunter2-token";

/// A repository made with git itself, in a folder with an awkward name.
struct Repo {
    folder: TempDir,
}

impl Repo {
    fn new() -> Self {
        let repo = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(repo.path()).unwrap();
        repo.git(["init", "-q", "-b", "main", "."]);
        repo
    }

    /// A repository with files, branches and tags.
    fn sample() -> Self {
        let repo = Self::new();
        repo.write("src/main.py", b"print('first')\n");
        repo.commit("first");
        repo.git(["tag", "v0.0.1"]);
        repo.write("src/main.py", b"print('second')\n");
        repo.write("$(touch pwned);`id`", b"x");
        repo.write("run", b"#!/bin/sh\n");
        fs::set_permissions(repo.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("src/main.py", repo.path().join("link")).unwrap();
        repo.commit("second");
        repo.git(["tag", "-a", "-m", "annotated", "v0.0.2"]);
        repo.git(["branch", "x;touch${IFS}pwned"]);
        repo.write("src/main.py", b"print('third')\n");
        repo.git(["add", "src/main.py"]);
        // Past git's own conversion, which would make other bytes of them.
        for (path, content) in [
            ("crlf.txt", &b"a\r\nb\n$Id$\n"[..]),
            (
                ".gitattributes",
                b"* text=auto eol=crlf ident\n*.py filter=evil\n",
            ),
        ] {
            let blob = repo.blob(content);
            repo.git([
                "update-index",
                "--add",
                "--cacheinfo",
                &format!("100644,{blob},{path}"),
            ]);
        }
        repo.git(["commit", "-q", "-m", "third"]);
        repo
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a b;$(touch pwned)'\".git")
    }

    fn url(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    /// The path in a URL.
    fn encoded(&self) -> String {
        url::Url::from_file_path(self.path())
            .unwrap()
            .path()
            .replace(self.root().to_str().unwrap(), "")
            .replace('\'', "%27")
    }

    fn git<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        self.git_with(args, b"")
    }

    fn git_with<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, input: &[u8]) -> String {
        let mut child = Command::new("git")
            .args([
                "-c",
                "user.name=Test",
                "-c",
                "user.email=test@localhost",
                "-c",
                "core.autocrlf=false",
                "-c",
                "protocol.file.allow=always",
                "-c",
                "core.protectNTFS=false",
            ])
            .args(args)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) {
        self.git(["-c", "core.attributesFile=/dev/null", "add", "-A"]);
        self.git(["commit", "-q", "-m", message]);
    }

    fn blob(&self, content: &[u8]) -> String {
        self.git_with(["hash-object", "-w", "--stdin"], content)
    }

    /// A tree of entries that git itself would refuse to make: mode, name, id.
    fn raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend_from_slice(mode.as_bytes());
            tree.push(b' ');
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend(
                (0..40)
                    .step_by(2)
                    .map(|i| u8::from_str_radix(&id[i..i + 2], 16).unwrap()),
            );
        }
        self.git_with(
            ["hash-object", "-t", "tree", "--literally", "-w", "--stdin"],
            &tree,
        )
    }

    /// Makes a commit of a tree the tip of the branch `hostile`.
    fn hostile(&self, tree: &str) {
        let commit = self.git(["commit-tree", "-m", "hostile", tree]);
        self.git(["update-ref", "refs/heads/hostile", &commit]);
    }

    fn id(&self, revision: &str) -> String {
        self.git(["rev-parse", &format!("{revision}^{{commit}}")])
    }

    fn at(&self, revision: &str) -> GitRevision {
        GitRevision::Commit(format!("sha1:{}", self.id(revision)).parse().unwrap())
    }

    /// The files of a revision as git has them: path and content.
    fn files(&self, revision: &str) -> Vec<(String, Vec<u8>)> {
        let listed = self.git(["ls-tree", "-r", "-z", revision]);
        let blobs = listed.split('\0').filter(|line| line.starts_with("100"));
        blobs
            .map(|line| {
                let (entry, path) = line.split_once('\t').unwrap();
                let blob = entry.rsplit(' ').next().unwrap();
                let content = Command::new("git")
                    .args(["cat-file", "blob", blob])
                    .current_dir(self.path())
                    .output();
                (path.to_owned(), content.unwrap().stdout)
            })
            .collect()
    }

    /// Serves the folder of this repository over HTTP.
    fn serve(&self, token: Option<&'static str>) -> Server {
        let root = self.root().to_owned();
        Server::start(move |_, request, out| server::git(&root, token, request, out))
    }
}

fn source() -> GitSource {
    source_knowing(&[])
}

fn source_knowing(known_hosts: &[PathBuf]) -> GitSource {
    GitSource::new(GitConfig {
        known_hosts: known_hosts.to_vec(),
        idle_timeout: Duration::from_secs(20),
        largest_file: 50_000_000,
    })
}

fn pin(kind: PinKind, value: impl Into<String>) -> Pin {
    Pin {
        kind,
        value: value.into(),
    }
}

fn absent() -> GitRevision {
    GitRevision::Commit("sha1:00112233445566778899aabbccddeeff00112233".parse().unwrap())
}

fn subject(
    repo: &Repo,
    url: &str,
    missing: &str,
    credentials: Option<GitCredentials>,
    secret: Option<&str>,
) -> Subject {
    Subject {
        good: git_spec(url, repo.at("main"), credentials.clone()),
        files: repo.files("main"),
        is_directory: true,
        missing: git_spec(missing, Head, credentials.clone()),
        mismatched: Some(git_spec(url, absent(), credentials)),
        secret: secret.map(|secret| Secret::new(secret.into())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_on_this_machine() {
    let repo = Repo::sample();
    let missing = repo.root().join("absent");
    all(
        &source(),
        &subject(&repo, &repo.url(), missing.to_str().unwrap(), None, None),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_over_http_with_a_token() {
    let repo = Repo::sample();
    let server = repo.serve(Some(SECRET));
    let (url, missing) = (server.url(&repo.encoded()), server.url("/absent.git"));
    all(
        &source(),
        &subject(&repo, &url, &missing, token(SECRET), Some(SECRET)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_over_ssh() {
    let Some(sshd) = Sshd::start() else {
        return skip("there is no sshd");
    };
    let repo = Repo::sample();
    let source = source_knowing(&[sshd.known_hosts("known", "host")]);
    let url = sshd.url(&repo.path()).replace(' ', "%20").replace('"', "%22");
    let secret = "hunter2 passphrase";
    let key = GitCredentials::SshKey {
        path: sshd.key("locked"),
        passphrase: Some(Secret::new(secret.into())),
    };
    let missing = sshd.url(&repo.root().join("absent"));
    all(&source, &subject(&repo, &url, &missing, Some(key), Some(secret))).await;
}

#[tokio::test]
async fn every_kind_of_revision_is_resolved_to_its_commit() {
    let repo = Repo::sample();
    let server = repo.serve(None);
    let evil = "x;touch${IFS}pwned";
    let commit = |revision: &str| pin(PinKind::Commit, format!("sha1:{}", repo.id(revision)));
    for url in [
        repo.url(),
        url::Url::from_file_path(repo.path()).unwrap().to_string(),
        server.url(&repo.encoded()),
    ] {
        for (asked, name, requested, also) in [
            (Head, "main", vec![], vec![pin(PinKind::Branch, "main")]),
            (
                Branch("main".into()),
                "main",
                vec![pin(PinKind::Branch, "main")],
                vec![],
            ),
            (
                Branch(evil.into()),
                evil,
                vec![pin(PinKind::Branch, evil)],
                vec![],
            ),
            (
                Tag("v0.0.1".into()),
                "v0.0.1",
                vec![pin(PinKind::Tag, "v0.0.1")],
                vec![],
            ),
            (
                Tag("v0.0.2".into()),
                "v0.0.2",
                vec![pin(PinKind::Tag, "v0.0.2")],
                vec![],
            ),
            (repo.at("main"), "main", vec![commit("main")], vec![]),
            (repo.at("v0.0.1"), "v0.0.1", vec![commit("v0.0.1")], vec![]),
            // Neither branch nor tag points to it: the annotated tag has another id.
            (repo.at("main~1"), "main~1", vec![commit("main~1")], vec![]),
        ] {
            let fetched = fetch(&source(), git_spec(&url, asked.clone(), None)).await;
            let found = fetched.ok();
            assert_eq!(found.requested, requested, "{asked:?}");
            assert_eq!(found.resolved, [vec![commit(name)], also].concat(), "{asked:?}");
            let files = repo.files(name);
            let hashes: Vec<_> = found
                .tree
                .entries()
                .iter()
                .filter_map(|entry| Some((entry.path().to_string(), entry.hash()?)))
                .collect();
            let mut expected: Vec<_> = files
                .iter()
                .map(|(path, content)| (path.clone(), FileDigest::of(content)))
                .collect();
            expected.sort();
            assert_eq!(hashes, expected, "{asked:?}");
        }
    }
}

#[tokio::test]
async fn files_are_exactly_those_in_git() {
    let repo = Repo::sample();
    let fetched = fetch(&source(), git_spec(repo.url(), Head, None)).await;
    assert_eq!(
        fs::read(fetched.target().join("crlf.txt")).unwrap(),
        b"a\r\nb\n$Id$\n"
    );
    assert_eq!(
        fs::read_link(fetched.target().join("link")).unwrap(),
        Path::new("src/main.py")
    );
    let listed: Vec<_> = fetched
        .ok()
        .tree
        .entries()
        .iter()
        .map(name_and_executable)
        .collect();
    assert!(
        listed.contains(&("run".into(), true)) && listed.contains(&("src/main.py".into(), false)),
        "{listed:?}"
    );
    assert!(!fetched.target().join(".git").exists());
}

fn name_and_executable(entry: &aicert_core::tree::Entry) -> (String, bool) {
    (
        entry.path().to_string(),
        matches!(entry, aicert_core::tree::Entry::Executable { .. }),
    )
}

#[tokio::test]
async fn fetches_are_shallow_where_the_server_allows() {
    let repo = Repo::new();
    for index in 0..5 {
        repo.write("data", &noise(200_000 + index));
        repo.commit("more");
    }
    let server = repo.serve(None);
    let sent = |server: &Server| {
        server
            .requests()
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect::<String>()
    };
    fetch(&source(), git_spec(server.url(&repo.encoded()), Head, None))
        .await
        .ok();
    assert!(sent(&server).contains("deepen 1"), "{}", sent(&server));

    // A commit that is not advertised, on a server that allows it, and on one that does not.
    for allowed in ["true", "false"] {
        repo.git(["config", "uploadpack.allowAnySHA1InWant", allowed]);
        let fetched = fetch(
            &source(),
            git_spec(server.url(&repo.encoded()), repo.at("main~3"), None),
        )
        .await;
        assert_eq!(fetched.ok().tree.bytes(), 200_001);
    }
    // A commit that no branch leads to any more.
    let lost = repo.at("main");
    repo.git(["reset", "-q", "--hard", "main~1"]);
    fetch(&source(), git_spec(server.url(&repo.encoded()), lost, None))
        .await
        .assert_error(NotFound, "no branch and no tag leads to it", "check the commit");
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_is() {
    let repo = Repo::sample();
    let server = repo.serve(None);
    let (folder, empty) = (tempfile::tempdir().unwrap(), Repo::new());
    for url in [repo.url(), server.url(&repo.encoded())] {
        for (revision, words, advice) in [
            (Tag("v0.0.3".into()), "there is no tag \"v0.0.3\"", "\"v0.0.2\""),
            (Branch("mian".into()), "there is no branch \"mian\"", "\"main\""),
            (absent(), "there is no commit sha1:0011", "was pushed"),
        ] {
            fetch(&source(), git_spec(&url, revision, None))
                .await
                .assert_error(NotFound, words, advice);
        }
        for name in ["../x", "a b", "*", "a..b", "", "x:y", "a\nb"] {
            let fetched = fetch(&source(), git_spec(&url, Branch(name.into()), None)).await;
            fetched.assert_error(Configuration, "cannot be the name of a branch", "git branch");
        }
    }
    let plain = Server::start(|_, _, out| answer(out, "200 OK", &[("content-type", "text/html")], b"<html>"));
    for (url, words) in [
        (
            folder.path().to_str().unwrap().to_owned(),
            "there is no git repository there",
        ),
        (
            folder.path().join("absent").to_str().unwrap().to_owned(),
            "there is no such folder",
        ),
        (empty.url(), "the repository is empty"),
        (server.url("/absent.git"), "there is no such repository"),
        (plain.url("/page"), "there is no git repository there"),
    ] {
        fetch(&source(), git_spec(&url, Head, None))
            .await
            .assert_error(NotFound, words, "");
    }
}

#[tokio::test]
async fn access_is_explained() {
    let repo = Repo::sample();
    let server = repo.serve(Some(SECRET));
    let url = server.url(&repo.encoded());
    let attempt = async |credentials| fetch(&source(), git_spec(&url, Head, credentials)).await;
    attempt(None)
        .await
        .assert_error(PermissionDenied, "asks for credentials", "give a token");
    let wrong = attempt(token("hunter2-wrong")).await;
    wrong.assert_error(PermissionDenied, "does not take the token", "valid");
    assert!(!format!("{:?}", wrong.error()).contains("hunter2"));
    attempt(token(SECRET)).await.ok();
    // Without asking for credentials first, and so not because of any.
    let closed = Server::start(|_, _, out| answer(out, "403 Forbidden", &[], b""));
    fetch(&source(), git_spec(closed.url("/x.git"), Head, None))
        .await
        .assert_error(PermissionDenied, "no token is given", "give a token");

    let key = Some(GitCredentials::SshKey {
        path: "/absent/key".into(),
        passphrase: None,
    });
    for (url, credentials, kind, words) in [
        (
            "https://me:hunter2@host/x",
            None,
            Configuration,
            "holds a user name, token or password",
        ),
        (
            "http://host.invalid/x",
            token(SECRET),
            Configuration,
            "without encryption",
        ),
        ("git@host:x", token(SECRET), Configuration, "a token is for https"),
        (
            "https://host/x",
            key.clone(),
            Configuration,
            "an SSH key is for ssh",
        ),
        (
            "git@host:x",
            key,
            NotFound,
            "could not read the SSH key \"/absent/key\"",
        ),
    ] {
        let fetched = fetch(&source(), git_spec(url, Head, credentials)).await;
        fetched.assert_error(kind, words, "");
        assert!(!format!("{:?}", fetched.error()).contains("hunter2"));
    }
}

#[tokio::test]
async fn a_token_goes_to_its_own_server_alone() {
    let (repo, inner) = (Repo::sample(), Repo::sample());
    let other = inner.serve(None);
    // A redirect, which is followed without a token alone.
    let elsewhere = other.url("").replace("127.0.0.1", "localhost");
    let redirecting = Server::start(move |_, request, out| {
        answer(
            out,
            "302 Found",
            &[("location", format!("{elsewhere}{}", request.path).as_str())],
            b"",
        )
    });
    let url = redirecting.url(&inner.encoded());
    fetch(&source(), git_spec(&url, Head, None)).await.ok();
    let before = other.requests().len();
    fetch(&source(), git_spec(&url, Head, token(SECRET)))
        .await
        .assert_error(Network, "redirects elsewhere", "final address");
    assert_eq!(other.requests().len(), before);

    // A submodule on another server, which asks for a token and gets none.
    let asking = inner.serve(Some("hunter2-other"));
    add_submodule(&repo, &asking.url(&inner.encoded()), "sub", &inner.id("main"));
    let server = repo.serve(Some(SECRET));
    let fetched = fetch(
        &source(),
        git_spec(server.url(&repo.encoded()), Head, token(SECRET)),
    )
    .await;
    fetched.assert_error(PermissionDenied, "submodule \"sub\"", "give a token");
    assert!(!asking.requests().is_empty());
    assert!(
        asking
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

/// Adds a submodule without fetching it.
fn add_submodule(repo: &Repo, url: &str, path: &str, commit: &str) {
    repo.git([
        "config",
        "-f",
        ".gitmodules",
        &format!("submodule.{path}.path"),
        path,
    ]);
    repo.git([
        "config",
        "-f",
        ".gitmodules",
        &format!("submodule.{path}.url"),
        url,
    ]);
    repo.git(["add", ".gitmodules"]);
    repo.git([
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{commit},{path}"),
    ]);
    repo.git(["commit", "-q", "-m", "submodule"]);
}

fn without_submodules(repository: String) -> InputSpec {
    spec(Location::Git(GitLocation {
        repository,
        revision: Head,
        submodules: false,
        credentials: None,
    }))
}

#[tokio::test]
async fn submodules_are_fetched_by_their_commit() {
    // outer → libs/middle (relative address) → deep (relative address), all in one folder.
    let (outer, middle, deep) = (Repo::sample(), Repo::sample(), Repo::sample());
    deep.write("deep.txt", b"deep");
    deep.commit("deep");
    let deep_commit = deep.id("main");
    deep.write("deep.txt", b"later");
    deep.commit("later");
    fs::rename(deep.path(), outer.root().join("deep.git")).unwrap();
    add_submodule(&middle, "../deep.git", "deep", &deep_commit);
    let middle_commit = middle.id("main");
    fs::rename(middle.path(), outer.root().join("middle.git")).unwrap();
    add_submodule(&outer, "../middle.git", "libs/middle", &middle_commit);

    let server = outer.serve(None);
    for url in [outer.url(), server.url(&outer.encoded())] {
        let fetched = fetch(&source(), git_spec(&url, Head, None)).await;
        assert_eq!(
            fs::read(fetched.target().join("libs/middle/deep/deep.txt")).unwrap(),
            b"deep"
        );
        let submodules: Vec<_> = fetched
            .ok()
            .resolved
            .iter()
            .filter(|pin| pin.kind == PinKind::Submodule)
            .map(|pin| pin.value.clone())
            .collect();
        let expected = [
            format!("sha1:{middle_commit}@libs/middle"),
            format!("sha1:{deep_commit}@libs/middle/deep"),
        ];
        assert_eq!(submodules, expected);
        let paths: Vec<_> = fetched
            .ok()
            .tree
            .entries()
            .iter()
            .map(|entry| entry.path().to_string())
            .collect();
        assert!(
            paths.contains(&"libs/middle/deep/deep.txt".to_owned()),
            "{paths:?}"
        );

        let fetched = fetch(&source(), without_submodules(url)).await;
        assert!(!fetched.target().join("libs").exists());
    }

    // A repository from elsewhere cannot have one of this machine fetched.
    let commit = outer.id("main");
    add_submodule(
        &outer,
        outer.root().join("middle.git").to_str().unwrap(),
        "local",
        &middle_commit,
    );
    let url = server.url(&outer.encoded());
    fetch(&source(), git_spec(&url, Head, None)).await.assert_error(
        Refused,
        "on this machine",
        "submodules: false",
    );
    // A commit that is not there, and a submodule without address.
    outer.git(["reset", "-q", "--hard", &commit]);
    add_submodule(
        &outer,
        "../middle.git",
        "gone",
        "00112233445566778899aabbccddeeff00112233",
    );
    fetch(&source(), git_spec(&url, Head, None))
        .await
        .assert_error(NotFound, "submodule \"gone\"", "pushed");
    outer.git(["reset", "-q", "--hard", &commit]);
    outer.git([
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{middle_commit},nameless"),
    ]);
    outer.git(["commit", "-q", "-m", "nameless"]);
    fetch(&source(), git_spec(&url, Head, None)).await.assert_error(
        Configuration,
        "submodule \"nameless\"",
        "",
    );
}

#[tokio::test]
async fn hostile_trees_are_refused() {
    let repo = Repo::sample();
    let blob = repo.blob(b"content");
    let inner = repo.raw_tree(&[("100644", b"x", &blob)]);
    let (out, absolute, up) = (
        repo.blob(b"../outside"),
        repo.blob(b"/etc/passwd"),
        repo.blob(b".."),
    );
    let lfs = repo.blob(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
    let latin = repo.blob(b"caf\xe9");
    for (entries, words) in [
        (vec![("100644", &b".."[..], blob.as_str())], ".."),
        (vec![("40000", b"..", &inner)], ".."),
        (vec![("100644", b"a/b", &blob)], "a/b"),
        (vec![("100644", b"/etc/x", &blob)], "/etc/x"),
        (vec![("40000", b".git", &inner)], ".git"),
        (vec![("40000", b".GIT", &inner)], ".GIT"),
        (vec![("100644", b"two\nlines", &blob)], r"two\nlines"),
        (vec![("100644", b"esc\x1b[31m", &blob)], r"\u{1b}"),
        (vec![("100644", b"caf\xe9", &blob)], "is not UTF-8"),
        (vec![("120000", b"link", &out)], "outside the folder"),
        (vec![("120000", b"link", &absolute)], "absolute path"),
        (vec![("120000", b"link", &up)], "outside the folder"),
        (vec![("120000", b"link", &latin)], "not UTF-8"),
        (
            vec![("120000", b"d", &repo.blob(b"e")), ("40000", b"d", &inner)],
            "twice",
        ),
        (vec![("100644", b"d", &blob), ("100644", b"d", &blob)], "twice"),
        (vec![("100644", b"model.bin", &lfs)], "Git LFS"),
    ] {
        let entries: Vec<_> = entries
            .iter()
            .map(|(mode, name, id)| (*mode, *name, *id))
            .collect();
        repo.hostile(&repo.raw_tree(&entries));
        let fetched = fetch(&source(), git_spec(repo.url(), Branch("hostile".into()), None)).await;
        let error = fetched.error();
        // libgit2 itself refuses some of them as damaged.
        assert!(matches!(error.kind(), Refused | Mismatch), "{words}: {error}");
        assert!(
            error.to_string().contains(words) || error.kind() == Mismatch,
            "{words}: {error}"
        );
        assert!(error.advice().is_some());
    }
    // Links that stay inside are fine.
    let inside = repo.blob(b"../src");
    let folder = repo.raw_tree(&[("120000", b"link", &inside)]);
    repo.hostile(&repo.raw_tree(&[("40000", b"d", &folder), ("40000", b"src", &inner)]));
    assert_eq!(
        fetch(&source(), git_spec(repo.url(), Branch("hostile".into()), None))
            .await
            .ok()
            .tree
            .entries()
            .len(),
        2
    );

    let small = GitSource::new(GitConfig {
        largest_file: 6,
        ..GitConfig::default()
    });
    repo.hostile(&inner);
    fetch(&small, git_spec(repo.url(), Branch("hostile".into()), None))
        .await
        .assert_error(Refused, "has 7 bytes", "type file");
}

#[tokio::test]
async fn damaged_objects_are_noticed() {
    let repo = Repo::new();
    repo.write("file", b"the content that was reviewed");
    repo.commit("only");
    let find = |content: &[u8]| {
        let id = repo.blob(content);
        repo.path().join(".git/objects").join(&id[..2]).join(&id[2..])
    };
    // Another valid object, under the name of the reviewed one.
    let (reviewed, other) = (
        find(b"the content that was reviewed"),
        find(b"the content that is delivered"),
    );
    fs::remove_file(&reviewed).unwrap();
    fs::copy(other, &reviewed).unwrap();
    let server = repo.serve(None);
    for url in [repo.url(), server.url(&repo.encoded())] {
        let fetched = fetch(&source(), git_spec(&url, Head, None)).await;
        fetched.error();
    }
}

#[tokio::test]
async fn ssh_host_keys_and_keys_are_checked() {
    let Some(sshd) = Sshd::start() else {
        return skip("there is no sshd");
    };
    let repo = Repo::sample();
    let folder = repo.root().join("plain.git");
    std::os::unix::fs::symlink(repo.path(), &folder).unwrap();
    let url = sshd.url(&folder);
    let key = |name: &str, passphrase: Option<&str>| {
        Some(GitCredentials::SshKey {
            path: sshd.key(name),
            passphrase: passphrase.map(|passphrase| Secret::new(passphrase.into())),
        })
    };
    let known = sshd.known_hosts("known", "host");
    let attempt = async |known_hosts: &[PathBuf], credentials| {
        fetch(&source_knowing(known_hosts), git_spec(&url, Head, credentials)).await
    };
    attempt(std::slice::from_ref(&known), key("user", None))
        .await
        .ok();
    attempt(&[], key("user", None)).await.assert_error(
        Refused,
        "known_hosts has none for it",
        "ssh-keyscan -p",
    );
    attempt(&["/absent".into()], key("user", None))
        .await
        .assert_error(Refused, "SHA256:", "ssh-keyscan -p");
    attempt(&[sshd.known_hosts("changed", "other")], key("user", None))
        .await
        .assert_error(Refused, "somebody may be in between", "ssh-keygen -R");
    attempt(std::slice::from_ref(&known), key("stranger", None))
        .await
        .assert_error(PermissionDenied, "does not take the SSH key", "knows the key");
    let wrong = attempt(std::slice::from_ref(&known), key("locked", Some("hunter2 wrong"))).await;
    wrong.assert_error(PermissionDenied, "SSH", "passphrase");
    assert!(!format!("{:?}", wrong.error()).contains("hunter2"));
}

#[tokio::test]
async fn hosts_that_are_not_there_or_silent_are_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for url in [
        format!("http://127.0.0.1:{port}/x"),
        format!("ssh://git@127.0.0.1:{port}/x"),
    ] {
        let fetched = fetch(&source(), git_spec(&url, Head, None)).await;
        fetched.assert_error(Network, "could not be reached", "network");
        assert!(fetched.error().is_retryable());
    }
    // The connection is accepted, and nothing follows.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", silent.local_addr().unwrap());
    let source = GitSource::new(GitConfig {
        idle_timeout: Duration::from_secs(1),
        ..GitConfig::default()
    });
    let started = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let fetched: Fetched = fetch_in(folder, &source, git_spec(&url, Head, None)).await;
    let error = fetched.result.as_ref().unwrap_err();
    assert!(
        error.to_string().contains("sent nothing for 1 seconds") && error.is_retryable(),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(!fetched.target().exists());
    // Once the silence is over, the thread that waits in libgit2 ends, and takes its scratch folder along.
    drop(silent);
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(fetched.folder.path()).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "the scratch folder remains");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let repo = Repo::new();
    repo.write("large", &noise(700_000));
    repo.commit("large");
    // Too small for the pack, and too small for the files besides the pack.
    for options in ["size=400k", "size=1m"] {
        let Some(disk) = SmallDisk::new(options) else {
            return skip("mounting a small disk needs root");
        };
        let request = FetchRequest {
            spec: git_spec(repo.url(), Head, None),
            target: disk.path().join("target"),
            progress: Progress::ignored(),
        };
        let error = source().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), Storage, "{error}");
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert!(error.advice().unwrap().contains("free some space"));
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "nothing remains");
    }
}

/// The user's configuration sends every request elsewhere, converts line ends and runs programs: none of it counts.
#[test]
fn the_users_configuration_has_no_influence() {
    let (repo, decoy) = (Repo::sample(), Repo::new());
    decoy.write("decoy", b"decoy");
    decoy.commit("decoy");
    let server = repo.serve(None);
    let home = tempfile::tempdir().unwrap();
    let plain = decoy.root().join("decoy.git");
    std::os::unix::fs::symlink(decoy.path(), &plain).unwrap();
    let (url, elsewhere) = (server.url(&repo.encoded()), plain.to_str().unwrap());
    let config = format!(
        "[url \"{elsewhere}\"]\n\tinsteadOf = {url}\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://\n\
         [core]\n\tautocrlf = true\n[http]\n\tproxy = http://127.0.0.1:1\n[credential]\n\thelper = \"!touch pwned\"\n"
    );
    fs::write(home.path().join(".gitconfig"), &config).unwrap();
    fs::create_dir_all(home.path().join("git")).unwrap();
    fs::write(home.path().join("git/config"), &config).unwrap();
    fs::write(home.path().join("url"), &url).unwrap();
    let variables = [
        ("HOME", Some(home.path())),
        ("XDG_CONFIG_HOME", Some(home.path())),
        ("http_proxy", None),
        ("HTTP_PROXY", None),
    ];
    run_in_environment("repositories::child_fetches_what_is_configured", &variables);
    assert!(!server.requests().is_empty());
}

#[tokio::test]
#[ignore = "started by the_users_configuration_has_no_influence"]
async fn child_fetches_what_is_configured() {
    let url = fs::read_to_string(Path::new(&std::env::var_os("HOME").unwrap()).join("url")).unwrap();
    let fetched = fetch(&source(), git_spec(url, Head, None)).await;
    fetched.ok();
    assert_eq!(
        fs::read(fetched.target().join("crlf.txt")).unwrap(),
        b"a\r\nb\n$Id$\n"
    );
}

#[test]
fn certificates_are_checked() {
    let repo = Repo::sample();
    let (ca, config) = tls();
    let root = repo.root().to_owned();
    let server = Server::with_tls(Some(config), move |_, request, out| {
        server::git(&root, Some(SECRET), request, out)
    });
    let home = tempfile::tempdir().unwrap();
    let bundle = home.path().join("ca.pem");
    fs::write(&bundle, ca).unwrap();
    fs::write(
        home.path().join("url"),
        format!("https://{}{}", server.address, repo.encoded()),
    )
    .unwrap();
    let mut requests = Vec::new();
    for (test, bundle) in [
        ("repositories::child_trusts_ssl_cert_file", Some(bundle.as_path())),
        ("repositories::child_trusts_no_stranger", None),
    ] {
        run_in_environment(
            test,
            &[
                ("SSL_CERT_FILE", bundle),
                ("SSL_CERT_DIR", None),
                ("HOME", Some(home.path())),
            ],
        );
        requests.push(server.requests().len());
    }
    assert!(requests[0] > 0 && requests[0] == requests[1], "{requests:?}");
}

async fn fetch_over_tls() -> Fetched {
    let url = fs::read_to_string(Path::new(&std::env::var_os("HOME").unwrap()).join("url")).unwrap();
    fetch(&source(), git_spec(url, Head, token(SECRET))).await
}

#[tokio::test]
#[ignore = "started by certificates_are_checked"]
async fn child_trusts_ssl_cert_file() {
    assert!(fetch_over_tls().await.ok().tree.bytes() > 0);
}

#[tokio::test]
#[ignore = "started by certificates_are_checked"]
async fn child_trusts_no_stranger() {
    fetch_over_tls()
        .await
        .assert_error(Refused, "cannot prove who it is", "SSL_CERT_FILE");
}
