use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::digest::FileDigest;
use crate::tree::{Entry, TreeError};

const QUIET: Options<'static> = Options::quiet(HardLinks::Refuse);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Both ways of measuring, which must agree on what they refuse.
fn refusal(root: &Path) -> MeasureError {
    let measured = measure(root, &QUIET).unwrap_err();
    let place = folder();
    let to = place.path().join("copy");
    let copied = copy(root, &to, &QUIET).unwrap_err();
    assert_eq!(measured.to_string(), copied.to_string());
    assert!(!to.exists(), "nothing remains of a refused copy");
    assert!(measured.is_refusal() && measured.advice().is_some(), "{measured}");
    measured
}

#[test]
fn a_tree_is_its_files_links_and_executable_bits() {
    let root = folder();
    write(root.path(), "b/two", b"two");
    write(root.path(), "a", b"");
    write(root.path(), "b-c", &vec![7; 700_000]);
    write(root.path(), "ünïcode & $(sh) `x`; 'q' \"d\" *", b"abc");
    fs::create_dir_all(root.path().join("empty/inner")).unwrap();
    symlink("../a", root.path().join("b/link")).unwrap();
    symlink("nowhere", root.path().join("dangling")).unwrap();
    fs::set_permissions(root.path().join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.path().join("b/two"), fs::Permissions::from_mode(0o655)).unwrap();

    let tree = measure(root.path(), &QUIET).unwrap();
    let path = |text: &str| text.parse().unwrap();
    let expected = [
        Entry::file(path("a"), true, 0, FileDigest::of(b"")),
        Entry::file(path("b-c"), false, 700_000, FileDigest::of(&vec![7; 700_000])),
        Entry::symlink(path("b/link"), "../a".into()).unwrap(),
        Entry::file(path("b/two"), false, 3, FileDigest::of(b"two")),
        Entry::symlink(path("dangling"), "nowhere".into()).unwrap(),
        Entry::file(
            path("ünïcode & $(sh) `x`; 'q' \"d\" *"),
            false,
            3,
            FileDigest::of(b"abc"),
        ),
    ];
    assert_eq!(tree.entries(), expected);

    let place = folder();
    let to = place.path().join("copy");
    assert_eq!(copy(root.path(), &to, &QUIET).unwrap(), tree);
    assert_eq!(measure(&to, &QUIET).unwrap(), tree);
    assert!(!to.join("empty").exists());
    assert_eq!(fs::metadata(to.join("a")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(to.join("b")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(to.join("b/two")).unwrap().mode() & 0o7777, 0o644);
    assert!(
        copy(root.path(), &to, &QUIET).is_err(),
        "an existing target is never written to"
    );
    assert_eq!(measure(&to, &QUIET).unwrap(), tree);
}

/// Names that differ in case alone are different files, and changing one into the other is a change.
#[test]
fn names_that_differ_in_case_alone_are_different() {
    let root = folder();
    write(root.path(), "README", b"one");
    write(root.path(), "readme", b"two");
    let tree = measure(root.path(), &QUIET).unwrap();
    let paths: Vec<_> = tree.entries().iter().map(|entry| entry.path().as_str()).collect();
    assert_eq!(paths, ["README", "readme"]);
    fs::remove_file(root.path().join("readme")).unwrap();
    fs::rename(root.path().join("README"), root.path().join("Readme")).unwrap();
    write(root.path(), "readme", b"two");
    assert_ne!(measure(root.path(), &QUIET).unwrap().root(), tree.root());
}

#[test]
fn special_files_are_refused_by_name() {
    for (kind, mode, words) in [
        (FileType::Fifo, Mode::RUSR, "a FIFO"),
        (FileType::CharacterDevice, Mode::RUSR, "a character device"),
        (FileType::BlockDevice, Mode::RUSR, "a block device"),
    ] {
        let root = folder();
        write(root.path(), "sub/ordinary", b"x");
        // Major 1, minor 3 is /dev/null; making it needs root.
        let device = rustix::fs::makedev(1, 3);
        match rustix::fs::mknodat(CWD, root.path().join("sub/odd"), kind, mode, device) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) if kind != FileType::Fifo => continue,
            Err(error) => panic!("{error}"),
        }
        let error = refusal(root.path());
        assert!(
            matches!(error, MeasureError::Special { kind, .. } if kind == words),
            "{error}"
        );
        assert!(error.to_string().contains("sub/odd"), "{error}");
    }
    let root = folder();
    let _socket = UnixListener::bind(root.path().join("s")).unwrap();
    assert!(matches!(
        refusal(root.path()),
        MeasureError::Special { kind: "a socket", .. }
    ));
}

#[test]
fn links_that_leave_the_tree_are_refused() {
    for (link, target) in [
        ("l", "/etc/passwd"),
        ("l", "../x"),
        ("d/l", "../../x"),
        ("d/l", "../d/../../x"),
        ("l", "a\nb"),
    ] {
        let root = folder();
        write(root.path(), "d/x", b"x");
        symlink(target, root.path().join(link)).unwrap();
        let error = refusal(root.path());
        assert!(
            matches!(error, MeasureError::Tree(TreeError::Link { .. })),
            "{link} -> {target}: {error}"
        );
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn names_that_cannot_be_recorded_are_refused_and_shown_escaped() {
    for (name, shown) in [
        (&b"caf\xe9"[..], r"caf\xE9"),
        (b"two\nlines", r"two\nlines"),
        (b"esc\x1b[31m", r"esc\u{1b}[31m"),
        (b"del\x7f", r"del\u{7f}"),
    ] {
        for is_folder in [false, true] {
            let root = folder();
            let path = root.path().join(OsStr::from_bytes(name));
            if is_folder {
                fs::create_dir(path).unwrap()
            } else {
                fs::write(path, b"x").unwrap()
            }
            let text = refusal(root.path()).to_string();
            assert!(text.contains(shown), "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    let root = folder();
    symlink(OsStr::from_bytes(b"caf\xe9"), root.path().join("l")).unwrap();
    assert!(matches!(refusal(root.path()), MeasureError::Name { .. }));
}

#[test]
fn hard_links_are_refused_where_asked() {
    let root = folder();
    let outside = folder();
    write(outside.path(), "other-name", b"x");
    fs::hard_link(outside.path().join("other-name"), root.path().join("file")).unwrap();
    assert!(matches!(
        refusal(root.path()),
        MeasureError::HardLink { links: 2, .. }
    ));
    let accepted = measure(root.path(), &Options::quiet(HardLinks::Accept)).unwrap();
    assert_eq!(accepted.entries()[0].hash(), Some(FileDigest::of(b"x")));
}

#[test]
fn depth_is_limited() {
    let root = folder();
    write(root.path(), &format!("{}f", "d/".repeat(MAX_DEPTH)), b"x");
    assert_eq!(measure(root.path(), &QUIET).unwrap().entries().len(), 1);
    write(root.path(), &format!("{}f", "e/".repeat(MAX_DEPTH + 1)), b"x");
    assert!(matches!(refusal(root.path()), MeasureError::TooDeep { .. }));
}

#[test]
fn another_file_system_is_refused() {
    // The one place where another file system is mounted below a directory on every Linux.
    let root = Path::new("/dev");
    let (dev, shm) = (fs::metadata(root).unwrap(), fs::metadata("/dev/pts"));
    if shm.is_ok_and(|shm| shm.dev() != dev.dev()) {
        let listed = walk::list(root, &QUIET);
        assert!(matches!(
            listed,
            Err(MeasureError::OtherFileSystem { .. } | MeasureError::Special { .. } | MeasureError::Tree(_))
        ));
    }
    // Bind mounts need root, and a container may forbid them to root.
    let root = folder();
    fs::create_dir(root.path().join("mounted")).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(root.path().join("mounted"))
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if mounted {
        let error = refusal(root.path());
        let unmounted = std::process::Command::new("umount")
            .arg(root.path().join("mounted"))
            .status();
        assert!(unmounted.unwrap().success());
        assert!(matches!(error, MeasureError::OtherFileSystem { .. }), "{error}");
    } else {
        eprintln!("skipped: mounting needs root");
    }
}

#[test]
fn sparse_files_hash_as_what_they_read_as() {
    let root = folder();
    let file = File::create(root.path().join("sparse")).unwrap();
    file.set_len(3_000_000).unwrap();
    let tree = measure(root.path(), &QUIET).unwrap();
    assert_eq!(
        tree.entries()[0].hash(),
        Some(FileDigest::of(&vec![0; 3_000_000]))
    );
}

#[test]
fn what_is_missing_or_not_a_directory_is_named() {
    let root = folder();
    write(root.path(), "file", b"x");
    for (path, words) in [("absent", "it does not exist"), ("file", "it is not a directory")] {
        let error = measure(&root.path().join(path), &QUIET).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.advice().is_some());
    }
    assert!(hash_file(&root.path().join("absent"), &QUIET).is_err());
    assert!(matches!(
        hash_file(root.path(), &QUIET),
        Err(MeasureError::Special {
            kind: "a directory",
            ..
        })
    ));
    let measured = (FileDigest::of(b"x"), 1);
    assert_eq!(hash_file(&root.path().join("file"), &QUIET).unwrap(), measured);
    let copied = root.path().join("copied");
    assert_eq!(
        copy_file(&root.path().join("file"), &copied, &QUIET).unwrap(),
        measured
    );
    assert_eq!(fs::read(&copied).unwrap(), b"x");
    assert!(
        copy_file(&root.path().join("file"), &copied, &QUIET).is_err(),
        "never overwritten"
    );
    assert!(copied.exists(), "what was there before stays");
    assert!(copy_file(root.path(), &root.path().join("other"), &QUIET).is_err());
    assert!(!root.path().join("other").exists());
}

#[test]
fn unreadable_files_are_named() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything; /proc has a file that fails even for root: its own memory at address 0.
        let error = hash_file(Path::new("/proc/self/mem"), &QUIET).unwrap_err();
        assert!(error.to_string().contains("/proc/self/mem"), "{error}");
        return;
    }
    let root = folder();
    write(root.path(), "secret", b"x");
    fs::set_permissions(root.path().join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let error = measure(root.path(), &QUIET).unwrap_err();
    assert!(
        error.to_string().contains("no permission") && !error.is_refusal(),
        "{error}"
    );
}

#[test]
fn a_file_whose_size_says_nothing_is_refused_rather_than_taken_for_empty() {
    let error = hash_file(Path::new("/proc/version"), &QUIET).unwrap_err();
    assert!(matches!(error, MeasureError::Changed { .. }), "{error}");
}

/// Runs `change` once, in another thread, in the middle of reading the large file of a folder, and waits for it.
fn disturbed(change: impl Fn(&Path) + Send + Sync) {
    for copying in [false, true] {
        let root = folder();
        write(root.path(), "d/large", &vec![1; 4_000_000]);
        write(root.path(), "d/small", b"small");
        let once = Mutex::new(true);
        let progress = |_| {
            let mut once = once.lock().unwrap();
            if std::mem::take(&mut *once) {
                std::thread::scope(|scope| scope.spawn(|| change(&root.path().join("d"))).join().unwrap());
            }
        };
        let options = Options {
            progress: &progress,
            ..QUIET
        };
        let place = folder();
        let to = place.path().join("copy");
        let result = if copying {
            copy(root.path(), &to, &options)
        } else {
            measure(root.path(), &options)
        };
        let error = result.unwrap_err();
        assert!(!*once.lock().unwrap());
        assert!(
            matches!(error, MeasureError::Changed { .. } | MeasureError::Tree(_)),
            "{error}"
        );
        assert!(!to.exists());
    }
}

#[test]
fn whatever_changes_while_it_is_measured_is_an_error() {
    // Grows.
    disturbed(|d| {
        OpenOptions::new()
            .append(true)
            .open(d.join("large"))
            .unwrap()
            .write_all(b"x")
            .unwrap()
    });
    // Shrinks.
    disturbed(|d| {
        OpenOptions::new()
            .write(true)
            .open(d.join("large"))
            .unwrap()
            .set_len(10)
            .unwrap()
    });
    // Is written to in place, size unchanged, with its modification time put back.
    disturbed(|d| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut file = OpenOptions::new().write(true).open(d.join("large")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all(b"other").unwrap();
        file.set_modified(modified).unwrap();
    });
    // Is replaced by another of the same size.
    disturbed(|d| {
        fs::write(d.join("new"), vec![2; 4_000_000]).unwrap();
        fs::rename(d.join("new"), d.join("large")).unwrap();
    });
    // Another file is replaced, removed, added, or becomes a link or a FIFO.
    disturbed(|d| {
        fs::write(d.join("new"), b"other").unwrap();
        fs::rename(d.join("new"), d.join("small")).unwrap();
    });
    disturbed(|d| fs::remove_file(d.join("small")).unwrap());
    disturbed(|d| fs::write(d.join("added"), b"").unwrap());
    disturbed(|d| {
        fs::remove_file(d.join("small")).unwrap();
        symlink("/etc/passwd", d.join("small")).unwrap();
    });
    // The directory itself becomes a link to one like it.
    disturbed(|d| {
        let elsewhere = d.with_file_name("elsewhere");
        fs::rename(d, &elsewhere).unwrap();
        symlink("elsewhere", d).unwrap();
    });
}

#[test]
fn a_fifo_that_takes_the_place_of_a_file_does_not_block() {
    let root = folder();
    write(root.path(), "large", &vec![1; 4_000_000]);
    let found = walk::list(root.path(), &QUIET).unwrap();
    fs::remove_file(root.path().join("large")).unwrap();
    rustix::fs::mknodat(CWD, root.path().join("large"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let error = hash::hash_all(root.path(), &found, &QUIET, None).unwrap_err();
    assert!(matches!(error, MeasureError::Changed { .. }), "{error}");
}

#[test]
fn progress_counts_every_byte_and_cancelling_stops() {
    let root = folder();
    for index in 0..20 {
        write(root.path(), &format!("f{index}"), &vec![1; 600_000]);
    }
    let most = AtomicU64::new(0);
    let progress = |bytes| {
        most.fetch_max(bytes, Ordering::Relaxed);
    };
    measure(
        root.path(),
        &Options {
            progress: &progress,
            ..QUIET
        },
    )
    .unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 12_000_000);

    let cancelled = AtomicBool::new(false);
    let most = AtomicU64::new(0);
    let progress = |bytes| {
        most.fetch_max(bytes, Ordering::Relaxed);
        cancelled.store(true, Ordering::Relaxed);
    };
    let options = Options {
        progress: &progress,
        cancelled: &cancelled,
        ..QUIET
    };
    assert!(matches!(
        measure(root.path(), &options),
        Err(MeasureError::Cancelled)
    ));
    assert!(most.load(Ordering::Relaxed) < 6_000_000);
}

#[test]
fn a_full_disk_is_named() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let error = MeasureError::io(
        "write",
        Path::new("/dev/full"),
        fs::write("/dev/full", b"x").unwrap_err(),
    );
    assert_eq!(
        error.to_string(),
        "could not write \"/dev/full\": the disk is full"
    );
    assert!(error.advice().unwrap().contains("free some space") && !error.is_refusal());
}
