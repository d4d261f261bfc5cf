//! Wheels: whose they are, and their hash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aicert_core::digest::FileDigest;
use aicert_core::event::Package;
use aicert_core::runtime::RuntimeErrorKind;
use sha2::{Digest as _, Sha256};

use crate::error::Fault;

/// A description of a package that is longer is not read to its end; name and version stand at its start.
const METADATA_LIMIT: u64 = 16 << 20;
const BUFFER: usize = 1 << 20;

/// The one spelling of a package's name (PyPA specification "Names and normalization").
pub(crate) fn normalize(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.push(other.to_ascii_lowercase()),
        }
    }
    normal
}

/// Measures every file of a folder, sorted by name; refuses anything that is not a wheel.
pub(crate) fn measure(folder: &Path) -> Result<Vec<Package>, Fault> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Fault::file("list", folder, error))? {
        let entry = entry.map_err(|error| Fault::file("list", folder, error))?;
        let path = entry.path();
        let kind = entry
            .file_type()
            .map_err(|error| Fault::file("read", &path, error))?;
        if !kind.is_file() {
            return Err(not_a_wheel(&path, "it is not a regular file"));
        }
        files.push(path);
    }
    files.sort();
    let mut packages = in_parallel(&files, |path| wheel(path))?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = packages.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Fault::told(
            RuntimeErrorKind::Dependencies,
            format!(
                "the package {} was downloaded twice: {} and {}",
                pair[0].name, pair[0].file, pair[1].file
            ),
            "name it once in the requirements file",
        ));
    }
    Ok(packages)
}

/// Runs `work` for every item on as many threads as there are cores; hashing is what takes the time.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, Fault> + Sync,
) -> Result<Vec<R>, Fault> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(items.len());
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    results
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .insert(index, result);
                }
            });
        }
    });
    results
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .into_values()
        .collect()
}

fn wheel(path: &Path) -> Result<Package, Fault> {
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte);
    if !file.ends_with(".whl") || !file.bytes().all(fine) {
        return Err(not_a_wheel(path, "its name is not that of a wheel"));
    }
    let (name, version) = identity(path)?;
    let claimed = normalize(file.split('-').next().unwrap_or_default());
    if claimed != name {
        return Err(not_a_wheel(
            path,
            &format!("its metadata says {name:?}, its file name says {claimed:?}"),
        ));
    }
    Ok(Package {
        name,
        version,
        file: file.to_owned(),
        hash: hash(path)?,
    })
}

/// Normalized name and version from the wheel's `METADATA` (PyPA specification "Binary distribution format").
fn identity(path: &Path) -> Result<(String, String), Fault> {
    let file = File::open(path).map_err(|error| Fault::file("open", path, error))?;
    let broken =
        |error: zip::result::ZipError| not_a_wheel(path, &format!("it is no readable zip file: {error}"));
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(broken)?;
    let is_metadata = |name: &str| {
        name.strip_suffix(".dist-info/METADATA")
            .is_some_and(|folder| !folder.is_empty() && !folder.contains('/'))
    };
    let mut found = Vec::new();
    for name in archive.file_names() {
        let name = name.map_err(broken)?;
        if is_metadata(&name) {
            found.push(name.into_owned());
        }
    }
    let [name] = found.as_slice() else {
        return Err(not_a_wheel(path, "it must have exactly one .dist-info/METADATA"));
    };
    let mut metadata = Vec::new();
    let entry = archive.by_name(name).map_err(broken)?;
    entry
        .take(METADATA_LIMIT)
        .read_to_end(&mut metadata)
        .map_err(|error| not_a_wheel(path, &error.to_string()))?;
    headers(&String::from_utf8_lossy(&metadata))
        .ok_or_else(|| not_a_wheel(path, "its metadata has no name and version"))
}

/// Name and version, each exactly once, from headers like those of an e-mail.
fn headers(metadata: &str) -> Option<(String, String)> {
    let (mut name, mut version) = (None, None);
    for line in metadata.lines().take_while(|line| !line.is_empty()) {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let slot = match key.to_ascii_lowercase().as_str() {
            "name" => &mut name,
            "version" => &mut version,
            _ => continue,
        };
        if slot.replace(value.trim().to_owned()).is_some() {
            return None;
        }
    }
    let (name, version) = (name?, version?);
    let word = |text: &str, extra: &[u8]| {
        !text.is_empty()
            && text.len() <= 200
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    };
    (word(&name, b"._-") && word(&version, b"._-+!")).then(|| (normalize(&name), version))
}

/// SHA-256 of a file.
pub(crate) fn hash(path: &Path) -> Result<FileDigest, Fault> {
    let file = File::open(path).map_err(|error| Fault::file("open", path, error))?;
    pour(file, io::sink()).map_err(|error| Fault::file("read", path, error))
}

/// Copies a file to a new one, and hashes exactly the bytes that are written.
pub(crate) fn copy_hashed(from: &Path, to: &Path) -> Result<FileDigest, Fault> {
    let source = File::open(from).map_err(|error| Fault::file("open", from, error))?;
    let target = File::create_new(to).map_err(|error| Fault::file("write", to, error))?;
    pour(source, target).map_err(|error| Fault::file("write", to, error))
}

fn pour(mut from: impl Read, mut to: impl Write) -> io::Result<FileDigest> {
    let mut buffer = vec![0; BUFFER];
    let mut hasher = Sha256::new();
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(FileDigest::from_bytes(hasher.finalize().into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
    }
}

/// Checks that a folder holds exactly these packages.
pub(crate) fn check(folder: &Path, packages: &[Package]) -> Result<(), Fault> {
    let found = in_parallel(packages, |package| hash(&file_in(folder, package)?))?;
    match packages
        .iter()
        .zip(found)
        .find(|(package, found)| package.hash != *found)
    {
        None => Ok(()),
        Some((package, found)) => Err(Fault::told(
            RuntimeErrorKind::Dependencies,
            format!(
                "{} changed after it was measured: expected {}, found {found}",
                package.file, package.hash
            ),
            "start the job again; if it happens again, look for what writes into the job's folder",
        )),
    }
}

/// The path of a package's file; refuses names that lead elsewhere.
pub(crate) fn file_in(folder: &Path, package: &Package) -> Result<PathBuf, Fault> {
    if package.file.contains('/') || !package.file.ends_with(".whl") {
        return Err(not_a_wheel(
            Path::new(&package.file),
            "its name is not that of a wheel",
        ));
    }
    Ok(folder.join(&package.file))
}

fn not_a_wheel(path: &Path, reason: &str) -> Fault {
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    Fault::told(
        RuntimeErrorKind::Dependencies,
        format!("{name:?} is no wheel that can be measured: {reason}"),
        "only wheels are installed; ask the package's authors for one, or use another version",
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes a wheel with this metadata.
    pub(crate) fn write(folder: &Path, file: &str, entries: &[(&str, &str)]) {
        let mut archive = zip::ZipWriter::new(File::create(folder.join(file)).unwrap());
        for (name, content) in entries {
            archive
                .start_file(*name, zip::write::SimpleFileOptions::default())
                .unwrap();
            archive.write_all(content.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn a_wheel_is_what_its_metadata_says() {
        let folder = tempfile::tempdir().unwrap();
        let info = "Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1.0+cpu\nSummary: x\n\nName: other\n";
        write(
            folder.path(),
            "Foo_Bar-1.0+cpu-py3-none-any.whl",
            &[("Foo_Bar-1.0+cpu.dist-info/METADATA", info)],
        );
        write(
            folder.path(),
            "abc-2-py3-none-any.whl",
            &[("abc-2.dist-info/METADATA", "Name: abc\nVersion: 2\n")],
        );
        let packages = measure(folder.path()).unwrap();
        assert_eq!(
            packages
                .iter()
                .map(|p| (&*p.name, &*p.version))
                .collect::<Vec<_>>(),
            [("abc", "2"), ("foo-bar", "1.0+cpu")]
        );
        assert_eq!(
            packages[0].hash,
            FileDigest::of(&fs::read(folder.path().join(&packages[0].file)).unwrap())
        );
        check(folder.path(), &packages).unwrap();
        fs::write(folder.path().join(&packages[1].file), "changed").unwrap();
        let error = check(folder.path(), &packages).unwrap_err().to_string();
        assert!(error.contains("changed after it was measured"), "{error}");
    }

    #[test]
    fn what_is_no_wheel_is_refused() {
        let refused = |fill: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            fill(folder.path());
            measure(folder.path()).unwrap_err().to_string()
        };
        let metadata = ("a-1.dist-info/METADATA", "Name: a\nVersion: 1\n");
        assert!(refused(&|folder| fs::write(folder.join("a-1.tar.gz"), "").unwrap()).contains("its name"));
        assert!(
            refused(&|folder| fs::write(folder.join("a-1-py3-none-any.whl"), "x").unwrap()).contains("zip")
        );
        assert!(
            refused(&|folder| fs::create_dir(folder.join("a-1-py3-none-any.whl")).unwrap())
                .contains("regular file")
        );
        assert!(
            refused(
                &|folder| std::os::unix::fs::symlink("/etc/passwd", folder.join("a-1-py3-none-any.whl"))
                    .unwrap()
            )
            .contains("regular file")
        );
        assert!(
            refused(&|folder| write(folder, "b-1-py3-none-any.whl", &[metadata]))
                .contains("its file name says \"b\"")
        );
        assert!(refused(&|folder| write(folder, "a-1-py3-none-any.whl", &[])).contains("exactly one"));
        assert!(
            refused(&|folder| write(
                folder,
                "a-1-py3-none-any.whl",
                &[metadata, ("b-1.dist-info/METADATA", "")]
            ))
            .contains("exactly one")
        );
        let doubled = ("a-1.dist-info/METADATA", "Name: a\nVersion: 1\nVersion: 2\n");
        assert!(
            refused(&|folder| write(folder, "a-1-py3-none-any.whl", &[doubled]))
                .contains("no name and version")
        );
        assert!(
            refused(&|folder| {
                write(folder, "a-1-py3-none-any.whl", &[metadata]);
                write(folder, "A-1-py3-none-linux.whl", &[metadata]);
            })
            .contains("twice")
        );
    }

    proptest! {
        #[test]
        fn normalizing_is_idempotent(name in "[A-Za-z0-9][A-Za-z0-9._-]{0,20}[A-Za-z0-9]") {
            let normal = normalize(&name);
            prop_assert_eq!(normalize(&normal), normal.clone());
            prop_assert!(!normal.contains("--") && !normal.contains(['_', '.']));
        }

        #[test]
        fn arbitrary_bytes_are_no_wheel(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a-1-py3-none-any.whl"), bytes).unwrap();
            prop_assert!(measure(folder.path()).is_err());
        }
    }
}
