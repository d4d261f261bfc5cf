//! What a machine wrote to its console, for people.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use aicert_core::text;

use crate::folder::{self, Folder};

/// How much of the console is shown: its end.
const SHOWN: u64 = 64 << 10;

/// How much of a program's complaints is shown.
const MESSAGES_SHOWN: u64 = 4 << 10;

/// QEMU adds to the file whatever the machine writes. When the file has become larger than this, what came first is given
/// up by whoever looks at the machine next.
const FILE_LIMIT: u64 = 16 << 20;

/// What is kept of a console that was cut.
const KEPT: &str = "console.kept";

/// The end of what the machine wrote, and what the programs that run it complained about; safe to show on a terminal.
pub(crate) fn show(folder: &Folder) -> String {
    let mut bytes = end(&folder.at(KEPT), SHOWN).unwrap_or_default();
    bytes.extend(end(&folder.at(folder::CONSOLE), SHOWN).unwrap_or_default());
    let begin = bytes.len().saturating_sub(SHOWN as usize);
    let mut shown = printable(&bytes[begin..]);
    for (program, name) in [(folder::SWTPM, "swtpm"), (folder::QEMU, "QEMU")] {
        let messages = messages(folder, program);
        if !messages.is_empty() {
            shown.push_str(&format!("-- {name}: {messages}\n"));
        }
    }
    shown
}

/// What a program complained about, in short.
pub(crate) fn messages(folder: &Folder, program: &str) -> String {
    let bytes = end(&folder.messages(program), MESSAGES_SHOWN).unwrap_or_default();
    printable(&bytes).trim().to_owned()
}

/// Gives up what came first when a console has become too long.
pub(crate) fn cut(folder: &Folder) {
    let path = folder.at(folder::CONSOLE);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > FILE_LIMIT) {
        // If it does not succeed, the console stays as long as it is until the next look.
        let _ = end(&path, SHOWN).and_then(|kept| {
            folder::replace(&folder.at(KEPT), &kept)?;
            // QEMU writes behind the end, wherever that is.
            OpenOptions::new().write(true).open(&path)?.set_len(0)
        });
    }
}

/// The last bytes of a file.
fn end(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Text without what would make a terminal do something: firmware moves the cursor about, and changes colours.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            // Control sequences (ECMA-48, section 5.4): parameters, intermediates, and one final character.
            '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                while rest.next_if(|character| matches!(character, ' '..='?')).is_some() {}
                rest.next_if(|character| matches!(character, '@'..='~'));
            }
            '\u{1b}' => {}
            '\n' | '\t' => out.push(character),
            // With a line feed behind it, the end of a line; otherwise a line that is written over another.
            '\r' if rest.peek() == Some(&'\n') || rest.peek() == Some(&'\r') => {}
            '\r' => out.push('\n'),
            other if other.is_control() => {}
            other if text::is_deceptive(other) => out.extend(other.escape_unicode()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn nothing_that_is_shown_moves_the_cursor() {
        let firmware = b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[0m\x1b[35m\x1b[40mBdsDxe: failed\r\n\r\n>>Start PXE\x1b]0;title\x07\x08.";
        assert_eq!(printable(firmware), "BdsDxe: failed\n\n>>Start PXE]0;title.");
        assert_eq!(printable(b"10%\r20%\r\r\n\x1b"), "10%\n20%\n");
        assert_eq!(
            printable("a\u{202e}b\u{9b}31mc\tä".as_bytes()),
            "a\\u{202e}b31mc\tä"
        );
        assert_eq!(printable(b"\xff\x1b[99999999999999999m"), "\u{fffd}");
        assert_eq!(printable(b"\x1b[31"), "");
    }

    #[test]
    fn a_long_console_is_cut_and_goes_on() {
        let state = tempfile::tempdir().unwrap();
        let machines = folder::Machines::open(state.path()).unwrap();
        let folder = machines.folder(&"a".parse().unwrap());
        fs::create_dir(folder.path()).unwrap();
        assert_eq!(show(&folder), "");
        let path = folder.at(folder::CONSOLE);
        // As QEMU opens it.
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let line = [b'a'; 1023];
        for _ in 0..FILE_LIMIT / 1024 {
            file.write_all(&line).unwrap();
            file.write_all(b"\n").unwrap();
        }
        cut(&folder);
        assert_eq!(fs::metadata(&path).unwrap().len(), FILE_LIMIT);
        file.write_all(b"before\n").unwrap();
        cut(&folder);
        file.write_all(b"after\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 6);
        let shown = show(&folder);
        assert!(shown.ends_with("aaa\nbefore\nafter\n"));
        assert_eq!(shown.len() as u64, SHOWN);

        fs::write(folder.messages(folder::QEMU), "qemu: \x1b[1mno\n").unwrap();
        assert!(show(&folder).ends_with("after\n-- QEMU: qemu: no\n"));
    }
}
