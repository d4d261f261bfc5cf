//! The files that grow out of the stream, whatever happens on the way.

use std::os::unix::fs::PermissionsExt as _;

use aicert_core::measure::{self, HardLinks, Options};
use proptest::prelude::*;

use super::*;

const FILES: [(&str, bool, &[u8]); 6] = [
    ("a/empty", false, b""),
    ("a/model.bin", false, b"weights and more weights"),
    ("b/c/config.json", false, b"{}"),
    ("run.sh", true, b"#!/bin/sh\nexit\n"),
    ("z-empty", true, b""),
    ("z-last", false, b"!"),
];

fn tree() -> Tree {
    use aicert_core::digest::FileDigest;
    use aicert_core::tree::Entry;
    let mut entries: Vec<_> = FILES
        .iter()
        .map(|(path, executable, content)| {
            let size = content.len() as u64;
            Entry::file(path.parse().unwrap(), *executable, size, FileDigest::of(content))
        })
        .collect();
    entries.push(Entry::symlink("b/link".parse().unwrap(), "../a/model.bin".into()).unwrap());
    entries.push(Entry::symlink("zz/last".parse().unwrap(), "../a".into()).unwrap());
    Tree::from_entries(entries).unwrap()
}

fn stream() -> Vec<u8> {
    FILES
        .iter()
        .flat_map(|(_, _, content)| content.iter().copied())
        .collect()
}

/// What is at `into` measures as the tree, and nothing is beside it.
fn assert_complete(into: &Path) {
    let found = measure::measure(into, &Options::quiet(HardLinks::Refuse)).unwrap();
    assert_eq!(found, tree());
    let parent = into.parent().unwrap();
    let names: Vec<_> = std::fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [into.file_name().unwrap()]);
}

fn part(into: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(into.parent().unwrap()).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths
        .find(|path| path.to_str().unwrap().ends_with(".part"))
        .unwrap()
}

#[test]
fn the_stream_becomes_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("outputs");
    let mut sink = Sink::open(&into, tree()).unwrap();
    assert_eq!(sink.write(&stream()).unwrap(), Written::All);
    assert_eq!(sink.position(), tree().bytes());
    assert!(!into.exists());
    sink.finish().unwrap();
    assert_complete(&into);
    let mode = into.join("run.sh").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o100, 0o100);
}

/// A process may end at any byte, and the next goes on there.
#[test]
fn every_cut_is_gone_on_from() {
    let stream = stream();
    for cut in 0..=stream.len() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("outputs");
        let mut sink = Sink::open(&into, tree()).unwrap();
        sink.write(&stream[..cut]).unwrap();
        drop(sink);
        let mut sink = Sink::open(&into, tree()).unwrap();
        assert_eq!(sink.position(), cut as u64);
        sink.write(&stream[cut..]).unwrap();
        drop(sink);
        // Also when only the last step is missing.
        let sink = Sink::open(&into, tree()).unwrap();
        assert_eq!(sink.position(), stream.len() as u64);
        sink.finish().unwrap();
        assert_complete(&into);
    }
}

/// A process may also end between the last byte of a file and its mode.
#[test]
fn what_is_complete_becomes_executable() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("outputs");
    let mut sink = Sink::open(&into, tree()).unwrap();
    sink.write(&stream()).unwrap();
    drop(sink);
    for path in ["run.sh", "z-empty"] {
        let path = part(&into).join(path);
        std::fs::write(&path, if path.ends_with("run.sh") { FILES[3].2 } else { b"" }).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let sink = Sink::open(&into, tree()).unwrap();
    assert_eq!(sink.position(), tree().bytes());
    sink.finish().unwrap();
    assert_complete(&into);
}

#[test]
fn other_bytes_are_refused_at_every_place() {
    let honest = stream();
    for at in 0..honest.len() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("outputs");
        let mut stream = honest.clone();
        stream[at] ^= 1;
        let mut sink = Sink::open(&into, tree()).unwrap();
        let error = sink.write(&stream).unwrap_err();
        assert!(matches!(error, ClientError::OtherBytes { .. }), "{error}");
        assert!(error.to_string().contains("the proof says"), "{error}");
        drop(sink);
        // What was wrong is gone, what was right is kept, and the right bytes complete it.
        let mut sink = Sink::open(&into, tree()).unwrap();
        let position = usize::try_from(sink.position()).unwrap();
        assert!(position <= at);
        sink.write(&honest[position..]).unwrap();
        sink.finish().unwrap();
        assert_complete(&into);
    }
}

#[test]
fn too_many_and_too_few_bytes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("outputs");
    let mut sink = Sink::open(&into, tree()).unwrap();
    let error = sink.write(&[&stream()[..], b"x"].concat()).unwrap_err();
    assert!(
        error.to_string().contains("expected 42 bytes, found more"),
        "{error}"
    );
    drop(sink);
    std::fs::remove_dir_all(part(&into)).unwrap();
    let mut sink = Sink::open(&into, tree()).unwrap();
    sink.write(&stream()[..30]).unwrap();
    let error = sink.finish().unwrap_err();
    assert!(error.to_string().contains("found 30 bytes"), "{error}");
    assert!(!into.exists());
}

/// What lies on disk from before is believed no more than what comes.
#[test]
fn damage_to_what_is_there_is_mended() {
    type Damage = fn(&Path);
    let damages: [Damage; 6] = [
        |part| std::fs::write(part.join("a/model.bin"), "weights and MORE weights").unwrap(),
        |part| std::fs::write(part.join("a/model.bin"), "WEI").unwrap(),
        |part| std::fs::write(part.join("a/model.bin"), "weights and more weights, and more").unwrap(),
        |part| std::fs::remove_file(part.join("a/model.bin")).unwrap(),
        |part| {
            std::fs::remove_file(part.join("a/model.bin")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", part.join("a/model.bin")).unwrap();
        },
        |part| std::fs::write(part.join("a/empty"), "x").unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("outputs");
        let mut sink = Sink::open(&into, tree()).unwrap();
        sink.write(&stream()[..40]).unwrap();
        drop(sink);
        damage(&part(&into));
        let mut sink = Sink::open(&into, tree()).unwrap();
        let mut rounds = 0;
        while sink.position() < tree().bytes() {
            let from = usize::try_from(sink.position()).unwrap();
            sink.write(&stream()[from..]).unwrap();
            rounds += 1;
            assert!(rounds < 3, "damage {number}");
        }
        sink.finish().unwrap();
        assert_complete(&into);
    }
}

#[test]
fn nobody_else_may_write_there_and_nothing_may_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("outputs");
    let sink = Sink::open(&into, tree()).unwrap();
    let error = Sink::open(&into, tree()).unwrap_err();
    assert!(error.to_string().contains("somebody else is writing"), "{error}");
    drop(sink);
    std::fs::create_dir(&into).unwrap();
    let error = Sink::open(&into, tree()).unwrap_err();
    assert!(error.to_string().contains("it exists already"), "{error}");
    assert!(error.advice().unwrap().contains("nothing yet"));
    let nowhere = folder.path().join("absent/outputs");
    let error = Sink::open(&nowhere, tree()).unwrap_err();
    assert!(error.to_string().contains("it does not exist"), "{error}");
    let root = Sink::open("/".as_ref(), tree()).unwrap_err();
    assert!(root.advice().is_some());
}

/// What appears at the place while the download runs is not touched.
#[test]
fn what_appears_meanwhile_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("outputs");
    let mut sink = Sink::open(&into, tree()).unwrap();
    sink.write(&stream()).unwrap();
    std::fs::create_dir(&into).unwrap();
    assert!(matches!(sink.finish(), Err(ClientError::Storage { .. })));
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 0);
}

#[test]
fn a_tree_of_links_and_empty_files_needs_no_byte() {
    use aicert_core::digest::FileDigest;
    use aicert_core::tree::Entry;
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("outputs");
    let tree = Tree::from_entries(vec![
        Entry::symlink("a".parse().unwrap(), "b".into()).unwrap(),
        Entry::file("b".parse().unwrap(), false, 0, FileDigest::of(b"")),
    ])
    .unwrap();
    let mut sink = Sink::open(&into, tree.clone()).unwrap();
    assert_eq!((sink.position(), tree.bytes()), (0, 0));
    assert!(sink.write(b"x").is_err());
    sink.finish().unwrap();
    let found = measure::measure(&into, &Options::quiet(HardLinks::Refuse)).unwrap();
    assert_eq!(found, tree);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Pieces of any size, and a new process whenever it likes.
    #[test]
    fn it_does_not_matter_how_the_bytes_come(pieces in proptest::collection::vec((1usize..12, any::<bool>()), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("outputs");
        let stream = stream();
        let mut sink = Sink::open(&into, tree()).unwrap();
        for (length, restarts) in pieces {
            let from = usize::try_from(sink.position()).unwrap();
            let to = (from + length).min(stream.len());
            prop_assert_eq!(sink.write(&stream[from..to]).unwrap(), Written::All);
            prop_assert_eq!(sink.position(), to as u64);
            if restarts {
                drop(sink);
                sink = Sink::open(&into, tree()).unwrap();
                prop_assert_eq!(sink.position(), to as u64);
            }
        }
        let from = usize::try_from(sink.position()).unwrap();
        sink.write(&stream[from..]).unwrap();
        sink.finish().unwrap();
        assert_complete(&into);
    }
}
