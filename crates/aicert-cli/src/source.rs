//! Reading what the user names: files, or standard input for `-`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

use crate::error::Failure;
use crate::formats;

/// Reads one file whole, but at most one byte more than `limit`, so that whoever reads the bytes sees that they are too
/// many. `what` names it in errors: "the proof".
pub(crate) fn read_bounded(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: &io::Error| {
        Failure::misuse(format!("could not read {what} {}", path.display())).because(error)
    };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        let stdin = io::stdin().lock();
        if stdin.is_terminal() {
            return Err(Failure::misuse(format!(
                "{what} is to come from standard input, which is a terminal"
            ))
            .help("name a file instead of `-`, or pipe one in"));
        }
        take(stdin, limit, &mut bytes)
    } else {
        File::open(path).and_then(|file| {
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            take(file, limit, &mut bytes)
        })
    }
    .map_err(|error| unreadable(&error))?;
    Ok(bytes)
}

/// Reads one file whole; one that is empty or larger than `limit` is refused.
pub(crate) fn read(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>, Failure> {
    let bytes = read_bounded(path, limit, what)?;
    let shown = path.display();
    if bytes.is_empty() {
        let failure = Failure::misuse(format!("{what} {shown} is empty"));
        return Err(if path == Path::new("-") {
            failure.help("nothing came from standard input, which can stand for one file only")
        } else {
            failure
        });
    }
    if bytes.len() as u64 > limit {
        let failure = Failure::misuse(format!(
            "{what} {shown} is too large: it has more than {} bytes",
            grouped(limit)
        ));
        return Err(match formats::recognise(&bytes) {
            Some(found) => failure.help(format!("it looks like {found}")),
            None => failure,
        });
    }
    Ok(bytes)
}

/// Says that bytes cannot be read as what they should be ("an event log"), and what they look like, unless that is a
/// name of the same (`like`).
pub(crate) fn not_a(path: &Path, bytes: &[u8], expected: &str, like: &str) -> Failure {
    let failure = Failure::misuse(format!("{} cannot be read as {expected}", path.display()));
    match formats::recognise(bytes).filter(|found| !found.contains(like)) {
        Some(found) => failure.help(format!("it looks like {found}")),
        None => failure,
    }
}

/// Bytes that the user writes as hexadecimal digits of either case.
pub(crate) fn hexadecimal(option: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |reason: String| {
        Failure::misuse(format!("`{option}` is not hexadecimal: {reason}"))
            .help("give two digits (0 to 9, a to f) for each byte, and nothing else")
    };
    if text.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    if let Some((position, found)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        let prefix = if text.starts_with("0x") {
            " (leave `0x` out)"
        } else {
            ""
        };
        return Err(wrong(format!("character {} is {found:?}{prefix}", position + 1)));
    }
    // Only digits are left, so this fails only for an odd number of them.
    hex::decode(text).map_err(|_| wrong(format!("it has {} digits, an odd number", text.len())))
}

fn take(reader: impl Read, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    reader
        .take(limit.saturating_add(1))
        .read_to_end(bytes)
        .map(|_| ())
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_or_explained() {
        assert_eq!(hexadecimal("--nonce", "00fFA0").unwrap(), [0, 0xff, 0xa0]);
        for (wrong, reason) in [
            ("", "empty"),
            ("abc", "3 digits, an odd number"),
            ("0x12", "character 2 is 'x' (leave `0x` out)"),
            ("ab:cd", "character 3 is ':'"),
            ("é0", "character 1 is 'é'"),
        ] {
            let failure = hexadecimal("--nonce", wrong).unwrap_err();
            assert!(failure.message.contains(reason), "{}", failure.message);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 4_194_304].map(grouped),
            ["0", "999", "1,000", "4,194,304"]
        );
    }
}
