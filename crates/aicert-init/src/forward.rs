//! What the services print, line by line, on its way to the console.
//!
//! A service never waits for the console: lines that come faster than it takes them are left out, and how many is said.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::console::{self, Level};

/// How many lines may wait.
const QUEUE: usize = 1000;

/// The longest line, in bytes; what is longer becomes several.
const LINE_LIMIT: u64 = 4096;

/// Forwards all that comes from `source`, in the background.
pub(crate) fn start(name: &'static str, source: impl Read + Send + 'static) {
    let (sender, receiver) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let lost = Arc::clone(&dropped);
    thread::spawn(move || read(source, &sender, &lost));
    thread::spawn(move || {
        let prefix = format!("{name}: ");
        write(&receiver, &dropped, |line| {
            // Who says who it is need not be introduced.
            let line = line.strip_prefix(&prefix).unwrap_or(line);
            console::record(Level::Shown, &prefix, line);
        });
    });
}

fn read(source: impl Read, lines: &SyncSender<String>, dropped: &AtomicU64) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        match source.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match lines.try_send(String::from_utf8_lossy(&line).trim_end().to_owned()) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

fn write(lines: &Receiver<String>, dropped: &AtomicU64, mut out: impl FnMut(&str)) {
    for line in lines {
        out(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            out(&format!("({lost} lines came too fast and were left out)"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &[u8], queue: usize) -> Vec<String> {
        let (sender, receiver) = sync_channel(queue);
        let dropped = AtomicU64::new(0);
        read(text, &sender, &dropped);
        drop(sender);
        let mut out = Vec::new();
        write(&receiver, &dropped, |line| out.push(line.to_owned()));
        out
    }

    #[test]
    fn splits_lines() {
        assert_eq!(
            forward(b"one\ntwo\xff\r\nthree", 9),
            ["one", "two\u{fffd}", "three"]
        );
    }

    #[test]
    fn bounds_a_line() {
        let lines = forward(&[b'x'; 10_000], 9);
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [4096, 4096, 1808]);
    }

    #[test]
    fn says_what_it_leaves_out() {
        assert_eq!(
            forward(b"1\n2\n3\n4\n", 2),
            ["1", "(2 lines came too fast and were left out)", "2"]
        );
    }
}
