//! An SSH server of our own, with its keys.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) struct Sshd {
    folder: TempDir,
    child: Child,
    pub(crate) port: u16,
}

impl Sshd {
    /// Nothing where there is no `sshd`.
    pub(crate) fn start() -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, passphrase) in [
            ("host", ""),
            ("other", ""),
            ("user", ""),
            ("locked", "hunter2 passphrase"),
            ("stranger", ""),
        ] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-C", name, "-N", passphrase, "-f"])
                .arg(path(name))
                .status();
            assert!(made.unwrap().success());
        }
        let public = |name: &str| fs::read_to_string(path(&format!("{name}.pub"))).unwrap();
        fs::write(path("authorized"), public("user") + &public("locked")).unwrap();
        // Where sshd separates privileges; only root can make it, and only root needs it.
        let _ = fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n\
             PerSourcePenalties no\nSetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n",
            folder.path().display()
        );
        // Older versions have no penalties to turn off.
        let known = |text: &str| {
            fs::write(path("config"), text).unwrap();
            let checked = Command::new(program)
                .arg("-t")
                .arg("-f")
                .arg(path("config"))
                .stderr(Stdio::null())
                .status();
            checked.unwrap().success()
        };
        if !known(&config) {
            assert!(
                known(&config.replace("PerSourcePenalties no\n", "")),
                "sshd takes the configuration"
            );
        }
        let child = Command::new(program)
            .args(["-D", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "sshd does not answer"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { folder, child, port })
    }

    /// The path of a private key: `user` and `locked` may log in, `stranger` may not.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that says that `key` is the server's host key.
    pub(crate) fn known_hosts(&self, name: &str, key: &str) -> PathBuf {
        let public = fs::read_to_string(self.key(&format!("{key}.pub"))).unwrap();
        let path = self.folder.path().join(name);
        fs::write(&path, format!("[127.0.0.1]:{} {public}", self.port)).unwrap();
        path
    }

    /// The address of a repository on the server.
    pub(crate) fn url(&self, path: &Path) -> String {
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.port, path.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
