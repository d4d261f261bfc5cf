//! The kernel: the distribution's, fetched once and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::command::{command, run};

/// The packages whose dependency is the newest kernel: Debian's and Ubuntu's. Both have the drivers for TPMs and serial
/// lines built in.
const META_PACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];

const IMAGE: &str = "vmlinuz-";

/// A kernel image.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The file.
    pub(super) image: PathBuf,
    /// What `uname -r` says there.
    pub(super) release: String,
}

impl Kernel {
    /// The one fetched earlier, or the newest of the distribution.
    pub(super) fn find() -> Result<Self, String> {
        let cache = cache()?;
        if let Some(kernel) = Self::within(&cache) {
            return Ok(kernel);
        }
        let parent = cache.parent().ok_or("the cache is in no folder")?;
        let failed = |error: std::io::Error| format!("{}: {error}", parent.display());
        fs::create_dir_all(parent).map_err(failed)?;
        let fetched = tempfile::Builder::new()
            .prefix("kernel-")
            .tempdir_in(parent)
            .map_err(failed)?;
        fetch(fetched.path())?;
        // Whoever is first wins; another one's kernel is as good.
        let _ = fs::rename(fetched.path().join("kernel"), &cache);
        Self::within(&cache).ok_or_else(|| format!("there is no kernel in {}", cache.display()))
    }

    fn within(folder: &Path) -> Option<Self> {
        fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(Self {
                image: entry.path(),
                release: name.strip_prefix(IMAGE)?.to_owned(),
            })
        })
    }
}

/// Where the kernel is kept between runs.
fn cache() -> Result<PathBuf, String> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .map(|caches| caches.join("aicert-tests/kernel"))
        .ok_or_else(|| "neither XDG_CACHE_HOME nor HOME is set".into())
}

/// Downloads a kernel's package, and takes the image out of it into the folder `kernel`.
fn fetch(folder: &Path) -> Result<(), String> {
    let package = newest()?;
    run(command("apt-get")
        .args(["--quiet", "--quiet", "download", &package])
        .current_dir(folder))?;
    let file = names(folder)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| format!("apt-get brought no package {package}"))?;
    // Of some 100 MB only the image is wanted.
    let mut unpack = command("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("dpkg-deb: {error}"))?;
    let archive = unpack.stdout.take().ok_or("dpkg-deb has no output")?;
    fs::create_dir(folder.join("kernel")).map_err(|error| error.to_string())?;
    run(command("tar")
        .args(["--extract", "--wildcards", "--strip-components=2", "--directory"])
        .arg(folder.join("kernel"))
        .arg(format!("./boot/{IMAGE}*"))
        .stdin(archive))?;
    unpack.wait().map_err(|error| format!("dpkg-deb: {error}"))?;
    Ok(())
}

/// The name of the package with the newest kernel.
fn newest() -> Result<String, String> {
    for package in META_PACKAGES {
        let Ok(answer) = run(command("apt-cache").args(["depends", package])) else {
            continue;
        };
        let answer = String::from_utf8_lossy(&answer);
        let newest = answer
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"));
        if let Some(newest) = newest {
            return Ok(newest.to_owned());
        }
    }
    Err(format!(
        "apt knows none of {}: run `apt-get update`",
        META_PACKAGES.join(", ")
    ))
}

fn names(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}
