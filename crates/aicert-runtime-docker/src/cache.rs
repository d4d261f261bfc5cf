//! What is kept between jobs: downloaded wheels, and which image was built from which packages.
//!
//! Nothing in the cache is believed: wheels are hashed as they are copied out, and an image is used only if it is the
//! one whose id was written down here, stands on the same base, and carries the label of this very build. The cache
//! belongs to the user; whoever else can write to it could at most make aicert download or build again.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aicert_core::digest::ImageDigest;
use aicert_core::event::Package;
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::runtime::RuntimeErrorKind;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Fault;
use crate::wheel;

const INDEX: &str = "index.json";

/// A directory with what earlier jobs downloaded and built.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    directory: PathBuf,
    expiry: Duration,
    entries: usize,
}

/// Names an entry by everything that it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// What a resolution depends on.
    pub(crate) fn of_requirements(image: &ImageDigest, requirements: &str, index: Option<&str>) -> Self {
        let index = index.map_or_else(String::new, |url| format!("={url}"));
        Self::of("aicert/wheels/v1", &[&image.to_string(), requirements, &index])
    }

    /// What a built image depends on: the base, and every file that is installed.
    pub(crate) fn of_build(image: &ImageDigest, packages: &[Package]) -> Self {
        let image = image.to_string();
        let files: Vec<String> = packages
            .iter()
            .map(|p| format!("{} {} {} {}", p.name, p.version, p.file, p.hash))
            .collect();
        let parts: Vec<&str> = std::iter::once(&*image)
            .chain(files.iter().map(String::as_str))
            .collect();
        Self::of("aicert/build/v1", &parts)
    }

    fn of(purpose: &str, parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in std::iter::once(&purpose).chain(parts) {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hex::encode(hasher.finalize()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wheels {
    packages: Vec<Package>,
    for_ever: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Built {
    image: ImageDigest,
}

impl Cache {
    /// Opens a cache, making its directory for this user alone.
    pub(crate) fn open(directory: &Path, expiry: Duration, entries: usize) -> Result<Self, Fault> {
        for folder in [directory.join("wheels"), directory.join("images")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| Fault::file("make the cache folder", &folder, error))?;
            let data = fs::metadata(&folder).map_err(|error| Fault::file("read", &folder, error))?;
            if data.uid() != rustix::process::getuid().as_raw() || data.mode() & 0o022 != 0 {
                return Err(Fault::told(
                    RuntimeErrorKind::PermissionDenied,
                    format!("the cache folder {} can be written by others", folder.display()),
                    "use a folder that belongs to you and that only you can write",
                ));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            expiry,
            entries,
        })
    }

    /// Copies the wheels of an earlier resolution into a folder, each checked against its hash; an entry that is
    /// damaged or too old is discarded.
    pub(crate) fn wheels(
        &self,
        key: &Key,
        into: &Path,
        progress: &Progress,
    ) -> Result<Option<Vec<Package>>, Fault> {
        let entry = self.directory.join("wheels").join(key.as_str());
        let Ok(index) = fs::read(entry.join(INDEX)) else {
            return Ok(None);
        };
        let Ok(index) = serde_json::from_slice::<Wheels>(&index) else {
            return self.discard(&entry, "its list cannot be read", progress);
        };
        if !index.for_ever && age(&entry.join(INDEX)).is_none_or(|age| age > self.expiry) {
            remove(&entry);
            return Ok(None);
        }
        let copied = wheel::in_parallel(&index.packages, |package| {
            wheel::copy_hashed(&wheel::file_in(&entry, package)?, &wheel::file_in(into, package)?)
        });
        let intact = copied.is_ok_and(|hashes| {
            index
                .packages
                .iter()
                .zip(hashes)
                .all(|(package, hash)| package.hash == hash)
        });
        // The list is checked as well: what the files say they are must be what it says.
        if intact && wheel::measure(into).is_ok_and(|packages| packages == index.packages) {
            touch(&entry);
            return Ok(Some(index.packages));
        }
        empty(into)?;
        self.discard(&entry, "a file in it is not the one that was kept", progress)
    }

    /// Keeps the wheels of a resolution.
    pub(crate) fn keep_wheels(
        &self,
        key: &Key,
        packages: &[Package],
        from: &Path,
        for_ever: bool,
    ) -> Result<(), Fault> {
        let folder = self.directory.join("wheels");
        let fault = |error| Fault::file("write to the cache", &folder, error);
        let entry = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&folder)
            .map_err(fault)?;
        for package in packages {
            fs::copy(
                wheel::file_in(from, package)?,
                wheel::file_in(entry.path(), package)?,
            )
            .map_err(fault)?;
        }
        let index = Wheels {
            packages: packages.to_vec(),
            for_ever,
        };
        fs::write(entry.path().join(INDEX), to_json(&index)).map_err(fault)?;
        let target = folder.join(key.as_str());
        remove(&target);
        // Another job may have been quicker: its entry is as good.
        let _ = fs::rename(entry.path(), &target);
        for old in self.oldest(&folder) {
            remove(&old);
        }
        Ok(())
    }

    /// The image that was built for this key.
    pub(crate) fn built(&self, key: &Key) -> Option<ImageDigest> {
        let record = self.directory.join("images").join(key.as_str());
        let built: Built = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
        touch(&record);
        Some(built.image)
    }

    /// Keeps the id of an image that was built; returns the ids of those that are not kept any more.
    pub(crate) fn keep_built(&self, key: &Key, image: ImageDigest) -> Result<Vec<ImageDigest>, Fault> {
        let folder = self.directory.join("images");
        let fault = |error| Fault::file("write to the cache", &folder, error);
        let file = tempfile::NamedTempFile::new_in(&folder).map_err(fault)?;
        fs::write(file.path(), to_json(&Built { image })).map_err(fault)?;
        file.persist(folder.join(key.as_str()))
            .map_err(|error| fault(error.error))?;
        let mut forgotten = Vec::new();
        for old in self.oldest(&folder) {
            forgotten.extend(
                fs::read(&old)
                    .ok()
                    .and_then(|bytes| serde_json::from_slice::<Built>(&bytes).ok())
                    .map(|b| b.image),
            );
            remove(&old);
        }
        Ok(forgotten)
    }

    /// Forgets an image that is not what it should be.
    pub(crate) fn forget_built(&self, key: &Key) {
        remove(&self.directory.join("images").join(key.as_str()));
    }

    fn discard<T>(&self, entry: &Path, reason: &str, progress: &Progress) -> Result<Option<T>, Fault> {
        remove(entry);
        let message =
            format!("a resolution in the cache was discarded, and packages are downloaded again: {reason}");
        progress.send(ProgressEvent::Warning { message });
        Ok(None)
    }

    /// The entries beyond the number that is kept, longest unused first.
    fn oldest(&self, folder: &Path) -> Vec<PathBuf> {
        let Ok(listing) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut entries: Vec<_> = listing
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        entries.sort();
        let surplus = entries.len().saturating_sub(self.entries.max(1));
        entries.into_iter().take(surplus).map(|(_, path)| path).collect()
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Both records hold strings, numbers and booleans alone, which always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

fn age(path: &Path) -> Option<Duration> {
    SystemTime::now()
        .duration_since(fs::metadata(path).ok()?.modified().ok()?)
        .ok()
}

/// Marks an entry as used; failing to do so costs no more than an early end of the entry.
fn touch(path: &Path) {
    if let Ok(file) = fs::File::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
}

fn empty(folder: &Path) -> Result<(), Fault> {
    let fault = |error| Fault::file("empty", folder, error);
    for entry in fs::read_dir(folder).map_err(fault)? {
        fs::remove_file(entry.map_err(fault)?.path()).map_err(fault)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        root: tempfile::TempDir,
        packages: Vec<Package>,
        key: Key,
    }

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let from = root.path().join("from");
            fs::create_dir(&from).unwrap();
            for name in ["a", "b"] {
                let metadata = format!("Name: {name}\nVersion: 1\n");
                wheel::tests::write(
                    &from,
                    &format!("{name}-1-py3-none-any.whl"),
                    &[(&format!("{name}-1.dist-info/METADATA"), &metadata)],
                );
            }
            let packages = wheel::measure(&from).unwrap();
            Self {
                root,
                packages,
                key: Key::of("test", &[]),
            }
        }

        fn cache(&self, expiry: Duration, entries: usize) -> Cache {
            Cache::open(&self.root.path().join("cache"), expiry, entries).unwrap()
        }

        fn keep(&self, cache: &Cache, for_ever: bool) {
            cache
                .keep_wheels(
                    &self.key,
                    &self.packages,
                    &self.root.path().join("from"),
                    for_ever,
                )
                .unwrap();
        }

        fn take(&self, cache: &Cache) -> Option<Vec<Package>> {
            let into = tempfile::tempdir_in(self.root.path()).unwrap();
            let found = cache
                .wheels(&self.key, into.path(), &Progress::ignored())
                .unwrap();
            let files = fs::read_dir(into.path()).unwrap().count();
            assert_eq!(
                files,
                found.as_ref().map_or(0, Vec::len),
                "a folder holds all or nothing"
            );
            found
        }
    }

    #[test]
    fn an_entry_is_used_only_while_every_byte_of_it_is_the_same() {
        let fixture = Fixture::new();
        let cache = fixture.cache(Duration::from_secs(60), 8);
        let entry = cache.directory.join("wheels").join(fixture.key.as_str());
        let damages: [&dyn Fn(); 4] = [
            &|| fs::write(entry.join("a-1-py3-none-any.whl"), "other").unwrap(),
            &|| fs::remove_file(entry.join("b-1-py3-none-any.whl")).unwrap(),
            &|| fs::write(entry.join(INDEX), "{}").unwrap(),
            &|| {
                let text = fs::read_to_string(entry.join(INDEX)).unwrap();
                fs::write(
                    entry.join(INDEX),
                    text.replace("\"version\":\"1\"", "\"version\":\"2\""),
                )
                .unwrap();
            },
        ];
        for damage in damages {
            fixture.keep(&cache, true);
            assert_eq!(fixture.take(&cache), Some(fixture.packages.clone()));
            damage();
            assert_eq!(fixture.take(&cache), None);
            assert!(!entry.exists(), "a damaged entry is discarded");
        }
    }

    #[test]
    fn open_versions_expire_and_pinned_ones_do_not() {
        let fixture = Fixture::new();
        let cache = fixture.cache(Duration::ZERO, 8);
        fixture.keep(&cache, true);
        assert!(fixture.take(&cache).is_some());
        fixture.keep(&cache, false);
        std::thread::sleep(Duration::from_millis(20));
        assert!(fixture.take(&cache).is_none());
    }

    #[test]
    fn the_longest_unused_go_first() {
        let fixture = Fixture::new();
        let cache = fixture.cache(Duration::ZERO, 2);
        let image = |n: u8| ImageDigest::from_bytes([n; 32]);
        let key = |n: u8| Key::of("build", &[&n.to_string()]);
        for n in 0..3 {
            let forgotten = cache.keep_built(&key(n), image(n)).unwrap();
            assert_eq!(forgotten, if n == 2 { vec![image(1)] } else { vec![] }, "{n}");
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(cache.built(&key(0)), Some(image(0)));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(cache.built(&key(1)), None);
    }

    #[test]
    fn a_cache_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let fixture = Fixture::new();
        let cache = fixture.cache(Duration::ZERO, 2);
        fs::set_permissions(cache.directory.join("images"), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Cache::open(&cache.directory, Duration::ZERO, 2)
            .unwrap_err()
            .to_string();
        assert!(error.contains("written by others"), "{error}");
    }

    #[test]
    fn a_key_names_one_thing() {
        let image = ImageDigest::from_bytes([1; 32]);
        let keys = [
            Key::of_requirements(&image, "a", None),
            Key::of_requirements(&image, "a", Some("")),
            Key::of_requirements(&image, "b", None),
            Key::of_requirements(&ImageDigest::from_bytes([2; 32]), "a", None),
            Key::of("x", &["ab", "c"]),
            Key::of("x", &["a", "bc"]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys[..index].iter().all(|other| other != key), "{index}");
        }
    }
}
