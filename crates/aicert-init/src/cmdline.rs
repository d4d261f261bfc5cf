//! The kernel's command line. It is inside the image and measured: what it says about the root file system is what a
//! verifier has seen.

use crate::failure::{Failure, Outcome};

/// The word with the root file system.
const ROOT: &str = "aicert.root=";

const MEANING: &str = "the image's command line must have one word \
    aicert.root=<root hash, 64 hex digits>:<salt, up to 512 hex digits>:<number of 4096-byte blocks>";

/// The longest salt, in hex digits: a dm-verity superblock has room for 256 bytes (cryptsetup, lib/verity/verity.c).
const SALT_LIMIT: usize = 512;

/// More than any disk has.
const BLOCKS_LIMIT: u64 = 1 << 40;

/// What the root file system must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// The digest at the top of its hash tree, 64 lower-case hex digits.
    pub(crate) hash: String,
    /// What is hashed before each block, in lower-case hex digits; may be empty.
    pub(crate) salt: String,
    /// How many blocks of 4096 bytes it has.
    pub(crate) blocks: u64,
}

/// Takes the root file system out of a command line.
pub(crate) fn root(command_line: &str) -> Outcome<Root> {
    let mut words = command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(ROOT));
    match (words.next(), words.next()) {
        (Some(value), None) => parse(value),
        (None, _) => Err(Failure::new(
            "the kernel command line has no word aicert.root=",
            MEANING,
        )),
        (Some(_), Some(_)) => Err(Failure::new(
            "the kernel command line has more than one word aicert.root=",
            MEANING,
        )),
    }
}

fn parse(value: &str) -> Outcome<Root> {
    let wrong = |what: &str| Failure::new(format!("aicert.root on the kernel command line: {what}"), MEANING);
    let mut parts = value.split(':');
    let (Some(hash), Some(salt), Some(blocks), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong("not three parts"));
    };
    if hash.len() != 64 || !is_hex(hash) {
        return Err(wrong("the first part is not a SHA-256 hash in lower-case hex"));
    }
    if salt.len() > SALT_LIMIT || salt.len() % 2 != 0 || !is_hex(salt) {
        return Err(wrong("the second part is not a salt in lower-case hex"));
    }
    // No sign and no zeros in front: `u64::from_str` takes both.
    let blocks = blocks
        .parse::<u64>()
        .ok()
        .filter(|number| number.to_string() == blocks && (1..=BLOCKS_LIMIT).contains(number))
        .ok_or_else(|| wrong("the third part is not a number of blocks"))?;
    Ok(Root {
        hash: hash.into(),
        salt: salt.into(),
        blocks,
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn takes_the_one_word() {
        let line = format!("console=ttyS0,115200 aicert.root={HASH}:c0ffee:77 panic=-1\n");
        let root = root(&line).unwrap();
        assert_eq!(
            (root.hash.as_str(), root.salt.as_str(), root.blocks),
            (HASH, "c0ffee", 77)
        );
    }

    #[test]
    fn refuses_everything_else() {
        for (line, why) in [
            ("quiet".to_owned(), "has no word"),
            (
                format!("aicert.root={HASH}::1 aicert.root={HASH}::1"),
                "more than one",
            ),
            (format!("aicert.root={HASH}:00"), "three parts"),
            (format!("aicert.root={HASH}:00:1:2"), "three parts"),
            (format!("aicert.root={}:00:1", &HASH[1..]), "first part"),
            (format!("aicert.root={}:00:1", HASH.to_uppercase()), "first part"),
            (format!("aicert.root={HASH}:0:1"), "second part"),
            (
                format!("aicert.root={HASH}:{}:1", "00".repeat(257)),
                "second part",
            ),
            (format!("aicert.root={HASH}:00:0"), "third part"),
            (format!("aicert.root={HASH}:00:+1"), "third part"),
            (format!("aicert.root={HASH}:00:01"), "third part"),
            (
                format!("aicert.root={HASH}:00:99999999999999999999"),
                "third part",
            ),
        ] {
            let message = root(&line).unwrap_err().to_string();
            assert!(message.contains(why), "{line}: {message}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,200}") {
            let _ = root(&line);
        }

        #[test]
        fn reads_what_is_written(
            hash in "[0-9a-f]{64}", salt in "([0-9a-f]{2}){0,40}", blocks in 1u64..=BLOCKS_LIMIT, before in "[a-z ]{0,20}",
        ) {
            let line = format!("{before} aicert.root={hash}:{salt}:{blocks}");
            prop_assert_eq!(root(&line).unwrap(), Root { hash, salt, blocks });
        }
    }
}
