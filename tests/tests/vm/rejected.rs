//! Machines that boot something else than what was released: each is refused before anything is sent to it, and the difference is
//! said in words.

use std::time::Duration;

use aicert_tests::base::{Alteration, BaseImage};
use aicert_tests::scene::Ended;
use aicert_tests::vm::Desk;

use crate::WORKSHOP;

const LIMIT: Duration = Duration::from_secs(900);

/// What the server logs when a job has come.
const ACCEPTED: &str = "accepted a job";

/// Has a job run on a machine that boots this image; what it says must have been refused.
fn refused(desk: &Desk, image: &BaseImage) -> Ended {
    desk.python_job(image, 4096, "print('never')\n", "");
    let ended = desk.start_run().wait(LIMIT).expect(1);
    eprintln!("milestones: {}\n{}", desk.consoles().milestones(), ended.stderr);
    assert!(
        ended.stderr.contains("nothing was sent to it"),
        "{}",
        ended.stderr
    );
    // And the machine says so as well.
    assert!(!desk.consoles().text().contains(ACCEPTED));
    desk.assert_no_results();
    desk.assert_nothing_is_left();
    ended
}

#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    for words in words {
        assert!(ended.stderr.contains(words), "no {words:?} in\n{}", ended.stderr);
    }
}

fn altered(alteration: Alteration<'_>) -> Option<(Desk, Ended)> {
    let image = BaseImage::released(&WORKSHOP)?;
    let desk = Desk::new(WORKSHOP.aicert);
    let altered = image.altered(&alteration, desk.scene().path());
    let ended = refused(&desk, &altered);
    Some((desk, ended))
}

#[test]
fn another_command_line() {
    let Some((desk, ended)) = altered(Alteration::CommandLine("aicert.one_more_word")) else {
        return;
    };
    // It did boot, and its server would have served.
    assert!(desk.consoles().text().contains("aicert-server: ready"));
    // The log has the digest of what was booted, and the reference values say what it should have been.
    assert_says(
        &ended,
        &[
            "the nearest is \"aicert-base",
            "`section .cmdline: content` was measured as",
            "the released command line is",
        ],
    );
}

#[test]
fn another_initrd() {
    let Some((desk, ended)) = altered(Alteration::Initrd("one-more-file")) else {
        return;
    };
    assert!(desk.consoles().text().contains("aicert-server: ready"));
    assert_says(
        &ended,
        &[
            "the nearest is \"aicert-base",
            "`section .initrd: content` was measured as",
        ],
    );
}

#[test]
fn another_server() {
    let Some(image) = BaseImage::with_another_server(&WORKSHOP) else {
        return;
    };
    let desk = Desk::new(WORKSHOP.aicert);
    let ended = refused(&desk, &image);
    assert!(
        desk.consoles()
            .text()
            .contains("aicert-server: ready, and not what was released")
    );
    // The hash of the root file system, and so of the server, is on the command line.
    assert_says(
        &ended,
        &[
            "the nearest is \"aicert-base",
            "`section .cmdline: content` was measured as",
            "aicert.root=",
        ],
    );
}

#[test]
fn one_changed_bit_in_the_root_file_system() {
    let Some((desk, ended)) = altered(Alteration::RootFileSystem) else {
        return;
    };
    assert!(!desk.consoles().text().contains("stage 2"), "it was started from");
    assert_says(
        &ended,
        &[
            "ended before it could be attested",
            "the root file system is not the one",
            "data block 0",
        ],
    );
}
