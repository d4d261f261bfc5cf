//! The last line against machines that nobody turns off: the server ends after the lifetime that the provisioning document gives it,
//! and should it hang, this process does, some minutes later.

use std::thread;
use std::time::Duration;

use crate::console::say;
use crate::failure::Failure;
use crate::power;

/// How much longer than to its end the server may take to end.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Longer than any job.
const LONGEST: u64 = 366 * 24 * 60 * 60;

/// The field of the document.
const FIELD: &[u8] = b"lifetime_seconds";

/// Turns the machine off when the lifetime in the document, and some grace, are over, whatever runs then.
pub(crate) fn watch(document: &[u8]) {
    let Some(lifetime) = lifetime(document) else {
        return;
    };
    let limit = lifetime + GRACE;
    say!("lifetime: the machine is turned off after {} s", limit.as_secs());
    thread::spawn(move || {
        thread::sleep(limit);
        power::fail(&Failure::new(
            format!("the machine runs for {} s", limit.as_secs()),
            "its lifetime is over, and the server did not end",
        ));
    });
}

/// The one number that is looked for here. What else is in the document, and whether it is one at all, the server says.
fn lifetime(document: &[u8]) -> Option<Duration> {
    let mut rest = document;
    let mut depth = 0u32;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let (text, after) = text(rest)?;
                rest = after;
                if depth == 1
                    && text == FIELD
                    && let Some(value) = rest.trim_ascii_start().strip_prefix(b":")
                {
                    return seconds(value.trim_ascii_start());
                }
            }
            _ => {}
        }
    }
    None
}

/// What is in quotation marks, and what follows them.
fn text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        match rest.get(at)? {
            b'"' => return Some((rest.get(..at)?, rest.get(at + 1..)?)),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn seconds(value: &[u8]) -> Option<Duration> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = str::from_utf8(value.get(..digits)?).ok()?;
    // A number that is too long is a long time.
    let seconds = match number.parse::<u64>() {
        Ok(seconds) => seconds.min(LONGEST),
        Err(_) if digits > 0 => LONGEST,
        Err(_) => return None,
    };
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_number() {
        for (document, seconds) in [
            (r#"{"lifetime_seconds":3600}"#, Some(3600)),
            (
                "{ \"a\" : {\"lifetime_seconds\": 1}, \"lifetime_seconds\"\n:\t 7 , \"b\": [2] }",
                Some(7),
            ),
            (
                r#"{"a":"\"lifetime_seconds\":5","b":["lifetime_seconds"],"lifetime_seconds":6}"#,
                Some(6),
            ),
            (r#"{"a":"lifetime_seconds","lifetime_seconds":8}"#, Some(8)),
            (r#"{"lifetime_seconds":99999999999999999999999}"#, Some(LONGEST)),
            (r#"{"lifetime_seconds":null}"#, None),
            (r#"{"lifetime_seconds":-1}"#, None),
            (r#"{"lifetime_seconds":"5"}"#, None),
            (r#"{"lifetime_seconds"#, None),
            (r#"{"idle_seconds":5}"#, None),
            (r#"[{"lifetime_seconds":5}]"#, None),
            ("", None),
        ] {
            let found = lifetime(document.as_bytes());
            assert_eq!(found, seconds.map(Duration::from_secs), "{document}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), tail: bool) {
            let mut document = bytes;
            if tail {
                document.splice(0..0, *br#"{"lifetime_seconds": "#);
            }
            prop_assert!(lifetime(&document).is_none_or(|lifetime| lifetime.as_secs() <= LONGEST));
        }
    }
}
