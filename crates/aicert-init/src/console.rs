//! The console: one line for each step.
//!
//! Lines go through the kernel's log, which is what writes them to the console, with the seconds since boot. So they stand
//! in order between the kernel's own messages, a panic's among them; they are out when `write` returns; and nobody at
//! the other end of a serial line can hold this process up, as flow control of a terminal could.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;

/// What stands before each line of this program.
const NAME: &str = "aicert-init: ";

/// `/dev/kmsg` refuses longer records (Linux 6.1, kernel/printk/printk.c, `LOG_LINE_MAX`).
const LINE_LIMIT: usize = 900;

/// How important a line is: the number of the kernel's log levels. `loglevel=5` on the command line shows all up to 4.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Error = 3,
    Shown = 4,
}

/// Says how far the machine is.
macro_rules! say {
    ($($text:tt)*) => { $crate::console::line($crate::console::Level::Shown, &format!($($text)*)) };
}
pub(crate) use say;

/// Writes a line of this program.
pub(crate) fn line(level: Level, text: &str) {
    record(level, NAME, text);
}

/// Writes a line of `name`; what is too long goes on in the next line.
pub(crate) fn record(level: Level, name: &str, text: &str) {
    let text = printable(text);
    let mut rest = text.as_str();
    loop {
        let (now, later) = split(rest, LINE_LIMIT - name.len().min(LINE_LIMIT / 2));
        write(level, name, now);
        if later.is_empty() {
            return;
        }
        rest = later;
    }
}

fn write(level: Level, name: &str, text: &str) {
    static LOG: OnceLock<File> = OnceLock::new();
    // A console that cannot be written to is no reason to stop, and there is nowhere else to say so.
    let _ = match LOG.get() {
        Some(mut log) => log.write_all(format!("<{}>{name}{text}\n", level as u8).as_bytes()),
        None => match OpenOptions::new().write(true).open("/dev/kmsg") {
            Ok(log) => {
                let mut log = LOG.get_or_init(|| log);
                log.write_all(format!("<{}>{name}{text}\n", level as u8).as_bytes())
            }
            Err(_) => std::io::stderr().write_all(format!("{name}{text}\n").as_bytes()),
        },
    };
}

/// Without what could steer a terminal, and in one line.
fn printable(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Splits off at most `limit` bytes, at the boundary of a character.
fn split(text: &str, limit: usize) -> (&str, &str) {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Only a limit shorter than one character leaves nothing; then all goes out at once.
    text.split_at(if end == 0 { text.len() } else { end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_control_characters_out() {
        assert_eq!(printable("a\x1b[2J\tb\n"), "a [2J b");
    }

    proptest! {
        #[test]
        fn splits_without_loss(text in ".{0,400}", limit in 1usize..40) {
            let mut parts = String::new();
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (now, later) = split(rest, limit);
                prop_assert!(!now.is_empty());
                prop_assert!(now.len() <= limit.max(4) || limit < 4);
                parts.push_str(now);
                rest = later;
            }
            prop_assert_eq!(parts, text);
        }
    }
}
